"""Draws what a run has learned: python -m la_tf.analyze --model_dir=runs/quickstart --figure=density

    density    how similar training images are to their nearest ones and farther off (Figure 2); of several runs, too
    neighbors  test pictures with their nearest training pictures: sure successes, unsure failures (Figure 3)
    mds        the classes told best and worst, scaled to two dimensions (Figure 4)
    close      skewness and size of C_i over H and m (supplement Figure 1)
    clusters   the largest, tightest and most mixed clusters
    curves     loss, kNN and LA's health by epoch
    all        all of these; what a run cannot have is named

Figures go to MODEL_DIR/report/ (of several runs, the first one's), or to --out, as PNG and SVG, each beside a JSON of
the numbers behind it.
"""

import sys
from pathlib import Path

from absl import flags

from data import cli
from data.errors import FlagError, UserError
from la_tf import model_dir
from la_tf.experiment import stored_config
from la_tf.trained_run import BANKS, DoesNotApply, TrainedRun

FIGURES = ("density", "neighbors", "mds", "close", "clusters", "curves")
LOOKS = ("neighbors", "mds", "clusters")  # at pictures, by TensorFlow
MOST_RUNS = 7  # colours that can be told apart

flags.DEFINE_list("model_dir", [], "The run to look at; for densities several, with commas between them.")
flags.DEFINE_string("figure", "neighbors", f"{' | '.join((*FIGURES, 'all'))}.")
flags.DEFINE_string("out", None, "Where the figures go; not given: report/ in the (first) run's folder.")
flags.DEFINE_string("bank", "saved", "saved: the run's memory bank; fresh: central views by the network as it is now.")
flags.DEFINE_integer("rows", 3, "Successes and failures to show, or clusters of a kind.")
flags.DEFINE_integer("nearest", 9, "Training pictures beside each, or of each cluster.")


def main():
    """Draws the figures; returns where they lie."""
    given = {name: flags.FLAGS[name].value for name in ("model_dir", "figure", "out", "bank", "rows", "nearest")}
    folders, figure = given["model_dir"], given["figure"]
    _check(given)
    for folder in folders:
        stored_config(folder)
    out = Path(given["out"] or Path(folders[0]) / "report")
    model_dir.writable_folder(out)
    if figure == "curves":
        return _applies(figure, lambda: _written(figure, lambda analysis: analysis.draw_curves(folders[0]), out))
    runs = [TrainedRun(folder, given["bank"]) for folder in folders]
    if figure in ("neighbors", "mds"):
        _applies(figure, runs[0].need_labels)  # known without TensorFlow
    for run in runs:
        _ = run.stored
    if figure == "all" or figure in LOOKS or given["bank"] == "fresh":
        cli.load_tensorflow()
    draws = {
        "density": lambda analysis: analysis.draw_density(runs),
        "neighbors": lambda analysis: analysis.draw_neighbors(runs[0], given["rows"], given["nearest"]),
        "mds": lambda analysis: analysis.draw_mds(runs[0]),
        "close": lambda analysis: analysis.draw_close(runs[0]),
        "clusters": lambda analysis: analysis.draw_clusters(runs[0], given["rows"], given["nearest"]),
        "curves": lambda analysis: analysis.draw_curves(folders[0]),
    }
    if figure != "all":
        return _applies(figure, lambda: _written(figure, draws[figure], out))
    if len(runs) > 1:
        print(f"density shows {len(runs)} runs, all other figures {folders[0]}", file=sys.stderr)
    found, skipped = {}, {}
    for name, draw in draws.items():
        try:
            found[name] = _written(name, draw, out)
        except DoesNotApply as reason:
            skipped[name] = str(reason)
            print(f"skipped {name}: {reason}", file=sys.stderr)
    return {"figures": found, "skipped": skipped}


def _check(given):
    figure, folders = given["figure"], given["model_dir"]
    if not folders:
        raise FlagError("--model_dir: set it to the run to look at, e.g. --model_dir=runs/quickstart")
    if "" in folders:
        raise FlagError(f"--model_dir={','.join(folders)}: one of the folders has no name; leave out a comma")
    if figure not in (*FIGURES, "all"):
        raise FlagError(f"--figure={figure}: choose one of {', '.join(FIGURES)}, all")
    if len(folders) > 1 and figure not in ("density", "all"):
        raise FlagError(f"--model_dir={','.join(folders)}: --figure={figure} is of one run; density compares several")
    if len(folders) > MOST_RUNS:
        raise FlagError(
            f"--model_dir: {len(folders)} runs in one figure cannot be told apart; name {MOST_RUNS} at most"
        )
    if given["bank"] not in BANKS:
        raise FlagError(f"--bank={given['bank']}: choose one of {', '.join(BANKS)}")
    for name in ("rows", "nearest"):
        if given[name] < 1:
            raise FlagError(f"--{name}={given[name]}: must be at least 1")


def _applies(figure, call):
    try:
        return call()
    except DoesNotApply as reason:
        raise UserError(f"--figure={figure}: {reason}") from None


def _written(name, draw, out):
    from la_tf import analysis, figures

    figure, numbers = draw(analysis)
    pictures = figures.save(figure, out / name)
    model_dir.write_json(out / f"{name}.json", numbers)
    if name == "close":
        print(analysis.close_table(numbers))
    return {"figure": [str(path) for path in pictures], "numbers": str(out / f"{name}.json")}


if __name__ == "__main__":
    cli.run(main)
