"""The paper's tables with our numbers: what goes where, what is averaged, what is said of it, in all formats."""

import csv
import io
import json
import re
import shutil
import statistics
import subprocess

import pytest

from data.errors import UserError
from la_tf import results
from la_tf.comparison import compare
from la_tf.paper_tables import TABLES
from la_tf.table_formats import csv_lines, latex, markdown
from tests.programs import ROOT, run

LA = {
    "background": "knn", "background_k": 128, "background_clusterings": 3, "background_clusters": 34,
    "close": "clusters", "close_k": 42, "clusterings": 10, "clusters": 34, "cluster_on": "bank",
    "cluster_every": "1epoch", "clustering": "kmeans",
}  # fmt: skip
KNN = {"neighbors": 200, "tau": 0.07, "bank": "saved"}
NEAREST = KNN | {"neighbors": 1}
LINEAR = {"pooling": "9k", "ten_crop": False, "fast": True, "weight_decay": 1e-4}
ENDPOINTS = ("conv1", "conv2", "conv3", "conv4", "conv5")


def record(
    outcome, protocol="knn", settings=None, *, method="la", backbone="resnet18", seed=0, own=True, data="digits",
    size=1437, width=64, image_size=224, batch_norm=True, split="test", selected_on="nothing", minute=0, step=1000,
    **config,
):  # fmt: skip
    """A line of results.jsonl; `config`: flags of the run."""
    flags = {"method": method, "batch_size": 128, "learning_rate": 0.03, "seed": seed} | (LA if method == "la" else {})
    subject = {
        "kind": "run", "method": method, "backbone": backbone, "width": width, "resnet_version": 2,
        "batch_norm": batch_norm, "sobel": method == "dc", "image_size": image_size, "seed": seed, "step": step,
        "weights": f"{method}-{seed}", "config": flags | config,
    }  # fmt: skip
    return {
        "time": f"2026-11-21T12:{minute:02d}:00+00:00", "protocol": protocol, "subject": subject,
        "dataset": {
            "spec": data, "hash": f"hash of {data}", "test_hash": "t", "own": own, "classes": 10, "train": size,
            "test": 360,
        },
        "settings": settings or {"knn": KNN, "linear": LINEAR}[protocol], "split": split, "selected_on": selected_on,
        "results": outcome, "versions": {}, "command": [], "seconds": 1.0,
    }  # fmt: skip


def knn(top1, **facts):
    return record({"top1": top1, "top5": 1.0}, **facts)


def nearest(top1, **facts):
    return record({"top1": top1}, settings=NEAREST, **facts)


def linear(*top1, crops=None, **facts):
    """Readouts of conv1, conv2, ...; `crops`: the accuracies with ten crops."""
    found = {name: {"top1": value, "features": 9216} for name, value in zip(ENDPOINTS, top1, strict=False)}
    for name, value in zip(ENDPOINTS, crops or (), strict=False):
        found[name]["ten_crop_top1"] = value
    return record(found, "linear", **facts)


def foreign(top1, **facts):
    made = record({"avg_pool": {"top1": top1, "features": 2048}}, "linear", own=None, **facts)
    made["subject"] = {"kind": "keras", "method": None, "name": "their_net", "weights": "0123", "seed": None}
    return made


def block(comparison, name, section=None):
    """The Block of a row by its name."""
    sections = comparison.sections.items()
    (found,) = [b for title, blocks in sections for b in blocks if b.name == name and section in (None, title)]
    return found


def texts(line):
    return {column: str(cell) for column, cell in line.cells.items()}


# -- which number goes where ------------------------------------------------------------------------------------------


def test_table_1_has_readouts_and_knn_of_the_pictures_trained_on():
    ours = [
        linear(0.101, 0.202, 0.303, 0.404, 0.505), knn(0.6), nearest(0.7), knn(0.8, own=False, data="folder:/x/other"),
        record({"10": {"pretrained": {"top1": 0.9}}}, "finetune", {"percent": [10]}),
    ]  # fmt: skip
    comparison = compare("1", ours)
    (line,) = block(comparison, "LA", "ResNet-18").lines
    assert texts(line) == {
        "conv1": "10.1", "conv2": "20.2", "conv3": "30.3", "conv4": "40.4", "conv5": "50.5", "KNN": "60.0",
    }  # fmt: skip
    assert comparison.lines == [line]


