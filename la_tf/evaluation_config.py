"""What an evaluation is made of, as frozen dataclasses. No TensorFlow. Field names are flag names."""

from dataclasses import asdict, dataclass

from data.config import DataConfig
from data.errors import FlagError
from data.spec import missing_dataset
from la_tf.readout_pooling import POOLINGS

SPLITS = ("test", "validation")
BANKS = ("saved", "fresh")

CROPS = ("area", "patch")
INPUT_PIXELS = ("unit", "signed", "bytes", "imagenet", "caffe")


@dataclass(frozen=True)
class SubjectConfig:
    """Which network is judged: exactly one of the first four."""

    model_dir: str | None = None
    export: str | None = None
    keras_model: str | None = None
    saved_model: str | None = None
    step: int | None = None  # of a run: the checkpoint
    signature: str = "serving_default"  # of a SavedModel
    input_pixels: str | None = None  # what a network that is not ours takes
    endpoints: tuple[str, ...] = ()  # that are read out; none: all. A network that is not ours has to be told

    def __post_init__(self):
        given = [name for name in ("model_dir", "export", "keras_model", "saved_model") if getattr(self, name)]
        if len(given) != 1:
            found = " and ".join(f"--{name}" for name in given) or "none"
            raise FlagError(f"--model_dir, --export, --keras_model, --saved_model: give one of them, not {found}")
        if self.step is not None and not self.model_dir:
            raise FlagError(f"--step={self.step}: names a checkpoint, so it goes with --model_dir")
        if self.foreign and self.input_pixels is None:
            raise FlagError(
                f"--input_pixels: say what pixels the network of --{given[0]} takes: {', '.join(INPUT_PIXELS)}"
            )
        if self.foreign and not self.endpoints:
            raise FlagError(f"--endpoints: name what is to be read out of --{given[0]}, e.g. --endpoints=avg_pool")
        if "" in self.endpoints or len({*self.endpoints}) < len(self.endpoints):
            raise FlagError(f"--endpoints={','.join(self.endpoints)}: one is named twice, or has no name")
        if self.signature != SubjectConfig.signature and not self.saved_model:
            raise FlagError(f"--signature={self.signature}: only a --saved_model has signatures")
        if self.input_pixels is not None:
            _one_of("input_pixels", self.input_pixels, INPUT_PIXELS)
            if not self.foreign:
                raise FlagError(f"--input_pixels={self.input_pixels}: --{given[0]} knows its own")

    @property
    def foreign(self):
        """Whether the network is not one of ours."""
        return bool(self.keras_model or self.saved_model)


@dataclass(frozen=True)
class KnnConfig:
    """The weighted nearest-neighbour classifier (section 4.2)."""

    neighbors: int = 200  # K
    tau: float = 0.07
    bank: str | None = None  # None: the saved one on the run's own pictures, else a fresh one

    def __post_init__(self):
        _need("neighbors", self.neighbors, self.neighbors >= 1, "must be at least 1")
        _need("tau", self.tau, self.tau > 0, "must be above 0")
        if self.bank is not None:
            _one_of("bank", self.bank, BANKS)


@dataclass(frozen=True)
class LinearConfig:
    """Linear readouts of a frozen network (section 4.2, supplement B.1)."""

    pooling: str = "9k"
    ten_crop: bool = False
    fast: bool = False
    crops: str | None = None  # None: by backbone and data set
    epochs: int = 90
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    patience: int = 10  # epochs
    select_on: str = "validation"
    seed: int = 0

    def __post_init__(self):
        _one_of("pooling", self.pooling, POOLINGS)
        _one_of("select_on", self.select_on, SPLITS)
        _need("patience", self.patience, self.patience >= 1, "must be at least 1")
        _check_training(self)
        if self.fast and self.weight_decay == 0:
            raise FlagError("--weight_decay=0: with --fast the readout may have no solution then; take 1e-6 or more")
        if self.fast and self.select_on == "test":
            raise FlagError("--select_on=test: with --fast nothing is selected")


