"""What a user gets wrong, in a flag or in a folder, ends in one line that names it, before TensorFlow is needed."""

import json
import os
import shutil

import pytest

from la_tf import checkpoints, model_dir
from la_tf.experiment import Experiment
from tests.forked_mains import outcomes
from tests.la_tf.test_config import make

ENDLESS = "/dev/zero"
NOT_UTF8 = os.fsdecode(b"\xff\xfe")
LONG = "x" * 300
TRAIN = ("la_tf.train", "--dataset=digits", "--model_dir=new")


def write(path, content):
    """Writes text, bytes or JSON, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content if isinstance(content, str | bytes) else json.dumps(content)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def changed(path, *keys, to=None):
    """Gives an entry of a JSON file another value; without one it is removed."""
    whole = node = json.loads(path.read_text())
    for key in keys[:-1]:
        node = node[key]
    node.pop(keys[-1])
    if to is not None:
        node[keys[-1]] = to
    write(path, whole)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder with a run, a detector's, an export, an index, embeddings, and runs that are damaged in one way each."""
    top = tmp_path_factory.mktemp("bad")
    run = top / "run"
    experiment = Experiment(make(dataset="digits", model_dir=str(run), background_k=20, clusters=8))
    experiment.claim()
    checkpoints.write(run, 11, {}, {"logs": {}, "stopped": False}, keep=1)
    line = {"step": 11, "epoch": 0, "loss": 1.0}
    write(run / "metrics.jsonl", json.dumps(line) + "\n")
    identity = {"architecture": {}, "classes": ["cat"], "weights": "0"}
    write(top / "detector" / "config.json", {"identity": identity, "circumstances": {}})
    write(top / "detector" / "checkpoints" / "step-00000011" / "state.json", "{}")
    description = {"format": 1, "embedding_dim": 8, "endpoints": ["conv5"], "step": 1}
    architecture = experiment.config.model.architecture(16)
    preprocessing = {"mean": [0, 0, 0], "std": [1, 1, 1], "image_size": 16, "short_side": 16, "channel_order": "RGB"}
    description |= {"architecture": architecture | {"preprocessing": preprocessing}}
    write(top / "export" / "backbone.json", description)
    write(top / "export" / "backbone.weights.h5", b"weights")
    write(top / "index" / "index.json", {"format": 1, "kind": "flat"})
    write(top / "embedded" / "embed.json", {"format": 2, "rows": "many"})
    (top / "loop").symlink_to("loop")
    os.mkfifo(top / "pipe")
    (top / "picture.jpg").write_bytes(b"no picture")

    def copy(name, damage):
        shutil.copytree(run, top / name)
        damage(top / name)

    copy("garbage", lambda folder: write(folder / "config.json", b"\x80\x81"))
    copy("deep", lambda folder: write(folder / "config.json", "[" * 100_000))
    copy("list", lambda folder: write(folder / "config.json", []))
    copy("empty", lambda folder: write(folder / "config.json", ""))
    copy("halves", lambda folder: changed(folder / "config.json", "circumstances"))
    copy("typed", lambda folder: changed(folder / "config.json", "identity", "tau", to="warm"))
    copy("drops", lambda folder: changed(folder / "config.json", "identity", "drop_epochs", to=[1, "x"]))
    copy("strange", lambda folder: changed(folder / "config.json", "identity", "schedule", to="sometimes"))
    copy(
        "torn", lambda folder: write(folder / "metrics.jsonl", f'{json.dumps(line)}\n{{"step": 1\n{json.dumps(line)}\n')
    )
    copy("stepless", lambda folder: write(folder / "metrics.jsonl", '{"epoch": 0}\n'))
    copy("epochless", lambda folder: write(folder / "metrics.jsonl", '{"step": 1}\n'))
    copy("frozen", lambda folder: changed(folder / "dataset.json", "splits"))
    copy("counted", lambda folder: changed(folder / "dataset.json", "splits", "train", "count", to="many"))
    copy("result", lambda folder: write(folder / "results.jsonl", '{"id": 1}\n'))
    copy("subject", lambda folder: write(folder / "results.jsonl", json.dumps(RECORD | {"subject": "a"}) + "\n"))
    copy("piped", lambda folder: ((folder / "config.json").unlink(), os.mkfifo(folder / "config.json")))
    return top


