"""The flags of the mains: defined here (the data set's in `data/flags.py`), read here, known nowhere else."""

from dataclasses import fields

from absl import flags

from data import flags as data_flags
from data.errors import FlagError
from la_tf.config import (
    BACKGROUND_SEARCHES,
    BACKGROUNDS,
    BANK_DTYPES,
    BANK_SHARDINGS,
    CLOSE,
    CLUSTER_ON,
    CLUSTERINGS,
    DC_HEADS,
    IR_LOSSES,
    METHODS,
    MODES,
    NOISE_NORMALIZERS,
    OPTIMIZERS,
    SCHEDULES,
    STEMS,
    STRATEGIES,
    Config,
    MethodConfig,
    ModelConfig,
    OptimizerConfig,
    RunOptions,
)
from la_tf.model_dir import check_utf8
from la_tf.specs import ON_NAN
from models.backbone import BACKBONES
from models.precision import PRECISIONS

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
flags.DEFINE_boolean("batch_norm", _MODEL.batch_norm, "Batch normalisation, by the network's rule.")
flags.DEFINE_list(
    "alexnet_channels", None, "Of AlexNet's five convolutions. Default: 64,192,384,384,256; DeepCluster's 96,256,..."
)
flags.DEFINE_boolean("sobel", _MODEL.sobel, "The network sees horizontal and vertical edges instead of colours (dc).")
flags.DEFINE_integer(
    "embedding_dim",
    None,
    "D, the length of an embedding; dc: what features are whitened to, at most half of them. Default: 128; 256.",
)
flags.DEFINE_list(
    "pixel_mean", None, "Mean of R, G, B in [0, 1] that the network subtracts. Default: ImageNet's; digits' own."
)
flags.DEFINE_list(
    "pixel_std", None, "Deviation of R, G, B that the network divides by. Default: ImageNet's; digits' own."
)

flags.DEFINE_string(
    "precision",
    _MODEL.precision,
    f"{_choices(PRECISIONS)}: of the backbone in training. Weights, embeddings, bank, loss and exports are float32.",
)

