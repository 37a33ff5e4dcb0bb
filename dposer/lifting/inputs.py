"""From the keypoints that users have to those that a lifting network wants: its joints, without holes, at its rate.

    keypoints = to_layout(keypoints, COCO_17, H36M_17)        # (F, 17, 3) pixels and confidence
    keypoints = resample_keypoints(keypoints, H36M_17, 25, 50)
    ...
    poses = resample_rate(poses, 50, 25, frames)

Keypoints are x, y in pixels and a confidence in [0, 1]; 0 or a NaN means missing.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from dposer.body.skeleton import COCO_17, H36M_17, MPI_INF_3DHP_17, Layout, layout_map
from dposer.errors import InputError

Rule = Mapping[str, float]
"""Joint → weight; the weights sum to 1."""


_SINGLE = ("nose", "neck", "head_top", "pelvis")


def _both(**weights: float) -> dict[str, float]:
    """``ear=0.6``: 0.3 of each ear; names without a side stand for themselves."""
    halves = {f"{side}_{name}": weight / 2 for name, weight in weights.items() if name not in _SINGLE for side in ("left", "right")}
    return halves | {name: weight for name, weight in weights.items() if name in _SINGLE}


RULES: dict[str, tuple[Rule, ...]] = {
    "pelvis": (_both(hip=1.0), {"pelvis": 1.0}),
    "spine": ({"spine": 1.0}, _both(hip=0.5, shoulder=0.5)),
    "neck": ({"neck": 1.0}, _both(shoulder=1.0)),
    "head": ({"head": 1.0}, _both(ear=0.6, nose=0.1, shoulder=0.3), _both(eye=0.6, shoulder=0.4), _both(nose=0.6, shoulder=0.4)),
}
"""Joint → weighted sums that stand for it, the best first; any other joint is taken over by its name.

Detectors call ``pelvis`` the middle between the hips, but may miss it where they find the hips, so these come first. ``neck`` is what
Human3.6M calls thorax, and ``head`` lies in the middle of the head, behind the nose. A weighted sum in space is the same weighted sum in
the image as far as a body is small against its distance. The weights of the head are least squares over poses of the open body.
"""
HEAD_TOPS: dict[str, tuple[Rule, ...]] = {
    H36M_17.name: (
        _both(ear=1.2, shoulder=-0.2), {"head_top": 0.75, "neck": 0.25}, _both(eye=1.0), {"nose": 1.0}
    ),
    MPI_INF_3DHP_17.name: (
        {"head_top": 1.0}, _both(ear=1.5, shoulder=-0.5), _both(eye=1.2, shoulder=-0.2), _both(nose=1.2, shoulder=-0.2)
    ),
}  # fmt: skip
"""Target layout → the same for ``head_top``, which is the crown but for Human3.6M, where it lies some 8 cm lower."""

_FIGURE = {
    "pelvis": (0.0, 0.92), "hip": (0.13, 0.92), "knee": (0.11, 0.50), "ankle": (0.09, 0.08), "spine": (0.0, 1.20), "neck": (0.0, 1.46),
    "shoulder": (0.16, 1.45), "elbow": (0.20, 1.18), "wrist": (0.22, 0.93), "head": (0.0, 1.58), "head_top": (0.0, 1.72),
    "nose": (0.0, 1.62), "eye": (0.03, 1.66), "ear": (0.08, 1.65),
}  # fmt: skip
"""Metres to the side and above the floor of a standing adult's joints."""
_SPREAD = 0.5
"""Metres of an adult's joints from their mean, root mean square, as seen from the side."""
_LONGER = 0.75
"""Quantile of the sizes that single bones tell."""
_SLACK = 0.05
"""Metres added to lengths before they are compared, about what noise does to short bones."""
_SCATTERED = 1.5
"""From this mean of bone lengths to an adult's on the order of the joints is doubted; in shuffled orders it is 1.8 and more."""
_LONG = 2.5
"""A bone so many times too long is doubted."""
_UNEVEN = 3.0
"""So are mirrored bones whose lengths have this ratio."""
_LEAST = 0.3
"""Of the frames: enough to judge by."""
_OUTSIDE, _CORNER = 0.2, 0.4
"""Share of keypoints outside the picture, and of the picture that all keep to, from which on its size is doubted."""
_SWAP, _BELOW = 0.1, 0.15
"""Metres by which joints must jump on average for left and right to have changed places, and by which a head is below the hips."""


