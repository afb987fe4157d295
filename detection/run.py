"""From a pretrained backbone to the paper's detection table: python -m detection.run --pretrain_run=M --preset=paper_la

The backbone: a run of la_tf.train (--pretrain_run), an export (--export), or a file of keras.applications
(--keras_resnet50, --keras_vgg16), the supervised control. With --initialization=random its architecture alone: the
other control. All sets are looked at, then for each of --seeds a detector is trained, selected by --val_set where there
is one, and scored once on --test_set; a line each goes to results.jsonl in the run, or in --out, for
la_tf.report --table=3. --at_steps does so for several checkpoints of a run and draws a curve in its TensorBoard.
The same command goes on where it was interrupted. --diff_presets=A,B says what two presets differ in.
"""

import hashlib
import shutil
import statistics
import sys
from pathlib import Path

from absl import flags
from tabulate import tabulate

from data import cli
from data.errors import FlagError, UserError
from detection import flags as detection_flags
from detection import preset_files, record
from detection.chain import Chain, Wanted
from detection.config import SELECTED_BY
from la_tf import checkpoints, commands, model_dir, results
from la_tf.export_description import read_description

flags.DEFINE_string("pretrain_run", None, "The run whose embedding is fine-tuned.")
flags.DEFINE_list("at_steps", None, "Several of its checkpoints, by their steps, or all. Default: the newest.")
flags.DEFINE_string("keras_resnet50", None, "Or: weights of keras.applications' ResNet50, a file of yours.")
flags.DEFINE_string("keras_vgg16", None, "Or: those of its VGG16, with the top.")
flags.DEFINE_string("test_set", "2007_test", "What is scored, once for each detector; own folder: test.")
flags.DEFINE_integer("seeds", 3, "How many detectors, with the seeds --seed, --seed + 1, ...")
flags.DEFINE_string("out", None, "Folder for detectors and results.jsonl. Default: the run.")
flags.DEFINE_string("pretrain_data", None, "Pictures of the pretraining, where they have moved: as --dataset has it.")
flags.DEFINE_list("diff_presets", None, "Two presets: prints the flags that they differ in, and does nothing else.")

BACKBONES = ("pretrain_run", "export", "keras_resnet50", "keras_vgg16")


def main():
    """Flags -> detectors -> results; returns mean and deviation of the test mAP."""
    if flags.FLAGS["diff_presets"].value:
        return difference(flags.FLAGS["diff_presets"].value)
    asked, out = wanted(), Path(flags.FLAGS["out"].value or flags.FLAGS["pretrain_run"].value or "")
    for warning in asked.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    exports = out / "detection" / "exports"
    chosen = backbones(exports)
    with model_dir.locked(exports, "out", "wait for it"):
        chains = [Chain(asked, made(export, making), name, out) for name, export, making in chosen]
    for chain in chains:
        _ = chain.resolved  # better refused now than after hours
    found = {}
    for chain in chains:
        found[chain.name] = chain.run()
        if flags.FLAGS["at_steps"].value:
            draw_curve(Path(flags.FLAGS["pretrain_run"].value), chain)
    print(table(found), file=sys.stderr)
    report = chains[0].settings_folder / "table3.md"
    commands.run("la_tf.report", "--table=3", f"--runs={out}", f"--out={report}")
    print(report.read_text(), file=sys.stderr)
    return {"results": str(out / results.FILE), "table": str(report), **last_numbers(found)}


def wanted() -> Wanted:
    """Reads the flags; raises FlagError for those that do not go together."""
    check_flags()
    flags.FLAGS["model_dir"].value = "of each seed"
    config, preset = detection_flags.config(), flags.FLAGS["preset"].value
    config.check_training()
    return Wanted(
        config=config,
        standard=detection_flags.preset_config(preset),
        default=detection_flags.preset_config(None),
        preset=preset,
        test_set=flags.FLAGS["test_set"].value,
        seeds=flags.FLAGS["seeds"].value,
        pretrain_data=flags.FLAGS["pretrain_data"].value or data_elsewhere(),
        given=(
            *detection_flags.given_lines(but=("export", "model_dir", "seed")),
            *(["--debug"] if flags.FLAGS.debug else []),
        ),
        command=tuple(sys.argv[1:]),
    )