RECORD = {name: {} for name in ("dataset", "settings", "results", "subject")}
RECORD |= {"id": "a", "time": "2026-01-01T00:00:00+00:00", "protocol": "knn", "split": "test", "selected_on": "nothing"}
SEARCH = ("la_tf.search", "--export=export")
EVALUATE = ("la_tf.evaluate", "--export=export", "--dataset=digits", "--out=o")
OTHER = "config.json: is damaged, or of another version "
CASES = [  # command, exit code, what the line has in it
    # flags
    ((*TRAIN, "--workers=2147483647"), 2, "--workers=2147483647: must be 0 (automatic) to 1024"),
    ((*TRAIN, "--image_size=100000"), 2, "--image_size=100000: must be at most 16384 pixels"),
    ((*TRAIN, "--noise_rows=2147483647"), 2, "--noise_rows=2147483647: must be at most "),
    ((*TRAIN, "--exporters=best,best"), 2, "--exporters=best,best: "),
    ((*TRAIN, "--exporters="), 77, ""),
    (("la_tf.train", "--dataset=digits", f"--model_dir={NOT_UTF8}"), 2, "--model_dir=\\udcff\\udcfe: "),
    (("la_tf.train", "--dataset=digits", f"--model_dir={LONG}"), 1, LONG),
    (("la_tf.train", "--dataset=digits", "--model_dir=export"), 1, "--model_dir=export: "),
    (("la_tf.train", "--dataset=digits", "--model_dir=picture.jpg"), 1, "--model_dir=picture.jpg: "),
    (("la_tf.train", "--dataset=digits", "--model_dir=picture.jpg/a"), 1, "--model_dir=picture.jpg/a: "),
    (("la_tf.train", f"--dataset=list:{ENDLESS}", "--model_dir=new"), 1, f"list:{ENDLESS}: "),
    (("la_tf.train", "--dataset=list:pipe", "--model_dir=new"), 1, "--dataset=list:pipe: "),
    (("la_tf.train", f"--dataset=folder:{LONG}", "--model_dir=new"), 1, f"--dataset=folder:{LONG}: "),
    (("la_tf.train", "--dataset=folder:loop", "--model_dir=new"), 1, "--dataset=folder:loop: "),
    ((*TRAIN, "--warm_start=nowhere"), 1, "--warm_start=nowhere: "),
    ((*TRAIN, "--warm_start=export"), 1, "--warm_start=export: "),
    ((*TRAIN, "--warm_start=detector"), 1, "--warm_start=detector: detector/config.json: "),
    ((*TRAIN, "--warm_start=typed"), 1, "--warm_start=typed: typed/config.json: "),
    (("la_tf.launch", "--workers=100000", "--"), 2, "--workers=100000: "),
    (("la_tf.analyze", "--model_dir=run,"), 2, "--model_dir=run,: "),
    (("la_tf.report", "--runs=,", "--out=page"), 2, "--runs=,: "),
    (("la_tf.report", "--runs=loop", "--out=page"), 1, "loop"),
    (("la_tf.report", "--runs=run", "--table=1", "--out=pipe"), 1, "run: holds no results.jsonl"),
    ((*SEARCH, "--image=a.jpg", f"--index={NOT_UTF8}"), 2, "--index=\\udcff\\udcfe: "),
    ((*SEARCH, "--image=\n"), 1, "--image=\\n: "),
    ((*SEARCH, "--image=a,b"), 1, "--image=a: "),
    ((*SEARCH, "--image=pipe"), 1, "--image=pipe: "),
    ((*EVALUATE, "--protocol=finetune", "--percent=5,5"), 2, "--percent=5,5: "),
    (("la_tf.import_weights", "--source=keras_vgg16", f"--weights={LONG}", "--out=o"), 1, LONG),
    # folders
    (("la_tf.export", "--model_dir=detector"), 1, "detector/config.json: "),
    (("la_tf.export", "--model_dir=export"), 1, "--model_dir=export: no run lives there"),
    (("la_tf.export", "--model_dir=garbage"), 1, "garbage/config.json: "),
    (("la_tf.export", "--model_dir=deep"), 1, "deep/config.json: "),
    (("la_tf.export", "--model_dir=list"), 1, "list/config.json: "),
    (("la_tf.export", "--model_dir=empty"), 1, "empty/config.json: "),
    (("la_tf.export", "--model_dir=halves"), 1, "halves/config.json: "),
    (("la_tf.export", "--model_dir=piped"), 1, "piped/config.json: "),
    (("la_tf.evaluate", "--model_dir=typed"), 1, f"typed/{OTHER}(tau is 'warm')"),
    (("la_tf.evaluate", "--model_dir=drops"), 1, f"drops/{OTHER}(drop_epochs is "),
    (("la_tf.evaluate", "--model_dir=strange"), 1, f"strange/{OTHER}(--schedule"),
    (("la_tf.analyze", "--model_dir=torn", "--figure=curves"), 1, "torn/metrics.jsonl, line 2: is damaged"),
    (("la_tf.analyze", "--model_dir=stepless", "--figure=curves"), 1, "stepless/metrics.jsonl, line 1: is damaged"),
    (("la_tf.analyze", "--model_dir=epochless", "--figure=curves"), 1, "epochless/metrics.jsonl, line 1: is damaged"),
    (("la_tf.report", "--runs=frozen", "--out=page"), 1, "frozen/dataset.json: is damaged"),
    (("la_tf.report", "--runs=counted", "--out=page"), 1, "counted/dataset.json: is damaged"),
    (("la_tf.report", "--runs=typed", "--out=page"), 1, "typed/config.json: is damaged"),
    (("la_tf.report", "--runs=result", "--table=1"), 1, "result/results.jsonl, line 1: is damaged (it lacks time, "),
    (("la_tf.report", "--runs=subject", "--table=1"), 1, "subject/results.jsonl, line 1: is damaged (subject is 'a')"),
    ((*SEARCH, "--index=index", "--image=picture.jpg"), 1, "index.json: is damaged (it lacks quantised"),
    ((*SEARCH, "--index=new", "--embeddings=embedded"), 1, "embedded/embed.json: is damaged (it lacks dimension"),
    ((*SEARCH, "--index=picture.jpg", "--embeddings=embedded"), 1, "--index=picture.jpg: "),
]  # fmt: skip


