"""A plan for people to read. No TensorFlow."""

from tabulate import tabulate

ALL_REDUCE = "all-reduce of gradients"  # told even where it is nothing, for a single device


def plan_table(plan):
    """Returns the table of a `la_tf.plan.Plan`, under the headline of its run: sizes, memory, traffic, time."""
    sections = [("", _symbols(plan.sizes)), ("memory of a device", _added_up(plan.memory, "at most"))]
    if plan.host_memory is not plan.memory:
        sections.append(("memory of the host", _added_up(plan.host_memory, "at most")))
    for phase, moved in plan.moved.items():
        sections.append((f"moved by a step of {phase}, on a device", _added_up(moved, "in all")))
    for phase, told in plan.told.items():
        sections.append((f"sent to other devices in a step of {phase}", _added_up(told, "in all")))
    sections.append(("time, checkpoints and exports not counted", _times(plan)))
    rows = []
    for title, lines in sections:
        rows += [[f"-- {title}", ""]] if title else []
        rows += [[name, value] for name, value in lines.items()]
    table = tabulate(rows, tablefmt="plain", disable_numparse=True, colalign=("left", "right"))
    return f"{plan.headline}\n{table}"


def _symbols(sizes):
    always = {
        "images (N)": sizes.images, "dimensions (D)": sizes.dimension, "batch (B)": sizes.batch_size,
        "devices (R)": sizes.devices,
    }  # fmt: skip
    by_method = {
        "background neighbours (k)": sizes.background_k, "clusterings (H)": sizes.clusterings,
        "clusters of each (m)": sizes.clusters,
    }  # fmt: skip
    return {name: f"{value:,}" for name, value in (always | {k: v for k, v in by_method.items() if v}).items()}


def _times(plan):
    measured, batch_size = plan.calibration, plan.sizes.batch_size
    times = {}
    for phase, step in measured.step_seconds.items():
        times[f"step of {phase}"] = f"{in_seconds(step)} ({batch_size / step:,.0f} images/s)"
        times[f"step of {phase}, pictures at hand"] = in_seconds(measured.network_seconds[phase])
    times["input pipeline alone"] = f"{measured.pictures_per_s:,.0f} images/s"
    times |= {f"clustering, {how}": in_seconds(seconds) for how, seconds in plan.clustering.items() if seconds}
    if measured.before_seconds:
        times["embedding all images"] = in_seconds(measured.before_seconds)
    if measured.evaluation_seconds:
        times["kNN evaluation of an epoch"] = in_seconds(measured.evaluation_seconds)
    times |= {f"epoch of {phase}": in_seconds(seconds) for phase, seconds in plan.epoch_seconds.items()}
    steps = " + ".join(f"{count:,} {phase}" for phase, count in plan.phases.items())
    return times | {f"whole run, {steps} steps": in_seconds(plan.seconds)}


def _added_up(parts, name):
    """Returns numbers of bytes and their sum, `name`, for people to read; what a method has none of is left out."""
    shown = {part: count for part, count in parts.items() if count or part == ALL_REDUCE}
    return {part: in_bytes(count) for part, count in {**shown, name: sum(parts.values())}.items()}


def in_bytes(count):
    """Returns a number of bytes for people to read: 656 MB, 1.3 GB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}" if count < 100 * size else f"{count / size:,.0f} {unit}"
    return f"{count} B"


def in_seconds(seconds):
    """Returns a time for people to read: 12 ms, 1.3 s, 12 min, 3.4 h, 5.1 days; two of a unit before the next."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= length * (1 if unit == "s" else 2):
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds * 1000:.1f} ms"
