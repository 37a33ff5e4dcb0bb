"""How good completions are, by the protocol of the published tables, and those tables.

Source: DPoser (arXiv 2312.05541) and DPoser-X (arXiv 2508.00599), section on pose completion.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dposer.body.model import BodyModel
from dposer.body.parts import part_joints, part_missing, part_vertices
from dposer.errors import InputError
from dposer.metrics.poses import apd, best_of
from dposer.prior.pose_prior import PosePrior, Progress
from dposer.solvers.completion import CompletionSettings, Mode, SamplingSettings, complete

_DISTANCES = 2**25
"""How many distances to training poses are held at once."""

PUBLISHED: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "MPVPE, APD": {
        "left_leg": (38.79, 78.31, 27.13, 6.53),
        "legs": (63.65, 102.46, 25.39, 7.75),
        "arms": (64.72, 104.94, 26.44, 5.69),
        "trunk": (22.63, 44.60, 14.65, 2.21),
    },
    "MPJPE, DPoser": {
        "left_leg": (35.37, 74.01, 26.47),
        "legs": (59.25, 96.77, 24.55),
        "arms": (51.27, 81.76, 20.04),
        "trunk": (13.95, 28.57, 9.85),
    },
    "MPJPE, ScoreSDE": {
        "left_leg": (48.73, 106.32, 41.30),
        "legs": (74.68, 128.32, 37.27),
        "arms": (66.89, 127.86, 48.15),
        "trunk": (16.69, 34.54, 12.21),
    },
    "MPJPE, DPS": {
        "left_leg": (40.51, 104.32, 54.57),
        "legs": (64.26, 113.46, 33.71),
        "arms": (60.63, 119.85, 42.78),
        "trunk": (15.10, 33.90, 13.27),
    },
}
"""Ten hypotheses on the AMASS test split, trained on AMASS: part → (min, mean, std) in mm (and APD in cm of DPoser)."""


def published_figures(mode: str, part: str) -> dict[str, float]:
    """What :data:`PUBLISHED` tells of a mode and a part, by the names of :meth:`CompletionScores.report`; empty where nothing was."""
    joints = PUBLISHED.get(f"MPJPE, {mode}", {}).get(part, ())
    vertices = PUBLISHED["MPVPE, APD"].get(part, ()) if mode == "DPoser" else ()
    names = [f"{error} {statistic}" for error in ("MPVPE", "MPJPE") for statistic in ("min", "mean", "std")]
    return dict(zip([*names[:3], "APD"], vertices, strict=False)) | dict(zip(names[3:], joints, strict=False))


@dataclass(frozen=True)
class CompletionScores:
    """Of N poses with H completions each."""

    mpvpe: Tensor
    """(N, H) mm, vertices of the missing part; NaN where it has none."""
    mpjpe: Tensor
    """(N, H) mm, joints of the missing part."""
    apd: Tensor
    """(N,) cm, average distance between two completions over the joints of the missing part; NaN for one completion."""

    def report(self) -> dict[str, float]:
        """Minimum, mean and population standard deviation over completions, averaged over poses, and the APD.

        The minimum is taken for vertices and joints each on its own, as in the published tables.
        """
        return {name: float(values.mean()) for name, values in self.per_pose().items()}

    def per_pose(self) -> dict[str, Tensor]:
        """The figures of :meth:`report` before they are averaged over poses, (N,) each."""
        values: dict[str, Tensor] = {}
        for name, errors in (("MPVPE", self.mpvpe), ("MPJPE", self.mpjpe)):
            values |= {f"{name} {statistic}": value for statistic, value in best_of(errors)._asdict().items()}
        return values | {"APD": self.apd}


@torch.no_grad()
def completion_scores(body: BodyModel, completions: Tensor, poses: Tensor, missing: str | Tensor, chunk: int = 500) -> CompletionScores:
    """Distances of the missing part to the truth and between completions: no alignment, root and shape at zero.

    Args:
        completions: (N, H, 63).
        poses: (N, 63) the truth.
        missing: a part of the body, scored on the published segments; or a mask (21,), (63,), (N, 21) or (N, 63) bool,
            scored on the joints of which an axis is missing and on the vertices that follow those joints most.
        chunk: bodies posed at once.
    """
    joints, vertices = _scored(body, missing, len(poses))
    count = completions.shape[1]
    used = vertices.any(0).nonzero()[:, 0]
    vertices = vertices[:, used]

    def measure(flat: Tensor) -> tuple[Tensor, Tensor]:
        out = body(flat.to(body.device), vertices=used, joints="body")
        assert out.vertices is not None
        return out.vertices, out.joints

    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for rows in torch.arange(len(poses)).split(max(1, chunk // count)):
        true_vertices, true_joints = measure(poses[rows])
        guess_vertices, guess_joints = (points.unflatten(0, (-1, count)) for points in measure(completions[rows].flatten(0, 1)))
        some_vertices, some_joints = (weights[rows] if len(weights) > 1 else weights for weights in (vertices, joints))
        spread = apd(guess_joints.transpose(1, 2)[..., None, :])  # (rows, joints)
        parts.append((
            _mean_over((guess_vertices - true_vertices[:, None]).norm(dim=-1), some_vertices[:, None]),
            _mean_over((guess_joints - true_joints[:, None]).norm(dim=-1), some_joints[:, None]),
            _mean_over(spread, some_joints),
        ))  # fmt: skip
    mpvpe, mpjpe, diversity = (torch.cat(values) for values in zip(*parts, strict=True))
    return CompletionScores(1000 * mpvpe, 1000 * mpjpe, 100 * diversity)


def _scored(body: BodyModel, missing: str | Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The joints (1 or N, 22) and the vertices (1 or N, V) that are scored."""
    if isinstance(missing, str):
        joints = torch.zeros(1, 22, dtype=torch.bool, device=body.device)
        joints[0, part_joints(missing)] = True
        vertices = torch.zeros(1, len(body.weights), dtype=torch.bool, device=body.device)
        vertices[0, part_vertices(body.weights, missing)] = True
        return joints, vertices
    if missing.shape[-1] not in (21, 63) or missing.ndim > 2 or (missing.ndim == 2 and len(missing) not in (1, count)):
        raise InputError(f"missing: shape {tuple(missing.shape)}, expected (21,), (63,), ({count}, 21) or ({count}, 63)")
    hidden = missing.to(body.device).view(-1, 21, missing.shape[-1] // 21).any(-1)
    joints = torch.cat([torch.zeros_like(hidden[:, :1]), hidden], dim=1)
    owner = body.weights.argmax(dim=1)
    return joints, joints[:, owner.clamp(max=21)] & (owner < 22)


def _mean_over(distances: Tensor, chosen: Tensor) -> Tensor:
    """Mean over the chosen of the last dimension, NaN where none is."""
    return (distances * chosen).sum(-1) / chosen.sum(-1)


def nearest_completions(training: Tensor, poses: Tensor, missing: str | Tensor, count: int = 1) -> Tensor:
    """Baseline: the missing values of the ``count`` training poses p nearest in what is known, min ‖k (p − y)‖, Euclidean on axis-angle.

    Args:
        training: (K, 63); poses: (N, 63).
        missing: a part of the body, or a mask (21,), (63,), (N, 21) or (N, 63) bool.

    Returns:
        (N, count, 63), known values as given; all K training poses where there are fewer than ``count``.
    """
    hidden = _hidden(missing, poses)
    known = (~hidden).to(training)
    squares = training.square()
    chunk = max(1, _DISTANCES // len(training))
    nearest = torch.cat([
        (k @ squares.T - 2 * (k * some) @ training.T).topk(min(count, len(training)), largest=False).indices
        for some, k in zip(poses.split(chunk), known.split(chunk), strict=True)
    ])  # fmt: skip
    return torch.where(hidden[:, None], training[nearest], poses[:, None])


def mean_completion(training: Tensor, poses: Tensor, missing: str | Tensor) -> Tensor:
    """Baseline: the missing values of the mean training pose; arguments as above. Returns (N, 1, 63)."""
    return torch.where(_hidden(missing, poses), training.mean(0), poses)[:, None]


def _hidden(missing: str | Tensor, poses: Tensor) -> Tensor:
    """(N, 63)."""
    mask = (part_missing(missing) if isinstance(missing, str) else missing).to(poses.device)
    return mask.repeat_interleave(63 // mask.shape[-1], dim=-1).expand(len(poses), 63)


@dataclass
class EvaluationCounter:
    """What :func:`count_evaluations` has seen."""

    rows: int = 0
    """Rows that went through the network."""
    calls: int = 0
    """Batches that went through the network."""


@contextlib.contextmanager
def count_evaluations(prior: PosePrior) -> Iterator[EvaluationCounter]:
    """Count the rows that the prior's network evaluates meanwhile: ``rows / (poses · hypotheses)`` is the price of a completion.

    An evaluation whose gradient is taken counts as one, although the way back costs about two more; compare times beside it.
    """
    counter = EvaluationCounter()

    def count(_module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        counter.rows += len(inputs[0])
        counter.calls += 1

    handle = prior.denoiser.network.register_forward_hook(count)
    try:
        yield counter
    finally:
        handle.remove()


Solve = Callable[[Tensor, str | Tensor, torch.Generator | None, Progress | None], Tensor]
"""Completes (N, 63): called as ``solve(poses, missing, generator, progress)`` -> (N, hypotheses, 63)."""

FIGURES = ("MPVPE min", "MPVPE mean", "MPVPE std", "MPJPE min", "MPJPE mean", "MPJPE std", "APD", "plausibility", "evaluations", "ms")
"""Of :meth:`CompletionResult.report`: errors in mm, APD in cm, plausibility in per cent, evaluations and ms per hypothesis."""

BASELINES = ("mean", "nearest", "nearest-10")
"""The mean training pose, the nearest and the ten nearest training poses."""


def solver(prior: PosePrior, mode: Mode, hypotheses: int = 10, settings: CompletionSettings | SamplingSettings | None = None) -> Solve:
    """:func:`dposer.solvers.complete` in one mode."""

    def solve(poses: Tensor, missing: str | Tensor, generator: torch.Generator | None, progress: Progress | None) -> Tensor:
        mask = part_missing(missing) if isinstance(missing, str) else missing
        return complete(prior, poses, mask, hypotheses, mode, generator, settings, progress)

    return solve


def baseline(name: str, training: Tensor) -> Solve:
    """One of :data:`BASELINES`; a part is a mask like any other to it.

    Raises:
        InputError: no such baseline.
    """
    if name not in BASELINES:
        raise InputError(f"baseline '{name}' does not exist, expected one of {', '.join(BASELINES)}")

    def solve(poses: Tensor, missing: str | Tensor, _generator: torch.Generator | None, progress: Progress | None) -> Tensor:
        poses = poses.to(training)
        if name == "mean":
            found = mean_completion(training, poses, missing)
        else:
            found = nearest_completions(training, poses, missing, 10 if name == "nearest-10" else 1)
        if progress is not None:
            progress(1, 1)
        return found

    return solve


@dataclass(frozen=True)
class CompletionResult:
    """N poses completed H times, and what that took."""

    scores: CompletionScores
    plausibility: Tensor
    """(N, H) per cent, see :meth:`PosePrior.plausibility`; NaN for a prior without calibration."""
    completions: Tensor
    """(N, H, 63)."""
    evaluations: int
    """Rows the network evaluated, see :func:`count_evaluations`."""
    seconds: float
    """Of the solver alone."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything as arrays, for :meth:`from_arrays`."""
        tensors = {**vars(self.scores), "plausibility": self.plausibility, "completions": self.completions}
        return {name: tensor.cpu().numpy() for name, tensor in tensors.items()} | {
            "evaluations": np.array(self.evaluations),
            "seconds": np.array(self.seconds),
        }

    @classmethod
    def from_arrays(cls, parts: Sequence[Mapping[str, np.ndarray]]) -> "CompletionResult":
        """One result of the parts that :meth:`arrays` gave, in their order."""

        def joined(name: str) -> Tensor:
            return torch.from_numpy(np.concatenate([part[name] for part in parts]))

        scores = CompletionScores(joined("mpvpe"), joined("mpjpe"), joined("apd"))
        evaluations, seconds = sum(int(part["evaluations"]) for part in parts), sum(float(part["seconds"]) for part in parts)
        return cls(scores, joined("plausibility"), joined("completions"), evaluations, seconds)

    def report(self) -> dict[str, float]:
        """The figures of :meth:`CompletionScores.report`, mean plausibility (%), and network evaluations and ms per hypothesis."""
        count = self.plausibility.numel()
        return self.scores.report() | {
            "plausibility": float(self.plausibility.mean()),
            "evaluations": self.evaluations / count,
            "ms": 1000 * self.seconds / count,
        }

    def per_pose(self) -> dict[str, Tensor]:
        """The figures of every pose, (N,) each."""
        return self.scores.per_pose() | {"plausibility": self.plausibility.mean(1)}


@torch.no_grad()
def evaluate_completion(
    prior: PosePrior,
    body: BodyModel,
    poses: Tensor,
    missing: str | Tensor,
    solve: Solve,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> CompletionResult:
    """Hide a part of poses (N, 63), complete them and score the completions.

    Args:
        prior: whose evaluations are counted and whose plausibility is asked; the solver may be a baseline all the same.
        missing: see :func:`completion_scores`.
        solve: see :func:`solver` and :func:`baseline`.
    """
    poses = poses.to(prior.device)
    with count_evaluations(prior) as counter:
        start = now(prior.device)
        completions = solve(poses, missing, generator, progress)
        seconds = now(prior.device) - start
    scores = completion_scores(body, completions, poses, missing)
    return CompletionResult(scores, _plausibility(prior, completions), completions, counter.rows, seconds)


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _plausibility(prior: PosePrior, completions: Tensor) -> Tensor:
    """(N, H) per cent, NaN where there is none: no calibration, or a solver that diverged."""
    finite = completions.isfinite().all(-1)
    if prior.calibration is None:
        return torch.full(finite.shape, torch.nan)
    score = prior.plausibility(completions.flatten(0, 1).nan_to_num(0, 0, 0)).score
    return torch.where(finite, score.view(finite.shape), torch.nan)
