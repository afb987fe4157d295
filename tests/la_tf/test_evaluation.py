"""Judging a run: against brute force in float64, on whose pictures and labels, and how often the test split is read."""

import csv
import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from data import pipeline
from data.config import DataConfig
from data.errors import FlagError, UserError
from la_tf import checkpoints, results
from la_tf.evaluation import Evaluation
from la_tf.evaluation_config import (
    INPUT_PIXELS,
    EvaluationConfig,
    FinetuneConfig,
    KnnConfig,
    LinearConfig,
    SubjectConfig,
)
from la_tf.foreign import PIXELS
from la_tf.model_dir import MetricsFile
from la_tf.outcomes import unpacked
from la_tf.protocols import PROTOCOLS
from tests.data.pictures import write_folder
from tests.la_tf.test_pairs import experiment_of, trained


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of four steps on the digits: its folder, its export, and the model in memory."""
    experiment = experiment_of(
        tmp_path_factory.mktemp("runs") / "tiny", "la", "resnet18", "--exporters=final", "--image_size=8"
    )
    estimator, *_, (export,) = trained(experiment)
    return experiment.config.run.model_dir, export, estimator.model


@pytest.fixture
def judged(run, tmp_path):
    """A function that judges the run: the protocol's config, and whatever is to be otherwise -> Evaluation, results."""

    def judge(protocol, dataset=None, split="test", subject=None, **data):
        config = EvaluationConfig(
            subject=subject or SubjectConfig(model_dir=run[0]),
            protocol=protocol,
            data=DataConfig(dataset=dataset, **data),
            split=split,
            out=str(tmp_path / "out"),
        )
        evaluation = Evaluation(config)
        return evaluation, PROTOCOLS[evaluation.config.name](evaluation)

    return judge


@pytest.fixture
def reads(monkeypatch):
    """How often central views of each split were asked for, by its name."""
    counted, real = {"train": 0, "test": 0}, pipeline.evaluation_batches

    def counting(split, *arguments, **named):
        counted[split.name] += 1
        return real(split, *arguments, **named)

    monkeypatch.setattr(pipeline, "evaluation_batches", counting)
    return counted


def pictures_of(split, size=8):
    (batch,) = pipeline.evaluation_batches(split, size, split.size)
    return batch["image"], batch["label"].numpy()


def shares_right(similarity, labels, truth, neighbors, tau):
    """Top-1 and top-5 of the weighted votes in float64; rows labelled -1 are mute."""
    first = five = 0
    for row, label in zip(similarity, truth, strict=True):
        nearest = [j for j in np.argsort(-row, kind="stable") if labels[j] >= 0][:neighbors]
        votes = np.zeros(10)
        np.add.at(votes, labels[nearest], np.exp((row[nearest] - row[nearest[0]]) / tau))
        ranked = np.argsort(-votes, kind="stable")
        first, five = first + (ranked[0] == label), five + (label in ranked[:5])
    return first / len(truth), five / len(truth)


def embedded(model, images):
    return model.embedder(images, training=False).numpy().astype(np.float64)


@pytest.mark.parametrize("bank", ["saved", "fresh"])
def test_knn_is_that_of_brute_force_against_the_saved_bank_or_fresh_embeddings(run, judged, bank):
    evaluation, found = judged(KnnConfig(neighbors=30, tau=0.1, bank=bank))
    images, truth = pictures_of(evaluation.test)
    train_images, labels = pictures_of(evaluation.train)
    if bank == "saved":
        with checkpoints.read_arrays(checkpoints.latest(run[0])) as arrays:
            rows, written = arrays["memory_bank/rows"].astype(np.float64), arrays["memory_bank/written"]
        labels = np.where(written, labels, -1)
        assert found["bank_rows"] == written.sum() < len(labels)
    else:
        rows = embedded(run[2], train_images)
        assert found["bank_rows"] == len(labels)
    first, five = shares_right(embedded(run[2], images) @ rows.T, labels, truth, 30, 0.1)
    assert (found["top1"], found["top5"]) == (pytest.approx(first, abs=0.006), pytest.approx(five, abs=0.006))
    assert sum(entry["images"] for entry in found["per_class"].values()) == evaluation.test.size
    with open(evaluation.folder / "predictions.csv", newline="", encoding="utf-8") as file:
        lines = [*csv.DictReader(file)]
    assert len(lines) == evaluation.test.size
    by_index = {int(line["index"]): line["truth"] == line["predicted"] for line in lines}
    assert unpacked(found["right"], evaluation.test.size).tolist() == [by_index[i] for i in range(len(lines))]
    assert np.mean([*by_index.values()]) == pytest.approx(found["top1"])


