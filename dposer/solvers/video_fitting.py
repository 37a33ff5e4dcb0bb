r"""2D keypoints of a person in a video → a smooth SMPL-X motion in front of the camera, of one shape.

Every few frames the person is fitted alone and from several sides, as :mod:`dposer.solvers.mesh_fitting` does. A picture leaves several
poses open; of the starts of all these key frames the path is taken that costs least,

.. math:: \min_{s_1, s_2, \ldots} \sum_i E_i(s_i) + \sum_{i,j} \tfrac{2 m}{22} \log\big(1 + (\|J_{i+1,j} - J_{ij}\| / v \Delta t_i)^2\big)

(Viterbi), with objectives E and joints J about the pelvis, whose speeds are those of Student's t with one degree of freedom; 22 joints
move like m that are independent. Then all key frames are given one shape. With what lies between them interpolated they are the start of
a second-order fit along time (:mod:`dposer.solvers.gauss_newton`): measurement, prior, accelerations of joints and of rotations.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import roma
import torch
from torch import Tensor

from dposer.body.model import BodyModel
from dposer.body.skeleton import OPENPOSE_25
from dposer.errors import InputError
from dposer.geometry.camera import Camera
from dposer.prior.pose_prior import PosePrior, Progress
from dposer.solvers.gauss_newton import MotionSolver, MotionState, Smoothness
from dposer.solvers.mesh_fitting import FEWEST, NOISE, FitSettings, KeypointTask, of_rows
from dposer.solvers.motion_fitting import WARM_DAMPING, Points, iterate, joined, unwrapped
from dposer.solvers.pose_terms import Anneal, spread

_PLENTY = 6
"""Keypoints that make a frame a key frame, where there are such frames."""
_INDEPENDENT = 6.0
"""m, of joints."""
_TOGETHER = 128
"""Key frames solved for at once, so that memory does not grow with the video."""
_SPEED = 1.0
"""m/s about the pelvis: the scale of joints' speeds."""


@dataclass(frozen=True)
class TrackSettings:
    """Settings of :func:`fit_track`; chosen for low errors on posed bodies of validation subjects of the open corpus."""

    single: FitSettings = field(default_factory=FitSettings)
    """Of the key frames, and what keypoints err by."""
    every: float = 0.3
    """Seconds from key frame to key frame."""
    steps: int = 15
    acceleration: float = 50.0
    """m/s², the scale of joints' accelerations; smaller is smoother."""
    freedom: float | None = 1.0
    """Degrees of freedom of the accelerations; None: Gaussian."""
    bending: float | None = 250.0
    """1/s²: accelerations of rotations in units of their spread over poses; None leaves them free."""
    anneal: Anneal = Anneal(1.0, 0.5, 0.1)
    """Levels and weight of the diffusion prior in the fit along time."""
    window: int = 120
    overlap: int = 30
    """Frames that are solved for at once, and those of them that the next window solves for again."""


@dataclass(frozen=True)
class TrackFit:
    """A person over F frames of a video."""

    pose_body: Tensor
    """(F, 63) axis-angle, radians."""
    root_orient: Tensor
    """(F, 3) axis-angle without jumps; the camera looks along +z, y down."""
    trans: Tensor
    """(F, 3) metres."""
    betas: Tensor
    """(S,)."""
    keypoints: Tensor
    """(F, K, 2) pixels: where the body has them."""
    residuals: Tensor
    """(F, K) pixels between these and the detected ones, NaN where none was."""
    noise: float
    """By how much of the person's height keypoints were taken to err, along each axis."""


