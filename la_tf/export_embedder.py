"""Pictures to unit embeddings by an export: whole sources, resumably, and a few files at once."""

import os

import numpy as np
from tqdm import tqdm

from data import encoded, reading
from data.errors import UserError
from data.sources import FileSource, Split
from la_tf import bundle, embedded_pictures, names_file
from la_tf.bad_images import BadImages
from la_tf.embedded_pictures import EmbeddedPictures, EmbeddingFolder


class ExportEmbedder:
    """The `embed` signature of an export, after its self-check: images `[B, S, S, 3]` in [0, 1] -> unit rows `[B, D]`.

    Encoded pictures are seen in `view`, the export's, as its signature `embed_bytes` sees them, whatever lies beside
    them. Raises UserError where the folder is no export, or a damaged one.
    """

    def __init__(self, export):
        description = bundle.read_description(export)
        self.export = os.path.abspath(export)
        self.weights = embedded_pictures.weights_of(export)
        self.view = bundle.view_of(description)
        self.dimension = description["embedding_dim"]
        self._signature = bundle.load_serving(export).signatures["embed"]

    def __call__(self, images):
        return self._signature(images=images)["embedding"]

    def embed(self, split, out, rows=None, batch_size=128, workers=0, scratch=False, options=None):
        """Embeds `rows` (None: all) of a Split into the folder `out`; returns EmbeddedPictures.

        It goes on where another process was stopped; what was embedded from other pictures or by another export is
        refused; with `scratch` it is replaced, and there may be no rows at the end. `options` are those that opened the
        split (`embedded_pictures.open_source`). Raises UserError.
        """
        rows = np.arange(split.size) if rows is None else np.asarray(rows)
        identity = embedded_pictures.identity(self.weights, self.view._asdict(), split, rows)
        folder = EmbeddingFolder(out, identity, self.dimension, scratch)
        if not folder.finished:
            with folder:
                if not folder.finished:  # by another process, in between
                    self._fill(folder, split, rows, batch_size, workers, scratch)
                    bad = set(folder.bad)
                    names = (split.names[row] for row in rows.tolist() if row not in bad)
                    folder.finish(names, self._description(split, options))
        return EmbeddedPictures(out)

    def _fill(self, folder, split, rows, batch_size, workers, scratch):
        bad = BadImages(split, folder.part, max_fraction=1)
        bad.set_state({"rows": folder.bad})
        bad.on_train_begin()  # forgets what was listed after the last batch that is on disk
        batches = encoded.viewed_batches(split, self.view, batch_size, rows[folder.done :], workers)
        with tqdm(total=len(rows), initial=folder.done, desc="embedding", unit="picture") as bar:
            for batch in bad.watch(batches if folder.done < len(rows) else ()):
                valid = batch["valid"].numpy()
                embeddings = self(batch["image"]).numpy()[valid]
                if not np.isfinite(embeddings).all():
                    raise UserError(
                        f"--export={self.export}: gives embeddings that are not finite; export another step"
                    )
                folder.add(embeddings, batch["index"].numpy()[~valid].tolist())
                bar.update(len(valid))
        if not folder.rows and not scratch:
            raise UserError(f"{split}: not one of {len(rows)} pictures can be read; {bad.path} says why")

    def _description(self, split, options):
        root = names_file.root(split)
        source = {"source": split.spec, "split": split.name, "options": options or {}}
        return {"export": self.export, **source, "root": root}

    def embed_files(self, paths):
        """Returns the embeddings `[n, D]` of picture files; raises UserError naming those that cannot be read."""
        split = Split("files", "all", "photo", np.full(len(paths), -1, np.int64), FileSource("", list(paths)))
        problems = [(path, reading.problem(split, row)) for row, path in enumerate(paths)]
        broken = [f"--image={names_file.shown(path)}: {problem}" for path, problem in problems if problem]
        if broken:
            raise UserError("; ".join(broken))
        batches = encoded.viewed_batches(split, self.view, len(paths))
        return np.concatenate([self(batch["image"]).numpy() for batch in batches])
