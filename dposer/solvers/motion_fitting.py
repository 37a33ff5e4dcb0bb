r"""3D points of a person, joints or markers → SMPL-X poses, roots, translations and one shape.

The solver is :mod:`dposer.solvers.gauss_newton`; around it stand what real sequences need: a measure of their noise, from which the
times of the prior follow, a start, one shape for all frames, and windows, so that length costs no memory. A window keeps the two frames
before it as they are and penalises the acceleration across the border like any other: there are no seams to be hidden.
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
from dposer.body.points import BodyPoints, Place, Skeleton, layout_places
from dposer.body.skeleton import LAYOUTS, SMPLX_22, Layout
from dposer.data.amass import AmassSequence
from dposer.errors import InputError
from dposer.prior.pose_prior import PosePrior, Progress
from dposer.solvers.gauss_newton import MotionSolver, MotionState, Observation, Smoothness
from dposer.solvers.motion_adam import ObservedMotion
from dposer.solvers.pose_terms import Anneal, DiffusionTerm, PoseTerm, spread

Points = Layout | str | Sequence[str] | Sequence[Place]

_ACCELERATION = 45.0
"""m/s²: the scale of joints' accelerations in human motion, whose tails are those of Student's t with one degree of freedom."""
_BENDING = 140.0
"""1/s²: the same of rotation vectors in units of their spread over poses."""
START_DAMPING, WARM_DAMPING = 1e2, 1.0
_STRETCHES, _STRETCH, _ANCHOR_STEPS = 8, 20, 15
_ROBUST, _LEAST_OUTLIER, _LOOSE = 3.0, 0.01, 10.0
"""Standard deviations, and metres, from where on a point counts as an outlier; how many times farther it may be at first."""
_ENOUGH = 10
"""Frames that tell how much a length varies."""
_LEAST_NOISE = 0.002
"""Metres: no layout is the body's own to less."""
_SHORT = 0.2
"""Of a limb's length: to more than this its error is no longer along it, and tells less than the noise."""
_LEAST_OVERLAP = 2
"""Frames; with fewer the end of a window, which nothing follows, would stay as it is."""
_LARGEST = 5.0
"""Metres from one point of a person to another."""
_NO_TURN = 1e-6
"""Radians."""
_SPAN = 0.05
"""Metres, root of a sum of squares: how far points must be from one line to show a turn about it."""
_MEDIAN_OF_MAXWELL = 1.538
"""Median length of a vector of three standard normal numbers."""


@dataclass(frozen=True)
class NewtonSettings:
    """Settings of the second-order solver."""

    steps: int = 12
    acceleration: float = _ACCELERATION
    """m/s²; smaller is smoother."""
    freedom: float | None = 1.0
    """Degrees of freedom of the accelerations; None: Gaussian."""
    bending: float | None = _BENDING
    """1/s²: accelerations of rotations in units of their spread over poses; None leaves them free."""
    robust: float | None = None
    """Standard deviations beyond which an error of the measurement is discounted; None: its noise is Gaussian."""
    anneal: Anneal | None = None
    """Levels and weight of the diffusion prior; None: by the noise, :func:`anneal_for`."""
    prior_weight: float = 1.0
    """Multiplies the weight of the prior."""
    term: PoseTerm | None = None
    """Takes the place of the diffusion prior."""


IK_SETTINGS = NewtonSettings(steps=30, anneal=Anneal(1.0, 0.3, 0.2))
"""Of :func:`fit_joints`: poses that stand alone give the prior more weight, and more steps to find their way from rest."""

FIT_SETTINGS = NewtonSettings(acceleration=30.0, robust=_ROBUST)
"""Of :func:`fit_motion`: where roots are sought too, joints have to be smoother to make up for it, and real points have outliers."""


def anneal_for(noise_std: float) -> Anneal:
    """Levels and weight of the prior for noise of ``noise_std`` metres.

    The levels at 40 mm, and the weights, gave the lowest errors on validation subjects of the open corpus; with more noise the pose that
    is asked about is itself less certain, and levels rise with the root of it. The first is never low, for the sake of hidden limbs.
    """
    scale = min(max(math.sqrt(noise_std / 0.04), 0.5), 3.0)
    return Anneal(1.1 * max(scale, 1.0), 0.15 * scale, 0.03, unseen=0.6)


