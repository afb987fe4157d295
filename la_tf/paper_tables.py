"""The paper's tables: Zhuang, Zhai, Yamins, "Local Aggregation for Unsupervised Learning of Visual Embeddings" (2019).

All numbers are per cent; `–` is the paper's own sign for a number that it does not have. S1 to S3 are Tables 1 to 3 of
the supplement.
"""

import re
from dataclasses import dataclass

NONE = "–"
N = 1_281_167  # training images of ImageNet


@dataclass(frozen=True)
class Row:
    """A row as the paper prints it: label, and one number, or None, for each column."""

    label: str
    numbers: tuple[float | None, ...]

    @property
    def name(self):
        """What the row is about: the label without (ours), the reference and the asterisk."""
        return re.sub(r"\s*(\(ours\)|\[\d+\]|\*)$", "", self.label)


@dataclass(frozen=True)
class Table:
    """A table of the paper: sections of rows; a table without sections has one with an empty title."""

    name: str
    caption: str
    data: str  # set that the numbers are on
    head: str  # of the column of labels
    columns: tuple[str, ...]
    sections: dict[str, tuple[Row, ...]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataSet:
    """What tells the paper's data set from others."""

    classes: int
    train: int
    test: int | None = None  # images, where other subsets are in use

    def is_this(self, dataset):
        """Whether the `dataset` of a result is this one, to a thousandth of its training images."""
        if self.test and dataset.get("test") != self.test:
            return False
        return dataset.get("classes") == self.classes and abs(dataset.get("train", 0) / self.train - 1) < 1e-3


DATA_SETS = {
    "ImageNet": DataSet(1000, N),
    "Places205": DataSet(205, 2_448_873),
    "PASCAL VOC 2007": DataSet(20, 5011, test=4952),
}
SECTIONS = {"alexnet": "AlexNet", "vgg16": "VGG16"}
LETTERS = {"alexnet": "A", "vgg16": "V"}


def backbone_title(backbone):
    """Returns a backbone's name as the paper's sections have it: "ResNet-18"."""
    return SECTIONS.get(backbone) or re.sub(r"^resnet(\d+)$", r"ResNet-\1", backbone)


def backbone_letter(backbone, hyphen="-"):
    """Returns a backbone's name as the paper's columns have it: "A", "V", "R-18"."""
    return LETTERS.get(backbone) or re.sub(r"^resnet(\d+)$", rf"R{hyphen}\1", backbone)


def count(number):
    """Returns a number of clusters as the paper writes it: 10000 is 10k."""
    return f"{number // 1000}k" if number % 1000 == 0 else str(number)


def _rows(text):
    """{section: rows} of lines of cells with bars between them; a line without a bar is the title of a section."""
    sections, title = {}, ""
    for line in filter(None, map(str.strip, text.splitlines())):
        label, *numbers = [cell.strip() for cell in line.split("|")]
        if not numbers:
            title = label
        else:
            row = Row(label, tuple(None if number == NONE else float(number) for number in numbers))
            sections[title] = (*sections.get(title, ()), row)
    return sections


_ASTERISK = "*: the paper's authors trained it themselves; (ours): theirs; [n]: the paper's reference."

_TABLES = (
    Table(
        "1",
        "ImageNet transfer learning and KNN classifier performance",
        "ImageNet",
        "Method",
        ("conv1", "conv2", "conv3", "conv4", "conv5", "KNN"),
        _rows("""
            AlexNet
            Random          | 11.6 | 17.1 | 16.9 | 16.3 | 14.1 | 3.5
            Context [13]    | 16.2 | 23.3 | 30.2 | 31.7 | 29.6 | –
            Color [70]      | 13.1 | 24.8 | 31.0 | 32.6 | 31.8 | –
            Jigsaw [48]     | 19.2 | 30.1 | 34.7 | 33.9 | 28.3 | –
            Count [49]      | 18.0 | 30.6 | 34.3 | 32.5 | 25.7 | –
            SplitBrain [71] | 17.7 | 29.3 | 35.4 | 35.2 | 32.8 | 11.8
            IR [67]         | 16.8 | 26.5 | 31.8 | 34.1 | 35.6 | 31.3
            IR(with BN)*    | 18.4 | 30.1 | 34.4 | 39.2 | 39.9 | 34.9
            DC [6]          | 13.4 | 32.3 | 41.0 | 39.6 | 38.2 | –
            LA (ours)       | 18.7 | 32.7 | 38.1 | 42.3 | 42.4 | 38.1
            VGG16
            IR              | 16.5 | 21.4 | 27.6 | 35.1 | 39.2 | 33.9
            IR(with BN)*    | 13.2 | 18.7 | 27.3 | 39.8 | 50.4 | 42.1
            DC*             | 18.2 | 27.5 | 41.5 | 51.3 | 52.7 | –
            LA (ours)       | 14.3 | 23.4 | 28.3 | 44.5 | 57.6 | 46.6
            ResNet-18
            IR              | 16.0 | 19.9 | 29.8 | 39.0 | 44.5 | 41.0
            DC*             | 16.4 | 17.2 | 28.7 | 44.3 | 49.1 | –
            LA (ours)       | 9.1  | 18.7 | 34.8 | 48.4 | 52.8 | 45.0
            ResNet-50
            IR              | 15.3 | 18.8 | 24.9 | 40.6 | 54.0 | 46.5
            DC*             | 18.9 | 27.3 | 36.7 | 52.4 | 44.2 | –
            LA (ours)       | 10.2 | 23.3 | 39.3 | 49.0 | 60.2 | 49.4
        """),
        (f"{_ASTERISK} The paper's readouts are means of 10 crops; K = 200.",),
    ),
    Table(
        "2",
        "Places transfer learning performance of networks trained on ImageNet",
        "Places205",
        "Method",
        ("conv1", "conv2", "conv3", "conv4", "conv5"),
        _rows("""
            AlexNet
            Random          | 15.7 | 20.3 | 19.8 | 19.1 | 17.5
            Context [13]    | 19.7 | 26.7 | 31.9 | 32.7 | 30.9
            Color [70]      | 22.0 | 28.7 | 31.8 | 31.3 | 29.7
            Jigsaw [48]     | 23.0 | 32.1 | 35.5 | 34.8 | 31.3
            SplitBrain [71] | 21.3 | 30.7 | 34.0 | 34.1 | 32.5
            IR [67]         | 18.8 | 24.3 | 31.9 | 34.5 | 33.6
            IR(with BN)*    | 21.3 | 33.0 | 36.5 | 39.2 | 38.7
            DC [6]          | 19.6 | 33.2 | 39.2 | 39.8 | 34.7
            LA (ours)       | 18.7 | 32.7 | 38.2 | 40.3 | 39.5
            VGG16
            IR              | 17.6 | 23.1 | 29.5 | 33.8 | 36.3
            IR(with BN)*    | 17.3 | 22.9 | 27.3 | 39.3 | 45.8
            DC*             | 21.5 | 31.6 | 40.9 | 45.2 | 44.2
            LA (ours)       | 20.1 | 25.9 | 31.9 | 44.0 | 50.0
            ResNet-18
            IR              | 17.8 | 23.0 | 30.1 | 37.0 | 38.1
            DC*             | 16.4 | 22.5 | 30.5 | 40.4 | 41.8
            LA (ours)       | 18.9 | 26.7 | 36.5 | 44.7 | 45.6
            ResNet-50
            IR              | 18.1 | 22.3 | 29.7 | 42.1 | 45.5
            DC*             | 20.1 | 29.1 | 35.3 | 43.2 | 38.9
            LA (ours)       | 10.3 | 26.4 | 39.9 | 47.2 | 50.1
        """),
        (_ASTERISK,),
    ),
    Table(
        "3",
        "PASCAL VOC 2007 detection mAP",
        "PASCAL VOC 2007",
        "Method",
        ("A_Fast", "A_Faster", "V_Fast", "V_Faster", "R_Faster"),
        _rows("""
            Supervised   | 56.8 | 54.3 | 67.3 | 70.0 | 74.6
            Jigsaw [48]  | 53.2 | –    | –    | –    | –
            Video [63]   | 47.2 | –    | 60.2 | –    | –
            Context [13] | 51.1 | –    | 61.5 | –    | –
            Trans [64]   | –    | –    | 63.2 | –    | –
            IR [67]      | 48.1 | 53.1 | 60.5 | 65.6 | 65.4
            DC           | 55.4 | –    | 65.9 | –    | –
            LA (ours)    | –    | 53.5 | –    | 68.4 | 69.1
        """),
        (
            "A: AlexNet, V: VGG16, R: ResNet-50; Fast, Faster: Fast and Faster R-CNN. (ours): the paper's authors' "
            "own; [n]: the paper's reference.",
            "Faster R-CNN: the paper's means of three runs, with deviations near 0.2; IR's ResNet-50 is the number of "
            "IR's authors.",
        ),
    ),
    Table(
        "4",
        "Nearest neighbor validation performances of ResNet-18 trained with different choices of B_i",
        "ImageNet",
        "Choice of B_i",
        ("{1, 2, ..., N}", "Cluster-based", "N_4096"),
        _rows("NN performance | 30.2 | 33.2 | 35.7"),
        ("The paper: C_i of H = 1, m = 10000; cluster-based B_i of H = 3, m = 1000.",),
    ),
    Table(
        "5",
        "Nearest neighbor validation performances of ResNet-18 trained with different choices of C_i",
        "ImageNet",
        "C_i",
        ("{i}", "N_k'", "(1, 10k)", "(3, 10k)", "(10, 10k)", "(10, 30k)"),
        _rows("NN | 33.9 | 0.1 | 35.7 | 36.2 | 36.1 | 37.9"),
        ("(H, m): H clusterings of m clusters. The paper: N_4096 as B_i.",),
    ),
    Table(
        "S1",
        "Nearest neighbor validation performances of different architectures trained with different choices of C_i",
        "ImageNet",
        "Network Setting",
        ("A", "V", "R-18", "R-50"),
        _rows("""
            (1, 1k)   | –    | –    | 35.2 | –
            (1, 10k)  | 30.6 | 38.9 | 35.7 | 40.2
            (1, 20k)  | –    | –    | 35.0 | –
            (3, 10k)  | 31.1 | –    | 36.2 | –
            (6, 10k)  | 30.4 | 39.7 | 37.3 | 42.4
            (10, 10k) | –    | –    | 36.1 | 42.3
            (10, 30k) | –    | –    | 37.9 | 43.4
        """),
        ("A: AlexNet, V: VGG16, R: ResNet. (H, m): H clusterings of m clusters.",),
    ),
    Table(
        "S2",
        "KNN results for Places 205 of networks trained on ImageNet",
        "Places205",
        "Network",
        ("KNN",),
        _rows("""
            IR with BN - A | 36.9
            LA - A         | 37.5
            IR with BN - V | 40.1
            LA - V         | 41.9
            IR - R18       | 38.6
            LA - R18       | 40.3
            IR - R50       | 41.6
            LA - R50       | 42.4
        """),
        ("A: AlexNet, V: VGG16, R: ResNet. K = 200.",),
    ),
    Table(
        "S3",
        "Nearest neighbor validation performances for ResNet-18 trained with different settings",
        "ImageNet",
        "Setting",
        ("NN perf.",),
        _rows("""
            Baseline    | 35.7
            k = 2048    | 35.4
            k = 8192    | 35.8
            center_crop | 35.8
            more_freq   | 35.7
        """),
        (
            "The paper's baseline: H = 1, m = 10000, k = 4096. center_crop: clusters of the network outputs on center "
            "crops; more_freq: clusters anew every 1000 steps.",
        ),
    ),
)
TABLES = {table.name: table for table in _TABLES}
