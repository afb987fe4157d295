"""Measures a little of everything that a run consists of: steps, clustering, input, evaluation. Writes nothing."""

import itertools
import math
import resource
import sys
import time
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from data import reading
from data.errors import UserError
from la_tf import cells, clustering
from la_tf.knn import embed, knn_votes
from la_tf.memory_bank import random_unit_rows
from la_tf.one_of_many import OneOfMany
from la_tf.plan import Calibration, Sizes, phases
from la_tf.specs import InputContext, ModeKeys

SECONDS = 6.0  # of each measurement, about
LONG = 1.0  # what is longer is measured once
MOST_STEPS = 200
SETTLING = 5  # batches that the pipeline may have had ready
CLUSTERING_WORK = 4e10  # multiplications and additions of a sample clustering: a second or so
SEARCHED, QUERIES = 100_000, 1024  # rows and queries of a sample search
NEIGHBORS = 200


def calibrate(experiment, report):
    """Returns the Calibration of an Experiment's run; `report(line)` is told what is being measured.

    Raises UserError where a step does not fit into memory.
    """
    try:
        return _calibrate(experiment, report)
    except (MemoryError, tf.errors.ResourceExhaustedError):
        raise UserError(
            f"--plan: the run does not fit into memory with N = {experiment.size:,} and --batch_size="
            f"{experiment.config.data.batch_size}: lower it, or --background_k, --width or --image_size"
        ) from None


