r"""Many poses for one picture: one is chosen or made of them, by the keypoints or, as a bound on what is possible, by the truth.

Hypotheses are (..., H, F, J, 3) metres relative to the root: H hypotheses of F frames of J joints. A choice takes

.. math:: \hat y = \hat y_{h^*}, \qquad h^* = \operatorname{argmin}_h \sum_{(f, j) \in S} e_{hfj}

where S is a joint, a limb, a frame, a window or a batch, and e the distance to the truth or, in the picture, to the keypoints.
P-Agg is :func:`mean_pose`, J-Agg or JPMA :func:`joint_agg`, P-Best :func:`pose_best`, J-Best :func:`joint_best`.

Source: Shan et al., D3DP (ICCV 2023, arXiv 2303.11579).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from dposer.body.skeleton import Layout
from dposer.errors import InputError
from dposer.geometry.lens import Lens
from dposer.metrics.poses import distances

Scope = Literal["frame", "window", "batch"]

_NOWHERE = 1e9
"""Reprojection error of what has no place in the picture (a depth of zero)."""
_NEAR, _FAR, _BEYOND = 0.1, 4.0, 200.0
"""Metres: the least depth a joint may be solved to have, the root's where nothing tells it, and the most that is believed."""


# ---- choosing ----------------------------------------------------------------------------------------------------------


def choose(h: Tensor, cost: Tensor) -> Tensor:
    """ŷ_h with h = argmin cost: (..., H, F, J, 3) and costs (..., H, F, J), where F and J may be 1, → (..., F, J, 3)."""
    best = cost.argmin(-3, keepdim=True)
    return torch.take_along_dim(h, best[..., None], -4).squeeze(-4)


def mean_pose(h: Tensor) -> Tensor:
    """P-Agg, 1/H Σ_h ŷ_h: (..., H, F, J, 3) → (..., F, J, 3)."""
    return h.mean(-4)


def geometric_median(h: Tensor, iterations: int = 16) -> Tensor:
    """argmin_y Σ_h |ŷ_h − y| of each joint, which a minority of stray hypotheses cannot move far: (..., H, F, J, 3) → (..., F, J, 3).

    Source: Weiszfeld's iteration (Tôhoku Math. J. 1937) from the mean; distances are smoothed at a tenth of a millimetre.
    """
    median = h.mean(-4, keepdim=True)
    for _ in range(iterations):
        weight = ((h - median).square().sum(-1, keepdim=True) + 1e-8).rsqrt()
        median = (weight * h).sum(-4, keepdim=True) / weight.sum(-4, keepdim=True)
    return median.squeeze(-4)


def pose_best(h: Tensor, target: Tensor, scope: Scope = "frame", worst: bool = False) -> Tensor:
    """P-Best: the hypothesis nearest to the truth, (..., H, F, J, 3) and (..., F, J, 3) → (..., F, J, 3).

    Args:
        scope: one choice for each frame (as the paper says it), for each window, or one for all windows that are given (as the published
            code does it, so that the result depends on how many those are).
        worst: P-Worst, the hypothesis that is farthest.
    """
    errors = distances(h, target[..., None, :, :, :]) * (-1 if worst else 1)
    everywhere = tuple(range(errors.ndim - 3)) if scope == "batch" else ()
    return choose(h, errors.mean((*everywhere, -1) if scope == "frame" else (*everywhere, -2, -1), keepdim=True))


def joint_best(h: Tensor, target: Tensor) -> Tensor:
    """J-Best: for each joint of each frame the hypothesis nearest to the truth, shapes of :func:`pose_best`."""
    return choose(h, distances(h, target[..., None, :, :, :]))


# ---- choosing by the keypoints -----------------------------------------------------------------------------------------


def reprojection_error(h: Tensor, root: Tensor, keypoints: Tensor, lens: Lens, linear: bool = False) -> Tensor:
    """|Π(ŷ_h + r) − x|: (..., H, F, J) in the unit of the keypoints.

    Args:
        h: (..., H, F, J, 3).
        root: (..., F, 3) metres before the camera, one trajectory for all hypotheses, or (..., H, F, 3), each its own: then it has one
            dimension less than ``h``.
        keypoints: (..., F, J, 2).
        lens: in the unit of the keypoints; leading dimensions, if any, go with (..., H, F).
        linear: leave the bending of the lens out.
    """
    root = root if root.ndim == h.ndim - 1 else root[..., None, :, :]
    image = lens.project(h + root[..., None, :], linear)
    return torch.linalg.vector_norm(image - keypoints[..., None, :, :, :], dim=-1).nan_to_num(_NOWHERE, posinf=_NOWHERE)


def joint_agg(
    h: Tensor, root: Tensor, keypoints: Tensor, lens: Lens, confidence: Tensor | None = None, linear: bool = False, of: Tensor | None = None
) -> Tensor:
    """J-Agg or JPMA: for each joint of each frame the hypothesis that projects nearest to its keypoint, (..., F, J, 3).

    Args:
        h, root, keypoints, lens, linear: see :func:`reprojection_error`.
        confidence: (..., F, J); joints whose keypoint has none (0) are the mean over hypotheses.
        of: what is chosen from in place of ``h``, e.g. the hypotheses aligned with the truth.
    """
    of = h if of is None else of
    return _where_seen(choose(of, reprojection_error(h, root, keypoints, lens, linear)), of, confidence)


