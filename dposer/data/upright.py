"""Unit and up axis of points from files that say neither: ``x_world = s R x_file``, metres and +z up.

``s`` follows from the size of the person and ``R``, a proper rotation by quarter turns, from which way the person stands. Both are
guesses that a user can overrule, so each comes with a sentence that says what was assumed and why.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from dposer.body.skeleton import Layout
from dposer.errors import InputError

Unit = Literal["auto", "m", "cm", "mm", "inch"]
Up = Literal["auto", "x", "y", "z", "-x", "-y", "-z"]

METRES: dict[str, float] = {"m": 1.0, "cm": 0.01, "mm": 0.001, "inch": 0.0254}
"""Metres in one of each unit."""

_SPELLINGS: dict[str, str] = {
    "m": "m meter meters metre metres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "mm": "mm millimeter millimeters millimetre millimetres",
    "inch": "in inch inches",
}
_BONES = {("hip", "knee"): 0.42, ("knee", "ankle"): 0.42, ("shoulder", "elbow"): 0.28, ("elbow", "wrist"): 0.26}
"""Metres between neighbouring joints of an adult."""
_EXTENT = 1.6
"""Metres a standing adult's markers or joints span along the longest axis of the coordinates."""
_PLAUSIBLE = (0.3, 3.0)
"""Size relative to an adult outside which the unit is more likely wrong than the person small or large."""
_HEIGHTS = {
    "big_toe": 0.02, "foot": 0.03, "foot_index": 0.02, "heel": 0.05, "ankle": 0.1, "knee": 0.5, "hip": 0.95, "pelvis": 0.95,
    "shoulder": 1.45, "neck": 1.5, "head": 1.6, "nose": 1.6, "eye": 1.65, "ear": 1.6, "head_top": 1.75,
}  # fmt: skip
"""Metres above the floor at which joints of a standing adult sit; arms and spine say little about up."""
_CLEAR = 0.8
"""The up axis is called a guess if its cosine to the person is less, or if the next best axis or end scores more than this share."""
_TURNS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "z": ((0, 1, 2), (1, 1, 1)), "-z": ((0, 1, 2), (1, -1, -1)),
    "y": ((0, 2, 1), (1, -1, 1)), "-y": ((0, 2, 1), (1, 1, -1)),
    "x": ((2, 1, 0), (-1, 1, 1)), "-x": ((2, 1, 0), (1, 1, -1)),
}  # fmt: skip
"""The shortest rotation that takes each axis to +z: ``x_world = sign * x_file[order]``."""


@dataclass(frozen=True)
class Convention:
    """How the numbers of a file are to be taken."""

    unit: str
    """A key of :data:`METRES`."""
    up: str
    """The file's axis that points up: one of :data:`Up` without ``auto``."""
    notes: tuple[str, ...]
    """Sentences, each with what was assumed, why and the flag that overrules it; empty if nothing was."""


def to_world(points: np.ndarray, convention: Convention) -> np.ndarray:
    """``x_world = s R x_file``: (..., 3) in the file's unit and axes → (..., 3) in metres, +z up. A rotation, never a mirroring."""
    order, signs = _TURNS[convention.up]
    return points[..., order] * (np.array(signs) * METRES[convention.unit])