def test_tables_2_and_s2_have_other_pictures():
    ours = [linear(0.5, own=False), knn(0.6, own=False), linear(0.1), knn(0.2), nearest(0.3, own=False)]
    (line,) = compare("2", ours).lines
    assert texts(line) == {"conv1": "50.0"}
    (line,) = block(compare("S2", ours), "LA - R18").lines
    assert texts(line) == {"KNN": "60.0"}
    assert len(compare("S2", ours).lines) == 1


@pytest.mark.parametrize(
    ("facts", "section", "row", "of_paper"),
    [
        ({"method": "ir", "backbone": "alexnet", "batch_norm": False}, "AlexNet", "IR", "IR [67]"),
        ({"method": "ir", "backbone": "vgg16"}, "VGG16", "IR(with BN)", "IR(with BN)*"),
        ({"method": "ir", "backbone": "resnet50"}, "ResNet-50", "IR", "IR"),
        ({"method": "dc", "backbone": "resnet18"}, "ResNet-18", "DC", "DC*"),
        ({"method": "random", "backbone": "alexnet"}, "AlexNet", "Random", "Random"),
        ({"method": "random", "backbone": "vgg16"}, "VGG16", "Random", None),
        ({"method": "swav", "backbone": "resnet50"}, "ResNet-50", "SwAV", None),
        ({"method": "supervised", "backbone": "resnet50"}, "ResNet-50", "Supervised", None),
        ({"method": "la", "backbone": "resnet10"}, "ResNet-10", "LA", None),
    ],
)
def test_the_row_of_a_network(facts, section, row, of_paper):
    comparison = compare("1", [knn(0.5, **facts)])
    found = block(comparison, row, section)
    assert (found.paper and found.paper.label) == of_paper
    assert len(found.lines) == len(comparison.lines) == 1
    if facts["method"] != "la":
        assert found.lines[0].setting == ""  # all as in the paper


def test_s2_rows_name_batch_norm_as_the_paper_does():
    ours = [knn(0.5, method="ir", backbone="alexnet", own=False), knn(0.4, method="dc", backbone="resnet50", own=False)]
    comparison = compare("S2", ours)
    assert block(comparison, "IR with BN - A").paper.numbers == (36.9,)
    assert block(comparison, "DC - R50").paper is None


def test_a_foreign_network_has_a_row_by_its_name_and_a_column_by_its_layer():
    for table in ("1", "2"):
        comparison = compare(table, [knn(0.9), foreign(0.8), knn(0.7, backbone="resnet10")])
        (line,) = block(comparison, "their_net", "Other networks").lines
        assert texts(line) == {"avg_pool": "80.0§"}
        assert comparison.columns[-1] == "avg_pool"
        assert [*comparison.sections][-1] == "Other networks"
        assert any(note.startswith("§: it is not known") for note in comparison.notes)


def test_table_3_has_a_column_a_backbone_and_a_detector():
    ours = [
        record({"mAP": 0.5}, "detection", {"detector": "faster"}, backbone="resnet50", own=None, seed=0),
        record({"mAP": 0.6}, "detection", {"detector": "faster"}, backbone="resnet50", own=None, seed=1),
        record({"mAP": 0.4}, "detection", {"detector": "fast"}, backbone="vgg16", own=None),
        record({"mAP": 0.3}, "detection", {"detector": "faster"}, method="supervised", backbone="resnet18", own=None),
    ]
    comparison = compare("3", ours)
    (line,) = block(comparison, "LA").lines
    assert texts(line) == {"R_Faster": "55.0 ± 7.1", "V_Fast": "40.0"}
    assert line.runs == "n = 2, V_Fast: 1"
    (line,) = block(comparison, "Supervised").lines
    assert texts(line) == {"R-18_Faster": "30.0"}


