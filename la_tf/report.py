"""Reports on runs: python -m la_tf.report --runs=runs/a,runs/b --out=report/, or --table=1 --runs=runs/a,runs/b

Without --table it writes one HTML page, OUT/index.html, that opens from disk and needs no network: is it working,
curves, an interactive map of the embedding, nearest neighbours, results beside the paper's, settings. With --table it
prints that table of the paper with our numbers in it, from the results.jsonl that la_tf.evaluate left in the folders;
S1 to S3 are Tables 1 to 3 of the paper's supplement.
"""

import glob
import logging
import sys
from pathlib import Path

from absl import flags

from data import cli
from data.errors import FlagError, UserError
from la_tf import results, table_formats
from la_tf.comparison import compare
from la_tf.model_dir import writable_folder, write_text
from la_tf.paper_tables import TABLES
from la_tf.past_run import read_runs, stored_run

flags.DEFINE_string("table", None, f"{' | '.join(TABLES)}: which table of the paper; without it, the page.")
flags.DEFINE_string(
    "runs", None, "Folders of runs or results, separated by commas; patterns such as runs/digits-* too."
)
flags.DEFINE_string("format", "markdown", f"{' | '.join(table_formats.FORMATS)}, of a table.")
flags.DEFINE_string("out", None, "Folder of the page; file for the table, which without it is printed.")
flags.DEFINE_integer("pictures", 5000, "Pictures on the maps of the page in all; 0: a page without maps and pictures.")


def main():
    """Writes the page, or prints or writes a table; returns what went into it."""
    return write_page() if flags.FLAGS["table"].value is None else print_table()


def write_page():
    """Writes OUT/index.html; returns where it lies, of what, and its size."""
    out, pictures = (flags.FLAGS[flag].value for flag in ("out", "pictures"))
    if not out:
        raise FlagError(
            "--out: name the folder that the page is to be written into, e.g. --out=report/; "
            f"or --table: a table of the paper, {', '.join(TABLES)}"
        )
    if flags.FLAGS["format"].present:
        raise FlagError("--format: goes with --table alone; the page is HTML")
    if pictures < 0:
        raise FlagError(f"--pictures={pictures}: must be at least 0")
    target = Path(out) / "index.html"
    if Path(out).is_file():
        raise FlagError(f"--out={out}: is a file; name a folder, in which index.html is written")
    runs = read_runs(folders_of(flags.FLAGS["runs"].value, has_a_page, "a run or its results"))
    writable_folder(out)
    if pictures and any(run.trained_here for run in runs):
        cli.load_tensorflow()  # for the networks, which find the neighbours of evaluation pictures
        logging.getLogger("tensorflow").setLevel(logging.ERROR)  # that each run has a network of its own is no problem
    from la_tf.report_page import page_of

    page = page_of(runs, pictures)
    _write(target, page, out)
    return {"page": str(target), "runs": [run.name for run in runs], "megabytes": round(target.stat().st_size / 1e6, 2)}


def print_table():
    """Prints or writes the table; returns what went into it."""
    name, form, out = (flags.FLAGS[flag].value for flag in ("table", "format", "out"))
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
        _write(out, text, out)
    else:
        print(text, end="")
    cells = sum(len(line.cells) for line in comparison.lines)
    return {"table": comparison.name, "folders": folders, "cells": cells, **({"out": out} if out else {})}


def has_results(folder):
    """Whether la_tf.evaluate has left results in a folder."""
    return (Path(folder) / results.FILE).exists()


def has_a_page(folder):
    """Whether a folder holds a run or results; says so of one that looks like a run but is a detector's."""
    if has_results(folder) or stored_run(folder):
        return True
    if (Path(folder) / "config.json").exists():
        print(f"{folder}: passed over: no run of la_tf.train", file=sys.stderr)
    return False


def of_studies(folder):
    """Whether the results in a folder are those of `python -m evidence`: of many runs, which have theirs as well."""
    return has_results(folder) and any("cell" in record for record in results.read([folder]))


def folders_of(text, wanted=has_results, what=results.FILE):
    """Returns the folders that --runs names, of a pattern those that are `wanted`; FlagError without any."""
    if not text:
        raise FlagError("--runs: name the folders to report on, e.g. --runs=runs/a,runs/b")
    folders = []
    for part in filter(None, text.split(",")):
        if Path(part).is_dir() or not glob.has_magic(part):
            if of_studies(part):
                raise FlagError(f"--runs={part}: holds the lines of python -m evidence; name runs below its --runs")
            folders.append(part)
            continue
        found = [path for path in sorted(glob.glob(part)) if wanted(path) and not of_studies(path)]
        if not found:
            raise FlagError(f"--runs={part}: no folder that it matches holds {what}; la_tf.evaluate makes results")
        folders += found
    if not folders:
        raise FlagError(f"--runs={text}: names no folder; e.g. --runs=runs/a,runs/b")
    return [*dict.fromkeys(folders)]


def _write(path, text, out):
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written ({error.strerror}); choose another") from None


if __name__ == "__main__":
    cli.run(main)