def detect_convention(
    points: np.ndarray,
    confidence: np.ndarray,
    layout: Layout | None,
    unit: Unit = "auto",
    up: Up = "auto",
    declared_unit: str | None = None,
    rest: np.ndarray | None = None,
) -> Convention:
    """Unit from the person's size, up axis from the person's stance, for whichever of the two is ``auto``.

    With a layout the size is that of the bones of arms and legs; without one it is the extent of the cloud of points. With a layout or
    ``rest`` up is the mean direction from what is low on a standing body to what is high on it; with neither it is the axis along which
    the cloud spreads most, away from the points that hardly move (feet stand), which is wrong more often.

    Args:
        points: (F, K, 3), NaN where missing.
        confidence: (F, K), 0 where missing.
        layout: what the K points are; None if they are not joints (markers).
        declared_unit: what the file calls its unit; believed unless the person were no human's size in it.
        rest: (K, 3) where the points sit on a body in its rest pose, metres, +y up (markers on a template); with it no layout is needed.

    Raises:
        InputError: no point at all, or an unknown unit or axis.
    """
    for flag, value, choices in (("--unit", unit, get_args(Unit)), ("--up", up, get_args(Up))):
        if value not in choices:
            raise InputError(f"{flag}: found '{value}', expected one of {', '.join(choices)}")
    seen = np.isfinite(points).all(axis=-1) & (confidence > 0)
    if not seen.any():
        raise InputError("the points are missing in every frame (NaN or confidence 0), expected a person; check the file and its key")
    points = np.where(seen[..., None], points, np.nan)
    found_unit, unit_notes = _choose_unit(points, layout, unit, declared_unit)
    found_up, up_notes = (up, ()) if up != "auto" else _choose_up(points, _standing_heights(layout, rest))
    return Convention(found_unit, found_up, unit_notes + up_notes)


# --- unit ----------------------------------------------------------------------------------------------------------------


def _choose_unit(points: np.ndarray, layout: Layout | None, unit: str, declared: str | None) -> tuple[str, tuple[str, ...]]:
    per_metre = _file_units_per_metre(points, layout)
    if unit == "auto" and not per_metre > 0:
        raise InputError("all points lie in one place, so their unit cannot be told from the person's size; give --unit")
    sizes = {name: per_metre * metres for name, metres in METRES.items()}
    notes = []
    if unit == "auto":
        declared = (declared or "").strip()
        said = next((name for name, words in _SPELLINGS.items() if declared.lower() in words.split()), None)
        nearest = min(sizes, key=lambda name: abs(np.log(sizes[name])))
        if said is not None and _is_plausible(sizes[said]):
            unit = said
            notes.append(f"unit {unit}, as the file says.")
        else:
            unit = nearest
            doubt = f"; the file says '{declared}', which does not fit" if declared else ""
            notes.append(f"unit taken as {unit}: in it the person is {sizes[unit]:.2f} times an adult's size{doubt}. Give --unit if not.")
    if not _is_plausible(sizes[unit]):
        notes.append(f"in {unit} the person is {sizes[unit]:.3g} times an adult's size; check --unit and the order of the points.")
    return unit, tuple(notes)


def _is_plausible(size: float) -> bool:
    return _PLAUSIBLE[0] <= size <= _PLAUSIBLE[1]


def _file_units_per_metre(points: np.ndarray, layout: Layout | None) -> float:
    """Length in the file over the length of the same thing on an adult in metres; the median over bones and frames."""
    rows = {} if layout is None else {name: row for row, name in enumerate(layout.joints)}
    ratios = []
    for (upper, lower), metres in _BONES.items():
        for side in ("left", "right"):
            ends = rows.get(f"{side}_{upper}"), rows.get(f"{side}_{lower}")
            if ends[0] is not None and ends[1] is not None:
                lengths = np.linalg.norm(points[:, ends[0]] - points[:, ends[1]], axis=-1)
                ratios += [np.nanmedian(lengths) / metres] if np.isfinite(lengths).any() else []
    return float(np.median(ratios)) if ratios else float(np.median(_full_extents(points))) / _EXTENT


def _full_extents(points: np.ndarray) -> np.ndarray:
    """Largest extent along an axis, in each of the frames that show at least half as many points as the fullest."""
    frames = points[_well_seen(points)]
    return np.max(np.nanmax(frames, axis=1) - np.nanmin(frames, axis=1), axis=-1)


def _well_seen(points: np.ndarray) -> np.ndarray:
    counts = np.isfinite(points[..., 0]).sum(axis=1)
    return 2 * counts >= counts.max()


# --- up axis -------------------------------------------------------------------------------------------------------------


