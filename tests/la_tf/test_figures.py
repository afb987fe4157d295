"""Drawn files: whole, repeatable, with nothing cut off and no name read as anything but a name."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from la_tf import embedding_figures, figures

NAMES = ["plain", "$\\frac{a$b_c^", "a name that is a good deal longer than there is room for", "bytes \udcff", "<&>"]


def sheet():
    pictures = np.random.default_rng(0).random((4, 16, 16, 3))
    rows = [
        {
            "group": f"group {place % 2}",
            "query": pictures[0],
            "caption": f"{name}\ntaken for {name}\nconfidence 0.31",
            "nearest": list(pictures[1:]),
            "captions": [f"{name}\n0.912"] * 3,
            "right": [True, False, None],
        }
        for place, name in enumerate(NAMES)
    ]
    return figures.neighbor_sheet(rows, "nearest")


def density():
    part = {"edges": [0, 0.5, 1], "shares": [0.25, 0.75], "mean": 0.6}
    curves = [{"title": name, "images": 1000, "local": part, "background": part} for name in NAMES]
    return embedding_figures.density(curves, ["30 nearest", "31st to 128th nearest"])


def scaled_classes():
    rng = np.random.default_rng(0)
    classes = [{"name": name, "accuracy": 0.5, "points": rng.standard_normal((9, 2)) * [3, 1]} for name in NAMES]
    panels = [{"title": title, "stress_1": 0.2, "classes": classes} for title in ("5 best classes", "5 worst classes")]
    return embedding_figures.scaled_classes(panels, "a run")


def close_sets():
    spread = {"mean": 3.0, "q25": 2.0, "q75": 4.0}
    settings = [(h, m) for h in (1, 3) for m in (5, 10, 20)]
    found = [{"clusterings": h, "clusters": m, "skewness": spread, "size": spread} for h, m in settings]
    points = np.random.default_rng(0).standard_normal((50, 2))
    return embedding_figures.close_sets(found, points, 0, {each: np.arange(9) for each in settings}, 10, "a run")


def curves():
    line = {"loss": 3.0, "knn_top1": 0.5, "close_mean": 20.0, "purity": 0.4}
    return figures.curves([line | {"epoch": epoch, "phase": phase} for epoch, phase in enumerate(("ir", "ir", "la"))])


def test_a_picture_whose_class_is_unknown_is_framed_as_neither_right_nor_wrong():
    *_, third = [axis for axis in sheet().axes if axis.get_title().endswith("0.912")][:3]
    assert {spine.get_linewidth() for spine in third.spines.values()} == {0.5}
    assert third.title.get_color() == figures.INK


def shaded(phases):
    drawn = figures.curves([{"loss": 1.0, "epoch": epoch, "phase": phase} for epoch, phase in enumerate(phases)])
    return [(box.get_x(), box.get_x() + box.get_width()) for box in drawn.axes[0].patches]


def test_only_a_warm_start_that_has_ended_is_shaded():
    assert shaded(["ir", "ir", "la"]) == [(0.5, 2.5)]
    assert shaded(["ir", "ir", "ir"]) == [] == shaded(["la", "la"])


def test_no_class_is_left_out_of_the_legend():
    classes = [
        {"name": name, "accuracy": 0.5, "points": np.eye(2) * number} for number, name in enumerate(("_a", "b", "__"))
    ]
    panels = [{"title": "best", "stress_1": 0.2, "classes": classes}] * 2
    legends = [axis.get_legend() for axis in embedding_figures.scaled_classes(panels, "a run").axes]
    assert [text.get_text() for text in legends[0].get_texts()] == ["_a  50%", "b  50%", "__  50%"]


ALL = (sheet, density, scaled_classes, close_sets, curves)


@pytest.mark.parametrize("draw", ALL)
def test_equal_numbers_give_equal_files(draw, tmp_path):
    first, second = (figures.save(draw(), tmp_path / name / "figure") for name in ("first", "second"))
    assert [path.name for path in first] == ["figure.png", "figure.svg"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert len(list((tmp_path / "first").iterdir())) == 2  # nothing half-written is left


@pytest.mark.parametrize("draw", ALL)
def test_no_word_reaches_beyond_the_figure(draw):
    figure = draw()
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    whole = figure.bbox
    texts = [each for each in figure.findobj(lambda artist: hasattr(artist, "get_text")) if each.get_text()]
    assert len(texts) > 10
    for text in texts:
        box = text.get_window_extent(renderer)
        ticks_beyond_the_axis = not text.get_visible() or not box.width
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= whole.x1 + 1 and box.y1 <= whole.y1 + 1
        assert ticks_beyond_the_axis or inside or _is_hidden_tick(text, figure), text


def _is_hidden_tick(text, figure):
    """Whether a tick's label: Matplotlib keeps those beyond an axis, and does not draw them."""
    labels = [label for axis in figure.axes for each in (axis.xaxis, axis.yaxis) for label in each.get_ticklabels()]
    drawn = [
        tick.label1
        for axis in figure.axes
        for each in (axis.xaxis, axis.yaxis)
        for tick in each.get_major_ticks()
        if each.get_view_interval().min() <= tick.get_loc() <= each.get_view_interval().max()
    ]
    return any(text is label for label in labels) and not any(text is label for label in drawn)