def _calibrate(experiment, report):
    config = experiment.config
    process_bytes = resident_bytes()
    keras.utils.set_random_seed(config.run.seed)
    if config.run.deterministic:
        tf.config.experimental.enable_op_determinism()
    report("building the network")
    parts = experiment.replicas
    model = experiment.model_fn(OneOfMany(parts) if parts > 1 else None)
    model.optimizer.build(model.trainable_variables)
    part = InputContext(pipelines=parts)
    pictures = pictures_per_s(iter(experiment.batches(ModeKeys.TRAIN, part)), config.data.batch_size // parts)
    batches = iter(experiment.batches(ModeKeys.TRAIN, part))
    batch = next(batches)
    step = Steps(model)
    steps_of, alone_of = {}, {}
    for phase in phases(config, experiment.steps_per_epoch, experiment.max_steps):
        report(f"measuring steps of {phase}")
        _enter(model, phase, config)
        alone_of[phase] = step.seconds(itertools.repeat(batch), settling=1)
        # What the pipeline had ready in its buffers, it does not have for long.
        least = config.data.batch_size // parts / pictures
        steps_of[phase] = max(least, step.seconds(batches, settling=SETTLING))
    peak, resident, device = peak_bytes(), resident_bytes(), _device_peak()
    report("measuring input, evaluation and clustering")
    dimension = model.bank.rows.shape[1]
    sizes = Sizes.of(config, experiment.size, dimension, parts)
    processes = 1 if config.run.strategy == "mirrored" else parts  # a device each
    shared = processes if sizes.spread else 1  # that assign each its own rows
    found = clustering_seconds(config, sizes, lambda: step.take(batches))
    cold_seconds, warm_seconds = (seconds / shared for seconds in found)
    trainable = model.trainable_variables
    per_picture = sum(_bytes([view])[0] for view in batch.get("views", (batch["image"],)))
    return Calibration(
        step_seconds=steps_of,
        network_seconds=alone_of,
        pictures_per_s=pictures,
        cold_seconds=cold_seconds,
        warm_seconds=warm_seconds,
        before_seconds=_before_seconds(experiment, model) / (processes if sizes.spread else 1),
        evaluation_seconds=_evaluation_seconds(experiment, model) / processes,
        dimension=dimension,
        process_bytes=process_bytes,
        resident_bytes=resident,
        peak_bytes=peak,
        device_bytes=device,
        weight_bytes=sum(_bytes(_network(model))),
        gradient_bytes=sum(_bytes(trainable)),
        optimizer_bytes=sum(_bytes(model.optimizer.variables)),
        picture_bytes=per_picture // (config.data.batch_size // parts),
        held_bytes=_held_bytes(experiment),
    )


class Steps:
    """Training steps of a compiled model, timed."""

    def __init__(self, model):
        self._model = model
        self._step = tf.function(model.train_step, reduce_retracing=True)

    def seconds(self, batches, settling):
        """Returns the seconds of a step on `batches`, the wait for them included, after `settling` steps at most."""
        started = time.perf_counter()
        for _ in range(settling):
            self.take(batches)
            if time.perf_counter() - started > SECONDS:
                break
        one = self.take(batches, 1)
        if one >= SECONDS:
            return one
        count = min(MOST_STEPS, math.ceil(SECONDS / one))
        # The median of parts, so that what else the machine does counts little; a part is long enough for the
        # pipeline, whose batches come in bursts, to show its rate.
        part = min(count, max(4, math.ceil(LONG / 2 / one)))
        return float(np.median([self.take(batches, part) / part for _ in range(count // part)]))

    def take(self, batches, count=1):
        """Takes `count` steps; returns the seconds that they take together."""
        started = time.perf_counter()
        for _ in range(count):
            self._step(next(batches))
        float(self._model.loss_mean.result())  # a GPU is behind until asked
        return time.perf_counter() - started


def _enter(model, phase, config):
    """Brings a fresh model to where a phase's steps cost what they do: rows written, clusters there."""
    if phase not in ("la", "dc"):
        return
    rng = np.random.default_rng(config.run.seed)
    model.bank.written.assign(np.ones(model.bank.written.shape, bool))
    counts = {"cluster_labels": config.method.clusters, "background_labels": config.method.background_clusters}
    for variable in model.label_variables if phase == "la" else [model.cluster_labels]:
        variable.assign(rng.integers(counts[variable.name], size=variable.shape, dtype=np.int32))
    if phase == "la":
        model.aggregating = True
        if model.cell_search is not None:
            model.cell_search.fill(rng)


def pictures_per_s(batches, batch_size):
    """Returns what a fresh pipeline delivers to somebody who takes every batch at once, the first one left out."""
    next(batches)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS / 2:
        next(batches)
        count += 1
    return count * batch_size / (time.perf_counter() - started)


# -- clustering ------------------------------------------------------------------------------------------------------


def clustering_sample(images, clusters, clusterings, dimension, work=CLUSTERING_WORK):
    """Returns n, m and H of a clustering of about `work` operations, and how much longer the whole takes.

    n and m are in proportion, so that a cluster has as many images; distances of rows and centroids are what counts.
    """
    operations = 2 * images * clusters * dimension * clustering.ITERATIONS
    part = min(1.0, math.sqrt(work / operations))
    n, m = max(2, round(part * images)), max(2, round(part * clusters))
    h = max(1, min(clusterings, int(work / (part**2 * operations))))
    return n, m, h, images * clusters * clusterings / (n * m * h)


def clustering_seconds(config, sizes, before):
    """Returns the seconds of a renewal of all clusterings from nothing, and from the last ones.

    `before()` does what a run does before: a clustering that has to get the processors back from others' threads is
    slower than one that follows another clustering.
    """
    method = config.method
    by_density = method.method == "la" and method.clustering == "dbscan"  # of C_i alone
    wanted = [
        (by_density, sizes.clusters, sizes.clusterings),
        (False, method.background_clusters, sizes.background_clusterings),
    ]
    cold_seconds = warm_seconds = 0.0
    for is_dbscan, clusters, clusterings in wanted:
        if not clusterings:
            continue
        n, m, h, factor = clustering_sample(sizes.images, clusters, clusterings, sizes.dimension)
        rows = random_unit_rows(n, sizes.dimension, config.run.seed)
        if is_dbscan:
            seconds, _ = _timed(before, clustering.dbscan, rows, method.dbscan_eps, method.dbscan_min_samples)
            cold_seconds += seconds * (sizes.images / n) ** 2
            warm_seconds += seconds * (sizes.images / n) ** 2
            continue
        options = {"sample": method.cluster_sample, "iterations": method.warm_iterations}
        cold, labels = _timed(before, clustering.cluster, rows, m, h, config.run.seed, **options)
        options |= {"previous": labels, "moment": 1}
        warm, _ = _timed(before, clustering.cluster, rows, m, h, config.run.seed, **options)
        cold_seconds, warm_seconds = cold_seconds + factor * cold, warm_seconds + factor * warm
    if sizes.cells:
        cell_seconds = _cell_seconds(sizes, config.run.seed)
        cold_seconds, warm_seconds = cold_seconds + cell_seconds, warm_seconds + cell_seconds
    return cold_seconds, warm_seconds


def _cell_seconds(sizes, seed):
    """Returns the seconds of making the cells anew: k-means of a sample, and the nearest centroid of every row."""
    count = min(sizes.cells, 1000)
    rows = random_unit_rows(cells.SAMPLED * count, sizes.dimension, seed)
    learning, centroids = _timed(lambda: None, cells.centroids, rows, count, seed)
    assigning, _ = _timed(lambda: None, cells.assign, rows, centroids)
    learning *= (sizes.cells / count) ** 2
    return learning + assigning * sizes.images / len(rows) * sizes.cells / count


def _timed(before, function, *arguments, **options):
    """Returns the median of the seconds that a call takes after `before()`, of three if it is short, and its result."""
    seconds = []
    while len(seconds) < 3 and sum(seconds) < LONG:
        before()
        started = time.perf_counter()
        result = function(*arguments, **options)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds)), result


# -- looking at pictures without learning ----------------------------------------------------------------------------


def _before_seconds(experiment, model):
    """Returns the seconds of embedding all N images, where a method does so before it clusters or begins."""
    method = experiment.config.method
    if method.method in ("dc", "random") or (method.method == "la" and method.cluster_on == "center_crops"):
        return experiment.size / _embedded_per_s(experiment, model, experiment.train, experiment.train.size)
    return 0.0


def _evaluation_seconds(experiment, model):
    """Returns the seconds of the kNN evaluations of an epoch."""
    passes = [(experiment.train, len(experiment.validation_rows) * experiment.size // experiment.train.size)]
    if not experiment.no_test_score and experiment.config.run.mode != "train":
        passes.append((experiment.dataset.test, experiment.dataset.test.size))
    seconds = 0.0
    for split, count in passes:
        if count:
            seconds += count / _embedded_per_s(experiment, model, split, count)
            seconds += _search_seconds(experiment, model, count)
    return seconds


def _embedded_per_s(experiment, model, split, count):
    rows = np.arange(min(split.size, count))
    embed(model, experiment.batches(ModeKeys.EVAL, None, split, rows).take(1))
    started, images = time.perf_counter(), 0
    for batch in experiment.batches(ModeKeys.EVAL, None, split, rows):
        embed(model, [batch])
        images += len(batch["index"])
        if time.perf_counter() - started > SECONDS / 2:
            break
    return images / (time.perf_counter() - started)


def _search_seconds(experiment, model, count):
    size, queries = min(experiment.size, SEARCHED), min(count, QUERIES)
    rows = random_unit_rows(size + queries, model.bank.rows.shape[1], 1)
    labels = np.zeros(size, np.int64)
    voting = partial(knn_votes, rows[size:], rows[:size], labels, neighbors=NEIGHBORS, classes=2)
    seconds, _ = _timed(lambda: None, voting)
    return seconds * experiment.size / size * count / queries


# -- memory ----------------------------------------------------------------------------------------------------------


def resident_bytes():
    """Returns the memory that the process holds now; where only Linux could tell, the most it has held."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_bytes()
    return pages * resource.getpagesize()


def peak_bytes():
    """Returns the most memory that the process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _device_peak():
    if not tf.config.list_logical_devices("GPU"):
        return None
    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def _network(model):
    """Returns the model's variables but for those that stand for pictures, and the optimizer's."""
    apart = {id(variable) for variable in (*model.picture_variables, *model.optimizer.variables)}
    return [variable for variable in model.variables if id(variable) not in apart]


def _bytes(tensors):
    return [math.prod(one.shape) * tf.as_dtype(one.dtype).size for one in tensors]


def _held_bytes(experiment):
    """Returns the memory of decoded pictures that those beyond the ones at hand would take."""
    held = reading.pictures_in_memory(experiment.train, experiment.config.data.image_size)
    if held is None or experiment.size == experiment.train.size:
        return 0
    of_one = math.prod(held[0].shape[1:])
    whole = of_one * experiment.size
    return of_one * (experiment.size - experiment.train.size) if whole <= reading.MEMORY else 0