def _standing_heights(layout: Layout | None, rest: np.ndarray | None) -> np.ndarray | None:
    """(K,) metres above some level at which each point of a standing body is, NaN for those that say little; None if not known."""
    if rest is not None:
        return np.asarray(rest, dtype=np.float64)[:, 1]
    if layout is None:
        return None
    return np.array([_HEIGHTS.get(name.removeprefix("left_").removeprefix("right_"), np.nan) for name in layout.joints])


def _choose_up(points: np.ndarray, heights: np.ndarray | None) -> tuple[str, tuple[str, ...]]:
    direction = None if heights is None else _up_by_heights(points, heights)
    if direction is not None:
        axis = int(np.argmax(np.abs(direction)))
        positive, clear = direction[axis] > 0, abs(direction[axis]) >= _CLEAR
        why = "along it the body extends from feet to head"
    else:
        axis, positive, clear = _up_by_cloud(points)
        why = "along it the points spread most, away from those that stand still"
    up = ("" if positive else "-") + "xyz"[axis]
    if not clear:
        return up, (f"up axis {up} is a guess, since the person is not clearly upright along any axis. Give --up.",)
    return up, (f"up axis taken as {up}: {why}. Give --up if not, or if the person is lying down.",)


def _up_by_heights(points: np.ndarray, heights: np.ndarray) -> np.ndarray | None:
    """``d_f ~ sum_k (h_k - mean h)(p_fk - mean p)`` over the points seen, scaled to length 1; the mean over frames, again of length 1.

    Any two points of different height ``h_k`` give a direction, and a few glitches among many frames do not turn the mean. None if no
    frame shows two such points.
    """
    useful = np.isfinite(heights)
    points, heights = points[:, useful], heights[useful]
    seen = np.isfinite(points[..., 0])
    mean = (seen * heights).sum(axis=1, keepdims=True) / np.maximum(seen.sum(axis=1, keepdims=True), 1)
    weights = seen * (heights - mean)  # a frame's weights sum to 0, so the mean of p drops out
    places = np.nan_to_num(points)
    directions = np.einsum("fk,fkd->fd", weights, places)
    lengths = np.linalg.norm(directions, axis=-1)
    told = lengths > 1e-9 * np.abs(places).max(axis=(1, 2), initial=0.0)  # more than rounding
    if not told.any():
        return None
    direction = (directions[told] / lengths[told, None]).mean(axis=0)
    return direction / max(float(np.linalg.norm(direction)), 1e-12)


def _up_by_cloud(points: np.ndarray) -> tuple[int, bool, bool]:
    """Axis of the largest standard deviation over points (median over frames), towards the points that stand still less.

    Of each point the slow moments count (20 % quantile of its speed): a foot stands still in every step, a head does not.

    Returns:
        axis, whether its positive end is up, and whether neither a second axis nor the other end would do nearly as well.
    """
    spread = np.median(np.nanstd(points[_well_seen(points)], axis=1), axis=0)
    axis = int(np.argmax(spread))
    low, high = _slow_speeds(points, axis)
    clear_axis = np.sort(spread)[1] < _CLEAR * spread[axis]
    clear_end = min(low, high) < _CLEAR * max(low, high)
    return axis, not clear_end or low < high, bool(clear_axis and clear_end)  # axes point up more often than down


def _slow_speeds(points: np.ndarray, axis: int) -> tuple[float, float]:
    """Slow speed (file units a frame) of the lower and the upper third of the points along an axis; equal if nothing is known."""
    speeds = np.linalg.norm(np.diff(points, axis=0), axis=-1)
    known = np.isfinite(speeds).sum(axis=0) >= 5
    if known.sum() < 2:
        return 0.0, 0.0
    slow = np.nanquantile(speeds[:, known], 0.2, axis=0)
    places = np.nanmedian(points[:, known, axis], axis=0)
    low, high = np.quantile(places, (1 / 3, 2 / 3))
    return float(np.median(slow[places <= low])), float(np.median(slow[places >= high]))
