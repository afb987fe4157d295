"""What a finished run is told to have come to. No TensorFlow in here."""

import itertools
from pathlib import Path

from la_tf.model_dir import MetricsFile, folder_entries


def epochs_of(folder):
    """Returns the metrics of the last line of every epoch, in order, with what an evaluator of its own found."""
    by_epoch = {record["epoch"]: record for record in MetricsFile(folder).read("epoch")}
    found = {}
    for evaluation in sorted(Path(folder).glob("eval_*")):
        for record in MetricsFile(evaluation).read():
            found.setdefault(record["step"], {}).update(record)
    return [found.get(record["step"], {}) | record for _, record in sorted(by_epoch.items())]


def newest_export(folder):
    """Returns the newest export of a run, of `final` where there is one; None without exports."""
    for name in ("final", "best", "latest"):
        exports = [path for path in folder_entries(Path(folder) / "export" / name) if path.name.isdigit()]
        if exports:
            return max(exports, key=lambda path: int(path.name))
    return None


def result_of(experiment):
    """Returns the result of a run as a dict: the last line of `la_tf.train`'s output."""
    folder = experiment.config.run.model_dir
    epochs = epochs_of(folder)
    last = epochs[-1] if epochs else {}
    result = {"model_dir": str(folder), "step": last.get("step", 0), "finished": bool(experiment.finished())}
    result |= {key: last[key] for key in ("loss", "knn_top1", "validation_knn_top1") if key in last}
    export = newest_export(folder)
    return result | ({"export": str(export)} if export else {})


def closing_table(experiment):
    """Returns the table that ends a run: last and best kNN, time, where everything lies, what to do next."""
    folder = experiment.config.run.model_dir
    epochs = epochs_of(folder)
    if not epochs:
        return f"{folder}: no epoch has ended yet"
    rows = [("images", f"{experiment.train.size:,} of {experiment.dataset.spec}")]
    rows.append(("steps", f"{epochs[-1]['step']:,} in {len(epochs)} epochs"))
    rows.append(("loss", f"{epochs[-1]['loss']:.4f}"))
    for name, title in (("knn_top1", "kNN, test split"), ("validation_knn_top1", "kNN, validation")):
        known = [record for record in epochs if name in record]
        if known:
            best = max(known, key=lambda record: record[name])
            rows.append((title, f"last {known[-1][name]:.4f}   best {best[name]:.4f} (epoch {best['epoch'] + 1})"))
    if epochs[-1].get("bad_images"):
        rows.append(("bad images", f"{epochs[-1]['bad_images']:,} left out: {Path(folder) / 'bad_images.csv'}"))
    rows.append(("time", _duration(training_seconds(folder, experiment.config.data.batch_size))))
    export = newest_export(folder)
    places = [("run", folder), ("metrics", Path(folder) / "metrics.jsonl"), ("export", export or "none")]
    rows += [(title, str(place)) for title, place in places]
    rows.append(("curves", f"tensorboard --logdir={folder}"))
    if export:
        rows.append(("neighbours", f"python -m la_tf.analyze --model_dir={folder} --figure=neighbors"))
    rows.append(("export again", f"python -m la_tf.export --model_dir={folder}"))
    width = max(len(title) for title, _ in rows)
    rule = "-" * (width + 2 + max(len(text) for _, text in rows))
    return "\n".join([rule, *(f"{title:<{width}}  {text}" for title, text in rows), rule])


def training_seconds(folder, batch_size):
    """Returns the time from the first step to the last metrics line, without pauses of over an hour between lines."""
    records = MetricsFile(folder).read()
    until_first_line = records[0]["step"] * batch_size / records[0]["images_per_s"]
    times = [record["time"] for record in records]
    between_lines = (after - before for before, after in itertools.pairwise(times))
    return until_first_line + sum(seconds for seconds in between_lines if seconds < 3600)


def _duration(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
