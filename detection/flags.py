"""The flags of the detection mains: defined here, read here, known nowhere else."""

import copy
from dataclasses import fields

from absl import flags

from data.errors import FlagError
from detection import preset_files
from detection.config import (
    BATCH_NORMS,
    INITIALIZATIONS,
    ROI_POOLINGS,
    STRATEGIES,
    DataOptions,
    DetectionConfig,
    DetectorOptions,
    OptimizerOptions,
    RunOptions,
)
from detection.voc_ap import METRICS
from la_tf.model_dir import check_utf8
from la_tf.specs import ON_NAN

_DATA = {field.name: field.default for field in fields(DataOptions)}
_DETECTOR, _OPTIMIZER = DetectorOptions(), OptimizerOptions()
_RUN = {field.name: field.default for field in fields(RunOptions)}


def _joined(values):
    return [f"{value:g}" for value in values]


flags.DEFINE_string(
    "preset",
    None,
    f"{' | '.join(preset_files.names())}: whose flags hold where no others are given. Another --batch_size "
    "or --steps than its own scales its schedule.",
)

flags.DEFINE_string("devkit", None, "Folder that holds VOC2007/ or VOC2012/, an own folder in VOC layout, or tfds:voc.")
flags.DEFINE_string("train_set", _DATA["train_set"], "E.g. 2007_trainval, 2007_trainval+2012_trainval; own: train.")
flags.DEFINE_string("val_set", None, "Set that mAP is measured on while training, e.g. 2007_val. Default: none.")
flags.DEFINE_string("classes_file", None, "Class names of an own data set, one a line. Default: the 20 of VOC.")
flags.DEFINE_integer(
    "box_origin", _DATA["box_origin"], "The number of the first pixel in the files: 1 as in VOC, or 0."
)
flags.DEFINE_string("tfds_data_dir", None, "Where TFDS keeps its data sets. Default: TFDS' own rule.")
flags.DEFINE_list(
    "short_side",
    _joined(_DATA["short_side"]),
    "Px that the shorter side is scaled to; several: one is drawn each time.",
)
flags.DEFINE_integer("long_side", _DATA["long_side"], "Px that the longer side has at most.")
flags.DEFINE_integer("test_short_side", None, "Of evaluation. Default: the last of --short_side.")
flags.DEFINE_boolean("flip", _DATA["flip"], "Every picture comes a second time, mirrored.")
flags.DEFINE_boolean("train_on_difficult", _DATA["train_on_difficult"], "Learn from objects marked as difficult, too.")
flags.DEFINE_integer("batch_size", _DATA["batch_size"], "Pictures a step, all replicas together.")
flags.DEFINE_integer("workers", _DATA["workers"], "Parallel calls of the input pipeline; 0 chooses by itself.")

flags.DEFINE_string("export", None, "The exported backbone to begin from; a run that has begun does not need it.")
flags.DEFINE_string(
    "initialization",
    _RUN["initialization"],
    f"{' | '.join(INITIALIZATIONS)}: the export's weights, or none of them: the control, drawn by --seed.",
)
flags.DEFINE_string(
    "backbone", None, "What the export has to be: alexnet | vgg16 | resnet18 | resnet50 ... Default: any."
)
flags.DEFINE_integer("width", None, "What the export's width has to be. Default: any.")
flags.DEFINE_integer("resnet_version", None, "What the export's ResNet version has to be, 1 or 2. Default: any.")
flags.DEFINE_list("pixel_mean", None, "What the export has to subtract from R, G, B in [0, 1]. Default: anything.")
flags.DEFINE_list("pixel_std", None, "What the export has to divide R, G, B by. Default: anything.")
flags.DEFINE_string(
    "channel_order", None, "What order the export has to want its channels in, RGB or BGR. Default: any."
)

