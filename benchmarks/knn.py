"""What the kNN classifier costs beside the matrix product that it cannot do without: python -m benchmarks.knn [--full]

The bank has ImageNet's size. Its rows are independent at first, then of 1,000 classes in their order, with queries of
the last ones: nothing near comes before the end of the bank.
"""

import multiprocessing
import resource
import statistics
import sys

import numpy as np

from benchmarks.timing import alternate, median_ratio, report
from la_tf.knn import knn_votes

SIZE, DIMENSION, CLASSES = 1_281_167, 128, 1000  # N, D
QUERIES, NEIGHBORS, TAU = 2048, 200, 0.07
GEMM_QUERIES, GEMM_ROWS = 1024, 4096  # the fastest of the sizes tried for the bare product
PLAIN_QUERIES, PLAIN_ROWS = 256, 200_000  # what plain NumPy is compared on
SPREAD = 1.0  # of the rows of a class around its centre: length of the difference


def unit_rows(seed, size, labels=None):
    """Returns `[size, D]` random unit rows, around the centres of their `labels` `[size]` where given."""
    rng, rows = np.random.default_rng(seed), np.empty((size, DIMENSION), np.float32)
    centres = np.random.default_rng(0).standard_normal((CLASSES, DIMENSION), np.float32)
    for start in range(0, size, 10_000):  # so that making them takes no memory that could be taken for the search's
        part = rng.standard_normal(rows[start : start + 10_000].shape, np.float32)
        if labels is not None:
            part = centres[labels[start : start + 10_000]] + SPREAD * part
        rows[start : start + 10_000] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return rows


def problem(queries, in_order):
    """Returns queries, bank and labels `[N]`: random, or in the order of their classes with queries of the last ten."""
    labels = np.arange(SIZE) * CLASSES // SIZE
    if not in_order:
        return unit_rows(1, queries), unit_rows(2, SIZE), labels
    last = CLASSES - 1 - np.arange(queries) % 10
    return unit_rows(1, queries, last), unit_rows(2, SIZE, labels), labels


def classify(queries, bank, labels):
    """Returns our votes."""
    return knn_votes(queries, bank, labels, neighbors=NEIGHBORS, tau=TAU, classes=CLASSES)


def product(queries, bank):
    """Makes all similarities in blocks and looks at none of them."""
    block = np.empty((GEMM_ROWS, GEMM_QUERIES), np.float32)
    for first in range(0, len(queries), GEMM_QUERIES):
        columns = np.ascontiguousarray(queries[first : first + GEMM_QUERIES].T)
        for start in range(0, len(bank), GEMM_ROWS):
            rows = bank[start : start + GEMM_ROWS]
            np.matmul(rows, columns, out=block.reshape(-1)[: len(rows) * columns.shape[1]].reshape(len(rows), -1))


def plain(queries, bank, labels, nearest):
    """Returns the votes as one would write them down: all similarities, the K `nearest` of each, a sum by class."""
    similarity = queries @ bank.T
    rows = nearest(-similarity)
    chosen = np.take_along_axis(similarity, rows, axis=1)
    weights = np.exp((chosen - chosen.max(axis=1, keepdims=True)) / TAU)
    votes = np.zeros((len(queries), CLASSES))
    np.add.at(votes, (np.arange(len(queries))[:, None], labels[rows]), weights)
    return votes


def sorting(distance):
    """Returns the K columns of each row with the least distance, by a sort of all."""
    return np.argsort(distance, axis=1)[:, :NEIGHBORS]


def partitioning(distance):
    """Returns the same, without their order, by a partition of all."""
    return np.argpartition(distance, NEIGHBORS, axis=1)[:, :NEIGHBORS]


def peak_extra_mb(in_order):
    """Returns how much the resident set of this process had grown at its highest while it classified."""
    queries, bank, labels = problem(QUERIES, in_order)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    classify(queries, bank, labels)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024  # kB


def in_a_process(function, *arguments):
    """Returns what `function` returns in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main():
    """Measures the search against its product, its memory, and plain NumPy."""
    full = "--full" in sys.argv[1:]
    queries, rounds = (10 * QUERIES, 5) if full else (QUERIES, 3)
    size = {"queries": queries, "N": SIZE, "D": DIMENSION, "K": NEIGHBORS}
    peaks = {name: in_a_process(peak_extra_mb, in_order) for name, in_order in (("random", False), ("sorted", True))}
    report("knn_peak_extra_mb", max(peaks.values()), "MB", **peaks, **size | {"queries": QUERIES})

    independent, ordered = problem(queries, in_order=False), problem(queries, in_order=True)
    part = independent[0][:PLAIN_QUERIES], independent[1][:PLAIN_ROWS], independent[2][:PLAIN_ROWS]
    votes = [classify(*part), plain(*part, sorting), plain(*part, partitioning)]
    for other in votes[1:]:
        np.testing.assert_allclose(votes[0], other, rtol=1e-3, atol=1e-6)
    calls = {
        "ours": lambda: classify(*part),
        "argsort": lambda: plain(*part, sorting),
        "argpartition": lambda: plain(*part, partitioning),
    }
    seconds = alternate(calls)
    report(
        "knn_vs_numpy",
        median_ratio(seconds["argsort"], seconds["ours"]),
        "ratio",
        argpartition_vs_ours=median_ratio(seconds["argpartition"], seconds["ours"]),
        **{f"{name}_s": statistics.median(each) for name, each in seconds.items()},
        **size | {"queries": PLAIN_QUERIES, "N": PLAIN_ROWS},
    )

    calls = {
        "ours": lambda: classify(*independent),
        "product": lambda: product(*independent[:2]),
        "ours_sorted": lambda: classify(*ordered),
    }
    seconds = alternate(calls, rounds)
    for name, ours in (("knn_vs_gemm", "ours"), ("knn_vs_gemm_sorted", "ours_sorted")):
        report(
            name,
            median_ratio(seconds[ours], seconds["product"]),
            "ratio",
            ours_s=statistics.median(seconds[ours]),
            product_s=statistics.median(seconds["product"]),
            **size,
        )


if __name__ == "__main__":
    main()
