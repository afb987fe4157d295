"""When a loss was no number first, and of which pictures: by the time it is noticed all later ones are none either."""

import tensorflow as tf

NAMED = 5  # pictures of the step that are remembered


class FirstFailure:
    """Remembers a step and pictures of it. Not in checkpoints: of a run whose loss is no number there are none.

    replicas are a `la_tf.replicas.Replicas`.
    """

    def __init__(self, replicas):
        self._replicas = replicas
        one = {"dtype": tf.int64, "trainable": False, "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA}
        self._step = tf.Variable(-1, **one)
        self._rows = tf.Variable([-1] * NAMED, **one)

    def note(self, losses, indices, counted, step):
        """Takes in the `losses` `[B]` at `step` of pictures `indices` `[B]`; those that are `counted` `[B]` bool."""
        failed = counted & ~tf.math.is_finite(losses)
        rows = _first(tf.cast(indices, tf.int64), failed)
        if self._replicas.count > 1:
            rows = self._replicas.gather(rows)
            rows = _first(rows, rows >= 0)
        first = (self._step < 0) & (rows[0] >= 0)
        self._step.assign(tf.where(first, tf.cast(step, tf.int64), self._step))
        self._rows.assign(tf.where(first, rows, self._rows))

    def read(self):
        """Returns the step, from 1, and up to NAMED pictures whose loss was no number then; None if there is none."""
        step = int(self._step.numpy())
        return None if step < 0 else (step + 1, [int(row) for row in self._rows.numpy() if row >= 0])

    def forget(self):
        """Starts anew."""
        self._step.assign(-1)
        self._rows.assign([-1] * NAMED)


def _first(rows, wanted):
    """Returns the first NAMED of `rows` `[n]` int64 that are `wanted` `[n]` bool, -1 where there are fewer."""
    found = tf.boolean_mask(rows, wanted)[:NAMED]
    return tf.ensure_shape(tf.pad(found, [[0, NAMED - tf.size(found)]], constant_values=-1), [NAMED])
