"""A report on runs as one HTML page that opens from disk, offline: what is on it."""

import sys
from typing import NamedTuple

from tqdm import tqdm

from data.errors import UserError
from la_tf import page_figures, pages, results
from la_tf.comparison import compare
from la_tf.embedding_map import histograms_of, map_of, read_bank
from la_tf.metric_signs import BAD, GOOD, UNKNOWN, WATCH, readings
from la_tf.paper_tables import NONE, TABLES
from la_tf.picture_sets import PictureSet, open_pictures
from la_tf.run_summary import summarize, untrained_knn

SIGNS = {GOOD: ("✓", "good"), WATCH: ("!", "look at this"), BAD: ("✗", "bad"), UNKNOWN: ("·", "no verdict")}
# Circumstances that a number may well depend on, and so a difference worth to be shown.
TOLD = ("dataset", "epochs", "max_steps", "warm_start", "early_stopping")
CLASSES_NAMED = 20  # in the legend of a map


class Maps(NamedTuple):
    """The Maps of all runs on the same pictures, by the number of the run, and their Banks."""

    pictures: PictureSet
    maps: dict
    banks: dict


def page_of(runs, pictures=5000):
    """Returns the page on `runs`, `PastRun`s, as HTML.

    pictures: how many may be on its maps in all; data sets share them. 0: no maps, and no networks (TensorFlow) are
    loaded to find the nearest training pictures of evaluation pictures.
    """
    banks = _banks(runs)
    histograms = {number: histograms_of(bank) for number, bank in banks.items()}
    return render(
        runs,
        histograms={number: found for number, found in histograms.items() if found},
        maps=_maps(runs, banks, pictures) if pictures else [],
        sheets=_sheets(runs, banks) if pictures else {},
        without_pictures=not pictures,
    )


def render(runs, histograms=None, maps=(), sheets=None, without_pictures=False):
    """Returns the page as HTML of what was found out about `runs`, `PastRun`s.

    By the number of the run: histograms (`page_figures.densities`), sheets (a Sheet, or why there is none); maps: a
    Maps for each set of pictures. without_pictures: they were not asked for.
    """
    histograms, sheets = histograms or {}, sheets or {}
    curves = page_figures.curves([(run.name, run.epochs) for run in runs])
    figures = {f"curve-{name}": plot for name, plot in curves.items()}
    if histograms:
        figures["densities"] = page_figures.densities(histograms)
    shown = {}
    for group in maps:
        source = page_figures.map_source(group.pictures, group.maps)
        for number in group.maps:
            target = f"neighbors-{number}"
            figures[f"map-{number}"] = page_figures.embedding_map(source, number, target)
            about = _about(group.pictures, group.banks[number])
            shown[number] = {"target": target, "about": about, "classes": _legend(group.pictures)}
    untrained, records = untrained_knn(runs), results.read([run.folder for run in runs if run.records])
    return pages.render(
        "report.html",
        figures,
        curves=[f"curve-{name}" for name in curves],
        runs=runs,
        color=page_figures.color_of,
        signs=SIGNS,
        summaries=[summarize(run, untrained[number], histograms.get(number)) for number, run in enumerate(runs)],
        readings=[readings(run) for run in runs],
        histograms=histograms,
        maps=dict(sorted(shown.items())),
        shared_maps=any(len(group.maps) > 1 for group in maps),
        sheets=sheets,
        without_pictures=without_pictures,
        comparisons=[found for found in (compare(name, records) for name in TABLES) if found.lines],
        records=[(number, record, scores(record)) for number, run in enumerate(runs) for record in run.records],
        trained=[number for number, run in enumerate(runs) if run.trained_here],
        differences=differences(runs),
        configs=_table([run.config for run in runs]),
        versions=_table([run.versions for run in runs]),
        NONE=NONE,
    )


def scores(record):
    """Returns the headline numbers of a line of results.jsonl: {name: share}, of readouts one for each endpoint."""
    found = record["results"]
    flat = {name: found[name] for name in ("top1", "top5", "class_mean", "mAP") if _is_number(found.get(name))}
    for name, part in found.items():
        if isinstance(part, dict) and _is_number(part.get("top1")) and name != "per_class":
            flat[name] = part["top1"]
    return flat


def differences(runs):
    """Returns [(flag, values by run)] of what differs in the identity of `runs`, or in circumstances that are told."""
    kept = [run.identity | {name: run.circumstances.get(name) for name in TOLD} for run in runs if run.trained_here]
    return [(flag, values) for flag, values in _table(kept) if len({*values}) > 1]


def _table(columns):
    """Returns [(key, texts)] of dicts beside each other; NONE where one lacks the key."""
    keys = dict.fromkeys(key for column in columns for key in column)
    return [(key, [_text(key, column[key]) if key in column else NONE for column in columns]) for key in keys]


def _text(key, value):
    if key == "data":
        return str(value)[:12]  # of the pictures' hash
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _banks(runs):
    """Returns the banks of runs by their number, without those of runs that have none."""
    found = {number: read_bank(run.folder) for number, run in enumerate(runs) if run.trained_here}
    return {number: bank for number, bank in found.items() if bank is not None}


def _maps(runs, banks, most):
    """Returns a Maps for each set of pictures, of all runs with a bank; at most `most` pictures in all."""
    by_data = {}
    for number, bank in banks.items():
        by_data.setdefault((runs[number].identity.get("data"), len(bank.rows)), []).append(number)
    made = []
    for (_, size), numbers in by_data.items():
        pictures = open_pictures(runs[numbers[0]], most // len(by_data), size)
        if pictures.problem:
            print(f"{runs[numbers[0]].name}: a map without pictures: {pictures.problem}", file=sys.stderr)
        bar = tqdm(numbers, desc="maps", unit=" map", leave=False)
        found = {number: map_of(banks[number], pictures.rows) for number in bar}
        made.append(Maps(pictures, found, {number: banks[number] for number in numbers}))
    return made


def _about(pictures, bank):
    shown = len(pictures.rows)
    which = f"all {shown:,}" if shown == pictures.size else f"{shown:,} of {pictures.size:,}, drawn at random,"
    text = f"Rows of the memory bank after step {bank.step:,}: {which} training pictures."
    unwritten = int((~bank.written[pictures.rows]).sum())
    if unwritten:
        text += f" {unwritten:,} of them were not seen in training yet and are left out."
    if pictures.problem:
        text += f" The pictures cannot be shown: {pictures.problem}."
    return text


def _legend(pictures):
    if pictures.labels is None or not (pictures.labels >= 0).any():
        return ()
    count = pictures.class_count
    named = dict(sorted(zip(pictures.labels.tolist(), pictures.classes, strict=True)))
    if len(named) > CLASSES_NAMED:
        return ()
    return tuple((title, page_figures.class_colors([label], count)[0]) for label, title in named.items())


def _sheets(runs, banks):
    """Returns the Sheet of every run with a bank by its number, or in a few words why there is none."""
    from la_tf.neighbor_sheets import sheet_of

    made = {}
    for number in tqdm(banks, desc="neighbour sheets", unit=" run", leave=False):
        try:
            made[number] = sheet_of(runs[number].folder)
        except UserError as error:
            made[number] = str(error)
            print(f"{runs[number].name}: no neighbour sheet: {error}", file=sys.stderr)
    return made


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)
