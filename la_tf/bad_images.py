"""Pictures that cannot be used (`valid` False in a batch): named, listed in MODEL_DIR/bad_images.csv, counted."""

import csv
import io
import itertools
import sys
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from data import reading
from data.errors import UserError
from la_tf.model_dir import write_text
from la_tf.processes import ALONE

FILE = "bad_images.csv"
COLUMNS = ("split", "index", "name", "reason")
NAMED = 20  # on the terminal, of a split; the file names all


class BadImages(keras.callbacks.Callback):
    """The bad pictures of one split, each counted, named and listed once, however often it comes.

    As a hook of training it adds `bad_images`, their number, to every line of metrics, and it is a part of the
    checkpoints: a resumed run knows what its checkpoint knew, and finds again what came after it. Of several
    `processes` each finds those of its part of the batches; they tell each other with every line and checkpoint.
    """

    def __init__(self, split, model_dir, max_fraction, processes=ALONE):
        super().__init__()
        self.split = split
        self.path = Path(model_dir) / FILE
        self.max_fraction = max_fraction
        self.processes = processes
        self.rows = {}  # as an ordered set: in the order in which they were found
        self.listed = {int(line["index"]) for line in read(self.path) if line["split"] == split.name}
        self.named = 0

    def watch(self, batches):
        """Yields `batches`; raises UserError as soon as more than `max_fraction` of the split is known to be bad."""
        for batch in batches:
            valid = np.asarray(batch["valid"])
            if not valid.all():
                self._add(np.asarray(batch["index"])[~valid].tolist())
            yield batch

    def count(self, rows=None):
        """Returns how many of `rows` (None: of the split) are known to be bad."""
        return len(self.rows) if rows is None else sum(int(row) in self.rows for row in rows)

    def _add(self, rows):
        new = [row for row in dict.fromkeys(rows) if row not in self.rows]
        lines = []
        for row in new:
            name = self.split.source.locate(row)
            reason = reading.problem(self.split, row) or "could not be read a moment ago"
            self._name(f"bad picture: {name}: {reason}; left out")
            lines.append({"split": self.split.name, "index": row, "name": name, "reason": reason})
        self.rows |= dict.fromkeys(new)
        self._list([line for line in lines if line["index"] not in self.listed])
        if self.processes.count == 1:  # several refuse together, in `share`: nobody is to wait for one that has gone
            self._refuse_too_many()

    def _name(self, line):
        self.named += 1
        if self.named <= NAMED:
            tqdm.write(line, file=sys.stderr)  # above the bar, where there is one
        elif self.named == NAMED + 1:
            tqdm.write(f"bad picture: there are more; {self.path} lists them all", file=sys.stderr)

    def _list(self, lines):
        if not lines:
            return
        with open(self.path, "a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(as_csv(lines, header=file.tell() == 0))  # in one piece: another process may append, too
        self.listed.update(line["index"] for line in lines)

    def _refuse_too_many(self):
        count, size = len(self.rows), self.split.size
        if count / size > self.max_fraction:
            names = ", ".join(self.split.source.locate(row) for row in itertools.islice(self.rows, 3))
            raise UserError(
                f"{self.split}: {count} of {size} pictures ({count / size:.1%}) are bad, the first {names}; all are in "
                f"{self.path}: mend them for a new run, or raise --max_bad_fraction={self.max_fraction:g}"
            )

    # -- as a hook ------------------------------------------------------------------------------------------------

    def on_train_begin(self, logs=None):
        """Forgets what a killed process listed after its last checkpoint."""
        self.listed &= self.rows.keys()
        if self.path.exists() and self.processes.index == 0:
            lines = read(self.path)
            kept = [line for line in lines if line["split"] != self.split.name or int(line["index"]) in self.listed]
            write_text(self.path, as_csv(kept, header=True))
        self.processes.sum(np.zeros(1))  # nobody adds a line before
        self._refuse_too_many()  # the flag may have been lowered

    def on_train_batch_end(self, batch, logs=None):
        """Adds the count at the steps that are logged."""
        if logs:
            self.share()
            logs["bad_images"] = self.count()

    def on_epoch_end(self, epoch, logs=None):
        """Adds the count; an evaluation of the epoch may have left its own there."""
        self.share()
        logs["bad_images"] = self.count()

    def get_state(self):
        """Returns the rows that are known to be bad."""
        self.share()
        return {"rows": list(self.rows)}

    def share(self):
        """Takes over what the other processes have found; all of them call it."""
        if self.processes.count > 1:
            self.rows = dict.fromkeys(self.processes.gather(np.array(list(self.rows), np.int64)).tolist())
            self._refuse_too_many()

    def set_state(self, state):
        """Takes over what `get_state` returned."""
        self.rows = dict.fromkeys(state["rows"])


def read(path):
    """Returns the lines of a bad_images.csv as dicts, none when there is no file; a torn last line is passed over.

    Raises UserError where it is damaged.
    """
    if not Path(path).exists():
        return []
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        reader = csv.DictReader(file)
        try:
            lines = [line for line in reader if None not in line.values()]
            if lines and not ({*COLUMNS} <= {*lines[0]} and all(line["index"].isdecimal() for line in lines)):
                raise ValueError(f"its columns should be {', '.join(COLUMNS)}, with whole numbers as index")
        except (csv.Error, ValueError) as error:
            raise UserError(f"{path}: is damaged ({error}); remove it: what is bad is found again") from None
    return lines


def as_csv(lines, header):
    """Returns `lines`, dicts of COLUMNS, as text."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
