"""Looks at every picture and box of annotated sets: python -m detection.check --devkit=PATH --sets=2007_trainval

Names all that training would stumble over: corners that count from another origin, flipped or empty boxes, boxes
beyond the picture, unknown classes, annotations and pictures that are missing or damaged.  Ends with 1 where any of it
has to be mended first, with 0 where there are notes alone.
"""

import json
import os
import sys
import time

from absl import flags

from data import cli
from data.errors import FlagError, UserError
from data.voc import DetectionSet
from data.voc_check import counts, defects, table
from detection.flags import data_options

flags.DEFINE_list(
    "sets", None, "The sets to look at, separated by commas. Default: --train_set, and --val_set if given."
)


def main():
    """Flags -> defects; returns the counts, and prints the defects to stderr."""
    started = time.monotonic()
    options = data_options()
    names = flags.FLAGS.sets or [name for name in (options.train_set, options.val_set) if name]
    if "" in names:
        raise FlagError(f"--sets={','.join(names)}: a set has no name; leave out a comma")
    if len({*names}) < len(names):
        raise FlagError(f"--sets={','.join(names)}: a set is named twice")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # pictures are decoded by the processor
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what is broken is told in other words
    if options.devkit.startswith("tfds:"):  # which imports it, but not as quietly
        cli.load_tensorflow(deterministic=True)
    sets = [options.open(name) for name in names]
    cli.load_tensorflow(deterministic=True)
    result = {"devkit": options.devkit, "sets": {}, "stops": 0}
    for detection_set in sets:
        found = defects(detection_set, decode=True, workers=options.workers)
        numbers = summary(detection_set) | {"defects": counts(found), "stops": sum(each.stops for each in found)}
        result["sets"][detection_set.name] = numbers
        result["stops"] += numbers["stops"]
        print(f"{described(detection_set.name, numbers)}\n{table(found)}", file=sys.stderr)
    result["seconds"] = round(time.monotonic() - started, 1)
    if result["stops"]:  # both a result and a failure
        print(json.dumps(result))
        sys.exit(UserError.exit_code)
    return result


def summary(detection_set: DetectionSet) -> dict:
    """Counts of one set, JSON-able; of the objects of each class those that are not difficult."""
    objects = [each for picture in detection_set.pictures for each in picture.objects]
    counted = dict.fromkeys(detection_set.classes, 0)
    for each in objects:
        if not each.difficult and each.name in counted:
            counted[each.name] += 1
    return {
        "pictures": detection_set.size,
        "objects": len(objects),
        "difficult": sum(each.difficult for each in objects),
        "classes": counted,
    }


def described(name: str, numbers: dict) -> str:
    """The lines that say what one set is like."""
    present = [each for each, count in numbers["classes"].items() if count]
    absent = [each for each, count in numbers["classes"].items() if not count]
    line = f"{name}: {numbers['pictures']:,} pictures, {numbers['objects']:,} objects"
    line += f" ({numbers['difficult']:,} of them difficult) of {len(present)} classes"
    if absent:
        line += f"; without any: {', '.join(absent[:10])}{', ...' if len(absent) > 10 else ''}"
    return line


if __name__ == "__main__":
    cli.run(main)
