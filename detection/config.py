"""What a detector and its training are made of, as frozen dataclasses. No TensorFlow.

Field names are flag names, so an error names the flag to change. Defaults are those of tf-faster-rcnn as its scripts
train (its configuration files and its shell script together) but where the comment says otherwise.
"""

import math
from dataclasses import asdict, dataclass, fields

from data.config import MOST_WORKERS
from data.errors import FlagError
from data.voc import VOC_CLASSES, open_set, read_classes
from detection.voc_ap import METRICS
from la_tf.model_dir import built
from la_tf.specs import ON_NAN

BATCH_NORMS = ("frozen", "recalibrated", "local", "synchronised")
RECALIBRATION_BATCHES = 200  # of --batch_norm=recalibrated, where the set has as many: MoCo's number
ROI_POOLINGS = ("roi_align", "legacy_crop")
STRATEGIES = ("one", "mirrored")
INITIALIZATIONS = ("export", "random")
SELECTED_BY = "val_ap50"  # the metric of the checkpoint that is kept beside the newest ones
SIDE_AT_STRIDE_1, SIDE_AT_STRIDE_2 = 7, 14  # of the regions that conv5 of a ResNet sees, and its stride there
SMALLEST_SIDE = 67  # px: what leaves AlexNet a position of its map

# Where and how long a run goes on; these may change between two starts of the same run.
CIRCUMSTANCES = {
    "devkit", "val_set", "export", "model_dir", "steps", "eval_steps", "checkpoint_steps", "keep", "log_steps",
    "on_nan", "workers", "deterministic", "strategy", "replicas", "metric", "drawn_pictures", "classes_file",
    "tfds_data_dir",
}  # fmt: skip


@dataclass(frozen=True)
class DataOptions:
    """The annotated pictures, and the size at which they are seen."""

    devkit: str | None = None
    train_set: str = "2007_trainval"
    val_set: str | None = None
    classes_file: str | None = None
    box_origin: int = 1
    tfds_data_dir: str | None = None
    short_side: tuple[int, ...] = (600,)  # px; several: one of them is drawn for each picture
    long_side: int = 1000  # px, at most
    test_short_side: int | None = None  # None: the last of short_side
    flip: bool = True  # every picture comes a second time, mirrored
    train_on_difficult: bool = False  # objects that VOC marks as difficult
    batch_size: int = 1
    workers: int = 0

    def __post_init__(self):
        if not self.devkit:
            raise FlagError("--devkit: say where the pictures are: the folder that holds VOC2007, or tfds:voc")
        if self.box_origin not in (0, 1):
            raise FlagError(f"--box_origin={self.box_origin}: is 1 (VOC counts pixels from 1) or 0")
        if not self.short_side:
            raise FlagError("--short_side: give at least one size, px")
        sides = [("short_side", side) for side in self.short_side]
        for flag, side in [*sides, ("test_short_side", self.test_side)]:
            if not SMALLEST_SIDE <= side <= self.long_side:
                raise FlagError(
                    f"--{flag}={side}: must lie between {SMALLEST_SIDE} px and --long_side={self.long_side}"
                )
        at_least("batch_size", self.batch_size, 1)
        at_least("workers", self.workers, 0)
        if self.workers > MOST_WORKERS:
            raise FlagError(f"--workers={self.workers}: must be 0 (automatic) to {MOST_WORKERS}")

    @property
    def classes(self):
        """The class names: those of --classes_file, else the 20 of VOC."""
        return read_classes(self.classes_file) if self.classes_file else VOC_CLASSES

    def open(self, name, classes=None):
        """Returns the `data.voc.DetectionSet` called `name`; classes: None, or others than are said here."""
        return open_set(self.devkit, name, classes or self.classes, self.box_origin, self.tfds_data_dir)

    @property
    def test_side(self):
        """The short side of a picture that is evaluated, px."""
        return _or(self.test_short_side, self.short_side[-1])


