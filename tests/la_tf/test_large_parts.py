"""Banks large enough for the search by a bound, spread over replicas of this machine: as one replica has them."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from la_tf.embedding import UnitLength
from la_tf.local_aggregation import LocalAggregation
from tests import programs

N, D, B, K = 40_000, 16, 8, 300
STEPS = 4
METHODS = {
    "la": {"close": "clusters", "clusterings": 3},
    "knn": {"close": "knn", "close_k": 40},
    "all": {"background": "all", "close": "self"},
    "nce": {"ir_loss": "nce", "noise_rows": 50, "noise_normalizer": "running"},
}


def learner(name, **sharding):
    """A LocalAggregation of N rows, some of them equal and some not written, in the phase that the case is about."""
    keras.utils.set_random_seed(0)
    image = keras.Input((2, 2, 3))
    embedding = UnitLength()(keras.layers.Dense(D, name="embedding")(keras.layers.Flatten()(image)))
    chosen = {"background_k": K, **METHODS[name]}
    model = LocalAggregation(keras.Model(image, embedding), N, tau=0.1, **chosen, **sharding)
    model.compile(keras.optimizers.SGD(0.1))
    model.optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    here = model.pictures.here
    rows = model.bank.float32_rows()
    rows[: len(rows) // 50] = rows[0]
    model.pictures.write(model.bank.rows, rows)
    model.pictures.write(model.bank.written, (rng.random(N) < 0.95)[here.start : here.stop])
    for labels in model.label_variables:
        clusters = rng.integers(400, size=(N, labels.shape[1]), dtype=np.int32)
        model.pictures.write(labels, clusters[here.start : here.stop])
    model.aggregating = name != "nce"
    return model


def batches():
    """STEPS batches, the same wherever they are made."""
    rng = np.random.default_rng(1)
    for _ in range(STEPS):
        yield {
            "image": rng.random((B, 2, 2, 3), np.float32),
            "index": rng.integers(N, size=B),
            "label": np.zeros(B, np.int64),
            "valid": np.arange(B) != 5,
        }


def run(name, **sharding):
    """Trains; returns the losses, the metrics and the rows of the bank that were written to."""
    model = learner(name, **sharding)
    step = tf.function(lambda batch: model.replicas.run(model.train_step, batch))
    losses, seen = [], []
    for batch in batches():
        model.reset_metrics()
        step(tf.nest.map_structure(tf.constant, batch))
        losses.append(model.epoch_metrics())
        seen += batch["index"].tolist()
    return {"metrics": losses, "rows": model.bank.float32_rows()[seen].tolist()}


SPREAD = """
import json, sys
from la_tf.replicas import strategy_of
strategy = strategy_of("mirrored", 2)
from tests.la_tf.test_large_parts import METHODS, run
with strategy.scope():
    found = {name: run(name, bank_sharding="sharded") for name in METHODS}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def spread():
    done = subprocess.run(
        [sys.executable, "-c", SPREAD],
        cwd=programs.ROOT,
        env=programs.environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", METHODS)
def test_a_large_bank_spread_over_two_replicas_teaches_what_the_whole_one_does(spread, name):
    wanted = run(name)
    for found, expected in zip(spread[name]["metrics"], wanted["metrics"], strict=True):
        found, expected = ({k: v for k, v in each.items() if k != "sorted_out_fraction"} for each in (found, expected))
        assert found == pytest.approx(expected, abs=1e-4)
    np.testing.assert_allclose(spread[name]["rows"], wanted["rows"], atol=1e-5)