def check_flags():
    """Raises FlagError for flags that do not go together."""
    given = [name for name in BACKBONES if flags.FLAGS[name].value]
    if len(given) != 1:
        raise FlagError(f"--{', --'.join(BACKBONES)}: give one of them, the backbone to fine-tune")
    if flags.FLAGS["at_steps"].value and given != ["pretrain_run"]:
        raise FlagError(f"--at_steps: goes with --pretrain_run; --{given[0]} has no checkpoints")
    if flags.FLAGS["at_steps"].value and flags.FLAGS["initialization"].value == "random":
        raise FlagError("--at_steps: goes with --initialization=export; random weights are the same at all steps")
    if given != ["pretrain_run"] and not flags.FLAGS["out"].value:
        raise FlagError(f"--out: say where detectors and results are to live, for --{given[0]} has no run")
    if flags.FLAGS["seeds"].value < 1:
        raise FlagError(f"--seeds={flags.FLAGS['seeds'].value}: must be at least 1")
    if detection_flags.model_dir():
        raise FlagError("--model_dir: every seed has one of its own; --out says where they lie")


def data_elsewhere() -> str | None:
    """Returns the data set of --pretrain_run where the exports lie outside of it, by --out; None otherwise."""
    run, out = flags.FLAGS["pretrain_run"].value, flags.FLAGS["out"].value
    path = Path(run) / "config.json" if run and out else None
    return model_dir.stored_config(path)["circumstances"].get("dataset") if path and path.exists() else None


# -- the backbones ----------------------------------------------------------------------------------------------------


def backbones(folder: Path) -> list[tuple]:
    """Returns (name, export, command that makes it, or None where it is there) of each; exports are made in `folder`.

    Raises what names a run or an export that is none.
    """
    run, given = flags.FLAGS["pretrain_run"].value, flags.FLAGS["export"].value
    if run:
        return [
            (name, folder / name, ("la_tf.export", f"--model_dir={run}", f"--step={step}", "--nobank"))
            for name, step in ((f"step-{step:08d}", step) for step in steps_of(run, folder))
        ]
    if given:
        export = Path(given)
        if not (export / "backbone.weights.h5").exists():
            raise UserError(f"--export={export}: no export (it has no backbone.weights.h5); make one by la_tf.export")
        return [(f"weights-{record.weights_of(export)}", export, None)]
    source = next(name for name in BACKBONES[2:] if flags.FLAGS[name].value)
    making = ("la_tf.import_weights", f"--source={source}", f"--weights={flags.FLAGS[source].value}")
    return [(source, folder / source, making)]


def made(export: Path, making) -> Path:
    """Returns an export, after running what makes it where it is not there; UserError where it is of something else."""
    if making is None:
        return export
    if not export.exists():
        commands.run(*making, f"--out={export}")
    elif not is_of(export, *making):
        raise UserError(f"{export}: is the export of something else; remove it, or choose another --out")
    return export


def is_of(export: Path, main: str, *arguments: str) -> bool:
    """Whether an export is what a command makes: of the same run and step, or of the same file."""
    given = dict(argument.removeprefix("--").partition("=")[::2] for argument in arguments)
    description = read_description(export)
    if main == "la_tf.export":
        same_run = description.get("config") == model_dir.stored_identity(given["model_dir"])
        return same_run and description["step"] == int(given["step"])
    with open(given["weights"], "rb") as file:
        same_file = hashlib.file_digest(file, "sha256").hexdigest()
    return (description.get("imported") or {}).get("sha256") == same_file