def limb_agg(
    h: Tensor, root: Tensor, keypoints: Tensor, lens: Lens, layout: Layout, confidence: Tensor | None = None, linear: bool = False
) -> Tensor:
    """A whole arm, a whole leg and the trunk with the head are each one hypothesis's, by the summed error of its joints: (..., F, J, 3).

    Bones inside a limb keep the lengths that they have in its hypothesis, which joints chosen one by one do not. ``confidence``
    (..., F, J) weighs the sum; for the rest see :func:`joint_agg`.
    """
    names = limbs(layout)
    together = torch.tensor([[a == b for b in names] for a in names]).to(h)
    weight = torch.ones_like(keypoints[..., 0]) if confidence is None else confidence
    cost = reprojection_error(h, root, keypoints, lens, linear) * weight[..., None, :, :]
    return _where_seen(choose(h, cost @ together), h, weight @ together)


def soft_agg(
    h: Tensor,
    root: Tensor,
    keypoints: Tensor,
    lens: Lens,
    confidence: Tensor | None = None,
    temperature: float | None = None,
    linear: bool = False,
) -> Tensor:
    """Σ_h w_h ŷ_h with w = softmax_h(−c e_h / τ) for each joint of each frame: (..., F, J, 3).

    P-Agg for τ → ∞ or without confidence, J-Agg for τ → 0.

    Args:
        temperature: τ in the unit of the keypoints; None: a 500th of the focal length (2.3 px in Human3.6M).
        h, root, keypoints, lens, confidence, linear: see :func:`joint_agg`.
    """
    scale = lens.focal.mean(-1)[..., None] / 500 if temperature is None else temperature
    cost = reprojection_error(h, root, keypoints, lens, linear) / scale
    cost = cost if confidence is None else cost * confidence[..., None, :, :]
    return ((-cost).softmax(-3)[..., None] * h).sum(-4)


def limbs(layout: Layout) -> tuple[str, ...]:
    """Limb of each joint: left_arm, right_arm, left_leg, right_leg or trunk (with the head)."""
    ends = {"hip": "leg", "knee": "leg", "ankle": "leg", "shoulder": "arm", "elbow": "arm", "wrist": "arm"}
    sides = (name.partition("_") for name in layout.joints)
    return tuple(f"{side}_{ends[part]}" if part in ends else "trunk" for side, _, part in sides)


def _where_seen(poses: Tensor, h: Tensor, confidence: Tensor | None) -> Tensor:
    return poses if confidence is None else torch.where(confidence[..., None] > 0, poses, mean_pose(h))


# ---- where the root is -------------------------------------------------------------------------------------------------


def solve_root(
    h: Tensor, keypoints: Tensor, lens: Lens, confidence: Tensor | None = None, smooth: float = 0.0, iterations: int = 3
) -> Tensor:
    r"""The root's place that lays each pose over the keypoints, without any truth: (..., H, F, J, 3) → (..., H, F, 3) metres.

    With (x, y, 1) the ray of a keypoint through the lens and (X, Y, Z) its joint relative to the root t,

    .. math:: \min_t \sum_j c_j \Big[ f_x^2 \Big(\frac{X_j + t_x}{Z_j + t_z} - x_j\Big)^2
        + f_y^2 \Big(\frac{Y_j + t_y}{Z_j + t_z} - y_j\Big)^2 \Big] .

    Multiplied by the depths this is linear least squares, x (Z + t_z) = X + t_x, from which Gauss-Newton steps of the same form go on.
    A frame that does not tell its depth (fewer than two keypoints, a solution behind the camera or 200 m away) takes it from the frames
    around it, and one without keypoints also its place; where no frame does, it is 4 m before the camera. Computed in float64.

    Args:
        h: (..., H, F, J, 3).
        keypoints: (..., F, J, 2).
        lens: in the unit of the keypoints; leading dimensions, if any, go with (..., H, F).
        confidence: (..., F, J) weights, 0 = missing.
        smooth: standard deviation in frames of a Gaussian that averages depths, weighted by how well each is determined; the place
            beside the axis then follows from the keypoints again.
        iterations: Gauss-Newton steps.
    """
    pose, image, lens = h.double(), keypoints.double()[..., None, :, :, :], lens.to(h.double())
    side, ahead = pose[..., :2], pose[..., 2:]
    seen = torch.ones_like(image[..., 0]) if confidence is None else confidence.double()[..., None, :, :]
    ray = torch.where(seen[..., None] > 0, lens.ray(image)[..., :2], 0.0)
    gain = (lens.focal / lens.focal.mean(-1, keepdim=True)).square()[..., None, :]

    root, certain = _step(seen.expand(pose.shape[:-1]), ray, ray * ahead - side, gain)
    told = certain > 1e-10
    for _ in range(iterations):
        depth = (ahead + root[..., None, 2:]).clamp_min(_NEAR)
        point = (side + root[..., None, :2]) / depth
        step, certain = _step(seen / depth.squeeze(-1).square(), point, (ray - point) * depth, gain)
        root = root + step
    z = root[..., 2]
    told = told & (z + ahead.squeeze(-1).amin(-1) > _NEAR) & (z < _BEYOND)
    if smooth > 0:
        z = _blurred(z, torch.where(told, certain, 0.0), smooth)
    depth = ahead + bridged(z[..., None], told, _FAR)[..., None, :]
    weight = _shares(seen / depth.squeeze(-1).clamp_min(_NEAR).square())
    root = torch.cat(((weight * (ray * depth - side)).sum(-2), depth[..., 0, :] - ahead[..., 0, :]), -1)
    return bridged(root, (seen.sum(-1) > 0).expand(root.shape[:-1]), root).to(h)


