r"""Bodies from 2D keypoints by first-order optimisation, as DPoser's releases and its paper have it.

Two stages by Adam, after SMPLify. The camera stage moves the rigid body: with its hips and shoulders :math:`q_k`, seen at :math:`u_k`,

.. math:: \min_{R, t} \sum_k c_k^2 \|\pi(q_k) - u_k\|^2 + w_z^2 (t_z - t_z^0)^2.

The body stage holds the translation and lets the pose θ, the root and the shape β go, in rounds of falling faith in the priors:

.. math:: \min_{\theta, R, \beta} \sum_k c_k^2 \big( \rho(\Delta x_k) + \rho(\Delta y_k) \big) + \lambda_p^2 w(t) \|\tilde x - \hat x_0\|^2
          + \lambda_a^2 \sum_i e^{2 s_i \theta_i} + \lambda_s^2 \|\beta\|^2, \qquad \rho(e) = \frac{\sigma^2 e^2}{\sigma^2 + e^2}.

x̃ is the normalised pose and x̂₀ its denoised version, a constant; errors are in pixels. The losses of all people are summed, where the
releases take their mean: to Adam the scale of a loss is nothing, so that people do not act upon each other.
Source: Bogo et al., SMPLify, ECCV 2016; Lu et al., DPoser (arXiv 2312.05541), section 4.3 and released code; DPoser-X (arXiv 2508.00599).
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import roma
import torch
from torch import Tensor

from dposer.body.model import BodyModel
from dposer.body.points import BodyPoints, Place
from dposer.body.skeleton import BODY_JOINTS
from dposer.errors import InputError
from dposer.geometry.camera import Camera
from dposer.prior.pose_prior import PosePrior, Progress, Weighting
from dposer.prior.timesteps import Strategy, TimeStrategy, preset
from dposer.solvers.initial_poses import MEAN_POSE
from dposer.solvers.motion_adam import Release

Places = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""pose_body (N, 63), root_orient (N, 3), trans (N, 3), betas (N, S) → keypoints (N, K, 3) in metres; differentiable, the root turning
the body about the pelvis, as SMPL has it."""

MEAN_SHAPE = (0.20561, 0.33556, -0.35068, 0.35613, 0.41754, 0.03089, 0.30476, 0.23613, 0.20913, 0.31213)
"""The mean shape of SMPL's fitting software, in SMPL's own space of shapes."""
FACING = (math.pi, 0.0, 0.0)
"""The root of a person who stands upright and faces the camera."""
BEND_ROOT = (3.3044, 0.1644, 0.8847)
"""The root that belongs to :data:`BEND_POSE`."""
BEND_POSE: tuple[float, ...] = (
    -0.9826, 0.0381, 0.1037,  # left_hip
    -0.5172, -0.1226, -0.0888,  # right_hip
    1.2609, 0.1508, 0.0191,  # spine1
    0.7838, 0.1187, -0.1467,  # left_knee
    0.5961, -0.0989, 0.0995,  # right_knee
    -0.3334, 0.0401, -0.0061,  # spine2
    -0.0093, 0.1223, -0.1593,  # left_ankle
    -0.0912, -0.1685, 0.1366,  # right_ankle
    0.1310, 0.0397, 0.0331,  # spine3
    -0.2206, -0.1149, 0.3457,  # left_foot
    -0.1708, 0.1260, -0.3786,  # right_foot
    0.2004, -0.1346, -0.0425,  # neck
    -0.4471, -0.6219, -0.1994,  # left_collar
    -0.4053, 0.7368, 0.2280,  # right_collar
    -0.1366, -0.0035, -0.0020,  # head
    0.2602, -0.4799, -0.7522,  # left_shoulder
    0.1675, 0.4642, 0.4586,  # right_shoulder
    0.1080, -0.4779, 0.0713,  # left_elbow
    0.0112, 0.3153, -0.0611,  # right_elbow
    0.3648, 0.1398, 0.4170,  # left_wrist
    0.4821, -0.1036, -0.3021,  # right_wrist
)  # fmt: skip
"""(63,) where a bent person begins, axis-angle in radians."""

