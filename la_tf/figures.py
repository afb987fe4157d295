"""The pictures a run can draw of itself, by Matplotlib; numbers in, figure out."""

import matplotlib

matplotlib.use("Agg")  # files, never windows

import matplotlib.pyplot as plt
import numpy as np

RIGHT, WRONG, INK = "#0072b2", "#d55e00", "#222222"  # Okabe and Ito: told apart by colour-blind eyes too
PANELS = (
    ("loss", "loss (nats)"),
    ("knn_top1", "kNN top-1, test"),
    ("close_mean", "|C ∩ B|, mean"),
    ("purity", "cluster purity"),
)


def neighbor_sheet(rows, neighbors_title):
    """Draws query pictures with their nearest training pictures (the paper's Figure 3).

    rows: dicts with `query` and `nearest` (pictures `[h, w, 3]` in [0, 1]), `caption`, `captions`, `right` (bools:
    of the same class as the query).
    """
    columns = 1 + max(len(row["nearest"]) for row in rows)
    figure, axes = plt.subplots(
        len(rows),
        columns,
        figsize=(1.05 * columns, 1.3 * len(rows) + 0.5),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for line, row in zip(axes, rows, strict=True):
        _picture(line[0], row["query"], row["caption"], INK)
        for axis, picture, caption, right in zip(line[1:], row["nearest"], row["captions"], row["right"], strict=False):
            _picture(axis, picture, caption, RIGHT if right else WRONG)
    figure.suptitle(f"query, then its {neighbors_title}", fontsize=10, color=INK)
    return figure


def curves(epochs):
    """Draws loss, kNN and LA's health over the epochs of `metrics.jsonl`; shaded: the warm start."""
    shown = [(name, title) for name, title in PANELS if any(name in epoch for epoch in epochs)]
    figure, axes = plt.subplots(1, len(shown), figsize=(3.1 * len(shown), 2.6), squeeze=False, layout="constrained")
    warm = [epoch["epoch"] + 1 for epoch in epochs if epoch.get("phase") == "ir"]
    for axis, (name, title) in zip(axes.flat, shown, strict=True):
        points = [(epoch["epoch"] + 1, epoch[name]) for epoch in epochs if name in epoch]
        if warm:
            axis.axvspan(0.5, max(warm) + 0.5, color="#e8e8e8", label="warm start (IR)")
        axis.plot(*np.transpose(points), color=RIGHT, marker="." if len(points) < 2 else None)
        axis.set_xlim(0.5, epochs[-1]["epoch"] + 1.5)
        axis.set_xlabel("epoch")
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
    if warm:
        axes[0, 0].legend(fontsize=8, loc="best")
    return figure


def save(figure, path):
    """Writes a figure as PNG (150 dots an inch) and as SVG; returns both paths."""
    written = []
    for suffix in (".png", ".svg"):
        target = path.with_suffix(suffix)
        figure.savefig(target, dpi=150)
        written.append(target)
    plt.close(figure)
    return written


def _picture(axis, picture, caption, color):
    axis.imshow(picture, interpolation="nearest")
    axis.set_title(caption, fontsize=7, color=color, pad=2)
