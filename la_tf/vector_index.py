"""Faiss indexes of unit rows: exact, in lists, as a graph, and each of them in bytes; by inner product, the cosine.

flat   every row is compared: exact
ivf    rows lie in lists around centroids of k-means; of a query the `nprobe` nearest lists are compared
hnsw   a graph of near rows is walked (Malkov, Yashunin 2018); `ef_search` candidates are kept on the way

Quantised, a component is one byte between its least and its largest value in the rows the index was built of, not four.
How far `nprobe` and `ef_search` have to go is found by `tune`, on rows of the index itself.
"""

import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import faiss
import numpy as np
from tqdm import tqdm

from data.errors import UserError

KINDS = ("flat", "ivf", "hnsw")
FLAT_UP_TO = 100_000  # rows: until there an exact search takes some ten milliseconds, and nothing has to be tuned
EFFORTS = {"ivf": "nprobe", "hnsw": "ef_search"}  # what trades time for recall
FAISS_NAMES = {"nprobe": "nprobe", "ef_search": "efSearch"}
LISTS = 4  # times sqrt(N): then centroids and rows of some lists are compared about equally often
ROWS_PER_LIST = 32  # that k-means learns from
ITERATIONS = 10
LINKS, CONSTRUCTION = 16, 80  # of a row of hnsw: neighbours, and candidates for them
CHUNK = 32_768  # rows
RANGE_SAMPLE = 2**17  # rows that say between which values a byte lies
RECALL_AT, QUERIES = 10, 256  # of what the tuning measures
SLACK = 0.005
PARTED = 50_000  # rows from which on starting threads is worth it
SHOWN = 100_000  # rows from which on there is a progress bar
LARGEST_EFFORT = 4096
TIE = 1e-6  # a row that is as similar as the k-th is a right one: pictures come twice


def automatic_kind(size):
    """Returns the kind for N rows."""
    return "flat" if size <= FLAT_UP_TO else "ivf"


