"""Every method on every kind of data set: runs that were stopped within epochs come to the end of those that were not.

In one process, for a tenth of the time: a run is left where it stands, and a new Estimator goes on from its checkpoint.
"""

import contextlib
import json
import logging
import os
import time
from dataclasses import replace

import numpy as np
from PIL import Image

from data import cli
from tests.endurance import end_state

SMALL = [
    "--backbone=alexnet", "--width=4", "--embedding_dim=16", "--image_size=16", "--epochs=3", "--learning_rate=0.05",
    "--deterministic", "--checkpoint_steps=3", "--log_steps=1", "--board_updates=1", "--exporters=",
]  # fmt: skip
LA = ["--method=la", "--warmup_epochs=1", "--clusters=12", "--clusterings=3", "--background_k=32"]
METHODS = {
    "la": LA,
    "ir": ["--method=ir"],
    "dc": ["--method=dc", "--clusters=12"],
    "swav": ["--method=swav", "--prototypes=16", "--small_views=0"],
    "supervised": ["--method=supervised"],
    "random": ["--method=random"],
}
BATCHES = {"digits": 128, "folder": 24, "tfrecord": 24}  # 11, 10 and 10 steps an epoch
STOPS = (17,)  # two steps behind a checkpoint, in the second epoch; of those with two phases, in the first as well
# State that the plain ones do not have.
VARIANTS = {
    "la, NCE, search in cells": [*LA, "--ir_loss=nce", "--noise_rows=64", "--background_search=cells", "--cells=8"],
    "la, clusters every 4 steps in the background": [*LA, "--cluster_in_background", "--cluster_every=4steps"],
    "la, warm k-means on central views": [*LA, "--cluster_on=center_crops", "--warm_iterations=3"],
    "la, B_i by clusters, mixed_float16, bank bfloat16": [
        *LA, "--background=cluster", "--background_clusters=5", "--precision=mixed_float16", "--bank_dtype=bfloat16",
    ],
    "ir, NCE, running normaliser": ["--method=ir", "--ir_loss=nce", "--noise_rows=64", "--noise_normalizer=running"],
    "dc, head b, clusters every 2 epochs": [*METHODS["dc"], "--dc_head=b", "--cluster_every=2epochs"],
    "swav, queue, LARS, cosine": [
        *METHODS["swav"], "--queue=256", "--queue_from_epoch=1", "--optimizer=lars", "--schedule=cosine",
        "--learning_rate_warmup=1",
    ],
    "ir, exports latest, best and final": ["--method=ir", "--exporters=latest,best,final"],
}  # fmt: skip
# A rate at which nothing is learned: the plateau drops it after the second epoch, and the third is the last.
STOPS_EARLY = ["--method=ir", "--learning_rate=1e-9", "--patience=1", "--early_stopping=2", "--epochs=8"]


class Left(Exception):
    """A run was left where it stood."""


def rows():
    """Returns `{name: (data set, flags, steps to stop at)}`."""
    found = {
        f"{method} {data}": (data, flags, {"la": (8, *STOPS), "random": (1,)}.get(method, STOPS))  # random has one step
        for method, flags in METHODS.items()
        for data in BATCHES
    }
    found |= {name: ("digits", flags, STOPS) for name, flags in VARIANTS.items()}
    return found | {"ir, plateau, early stopping": ("digits", STOPS_EARLY, (19, 30))}


def main(work, chosen=()):
    """Prints a line for each row, or the `chosen` ones; returns 1 where a run came to something else."""
    cli.load_tensorflow(deterministic=True)
    logging.getLogger("tensorflow").setLevel("ERROR")  # so many runs in a process look like tracing in vain
    started, table, equal = time.monotonic(), rows(), 0
    unknown = [name for name in chosen if name not in table]
    if unknown:
        raise SystemExit(f"--matrix: no row {unknown[0]!r}; there are: {'; '.join(table)}")
    specs = data_sets(work)
    width = max(map(len, table))
    print(f"{'':<{width}}  {'steps':>5}  {'stopped at':<12}  {'hash':<12}  equal")
    for name in chosen or table:
        data, flags, stops = table[name]
        flags = [f"--dataset={specs[data]}", f"--batch_size={BATCHES[data]}", *SMALL, *flags]
        steps, wanted = run(work / f"{name} whole", flags)
        _, found = run(work / f"{name} parts", flags, stops)
        same = found == wanted
        equal += same
        shown = f"{name:<{width}}  {steps:>5}  {', '.join(map(str, stops)):<12}  {end_state.digest(found)[:12]}"
        print(f"{shown}  {'yes' if same else 'NO'}", flush=True)
        if not same:
            print(f"      not the same: {', '.join(end_state.differences(found, wanted)[:10])}")
    count = len(chosen or table)
    print(json.dumps({"runs": count, "equal": equal, "seconds": round(time.monotonic() - started)}))
    return int(equal < count)


def data_sets(work):
    """Writes 300 of the digits as a folder and as records; returns the spec of each kind of data set."""
    from sklearn.datasets import load_digits

    from tests.data.test_build_tfrecords import built

    values, labels = load_digits(return_X_y=True)
    for number, (value, label) in enumerate(zip(values[:300], labels[:300], strict=True)):
        path = work / "pictures" / ("train" if number % 5 else "test") / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(value * 255 / 16).astype(np.uint8).reshape(8, 8)).resize((18, 16)).save(path)
    folder = f"folder:{work / 'pictures'}"
    with quiet():
        built(folder, work / "records", shards=2)
    return {"digits": "digits", "folder": folder, "tfrecord": f"tfrecord:{work / 'records'}"}


@contextlib.contextmanager
def quiet():
    """Nobody wants to see the progress of so many runs."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def run(folder, flags, stops=()):
    """Trains as the main does, left at each of `stops` and gone on with; returns the last step and the end state."""
    from la_tf.estimator import Estimator, train_and_evaluate
    from la_tf.experiment import Experiment
    from tests.la_tf.test_flags import parsed

    for stop in (*stops, None):
        experiment = Experiment(parsed(*flags, f"--model_dir={folder}"))
        experiment.claim()
        estimator = Estimator(experiment.model_fn, experiment.run_config())
        spec = experiment.train_spec()
        try:
            with quiet():
                spec = replace(spec, hooks=(*spec.hooks, _leaver(stop)))
                train_and_evaluate(estimator, spec, experiment.eval_specs(), experiment.exporters())
        except Left:
            continue
        if stop is not None:
            raise RuntimeError(f"{folder.name}: the run ended before step {stop}")
        return estimator.step, end_state.end_state(folder)
    raise RuntimeError(f"{folder.name}: the run was left at its last step")


def _leaver(stop):
    import keras

    def leave(step, logs):
        if step == stop:
            raise Left

    return keras.callbacks.LambdaCallback(on_train_batch_end=leave)
