"""What a run is made of, as frozen dataclasses; which of it is the run's identity. No TensorFlow.

Field names are flag names, so an error names the flag to change.
"""

import importlib
import re
from dataclasses import asdict, dataclass, field, fields

from data.config import DataConfig
from data.errors import FlagError
from la_tf.model_dir import built
from la_tf.specs import ON_NAN
from models.backbone import BACKBONES, check_architecture, stems
from models.precision import PRECISIONS
from models.preprocessing import SMALL_IMAGE, Preprocessing

# Name -> where the keras.Model of the method lives. Adding a method: one file and one line here.
METHODS = {
    "la": "la_tf.local_aggregation.LocalAggregation",
    "ir": "la_tf.instance_recognition.InstanceRecognition",
    "dc": "la_tf.deep_cluster.DeepCluster",
    "swav": "la_tf.swav.SwAV",
    "supervised": "la_tf.supervised.Supervised",
    "random": "la_tf.random_initialization.RandomInitialization",
}
SEVERAL_VIEWS = ("swav",)  # methods that look at several views of a picture at once
BACKGROUNDS = ("knn", "all", "cluster")
CLOSE = ("clusters", "self", "knn")
BACKGROUND_SEARCHES = ("exact", "cells")
CLUSTER_ON = ("bank", "center_crops")
CLUSTERINGS = ("kmeans", "dbscan")
IR_LOSSES = ("softmax", "nce")
NOISE_NORMALIZERS = ("first_batch", "running")
DC_HEADS = ("a", "b")
BANK_DTYPES = ("float32", "bfloat16", "float16")
OPTIMIZERS = ("sgd", "lars")
MODES = ("train", "eval", "both")
STRATEGIES = ("one", "mirrored", "multiworker")
BANK_SHARDINGS = ("replicated", "sharded")
MOST_NOISE_ROWS = 2**24  # times a batch: numbers of a tensor
SCHEDULES = ("plateau", "steps", "cosine", "constant")
STEMS = ("auto", "imagenet", "small")

# Where a run happens, how long it goes on and how loudly: these may change between two starts of the same run. What
# they say of the pictures is in the pictures' own hash.
CIRCUMSTANCES = {
    "dataset", "tfds_data_dir", "tfds_split", "image_root", "first_label", "max_bad_fraction", "workers", "model_dir",
    "mode", "epochs", "max_steps", "checkpoint_steps", "keep", "log_steps", "on_nan", "deterministic", "early_stopping",
    "warm_start", "exporters", "board_updates", "xla", "strategy", "replicas", "bank_sharding", "sync_batch_norm",
}  # fmt: skip


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    backbone: str = "resnet18"
    width: int = 64
    resnet_version: int = 2
    stem: str = "auto"
    batch_norm: bool = True
    alexnet_channels: tuple[int, ...] | None = None  # of the five convolutions; None: LA's, in proportion to width
    sobel: bool = False
    embedding_dim: int | None = None  # D; None: by method
    pixel_mean: tuple[float, ...] | None = None  # of R, G, B in [0, 1]; None: by data set
    pixel_std: tuple[float, ...] | None = None
    precision: str = "float32"  # of the backbone's computations; its weights are float32

    def __post_init__(self):
        _one_of("backbone", self.backbone, tuple(BACKBONES))
        _one_of("stem", self.stem, STEMS)
        _one_of("precision", self.precision, PRECISIONS)
        if self.embedding_dim is not None:
            _at_least("embedding_dim", self.embedding_dim, 2)
        if (self.pixel_mean is None) != (self.pixel_std is None):
            raise FlagError("--pixel_mean=R,G,B and --pixel_std=R,G,B go together: set both or neither")
        try:
            if self.pixel_mean is not None:
                Preprocessing(mean=self.pixel_mean, std=self.pixel_std)
        except ValueError as error:
            raise FlagError(f"--pixel_{error}") from None
        try:
            check_architecture(**self.architecture(224))
        except ValueError as error:
            raise FlagError(f"--{str(error).replace('channels=', 'alexnet_channels=', 1)}") from None

    def architecture(self, image_size):
        """Returns what `models.build_backbone` takes besides the preprocessing, for pictures of `image_size` px."""
        return {
            "name": self.backbone,
            "width": self.width,
            "resnet_version": self.resnet_version,
            "stem": self.stem_for(image_size),
            "batch_norm": self.batch_norm,
            "channels": self.alexnet_channels,
            "sobel": self.sobel,
        }

    def stem_for(self, image_size):
        """Returns the stem: `auto` takes the small one, where the backbone has it, for pictures of at most 64 px."""
        if self.stem != "auto":
            return self.stem
        return "small" if image_size <= SMALL_IMAGE and "small" in stems(self.backbone) else "imagenet"


