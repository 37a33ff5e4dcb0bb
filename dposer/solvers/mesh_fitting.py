r"""2D keypoints of people in pictures → SMPL-X poses, roots, translations and shapes.

What SMPLify does (Bogo et al., ECCV 2016) with the DPoser prior (arXiv 2312.05541, sec. 4.3), by the second-order solver of
:mod:`dposer.solvers.gauss_newton`: a picture tells nothing of depth, so that every person is begun from several sides, all of them
solved together, and the one with the lowest objective is kept:

.. math:: E = \sum_k \frac{c_k^2}{2 (s\, l_k h)^2}\, \rho(\pi(q_k) - u_k) + \tfrac12 \|\beta\|^2 + E_\text{prior}(\theta)

with confidences c and deviations s l h: h is the person's height in pixels, l how loosely a kind of keypoint is placed, and s is estimated
for each person at the end, from what is left over. Releases' settings go to :mod:`dposer.solvers.mesh_adam` instead.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import roma
import torch
from torch import Tensor

from dposer.body.model import BodyModel, default_body
from dposer.body.points import BodyPoints, Skeleton
from dposer.body.skeleton import OPENPOSE_25, SMPLX_22
from dposer.data.keypoints import kappas
from dposer.errors import InputError
from dposer.geometry.camera import Camera
from dposer.prior.pose_prior import PosePrior, Progress
from dposer.solvers.gauss_newton import MotionSolver, MotionState, Observation
from dposer.solvers.mesh_adam import BodyStart, SmplifySettings, keypoint_places, solve_smplify
from dposer.solvers.motion_fitting import START_DAMPING, WARM_DAMPING, Points, iterate, known_shape, mean_pose, places_of
from dposer.solvers.pose_terms import Anneal, DiffusionTerm, EnergyTerm

NOISE = 0.015
"""Of the height: what keypoints are taken to err by before anything is known."""
_NOISE_BELIEVED, _USUAL, _NOISES = 0.01, 5.0, (0.003, 0.05)
"""Numbers with this deviation that are added to a person's own, how many, and what an estimate lies between."""
_CUT = 2.5
"""Deviations to which larger errors are cut."""
_ROUNDS, _ROUND_STEPS = 3, 5
_MISMATCH = 0.1
"""κ of where a body has a keypoint against where people have it."""
STATURE = 1.7
"""Metres, of a person whose size in the picture says how much a detector errs."""
FEWEST = 4
"""Keypoints that a person must show."""
_TORSO = {"up": ("left_shoulder", "right_shoulder"), "down": ("left_hip", "right_hip")}
_FARTHEST = 100.0
"""Metres, and the nearest a person begins."""
_CLOSEST = 0.7


@dataclass(frozen=True)
class FitSettings:
    """Settings of :func:`fit_keypoints`; the prior's gave low errors on posed bodies of validation subjects of the open corpus."""

    steps: int = 30
    noise: float | None = None
    """By how much of a person's height keypoints err, along each axis; None estimates it for each person, in 15 more steps."""
    robust: float | None = 3.0
    """Standard deviations beyond which an error is discounted; None: Gaussian."""
    anneal: Anneal = Anneal(1.0, 0.7, 1.0)
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
    noise: Tensor
    """(P,) by how much of a person's height keypoints were taken to err, along each axis; NaN where a solver knows of no such thing."""
    start: BodyStart
    """From where each person was found."""


