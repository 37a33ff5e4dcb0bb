r"""2D keypoints as mixtures of Gaussians: where a joint may be, given where a detector says it is and how sure it says it is.

A mixture is (..., J, 5 M): M times π, x, y, s_x, s_y, that is weight, mean and standard deviations in screen units (the picture is 2 wide).
Component 0 is the keypoint. For a keypoint x of confidence c of someone of scale S they are

==========  ===================  =======================  =======================================================================
tight       π = 1 − the others   x                        σ = b κ S exp(1.6 (1 − c)), or a :class:`Calibration`'s
wide        π = 0.5 (1 − c)      x                        4 σ
exchanged   π = 0.15 (1 − c)     that of the other side   the other side's σ; only where both sides are seen
==========  ===================  =======================  =======================================================================

with proportions κ of COCO's annotators (Lin et al., ECCV 2014) for the limbs. A missing joint is one Gaussian around its parent, of
deviation 8 κ S. The order of the numbers is that of DiffPose (Gong et al., CVPR 2023); how they come about is this library's.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from torch import Tensor

from dposer.body.skeleton import Layout
from dposer.data.keypoints import kappas
from dposer.errors import InputError
from dposer.files import PathLike, existing_file, save_json

COLUMNS = 5
"""Of a component: π, x, y, s_x, s_y."""

_TRUNK = {"pelvis": 0.076, "spine": 0.085, "neck": 0.056, "head": 0.040, "head_top": 0.035}
"""κ of joints that COCO lacks."""
_BASE, _DOUBT = 0.25, 1.6
"""b, and how the deviation grows with doubt."""
_WIDE, _WIDE_SHARE, _SWAP_SHARE = 4.0, 0.5, 0.15
_MISSING = 8.0
_SURE, _PADDING = 0.1, 0.1
"""Keypoints above this confidence make the person's box, which is so much larger than they are."""
_THIN = 0.2
"""A box is at least so wide for its height, and the other way round."""
_SMALLEST, _NOBODY = 0.01, 0.5
"""Least scale of a person; scale where nobody is seen."""
_TAIL_SHARE, _SWAPPED = 0.08, 0.02
_TRUST, _LEAST_TRUST = 3.0, 0.05
_MAD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
_FORMAT = "dposer.calibration/1"
_WHAT = "a calibration (.json of this library)"


def proportions(layout: Layout) -> Tensor:
    """(J,) κ: how loosely joints are placed, as a share of the person's scale."""
    limbs = kappas(layout.joints) / 2
    return torch.tensor([_TRUNK.get(name, kappa) for name, kappa in zip(layout.joints, limbs, strict=True)], dtype=torch.float32)


def person_scale(points: Tensor, confidence: Tensor) -> Tensor:
    """S = √(w h) of the box (padded) around the keypoints that are sure, or seen at all if none is: (..., J, 2), (..., J) → (...)."""
    sure, seen = confidence > _SURE, confidence > 0
    counted = torch.where(sure.any(-1, keepdim=True), sure, seen)[..., None]
    low, high = points.masked_fill(~counted, torch.inf).amin(-2), points.masked_fill(~counted, -torch.inf).amax(-2)
    sides = (high - low) * (1 + _PADDING)
    sides = torch.maximum(sides, _THIN * sides.amax(-1, keepdim=True))
    return torch.where(seen.any(-1), sides.prod(-1).sqrt().clamp_min(_SMALLEST), _NOBODY)


def mixture_of(points: Tensor, confidence: Tensor, layout: Layout, components: int = 3, calibration: "Calibration | None" = None) -> Tensor:
    """The mixture (..., J, 5 M) of keypoints, see the module; float32.

    Args:
        points: (..., J, 2) screen units.
        confidence: (..., J) in [0, 1]; 0 or NaN (of the point, too) means missing.
        components: M; 1: tight, 2: and wide, 3: and exchanged.
        calibration: of the detector; None: b κ exp(1.6 (1 − c)).

    Raises:
        InputError: another number of components or joints.
    """
    joints = len(layout.joints)
    if points.shape != (*confidence.shape, 2) or confidence.shape[-1:] != (joints,):
        raise InputError(
            f"keypoints {tuple(points.shape)}, confidence {tuple(confidence.shape)}: expected (..., {joints}, 2), (..., {joints})"
        )
    if components not in (1, 2, 3):
        raise InputError(f"components = {components}, expected 1, 2 or 3 of a keypoint; more come of heatmaps")
    seen = (confidence > 0) & points.isfinite().all(-1)
    c = torch.where(seen, confidence, 0).clamp(max=1).float()
    x = torch.where(seen[..., None], points, 0).float()
    scale = person_scale(x, c)
    sigma = scale[..., None] * _relative_sigma(c, layout, calibration)
    twin = list(layout.mirror)
    paired = seen & seen[..., twin] & (torch.tensor(twin) != torch.arange(joints)).to(seen.device)
    there, width = torch.where(paired[..., None], x[..., twin, :], x), torch.where(paired, sigma[..., twin], sigma)
    others = [(_WIDE_SHARE * (1 - c), x, _WIDE * sigma), (_SWAP_SHARE * (1 - c) * paired, there, width)][: components - 1]
    tight = (torch.ones_like(c) - sum(weight for weight, *_ in others), x, sigma)
    return _with_missing(torch.cat([_component(*part) for part in (tight, *others)], -1), ~seen, layout, scale)


