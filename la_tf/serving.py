"""What an export can be asked: the functions behind the signatures of its SavedModel.

embed         images float32 [B, H, W, 3] in [0, 1] -> embedding float32 [B, D], unit rows
embed_bytes   image_bytes string [B], encoded pictures of any sizes -> the same
features      images -> every endpoint of the backbone, float32 [B, h, w, C]
nearest       embedding [B, D], neighbors (n) int32 -> indices int64 [B, n] and similarities float32 [B, n]
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from data import encoded

BLOCK = 16384  # rows of the bank that are compared at a time: for a batch of 128, 8 MB of similarities


class Bank(NamedTuple):
    """The rows of a memory bank `[N, D]` float32, and which of them are `written` `[N]` bool: the others are random."""

    rows: np.ndarray
    written: np.ndarray


def picture_functions(embedder, view):
    """Returns the concrete functions of an embedder by signature; encoded pictures are seen in an `encoded.View`."""
    images = tf.TensorSpec((None, None, None, 3), tf.float32, name="images")
    image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
    function = partial(tf.function, autograph=False)
    embed = function(lambda images: {"embedding": embedder(images, training=False)}, [images])
    features = function(lambda images: embedder.backbone.model(images, training=False), [images])

    def of_bytes(image_bytes):
        count = tf.size(image_bytes)
        blank = tf.cast(count == 0, tf.int32)  # oneDNN's convolutions cannot take a batch of none
        views = tf.pad(encoded.evaluation_views(image_bytes, view), [[0, blank], [0, 0], [0, 0], [0, 0]])
        return {"embedding": embed(views)["embedding"][:count]}

    return {
        "serving_default": embed.get_concrete_function(),
        "embed": embed.get_concrete_function(),
        "embed_bytes": function(of_bytes, [image_bytes]).get_concrete_function(),
        "features": features.get_concrete_function(),
    }


class NearestRows(tf.Module):
    """Finds the rows of a `Bank` that are most similar to embeddings; those that are not written are left out."""

    def __init__(self, bank):
        super().__init__()
        indices = np.flatnonzero(bank.written)
        rows = bank.rows if len(indices) == len(bank.rows) else bank.rows[indices]
        with tf.device("CPU:0"):  # it may be larger than a GPU has room for
            self.rows = tf.Variable(np.asarray(rows, np.float32), trainable=False, name="rows")
            self.indices = tf.Variable(indices.astype(np.int64), trainable=False, name="indices")

    def concrete_function(self):
        """Returns the function of the signature `nearest`."""
        embedding = tf.TensorSpec([None, self.rows.shape[1]], tf.float32, name="embedding")
        neighbors = tf.TensorSpec([], tf.int32, name="neighbors")
        return tf.function(self.nearest, [embedding, neighbors], autograph=False).get_concrete_function()

    def nearest(self, embedding, neighbors):
        """Returns `indices` int64 and `similarities` float32 `[B, n]` of the n rows most similar to each `[B, D]`.

        n is `neighbors`, or the number of rows if that is less. Most similar first, ties to the lowest index. Raises
        tf.errors.InvalidArgumentError for neighbors below 1.
        """
        one = tf.debugging.Assert(neighbors >= 1, ["neighbors: must be at least 1, is", neighbors])
        with tf.device("CPU:0"), tf.control_dependencies([one]):
            similarities, places = self._nearest(embedding, tf.minimum(neighbors, self.rows.shape[0]))
            return {"indices": tf.gather(self.indices, places), "similarities": similarities}

    def _nearest(self, embedding, count):
        """Returns similarities and places in `rows`, `[B, count]`; in memory are those of a block of rows at a time."""
        rows = tf.convert_to_tensor(self.rows)

        def with_a_block(start, similarities, places):
            block = rows[start : start + BLOCK]
            # Turned round the product takes half the time.
            in_block = tf.transpose(tf.matmul(block, embedding, transpose_b=True))
            # Earlier rows stand first, and of equals `top_k` takes the first.
            similarities, order = tf.math.top_k(tf.concat([similarities, in_block], axis=1), count)
            before = tf.gather(places, tf.minimum(order, count - 1), batch_dims=1)
            return start + BLOCK, similarities, tf.where(order < count, before, start + order - count)

        found = [tf.shape(embedding)[0], count]
        _, similarities, places = tf.while_loop(
            lambda start, *_: start < self.rows.shape[0],
            with_a_block,
            (0, tf.fill(found, -np.inf), tf.zeros(found, tf.int32)),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, None]), tf.TensorShape([None, None])),
            parallel_iterations=1,
        )
        return similarities, places
