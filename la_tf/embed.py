"""Embeds pictures by an export: python -m la_tf.embed --export=E --source=folder:PATH --out=DIR

DIR gets embeddings.npy, float32 [n, D] unit rows; names.jsonl, their names, a JSON string a line; bad_images.csv, the
pictures that could not be read, which have no row; embed.json, what it was made of. It appears when it is whole. The
same command goes on where it was stopped. Pictures are seen as the export's signature `embed_bytes` sees them.
"""

from absl import flags

from data import cli
from la_tf import embedded_pictures, source_flags

flags.DEFINE_string("out", None, "The folder to make.")


def main():
    """Embeds what is not embedded yet; returns where it is and how much."""
    value = source_flags.values("out", required=("export", "source", "out"))
    pictures = embedded_pictures.open_source(value["source"], value["split"], value["options"])
    embedded_pictures.weights_of(value["export"])  # a missing export is told at once
    cli.load_tensorflow()
    from la_tf.export_embedder import ExportEmbedder

    how = {name: value[name] for name in ("batch_size", "workers", "options")}
    embedded = ExportEmbedder(value["export"]).embed(pictures, value["out"], **how)
    found = {name: embedded.description[name] for name in ("rows", "dimension", "bad")}
    return {"out": str(embedded.folder), "pictures": pictures.size, **found}


if __name__ == "__main__":
    cli.run(main, resumes=True)
