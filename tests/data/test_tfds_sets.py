"""If these fail, TFDS data sets are not read, or a user is not told how to prepare one."""

import importlib.util
import re
import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from data.errors import FlagError, UserError
from data.sources import open_dataset
from tests.data.pictures import smooth

tfds = pytest.importorskip("tensorflow_datasets")


class LaTinyPictures(tfds.core.GeneratorBasedBuilder):
    """Pictures of two classes and some that nobody labelled, prepared without a network."""

    __module__ = "la_tiny_pictures"  # TFDS looks a dotted one up as a package's file
    VERSION = tfds.core.Version("1.0.0")
    SPLITS: ClassVar = {"train": 5, "test": 2, "unlabelled": 3}  # pictures
    UNLABELLED: ClassVar = {"unlabelled"}

    def _info(self):
        image, label = tfds.features.Image(shape=(20, 24, 3)), tfds.features.ClassLabel(names=["ant", "bee"])
        features = tfds.features.FeaturesDict({"image": image, "label": label})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(name, count) for name, count in self.SPLITS.items()}

    def _generate_examples(self, name, count):
        for i in range(count):
            label = -1 if name in self.UNLABELLED else i % 2
            yield i, {"image": smooth(100 * len(name) + i, 20, 24), "label": label}


class LaTinyHiddenTest(LaTinyPictures):
    """Laid out like ImageNet with its test archive: the labels of the test split are nobody's."""

    __module__ = "la_tiny_hidden_test"
    SPLITS: ClassVar = {"train": 2, "validation": 3, "test": 2}
    UNLABELLED: ClassVar = {"test"}


