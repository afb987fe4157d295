"""The three ways to judge a network: nearest neighbours, linear readouts, fine-tuning (section 4.2, supplement B).

Each takes an `Evaluation` and returns the `results` of its line in results.jsonl.
"""

import shutil
import sys

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from data.errors import FlagError
from data.pipeline import steps_per_epoch
from la_tf import checkpoints, fast_readout, fine_tuning, knn, linear_probe, model_dir, outcomes, schedules
from la_tf.callbacks import MetricsWriter, Progress
from la_tf.estimator import Estimator
from la_tf.experiment import EVALUATION_BATCH
from la_tf.fine_tuning import Classifier
from la_tf.linear_probe import EachPlateau, LinearReadouts
from la_tf.specs import EvalSpec, RunConfig, TrainSpec

FEW_STEPS = 500  # below, readouts have hardly begun (on 216 pictures, 30 epochs were worse than --fast by 10 points)


def warn(text):
    """Prints a warning."""
    print(f"warning: {text}", file=sys.stderr)


def with_progress(batches, size, title):
    """Yields `batches` of `size` pictures in all, under a bar with the time left."""
    return tqdm(batches, title, -(-size // EVALUATION_BATCH), unit=" batches", leave=False, disable=None)


def nearest_neighbors(evaluation):
    """Judges the embedding by the weighted kNN of a saved or a fresh bank, and writes predictions.csv."""
    config, train = evaluation.protocol, evaluation.train
    rows, labels = saved_bank(evaluation) if evaluation.bank == "saved" else fresh_bank(evaluation)
    if evaluation.config.split == "validation":
        labels[evaluation.validation_rows] = -1  # what is judged has no vote
    batches = with_progress(evaluation.scored_batches(), evaluation.scored_size, evaluation.config.split)
    right = np.zeros(len(evaluation.scored_names), bool)
    with knn.PredictionsFile(evaluation.folder / "predictions.csv", evaluation.scored_names) as predictions:

        def report(indices, truth, predicted, confidence):
            predictions.write(indices, truth, predicted, confidence)
            right[indices] = (predicted == truth) & (truth >= 0)  # -1: unlabelled; nobody voted

        scores = knn.judge(
            evaluation.subject.embed,
            batches,
            rows,
            labels,
            classes=evaluation.dataset.class_count,
            neighbors=config.neighbors,
            tau=config.tau,
            report=report,
        )
    return scores.results(evaluation.dataset.class_names or range(evaluation.dataset.class_count)) | {
        "bank_rows": int((labels >= 0).sum()),
        "bank_images": train.size,
        "right": outcomes.packed(right),
    }


def saved_bank(evaluation):
    """Returns the run's memory bank `[N, D]` and its labels `[N]`; rows never written have no vote."""
    rows, written = evaluation.subject.bank
    return rows, np.where(written, evaluation.train.labels, -1)


def fresh_bank(evaluation):
    """Returns embeddings of the central views of the train split `[N, D]` and their labels `[N]` (supplement B.3)."""
    train = evaluation.train
    rows, labels = None, np.full(train.size, -1)
    for batch in with_progress(evaluation.central_batches("train"), train.size, "bank"):
        embeddings, indices, truth = knn.embeddings(evaluation.subject.embed, [batch])
        rows = np.zeros((train.size, embeddings.shape[1]), np.float32) if rows is None else rows
        rows[indices], labels[indices] = embeddings, truth
    return rows, labels


def linear_readouts(evaluation):
    """Judges every endpoint by a linear readout of the frozen network, all in one pass over the pictures."""
    config, subject = evaluation.protocol, evaluation.subject
    rows = evaluation.labelled_rows()
    validation = evaluation.validation_rows

    def readouts():
        model = LinearReadouts(
            subject.features,
            evaluation.endpoints,
            evaluation.dataset.class_count,
            pooling=config.pooling,
            weight_decay=config.weight_decay,
        )
        model.compile(keras.optimizers.SGD(config.learning_rate, momentum=config.momentum))
        return model

    if config.fast:
        model = readouts()
        batches = with_progress(evaluation.central_batches("train", rows), len(rows), "features")
        solutions = fast_readout.solve(model, batches, len(rows))
        if warning := fast_readout.warning(solutions):
            warn(warning)
        told = {endpoint: solution._asdict() for endpoint, solution in solutions.items()}
    else:
        model, epochs = trained_readouts(evaluation, readouts, rows)
        told = {endpoint: {"epochs": epochs} for endpoint in model.readouts}
    batches = with_progress(evaluation.scored_batches(config.ten_crop), evaluation.scored_size, evaluation.config.split)
    found = linear_probe.results(
        model, batches, evaluation.central_batches("train", validation) if len(validation) else None
    )
    return {endpoint: scores | told[endpoint] for endpoint, scores in found.items()}


def trained_readouts(evaluation, readouts, rows):
    """Trains `readouts()` until the last of them has saturated, or for --epochs; returns the model and its epochs."""
    config = evaluation.protocol
    monitored = config.select_on
    if monitored == "validation" and not len(evaluation.validation_rows):
        raise FlagError("--validation_fraction=0: no slice is left to tell saturation by")
    batch_size = evaluation.config.data.batch_size
    steps = config.epochs * steps_per_epoch(evaluation.train, batch_size, len(rows))
    if steps < FEW_STEPS:
        warn(f"{steps} steps in all are few for readouts; lower --batch_size, raise --epochs, or take --fast")
    checkpoints.set_aside_damaged(evaluation.folder, warn)
    estimator = Estimator(readouts, RunConfig(str(evaluation.folder), config.seed, keep_checkpoint_max=2))
    endpoints = list(estimator.model.readouts)
    hooks = [EachPlateau(endpoints, config.patience, monitor=monitored)]
    looked_at = ("train", evaluation.validation_rows) if monitored == "validation" else ("test", None)
    monitor = EvalSpec(
        input_fn=lambda mode, context: evaluation.central_batches(*looked_at),
        evaluate=lambda model, batches: linear_probe.accuracies(model, batches, monitored),
        name=monitored,
    )
    shown = f"{monitored}_{endpoints[-1]}"
    metrics = estimator.train(train_spec(evaluation, evaluation.folder, rows, batch_size, steps, hooks, monitor, shown))
    return estimator.model, metrics["epoch"] + 1


def fine_tuning_by_labels(evaluation):
    """Fine-tunes the whole network on parts of the labels; beside it, the same network from scratch."""
    config, train = evaluation.protocol, evaluation.train
    if evaluation.subject.network is None:
        raise FlagError("--protocol=finetune: a SavedModel cannot be trained further; give --export or --keras_model")
    if evaluation.own and evaluation.subject.facts["method"] == "supervised":
        raise FlagError("--protocol=finetune: the network has learned these pictures' labels; give another --dataset")
    found = {}
    for percent in config.percent:
        rows = evaluation.labelled_rows(percent / 100)
        found[f"{percent:g}"] = {"images": len(rows)}
        for start in ("pretrained", "scratch"):
            print(f"{percent:g}% of the labels, {len(rows):,} of {train.size:,} images, {start}", file=sys.stderr)
            found[f"{percent:g}"][start] = fine_tuned(evaluation, rows, start, f"{percent:g}-{start}")
    return found


def fine_tuned(evaluation, rows, start, name):
    """Returns the scores of one fine-tuned network; trains it, or goes on with it, in a folder of its own."""
    config, folder = evaluation.protocol, evaluation.folder / name
    kept = folder / "scores.json"
    if kept.exists():
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        return model_dir.read_json(kept)
    batch_size = min(evaluation.config.data.batch_size, len(rows))
    steps, drops = fine_tuning.training_steps(len(rows), batch_size, config.epochs, config.least_steps)
    learning_rate = config.learning_rate if start == "pretrained" else config.scratch_learning_rate

    def classifier():
        model = Classifier(
            evaluation.subject.network(pretrained=start == "pretrained"),
            evaluation.dataset.class_count,
            weight_decay=config.weight_decay,
        )
        rate = schedules.by_step("steps", learning_rate, steps, drops)
        model.compile(keras.optimizers.SGD(rate, momentum=config.momentum))
        return model

    checkpoints.set_aside_damaged(folder, warn)
    estimator = Estimator(classifier, RunConfig(str(folder), config.seed, keep_checkpoint_max=2))
    estimator.train(train_spec(evaluation, folder, rows, batch_size, steps))
    logits = tf.function(lambda images: {"classes": estimator.model(images)}, reduce_retracing=True)
    scores = linear_probe.score(logits, evaluation.scored_batches())["classes"]
    model_dir.write_json(kept, scores)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # large, and of no more use
    keras.backend.clear_session()
    return scores


def train_spec(evaluation, folder, rows, batch_size, steps, hooks=(), monitor=None, shown="accuracy"):
    """Returns what to train on: augmented views of `rows`, with metrics file and progress in `folder`."""
    per_epoch = steps_per_epoch(evaluation.train, batch_size, len(rows))
    return TrainSpec(
        input_fn=lambda mode, context: evaluation.training_batches(rows, batch_size, context.first_step),
        max_steps=steps,
        steps_per_epoch=per_epoch,
        hooks=(
            evaluation.bad_images("train"),
            *hooks,
            MetricsWriter(folder),
            Progress(steps, batch_size, per_epoch, ("loss", shown)),
        ),
        monitor=monitor,
        names=evaluation.train.names,
    )


PROTOCOLS = {"knn": nearest_neighbors, "linear": linear_readouts, "finetune": fine_tuning_by_labels}