_EHF_BOX = (400.0, 100.0, 1000.0, 1200.0)
_EHF_BENT = 400.0
_SHOULDERS = ("left_shoulder", "right_shoulder")
_HIPS = ("left_hip", "right_hip")
_MARGIN, _ASPECT = 1.1, 256 / 192
"""By how much the square crop of a regressor exceeds a person's box, and how tall the crop is for its width."""
_BENT_TOP = 1 / 3
"""A bent person's box reaches up to this share of its top, as if the person stood."""
_BENDING = (("left_elbow", 1, 1.0), ("right_elbow", 1, -1.0), ("left_knee", 0, -1.0), ("right_knee", 0, -1.0))
"""Joint, axis and sign of what bends the wrong way."""


@dataclass(frozen=True)
class SmplifySettings:
    """Settings of :func:`solve_smplify`. λ are given for each round of the body stage; there are as many rounds as λ."""

    time: TimeStrategy
    prior_weights: tuple[float, ...] = (50.0, 20.0, 10.0, 5.0, 2.0)
    """λ_p."""
    shape_weights: tuple[float, ...] = (50.0, 20.0, 10.0, 5.0, 2.0)
    """λ_s."""
    angle_weights: tuple[float, ...] = (150.0, 50.0, 30.0, 15.0, 5.0)
    """λ_a."""
    steps: int = 100
    """Of a round."""
    lr: float = 0.01
    robust: float = 100.0
    """σ, pixels."""
    ignored: tuple[str, ...] = ("neck", *_HIPS)
    """Keypoints that the body stage does not look at: detectors have them elsewhere than the body."""
    weighting: Weighting = "sqrt(1+snr^2)"
    denoising_steps: int = 1
    denoising_end: float = 0.1
    """Where more than one step ends, as a share of t."""
    camera_steps: int = 100
    depth_weight: float = 100.0
    """w_z, pixels per metre."""
    camera_confidence: bool = True
    """Whether the camera stage weighs by confidence; else all that is seen weighs 1."""
    camera_start: Literal["box", "limbs"] = "limbs"
    """What says how far away a person begins: :func:`box_translation` or :func:`limb_translation`."""
    crop_scale: float = 0.9
    """s of the former."""
    box: tuple[float, float, float, float] | None = None
    """x and y of its corners in pixels, the same for all people; None: that of the person's keypoints."""
    bent_above_ratio: float | None = None
    """People whose box is wider than this share of its height begin bent, their translation by the box, whose top is put at a third of
    its distance from the picture's; None: nobody."""
    bent_below_row: float | None = None
    """So do people whose topmost keypoint is lower than this row of pixels."""
    bent_root: bool = False
    """Whether they begin with :data:`BEND_ROOT`, too."""
    flip: Literal["never", "narrow", "always"] = "narrow"
    """Who is turned about after the camera stage and solved for both ways, the lower reprojection error being kept; narrow: those whose
    shoulders are less than ``flip_below`` apart, or not both seen."""
    flip_below: float = 25.0
    """Pixels."""
    start_pose: tuple[float, ...] = MEAN_POSE
    start_betas: tuple[float, ...] = MEAN_SHAPE
    """For a body of another shape space, take ()."""

    def __post_init__(self) -> None:
        if not len(self.prior_weights) == len(self.shape_weights) == len(self.angle_weights) > 0:
            raise InputError(
                f"weights: {len(self.prior_weights)} of the prior, {len(self.shape_weights)} of the shape and {len(self.angle_weights)} of "
                "angles, expected one of each a round"
            )
        if self.steps < 1 or self.camera_steps < 0:
            raise InputError(f"steps = {self.steps} and camera_steps = {self.camera_steps}, expected at least 1 and at least 0")


