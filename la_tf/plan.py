"""What a run takes in memory, traffic and time: arithmetic on its sizes and on a Calibration. No TensorFlow."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

from data.errors import UserError
from la_tf.config import interval
from la_tf.plan_table import in_bytes
from la_tf.plan_traffic import FLOAT, LABEL, bytes_between, bytes_per_step

BANK_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
CANDIDATES = 1.4  # of B_i, in k: what `neighbors` looks at more closely
QUERIES, SEARCH_BLOCK = 1024, 8192  # of `nearest_rows`
MOMENTS = ("clustering", "evaluation")  # memory that is taken for a while, one after the other


@dataclass(frozen=True)
class Calibration:
    """What a little of the run has measured on this machine: bytes, and seconds of the whole run's parts.

    step_seconds: of a step by phase, pipeline included; network_seconds: of the same without it. pictures_per_s: what
    the pipeline delivers alone. cold_seconds, warm_seconds: of a renewal of clusters from nothing and from the last
    ones; before_seconds: of what comes before it, or before training; evaluation_seconds: of an epoch's evaluations.
    peak_bytes is the process' highest memory, resident_bytes that between steps, process_bytes that before there was
    a model; device_bytes the peak on a GPU, None without one.
    """

    step_seconds: dict
    network_seconds: dict
    pictures_per_s: float
    cold_seconds: float
    warm_seconds: float
    before_seconds: float
    evaluation_seconds: float
    dimension: int  # D, as the model has it
    process_bytes: int
    resident_bytes: int
    peak_bytes: int
    device_bytes: int | None
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    picture_bytes: int  # of the batch, a picture's views together
    held_bytes: int  # of decoded pictures, beyond those at hand


@dataclass(frozen=True)
class Sizes:
    """The symbols that memory and traffic follow from (WORKSPACE.md), one of `devices` (R) seen by itself.

    spread: what has a row for each picture is spread over the devices.
    """

    images: int  # N
    dimension: int  # D
    batch_size: int  # B
    bank_bytes: int  # of a number in the bank
    background_k: int = 0  # k
    clusterings: int = 0  # H; of C_i
    background_clusterings: int = 0
    clusters: int = 0  # m
    cells: int = 0  # C, of the search in cells
    visited_rows: int = 0  # V
    devices: int = 1  # R
    spread: bool = False

    @classmethod
    def of(cls, config, images, dimension=None, devices=1):
        """Returns the sizes of a resolved Config with N = `images` on R `devices`; 0 for what its method has none of.

        dimension: D where it is less than --embedding_dim (DeepCluster).
        """
        method, la = config.method, config.method.method == "la"
        by_clusters = la and method.close == "clusters"
        return cls(
            images=images,
            dimension=dimension or config.model.embedding_dim,
            batch_size=config.data.batch_size,
            bank_bytes=BANK_BYTES[method.bank_dtype],
            background_k=method.background_k if la and method.background == "knn" else 0,
            clusterings=method.clusterings if by_clusters else int(method.method == "dc"),
            background_clusterings=method.background_clusterings if la and method.background == "cluster" else 0,
            clusters=method.clusters or 0,
            cells=(method.cells or 0) if la else 0,
            visited_rows=(method.visited_rows or 0) if la else 0,
            devices=devices,
            spread=devices > 1 and config.run.bank_sharding == "sharded",
        )

    @property
    def share(self):
        """The images of a batch that a device has."""
        return math.ceil(self.batch_size / self.devices)

    @property
    def seen(self):
        """The images of a batch that a device compares with its rows: all of them where these are spread."""
        return self.batch_size if self.spread else self.share

    @property
    def rows(self):
        """The rows that a device has of the bank."""
        return math.ceil(self.images / self.devices) if self.spread else self.images

    @property
    def bank(self):
        """Bytes of these rows."""
        return self.rows * self.dimension * self.bank_bytes

    @property
    def labels(self):
        """Bytes of the labels of these rows, of all clusterings."""
        return self.rows * (self.clusterings + self.background_clusterings) * LABEL


def phases(config, steps_per_epoch, max_steps):
    """Returns how many steps each phase of a run has, by the name that metrics give it."""
    if config.method.method != "la":
        return {config.method.method: max_steps}
    recognition = min(max_steps, config.method.warmup_epochs * steps_per_epoch)
    counts = {"ir": recognition, "la": max_steps - recognition}
    return {phase: steps for phase, steps in counts.items() if steps}


def renewals(config, steps_per_epoch, steps):
    """Returns how often clusters are renewed in `steps` (those of LA or DeepCluster); 0 for other methods."""
    method = config.method
    fixed = method.method == "la" and method.close != "clusters" and method.background != "cluster"
    if method.method not in ("la", "dc") or fixed or not steps:
        return 0
    count, of = interval(method.cluster_every)
    return math.ceil(steps / (count * (steps_per_epoch if of == "epochs" else 1)))


def memory(config, sizes, calibration):
    """Returns what a device, and what its host, hold at their highest, each in bytes by name; on a CPU they are one.

    What of the measured peak no formula accounts for is activations, workspaces and batches under way. The last part is
    the largest of MOMENTS, by formula, as far as it exceeds what steps leave free.
    """
    parts = {
        "weights": calibration.weight_bytes,
        "optimizer": calibration.optimizer_bytes,
        "gradients": calibration.gradient_bytes,
        "bank": sizes.bank,
        "written": sizes.rows,
        "cluster labels": sizes.labels * (2 if config.method.cluster_in_background else 1),
        "neighbour search": neighbour_search_bytes(sizes),
        "cells": cell_bytes(sizes),
    }
    moments = moment_bytes(sizes, calibration)
    name = max(MOMENTS, key=moments.get)
    spare = calibration.peak_bytes - calibration.resident_bytes
    more = {
        "checkpoint, while it is written": checkpoint_bytes(sizes, calibration),  # beside steps and clustering
        "decoded pictures, more": calibration.held_bytes,
        f"{name}, beyond a step": max(0, moments[name] - spare),
    }
    if calibration.device_bytes is None:
        held = {"process, TensorFlow": calibration.process_bytes} | parts
        rest = max(0, calibration.peak_bytes - sum(held.values()))
        together = held | {"activations, batches": rest} | more
        return together, together
    rest = max(0, calibration.device_bytes - sum(parts.values()))
    return parts | {"activations": rest}, {"process, TensorFlow and batches": calibration.peak_bytes} | more


def neighbour_search_bytes(sizes):
    """Returns what `neighbors.background_neighbors` takes, about: all similarities, or sample, block and candidates."""
    from la_tf.neighbors import BLOCK, GROUP, LEAST_ROWS, MOST_SAMPLED, SAMPLE_EVERY, SIMILARITIES_AT_ONCE

    k, seen = sizes.background_k, sizes.seen
    if not k:
        return 0
    if sizes.rows < LEAST_ROWS or k > sizes.images // SAMPLE_EVERY:
        return 2 * FLOAT * min(SIMILARITIES_AT_ONCE, seen * sizes.rows)
    candidates = round(CANDIDATES * k) * sizes.share  # spread, a device has its part of those of all images
    of_one = 2 * (GROUP * (FLOAT + LABEL) + LABEL) + GROUP * (LABEL + 1)  # its group in parts and whole, which count
    in_table = 2 * (FLOAT + LABEL)
    sample = min(sizes.rows // SAMPLE_EVERY, MOST_SAMPLED)
    blocks = 2 * seen * FLOAT * (sample + BLOCK)
    return blocks + candidates * (of_one + in_table)


def cell_bytes(sizes):
    """Returns what the search in cells holds: cell and order of each row, and for each image which cells it visits."""
    if not sizes.cells:
        return 0
    of_rows = 2 * LABEL * sizes.rows + 8 * LABEL * sizes.cells
    return of_rows + sizes.cells * (sizes.dimension * FLOAT + sizes.seen * (FLOAT + 1))


def checkpoint_bytes(sizes, calibration):
    """Returns what the copies take that a thread writes: weights, optimizer, bank, what is written of it, labels."""
    return calibration.weight_bytes + calibration.optimizer_bytes + sizes.bank + sizes.rows + sizes.labels


def moment_bytes(sizes, calibration):
    """Returns what each of MOMENTS takes beside what is always held, in bytes by name."""
    rows = sizes.rows * sizes.dimension * FLOAT
    return {
        # Rows and the written ones of them; labels before, found, and of all images.
        "clustering": 2 * rows + 3 * sizes.labels if sizes.labels else 0,
        # A copy of the bank; similarities of some queries and of the sample (`nearest_rows`), keys of rows.
        "evaluation": sizes.bank + 2 * FLOAT * QUERIES * min(SEARCH_BLOCK, sizes.rows) + 16 * sizes.rows,
    }


def check_memory(experiment):
    """Raises UserError where the machine's memory cannot hold the bank and the labels while they are made."""
    sizes = Sizes.of(experiment.config, experiment.size, devices=experiment.replicas)
    # Random rows, the same at unit length, and the variable.
    needed = 2 * sizes.rows * sizes.dimension * FLOAT + sizes.bank + sizes.labels
    if needed > available_memory():
        raise UserError(
            f"--plan: the memory bank of {sizes.rows:,} x {sizes.dimension} takes {in_bytes(needed)} while it is "
            f"made, and {in_bytes(available_memory())} of memory are free; plan on a larger machine, or for "
            "more replicas with --bank_sharding=sharded, or lower --embedding_dim"
        )


