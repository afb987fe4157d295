"""Flags of the mains that embed one's own pictures by an export: defined and read here, known nowhere else."""

from absl import flags

from data.config import DataConfig
from data.errors import FlagError

_DATA = DataConfig()
EXAMPLES = {
    "export": "runs/mine/export/final/1700000000",
    "source": "folder:holiday",
    "out": "holiday-embedded",
}
NAMES = ("export", "source", "split", "batch_size", "workers")
OPTIONS = ("image_root", "tfds_data_dir", "tfds_split", "first_label")  # of forms of --source, as training has them

flags.DEFINE_string("export", None, "The export: a folder of la_tf.train, la_tf.export or la_tf.import_weights.")
flags.DEFINE_string("source", None, "The pictures: folder:PATH takes all below PATH; or another form of --dataset.")
flags.DEFINE_string("split", None, "train | test | all. Default: all pictures of a folder; to be chosen elsewhere.")
flags.DEFINE_string("image_root", None, "Folder that the paths of list:FILE start from. Default: the file's own.")
flags.DEFINE_string("tfds_data_dir", None, "Where TFDS keeps its data sets. Default: TFDS' own rule.")
flags.DEFINE_string("tfds_split", None, "What of a TFDS set is --split=train, e.g. train+unlabelled. Default: train.")
flags.DEFINE_integer("first_label", None, "Label of the first class in tfrecord: files, 0 or 1. Default: told by them.")
flags.DEFINE_integer("batch_size", _DATA.batch_size, "Pictures that are embedded at once.")
flags.DEFINE_integer("workers", _DATA.workers, "Parallel calls of the input pipeline; 0 chooses by itself.")


def values(*more, required=("export",)):
    """Returns the flags of this module and those named in `more`, by name; raises FlagError where one is wrong.

    `options` are those of OPTIONS that are given, for `embedded_pictures.open_source`.
    """
    value = {name: flags.FLAGS[name].value for name in (*NAMES, *more)}
    for name in required:
        if not value[name]:
            raise FlagError(f"--{name}: is not set; e.g. --{name}={EXAMPLES[name]}")
    given = {name: flags.FLAGS[name].value for name in OPTIONS}
    value["options"] = {name: option for name, option in given.items() if option is not None}
    DataConfig(batch_size=value["batch_size"], workers=value["workers"], **value["options"])  # checks them
    return value