class LaTinyManual(LaTinyPictures):
    """A set whose archives the user has to bring."""

    __module__ = "la_tiny_manual"
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    manual_dir should contain two files: first_part.tar and
    second-part.tar.gz. You need to register on https://example.org/download.
    """

    def _split_generators(self, dl_manager):
        assert {path.name for path in dl_manager.manual_dir.iterdir()} == {"first_part.tar", "second-part.tar.gz"}
        return super()._split_generators(dl_manager)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    LaTinyPictures(data_dir=folder).download_and_prepare()
    LaTinyHiddenTest(data_dir=folder).download_and_prepare()
    return folder


def opened(spec, data_dir, **options):
    return open_dataset(spec, tfds_data_dir=str(data_dir), **options)


def entries(data_dir, *splits, builder=LaTinyPictures):
    """What TFDS itself reads, one split after the other."""
    made = builder(data_dir=data_dir)
    return [entry for split in splits for entry in made.as_dataset(split=split).as_numpy_iterator()]


@pytest.mark.parametrize("version", ["", ":1.0.0"])
def test_a_prepared_set_is_read_in_its_own_order(data_dir, version):
    from data.pipeline import evaluation_batches

    dataset = opened(f"tfds:la_tiny_pictures{version}", data_dir)
    assert dataset.class_names == ("ant", "bee")
    assert (dataset.train.size, dataset.test.size) == (5, 2)
    plain = entries(data_dir, "train")
    assert dataset.train.labels.tolist() == [int(entry["label"]) for entry in plain]
    assert dataset.train.common_size == (20, 24)
    (batch,) = evaluation_batches(dataset.train, 20, 5)
    expected = np.stack([entry["image"][:, 2:22] for entry in plain]) / 255  # the central square
    np.testing.assert_allclose(batch["image"], expected, atol=1e-6)


@pytest.mark.parametrize("parts", [["unlabelled"], ["train", "unlabelled"], ["unlabelled", "train"]])
def test_several_splits_are_trained_on_one_after_the_other(data_dir, parts):
    from data.pipeline import evaluation_batches

    dataset = opened("tfds:la_tiny_pictures", data_dir, tfds_split="+".join(parts))
    plain = entries(data_dir, *parts)
    assert dataset.train.labels.tolist() == [int(entry["label"]) for entry in plain]
    assert dataset.train.size == sum(LaTinyPictures.SPLITS[part] for part in parts)
    (batch,) = evaluation_batches(dataset.train, 20, 8)
    expected = np.stack([entry["image"][:, 2:22] for entry in plain]) / 255
    np.testing.assert_allclose(batch["image"], expected, atol=1e-6)
    assert (dataset.test.size, dataset.class_names) == (2, ("ant", "bee"))


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("trian", "no split 'trian', only test, train, unlabelled"),
        ("train[:10%]", "no split 'train[:10%]'"),
        ("train+", "no split ''"),
        ("train+train", "train is named twice"),
        ("train+test", "test is the test split, which is not trained on"),
    ],
)
def test_a_split_that_cannot_be_trained_on_is_refused(data_dir, split, message):
    with pytest.raises(FlagError) as error:
        opened("tfds:la_tiny_pictures", data_dir, tfds_split=split)
    assert str(error.value).startswith(f"--tfds_split={split}: ") and message in str(error.value)


def test_a_label_that_no_class_name_belongs_to_is_damage(data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".la_tf-*"))
    (path,) = tmp_path.glob("la_tiny_pictures/1.0.0/*-train.tfrecord*")
    data = bytearray(path.read_bytes())
    data[data.index(b"label") + len(b"label") + 6] ^= 64  # Feature, Int64List and packed integers have 2 bytes before
    path.write_bytes(data)
    dataset = opened("tfds:la_tiny_pictures", tmp_path)
    assert dataset.class_count == 2 and sorted(dataset.train.labels) in ([-1, 0, 0, 0, 1], [-1, 0, 0, 1, 1])
    (problem,) = dataset.train.source.problems.values()
    assert "where they count from 0 to 1" in problem


def test_a_test_split_without_labels_gives_way_to_the_validation_split(data_dir):
    dataset = opened("tfds:la_tiny_hidden_test", data_dir)
    assert dataset.test.labels.tolist() == [
        int(entry["label"]) for entry in entries(data_dir, "validation", builder=LaTinyHiddenTest)
    ]
    for split, refused in (("validation",) * 2, ("train+validation", "validation"), ("test",) * 2):
        with pytest.raises(FlagError, match=f": {refused} is the test split"):
            opened("tfds:la_tiny_hidden_test", data_dir, tfds_split=split)


def test_damage_keeps_the_rows(data_dir, tmp_path):
    """TFDS knows how many records a shard holds."""
    shutil.copytree(data_dir, tmp_path / "set")
    before = opened("tfds:la_tiny_pictures", data_dir).train
    (shard,) = (tmp_path / "set").rglob("la_tiny_pictures-train.tfrecord*")
    shard.write_bytes(shard.read_bytes()[: before.source.position[3] + 20])
    for index in shard.parent.glob(".la_tf-*"):
        index.unlink()
    after = opened("tfds:la_tiny_pictures", tmp_path / "set").train
    assert after.labels.tolist() == [*before.labels[:3], -1, -1] and list(after.source.problems) == [3, 4]


def test_the_data_dir_may_come_from_the_environment(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert open_dataset("tfds:la_tiny_pictures").train.size == 5


def error_of(spec, data_dir):
    with pytest.raises(UserError) as error:
        opened(spec, data_dir)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_set_that_is_not_prepared_says_how_to(tmp_path):
    message = error_of("tfds:mnist", tmp_path)
    assert f"tfds.builder('mnist', data_dir='{tmp_path}').download_and_prepare()" in message
    assert f"not prepared in {tmp_path} (--tfds_data_dir)" in message


def test_without_the_flag_the_variable_is_named(tmp_path, monkeypatch):
    """Not every main has the flag."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError) as error:
        open_dataset("tfds:mnist")
    assert f"not prepared in {tmp_path} (the environment variable TFDS_DATA_DIR)" in str(error.value)
    assert "--tfds_data_dir" not in str(error.value)


def test_sets_can_be_prepared_in_this_environment():
    # tensorflow-datasets 4.9.10 imports it while preparing any set, but declares it for Python < 3.9 only.
    assert importlib.util.find_spec("importlib_resources"), "add importlib_resources to the requirements"


def test_imagenet_says_where_the_archives_go(tmp_path):
    message = error_of("tfds:imagenet2012:5.1.0", tmp_path)
    archives = "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar"
    assert f"put {archives} into {tmp_path}/downloads/manual, then run once: " in message


def test_archives_are_found_where_the_message_says(tmp_path):
    message = error_of("tfds:la_tiny_manual", tmp_path)
    archives, manual = re.search(r"put (\S+ and \S+) into (\S+), then run once: ", message).groups()
    Path(manual).mkdir(parents=True)
    for archive in archives.split(" and "):
        (Path(manual) / archive).touch()
    command = message.partition("as tfds; ")[2].rstrip('"')
    exec(command, {"tfds": tfds})
    assert opened("tfds:la_tiny_manual", tmp_path).train.size == 5


@pytest.mark.parametrize("name", ["no_such_set_anywhere", "mnist:77.0.0", "mnist/no_such_config"])
def test_an_unknown_set_version_or_config_is_named(tmp_path, name):
    assert f"--dataset=tfds:{name}" in error_of(f"tfds:{name}", tmp_path)
