"""The flags of the mains: defined here (the data set's in `data/flags.py`), read here, known nowhere else."""

from dataclasses import fields

from absl import flags

from data import flags as data_flags
from data.errors import FlagError
from la_tf.config import (
    METHODS,
    MODES,
    SCHEDULES,
    STEMS,
    Config,
    MethodConfig,
    ModelConfig,
    OptimizerConfig,
    RunOptions,
)
from models.backbone import BACKBONES

_MODEL, _METHOD, _OPTIMIZER = ModelConfig(), MethodConfig(), OptimizerConfig()
_RUN = RunOptions(model_dir="unset")


def _choices(names):
    return " | ".join(names)


flags.DEFINE_string("model_dir", None, "Where the run lives. The same command on the same folder resumes it.")
flags.DEFINE_string("mode", _RUN.mode, f"{_choices(MODES)}: train alone, follow another process' checkpoints, or both.")
flags.DEFINE_string("method", _METHOD.method, f"{_choices(METHODS)}.")

flags.DEFINE_string("backbone", _MODEL.backbone, f"Architecture: {_choices(BACKBONES)}.")
flags.DEFINE_integer("width", _MODEL.width, "Channels after the first convolution; 64 is the standard network.")
flags.DEFINE_integer("resnet_version", _MODEL.resnet_version, "2: pre-activation, as the authors used; 1: the classic.")
flags.DEFINE_string("stem", _MODEL.stem, f"{_choices(STEMS)}: auto takes `small` (3x3, no pooling) up to 64 px.")
flags.DEFINE_boolean("batch_norm", _MODEL.batch_norm, "Batch normalisation.")
flags.DEFINE_integer("embedding_dim", _MODEL.embedding_dim, "D, the length of an embedding.")
flags.DEFINE_list(
    "pixel_mean", None, "Mean of R, G, B in [0, 1] that the network subtracts. Default: ImageNet's; digits' own."
)
flags.DEFINE_list(
    "pixel_std", None, "Deviation of R, G, B that the network divides by. Default: ImageNet's; digits' own."
)

flags.DEFINE_float("tau", _METHOD.tau, "tau, the temperature of every softmax and of the kNN votes.")
flags.DEFINE_float("bank_momentum", _METHOD.bank_momentum, "t, the weight of the new embedding in a bank row.")
flags.DEFINE_integer("background_k", None, "k, the number of background neighbours. Default: follows N.")
flags.DEFINE_integer("clusterings", _METHOD.clusterings, "H, the number of clusterings whose union is C_i.")
flags.DEFINE_integer("clusters", None, "m, the number of clusters of each clustering. Default: follows N (N/m = 43).")
flags.DEFINE_integer("warmup_epochs", _METHOD.warmup_epochs, "Epochs of Instance Recognition before LA begins.")

flags.DEFINE_float(
    "learning_rate",
    _OPTIMIZER.learning_rate,
    "For the global batch; in proportion to it when you change --batch_size.",
)
flags.DEFINE_float("momentum", _OPTIMIZER.momentum, "Of the optimizer.")
flags.DEFINE_float(
    "weight_decay", _OPTIMIZER.weight_decay, "lambda; the loss gains lambda/2 times the squared kernels."
)
flags.DEFINE_string("schedule", _OPTIMIZER.schedule, f"{_choices(SCHEDULES)} of the learning rate.")
flags.DEFINE_integer("patience", _OPTIMIZER.patience, "Epochs without a better monitor before `plateau` drops (x0.1).")
flags.DEFINE_list("drop_epochs", [], "Epochs before which `steps` drops the rate (x0.1), e.g. 160,190.")

flags.DEFINE_integer("epochs", _RUN.epochs, "Passes over the data, the warm start included.")
flags.DEFINE_integer("max_steps", None, "Stops after so many steps, whatever --epochs says.")
flags.DEFINE_integer("seed", _RUN.seed, "Of weights, bank, order, augmentation and clusters.")
flags.DEFINE_integer(
    "early_stopping", _RUN.early_stopping, "Ends after so many epochs without a better monitor; 0: never."
)
flags.DEFINE_integer("checkpoint_steps", _RUN.checkpoint_steps, "Checkpoints every so many steps besides every epoch.")
flags.DEFINE_integer("keep", _RUN.keep, "How many checkpoints to keep.")
flags.DEFINE_integer("log_steps", _RUN.log_steps, "Metrics every so many steps besides every epoch.")
flags.DEFINE_boolean(
    "deterministic", _RUN.deterministic, "Deterministic kernels: slower, bit-identical on one machine."
)
flags.DEFINE_string(
    "warm_start", None, "A model_dir whose weights, and bank if its pictures are the same, a new run starts from."
)
flags.DEFINE_list("exporters", list(_RUN.exporters), "Any of latest, best, final.")


def config() -> Config:
    """Reads all flags into a validated Config; raises FlagError naming the flag that is wrong."""
    return Config(
        data=data_flags.data_config(),
        model=_read(ModelConfig, pixel_mean=_numbers("pixel_mean", float), pixel_std=_numbers("pixel_std", float)),
        method=_read(MethodConfig),
        optimizer=_read(OptimizerConfig, drop_epochs=_numbers("drop_epochs", int)),
        run=_read(RunOptions, exporters=tuple(flags.FLAGS["exporters"].value)),
    )


def _read(kind, **given):
    return kind(**{field.name: flags.FLAGS[field.name].value for field in fields(kind)} | given)


def _numbers(name, kind):
    values = flags.FLAGS[name].value
    try:
        return None if values is None else tuple(kind(value) for value in values)
    except ValueError:
        wanted = "whole numbers like 160,190" if kind is int else "numbers like 0.5,0.5,0.5"
        raise FlagError(f"--{name}={','.join(values)}: give {wanted}") from None