def smplify_settings(release: Release = "paper", strategy: Strategy = "3", *, ehf: bool = False) -> SmplifySettings:
    """The settings of a release.

    v1 takes times from a grid, w = ½ √(1 + SNR), a distance by the box (s = 1.3) and one start each. v2 has w = ½ √(1 + SNR²), ten
    denoising steps, a distance by the limbs, bent people and the flip; x is v2 with one step; paper, which says nothing of weights and
    starts, is x with the times of its eq. 11.

    Args:
        strategy: of times, '1' random, '2' fixed or '3' truncated annealing.
        ehf: as for the EHF data set: distance by one box for all (s = 0.9), and bent are those whose topmost keypoint is below row 400.

    Raises:
        InputError: no such release.
    """
    if release not in get_args(Release):
        raise InputError(f"release '{release}' does not exist, expected one of {', '.join(get_args(Release))}")
    first = release == "v1"
    return SmplifySettings(
        preset(release, "fitting", strategy),
        weighting="sqrt(1+snr)" if first else "sqrt(1+snr^2)",
        denoising_steps=10 if release == "v2" else 1,
        camera_confidence=not first,
        camera_start="box" if first or ehf else "limbs",
        crop_scale=1.3 if first and not ehf else 0.9,
        box=_EHF_BOX if ehf else None,
        bent_above_ratio=None if first or ehf else 0.75,
        bent_below_row=_EHF_BENT if ehf else None,
        bent_root=first,
        flip="never" if first else "narrow",
    )


# ---- terms -------------------------------------------------------------------------------------------------------------


def gmof(error: Tensor, sigma: float) -> Tensor:
    """ρ(e) = σ² e² / (σ² + e²), of Geman and McClure: e² for small errors, never more than σ²."""
    squared = error.square()
    return sigma**2 * squared / (sigma**2 + squared)


def wrong_bending(pose_body: Tensor) -> Tensor:
    """Σ exp(2 s θ) over elbows and knees, large where they bend the wrong way: (..., 63) → (...)."""
    columns = [3 * BODY_JOINTS.index(joint) + axis for joint, axis, _ in _BENDING]
    return (2 * pose_body.new_tensor([sign for *_, sign in _BENDING]) * pose_body[..., columns]).exp().sum(-1)


def box_translation(box: Tensor, camera: Camera, crop_scale: float) -> Tensor:
    """Where a person is by its box (P, 4) of corners x, y, x, y in pixels: on the ray through the middle, at t_z = 2 f / (b s); (P, 3).

    b = 1.1 max(256/192 w, h) is the side of the crop that a regressor would see, s the scale of its weak-perspective camera.
    """
    low, high = box[:, :2], box[:, 2:]
    width, height = (high - low).unbind(-1)
    side = _MARGIN * torch.maximum(_ASPECT * width, height).clamp_min(1)
    depth = 2 * camera.focal.mean(-1) / (side * crop_scale)
    return camera.ray((low + high)[:, None] / 2)[:, 0] * depth[:, None]


def limb_translation(points: Tensor, pixels: Tensor, seen: Tensor, names: Sequence[str], camera: Camera) -> Tensor:
    """(0, 0, f h / h'), h and h' the mean length of shoulder to hip on the body and in the picture: (P, 3).

    Args:
        points: (P, K, 3) metres, of the body as it begins.
        pixels: (P, K, 2).
        seen: (P, K) bool. Of a person without a side of which both ends are seen the result is NaN.
    """
    ends = [
        (names.index(shoulder), names.index(hip)) for shoulder, hip in zip(_SHOULDERS, _HIPS, strict=True) if {shoulder, hip} <= {*names}
    ]
    upper, lower = [shoulder for shoulder, _ in ends], [hip for _, hip in ends]
    whole = seen[:, upper] & seen[:, lower]

    def length(places: Tensor) -> Tensor:
        edges = torch.linalg.vector_norm(places[:, upper] - places[:, lower], dim=-1)
        return torch.where(whole, edges, 0).sum(1) / whole.sum(1)

    depth = camera.focal.mean(-1) * length(points) / length(pixels).clamp_min(1)
    return torch.nn.functional.pad(depth[:, None], (2, 0))


def keypoint_places(body: BodyModel, places: Sequence[Place]) -> Places:
    """Places on a body as :func:`solve_smplify` takes them: q_k of :mod:`dposer.body.points`, with a graph and without its derivatives."""
    points, (offsets, directions) = BodyPoints(body, places), body.body_offsets()

    def place(pose_body: Tensor, root_orient: Tensor, trans: Tensor, betas: Tensor) -> Tensor:
        shape = torch.nn.functional.pad(betas, (0, body.num_betas - betas.shape[-1]))
        rotations = torch.cat((root_orient, pose_body), 1).unflatten(1, (-1, 3)).permute(2, 1, 0).contiguous()
        world, positions, _ = body.body_tree(rotations, offsets[..., None] + directions @ shape.T)
        levers = points.levers(shape).expand(len(shape), -1, -1, -1)
        return torch.einsum("abjn,nkjb->nka", world, levers) + points.mass @ (positions.permute(2, 1, 0) + trans[:, None])

    return place


