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
    """Of all runs on the same pictures, by the number of the run: their Maps, and what is said `about` each."""

    pictures: PictureSet
    maps: dict
    about: dict


def page_of(runs, pictures=5000):
    """Returns the page on `runs`, `PastRun`s, as HTML.

    pictures: how many may be on its maps in all; data sets share them. 0: no maps, and no networks (TensorFlow) are
    loaded to find the nearest training pictures of evaluation pictures.
    """
    with_checkpoint = [number for number, run in enumerate(runs) if run.trained_here and run.step]
    sets = len({runs[number].identity.get("data") for number in with_checkpoint})
    histograms, maps, with_bank = {}, {}, []
    for number in tqdm(with_checkpoint, desc="memory banks", unit=" run", leave=False):
        bank = read_bank(runs[number].folder)  # of one run at a time: it may be large
        if bank is None:
            continue
        with_bank.append(number)
        if found := histograms_of(bank):
            histograms[number] = found
        if pictures:
            _add_map(maps, runs, number, bank, pictures // sets)
    sheets = _sheets(runs, with_bank) if pictures else {}
    return render(runs, histograms, list(maps.values()), sheets, without_pictures=not pictures)


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
            shown[number] = {"target": target, "about": group.about[number], "classes": _legend(group.pictures)}
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
    """Returns the headline numbers of a line of results.jsonl: {name: share}.

    Of readouts one for each endpoint, of fine-tuning one for each share of the labels and each beginning.
    """
    found = record["results"]
    flat = {name: found[name] for name in ("top1", "top5", "class_mean", "mAP") if _is_number(found.get(name))}
    parts = {name: part for name, part in found.items() if isinstance(part, dict) and name != "per_class"}
    if record["protocol"] == "finetune":
        parts = {f"{share}% {name}": part[name] for share, part in parts.items() for name in ("pretrained", "scratch")}
    return flat | {name: part["top1"] for name, part in parts.items() if _is_number(part.get("top1"))}


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


def _add_map(maps, runs, number, bank, most):
    """Adds the map of a run to those on the same pictures: `maps`, Maps by data set; at most `most` pictures each."""
    data = runs[number].identity.get("data")
    if data not in maps:
        same = [run for run in runs if run.identity.get("data") == data]
        maps[data] = Maps(_first_that_opens(same, most, len(bank.rows)), {}, {})
        if problem := maps[data].pictures.problem:
            print(f"{runs[number].name}: a map without pictures: {problem}", file=sys.stderr)
    pictures, found, about = maps[data]
    found[number], about[number] = map_of(bank, pictures.rows), _about(pictures, bank)


def _first_that_opens(runs, most, size):
    """Returns the PictureSet of runs on the same pictures: one of them may know where these lie now."""
    tried = []
    for run in runs:
        tried.append(open_pictures(run, most, size))
        if not tried[-1].problem:
            return tried[-1]
    return tried[0]


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


def _sheets(runs, numbers):
    """Returns the Sheets of the runs of these `numbers` by number, or in a few words why there is none."""
    from la_tf.neighbor_sheets import sheet_of

    made = {}
    for number in tqdm(numbers, desc="neighbour sheets", unit=" run", leave=False):
        try:
            made[number] = sheet_of(runs[number].folder)
        except UserError as error:
            made[number] = str(error)
            print(f"{runs[number].name}: no neighbour sheet: {error}", file=sys.stderr)
    return made


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)
