"""If these fail, a wrong flag is found late, without its name, or only after TensorFlow has been loaded."""

import subprocess
import sys

import pytest

from data.config import DataConfig, image_size_for, require_dataset
from data.errors import FlagError
from data.sources import open_dataset
from tests.data.pictures import write_folder


@pytest.mark.parametrize(
    "name, value",
    [
        ("image_size", 4),
        ("batch_size", 0),
        ("workers", -1),
        ("validation_fraction", 1.0),
        ("crop_min_area", 0.0),
        ("crop_min_area", 1.1),
        ("grayscale", 1.5),
        ("jitter", -0.1),
        ("jitter", float("nan")),
        ("rotation", 181.0),
        ("scale", 1.0),
        ("shift", 2.0),
        ("shear", -1.0),
        ("dataset", "hdf5:x.h5"),
    ],
)
def test_a_wrong_value_names_its_flag(name, value):
    with pytest.raises(FlagError) as error:
        DataConfig(**{name: value})
    assert str(error.value).startswith(f"--{name}={value}: ") and "\n" not in str(error.value)
    assert error.value.exit_code == 2


@pytest.mark.parametrize("spec", ["hdf5:x.h5", "folder", "folder:", "digits:3", "tfrecord:", "tfds", ""])
def test_an_unknown_spec_lists_the_forms(spec):
    with pytest.raises(FlagError) as error:
        open_dataset(spec)
    for form in ("digits", "folder:PATH", "tfrecord:GLOB", "tfds:NAME[/CONFIG][:VERSION]"):
        assert form in str(error.value)


def test_a_missing_data_set_says_how_to_give_imagenet():
    with pytest.raises(FlagError, match=r"--dataset.*folder:PATH.*train/<wnid>"):
        require_dataset(DataConfig())
    assert require_dataset(DataConfig(dataset="digits")) == "digits"


def test_image_size_follows_the_pictures(tmp_path):
    def size(folder, **config):
        return image_size_for(DataConfig(**config), open_dataset(f"folder:{folder}"))

    small = write_folder(tmp_path / "small", size=(32, 32))
    large = write_folder(tmp_path / "large", size=(80, 70))
    mixed = write_folder(tmp_path / "mixed", size=(32, 32))
    write_folder(mixed, classes=("cow",), size=(30, 32))
    assert (size(small), size(large), size(mixed)) == (32, 224, 224)
    assert size(small, image_size=48) == 48
    assert image_size_for(DataConfig(), open_dataset("digits")) == 16


def test_flags_and_listing_need_no_tensorflow(tmp_path):
    write_folder(tmp_path / "pictures")
    code = f"""
import sys
from absl import flags
from data.flags import data_config
from data.sources import open_dataset
import data.augmentation, data.manifest, data.splits
flags.FLAGS(["x", "--dataset=digits", "--image_size=24", "--noflip", "--jitter=0.2", "--workers=3"])
config = data_config()
assert (config.dataset, config.image_size, config.flip, config.jitter, config.workers) == ("digits", 24, False, .2, 3)
assert (config.batch_size, config.validation_fraction, config.rotation) == (128, 0.1, None)
assert data.augmentation.augmentation_for("digits", 24, config).jitter == 0.2
for spec in ("digits", "folder:{tmp_path / "pictures"}"):
    dataset = open_dataset(spec)
    dataset.train.common_size
    data.manifest.manifest(dataset)
    data.splits.validation_rows(dataset.train.labels, 0.1, 0)
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
