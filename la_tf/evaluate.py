"""Judges a network: python -m la_tf.evaluate --model_dir=runs/quickstart --protocol=knn

The network: a run (--model_dir), an export (--export), any Keras model (--keras_model) or SavedModel (--saved_model).
The protocol: knn, the weighted nearest neighbours; linear, a readout of every endpoint; finetune, the whole network
with parts of the labels. The pictures: the run's own, or --dataset. One line is added to results.jsonl in the model_dir
or in --out, for la_tf.report. What is chosen is chosen on a slice of the train split; the test split is read when all
is done. The same command resumes an evaluation that was interrupted, or shows what a finished one came to.
Pictures have the size that the network was made for, unless --image_size says otherwise; readouts and fine-tuning see
them cropped and mirrored in their own colours, unless flags such as --jitter say otherwise.
"""

import datetime
import shutil
import sys
import time
from dataclasses import fields

from absl import flags
from tabulate import tabulate

from data import cli
from data import flags as data_flags
from la_tf import model_dir, results
from la_tf.evaluation import Evaluation
from la_tf.evaluation_config import (
    BANKS,
    CROPS,
    INPUT_PIXELS,
    PROTOCOLS,
    SPLITS,
    EvaluationConfig,
    FinetuneConfig,
    KnnConfig,
    LinearConfig,
    SubjectConfig,
)
from la_tf.readout_pooling import POOLINGS

_KNN, _LINEAR, _FINETUNE = KnnConfig(), LinearConfig(), FinetuneConfig()


def _choices(names):
    return " | ".join(names)


flags.DEFINE_string("model_dir", None, "The run to judge.")
flags.DEFINE_integer("step", None, "Its checkpoint. Default: the newest.")
flags.DEFINE_string("export", None, "Or: the export to judge, of la_tf.train, la_tf.export or la_tf.import_weights.")
flags.DEFINE_string("keras_model", None, "Or: a Keras model, a .keras file.")
flags.DEFINE_string("saved_model", None, "Or: the folder of a SavedModel.")
flags.DEFINE_string("signature", SubjectConfig.signature, "The signature of --saved_model to call.")
flags.DEFINE_string("input_pixels", None, f"What --keras_model or --saved_model takes: {_choices(INPUT_PIXELS)}.")
flags.DEFINE_list(
    "endpoints",
    [],
    "What to read out, the deepest last; layers of --keras_model, outputs of --saved_model. Default: all of ours.",
)
flags.DEFINE_string("protocol", "knn", f"{_choices(PROTOCOLS)}.")
flags.DEFINE_string("split", EvaluationConfig.split, f"{_choices(SPLITS)}: whose score is wanted.")
flags.DEFINE_string("out", None, "Folder for results.jsonl. Default: the model_dir.")
flags.DEFINE_integer(
    "seed",
    None,
    "linear, finetune: of order, crops and labels, and of the slice of other pictures than a run's own. Default: 0.",
)

flags.DEFINE_integer("neighbors", None, f"knn: K, how many neighbours vote. Default: {_KNN.neighbors}.")
flags.DEFINE_float("tau", None, f"knn: temperature of the votes. Default: {_KNN.tau}.")
flags.DEFINE_string(
    "bank", None, f"knn: {_choices(BANKS)}: the run's own, or central views of the train split. Default: by data set."
)
flags.DEFINE_string(
    "pooling",
    None,
    f"linear: {_choices(POOLINGS)}: at most 9,600 features an endpoint, LA's authors' up to 200,000, or the mean. "
    f"Default: {_LINEAR.pooling}.",
)
flags.DEFINE_boolean("ten_crop", None, "linear: score ten crops of each picture as well. Default: no.")
flags.DEFINE_boolean(
    "fast",
    None,
    "linear: solve the readouts on central views; of the flags for training it reads --weight_decay alone.",
)
flags.DEFINE_string(
    "select_on", None, f"linear: {_choices(SPLITS)}: which saturation drops rates. Default: validation."
)
flags.DEFINE_integer("patience", None, f"linear: epochs without a better accuracy. Default: {_LINEAR.patience}.")
flags.DEFINE_string(
    "crops",
    None,
    f"linear, finetune: {_choices(CROPS)}: 20 to 100% of a picture, or 224 px of 256. Default: the paper's.",
)
flags.DEFINE_integer(
    "epochs", None, f"linear, finetune: passes over the pictures. Default: {_LINEAR.epochs}; {_FINETUNE.epochs}."
)
flags.DEFINE_float("learning_rate", None, f"linear, finetune: at the start. Default: {_LINEAR.learning_rate}.")
flags.DEFINE_float("momentum", None, f"linear, finetune: of SGD. Default: {_LINEAR.momentum}.")
flags.DEFINE_float("weight_decay", None, f"linear, finetune: lambda. Default: {_LINEAR.weight_decay}.")
flags.DEFINE_list("percent", None, "finetune: percents of the labels. Default: 1,2,4,10,20,100.")
flags.DEFINE_float(
    "scratch_learning_rate", None, f"finetune: of the control from scratch. Default: {_FINETUNE.scratch_learning_rate}."
)
flags.DEFINE_integer("least_steps", None, f"finetune: for few labels. Default: {_FINETUNE.least_steps}.")


