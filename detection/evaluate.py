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
from data.voc import VOC_CLASSES, open_set, read_classes
from detection import comp4
from detection import flags as detection_flags
from detection.scores import table, voc_scores

flags.DEFINE_string("test_set", "2007_test", "What is scored, e.g. 2007_test; own folder: test.")
flags.DEFINE_string("results", None, "Folder of VOC result files to score instead of a run.")
flags.DEFINE_integer("step", None, "Checkpoint of the run. Default: the newest.")
flags.DEFINE_string("sheet", None, "PNG to draw some of the pictures in, with true and found boxes.")
flags.DEFINE_integer("sheet_pictures", 12, "How many.")


def main():
    """Flags -> detections -> scores; returns these, and prints them as tables."""
    name, results = flags.FLAGS["test_set"].value, flags.FLAGS["results"].value
    if flags.FLAGS["sheet_pictures"].value < 1:
        raise FlagError(f"--sheet_pictures={flags.FLAGS['sheet_pictures'].value}: must be at least 1")
    if (results is None) == (detection_flags.model_dir() is None):
        raise FlagError("--model_dir, --results: give one of them, the run to score or the folder of result files")
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


def of_files(name, folder):
    """Returns (set, detections, facts) of the result files of another program, or of an earlier evaluation."""
    options = detection_flags.data_options()
    classes = read_classes(options.classes_file) if options.classes_file else VOC_CLASSES
    cli.load_tensorflow()
    pictures = open_set(options.devkit, name, classes, options.box_origin, options.tfds_data_dir)
    names = [picture.name for picture in pictures.pictures]
    return pictures, comp4.read(folder, names, classes, short_name(name)), {"results": folder}


def of_run(name, folder):
    """Returns (set, detections, facts) of a run; its result files are written."""
    cli.load_tensorflow()
    from detection.evaluation import detect_all
    from detection.experiment import Experiment, stored_config
    from la_tf import checkpoints
    from la_tf.estimator import Estimator

    checkpoint = checkpoints.chosen(folder, flags.FLAGS["step"].value)
    experiment = Experiment(_overridden(stored_config(folder)[0]))
    pictures = experiment.open(name)
    estimator = Estimator(experiment.model_fn, experiment.run_config())
    estimator.restore(checkpoint)
    detections = detect_all(estimator.model, pictures, experiment.config.data)
    target = Path(folder) / "results" / name / checkpoint.name
    names = [picture.name for picture in pictures.pictures]
    comp4.write(str(target), detections, names, pictures.classes, short_name(name))
    # As the files have them: a program that reads these comes to the same numbers.
    return pictures, comp4.rounded(detections), {"model_dir": folder, "step": estimator.step, "folder": str(target)}


def _overridden(config):
    """The run's config, with the flags that are given here and change nothing that was learned."""

    def given(part, *names):
        present = {name: flags.FLAGS[name].value for name in names if flags.FLAGS[name].present}
        return dataclasses.replace(part, **present)

    own = ("devkit", "classes_file", "tfds_data_dir", "box_origin", "test_short_side", "long_side", "workers")
    detector = given(config.detector, "test_proposals", "proposal_iou", "score_threshold", "nms_iou", "detections")
    run = dataclasses.replace(config.run, export=None, strategy="one", replicas=None)
    return dataclasses.replace(config, data=given(config.data, *own), detector=detector, run=run)


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
