"""Prints a table of the paper with our numbers in it: python -m la_tf.report --table=1 --runs=runs/a,runs/b

Reads the results.jsonl that la_tf.evaluate left in the folders. S1 to S3 are Tables 1 to 3 of the paper's supplement.
"""

import glob
import sys
from pathlib import Path

from absl import flags

from data import cli
from data.errors import FlagError, UserError
from la_tf import results, table_formats
from la_tf.comparison import compare
from la_tf.model_dir import write_text
from la_tf.paper_tables import TABLES

flags.DEFINE_string("table", None, f"{' | '.join(TABLES)}: which table of the paper.")
flags.DEFINE_string("runs", None, "Folders with results, separated by commas; patterns such as runs/digits-* too.")
flags.DEFINE_string("format", "markdown", f"{' | '.join(table_formats.FORMATS)}.")
flags.DEFINE_string("out", None, "File for the table; without it the table is printed.")


def main():
    """Prints or writes the table; returns what went into it."""
    name, form, out = (flags.FLAGS[flag].value for flag in ("table", "format", "out"))
    if name is None:
        raise FlagError(f"--table: say which, e.g. --table=1; there are {', '.join(TABLES)}")
    if name.upper() not in TABLES:
        raise FlagError(f"--table={name}: choose one of {', '.join(TABLES)}")
    if form not in table_formats.FORMATS:
        raise FlagError(f"--format={form}: choose one of {', '.join(table_formats.FORMATS)}")
    folders = folders_of(flags.FLAGS["runs"].value)
    comparison = compare(name.upper(), results.read(folders))
    if not comparison.lines:
        print(f"table {comparison.name}: no result in --runs belongs into it: the paper's alone", file=sys.stderr)
    if comparison.superseded:
        print(
            f"table {comparison.name}: {comparison.superseded} numbers left out, for newer ones have the same settings "
            "and training seed",
            file=sys.stderr,
        )
    text = table_formats.FORMATS[form](comparison)
    if out:
        try:
            write_text(out, text)
        except OSError as error:
            raise UserError(f"--out={out}: cannot be written ({error.strerror}); choose another file") from None
    else:
        print(text, end="")
    cells = sum(len(line.cells) for line in comparison.lines)
    return {"table": comparison.name, "folders": folders, "cells": cells, **({"out": out} if out else {})}


def folders_of(text):
    """Returns the folders that --runs names, of a pattern those that hold results; raises FlagError without any."""
    if not text:
        raise FlagError("--runs: name the folders that hold results, e.g. --runs=runs/a,runs/b")
    folders = []
    for part in filter(None, text.split(",")):
        if Path(part).is_dir() or not glob.has_magic(part):
            folders.append(part)
            continue
        found = [folder for folder in sorted(glob.glob(part)) if (Path(folder) / results.FILE).exists()]
        if not found:
            raise FlagError(f"--runs={part}: no folder that it matches holds {results.FILE}; la_tf.evaluate makes one")
        folders += found
    return [*dict.fromkeys(folders)]


if __name__ == "__main__":
    cli.run(main)
