"""Whatever a user can get wrong ends in one line that names it, and a non-zero exit code."""

import numpy as np
import pytest
from PIL import Image

from tests.programs import run


def picture(path, size=(20, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(256, size=(*size, 3), dtype=np.uint8)).save(path)


def missing_folder(tmp):
    return [f"--dataset=folder:{tmp}/nowhere"], 1, "nowhere"


def empty_folder(tmp):
    (tmp / "hollow").mkdir()
    return [f"--dataset=folder:{tmp}/hollow"], 1, "hollow"


def no_images_in_it(tmp):
    (tmp / "notes").mkdir()
    (tmp / "notes" / "readme.md").write_text("words")
    return [f"--dataset=folder:{tmp}/notes"], 1, "notes"


def text_named_jpg(tmp):
    for i in range(12):
        picture(tmp / "set" / "train" / "cats" / f"{i}.png")
    (tmp / "set" / "train" / "cats" / "letter.jpg").write_text("dear reader, I am no picture")
    return [f"--dataset=folder:{tmp}/set", "--batch_size=13"], 1, "letter.jpg"


def large_text_named_jpg(tmp):
    for i in range(12):
        picture(tmp / "set" / "train" / "cats" / f"{i}.png", (90, 80))
    (tmp / "set" / "train" / "cats" / "letter.jpg").write_text("dear reader, I am no picture")
    return [f"--dataset=folder:{tmp}/set", "--batch_size=13", "--image_size=80"], 1, "letter.jpg"


def class_without_images(tmp):
    picture(tmp / "set" / "train" / "cats" / "0.png")
    (tmp / "set" / "train" / "unicorns").mkdir()
    return [f"--dataset=folder:{tmp}/set"], 1, "unicorns"


def records_without_fields(tmp):
    import tensorflow as tf

    example = tf.train.Example()
    example.features.feature["caption"].bytes_list.value.append(b"no picture in here")
    with tf.io.TFRecordWriter(str(tmp / "train-0.tfrecord")) as writer:
        writer.write(example.SerializeToString())
    return [f"--dataset=tfrecord:{tmp}/train-*.tfrecord"], 1, "train-0.tfrecord"


def unknown_spec(tmp):
    return ["--dataset=hdf5:pictures.h5"], 2, "--dataset=hdf5:pictures.h5"


def unknown_flag(tmp):
    return ["--dataset=digits", "--temperature=0.1"], 2, "temperature"


def missing_flagfile(tmp):
    return [f"--flagfile={tmp}/mine.flags"], 2, "mine.flags"


def batch_larger_than_the_data(tmp):
    return ["--dataset=digits", "--batch_size=2000"], 2, "--batch_size=2000"


def bad_number(tmp):
    return ["--dataset=digits", "--tau=-1"], 2, "--tau=-1"


def no_data_set(tmp):
    return ["--flagfile=resnet50.flags"], 2, "--dataset"


def foreign_model_dir(tmp):
    (tmp / "run").mkdir()
    (tmp / "run" / "thesis.tex").write_text("precious")
    return ["--dataset=digits"], 1, str(tmp / "run")


CASES = [
    missing_folder, empty_folder, no_images_in_it, text_named_jpg, large_text_named_jpg, class_without_images,
    records_without_fields, unknown_spec, unknown_flag, missing_flagfile, batch_larger_than_the_data, bad_number,
    no_data_set, foreign_model_dir,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_one_line_names_the_culprit(case, tmp_path):
    flags, code, culprit = case(tmp_path)
    small = ["--backbone=resnet10", "--width=4", "--epochs=1", "--warmup_epochs=1", "--clusters=2", "--background_k=2"]
    process = run("la_tf.train", f"--model_dir={tmp_path}/run", *small, *flags)
    assert process.returncode == code, process.stderr
    assert "Traceback" not in process.stderr
    errors = [line for line in process.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and culprit in errors[0], process.stderr


def test_resnet50_alone_says_how_imagenet_is_to_be_given():
    process = run("la_tf.train", "--flagfile=resnet50.flags")
    assert process.returncode == 2
    (line,) = process.stderr.strip().splitlines()
    assert "--dataset" in line and "folder:" in line and "train/<wnid>" in line
