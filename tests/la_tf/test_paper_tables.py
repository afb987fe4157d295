"""The paper's numbers, some cells checked against it by hand, and how much of them there is."""

import pytest

from la_tf.paper_tables import DATA_SETS, TABLES, backbone_letter, backbone_title, count


def number(table, section, name, column):
    (row,) = [row for row in TABLES[table].sections[section] if row.name == name]
    return row.numbers[TABLES[table].columns.index(column)]


@pytest.mark.parametrize(
    ("table", "section", "name", "column", "expected"),
    [
        ("1", "AlexNet", "SplitBrain", "KNN", 11.8),
        ("1", "AlexNet", "DC", "conv3", 41.0),
        ("1", "AlexNet", "DC", "KNN", None),
        ("1", "VGG16", "IR(with BN)", "conv5", 50.4),
        ("1", "ResNet-18", "LA", "conv1", 9.1),
        ("1", "ResNet-50", "LA", "conv5", 60.2),
        ("1", "ResNet-50", "LA", "KNN", 49.4),
        ("2", "AlexNet", "Color", "conv1", 22.0),
        ("2", "ResNet-50", "DC", "conv5", 38.9),
        ("3", "", "Supervised", "R_Faster", 74.6),
        ("3", "", "Trans", "V_Fast", 63.2),
        ("3", "", "LA", "A_Fast", None),
        ("3", "", "LA", "A_Faster", 53.5),
        ("4", "", "NN performance", "Cluster-based", 33.2),
        ("5", "", "NN", "N_k'", 0.1),
        ("5", "", "NN", "(10, 30k)", 37.9),
        ("S1", "", "(6, 10k)", "V", 39.7),
        ("S1", "", "(1, 1k)", "A", None),
        ("S2", "", "LA - R18", "KNN", 40.3),
        ("S3", "", "k = 2048", "NN perf.", 35.4),
    ],
)
def test_cells(table, section, name, column, expected):
    assert number(table, section, name, column) == expected


def test_sizes():
    rows = {name: [len(rows) for rows in table.sections.values()] for name, table in TABLES.items()}
    assert rows == {
        "1": [10, 4, 3, 3], "2": [9, 4, 3, 3], "3": [8], "4": [1], "5": [1], "S1": [7], "S2": [8], "S3": [5],
    }  # fmt: skip
    columns = {name: len(table.columns) for name, table in TABLES.items()}
    assert columns == {"1": 6, "2": 5, "3": 5, "4": 3, "5": 6, "S1": 4, "S2": 1, "S3": 1}
    for table in TABLES.values():
        for row in (row for rows in table.sections.values() for row in rows):
            assert len(row.numbers) == len(table.columns), row.label
            assert all(number is None or 0 < number < 100 for number in row.numbers), row.label


def test_what_two_tables_share_agrees():
    """The baseline of the ablations is one network: Tables 4, 5, S1 and S3 have it all."""
    baseline = number("S3", "", "Baseline", "NN perf.")
    assert baseline == number("4", "", "NN performance", "N_4096") == number("5", "", "NN", "(1, 10k)")
    for column in ("(1, 10k)", "(3, 10k)", "(10, 10k)", "(10, 30k)"):
        assert number("5", "", "NN", column) == number("S1", "", column, "R-18")


def test_names_of_rows_are_labels_without_what_is_behind_them():
    labels = [row.label for row in TABLES["1"].sections["AlexNet"]]
    names = [row.name for row in TABLES["1"].sections["AlexNet"]]
    assert labels[-4:] == ["IR [67]", "IR(with BN)*", "DC [6]", "LA (ours)"]
    assert names[-4:] == ["IR", "IR(with BN)", "DC", "LA"]


def test_words():
    assert [backbone_title(name) for name in ("alexnet", "vgg16", "resnet10", "else")] == [
        "AlexNet", "VGG16", "ResNet-10", "else",
    ]  # fmt: skip
    assert [backbone_letter(name) for name in ("alexnet", "resnet50")] == ["A", "R-50"]
    assert [count(number) for number in (1000, 30000, 34)] == ["1k", "30k", "34"]


def test_imagenet_is_told_from_others():
    imagenet = DATA_SETS["ImageNet"]
    assert imagenet.is_this({"classes": 1000, "train": 1_281_167})
    assert imagenet.is_this({"classes": 1000, "train": 1_281_000})  # some pictures were bad
    assert not imagenet.is_this({"classes": 1000, "train": 128_117})
    assert not imagenet.is_this({"classes": 100, "train": 1_281_167})
