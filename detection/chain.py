"""From an exported backbone to lines of results.jsonl: check, train, select, score, seed by seed. No TensorFlow.

Each part is a command that could be typed as well, and is shown; what is done is not done again.

FOLDER/check.json              what detection.check found
FOLDER/activations.json        what detection.activations found
FOLDER/seed-3/                 a detector, a run of detection.train
FOLDER/seed-3/report/          some of the test pictures, drawn
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data.voc import VOC_CLASSES, open_set, read_classes
from detection import commands, record
from detection.config import DetectionConfig
from la_tf import checkpoints, model_dir, results

SELECTED_BY = "val_ap50"


@dataclass(frozen=True, eq=False)
class Wanted:
    """What is asked for whatever the backbone.

    given: the flags of `detection.flags` as the user gave them; own: those of them that are not as --preset has them;
    pictures: how many the preset's schedule shows; command: the arguments of it all.
    """

    config: DetectionConfig
    preset: str | None
    test_set: str
    seeds: int
    pretrain_data: str | None
    given: tuple[str, ...]
    own: tuple[str, ...]
    pictures: int
    command: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the folder of such detectors."""
        return f"{self.preset or 'detector'}-{record.settings_id(self.config, self.test_set)}"

    def open(self, name):
        """Returns a set of pictures."""
        data = self.config.data
        classes = read_classes(data.classes_file) if data.classes_file else VOC_CLASSES
        return open_set(data.devkit, name, classes, data.box_origin, data.tfds_data_dir)

    @cached_property
    def sets(self):
        """The sets that are learned from, that select (None: nothing does), and that are scored on."""
        data = self.config.data
        return self.open(data.train_set), self.open(data.val_set) if data.val_set else None, self.open(self.test_set)

    @property
    def warnings(self):
        """What makes the numbers flatter than they should be, a line each."""
        train, val, test = self.sets
        if number := record.common(train, test):
            yield f"--test_set={test.name}: {number} of its pictures are learned from, so its mAP flatters"
        if val is None:
            yield "the last step of each seed is scored; to select one: --train_set=2007_train --val_set=2007_val"
        elif record.selected_on(val, test) == "test":
            yield f"--val_set={val.name}: shares pictures with --test_set={test.name}, which so selects"

    def settings(self, seed):
        """Returns what a line says of how a detector came about; nothing that is as --preset has it."""
        values, data = self.config.flat(), self.config.data
        seen = self.config.run.steps * data.batch_size
        common = record.common(self.sets[0], self.sets[2])
        return {
            "detector": "faster",
            "preset": self.preset or "none",
            "settings": record.settings_id(self.config, self.test_set),
            "smoke": seen < self.pictures,
            "seed": seed,
            "test_set": self.test_set,
            **({"learned_test_pictures": common} if common else {}),
            **{name: values[name] for name in self.own},
        }


@dataclass(frozen=True, eq=False)
class Chain:
    """The detectors of one exported backbone, in `folder`; their lines go to results.jsonl in `target`."""

    wanted: Wanted
    export: Path
    folder: Path
    target: Path

    def run(self) -> list[dict]:
        """Returns the lines of all seeds, after making those that are missing."""
        first = self.wanted.config.run.seed
        seeds = range(first, first + self.wanted.seeds)
        lines = {seed: results.find(self.target, results.identity(self.facts(seed))) for seed in seeds}
        if None in lines.values():
            self.prepare()
        for seed in seeds:
            if lines[seed]:
                print(f"seed {seed}: is finished ({self.folder / f'seed-{seed}'})", file=sys.stderr)
            else:
                lines[seed] = self.detector(seed)
        found = [*lines.values()]
        together = results.identified(record.mean_line(found))
        known = results.find(self.target, together["id"])
        if known is None or known["results"] != together["results"]:
            results.append(self.target, together)
        return found

    def facts(self, seed) -> dict:
        """Returns the line of a seed but for what it comes to."""
        train, val, test = self.wanted.sets
        return {
            "protocol": "detection",
            "subject": record.subject(self.export, self.wanted.config.run.initialization),
            "dataset": record.dataset(train, test),
            "settings": self.wanted.settings(seed),
            "split": "test",
            "selected_on": record.selected_on(val, test),
        }

    def prepare(self):
        """Looks at all pictures and boxes, and at what the backbone makes of them, before the first step."""
        data = self.wanted.config.data
        sets = dict.fromkeys(filter(None, (data.train_set, data.val_set, self.wanted.test_set)))
        self._once("check.json", "detection.check", f"--sets={','.join(sets)}")
        if self.wanted.config.run.initialization == "export":
            pretrained = [f"--pretrain_data={self.wanted.pretrain_data}"] if self.wanted.pretrain_data else []
            self._once("activations.json", "detection.activations", f"--export={self.export}", *pretrained)

    def _once(self, name, main, *more):
        path = self.folder / name
        if not path.exists():
            model_dir.write_json(path, commands.run(main, *self.wanted.given, *more))

    def detector(self, seed) -> dict:
        """Trains a detector, selects one of its checkpoints, scores that on the test set; returns the line."""
        folder = self.folder / f"seed-{seed}"
        commands.run(
            "detection.train", *self.wanted.given, f"--export={self.export}", f"--seed={seed}", f"--model_dir={folder}"
        )
        chosen = checkpoints.best(folder, SELECTED_BY) if self.wanted.config.data.val_set else None
        chosen = chosen or checkpoints.latest(folder)
        value = checkpoints.read_state(chosen)["logs"].get(SELECTED_BY)
        why = "the last one" if value is None else f"the best by {SELECTED_BY}, {value:.4f}"
        print(f"seed {seed}: {chosen.name}, {why}, is scored on {self.wanted.test_set}", file=sys.stderr)
        sheet = folder / "report" / "detections.png"
        sheet.parent.mkdir(exist_ok=True)
        step = checkpoints.read_state(chosen)["step"]
        found = commands.run(
            "detection.evaluate",
            f"--model_dir={folder}",
            f"--step={step}",
            f"--test_set={self.wanted.test_set}",
            f"--sheet={sheet}",
        )
        found |= {"test_looks": self._looks(folder)} | ({} if value is None else {SELECTED_BY: value})
        return results.append(self.target, record.line(self.facts(seed), found, self.wanted.command))

    def _looks(self, folder):
        """Counts the checkpoints of a detector that have been scored on the test set; warns where there are several."""
        scored = (folder / "results" / self.wanted.test_set).glob("*/scores.json")
        steps = {path.parent.name.partition(",")[0] for path in scored}
        if len(steps) > 1:
            print(f"warning: {folder}: {len(steps)} checkpoints have been scored on the test set", file=sys.stderr)
        return len(steps)
