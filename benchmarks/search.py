"""What finding a picture's neighbours costs among a million: python -m benchmarks.search [--full]

1,000,000 unit rows x 128, a mixture of 1,000 centres; queries are fresh draws of the mixture, asked one at a time, as
somebody who searches asks. Each index is built and searched in a process of its own, on the file that it lies in.
`--full` adds the graphs (hnsw), which take minutes to build. Another N by --rows=100000.
"""

import multiprocessing
import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.rows import unit
from benchmarks.timing import report

SIZE, DIMENSION, CENTRES, SPREAD = 1_000_000, 128, 1000, 0.7
QUERIES, EXACT_QUERIES, NEAREST = 1000, 50, 10
INDEXES = (("flat", False), ("ivf", False), ("flat", True), ("ivf", True))
FULL = (("hnsw", False), ("hnsw", True))


def make_rows(path, size):
    """Writes rows `[N, D]` to a .npy file, part by part; returns queries `[Q, D]` of the same mixture."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CENTRES, DIMENSION), np.float32)

    def drawn(count):
        noise = SPREAD * rng.standard_normal((count, DIMENSION), np.float32)
        return unit(centres[rng.integers(CENTRES, size=count)] + noise)

    rows = np.lib.format.open_memmap(path, "w+", np.float32, (size, DIMENSION))
    for start in range(0, size, 50_000):
        rows[start : start + 50_000] = drawn(len(rows[start : start + 50_000]))
    rows.flush()
    return drawn(QUERIES)


def nearest_of(path, queries):
    """Returns the exact nearest rows `[Q, k]` by NumPy's product, part by part."""
    rows = np.load(path, mmap_mode="r")
    best, found = np.full((len(queries), NEAREST), -np.inf, np.float32), np.zeros((len(queries), NEAREST), np.int64)
    for start in range(0, len(rows), 20_000):
        similarities = np.concatenate([best, queries @ rows[start : start + 20_000].T], axis=1)
        count = similarities.shape[1] - NEAREST
        part = np.broadcast_to(np.arange(start, start + count), (len(queries), count))
        numbers = np.concatenate([found, part], axis=1)
        order = np.argpartition(-similarities, NEAREST, axis=1)[:, :NEAREST]
        best, found = np.take_along_axis(similarities, order, 1), np.take_along_axis(numbers, order, 1)
    return found


def build(path, folder, kind, quantised):
    """Builds an index of the rows in `path`; returns seconds, and by how many MB the process grew at its highest."""
    from la_tf.image_index import ImageIndex

    rows = np.load(path, mmap_mode="r")
    names = (f"/pictures/{number:09}.jpg" for number in range(len(rows)))
    before = _peak_anew()
    started = time.perf_counter()
    ImageIndex.build(folder, rows, names, "benchmark", kind=kind, quantised=quantised)
    return time.perf_counter() - started, _memory_mb("VmHWM") - before


def ask(folder, queries):
    """Opens an index and asks one query after the other; returns seconds of each, rows found, and the MB it took."""
    from la_tf.image_index import ImageIndex

    before = _peak_anew()
    index = ImageIndex.open(folder)
    seconds, found = [], []
    for query in queries:
        started = time.perf_counter()
        found.append(index.search(query[None], NEAREST)[1][0])
        seconds.append(time.perf_counter() - started)
    description = index.description
    described = {name: description[name] for name in ("kind", "quantised", "effort", "lists", "recall_at_10")}
    return seconds, np.array(found), _memory_mb("VmHWM") - before, described


def in_a_process(function, *arguments):
    """Runs a function in a fresh process, for its memory to be its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def _peak_anew():
    """Returns the memory of this process, MB, from which on its peak counts."""
    import faiss  # noqa: F401  what a library takes is not the index's

    Path("/proc/self/clear_refs").write_text("5")
    return _memory_mb("VmRSS")


def _memory_mb(field):
    return int(re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1e3


def measure(path, folder, queries, truth, kind, quantised):
    """Builds one index and reports what it costs."""
    seconds, peak = in_a_process(build, path, folder, kind, quantised)
    asked = queries[:EXACT_QUERIES] if kind == "flat" else queries
    times, found, memory, told = in_a_process(ask, folder, asked)
    recall = np.mean([len({*a} & {*b}) / NEAREST for a, b in zip(found, truth, strict=False)])
    size = sum(file.stat().st_size for file in Path(folder).glob("rows-*"))
    told["own_recall"] = told.pop("recall_at_10")
    told |= {"build_s": seconds, "build_peak_mb": peak, "index_mb": memory, "file_mb": size / 1e6}
    name = "exact" if (kind, quantised) == ("flat", False) else "approx"
    facts = {"N": len(np.load(path, mmap_mode="r")), "threads": len(os.sched_getaffinity(0)), **told}
    slow = float(np.quantile(times, 0.95))
    report(f"{name}_ms", 1e3 * statistics.median(times), "ms", p95_ms=1e3 * slow, recall=float(recall), **facts)
    if name == "approx":
        report("approx_recall_at_10", float(recall), "share", kind=kind, quantised=quantised)
    report("index_mb", memory, "MB", kind=kind, quantised=quantised)


def main():
    """Measures every index on the same rows."""
    size = next((int(word[7:]) for word in sys.argv[1:] if word.startswith("--rows=")), SIZE)
    indexes = INDEXES + (FULL if "--full" in sys.argv[1:] else ())
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch:
        path = Path(scratch) / "rows.npy"
        queries = make_rows(path, size)
        truth = in_a_process(nearest_of, path, queries)
        for kind, quantised in indexes:
            folder = Path(scratch) / f"{kind}-{quantised}"
            measure(path, folder, queries, truth, kind, quantised)


if __name__ == "__main__":
    main()
