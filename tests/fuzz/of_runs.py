"""The files of a run: what it is, how it went, what it came to, what it goes on from."""

import json

import numpy as np

from data import manifest
from data.sources import open_dataset
from la_tf import checkpoints, model_dir, results, table_formats
from la_tf.comparison import compare
from la_tf.config import Config
from la_tf.metric_signs import readings
from la_tf.paper_tables import TABLES
from la_tf.past_run import read_run
from la_tf.run_summary import summarize, untrained_knn
from tests.fuzz import json_trees, npz_files, picture_files, texts
from tests.fuzz.subjects import Subject, each

NUMBERS = {
    "loss": 3.5, "close_mean": 29.8, "close_min": 0.0, "empty_fraction": 0.01, "own_in_background": 0.95,
    "learning_rate": 0.03, "images_per_s": 570.5, "phase": "la", "close_skewness": 0.08, "cluster_min": 6,
    "cluster_median": 42.0, "cluster_max": 91, "nmi_between": 0.77, "nmi_previous": 0.48, "purity": 0.26,
    "validation_knn_top1": 0.22, "bad_images": 0, "knn_top1": 0.214,
}  # fmt: skip
PICTURES = {"names": ["ant/0.jpg", "bee/0.jpg"], "bytes": [700, 701]}
CONFIG = {"dataset": "folder:pictures", "model_dir": "runs/a", "method": "la", "background_k": 128, "epochs": 6}


def _epoch(number):
    return {"step": 19 * (number + 1), "epoch": number, "time": 1795919369.1 + number, **NUMBERS}


def _record(protocol, settings, found, **subject):
    subject = {"kind": "run", "seed": 0, "step": 228, "config": Config.from_flat(CONFIG).identity(), **subject}
    return {
        "id": f"{protocol}0000", "protocol": protocol, "subject": subject,
        "dataset": {"spec": "digits", "hash": "b" * 64, "test_hash": "c" * 64, "own": True, "classes": 10,
                    "train": 1437},
        "settings": settings, "split": "test", "selected_on": "nothing", "results": found,
        "time": "2026-11-29T03:28:59+00:00", "versions": {"numpy": "2"}, "command": ["--protocol=knn"], "seconds": 3.5,
    }  # fmt: skip


RECORDS = [
    _record("knn", {"neighbors": 200, "tau": 0.07}, {"top1": 0.5, "judged": 360}),
    _record("knn", {"neighbors": 1}, {"top1": 0.4}),
    _record("linear", {"endpoints": ["conv5"]}, {"conv5": {"top1": 0.5, "ten_crop_top1": 0.6}, "conv1": {"top1": 0.2}}),
    _record("detection", {"detector": "faster", "seed": 3, "short_side": [96]}, {"mAP": 0.3}),
]


def _run(folder):
    """A whole run in `folder`: config.json, dataset.json, metrics.jsonl, results.jsonl, a checkpoint."""
    config = Config.from_flat(CONFIG)
    entry = {"count": 2, "fingerprint": "d" * 64, **PICTURES}
    dataset = {
        "spec": "folder:pictures", "kind": "photo", "hash": "e" * 64, "class_names": ["ant", "bee"], "class_count": 2,
        "common_size": [24, 32], "splits": {"train": entry, "test": entry},
    }  # fmt: skip
    state = {
        "format": 1, "step": 114, "epoch": 5, "hooks": {"Plateau": {"dropped": 0, "best": 0.1, "phase": "ir"}},
        "logs": _epoch(5), "stopped": False, "finished": False, "found": {"phase": "la"}, "settled": {},
    }  # fmt: skip
    trees = {
        "config.json": {
            "identity": {**config.identity(), "data": "f" * 64},
            "circumstances": config.circumstances(),
            "versions": {"numpy": "2"},
        },
        "dataset.json": dataset,
        "checkpoints/step-00000114/state.json": state,
        "metrics.jsonl": [_epoch(number) for number in range(6)],
        "results.jsonl": RECORDS,
    }
    for name, tree in trees.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        lines = tree if isinstance(tree, list) else [tree]
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return trees


def _looked_at(folder):
    """What la_tf.report makes of a run before it draws."""
    run = read_run(folder)
    run.planned_steps, run.finished, run.size("test"), run.classes, run.config
    summarize(run), readings(run), untrained_knn([run])


FILES = ("la_tf/model_dir.py", "la_tf/past_run.py", "la_tf/summary.py")


def config_json(folder) -> Subject:
    """config.json, by who looks at the run, goes on with it, or compares."""
    from la_tf.experiment import stored_config

    tree, path = _run(folder)["config.json"], folder / "config.json"

    def read(data):
        path.write_bytes(data)
        each(
            lambda: _looked_at(folder),
            lambda: stored_config(folder),
            lambda: model_dir.check_identity(path, tree["identity"], Config.defaults()),
            lambda: model_dir.check_identity(path, None),
        )

    return Subject(
        lambda numbers: json_trees.document(tree, numbers), json_trees.parses, read, (*FILES, "la_tf/config.py")
    )


def manifest_json(folder) -> Subject:
    """dataset.json of a run, by who goes on with it, exports it, or looks at it."""
    (folder / "pictures").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / "pictures" / name).write_bytes(picture_files.jpegs()[0])
    run = folder / "run"
    _run(run)
    dataset, path = open_dataset(f"folder:{folder / 'pictures'}"), run / manifest.FILE
    trees = manifest.manifest(dataset), json.loads(path.read_text())

    def read(data):
        path.write_bytes(data)
        each(
            lambda: manifest.freeze(dataset, str(run)),
            lambda: manifest.summary(manifest.read(str(run))),
            lambda: _looked_at(run),
        )

    return Subject(
        lambda numbers: json_trees.document(numbers.choice(trees), numbers),
        json_trees.parses,
        read,
        ("data/manifest.py",),
    )


