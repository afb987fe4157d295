"""The pictures that runs were trained on, opened again to be shown: each set once, and why it cannot be, if so."""

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from data.config import open_configured
from data.errors import UserError
from la_tf import names_file
from la_tf.embedding_map import sampled
from la_tf.experiment import stored_config
from la_tf.thumbnails import thumbnail

UNKNOWN = "?"  # the class of an unlabelled picture


@dataclass(frozen=True, eq=False)
class PictureSet:
    """A sample of a split: `rows` `[S]` of `size`, with what is known of each; without a data set the lists are empty.

    labels `[S]` are -1 where unknown; `classes` and `names` are texts, `pictures` data URIs; `problem` says why there
    are none, in a few words.
    """

    size: int
    rows: np.ndarray
    class_count: int = 0
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()
    problem: str | None = None


def open_pictures(run, most, size):
    """Returns the PictureSet of a `PastRun`, at most `most` of its `size` pictures (rows of its bank)."""
    rows = sampled(size, most)
    try:
        dataset = open_configured(stored_config(run.folder).data)
        if dataset.train.size != size or dataset.train.fingerprint != run.identity.get("data"):
            raise UserError(f"{dataset.spec}: holds other pictures now than the run was trained on")
    except UserError as error:
        return PictureSet(size, rows, problem=str(error))
    train = dataset.train
    described = tqdm(rows, desc=f"pictures of {names_file.shown(dataset.spec)}", unit=" pictures", leave=False)
    labels = train.labels[rows]
    return PictureSet(
        size=size,
        rows=rows,
        class_count=dataset.class_count,
        labels=labels,
        classes=tuple(class_name(dataset, label) for label in labels),
        names=tuple(names_file.shown(train.names[row]) for row in rows),
        pictures=tuple(thumbnail(train, row) for row in described),
    )


def class_name(dataset, label):
    """Returns what a label is called: its class, its number where classes have no names, UNKNOWN for -1."""
    if label < 0:
        return UNKNOWN
    return names_file.shown(dataset.class_names[label] if dataset.class_names else label)
