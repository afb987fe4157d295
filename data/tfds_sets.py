"""`tfds:NAME[/CONFIG][:VERSION]`: an image classification set that TensorFlow Datasets has already prepared.

TFDS lists the shards and the class names; the records are then read like any others.  Nothing is downloaded: a set
that is not prepared ends in an error with the command that prepares it.
"""

import os

from data.errors import UserError
from data.records import Fields, record_split
from data.sources import DataSet

FIELDS = Fields(image="image", label="label")


def open_tfds(spec: str, name: str, data_dir: str | None) -> DataSet:
    """Lists the train split and the test (else validation) split; raises UserError saying how to prepare the set."""
    import tensorflow_datasets as tfds

    data_dir = os.path.expanduser(data_dir or os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR)
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # TFDS has a dozen error types of its own for a name, config or version that is wrong
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--dataset={spec}: TFDS finds no such data set in {data_dir} ({reason})") from error
    if not builder.is_prepared():
        raise UserError(_how_to_prepare(spec, name, data_dir))
    splits = builder.info.splits
    if "train" not in splits:
        raise UserError(f"--dataset={spec}: it has no train split, only {', '.join(splits)}")
    test = next((split for split in ("test", "validation") if split in splits), None)
    features = builder.info.features
    names = getattr(features["label"], "names", None) if "label" in features else None
    train_split = _split(spec, "train", splits["train"])
    return DataSet(spec, tuple(names or ()), train_split, test and _split(spec, "test", splits[test]))


def _split(spec, name, info):
    shards = [str(path) for path in info.filepaths]
    if any("tfrecord" not in os.path.basename(path) for path in shards):
        raise UserError(f"{shards[0]}: not a TFRecord file; prepare the set with --file_format=tfrecord")
    return record_split(spec, name, shards, FIELDS)


def _how_to_prepare(spec, name, data_dir):
    # Not the `tfds build` program: it does not start without Apache Beam.
    builder = f"tfds.builder('{name}', data_dir='{data_dir}')"
    command = f'python -c "import tensorflow_datasets as tfds; {builder}.download_and_prepare()"'
    first = ""
    if name.split("/")[0].split(":")[0] == "imagenet2012":
        manual = os.path.join(data_dir, "downloads", "manual")
        first = f"put ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar into {manual}, then "
    return f"--dataset={spec}: not prepared in {data_dir} (--tfds_data_dir); {first}run once: {command}"