def test_table_3_takes_the_mean_over_the_seeds_of_detectors_and_marks_smoke_runs():
    def detector(value, seed, minute, **settings):
        given = {"detector": "faster", "preset": "paper_la", "smoke": False, "seed": seed} | settings
        return record({"mAP": value}, "detection", given, backbone="resnet50", own=None, minute=minute)

    whole = [detector(value, seed, seed) for seed, value in enumerate((0.69, 0.70, 0.65))]
    again = detector(0.71, 2, 30)  # the newer one of its seed counts
    smoke = [detector(0.01, seed, 40, smoke=True, steps=40) for seed in (3, 4)]
    mean = detector(0.7, None, 50) | {"protocol": "detection_mean"}
    comparison = compare("3", [*whole, again, *smoke, mean])
    found = [(texts(line), line.runs, line.setting) for line in block(comparison, "LA").lines]
    assert found == [
        ({"R_Faster": "70.0 ± 1.0"}, "n = 3", ""),
        ({"R_Faster": "1.0 ± 0.0¶"}, "n = 2", ""),
    ]
    assert comparison.superseded == 1
    assert any(note.startswith("¶: a smoke run") for note in comparison.notes)
    assert "mathparagraph" in latex(comparison)


def test_table_3_tells_other_pictures_from_the_papers_and_those_learned_from():
    def caption(train, test, **settings):
        made = record({"mAP": 0.5}, "detection", {"detector": "faster"} | settings, backbone="resnet50", own=None)
        made["dataset"] |= {"spec": "voc:VOC 2007_trainval", "classes": 20, "train": train, "test": test}
        comparison = compare("3", [made])
        return comparison.caption, str(comparison.lines[0].cells["R_Faster"])

    assert caption(5011, 4952) == (
        compare("3", []).caption + " Lines with “here” are runs of la_tf on PASCAL VOC 2007.",
        "50.0",
    )
    assert "not PASCAL VOC 2007" in caption(5011, 200)[0]
    assert caption(5011, 4952, learned_test_pictures=3)[1] == "50.0‖"


ABLATION = {"clusterings": 1, "clusters": 11}  # 11 clusters of 1,437 pictures: 10,000 of ImageNet


def test_table_4_takes_the_nearest_neighbour_alone():
    ours = [
        nearest(0.1, **ABLATION, background="all"), nearest(0.2, **ABLATION, background="cluster"),
        nearest(0.3, **ABLATION), knn(0.9, **ABLATION), nearest(0.8, **ABLATION, close="self"),
        nearest(0.7, method="ir"), nearest(0.6, own=False, **ABLATION),
    ]  # fmt: skip
    (line,) = compare("4", ours).lines
    assert texts(line) == {"{1, 2, ..., N}": "10.0", "Cluster-based": "20.0", "N_4096": "30.0"}
    assert line.setting == "m 11; Cluster-based: m of B_i 34; N_4096: k 128"
    assert compare("1", ours).lines[0].cells["KNN"].mean == pytest.approx(90)


def test_table_5_places_m_by_its_share_of_n():
    ours = [
        nearest(0.1, close="self"), nearest(0.2, close="knn"), nearest(0.3, clusterings=1, clusters=11),
        nearest(0.4, clusterings=3, clusters=11), nearest(0.5, clusterings=10, clusters=34),
        nearest(0.6, clusterings=3, clusters=100), nearest(0.7, background="all"),
    ]  # fmt: skip
    comparison = compare("5", ours)
    (line,) = comparison.lines
    assert texts(line) == {
        "{i}": "10.0", "N_k'": "20.0", "(1, 10k)": "30.0", "(3, 10k)": "40.0", "(10, 30k)": "50.0", "(3, 100)": "60.0",
    }  # fmt: skip
    assert comparison.columns == (*TABLES["5"].columns, "(3, 100)")
    assert "(10, 30k): m 34" in line.setting and "(1, 10k): m 11" in line.setting and "m 100" not in line.setting


