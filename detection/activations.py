"""What a backbone makes of the detection pictures, beside those that it comes from, before anything is trained.

python -m detection.activations --export=E --devkit=PATH --train_set=2007_trainval --pretrain_data=folder:PATH

Of each endpoint mean and standard deviation of the activations; of its batch norms how far their inputs are from their
stored statistics, means over channels: shift of the mean in stored deviations, ratio of the deviations, and drift, both
at once. What follows is a --batch_norm for detection.train, by its --batch_size, --strategy and --replicas, and a
warning where the scale is unusual. Flags of detection.train that change nothing here may be given as well.
"""

import sys

from absl import flags

from data import cli
from data.errors import FlagError
from detection import flags as detection_flags
from detection.activation_advice import conclusion, table

flags.DEFINE_string(
    "pretrain_data",
    None,
    "Pictures of the pretraining, as --dataset has them. Default: those of the run that the export lies in.",
)
flags.DEFINE_integer("pictures", 64, "How many of each set, evenly over it.")


def main():
    """Flags -> activations of both sets of pictures; prints them as a table, returns numbers and advice."""
    folder, count = flags.FLAGS["export"].value, flags.FLAGS["pictures"].value
    if not folder:
        raise FlagError("--export: give the folder of an export (la_tf.train and la_tf.export make one)")
    if count < 1:
        raise FlagError(f"--pictures={count}: must be at least 1")
    options = detection_flags.data_options()
    cli.load_tensorflow()
    from detection import activation_statistics as statistics
    from detection import loading, parts

    pictures = options.open(options.train_set)
    pretraining = pretraining_data(folder, options)
    backbone = loading.load(folder, detection_flags.expected())
    seen = {"detection": statistics.observed(backbone, statistics.detector_pictures(pictures, options, count))}
    names = {"detection": pictures.name, "pretraining": "pretraining"}
    if pretraining:
        size = backbone.preprocessing.image_size
        views = statistics.pretraining_views(pretraining.train, size, count, options.workers)
        seen["pretraining"] = statistics.observed(backbone, views)
    stages = {kind: statistics.stages(backbone, one) for kind, one in seen.items()}
    drifts = {kind: statistics.mean_drift(backbone, one) for kind, one in seen.items()}
    end = parts.trunk_end(backbone.architecture["name"])
    found = conclusion(stages, drifts, end, options.batch_size, devices())
    print(table(stages, drifts, names), file=sys.stderr)
    chosen = f"--batch_norm={found['suggestion']}: " if found["suggestion"] else ""
    print(f"{chosen}{found['reason']}", file=sys.stderr)
    if found["warning"]:
        print(f"warning: {found['warning']}", file=sys.stderr)
    return {
        "export": folder,
        "train_set": pictures.name,
        "pretrain_data": pretraining.spec if pretraining else None,
        "pictures": {kind: one.pictures for kind, one in seen.items()},
        "stages": stages,
        "norms": {kind: statistics.drifts(backbone, one) for kind, one in seen.items()},
        "drift": drifts,
        **found,
    }


def pretraining_data(folder, options):
    """Returns the pictures that the export comes from, None where they are not known."""
    from detection.pretraining_data import pretraining_set
    from la_tf import bundle

    config = bundle.read_description(folder).get("config", {})
    return pretraining_set(folder, config, flags.FLAGS["pretrain_data"].value, options.tfds_data_dir)


def devices() -> int:
    """Returns how many devices detection.train would take with these flags."""
    if flags.FLAGS["strategy"].value != "mirrored":
        return 1
    import tensorflow as tf

    return flags.FLAGS["replicas"].value or len(tf.config.list_physical_devices("GPU")) or 1


if __name__ == "__main__":
    cli.run(main)
