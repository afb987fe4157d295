"""Exports a run's detector as a SavedModel: python -m detection.export --model_dir=runs/voc [--step=N] [--out=DIR]

Its signature `detect` takes encoded pictures, image_bytes [B], and needs nothing of this project: see
detection/serving.py.
"""

import sys
import time
from pathlib import Path

from absl import flags

from data import cli
from data.errors import FlagError, UserError

flags.DEFINE_string("model_dir", None, "The run of detection.train to export.")
flags.DEFINE_integer("step", None, "The checkpoint to export. Default: the newest.")
flags.DEFINE_string("out", None, "The folder to make. Default: MODEL_DIR/export/manual/<time>.")


def main():
    """Reads the checkpoint, writes the export; returns where."""
    folder, step, out = (flags.FLAGS[name].value for name in ("model_dir", "step", "out"))
    if not folder:
        raise FlagError("--model_dir: set it to the run to export, e.g. --model_dir=runs/voc")
    out = Path(out) if out else Path(folder) / "export" / "manual" / str(int(time.time()))
    if out.exists():
        raise UserError(f"--out={out}: exists already; choose a new folder")
    cli.load_tensorflow()
    from detection import serving
    from detection.prediction import restored

    experiment, estimator = restored(folder, step)
    description = serving.describe(experiment, estimator.step)
    try:
        serving.write(out, estimator.model, experiment.config.data, description)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written ({error.strerror}); choose another folder") from None
    print(serving.summary(description), file=sys.stderr)
    return {"export": str(out), "step": estimator.step}


if __name__ == "__main__":
    cli.run(main)