def test_on_the_validation_slice_its_own_rows_have_no_vote_and_the_test_split_is_not_read(run, judged, reads):
    evaluation, found = judged(KnnConfig(neighbors=30, bank="saved"), split="validation")
    assert reads == {"train": 1, "test": 0}
    rows = evaluation.validation_rows
    images, labels = pictures_of(evaluation.train)
    with checkpoints.read_arrays(checkpoints.latest(run[0])) as arrays:
        bank, written = arrays["memory_bank/rows"].astype(np.float64), arrays["memory_bank/written"]
    heard = np.where(written, labels, -1)
    heard[rows] = -1
    similarity = embedded(run[2], tf.gather(images, rows)) @ bank.T
    assert found["top1"] == pytest.approx(shares_right(similarity, heard, labels[rows], 30, 0.07)[0], abs=0.01)
    assert len(rows) == pytest.approx(144, abs=5) and evaluation.own is True


def test_an_export_is_judged_as_the_run_that_it_came_from(run, judged):
    _, of_run = judged(KnnConfig(bank="fresh"))
    evaluation, of_export = judged(KnnConfig(), "digits", subject=SubjectConfig(export=str(run[1])))
    assert evaluation.own is True and evaluation.bank == "fresh" and evaluation.subject.facts["method"] == "la"
    assert of_export["top1"] == pytest.approx(of_run["top1"], abs=0.003)


def test_a_saved_bank_is_refused_on_other_pictures_with_both_sides_named(judged, tmp_path):
    write_folder(tmp_path / "other" / "train", count=6)
    write_folder(tmp_path / "other" / "test", count=2)
    dataset = f"folder:{tmp_path / 'other'}"
    with pytest.raises(FlagError, match=r"^--bank=saved: its 1437 rows .*\(digits\), not the 12 of .*other"):
        judged(KnnConfig(bank="saved"), dataset)
    evaluation, _ = judged(KnnConfig(neighbors=3), dataset)
    assert (evaluation.bank, evaluation.own) == ("fresh", False)


def test_a_fresh_bank_alone_is_to_be_had_from_an_export(run, judged):
    with pytest.raises(FlagError, match=r"^--bank=saved: only a run"):
        judged(KnnConfig(bank="saved"), "digits", subject=SubjectConfig(export=str(run[1])))


def test_a_run_whose_pictures_have_changed_is_refused_with_both_sides_named(tmp_path):
    write_folder(tmp_path / "set" / "train", count=300, size=(8, 8))
    write_folder(tmp_path / "set" / "test", count=2, size=(8, 8))
    experiment = experiment_of(
        tmp_path / "run", "random", "resnet18", f"--dataset=folder:{tmp_path / 'set'}", "--image_size=8"
    )
    trained(experiment)
    config = EvaluationConfig(SubjectConfig(model_dir=str(tmp_path / "run")), KnnConfig(), DataConfig())
    assert Evaluation(config).own is True
    write_folder(tmp_path / "set" / "train", count=301, size=(8, 8))
    with pytest.raises(UserError, match=r"was trained on other pictures .*\(600 with hash .* there, 602 with"):
        _ = Evaluation(config).subject


