"""Presets, flag files in detection/presets: where they lie, and their schedules at another batch or length.

No TensorFlow, and no absl: what a line means is the business of `detection.flags`.
"""

from pathlib import Path

from data.errors import FlagError

FOLDER = Path(__file__).parent / "presets"


def names() -> list[str]:
    """Returns the names of the presets."""
    return sorted(path.stem for path in FOLDER.glob("*.flags"))


def lines_of(name: str) -> list[str]:
    """Returns the flags of a preset as they stand in its file; raises FlagError naming those that there are."""
    if name not in names():
        raise FlagError(f"--preset={name}: choose one of {', '.join(names())}; files of your own go by --flagfile")
    lines = (line.strip() for line in (FOLDER / f"{name}.flags").read_text().splitlines())
    return [line for line in lines if line.startswith("--")]


def scaled(schedule: dict, batch_size: int | None = None, steps: int | None = None) -> dict:
    """Returns a preset's schedule at another batch size or length, None for its own.

    The learning rate is in proportion to the pictures of a step, the number of steps the other way round, so that as
    many pictures are seen (Goyal et al. 2017, section 2.1); with `steps` as well as without, drops, warm-up and
    evaluations stay at the same parts of the run. schedule: learning_rate, batch_size, steps, drop_steps, warmup_steps,
    eval_steps.
    """
    share = (batch_size or schedule["batch_size"]) / schedule["batch_size"]
    longer = steps / schedule["steps"] if steps else 1 / share
    return {
        "learning_rate": schedule["learning_rate"] * share,
        "batch_size": batch_size or schedule["batch_size"],
        "steps": steps or round(schedule["steps"] * longer),
        "drop_steps": tuple(sorted({max(1, round(step * longer)) for step in schedule["drop_steps"]})),
        "warmup_steps": round(schedule["warmup_steps"] * longer),
        "eval_steps": max(1, round(schedule["eval_steps"] * longer)),
    }