def _step(weight: Tensor, point: Tensor, offset: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    r"""argmin over t of Σ_j w_j |t_xy − p_j t_z − u_j|² with gains along x and y: (..., J), (..., J, 2) twice → (..., 3), (...).

    With means by the weights, :math:`t_{xy} = \bar p t_z + \bar u` and :math:`t_z = -\operatorname{cov}(p, u) / \operatorname{var}(p)`
    summed over both axes; second comes the weighted sum of squares in that variance, how certain the depth is. It stays where it
    is (0) if points are all in one place.
    """
    share = _shares(weight)
    centre, drift = (share * point).sum(-2), (share * offset).sum(-2)
    slope = share * gain * (point - centre[..., None, :])
    variance = (slope * point).sum((-2, -1))
    z = -(slope * offset).sum((-2, -1)) / torch.where(variance > 1e-10, variance, torch.inf)
    return torch.cat((centre * z[..., None] + drift, z[..., None]), -1), variance * weight.sum(-1)


def _shares(weight: Tensor) -> Tensor:
    """w_j / Σ w, or zeros if all are: (..., J) → (..., J, 1)."""
    total = weight.sum(-1, keepdim=True)
    return (weight / torch.where(total > 0, total, 1.0))[..., None]


def _blurred(values: Tensor, weight: Tensor, deviation: float) -> Tensor:
    """Σ_g G(f − g) w_g v_g / Σ_g G(f − g) w_g over the frames: (..., F) twice → (..., F); unchanged where no weight is near."""
    reach = int(3 * deviation) + 1
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1).to(values) / deviation).square())[None, None]
    both = torch.stack((weight * values, weight)).flatten(0, -2)[:, None]
    top, bottom = functional.conv1d(both, kernel, padding=reach).view(2, *values.shape)
    return torch.where(bottom > 0, top / torch.where(bottom > 0, bottom, 1.0), values)


def bridged(values: Tensor, known: Tensor, default: Tensor | float) -> Tensor:
    """Frames that are not known lie on the line between those around them: (..., F, D), (..., F) → (..., F, D)."""
    last = known.shape[-1] - 1
    frame = torch.arange(last + 1, device=known.device).expand_as(known)
    before = torch.where(known, frame, -1).cummax(-1).values
    after = torch.where(known, frame, last + 1).flip(-1).cummin(-1).values.flip(-1)
    before, after = torch.where(before < 0, after, before).clamp_max(last), torch.where(after > last, before, after).clamp_min(0)
    share = (frame - before) / (after - before).clamp_min(1)
    left, right = (torch.take_along_dim(values, rows[..., None], -2) for rows in (before, after))
    return torch.where(known.any(-1)[..., None, None], left + share[..., None] * (right - left), default)


# ---- by name -----------------------------------------------------------------------------------------------------------


class Aggregate(NamedTuple):
    """A way to one pose that asks for no truth; all are called alike, with whatever is known."""

    combine: Callable[..., Tensor]
    needs: tuple[str, ...]
    """Arguments of ``combine`` besides the hypotheses."""

    def __call__(
        self,
        h: Tensor,
        root: Tensor | None = None,
        keypoints: Tensor | None = None,
        lens: Lens | None = None,
        confidence: Tensor | None = None,
        layout: Layout | None = None,
    ) -> Tensor:
        """(..., H, F, J, 3) → (..., F, J, 3), see ``combine``; raises :class:`InputError` if something that it needs is not given."""
        known = {"root": root, "keypoints": keypoints, "lens": lens, "layout": layout}
        if lacking := [name for name in self.needs if known[name] is None]:
            raise InputError(f"{self.combine.__name__}: lacks {', '.join(lacking)}; give them, or take mean or median, which need nothing")
        given = {name: known[name] for name in self.needs}
        return self.combine(h, **given, confidence=confidence) if self.needs else self.combine(h)


_VIEW = ("root", "keypoints", "lens")

AGGREGATES: dict[str, Aggregate] = {
    "mean": Aggregate(mean_pose, ()),
    "median": Aggregate(geometric_median, ()),
    "joint": Aggregate(joint_agg, _VIEW),
    "limb": Aggregate(limb_agg, (*_VIEW, "layout")),
    "soft": Aggregate(soft_agg, _VIEW),
}
