"""What the processes of a run tell each other between steps, as NumPy arrays: sums and concatenations. No TensorFlow.

Every call is collective: all processes make the same ones in the same order.
"""

import json
import os

from data.errors import FlagError

TF_CONFIG = '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'


class Alone:
    """The only process of a run."""

    count = 1  # of the processes
    index = 0  # of this one, in the order of the rows that they own

    def sum(self, array):
        """Returns the sum of all processes' `array`, of one shape everywhere."""
        return array

    def gather(self, array):
        """Returns all processes' arrays behind each other along axis 0; lengths may differ."""
        return array


ALONE = Alone()


def task():
    """Returns the number of this process and how many there are; raises FlagError as `workers` does."""
    addresses, number = workers()
    return number, len(addresses)


def workers():
    """Returns the addresses of all processes, HOST:PORT, and the number of this one, as TF_CONFIG has them.

    Raises FlagError where it does not.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        raise FlagError(
            "--strategy=multiworker: TF_CONFIG is not set; start the processes by python -m la_tf.launch, or set it"
        )
    try:
        config = json.loads(text)
        kind, number, addresses = config["task"]["type"], int(config["task"]["index"]), config["cluster"]["worker"]
        if kind != "worker" or {*config["cluster"]} != {"worker"} or not 0 <= number < len(addresses):
            raise ValueError(f"{kind} {number} of {len(addresses)}")
        for address in addresses:
            int(address.rsplit(":", 1)[1])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise FlagError(f"--strategy=multiworker: TF_CONFIG is not of the form {TF_CONFIG} ({error})") from None
    return addresses, number
