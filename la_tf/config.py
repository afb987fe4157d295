"""What a run is made of, as frozen dataclasses; which of it is the run's identity; what follows from N. No TensorFlow.

Field names are flag names, so an error names the flag to change.
"""

import importlib
from dataclasses import asdict, dataclass, fields, replace

from data.config import DataConfig
from data.errors import FlagError
from models.backbone import BACKBONES, check_architecture
from models.preprocessing import SMALL_IMAGE, Preprocessing

# Name -> where the keras.Model of the method lives. Adding a method: one file and one line here.
METHODS = {
    "la": "la_tf.local_aggregation.LocalAggregation",
    "ir": "la_tf.instance_recognition.InstanceRecognition",
}
MODES = ("train", "eval", "both")
SCHEDULES = ("plateau", "steps", "cosine", "constant")
STEMS = ("auto", "imagenet", "small")

# Where a run happens, how long it goes on and how loudly: these may change between two starts of the same run. What
# they say of the pictures is in the pictures' own hash.
CIRCUMSTANCES = {
    "dataset", "tfds_data_dir", "tfds_split", "image_root", "first_label", "max_bad_fraction", "workers", "model_dir",
    "mode", "epochs", "max_steps", "checkpoint_steps", "keep", "log_steps", "deterministic", "early_stopping",
    "warm_start", "exporters",
}  # fmt: skip


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    backbone: str = "resnet18"
    width: int = 64
    resnet_version: int = 2
    stem: str = "auto"
    batch_norm: bool = True
    embedding_dim: int = 128  # D
    pixel_mean: tuple[float, ...] | None = None  # of R, G, B in [0, 1]; None: by data set
    pixel_std: tuple[float, ...] | None = None

    def __post_init__(self):
        _one_of("backbone", self.backbone, tuple(BACKBONES))
        _one_of("stem", self.stem, STEMS)
        _at_least("embedding_dim", self.embedding_dim, 2)
        if (self.pixel_mean is None) != (self.pixel_std is None):
            raise FlagError("--pixel_mean=R,G,B and --pixel_std=R,G,B go together: set both or neither")
        try:
            if self.pixel_mean is not None:
                Preprocessing(mean=self.pixel_mean, std=self.pixel_std)
        except ValueError as error:
            raise FlagError(f"--pixel_{error}") from None
        try:
            check_architecture(self.backbone, self.width, self.resnet_version, self.stem_for(224), self.batch_norm)
        except ValueError as error:
            raise FlagError(f"--{error}") from None

    def stem_for(self, image_size):
        """Returns the stem: `auto` takes the small one for pictures of at most 64 px."""
        if self.stem != "auto":
            return self.stem
        return "small" if image_size <= SMALL_IMAGE else "imagenet"


@dataclass(frozen=True)
class MethodConfig:
    """The method and the paper's symbols; None: follows N (`resolve`)."""

    method: str = "la"
    tau: float = 0.07
    bank_momentum: float = 0.5  # t
    background_k: int | None = None  # k
    clusterings: int = 10  # H
    clusters: int | None = None  # m
    warmup_epochs: int = 10

    def __post_init__(self):
        _one_of("method", self.method, tuple(METHODS))
        _above("tau", self.tau, 0)
        if not 0 < self.bank_momentum <= 1:
            raise FlagError(f"--bank_momentum={self.bank_momentum}: must be above 0 and at most 1")
        if self.background_k is not None:
            _at_least("background_k", self.background_k, 1)
        _at_least("clusterings", self.clusterings, 1)
        if self.clusters is not None:
            _at_least("clusters", self.clusters, 2)
        _at_least("warmup_epochs", self.warmup_epochs, 0)


