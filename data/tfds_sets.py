"""`tfds:NAME[/CONFIG][:VERSION]`: an image classification set that TensorFlow Datasets has already prepared.

TFDS lists the shards and the class names; the records are then read like any others, in the set's own order.
Nothing is downloaded: a set that is not prepared ends in an error with the command that prepares it.
"""

import os
import re

from data.errors import FlagError, UserError
from data.records import record_split
from data.sources import DataSet

TEST_SPLITS = ("test", "validation")


def open_tfds(spec: str, name: str, data_dir: str | None, train_split: str = "train") -> DataSet:
    """Lists the splits to train on ("train+unlabelled": one after the other) and the test split, which is "test" or
    else "validation", the first of them that has labels.

    Raises UserError saying how to prepare the set, and FlagError naming the splits that there are.
    """
    import tensorflow_datasets as tfds

    setting = "--tfds_data_dir" if data_dir else "the environment variable TFDS_DATA_DIR"  # not all mains have the flag
    data_dir = os.path.expanduser(data_dir or os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR)
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # TFDS has a dozen error types of its own for a name, config or version that is wrong
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--dataset={spec}: TFDS finds no such data set in {data_dir} ({reason})") from error
    if not builder.is_prepared():
        raise UserError(_how_to_prepare(spec, name, data_dir, setting, builder))
    splits = {split: info for split, info in builder.info.splits.items() if info.num_examples}
    parts = _parts(spec, train_split, splits)
    features = builder.info.features
    names = tuple(getattr(features["label"], "names", None) or ()) if "label" in features else ()
    tests = {split: _split(spec, "test", [splits[split]], len(names)) for split in TEST_SPLITS if split in splits}
    labelled = [split for split in tests if tests[split].labels.max() >= 0]
    test = next(iter([*labelled, *tests]), None)
    refused = next((part for part in parts if part in ("test", test)), None)
    if refused:
        raise FlagError(f"--tfds_split={train_split}: {refused} is the test split, which is not trained on")
    train = _split(spec, "train", [splits[part] for part in parts], len(names))
    return DataSet(spec, names, train, tests.get(test))


def _parts(spec, train_split, splits):
    """The names in "train+unlabelled"."""
    parts = [part.strip() for part in train_split.split("+")]
    for part in parts:
        if part not in splits:
            raise FlagError(
                f"--tfds_split={train_split}: {spec} has no split {part!r}, only {', '.join(sorted(splits))}"
            )
        if parts.count(part) > 1:
            raise FlagError(f"--tfds_split={train_split}: {part} is named twice")
    return parts


def _split(spec, name, infos, classes):
    """The records of some of the set's splits, one after the other."""
    counts = {}
    for info in infos:
        counts |= dict(zip(map(str, info.filepaths), info.shard_lengths, strict=True))
    strange = next((path for path in counts if "tfrecord" not in os.path.basename(path)), None)
    if strange:
        raise UserError(f"{strange}: not a TFRecord file; prepare the set with --file_format=tfrecord")
    return record_split(spec, name, list(counts), counts, classes)


def _how_to_prepare(spec, name, data_dir, setting, builder):
    # Not the `tfds build` program: it does not start without Apache Beam.
    command = f"tfds.builder('{name}', data_dir='{data_dir}').download_and_prepare()"
    command = f'python -c "import tensorflow_datasets as tfds; {command}"'
    first = ""
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        archives = " and ".join(dict.fromkeys(re.findall(r"\w[\w.-]*\.(?:tar|tgz|zip|gz)\b", instructions)))
        # Where download_and_prepare looks for them, without a DownloadConfig that says otherwise.
        manual = builder.data_dir_root / "downloads" / "manual"
        first = f"put {archives or f'what it asks for ({instructions})'} into {manual}, then "
    return f"--dataset={spec}: not prepared in {data_dir} ({setting}); {first}run once: {command}"
