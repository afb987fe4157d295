"""Evaluation pictures with their nearest training pictures (the paper's Figure 3), as data for a page."""

from dataclasses import dataclass

import numpy as np

from data.errors import UserError
from data.sources import evenly_spaced
from la_tf.experiment import Experiment, stored_config
from la_tf.names_file import shown as printable
from la_tf.picture_sets import class_name
from la_tf.specs import ModeKeys
from la_tf.thumbnails import thumbnail

LOOKED_AT = 400  # evaluation pictures among which those shown are chosen
SIDE = 72  # px


@dataclass(frozen=True)
class Shown:
    """A picture on a sheet: a data URI, two lines below it, whether it is of the query's class (None: unknown)."""

    picture: str
    title: str
    note: str = ""
    right: bool | None = None


@dataclass(frozen=True)
class Sheet:
    """Rows of a query and its nearest, and a sentence on what was looked at."""

    rows: tuple[tuple[Shown, tuple[Shown, ...]], ...]
    about: str


def sheet_of(folder, count=3, nearest=11):
    """Returns the Sheet of the run in `folder`: `count` confident successes, then as many unconfident failures.

    Without labels, 2 * `count` pictures evenly spaced; without a test split, training pictures and their nearest
    others. Loads the network, so TensorFlow. Raises UserError where pictures or checkpoint are missing or others.
    """
    experiment = Experiment(stored_config(folder))
    experiment.check()
    from la_tf import subject
    from la_tf.knn import embeddings, knn_votes
    from la_tf.nearest_rows import nearest_rows
    from la_tf.retrieval import same_class, successes_and_failures
    from la_tf.scores import decide

    dataset, train = experiment.dataset, experiment.train
    split = dataset.test or train
    judged = subject.of_run(folder)
    bank, written = judged.bank[0].astype(np.float32), judged.bank[1]
    looked_at = np.array(evenly_spaced(split.size, LOOKED_AT))
    batches = experiment.batches(ModeKeys.EVAL, None, split=split, rows=looked_at)
    queries, indices, truth = embeddings(judged.embed, batches)
    if not len(queries):
        raise UserError(f"{split}: none of {len(looked_at)} pictures can be read")
    labels = np.where(written, train.labels, -1)
    about = f"{len(queries)} pictures of {split}"
    if (labels >= 0).any() and (truth >= 0).any() and dataset.test:
        votes = knn_votes(queries, bank, labels, tau=experiment.config.method.tau, classes=dataset.class_count)
        chosen, confidence = np.concatenate(successes_and_failures(votes, truth, count)), decide(votes)[1]
        about = f"Of {about}: the most confident successes of kNN, then its least confident failures; "
        about += "blue: of the picture's class, orange: of another."
    else:
        chosen, confidence = evenly_spaced(len(queries), 2 * count), None
        about = f"Of {about}: some, evenly spaced."
    similarities, found = nearest_rows(queries[chosen], bank, nearest + 1, written)
    rows = []
    for query, similar, neighbors in zip(chosen, similarities, found, strict=True):
        row, label = indices[query], truth[query]
        sure = "" if confidence is None else f"{confidence[query]:.0%} sure"
        others = [pair for pair in zip(neighbors, similar, strict=True) if split is not train or pair[0] != row]
        shown = (
            Shown(
                thumbnail(train, other, SIDE),
                _title(dataset, train, other),
                f"{similarity:.2f}",
                same_class(label, train.labels[other]),
            )
            for other, similarity in others[:nearest]
        )
        query_shown = Shown(thumbnail(split, row, SIDE), _title(dataset, split, row), sure)
        rows.append((query_shown, tuple(shown)))
    return Sheet(tuple(rows), about)


def _title(dataset, split, row):
    """Returns the class of a picture, the name of its file where it has none."""
    label = split.labels[row]
    return class_name(dataset, label) if label >= 0 else printable(split.names[row].rpartition("/")[2])
