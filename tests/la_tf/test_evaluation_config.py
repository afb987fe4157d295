"""What an evaluation can be asked for, and which flag an impossible wish is laid at."""

import json

import pytest

from data.config import DataConfig
from data.errors import FlagError
from la_tf.evaluation_config import EvaluationConfig, FinetuneConfig, KnnConfig, LinearConfig, SubjectConfig

RUN = SubjectConfig(model_dir="runs/a")


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (SubjectConfig, {}, "--model_dir, --export, --keras_model, --saved_model: give one of them, not none"),
        (SubjectConfig, {"model_dir": "a", "export": "b"}, "not --model_dir and --export"),
        (SubjectConfig, {"export": "b", "step": 3}, "--step=3: names a checkpoint"),
        (SubjectConfig, {"keras_model": "b", "endpoints": ("x",)}, "--input_pixels: say what pixels"),
        (SubjectConfig, {"keras_model": "b", "input_pixels": "unit"}, "--endpoints: name what is to be read out"),
        (SubjectConfig, {"export": "b", "input_pixels": "unit"}, "--input_pixels=unit: --export knows its own"),
        (
            SubjectConfig,
            {"saved_model": "b", "input_pixels": "0..1", "endpoints": ("x",)},
            "--input_pixels=0..1: choose",
        ),
        (SubjectConfig, {"model_dir": "a", "signature": "x"}, "--signature=x: only a --saved_model has signatures"),
        (KnnConfig, {"neighbors": 0}, "--neighbors=0: must be at least 1"),
        (KnnConfig, {"tau": 0.0}, "--tau=0.0: must be above 0"),
        (KnnConfig, {"bank": "old"}, "--bank=old: choose one of saved, fresh"),
        (LinearConfig, {"pooling": "max"}, "--pooling=max: choose one of 9k, authors, global"),
        (LinearConfig, {"crops": "none"}, "--crops=none: choose one of area, patch"),
        (LinearConfig, {"patience": 0}, "--patience=0: must be at least 1"),
        (LinearConfig, {"momentum": 1.0}, "--momentum=1.0: must be at least 0 and below 1"),
        (LinearConfig, {"fast": True, "weight_decay": 0.0}, "--weight_decay=0: with --fast"),
        (LinearConfig, {"fast": True, "select_on": "test"}, "--select_on=test: with --fast nothing is selected"),
        (FinetuneConfig, {"percent": ()}, "--percent=: give percents"),
        (FinetuneConfig, {"percent": (10, 120)}, "--percent=10,120: give percents"),
        (FinetuneConfig, {"scratch_learning_rate": 0.0}, "--scratch_learning_rate=0.0: must be above 0"),
        (FinetuneConfig, {"seed": -1}, "--seed=-1: must be at least 0"),
    ],
)
def test_what_cannot_be_is_laid_at_the_flag(kind, arguments, message):
    with pytest.raises(FlagError) as caught:
        kind(**arguments)
    assert message in str(caught.value)


def test_what_cannot_be_together_is_laid_at_the_flag():
    export = SubjectConfig(export="b")
    with pytest.raises(FlagError, match=r"^--out: name the folder"):
        EvaluationConfig(export, KnnConfig(), DataConfig(dataset="digits"))
    with pytest.raises(FlagError, match=r"^--dataset is not set"):
        EvaluationConfig(export, KnnConfig(), DataConfig(), out="o")
    with pytest.raises(FlagError, match=r"^--select_on=test: with --split=validation"):
        EvaluationConfig(RUN, LinearConfig(select_on="test"), DataConfig(), split="validation")
    with pytest.raises(FlagError, match=r"^--endpoints: --protocol=knn takes the last one"):
        EvaluationConfig(SubjectConfig(model_dir="a", endpoints=("conv2",)), KnnConfig(), DataConfig())
    with pytest.raises(FlagError, match=r"^--split=train: choose one of test, validation"):
        EvaluationConfig(RUN, KnnConfig(), DataConfig(), split="train")


def test_settings_are_what_the_protocol_reads():
    data = DataConfig(batch_size=64, validation_fraction=0.2)
    assert EvaluationConfig(RUN, KnnConfig(), data).settings() == {"neighbors": 200, "tau": 0.07, "bank": None}
    linear = EvaluationConfig(RUN, LinearConfig(), data)
    assert linear.name == "linear"
    assert linear.settings() == {
        "pooling": "9k", "ten_crop": False, "fast": False, "crops": None, "epochs": 90, "learning_rate": 0.01,
        "momentum": 0.9, "weight_decay": 1e-4, "patience": 10, "select_on": "validation", "seed": 0, "batch_size": 64,
        "validation_fraction": 0.2,
    }  # fmt: skip
    fast = EvaluationConfig(RUN, LinearConfig(fast=True, learning_rate=0.5), data).settings()
    assert set(fast) == {"pooling", "ten_crop", "fast", "weight_decay", "seed", "validation_fraction"}
    assert EvaluationConfig(RUN, KnnConfig(), data, split="validation").settings()["validation_fraction"] == 0.2
    finetune = EvaluationConfig(RUN, FinetuneConfig(), data).settings()
    given = EvaluationConfig(RUN, FinetuneConfig(percent=(1.0, 2.0, 4.0, 10.0, 20.0, 100.0)), data)
    assert json.dumps(given.settings()) == json.dumps(finetune), "as flags give it"
    assert finetune["percent"] == [1, 2, 4, 10, 20, 100] and finetune["batch_size"] == 64
