"""Plausibility as colours, over a body's surface and over time.

Everywhere a per cent p is placed at √(p / 100), so that 1 % and 5 %, where one begins to doubt a pose, are apart from 0.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dposer.errors import InputError
from dposer.files import finite
from dposer.viz.render import Image

_STOPS = np.sqrt(np.array([0, 0.01, 0.05, 0.15, 0.3, 1]))
_COLOURS = np.array([
    (0.50, 0.00, 0.10), (0.79, 0.15, 0.11), (0.95, 0.52, 0.28), (0.95, 0.79, 0.65), (0.85, 0.86, 0.86), (0.80, 0.88, 0.96),
])  # fmt: skip
"""Dark red to light blue, lighter at every step, so that the order survives a copy in grey."""
_TICKS = (0, 1, 5, 25, 50, 75, 95, 100)
_QUIET, _INK = "0.35", "0.15"
_COLUMNS = 1200
"""Columns of a strip; more frames than that share them."""
_DPI = 130


def plausibility_colours(percent: np.ndarray) -> np.ndarray:
    """RGB in [0, 1] of plausibilities (...,) in per cent, alarming red to calm blue: (..., 3)."""
    place = np.sqrt(np.clip(percent, 0, 100) / 100)
    return np.stack([np.interp(place, _STOPS, channel) for channel in _COLOURS.T], -1)


def surface_heat(weights: np.ndarray, per_joint: np.ndarray) -> np.ndarray:
    """``c_v = colour(Σ_j w_vj p_j)``: every vertex in the plausibility of the joints that move it.

    Args:
        weights: (V, 22) skinning weights, as :func:`dposer.body.parts.body_weights` gives them. The first joint, the pelvis, is the
            body's place in the world and has no plausibility; what follows it is drawn calm.
        per_joint: (..., 21) per cent.

    Returns:
        (..., V, 3) RGB in [0, 1].

    Raises:
        InputError: other shapes, or NaN.
    """
    if weights.ndim != 2 or per_joint.ndim < 1 or weights.shape[1] != per_joint.shape[-1] + 1:
        raise InputError(f"weights: shape {weights.shape}, expected (V, J + 1) for the plausibility {per_joint.shape} of J joints")
    return plausibility_colours(finite(per_joint, "per_joint") @ weights[:, 1:].T + 100 * weights[:, 0])


def spaced_peaks(values: np.ndarray, count: int, gap: int = 1) -> np.ndarray:
    """Indices of the ``count`` largest values (N,), largest first.

    With a ``gap`` above 1 they are peaks, larger than what surrounds them, at least so far apart; there may be fewer then.
    """
    from scipy.signal import find_peaks  # which takes a second to import

    found = np.arange(len(values))
    if gap > 1:
        found = find_peaks(np.pad(values, 1, constant_values=-np.inf), distance=gap)[0] - 1  # padded: ends can be peaks
    return found[np.argsort(-values[found], kind="stable")[:count]]


def plot_plausibility(
    score: np.ndarray,
    per_joint: np.ndarray,
    names: Sequence[str],
    fps: float | None = None,
    marked: Sequence[int] | np.ndarray = (),
    title: str | None = None,
) -> Image:
    """The score over time above a strip of all joints, on bands that hold half and nine tenths of held-out human motion.

    A strip of very many frames shows the least plausible of those that share a column.

    Args:
        score: (F,) per cent.
        per_joint: (F, J) per cent.
        names: J joints; rows from top to bottom.
        fps: frames a second; None numbers the frames and does not join them.
        marked: frames to point at, numbered from 1 in this order.
        title: a line above.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        InputError: shapes that do not go together, NaN, or a marked frame that is not there.
    """
    score, per_joint, marked = finite(np.asarray(score), "score"), finite(np.asarray(per_joint), "per_joint"), np.asarray(marked, np.int64)
    if score.ndim != 1 or not len(score) or per_joint.shape != (len(score), len(names)):
        raise InputError(f"per_joint: shape {per_joint.shape}, expected ({len(score)}, {len(names)}) for {len(names)} names, and a frame")
    if marked.size and (marked.min() < 0 or marked.max() >= len(score)):
        raise InputError(f"marked: frames {marked.min()}..{marked.max()}, expected 0..{len(score) - 1}")
    figure = new_figure(12, 3.6 + 0.19 * len(names), layout="constrained")
    (curve, _), (strip, bar) = figure.subplots(
        2, 2, sharex="col", gridspec_kw={"height_ratios": (2.6, 0.19 * len(names)), "width_ratios": (60, 1)}
    )
    figure.delaxes(figure.axes[1])
    rate = fps or 1.0
    _bands(curve)
    line = {"linewidth": 0.8} if fps and len(score) > 1 else {"linestyle": "none", "marker": ".", "markersize": 3}
    curve.plot(np.arange(len(score)) / rate, score, color=_INK, **line)
    curve.set_title(title or "", loc="left", fontsize=10, color=_INK, pad=22)
    curve.set_title("bands: half and nine tenths of held-out human motion", loc="right", fontsize=8, color=_QUIET, pad=22)
    strip.imshow(
        plausibility_colours(pooled_columns(per_joint, _COLUMNS)).swapaxes(0, 1),
        aspect="auto",
        interpolation="nearest",
        extent=(-0.5 / rate, (len(score) - 0.5) / rate, len(names) - 0.5, -0.5),
    )
    strip.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=7)
    strip.set_xlabel("seconds" if fps else "frame", fontsize=8, color=_QUIET)
    _mark(curve, strip, score, marked, rate)
    _bar(bar)
    quiet(figure)
    return rasterised(figure)


def colour_bar(height: int) -> Image:
    """The scale of :func:`plausibility_colours` with its ticks, to stand beside pictures: (height, w, 3) uint8 RGB."""
    text = float(np.clip(height / 100, 6, 12))
    figure = new_figure(text / 10, height / _DPI)
    _bar(figure.add_axes((0.05, 0.06, 0.3, 0.86)))
    quiet(figure, text)
    return rasterised(figure)


def _bands(axes: Any) -> None:
    """Where held-out motion lies on an axis of scores."""
    for low, high, shade in ((5, 95, "0.945"), (25, 75, "0.885")):
        axes.axhspan(low, high, color=shade, linewidth=0)
    axes.axhline(50, color="0.75", linewidth=0.8)
    axes.set_yscale("function", functions=(lambda p: np.sqrt(np.maximum(p, 0)), np.square))
    axes.set_ylim(0, 100)
    axes.set_yticks(_TICKS, [f"{tick} %" if tick != 95 else "" for tick in _TICKS])  # too close to 100
    axes.margins(x=0)
    axes.set_ylabel("held-out motion that is\nless ordinary", fontsize=8, color=_QUIET)


def _mark(curve: Any, strip: Any, score: np.ndarray, marked: np.ndarray, rate: float) -> None:
    """Number frames in their order; numbers too close to their neighbour's stand higher."""
    raised = False
    last = -np.inf
    for rank, frame in sorted(enumerate(marked.tolist(), 1), key=lambda pair: pair[1]):
        raised = not raised and frame - last < 0.015 * len(score)
        last = frame
        for axes in (curve, strip):
            axes.axvline(frame / rate, color=_INK, linewidth=0.6, linestyle=(0, (2, 3)))
        curve.plot(frame / rate, score[frame], "o", markersize=4, color=plausibility_colours(np.zeros(())), clip_on=False, zorder=3)
        place: dict[str, Any] = {"xytext": (0, 10 if raised else 2), "xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        curve.annotate(str(rank), (frame / rate, 1), ha="center", fontsize=7, color=_INK, **place)


def _bar(axes: Any) -> None:
    axes.imshow(plausibility_colours(100 * np.linspace(1, 0, 256)[:, None] ** 2), aspect="auto", extent=(0, 1, 0, 1))
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.set_yticks([np.sqrt(tick / 100) for tick in _TICKS], [f"{tick} %" for tick in _TICKS])


def pooled_columns(values: np.ndarray, columns: int) -> np.ndarray:
    """The least of each of at most ``columns`` even runs of rows."""
    starts = np.arange(0, len(values), max(1, -(-len(values) // columns)))
    return np.minimum.reduceat(values, starts, axis=0)


def new_figure(width: float, height: float, **options: Any) -> Any:
    from matplotlib.figure import Figure  # half a second that the rest of the library does without

    return Figure(figsize=(width, height), dpi=_DPI, facecolor="white", **options)


def quiet(figure: Any, text: float = 7) -> None:
    for axes in figure.axes:
        axes.tick_params(labelsize=text, colors=_QUIET, length=2)
        axes.spines[:].set_visible(False)


def rasterised(figure: Any) -> Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
