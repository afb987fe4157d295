"""What finding neighbours and LA's loss cost at ImageNet's size: python -m benchmarks.neighbors [--full]

A batch of 128 against a bank of 1,281,167 x 128, k = 4096, loss and gradient, beside plain TensorFlow (`top_k` over all
similarities), the bare product in OpenBLAS, and the public PyTorch port's formulation (`make bench-torch`). The rows
are independent, then a mixture of 1,000 centres, then independent with a tenth of them equal. `--full` measures the
plain sides on all three.
"""

import multiprocessing
import os
import re
import statistics
import sys
from pathlib import Path

import numpy as np

from benchmarks.rows import unit
from benchmarks.timing import alternate, median_ratio, report
from benchmarks.torch_process import torch_python, torch_side

SIZE, DIMENSION, BATCH = 1_281_167, 128, 128  # N, D, B
BACKGROUND_K, CLUSTERINGS, CLUSTERS, TAU = 4096, 10, 30_000, 0.07  # k, H, m, tau
CENTRES, SPREAD, EQUAL = 1000, 0.7, 0.1
KINDS = ("random", "mixture", "equal")
CHECKED = 16  # images whose B_i is compared with a sort in float64


def bank_of(kind):
    """Returns unit rows `[N, D]`."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((SIZE, DIMENSION), np.float32)
    if kind == "mixture":
        centres = rng.standard_normal((CENTRES, DIMENSION), np.float32)
        rows *= SPREAD
        rows += centres[rng.integers(CENTRES, size=SIZE)]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    if kind == "equal":
        rows[rng.permutation(SIZE)[: int(EQUAL * SIZE)]] = rows[0]
    return rows


def batch_of(bank):
    """Returns embeddings `[B, D]` near their rows of the bank, and those rows `[B]`."""
    rng = np.random.default_rng(1)
    indices = rng.integers(SIZE, size=BATCH)
    return unit(bank[indices] + 0.05 * rng.standard_normal((BATCH, DIMENSION), np.float32)), indices


def labels():
    """Returns random cluster labels `[N, H]`."""
    return np.random.default_rng(2).integers(CLUSTERS, size=(SIZE, CLUSTERINGS), dtype=np.int32)


class Sides:
    """Ours and plain TensorFlow's loss, gradient and B_i on one bank, a variable that is written to by rows."""

    def __init__(self, kind):
        import tensorflow as tf

        self.bank = bank_of(kind)
        self.embeddings, self.indices = batch_of(self.bank)
        self.rows = tf.Variable(self.bank, trainable=False)
        self.rows.scatter_nd_update([[0]], self.bank[:1])
        self.written = tf.Variable(np.ones(SIZE, bool), trainable=False)
        self.labels = tf.Variable(labels(), trainable=False)
        self.ours, self.plain = tf.function(self._ours), tf.function(self._plain)
        self.similarities = np.empty((SIZE, BATCH), np.float32)

    def _ours(self):
        return self._step(self._our_logs)

    def _plain(self):
        return self._step(self._plain_logs)

    def _step(self, logs):
        import tensorflow as tf

        from la_tf.local_aggregation import local_aggregation_loss

        embeddings = tf.constant(self.embeddings)
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            sums, rows, failed = logs(embeddings)
            loss = tf.reduce_mean(local_aggregation_loss(sums[:, 0], sums[:, 1]))
        return loss, tape.gradient(loss, embeddings), rows, failed

    def _our_logs(self, embeddings):
        from la_tf import log_sums
        from la_tf.neighbors import background_neighbors, close_among

        similarity, rows, failed = background_neighbors(embeddings, self.rows, self.written, BACKGROUND_K)
        sets = (similarity != -np.inf, close_among(rows, self.indices, self.labels))
        sums, _ = log_sums.over_rows(embeddings, self.rows, TAU, similarity, rows, sets)
        return sums, rows, failed

    def _plain_logs(self, embeddings):
        import tensorflow as tf

        from la_tf.neighbors import close_among

        of_all = tf.where(self.written[None, :], tf.matmul(embeddings, self.rows, transpose_b=True), -np.inf)
        similarity, rows = tf.math.top_k(of_all, BACKGROUND_K)
        close = close_among(rows, self.indices, self.labels)
        sums = [tf.reduce_logsumexp(s / TAU, axis=1) for s in (similarity, tf.where(close, similarity, -np.inf))]
        return tf.stack(sums, axis=1), rows, tf.zeros([], tf.bool)

    def product(self):
        """Makes all similarities by OpenBLAS."""
        np.matmul(self.bank, self.embeddings.T, out=self.similarities)


