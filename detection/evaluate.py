"""Scores detections on an annotated set: python -m detection.evaluate --model_dir=M --test_set=2007_test

Of a run of detection.train, or by --results=DIR of any program that writes VOC's result files
(comp4_det_test_<class>.txt). A run's own are written to MODEL_DIR/results/<set>/step-<step>/.
"""

import dataclasses
import re
import sys
from pathlib import Path

from absl import flags

from data import cli
from data.errors import FlagError
from detection import comp4
from detection import flags as detection_flags
from detection.scores import table, voc_scores

flags.DEFINE_string("test_set", "2007_test", "What is scored, e.g. 2007_test; own folder: test.")
flags.DEFINE_string("results", None, "Folder of VOC result files to score instead of a run.")
flags.DEFINE_integer("step", None, "Checkpoint of the run. Default: the newest.")
flags.DEFINE_string("sheet", None, "PNG to draw some of the pictures in, with true and found boxes.")
flags.DEFINE_integer("sheet_pictures", 12, "How many.")

# What a run can be evaluated with other than it was trained; all else belongs to the run.
OF_PICTURES = ("devkit", "classes_file", "tfds_data_dir", "box_origin", "workers")
OF_EVALUATION = (
    "test_short_side",
    "long_side",
    "test_proposals",
    "proposal_iou",
    "score_threshold",
    "nms_iou",
    "detections",
)
SHEETS = (".png", ".pdf", ".svg", ".jpg")


def main():
    """Flags -> detections -> scores; returns these, and prints them as tables."""
    name, results = flags.FLAGS["test_set"].value, flags.FLAGS["results"].value
    check_flags(results)
    found = of_files(name, results) if results else of_run(name, detection_flags.model_dir())
    pictures, detections, facts = found
    from detection.coco_ap import coco_numbers
    from detection.voc_ap import truth_of

    truth, count = truth_of(pictures), len(pictures.classes)
    scores = voc_scores(detections, truth, pictures.classes)
    coco = coco_numbers(detections, truth, count)
    print(table(scores, coco, pictures), file=sys.stderr)
    result = {**facts, "set": name, "pictures": pictures.size, **scores["mean"]}
    result |= {**coco, "ap50_by_class": scores["voc07_ap50"]}
    if facts.get("folder"):
        from la_tf.model_dir import write_json

        write_json(Path(facts["folder"]) / "scores.json", result)
    if flags.FLAGS["sheet"].value:
        draw(flags.FLAGS["sheet"].value, pictures, detections)
    return result


def check_flags(results):
    """Raises FlagError for what does not go together, what has no effect here, and a sheet that cannot be written."""
    sheet, count = flags.FLAGS["sheet"].value, flags.FLAGS["sheet_pictures"].value
    if (results is None) == (detection_flags.model_dir() is None):
        raise FlagError("--model_dir, --results: give one of them, the run to score or the folder of result files")
    read = OF_PICTURES if results else (*OF_PICTURES, *OF_EVALUATION, "model_dir")
    ignored = next((name for name in detection_flags.given() if name not in read), None)
    if ignored:
        raise FlagError(
            f"--{ignored}: has no effect on an evaluation, which reads {', '.join(f'--{one}' for one in read)}"
        )
    if count < 1:
        raise FlagError(f"--sheet_pictures={count}: must be at least 1")
    if sheet and (not sheet.endswith(SHEETS) or not Path(sheet).absolute().parent.is_dir()):
        raise FlagError(f"--sheet={sheet}: give a file in a folder that is there, ending in {', '.join(SHEETS)}")


def of_files(name, folder):
    """Returns (set, detections, facts) of the result files of another program, or of an earlier evaluation."""
    options = detection_flags.data_options()
    cli.load_tensorflow()
    pictures = checked(options.open(name))
    names = [picture.name for picture in pictures.pictures]
    return pictures, comp4.read(folder, names, pictures.classes, short_name(name)), {"results": folder}


def of_run(name, folder):
    """Returns (set, detections, facts) of a run; its result files are written."""
    cli.load_tensorflow()
    from detection.evaluation import detect_all
    from detection.experiment import Experiment, stored_config
    from la_tf import checkpoints
    from la_tf.estimator import Estimator

    checkpoint = checkpoints.chosen(folder, flags.FLAGS["step"].value)
    experiment = Experiment(_overridden(stored_config(folder)[0]))
    pictures = checked(experiment.open(name))
    estimator = Estimator(experiment.model_fn, experiment.run_config())
    estimator.restore(checkpoint)
    detections = detect_all(estimator.model, pictures, experiment.config.data)
    changed = {flag: flags.FLAGS[flag].value for flag in OF_EVALUATION if flags.FLAGS[flag].present}
    target = Path(folder) / "results" / name / ",".join([checkpoint.name, *(f"{k}={v}" for k, v in changed.items())])
    names = [picture.name for picture in pictures.pictures]
    comp4.write(str(target), detections, names, pictures.classes, short_name(name))
    # As the files have them: a program that reads these comes to the same numbers.
    facts = {"model_dir": folder, "step": estimator.step, "folder": str(target), "changed": changed}
    return pictures, comp4.rounded(detections), facts


def checked(pictures):
    """Returns the set, after telling what is wrong with its annotations; UserError where nothing can be found in it."""
    from data.voc_check import defects, table
    from detection.voc_ap import truth_of

    found = defects(pictures)
    if found:
        print(f"warning: {pictures.name} has defects, which count against a detector:\n{table(found)}", file=sys.stderr)
    truth_of(pictures)
    return pictures


def _overridden(config):
    """The run's config, with the flags that are given here and change nothing that was learned."""

    def given(part):
        own = {field.name for field in dataclasses.fields(part)} & {*OF_PICTURES, *OF_EVALUATION}
        return dataclasses.replace(part, **{name: flags.FLAGS[name].value for name in own if flags.FLAGS[name].present})

    run = dataclasses.replace(config.run, export=None, strategy="one", replicas=None)
    return dataclasses.replace(config, data=given(config.data), detector=given(config.detector), run=run)


def short_name(name):
    """The set's name in the names of result files: "test" of "2007_test"."""
    return re.sub(r"^\d{4}_", "", name) if "+" not in name else name


def draw(path, pictures, detections):
    """Writes a sheet of some pictures of the set with their boxes."""
    import numpy as np

    from detection.drawing import save
    from detection.evaluation import drawn_picture

    count = min(flags.FLAGS["sheet_pictures"].value, pictures.size)
    rows = np.linspace(0, pictures.size - 1, count, dtype=int)
    drawn = [drawn_picture(pictures, row, detections) for row in rows]
    titles = [pictures.pictures[row].name for row in rows]
    save(path, drawn, titles, f"{pictures.name}: true boxes dashed, found ones with their score")
    print(f"drawn: {path}", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