flags.DEFINE_float("tau", None, "tau, the temperature of every softmax and of the kNN votes. Default: 0.07; swav 0.1.")
flags.DEFINE_float("bank_momentum", _METHOD.bank_momentum, "t, the weight of the new embedding in a bank row.")
flags.DEFINE_string(
    "bank_dtype", _METHOD.bank_dtype, f"{_choices(BANK_DTYPES)}: what bank rows are stored in, not computed in."
)
flags.DEFINE_string(
    "ir_loss", None, f"ir, la: {_choices(IR_LOSSES)} over the N images. Default: softmax up to N = 100,000, else nce."
)
flags.DEFINE_integer("noise_rows", None, "ir, la: noise rows drawn for each image by nce. Default: 4096; follows N.")
flags.DEFINE_string(
    "noise_normalizer",
    _METHOD.noise_normalizer,
    f"ir, la: {_choices(NOISE_NORMALIZERS)}: nce's Z is estimated once, as published, or all the time.",
)
flags.DEFINE_integer("warmup_epochs", _METHOD.warmup_epochs, "la: epochs of Instance Recognition before LA begins.")
flags.DEFINE_string(
    "background",
    _METHOD.background,
    f"la: {_choices(BACKGROUNDS)}: B_i is the k nearest rows, all rows, or the union of clusters of its own.",
)
flags.DEFINE_integer("background_k", None, "la: k, the number of background neighbours. Default: follows N.")
flags.DEFINE_string(
    "background_search",
    _METHOD.background_search,
    f"la: {_choices(BACKGROUND_SEARCHES)}: B_i is looked for in the whole bank, or in the cells near the image: for N "
    "past ten million.",
)
flags.DEFINE_integer("cells", None, "la: of the search in cells, into how many the bank is parted. Default: 4 sqrt(N).")
flags.DEFINE_integer(
    "visited_rows", None, "la: of the search in cells, how many rows those hold that an image visits. Default: 64 k."
)
flags.DEFINE_integer(
    "background_clusterings", _METHOD.background_clusterings, "la: clusterings behind --background=cluster."
)
flags.DEFINE_integer(
    "background_clusters", None, "la: clusters in each of them. Default: as many as make B_i about k rows."
)
flags.DEFINE_string(
    "close",
    _METHOD.close,
    f"la: {_choices(CLOSE)}: C_i is the union of H clusters, the image alone, or its k' nearest rows.",
)
flags.DEFINE_integer("close_k", None, "la: k' of --close=knn. Default: what a cluster holds, N/m, or half of B_i.")
flags.DEFINE_integer(
    "clusterings", _METHOD.clusterings, "la: H, the number of clusterings whose union is C_i (dbscan: one)."
)
flags.DEFINE_integer("clusters", None, "la: m, the clusters of each clustering; dc: its classes. Default: follows N.")
flags.DEFINE_string(
    "cluster_on", _METHOD.cluster_on, f"la: {_choices(CLUSTER_ON)}: the bank, or fresh embeddings of centre crops."
)
flags.DEFINE_string(
    "cluster_every",
    None,
    "la, dc: how often clusters are renewed, e.g. 1epoch or 1000steps. Default: 1epoch; dc at least 100 steps.",
)
flags.DEFINE_string(
    "clustering", _METHOD.clustering, f"la: {_choices(CLUSTERINGS)} for C_i (dbscan: of scikit-learn, for small N)."
)
flags.DEFINE_float("dbscan_eps", _METHOD.dbscan_eps, "la: DBSCAN's radius, a distance between unit vectors.")
flags.DEFINE_integer(
    "dbscan_min_samples", _METHOD.dbscan_min_samples, "la: images within the radius that make a core of a cluster."
)
flags.DEFINE_integer(
    "warm_iterations",
    None,
    "la: iterations of k-means from the last clustering; 0: 20 from nothing. Default: 5; 0 below N = 5,000.",
)
flags.DEFINE_integer(
    "cluster_sample",
    _METHOD.cluster_sample,
    "la: images a cluster that k-means learns from, drawn anew each time; 0: all. All are assigned in any case.",
)
flags.DEFINE_boolean(
    "cluster_in_background",
    _METHOD.cluster_in_background,
    "la: clusters are found while training goes on with the last ones, for the next time they are due.",
)
flags.DEFINE_string(
    "dc_head",
    None,
    f"dc: {_choices(DC_HEADS)}: the class layer alone, or two hidden layers first. Default: b up to ResNet-34.",
)
flags.DEFINE_integer("head_units", None, "dc: units of a hidden layer of head b. Default: 4096 on ImageNet; follows N.")
flags.DEFINE_integer("small_views", None, "swav: small views beside the two large. Default: 6; none up to 64 px.")
flags.DEFINE_integer(
    "projection_units", None, "swav: hidden units of the projection. Default: the backbone's channels."
)
flags.DEFINE_integer("prototypes", None, "swav: prototypes. Default: 3,000 on ImageNet, in proportion to sqrt(N).")
flags.DEFINE_float("sinkhorn_epsilon", _METHOD.sinkhorn_epsilon, "swav: softness of the codes; lower it on collapse.")
flags.DEFINE_integer("sinkhorn_iterations", _METHOD.sinkhorn_iterations, "swav: iterations that balance the codes.")
flags.DEFINE_integer(
    "queue", None, "swav: embeddings of earlier batches that help to balance. Default: 0 if a batch holds enough."
)
flags.DEFINE_integer("queue_from_epoch", _METHOD.queue_from_epoch, "swav: the queue fills from this epoch on.")
flags.DEFINE_float(
    "frozen_prototype_epochs", _METHOD.frozen_prototype_epochs, "swav: epochs before the prototypes begin to learn."
)

