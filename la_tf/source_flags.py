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

flags.DEFINE_string("export", None, "The export: a folder of la_tf.train, la_tf.export or la_tf.import_weights.")
flags.DEFINE_string("source", None, "The pictures: folder:PATH takes all below PATH; or another form of --dataset.")
flags.DEFINE_string("split", None, "train | test | all. Default: all pictures of a folder; to be chosen elsewhere.")
flags.DEFINE_integer("batch_size", _DATA.batch_size, "Pictures that are embedded at once.")
flags.DEFINE_integer("workers", _DATA.workers, "Parallel calls of the input pipeline; 0 chooses by itself.")


def values(*more, required=("export",)):
    """Returns the flags of this module and those named in `more`, by name; raises FlagError where one is wrong."""
    value = {name: flags.FLAGS[name].value for name in (*NAMES, *more)}
    for name in required:
        if not value[name]:
            raise FlagError(f"--{name}: is not set; e.g. --{name}={EXAMPLES[name]}")
    DataConfig(batch_size=value["batch_size"], workers=value["workers"])  # checks them
    return value