def test_the_papers_own_m_stands_at_its_place_whatever_n():
    """1,000 clusters of 42,700 pictures are as large as 30,000 of ImageNet."""
    comparison = compare("S1", [nearest(0.3, clusterings=1, clusters=1000, background_k=4096, size=42_700)])
    (line,) = block(comparison, "(1, 1k)").lines
    assert texts(line) == {"R-18": "30.0"} and line.setting == ""


def test_table_s1_has_a_row_a_clustering_and_a_column_a_backbone():
    ours = [
        nearest(0.3, **ABLATION, backbone="alexnet", step=900), nearest(0.4, **ABLATION), nearest(0.5),
        nearest(0.6, backbone="resnet10"),
    ]  # fmt: skip
    comparison = compare("S1", ours)
    (line,) = block(comparison, "(1, 10k)").lines
    assert texts(line) == {"A": "30.0", "R-18": "40.0"}
    (line,) = block(comparison, "(10, 30k)").lines
    assert texts(line) == {"R-18": "50.0", "R-10": "60.0"}


def test_table_s3_has_a_row_a_change():
    ours = [
        nearest(0.1, **ABLATION), nearest(0.2, **ABLATION | {"background_k": 64}),
        nearest(0.3, **ABLATION | {"background_k": 256}), nearest(0.4, **ABLATION, cluster_on="center_crops"),
        nearest(0.5, **ABLATION, cluster_every="3steps"), nearest(0.6, **ABLATION, cluster_every="1000steps"),
        nearest(0.7, **ABLATION | {"background_k": 300}),
    ]  # fmt: skip
    comparison = compare("S3", ours)
    found = {b.name: [str(line.cells["NN perf."]) for line in b.lines] for b in comparison.sections[""]}
    assert found == {
        "Baseline": ["10.0"], "k = 2048": ["20.0"], "k = 8192": ["30.0"], "center_crop": ["40.0"],
        "more_freq": ["50.0"], "less_freq": ["60.0"], "k = 300": ["70.0"],
    }  # fmt: skip
    assert "cluster every 3steps" in block(comparison, "more_freq").lines[0].setting


# -- what is averaged -------------------------------------------------------------------------------------------------


def test_seeds_are_averaged_by_hand():
    ours = [knn(value, seed=seed) for seed, value in enumerate((0.964, 0.978, 0.981))]
    (line,) = compare("1", ours).lines
    cell = line.cells["KNN"]
    assert cell.mean == pytest.approx(97.43333333)  # (96.4 + 97.8 + 98.1) / 3
    assert cell.sd == pytest.approx(0.90737717)  # sqrt((1.0333² + 0.3667² + 0.6667²) / 2)
    assert str(cell) == "97.4 ± 0.9" and line.runs == "n = 3"
    assert cell.sd == pytest.approx(statistics.stdev([96.4, 97.8, 98.1]))


def test_a_single_run_has_no_deviation():
    (line,) = compare("1", [knn(0.5)]).lines
    assert str(line.cells["KNN"]) == "50.0" and line.cells["KNN"].sd is None and line.runs == "n = 1"


def test_n_is_told_by_column_where_it_is_not_the_same():
    ours = [linear(0.1, 0.2), knn(0.5), knn(0.6, seed=1), knn(0.7, seed=2)]
    (line,) = compare("1", ours).lines
    assert line.runs == "n = 1, KNN: 3"


def test_of_one_seed_the_newest_counts_and_the_other_is_told():
    moved = knn(0.9, minute=1) | {"dataset": knn(0.9)["dataset"] | {"spec": "folder:/moved/digits"}}
    comparison = compare("1", [moved, knn(0.1, minute=0), knn(0.5, seed=1)])
    assert comparison.lines[0].cells["KNN"].values == pytest.approx((90, 50))
    assert comparison.superseded == 1