def test_a_class_that_only_the_test_split_has_is_named(tmp_path, run):
    write_folder(tmp_path / "set" / "train", count=3, classes=("ant", "bee"))
    write_folder(tmp_path / "set" / "test", count=3, classes=("ant", "bee", "cow"))
    config = EvaluationConfig(
        SubjectConfig(model_dir=run[0]), KnnConfig(), DataConfig(dataset=f"folder:{tmp_path / 'set'}")
    )
    with pytest.raises(UserError, match=r"cow"):
        Evaluation(config)


def test_a_set_without_labels_or_without_a_test_split_says_what_to_do(tmp_path, run):
    write_folder(tmp_path / "set" / "train", count=3)
    subject, data = SubjectConfig(model_dir=run[0]), DataConfig(dataset=f"folder:{tmp_path / 'set'}")
    with pytest.raises(UserError, match=r"no test split with labels; take --split=validation"):
        Evaluation(EvaluationConfig(subject, KnnConfig(), data))
    assert Evaluation(EvaluationConfig(subject, KnnConfig(), data, split="validation")).scored_size == 2


LINEAR = LinearConfig(epochs=3, learning_rate=0.1)


def test_linear_readouts_read_the_test_split_once_and_keep_clear_of_the_validation_slice(judged, reads):
    evaluation, found = judged(LINEAR)
    assert reads == {"train": 3 + 1, "test": 1}, "three looks at the slice, its last score, and the test split"
    assert list(found) == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    assert all(scores["epochs"] == 3 and 0 <= scores["top1"] <= scores["top5"] <= 1 for scores in found.values())
    assert found["conv3"]["top1"] > 0.4
    learned = evaluation.labelled_rows()
    assert not set(learned) & set(evaluation.validation_rows)
    assert len(learned) + len(evaluation.validation_rows) == evaluation.train.size
    assert evaluation.selected_on == "validation" and evaluation.record["selected_on"] == "validation"
    assert [line["epoch"] for line in MetricsFile(evaluation.folder).read()][-1] == 2
    with checkpoints.read_arrays(checkpoints.latest(evaluation.folder)) as arrays:
        assert not [name for name in arrays.files if "conv1_conv" in name], "the trunk is not in the checkpoint"


def test_what_selects_on_the_test_split_says_so(judged, reads):
    evaluation, _ = judged(dataclasses.replace(LINEAR, epochs=2, select_on="test"))
    assert evaluation.record["selected_on"] == "test" and reads["test"] == 2 + 1


def test_fast_readouts_select_nothing_and_name_the_endpoints_asked_for(run, judged, reads):
    subject = SubjectConfig(model_dir=run[0], endpoints=("conv5", "conv2"))
    evaluation, found = judged(LinearConfig(fast=True), subject=subject)
    assert list(found) == ["conv5", "conv2"] and reads["test"] == 1 and evaluation.selected_on == "nothing"
    with pytest.raises(FlagError, match=r"^--endpoints=conv9: no such endpoint; there are conv1, conv2"):
        judged(LinearConfig(fast=True), subject=SubjectConfig(model_dir=run[0], endpoints=("conv9",)))


def test_a_run_and_its_export_have_the_same_slice_whatever_the_seed_of_the_readouts(run, tmp_path):
    slices = []
    for subject in (SubjectConfig(model_dir=run[0]), SubjectConfig(export=str(run[1]))):
        for seed in (0, 5):
            config = EvaluationConfig(subject, LinearConfig(seed=seed), DataConfig(dataset="digits"), out=str(tmp_path))
            slices.append(Evaluation(config).validation_rows.tolist())
    assert slices[0] == slices[1] == slices[2] == slices[3]


def test_pictures_that_the_network_cannot_take_are_refused_in_a_line(judged, tmp_path):
    experiment = experiment_of(tmp_path / "vgg", "random", "vgg16")
    trained(experiment)
    subject = SubjectConfig(model_dir=str(tmp_path / "vgg"))
    with pytest.raises(FlagError, match=r"^--image_size=16: the network cannot take such pictures; .* 32 px$"):
        judged(KnnConfig(), subject=subject, image_size=16)