flags.DEFINE_string(
    "freeze_at",
    _DETECTOR.freeze_at,
    "Keeps conv1 to convN as they are; of ResNets conv2 is the first block. A number, or one for each family.",
)
flags.DEFINE_string(
    "batch_norm",
    _DETECTOR.batch_norm,
    f"{' | '.join(BATCH_NORMS)}: statistics of the export, measured before the first step, of a replica, or of all.",
)
flags.DEFINE_boolean("extra_norm", _DETECTOR.extra_norm, "A batch norm behind conv5 of ResNets, as MoCo's detectors.")
flags.DEFINE_float("dropout", None, "Behind fc6 and fc7 of alexnet and vgg16. Default: 0.5.")
flags.DEFINE_list("anchor_scales", _joined(_DETECTOR.anchor_scales), "Sides of the anchors, times 16 px.")
flags.DEFINE_list("anchor_ratios", _joined(_DETECTOR.anchor_ratios), "Heights of the anchors by their widths.")
flags.DEFINE_integer("rpn_channels", _DETECTOR.rpn_channels, "Of the 3x3 convolution of the RPN.")
flags.DEFINE_integer("rpn_batch", _DETECTOR.rpn_batch, "Anchors of a picture that the RPN learns from.")
flags.DEFINE_float("rpn_positive", _DETECTOR.rpn_positive, "IoU from which on an anchor is an object.")
flags.DEFINE_float("rpn_negative", _DETECTOR.rpn_negative, "IoU below which it is none.")
flags.DEFINE_float("rpn_positive_fraction", _DETECTOR.rpn_positive_fraction, "Of --rpn_batch, at most.")
flags.DEFINE_boolean(
    "anchors_across_border",
    _DETECTOR.anchors_across_border,
    "The RPN learns from anchors that reach beyond the picture, too.",
)
flags.DEFINE_float("rpn_beta", _DETECTOR.rpn_beta, "Where the RPN's box loss turns straight; 0: L1.")
flags.DEFINE_float("proposal_iou", _DETECTOR.proposal_iou, "IoU above which the better of two proposals stays.")
flags.DEFINE_integer("proposals_before_nms", None, "Anchors that compete, the best of them. Default: all.")
flags.DEFINE_integer("train_proposals", _DETECTOR.train_proposals, "That are kept in training.")
flags.DEFINE_integer("test_proposals", _DETECTOR.test_proposals, "That are kept in evaluation.")
flags.DEFINE_integer("rois", _DETECTOR.rois, "Proposals of a picture that the head learns from.")
flags.DEFINE_float("roi_foreground_fraction", _DETECTOR.roi_foreground_fraction, "Objects among them, at most.")
flags.DEFINE_float("roi_foreground", _DETECTOR.roi_foreground, "IoU from which on a proposal is an object.")
flags.DEFINE_float("roi_background_low", _DETECTOR.roi_background_low, "IoU from which on it can be background.")
flags.DEFINE_float("roi_beta", _DETECTOR.roi_beta, "Where the head's box loss turns straight; 0: L1.")
flags.DEFINE_boolean("append_truth", _DETECTOR.append_truth, "The true boxes count among the proposals.")
flags.DEFINE_string(
    "roi_pooling", _DETECTOR.roi_pooling, f"{' | '.join(ROI_POOLINGS)}: exact, or tf-faster-rcnn's (half a px off)."
)
flags.DEFINE_integer("roi_side", None, "Of ResNets: 7 (conv5 at stride 1), or 14 (at stride 2). Default: 7.")
flags.DEFINE_float("score_threshold", _DETECTOR.score_threshold, "Detections with a lower score are dropped.")
flags.DEFINE_float("nms_iou", _DETECTOR.nms_iou, "IoU above which the better of two detections of a class stays.")
flags.DEFINE_integer("detections", _DETECTOR.detections, "Of a picture, all classes together, at most.")

flags.DEFINE_float(
    "learning_rate", _OPTIMIZER.learning_rate, "Of a batch: without --preset scale it with --batch_size yourself."
)
flags.DEFINE_list("drop_steps", _joined(_OPTIMIZER.drop_steps), "Steps from which on the rate is a tenth.")
flags.DEFINE_integer("warmup_steps", _OPTIMIZER.warmup_steps, "Steps in which the rate rises from a thousandth.")
flags.DEFINE_float("momentum", _OPTIMIZER.momentum, "Of the gradient descent.")
flags.DEFINE_float(
    "weight_decay", _OPTIMIZER.weight_decay, "lambda; the loss gains lambda/2 times the squared kernels."
)
flags.DEFINE_boolean("double_bias", None, "Biases learn twice as fast. Default: yes; ResNets no.")

flags.DEFINE_string("model_dir", None, "Where the run lives. The same command on the same folder resumes it.")
flags.DEFINE_integer("seed", _RUN["seed"], "Of new weights, order and draws.")
flags.DEFINE_integer("steps", _RUN["steps"], "Length of the run.")
flags.DEFINE_integer("eval_steps", _RUN["eval_steps"], "Steps between two evaluations, each with a checkpoint.")
flags.DEFINE_integer("checkpoint_steps", _RUN["checkpoint_steps"], "Checkpoints every so many steps besides.")
flags.DEFINE_integer("keep", _RUN["keep"], "How many checkpoints to keep; the best by --val_set stays besides.")
flags.DEFINE_integer("log_steps", _RUN["log_steps"], "Metrics every so many steps.")
flags.DEFINE_string(
    "on_nan",
    _RUN["on_nan"],
    f"{' | '.join(ON_NAN)} at a loss that is no number: ends, or goes on from the last checkpoint at half the rate, "
    "three times at most.",
)
flags.DEFINE_string(
    "metric", _RUN["metric"], f"{' | '.join(METRICS)}: AP at 11 points as in VOC 2007, or the area as from 2010 on."
)
flags.DEFINE_integer("drawn_pictures", _RUN["drawn_pictures"], "Of --val_set, with boxes, in TensorBoard.")
flags.DEFINE_integer(
    "precise_batches",
    _RUN["precise_batches"],
    "Over which batch norms' statistics are measured before evaluations; recalibrated ones once, default 200.",
)
flags.DEFINE_boolean("deterministic", _RUN["deterministic"], "Deterministic kernels: slower, bit-identical.")
flags.DEFINE_string("strategy", _RUN["strategy"], f"{' | '.join(STRATEGIES)}: one device, or several of this machine.")
flags.DEFINE_integer("replicas", None, "Of mirrored: how many devices. Default: every GPU.")