def test_readouts_of_some_layers_join_those_of_others():
    ours = [
        linear(0.1, settings=LINEAR | {"endpoints": ["conv1"]}),
        record({"conv5": {"top1": 0.5}}, "linear", LINEAR | {"endpoints": ["conv5"]}),
    ]
    (line,) = compare("1", ours).lines
    assert texts(line) == {"conv1": "10.0", "conv5": "50.0"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learning_rate": 0.1}, ["learning rate 0.03", "learning rate 0.1"]),
        ({"step": 2000}, ["step 1000", "step 2000"]),
        ({"width": 16}, ["", "width 16"]),
        ({"image_size": 96}, ["", "96 px"]),
        ({"batch_norm": False}, ["", "without BN"]),
        ({"clusterings": 3}, ["", "H 3"]),
        ({"settings": KNN | {"tau": 0.1}}, ["KNN: tau 0.07", "KNN: tau 0.1"]),
        ({"data": "folder:/x/scenes"}, ["digits", "scenes"]),
    ],
)
def test_runs_that_differ_have_lines_of_their_own_that_say_so(change, said):
    lines = compare("1", [knn(0.5), knn(0.6, seed=1), knn(0.7, **change)]).lines
    assert [line.setting for line in lines] == said
    assert [line.cells["KNN"].values for line in lines] == [pytest.approx((50, 60)), pytest.approx((70,))]


def test_many_differences_are_shortened_but_counted():
    changes = {"learning_rate": 0.1, "momentum": 0.5, "tau": 0.2, "weight_decay": 0.1}
    lines = compare("1", [knn(0.5), knn(0.7, **changes)]).lines
    assert all(line.setting.endswith("; and 3 other settings") for line in lines)
    assert lines[0].setting != lines[1].setting


def test_settings_of_one_protocol_do_not_part_the_other():
    ours = [knn(0.9), linear(0.1), linear(0.2, settings=LINEAR | {"pooling": "global"})]
    first, second = compare("1", ours).lines
    assert texts(first) == {"conv1": "10.0", "KNN": "90.0"} and texts(second) == {"conv1": "20.0"}
    assert (first.setting, second.setting) == ("Readouts: pooling 9k", "Readouts: pooling global")


def test_readouts_and_knn_of_different_runs_do_not_share_a_line():
    lines = compare("1", [linear(0.1, step=1000), knn(0.2, step=2000)]).lines
    assert [texts(line) for line in lines] == [{"conv1": "10.0"}, {"KNN": "20.0"}]


# -- what is said -----------------------------------------------------------------------------------------------------


def test_ten_crops_are_preferred_and_told():
    comparison = compare("1", [linear(0.5, crops=(0.55,))])
    assert texts(comparison.lines[0]) == {"conv1": "55.0"}
    assert any(note.startswith("Readouts, here: ") and "10 crops" in note for note in comparison.notes)
    both = compare("1", [linear(0.5, crops=(0.55,)), linear(0.4, seed=1)])
    assert [line.setting for line in both.lines] == ["Readouts: 10 crops", "Readouts: one crop"]


def test_numbers_selected_on_or_scored_on_other_splits_are_marked():
    ours = [linear(0.5, selected_on="test"), knn(0.6, split="validation"), knn(0.7, method="dc")]
    comparison = compare("1", ours)
    assert texts(block(comparison, "LA", "ResNet-18").lines[0]) == {"conv1": "50.0†", "KNN": "60.0‡"}
    assert texts(block(comparison, "DC", "ResNet-18").lines[0]) == {"KNN": "70.0"}
    assert "†: selected on the test split." in comparison.notes
    assert any(note.startswith("‡: scored on the validation") for note in comparison.notes)
    assert not any(note.startswith("†") for note in compare("1", [knn(0.5)]).notes)


def test_caption_and_notes_say_what_the_numbers_are_on():
    comparison = compare("1", [knn(0.5), linear(0.5)])
    assert "on digits, not ImageNet" in comparison.caption
    notes = "\n".join(comparison.notes)
    assert "digits: 1,437 training pictures, 360 test pictures, 10 classes." in notes
    assert "Readouts, here: pooling 9k, one crop, fast, weight decay 0.0001." in notes
    assert "KNN, here: K 200, tau 0.07, bank saved." in notes
    assert "Features read out, here (ResNet-18: LA): conv1 9,216." in notes