def test_readouts_need_a_slice_to_tell_saturation_by(judged):
    with pytest.raises(FlagError, match=r"^--validation_fraction=0: "):
        judged(LINEAR, validation_fraction=0.0)
    with pytest.raises(FlagError, match=r"^--ten_crop: digits are not cropped"):
        judged(LinearConfig(fast=True, ten_crop=True))


FINETUNE = FinetuneConfig(percent=(2, 100), epochs=1, least_steps=3, learning_rate=0.05)


def test_fine_tuning_on_the_labels_that_a_supervised_network_has_learned_is_refused(tmp_path, judged):
    trained(experiment_of(tmp_path / "supervised", "supervised", "resnet18"))
    subject = SubjectConfig(model_dir=str(tmp_path / "supervised"))
    with pytest.raises(FlagError, match=r"^--protocol=finetune: the network has learned these pictures' labels"):
        judged(FINETUNE, subject=subject)
    with pytest.raises(
        FlagError, match=r"^--validation_fraction=0.2: the network has learned the labels of all but 0.1"
    ):
        judged(LinearConfig(fast=True), subject=subject, validation_fraction=0.2)


@pytest.mark.slow
def test_fine_tuning_compares_parts_of_the_labels_with_the_same_from_scratch(judged, reads):
    evaluation, found = judged(FINETUNE)
    assert list(found) == ["2", "100"] and found["100"]["images"] == 1437
    assert found["2"]["images"] == pytest.approx(0.02 * 1437, abs=5)
    assert reads == {"train": 0, "test": 4}, "once for each of four networks"
    again = PROTOCOLS["finetune"](evaluation)
    assert again == found and reads["test"] == 4, "what is done is not done again"
    assert not list(evaluation.folder.glob("*/checkpoints"))


def test_a_keras_model_and_a_saved_model_are_judged_by_the_same_yardstick(run, judged, tmp_path):
    backbone = run[2].embedder.backbone.model
    image = keras.Input((8, 8, 3))
    conv5 = keras.layers.Activation("linear", name="features")(backbone(image)["conv5"])
    keras.Model(image, conv5).save(tmp_path / "peer.keras")
    peer = SubjectConfig(keras_model=str(tmp_path / "peer.keras"), input_pixels="unit", endpoints=("features",))
    saved = SubjectConfig(saved_model=str(run[1]), signature="features", input_pixels="unit", endpoints=("conv5",))
    of_keras, by_keras = judged(KnnConfig(), "digits", subject=peer)
    of_saved, by_saved = judged(KnnConfig(), "digits", subject=saved, image_size=8)
    images, truth = pictures_of(of_saved.test)
    train_images, labels = pictures_of(of_saved.train)

    def pooled(images):
        rows = backbone(images, training=False)["conv5"].numpy().astype(np.float64).mean(axis=(1, 2))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    first, _ = shares_right(pooled(images) @ pooled(train_images).T, labels, truth, 200, 0.07)
    assert by_keras["top1"] == pytest.approx(first, abs=0.006) and by_saved["top1"] == pytest.approx(first, abs=0.006)
    assert (of_keras.subject.facts["kind"], of_saved.subject.facts["kind"]) == ("keras", "saved_model")
    assert of_keras.own is None and of_keras.id != of_saved.id
    with pytest.raises(FlagError, match=r"^--protocol=finetune: a SavedModel cannot be trained"):
        judged(FINETUNE, "digits", subject=saved, image_size=8)