@dataclass(frozen=True)
class FinetuneConfig:
    """Fine-tuning with a part of the labels (Wu et al. 2018)."""

    percent: tuple[float, ...] = (1, 2, 4, 10, 20, 100)
    crops: str | None = None
    epochs: int = 70
    learning_rate: float = 0.01
    scratch_learning_rate: float = 0.05
    least_steps: int = 500
    momentum: float = 0.9
    weight_decay: float = 1e-4
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "percent", tuple(map(float, self.percent)))  # 1 and 1.0 are the same setting
        shown = ",".join(f"{percent:g}" for percent in self.percent)
        right = bool(self.percent) and all(0 < percent <= 100 for percent in self.percent)
        _need("percent", shown, right, "give percents of the labels, e.g. 1,10,100")
        _need("percent", shown, len({*self.percent}) == len(self.percent), "one is named twice")
        _need("scratch_learning_rate", self.scratch_learning_rate, self.scratch_learning_rate > 0, "must be above 0")
        _need("least_steps", self.least_steps, self.least_steps >= 0, "must be at least 0")
        _check_training(self)


PROTOCOLS = {"knn": KnnConfig, "linear": LinearConfig, "finetune": FinetuneConfig}


@dataclass(frozen=True)
class EvaluationConfig:
    """A whole evaluation."""

    subject: SubjectConfig
    protocol: KnnConfig | LinearConfig | FinetuneConfig
    data: DataConfig
    split: str = "test"  # that is scored
    out: str | None = None  # folder of results.jsonl; None: the model_dir

    def __post_init__(self):
        _one_of("split", self.split, SPLITS)
        if self.split == "validation" and getattr(self.protocol, "select_on", None) == "test":
            raise FlagError("--select_on=test: with --split=validation the test split is not looked at")
        if self.subject.endpoints and self.name != "linear" and not self.subject.foreign:
            raise FlagError(f"--endpoints: --protocol={self.name} takes the last one of ours; leave it out")
        if not self.out and not self.subject.model_dir:
            raise FlagError("--out: name the folder for the results, e.g. --out=results/mine")
        if self.data.dataset is None and not self.subject.model_dir:
            raise missing_dataset()

    @property
    def name(self):
        """The protocol's name: knn, linear or finetune."""
        return next(name for name, kind in PROTOCOLS.items() if isinstance(self.protocol, kind))

    def settings(self):
        """Returns what a result depends on besides network and pictures, by flag name, JSON-able."""
        settings = asdict(self.protocol)
        if self.name == "linear" and self.protocol.fast:
            settings = {name: settings[name] for name in ("pooling", "ten_crop", "fast", "weight_decay", "seed")}
        if self.name != "knn" and not settings.get("fast"):
            settings["batch_size"] = self.data.batch_size
        if self.name == "linear" or self.split == "validation":
            settings["validation_fraction"] = self.data.validation_fraction
        return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def _check_training(config):
    if config.crops is not None:
        _one_of("crops", config.crops, CROPS)
    _need("epochs", config.epochs, config.epochs >= 1, "must be at least 1")
    _need("learning_rate", config.learning_rate, config.learning_rate > 0, "must be above 0")
    _need("weight_decay", config.weight_decay, config.weight_decay >= 0, "must be at least 0")
    _need("momentum", config.momentum, 0 <= config.momentum < 1, "must be at least 0 and below 1")
    _need("seed", config.seed, 0 <= config.seed < 2**31, "must be at least 0 and below 2^31")


def _one_of(flag, value, choices):
    if value not in choices:
        raise FlagError(f"--{flag}={value}: choose one of {', '.join(map(str, choices))}")


def _need(flag, value, holds, rule):
    if not holds:
        raise FlagError(f"--{flag}={value}: {rule}")
