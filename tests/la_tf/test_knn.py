"""The kNN classifier against a brute-force search in float64 NumPy."""

import csv
import weakref

import numpy as np
import pytest
import tensorflow as tf

from la_tf import knn
from la_tf.knn import KnnEvaluation, PredictionsFile, embed, judge, knn_votes
from la_tf.nearest_rows import QUERIES
from la_tf.processes import ALONE
from la_tf.spread_rows import share
from tests.la_tf.reference import unit
from tests.la_tf.together import shares, together

D = 16


def brute_force(queries, bank, labels, neighbors, tau, classes):
    """Sorts all eligible rows for each query, nearest first, ties to the lowest index, and counts votes."""
    eligible = [j for j in range(len(bank)) if labels[j] >= 0]
    votes = np.zeros((len(queries), classes))
    for row, query in enumerate(np.asarray(queries, np.float64)):
        similarity = np.asarray(bank, np.float64) @ query
        nearest = sorted(eligible, key=lambda j: (-similarity[j], j))[:neighbors]
        for j in nearest:
            votes[row, labels[j]] += np.exp((similarity[j] - similarity[nearest[0]]) / tau)
    return votes


def case(size=120, queries=40, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    bank = unit(rng.standard_normal((size, D))).astype(np.float32)
    labels = rng.integers(classes, size=size)
    return unit(rng.standard_normal((queries, D))).astype(np.float32), bank, labels


@pytest.mark.parametrize("neighbors", [1, 7, 50, 120])
@pytest.mark.parametrize("tau", [0.07, 1.0])
def test_votes_are_those_of_a_full_sort(neighbors, tau):
    queries, bank, labels = case()
    found = knn_votes(queries, bank, labels, neighbors=neighbors, tau=tau)
    np.testing.assert_allclose(found, brute_force(queries, bank, labels, neighbors, tau, 5), rtol=1e-4, atol=1e-6)


def test_more_neighbours_than_rows_means_all_rows():
    queries, bank, labels = case()
    found = knn_votes(queries, bank, labels, neighbors=10_000)
    np.testing.assert_allclose(found, brute_force(queries, bank, labels, 120, 0.07, 5), rtol=1e-4, atol=1e-6)


def test_blocks_of_queries_are_joined_in_order():
    queries, bank, labels = case(queries=2 * QUERIES + 3)
    found = knn_votes(queries, bank, labels, neighbors=9)
    np.testing.assert_allclose(found, brute_force(queries, bank, labels, 9, 0.07, 5), rtol=1e-4, atol=1e-6)


def test_of_equally_near_rows_the_lowest_index_votes():
    bank = np.eye(4, dtype=np.float32)[[1, 0, 0, 0, 2]]  # rows 1, 2, 3 are the query itself
    labels = np.array([3, 2, 0, 1, 3])
    votes = knn_votes(np.eye(4, dtype=np.float32)[:1], bank, labels, neighbors=1)
    assert votes.tolist() == [[0, 0, 1, 0]]
    votes = knn_votes(np.eye(4, dtype=np.float32)[:1], bank, labels, neighbors=2)
    assert votes.tolist() == [[1, 0, 1, 0]]


def test_a_tie_between_classes_goes_to_the_lowest_class():
    bank = np.eye(2, dtype=np.float32)
    diagonal = unit(np.array([[1.0, 1.0]])).astype(np.float32)
    votes = knn_votes(diagonal, bank, np.array([1, 0]), neighbors=2)
    assert votes.tolist() == [[1, 1]] and votes.argmax(axis=1).tolist() == [0]


def test_one_class_wins_every_vote():
    queries, bank, _ = case()
    votes = knn_votes(queries, bank, np.zeros(120, np.int64), neighbors=3)
    assert votes.shape == (40, 1) and (votes >= 1).all()


def test_rows_without_a_label_neither_vote_nor_take_up_a_place_among_the_nearest():
    queries, bank, labels = case()
    labels[np.random.default_rng(1).random(120) < 0.6] = -1
    found = knn_votes(queries, bank, labels, neighbors=20, classes=5)
    np.testing.assert_allclose(found, brute_force(queries, bank, labels, 20, 0.07, 5), rtol=1e-4, atol=1e-6)


def test_a_bank_without_any_label_is_refused():
    queries, bank, labels = case()
    with pytest.raises(ValueError, match="label"):
        knn_votes(queries, bank, np.full_like(labels, -1))


def test_labels_that_do_not_fit_the_bank_or_the_classes_are_refused():
    queries, bank, labels = case()
    with pytest.raises(ValueError, match="120 rows, but there are 119 labels"):
        knn_votes(queries, bank, labels[1:])
    with pytest.raises(ValueError, match="label 4, but there are 4 classes"):
        knn_votes(queries, bank, labels, classes=4)


def test_classes_that_no_row_has_get_no_votes():
    queries, bank, labels = case()
    votes = knn_votes(queries, bank, labels, classes=9)
    assert votes.shape == (40, 9) and (votes[:, 5:] == 0).all()


def test_no_queries_give_no_votes():
    _, bank, labels = case()
    assert knn_votes(np.zeros((0, D), np.float32), bank, labels).shape == (0, 5)


def test_a_tiny_temperature_does_not_overflow_and_leaves_the_vote_to_the_nearest():
    queries, bank, labels = case()
    votes = knn_votes(queries, bank, labels, tau=1e-4)  # exp(1 / tau) is far beyond float32
    assert np.isfinite(votes).all()
    nearest = labels[(queries.astype(np.float64) @ bank.T.astype(np.float64)).argmax(axis=1)]
    assert (votes.argmax(axis=1) == nearest).all()


class Bank:
    def __init__(self, rows, written, first=0):
        self.own = first, rows, written

    def own_rows(self):
        return self.own


class ModelWithBank:
    """Takes the picture's first D numbers for its embedding."""

    def __init__(self, rows, written, first=0, processes=ALONE):
        self.bank, self.processes = Bank(rows, written, first), processes

    def __call__(self, images, training):
        assert training is False, "evaluation has to be in inference mode"
        return tf.reshape(images, [tf.shape(images)[0], -1])[:, :D]


def batches_of(rows, labels, size, valid=None):
    valid = np.ones(len(rows), bool) if valid is None else valid
    for start in range(0, len(rows), size):
        part = slice(start, start + size)
        yield {
            "image": tf.constant(rows[part].reshape(-1, 2, 2, D // 4)),
            "index": tf.range(len(rows), dtype=tf.int64)[part],
            "label": tf.constant(labels[part], tf.int64),
            "valid": tf.constant(valid[part]),
        }


def test_embedding_joins_all_batches_the_smaller_last_one_included():
    queries, bank, labels = case()
    model = ModelWithBank(bank, np.ones(120, bool))
    embeddings, indices, found = embed(model, batches_of(queries, labels[:40], 16))
    np.testing.assert_array_equal(embeddings, queries)
    assert indices.tolist() == list(range(40)) and found.tolist() == labels[:40].tolist()


def test_masked_queries_are_neither_embedded_nor_judged():
    queries, bank, labels = case()
    model = ModelWithBank(bank, np.ones(120, bool))
    valid = np.arange(40) % 7 != 3
    masked = np.where(valid[:, None], queries, queries[0])  # as the pipeline does: a copy of another picture
    embeddings, indices, found = embed(model, batches_of(masked, labels[:40], 16, valid))
    np.testing.assert_array_equal(embeddings, queries[valid])
    assert indices.tolist() == np.flatnonzero(valid).tolist() and found.tolist() == labels[:40][valid].tolist()

    votes = brute_force(queries, bank, labels, 9, 0.07, 5)
    truth = np.where(valid, votes.argmax(axis=1), (votes.argmax(axis=1) + 1) % 5)  # the masked ones would be wrong
    evaluate = KnnEvaluation("score", labels, classes=5, neighbors=9)
    assert evaluate(model, batches_of(queries, truth, 16, valid)) == {"score": 1.0}
    assert evaluate(model, batches_of(queries, truth, 16)) == {"score": pytest.approx(valid.mean())}
    assert evaluate(model, batches_of(queries, truth, 16, np.zeros(40, bool))) == {"score": 0.0}


def test_evaluation_hears_only_written_rows_that_are_not_silent_and_judges_only_labelled_pictures():
    queries, bank, labels = case(size=60, queries=50)
    rng = np.random.default_rng(2)
    truth = rng.integers(-1, 5, size=50)
    written = rng.random(60) < 0.7
    silent = np.array([0, 5, 6, 7, 30, 59])
    before = labels.copy()
    evaluate = KnnEvaluation("score", labels, classes=5, neighbors=9, tau=0.1, silent_rows=silent)
    found = evaluate(ModelWithBank(bank, written), batches_of(queries, truth, 32))

    heard = np.where(written & ~np.isin(np.arange(60), silent), labels, -1)
    votes = brute_force(queries, bank, heard, 9, 0.1, 5)
    known = truth >= 0
    assert found == {"score": pytest.approx((votes.argmax(axis=1) == truth)[known].mean())}
    np.testing.assert_array_equal(labels, before)  # the caller's labels are not silenced for good


@pytest.mark.parametrize("which", ["silent", "unwritten"])
def test_a_picture_does_not_find_itself_among_silent_or_unwritten_rows(which):
    # Every query is a row of the bank; with its own row mute, the only other row gives the wrong answer.
    rows = np.eye(D, dtype=np.float32)[:2]
    written = np.array([which == "silent", True])
    silent = (0,) if which == "silent" else ()
    labels = np.array([0, 1])
    evaluate = KnnEvaluation("score", labels, classes=2, silent_rows=silent)
    assert evaluate(ModelWithBank(rows, written), batches_of(rows[:1], labels[:1], 1)) == {"score": 0.0}


def test_as_long_as_no_row_has_a_vote_the_score_is_0_and_no_error():
    rows, labels = np.eye(D, dtype=np.float32)[:2], np.array([0, 1])
    evaluate = KnnEvaluation("score", labels, classes=2)
    assert evaluate(ModelWithBank(rows, np.zeros(2, bool)), batches_of(rows, labels, 2)) == {"score": 0.0}


def first_numbers(images):
    return tf.reshape(images, [tf.shape(images)[0], -1])[:, :D]


class Report(list):
    """Keeps what it is told, one tuple a picture."""

    def __call__(self, *told):
        self.extend(zip(*(part.tolist() for part in told), strict=True))


@pytest.mark.parametrize("batch", [1, 7, 40, 100])  # against 32 queries a pass
def test_a_stream_is_judged_and_told_picture_by_picture_in_its_order(monkeypatch, batch):
    monkeypatch.setattr(knn, "QUERIES", 32)
    queries, bank, labels = case(queries=90)
    rng = np.random.default_rng(3)
    truth, valid = rng.integers(-1, 5, size=90), rng.random(90) < 0.8
    labels[::3] = -1
    told = Report()
    batches = batches_of(queries, truth, batch, valid)
    scores = judge(first_numbers, batches, bank, labels, classes=5, neighbors=9, tau=0.1, report=told)

    votes = brute_force(queries, bank, labels, 9, 0.1, 5)
    best, share = votes.argmax(axis=1), votes.max(axis=1) / votes.sum(axis=1)
    assert [entry[:3] for entry in told] == [(i, truth[i], best[i]) for i in np.flatnonzero(valid)]
    np.testing.assert_allclose([entry[3] for entry in told], share[valid], rtol=1e-5)
    judged = valid & (truth >= 0)
    assert scores.top1 == pytest.approx((best == truth)[judged].mean())
    assert scores.confidence_wrong == pytest.approx(share[judged & (best != truth)].mean(), rel=1e-5)
    counts = scores.judged, scores.unlabelled, scores.unreadable
    assert counts == (judged.sum(), (valid & (truth < 0)).sum(), (~valid).sum())


def test_batches_share_a_pass_over_the_bank_but_are_not_kept_beyond_it(monkeypatch):
    passes, alive, real = [], [], knn.nearest_of_all
    monkeypatch.setattr(knn, "QUERIES", 32)
    monkeypatch.setattr(
        knn, "nearest_of_all", lambda queries, *a, **k: passes.append(len(queries)) or real(queries, *a, **k)
    )
    _, bank, labels = case()
    rows, kept = np.zeros((1000, D), np.float32), []

    def remembered(images):
        found = np.array(first_numbers(images))
        alive.append(weakref.ref(found))
        kept.append(sum(array() is not None for array in alive))
        return found

    judge(remembered, batches_of(rows, np.zeros(1000, int), 10), bank, labels, classes=5)
    assert passes == [30] * 33 + [10]
    assert max(kept) <= 4


def test_predictions_are_a_line_each(tmp_path):
    with PredictionsFile(tmp_path / "predictions.csv", ["a.png", "b, c.png", "d.png"]) as predictions:
        predictions.write(np.array([2, 1]), np.array([0, -1]), np.array([0, 3]), np.array([1.0, 0.25]))
        predictions.write(np.array([0]), np.array([1]), np.array([1]), np.array([2 / 3]))
    with open(tmp_path / "predictions.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["index", "name", "truth", "predicted", "confidence"],
            ["2", "d.png", "0", "0", "1.0000"],
            ["1", "b, c.png", "-1", "3", "0.2500"],
            ["0", "a.png", "1", "1", "0.6667"],
        ]


def test_an_embedding_that_is_not_a_number_is_wrong_and_counted():
    queries, bank, labels = case()
    queries[5] = np.nan
    scores = judge(first_numbers, batches_of(queries, np.zeros(40, int), 16), bank, labels, classes=5)
    assert (scores.unheard, scores.judged) == (1, 40)


def test_judging_is_refused_for_a_spread_bank_whose_labels_are_of_its_own_rows():
    queries, bank, labels = case()

    def work(process):
        with pytest.raises(ValueError, match="60 rows, but there are 100 labels"):
            batches = batches_of(queries, labels[:40], 40)
            judge(first_numbers, batches, bank[60:], labels[:100], classes=5, first=60, processes=process)

    together(2, work)


def shared_batches(process, rows, labels, valid, size):
    """What process number p of W reads: batches p, p + W and so on, as `spread_rows.share` deals them out."""
    mine = share(np.arange(len(rows)), size, process.index, process.count)
    for batch in batches_of(rows[mine], labels[mine], size, valid[mine]):
        yield batch | {"index": tf.gather(mine, batch["index"])}


@pytest.mark.parametrize("size", [7, 40, 100])  # pictures a batch: 13, 3 and a single one
@pytest.mark.parametrize("cut", [(60,), (31, 50), (0, 120), (119, 1)])
def test_a_bank_spread_over_processes_votes_as_a_whole_one(monkeypatch, cut, size):
    monkeypatch.setattr(knn, "QUERIES", 32)
    rng = np.random.default_rng(3)
    # Of few whole numbers, so that similarities are equal across the processes' borders, and exact.
    queries, bank = (rng.integers(-1, 2, size=(rows, D)).astype(np.float32) for rows in (90, 120))
    labels, truth = rng.integers(-1, 5, size=120), rng.integers(-1, 5, size=90)
    valid = rng.random(90) < 0.8
    settings = {"classes": 5, "neighbors": 9, "tau": 3.0}
    whole = Report()
    scores = judge(first_numbers, batches_of(queries, truth, size, valid), bank, labels, report=whole, **settings)
    parts, firsts = shares(bank, *cut), np.cumsum([0, *cut])

    def work(process):
        report, batches = Report(), shared_batches(process, queries, truth, valid, size)
        own = {"first": firsts[process.index], "processes": process}
        found = judge(first_numbers, batches, parts[process.index], labels, report=report, **own, **settings)
        return found, report

    for found, told in together(len(parts), work):
        assert told == whole
        for count in ("class_count", "class_right", "among_five", "unheard", "unlabelled", "unreadable"):
            np.testing.assert_array_equal(getattr(found, count), getattr(scores, count), err_msg=count)
        assert found.confidence == pytest.approx(scores.confidence, rel=1e-12)  # added up in other groups


@pytest.mark.parametrize("spread", [True, False])  # or every process has all rows
@pytest.mark.parametrize("neighbors", [3, 1000])
def test_an_evaluation_hears_the_written_rows_of_all_processes(spread, neighbors):
    queries, bank, labels = case(size=61, queries=50)
    rng = np.random.default_rng(2)
    truth, written = rng.integers(-1, 5, size=50), rng.random(61) < 0.7
    evaluate = KnnEvaluation("score", labels, 5, neighbors, tau=0.1, silent_rows=np.array([0, 5, 6, 30, 60]))
    alone = evaluate(ModelWithBank(bank, written), batches_of(queries, truth, 8))
    rows, marks = shares(bank, 20, 21), shares(written, 20, 21)

    def work(process):
        own = (rows[process.index], marks[process.index], 21 * process.index - (process.index > 0))
        model = ModelWithBank(*(own if spread else (bank, written)), processes=process)
        return evaluate(model, shared_batches(process, queries, truth, np.ones(50, bool), 8))

    assert together(3, work) == [alone] * 3


def test_rows_never_cross_between_processes():
    queries, bank, labels = case(size=3000, queries=4)

    def work(process):
        batches = shared_batches(process, queries, labels[:4], np.ones(4, bool), 2)
        part = slice(1500 * process.index, 1500 * (process.index + 1))
        judge(first_numbers, batches, bank[part], labels, classes=5, neighbors=10, first=part.start, processes=process)
        return sum(size for _, size in process.calls)

    sent = together(2, work)
    # Of its 2 queries each its row, number and label; 10 keys for each of the 4; two numbers for each of two rounds.
    assert sent == [2 * (4 * D + 8 + 8) + 4 * 10 * 8 + 2 * 2 * 8] * 2


def test_as_long_as_no_process_has_a_row_with_a_vote_the_score_is_0():
    queries, bank, labels = case(size=6, queries=3)
    evaluate = KnnEvaluation("score", labels, classes=5)

    def work(process):
        part = slice(3 * process.index, 3 * process.index + 3)
        model = ModelWithBank(bank[part], np.zeros(3, bool), part.start, process)
        return evaluate(model, shared_batches(process, queries, labels[:3], np.ones(3, bool), 1))

    assert together(2, work) == [{"score": 0.0}] * 2