def build(rows, kind, quantised=False, lists=None, links=None):
    """Returns a Faiss index of unit `rows` `[N, D]`, an array or a file that is mapped, in their order.

    Beside the index a part of the rows is held at a time. `lists` (ivf) and `links` (hnsw) override what follows from
    N. Raises UserError for more lists than rows.
    """
    size, dimension = rows.shape
    lists = lists or max(1, min(round(LISTS * size**0.5), size // ROWS_PER_LIST))
    if kind == "ivf" and lists > size:
        raise UserError(f"--lists={lists}: there are {size} pictures; take fewer lists")
    index = _empty(kind, dimension, quantised, lists, links or LINKS)
    if kind == "flat":
        _train(index, rows)
        return _filled(index, size, _chunks(rows, "adding"))
    if kind == "hnsw":
        _train(index, rows)
        index.hnsw.efConstruction = CONSTRUCTION
        for _, chunk in _chunks(rows, "linking", CHUNK // 8):
            index.add(chunk)
        return index
    index.cp.niter, index.cp.max_points_per_centroid = ITERATIONS, ROWS_PER_LIST
    index.cp.min_points_per_centroid = 1  # it would warn
    index.train(_sample(rows, lists * ROWS_PER_LIST))
    _fill_lists(index, rows)
    return index


def mapped(path):
    """Returns the index in a file, which stays there: what is looked at of it is in memory, shared and given back."""
    return faiss.read_index(os.fspath(path), faiss.IO_FLAG_MMAP_IFC)


def extended(path, rows):
    """Returns an index of the rows of the index in the file `path`, then `rows` `[n, D]`; nothing is trained.

    A flat one is read part by part into its new place, so it is held once: Faiss would double its memory to grow.
    """
    old = mapped(path)
    if kind_of(old) == "flat":
        chunks = _chunks(rows, "adding", first=old.ntotal)
        return _filled(_empty_like(old), old.ntotal + len(rows), chunks, path)
    index = faiss.read_index(os.fspath(path))
    for _, chunk in _chunks(rows, "adding", CHUNK // 8):
        index.add(chunk)
    return index


def kind_of(index):
    """Returns the kind of a Faiss index."""
    if isinstance(index, faiss.IndexIVF):
        return "ivf"
    return "hnsw" if isinstance(index, faiss.IndexHNSW) else "flat"


def effort_of(index):
    """Returns nprobe or ef_search as it is set, None of a flat index."""
    kind = kind_of(index)
    return None if kind == "flat" else index.nprobe if kind == "ivf" else index.hnsw.efSearch


def set_effort(index, effort):
    """Sets nprobe or ef_search, at most what makes sense."""
    name = FAISS_NAMES[EFFORTS[kind_of(index)]]
    faiss.ParameterSpace().set_index_parameter(index, name, min(effort, most_effort(index)))


def most_effort(index):
    """Returns the largest effort that makes sense: all lists, or a number of candidates."""
    return index.nlist if kind_of(index) == "ivf" else LARGEST_EFFORT


def search(index, queries, nearest):
    """Returns similarities `[Q, k]`, descending, and numbers `[Q, k]` of the rows nearest to unit `queries` `[Q, D]`.

    `nearest` k is at most the rows there are. Queries to which the lists or the graph gave fewer look further.
    """
    queries = np.ascontiguousarray(queries, np.float32)
    few = len(queries) < faiss.omp_get_max_threads() and index.ntotal >= PARTED
    if few and isinstance(index, faiss.IndexFlat):
        return _by_parts(_codes(index).view(np.float32), queries, nearest)
    similarities, found = index.search(queries, nearest)
    effort = effort_of(index)
    further = effort
    while (short := (found < 0).any(axis=1)).any() and further is not None and further < most_effort(index):
        further *= 2
        set_effort(index, further)
        similarities[short], found[short] = index.search(queries[short], nearest)
    if further != effort:
        set_effort(index, effort)
    return similarities, found


def _by_parts(rows, queries, nearest):
    """The exact search of a few queries, a part of the rows a thread: Faiss would take one thread a query."""
    threads = faiss.omp_get_max_threads()
    starts = sorted({part * len(rows) // threads for part in range(threads)})
    parts = [rows[start:stop] for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True)]
    heap = faiss.ResultHeap(len(queries), nearest, keep_max=True)
    with ThreadPoolExecutor(threads) as pool:
        for start, (similarities, found) in zip(starts, pool.map(partial(_knn, queries, nearest), parts), strict=True):
            heap.add_result(similarities, found + start)
    heap.finalize()
    return heap.D, heap.I


def _knn(queries, nearest, rows):
    return faiss.knn(queries, rows, min(nearest, len(rows)), metric=faiss.METRIC_INNER_PRODUCT)


def exact(queries, rows, nearest):
    """Returns the similarities `[Q, k]`, descending, and numbers `[Q, k]` of the nearest of `rows` `[N, D]`."""
    heap = faiss.ResultHeap(len(queries), nearest, keep_max=True)
    for start, chunk in _chunks(rows, "comparing"):
        similarities, found = _knn(queries, nearest, chunk)
        heap.add_result(similarities, found + start)
    heap.finalize()
    return heap.D, heap.I


def tune(index, rows, wanted):
    """Sets the least effort, of powers of two, whose recall@10 is at least `wanted`; returns that recall.

    Queries are rows of the index, each of which asks for the ten others nearest to it. Where no effort suffices, as
    quantised rows may not allow it, it is the least one that comes within half a hundredth of the best.
    """
    nearest = min(RECALL_AT, len(rows) - 1)
    if nearest < 1:
        return 1.0
    own = np.sort(np.random.default_rng(1).choice(len(rows), min(QUERIES, len(rows)), replace=False))
    queries = _gathered(rows, own)
    least = exact(queries, rows, nearest + 1)[0][:, -1]  # the own row is among them
    if kind_of(index) == "flat":
        return _recall(index, queries, own, rows, least, nearest)
    tried, effort = {}, 1
    while max(tried.values(), default=0) < wanted and effort < 2 * most_effort(index):
        set_effort(index, effort)
        tried[effort] = _recall(index, queries, own, rows, least, nearest)
        effort *= 2
    enough = min(wanted, max(tried.values()) - SLACK)
    effort = next(effort for effort, found in tried.items() if found >= enough)
    set_effort(index, effort)
    return tried[effort]


def _recall(index, queries, own, rows, least, nearest):
    """Returns which part of the rows found beside the `own` `[Q]` is at least as similar as `least` `[Q]`."""
    found = index.search(queries, nearest + 1)[1]
    others = (found >= 0) & (found != own[:, None])
    similarities = np.einsum("qkd,qd->qk", _gathered(rows, found.ravel()).reshape(*found.shape, -1), queries)
    right = (others & (similarities >= least[:, None] - TIE)).sum(axis=1)
    return float(np.minimum(right, nearest).mean() / nearest)


def _empty(kind, dimension, quantised, lists, links):
    metric, bytes_ = faiss.METRIC_INNER_PRODUCT, faiss.ScalarQuantizer.QT_8bit
    if kind == "ivf":
        centroids = faiss.IndexFlatIP(dimension)
        if quantised:
            return faiss.IndexIVFScalarQuantizer(centroids, dimension, lists, bytes_, metric, False)
        return faiss.IndexIVFFlat(centroids, dimension, lists, metric)
    if kind == "hnsw":
        if quantised:
            return faiss.IndexHNSWSQ(dimension, bytes_, links, metric)
        return faiss.IndexHNSWFlat(dimension, links, metric)
    return faiss.IndexScalarQuantizer(dimension, bytes_, metric) if quantised else faiss.IndexFlatIP(dimension)


def _empty_like(index):
    """Returns a flat index without rows that was trained as `index` was."""
    quantised = isinstance(index, faiss.IndexScalarQuantizer)
    empty = _empty("flat", index.d, quantised, None, None)
    if quantised:
        empty.sq, empty.is_trained = index.sq, True
    return empty


def _filled(index, total, chunks, others=None):
    """Gives a flat index its `total` rows: those in the file `others`, then `chunks`."""
    index.codes.resize(total * index.code_size)
    index.ntotal = total
    codes = _codes(index)
    for start in range(0, 0 if others is None else mapped(others).ntotal, CHUNK):
        source = mapped(others)  # anew: what was read of it before is given back
        part = _codes(source)[start : start + CHUNK]
        codes[start : start + len(part)] = part
    for start, chunk in chunks:
        codes[start : start + len(chunk)] = index.sa_encode(chunk)
    return index


def _codes(index):
    """Returns what a flat index holds, `[N, bytes of a row]`, without copying it."""
    size = index.ntotal * index.code_size
    return faiss.rev_swig_ptr(index.codes.data(), size).reshape(index.ntotal, index.code_size)


def _fill_lists(index, rows):
    """Gives an ivf index its rows, each list as long as it gets: Faiss would leave half as much again unused."""
    lists = np.empty(len(rows), np.int64)
    for start, chunk in _chunks(rows, "assigning"):
        lists[start : start + len(chunk)] = index.quantizer.assign(chunk, 1)[:, 0]
    for number, length in enumerate(np.bincount(lists, minlength=index.nlist).tolist()):
        index.invlists.resize(number, length)
    filled = np.zeros(index.nlist, np.int64)
    for start, chunk in _chunks(rows, "adding", CHUNK // 4):  # of each, four copies in other orders
        of_chunk = lists[start : start + len(chunk)]
        order = np.argsort(of_chunk, kind="stable")
        sorted_lists, sorted_rows, numbers = of_chunk[order], chunk[order], order + start
        codes = np.empty((len(order), index.code_size), np.uint8)
        index.encode_vectors(len(order), *map(faiss.swig_ptr, (sorted_rows, sorted_lists, codes)))
        bounds = np.searchsorted(sorted_lists, np.arange(index.nlist + 1))
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            part = slice(*bounds[number : number + 2])
            pointers = map(faiss.swig_ptr, (numbers[part], codes[part]))
            index.invlists.update_entries(number, int(filled[number]), len(numbers[part]), *pointers)
        filled += np.diff(bounds)
    index.ntotal = len(rows)


def _train(index, rows):
    if not index.is_trained:
        index.train(_sample(rows, RANGE_SAMPLE))


def _sample(rows, count):
    """Returns `count` rows at random, in their order; all where there are no more."""
    if count >= len(rows):
        return np.ascontiguousarray(rows, np.float32)
    return _gathered(rows, np.sort(np.random.default_rng(0).choice(len(rows), count, replace=False)))


def _gathered(rows, numbers):
    """Returns the rows `[n, D]` of `numbers` `[n]`, from one part of a mapped file after the other."""
    found = np.empty((len(numbers), rows.shape[1]), np.float32)
    parts = numbers // CHUNK
    for part in np.unique(parts):
        here = parts == part
        found[here] = rows[numbers[here]]
        _forget(rows)
    return found


def _chunks(rows, doing, size=CHUNK, first=0):
    """Yields (number of the first row, rows `[n, D]`) one after the other; numbers begin at `first`."""
    with tqdm(total=len(rows), desc=doing, unit="row", unit_scale=True, leave=False, disable=len(rows) < SHOWN) as bar:
        for start in range(0, len(rows), size):
            chunk = np.ascontiguousarray(rows[start : start + size], np.float32)
            yield start + first, chunk
            bar.update(len(chunk))
            _forget(rows)


def _forget(rows):
    """Gives the pages of a mapped file back, or all of it would count as this process's memory."""
    if isinstance(rows, np.memmap) and isinstance(rows.base, mmap.mmap):
        rows.base.madvise(mmap.MADV_DONTNEED)
