r"""2D keypoints of people in pictures → SMPL-X poses, roots, translations and shapes.

What SMPLify does (Bogo et al., ECCV 2016) with the DPoser prior (arXiv 2312.05541, sec. 4.3), by the second-order solver of
:mod:`dposer.solvers.gauss_newton`: a picture tells nothing of depth, so that every person is begun from several sides, all of them
solved together, and the one with the lowest objective is kept:

.. math:: E = \sum_k \frac{c_k^2}{2 s^2} \rho(\pi(q_k) - u_k) + \tfrac12 \|\beta\|^2 + E_\text{prior}(\theta)
"""

import math
from dataclasses import dataclass

import roma
import torch
from torch import Tensor

from dposer.body.model import BodyModel, default_body
from dposer.body.points import BodyPoints, Skeleton
from dposer.body.skeleton import OPENPOSE_25, SMPLX_22
from dposer.errors import InputError
from dposer.geometry.camera import Camera
from dposer.prior.pose_prior import PosePrior, Progress
from dposer.solvers.gauss_newton import MotionSolver, MotionState, Observation
from dposer.solvers.motion_fitting import START_DAMPING, Points, iterate, known_shape, mean_pose, places_of
from dposer.solvers.pose_terms import Anneal, DiffusionTerm, GaussianTerm

_STATURE = 1.7
"""Metres, of a person whose size in the picture says how much a detector errs."""
_FEWEST = 4
_TORSO = {"up": ("left_shoulder", "right_shoulder"), "down": ("left_hip", "right_hip")}
_FARTHEST = 100.0
"""Metres, and the nearest a person begins."""
_CLOSEST = 0.7


@dataclass(frozen=True)
class FitSettings:
    """Settings of :func:`fit_keypoints`; the prior's gave low errors on posed bodies of validation subjects of the open corpus."""

    steps: int = 30
    noise: float = 0.015
    """By how much of a person's height keypoints err, along each axis."""
    robust: float | None = 3.0
    """Standard deviations beyond which an error is discounted; None: Gaussian."""
    anneal: Anneal = Anneal(2.0, 0.3, 1.0)
    """Levels and weight of the diffusion prior."""
    term: GaussianTerm | None = None
    """Takes the place of the diffusion prior."""
    sides: tuple[float, ...] = (0.0, 90.0, 180.0, -90.0)
    """Degrees about the body's axis, 0 facing the camera: where each person is begun from."""


@dataclass(frozen=True)
class MeshFit:
    """P people in front of their cameras."""

    pose_body: Tensor
    """(P, 63) axis-angle, radians."""
    root_orient: Tensor
    """(P, 3) axis-angle; the camera looks along +z, y down."""
    trans: Tensor
    """(P, 3) metres."""
    betas: Tensor
    """(P, S)."""
    keypoints: Tensor
    """(P, K, 2) pixels: where the body has them."""
    residuals: Tensor
    """(P, K) pixels between these and the detected ones, NaN where none was."""
    objective: Tensor
    """(P, H) of every start; infinite where it led nowhere."""


