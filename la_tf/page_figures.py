"""The figures of a report's page, by Bokeh: curves over epochs, similarities, a map that answers to hover and click.

Numbers in, Bokeh models out. Names of runs, classes and files come in as data of tooltips, which Bokeh escapes, and
never into titles or legends; the page has its own.
"""

from pathlib import Path

import numpy as np
from bokeh.models import BasicTicker, ColumnDataSource, CustomJS, HoverTool, Span, TapTool
from bokeh.palettes import Category10, Category20, Turbo256
from bokeh.plotting import figure

# Okabe and Ito, for runs: told apart by colour-blind eyes too.
RUNS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#222222", "#7f3c8d")
UNLABELLED = "#7a7a7a"
INK, GRID = "#333333", "#e4e4e4"
PANELS = {
    "loss": "Loss (nats)",
    "knn_top1": "kNN top-1, test split",
    "validation_knn_top1": "kNN top-1, validation slice",
    "accuracy": "Accuracy on training views",
    "close_mean": "Close neighbours that count, mean",
    "empty_fraction": "Share of pictures without close neighbours",
    "own_in_background": "Share with their own row in the background",
    "close_skewness": "Skewness of C",
    "cluster_max": "Pictures in the largest cluster",
    "nmi_previous": "NMI with the last clustering",
    "nmi_between": "NMI between clusterings",
    "purity": "Purity of clusters",
    "code_perplexity": "Spread of the codes (prototypes)",
    "clusters_empty": "Empty classes",
    "learning_rate": "Learning rate",
}
TOOLTIP = """
<div style="display:flex;gap:8px;align-items:center;max-width:260px">
  {picture}
  <div style="overflow-wrap:anywhere"><b>@label</b><br><small>@name</small></div>
</div>
"""
PICTURE = '<img src="@picture" alt="" width="80" height="80" style="object-fit:contain;flex:none">'
LIST_NEIGHBORS = Path(__file__).with_name("templates").joinpath("neighbors.js").read_text()


def color_of(number):
    """Returns the colour of run `number`, the same in every figure."""
    return RUNS[number % len(RUNS)]