def available_memory():
    """Returns the bytes of memory that a process may still take; where Linux does not tell, all there are."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Plan:
    """What the run of an Experiment takes, by the Calibration of its machine."""

    def __init__(self, experiment, calibration):
        config, per_epoch, steps = experiment.config, experiment.steps_per_epoch, experiment.max_steps
        self.config, self.calibration = config, calibration
        self.headline = experiment.headline()
        self.sizes = Sizes.of(config, experiment.size, calibration.dimension, experiment.replicas)
        self.phases = phases(config, per_epoch, steps)
        self.memory, self.host_memory = memory(config, self.sizes, calibration)
        self.moved = {
            phase: bytes_per_step(config, self.sizes, phase, calibration.picture_bytes) for phase in self.phases
        }
        self.told = {
            phase: bytes_between(config, self.sizes, phase, calibration.gradient_bytes) for phase in self.phases
        }
        last = list(self.phases)[-1]
        self.renewals = renewals(config, per_epoch, self.phases[last] if last in ("la", "dc") else 0)
        cold = self.renewals if last == "dc" or not config.method.warm_iterations else min(self.renewals, 1)
        cold_seconds, warm_seconds = calibration.cold_seconds, calibration.warm_seconds
        self.clustering = {
            "from nothing": cold_seconds if self.renewals else 0.0,
            "from the last": warm_seconds if cold < self.renewals else 0.0,
        }
        renewing = cold * cold_seconds + (self.renewals - cold) * warm_seconds
        begins = 1 if last == "random" else self.renewals
        # A renewal of the last phase, as often as it comes in an epoch of it.
        often = begins * per_epoch / max(self.phases[last], per_epoch)
        each = calibration.before_seconds + (warm_seconds if cold < self.renewals else cold_seconds)
        self.epoch_seconds = {
            phase: min(count, per_epoch) * calibration.step_seconds[phase]
            + calibration.evaluation_seconds
            + (often * each if phase == last else 0)
            for phase, count in self.phases.items()
        }
        stepping = sum(count * calibration.step_seconds[phase] for phase, count in self.phases.items())
        evaluating = math.ceil(steps / per_epoch) * calibration.evaluation_seconds
        self.seconds = stepping + renewing + begins * calibration.before_seconds + evaluating

    def result(self):
        """Returns the plan as a dict that JSON can take; times are of the last phase where there are several."""
        last, calibration = list(self.phases)[-1], self.calibration
        return {
            "plan": {
                "images": self.sizes.images,
                "dimensions": self.sizes.dimension,
                "devices": self.sizes.devices,
                "steps": self.phases,
                "memory": self.memory,
                "host_memory": self.host_memory,
                "moved_by_step": self.moved,
                "told_by_step": self.told,
                "step_seconds": calibration.step_seconds,
                "network_seconds": calibration.network_seconds,
                "pipeline_images_per_s": calibration.pictures_per_s,
                "clustering_seconds": self.clustering,
                "renewals": self.renewals,
                "evaluation_seconds": calibration.evaluation_seconds,
                "epoch_seconds": self.epoch_seconds,
            },
            "step_seconds": calibration.step_seconds[last],
            "epoch_seconds": self.epoch_seconds[last],
            "clustering_seconds": self.clustering["from the last"] or self.clustering["from nothing"],
            "memory_bytes": sum(self.memory.values()),
            "host_memory_bytes": sum(self.host_memory.values()),
            "bytes_per_step": sum(self.moved[last].values()),
            "bytes_between_devices": sum(self.told[last].values()),
            "run_hours": self.seconds / 3600,
        }
