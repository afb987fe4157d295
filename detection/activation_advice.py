"""What to do with the batch norms of a backbone, by how it takes the detection pictures. No TensorFlow.

Drifts are those of `detection.activation_statistics.drift`, in stored deviations, means over all batch norms.
"""

from __future__ import annotations

from tabulate import tabulate

# The pretraining pictures drift as well: the stored statistics are a running average over a few batches of augmented
# views, and these here are a few central ones. Where detection pictures drift hardly more, recalibrating mends nothing.
# 0.25 holds where no pretraining pictures are there to compare with: the order of what they drift themselves.
SMALL_DRIFT = 0.25
OVER_PRETRAINING = 1.5  # times the drift of the pretraining pictures; some of it is chance, 64 being few
# From here on the stored statistics are of no use, whatever the pretraining pictures do: an untrained network's, zeros
# and ones, are at 0.75 on both.
LARGE_DRIFT = 0.5
# With fewer pictures in a batch its statistics are too much those of its pictures: on ImageNet the error of batch norm
# has risen by 4 points at 4 and by 11 at 2 (Wu and He 2018, table 2), and large maps make up for a part of that alone.
ENOUGH_PICTURES = 4
# Steps of the fresh layers behind a map count with the square of its scale: at 2, four times. By that much the rate of
# MoCo's detectors had to be lowered under frozen norms, or they diverged (facebookresearch/moco, issue 40). A small
# one does no harm until these layers hardly learn.
SCALE = (0.1, 2.0)


def advice(drift: float, of_pretraining: float | None, batch_size: int, devices: int) -> tuple[str, str]:
    """Returns which --batch_norm fits a backbone, and why, in a sentence.

    drift: on the detection pictures; of_pretraining: on its own, None where there are none to compare with.
    """
    compared = f"{drift:.2f}" if of_pretraining is None else f"{drift:.2f} ({of_pretraining:.2f} on its own pictures)"
    moved = f"what batch norms get is off their stored statistics by {compared}"
    if drift <= min(LARGE_DRIFT, max(SMALL_DRIFT, OVER_PRETRAINING * (of_pretraining or 0))):
        return "frozen", f"{moved}, no more than their own fluctuation"
    if batch_size < ENOUGH_PICTURES:
        return "recalibrated", f"{moved}, and a batch of {batch_size} is too small for statistics of its own"
    if devices > 1:
        return "synchronised", f"{moved}, and the batch of {batch_size} on {devices} devices has enough pictures"
    return "local", f"{moved}, and a batch of {batch_size} has enough pictures"


def scale_warning(deviation: float, endpoint: str, norms: bool, batch_size: int) -> str | None:
    """Returns what to say of the deviation of the map that regions are pooled from; None where that is usual.

    norms: whether the backbone has batch norms.
    """
    if SCALE[0] <= deviation <= SCALE[1]:
        return None
    # ResNets alone, whose trunk ends with conv4, can have the extra norm.
    of_backbone = norms and batch_size >= ENOUGH_PICTURES
    learning = ["--batch_norm=local or synchronised"] * of_backbone + ["--extra_norm"] * (endpoint == "conv4")
    size, then, rate = (
        ("large", "may diverge", "take a quarter of the --learning_rate")
        if deviation > SCALE[1]
        else ("small", "will learn slowly", "raise the --learning_rate")
    )
    remedy = f"let norms learn ({', '.join(learning)}), or {rate}" if learning else rate
    under = " under frozen norms" if norms else ""
    return (
        f"{endpoint} has a deviation of {deviation:.3g}, {size} for the fresh layers behind it, which {then}{under}: "
        f"{remedy}"
    )


def conclusion(stages: dict, drifts: dict, endpoint: str, batch_size: int, devices: int) -> dict:
    """Returns `suggestion`, `reason` and `warning` (None: there is none) from what was found on each set of pictures.

    stages, drifts: on "detection" and, where there are any, on "pretraining" pictures. endpoint: the trunk's last one.
    """
    norms = drifts["detection"] is not None
    warning = scale_warning(stages["detection"][endpoint]["sd"], endpoint, norms, batch_size)
    if not norms:
        return {"suggestion": None, "reason": "there are no batch norms, so nothing to choose", "warning": warning}
    of_pretraining = drifts["pretraining"]["drift"] if "pretraining" in drifts else None
    suggestion, reason = advice(drifts["detection"]["drift"], of_pretraining, batch_size, devices)
    return {"suggestion": suggestion, "reason": reason, "warning": warning}


def table(stages: dict, drifts: dict, names: dict) -> str:
    """Returns a line for each endpoint and set of pictures, by its name: activations, and the drift of the norms."""
    endpoints = dict.fromkeys(endpoint for one in stages.values() for endpoint in one)
    rows = [
        (
            endpoint,
            names[kind],
            f"{found[endpoint]['mean']:.3f}",
            f"{found[endpoint]['sd']:.3f}",
            *_shown(found[endpoint]["norms"]),
        )
        for endpoint in endpoints
        for kind, found in stages.items()
        if endpoint in found
    ]
    rows += [("all", names[kind], "", "", *_shown(norms)) for kind, norms in drifts.items()]
    header = ("endpoint", "pictures", "mean", "sd", "norms: shift", "sd ratio", "drift")
    align = ("left", "left", *("right",) * 5)
    return tabulate(rows, header, tablefmt="simple", disable_numparse=True, colalign=align)


def _shown(norms):
    return ("-",) * 3 if norms is None else tuple(f"{norms[name]:.2f}" for name in ("shift", "ratio", "drift"))
