"""What the data flags say, as one frozen object that is checked when it is made."""

from dataclasses import dataclass

from data.errors import FlagError
from data.sources import DataSet, open_dataset
from data.spec import missing_dataset, parse_spec

LARGEST_SIDE = 2**14  # px: a batch of larger ones has more numbers than a tensor can
MOST_WORKERS = 1024  # TensorFlow gives each its thread


@dataclass(frozen=True)
class DataConfig:
    """The data part of a run's configuration; None means "by data set".  Raises FlagError naming the flag."""

    dataset: str | None = None
    image_size: int | None = None  # px
    batch_size: int = 128  # of all replicas together
    workers: int = 0  # 0: automatic
    validation_fraction: float = 0.1
    tfds_data_dir: str | None = None
    tfds_split: str = "train"  # what of a TFDS set is trained on, "+" between several
    image_root: str | None = None  # what the paths of list: start from; None: the list's folder
    first_label: int | None = None  # 0 or 1, of tfrecord:; None: told by the field names
    max_bad_fraction: float = 0.05
    crop_min_area: float | None = None
    jitter: float | None = None
    grayscale: float | None = None
    flip: bool | None = None
    rotation: float | None = None  # degrees
    scale: float | None = None
    shift: float | None = None
    shear: float | None = None

    def __post_init__(self):
        if self.dataset is not None:
            parse_spec(self.dataset)
        self._need("image_size", lambda v: v >= 8, "must be at least 8 pixels")
        self._need("image_size", lambda v: v <= LARGEST_SIDE, f"must be at most {LARGEST_SIDE} pixels")
        self._need("batch_size", lambda v: v >= 1, "must be at least 1")
        self._need("workers", lambda v: 0 <= v <= MOST_WORKERS, f"must be 0 (automatic) to {MOST_WORKERS}")
        self._need("validation_fraction", lambda v: 0 <= v < 1, "must be at least 0 and less than 1")
        self._need("first_label", lambda v: v in (0, 1), "is the label of the first class in the records: 0 or 1")
        self._need("max_bad_fraction", lambda v: 0 <= v <= 1, "must be 0 to 1 (a part of the pictures)")
        self._need("crop_min_area", lambda v: 0 < v <= 1, "must be more than 0 and at most 1")
        self._need("grayscale", lambda v: 0 <= v <= 1, "is a probability, from 0 to 1")
        # At 1 a brightness or contrast of 0 would leave nothing of the picture.
        self._need("jitter", lambda v: 0 <= v < 1, "must be at least 0 and less than 1")
        self._need("rotation", lambda v: 0 <= v <= 180, "must be 0 to 180 degrees")
        self._need("scale", lambda v: 0 <= v < 1, "must be at least 0 and less than 1")
        self._need("shift", lambda v: 0 <= v <= 1, "must be 0 to 1 (a part of the side)")
        self._need("shear", lambda v: 0 <= v <= 1, "must be 0 to 1")

    def _need(self, name, holds, rule):
        value = getattr(self, name)
        if value is not None and not holds(value):
            raise FlagError(f"--{name}={value}: {rule}")


def open_configured(config: DataConfig) -> DataSet:
    """Opens the data set that the flags name; raises FlagError where none is named, else as `open_dataset`."""
    return open_dataset(
        require_dataset(config),
        tfds_data_dir=config.tfds_data_dir,
        tfds_split=config.tfds_split,
        image_root=config.image_root,
        first_label=config.first_label,
    )


def require_dataset(config: DataConfig) -> str:
    """The spec of the run's data set; raises FlagError, saying which forms there are, where none was given."""
    if not config.dataset:
        raise missing_dataset()
    return config.dataset


def image_size_for(config: DataConfig, dataset: DataSet) -> int:
    """Side of the network's input, px: --image_size, else 16 for digits, the common small side, or 224."""
    if config.image_size is not None:
        return config.image_size
    if dataset.kind == "digits":
        return 16
    return min(dataset.train.common_size or (224,))
