"""What people write: annotations, lists, specs, flags."""

import os
import re
from xml.etree import ElementTree

from data.errors import FlagError
from data.sources import open_dataset
from data.spec import parse_spec
from data.voc import open_set, read_classes
from data.voc_xml import read_annotation
from tests.fuzz import octets, picture_files, texts, xml_trees
from tests.fuzz.subjects import Subject, each

ANNOTATION = """<annotation><folder>VOC2012</folder><filename>a.jpg</filename>
<size><width>32</width><height>24</height><depth>3</depth></size><segmented>0</segmented>
<object><name>person</name><part><name>head</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax>
</bndbox></part><difficult>1</difficult><bndbox><xmin>2</xmin><ymin>3.5</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>
</object><object><name>dog</name><truncated>0</truncated><difficult>0</difficult><bndbox><ymax>20</ymax><ymin>1</ymin>
<xmax>1.6e1</xmax><xmin>5</xmin></bndbox></object></annotation>"""


def voc_xml(folder) -> Subject:
    """One annotation."""
    root, path = ElementTree.fromstring(ANNOTATION), folder / "a.xml"

    def read(data):
        path.write_bytes(data)
        read_annotation(str(path))

    return Subject(
        lambda numbers: xml_trees.document(root, numbers), xml_trees.parses, read, ("data/voc_xml.py",), (ValueError,)
    )


def voc_set(folder) -> Subject:
    """A devkit of which the list, the list of classes, an annotation or a picture is changed: the first byte says."""
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    root, jpegs = ElementTree.fromstring(ANNOTATION), picture_files.jpegs()
    ids = "2007_000027\n2007_000032  1\n\n2007_000033 -1\n"
    seeds = {
        b"l": (folder / "ImageSets/Main/train.txt", ids.encode()),
        b"c": (folder / "classes.txt", b"person\ndog\ncat\n"),
        b"x": (folder / "Annotations/2007_000027.xml", ANNOTATION.encode()),
        b"p": (folder / "JPEGImages/2007_000027.jpg", jpegs[0]),
    }
    (folder / "Annotations/2007_000032.xml").write_text(ANNOTATION)
    (folder / "JPEGImages/2007_000032.png").write_bytes(picture_files.others()[0])

    def mutate(numbers):
        part = numbers.choice((b"l", b"l", b"c", b"x", b"p"))
        if part == b"x":
            return part + xml_trees.document(root, numbers)
        if part == b"p":
            return part + picture_files.changed_jpeg(numbers.choice(jpegs), numbers)
        return part + texts.lines(seeds[part][1].decode(), numbers)

    def read(data):
        for part, (path, intact) in seeds.items():
            path.write_bytes(data[1:] if data.startswith(part) else intact)
        classes = read_classes(str(folder / "classes.txt"))
        open_set(str(folder), "train", classes).pictures  # noqa: B018

    return Subject(
        mutate,
        lambda data: data[:1] != b"x" or xml_trees.parses(data[1:]),
        read,
        ("data/voc_files.py", "data/voc.py", "data/picture_size.py"),
    )


LISTS = (
    "a/abbey/1.jpg 0\na/abbey/2.jpg 0\nb/my pictures/1.jpg 1\n",
    "1.jpg,new york\n2.jpg,paris\n3.jpg,new york\n",
    'file,width,class\n1.jpg,20,cat\n"2.jpg",30,dog\n3.jpg,,cat\n',
    "path;label\n1.jpg;3\n2.jpg;-1\n",
    "1.jpg\n2.jpg\n3.jpg\n",
    '"1.jpg",7\n"b, c/2.jpg",8\n',
    "image\tcategory_id\tlabel\n1.jpg\t1\t0\n",
)


def list_file(folder) -> Subject:
    """list: of the one that is changed and a test list that is not."""
    (folder / "1.jpg").write_bytes(picture_files.jpegs()[0])
    (folder / "val.txt").write_text("1.jpg 0\n")
    path = folder / "train.txt"

    def mutate(numbers):
        return texts.lines(numbers.choice(LISTS), numbers)

    def read(data):
        path.write_bytes(data)
        dataset = open_dataset(f"list:{path}", image_root=str(folder))
        assert len(dataset.train.labels) == len(dataset.train.names) > 0
        dataset.train.fingerprint, dataset.class_count  # noqa: B018

    return Subject(mutate, lambda data: bool(data.strip()), read, ("data/list_file.py",))