def read_by(*methods, default=None):
    """A field that only these methods read: for others it is no part of a run's identity."""
    return field(default=default, metadata={"methods": methods})


@dataclass(frozen=True)
class MethodConfig:
    """The method and the paper's symbols; None: follows N, or the method (`resolve.py`)."""

    method: str = "la"
    tau: float | None = None
    bank_momentum: float = 0.5  # t
    bank_dtype: str = "float32"  # that rows are stored in; all that is computed with them is float32
    # Instance Recognition, and the warm start of Local Aggregation
    ir_loss: str | None = read_by("ir", "la")
    noise_rows: int | None = read_by("ir", "la")  # m of Wu et al.
    noise_normalizer: str = read_by("ir", "la", default="first_batch")  # how their Z is estimated
    # Local Aggregation
    warmup_epochs: int = read_by("la", default=10)
    background: str = read_by("la", default="knn")
    background_k: int | None = read_by("la")  # k
    background_search: str = read_by("la", default="exact")
    cells: int | None = read_by("la")  # C, of the search in cells
    visited_rows: int | None = read_by("la")  # V
    background_clusterings: int = read_by("la", default=3)
    background_clusters: int | None = read_by("la")
    close: str = read_by("la", default="clusters")
    close_k: int | None = read_by("la")  # k'
    clusterings: int = read_by("la", default=10)  # H
    clusters: int | None = read_by("la", "dc")  # m; the classes of DeepCluster
    cluster_on: str = read_by("la", default="bank")
    cluster_every: str | None = read_by("la", "dc")
    clustering: str = read_by("la", default="kmeans")
    dbscan_eps: float = read_by("la", default=0.5)
    dbscan_min_samples: int = read_by("la", default=5)
    warm_iterations: int | None = read_by("la")  # of k-means from the last clustering; 0: always from nothing
    cluster_sample: int = read_by("la", default=0)  # rows a cluster that k-means learns from; 0: all
    cluster_in_background: bool = read_by("la", default=False)
    # DeepCluster
    dc_head: str | None = read_by("dc")
    head_units: int | None = read_by("dc")
    # SwAV
    small_views: int | None = read_by("swav")
    projection_units: int | None = read_by("swav")
    prototypes: int | None = read_by("swav")
    sinkhorn_epsilon: float = read_by("swav", default=0.05)
    sinkhorn_iterations: int = read_by("swav", default=3)
    queue: int | None = read_by("swav")
    queue_from_epoch: int = read_by("swav", default=15)
    frozen_prototype_epochs: float = read_by("swav", default=1.0)

    def __post_init__(self):
        choices = {
            "method": tuple(METHODS), "ir_loss": IR_LOSSES, "noise_normalizer": NOISE_NORMALIZERS,
            "background": BACKGROUNDS, "background_search": BACKGROUND_SEARCHES, "close": CLOSE,
            "cluster_on": CLUSTER_ON, "clustering": CLUSTERINGS,
            "dc_head": DC_HEADS, "bank_dtype": BANK_DTYPES,
        }  # fmt: skip
        least = {
            "noise_rows": 1, "warmup_epochs": 0, "cells": 1, "visited_rows": 1,
            "background_k": 1, "background_clusterings": 1,
            "background_clusters": 2, "close_k": 1, "clusterings": 1, "clusters": 2, "dbscan_min_samples": 1,
            "warm_iterations": 0, "cluster_sample": 0,
            "head_units": 1, "small_views": 0, "projection_units": 1, "prototypes": 2,
            "sinkhorn_iterations": 1, "queue": 0, "queue_from_epoch": 0, "frozen_prototype_epochs": 0,
        }  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) is not None:
                _one_of(name, getattr(self, name), allowed)
        for name, bound in least.items():
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), bound)
        if self.noise_rows is not None and self.noise_rows > MOST_NOISE_ROWS:
            raise FlagError(f"--noise_rows={self.noise_rows}: must be at most {MOST_NOISE_ROWS}")
        if self.tau is not None:
            _above("tau", self.tau, 0)
        _above("dbscan_eps", self.dbscan_eps, 0)
        _above("sinkhorn_epsilon", self.sinkhorn_epsilon, 0)
        if not 0 < self.bank_momentum <= 1:
            raise FlagError(f"--bank_momentum={self.bank_momentum}: must be above 0 and at most 1")
        if self.cluster_every is not None:
            interval(self.cluster_every)

    def unread(self):
        """Returns the names of the fields that the method does not read."""
        return {one.name for one in fields(self) if self.method not in one.metadata.get("methods", (self.method,))}


