"""The figures of an embedding as a whole, by Matplotlib: densities, classes, close sets; numbers in, figure out."""

import numpy as np
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, ScalarFormatter

from data.figures import fitting
from la_tf.figures import INK, PALE, RIGHT, WRONG, add_axes, blank

# Okabe and Ito's colours for a white ground, and what tells the curves and dots apart without them.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_BOTH_WAYS = np.array([-1, 1])
PANEL = 1.5  # inches, of one C_i
DOTS = 1500  # of the rows that are no neighbours, shown behind


def density(curves, ranks):
    """Draws the paper's Figure 2: histograms of local and of background density over all training images.

    curves: dicts with `title`, and for `local` and `background` a dict with `edges` `[b + 1]`, `shares` `[b]`, `mean`.
    ranks: of the first and the last neighbour, in words, for both.
    """
    figure = blank(10, 4.4 + 0.24 * len(curves), layout="constrained")
    figure.suptitle("all training images; what lies beyond an axis is in its outermost bin", fontsize=9, color=PALE)
    axes = figure.subplots(1, 2)
    for axis, part, of_ranks in zip(axes, ("local", "background"), ranks, strict=True):
        for curve, color, dash in zip(curves, COLORS, DASHES, strict=False):
            shares, edges = curve[part]["shares"], curve[part]["edges"]
            axis.stairs(shares, edges, fill=True, color=color, alpha=0.25)
            axis.stairs(shares, edges, color=color, linewidth=1.6, linestyle=dash)
            axis.axvline(curve[part]["mean"], color=color, linewidth=1, linestyle=dash)
        axis.set_title(f"{part} density")
        axis.set_xlabel(f"mean similarity to the {of_ranks}")
        axis.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
        axis.xaxis.set_major_locator(MaxNLocator(6))
        axis.margins(x=0.01)
        _bare(axis)
    axes[0].set_ylabel("training images")
    lines = [
        f"{fitting(curve['title'], 4.2, 9)}: mean {curve['local']['mean']:.3f} local, "
        f"{curve['background']['mean']:.3f} background, {curve['images']:,} images"
        for curve in curves
    ]
    handles = [
        axes[0].plot([], [], color=color, linestyle=dash, linewidth=1.6, label=line)[0]
        for line, color, dash in zip(lines, COLORS, DASHES, strict=False)
    ]
    figure.legend(handles=handles, loc="outside lower center", frameon=False, fontsize=9)
    return figure


