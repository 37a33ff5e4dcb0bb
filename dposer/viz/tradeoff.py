"""Error against price, a panel for each task: curves of solvers over their budgets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from dposer.errors import InputError
from dposer.viz.render import Image

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C564B", "#F0E442", "#7F7F7F")
"""The first seven are told apart by the colour-blind too. Source: Okabe and Ito, Color Universal Design."""
_MARKERS = "osD^vP<Xph"
_WIDTH, _PANEL, _LEGEND = 10.0, 3.7, 0.25
"""Inches at 100 pixels each: text of 11 points is 15 pixels high in a picture shown 1000 pixels wide."""


@dataclass(frozen=True)
class TradeoffPoint:
    """One setting of one solver on one task."""

    panel: str
    series: str
    price: float
    """Above zero, for a logarithmic axis."""
    best: float
    """Error of the best hypothesis."""
    mean: float
    """Error of the mean hypothesis."""
    marked: bool = False
    """Drawn as a star."""
    joined: bool = True
    """Whether the line of its series goes through it."""


def tradeoff_plot(
    points: Sequence[TradeoffPoint],
    price: str = "network evaluations per hypothesis",
    error: str = "error of the hidden part, mm",
    marked: str = "published settings",
    scale: float = 2.0,
) -> Image:
    """Both errors over the price, a panel for each ``panel``, the points of a ``series`` in one colour, joined in the order of price.

    Args:
        points: in any order; panels and series keep the order in which they come.
        price, error, marked: what the axes and the stars are called.
        scale: the picture is 1000 × ``scale`` pixels wide.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: no points, or a price or an error that a logarithmic axis or a plot cannot show.
    """
    if not points:
        raise InputError("points: found none, expected at least one")
    for point in points:
        if not (point.price > 0 and np.isfinite([point.price, point.best, point.mean]).all()):
            raise InputError(
                f"points: {point.series} has {point.price}, {point.best}, {point.mean}, expected a price above 0, finite errors"
            )
    panels, series = (list(dict.fromkeys(names)) for names in zip(*((p.panel, p.series) for p in points), strict=True))
    looks = {name: (_COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)]) for i, name in enumerate(series)}
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    keys = _legend(looks, marked if any(p.marked for p in points) else None)
    legend = _LEGEND * (0.6 + -(-len(keys) // 4))
    height = rows * _PANEL + legend
    layout = ConstrainedLayoutEngine(rect=(0, legend / height, 1, 1 - legend / height))
    figure = Figure((_WIDTH, height), dpi=100 * scale, layout=layout)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw(axes, panel, [p for p in points if p.panel == panel], looks)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel(price, fontsize=11)
    for axes in grid[:, 0]:
        axes.set_ylabel(error, fontsize=11)
    figure.legend(handles=keys, loc="lower center", ncols=min(4, len(keys)), fontsize=11, frameon=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw(axes: Axes, panel: str, points: Sequence[TradeoffPoint], looks: dict[str, tuple[str, str]]) -> None:
    axes.set_title(panel, fontsize=12)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(labelsize=10, labelbottom=True)
    axes.grid(alpha=0.25)
    for name, (colour, marker) in looks.items():
        own = sorted((p for p in points if p.series == name), key=lambda p: p.price)
        for error, line, face in (("best", "-", colour), ("mean", "--", "white")):
            look: dict[str, Any] = {"color": colour, "markerfacecolor": face, "markersize": 7}
            for some, style in (
                ([p for p in own if p.joined], {"linestyle": line, "marker": marker}),
                ([p for p in own if not p.joined], {"linestyle": "", "marker": marker}),
                ([p for p in own if p.marked], {"linestyle": "", "marker": "*", "markersize": 17, "zorder": 3}),
            ):
                axes.plot([p.price for p in some], [getattr(p, error) for p in some], **{**look, **style})


def _legend(looks: dict[str, tuple[str, str]], marked: str | None) -> list[Line2D]:
    keys = [Line2D([], [], color=colour, marker=marker, label=name) for name, (colour, marker) in looks.items()]
    keys.append(Line2D([], [], color="gray", marker="o", label="best hypothesis"))
    keys.append(Line2D([], [], color="gray", marker="o", linestyle="--", markerfacecolor="white", label="mean hypothesis"))
    if marked is not None:
        keys.append(Line2D([], [], color="gray", marker="*", linestyle="", markersize=14, label=marked))
    return keys
