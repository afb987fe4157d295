"""Looks through one's own pictures: python -m la_tf.browse --export=E --source=folder:PATH --out=DIR

DIR/index.html, one page that opens from disk: near-duplicates, outliers, clusters, an interactive map. Beside it
duplicates.csv, outliers.csv and clusters.csv name all that the page has no room for; embeddings/ is what la_tf.embed
makes, with bad_images.csv, the pictures that could not be read. The same command goes on where it was stopped; with
other --clusters, --outliers, --pictures or --duplicate_likeness it makes the page anew of the same embeddings.
"""

import csv
import io
import tempfile
from pathlib import Path

from absl import flags

from data import cli
from data.errors import FlagError, UserError
from la_tf import embedded_pictures, model_dir, source_flags

NAMES = ("out", "clusters", "duplicate_likeness", "outliers", "pictures")

flags.DEFINE_string("out", None, "The folder of the page.")
flags.DEFINE_integer("clusters", None, "Clusters (k-means). Default: sqrt(N / 2), at most 100.")
flags.DEFINE_float("duplicate_likeness", 0.85, "Correlation of patterns from which on two are near-duplicates.")
flags.DEFINE_integer("outliers", 40, "Outliers to show.")
flags.DEFINE_integer("pictures", 5000, "Pictures on the map; 0: a page without a map.")


def main():
    """Embeds what is not embedded yet, looks through it and writes the page; returns what was found."""
    value = source_flags.values(*NAMES, required=("export", "source", "out"))
    check(value)
    split = embedded_pictures.open_source(value["source"], value["split"], value["options"])
    embedded_pictures.weights_of(value["export"])  # a missing export is told at once
    out = Path(value["out"])
    make_folder(out)  # a place that cannot be written, too
    cli.load_tensorflow()
    from la_tf import browse_page, pile
    from la_tf.export_embedder import ExportEmbedder

    how = {name: value[name] for name in ("batch_size", "workers", "options")}
    embedded = ExportEmbedder(value["export"]).embed(split, out / "embeddings", **how)
    rows = embedded.rows
    if len(rows) < 2:
        raise UserError(f"--source={value['source']}: one picture can be read; there is nothing to compare it with")
    if (value["clusters"] or 1) > len(rows):
        raise FlagError(f"--clusters={value['clusters']}: there are {len(rows)} pictures; take fewer")
    pictures = browse_page.Pictures(split, embedded.names)
    least = value["duplicate_likeness"]
    found = pile.look_through(rows, *pictures.small(), pictures.folder_of, least, value["outliers"], value["clusters"])
    same = browse_page.copies(pictures, found)
    bad = embedded.description["bad"]
    page = browse_page.page_of(value["source"], pictures, found, rows, same, least, value["pictures"], bad)
    write_tables(out, pictures, found, same)
    model_dir.write_text(out / "index.html", page)
    return {
        "page": str(out / "index.html"),
        "pictures": len(rows),
        "bad": bad,
        "near_duplicates": sum(len(group) for group in found.duplicates),
        "groups": len(found.duplicates),
        "same_file": len(same),
        "clusters": len(found.clusters),
    }


def check(value):
    """Raises FlagError for a flag that is wrong."""
    for name, least in (("clusters", 1), ("outliers", 0), ("pictures", 0)):
        if value[name] is not None and value[name] < least:
            raise FlagError(f"--{name}={value[name]}: must be at least {least}")
    if not 0 < value["duplicate_likeness"] <= 1:
        raise FlagError(f"--duplicate_likeness={value['duplicate_likeness']}: must be above 0 and at most 1")


def make_folder(out):
    """Makes the folder of the page; raises UserError where it cannot be made, or written to."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written ({error.strerror}); choose another") from None


def write_tables(out, pictures, found, same):
    """Writes the CSV files beside the page."""
    duplicates = (
        (number + 1, pictures.location(row), f"{found.likeness[row]:.4f}")
        + ((pictures.location(same[row]),) if row in same else ("",))
        for number, group in enumerate(found.duplicates)
        for row in group
    )
    outliers = ((pictures.location(row), f"{found.similarities[row]:.4f}") for row in found.outliers)
    clusters = (
        (number + 1, pictures.location(row)) for number, each in enumerate(found.clusters) for row in each.members
    )
    write_table(out / "duplicates.csv", ("group", "name", "likeness", "same_file_as"), duplicates)
    write_table(out / "outliers.csv", ("name", "similarity_to_10th"), outliers)
    write_table(out / "clusters.csv", ("cluster", "name"), clusters)


def write_table(path, head, lines):
    """Writes a CSV file, whole or not at all."""
    text = io.StringIO()
    csv.writer(text).writerows([head, *lines])
    model_dir.write_text(path, text.getvalue())


if __name__ == "__main__":
    cli.run(main, resumes=True)