# ---- the solver --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BodyStart:
    """Where P people begin, for one by a regressor."""

    pose_body: Tensor
    """(P, 63) axis-angle, radians."""
    root_orient: Tensor
    """(P, 3)."""
    trans: Tensor | None = None
    """(P, 3) metres; None: by the settings."""
    betas: Tensor | None = None
    """(P, S); None: by the settings."""


@dataclass(frozen=True)
class SmplifyResult:
    """P people in front of their cameras."""

    pose_body: Tensor
    """(P, 63) axis-angle, radians."""
    root_orient: Tensor
    """(P, 3)."""
    trans: Tensor
    """(P, 3) metres."""
    betas: Tensor
    """(P, S)."""
    objective: Tensor
    """(P, H) reprojection error Σ c² ρ in square pixels by which each person's start was chosen: as it stood, and turned about; infinite
    where that was not tried."""
    start: BodyStart
    """Before the camera stage; complete."""


def solve_smplify(
    place: Places,
    names: Sequence[str],
    keypoints: Tensor,
    camera: Camera,
    prior: PosePrior | None,
    settings: SmplifySettings,
    *,
    betas: Tensor | None = None,
    num_betas: int = 10,
    init: BodyStart | None = None,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> SmplifyResult:
    """All people and their starts at once; but for the noise that is drawn, each as if it were alone.

    Args:
        place: where the keypoints are on a posed body.
        names: of the K keypoints.
        keypoints: (P, K, 3) pixels and confidence; 0 where missing.
        camera: of each person, (P, 2).
        prior: None solves without any.
        betas: (P, S) shapes that are known; None solves for ``num_betas`` numbers.
        init: where people begin instead of the mean or the bent pose; the camera stage starts from its translation, if it has one.
        generator: source of the prior's noise, and of random times.
        progress: called as ``progress(done, total)`` after every step.
    """
    view = _View(names, keypoints[..., :2], keypoints[..., 2], camera)
    start, fixed = _begun(place, view, settings, betas, num_betas, init), betas is not None
    total = settings.camera_steps + settings.steps * len(settings.prior_weights)
    root, trans = _camera_stage(place, view, start, settings, _watch(progress, 0, total))
    who, turned = _flipped(view, settings)
    half_turn = root.new_tensor([0.0, math.pi, 0.0]) * turned[:, None]
    found = _Bodies(start.pose_body[who], roma.rotvec_composition((root[who], half_turn)), trans[who], start.betas[who])
    view = view.of(who).without(settings.ignored)
    found = _body_stage(place, view, found, fixed, prior, settings, generator, _watch(progress, settings.camera_steps, total))
    with torch.no_grad():
        error = _reprojection(place(*found), view, settings.robust).nan_to_num(nan=math.inf)
    objective = error.new_full((len(keypoints), 1 if settings.flip == "never" else 2), math.inf)
    objective[who, turned] = error
    row = torch.zeros_like(objective, dtype=torch.long)
    row[who, turned] = torch.arange(len(who), device=who.device)
    best = row.gather(1, objective.argmin(1, keepdim=True))[:, 0]
    chosen = _Bodies(*(part[best] for part in found))
    return SmplifyResult(chosen.pose_body, chosen.root_orient, chosen.trans, chosen.betas, objective, BodyStart(*start))


class _Bodies(NamedTuple):
    """N bodies, in the order of :data:`Places`."""

    pose_body: Tensor
    root_orient: Tensor
    trans: Tensor
    betas: Tensor


@dataclass(frozen=True)
class _View:
    """What is seen of N people."""

    names: Sequence[str]
    pixels: Tensor  # (N, K, 2)
    confidence: Tensor  # (N, K)
    camera: Camera  # (N, 2)

    @property
    def seen(self) -> Tensor:
        return self.confidence > 0

    def named(self, names: Sequence[str]) -> Tensor:
        """(K,) bool: whether a keypoint has one of the names."""
        return torch.tensor([name in names for name in self.names], device=self.pixels.device)

    def of(self, rows: Tensor) -> "_View":
        return _View(self.names, self.pixels[rows], self.confidence[rows], Camera(self.camera.focal[rows], self.camera.centre[rows]))

    def without(self, names: Sequence[str]) -> "_View":
        return dataclasses.replace(self, confidence=self.confidence * ~self.named(names))

    def error(self, points: Tensor) -> Tensor:
        """π(q) − u (N, K, 2) in pixels, finite and without a gradient where nothing was seen."""
        seen = self.seen[..., None]
        return torch.where(seen, self.camera.project(torch.where(seen, points, 1)) - self.pixels, 0)


def _begun(place: Places, view: _View, settings: SmplifySettings, betas: Tensor | None, num_betas: int, init: BodyStart | None) -> _Bodies:
    """Everyone before the camera stage."""
    people, new = len(view.pixels), view.pixels.new_tensor
    box = _box(view)
    bent = _bent(box, settings) if init is None else torch.zeros_like(box[:, 0], dtype=torch.bool)
    shape = betas if betas is not None or init is None else init.betas
    if shape is None:
        mean = new(settings.start_betas)
        shape = torch.nn.functional.pad(mean, (0, num_betas - len(mean))).expand(people, -1)
    if init is None:
        pose = torch.where(bent[:, None], new(BEND_POSE), new(settings.start_pose))
        root = torch.where((bent & settings.bent_root)[:, None], new(BEND_ROOT), new(FACING))
    else:
        pose, root = init.pose_body, init.root_orient
        if init.trans is not None:
            return _Bodies(pose, root, init.trans, shape)
    box[:, 1] *= torch.where(bent & (box[:, 1] > 0), _BENT_TOP, 1)
    trans = box_translation(box if settings.box is None else new(settings.box).expand(people, 4), view.camera, settings.crop_scale)
    if settings.camera_start == "limbs":
        points = place(pose, root, torch.zeros_like(root), shape)
        by_limbs = limb_translation(points, view.pixels, view.seen, view.names, view.camera)
        trans = torch.where(bent[:, None] | by_limbs.isnan().any(1, keepdim=True), trans, by_limbs)
    return _Bodies(pose, root, trans, shape)


def _box(view: _View) -> Tensor:
    """(N, 4) corners x, y, x, y of what is seen."""
    seen = view.seen[..., None]
    return torch.cat((torch.where(seen, view.pixels, math.inf).amin(1), torch.where(seen, view.pixels, -math.inf).amax(1)), 1)


def _bent(box: Tensor, settings: SmplifySettings) -> Tensor:
    """(N,) bool: who begins bent."""
    width, height = (box[:, 2:] - box[:, :2]).unbind(-1)
    wide = math.inf if settings.bent_above_ratio is None else settings.bent_above_ratio
    low = math.inf if settings.bent_below_row is None else settings.bent_below_row
    return (width > wide * height) | (box[:, 1] > low)


def _camera_stage(
    place: Places, view: _View, start: _Bodies, settings: SmplifySettings, watch: Callable[[int], None]
) -> tuple[Tensor, Tensor]:
    """Root and translation by the torso's keypoints; by all of them where less than two of these are seen."""
    pelvis, arms = _rigid(place, start)
    weights = view.confidence.square() if settings.camera_confidence else view.seen.to(view.confidence)
    torso = weights * view.named((*_SHOULDERS, *_HIPS))
    weights = torch.where((torso > 0).sum(1, keepdim=True) >= 2, torso, weights)
    root, trans = (part.clone().requires_grad_(True) for part in (start.root_orient, start.trans))

    def loss(step: int) -> Tensor:
        points = arms @ roma.rotvec_to_rotmat(root).mT + pelvis + trans[:, None]
        depth = settings.depth_weight**2 * (trans[:, 2] - start.trans[:, 2]).square().sum()
        return (weights[..., None] * view.error(points).square()).sum() + depth

    _descend(loss, (root, trans), settings.camera_steps, settings.lr, watch)
    return root.detach(), trans.detach()


@torch.no_grad()
def _rigid(place: Places, bodies: _Bodies) -> tuple[Tensor, Tensor]:
    """The pelvis and the keypoints from there, untranslated and with the root at zero: (N, K, 3) each.

    The identity and the half-turns about three axes cancel, so that the mean of a point over them is what they turn it about.
    """
    turns = torch.cat((torch.zeros(1, 3), math.pi * torch.eye(3))).to(bodies.trans)
    people = len(bodies.trans)
    placed = place(
        bodies.pose_body.repeat(4, 1), turns.repeat_interleave(people, 0), bodies.trans.new_zeros(4 * people, 3), bodies.betas.repeat(4, 1)
    ).unflatten(0, (4, people))
    pelvis = placed.mean(0)
    return pelvis, placed[0] - pelvis


def _flipped(view: _View, settings: SmplifySettings) -> tuple[Tensor, Tensor]:
    """Person of every start and whether it is the one turned about, (N,) each; the first P are everyone as they are."""
    everyone = torch.arange(len(view.pixels), device=view.pixels.device)
    turned = torch.full_like(everyone, settings.flip == "always", dtype=torch.bool)
    if settings.flip == "narrow":
        shoulders = view.named(_SHOULDERS)
        apart = torch.linalg.vector_norm(view.pixels[:, shoulders].diff(dim=1), dim=-1)
        turned = ~(view.seen[:, shoulders].sum(1) == 2) | (apart < settings.flip_below).any(1)
    again = everyone[turned]
    return torch.cat((everyone, again)), torch.cat((torch.zeros_like(everyone), torch.ones_like(again)))


def _body_stage(
    place: Places,
    view: _View,
    bodies: _Bodies,
    fixed_shape: bool,
    prior: PosePrior | None,
    settings: SmplifySettings,
    generator: torch.Generator | None,
    watch: Callable[[int], None],
) -> _Bodies:
    """Pose, root and shape; the prior's term enters by its own gradient g = ∂L/∂x̃, as ⟨g, x̃⟩: no network is differentiated."""
    pose, root, betas = (part.clone().requires_grad_(True) for part in (bodies.pose_body, bodies.root_orient, bodies.betas))
    total = settings.steps * len(settings.prior_weights)
    times = settings.time.times(total, generator).tolist()

    def loss(step: int) -> Tensor:
        stage, t = step // settings.steps, times[step]
        energy = _reprojection(place(pose, root, bodies.trans, betas), view, settings.robust).sum()
        energy = energy + settings.angle_weights[stage] ** 2 * wrong_bending(pose).sum()
        energy = energy + settings.shape_weights[stage] ** 2 * betas.square().sum()
        if prior is not None:
            x = prior.normalize(pose)
            end = t * settings.denoising_end if settings.denoising_steps > 1 else None
            pull = prior.loss_gradient(
                x.detach(), t, generator=generator, steps=settings.denoising_steps, t_end=end, weighting=settings.weighting
            )
            energy = energy + settings.prior_weights[stage] ** 2 * (pull * x).sum()
        return energy

    _descend(loss, (pose, root) if fixed_shape else (pose, root, betas), total, settings.lr, watch)
    return _Bodies(pose.detach(), root.detach(), bodies.trans, betas.detach())


def _reprojection(points: Tensor, view: _View, sigma: float) -> Tensor:
    """Σ c² (ρ(Δx) + ρ(Δy)) of every person, (N,)."""
    return (view.confidence.square() * gmof(view.error(points), sigma).sum(-1)).sum(1)


def _descend(loss: Callable[[int], Tensor], parameters: Sequence[Tensor], steps: int, lr: float, watch: Callable[[int], None]) -> None:
    optimizer = torch.optim.Adam(parameters, lr=lr, fused=True)
    for step in range(steps):
        with torch.enable_grad():
            gradients = torch.autograd.grad(loss(step), parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.contiguous()  # fused Adam reads it in the order of memory
        optimizer.step()
        watch(step + 1)


def _watch(progress: Progress | None, before: int, total: int) -> Callable[[int], None]:
    """Tells of steps that follow ``before`` others."""
    return lambda done: None if progress is None else progress(before + done, total)
