"""The model card: what it says of an export, and that names which are not ours can change nothing in it."""

import json

import numpy as np
import pytest
from markdown_it import MarkdownIt

from la_tf import model_card
from la_tf.config import METHODS, Config
from models.preprocessing import Preprocessing

DATA = {
    "spec": "folder:/pictures",
    "kind": "photo",
    "hash": "c0ffee",
    "class_names": ["ant", "bee"],
    "splits": {"train": {"count": 1200, "fingerprint": "f00d"}, "test": {"count": 30, "fingerprint": "beef"}},
}
HOSTILE = [
    "<script>alert(1)</script>", "a|b", "`code`", "[x](javascript:alert(1))", "![i](http://e/x.png)",
    "two\nlines\r\u2028", "*bold* __too__", "\\| \\`", "&lt;b&gt;", "# heading", "\udcff bytes", "~~gone~~",
    "\x00\x1b[31m",
]  # fmt: skip


def described(method="la", size=112, kind="photo", common_size=None, **changes):
    values = {"model_dir": "x", "method": method, "image_size": size, "embedding_dim": 128, "background_k": 40}
    config = Config.from_flat({**values, "clusters": 50, "close_k": 7, **changes}).identity()
    return {
        "architecture": {"name": "resnet18", "width": 16, "preprocessing": {}},
        "embedding_dim": 128,
        "channels": {"conv1": 16, "conv2": 32},
        "preprocessing": Preprocessing(image_size=size).to_json(),
        "view": {"image_size": size, "kind": kind, "common_size": common_size},
        "step": 700,
        "metrics": {"step": 700, "epoch": 9, "time": 1.0, "loss": 2.5, "knn_top1": 0.75, "purity": 0.5},
        "config": config,
    }


def carded(bank=None, data=DATA, licence=None, **changes):
    bank = bank or model_card.bank_facts(np.arange(1200) > 9, 128)
    return json.loads(json.dumps(model_card.model_card(described(**changes), data, bank, licence)))


def rendered(card):
    """The card as HTML, and all the text in its table cells and paragraphs."""
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    source = model_card.markdown(card)
    texts = [child.content for token in parser.parse(source) for child in token.children or [] if child.type == "text"]
    return parser.render(source), texts


def test_data_method_metrics_and_bank_are_said():
    card = carded(licence="CC-BY-4.0")
    assert card["data"]["train_images"] == 1200 and card["data"]["classes"] == 2 and card["data"]["hash"] == "c0ffee"
    said = {each["symbol"] or each["flag"]: each["value"] for each in card["method"]["parameters"]}
    wanted = {"D": 128, "tau": None, "t": 0.5, "k": 40, "H": 10, "m": 50, "lambda": 1e-4, "B": 128, "seed": 0}
    assert said.items() >= {name: value for name, value in wanted.items() if value is not None}.items()
    assert "k'" not in said, "close neighbours are clusters here"
    assert card["metrics"] == {"loss": 2.5, "knn_top1": 0.75, "purity": 0.5} and (card["step"], card["epoch"]) == (
        700,
        9,
    )
    assert (card["bank"]["rows"], card["bank"]["of"]) == (1190, 1200)
    assert card["bank"]["megabytes"] == pytest.approx(1190 * (128 * 4 + 8) / 1e6, abs=0.05)
    assert card["licence"]["weights"] == "CC-BY-4.0"
    html, _ = rendered(card)
    for text in ("1,190 of 1,200 rows", "Local Aggregation", "ant, bee", "0.75", "CC-BY-4.0", "<code>nearest</code>"):
        assert text in html, text


def test_what_a_method_does_not_read_is_not_said():
    by_knn = {each["symbol"] for each in carded(close="knn", background="all")["method"]["parameters"]}
    assert "k'" in by_knn and not by_knn & {"k", "H", "m"}
    for method in METHODS:
        flags = {each["flag"] for each in carded(method=method)["method"]["parameters"]}
        assert ("clusterings" in flags) == (method == "la") and ("clusters" in flags) == (method in ("la", "dc"))
        assert ("learning_rate" in flags) == (method != "random") and {"embedding_dim", "seed"} <= flags
        assert model_card.METHODS[method] == carded(method=method)["method"]["title"]


def test_rows_of_an_untrained_network_average_nothing():
    for method in METHODS:
        bank = model_card.bank_facts(np.ones(12, bool), 128, method=method)
        html, _ = rendered(carded(bank, method=method))
        untrained = method == "random"
        assert ("the embedding of its central view" in html) == untrained, method
        assert ("running average" in html) == ("A bank row averages views" in html) == (not untrained), method


def test_weights_from_elsewhere_have_a_card_without_a_run():
    description = described() | {"imported": {"source": "keras_vgg16", "file": "w|.h5", "sha256": "ab"}, "metrics": {}}
    del description["config"], description["metrics"]
    card = model_card.model_card(description, None, model_card.no_bank("these weights came without one"))
    assert card["data"] is None and card["method"] == {"name": None, "title": "not known", "parameters": []}
    assert "keras_vgg16" in card["licence"]["weights"] and "nearest" not in card["signatures"]
    html, _ = rendered(card)
    assert "these weights came without one" in html and "w|.h5" in html and "Metrics" not in html


def test_the_view_of_the_training_is_described():
    steps = {
        "photo": " ".join(carded(size=112)["preprocessing"]["steps"]),
        "small": " ".join(carded(size=32, common_size=[40, 44])["preprocessing"]["steps"]),
        "digits": " ".join(carded(size=16, kind="digits", common_size=[8, 8])["preprocessing"]["steps"]),
    }
    assert "7/8" in steps["photo"] and "112 x 112" in steps["photo"]
    assert "7/8" not in steps["small"] and "44 x 40" in steps["small"]
    assert "8 x 8" in steps["digits"] and "central" not in steps["digits"]


def test_names_that_are_not_ours_stay_words():
    names = [f"<{i}>{name}" for i, name in enumerate(HOSTILE)]
    card = carded(data=DATA | {"class_names": names, "spec": "folder:" + "".join(HOSTILE)}, licence="<b>|*x*")
    plain_html, _ = rendered(carded(licence="x"))
    html, texts = rendered(card)
    for tag in ("<script", "<img", "<a ", "<b>", "<em>", "<strong>", "<s>", "<h1>", "<code>", "<tr>", "<td", "<li>"):
        assert html.count(tag) == plain_html.count(tag), tag
    assert "\x1b" not in html and "\x00" not in html and r"<10>\xff bytes" in " ".join(texts)
    told = next(text for text in texts if text.startswith(f"{len(names)}: "))
    for name in ("<0><script>alert(1)</script>", "<1>a|b", "<2>`code`", "<6>*bold* __too__", "<7>\\| \\`", "&lt;b&gt;"):
        assert name in told
    assert [*card["data"]["class_names"]] == names, "the JSON has them as they are"


def test_of_many_classes_a_few_are_named():
    names = [f"class{i}" for i in range(1000)]
    html, _ = rendered(carded(data=DATA | {"class_names": names}))
    assert "1,000: class0, " in html and "class19, ..." in html and "class20" not in html


def test_both_files_are_written(tmp_path):
    card = carded(data=DATA | {"class_names": HOSTILE})
    model_card.write(tmp_path, card)
    assert json.loads((tmp_path / "model_card.json").read_text()) == card
    assert (tmp_path / "model_card.md").read_text(encoding="utf-8") == model_card.markdown(card)
