"""How well a body in motion fits the points it was fitted to, and what casts doubt on it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from dposer.errors import InputError
from dposer.metrics.poses import jitter
from dposer.metrics.surface import surface_distance

_FAR = 0.06
"""Metres; points measured with small errors lie nearer to the body, whatever the layout means by a hip."""
_NOISY = 3.0
"""Twice the median length of a vector whose three coordinates err by a standard deviation of 1."""
_OUTSTANDING = 3.0
"""A point whose median residual is larger than this many times that of all is called out."""
_UNUSUAL_SHAPE = 4.0
"""Standard deviations of a shape coefficient; one adult in twenty thousand lies beyond."""
_UNUSUAL_POSE = 1.0
"""Per cent of human motion that is less ordinary than the median frame."""


class Spread(NamedTuple):
    """Statistics of N values of which some are missing; NaN if all are."""

    mean: float
    median: float
    p95: float
    """95 % of the values are at most this."""
    missing: float
    """Share of missing values, in [0, 1]."""

    @classmethod
    def of(cls, values: Tensor) -> "Spread":
        """Of values of any shape, NaN where missing."""
        flat = values.detach().double().cpu().numpy().ravel()
        known = flat[np.isfinite(flat)]
        if not len(known):
            return cls(np.nan, np.nan, np.nan, 1.0)
        return cls(float(known.mean()), float(np.median(known)), float(np.quantile(known, 0.95)), 1 - len(known) / len(flat))


def seen_jitter(measured: Tensor, fitted: Tensor) -> tuple[float, float] | None:
    """Jitter of measured and of fitted points (F, K, 3), over those runs of four frames in which a point was measured in each.

    Returns:
        metres per frame³ twice, None if there is no such run.

    Raises:
        InputError: two different shapes.
    """
    if measured.shape != fitted.shape:
        raise InputError(f"points: shapes {tuple(measured.shape)} and {tuple(fitted.shape)}, expected the same (F, K, 3) twice")
    if len(measured) < 4:
        return None
    runs, others = (points.unfold(0, 4, 1).mT for points in (measured, fitted))  # (F - 3, K, 4, 3)
    whole = (runs + others).isfinite().all(-1).all(-1)
    if not bool(whole.any()):
        return None
    before, after = (jitter(some[whole][:, :, None]).mean().item() for some in (runs, others))
    return before, after


class SurfaceGap(NamedTuple):
    """Mean distances of markers, metres."""

    surface: float
    """From the skin, whichever side."""
    expected: float
    """From where the layout says they float above the skin."""
    markers: int
    """How many were measured, in all frames together."""


def surface_gap(vertices: np.ndarray, faces: np.ndarray, markers: np.ndarray, heights: np.ndarray) -> SurfaceGap | None:
    """Mean of ``|d|`` and of ``|d - h|`` over markers that were measured, ``d`` being their signed distances from the skin.

    Args:
        vertices: (F, V, 3) metres.
        faces: (M, 3).
        markers: (F, K, 3) metres, NaN where missing.
        heights: (K,) metres above the skin that the markers should be at.

    Returns:
        None if no marker was measured.
    """
    distance = surface_distance(vertices, faces, markers)
    seen = np.isfinite(distance)
    if not seen.any():
        return None
    beyond = np.abs(distance - heights)[seen]
    return SurfaceGap(float(np.abs(distance[seen]).mean()), float(beyond.mean()), int(seen.sum()))


def doubts(
    residuals: Tensor, names: Sequence[str], noise_std: float = 0.0, betas: Tensor | None = None, plausibility: float | None = None
) -> tuple[str, ...]:
    """Sentences on what suggests that the points were not what they were taken for; empty if all is well.

    Args:
        residuals: (F, K) metres, NaN where missing.
        names: of the K points.
        noise_std: metres per coordinate that the points err by on their own, whatever body they are on.
        betas: (S,) the shape if it was solved for.
        plausibility: per cent of human motion that is less ordinary than the median frame.
    """
    found = []
    far = max(_FAR, _NOISY * noise_std)
    overall = Spread.of(residuals).median
    if overall > far:
        found.append(
            f"half of the points are more than {1000 * overall:.0f} mm away from the body: check that --layout has the order of the file's "
            "points and the right sides, and check --unit and --up."
        )
    medians = {name: Spread.of(column).median for name, column in zip(names, residuals.T, strict=True)}
    bound = max(far, _OUTSTANDING * overall)
    odd = sorted((name for name, median in medians.items() if median > bound), key=lambda name: -medians[name])
    if odd:
        listed = ", ".join(f"{name} ({1000 * medians[name]:.0f} mm)" for name in odd[:6]) + (", ..." if len(odd) > 6 else "")
        found.append(f"far from the body most of the time: {listed}; these may be swapped or something else than their name says.")
    if betas is not None and float(betas.abs().max()) > _UNUSUAL_SHAPE:
        found.append(f"the shape is {float(betas.abs().max()):.1f} standard deviations from the mean: check --unit, or give --betas.")
    if plausibility is not None and plausibility < _UNUSUAL_POSE:
        found.append(
            f"half of the frames are less ordinary than {100 - plausibility:.1f} % of human motion: check the sides, or --noise-std."
        )
    return tuple(found)