# --- joints --------------------------------------------------------------------------------------------------------------


def to_layout(keypoints: np.ndarray, source: Layout, target: Layout) -> np.ndarray:
    r"""The same person with the joints of another layout.

    .. math:: x = \sum_i w_i x_i, \qquad c = \min_i c_i

    Joints are taken over by name; what detectors lack comes from :data:`RULES` and :data:`HEAD_TOPS`. Of several rules it is the
    first whose joints are seen in at least half as many frames as those of any other, the same one in all frames: another one now and
    then would make the joint jump.

    Args:
        keypoints: (F, K, 3) of ``source``.

    Returns:
        (F, J, 3) of ``target``, all 0 where missing.

    Raises:
        InputError: another number of keypoints, or a joint that cannot be made of these.
    """
    keypoints = _checked(keypoints, source)
    if source.joints == target.joints:
        return keypoints
    return np.stack([_joint(keypoints, source, target, name) for name in target.joints], axis=1)


def _joint(keypoints: np.ndarray, source: Layout, target: Layout, name: str) -> np.ndarray:
    """(F, 3)."""
    rules = HEAD_TOPS.get(target.name, ()) if name == "head_top" else RULES.get(name, ())
    candidates = [made for rule in rules or ({name: 1.0},) if (made := _weighted(keypoints, source, rule)) is not None]
    if not candidates:
        raise InputError(f"{source.name}: has no {name}, nor what it could be made of; {target.name} keypoints cannot come of it")
    seen = [int((candidate[:, 2] > 0).sum()) for candidate in candidates]
    return next(candidate for candidate, count in zip(candidates, seen, strict=True) if 2 * count >= max(seen))


def _weighted(keypoints: np.ndarray, source: Layout, rule: Rule) -> np.ndarray | None:
    """(F, 3) by a rule; None if the layout lacks one of its joints."""
    rows = layout_map(source.joints, tuple(rule))
    if -1 in rows:
        return None
    parts = keypoints[:, list(rows)]
    confidence = parts[..., 2].min(1, keepdims=True)
    place = np.einsum("j,fjx->fx", np.array(list(rule.values())), parts[..., :2])
    return np.concatenate([np.where(confidence > 0, place, 0.0), confidence], axis=1)


def likely_layout(keypoints: np.ndarray, candidates: Sequence[Layout] = (COCO_17, H36M_17, MPI_INF_3DHP_17)) -> Layout:
    """The layout, of those with as many joints, in whose order the bones are most like an adult's.

    Args:
        keypoints: (F, K, 3).
        candidates: the first is preferred where nothing can be seen.

    Raises:
        InputError: none of them has K joints.
    """
    fitting = [layout for layout in candidates if len(layout.joints) == keypoints.shape[1]]
    if not fitting:
        known = ", ".join(f"{len(layout.joints)} ({layout.name})" for layout in candidates)
        raise InputError(f"keypoints: {keypoints.shape[1]} joints, expected {known}; name the layout")
    return min(fitting, key=lambda layout: _mean(np.abs(np.log(_bone_ratios(_checked(keypoints, layout), layout)))))


# --- holes and rates -----------------------------------------------------------------------------------------------------


