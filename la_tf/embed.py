"""Embeds pictures by an export: python -m la_tf.embed --export=E --source=folder:PATH --out=DIR

DIR gets embeddings.npy, float32 [n, D] unit rows; names.jsonl, their names, a JSON string a line; bad_images.csv, the
pictures that could not be read, which have no row; embed.json, what it was made of. It appears when it is whole. The
same command goes on where it was stopped. Pictures are seen as in evaluation: whole, then their centre.
"""

from absl import flags

from data import cli
from data.config import DataConfig
from la_tf import embedded_pictures

_DATA = DataConfig()

flags.DEFINE_string("export", None, "The export: a folder of la_tf.train, la_tf.export or la_tf.import_weights.")
flags.DEFINE_string("source", None, "The pictures: folder:PATH takes all below PATH; or another form of --dataset.")
flags.DEFINE_string("split", None, "train | test | all. Default: all pictures of a folder; to be chosen elsewhere.")
flags.DEFINE_string("out", None, "The folder to make.")
flags.DEFINE_integer("batch_size", _DATA.batch_size, "Pictures that are embedded at once.")
flags.DEFINE_integer("workers", _DATA.workers, "Parallel calls of the input pipeline; 0 chooses by itself.")


def main():
    """Embeds what is not embedded yet; returns where it is and how much."""
    export, source, split, out, batch_size, workers = (
        flags.FLAGS[name].value for name in ("export", "source", "split", "out", "batch_size", "workers")
    )
    examples = {
        "export": "runs/mine/export/final/1700000000",
        "source": "folder:holiday",
        "out": "embeddings/holiday",
    }
    for name, example in examples.items():
        if not flags.FLAGS[name].value:
            raise cli.FlagError(f"--{name}: is not set; e.g. --{name}={example}")
    DataConfig(batch_size=batch_size, workers=workers)  # checks them
    pictures = embedded_pictures.open_source(source, split)
    embedded_pictures.weights_of(export)  # a missing export is told at once
    cli.load_tensorflow()
    from la_tf.export_embedder import ExportEmbedder

    embedded = ExportEmbedder(export).embed(pictures, out, batch_size=batch_size, workers=workers)
    found = {name: embedded.description[name] for name in ("rows", "dimension", "bad")}
    return {"out": str(embedded.folder), "pictures": pictures.size, **found}


if __name__ == "__main__":
    cli.run(main, resumes=True)
