"""The data flags: defined here, read here by `data_config`, known nowhere else."""

import dataclasses

from absl import flags

from data.config import DataConfig
from data.spec import FORMS

_DEFAULT = DataConfig()

flags.DEFINE_string("dataset", _DEFAULT.dataset, f"Where the pictures are: {' | '.join(FORMS.values())}.")
flags.DEFINE_integer(
    "image_size",
    None,
    "Side of the network's input, px. Default: by data set (digits 16); of la_tf.evaluate, the network's own.",
)
flags.DEFINE_integer("batch_size", _DEFAULT.batch_size, "Pictures per step, all replicas together.")
flags.DEFINE_integer("workers", _DEFAULT.workers, "Parallel calls of the input pipeline; 0 chooses by itself.")
flags.DEFINE_float(
    "validation_fraction",
    _DEFAULT.validation_fraction,
    "Part of the training pictures, stratified by class, that schedules and early stopping look at.",
)
flags.DEFINE_string("tfds_data_dir", None, "Where TFDS keeps its data sets. Default: TFDS' own rule.")
flags.DEFINE_string(
    "tfds_split", _DEFAULT.tfds_split, "What of a TFDS set to train on, e.g. train+unlabelled (STL-10)."
)
flags.DEFINE_string("image_root", None, "Folder that the paths of list:FILE start from. Default: the file's own.")
flags.DEFINE_integer(
    "first_label",
    None,
    "Label of the first class in tfrecord: files, 0 or 1. Default: told by their fields.",
)
flags.DEFINE_float(
    "max_bad_fraction",
    _DEFAULT.max_bad_fraction,
    "Pictures that cannot be decoded are left out, counted and named; more than this part of them stops the run.",
)
flags.DEFINE_float(
    "crop_min_area",
    None,
    "Least area of a random crop. Default: 0.2; multi-crop 0.14, without small views 0.08; digits are not cropped.",
)
flags.DEFINE_float(
    "jitter",
    None,
    "Strength of brightness, contrast, saturation, hue. Default: 0.4; multi-crop 0.8, hue a quarter; digits, "
    "la_tf.evaluate 0.",
)
flags.DEFINE_float("grayscale", None, "Probability of losing all colour. Default: 0.2; digits and la_tf.evaluate 0.")
flags.DEFINE_boolean("flip", None, "Mirror half of the pictures. Default: yes; digits no.")
flags.DEFINE_float("rotation", None, "Largest rotation, degrees. Default: 0; digits 10.")
flags.DEFINE_float("scale", None, "Largest change of size, a part of it. Default: 0; digits 0.1.")
flags.DEFINE_float("shift", None, "Largest shift, a part of the side. Default: 0; digits 0.08.")
flags.DEFINE_float("shear", None, "Largest shear, a part of the side. Default: 0; digits 0.1.")


def data_config() -> DataConfig:
    """The data flags of this process; raises FlagError naming the flag that is wrong."""
    return DataConfig(**{field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(DataConfig)})