@torch.no_grad()
def fit_keypoints(
    prior: PosePrior | None,
    keypoints: Tensor,
    camera: Camera,
    what: Points = OPENPOSE_25,
    *,
    body: BodyModel | None = None,
    betas: Tensor | None = None,
    initial: BodyStart | None = None,
    settings: FitSettings | SmplifySettings | None = None,
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
        settings: None takes the defaults; :func:`~dposer.solvers.mesh_adam.smplify_settings` has those of the releases.
        generator: source of the prior's noise.
        progress: called as ``progress(done, total)`` with steps.

    Raises:
        InputError: wrong shapes, confidences outside [0, 1], a person with fewer than four keypoints that the body has.
    """
    settings = settings or FitSettings()
    task = KeypointTask(prior, keypoints, camera, what, body, betas)
    if isinstance(settings, SmplifySettings):
        return task.by_adam(settings, initial, generator, progress)
    start, state, objective = task.solve(settings, initial, generator, progress)
    best = objective.argmin(1) + objective.shape[1] * torch.arange(len(objective), device=objective.device)
    noise = state.betas.new_full((len(best),), NOISE if settings.noise is None else settings.noise)
    state = of_rows(state, best)
    if settings.noise is None:
        state, noise = task.refine(state, noise, settings, generator)
    return task.result(state, objective, noise, of_rows(start, best))


class KeypointTask:
    """P people, what was seen of them, and the body to be fitted.

    Args:
        fewest: keypoints that everybody must show.
        others: as of :func:`fit_keypoints`.
    """

    def __init__(
        self, prior: PosePrior | None, keypoints: Tensor, camera: Camera, what: Points, body: BodyModel | None, betas: Tensor | None,
        fewest: int = FEWEST,
    ) -> None:  # fmt: skip
        self.prior = prior
        self.body = body or default_body(prior.device if prior is not None else keypoints.device)
        self.places = places_of(self.body, what)[0]
        self.points = BodyPoints(self.body, self.places)
        self.skeleton, self.joints = Skeleton(self.body), BodyPoints.of_layout(self.body, SMPLX_22)
        self.pixels, self.confidence = _checked(keypoints, self.points, self.body, fewest)
        self.looseness = _looseness(self.points.names).to(self.pixels)
        self.precision = (self.confidence / self.looseness).square()
        """(P, K) in units of that of the mean keypoint."""
        people = len(self.pixels)
        self.camera = Camera(*(part.to(self.pixels).expand(people, 2) for part in (camera.focal, camera.centre)))
        self.free_shape = betas is None
        zeros = self.pixels.new_zeros(people, self.body.num_betas)
        self.betas = zeros if betas is None else known_shape(betas.to(self.pixels), people, self.body)
        self.rest = mean_pose(prior, zeros.new_zeros(1, 1, 3))[0, 0]
        self.depth = self._depth(self.rest.expand(people, -1), torch.eye(3).to(zeros).expand(people, 3, 3), self.betas)

    def size_at(self, depth: Tensor) -> Tensor:
        """(P,) pixels: how tall a person of average height is at depths (P,)."""
        return self.camera.focal.mean(-1) * STATURE / depth

    def solve(
        self, settings: FitSettings, initial: BodyStart | None, generator: torch.Generator | None, progress: Progress | None
    ) -> tuple[MotionState, MotionState, Tensor]:
        """Every person from every start: where they began and what was found (1, P H), and objectives (P, H), infinite where a start led
        nowhere."""
        start = self.sides(settings.sides) if initial is None else self.given(initial)
        starts = start.pose.shape[1] // len(self.pixels)
        noise = NOISE if settings.noise is None else settings.noise
        solver = self.solver(self.observation(noise * self.size_at(self.depth), starts), settings)
        term = self.term(settings, settings.anneal, generator)
        state = iterate(solver, start, term, settings.steps, START_DAMPING, progress)
        objective = solver.energy(state, None) + (0 if term is None else term.energy(state.pose)[0])
        return start, state, objective.nan_to_num(nan=math.inf).view(-1, starts)

    def refine(
        self, state: MotionState, noise: Tensor, settings: FitSettings, generator: torch.Generator | None, one_shape: bool = False
    ) -> tuple[MotionState, Tensor]:
        """Poses (1, P) and the noise (P,) in turn: what is left over says how keypoints err, outliers cut and a few of the usual added."""
        anneal = Anneal(settings.anneal.last, settings.anneal.last, settings.anneal.weight)
        count = 2 * self.confidence.square().sum(1)
        for _ in range(_ROUNDS):
            size = self.size_at(state.trans[0, :, 2])
            misses = self.residuals(self.seen(state)).nan_to_num(0) / size[:, None]
            squared = torch.minimum(misses, _CUT * math.sqrt(2) * noise[:, None] * self.looseness).square()
            total = _USUAL * _NOISE_BELIEVED**2 + (self.precision * squared).sum(1)
            noise = (total / (_USUAL + count)).sqrt().clamp(*_NOISES)
            solver = self.solver(self.observation(noise * size), settings, one_shape)
            state = iterate(solver, state, self.term(settings, anneal, generator), _ROUND_STEPS, WARM_DAMPING)
        return state, noise

    def solver(self, observation: Observation, settings: FitSettings, one_shape: bool = False) -> MotionSolver:
        return MotionSolver(
            self.skeleton, self.joints, observation, free_shape=self.free_shape, one_shape=one_shape, robust=settings.robust
        )

    def term(self, settings: FitSettings, anneal: Anneal, generator: torch.Generator | None) -> EnergyTerm | None:
        return settings.term or (DiffusionTerm(self.prior, anneal, generator) if self.prior is not None else None)

    def by_adam(
        self, settings: SmplifySettings, initial: BodyStart | None, generator: torch.Generator | None, progress: Progress | None
    ) -> MeshFit:
        """As a release did it."""
        if self.body.shape_space == "own":  # the mean shape of the releases is one of SMPL's
            settings = dataclasses.replace(settings, start_betas=())
        keypoints = torch.cat((self.pixels, self.confidence[..., None]), -1)
        found = solve_smplify(
            keypoint_places(self.body, self.places),
            self.points.names,
            keypoints,
            self.camera,
            self.prior,
            settings,
            betas=None if self.free_shape else self.betas,
            num_betas=self.body.num_betas,
            init=None if initial is None else self.start(initial),
            generator=generator,
            progress=progress,
        )
        state = MotionState(found.pose_body[None], roma.rotvec_to_rotmat(found.root_orient)[None], found.trans[None], found.betas)
        unknown = torch.full_like(found.betas[:, 0], torch.nan)
        return self.result(state, found.objective, unknown, self.given(found.start))

    def observation(self, deviation: Tensor, starts: int = 1) -> Observation:
        """Every person once for each start, (1, P H), in units of the deviation (P,), so that one robust scale serves all sizes."""

        def repeated(values: Tensor) -> Tensor:
            return values.repeat_interleave(starts, 0)[None]

        lens = Camera(*(repeated(part / deviation[:, None]) for part in (self.camera.focal, self.camera.centre)))
        return Observation(self.points, repeated(self.pixels / deviation[:, None, None]), repeated(self.precision), lens)

    def sides(self, degrees: tuple[float, ...]) -> MotionState:
        """Everybody in the mean pose, turned as the trunk is in the picture, from several sides."""
        facing = roma.rotvec_to_rotmat(self.pixels.new_tensor([math.pi, 0, 0]))
        turns = roma.rotvec_to_rotmat(torch.deg2rad(self.pixels.new_tensor([[0.0, side, 0.0] for side in degrees])))
        root = _roll(self.points.names, self.pixels, self.confidence)[:, None] @ facing @ turns  # (P, H, 3, 3)
        starts = len(degrees)
        pose, betas = self.rest.expand(len(root) * starts, -1), self.betas.repeat_interleave(starts, 0)
        trans = self._placed(pose, root.flatten(0, 1), betas, self.depth.repeat_interleave(starts), starts)
        return MotionState(pose[None].clone(), root.flatten(0, 1)[None], trans[None], betas)

    def start(self, initial: BodyStart) -> BodyStart:
        """The same on the body's device, its shape as long as the body's.

        Raises:
            InputError: wrong shapes, or numbers that are not finite.
        """
        people = len(self.pixels)
        for name, width in (("pose_body", 63), ("root_orient", 3), ("trans", 3)):
            value = getattr(initial, name)
            if value is not None and (value.shape != (people, width) or not bool(value.isfinite().all())):
                raise InputError(f"initial {name}: shape {tuple(value.shape)}, expected ({people}, {width}), finite")
        betas = None if initial.betas is None else known_shape(initial.betas.to(self.rest), people, self.body)
        trans = None if initial.trans is None else initial.trans.to(self.rest)
        return BodyStart(initial.pose_body.to(self.rest), initial.root_orient.to(self.rest), trans, betas)

    def given(self, initial: BodyStart) -> MotionState:
        """Everybody as they are given, without a translation where the trunk is seen."""
        start = self.start(initial)
        root = roma.rotvec_to_rotmat(start.root_orient)
        betas = start.betas if self.free_shape and start.betas is not None else self.betas
        trans = start.trans
        if trans is None:
            trans = self._placed(start.pose_body, root, betas, self._depth(start.pose_body, root, betas))
        return MotionState(start.pose_body[None], root[None], trans[None], betas)

    def result(self, state: MotionState, objective: Tensor, noise: Tensor, start: MotionState) -> MeshFit:
        """Of states (1, P)."""
        seen = self.seen(state)
        return MeshFit(
            pose_body=state.pose[0],
            root_orient=roma.rotmat_to_rotvec(state.root[0]),
            trans=state.trans[0],
            betas=state.betas,
            keypoints=seen,
            residuals=self.residuals(seen),
            objective=objective,
            noise=noise,
            start=BodyStart(start.pose[0], roma.rotmat_to_rotvec(start.root[0]), start.trans[0], start.betas),
        )

    def seen(self, state: MotionState) -> Tensor:
        """(P, K, 2) pixels: where the body has the keypoints."""
        places = self.points(self.skeleton(state.pose[0], state.root[0], state.trans[0], state.betas), state.betas)
        return self.camera.project(places)

    def residuals(self, seen: Tensor) -> Tensor:
        """(P, K) pixels from where they were detected, NaN where they were not."""
        return torch.where(self.confidence > 0, torch.linalg.vector_norm(seen - self.pixels, dim=-1), torch.nan)

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


def _looseness(names: Sequence[str]) -> Tensor:
    """(K,) with mean 1: by how much keypoints of detectors err, and are not where the body has them."""
    values = torch.tensor(np.hypot(kappas(names), _MISMATCH))
    return values / values.mean()


def of_rows(state: MotionState, rows: Tensor) -> MotionState:
    """Some sequences of a batch."""
    return MotionState(state.pose[:, rows], state.root[:, rows], state.trans[:, rows], state.betas[rows])


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