def main():
    """Flags -> evaluation -> a line of results; returns the most important numbers."""
    evaluation = Evaluation(evaluation_config())
    cli.load_tensorflow()
    from la_tf.protocols import PROTOCOLS as RUN

    record = evaluation.finished()
    if record is None:
        with model_dir.locked(evaluation.folder, "out", "wait for it"):
            started = time.monotonic()
            found = RUN[evaluation.config.name](evaluation)
            record = {
                **evaluation.record,
                "results": found,
                "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - started, 1),
                "versions": model_dir.versions(),
                "command": sys.argv[1:],
            }
            record = results.append(evaluation.out, record)
            shutil.rmtree(evaluation.folder / "checkpoints", ignore_errors=True)  # of readouts: they can be large
    else:
        print(
            f"{evaluation.folder} is finished (remove it, and its line in results.jsonl, to do it again)",
            file=sys.stderr,
        )
    print(table(record), file=sys.stderr)
    return {"results": str(evaluation.out / results.FILE), "id": record["id"], **headline(record)}


def evaluation_config():
    """Reads all flags into a validated EvaluationConfig; raises FlagError naming the flag that is wrong."""
    name = flags.FLAGS["protocol"].value
    if name not in PROTOCOLS:
        raise cli.FlagError(f"--protocol={name}: choose one of {', '.join(PROTOCOLS)}")
    kind = PROTOCOLS[name]
    read = {field.name for field in fields(kind)}
    for other in sorted({field.name for each in PROTOCOLS.values() for field in fields(each)} - read):
        if flags.FLAGS[other].present:
            raise cli.FlagError(f"--{other}: --protocol={name} does not read it; leave it out")
    given = {field: flags.FLAGS[field].value for field in read if flags.FLAGS[field].value is not None}
    if "percent" in given:
        given["percent"] = _percents(given["percent"])
    subject = {field.name: flags.FLAGS[field.name].value for field in fields(SubjectConfig)}
    return EvaluationConfig(
        subject=SubjectConfig(**subject | {"endpoints": tuple(subject["endpoints"])}),
        protocol=kind(**given),
        data=data_flags.data_config(),
        split=flags.FLAGS["split"].value,
        out=flags.FLAGS["out"].value,
    )


def _percents(texts):
    try:
        return tuple(float(text) for text in texts)
    except ValueError:
        raise cli.FlagError(f"--percent={','.join(texts)}: give percents of the labels, e.g. 1,10,100") from None


def table(record):
    """Returns the results of a record as a table for people."""
    dataset, chosen = record["dataset"], record["selected_on"] == record["split"]
    title = f"{dataset['spec']}, {record['split']} split{' (which it was selected on)' if chosen else ''}: "
    return title + TABLES[record["protocol"]](record["results"], record["settings"])


def _knn_table(found, settings):
    rows = [("top-1", found["top1"]), ("top-5", found["top5"]), ("mean over classes", found["class_mean"])]
    rows += [(f"confidence, {which}", found[f"confidence_{which}"]) for which in ("right", "wrong")]
    rows += [("pictures judged", found["judged"]), ("rows with a vote", found["bank_rows"])]
    rows += [(name, found[name]) for name in ("unlabelled", "unreadable", "unheard") if found[name]]
    worst = sorted(found["per_class"].items(), key=lambda entry: entry[1]["top1"])[:3]
    rows.append(("worst classes", ", ".join(f"{name} {entry['top1']:.3f}" for name, entry in worst)))
    shown = [(name, f"{value:.4f}" if isinstance(value, float) else value) for name, value in rows]
    title = f"K = {settings['neighbors']}, tau = {settings['tau']:g}, {settings['bank']} bank"
    return f"{title}\n{tabulate(shown, tablefmt='plain', disable_numparse=True)}"


def _linear_table(found, settings):
    columns = ("features", "top1", "top5", "ten_crop_top1", "ten_crop_top5", "validation_top1", "epochs", "iterations")
    columns = [name for name in columns if any(name in scores for scores in found.values())]
    rows = [[endpoint, *(scores.get(name) for name in columns)] for endpoint, scores in found.items()]
    title = f"pooling {settings['pooling']}{', solved on central views' if settings['fast'] else ''}"
    return f"{title}\n{tabulate(rows, ['endpoint', *columns], floatfmt='.4f', intfmt=',')}"


def _finetune_table(found, settings):
    rows = [
        [f"{percent}%", entry["images"], entry["pretrained"]["top1"], entry["scratch"]["top1"]]
        for percent, entry in found.items()
    ]
    columns = ("labels", "images", "fine-tuned top1", "from scratch top1")
    title = f"learning rates {settings['learning_rate']:g} and {settings['scratch_learning_rate']:g}"
    return f"{title}\n{tabulate(rows, columns, floatfmt='.4f', intfmt=',')}"


TABLES = {"knn": _knn_table, "linear": _linear_table, "finetune": _finetune_table}


def headline(record):
    """Returns the numbers that a script would look for: top-1 of what there is."""
    found = record["results"]
    if record["protocol"] == "knn":
        return {"top1": found["top1"], "top5": found["top5"]}
    if record["protocol"] == "linear":
        return {"top1": {endpoint: scores["top1"] for endpoint, scores in found.items()}}
    return {"top1": {percent: entry["pretrained"]["top1"] for percent, entry in found.items()}}


if __name__ == "__main__":
    cli.run(main, resumes=True)
