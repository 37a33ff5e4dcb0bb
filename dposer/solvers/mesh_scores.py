"""How good bodies fitted to photographs are, by the protocol of the published EHF table, and that table.

Source: DPoser (arXiv 2312.05541) and DPoser-X (arXiv 2508.00599), sections on human mesh recovery.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dposer.body.model import BodyModel
from dposer.errors import InputError
from dposer.metrics.poses import mpjpe, mpvpe, pa_mpjpe, pa_mpvpe, root_aligned
from dposer.solvers.stored import Stored

PUBLISHED_EHF: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "from scratch": {
        "no prior": {"PA-MPJPE": 108.57},
        "GMM": {"PA-MPJPE": 58.32},
        "VPoser": {"PA-MPJPE": 58.08},
        "Pose-NDF": {"PA-MPJPE": 57.87},
        "NRDF": {"PA-MPJPE": 57.38},
        "GAN-S": {"PA-MPJPE": 57.26},
        "DPoser": {"PA-MPJPE": 56.05, "MPJPE": 79.82, "best PA-MPJPE": 53.28, "best MPJPE": 76.53},
    },
    "CLIFF": {
        "no fitting": {"PA-MPJPE": 56.62},
        "GMM": {"PA-MPJPE": 51.02},
        "VPoser": {"PA-MPJPE": 49.39},
        "Pose-NDF": {"PA-MPJPE": 49.50},
        "NRDF": {"PA-MPJPE": 49.27},
        "GAN-S": {"PA-MPJPE": 49.58},
        "DPoser": {"PA-MPJPE": 49.05},
    },
}
"""The 100 photographs of EHF: initialisation → method → mm, by the names of :meth:`MeshScores.report`; "best" is of 10.
The keypoints were ViTPose's (whole-body, huge), so that fits to EHF's own OpenPose keypoints need not reach these."""

FIGURES = ("PA-MPJPE", "MPJPE", "PA-PVE", "PVE")
"""Errors in mm of joints and of vertices, after a similarity that fits best ("PA-") or with both pelvises in one place."""

BODY_JOINTS = 22


@dataclass(frozen=True)
class MeshScores(Stored):
    """Of N samples with H hypotheses each, (N, H), in mm."""

    pa_mpjpe: Tensor
    """Of the joints, after the similarity that fits them best."""
    mpjpe: Tensor
    """Of the joints, relative to the pelvis."""
    pa_pve: Tensor
    """Of the vertices, after the similarity that fits them best."""
    pve: Tensor
    """Of the vertices, relative to the pelvis."""
    objective: Tensor
    """What the fit was left with, lower is better; it needs no truth."""

    def chosen(self) -> dict[str, Tensor]:
        """By the names of :data:`FIGURES`, (N,) each: of the hypothesis with the lowest objective, as a user would get it."""
        rows = self.objective.nan_to_num(nan=torch.inf).argmin(1, keepdim=True)
        return {name: values.gather(1, rows)[:, 0] for name, values in self._errors().items()}

    def best(self) -> dict[str, Tensor]:
        """By the names of :data:`FIGURES`, (N,) each: the lowest of all hypotheses, each figure of its own, as it was published."""
        return {name: values.amin(1) for name, values in self._errors().items()}

    def report(self) -> dict[str, float]:
        """Means over samples: :meth:`chosen` by the names of :data:`FIGURES` and, of several hypotheses, :meth:`best` as ``best …``."""
        report = {name: float(values.mean()) for name, values in self.chosen().items()}
        if self.objective.shape[1] > 1:
            report |= {f"best {name}": float(values.mean()) for name, values in self.best().items()}
        return report

    def _errors(self) -> dict[str, Tensor]:
        return dict(zip(FIGURES, (self.pa_mpjpe, self.mpjpe, self.pa_pve, self.pve), strict=True))


def regressed_joints(body: BodyModel, vertices: Tensor) -> Tensor:
    """``J v``: the 22 body joints (..., 22, 3) that the body's joint regressor finds in a surface (..., V, 3) in any pose.

    In a bent body these are not quite the joints that it turns about.
    """
    if vertices.shape[-2:] != (body.num_vertices, 3):
        raise InputError(f"vertices: shape {tuple(vertices.shape)}, expected (..., {body.num_vertices}, 3), the surface of the body model")
    return body.joint_regressor[:BODY_JOINTS] @ vertices


@torch.no_grad()
def mesh_scores(body: BodyModel, found: Tensor, truth: Tensor, objective: Tensor | None = None) -> MeshScores:
    """Errors of fitted surfaces, and of the 22 joints regressed from them and from the truth alike.

    Args:
        body: whose surface both are.
        found: (N, H, V, 3) metres, H hypotheses for each sample. Memory is a few times that: score many samples in parts, and put them
            together by :meth:`MeshScores.from_arrays`.
        truth: (N, V, 3) metres, with the axes of ``found``.
        objective: (N, H) what the fits were left with; None if the first hypothesis of each sample is the one chosen.

    Raises:
        InputError: shapes that do not belong together, NaN.
    """
    objective = torch.zeros(found.shape[:2]) if objective is None else objective
    if found.ndim != 4 or truth.shape != found[:, 0].shape or objective.shape != found.shape[:2]:
        raise InputError(
            f"found, truth and objective: shapes {tuple(found.shape)}, {tuple(truth.shape)} and {tuple(objective.shape)}, "
            "expected (N, H, V, 3), (N, V, 3) and (N, H)"
        )
    found, truth = found.to(body.joint_regressor), truth.to(body.joint_regressor)[:, None]
    joints, true_joints = regressed_joints(body, found), regressed_joints(body, truth)
    pelvis, true_pelvis = joints[..., 0, :], true_joints[..., 0, :]
    return MeshScores(
        pa_mpjpe=1000 * pa_mpjpe(joints, true_joints),
        mpjpe=1000 * mpjpe(root_aligned(joints), root_aligned(true_joints)),
        pa_pve=1000 * pa_mpvpe(found, truth),
        pve=1000 * mpvpe(root_aligned(found, pelvis), root_aligned(truth, true_pelvis)),
        objective=objective.to(found),
    )
