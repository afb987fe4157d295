"""If these fail, TFDS data sets are not read, or a user is not told how to prepare one."""

import importlib.util

import numpy as np
import pytest

from data.errors import UserError
from data.sources import open_dataset
from tests.data.pictures import smooth

tfds = pytest.importorskip("tensorflow_datasets")


class LaTinyPictures(tfds.core.GeneratorBasedBuilder):
    """Five pictures of two classes, prepared without a network."""

    __module__ = "la_tiny_pictures"  # TFDS looks a dotted one up as a package's file
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image, label = tfds.features.Image(shape=(20, 24, 3)), tfds.features.ClassLabel(names=["ant", "bee"])
        features = tfds.features.FeaturesDict({"image": image, "label": label})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(5, 0), "test": self._generate_examples(2, 50)}

    def _generate_examples(self, count, first):
        for i in range(count):
            yield i, {"image": smooth(first + i, 20, 24), "label": i % 2}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    LaTinyPictures(data_dir=folder).download_and_prepare()
    return folder


@pytest.mark.parametrize("version", ["", ":1.0.0"])
def test_a_prepared_set_is_read_in_its_own_order(data_dir, version):
    from data.pipeline import evaluation_batches

    dataset = open_dataset(f"tfds:la_tiny_pictures{version}", str(data_dir))
    assert dataset.class_names == ("ant", "bee")
    assert (dataset.train.size, dataset.test.size) == (5, 2)
    plain = list(LaTinyPictures(data_dir=data_dir).as_dataset(split="train").as_numpy_iterator())
    assert dataset.train.labels.tolist() == [int(entry["label"]) for entry in plain]
    assert dataset.train.common_size == (20, 24)
    (batch,) = evaluation_batches(dataset.train, 20, 5)
    expected = np.stack([entry["image"][:, 2:22] for entry in plain]) / 255  # the central square
    np.testing.assert_allclose(batch["image"], expected, atol=1e-6)


def test_the_data_dir_may_come_from_the_environment(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert open_dataset("tfds:la_tiny_pictures").train.size == 5


def error_of(spec, data_dir):
    with pytest.raises(UserError) as error:
        open_dataset(spec, str(data_dir))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_set_that_is_not_prepared_says_how_to(tmp_path):
    message = error_of("tfds:mnist", tmp_path)
    assert f"tfds.builder('mnist', data_dir='{tmp_path}').download_and_prepare()" in message


def test_sets_can_be_prepared_in_this_environment():
    # tensorflow-datasets 4.9.10 imports it while preparing any set, but declares it for Python < 3.9 only.
    assert importlib.util.find_spec("importlib_resources"), "add importlib_resources to the requirements"


def test_imagenet_says_where_the_archives_go(tmp_path):
    message = error_of("tfds:imagenet2012:5.1.0", tmp_path)
    assert f"{tmp_path}/downloads/manual" in message and "ILSVRC2012_img_train.tar" in message


@pytest.mark.parametrize("name", ["no_such_set_anywhere", "mnist:77.0.0", "mnist/no_such_config"])
def test_an_unknown_set_version_or_config_is_named(tmp_path, name):
    assert f"--dataset=tfds:{name}" in error_of(f"tfds:{name}", tmp_path)