def hidden_mixture(mixture: Tensor, hidden: Tensor, layout: Layout, zero: bool = False) -> Tensor:
    """The same where some joints (..., J) are missing: (..., J, 5 M); the person's scale is that of the others.

    Args:
        zero: put them in the middle of the picture, not beside their parents.
    """
    return _with_missing(mixture, hidden, layout, person_scale(mixture[..., 1:3], (~hidden).to(mixture)), zero)


def synthetic_keypoints(points: Tensor, layout: Layout, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What a detector might make of exact projections (..., J, 2) in screen units: points (..., J, 2) and confidence (..., J).

    Errors are normal with σ = b κ S, eight times in a hundred with 4 σ; twice in a hundred a joint is found at the other side's place. The
    confidence is exp(−‖e‖ / 3σ), and at least 0.05.
    """
    noise = torch.randn(points.shape, generator=generator).to(points)
    kind = torch.rand(points.shape[:-1], generator=generator).to(points)[..., None]
    scale = person_scale(points, torch.ones_like(points[..., 0]))
    sigma = (scale[..., None] * _BASE * proportions(layout).to(points))[..., None]
    found = points + sigma * noise * torch.where(kind < _TAIL_SHARE, _WIDE, 1.0)
    found = torch.where(kind > 1 - _SWAPPED, points[..., list(layout.mirror), :] + sigma * noise, found)
    error = torch.linalg.vector_norm(found - points, dim=-1)
    return found, torch.exp(-error / (_TRUST * sigma[..., 0])).clamp(_LEAST_TRUST, 1)


def _relative_sigma(confidence: Tensor, layout: Layout, calibration: "Calibration | None") -> Tensor:
    """(..., J) σ / S."""
    if calibration is not None:
        return calibration(confidence, layout)
    return _BASE * proportions(layout).to(confidence) * torch.exp(_DOUBT * (1 - confidence))


def _component(weight: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    """(..., J, 5)."""
    return torch.cat((weight[..., None], mean, sigma[..., None], sigma[..., None]), -1)


def _with_missing(mixture: Tensor, missing: Tensor, layout: Layout, scale: Tensor, zero: bool = False) -> Tensor:
    """Missing joints around their parents, or around zero, in one Gaussian; the other components, of weight 0, are like it."""
    mean = mixture[..., 1:3]
    mean = torch.zeros_like(mean) if zero else _beside_parents(mean, missing, layout)
    sigma = _MISSING * scale[..., None] * proportions(layout).to(mixture)
    only = _component(torch.ones_like(sigma), mean, sigma)
    rest = _component(torch.zeros_like(sigma), mean, sigma)
    count = mixture.shape[-1] // COLUMNS
    return torch.where(missing[..., None], torch.cat((only, *[rest] * (count - 1)), -1), mixture)


def _beside_parents(points: Tensor, missing: Tensor, layout: Layout) -> Tensor:
    """Points (..., J, 2), a missing joint's being its nearest ancestor's that is not; a missing root is in the middle of what is seen."""
    seen = (~missing)[..., None].to(points)
    middle = (points * seen).sum(-2, keepdim=True) / seen.sum(-2, keepdim=True).clamp_min(1)
    root = torch.tensor([parent < 0 for parent in layout.parents], device=points.device)
    points = torch.where((missing & root)[..., None], middle, points)
    missing, parents = (missing & ~root)[..., None], [max(parent, 0) for parent in layout.parents]
    for _ in layout.parents:  # more rounds than the tree is deep change nothing
        points = torch.where(missing, points[..., parents, :], points)
    return points


# ---- calibration -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Calibration:
    """σ / S of each joint of a detector as a function of its confidence: linear between the points of a table, held beyond its ends.

    Args:
        table: joint → (confidences, σ / S), as long as each other; confidences rise, σ / S is positive and does not.
    """

    table: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]]

    def __call__(self, confidence: Tensor, layout: Layout) -> Tensor:
        """(..., J) σ / S of confidences (..., J).

        Raises:
            InputError: the table lacks a joint.
        """
        if unknown := [name for name in layout.joints if name not in self.table]:
            raise InputError(f"calibration: lacks {', '.join(unknown)} of {layout.name}; fit it on keypoints of that layout")
        return torch.stack([_interpolated(confidence[..., row], *self.table[name]) for row, name in enumerate(layout.joints)], -1)

    @classmethod
    def fit(cls, detected: Tensor, truth: Tensor, confidence: Tensor, layout: Layout, bins: int = 10) -> "Calibration":
        r""":math:`\sigma / S = 1.4826 \operatorname{median} |e / S|` over both axes, in bins of as many pairs each, then made not to rise.

        The median is that of the errors themselves, not of what is around their median: a bias is an error too.

        Args:
            detected, truth: (N, J, 2) screen units.
            confidence: (N, J); those that are 0 do not count.
            bins: at most; those between the same confidences are one.

        Raises:
            InputError: a joint is seen fewer than 2 ``bins`` times, or is mostly found without any error.
        """
        scale = person_scale(detected, confidence)
        errors = ((detected - truth) / scale[:, None, None]).double().cpu().numpy()
        table = {}
        for row, name in enumerate(layout.joints):
            c = confidence[:, row].double().cpu().numpy()
            seen = (c > 0) & np.isfinite(errors[:, row]).all(-1)
            if seen.sum() < 2 * bins:
                raise InputError(f"calibration: {name} is seen in {int(seen.sum())} pairs, expected at least {2 * bins}; give more frames")
            table[name] = _joint_table(name, c[seen], np.abs(errors[seen, row]), bins)
        return cls(table)

    def save(self, path: PathLike) -> None:
        """Write it as JSON, whole or not at all."""
        joints = {name: {"confidence": list(c), "spread": list(spread)} for name, (c, spread) in self.table.items()}
        save_json(path, {"format": _FORMAT, "unit": "standard deviation over the person's scale", "joints": joints})

    @classmethod
    def load(cls, path: PathLike) -> "Calibration":
        """What :meth:`save` has written.

        Raises:
            InputError: missing, or anything else.
        """
        path = existing_file(path, _WHAT, "make one with `python -m run.make_gmm --calibrate`")
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            known = isinstance(value, dict) and value.get("format") == _FORMAT
            table = {name: (_numbers(row["confidence"]), _numbers(row["spread"])) for name, row in value["joints"].items()} if known else {}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path}: not readable ({error.__class__.__name__}), expected {_WHAT}; fit it anew") from error
        if not table or not all(_is_table(*row) for row in table.values()):
            raise InputError(f"{path}: no table of rising confidences and positive spreads, expected {_WHAT}; fit it anew")
        return cls(table)


@dataclass(frozen=True)
class Coverage:
    """How errors compare to the spreads that were foretold; (N, J, 2) standardised errors z."""

    std: float
    """Root mean square of z, 1 if spreads are right; above it if some errors are far beyond them, as those of most detectors are."""
    within_68: float
    """Per cent of |z| < 1, 68.27 if spreads are right and errors normal."""
    within_95: float
    """Per cent of |z| < 1.96, 95 if so."""

    @property
    def accepted(self) -> bool:
        """Within a tenth, and three points."""
        return 0.9 <= self.std <= 1.1 and abs(self.within_68 - 68.27) <= 3 and abs(self.within_95 - 95) <= 3


def coverage(detected: Tensor, truth: Tensor, confidence: Tensor, layout: Layout, calibration: Calibration | None = None) -> Coverage:
    """Compare errors with spreads, on other pairs than a calibration was fitted to; arguments as there.

    Raises:
        InputError: no keypoint is seen.
    """
    seen = (confidence > 0) & detected.isfinite().all(-1)
    if not bool(seen.any()):
        raise InputError("coverage: no keypoint is seen, expected some; check the confidences")
    sigma = person_scale(detected, confidence)[:, None] * _relative_sigma(confidence, layout, calibration)
    z = ((detected - truth) / sigma[..., None])[seen].abs().double()
    return Coverage(float(z.square().mean().sqrt()), *(100 * float((z < bound).double().mean()) for bound in (1, 1.96)))


def _joint_table(name: str, confidence: np.ndarray, errors: np.ndarray, bins: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of one joint, confidences (n,) and absolute errors (n, 2)."""
    edges = np.unique(np.quantile(confidence, np.linspace(0, 1, bins + 1)))[1:-1]
    rows = np.digitize(confidence, edges)
    members = [rows == row for row in np.unique(rows)]
    spread = [_MAD * np.median(errors[some]) for some in members]
    falling = isotonic_regression(spread, weights=[int(some.sum()) for some in members], increasing=False).x
    if not falling.min() > 0:
        raise InputError(f"calibration: {name} is mostly where it should be exactly, expected detections; give those of a detector")
    return tuple(float(confidence[some].mean()) for some in members), tuple(falling.tolist())


def _interpolated(x: Tensor, places: tuple[float, ...], values: tuple[float, ...]) -> Tensor:
    if len(places) == 1:
        return torch.full_like(x, values[0])
    knots, heights = x.new_tensor(places), x.new_tensor(values)
    right = torch.searchsorted(knots, x.contiguous()).clamp(1, len(places) - 1)
    share = ((x - knots[right - 1]) / (knots[right] - knots[right - 1])).clamp(0, 1)
    return torch.lerp(heights[right - 1], heights[right], share)


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _is_table(confidence: tuple[float, ...], spread: tuple[float, ...]) -> bool:
    finite = bool(np.isfinite([*confidence, *spread]).all())
    rising = all(before < after for before, after in zip(confidence, confidence[1:], strict=False))
    return finite and rising and len(confidence) == len(spread) > 0 and min(spread) > 0
