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
from dposer.solvers.pose_terms import Anneal, DiffusionTerm, EnergyTerm

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
    term: EnergyTerm | None = None
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


@dataclass(frozen=True)
class Initial:
    """Where P people are begun from instead, as a regressor (CLIFF in the paper) may have found them."""

    pose_body: Tensor
    """(P, 63) axis-angle, radians."""
    root_orient: Tensor
    """(P, 3) axis-angle in the frame of the camera."""
    trans: Tensor | None = None
    """(P, 3) metres; None: where the size of the trunk says."""
    betas: Tensor | None = None
    """(P, n); None: the mean shape."""


@torch.no_grad()
def fit_keypoints(
    prior: PosePrior | None,
    keypoints: Tensor,
    camera: Camera,
    what: Points = OPENPOSE_25,
    *,
    body: BodyModel | None = None,
    betas: Tensor | None = None,
    initial: Initial | None = None,
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
        initial: the one start of each person; None: the mean pose from several sides.
        settings: None takes the defaults.
        generator: source of the prior's noise.
        progress: called as ``progress(done, total)`` with steps.

    Raises:
        InputError: wrong shapes, confidences outside [0, 1], a person with fewer than four keypoints that the body has.
    """
    settings = settings or FitSettings()
    task = KeypointTask(prior, keypoints, camera, what, body, betas)
    state, objective = task.solve(settings, initial, generator, progress)
    best = objective.argmin(1) + objective.shape[1] * torch.arange(len(objective), device=objective.device)
    return task.result(MotionState(state.pose[0, best], state.root[0, best], state.trans[0, best], state.betas[best]), objective)


class KeypointTask:
    """P people, what was seen of them, and the body to be fitted.

    Args:
        fewest: keypoints that everybody must show.
        others: as of :func:`fit_keypoints`.
    """

    def __init__(
        self, prior: PosePrior | None, keypoints: Tensor, camera: Camera, what: Points, body: BodyModel | None, betas: Tensor | None,
        fewest: int = _FEWEST,
    ) -> None:  # fmt: skip
        self.prior = prior
        self.body = body or default_body(prior.device if prior is not None else keypoints.device)
        self.points = BodyPoints(self.body, places_of(self.body, what)[0])
        self.skeleton, self.joints = Skeleton(self.body), BodyPoints.of_layout(self.body, SMPLX_22)
        self.pixels, self.confidence = _checked(keypoints, self.points, self.body, fewest)
        people = len(self.pixels)
        self.camera = Camera(*(part.to(self.pixels).expand(people, 2) for part in (camera.focal, camera.centre)))
        self.free_shape = betas is None
        zeros = self.pixels.new_zeros(people, self.body.num_betas)
        self.betas = zeros if betas is None else known_shape(betas.to(self.pixels), people, self.body)
        self.rest = mean_pose(prior, zeros.new_zeros(1, 1, 3))[0, 0]
        self.depth = self._depth(self.rest.expand(people, -1), torch.eye(3).to(zeros).expand(people, 3, 3), self.betas)
        self.size = self.camera.focal.mean(-1) * _STATURE / self.depth
        """(P,) pixels: how tall a person of average height is there."""

    def solve(
        self, settings: FitSettings, initial: Initial | None, generator: torch.Generator | None, progress: Progress | None
    ) -> tuple[MotionState, Tensor]:
        """Every person from every start: states (1, P H) and objectives (P, H), infinite where a start led nowhere."""
        state = self.sides(settings.sides) if initial is None else self.given(initial)
        starts = state.pose.shape[1] // len(self.pixels)
        observation = self.observation(settings.noise * self.size, starts)
        solver = MotionSolver(self.skeleton, self.joints, observation, free_shape=self.free_shape, robust=settings.robust)
        term = settings.term or (DiffusionTerm(self.prior, settings.anneal, generator) if self.prior is not None else None)
        state = iterate(solver, state, term, settings.steps, START_DAMPING, progress)
        objective = solver.energy(state, None) + (0 if term is None else term.energy(state.pose)[0])
        return state, objective.nan_to_num(nan=math.inf).view(-1, starts)

    def observation(self, deviation: Tensor, starts: int = 1) -> Observation:
        """Every person once for each start, (1, P H), in units of the deviation (P,), so that one robust scale serves all sizes."""

        def repeated(values: Tensor) -> Tensor:
            return values.repeat_interleave(starts, 0)[None]

        lens = Camera(*(repeated(part / deviation[:, None]) for part in (self.camera.focal, self.camera.centre)))
        return Observation(self.points, repeated(self.pixels / deviation[:, None, None]), repeated(self.confidence.square()), lens)

    def sides(self, degrees: tuple[float, ...]) -> MotionState:
        """Everybody in the mean pose, turned as the trunk is in the picture, from several sides."""
        facing = roma.rotvec_to_rotmat(self.pixels.new_tensor([math.pi, 0, 0]))
        turns = roma.rotvec_to_rotmat(torch.deg2rad(self.pixels.new_tensor([[0.0, side, 0.0] for side in degrees])))
        root = _roll(self.points.names, self.pixels, self.confidence)[:, None] @ facing @ turns  # (P, H, 3, 3)
        starts = len(degrees)
        pose, betas = self.rest.expand(len(root) * starts, -1), self.betas.repeat_interleave(starts, 0)
        trans = self._placed(pose, root.flatten(0, 1), betas, self.depth.repeat_interleave(starts), starts)
        return MotionState(pose[None].clone(), root.flatten(0, 1)[None], trans[None], betas)

    def given(self, initial: Initial) -> MotionState:
        """The same of one start that is given."""
        people = len(self.pixels)
        for name, width in (("pose_body", 63), ("root_orient", 3), ("trans", 3)):
            value = getattr(initial, name)
            if value is not None and (value.shape != (people, width) or not bool(value.isfinite().all())):
                raise InputError(f"initial {name}: shape {tuple(value.shape)}, expected ({people}, {width}), finite")
        pose, root = initial.pose_body.to(self.rest), roma.rotvec_to_rotmat(initial.root_orient.to(self.rest))
        use = self.free_shape and initial.betas is not None
        betas = known_shape(initial.betas.to(self.rest), people, self.body) if use and initial.betas is not None else self.betas
        trans = self._placed(pose, root, betas, self._depth(pose, root, betas)) if initial.trans is None else initial.trans.to(self.rest)
        return MotionState(pose[None], root[None], trans[None], betas)

    def result(self, state: MotionState, objective: Tensor) -> MeshFit:
        """Of a state (P, ...)."""
        places = self.points(self.skeleton(state.pose, state.root, state.trans, state.betas), state.betas)
        seen = self.camera.project(places)
        return MeshFit(
            pose_body=state.pose,
            root_orient=roma.rotmat_to_rotvec(state.root),
            trans=state.trans,
            betas=state.betas,
            keypoints=seen,
            residuals=torch.where(self.confidence > 0, torch.linalg.vector_norm(seen - self.pixels, dim=-1), torch.nan),
            objective=objective,
        )

    def _weights(self) -> Tensor:
        """(P, K): of the trunk, if enough of it is seen, else of all there is."""
        trunk = _enough(self.confidence, self.points.steady)
        return self.confidence * torch.where(trunk, self.points.steady.to(self.pixels), 1)

    def _about_origin(self, pose: Tensor, root: Tensor, betas: Tensor) -> Tensor:
        return self.points(self.skeleton(pose, root, pose.new_zeros(len(pose), 3), betas), betas)

    def _depth(self, pose: Tensor, root: Tensor, betas: Tensor) -> Tensor:
        """(P,) metres: where bodies (P, ...) spread as far as they do in the picture."""
        own, _ = _spread(self._about_origin(pose, root, betas)[..., :2], self._weights())
        seen, _ = _spread(self.pixels, self._weights())
        return (self.camera.focal.mean(-1) * own / seen.clamp_min(1e-6)).clamp(_CLOSEST, _FARTHEST)

    def _placed(self, pose: Tensor, root: Tensor, betas: Tensor, depth: Tensor, starts: int = 1) -> Tensor:
        """(P H, 3): translations at which the centre of what was seen is where it was seen, at some depth."""
        weights = self._weights()
        _, seen = _spread(self.pixels, weights)
        middle = self.camera.ray(seen[:, None])[:, 0].repeat_interleave(starts, 0) * depth[:, None]
        weights = weights.repeat_interleave(starts, 0)
        own = self._about_origin(pose, root, betas)
        return middle - (own * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)


def _checked(keypoints: Tensor, points: BodyPoints, body: BodyModel, fewest: int) -> tuple[Tensor, Tensor]:
    """Pixels (P, K, 2), finite, and confidences (P, K), 0 where there is nothing to go by."""
    if keypoints.ndim != 3 or keypoints.shape[1:] != (len(points), 3) or len(keypoints) == 0:
        raise InputError(f"keypoints: shape {tuple(keypoints.shape)}, expected (people, {len(points)}, 3): x, y and confidence")
    keypoints = keypoints.to(body.device, body.dtype)
    pixels, confidence = keypoints[..., :2], keypoints[..., 2]
    if not bool(((confidence >= 0) & (confidence <= 1)).all()):
        raise InputError("keypoints: expected confidences from 0 to 1, and 0 where a keypoint is missing; found others")
    confidence = torch.where(pixels.isfinite().all(-1) & points.known, confidence, 0)
    few = ((confidence > 0).sum(1) < fewest).nonzero()
    if len(few):
        count = int((confidence[few[0, 0]] > 0).sum())
        raise InputError(f"keypoints: person {int(few[0, 0])} has {count} of use, expected {fewest} or more; leave the person out")
    return torch.where(confidence[..., None] > 0, pixels, 0), confidence


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
