"""How LA's loss and gradient grow with the bank, exact and approximate: python -m benchmarks.scaling [--full]

A batch of 128 against banks of 10^6 and of 10^7 rows, k = 4096: the step with B_i from cells beside the one with the
exact B_i, and what the approximation costs in recall and loss, for the whole batch. Both banks are of one mixture of
10,000 centres, spread as in `benchmarks.neighbors`, and have the same cells, as many as the larger is given by itself,
and V: so only N differs. The centroids are made once and kept in build/. `--full` measures 3 x 10^7 rows as well.
"""

import hashlib
import json
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from benchmarks.rows import unit
from benchmarks.timing import alternate, median_ratio, report

SIZES, BETWEEN = (1_000_000, 10_000_000), 3_000_000
DIMENSION, BATCH, TAU, BACKGROUND_K = 128, 128, 0.07, 4096  # D, B, tau, k
CENTRES, SPREAD = 10_000, 0.7
CLUSTERINGS, PARTS = 10, 3  # H; a cluster is a third of a centre's rows, as m = 30,000 of them are
SAMPLED, ITERATIONS = 32, 6  # of the k-means that finds the cells: rows a cell; it is not what is measured
CENTRES_AT_ONCE = 100  # whose rows are made together
SHORTLIST = 128  # centroids near a centre, among which those nearest to its rows are looked for
CHECKED = 2048  # rows for which all centroids are looked at too
KEPT = Path(__file__).parents[1] / "build" / "benchmarks"


def mixture():
    """Returns the centres `[CENTRES, D]`."""
    return np.random.default_rng(0).standard_normal((CENTRES, DIMENSION), np.float32)


def rows_around(centres, rng):
    """Returns a unit row for each of `centres` `[n, D]`."""
    rows = rng.standard_normal(centres.shape, np.float32)
    rows *= SPREAD
    rows += centres
    return unit(rows)


def centroids_of(centres, count):
    """Returns the centroids `[C, D]` of a sample of the mixture; kept in build/."""
    from la_tf import cells

    made_of = json.dumps([CENTRES, SPREAD, DIMENSION, count, SAMPLED, ITERATIONS])
    kept = KEPT / f"scaling-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}.npy"
    if not kept.exists():
        print(f"looking for {count} cells", file=sys.stderr)
        rng = np.random.default_rng(1)
        sample = rows_around(centres[rng.integers(CENTRES, size=SAMPLED * count)], rng)
        found = cells.centroids(sample, count, 0, ITERATIONS)
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept.with_suffix(".part.npy"), found)
        os.rename(kept.with_suffix(".part.npy"), kept)
    return np.load(kept)


