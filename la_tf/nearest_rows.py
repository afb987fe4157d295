"""Exact search: the K rows of a bank that are most similar to each query, in bounded memory (section 4.2).

The bank is worked through in blocks, one matrix product each. A query keeps a bound that its K-th best similarity is
known to reach; of a block only what is above the bound is looked at, a few rows in a thousand, so that the products
are most of what the search costs. Plain NumPy: `tf.matmul` is no faster, `tf.math.top_k` over each block costs several
times its product, and the bank may be a file (np.memmap) that need not fit into a tensor.
"""

import numpy as np

from la_tf.processes import ALONE

QUERIES = 1024  # a pass over the bank
BLOCK = 8192  # rows: with QUERIES, 32 MB of similarities; on a busy machine smaller products lose more than they save
SAMPLE = 8192  # rows that give the first bound
LEAST_ROOM = 1024  # for new candidates of each query; they are thinned out when it is full
NOBODY = np.iinfo(np.int64).max  # the key of an empty place: row -1, similarity NaN


def nearest_rows(queries, bank, neighbors, eligible=None):
    """Returns similarities `[Q, K]` float32 and indices `[Q, K]` int32 of each query's K most similar bank rows.

    queries are `[Q, D]`, bank is `[N, D]` (an array or np.memmap), eligible `[N]` bool tells which rows can be found;
    K is `neighbors`, or the number of eligible rows if that is less. Most similar first; of rows whose similarities
    are equal in float32 the lowest index. Rows whose similarity is not a number are nobody's neighbours: places left
    over hold index -1 and NaN. Beside its arguments and results it takes 200 MB at most for K in the hundreds, and 8
    to 16 bytes a bank row.
    """
    return _similarities_and_rows(_nearest_keys(queries, bank, neighbors, eligible))


def nearest_others(rows, images, neighbors, eligible=None):
    """Returns what `nearest_rows` does for the rows `[N, D]` at `images` `[Q]`, each itself left out (not its copies).

    K is `neighbors`, or one less than there are eligible rows if that is less.
    """
    return without_itself(*nearest_rows(rows[images], rows, neighbors + 1, eligible), images)


def without_itself(similarities, found, images):
    """Returns similarities and rows `[Q, K - 1]` of the K that were found for each of the rows `images` `[Q]`.

    Where so many copies come before it that a row is not among them, the last one is left out.
    """
    if not found.shape[1]:
        return similarities, found  # there was nothing to be found
    keep = found != np.asarray(images)[:, None]
    keep[keep.all(axis=1), -1] = False
    shape = (len(found), found.shape[1] - 1)
    return similarities[keep].reshape(shape), found[keep].reshape(shape)


def nearest_of_all(queries, bank, neighbors, eligible=None, first=0, processes=ALONE):
    """Returns the same of a bank that is spread over `processes`, to all of them; they have the same queries.

    bank `[n, D]` are this process' rows, the first of which has index `first` in the whole; eligible `[n]` is of these
    rows. The processes tell each other 8 bytes for each of the at most K rows that they found for a query.
    """
    keys = _nearest_keys(queries, bank, neighbors, eligible)
    keys[keys != NOBODY] += first  # the lower half of a key is the row
    if processes.count > 1:
        of_all = processes.gather(np.ascontiguousarray(keys.T))  # behind each other: [<= count * K, Q]
        keys = np.sort(of_all, axis=0)[:neighbors].T
    return _similarities_and_rows(keys)


def _nearest_keys(queries, bank, neighbors, eligible):
    """Returns the keys `[Q, K]` of the nearest rows, in order."""
    queries, bank = np.asarray(queries, np.float32), np.asarray(bank)
    rows = np.arange(len(bank)) if eligible is None else np.flatnonzero(eligible)
    count = min(neighbors, len(rows))
    keys = np.full((len(queries), count), NOBODY)
    if count:
        for start in range(0, len(queries), QUERIES):
            part = slice(start, start + QUERIES)
            keys[part] = _one_pass(queries[part], bank, rows, count)
    return keys