@torch.no_grad()
def fit_keypoints(
    prior: PosePrior | None,
    keypoints: Tensor,
    camera: Camera,
    what: Points = OPENPOSE_25,
    *,
    body: BodyModel | None = None,
    betas: Tensor | None = None,
    settings: FitSettings | None = None,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> MeshFit:
    """Bodies whose keypoints are seen where they were detected; people, pictures and starts are one batch.

    Args:
        prior: None fits without any.
        keypoints: (P, K, 3) pixels and confidence in [0, 1]; 0 where missing.
        camera: of all, or of each person.
        what: what the K keypoints are: a layout or its name, names of joints and surface keypoints of the body, or places on it.
        body: None takes the open body.
        betas: (n,) or (P, n) shapes, if known; None solves for them.
        settings: None takes the defaults.
        generator: source of the prior's noise.
        progress: called as ``progress(done, total)`` with steps.

    Raises:
        InputError: wrong shapes, confidences outside [0, 1], a person with fewer than four keypoints that the body has.
    """
    settings = settings or FitSettings()
    body = body or default_body(prior.device if prior is not None else keypoints.device)
    points = BodyPoints(body, places_of(body, what)[0])
    pixels, confidence = _checked(keypoints, points, body)
    camera = Camera(*(part.to(pixels).expand(len(pixels), 2) for part in (camera.focal, camera.centre)))
    known = None if betas is None else known_shape(betas.to(pixels), len(pixels), body)
    skeleton = Skeleton(body)
    state, size = _begun(skeleton, points, pixels, confidence, camera, mean_pose(prior, pixels.new_zeros(1, 1, 3))[0, 0], known, settings)
    starts = len(settings.sides)
    observation = _observed(points, pixels, confidence, camera, settings.noise * size, starts)
    joints = BodyPoints.of_layout(body, SMPLX_22)
    solver = MotionSolver(skeleton, joints, observation, free_shape=known is None, robust=settings.robust)
    term = settings.term or (DiffusionTerm(prior, settings.anneal, generator) if prior is not None else None)
    state = iterate(solver, state, term, settings.steps, START_DAMPING, progress)
    objective = solver.energy(state, None) + (0 if term is None else term.energy(state.pose)[0])
    objective = objective.nan_to_num(nan=math.inf).view(-1, starts)
    best = objective.argmin(1) + starts * torch.arange(len(pixels), device=pixels.device)
    chosen = MotionState(state.pose[0, best], state.root[0, best], state.trans[0, best], state.betas[best])
    places = points(skeleton(chosen.pose, chosen.root, chosen.trans, chosen.betas), chosen.betas)
    seen = camera.project(places)
    return MeshFit(
        pose_body=chosen.pose,
        root_orient=roma.rotmat_to_rotvec(chosen.root),
        trans=chosen.trans,
        betas=chosen.betas,
        keypoints=seen,
        residuals=torch.where(confidence > 0, torch.linalg.vector_norm(seen - pixels, dim=-1), torch.nan),
        objective=objective,
    )


def _checked(keypoints: Tensor, points: BodyPoints, body: BodyModel) -> tuple[Tensor, Tensor]:
    """Pixels (P, K, 2), finite, and confidences (P, K), 0 where there is nothing to go by."""
    if keypoints.ndim != 3 or keypoints.shape[1:] != (len(points), 3) or len(keypoints) == 0:
        raise InputError(f"keypoints: shape {tuple(keypoints.shape)}, expected (people, {len(points)}, 3): x, y and confidence")
    keypoints = keypoints.to(body.device, body.dtype)
    pixels, confidence = keypoints[..., :2], keypoints[..., 2]
    if not bool(((confidence >= 0) & (confidence <= 1)).all()):
        raise InputError("keypoints: expected confidences from 0 to 1, and 0 where a keypoint is missing; found others")
    confidence = torch.where(pixels.isfinite().all(-1) & points.known, confidence, 0)
    few = ((confidence > 0).sum(1) < _FEWEST).nonzero()
    if len(few):
        count = int((confidence[few[0, 0]] > 0).sum())
        raise InputError(f"keypoints: person {int(few[0, 0])} has {count} of use, expected {_FEWEST} or more; leave the person out")
    return torch.where(confidence[..., None] > 0, pixels, 0), confidence


def _observed(points: BodyPoints, pixels: Tensor, confidence: Tensor, camera: Camera, deviation: Tensor, starts: int) -> Observation:
    """Every person once for each start, in units of the deviation (P,), so that one robust scale serves people of every size."""

    def repeated(values: Tensor) -> Tensor:
        return values.repeat_interleave(starts, 0)[None]

    lens = Camera(*(repeated(part / deviation[:, None]) for part in (camera.focal, camera.centre)))
    return Observation(points, repeated(pixels / deviation[:, None, None]), repeated(confidence.square()), lens)


def _begun(
    skeleton: Skeleton, points: BodyPoints, pixels: Tensor, confidence: Tensor, camera: Camera, pose: Tensor, betas: Tensor | None,
    settings: FitSettings,
) -> tuple[MotionState, Tensor]:  # fmt: skip
    """Every person in the mean pose from every side, and how tall in pixels a person of average height is there (P,).

    The distance is that at which the trunk, or what there is, spreads as far as it does in the picture.
    """
    people, starts = len(pixels), len(settings.sides)
    shape = pixels.new_zeros(people, skeleton.directions.shape[-1]) if betas is None else betas
    identity = torch.eye(3).to(pixels).expand(people, 3, 3)
    upright = points(skeleton(pose.expand(people, -1), identity, pixels.new_zeros(people, 3), shape), shape)
    turn = _roll(points.names, pixels, confidence)
    weights = confidence * torch.where(_enough(confidence, points.steady), points.steady.to(pixels), 1)
    own, own_centre = _spread(upright[..., :2], weights)
    seen, seen_centre = _spread(pixels, weights)
    depth = (camera.focal.mean(-1) * own / seen.clamp_min(1e-6)).clamp(_CLOSEST, _FARTHEST)
    middle = camera.ray(seen_centre[:, None])[:, 0] * depth[:, None]
    facing = roma.rotvec_to_rotmat(pixels.new_tensor([math.pi, 0, 0]))
    sides = roma.rotvec_to_rotmat(torch.deg2rad(pixels.new_tensor([[0.0, side, 0.0] for side in settings.sides])))
    root = turn[:, None] @ facing @ sides  # (P, H, 3, 3)
    centre = (upright * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)
    trans = middle[:, None] - (root @ centre[:, None, :, None])[..., 0]
    state = MotionState(
        pose.expand(1, people * starts, -1).clone(), root.flatten(0, 1)[None], trans.flatten(0, 1)[None], shape.repeat_interleave(starts, 0)
    )
    return state, camera.focal.mean(-1) * _STATURE / depth


def _enough(confidence: Tensor, some: Tensor) -> Tensor:
    """(P, 1) whether three or more of some keypoints are there."""
    return ((confidence > 0) & some).sum(1, keepdim=True) >= 3


def _spread(places: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Root of the weighted mean square distance (P,) from the centre (P, 2)."""
    total = weights.sum(1)
    centre = (places * weights[..., None]).sum(1) / total[:, None]
    return ((places - centre[:, None]).square().sum(-1) * weights).sum(1).div(total).sqrt(), centre


def _roll(names: tuple[str, ...], pixels: Tensor, confidence: Tensor) -> Tensor:
    """(P, 3, 3): the rotation about the optical axis from upright to where the trunk points; none where it is not seen."""
    rows = {end: [names.index(name) for name in ends if name in names] for end, ends in _TORSO.items()}
    if any(len(some) < 2 for some in rows.values()):
        return torch.eye(3).to(pixels).expand(len(pixels), 3, 3)
    up = pixels[:, rows["up"]].mean(1) - pixels[:, rows["down"]].mean(1)
    seen = (confidence[:, rows["up"] + rows["down"]] > 0).all(1)
    angle = torch.where(seen, torch.atan2(up[:, 0], -up[:, 1]), 0)
    return roma.rotvec_to_rotmat(torch.nn.functional.pad(angle[:, None], (2, 0)))