def fill_gaps(keypoints: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints without holes.

    A joint that is missing in some frames is interpolated linearly in time, and stays where it was first or last seen at the ends. A
    joint that is never seen starts from its nearest neighbour in the skeleton that is: away from it as the mirrored bone is from its
    own neighbour, as if the two limbs were parallel, or at the same place if that is not known either.

    Args:
        keypoints: (F, J, 3).

    Returns:
        (F, J, 2) pixels, and (F, J) bool: which of them were filled in.

    Raises:
        InputError: another number of joints, no frames, or no joint in any of them.
    """
    keypoints = _checked(keypoints, layout)
    filled = keypoints[..., 2] <= 0
    seen = np.asarray((~filled).any(0))
    if not seen.any():
        raise InputError(f"keypoints: no person in any of {len(keypoints)} frames, expected one; check the file and its confidences")
    points = keypoints[..., :2].copy()
    frames = np.arange(len(points))
    for joint in np.flatnonzero(seen):
        there = ~filled[:, joint]
        for axis in range(2):
            points[:, joint, axis] = np.interp(frames, frames[there], points[there, joint, axis])
    placed = seen.copy()
    while not placed.all():
        for near, far in _border(placed, layout):
            twin, beside = layout.mirror[far], layout.mirror[near]
            parallel = twin != far and seen[twin] and seen[beside]
            points[:, far] = points[:, near] + (points[:, twin] - points[:, beside] if parallel else 0.0)
            placed[far] = True
    return points, filled


def _border(placed: np.ndarray, layout: Layout) -> list[tuple[int, int]]:
    """(joint with a place, joint without) of the bones between the two, one for each of the latter."""
    both = [pair for edge in layout.edges for pair in (edge, edge[::-1])]
    return list({far: (near, far) for near, far in reversed(both) if placed[near] and not placed[far]}.values())


def standing_places(keypoints: np.ndarray, layout: Layout) -> np.ndarray:
    """(F, J, 2): keypoints without holes, joints that are never seen as if the person stood upright, as large as the others tell.

    Like :func:`fill_gaps` but for those: they go on from their nearest neighbour that has a place, as an adult's bone would. For judging
    how much of the picture a person takes who is cut off, not for lifting.

    Args:
        keypoints: (F, J, 3).
    """
    points, filled = fill_gaps(keypoints, layout)
    placed = np.asarray(~filled.all(0))
    if placed.all():
        return points
    ratios = _bone_ratios(_checked(keypoints, layout), layout) * _metre(keypoints)
    known = ratios[np.isfinite(ratios)]
    metre = float(np.quantile(known, _LONGER)) if len(known) else _metre(keypoints)  # bones look shorter than they are, never longer
    figure = np.array([_figure(name) for name in layout.joints]) * (1, -1)
    facing = _facing(points, placed, layout)
    while not placed.all():
        for near, far in _border(placed, layout):
            step = (figure[far] - figure[near]) * (facing, 1)
            points[:, far] = points[:, near] + metre * np.nan_to_num(step)
            placed[far] = True
    return points


def _facing(points: np.ndarray, placed: np.ndarray, layout: Layout) -> float:
    """1 where the left side is on the right of the picture, as of someone who looks at the camera, else -1."""
    sides = [points[:, a, 0] - points[:, b, 0] for a, b in zip(layout.left, layout.right, strict=True) if placed[a] and placed[b]]
    return -1.0 if sides and np.mean(sides) < 0 else 1.0


def resample_keypoints(keypoints: np.ndarray, layout: Layout, fps_from: float, fps_to: float) -> np.ndarray:
    """Keypoints (F, J, 3) at another rate, without holes; what was filled in keeps confidence 0, and what lies beside it has less.

    Raises:
        InputError: as :func:`fill_gaps` and :func:`resample_rate`.
    """
    points, filled = fill_gaps(keypoints, layout)
    return resample_rate(np.concatenate([points, np.where(filled, 0.0, keypoints[..., 2])[..., None]], axis=-1), fps_from, fps_to)


def resample_rate(values: np.ndarray, fps_from: float, fps_to: float, frames: int | None = None) -> np.ndarray:
    """x(t) at t = k / fps_to, linear between the samples x(i / fps_from), held beyond the last.

    Args:
        values: (F, ...).
        frames: how many; None: as many as reach the end. Going back, give the number there was.

    Returns:
        (frames, ...) of the same dtype.

    Raises:
        InputError: rates that are not positive, or no frames.
    """
    values = np.asarray(values)
    if not (0 < fps_from < np.inf and 0 < fps_to < np.inf):
        raise InputError(f"rates: {fps_from} and {fps_to} frames per second, expected numbers above 0")
    if not len(values):
        raise InputError("values: no frames to resample, expected at least one")
    last = len(values) - 1
    if frames is None:
        frames = int(np.ceil(round(last * fps_to / fps_from, 6))) + 1
    place = np.minimum(np.arange(frames) * (fps_from / fps_to), last)
    before = np.minimum(place.astype(int), max(last - 1, 0))
    share = (place - before).reshape(-1, *[1] * (values.ndim - 1)).astype(values.dtype)
    return (1 - share) * values[before] + share * values[np.minimum(before + 1, last)]


# --- doubts --------------------------------------------------------------------------------------------------------------


def check_plausible(keypoints: np.ndarray, layout: Layout, size: tuple[int, int] | None = None) -> tuple[str, ...]:
    """What looks wrong, a sentence each; empty if nothing does.

    Doubted are an order of joints that makes no person (bones far from an adult's lengths, mirrored bones unlike each other, left and
    right that change places), pictures upside down, and keypoints that do not go with the size of the picture.

    Args:
        keypoints: (F, J, 3).
        size: width and height of the picture, pixels.

    Raises:
        InputError: another number of joints.
    """
    keypoints = _checked(keypoints, layout)
    return (
        *_doubted_order(keypoints, layout),
        *_doubted_sides(keypoints, layout),
        *_doubted_up(keypoints, layout),
        *(() if size is None else _doubted_size(keypoints, size)),
    )


def _doubted_order(keypoints: np.ndarray, layout: Layout) -> list[str]:
    ratios = _bone_ratios(keypoints, layout)
    likely = likely_layout(keypoints, (layout, COCO_17, H36M_17, MPI_INF_3DHP_17))
    if likely != layout or _mean(ratios) > _SCATTERED:
        hint = f", they would be in that of {likely.name}" if likely != layout else ""
        return [f"bones are no person's in the order of {layout.name}{hint}: check the order of the joints"]
    long = [edge for edge, ratio in zip(layout.edges, ratios, strict=True) if ratio > _LONG]
    if not long:
        return []
    names = ", ".join(f"{layout.joints[a]}–{layout.joints[b]}" for a, b in long[:4])
    return [f"bones over {_LONG:g} times as long as a person's ({names}): check the order of the joints"]


def _doubted_sides(keypoints: np.ndarray, layout: Layout) -> list[str]:
    doubts = []
    ratios = dict(zip(layout.edges, _bone_ratios(keypoints, layout), strict=True))
    mirror = layout.mirror
    for (a, b), ratio in ratios.items():
        other = ratios.get((mirror[a], mirror[b]), np.nan)
        if layout.joints[b].startswith("left_") and max(ratio, other) > _UNEVEN * min(ratio, other):
            name = f"{layout.joints[a]}–{layout.joints[b]}".replace("left_", "")
            doubts.append(f"{name} is {max(ratio, other) / min(ratio, other):.1f} times as long on one side as on the other")
    if swaps := _side_swaps(keypoints, layout):
        doubts.append(f"left and right seem to change places {swaps} times: the detector may confuse them")
    return doubts


def _side_swaps(keypoints: np.ndarray, layout: Layout) -> int:
    """Frames whose joints are much nearer to those before them if left and right are exchanged."""
    rows, twins = (list(pair) for pair in (layout.left + layout.right, layout.right + layout.left))
    before, after = keypoints[:-1, rows], keypoints[1:, rows]
    mirrored = keypoints[1:, twins]
    seen = (before[..., 2] > 0) & (after[..., 2] > 0) & (mirrored[..., 2] > 0)
    count = np.maximum(seen.sum(1), 1)
    as_is, exchanged = ((np.linalg.norm(other[..., :2] - before[..., :2], axis=-1) * seen).sum(1) / count for other in (after, mirrored))
    return int((as_is > 2 * exchanged + _SWAP * _metre(keypoints)).sum())


def _doubted_up(keypoints: np.ndarray, layout: Layout) -> list[str]:
    """Whether the head is mostly below the hips."""
    rows = [row for row, name in enumerate(layout.joints) if name in ("nose", "neck", "head")][:1]
    rows += [row for row, name in enumerate(layout.joints) if name in ("pelvis", "left_hip")][:1]
    if len(rows) < 2:
        return []
    head, hips = keypoints[:, rows[0]], keypoints[:, rows[1]]
    seen = (head[:, 2] > 0) & (hips[:, 2] > 0)
    below = (head[:, 1] > hips[:, 1] + _BELOW * _metre(keypoints)) & seen
    if below.sum() <= 0.5 * max(seen.sum(), 1):
        return []
    return [f"the head is below the hips in {int(below.sum())} of {int(seen.sum())} frames: check that y grows downwards"]


def _doubted_size(keypoints: np.ndarray, size: tuple[int, int]) -> list[str]:
    points = keypoints[keypoints[..., 2] > 0][:, :2]
    if not len(points):
        return []
    outside = float(((points < 0) | (points > size)).any(1).mean())
    if outside > _OUTSIDE:
        return [f"{100 * outside:.0f} % of the keypoints lie outside the picture of {size[0]} x {size[1]}: check its size"]
    if (points.max(0) < _CORNER * np.array(size)).all():
        far = points.max(0)
        return [f"no keypoint is beyond ({far[0]:.0f}, {far[1]:.0f}) of a picture of {size[0]} x {size[1]}: check its size"]
    return []


def _bone_ratios(keypoints: np.ndarray, layout: Layout) -> np.ndarray:
    """(E,): length of each bone against an adult's, the median over frames; NaN where hardly seen."""
    ends = np.array(layout.edges)
    start, end = keypoints[:, ends[:, 0]], keypoints[:, ends[:, 1]]
    seen = (start[..., 2] > 0) & (end[..., 2] > 0)
    lengths = np.where(seen, np.linalg.norm(start[..., :2] - end[..., :2], axis=-1), np.nan)
    figure = np.array([_figure(name) for name in layout.joints])
    adult = np.linalg.norm(figure[ends[:, 0]] - figure[ends[:, 1]], axis=-1)
    enough = (seen.mean(0) >= _LEAST) & np.isfinite(adult)
    ratios = np.full(len(ends), np.nan)
    if (metre := _metre(keypoints)) > 0:
        ratios[enough] = (np.nanmedian(lengths[:, enough], axis=0) / metre + _SLACK) / (adult[enough] + _SLACK)
    return ratios


def _metre(keypoints: np.ndarray) -> float:
    """Pixels, by how far the joints are from their mean, the median over frames."""
    weights = (keypoints[..., 2:] > 0).astype(float)
    count = np.maximum(weights.sum(1, keepdims=True), 1)
    middle = (weights * keypoints[..., :2]).sum(1, keepdims=True) / count
    squared = (weights * np.square(keypoints[..., :2] - middle)).sum((1, 2)) / count[:, 0, 0]
    frames = weights.any((1, 2))
    return float(np.sqrt(np.median(squared[frames]))) / _SPREAD if frames.any() else 0.0


def _mean(values: np.ndarray) -> float:
    """Of those that are no NaN; 0 if all are."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else 0.0


def _figure(name: str) -> tuple[float, float]:
    """Where :data:`_FIGURE` has a joint; NaN if it has none."""
    side = -1.0 if name.startswith("right_") else 1.0
    across, height = _FIGURE.get(name.removeprefix("left_").removeprefix("right_"), (np.nan, np.nan))
    return side * across, height


def _checked(keypoints: np.ndarray, layout: Layout) -> np.ndarray:
    """(F, K, 3) float64, all 0 where missing."""
    keypoints = np.asarray(keypoints, np.float64)
    if keypoints.ndim != 3 or keypoints.shape[1:] != (len(layout.joints), 3):
        raise InputError(f"keypoints: shape {keypoints.shape}, expected (frames, {len(layout.joints)}, 3) of {layout.name}")
    return np.where(np.isfinite(keypoints).all(-1, keepdims=True) & (keypoints[..., 2:] > 0), keypoints, 0.0)
