"""What TensorFlow's errors mean to a user, where they are nobody's mistake: full disks and full memories."""

import re

from data.errors import UserError

_FULL = "No space left on device"


def told(error):
    """Returns a UserError in place of an exception of TensorFlow, None for one that is not of these."""
    import tensorflow as tf

    if not isinstance(error, tf.errors.OpError):
        return None
    if _FULL in error.message:
        path = re.search(r"(/\S+);", error.message)
        where = path[1] if path else "the disk that is written to"
        return UserError(f"{where}: {_FULL}; make room there, and give the same command again")
    if isinstance(error, tf.errors.ResourceExhaustedError):
        tensor = re.search(r"shape\s*\[[\d,]+\]", error.message)
        what = f" (a tensor of {tensor[0]})" if tensor else ""
        return UserError(
            f"out of memory{what}: lower --batch_size, --image_size or --width, or take --precision=mixed_float16 on a "
            "GPU; --plan says what a run takes"
        )
    return None