# ---- the paper's experiment --------------------------------------------------------------------------------------------


def solve_newton(
    motion: ObservedMotion,
    prior: PosePrior | None,
    body: BodyModel,
    settings: NewtonSettings,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Poses (B, F, 63) of fragments whose root and shape are known; but for one estimate of the noise, each as if it were alone."""
    batch, frames = motion.joints.shape[:2]
    joints = BodyPoints.of_layout(body, SMPLX_22)
    given = {name: value.unflatten(0, (batch, frames)).transpose(0, 1) for name, value in motion.placement.items()}
    zeros = motion.joints.new_zeros(frames, batch, 3)
    state = MotionState(
        mean_pose(prior, zeros),
        roma.rotvec_to_rotmat(given.get("root_orient", zeros)),
        given.get("trans", zeros),
        padded(given["betas"][0], body) if "betas" in given else zeros.new_zeros(batch, body.num_betas),
    )
    seen = motion.visible.transpose(0, 1)
    noise_std = max(_noise_of(motion) if motion.noise_std is None else motion.noise_std, _LEAST_NOISE)
    observation = Observation(joints, motion.joints.transpose(0, 1), seen / noise_std**2)
    solver = MotionSolver(
        Skeleton(body),
        joints,
        observation,
        _smoothness(settings, motion.fps, spread(prior) if prior else None),
        free_root=False,
        robust=_robust(settings, noise_std),
    )
    term = _term(prior, settings, noise_std, generator, joints.seen(seen.any(0)))
    state = iterate(solver, state, term, settings.steps, START_DAMPING, progress)
    return state.pose.transpose(0, 1)


def iterate(
    solver: MotionSolver, state: MotionState, term: PoseTerm | None, steps: int, damping: float, progress: Progress | None = None
) -> MotionState:
    """Steps of the solver, the prior asked anew before each."""
    damped = torch.full((state.pose.shape[1],), damping, device=state.pose.device, dtype=state.pose.dtype)
    robust = solver.robust
    for step in range(steps):
        if robust is not None:  # what seems an outlier at first may be a limb that is on its way
            solver.robust = robust * max(1.0, _LOOSE ** (1 - 2 * step / steps))
        prior = None if term is None else term(state.pose, step / max(steps - 1, 1))
        state, damped = solver.step(state, prior, damped)
        if progress is not None:
            progress(step + 1, steps)
    return state


def _smoothness(settings: NewtonSettings, fps: float, spread: Tensor | None) -> Smoothness:
    rotations = None if spread is None or settings.bending is None else spread * settings.bending / fps**2
    return Smoothness(settings.acceleration / fps**2, settings.freedom, rotations)


def _robust(settings: NewtonSettings, noise_std: float) -> float | None:
    return None if settings.robust is None else max(settings.robust * noise_std, _LEAST_OUTLIER)


def _term(
    prior: PosePrior | None, settings: NewtonSettings, noise_std: float, generator: torch.Generator | None, seen: Tensor
) -> PoseTerm | None:
    if settings.term is not None or prior is None or settings.prior_weight == 0:
        return settings.term
    anneal = settings.anneal or anneal_for(noise_std)
    return DiffusionTerm(prior, anneal.times(settings.prior_weight), generator, seen)


def _noise_of(motion: ObservedMotion) -> float:
    """The median of the fragments' estimates."""
    joints = torch.where(motion.visible[..., None], motion.joints, torch.nan).cpu().numpy()
    return float(np.median([estimate_noise(fragment, SMPLX_22.edges) for fragment in joints]))


def mean_pose(prior: PosePrior | None, like: Tensor) -> Tensor:
    """Every frame in the prior's mean pose (F, B, 63); without a prior in the body's rest pose."""
    pose = like.new_zeros(63) if prior is None else prior.denormalize(prior.normalizer.shift.new_zeros(1, prior.dim))[0].to(like)
    return pose.expand(*like.shape[:2], 63).clone()


def known_shape(betas: Tensor, count: int, body: BodyModel) -> Tensor:
    """Shapes (n,) or (N, n) → (N, S), of N = ``count`` bodies.

    Raises:
        InputError: more coefficients than the body has, another number of rows, or NaN.
    """
    fits = betas.ndim == 1 or (betas.ndim == 2 and len(betas) in (1, count))
    if not fits or not 0 < betas.shape[-1] <= body.num_betas:
        raise InputError(f"betas: shape {tuple(betas.shape)}, expected 1 to {body.num_betas} numbers, or such a row for each body")
    if not bool(betas.isfinite().all()):
        raise InputError("betas: holds NaN or infinity, expected finite numbers; leave betas out to have the shape solved for")
    return padded(betas, body).expand(count, -1)


def padded(betas: Tensor, body: BodyModel) -> Tensor:
    """As many shape coefficients as the body has."""
    return torch.nn.functional.pad(betas, (0, body.num_betas - betas.shape[-1]))


# ---- sequences of points -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MotionFit:
    """A body in motion, and how well it fits."""

    pose_body: Tensor
    """(F, 63) axis-angle, radians."""
    root_orient: Tensor
    """(F, 3) axis-angle without jumps."""
    trans: Tensor
    """(F, 3) metres."""
    betas: Tensor
    """(S,), or (F, S) where every frame has its own."""
    points: Tensor
    """(F, K, 3) metres: where the body has the points."""
    residuals: Tensor
    """(F, K) metres between these and the measured ones, NaN where nothing was measured."""
    noise_std: float
    """Metres per coordinate: what the measurement was taken to err by."""
    times: tuple[float, float] | None
    """First and last time of the prior; None without one."""

    def amass(self, fps: float | None, gender: str = "neutral") -> AmassSequence:
        """The motion as AMASS keeps it."""
        pose, root, trans, betas = (part.detach().cpu().numpy() for part in (self.pose_body, self.root_orient, self.trans, self.betas))
        return AmassSequence(pose, root, trans, np.atleast_2d(betas)[0], gender, fps)


def fit_motion(
    prior: PosePrior | None,
    points: Tensor,
    what: Points = SMPLX_22,
    *,
    confidence: Tensor | None = None,
    fps: float = 30.0,
    body: BodyModel | None = None,
    betas: Tensor | None = None,
    noise_std: float | None = None,
    settings: NewtonSettings | None = None,
    window: int = 120,
    overlap: int = 30,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> MotionFit:
    """Fit a body in motion to 3D points.

    Args:
        prior: None fits without any.
        points: (F, K, 3) metres; NaN where missing.
        what: what the K points are: a layout or its name, names of joints and surface keypoints of the body, or places on it.
        confidence: (F, K) in [0, 1], by which squared errors count; 0 where missing.
        fps: frames per second.
        body: None takes the open body.
        betas: (n,) shape, if known; None solves for it.
        noise_std: metres per coordinate that the points err by; None estimates it.
        settings: None takes :data:`FIT_SETTINGS`.
        window, overlap: frames that are solved for at once, and those of them that the next window solves for again.
        generator: source of the prior's noise.
        progress: called as ``progress(done, total)`` with frames.

    Raises:
        InputError: wrong shapes, no point in any frame, an unknown layout, a rate or noise that is not positive, or a window that does
            not move on.
    """
    if noise_std is not None and not 0 < noise_std < math.inf:
        raise InputError(f"noise_std = {noise_std}, expected a standard deviation in metres above 0, or None to have it estimated")
    if not 0 < fps < math.inf:
        raise InputError(f"fps = {fps}, expected a positive number of frames per second")
    if not _LEAST_OVERLAP <= overlap < window:
        raise InputError(f"window = {window} and overlap = {overlap} frames, expected {_LEAST_OVERLAP} <= overlap < window")
    task = _Task(prior, points, what, confidence, body, generator, settings or FIT_SETTINGS)
    noise = max(task.noise() if noise_std is None else noise_std, _LEAST_NOISE)
    anchors = task.fit_anchors(betas, noise, fps)
    if noise_std is None:
        noise = max(noise, task.misfit(anchors))
    parts: list[MotionState] = []
    found: MotionState | None = None  # of the next window, by this one
    frames = len(task.places)
    start = 0
    while start < frames:
        rows = slice(start, min(start + window, frames))
        state = task.start(rows, anchors, found)
        before = joined(parts[-2:]).frames(slice(-2, None)) if parts else None
        solver = task.solver(rows, noise, _smoothness(task.settings, fps, task.spread), before)
        state = iterate(
            solver, state, task.term(noise, solver.observation), task.settings.steps, START_DAMPING if found is None else WARM_DAMPING
        )
        count = len(state.pose) if rows.stop == frames else window - overlap
        parts.append(state.frames(slice(0, count)))
        found = state.frames(slice(count, None))
        start += count
        if progress is not None:
            progress(start, frames)
    fit = task.result(joined(parts), noise)
    return dataclasses.replace(fit, root_orient=unwrapped(fit.root_orient), betas=fit.betas[0])


def fit_joints(
    targets: Tensor,
    what: Points = SMPLX_22,
    prior: PosePrior | None = None,
    *,
    confidence: Tensor | None = None,
    body: BodyModel | None = None,
    betas: Tensor | None = None,
    fit_shape: bool = False,
    noise_std: float = 0.005,
    settings: NewtonSettings | None = None,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> MotionFit:
    """Inverse kinematics: bodies that put their points where they are wanted, each for itself.

    Any points will do, a few end effectors too: what they leave open is decided by the prior.

    Args:
        targets: (N, K, 3) metres; NaN where nothing is wanted.
        what: what the K points are, as for :func:`fit_motion`.
        prior: None leaves open what the targets leave open, at the rest pose.
        confidence: (N, K) in [0, 1].
        body: None takes the open body.
        betas: (n,) or (N, n) shapes; None: the mean shape, or where the search for one begins.
        fit_shape: whether each body has a shape of its own.
        noise_std: metres per coordinate by which a target may be missed.
        settings: None takes :data:`IK_SETTINGS`.

    Returns:
        as of a motion of N frames, with betas (N, S).

    Raises:
        InputError: wrong shapes, a target set without any point, an unknown layout, noise that is not positive.
    """
    if not 0 < noise_std < math.inf:
        raise InputError(f"noise_std = {noise_std}, expected a standard deviation in metres above 0")
    task = _Task(prior, targets, what, confidence, body, generator, settings or IK_SETTINGS)
    empty = (task.precision.sum((1, 2)) == 0).nonzero()
    if len(empty):
        raise InputError(f"targets: row {int(empty[0])} has no point, expected at least one; leave the row out")
    rows = torch.arange(len(targets), device=task.places.device)
    state = task.rough(rows, task.rest_pose.expand(len(rows), 1, 63), task.shape(betas, len(rows)), alone=True)
    observation = task.observation(slice(None), noise_std, across=True)
    solver = MotionSolver(task.skeleton, task.joints, observation, free_shape=fit_shape, robust=_robust(task.settings, noise_std))
    alone = iterate(solver, state.transposed(), task.term(noise_std, observation), task.settings.steps, START_DAMPING, progress)
    return task.result(alone.transposed(), noise_std)


def joined(parts: Sequence[MotionState]) -> MotionState:
    """Stretches of one motion, one after another."""
    pose, root, trans = (torch.cat([getattr(part, name) for part in parts]) for name in ("pose", "root", "trans"))
    return MotionState(pose, root, trans, parts[0].betas)


def estimate_noise(points: np.ndarray, edges: Sequence[tuple[int, int]] = ()) -> float:
    r"""Standard deviation of independent errors of each coordinate, in the unit of the points.

    Two estimates, both by medians, so that outliers and moments of fast movement do not count: of third differences along time,
    whose variance is :math:`20 s^2` where motion is smooth, and of the lengths of ``edges``, rigid limbs, whose variance is
    :math:`2 s^2`. The smaller one is taken: movement adds to the first, joints that are not rigidly linked to the second. Limbs that
    the noise is not small against say nothing.

    Args:
        points: (F, K, 3), NaN where missing.
        edges: pairs of points a fixed distance apart.
    """
    estimates = []
    jerks = np.abs(np.diff(points, n=3, axis=0))
    if np.isfinite(jerks).any():
        estimates.append(float(np.nanmedian(jerks)) / 0.6745 / math.sqrt(20))
    spreads = []
    for a, b in edges:
        lengths = np.linalg.norm(points[:, a] - points[:, b], axis=-1)
        if np.isfinite(lengths).sum() >= _ENOUGH:
            length = float(np.nanmedian(lengths))
            spread = 1.4826 * float(np.nanmedian(np.abs(lengths - length)))
            if spread <= _SHORT * length:
                spreads.append(spread / math.sqrt(2))
    if spreads:
        estimates.append(float(np.median(spreads)))
    return min(estimates, default=0.0)


class _Task:
    """One sequence on one body: F frames, a batch of 1."""

    def __init__(
        self,
        prior: PosePrior | None,
        points: Tensor,
        what: Points,
        confidence: Tensor | None,
        body: BodyModel | None,
        generator: torch.Generator | None,
        settings: NewtonSettings,
    ) -> None:
        self.prior, self.generator, self.settings = prior, generator, settings
        self.body = body or default_body(prior.device if prior is not None else points.device)
        if prior is not None and prior.device != self.body.device:
            raise InputError(f"the prior is on {prior.device} and the body on {self.body.device}, expected one device; move one of them")
        self.skeleton, self.joints = Skeleton(self.body), BodyPoints.of_layout(self.body, SMPLX_22)
        places, self.edges = places_of(self.body, what)
        same = tuple(place.name for place in places) == SMPLX_22.joints and what in (SMPLX_22, SMPLX_22.name)
        self.points = self.joints if same else BodyPoints(self.body, places)
        if points.ndim != 3 or points.shape[1:] != (len(places), 3) or len(points) == 0:
            raise InputError(f"points: shape {tuple(points.shape)}, expected (frames, {len(places)}, 3) for these {len(places)} points")
        if confidence is not None and confidence.shape != points.shape[:2]:
            raise InputError(f"confidence: shape {tuple(confidence.shape)}, expected {tuple(points.shape[:2])}, one a point")
        if confidence is not None and not bool(((confidence >= 0) & (confidence <= 1)).all()):
            raise InputError("confidence: expected numbers from 0 to 1, and 0 where a point is missing; found others")
        points = points.to(self.body.device, self.body.dtype)
        trust = points.new_ones(points.shape[:2]) if confidence is None else confidence.to(points)
        seen = points.isfinite().all(-1) & self.points.known & (trust > 0)
        if not bool(seen.any()):
            raise InputError("points: none is there in any frame (NaN, confidence 0, or not on this body), expected a person")
        across = _size(points, seen)
        if across > _LARGEST:
            raise InputError(f"points: the person is {across:.0f} metres across, expected metres; divide millimetres by 1000")
        self.places = torch.where(seen[..., None], points, 0)[:, None]
        self.precision = torch.where(seen, trust, 0)[:, None]  # of unit noise
        self.spread = None if prior is None else spread(prior)
        self.rest_pose = mean_pose(prior, points.new_zeros(1, 1, 3))

    # ---- pieces of the problem -----------------------------------------------------------------------------------------

    def observation(self, rows: slice | Tensor, noise: float, across: bool = False) -> Observation:
        """The measurement of some frames; ``across`` puts them side by side instead of one after another."""
        places, precision = self.places[rows], self.precision[rows] / noise**2
        return Observation(self.points, *((places.transpose(0, 1), precision.transpose(0, 1)) if across else (places, precision)))

    def solver(self, rows: slice, noise: float, smoothness: Smoothness, before: MotionState | None) -> MotionSolver:
        observation = self.observation(rows, noise)
        return MotionSolver(self.skeleton, self.joints, observation, smoothness, robust=_robust(self.settings, noise), before=before)

    def term(self, noise: float, observation: Observation) -> PoseTerm | None:
        return _term(self.prior, self.settings, noise, self.generator, self.points.seen((observation.precision > 0).any(0)))

    def noise(self) -> float:
        points = torch.where(self.precision[:, 0, :, None] > 0, self.places[:, 0], torch.nan).cpu().numpy()
        return estimate_noise(points, self.edges)

    def shape(self, betas: Tensor | None, count: int) -> Tensor:
        if betas is None:
            return self.places.new_zeros(count, self.body.num_betas)
        return known_shape(betas.to(self.places), count, self.body)

    # ---- the start -----------------------------------------------------------------------------------------------------

    def fit_anchors(self, betas: Tensor | None, noise: float, fps: float) -> "_Anchors":
        """Stretches spread over the sequence, fitted with one shape. (Single frames would stretch the limbs to their noise.)"""
        seen = (self.precision[:, 0] > 0).any(1).nonzero()[:, 0]
        length, count = min(_STRETCH, len(self.places)), min(_STRETCHES, -(-len(seen) // _STRETCH))
        starts = seen[torch.linspace(0, max(len(seen) - length, 0), count).long()].clamp_max(len(self.places) - length)
        rows = starts + torch.arange(length, device=starts.device)[:, None]  # (length, count)
        places, precision = self.places[rows, 0], self.precision[rows, 0]
        flat = self.rough(rows.flatten(), self.rest_pose.expand(rows.numel(), 1, 63), self.shape(betas, 1))
        shape = rows.shape
        state = MotionState(
            flat.pose.view(*shape, 63), flat.root.view(*shape, 3, 3), flat.trans.view(*shape, 3), flat.betas.expand(count, -1)
        )
        solver = MotionSolver(
            self.skeleton, self.joints, Observation(self.points, places, precision / noise**2),
            _smoothness(self.settings, fps, self.spread), free_shape=betas is None, one_shape=True, robust=_robust(self.settings, noise),
        )  # fmt: skip
        state = iterate(solver, state, self.term(noise, solver.observation), _ANCHOR_STEPS, START_DAMPING)
        return _Anchors(rows.flatten(), state.pose.flatten(0, 1)[:, None], state.betas[:1], solver.residuals(state)[precision > 0])

    def misfit(self, anchors: "_Anchors") -> float:
        """What the body cannot explain, metres per coordinate: noise, and a layout that is not exactly the body's."""
        return float(anchors.residuals.median()) / _MEDIAN_OF_MAXWELL

    def start(self, rows: slice, anchors: "_Anchors", found: MotionState | None) -> MotionState:
        """Frames in the pose of the nearest anchor, placed by their own points; those that were found before as they are."""
        frames = torch.arange(len(self.places), device=self.places.device)[rows]
        state = self.rough(frames, anchors.poses[_nearest(frames, anchors.rows)], anchors.betas)
        if found is None or not len(found.pose):
            return state
        rest = state.frames(slice(len(found.pose), None))
        return joined((found, rest))

    def rough(self, frames: Tensor, pose: Tensor, betas: Tensor, alone: bool = False) -> MotionState:
        """Poses (F, 1, 63) turned about the pelvis and moved as a whole onto the points of some frames; those that show too little take
        the turn, and if need be the place, of the frame nearest in time, unless frames stand ``alone``."""
        places, weights = self.places[frames][:, 0], self.precision[frames][:, 0]
        identity = torch.eye(3).to(pose).expand(len(pose), 3, 3)
        posed = self.skeleton(pose[:, 0], identity, pose.new_zeros(len(pose), 3), betas)
        pelvis = posed.positions[:, :1]
        own = self.points(posed, betas.expand(len(pose), -1)) - pelvis
        weights = weights * torch.where(self.points.steady, 1.0, 0.1)  # limbs say less of where the trunk is
        enough = _spans(places, weights)
        root = identity
        if bool(enough.any()):
            turn, _ = roma.rigid_points_registration(own[enough], places[enough], weights[enough])
            root = identity.index_put((enough,), turn) if alone else turn[_nearest(frames, frames[enough])]
        total = weights.sum(1)
        away = places - pelvis - own @ root.mT
        shift = (away * weights[..., None]).sum(1) / total.clamp_min(1e-9)[:, None]
        if not alone and bool((total > 0).any()):
            shift = shift[total > 0][_nearest(frames, frames[total > 0])]
        return MotionState(pose, root[:, None], shift[:, None], betas)

    def result(self, state: MotionState, noise: float) -> MotionFit:
        frames = state.pose.flatten(0, 1)
        betas = state.betas
        posed = self.skeleton(frames, state.root.flatten(0, 1), state.trans.flatten(0, 1), betas)
        points = self.points(posed, betas.expand(len(frames), -1))
        residuals = torch.linalg.vector_norm(points - self.places[:, 0], dim=-1)
        seen = self.precision[:, 0] > 0
        return MotionFit(
            pose_body=frames,
            root_orient=roma.rotmat_to_rotvec(state.root.flatten(0, 1)),
            trans=state.trans.flatten(0, 1),
            betas=betas,
            points=points,
            residuals=torch.where(seen, residuals, torch.nan),
            noise_std=noise,
            times=self._times(noise),
        )

    def _times(self, noise: float) -> tuple[float, float] | None:
        if self.prior is None or self.settings.term is not None or self.settings.prior_weight == 0:
            return None
        anneal = self.settings.anneal or anneal_for(noise)
        first, last = (float(self.prior.schedule.time(-math.log(level))) for level in (anneal.first, anneal.last))
        return first, last


@dataclass(frozen=True)
class _Anchors:
    rows: Tensor
    """(A,) frames."""
    poses: Tensor
    """(A, 1, 63)."""
    betas: Tensor
    """(1, S)."""
    residuals: Tensor
    """Of all their points, metres."""


def unwrapped(rotvecs: Tensor) -> Tensor:
    """(F, 3) axis-angle → the same rotations, each by the number of whole turns that brings it nearest to the one before."""
    result = rotvecs.double().cpu().numpy().copy()
    for f in range(1, len(result)):
        angle, before = np.linalg.norm(result[f]), np.linalg.norm(result[f - 1])
        if max(angle, before) > _NO_TURN:
            axis = result[f] / angle if angle > _NO_TURN else result[f - 1] / before  # no rotation is a whole turn about any axis
            turns = np.round((axis @ result[f - 1] - angle) / (2 * math.pi))
            result[f] += 2 * math.pi * turns * axis
    return torch.from_numpy(result).to(rotvecs)


def _nearest(frames: Tensor, others: Tensor) -> Tensor:
    """For each of some frames the entry of ``others`` that is nearest in time."""
    return (frames[:, None] - others).abs().argmin(1)


def _size(points: Tensor, seen: Tensor) -> float:
    """The median over frames of the diagonal of the box around what was seen."""
    low = torch.where(seen[..., None], points, math.inf).amin(1)
    high = torch.where(seen[..., None], points, -math.inf).amax(1)
    return float(torch.linalg.vector_norm(high - low, dim=-1)[seen.any(1)].median())


def _spans(places: Tensor, weights: Tensor) -> Tensor:
    """(F,) whether three points or more, not in a line, show how a body is turned."""
    seen = weights > 0
    count = seen.sum(1)
    centred = (places - (places * seen[..., None]).sum(1, keepdim=True) / count.clamp_min(1)[:, None, None]) * seen[..., None]
    scatter = torch.linalg.eigvalsh(centred.mT @ centred)
    return (count >= 3) & (scatter[:, 1] > _SPAN**2)


def places_of(body: BodyModel, what: Points) -> tuple[list[Place], Sequence[tuple[int, int]]]:
    """The points as places on the body, and which of them are a fixed distance apart."""
    if isinstance(what, str):
        if what not in LAYOUTS:
            raise InputError(f"layout '{what}' does not exist, expected one of {', '.join(LAYOUTS)}")
        what = LAYOUTS[what]
    if isinstance(what, Layout):
        return layout_places(body, what), what.edges
    places = [place if isinstance(place, Place) else Place(place, {place: 1.0}) for place in what]
    return places, ()
