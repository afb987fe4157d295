"""What was not run and what it would take: the plans of la_tf.train for the paper's presets, on this machine."""

from __future__ import annotations

import datetime
import time

from tabulate import tabulate

from evidence.cells import machine
from evidence.study import DATA
from la_tf import commands

NAME = "plans"
PRESETS = ("alexnet", "resnet18", "resnet50")  # vgg16: see HEAD
IMAGES = 1_281_167
SAMPLE = "imagenette224"  # photographs to measure with
HEAD = """## What was not run

Nothing here was run on a GPU, and nothing at the size of ImageNet: the paper's tables were not made again. What they
would take on this machine is planned below, from steps measured here; `--plan` on a machine with GPUs says the same of
those. The presets carry the paper's hyper-parameters, with 160 epochs (AlexNet) or 200. VGG16 is missing: a step of its
128 pictures takes more than the 24 GB of this machine.
"""


def flags(preset):
    """Returns the flags of la_tf.train that plan a preset for ImageNet, with some of its pictures at hand."""
    return [f"--flagfile={preset}.flags", f"--dataset=folder:{DATA}/{SAMPLE}", "--plan", f"--plan_size={IMAGES}"]


def key(preset):
    """What tells its line from all others."""
    return (NAME, preset, 0, "plan")


def lines(place, known):
    """Yields the line of each preset that has none in `known` yet."""
    for preset in PRESETS:
        if key(preset) in known:
            continue
        started = time.monotonic()
        log = place.runs / NAME / f"{preset}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        found = commands.run("la_tf.train", *map(place.real, flags(preset)), log=log)
        plan = found["plan"]
        facts = {"study": NAME, "arm": preset, "seed": 0, "evaluation": "plan", "train": flags(preset)}
        yield {
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "protocol": "plan",
            "subject": {"kind": "plan"},
            "dataset": {"spec": f"folder:{DATA}/{SAMPLE}", "train": plan["images"]},
            "settings": {"devices": plan["devices"]},
            "split": "train",
            "selected_on": "none",
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
    """Returns the section of the page, from the newest line of each preset; nothing where there is none."""
    told = [(preset, known.by_key[key(preset)]) for preset in PRESETS if key(preset) in known.by_key]
    if not told:
        return ""
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
    where = "; ".join(sorted({line["cell"]["machine"] for _, line in told}))
    return f"{HEAD}\n{table}\n\n<details><summary>commands · {where}</summary>\n\n```\n{typed}\n```\n</details>\n"