@torch.no_grad()
def fit_track(
    prior: PosePrior | None,
    keypoints: Tensor,
    camera: Camera,
    what: Points = OPENPOSE_25,
    *,
    fps: float = 30.0,
    body: BodyModel | None = None,
    betas: Tensor | None = None,
    settings: TrackSettings | None = None,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> TrackFit:
    """One person over the frames of a video.

    Args:
        prior: None fits without any.
        keypoints: (F, K, 3) pixels and confidence in [0, 1]; 0 where missing. Frames that show nothing are bridged.
        camera: of all frames, or of each.
        what: what the K keypoints are, as of :func:`~dposer.solvers.mesh_fitting.fit_keypoints`.
        fps: frames per second.
        body: None takes the open body.
        betas: (n,) shape, if known; None solves for it.
        settings: None takes the defaults.
        generator: source of the prior's noise.
        progress: called as ``progress(done, total)`` with frames; the key frames count as half.

    Raises:
        InputError: wrong shapes, confidences outside [0, 1], no frame with four keypoints that the body has, a rate that is not positive.
    """
    if not 0 < fps < float("inf"):
        raise InputError(f"fps = {fps}, expected a positive number of frames per second")
    if betas is not None and betas.ndim != 1:
        raise InputError(f"betas: shape {tuple(betas.shape)}, expected (n,), one shape for all frames")
    settings = settings or TrackSettings()
    frames = len(keypoints)
    task = KeypointTask(prior, keypoints, camera, what, body, betas, fewest=0)
    keys = _key_frames(task.confidence, max(1, round(settings.every * fps)))

    def of_frames(rows: Tensor) -> KeypointTask:
        lens = Camera(task.camera.focal[rows], task.camera.centre[rows])
        return KeypointTask(prior, keypoints[rows.to(keypoints.device)], lens, what, task.body, betas)

    found: list[tuple[MotionState, Tensor]] = []
    for some in keys.split(_TOGETHER):
        found.append(of_frames(some).solve(settings.single, None, generator, None)[1:])
        if progress is not None:
            progress(frames * sum(len(objective) for _, objective in found) // (2 * len(keys)), frames)
    starts, objective = _beside([state for state, _ in found]), torch.cat([objective for _, objective in found])
    alone = of_frames(keys)
    path = _path(_joints(alone, starts).unflatten(0, objective.shape), objective, keys / fps)
    chosen = of_rows(starts, path + objective.shape[1] * torch.arange(len(path), device=path.device))
    noise = chosen.betas.new_full((len(path),), settings.single.noise or NOISE)
    chosen.betas[:] = chosen.betas.mean(0)
    chosen, told = alone.refine(chosen, noise, settings.single, generator, one_shape=True)
    noise = told.square().mean().sqrt() if settings.single.noise is None else noise[0]
    begin = _between(chosen.transposed(), keys, frames)
    state = _along_time(task, begin, float(noise), settings, fps, generator, progress)
    across = state.transposed()
    seen = task.seen(MotionState(across.pose, across.root, across.trans, across.betas.expand(frames, -1)))
    root = unwrapped(roma.rotmat_to_rotvec(state.root[:, 0]))
    return TrackFit(state.pose[:, 0], root, state.trans[:, 0], state.betas[0], seen, task.residuals(seen), float(noise))


def _key_frames(confidence: Tensor, step: int) -> Tensor:
    """Frames with enough keypoints, about ``step`` apart, in each stretch of so many frames the one that shows most."""
    total = (confidence.square() * (confidence > 0)).sum(1)
    count = (confidence > 0).sum(1)
    usable = count >= (_PLENTY if bool((count >= _PLENTY).any()) else FEWEST)
    if not bool(usable.any()):
        raise InputError(f"keypoints: no frame has four of use (most: {int(count.max())}), expected a person; leave the track out")
    keys = []
    for start in range(0, len(total), step):
        seen = torch.where(usable[start : start + step], total[start : start + step], -1)
        if bool((seen >= 0).any()):
            keys.append(start + int(seen.argmax()))
    return torch.tensor(keys, device=confidence.device)


def _beside(parts: Sequence[MotionState]) -> MotionState:
    """Sequences of several batches as one batch."""
    pose, root, trans = (torch.cat([getattr(part, name) for part in parts], 1) for name in ("pose", "root", "trans"))
    return MotionState(pose, root, trans, torch.cat([part.betas for part in parts]))


def _joints(task: KeypointTask, state: MotionState) -> Tensor:
    """(N, 22, 3) metres about the pelvis."""
    joints = task.joints(task.skeleton(state.pose[0], state.root[0], state.trans[0], state.betas), state.betas)
    return joints - joints[:, :1]


def _path(joints: Tensor, objective: Tensor, times: Tensor) -> Tensor:
    """(N,) start of each key frame on the path of least cost: joints (N, H, 22, 3), objectives (N, H), seconds (N,)."""
    scale = _SPEED * times.diff()[:, None, None, None]
    squared = (joints[1:, None] - joints[:-1, :, None]).square().sum(-1) / scale.square()  # (N - 1, before, after, 22)
    moves = _INDEPENDENT * (2 * torch.log1p(squared)).mean(-1)
    total, came = objective[0], []
    for i in range(len(moves)):
        total, where = (total[:, None] + moves[i]).min(0)
        total = total + objective[i + 1]
        came.append(where)
    path = [total.argmin()]
    for where in reversed(came):
        path.append(where[path[-1]])
    return torch.stack(path[::-1])


def _between(state: MotionState, keys: Tensor, frames: int) -> MotionState:
    """Key frames (N, 1, ...) → all frames, before the first and after the last as these."""
    times = torch.arange(frames, device=keys.device)
    after = torch.searchsorted(keys, times).clamp(1, max(len(keys) - 1, 1))
    after = after.clamp_max(len(keys) - 1)
    before = (after - 1).clamp_min(0)
    gap = (keys[after] - keys[before]).clamp_min(1)
    share = ((times - keys[before]) / gap).clamp(0, 1).to(state.pose)[:, None]

    def mixed(values: Tensor) -> Tensor:
        return torch.lerp(values[before], values[after], share[..., None].expand_as(values[before]))

    turn = roma.rotmat_to_rotvec(state.root[before].mT @ state.root[after])
    root = state.root[before] @ roma.rotvec_to_rotmat(share[..., None] * turn)
    return MotionState(mixed(state.pose), root, mixed(state.trans), state.betas[:1])


def _along_time(
    task: KeypointTask, begin: MotionState, noise: float, settings: TrackSettings, fps: float,
    generator: torch.Generator | None, progress: Progress | None,
) -> MotionState:  # fmt: skip
    """One window after another; each takes the two frames before it as they are."""
    frames = len(begin.pose)
    deviation = noise * task.size_at(begin.trans[:, 0, 2])
    whole = task.observation(deviation).transposed()
    rotations = None if task.prior is None or settings.bending is None else spread(task.prior) * settings.bending / fps**2
    smoothness = Smoothness(settings.acceleration / fps**2, settings.freedom, rotations)
    parts: list[MotionState] = []
    found: MotionState | None = None
    start = 0
    while start < frames:
        rows = slice(start, min(start + settings.window, frames))
        state = begin.frames(rows)
        if found is not None:
            state = joined((found, state.frames(slice(len(found.pose), None))))
        before = joined(parts[-2:]).frames(slice(-2, None)) if parts else None
        solver = MotionSolver(task.skeleton, task.joints, whole.frames(rows), smoothness, robust=settings.single.robust, before=before)
        state = iterate(solver, state, task.term(settings.single, settings.anneal, generator), settings.steps, WARM_DAMPING)
        count = len(state.pose) if rows.stop == frames else settings.window - settings.overlap
        parts.append(state.frames(slice(0, count)))
        found = state.frames(slice(count, None))
        start += count
        if progress is not None:
            progress((frames + start) // 2, frames)
    return joined(parts)