@dataclass(frozen=True)
class OptimizerConfig:
    """Stochastic gradient descent with momentum, and how its rate falls."""

    learning_rate: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 1e-4  # lambda
    schedule: str = "plateau"
    patience: int = 10  # epochs, of the plateau
    drop_epochs: tuple[int, ...] = ()  # of the steps

    def __post_init__(self):
        _above("learning_rate", self.learning_rate, 0)
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
    deterministic: bool = False
    warm_start: str | None = None
    exporters: tuple[str, ...] = ("best", "final")

    def __post_init__(self):
        if not self.model_dir:
            raise FlagError("--model_dir: set it to the folder that the run is to live in, e.g. --model_dir=runs/mine")
        _one_of("mode", self.mode, MODES)
        _at_least("epochs", self.epochs, 1)
        if self.max_steps is not None:
            _at_least("max_steps", self.max_steps, 1)
        if not 0 <= self.seed < 2**31:
            raise FlagError(f"--seed={self.seed}: must be at least 0 and below 2^31")
        _at_least("early_stopping", self.early_stopping, 0)
        _at_least("checkpoint_steps", self.checkpoint_steps, 0)
        _at_least("keep", self.keep, 1)
        _at_least("log_steps", self.log_steps, 1)
        for name in self.exporters:
            _one_of("exporters", name, ("latest", "best", "final"))


@dataclass(frozen=True)
class Config:
    """A whole run."""

    data: DataConfig
    model: ModelConfig
    method: MethodConfig
    optimizer: OptimizerConfig
    run: RunOptions

    def flat(self):
        """Returns all values by flag name, JSON-able."""
        parts = (self.data, self.model, self.method, self.optimizer, self.run)
        values = {name: value for part in parts for name, value in asdict(part).items()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_flat(cls, values):
        """The inverse of `flat`; keys that are no field are passed over."""
        kinds = {"data": DataConfig, "model": ModelConfig, "method": MethodConfig}
        kinds |= {"optimizer": OptimizerConfig, "run": RunOptions}
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return cls(
            **{
                part: kind(**{field.name: values[field.name] for field in fields(kind) if field.name in values})
                for part, kind in kinds.items()
            }
        )

    def identity(self):
        """Returns what makes the run the run it is."""
        return {name: value for name, value in self.flat().items() if name not in CIRCUMSTANCES}

    def circumstances(self):
        """Returns what may differ from start to start."""
        return {name: value for name, value in self.flat().items() if name in CIRCUMSTANCES}


# The paper's sizes on ImageNet (N = 1,281,167): m = 30,000 is 42.7 images a cluster, k = 4096 is 0.32% of N.
IMAGES_PER_CLUSTER = 42.7
BACKGROUND_SHARE = 0.0032
# Three clusters' worth: below N = 40,000 that share nears what one cluster holds, and B_i would leave nothing to tell
# C_i from.
LEAST_BACKGROUND = 128


def resolve(config, size):
    """Returns `config` with m and k filled in for N = `size`, and what to warn about, a list of lines.

    Raises FlagError for values with which LA cannot work: k >= N, m > N/2 (most clusters one image).
    """
    method = config.method
    if config.data.batch_size > size:
        raise FlagError(f"--batch_size={config.data.batch_size}: larger than the data set, which has {size} images")
    if method.method != "la":
        return config, []
    clusters = method.clusters or max(2, round(size / IMAGES_PER_CLUSTER))
    background_k = method.background_k or min(size - 1, max(LEAST_BACKGROUND, round(size * BACKGROUND_SHARE)))
    if background_k >= size:
        raise FlagError(f"--background_k={background_k}: all N = {size} images would be background; lower it")
    if clusters > size // 2:
        raise FlagError(f"--clusters={clusters}: with N = {size} images most clusters would hold one; lower it")
    warnings = []
    if clusters >= size / 4:
        warnings.append(f"--clusters={clusters}: fewer than 4 images a cluster (N = {size}); LA will be close to IR")
    if background_k < size / clusters:
        warnings.append(
            f"--background_k={background_k}: a cluster holds {size / clusters:.0f} images on average, so B_i may lie "
            "wholly within C_i and the loss vanish; raise it, or raise --clusters"
        )
    if method.warmup_epochs == 0 and config.run.warm_start is None:
        raise FlagError("--warmup_epochs=0: the bank is still random then; take at least 1, or --warm_start=MODEL_DIR")
    if method.warmup_epochs >= config.run.epochs:
        warnings.append(f"--warmup_epochs={method.warmup_epochs}: the run ends before LA begins (--epochs)")
    return replace(config, method=replace(method, background_k=background_k, clusters=clusters)), warnings


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
