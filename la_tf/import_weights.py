"""Makes an export of weights that are not ours, which every other command takes as --export.

python -m la_tf.import_weights --source=keras_resnet50 --weights=FILE --out=DIR

keras_resnet50, keras_vgg16   keras.applications' files, legacy .h5, .weights.h5 or .keras (VGG16 with its top)
authors_resnet18              the TensorFlow 1 checkpoint of Local Aggregation's authors, e.g. model.ckpt-2001800

Nothing is downloaded. Networks without an embedding of their own get the mean of the last endpoint, at unit length.
"""

import hashlib
import sys
from pathlib import Path

from absl import flags

from data import cli
from data.errors import FlagError, UserError

SOURCES = ("keras_resnet50", "keras_vgg16", "authors_resnet18")

flags.DEFINE_enum("source", None, SOURCES, "Whose weights these are.")
flags.DEFINE_string("weights", None, "The file with them; of a TensorFlow 1 checkpoint model.ckpt-STEP or its folder.")
flags.DEFINE_string("out", None, "The folder to make.")


def main():
    """Reads the weights, writes the export; returns where."""
    source, weights, out = (flags.FLAGS[name].value for name in ("source", "weights", "out"))
    if not source:
        raise FlagError(f"--source: set it to one of {', '.join(SOURCES)}")
    if not weights:
        raise FlagError("--weights: set it to the file that holds the weights")
    if not out:
        raise FlagError("--out: set it to the folder to make, e.g. --out=runs/keras_resnet50")
    if Path(out).exists():
        raise UserError(f"--out={out}: exists already; choose a new folder")
    found = Path(weights).is_file() or (
        source == "authors_resnet18" and (Path(weights).is_dir() or Path(f"{weights}.index").is_file())
    )
    if not found:
        raise UserError(f"--weights={weights}: no such file")
    cli.load_tensorflow()
    from la_tf import bundle
    from models.backbone import describe

    try:
        embedder, step, unused = read(source, weights)
    except ValueError as error:
        raise UserError(f"--weights={str(error).splitlines()[0]}") from None
    imported = {"source": source, "file": Path(weights).name, "sha256": sha256(files_of(source, weights))}
    try:
        bundle.write(out, embedder, step, bank="these weights came without one", imported=imported)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written ({error.strerror}); choose another folder") from None
    bundle.load_backbone(out)  # what was written can be read, and gives what it gave
    bundle.check_serving(out)
    print(describe(embedder.backbone), file=sys.stderr)
    print(f"{len(embedder.weights)} weights filled; not used: {', '.join(unused) or 'nothing'}", file=sys.stderr)
    return {"export": str(out), "step": step, "unused": len(unused), **imported}


def read(source, weights):
    """Returns (embedder, step, names in the file that are not used); raises ValueError that begins with the file."""
    from la_tf.embedding import build_embedder, embedder_from, pooled
    from models import keras_weights, tf1_weights

    if source == "authors_resnet18":
        found = tf1_weights.resnet18(weights)
        embedder = build_embedder(found.backbone, len(found.embedding[1]))
        embedder.get_layer("embedding").set_weights(found.embedding)
        return embedder, found.step, found.unused
    reader = {"keras_resnet50": keras_weights.resnet50, "keras_vgg16": keras_weights.vgg16}[source]
    backbone, unused = reader(weights)
    return embedder_from(backbone, pooled(backbone)), 0, unused


def files_of(source, weights):
    """Returns the files that hold the weights: the one, or all those of a checkpoint."""
    if source != "authors_resnet18":
        return [Path(weights)]
    from models.tf1_weights import checkpoint_prefix

    prefix = Path(checkpoint_prefix(weights))
    return sorted(path for part in ("index", "data-*") for path in prefix.parent.glob(f"{prefix.name}.{part}"))


def sha256(paths):
    """Returns the SHA-256 of the files' bytes, one after the other, as hex digits."""
    found = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 24):
                found.update(block)
    return found.hexdigest()


if __name__ == "__main__":
    cli.run(main)