flags.DEFINE_string("optimizer", _OPTIMIZER.optimizer, f"{_choices(OPTIMIZERS)}.")
flags.DEFINE_float("trust", _OPTIMIZER.trust, "Of lars: length of a step by the length of the weights.")
flags.DEFINE_float(
    "learning_rate",
    _OPTIMIZER.learning_rate,
    "For the global batch; in proportion to it when you change --batch_size.",
)
flags.DEFINE_float(
    "learning_rate_warmup",
    _OPTIMIZER.learning_rate_warmup,
    "Epochs in which the rate rises from a sixteenth before the cosine begins.",
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
flags.DEFINE_string(
    "on_nan",
    _RUN.on_nan,
    f"{_choices(ON_NAN)} at a loss that is no number: ends, or goes on from the last checkpoint at half the learning "
    "rate, three times at most.",
)
flags.DEFINE_boolean(
    "deterministic", _RUN.deterministic, "Deterministic kernels: slower, bit-identical on one machine."
)
flags.DEFINE_boolean(
    "xla", _RUN.xla, "XLA compiles the network's passes in training. On a CPU oneDNN, the default, has been faster."
)
flags.DEFINE_string(
    "strategy",
    _RUN.strategy,
    f"{_choices(STRATEGIES)}: one device; several of this machine; those of several processes (TF_CONFIG, or "
    "la_tf.launch). Each takes its part of every batch.",
)
flags.DEFINE_integer(
    "replicas", None, "Of mirrored: how many devices. Default: every GPU; without one, the CPU is divided by it."
)
flags.DEFINE_string(
    "bank_sharding",
    _RUN.bank_sharding,
    f"{_choices(BANK_SHARDINGS)}: whether every replica has the whole memory bank and its clusters, or a part of them.",
)
flags.DEFINE_boolean(
    "sync_batch_norm", _RUN.sync_batch_norm, "Batch norm over the batches of all replicas instead of each its own."
)
flags.DEFINE_string(
    "warm_start", None, "A model_dir whose weights, and bank if its pictures are the same, a new run starts from."
)
flags.DEFINE_list("exporters", list(_RUN.exporters), "Any of latest, best, final.")
flags.DEFINE_integer(
    "board_updates",
    _RUN.board_updates,
    "How often in a run TensorBoard gets neighbours and histograms of similarities; 0: never.",
)
flags.DEFINE_boolean(
    "plan", False, "Says what the run would take in memory and time, from a minute's measurements; writes nothing."
)
flags.DEFINE_integer("plan_size", None, "Of --plan: N, where the pictures at hand are a sample. Default: all of them.")


flags.DEFINE_integer(
    "plan_replicas", None, "Of --plan: how many devices, where there are fewer here. Default: as --strategy says."
)


def config() -> Config:
    """Reads all flags into a validated Config; raises FlagError naming the flag that is wrong."""
    check_utf8("model_dir", flags.FLAGS["model_dir"].value or "")
    return Config(
        data=data_flags.data_config(),
        model=_read(
            ModelConfig,
            pixel_mean=_numbers("pixel_mean", float),
            pixel_std=_numbers("pixel_std", float),
            alexnet_channels=_numbers("alexnet_channels", int),
        ),
        method=_read(MethodConfig),
        optimizer=_read(OptimizerConfig, drop_epochs=_numbers("drop_epochs", int)),
        run=_read(RunOptions, exporters=tuple(flags.FLAGS["exporters"].value)),
    )


def plan() -> bool:
    """Returns whether the run is to be planned and not started; raises FlagError for what goes with --plan alone."""
    planned = flags.FLAGS["plan"].value
    for name in ("plan_size", "plan_replicas"):
        value = flags.FLAGS[name].value
        if value is not None and not planned:
            raise FlagError(f"--{name}={value}: goes with --plan alone")
        if value is not None and value < 1:
            raise FlagError(f"--{name}={value}: must be at least 1")
    return planned


def plan_sizes() -> dict:
    """Returns the N and the R to plan for, None for those of the data set and of --strategy."""
    return {"size": flags.FLAGS["plan_size"].value, "replicas": flags.FLAGS["plan_replicas"].value}


def _read(kind, **given):
    return kind(**{field.name: flags.FLAGS[field.name].value for field in fields(kind)} | given)


def _numbers(name, kind):
    values = flags.FLAGS[name].value
    try:
        return None if values is None else tuple(kind(value) for value in values)
    except ValueError:
        wanted = "whole numbers like 160,190" if kind is int else "numbers like 0.5,0.5,0.5"
        raise FlagError(f"--{name}={','.join(values)}: give {wanted}") from None