def steps_of(run: str, exports: Path) -> list[int]:
    """Returns the steps of --at_steps, without it the newest; raises what names those that there are."""
    path, known = Path(run) / "config.json", checkpoints.steps(run)
    if not path.exists() or "method" not in model_dir.stored_identity(run):
        raise UserError(f"--pretrain_run={run}: no run of la_tf.train lives there")
    if not known:
        raise UserError(f"--pretrain_run={run}: has no checkpoint yet")
    asked = flags.FLAGS["at_steps"].value
    if not asked:
        return known[-1:]
    if asked == ["all"]:
        return known
    exported = [int(path.name.removeprefix("step-")) for path in exports.glob("step-*") if path.name[5:].isdecimal()]
    there = sorted({*known, *exported})  # checkpoints go, exports stay
    strange = [step for step in asked if not step.isdecimal() or int(step) not in there]
    if strange:
        listed = ", ".join(map(str, there))
        raise FlagError(f"--at_steps={strange[0]}: no checkpoint of {run}; there are {listed} (--keep keeps more)")
    return sorted({int(step) for step in asked})


# -- what it came to --------------------------------------------------------------------------------------------------


def draw_curve(run: Path, chain: Chain):
    """Writes the mAP of every checkpoint of a run that has such detectors to its eval_detection-*/, all anew."""
    cli.load_tensorflow()
    from la_tf.callbacks import EventFolder

    folder = run / f"eval_detection-{chain.settings_folder.name}"
    shutil.rmtree(folder, ignore_errors=True)
    events = EventFolder(folder)
    for step, lines in record.by_step(results.read([chain.out]), chain.facts(None)).items():
        numbers = {f"detection/test_ap50_{key}": value for key, value in _spread(lines, "mAP").items()}
        if SELECTED_BY in lines[0]["results"]:
            numbers |= {f"detection/{SELECTED_BY}_{key}": value for key, value in _spread(lines, SELECTED_BY).items()}
        events.write(step, numbers)


def _spread(lines, name):
    values = [line["results"][name] for line in lines]
    sd = record.deviation(values)
    return {"mean": statistics.mean(values)} | ({} if sd is None else {"sd": sd})


def table(found: dict) -> str:
    """Returns what the seeds came to, in per cent, with mean and deviation below each backbone."""
    rows = []
    for name, lines in found.items():
        for line in lines:
            numbers = line["results"]
            shown = (numbers.get(SELECTED_BY), *_scores(line))
            rows.append([name, line["settings"]["seed"], numbers["step"], *map(_percent, shown)])
        columns = zip(*map(_scores, lines), strict=True)
        rows.append([name, "mean", "", "", *map(_with_deviation, columns)])
    head = ("backbone", "seed", "step", "val AP50", "test AP50 = mAP", "AP75", "AP")
    return tabulate(rows, head, tablefmt="simple", disable_numparse=True, stralign="right")


def _scores(line):
    return [line["results"][f"voc07_{key}"] for key in ("ap50", "ap75", "ap")]


def _percent(value):
    return "-" if value is None else f"{100 * value:.2f}"


def _with_deviation(values):
    sd = record.deviation(list(values))
    return _percent(statistics.mean(values)) + ("" if sd is None else f" ± {_percent(sd)}")


def last_numbers(found: dict) -> dict:
    """Returns the numbers of the last backbone."""
    *_, lines = found.values()
    return {"seeds": [line["settings"]["seed"] for line in lines], **_spread(lines, "mAP")}


def difference(names: list[str]) -> dict:
    """Prints the flags that two presets differ in; returns their values."""
    if len(names) != 2:
        raise FlagError(f"--diff_presets={','.join(names)}: give two of {', '.join(preset_files.names())}")
    one, other = map(detection_flags.preset_values, names)
    differing = {name: (one[name], other[name]) for name in one if one[name] != other[name]}
    rows = [(f"--{name}", *map(_shown, values)) for name, values in differing.items()]
    print(tabulate(rows, ("", *names), tablefmt="simple", disable_numparse=True), file=sys.stderr)
    return {"differing": {name: dict(zip(names, values, strict=True)) for name, values in differing.items()}}


def _shown(value):
    return ",".join(value) if isinstance(value, list) else "-" if value is None else str(value)


if __name__ == "__main__":
    cli.run(main, resumes=True)
