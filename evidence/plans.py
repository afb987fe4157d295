"""What was not run and what it would take: the plans of la_tf.train for the paper's presets, on this machine."""

from __future__ import annotations

import datetime
import time

from tabulate import tabulate

from evidence.cells import digest, machine
from evidence.study import DATA
from la_tf import commands

NAME = "plans"
PRESETS = ("alexnet", "resnet18", "resnet50")  # vgg16: see HEAD
IMAGES = 1_281_167
SAMPLE = "imagenette224"  # photographs to measure with
HEAD = """## What was not run

Nothing at the size of ImageNet was run: the paper's tables were not made again. Nothing in `docs/RESULTS.md` was run on
a GPU. `python -m la_tf.train --flagfile=resnet50.flags --dataset=... --plan` tells what a preset takes on a machine at
hand, with GPUs or without.
"""
PLANNED = """Planned from steps measured on {machine}: the presets with the paper's hyper-parameters, 160 epochs
(AlexNet) or 200. VGG16 is missing, because on a CPU a step of its 128 pictures takes more than 24 GB.
"""


def flags(preset):
    """Returns the flags of la_tf.train that plan a preset for ImageNet, with some of its pictures at hand."""
    return [f"--flagfile={preset}.flags", f"--dataset=folder:{DATA}/{SAMPLE}", "--plan", f"--plan_size={IMAGES}"]


def key(preset):
    """What tells its line from all others."""
    return (NAME, preset, 0, "plan")


def is_of(preset, line):
    """Whether a line, or None, is the plan of a preset as it is now."""
    return line is not None and line["cell"].get("settings") == digest(flags(preset))


def lines(place, known):
    """Yields the line of each preset that has none in `known` yet, or one of other flags."""
    for preset in PRESETS:
        if is_of(preset, known.get(key(preset))):
            continue
        started = time.monotonic()
        log = place.runs / NAME / f"{preset}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        found = commands.run("la_tf.train", *map(place.real, flags(preset)), log=log)
        plan = found["plan"]
        facts = {"study": NAME, "arm": preset, "seed": 0, "evaluation": "plan"}
        facts |= {"train": flags(preset), "settings": digest(flags(preset))}
        yield {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "protocol": "plan",
            "subject": {"kind": "plan"},
            "dataset": {"spec": f"folder:{DATA}/{SAMPLE}", "train": plan["images"]},
            "settings": {"devices": plan["devices"]},
            "split": "train",
            "selected_on": "nothing",
            "results": {
                "steps": sum(plan["steps"].values()),
                "step_seconds": plan["step_seconds"],
                "clustering_seconds": plan["clustering_seconds"]["from nothing"],
                "memory_bytes": found["memory_bytes"],
                "run_hours": found["run_hours"],
            },
            "cell": facts | {"train_seconds": round(time.monotonic() - started, 1), "machine": machine()},
        }


def section(known):
    """Returns the section of the page: what was not run, and the newest plan of each preset that has one."""
    newest = ((preset, known.by_key.get(key(preset))) for preset in PRESETS)
    told = [(preset, line) for preset, line in newest if is_of(preset, line)]
    if not told:
        return HEAD
    rows = [
        [
            preset,
            f"{found['steps']:,}",
            f"{found['memory_bytes'] / 1e9:.1f} GB",
            f"{found['step_seconds']['ir']:.1f} s",
            f"{found['step_seconds']['la']:.1f} s",
            f"{found['clustering_seconds'] / 3600:.1f} h",
            f"{found['run_hours'] / 24:,.0f} days",
        ]
        for preset, found in ((preset, line["results"]) for preset, line in told)
    ]
    head = ["", "steps", "memory", "step of IR", "step of LA", "clustering", "whole run"]
    table = tabulate(rows, head, "pipe", colalign=("left", *["right"] * 6), disable_numparse=True)
    typed = "\n".join(f"python -m la_tf.train {' '.join(line['cell']['train'])}" for _, line in told)
    planned = PLANNED.format(machine="; ".join(sorted({line["cell"]["machine"] for _, line in told})))
    return f"{HEAD}\n{planned}\n{table}\n\n<details><summary>commands</summary>\n\n```\n{typed}\n```\n</details>\n"
