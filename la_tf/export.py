"""Exports a run's embedder to one folder: python -m la_tf.export --model_dir=runs/quickstart [--step=N] [--out=DIR]

With the memory bank, so that the nearest training pictures can be asked for; --nobank leaves it out.
"""

import sys
import time
from pathlib import Path

from absl import flags

from data import cli, manifest
from data.errors import UserError
from la_tf import checkpoints, model_dir
from la_tf.experiment import stored_config

flags.DEFINE_string("model_dir", None, "The run to export.")
flags.DEFINE_integer("step", None, "The checkpoint to export. Default: the newest.")
flags.DEFINE_string("out", None, "The folder to make. Default: MODEL_DIR/export/manual/<time>.")
flags.DEFINE_boolean("bank", True, "Whether the memory bank (4 D bytes a training picture) is part of it: `nearest`.")
flags.DEFINE_string("licence", None, "Of the weights, for the model card, e.g. CC-BY-4.0. Default: not stated.")


def main():
    """Reads the checkpoint, writes the export; returns where."""
    folder, step, out = (flags.FLAGS[name].value for name in ("model_dir", "step", "out"))
    if not folder:
        raise cli.FlagError("--model_dir: set it to the run to export, e.g. --model_dir=runs/quickstart")
    config = stored_config(folder)
    checkpoint = checkpoints.chosen(folder, step)
    out = Path(out) if out else Path(folder) / "export" / "manual" / str(int(time.time()))
    if out.exists():
        raise UserError(f"--out={out}: exists already; choose a new folder")
    model_dir.writable_folder(out.parent)
    cli.load_tensorflow()
    from data.encoded import stored_view
    from la_tf import bundle
    from la_tf.embedding import embedder_for
    from la_tf.serving import Bank
    from models.backbone import describe

    embedder = embedder_for(config)
    checkpoints.fill(embedder.weights, checkpoint)
    state = checkpoints.read_state(checkpoint)
    if flags.FLAGS["bank"].value:
        with checkpoints.read_arrays(checkpoint) as arrays:
            bank = Bank(arrays["memory_bank/rows"], arrays["memory_bank/written"])
    else:
        bank = "left out by --nobank"
    pictures = manifest.read(folder)
    bundle.write(
        out,
        embedder,
        state["step"],
        view=stored_view(pictures, config.data.image_size),
        bank=bank,
        data=manifest.summary(pictures),
        licence=flags.FLAGS["licence"].value,
        metrics=state.get("logs", {}),
        config=model_dir.stored_identity(folder),
    )
    bundle.load_backbone(out)  # what was written can be read, and gives what it gave
    bundle.check_serving(out)
    print(describe(embedder.backbone), file=sys.stderr)
    return {"export": str(out), "step": state["step"]}


if __name__ == "__main__":
    cli.run(main)