@dataclass(frozen=True)
class DetectorOptions:
    """The network behind the backbone, its targets and its losses; None: by backbone (`resolved`)."""

    freeze_at: int | str = "alexnet:0,vgg16:2,resnet:2"  # conv1 to convN stay as they are
    batch_norm: str = "frozen"
    extra_norm: bool = False
    dropout: float | None = None
    anchor_scales: tuple[float, ...] = (8.0, 16.0, 32.0)  # times 16 px
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_channels: int = 512
    rpn_batch: int = 256
    rpn_positive: float = 0.7
    rpn_negative: float = 0.3
    rpn_positive_fraction: float = 0.5
    anchors_across_border: bool = False  # learned from as well, as in detectron2
    rpn_beta: float = 1 / 9  # where the box loss turns from square to linear: sigma 3
    proposal_iou: float = 0.7
    proposals_before_nms: int | None = None  # tf-faster-rcnn sets a limit and never uses it
    train_proposals: int = 2000
    test_proposals: int = 300
    rois: int = 256
    roi_foreground_fraction: float = 0.25
    roi_foreground: float = 0.5
    roi_background_low: float = 0.0
    roi_beta: float = 1.0  # sigma 1
    append_truth: bool = False
    roi_pooling: str = "roi_align"  # tf-faster-rcnn has the other
    roi_side: int | None = None
    score_threshold: float = 0.0
    nms_iou: float = 0.3
    detections: int = 100

    def __post_init__(self):
        one_of("batch_norm", self.batch_norm, BATCH_NORMS)
        one_of("roi_pooling", self.roi_pooling, ROI_POOLINGS)
        for flag in ("anchor_scales", "anchor_ratios"):
            values = getattr(self, flag)
            if not values or not all(0 < value < math.inf for value in values):
                raise FlagError(f"--{flag}={_listed(values)}: give positive numbers such as 8,16,32")
        for flag in ("rpn_channels", "rpn_batch", "train_proposals", "test_proposals", "rois", "detections"):
            at_least(flag, getattr(self, flag), 1)
        if self.proposals_before_nms is not None:
            at_least("proposals_before_nms", self.proposals_before_nms, 1)
        for flag in ("rpn_beta", "roi_beta", "score_threshold"):
            at_least(flag, getattr(self, flag), 0)
        for flag in (
            "rpn_positive", "rpn_negative", "rpn_positive_fraction", "proposal_iou", "roi_foreground_fraction",
            "roi_foreground", "roi_background_low", "nms_iou",
        ):  # fmt: skip
            fraction(flag, getattr(self, flag))
        if self.rpn_negative > self.rpn_positive:
            raise FlagError(f"--rpn_negative={self.rpn_negative}: is above --rpn_positive={self.rpn_positive}")
        if self.roi_background_low >= self.roi_foreground:
            raise FlagError(
                f"--roi_background_low={self.roi_background_low}: must be below --roi_foreground={self.roi_foreground}"
            )
        if self.detections > 100:
            raise FlagError(f"--detections={self.detections}: at most 100 of a picture are kept (VOC's rule)")

    def resolved(self, backbone, endpoints):
        """Returns the options with what follows from the backbone filled in; raises FlagError for what it cannot do.

        endpoints: its names, in order.
        """
        residual = backbone.startswith("resnet")
        given = asdict(self)
        given["freeze_at"] = frozen_endpoints(self.freeze_at, backbone)
        most = endpoints.index("conv4" if residual else "conv5") + 1
        if not 0 <= given["freeze_at"] <= most:
            raise FlagError(
                f"--freeze_at={given['freeze_at']}: {backbone} can be frozen up to conv{most}; 0 is nothing"
            )
        given["dropout"] = _or(self.dropout, 0.0 if residual else 0.5)
        if residual and given["dropout"]:
            raise FlagError(f"--dropout={self.dropout}: goes with fc6 and fc7, which {backbone} does not have")
        if not 0 <= given["dropout"] < 1:
            raise FlagError(f"--dropout={self.dropout}: must be at least 0 and below 1")
        if not residual and self.extra_norm:
            raise FlagError(f"--extra_norm: goes with conv5 of ResNets; {backbone} has norms of its own behind fc7")
        if not residual and self.roi_side:
            raise FlagError(f"--roi_side={self.roi_side}: follows from fc6 of {backbone}; leave it out")
        if residual:
            given["roi_side"] = _or(self.roi_side, SIDE_AT_STRIDE_1)
            one_of("roi_side", given["roi_side"], (SIDE_AT_STRIDE_1, SIDE_AT_STRIDE_2))
        return DetectorOptions(**given)


@dataclass(frozen=True)
class OptimizerOptions:
    """How weights learn; None: by backbone."""

    learning_rate: float = 0.001
    drop_steps: tuple[int, ...] = (50_000,)
    warmup_steps: int = 0  # in which the rate rises from a thousandth
    momentum: float = 0.9
    weight_decay: float = 1e-4  # lambda/2 times the squared kernels, as a loss
    double_bias: bool | None = None  # whether biases learn twice as fast

    def __post_init__(self):
        if not self.learning_rate > 0:
            raise FlagError(f"--learning_rate={self.learning_rate}: must be above 0")
        if list(self.drop_steps) != sorted({*self.drop_steps}) or any(step < 1 for step in self.drop_steps):
            raise FlagError(f"--drop_steps={_listed(self.drop_steps)}: give rising steps such as 18000,22000")
        if not 0 <= self.momentum < 1:
            raise FlagError(f"--momentum={self.momentum}: must be at least 0 and below 1")
        at_least("weight_decay", self.weight_decay, 0)
        at_least("warmup_steps", self.warmup_steps, 0)

    def resolved(self, backbone):
        """Returns the options with what follows from the backbone filled in."""
        double_bias = _or(self.double_bias, not backbone.startswith("resnet"))
        return OptimizerOptions(**{**asdict(self), "double_bias": double_bias})