def interval(text):
    """Returns how many and of what ("epochs" or "steps") `--cluster_every` says: `2epochs`, `1000steps`."""
    match = re.fullmatch(r"([1-9]\d*)\s*(epoch|step)s?", text)
    if not match:
        raise FlagError(f"--cluster_every={text}: give e.g. 1epoch, 2epochs or 1000steps")
    return int(match[1]), f"{match[2]}s"


@dataclass(frozen=True)
class OptimizerConfig:
    """Stochastic gradient descent with momentum, and how its rate falls."""

    optimizer: str = "sgd"
    trust: float = 0.001  # of lars
    learning_rate: float = 0.03
    learning_rate_warmup: float = 0.0  # epochs
    momentum: float = 0.9
    weight_decay: float = 1e-4  # lambda
    schedule: str = "plateau"
    patience: int = 10  # epochs, of the plateau
    drop_epochs: tuple[int, ...] = ()  # of the steps

    def __post_init__(self):
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _above("trust", self.trust, 0)
        _above("learning_rate", self.learning_rate, 0)
        _at_least("learning_rate_warmup", self.learning_rate_warmup, 0)
        if self.learning_rate_warmup and self.schedule != "cosine":
            raise FlagError(f"--learning_rate_warmup={self.learning_rate_warmup}: goes with --schedule=cosine alone")
        if not 0 <= self.momentum < 1:
            raise FlagError(f"--momentum={self.momentum}: must be at least 0 and below 1")
        _at_least("weight_decay", self.weight_decay, 0)
        _one_of("schedule", self.schedule, SCHEDULES)
        _at_least("patience", self.patience, 1)
        if (self.schedule == "steps") != bool(self.drop_epochs):
            raise FlagError("--schedule=steps and --drop_epochs=A,B go together: set both or neither")
        if list(self.drop_epochs) != sorted({*self.drop_epochs}) or any(epoch < 1 for epoch in self.drop_epochs):
            raise FlagError(f"--drop_epochs={','.join(map(str, self.drop_epochs))}: must rise and start at 1 or later")


@dataclass(frozen=True)
class RunOptions:
    """How long a run goes on, where it lives and what it writes."""

    model_dir: str | None = None
    mode: str = "both"
    epochs: int = 200
    max_steps: int | None = None
    seed: int = 0
    early_stopping: int = 0  # epochs without a better monitor; 0: never
    checkpoint_steps: int = 0
    keep: int = 3
    log_steps: int = 100
    on_nan: str = "stop"
    deterministic: bool = False
    xla: bool = False
    strategy: str = "one"
    replicas: int | None = None  # R, of mirrored; None: every GPU
    bank_sharding: str = "replicated"
    sync_batch_norm: bool = False
    warm_start: str | None = None
    exporters: tuple[str, ...] = ("best", "final")
    board_updates: int = 10  # pictures and histograms in TensorBoard, times a run

    def __post_init__(self):
        if not self.model_dir:
            raise FlagError("--model_dir: set it to the folder that the run is to live in, e.g. --model_dir=runs/mine")
        _one_of("mode", self.mode, MODES)
        _one_of("on_nan", self.on_nan, ON_NAN)
        _one_of("strategy", self.strategy, STRATEGIES)
        _one_of("bank_sharding", self.bank_sharding, BANK_SHARDINGS)
        if self.replicas is not None:
            _at_least("replicas", self.replicas, 1)
            if self.strategy != "mirrored":
                raise FlagError(f"--replicas={self.replicas}: goes with --strategy=mirrored alone")
        if self.xla and self.strategy != "one":
            raise FlagError(f"--xla: goes with --strategy=one alone, not with {self.strategy}")
        _at_least("epochs", self.epochs, 1)
        if self.max_steps is not None:
            _at_least("max_steps", self.max_steps, 1)
        if not 0 <= self.seed < 2**31:
            raise FlagError(f"--seed={self.seed}: must be at least 0 and below 2^31")
        _at_least("early_stopping", self.early_stopping, 0)
        _at_least("checkpoint_steps", self.checkpoint_steps, 0)
        _at_least("keep", self.keep, 1)
        _at_least("log_steps", self.log_steps, 1)
        _at_least("board_updates", self.board_updates, 0)
        for name in self.exporters:
            _one_of("exporters", name, ("latest", "best", "final"))
        if len({*self.exporters}) < len(self.exporters):
            raise FlagError(f"--exporters={','.join(self.exporters)}: one is named twice")