def metrics_jsonl(folder) -> Subject:
    """metrics.jsonl, by who looks at a run, and by the run that goes on."""
    trees, path = _run(folder)["metrics.jsonl"], folder / "metrics.jsonl"

    def read(data):
        path.write_bytes(data)
        each(lambda: _looked_at(folder), lambda: model_dir.MetricsFile(folder).cut(60))
        _looked_at(folder)  # what is left is a whole file

    return Subject(
        lambda numbers: json_trees.lines(trees, numbers),
        lambda data: all(map(json_trees.parses, data.split(b"\n")[:-1])),
        read,
        (*FILES, "la_tf/run_summary.py", "la_tf/metric_signs.py"),
    )


def results_jsonl(folder) -> Subject:
    """results.jsonl, as far as some of the tables in one of the formats; then one more is added."""
    path = folder / results.FILE

    def tables(form, names):
        records = results.read([folder])
        each(*(lambda name=name: form(compare(name, records)) for name in names))

    def read(data):
        path.write_bytes(data)
        form = [*table_formats.FORMATS.values()][len(data) % len(table_formats.FORMATS)]
        names = [*TABLES][len(data) % 3 :: 3]  # all would take their time
        each(
            lambda: tables(form, names),
            lambda: results.find(folder, "knn0000"),
            lambda: results.append(folder, RECORDS[0]),
        )

    return Subject(
        lambda numbers: json_trees.lines(RECORDS, numbers),
        lambda data: all(map(json_trees.parses, filter(None, data.split(b"\n")[:-1]))),
        read,
        ("la_tf/results.py", "la_tf/comparison.py", "la_tf/placement.py", "la_tf/wording.py", "la_tf/table_formats.py"),
    )


def bad_images_csv(folder) -> Subject:
    """bad_images.csv, by the run that goes on."""
    from la_tf import bad_images

    path = folder / bad_images.FILE
    text = 'split,index,name,reason\ntrain,3,ant/3.jpg,is empty (0 bytes)\ntest,0,"b, c.jpg",is cut short\n'
    split = open_dataset("digits").train

    def read(data):
        path.write_bytes(data)
        bad_images.BadImages(split, folder, 0.5)

    return Subject(lambda numbers: texts.lines(text, numbers), bool, read, ("la_tf/bad_images.py",))


def state_json(folder) -> Subject:
    """state.json of a checkpoint, by who looks at the run or goes on from there."""
    run = _run(folder)
    tree, name = run["checkpoints/step-00000114/state.json"], "checkpoints/step-00000114/state.json"

    def read(data):
        (folder / name).write_bytes(data)
        checkpoint = checkpoints.latest(folder)
        each(
            lambda: _looked_at(folder),
            lambda: checkpoints.read_state(checkpoint),
            lambda: checkpoints.best(folder, "knn_top1"),
        )

    return Subject(
        lambda numbers: json_trees.document(tree, numbers), json_trees.parses, read, ("la_tf/checkpoints.py",)
    )


def sha256_json(folder) -> Subject:
    """The checksums of a checkpoint."""
    checkpoint = checkpoints.write(folder, 3, {"a/b": np.arange(6.0)}, {"epoch": 0, "logs": {}}, keep=1)
    tree = json.loads((checkpoint / checkpoints.CHECKSUMS).read_text())

    def read(data):
        (checkpoint / checkpoints.CHECKSUMS).write_bytes(data)
        problem = checkpoints.problem(checkpoint)
        assert problem is None or "\n" not in problem, problem

    return Subject(
        lambda numbers: json_trees.document(tree, numbers), json_trees.parses, read, ("la_tf/checkpoints.py",)
    )


def arrays_npz(folder) -> Subject:
    """The arrays of a checkpoint: the archive, or after a first byte `r` the file of one that was spread."""
    checkpoint = folder / "checkpoints" / "step-00000003"
    (checkpoint / "rows").mkdir(parents=True)
    members = {
        "a%2Fb.npy": npz_files.array_file(np.arange(12, dtype=np.float32).reshape(3, 4)),
        "iterations.npy": npz_files.array_file(np.array(7)),
    }
    whole = npz_files.array_file(np.eye(4, dtype=np.float32))

    def mutate(numbers):
        if numbers.random() < 0.3:
            return b"r" + npz_files.changed_array(whole, numbers)
        name = numbers.choice([*members])
        changed = npz_files.changed_array(members[name], numbers)
        return b"z" + npz_files.archive(members | {name: changed}, numbers)

    def read(data):
        spread = data.startswith(b"r")
        archive = data[1:] if not spread else _zip(members)
        (checkpoint / "arrays.npz").write_bytes(archive)
        (checkpoint / "rows" / "bank.npy").write_bytes(data[1:] if spread else whole)
        with checkpoints.read_arrays(checkpoint) as arrays:
            for name in arrays.files:
                np.asarray(arrays[name])

    return Subject(
        mutate, lambda data: data.startswith(b"r") or npz_files.parses(data[1:]), read, ("la_tf/checkpoints.py",)
    )


def _zip(members):
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()
