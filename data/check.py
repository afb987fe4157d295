"""Looks at every picture of a data set: python -m data.check --dataset=folder:PATH

Says what training would stumble over (pictures that cannot be decoded, test pictures that are in the train split as
well) and what it would see (classes, formats, sizes).  What it finds is the result and no failure: it ends with 0.
"""

import csv
import errno
import os
import sys
import time

from absl import flags

from data import cli
from data.config import open_configured
from data.errors import UserError
from data.findings import duplicates, summary
from data.flags import data_config

SHOWN = 20  # of the pictures that cannot be decoded
GROUPS_SHOWN = 5

flags.DEFINE_string("bad_csv", None, "File for the list of all pictures that cannot be decoded: split,filename,reason.")


def main():
    """Flags -> findings; returns the numbers, and prints them with names to stderr."""
    started = time.monotonic()
    config = data_config()
    dataset = open_configured(config)
    _write_bad(None)  # a place that cannot be written is better known now than in an hour
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # pictures are decoded by the processor
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what is broken is told in other words
    cli.load_tensorflow(deterministic=True)
    from data.examination import find

    splits = [split for split in (dataset.train, dataset.test) if split is not None]
    found = [find(split, config.workers) for split in splits]
    summaries = {}
    for split, findings in zip(splits, found, strict=True):
        summaries[split.name] = summary(split, dataset.class_names, findings)
        _say(*_described(split.name, summaries[split.name]))
    bad = [
        (split.name, split.names[row], reason)
        for split, findings in zip(splits, found, strict=True)
        for row, reason in findings.problems.items()
    ]
    if bad:
        _say("cannot be decoded:")
    _say(*(f"  {split}: {name}: {reason}" for split, name, reason in bad[:SHOWN]))
    if len(bad) > SHOWN:
        _say(f"  ... and {len(bad) - SHOWN:,} more{'' if flags.FLAGS.bad_csv else '; --bad_csv=FILE lists them all'}")
    _write_bad(bad)
    return {
        "dataset": dataset.spec,
        "splits": summaries,
        "duplicates": _say_duplicates(splits, duplicates(found)),
        "seconds": round(time.monotonic() - started, 1),
    }


def _say(*lines):
    for line in lines:
        print(line, file=sys.stderr)


def _described(name, numbers):
    """The lines that say what one split is like."""
    yield f"{name}: {numbers['images']:,} pictures, {numbers['bytes'] / 1e6:,.1f} MB"
    if numbers["classes"]:
        (least, few), (most, many) = numbers["least"], numbers["most"]
        labelled = "" if numbers["labelled"] == numbers["images"] else f" of {numbers['labelled']:,} labelled ones"
        yield f"  {numbers['classes']:,} classes{labelled}: from {few:,} pictures ({least}) to {many:,} ({most})"
    else:
        yield "  without labels"
    if numbers["formats"]:  # none where all are bad
        yield "  " + ", ".join(f"{count:,} {form}" for form, count in numbers["formats"].items())
    if numbers["height"]:
        yield "  height {} to {} px, width {} to {} px".format(*numbers["height"], *numbers["width"])
    yield f"  {numbers['exif_rotated']:,} turned by EXIF, {numbers['gray']:,} without colour"
    if numbers["bad"]:
        mend = (
            f" ({numbers['convertible']:,} of them data.build_tfrecords can convert)" if numbers["convertible"] else ""
        )
        yield f"  {numbers['bad']:,} cannot be decoded{mend}"


def _say_duplicates(splits, groups):
    """Prints the first groups of equal pictures; returns the counts."""
    across = [group for group in groups if len({place for place, _ in group}) > 1]
    contradictory = [group for group in groups if len({splits[place].labels[row] for place, row in group} - {-1}) > 1]
    counts = {
        "groups": len(groups),
        "pictures": sum(map(len, groups)),
        "test_in_train": sum(place == 1 for group in across for place, _ in group),
        "labelled_differently": len(contradictory),
    }
    titles = {
        f"duplicates: {counts['pictures']:,} pictures in {len(groups):,} groups of equal files": groups,
        f"{counts['test_in_train']:,} test pictures are in the train split as well": across,
        f"{len(contradictory):,} groups of equal files have different labels": contradictory,
    }
    for title, chosen in titles.items():
        if chosen:
            _say(title)
            for group in chosen[:GROUPS_SHOWN]:
                _say("  " + " = ".join(f"{splits[place].name}: {splits[place].names[row]}" for place, row in group[:4]))
    if not groups:
        _say("no duplicates")
    return counts


def _write_bad(bad):
    """Writes --bad_csv; for None only tries whether it can be, and leaves the file of an earlier examination."""
    path = flags.FLAGS.bad_csv
    if not path:
        return
    target = os.path.realpath(path)  # what a link leads to is replaced, not the link
    temporary = f"{target}.{os.getpid()}.tmp"
    try:
        if os.path.exists(target) and not os.path.isfile(target):  # root may well replace a device
            raise OSError(errno.EEXIST, "is no file", path)
        with open(temporary, "w", newline="", errors="surrogateescape") as file:
            csv.writer(file).writerows([("split", "filename", "reason"), *(bad or ())])
        if bad is None:
            os.remove(temporary)
        else:
            os.replace(temporary, target)
    except OSError as error:
        raise UserError(f"--bad_csv={path}: cannot be written ({error.strerror})") from error


if __name__ == "__main__":
    cli.run(main)