def scaled_classes(panels, subtitle):
    """Draws the paper's Figure 4: the dots of some classes in two dimensions, a panel each for the best and the worst.

    panels: dicts with `title`, `stress_1`, and `classes`, dicts of `name`, `accuracy` and `points` `[n, 2]`.
    """
    most = max(len(panel["classes"]) for panel in panels)
    clouds = [np.concatenate([each["points"] for each in panel["classes"]]) for panel in panels]
    middles = [(each.min(axis=0) + each.max(axis=0)) / 2 for each in clouds]
    widest = np.max([np.ptp(each, axis=0) for each in clouds], axis=0)  # the same scale for all panels
    reach = 0.53 * np.maximum(widest, 1e-6)
    side = 4.8 * float(np.clip(reach[1] / reach[0], 0.5, 1))
    figure = blank(10, side + 0.7 + 0.22 * -(-most // 2), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1, w_pad=0.1)
    figure.suptitle(subtitle, fontsize=9, color=PALE)
    for axis, panel, middle in zip(figure.subplots(1, len(panels)), panels, middles, strict=True):
        labels = [f"{fitting(each['name'], 1.6, 9)}  {each['accuracy']:.0%}" for each in panel["classes"]]
        dots = [
            axis.scatter(*each["points"].T, s=20, color=color, marker=marker, alpha=0.75, linewidths=0)
            for each, color, marker in zip(panel["classes"], COLORS, MARKERS, strict=False)
        ]
        axis.set(xlim=middle[0] + reach[0] * _BOTH_WAYS, ylim=middle[1] + reach[1] * _BOTH_WAYS)
        axis.set(aspect="equal", xticks=[], yticks=[])
        axis.set_title(f"{panel['title']}   stress-1 {panel['stress_1']:.2f}")
        # Labels by themselves: of those that dots have, Matplotlib leaves out the ones that begin with "_".
        axis.legend(
            dots, labels, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=2, frameon=False, fontsize=9,
            markerscale=1.4, handletextpad=0.2,
        )  # fmt: skip
        for spine in axis.spines.values():
            spine.set_edgecolor(PALE)
    return figure


def close_sets(found, points, row, members, clusters, subtitle):
    """Draws C_i of one image for every H and m (supplement Figure 1), and skewness and size over a sample of images.

    found: dicts of `la_tf.close_sets.measure`; points `[n, 2]`, all rows in the plane of image `row`; members: rows of
    C_i by (H, m); clusters: the run's own m, marked.
    """
    of_h, of_m = (sorted({each[name] for each in found}) for name in ("clusterings", "clusters"))
    head, width = 0.85, max(0.4 + PANEL * len(of_m) + 4.2, 9)  # which holds the subtitle
    height = head + (PANEL + 0.1) * len(of_h) + 0.2
    figure = blank(width, height)
    figure.suptitle(subtitle, fontsize=9, color=PALE, y=1 - 0.1 / height)
    by_setting = {(each["clusterings"], each["clusters"]): each for each in found}
    behind = np.random.default_rng(0).permutation(len(points))[:DOTS]
    shown = np.concatenate([points[behind], *(points[close] for close in members.values())])
    middle = (shown.min(axis=0) + shown.max(axis=0)) / 2
    reach = 0.55 * np.ptp(shown, axis=0).max()
    for line, h in enumerate(of_h):
        for column, m in enumerate(of_m):
            close, numbers = points[members[h, m]], by_setting[h, m]
            left, top = 0.4 + PANEL * column, head + (PANEL + 0.1) * line
            axis = add_axes(figure, left, top, PANEL - 0.15, PANEL - 0.15)
            axis.scatter(*points[behind].T, s=3, color="#d0d0d0", linewidths=0, rasterized=True)
            axis.scatter(*close.T, s=6, color=RIGHT, linewidths=0, rasterized=True)
            axis.scatter(*points[row], s=90, color=WRONG, marker="*", edgecolor="white", linewidths=0.7, zorder=3)
            axis.scatter(*close.mean(axis=0), s=40, color="black", marker="+", zorder=3)
            axis.set(xlim=middle[0] + reach * _BOTH_WAYS, ylim=middle[1] + reach * _BOTH_WAYS, xticks=[], yticks=[])
            axis.set_xlabel(f"{numbers['skewness']['mean']:.2f} · {numbers['size']['mean']:,.0f}", fontsize=9)
            if h == of_h[0]:
                axis.set_title(f"m = {m:,}" + (" (run)" if m == clusters else ""), fontsize=10)
            if m == of_m[0]:
                axis.set_ylabel(f"H = {h}", fontsize=10)
    left, high = 0.4 + PANEL * len(of_m) + 0.8, (height - head - 1.35) / 2
    axes = [add_axes(figure, left, top, 3.2, high) for top in (head, head + high + 0.75)]
    _close_curves(axes, by_setting, of_h, of_m, clusters)
    return figure


def _close_curves(axes, by_setting, of_h, of_m, clusters):
    skew, size = axes
    for h, color, marker, dash in zip(of_h, COLORS, MARKERS, DASHES, strict=False):
        style = {"color": color, "marker": marker, "linestyle": dash, "markersize": 5, "label": f"H = {h}"}
        skewness, sizes = ([by_setting[h, m][name] for m in of_m] for name in ("skewness", "size"))
        skew.plot([each["mean"] for each in sizes], [each["mean"] for each in skewness], **style)
        size.plot(of_m, [each["mean"] for each in sizes], **style)
        size.fill_between(
            of_m, [each["q25"] for each in sizes], [each["q75"] for each in sizes], color=color, alpha=0.12, linewidth=0
        )
    size.axvline(clusters, color=PALE, linewidth=1, linestyle=":")
    largest = max(each["size"]["mean"] for each in by_setting.values())
    sizes = [tick for tick in (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000) if tick <= 1.5 * largest]
    for axis, ticks in ((skew.xaxis, sizes), (size.xaxis, of_m), (size.yaxis, sizes)):
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(ScalarFormatter())
    skew.set_title("lower at the same size: rounder", fontsize=10)
    skew.set(xlabel="mean size of C_i, images", ylabel="mean skewness")
    size.set(xlabel="m, clusters of a clustering (dotted: the run's)", ylabel="size of C_i, images")
    skew.legend(frameon=False, fontsize=9)
    for axis in axes:
        _bare(axis)


def _bare(axis):
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(colors=INK)
    axis.grid(alpha=0.25)
