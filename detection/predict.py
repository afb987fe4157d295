"""Finds objects in pictures and draws them: python -m detection.predict IMAGE... --model_dir=runs/voc --out=found

IMAGE is a file, or a folder of pictures. DIR gets <name>.png for each, and detections.json with all that was found.
--export=DIR, what detection.export has made, takes the place of --model_dir.
"""

import json
import sys

from absl import flags

from data import cli
from data.errors import FlagError, UserError
from detection.config import fraction
from detection.picture_files import check_apart, picture_files

flags.DEFINE_string("model_dir", None, "The run of detection.train that looks at the pictures.")
flags.DEFINE_integer("step", None, "Checkpoint of the run. Default: the newest.")
flags.DEFINE_string("export", None, "The folder of detection.export that does, instead of a run.")
flags.DEFINE_string("out", None, "The folder for the drawn pictures and detections.json.")
flags.DEFINE_float("least_score", 0.5, "What is drawn has at least this score; detections.json has all.")


def main(paths):
    """Pictures -> detections, drawn and written down; returns how many."""
    folder, step, export, out, least_score = (
        flags.FLAGS[name].value for name in ("model_dir", "step", "export", "out", "least_score")
    )
    files = checked(paths, folder, step, export, out, least_score)
    cli.load_tensorflow()
    from detection import prediction

    detector = prediction.of_export(export) if export else prediction.of_run(folder, step)
    try:
        found = prediction.predict(detector, files, out, least_score)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written ({error.strerror}); choose another folder") from None
    result = {"out": out, **detector.source, "pictures": len(found["pictures"]), "bad": len(found["bad"])}
    result["drawn_objects"] = sum(
        each["score"] >= least_score for picture in found["pictures"] for each in picture["objects"]
    )
    if not found["pictures"]:  # both a result and a failure
        print(json.dumps(result))
        sys.exit(UserError.exit_code)
    return result


def checked(paths, folder, step, export, out, least_score):
    """Returns the picture files; raises FlagError for what is missing or does not go together."""
    files = picture_files(paths)
    if (folder is None) == (export is None):
        raise FlagError("--model_dir, --export: give one of them, the run or the exported detector that is to look")
    if export is not None and step is not None:
        raise FlagError(f"--step={step}: goes with --model_dir; an export is of one step")
    if not out:
        raise FlagError("--out: say which folder gets the drawn pictures and detections.json")
    fraction("least_score", least_score)
    check_apart(files, out)
    return files


if __name__ == "__main__":
    cli.run(main, files=True)