def norm_wise(found, wanted):
    """Returns |found - wanted| / |wanted|."""
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def exactness(sides):
    """Returns how our result differs from plain TensorFlow's, and our B_i from a stable sort in float64."""
    loss, gradient, rows, failed = (part.numpy() for part in sides.ours())
    plain_loss, plain_gradient, *_ = (part.numpy() for part in sides.plain())
    differing, gap = 0, 0.0
    for image in range(0, BATCH, BATCH // CHECKED):
        similarity = np.empty(SIZE)
        for start in range(0, SIZE, 100_000):  # without a bank in float64
            part = sides.bank[start : start + 100_000].astype(np.float64)
            similarity[start : start + 100_000] = part @ sides.embeddings[image].astype(np.float64)
        wanted = np.argsort(-similarity, kind="stable")[:BACKGROUND_K]
        other = np.setxor1d(rows[image], wanted)
        differing = max(differing, len(other) // 2)
        gap = max(gap, float(np.abs(similarity[other] - similarity[wanted[-1]]).max(initial=0)))
    return {
        "loss_error": abs(float(loss - plain_loss)) / abs(float(plain_loss)),
        "gradient_error": norm_wise(gradient, plain_gradient),
        "rows_differing": differing,  # of k, in float32 against float64 ...
        "their_gap": f"{gap:.1e}",  # ... which are this far from the k-th similarity
        "fallback_rate": float(failed.mean()),
    }


def peak_extra_mb():
    """Returns by how much the first step of a fresh process raises its memory: tracing, search, loss and gradient."""
    import tensorflow as tf

    sides = Sides("random")
    tf.function(lambda: tf.constant(0))()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _memory_mb("VmHWM")
    sides.ours()
    return _memory_mb("VmHWM") - before


def _memory_mb(field):
    return int(re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1e3


def measure(kind, theirs, plain):
    """Measures one kind of bank: ours, the bare product, and the slow sides where they are wanted."""
    sides = Sides(kind)
    sides.product()  # its memory is there from now on
    found = exactness(sides)
    report("neighbors_fallback_rate", found.pop("fallback_rate"), "share of images", rows=kind, **found)
    calls = {"ours": sides.ours, "gemm": sides.product}
    calls |= {"topk": sides.plain} if plain else {}
    calls |= {"torch": theirs} if theirs else {}
    seconds = alternate(calls, rounds=5)
    told = {f"{name}_s": statistics.median(of_side) for name, of_side in seconds.items()}
    for name in ("gemm", "topk", "torch"):
        if name in seconds:
            ratio = (seconds["torch"], seconds["ours"]) if name == "torch" else (seconds["ours"], seconds[name])
            report(f"neighbors_vs_{name}", median_ratio(*ratio), "ratio", rows=kind, **told)


def main():
    """Measures the three kinds of bank, the first beside all others, and the memory."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        report("neighbors_peak_extra_mb", pool.apply(peak_extra_mb), "MB", N=SIZE, B=BATCH, k=BACKGROUND_K)
    python, full = torch_python(), "--full" in sys.argv[1:]
    threads = len(os.sched_getaffinity(0))
    arguments = {"size": SIZE, "dimension": DIMENSION, "batch": BATCH, "k": BACKGROUND_K, "tau": TAU}
    arguments |= {"clusterings": CLUSTERINGS, "clusters": CLUSTERS, "threads": threads}
    for kind in KINDS:
        if python and (full or kind == "random"):
            with torch_side(python, "torch_neighbors.py", **arguments) as theirs:
                measure(kind, theirs, plain=True)
        else:
            measure(kind, None, plain=full or kind == "mixture")


if __name__ == "__main__":
    main()