def spec(folder) -> Subject:
    """A spec, opened where it is not one that reaches for the network."""
    (folder / "train").mkdir()
    for name in ("a.jpg", "b.png"):
        (folder / "train" / name).write_bytes(picture_files.jpegs()[0])
    (folder / "list.txt").write_text("train/a.jpg\n")
    seeds = (
        "digits",
        f"folder:{folder}",
        f"list:{folder}/list.txt",
        f"tfrecord:{folder}/train-*",
        "tfds:cifar10:3.0.2",
    )

    def mutate(numbers):
        text = texts.lines(numbers.choice(seeds), numbers)
        return octets.changed(text, numbers) if numbers.random() < 0.2 else text

    def read(data):
        text = os.fsdecode(data)
        form, _ = parse_spec(text)
        if form not in ("tfds", "digits"):
            open_dataset(text)

    def parses(data):
        return data.partition(b":")[0] in (b"digits", b"folder", b"list", b"tfrecord", b"tfds")

    return Subject(mutate, parses, read, ("data/spec.py", "data/sources.py", "data/folder.py", "data/records.py"))


VALUES = (
    "", "0", "1", "-1", "0.5", "1e3", "1e999", "nan", "inf", "-inf", "9" * 30, "9" * 5000, "true", "false", "None",
    "la", "resnet18", "knn", "a,b", "1,2,3", "1,,2", ",", "0.1,0.2,0.3", "nan,nan,nan", "1epoch", "0epochs", "²",
    "1_000", "0x10", " 1", "digits", "folder:", "list:x", "sgd", "cosine", "float16", "\udcff", "\x00", "'", '"', "a b",
)  # fmt: skip


def flagfile(folder) -> Subject:
    """Flags of training in a flagfile, as far as a Config that fits N pictures."""
    from absl import flags

    from data import cli
    from la_tf import flags as la_flags
    from la_tf.resolve import resolve

    path, known = folder / "a.flags", flags.FLAGS
    names = sorted({flag.name for module in (la_flags, "data.flags") for flag in _flags_of(known, module)})

    def mutate(numbers):
        lines = ["--dataset=digits", "--model_dir=runs/a"]
        for _ in range(numbers.randint(1, 3)):
            name = numbers.choice(names)
            value = _likely(known[name], numbers) if numbers.random() < 0.7 else numbers.choice(VALUES)
            lines.append(numbers.choice((f"--{name}={value}", f"--{name}={value}", f"-{name} {value}", f"--no{name}")))
        if numbers.random() < 0.1:
            lines.append(
                numbers.choice((f"--flagfile={path}", "--flagfile=/nowhere", "--flagfile", "--undefok=a", "--"))
            )
        text = "\n".join(lines)
        return texts.lines(text, numbers, VALUES) if numbers.random() < 0.3 else text.encode("utf-8", "surrogateescape")

    def read(data):
        path.write_bytes(data)
        known.unparse_flags()
        for name in known:
            known[name].unparse()
        try:
            cli._parse_flags(["train", f"--flagfile={path}"], files=False)
        except SystemExit as left:
            assert left.code == 2, left.code
            raise FlagError("as the command has said") from None
        config = la_flags.config()
        each(la_flags.plan, la_flags.plan_sizes, lambda: resolve(config, 1437))

    def parses(data):
        return b"--dataset=digits" in data and b"\xff" not in data

    files = ("la_tf/config.py", "la_tf/flags.py", "la_tf/resolve.py", "data/config.py", "data/cli.py")
    return Subject(mutate, parses, read, files)


def _likely(flag, numbers):
    """What somebody may well give a flag."""
    kind = flag.flag_type()
    if kind == "int":
        return str(
            octets.boundary(numbers) if numbers.random() < 0.2 else numbers.choice((0, 1, 2, 3, 10, 64, 224, 1000))
        )
    if kind == "float":
        return str(numbers.choice((0.0, 0.01, 0.1, 0.5, 0.9, 1.0, 1.5, 90.0)))
    named = re.findall(r"[a-z][a-z0-9_]+", flag.help)  # the choices are in there
    return numbers.choice([str(flag.default), "true", *named])


def _flags_of(known, module):
    return known.flags_by_module_dict()[module if isinstance(module, str) else module.__name__]
