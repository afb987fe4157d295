"""From an exported backbone to lines of results.jsonl: check, train, select, score, seed by seed. No TensorFlow.

Each part is a command that could be typed as well, and is shown; what is done is not done again.

FOLDER/check.json                          what detection.check found
FOLDER/step-00000120-1a2b3c/               of one backbone:
    activations.json                       what detection.activations found
    seed-3/                                a detector, a run of detection.train
    seed-3/report/detections.png           some of the test pictures, drawn
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from data.errors import FlagError, UserError
from detection import record
from detection.config import SELECTED_BY, DetectionConfig
from la_tf import checkpoints, commands, model_dir, results
from la_tf.export_description import read_description


@dataclass(frozen=True, eq=False)
class Wanted:
    """What is asked for whatever the backbone.

    standard: what --preset alone, or no flag, comes to; default: what no flag does. given: the flags as the user gave
    them; command: the arguments of it all.
    """

    config: DetectionConfig
    standard: DetectionConfig
    default: DetectionConfig
    preset: str | None
    test_set: str
    seeds: int
    pretrain_data: str | None
    given: tuple[str, ...]
    command: tuple[str, ...]

    @cached_property
    def sets(self):
        """The sets that are learned from, that select (None: nothing does), and that are scored on."""
        data = self.config.data
        return data.open(data.train_set), data.open(data.val_set) if data.val_set else None, data.open(self.test_set)

    @property
    def smoke(self):
        """Whether fewer pictures are seen than the schedule of --preset shows, but for what rounding leaves out."""
        batch = self.config.data.batch_size
        return (self.config.run.steps + 1) * batch <= self.standard.run.steps * self.standard.data.batch_size

    @property
    def warnings(self):
        """What makes the numbers other than they should be, a line each."""
        train, val, test = self.sets
        if number := record.common(train, test):
            yield f"--test_set={test.name}: {number} of its pictures are learned from, so its mAP flatters"
        if val is None:
            yield "the last step of each seed is scored; to select one: --train_set=2007_train --val_set=2007_val"
        elif record.selected_on(val, test) == "test":
            yield f"--val_set={val.name}: shares pictures with --test_set={test.name}, which so selects"
        if self.config.run.initialization == "random" and self.config.detector.batch_norm == "frozen":
            yield "--initialization=random: frozen norms do nothing to fresh weights; --batch_norm=local lets them"


@dataclass(frozen=True, eq=False)
class Chain:
    """The detectors of one exported backbone, called `name`; all is kept in `out`, their lines in its results.jsonl."""

    wanted: Wanted
    export: Path
    name: str
    out: Path

    @cached_property
    def resolved(self):
        """The configs that are wanted, standard and by default, with what follows from the backbone filled in.

        Raises FlagError for what the backbone cannot do.
        """
        description = read_description(self.export)
        backbone = description["architecture"]["name"], description["endpoints"]
        try:
            asked, standard, default = (
                each.resolved(*backbone) for each in (self.wanted.config, self.wanted.standard, self.wanted.default)
            )
        except FlagError as error:
            of = f" (of --preset={self.wanted.preset})" if self.wanted.preset else ""
            raise FlagError(f"{error}{of}") from None
        return asked, standard, default

    @cached_property
    def id(self):
        """What tells such detectors from others but for backbone and seed."""
        asked, _, default = self.resolved
        differing = record.differing(asked, default)
        return record.settings_id(differing, asked.run.initialization, self.wanted.test_set, self.wanted.sets)

    @property
    def settings_folder(self) -> Path:
        """Where detectors of these settings lie, whatever their backbone."""
        return self.out / "detection" / f"{self.wanted.preset or 'detector'}-{self.id}"

    @cached_property
    def folder(self) -> Path:
        """Where the detectors of this backbone lie."""
        return self.settings_folder / f"{self.name}-{record.weights_of(self.export)[:6]}"

    def run(self) -> list[dict]:
        """Returns the lines of all seeds, after making those that are missing."""
        first = self.wanted.config.run.seed
        seeds = range(first, first + self.wanted.seeds)
        lines = {seed: results.find(self.out, results.identity(self.facts(seed))) for seed in seeds}
        if None in lines.values():
            self.prepare()
        for seed in seeds:
            if lines[seed]:
                print(f"seed {seed}: is finished ({self.folder / f'seed-{seed}'})", file=sys.stderr)
            else:
                lines[seed] = self.detector(seed)
        found = [*lines.values()]
        together = results.identified(record.mean_line(record.of_all_seeds(results.read([self.out]), found[0])))
        known = results.find(self.out, together["id"])
        if known is None or known["results"] != together["results"]:
            results.append(self.out, together)
        return found

    def facts(self, seed) -> dict:
        """Returns the line of a seed but for what it comes to."""
        train, val, test = self.wanted.sets
        return {
            "protocol": "detection",
            "subject": record.subject(self.export, self.wanted.config.run.initialization),
            "dataset": record.dataset(train, test),
            "settings": self.settings(seed),
            "split": "test",
            "selected_on": record.selected_on(val, test),
        }

    def settings(self, seed):
        """Returns what a line says of how a detector came about: the preset, and all that is not as it has it."""
        asked, standard, _ = self.resolved
        train, _, test = self.wanted.sets
        common = record.common(train, test)
        return {
            "detector": "faster",
            "preset": self.wanted.preset or "none",
            "settings": self.id,
            "smoke": self.wanted.smoke,
            "seed": seed,
            "test_set": self.wanted.test_set,
            **({"learned_test_pictures": common} if common else {}),
            **record.differing(asked, standard),
        }

    def prepare(self):
        """Looks at all pictures and boxes, and at what the backbone makes of them, before the first step."""
        data = self.wanted.config.data
        sets = dict.fromkeys(filter(None, (data.train_set, data.val_set, self.wanted.test_set)))
        self._once(self.settings_folder / "check.json", "detection.check", f"--sets={','.join(sets)}")
        if self.wanted.config.run.initialization == "export":
            pretrained = [f"--pretrain_data={self.wanted.pretrain_data}"] if self.wanted.pretrain_data else []
            try:
                self._once(
                    self.folder / "activations.json", "detection.activations", f"--export={self.export}", *pretrained
                )
            except UserError as error:  # it advises, no more
                print(f"warning: the batch norms are not compared: {error}", file=sys.stderr)

    def _once(self, path, main, *more):
        if not path.exists():
            model_dir.write_json(path, commands.run(main, *self.wanted.given, *more))

    def detector(self, seed) -> dict:
        """Trains a detector, selects one of its checkpoints, scores that on the test set; returns the line."""
        folder, wanted = self.folder / f"seed-{seed}", self.wanted
        commands.run(
            "detection.train", *wanted.given, f"--export={self.export}", f"--seed={seed}", f"--model_dir={folder}"
        )
        chosen, value = self._chosen(folder)
        why = "the last one" if value is None else f"the best by {SELECTED_BY}, {value:.4f}"
        print(f"seed {seed}: {chosen.name}, {why}, is scored on {wanted.test_set}", file=sys.stderr)
        sheet = folder / "report" / "detections.png"
        sheet.parent.mkdir(exist_ok=True)
        found = commands.run(
            "detection.evaluate", f"--model_dir={folder}", f"--step={checkpoints.read_state(chosen)['step']}",
            f"--test_set={wanted.test_set}", f"--sheet={sheet}", *(each for each in wanted.given if each == "--debug"),
        )  # fmt: skip
        found |= {"test_looks": self._looks(folder)} | ({} if value is None else {SELECTED_BY: value})
        return results.append(self.out, record.line(self.facts(seed), found, wanted.command))

    def _chosen(self, folder):
        """The checkpoint that is scored, and the mAP that chose it, None where it is the last one."""
        if not self.wanted.config.data.val_set:
            return checkpoints.latest(folder), None
        chosen = checkpoints.best(folder, SELECTED_BY)
        if chosen is None:
            raise UserError(f"{folder}: no checkpoint has been measured on --val_set; remove the folder to train anew")
        return chosen, checkpoints.read_state(chosen)["logs"][SELECTED_BY]

    def _looks(self, folder):
        """Counts the checkpoints of a detector that have been scored on the test set; warns where there are several."""
        scored = (folder / "results" / self.wanted.test_set).glob("*/scores.json")
        steps = {path.parent.name.partition(",")[0] for path in scored}
        if len(steps) > 1:
            print(f"warning: {folder}: {len(steps)} checkpoints have been scored on the test set", file=sys.stderr)
        return len(steps)
