"""One's own pictures as one HTML page: near-duplicates, outliers, clusters, an interactive map."""

import hashlib
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data.sources import ArraySource
from la_tf import names_file, page_figures, pages
from la_tf.embedding_map import Bank, map_of, sampled
from la_tf.near_duplicates import SIDE as SMALL
from la_tf.picture_sets import PictureSet
from la_tf.pile import LONELY
from la_tf.thumbnails import squeezed, thumbnail

GROUPS, IN_GROUP = 60, 12  # near-duplicates on the page: groups, and pictures of each
IN_CLUSTER = 10  # pictures of a cluster that are shown
SIDE = 72  # px
SAME = 0.999  # pictures that are as alike may be the same file: their bytes are compared


class Tile(NamedTuple):
    """A picture on the page: a data URI, its name, where its file lies (a URI, None for none), a line below it."""

    picture: str
    name: str
    file: str | None
    note: str


class Pictures:
    """The embedded pictures of a Split, by the row `[n]` of their embedding; `names` are those that have one."""

    def __init__(self, split, names):
        rows = iter(enumerate(split.names))
        self.split = split
        self.rows = np.array([next(row for row, other in rows if other == name) for name in names])
        self.root = names_file.root(split)
        self.folders, self.folder_of = _folders(names)

    def __len__(self):
        return len(self.rows)

    def name(self, number):
        """Returns the name of a picture as it can be shown."""
        return names_file.shown(self.split.names[self.rows[number]])

    def location(self, number):
        """Returns where a picture lies, `names_file.location`."""
        return names_file.location(self.root, self.split.names[self.rows[number]])

    def digest(self, number):
        """Returns a hash of a picture's file; None where it can no longer be read."""
        source, row = self.split.source, self.rows[number]
        try:
            content = source.pictures[row].tobytes() if isinstance(source, ArraySource) else source.read(row)
        except OSError:
            return None
        return hashlib.sha256(content).digest()

    def thumbnail(self, number, **side):
        """Returns a picture as a data URI."""
        return thumbnail(self.split, self.rows[number], **side)

    def small(self):
        """Returns what all look like for `near_duplicates`, `[n, 16, 16, 3]` uint8, and which can be seen, `[n]`."""
        small, seen = np.zeros((len(self), SMALL, SMALL, 3), np.uint8), np.zeros(len(self), bool)
        with ThreadPoolExecutor() as pool:  # Pillow decodes outside of Python's lock
            made = pool.map(lambda row: squeezed(self.split, row, SMALL), self.rows)
            for number, picture in enumerate(tqdm(made, "looking", len(self), leave=False, unit=" picture")):
                seen[number] = picture is not None
                small[number] = 0 if picture is None else picture
        return small, seen

    def tile(self, number, note=""):
        """Returns the Tile of a picture."""
        location = self.location(number)
        uri = Path(location).as_uri() if os.path.isfile(location) else None
        return Tile(self.thumbnail(number, side=SIDE), self.name(number), uri, note)


def _folders(names):
    """Returns the folders that pictures lie in, and which one each lies in `[n]`; none where it is a single one."""
    folders, folder_of = np.unique([name.rpartition("/")[0] for name in names], return_inverse=True)
    return (folders.tolist(), folder_of) if len(folders) > 1 else ([], np.full(len(names), -1))


def copies(pictures, pile):
    """Returns {row: the first row of its group that has the very same bytes} of near-duplicates, where there is one."""
    found = {}
    for group in tqdm(pile.duplicates, desc="comparing files", unit=" group", leave=False):
        first = {}
        for row in group[pile.likeness[group] >= SAME]:
            digest = pictures.digest(row)
            if digest is not None and first.setdefault(digest, row) != row:
                found[row] = first[digest]
    return found


def page_of(title, pictures, pile, rows, same, least, most=5000, bad=0):
    """Returns the page as HTML; `same` as of `copies`, `least` as it was given to `pile.look_through`.

    rows `[n, D]` are the embeddings of `pictures`; most: how many pictures are on the map, 0 for none; bad: how many
    could not be read.
    """
    groups = [_group(pictures, pile, same, group) for group in _shown(pile.duplicates[:GROUPS], "near-duplicates")]
    outliers = [pictures.tile(row, f"{pile.similarities[row]:.3f}") for row in _shown(pile.outliers, "outliers")]
    first_of = {row: group[0] for group in pile.duplicates for row in group}
    clusters = [_cluster(pictures, pile, first_of, number) for number in _shown(range(len(pile.clusters)), "clusters")]
    drawn = {"map": _map(pictures, pile, rows, most)} if most else {}
    return pages.render(
        "browse.html",
        drawn,
        title=title,
        pictures=pictures,
        bad=bad,
        least=least,
        nearest=min(LONELY, len(pictures) - 1),
        doubled=sum(len(group) for group in pile.duplicates),
        same=len(same),
        groups=groups,
        group_count=len(pile.duplicates),
        outliers=outliers,
        clusters=clusters,
        mapped=min(most, len(pictures)),
    )


def _shown(what, doing):
    return tqdm(what, desc=doing, leave=False)


def _group(pictures, pile, same, group):
    """Returns the Tiles of a group of near-duplicates, and how many are left out."""
    tiles = [
        pictures.tile(row, "same file" if row in same else f"{pile.likeness[row]:.3f}") for row in group[:IN_GROUP]
    ]
    return tiles, len(group) - len(tiles)


def _cluster(pictures, pile, first_of, number):
    """Returns what the page says of a cluster: a line, and the Tiles nearest to its centre, one of near-duplicates.

    first_of: {row: the first of its near-duplicates}.
    """
    portrait = pile.clusters[number]
    text = f"{len(portrait.members):,} pictures"
    if portrait.commonest is not None:
        folder = pictures.folders[portrait.commonest]
        text += f", {portrait.purity:.0%} of them in {names_file.shown(folder) or 'the folder itself'}"
    kept = {}  # the first of its near-duplicates -> the one of them in this cluster that is nearest to the centre
    for row in portrait.members:
        kept.setdefault(first_of.get(row, row), row)
    chosen = itertools.islice(kept.values(), IN_CLUSTER)
    color = page_figures.class_colors([number], len(pile.clusters))[0]
    return color, text, [pictures.tile(row) for row in chosen]


def _map(pictures, pile, rows, most):
    sample = sampled(len(pictures), most)
    labels = pile.labels[sample]
    described = tqdm(sample, desc="pictures of the map", unit=" picture", leave=False)
    shown = PictureSet(
        size=len(pictures),
        rows=sample,
        class_count=len(pile.clusters),
        labels=labels,
        classes=tuple(f"cluster {label + 1}" for label in labels),
        names=tuple(map(pictures.name, sample)),
        pictures=tuple(map(pictures.thumbnail, described)),
    )
    found = map_of(Bank(np.asarray(rows), np.ones(len(rows), bool), 0), sample)
    return page_figures.embedding_map(page_figures.map_source(shown, {0: found}), 0, "neighbors-0")