def test_networks_for_fine_tuning_start_from_the_subject_s_weights_or_from_fresh_ones(run, tmp_path):
    backbone = run[2].embedder.backbone
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.Activation("linear", name="features")(backbone.model(image)["conv5"]))
    model.trainable = False  # as somebody may have saved it
    model.save(tmp_path / "peer.keras")
    model.trainable = True  # the layers are those of the other tests too
    foreign = SubjectConfig(keras_model=str(tmp_path / "peer.keras"), input_pixels="unit", endpoints=("features",))
    picture = tf.constant(np.random.default_rng(0).random((2, 8, 8, 3), np.float32))
    wanted = backbone.model(picture, training=False)["conv5"].numpy()
    for chosen in (SubjectConfig(model_dir=run[0]), SubjectConfig(export=str(run[1])), foreign):
        config = EvaluationConfig(chosen, FINETUNE, DataConfig(dataset="digits"), out=str(tmp_path))
        network = Evaluation(config).subject.network
        pretrained, fresh = network(pretrained=True), network(pretrained=False)
        np.testing.assert_allclose(pretrained(picture, training=False), wanted, atol=1e-5 * np.abs(wanted).max())
        assert np.abs(fresh(picture, training=False) - wanted).max() > 0.01 * np.abs(wanted).max()
        kernels = sum(weight.name == "kernel" for weight in backbone.model.weights)
        for one in (pretrained, fresh):
            assert sum(weight.name == "kernel" for weight in one.trainable_weights) == kernels, "nothing is frozen"


def test_crops_are_areas_on_the_own_pictures_and_patches_for_alexnet_and_on_all_others(tmp_path):
    for name in ("own", "other"):
        write_folder(tmp_path / name / "train", count=300, size=(18, 16))
        write_folder(tmp_path / name / "test", count=2, size=(18, 16))
    write_folder(tmp_path / "other" / "train", count=1, classes=("cow",))
    own, other = (f"folder:{tmp_path / name}" for name in ("own", "other"))
    for backbone in ("resnet18", "alexnet"):
        experiment = experiment_of(
            tmp_path / backbone, "random", backbone, f"--dataset={own}", "--image_size=16", "--exporters=final"
        )
        *_, (export,) = trained(experiment)

        of_run = SubjectConfig(model_dir=str(tmp_path / backbone))

        def chosen(dataset, protocol, subject=of_run, **data):
            evaluation = Evaluation(
                EvaluationConfig(subject, protocol, DataConfig(dataset=dataset, **data), out=str(tmp_path / "out"))
            )
            augmentation = evaluation.augmentation
            assert augmentation.patch == (evaluation.settings()["crops"] == "patch")
            assert (augmentation.flip, augmentation.colours, augmentation.image_size) == (True, False, 16)
            return evaluation.crops

        usual = "patch" if backbone == "alexnet" else "area"
        assert chosen(own, LinearConfig()) == chosen(None, FinetuneConfig()) == usual
        assert chosen(own, LinearConfig(), SubjectConfig(export=str(export))) == usual
        assert chosen(other, LinearConfig()) == "patch"
        assert chosen(other, LinearConfig(crops="area")) == "area"
        assert chosen(own, FinetuneConfig(crops="patch")) == "patch"
    with pytest.raises(FlagError, match=r"^--crop_min_area=0.5: patches have one size"):
        chosen(other, LinearConfig(), crop_min_area=0.5)


def test_the_id_is_that_of_what_was_judged_and_how(judged):
    a, _ = judged(KnnConfig(neighbors=5))
    b, _ = judged(KnnConfig(neighbors=5))
    c, _ = judged(KnnConfig(neighbors=6))
    assert a.id == b.id != c.id
    assert json.loads(json.dumps(a.record)) == a.record
    moved = {**a.record, "dataset": a.record["dataset"] | {"spec": "folder:/elsewhere"}}
    assert results.identity(moved) == a.id
    record = results.append(a.out, {**a.record, "results": {}, "time": "2026-01-01T00:00:00+00:00"})
    assert record["id"] == a.id and a.finished() == record and c.finished() is None


def test_the_pixel_conventions_have_the_same_names_everywhere():
    assert set(INPUT_PIXELS) == set(PIXELS)
