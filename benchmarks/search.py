"""What finding a picture's neighbours costs among a million: python -m benchmarks.search [--full]

1,000,000 unit rows x 128, a mixture of 1,000 centres; queries are fresh draws of the mixture, asked one at a time, as
somebody who searches asks. Each index is built, searched and given one more picture, in a process of its own each, by
what `la_tf.search --embeddings` calls, on folders such as `la_tf.embed` makes. Memory is that of the process, less what
it has before, with its libraries: the part of the file that is mapped and was looked at counts.
`--full` adds the graphs (hnsw), which take minutes to build. Another N by --rows=100000.
"""

import contextlib
import io
import multiprocessing
import os
import re
import shutil
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


WEIGHTS = "benchmark"  # in the place of an export's hash


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


def make_embedded(folder, rows_file, numbers):
    """Makes of a .npy file a folder as `la_tf.embed` makes it, of pictures with these `numbers`."""
    from la_tf import embedded_pictures, model_dir, names_file

    folder.mkdir()
    os.replace(rows_file, folder / embedded_pictures.ROWS)
    names_file.write(folder / embedded_pictures.NAMES, (f"of one folder/{number:09}.jpg" for number in numbers))
    whole = {"format": embedded_pictures.FORMAT, "rows": len(numbers), "bad": 0}
    whole |= {"identity": {"export_weights": WEIGHTS}, "root": "/pictures"}
    whole |= {"source": "folder:/pictures", "split": "all", "options": {}}
    model_dir.write_json(folder / embedded_pictures.DESCRIPTION, whole)


def grow(embedded, folder, kind, quantised):
    """Builds an index of a folder of embeddings, or adds them; returns seconds, and by how many MB the process grew."""
    from la_tf import image_index, picture_search  # noqa: F401  before the memory is measured

    unset = dict.fromkeys(("source", "add", "rebuild", "lists", "links", "nprobe", "ef_search", "image"))
    value = unset | {"embeddings": embedded, "kind": kind, "quantised": quantised}
    before = _peak_anew()
    started = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        picture_search.grow(Path(folder), WEIGHTS, value)
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


def measure(embedded, one_more, folder, size, queries, truth, kind, quantised):
    """Builds one index, searches it, adds to it, and reports what it costs."""
    folder.mkdir()
    seconds, peak = in_a_process(grow, embedded, folder, kind, quantised)
    asked = queries[:EXACT_QUERIES] if kind == "flat" else queries
    times, found, memory, told = in_a_process(ask, folder, asked)
    recall = np.mean([len({*a} & {*b}) / NEAREST for a, b in zip(found, truth, strict=False)])
    file_size = sum(file.stat().st_size for file in Path(folder).glob("rows-*"))
    add_seconds, add_peak = in_a_process(grow, one_more, folder, kind, quantised)
    told["own_recall"] = told.pop("recall_at_10")
    told |= {"build_s": seconds, "build_peak_mb": peak, "index_mb": memory, "file_mb": file_size / 1e6}
    told |= {"add_s": add_seconds, "add_peak_mb": add_peak}
    name = "exact" if (kind, quantised) == ("flat", False) else "approx"
    facts = {"N": size, "threads": len(os.sched_getaffinity(0)), **told}
    slow = float(np.quantile(times, 0.95))
    report(f"{name}_ms", 1e3 * statistics.median(times), "ms", p95_ms=1e3 * slow, recall=float(recall), **facts)
    if name == "approx":
        report("approx_recall_at_10", float(recall), "share", kind=kind, quantised=quantised)
    report("index_mb", memory, "MB", kind=kind, quantised=quantised)
    shutil.rmtree(folder)


def main():
    """Measures every index on the same rows."""
    size = next((int(word[7:]) for word in sys.argv[1:] if word.startswith("--rows=")), SIZE)
    indexes = INDEXES + (FULL if "--full" in sys.argv[1:] else ())
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch:
        rows, one_row = (Path(scratch) / name for name in ("rows.npy", "one.npy"))
        queries = make_rows(rows, size)
        np.save(one_row, queries[:1])
        truth = in_a_process(nearest_of, rows, queries)
        embedded, one_more = (Path(scratch) / name for name in ("embedded", "one more"))
        make_embedded(embedded, rows, range(size))
        make_embedded(one_more, one_row, [size])
        for kind, quantised in indexes:
            folder = Path(scratch) / f"{kind}-{quantised}"
            measure(embedded, one_more, folder, size, queries, truth, kind, quantised)


if __name__ == "__main__":
    main()
