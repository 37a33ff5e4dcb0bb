"""Whether the spread of hypotheses tells how far off they are, as pictures: reliability curves, best of n, coverage."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dposer.errors import InputError
from dposer.files import finite
from dposer.viz.plots import new_figure, quiet, rasterised
from dposer.viz.render import Image

_INK, _QUIET = "0.15", "0.35"
_COLOURS = ("#1f5fa8", "#d1602f", "#2f8f5b", "#8a5bb0", "#b79021", "#5d6b78")
_DASHES = ("solid", "dashed", "dotted")
"""Colours come again with other dashes."""


def plot_calibration(levels: Sequence[float], curves: np.ndarray, names: Sequence[str], errors: np.ndarray, title: str = "") -> Image:
    """Share of frames whose truth lies within the central region of each level, of every joint; on the diagonal if calibrated.

    Below it hypotheses are too close together, above it too far apart.

    Args:
        levels: (Q,) in [0, 1].
        curves: (J, Q) shares.
        names: J joints.
        errors: (J,) ECE, for the legend.
        title: a line above.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        InputError: shapes that do not go together, or NaN.
    """
    curves, errors = finite(np.asarray(curves, float), "curves"), finite(np.asarray(errors, float), "errors")
    if curves.shape != (len(names), len(levels)) or errors.shape != (len(names),) or not curves.size:
        raise InputError(
            f"curves of shape {curves.shape}, errors {errors.shape}, expected ({len(names)}, {len(levels)}) for {len(names)} joints"
        )
    figure = new_figure(7.4, 5, layout="constrained")
    axes = figure.subplots()
    axes.plot((0, 1), (0, 1), color="0.75", linewidth=1, label="calibrated")
    for number, (name, curve, error) in enumerate(zip(names, curves, errors, strict=True)):
        colour, dash = _style(number)
        axes.plot((0, *levels), (0, *curve), color=colour, linestyle=dash, linewidth=0.9, label=f"{name.replace('_', ' ')}  {error:.3f}")
    middle = np.median(curves, 0)
    axes.plot((0, *levels), (0, *middle), color=_INK, linewidth=2.4, label=f"median  {np.median(errors):.3f}")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    _label(axes, "level q of the central region", "share of frames within it", title)
    axes.legend(title="joint, ECE", fontsize=7, title_fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    quiet(figure)
    return rasterised(figure)


def plot_best_of(curves: Mapping[str, tuple[Sequence[int], Sequence[float]]], label: str = "MPJPE mm", title: str = "") -> Image:
    """Expected error of the best of n hypotheses over n, of several methods: name → (n, errors).

    Raises:
        InputError: no curve, NaN, or not as many n as errors.
    """
    if not curves:
        raise InputError("curves: found none, expected at least one")
    figure = new_figure(6.4, 4, layout="constrained")
    axes = figure.subplots()
    for number, (name, (counts, errors)) in enumerate(curves.items()):
        if len(counts) != len(errors):
            raise InputError(f"{name}: {len(errors)} errors of {len(counts)} n, expected one of each")
        colour, dash = _style(number)
        axes.plot(counts, finite(np.asarray(errors, float), name), color=colour, linestyle=dash, marker=".", linewidth=1.4, label=name)
    ticks = sorted({n for counts, _ in curves.values() for n in counts})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.minorticks_off()
    axes.grid(color="0.92")
    _label(axes, "n hypotheses", f"{label}, best of n", title)
    axes.legend(fontsize=8, frameon=False)
    quiet(figure)
    return rasterised(figure)


def plot_coverage(coverage: Mapping[int, Sequence[float]], names: Sequence[str], title: str = "") -> Image:
    """Bars of the share of frames in % whose truth lies within central regions: level in % → (J,), a line at each level.

    Raises:
        InputError: no level, NaN, or not as many shares as joints.
    """
    if not coverage:
        raise InputError("coverage: found no level, expected at least one")
    figure = new_figure(1.5 + 0.42 * len(names), 3.4, layout="constrained")
    axes, width = figure.subplots(), 0.8 / len(coverage)
    for number, (level, shares) in enumerate(sorted(coverage.items())):
        if len(shares) != len(names):
            raise InputError(f"coverage of {level} %: {len(shares)} shares, expected {len(names)}, one of each joint")
        colour, _ = _style(number)
        place = np.arange(len(names)) + (number - (len(coverage) - 1) / 2) * width
        axes.bar(place, finite(np.asarray(shares, float), f"coverage of {level} %"), 0.92 * width, color=colour, label=f"{level} % region")
        axes.axhline(level, color=colour, linewidth=1, linestyle=(0, (3, 2)))
    axes.set_xticks(range(len(names)), [name.replace("_", " ") for name in names], rotation=40, ha="right")
    axes.set_ylim(0, 100)
    _label(axes, "", "frames within %", title)
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    quiet(figure)
    return rasterised(figure)


def _style(number: int) -> tuple[str, str]:
    return _COLOURS[number % len(_COLOURS)], _DASHES[number // len(_COLOURS) % len(_DASHES)]


def _label(axes: Any, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x, fontsize=8, color=_QUIET)
    axes.set_ylabel(y, fontsize=8, color=_QUIET)
    axes.set_title(title, loc="left", fontsize=9, color=_INK)
