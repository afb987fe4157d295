"""What results.jsonl says of a detector: whose backbone, which pictures, by which settings, how good. No TensorFlow.

`la_tf.report --table=3` puts such lines in the paper's table, and takes the mean over those that differ in nothing but
their seeds.
"""

import datetime
import hashlib
import json
import statistics
from pathlib import Path

from data.voc import VOC_CLASSES
from detection.config import DetectionConfig
from la_tf import model_dir, results
from la_tf.export_description import read_description
from models.backbone import LATER_ARGUMENTS

# Of an architecture, what a line says, as lines of la_tf.evaluate do.
ARCHITECTURE = ("width", "resnet_version", "batch_norm", "sobel", "layout")
METHOD_OF_WEIGHTS = {"keras_resnet50": "supervised", "keras_vgg16": "supervised", "authors_resnet18": "la"}
# Circumstances of a run that decide what it comes to, for they say when it ends and what selects.
DECIDING = ("steps", "eval_steps", "val_set", "metric")
ELSEWHERE = ("seed", "initialization")  # what a line says of these it says in its own fields


def weights_of(export: Path) -> str:
    """Returns what tells the weights of an export from others, 12 hex digits."""
    with open(export / "backbone.weights.h5", "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def subject(export: Path, initialization: str = "export") -> dict:
    """Returns what a line says of the backbone; of initialization="random" the architecture alone."""
    description = read_description(export)
    architecture = {**LATER_ARGUMENTS, **description["architecture"]}
    network = {name: architecture[name] for name in ARCHITECTURE} | {"backbone": architecture["name"]}
    network["image_size"] = architecture["preprocessing"]["image_size"]
    if initialization == "random":
        return {"kind": "random", "method": "random", **network}
    config, source = description.get("config", {}), description.get("imported", {}).get("source")
    facts = {
        "kind": "export",
        "method": config.get("method") or METHOD_OF_WEIGHTS.get(source),
        **network,
        "seed": config.get("seed"),
        "step": description["step"],
        "weights": weights_of(export),
        "config": config,
    }
    return facts | ({"name": source} if source else {})


def differing(config: DetectionConfig, other: DetectionConfig) -> dict:
    """Returns the settings of `config` that are not those of `other`, both resolved for the same backbone."""
    values, others = config.flat(), other.flat()
    lasting = [*config.identity(), *DECIDING]
    return {name: values[name] for name in lasting if name not in ELSEWHERE and values[name] != others[name]}


def settings_id(differing: dict, initialization: str, test_set: str, sets) -> str:
    """Returns what tells the detectors of one command from those of another but for backbone and seed, 6 hex digits.

    differing: what is not as by default, so that a default that is added changes no id; sets: the pictures.
    """
    canonical = [differing, initialization, test_set, [each and each.fingerprint for each in sets]]
    return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()[:6]


def dataset(train, test) -> dict:
    """Returns what a line says of the `data.voc.DetectionSet`s that are learned from and scored on."""
    voc = "VOC " if train.classes == VOC_CLASSES else ""
    return {
        "spec": f"voc:{voc}{train.name}",
        "hash": train.fingerprint,
        "test_hash": test.fingerprint,
        "own": None,
        "classes": len(train.classes),
        "train": train.size,
        "test": test.size,
    }


def selected_on(val, test) -> str:
    """Returns what chose the step that is scored: "nothing" (the last one is), "validation" or "test".

    Of a val set that has pictures of the test set in it, the latter.
    """
    if val is None:
        return "nothing"
    return "test" if common(val, test) else "validation"


def common(one, other) -> int:
    """Returns how many pictures two sets have in common."""
    return len({each.image for each in one.pictures} & {each.image for each in other.pictures})


def line(facts: dict, found: dict, command) -> dict:
    """Returns the line of one detector. facts: all but what it came to; found: what detection.evaluate returned.

    To that the chain adds `test_looks`, the checkpoints scored on the test set, and the mAP that selected.
    """
    numbers = {name: found[name] for name in sorted(found) if name.startswith(("voc07_", "area_", "coco_", "val_"))}
    numbers |= {name: found[name] for name in ("step", "test_looks")} | {"ap50": found["ap50_by_class"]}
    return results.identified(
        {
            **facts,
            "results": {"mAP": found["voc07_ap50"], **numbers},
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": model_dir.versions(),
            "command": [*command],
        }
    )


def by_step(lines: list[dict], one: dict) -> dict[int, list[dict]]:
    """Returns those of `lines` that differ from `one` in the backbone's step and the seed alone, by step, in order."""
    key = _without_step(one)
    found = [line for line in lines if line["protocol"] == one["protocol"] and _without_step(line) == key]
    steps = sorted({line["subject"]["step"] for line in found})
    return {step: [line for line in found if line["subject"]["step"] == step] for step in steps}


def _without_step(line):
    return _without_seed(line | {"subject": {**line["subject"], "step": None, "weights": None}})


def of_all_seeds(lines: list[dict], one: dict) -> list[dict]:
    """Returns those of `lines` that differ from `one` in nothing but the seed of the detector, in its order."""
    key = _without_seed(one)
    found = [line for line in lines if line["protocol"] == one["protocol"] and _without_seed(line) == key]
    return sorted(found, key=lambda line: line["settings"]["seed"])


def _without_seed(line):
    return results.identity(line | {"settings": {**line["settings"], "seed": None}})


def mean_line(lines: list[dict]) -> dict:
    """Returns the line for all seeds together: mean and sample deviation (None of a single one) of each number."""
    names = [name for name, value in lines[0]["results"].items() if isinstance(value, float)]
    values = {name: [each["results"][name] for each in lines] for name in names}
    found = {name: {"mean": statistics.mean(each), "sd": deviation(each)} for name, each in values.items()}
    settings = {name: value for name, value in lines[0]["settings"].items() if name != "seed"}
    seeds = [each["settings"]["seed"] for each in lines]
    last = max(lines, key=results.moment)
    return {**last, "protocol": "detection_mean", "settings": settings, "results": {"seeds": seeds, **found}}


def deviation(values: list[float]) -> float | None:
    """Returns the sample standard deviation (n - 1), None of a single value."""
    return statistics.stdev(values) if len(values) > 1 else None