class Bank:
    """`size` rows of the mixture as training holds them, clusters and cells; and a batch near some of the rows."""

    def __init__(self, size, centres, centroids):
        import tensorflow as tf

        from la_tf import cells

        self.size, self.centroids = size, tf.constant(centroids)
        self.rows = tf.Variable(lambda: tf.zeros([size, DIMENSION]), trainable=False)
        self.written = tf.Variable(np.ones(size, bool), trainable=False)
        of_rows, self.assigned_alike = self._fill(centres, centroids)
        self.layout = cells.Layout(*(tf.Variable(part) for part in cells.layout(of_rows, len(centroids))))
        rng = np.random.default_rng(size + 1)
        self.indices = rng.integers(size, size=BATCH)
        near = tf.gather(self.rows, self.indices).numpy()
        self.embeddings = unit(near + 0.05 * rng.standard_normal(near.shape, np.float32))

    def _fill(self, centres, centroids):
        """Writes rows and labels, centre by centre, to places drawn at random; returns the cells `[n]`.

        A row's centroid is looked for among those near its centre. That is a short cut which only a benchmark can take;
        returned as well is for which share of some rows all centroids give the same.
        """
        import tensorflow as tf

        from la_tf import cells

        rng = np.random.default_rng(self.size)
        places, each = rng.permutation(self.size).astype(np.int32), self.size // CENTRES
        self.labels = tf.Variable(lambda: tf.zeros([self.size, CLUSTERINGS], tf.int32), trainable=False)
        half = (centroids**2).sum(axis=1) / 2
        of_rows, alike = np.empty(self.size, np.int32), []
        for start in range(0, CENTRES, CENTRES_AT_ONCE):
            numbers = np.arange(start, start + CENTRES_AT_ONCE)
            shortlists = np.argpartition(half - centres[numbers] @ centroids.T, SHORTLIST)[:, :SHORTLIST]
            rows = rows_around(np.repeat(centres[numbers], each, axis=0), rng).reshape(len(numbers), each, DIMENSION)
            found = [s[np.argmin(half[s] - r @ centroids[s].T, axis=1)] for s, r in zip(shortlists, rows, strict=True)]
            rows, found = rows.reshape(-1, DIMENSION), np.concatenate(found)
            here = places[start * each : (start + CENTRES_AT_ONCE) * each]
            labels = rng.integers(PARTS, size=(len(here), CLUSTERINGS), dtype=np.int32)
            labels += PARTS * np.repeat(numbers, each)[:, None].astype(np.int32)
            self.rows.scatter_update(tf.IndexedSlices(rows, here))
            self.labels.scatter_update(tf.IndexedSlices(labels, here))
            of_rows[here] = found
            checked = rng.choice(len(rows), CHECKED * CENTRES_AT_ONCE // CENTRES, replace=False)
            alike.append(cells.assign(rows[checked], centroids) == found[checked])
        return of_rows, float(np.mean(alike))

    def exact(self, embeddings):
        """Returns similarities and rows `[B, k]` of B_i."""
        from la_tf.neighbors import background_neighbors

        return background_neighbors(embeddings, self.rows, self.written, BACKGROUND_K)[:2]

    def approximate(self, embeddings):
        """Returns similarities and rows `[B, k]` of B_i from cells."""
        from la_tf import cells
        from la_tf.resolve import visited_rows_for

        visits = cells.visit(embeddings, self.centroids, self.layout.counts, visited_rows_for(BACKGROUND_K))
        return cells.neighbors_in_cells(embeddings, self.rows, self.written, BACKGROUND_K, visits, self.layout)[:2]

    def step(self, search):
        """Returns a graph of the step: the losses `[B]`, their gradient and similarities `[B, k]` of B_i."""
        import tensorflow as tf

        from la_tf import log_sums
        from la_tf.local_aggregation import local_aggregation_loss
        from la_tf.neighbors import close_among

        @tf.function
        def step():
            embeddings = tf.constant(self.embeddings)
            with tf.GradientTape() as tape:
                tape.watch(embeddings)
                similarity, rows = search(embeddings)
                sets = (similarity != -np.inf, close_among(rows, self.indices, self.labels))
                logs, _ = log_sums.over_rows(embeddings, self.rows, TAU, similarity, rows, sets)
                losses = local_aggregation_loss(logs[:, 0], logs[:, 1])
                loss = tf.reduce_mean(losses)
            return losses, tape.gradient(loss, embeddings), similarity

        return step


def fidelity(approximate, exact):
    """Returns the recall of B_i and the error of the loss, of a step beside the exact one."""
    from la_tf import cells

    losses, _, similarity = approximate()
    exact_losses, _, exact_similarity = exact()
    found = cells.recall(similarity, exact_similarity).numpy()
    error = float(cells.loss_error(losses, exact_losses))
    return {"recall": float(found.mean()), "least_recall": float(found.min()), "error": error}


def compare(sizes):
    """Measures the steps on banks of some `sizes`, in turn, and what the approximate ones miss."""
    from la_tf.resolve import cells_for, visited_rows_for

    centres, count = mixture(), cells_for(SIZES[-1])
    centroids = centroids_of(centres, count)
    steps, fidelities, alike = {}, {}, []
    for size in sizes:
        started = time.perf_counter()
        bank = Bank(size, centres, centroids)
        print(f"{size} rows in {time.perf_counter() - started:.0f} s", file=sys.stderr)
        steps["approx", size], steps["exact", size] = bank.step(bank.approximate), bank.step(bank.exact)
        fidelities[size] = fidelity(steps["approx", size], steps["exact", size])
        alike.append(bank.assigned_alike)
    told = {"cells": count, "visited": visited_rows_for(BACKGROUND_K), "k": BACKGROUND_K, "sizes": list(sizes)}
    by_size = {name: [round(fidelities[size][name], 5) for size in sizes] for name in fidelities[sizes[0]]}
    report("approx_recall", min(by_size["recall"]), "share of B_i", **told, by_size=by_size["recall"],
           least_of_an_image=by_size["least_recall"], images=BATCH, assigned_alike=min(alike))  # fmt: skip
    report("approx_loss_error", max(by_size["error"]), "relative", **told, by_size=by_size["error"])
    growth(alternate(steps, rounds=3), sizes, told)


def growth(seconds, sizes, told):
    """Reports by how much the step grows from the first of `sizes` to each of the others."""
    medians = {
        f"{name}_s": [round(statistics.median(seconds[name, s]), 4) for s in sizes] for name in ("approx", "exact")
    }
    for size in sizes[1:]:
        approximate, exact = (
            median_ratio(seconds[name, size], seconds[name, sizes[0]]) for name in ("approx", "exact")
        )
        name = f"approx_growth_{size // sizes[0]}x"
        report(name, approximate, "ratio", **{name.replace("approx", "exact"): exact}, **medians, **told)


def spread(sizes):
    """Returns, for banks of `sizes` spread over two replicas, what one holds and what a step of LA tells the other.

    A dict for each size: bytes of bank and labels of a replica, and of the whole; bytes told as counted while the graph
    of a step is made, and as `--plan` computes them; but for the gradients of the network.
    """
    import keras
    import tensorflow as tf

    from la_tf.config import MethodConfig
    from la_tf.embedding import UnitLength
    from la_tf.local_aggregation import LocalAggregation
    from la_tf.plan import Sizes
    from la_tf.plan_table import ALL_REDUCE
    from la_tf.plan_traffic import around, bytes_between
    from la_tf.replicas import Replicas, strategy_of

    strategy, (reduced, gathered) = strategy_of("mirrored", 2), around(2)
    batch = {
        "image": np.random.default_rng(0).random((BATCH, 4, 4, 3), np.float32),
        "index": np.arange(BATCH, dtype=np.int64),
        "valid": np.ones(BATCH, bool),
    }

    class Counted(Replicas):
        """Counts what both replicas send, as their graph is made."""

        told = 0

        def sum(self, tensors):
            for tensor in tf.nest.flatten(tensors):
                self.told += reduced(tensor.dtype.size * tensor.shape.num_elements())
            return super().sum(tensors)

        def gather(self, tensor):
            if tensor.dtype != tf.bool:  # it comes again as int32
                self.told += gathered(2 * tensor.dtype.size * tensor.shape.num_elements())
            return super().gather(tensor)

    def measured(size):
        method = {"background_k": BACKGROUND_K, "clusters": size // 43, "clusterings": CLUSTERINGS}
        with strategy.scope():
            image = keras.Input((4, 4, 3))
            features = keras.layers.Dense(DIMENSION)(keras.layers.Flatten()(image))
            embedder = keras.Model(image, UnitLength()(features))
            replicas = Counted(strategy)
            model = LocalAggregation(embedder, size, **method, bank_sharding="sharded", replicas=replicas)
            model.compile(keras.optimizers.SGD(0.01))
            model.optimizer.build(model.trainable_variables)
        model.aggregating = True
        tf.function(replicas.run).get_concrete_function(model.train_step, tf.nest.map_structure(tf.constant, batch))
        sizes = Sizes(size, DIMENSION, BATCH, 4, BACKGROUND_K, CLUSTERINGS, devices=2, spread=True)
        computed = bytes_between(SimpleNamespace(method=MethodConfig(**method)), sizes, "la", 0)
        weights = model.pictures.weights
        held = [
            sum(copy.numpy().nbytes for copy in copies) for copies in zip(*map(replicas.copies, weights), strict=True)
        ]
        whole = size * (DIMENSION * 4 + CLUSTERINGS * 4 + 1)
        return {
            "held": held, "whole": whole, "counted": replicas.told // 2,
            "computed": sum(computed.values()) - computed[ALL_REDUCE],
        }  # fmt: skip

    return [measured(size) for size in sizes]


def report_spread(sizes=(250_000, 1_000_000)):
    """Reports what a replica of two holds and tells, found in a process of its own, which has two devices."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        small, large = pool.apply(spread, (sizes,))
    share = max(large["held"]) / large["whole"]
    report("bank_bytes_2_replicas", share, "bytes of a replica / replicated", sizes=sizes, held=large["held"])
    told = {name: [small[name], large[name]] for name in ("counted", "computed")}
    growth = large["counted"] / small["counted"]
    report(f"told_growth_{sizes[1] // sizes[0]}x", growth, "ratio", sizes=sizes, **told)


def main():
    """Compares a bank with one ten times as large, and with one in between where all is wanted."""
    report_spread()
    compare((SIZES[0], BETWEEN, SIZES[1]) if "--full" in sys.argv[1:] else SIZES)


if __name__ == "__main__":
    main()