def test_imagenet_is_not_called_another_set():
    made = knn(0.5, data="tfrecord:/data/imagenet/train-*", size=1_281_167)
    made["dataset"]["classes"] = 1000
    caption = compare("1", [made]).caption
    assert "la_tf on ImageNet." in caption and "not ImageNet" not in caption


def test_two_sets_of_one_name_are_told_apart():
    made = [knn(0.5), knn(0.6)]
    made[1]["dataset"]["hash"] = "another"
    assert [line.setting for line in compare("1", made).lines] == ["digits hash o", "digits anothe"]
    made[1]["dataset"] |= {"hash": made[0]["dataset"]["hash"], "test_hash": "other test pictures"}
    assert [line.setting for line in compare("1", made).lines] == ["digits t", "digits other "]


# -- formats ----------------------------------------------------------------------------------------------------------


def markdown_rows(text):
    """The cells of a Markdown table, without its rule."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if not line.startswith("|:")]


def test_markdown_has_our_line_below_the_papers():
    rows = markdown_rows(markdown(compare("1", [knn(0.5), foreign(0.9)])))
    assert rows[0] == ["Method", *ENDPOINTS, "KNN", "avg_pool"]
    assert len(rows) == 1 + 4 + 20 + 1 + 2  # head, sections, the paper's rows, a section and two lines of ours
    place = rows.index(["LA (ours)", "9.1", "18.7", "34.8", "48.4", "52.8", "45.0", ""])
    assert rows[place + 1] == ["LA, here (n = 1)", "·", "·", "·", "·", "·", "50.0", "·"]
    assert ["DC [6]", "13.4", "32.3", "41.0", "39.6", "38.2", "–", ""] in rows
    assert ["**AlexNet**", *[""] * 7] in rows
    assert ["IR(with BN)\\*", "18.4", "30.1", "34.4", "39.2", "39.9", "34.9", ""] in rows


def test_a_table_without_ours_is_the_papers():
    for name, table in TABLES.items():
        comparison = compare(name, [])
        assert not comparison.lines and comparison.columns == table.columns
        assert "here" not in markdown(comparison)


def test_csv_has_a_line_a_cell():
    ours = [linear(0.51, 0.52), linear(0.53, 0.52, seed=1), knn(0.5, split="validation", method="swav")]
    lines = [*csv.DictReader(io.StringIO(csv_lines(compare("1", ours))))]
    cells = {(line["section"], line["row"], line["column"]): line for line in lines}
    assert len(cells) == len(lines) == 20 * 6 - 8 + 1  # every cell of the paper's that has a number, and SwAV's
    cell = cells["ResNet-18", "LA", "conv1"]
    assert float(cell["paper"]) == 9.1 and float(cell["here"]) == pytest.approx(52.0)
    assert float(cell["sd"]) == pytest.approx(2**0.5, abs=1e-5) and cell["n"] == "2"
    assert (cell["data_set"], cell["split"], cell["selected_on"]) == ("digits", "test", "nothing")
    cell = cells["ResNet-18", "SwAV", "KNN"]
    assert (cell["paper"], cell["here"], cell["sd"], cell["split"]) == ("", "50.0", "", "validation")
    assert cells["ResNet-18", "LA", "conv5"]["here"] == ""


NASTY = "a_b&50%#$^~\\{x}ö日<|>*`"


def nasty():
    """Results whose names hold what LaTeX and Markdown would take for commands."""
    made = [foreign(0.5, data="folder:/x/" + NASTY), foreign(0.6, data="digits"), knn(0.5, split="validation")]
    made += [linear(0.5, selected_on="test", seed=seed) for seed in range(2)]
    made[0]["subject"]["name"] = NASTY
    made[1]["subject"]["name"] = "[*]"
    return made


def test_latex_escapes_what_would_be_a_command():
    text = latex(compare("1", nasty()))
    assert text.isascii()
    assert r"a\_b\&50\%\#\$" in text and r"\{x\}o?" in text
    for cell in (r"50.0 $\pm$ 0.0$\dagger$", r"50.0$\ddagger$", r"50.0$\mathsection$", r"$\cdot$", "--"):
        assert f" {cell} " in text
    assert re.search(r"(?m)^ \{\[\}\*\], here", text)  # behind a line break, [ would begin its argument
    for command in (r"\toprule", r"\midrule", r"\bottomrule", r"\caption{", r"\begin{table}", r"\end{table}"):
        assert command in text
    assert not re.search(r"(?<!\\)[%&#]", re.sub(r" &|  %", "", text))


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_latex_compiles(tmp_path):
    tables = "\n".join(latex(compare(name, nasty())) for name in TABLES)
    (tmp_path / "x.tex").write_text(
        f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}{tables}\\end{{document}}"
    )
    command = ["pdflatex", "-draftmode", "-interaction=nonstopmode", "-halt-on-error", "x.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]


def test_markdown_escapes_bars_and_stars():
    rows = markdown_rows(markdown(compare("1", nasty())).replace("\\|", "!"))
    assert all(len(row) == 8 for row in rows)
    assert any(row[0].startswith("\\[") or row[0].startswith("[\\*]") for row in rows)


# -- the main ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path):
    for seed in range(3):
        results.append(tmp_path / f"la-{seed}", knn(0.5 + 0.1 * seed, seed=seed))
    (tmp_path / "la-new").mkdir()  # trained, not yet judged
    return tmp_path


def test_the_main_prints_a_table_of_a_pattern(runs):
    done = run("la_tf.report", "--table=1", f"--runs={runs}/la-*")
    assert done.returncode == 0, done.stderr
    assert "60.0 ± 10.0" in done.stdout and done.stderr == ""
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "table": "1", "folders": [f"{runs}/la-{seed}" for seed in range(3)], "cells": 1,
    }  # fmt: skip


def test_the_main_writes_a_file_and_says_when_the_paper_is_alone(runs):
    out = runs / "report" / "s3.tex"
    done = run("la_tf.report", "--table=s3", f"--runs={runs}/la-0", "--format=latex", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert r"\bottomrule" in out.read_text() and "tabular" not in done.stdout
    assert done.stderr == "table S3: no result in --runs belongs into it: the paper's alone\n"
    assert json.loads(done.stdout)["out"] == str(out)


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--table=6", "--runs=x"], 2, "error: --table=6: choose one of 1, 2, 3, 4, 5, S1, S2, S3\n"),
        (["--table=1", "--runs=nowhere"], 1, "error: nowhere: there is no such folder; "),
        (["--table=1", f"--runs={ROOT / 'docs'}"], 2, f"error: --runs={ROOT / 'docs'}: holds the lines of python -m "),
        (["--out=x", f"--runs={ROOT / 'docs'}"], 2, f"error: --runs={ROOT / 'docs'}: holds the lines of python -m "),
        (["--table=1", f"--runs={ROOT / 'doc[s]'}"], 2, f"error: --runs={ROOT / 'doc[s]'}: no folder that it matches"),
    ],
)
def test_exit_codes(flags, code, message):
    done = run("la_tf.report", *flags)
    assert done.returncode == code and done.stderr.startswith(message) and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": {"spec": "digits"}},
        {"dataset": {"spec": 5, "train": 1437, "classes": 10}},
        {"results": {"top1": "0.5"}},
        {"results": {"top1": float("nan")}},
        {"results": {}},
        {"subject": {"config": 5}},
        {"subject": {"seed": [0]}},
        {"subject": {"backbone": ["resnet18"]}},
        {"protocol": "linear", "results": {"conv5": 0.5}},
    ],
)
def test_a_line_that_lacks_what_a_table_needs_is_named(change):
    with pytest.raises(UserError, match=r"the line with the id 'x7' is damaged .*; delete it"):
        compare("1", [{"id": "x7", **knn(0.5)} | change])
