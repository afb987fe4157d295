"""The kNN classifier against a brute-force search in float64 NumPy."""

import csv
import weakref

import numpy as np
import pytest
import tensorflow as tf

from la_tf import knn
from la_tf.knn import KnnEvaluation, PredictionsFile, embed, judge, knn_votes
from la_tf.nearest_rows import QUERIES
from tests.la_tf.reference import unit

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
    def __init__(self, rows, written):
        self.rows, self.written = tf.Variable(rows), tf.Variable(written)


class ModelWithBank:
    """Takes the picture's first D numbers for its embedding."""

    def __init__(self, rows, written):
        self.bank = Bank(rows, written)

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
    passes, alive, real = [], [], knn.nearest_rows
    monkeypatch.setattr(knn, "QUERIES", 32)
    monkeypatch.setattr(
        knn, "nearest_rows", lambda queries, *a, **k: passes.append(len(queries)) or real(queries, *a, **k)
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