@pytest.fixture(scope="module")
def ends(folders):
    """What becomes of each of the commands."""
    return outcomes([command for command, _, _ in CASES], folders)


@pytest.mark.parametrize("place", range(len(CASES)), ids=lambda place: ascii(" ".join(CASES[place][0]))[1:60])
def test_one_line_names_the_culprit(ends, place):
    _, code, culprit = CASES[place]
    found, out, err = ends[place]
    assert found == code, err
    if code != 77:
        (line,) = err.splitlines()
        assert line.startswith("error: ") and culprit in line
        assert out == ""


def test_a_table_never_takes_the_place_of_a_device(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match="is no file"):
            model_dir.write_text(tmp_path / name, "text")
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink()


def test_what_a_link_leads_to_is_written_and_the_link_stays(tmp_path):
    (tmp_path / "link").symlink_to("target")
    model_dir.write_text(tmp_path / "link", "text")
    assert (tmp_path / "target").read_text() == "text" and (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("value", [True, 1.0, "1", None, [1]])
def test_a_stored_value_has_the_type_of_its_field(value):
    values = make(dataset="digits").flat()
    with pytest.raises(ValueError, match=r"^epochs is "):
        type(make()).from_flat(values | {"epochs": value})
    assert type(make()).from_flat(values | {"tau": 1}).method.tau == 1  # JSON knows no 1.0