SCHEDULE = ("learning_rate", "batch_size", "steps", "warmup_steps", "eval_steps")
_EXPECTED = {"backbone": "name", "width": "width", "resnet_version": "resnet_version", "channel_order": "channel_order"}


def config() -> DetectionConfig:
    """Reads all flags into a validated DetectionConfig; raises FlagError naming the flag that is wrong."""
    _take_preset()
    check_utf8("model_dir", flags.FLAGS["model_dir"].value or "")
    return _config(flags.FLAGS)


def preset_config(name: str | None) -> DetectionConfig:
    """Returns the DetectionConfig of a preset alone, None: of the defaults, on the pictures of this command."""
    alone = _alone(name)
    for flag in ("devkit", "model_dir"):
        alone[flag].value = flags.FLAGS[flag].value
    return _config(alone)


def _config(values):
    return DetectionConfig(
        data=_read(DataOptions, values, short_side=_numbers("short_side", int, values)),
        detector=_read(
            DetectorOptions,
            values,
            anchor_scales=_numbers("anchor_scales", float, values),
            anchor_ratios=_numbers("anchor_ratios", float, values),
        ),
        optimizer=_read(OptimizerOptions, values, drop_steps=_numbers("drop_steps", int, values)),
        run=_read(RunOptions, values),
    )


def expected() -> dict:
    """Returns what the export has to be, by key of its architecture or preprocessing; what is not said can be any."""
    named = {key: flags.FLAGS[flag].value for flag, key in _EXPECTED.items()}
    pixels = {key: _numbers(f"pixel_{key}", float, flags.FLAGS) for key in ("mean", "std")}
    named |= {key: value and list(value) for key, value in pixels.items()}
    return {key: value for key, value in named.items() if value is not None}


def data_options() -> DataOptions:
    """Reads the flags of the annotated pictures alone."""
    _take_preset()
    return _read(DataOptions, flags.FLAGS, short_side=_numbers("short_side", int, flags.FLAGS))


def given() -> list[str]:
    """Returns the names of the flags above that are given."""
    own = flags.FLAGS.flags_by_module_dict()[__name__]
    return [flag.name for flag in own if flag.present]


def preset_values(name: str | None) -> dict:
    """Returns the values of all flags above with a preset alone, by name; None: their defaults."""
    apart = _alone(name)
    return {flag: apart[flag].value for flag in apart}


def _alone(name):
    """The flags above as a preset has them, apart from those of this command."""
    apart = flags.FlagValues()
    for flag in flags.FLAGS.flags_by_module_dict()[__name__]:
        apart[flag.name] = copy.deepcopy(flag)
        apart[flag.name].unparse()
    try:
        apart([name or "", *(preset_files.lines_of(name) if name else ())])
    except flags.Error as error:
        raise FlagError(f"--preset={name}: {error}") from None
    return apart


def given_lines(but=()) -> list[str]:
    """Returns the flags above that are given, as another program takes them, without those called `but`."""
    own = flags.FLAGS.flags_by_module_dict()[__name__]
    return [flag.serialize() for flag in own if flag.present and flag.name not in but]


def _take_preset():
    """Gives each flag that is not given what --preset says of it, its schedule at the batch and length that are."""
    name, batch, steps = (flags.FLAGS[flag] for flag in ("preset", "batch_size", "steps"))
    if name.value is None:
        return
    alone = _alone(name.value)
    schedule = {flag: alone[flag].value for flag in SCHEDULE} | {"drop_steps": _numbers("drop_steps", int, alone)}
    schedule = preset_files.scaled(
        schedule, batch.value if batch.present else None, steps.value if steps.present else None
    )
    values = {flag: alone[flag].value for flag in alone if alone[flag].present} | schedule
    values["drop_steps"] = [str(step) for step in schedule["drop_steps"]]
    for flag in values.keys() - {*given()}:
        flags.FLAGS[flag].value = values[flag]


def model_dir() -> str | None:
    """Returns --model_dir."""
    return flags.FLAGS["model_dir"].value


def _read(kind, values, **given):
    return kind(**{field.name: values[field.name].value for field in fields(kind)} | given)


def _numbers(name, kind, values):
    texts = values[name].value
    try:
        return None if texts is None else tuple(kind(text) for text in texts)
    except ValueError:
        wanted = "whole numbers like 480,600" if kind is int else "numbers like 0.5,1,2"
        raise FlagError(f"--{name}={','.join(texts)}: give {wanted}") from None
