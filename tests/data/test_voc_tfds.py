"""If these fail, the boxes of a set that TFDS prepared are not those of PASCAL VOC's files."""

import shutil

import numpy as np
import pytest

from data.errors import FlagError, UserError
from data.voc import MISSING, open_set
from tests.data.voc_folders import some_pictures, write_devkit


def names(detection_set):
    return [picture.name for picture in detection_set.pictures]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, devkit_of_many):
    """A TFDS folder in which voc/2007 and voc/2012 are prepared from a devkit, by TFDS' own code but the download."""
    tfds = pytest.importorskip("tensorflow_datasets")
    from tensorflow_datasets.object_detection import voc

    with tfds.core.registered.skip_registration():

        class Voc(voc.Voc):
            __module__ = "la_prepared_voc"  # TFDS looks a dotted one up as a package's file

            def _split_generators(self, dl_manager):
                lists = {"train": "train", "validation": "val", "test": "test"}
                return {
                    split: self._generate_examples(str(devkit_of_many.parent), name) for split, name in lists.items()
                }

    folder = tmp_path_factory.mktemp("tfds")
    for year in ("2007", "2012"):
        Voc(config=year, data_dir=folder).download_and_prepare()
    return folder


@pytest.fixture(scope="module")
def devkit_of_many(tmp_path_factory):
    """A devkit with the lists that TFDS reads; pictures of odd sizes, so that nothing divides without a rest."""
    sizes, sets = {}, {}
    numbers = np.random.default_rng(3)
    for year in ("2007", "2012"):
        for seed, name in enumerate(("train", "val", "test")):
            size = tuple(int(side) for side in numbers.integers(300, 500, 2))
            made = some_pictures(4, seed, ("cat", "dog", "person"), size)
            made = {f"{year}{seed}{each}": objects for each, objects in made.items()}
            made[f"{year}{seed}"] = [("sofa", (1, 1, size[1], size[0]), True)]
            if (year, name) == ("2012", "test"):
                made = {each: [] for each in made}  # its boxes are nobody's
            sets[f"{year}_{name}"] = dict(sorted(made.items()))
            sizes |= dict.fromkeys(made, size)
    return write_devkit(tmp_path_factory.mktemp("many") / "VOCdevkit", sets, sizes)


def of_tfds(prepared, name, **options):
    return open_set("tfds:voc", name, tfds_data_dir=str(prepared), **options)


@pytest.mark.parametrize("name", ["2007_test", "2007_train", "2012_val", "2012_val+2007_test+2007_val"])
def test_a_set_of_tfds_is_that_of_the_devkit(prepared, devkit_of_many, name):
    files, records = open_set(str(devkit_of_many), name), of_tfds(prepared, name)
    assert names(records) == names(files) and records.fingerprint == files.fingerprint
    for row in range(files.size):
        assert records.read(row) == files.read(row)
        for ours, theirs in zip(records.boxes(row), files.boxes(row), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert records.pictures[row].size == files.pictures[row].size


def test_trainval_is_train_and_validation(prepared):
    both = of_tfds(prepared, "2007_trainval")
    assert names(both) == sorted(names(of_tfds(prepared, "2007_train")) + names(of_tfds(prepared, "2007_val")))


def test_the_input_pipeline_reads_the_same_records(prepared):
    import tensorflow as tf

    from data.reading import reader

    found = of_tfds(prepared, "2012_trainval+2007_test")
    locate, read = reader(found)
    handles = locate(tf.range(found.size))
    assert [read(handle).numpy() for handle in handles] == [found.read(row) for row in range(found.size)]


def test_the_test_set_of_2012_has_no_annotations(prepared):
    found = of_tfds(prepared, "2012_test")
    assert {picture.annotation_problem for picture in found.pictures} == {MISSING}
    assert {picture.image_problem for picture in found.pictures} == {""}


def test_a_damaged_record_is_remembered(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".la_tf-*"))
    whole = of_tfds(prepared, "2007_train")
    (path,) = tmp_path.glob("voc/2007/*/voc-train.tfrecord*")
    last = max(range(whole.size), key=lambda row: whole.source.position[row])
    path.write_bytes(path.read_bytes()[: whole.source.position[last] + 20])
    found = of_tfds(tmp_path, "2007_train")
    (damaged,) = (picture for picture in found.pictures if picture.annotation_problem)
    assert "was cut short" in damaged.annotation_problem and damaged.size is None
    assert damaged.image == f"{path}#{whole.source.record[last]}"
    assert {*names(found)} - {damaged.name} == {*names(whole)} - {whole.pictures[last].name}


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("objects/label", [], "0 labels have"),
        ("objects/label", [-1], "object 1 has the label -1, where they end at 19"),
        ("objects/label", [20], "object 1 has the label 20, where they end at 19"),
        ("objects/is_difficult", [], "and 0 flags"),
        ("image/filename", [], "there is no image, or no image/filename"),
        ("image/filename", [b"\xff"], "can't decode byte"),
        ("image", [b""], "is empty (0 bytes)"),
        ("image", [b"text"], "is damaged, or of a format that is not read"),
        ("image", [], "has a field image that holds no bytes"),
    ],
)
def test_a_record_of_something_else_is_remembered(prepared, tmp_path, field, values, message):
    import tensorflow as tf

    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".la_tf-*"))
    (path,) = tmp_path.glob("voc/2007/*/voc-train.tfrecord*")
    records = [tf.train.Example.FromString(each.numpy()) for each in tf.data.TFRecordDataset(str(path))]
    feature = records[1].features.feature[field]
    kept = feature.bytes_list.value if field.startswith("image") else feature.int64_list.value
    kept[:] = [*values, *kept[len(values) :]] if values and field != "image" else values
    with tf.io.TFRecordWriter(str(path)) as writer:
        for each in records:
            writer.write(each.SerializeToString())
    (problem,) = {picture.annotation_problem for picture in of_tfds(tmp_path, "2007_train").pictures} - {""}
    assert message in problem


def test_a_set_that_is_not_prepared_says_how_to(tmp_path, prepared):
    def error_of(devkit, name, kind=UserError, folder=tmp_path):
        with pytest.raises(UserError) as error:
            open_set(devkit, name, tfds_data_dir=str(folder))
        assert type(error.value) is kind and "\n" not in str(error.value)
        return str(error.value)

    message = error_of("tfds:voc", "2007_train")
    assert f"voc/2007 is not prepared in {tmp_path} (--tfds_data_dir)" in message
    assert f"tfds.builder('voc/2007', data_dir='{tmp_path}').download_and_prepare()" in message
    assert "TFDS knows no voc/2010" in error_of("tfds:voc", "2010_train")
    for devkit, name in (("tfds:coco", "2007_train"), ("tfds:voc", "train"), ("tfds:voc", "2007_validation")):
        error_of(devkit, name, FlagError)
    assert "named twice" in error_of("tfds:voc", "2007_train+2007_trainval", folder=prepared)
