"""Random moments of a chosen kind in a run's life, waited for from outside and hit for sure.

ir, la       a random step of the phase, and up to a tenth of a second
clustering   between the last step of an epoch and the first of the next, in a function that clusters
checkpoint   a checkpoint is half written
"""

import shutil
import time

from tests.endurance.end_state import end_state
from tests.endurance.training import COURSE, FLAGS, Ended, Training, newest_step, to_the_end

ATTEMPTS = 5  # a moment that did not come is tried again in a new run
KINDS = ("ir", "la", "clustering", "checkpoint")


def strike(training, kind, rng, course):
    """Kills a `Training` at a random moment of a kind; returns the `Hit`.

    It is frozen first and looked at. Where it has gone on meanwhile it is let go until the next such moment. Raises
    `Ended` where none came.
    """
    due, delay, hits = _wanted(training, kind, rng, course)
    while True:
        training.watch(due)
        time.sleep(rng.uniform(0, delay))
        hit = training.freeze(stacks=kind != "checkpoint")
        if hits(hit) and training.process.poll() is None:
            training.kill()
            return hit
        training.thaw()


def _wanted(training, kind, rng, course):
    """Returns when to look, how long to wait then at most, and what has to be seen."""
    first = training.begun_at
    if kind == "checkpoint":
        target = rng.integers(first, max(course.steps * 3 // 4, first + 1))
        return lambda: training.step() >= target and training.writing(), 0.003, lambda hit: bool(hit.writing)
    if kind == "clustering":
        epochs = range(-(-max(first, course.switch) // course.per_epoch), course.steps // course.per_epoch)
        target = course.per_epoch * rng.choice(epochs[: max(len(epochs) - 1, 1)])

        def between_epochs():
            step = training.step()
            return step >= target and step % course.per_epoch == 0 and step < course.steps

        return between_epochs, 0.1, lambda hit: hit.phase == "clustering"
    low, high = (first, course.switch) if kind == "ir" else (max(first, course.switch + 1), course.steps - 2)
    target = rng.integers(low, max(high, low + 1))

    def in_phase(hit):
        return hit.phase in (kind, "begins") and (hit.step < course.switch) == (kind == "ir")

    return lambda: training.step() >= target, 0.1, in_phase


def killed_run(folder, kinds, rng, flags=FLAGS, course=COURSE):
    """Runs the same command again and again, killed at a moment of each of `kinds` and then left alone.

    Returns `[(kind, Hit, steps lost)]` and the end state.
    """
    for _ in range(ATTEMPTS):
        hits = []
        try:
            for kind in kinds:
                with Training(folder, flags) as training:
                    hit = strike(training, kind, rng, course)
                hits.append((kind, hit, max(hit.step - newest_step(folder), 0)))
            to_the_end(folder, flags)
            return hits, end_state(folder)
        except Ended as ended:
            if "exit code 0" not in str(ended):
                raise
            shutil.rmtree(folder)  # it was over before the moment came
    raise RuntimeError(f"no moment of {kinds} in {ATTEMPTS} runs")
