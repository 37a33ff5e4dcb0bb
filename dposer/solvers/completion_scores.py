"""How good completions are, by the protocol of the published tables, and those tables.

Source: DPoser (arXiv 2312.05541) and DPoser-X (arXiv 2508.00599), section on pose completion.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dposer.body.model import BodyModel
from dposer.body.parts import part_joints, part_missing, part_vertices
from dposer.errors import InputError
from dposer.metrics.poses import apd, best_of

STATISTICS = ("min", "mean", "std")

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
        values: dict[str, float] = {}
        for name, errors in (("MPVPE", self.mpvpe), ("MPJPE", self.mpjpe)):
            for statistic, value in best_of(errors)._asdict().items():
                values[f"{name} {statistic}"] = float(value.mean())
        return values | {"APD": float(self.apd.mean())}


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


def nearest_completions(training: Tensor, poses: Tensor, part: str, count: int = 1, chunk: int = 256) -> Tensor:
    """Baseline: the missing joints of the ``count`` training poses whose known joints are nearest (Euclidean on axis-angle).

    Args:
        training: (K, 63); poses: (N, 63).

    Returns:
        (N, count, 63), known joints as given.
    """
    hidden = part_missing(part).repeat_interleave(3).to(poses.device)
    bank = training[:, ~hidden]
    nearest = torch.cat([torch.cdist(some[:, ~hidden], bank).topk(count, largest=False).indices for some in poses.split(chunk)])
    return torch.where(hidden, training[nearest], poses[:, None])


def mean_completion(training: Tensor, poses: Tensor, part: str) -> Tensor:
    """Baseline: the missing joints of the mean training pose. Returns (N, 1, 63)."""
    hidden = part_missing(part).repeat_interleave(3).to(poses.device)
    return torch.where(hidden, training.mean(0), poses)[:, None]
