"""The objectives of D3DP, DDHPose and MixSTE on poses (B, F, J, 3) relative to the root, metres."""

from typing import Any

import torch
from torch import Tensor, nn

from dposer.errors import InputError
from dposer.lifting.config import LiftingConfig
from dposer.lifting.ddhpose import bones

_JOINT_WEIGHTS = {"knee": 2.5, "ankle": 2.5, "head_top": 1.5, "shoulder": 1.5, "elbow": 4.0, "wrist": 4.0}
_SMOOTHNESS, _VELOCITY = 0.5, 2.0


class Losses(nn.Module):
    """(estimated, true) → ``loss``, which is minimised, and the parts it is the sum of, unweighted.

    - position: L_pos = mean ‖ŷ − y‖ (D3DP, arXiv 2303.11579).
    - bones: L_pos + w_l L_len + w_d L_dir with L_len the mean over bones of the squared error of lengths averaged over time and
      L_dir that of squared errors of directions (DDHPose, arXiv 2403.04444).
    - mixste: mean w_j ‖ŷ − y‖ + 0.5 mean w_j (Δŷ)² + 2 mean ‖Δŷ − Δy‖ (MixSTE, CVPR 2022).
    - mse: mean (ŷ − y)².
    - mae: of :meth:`denoising` alone.
    """

    weights: Tensor

    def __init__(self, config: LiftingConfig) -> None:
        super().__init__()
        self.config = config
        if config.loss.kind == "mae" and config.method != "diffpose":
            raise InputError(f"loss.kind = 'mae': not of {config.method}, expected position, bones, mixste or mse")
        names = (name.removeprefix("left_").removeprefix("right_") for name in config.skeleton.joints)
        self.register_buffer("weights", torch.tensor([_JOINT_WEIGHTS.get(name, 1.0) for name in names]), persistent=False)

    def forward(self, estimate: Tensor, pose: Tensor) -> dict[str, Tensor]:
        settings = self.config.loss
        parts: dict[str, Any] = getattr(self, f"_{settings.kind}")(estimate, pose)
        loss = parts.pop("loss") if "loss" in parts else parts["position"]
        return {"loss": loss * loss / 2 if settings.squared else loss, **{name: part.detach() for name, part in parts.items()}}

    def denoising(self, error: Tensor, clean: Tensor, pose: Tensor) -> dict[str, Tensor]:
        """(1 − λ_t − λ_s) E + λ_t mean Var ℓ + λ_s mean (ℓ_left − ℓ_right)² (DiffHPE, arXiv 2309.01575).

        Args:
            error: E, mean square of what the network estimates.
            clean: estimated pose (B, F, J, 3), whose bone lengths ℓ are judged; metres.
        """
        settings, layout = self.config.loss, self.config.skeleton
        parts = {"position": _distance(clean, pose).mean(), "denoising": error}
        loss = error
        if settings.consistency or settings.symmetry:
            length = bones(clean, layout.parents)[..., 3]
            moving = [joint for joint, parent in enumerate(layout.parents) if parent >= 0]
            varies = length[..., moving].var(1).mean()
            differs = (length[..., list(layout.left)] - length[..., list(layout.right)]).square().mean()
            loss = (1 - settings.consistency - settings.symmetry) * error + settings.consistency * varies + settings.symmetry * differs
            parts |= {"consistency": varies, "symmetry": differs}
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}}

    def _position(self, estimate: Tensor, pose: Tensor) -> dict[str, Tensor]:
        return {"position": _distance(estimate, pose).mean() / self.config.loss.unit}

    def _bones(self, estimate: Tensor, pose: Tensor) -> dict[str, Tensor]:
        settings, parents = self.config.loss, self.config.skeleton.parents
        rows = [joint for joint, parent in enumerate(parents) if parent >= 0]
        found, true = (bones(points, parents)[..., rows, :] for points in (estimate, pose))
        position = self._position(estimate, pose)["position"]
        length = (found[..., 3].mean(1) - true[..., 3].mean(1)).square().mean() / settings.length_unit**2
        direction = (found[..., :3] - true[..., :3]).square().sum(-1).mean()
        return {
            "loss": position + settings.wl * length + settings.wd * direction,
            "position": position,
            "length": length,
            "direction": direction,
        }

    def _mixste(self, estimate: Tensor, pose: Tensor) -> dict[str, Tensor]:
        position = (self.weights * _distance(estimate, pose)).mean()
        smoothness = (self.weights[:, None] * estimate.diff(dim=1).square()).mean()
        velocity = _distance(estimate.diff(dim=1), pose.diff(dim=1)).mean()
        loss = position + _SMOOTHNESS * smoothness + _VELOCITY * velocity
        return {"loss": loss, "position": position, "smoothness": smoothness, "velocity": velocity}

    def _mse(self, estimate: Tensor, pose: Tensor) -> dict[str, Tensor]:
        return {"loss": (estimate - pose).square().mean(), "position": _distance(estimate, pose).mean()}


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vector_norm(a - b, dim=-1)