@dataclass(frozen=True)
class RunOptions:
    """Where the run lives, how long it takes, what it tells."""

    model_dir: str | None = None
    export: str | None = None
    initialization: str = "export"  # random: the control, of the export's architecture alone
    seed: int = 3
    steps: int = 70_000
    eval_steps: int = 5000
    checkpoint_steps: int = 1000
    keep: int = 3
    log_steps: int = 20
    on_nan: str = "stop"
    metric: str = "voc07"
    drawn_pictures: int = 8
    precise_batches: int = 0  # whose statistics batch norms take over before evaluations; 0: none, or `recalibrated`'s
    deterministic: bool = False
    strategy: str = "one"
    replicas: int | None = None

    def __post_init__(self):
        if not self.model_dir:
            raise FlagError("--model_dir: say where the run is to live, e.g. runs/voc")
        for flag in ("steps", "eval_steps", "keep", "log_steps"):
            at_least(flag, getattr(self, flag), 1)
        for flag in ("checkpoint_steps", "drawn_pictures", "precise_batches", "seed"):
            at_least(flag, getattr(self, flag), 0)
        if self.seed >= 2**31:
            raise FlagError(f"--seed={self.seed}: must be below 2^31")
        one_of("initialization", self.initialization, INITIALIZATIONS)
        one_of("metric", self.metric, METRICS)
        one_of("on_nan", self.on_nan, ON_NAN)
        one_of("strategy", self.strategy, STRATEGIES)
        if self.replicas is not None:
            at_least("replicas", self.replicas, 1)
            if self.strategy == "one":
                raise FlagError(f"--replicas={self.replicas}: goes with --strategy=mirrored")


@dataclass(frozen=True)
class DetectionConfig:
    """All of it."""

    data: DataOptions
    detector: DetectorOptions
    optimizer: OptimizerOptions
    run: RunOptions

    def __post_init__(self):
        if self.run.precise_batches and self.detector.batch_norm == "frozen" and not self.detector.extra_norm:
            raise FlagError(f"--precise_batches={self.run.precise_batches}: frozen batch norms keep their statistics")

    def resolved(self, backbone, endpoints):
        """Returns the config with what follows from the backbone, whose endpoints are given by name, filled in."""
        return DetectionConfig(
            self.data, self.detector.resolved(backbone, endpoints), self.optimizer.resolved(backbone), self.run
        )

    def check_training(self):
        """Raises FlagError for what can be evaluated but not be trained."""
        if self.detector.batch_norm == "synchronised" and self.run.strategy == "one":
            raise FlagError("--batch_norm=synchronised: goes with several replicas; set --strategy=mirrored, or local")

    def flat(self):
        """Returns all values by flag name, JSON-able."""
        parts = (self.data, self.detector, self.optimizer, self.run)
        values = {name: value for part in parts for name, value in asdict(part).items()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_flat(cls, values):
        """The inverse of `flat`; keys that are no field are passed over. ValueError names a value of another type."""
        kinds = {"data": DataOptions, "detector": DetectorOptions, "optimizer": OptimizerOptions, "run": RunOptions}
        return cls(**{part: built(kind, values) for part, kind in kinds.items()})

    @staticmethod
    def defaults():
        """Returns the default of every flag that is part of the identity, by name."""
        kinds = (DataOptions, DetectorOptions, OptimizerOptions, RunOptions)
        values = {field.name: field.default for kind in kinds for field in fields(kind)}
        return {name: value for name, value in values.items() if name not in CIRCUMSTANCES}

    def identity(self):
        """Returns what makes the run the run it is."""
        return {name: value for name, value in self.flat().items() if name not in CIRCUMSTANCES}

    def circumstances(self):
        """Returns what may differ from start to start."""
        return {name: value for name, value in self.flat().items() if name in CIRCUMSTANCES}


def frozen_endpoints(freeze_at, backbone):
    """Returns how many endpoints of a backbone stay as they are: of 2 or "2", of "alexnet:0,resnet:4" its family's.

    Raises FlagError where the text is of another form, or has nothing for the backbone.
    """
    family = "resnet" if backbone.startswith("resnet") else backbone
    entries = [entry.strip().rpartition(":") for entry in str(freeze_at).split(",")]
    try:
        depths = {of: int(depth) for of, _, depth in entries}
    except ValueError:
        raise FlagError(f"--freeze_at={freeze_at}: give a number such as 2, or alexnet:0,vgg16:2,resnet:4") from None
    if family not in depths and [*depths] != [""]:
        raise FlagError(f"--freeze_at={freeze_at}: says nothing for {family}; add {family}:2, or give one number")
    return depths.get(family, depths.get(""))


def one_of(flag, value, choices):
    """Raises FlagError where `value` is none of `choices`."""
    if value not in choices:
        raise FlagError(f"--{flag}={value}: choose one of {', '.join(map(str, choices))}")


def at_least(flag, value, least):
    """Raises FlagError where `value` is below `least`, or no number."""
    if not value >= least:
        raise FlagError(f"--{flag}={value}: must be at least {least}")


def fraction(flag, value):
    """Raises FlagError where `value` does not lie in [0, 1]."""
    if not 0 <= value <= 1:
        raise FlagError(f"--{flag}={value}: must lie between 0 and 1")


def _or(value, default):
    return default if value is None else value


def _listed(values):
    return ",".join(map(str, values))