@dataclass(frozen=True)
class Config:
    """A whole run."""

    data: DataConfig
    model: ModelConfig
    method: MethodConfig
    optimizer: OptimizerConfig
    run: RunOptions

    def __post_init__(self):
        method, strategy = self.method, self.run.strategy
        sharded = self.run.bank_sharding == "sharded"
        if strategy != "one" and self.run.mode == "eval":
            raise FlagError("--mode=eval: one process evaluates; goes with --strategy=one alone")
        if strategy != "one" and self.model.precision == "mixed_float16":
            raise FlagError("--precision=mixed_float16: goes with --strategy=one alone; take mixed_bfloat16")
        if method.method == "la" and sharded and method.close == "clusters" and method.clustering == "dbscan":
            raise FlagError("--clustering=dbscan: needs all rows in one place; take --bank_sharding=replicated")
        if method.method == "dc" and (strategy == "multiworker" or sharded):
            raise FlagError("--method=dc: needs all clusters in one process; take --strategy=mirrored, replicated")
        if method.method == "la" and method.cluster_in_background and strategy == "multiworker":
            raise FlagError("--cluster_in_background: goes with a single process alone, not with multiworker")

    def flat(self):
        """Returns all values by flag name, JSON-able."""
        parts = (self.data, self.model, self.method, self.optimizer, self.run)
        values = {name: value for part in parts for name, value in asdict(part).items()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_flat(cls, values):
        """The inverse of `flat`; keys that are no field are passed over. ValueError names a value of another type."""
        kinds = {"data": DataConfig, "model": ModelConfig, "method": MethodConfig}
        kinds |= {"optimizer": OptimizerConfig, "run": RunOptions}
        return cls(**{part: built(kind, values) for part, kind in kinds.items()})

    def identity(self):
        """Returns what makes the run the run it is."""
        left_out = CIRCUMSTANCES | self.method.unread()
        return {name: value for name, value in self.flat().items() if name not in left_out}

    def circumstances(self):
        """Returns what may differ from start to start."""
        return {name: value for name, value in self.flat().items() if name in CIRCUMSTANCES}

    @staticmethod
    def defaults():
        """Returns the default of every field that has one of its own (one that is None follows N or the method)."""
        kinds = (DataConfig, ModelConfig, MethodConfig, OptimizerConfig, RunOptions)
        found = {one.name: one.default for kind in kinds for one in fields(kind) if one.default is not None}
        found["ir_loss"] = "softmax"  # the only one there was at first
        found["warm_iterations"] = 0  # likewise
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def method_class(name):
    """Returns the keras.Model class of a method."""
    module, attribute = METHODS[name].rsplit(".", 1)
    return getattr(importlib.import_module(module), attribute)


def _one_of(flag, value, choices):
    if value not in choices:
        raise FlagError(f"--{flag}={value}: choose one of {', '.join(map(str, choices))}")


def _at_least(flag, value, least):
    if not value >= least:
        raise FlagError(f"--{flag}={value}: must be at least {least}")


def _above(flag, value, bound):
    if not value > bound:
        raise FlagError(f"--{flag}={value}: must be above {bound}")