def _one_pass(queries, bank, rows, count):
    """Returns the keys `[Q, count]` of the nearest among `rows`, in order."""
    nearest = _Nearest(_first_bound(queries, bank, rows, count), count)
    room = np.empty(len(queries) * min(BLOCK, len(rows)), np.float32)
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        similarity = room[: len(queries) * len(part)].reshape(len(queries), len(part))
        np.matmul(queries, _rows_of(bank, part).T, out=similarity)
        nearest.consider(similarity, part)
    nearest.thin_out()
    return np.sort(nearest.keys[:, :count], axis=1)


def _rows_of(bank, rows):
    return bank.take(rows, axis=0).astype(np.float32, copy=False)


def _first_bound(queries, bank, rows, count):
    """Returns a similarity `[Q]` below each query's `count`-th best: that of a random sample of the rows.

    However the bank is ordered, only some count * N / SAMPLE rows are expected above it. Without it, rows that become
    more and more similar along the bank (its classes in order, say) would all be candidates.
    """
    if len(rows) > SAMPLE:
        rows = np.sort(np.random.default_rng(0).choice(rows, SAMPLE, replace=False))
    if len(rows) < count:
        return np.full(len(queries), -np.inf, np.float32)
    sample = _rows_of(bank, rows)
    distance = -queries @ sample.T
    distance.partition(count - 1, axis=1)  # in this direction NaN comes last
    # Another product may round the same similarity differently: by D * epsilon * the lengths at most.
    lengths = np.linalg.norm(queries, axis=1) * np.linalg.norm(sample, axis=1).max()
    slack = queries.shape[1] * np.finfo(np.float32).eps * lengths
    below = np.nextafter(-distance[:, count - 1] - slack, np.float32(-np.inf))
    return np.fmax(below, np.float32(-np.inf))  # NaN is no bound


class _Nearest:
    """The best candidates so far of each query, as keys that sort by similarity, then by row.

    `bound` `[Q]` is what a row has to exceed. To equal it is not enough: rows come in order, so the `count` that made
    the bound what it is have lower indices.
    """

    def __init__(self, bound, count):
        self.bound, self.count = bound, count
        self.room = max(count, LEAST_ROOM)
        self.keys = np.full((len(bound), count + self.room), NOBODY)
        self.used = np.zeros(len(bound), np.int64)  # places taken, from the left

    def consider(self, similarity, rows):
        """Takes in the columns of `similarity` `[Q, n]` that may be among the best; `rows` `[n]` are their indices."""
        queries, width = similarity.shape
        found = np.flatnonzero(similarity > self.bound[:, None])
        ends = np.searchsorted(found, np.arange(1, queries + 1) * width)
        counts = np.diff(ends, prepend=0)
        if counts.max() > self.room:  # a flood: in parts that fit whatever they hold, the bound rising in between
            for start in range(0, width, self.room):
                part = slice(start, start + self.room)
                self.consider(similarity[:, part], rows[part])
            return
        if (self.used + counts).max() > self.keys.shape[1]:
            self.thin_out()
        query = np.repeat(np.arange(queries), counts)
        column = found - query * width
        place = np.arange(len(found)) + np.repeat(self.used - (ends - counts), counts)
        self.keys[query, place] = _keys(similarity[query, column], rows[column])
        self.used += counts

    def thin_out(self):
        """Keeps the best `count` of each query and raises the bound to the last of them."""
        self.keys.partition(self.count - 1, axis=1)
        self.used[:] = self.count  # of fewer candidates too: where among the first `count` they are is not promised
        np.fmax(self.bound, _similarities(self.keys[:, self.count - 1]), out=self.bound)  # NaN: not `count` yet


def _keys(similarities, rows):
    """Returns int64 numbers: the more similar the less, the lower half the row."""
    bits = (similarities + 0.0).view(np.int32)  # + 0.0 makes -0.0 equal to 0.0
    return (~_in_order(bits)).astype(np.int64) << 32 | rows


def _similarities_and_rows(keys):
    return _similarities(keys), keys.astype(np.int32)


def _similarities(keys):
    """Returns the float32 similarities that `keys` were made of."""
    return _in_order(~(keys >> 32).astype(np.int32)).view(np.float32)


def _in_order(bits):
    """Returns the int32 numbers that are in the order of the floats with these bits; and the bits from the numbers."""
    return np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