def class_colors(labels, classes):
    """Returns a colour for each of `labels` `[S]`, -1 unknown: of 10 or 20 where they suffice, else along a rainbow."""
    if classes <= 20:
        palette = Category10[10] if classes <= 10 else Category20[20]
    else:
        palette = [Turbo256[i * 256 // classes] for i in range(classes)]
    return [UNLABELLED if label < 0 else palette[label] for label in labels]


def curves(runs):
    """Returns {metric: figure} of `runs`, a list of (name, epochs), overlaid; of metrics that any of them has."""
    return {
        metric: _curve(metric, title, runs)
        for metric, title in PANELS.items()
        if any(metric in epoch for _, epochs in runs for epoch in epochs)
    }


def densities(histograms):
    """Returns a figure of the similarities to near (solid) and far (dashed) neighbours, each curve to its own peak.

    histograms: a dict by the number of the run of objects with `edges` `[b + 1]`, and `near` and `far`, shares `[b]`.
    """
    plot = _figure(None, height=300)
    for number, found in histograms.items():
        middles = (found.edges[1:] + found.edges[:-1]) / 2
        for shares, dash, alpha in ((found.near, "solid", 0.18), (found.far, "dashed", 0.06)):
            shares = shares / max(shares.max(), 1e-12)  # a narrow peak would make all others flat
            plot.varea(middles, np.zeros(len(middles)), shares, color=color_of(number), alpha=alpha)
            plot.line(middles, shares, color=color_of(number), line_width=2, line_dash=dash)
    plot.xaxis.axis_label = "cosine similarity"
    plot.yaxis.visible = False
    plot.min_border_left = plot.min_border_right = 16  # room for half a label
    return plot


def map_source(pictures, maps):
    """Returns the ColumnDataSource that all `maps` {number of the run: Map} of one `PictureSet` share.

    A picture clicked in one of them is chosen in all, so that its neighbours can be compared.
    """
    count = len(pictures.rows)
    known = pictures.labels is not None
    columns = {
        "name": list(pictures.names) or [f"row {row}" for row in pictures.rows],
        "label": list(pictures.classes) if known else [""] * count,
        "picture": list(pictures.pictures) or [""] * count,
    }
    if known and (pictures.labels >= 0).any():
        columns["color"] = class_colors(pictures.labels, pictures.class_count)
    for number, found in maps.items():
        columns |= {f"x{number}": found.places[:, 0], f"y{number}": found.places[:, 1]}
        # Rows of typed arrays: decimals of 50,000 numbers would be half a megabyte of text.
        columns[f"nearest{number}"] = found.nearest
        columns[f"similarity{number}"] = found.similarities
    return ColumnDataSource(columns)


def embedding_map(source, number, target):
    """Returns the figure of run `number` in a `map_source`: hover shows a picture, a click lists its neighbours.

    target: id of the page's element that takes the list.
    """
    plot = figure(
        height=520,
        sizing_mode="stretch_width",
        tools="pan,wheel_zoom,box_zoom,reset",
        active_drag="box_zoom",
        match_aspect=True,
        toolbar_location="above",
        output_backend="canvas",
    )
    plot.toolbar.logo = None
    plot.axis.visible = False
    plot.grid.grid_line_color = None
    plot.outline_line_color = GRID
    colored = "color" if "color" in source.data else color_of(number)
    points = plot.scatter(
        f"x{number}",
        f"y{number}",
        source=source,
        size=6,
        color=colored,
        line_color=None,
        fill_alpha=0.75,
        nonselection_fill_alpha=0.25,
        selection_fill_alpha=1.0,
        selection_line_color="#000000",
    )
    shown = any(source.data["picture"])
    tooltip = TOOLTIP.format(picture=PICTURE if shown else "")
    plot.add_tools(HoverTool(renderers=[points], tooltips=tooltip, limit=1), TapTool(renderers=[points]))
    arguments = {"source": source, "number": number, "target": target}
    source.selected.js_on_change("indices", CustomJS(args=arguments, code=LIST_NEIGHBORS))
    return plot


def _curve(metric, title, runs):
    plot = _figure(title)
    for number, (name, epochs) in enumerate(runs):
        known = [epoch for epoch in epochs if metric in epoch]
        if not known:
            continue
        x, y = [epoch["epoch"] + 1 for epoch in known], [float(epoch[metric]) for epoch in known]
        source = ColumnDataSource({"epoch": x, "value": y, "run": [name] * len(x)})
        plot.line("epoch", "value", source=source, color=color_of(number), line_width=2)
        plot.scatter("epoch", "value", source=source, color=color_of(number), size=6 if len(x) < 30 else 3)
        warm = [epoch["epoch"] + 1 for epoch in epochs if epoch.get("phase") == "ir"]
        if warm and warm[-1] < epochs[-1]["epoch"] + 1:
            plot.add_layout(
                Span(location=warm[-1] + 0.5, dimension="height", line_color=color_of(number), line_dash="dotted")
            )
    plot.add_tools(
        HoverTool(tooltips=[("run", "@run"), ("epoch", "@epoch"), (metric, "@value{0.0000}")], mode="mouse", limit=3)
    )
    plot.xaxis.axis_label = "epoch"
    plot.xaxis.ticker = BasicTicker(min_interval=1)  # there is no half epoch
    return plot


def _figure(title, height=230):
    plot = figure(title=title, height=height, sizing_mode="stretch_width", tools="", toolbar_location=None)
    if title:
        plot.title.text_font_size = "13px"
        plot.title.text_color = INK
    plot.axis.axis_label_text_font_style = "normal"
    plot.axis.axis_label_text_color = INK
    plot.axis.major_label_text_color = INK
    plot.grid.grid_line_color = GRID
    plot.outline_line_color = None
    plot.axis.minor_tick_line_color = None
    return plot
