"""Normalisation of poses: x̃ = (x − shift) / scale, dimension by dimension, on the training split's statistics.

Source: DPoser (arXiv 2312.05541), section 3.1 and released code.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dposer.body.rotations import axis_angle_to_rot6d, rot6d_to_axis_angle, wrap_axis_angle
from dposer.errors import InputError
from dposer.files import PathLike, load_tensors
from dposer.prior import published
from dposer.prior.config import DataConfig

RotationRepresentation = Literal["axis", "rot6d"]
DIMS: dict[RotationRepresentation, int] = {"axis": 63, "rot6d": 126}
"""Numbers per pose."""

_MIN_SCALE, _CONSTANT_SCALE = 1e-4, 0.05
"""A dimension of smaller spread counts as constant and gets the spread of the stiffest joints of AMASS (radians), so that the
error of a network in it stays as small as theirs."""


class Normalizer(nn.Module):
    """x̃ = (x − shift) / scale, where x is the pose in the chosen rotation representation.

    z-score: shift = mean, scale = unbiased standard deviation. Min-max: shift = (hi + lo) / 2, scale = (hi − lo) / 2,
    so that x̃ lies in [−1, 1]. Off: 0 and 1. Constant dimensions have scale 0.05.

    Args:
        shift, scale: (D,), D = 63 for ``axis``, 126 for ``rot6d``.
        rot_rep: "axis" or "rot6d".
        wrap: replace axis-angles by the shortest ones of the same rotation first. AMASS is not wrapped, and neither
            are the statistics of the published weights.

    Raises:
        InputError: wrong shape, values that are not finite, a negative scale.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self, shift: Tensor, scale: Tensor, rot_rep: RotationRepresentation = "axis", wrap: bool = False, source: str = "normaliser"
    ):
        super().__init__()
        dim = DIMS[rot_rep]
        for name, value in (("shift", shift), ("scale", scale)):
            if value.shape != (dim,):
                raise InputError(
                    f"{source}: {name} of shape {tuple(value.shape)}, expected ({dim},) for rotation representation '{rot_rep}'"
                )
            if not bool(torch.isfinite(value).all()):
                raise InputError(f"{source}: {name} holds NaN or infinity, expected finite statistics; compute them anew")
        if bool((scale < 0).any()):
            raise InputError(f"{source}: a scale is negative ({float(scale.min()):g}), expected max >= min and std >= 0")
        self.rot_rep, self.wrap, self.dim = rot_rep, wrap, dim
        self.register_buffer("shift", shift.detach().clone().float())
        self.register_buffer("scale", torch.where(scale < _MIN_SCALE, _CONSTANT_SCALE, scale).detach().float())

    @classmethod
    def fit(
        cls, pose_body: Tensor, config: DataConfig | None = None, *, quantiles: tuple[float, float] = (0.0, 1.0), wrap: bool = False
    ) -> "Normalizer":
        """Statistics of the training poses.

        Args:
            pose_body: (N, 63) axis-angle in radians, N >= 2.
            config: ``rot_rep``, ``normalize`` and ``min_max`` are read.
            quantiles: which quantiles min-max takes for lo and hi; (0.001, 0.999) in DPoser's second release.

        Raises:
            InputError: wrong shape, fewer than two poses, NaN or infinity.
        """
        config = config or DataConfig()
        if pose_body.ndim != 2 or pose_body.shape[1] != 63 or len(pose_body) < 2:
            raise InputError(f"pose_body: shape {tuple(pose_body.shape)}, expected (N, 63) axis-angle with at least two poses")
        if not bool(torch.isfinite(pose_body).all()):
            raise InputError("pose_body: holds NaN or infinity, expected finite axis-angles; drop those rows")
        x = _represent(pose_body, config.rot_rep, wrap)
        if not config.normalize:
            shift, scale = torch.zeros_like(x[0]), torch.ones_like(x[0])
        elif config.min_max:
            low, high = _range(x, quantiles)
            shift, scale = (high + low) / 2, (high - low) / 2
        else:
            scale, shift = torch.std_mean(x, dim=0, correction=1)
        return cls(shift, scale, config.rot_rep, wrap)

    @classmethod
    def from_reference(cls, path: PathLike, rot_rep: RotationRepresentation | None = None) -> "Normalizer":
        """Read a file of the reference software.

        Args:
            path: ``axis_normalize2.pt`` or ``rot6d_normalize2.pt`` with ``mean_poses``, ``std_poses``; or
                ``*_normalize1.pt`` with ``min_poses``, ``max_poses``.
            rot_rep: what it must be for; default: told by its length.

        Raises:
            InputError: not such a file, or of another representation.
        """
        what = "normaliser statistics (a dict with mean_poses and std_poses, or min_poses and max_poses)"
        values: Any = load_tensors(path, what)
        found = [key for key, value in values.items() if isinstance(value, Tensor)] if isinstance(values, dict) else []
        if {"mean_poses", "std_poses"} <= set(found):
            shift, scale = values["mean_poses"], values["std_poses"]
        elif {"min_poses", "max_poses"} <= set(found):
            low, high = values["min_poses"], values["max_poses"]
            if low.shape != high.shape:
                raise InputError(f"{path}: min_poses {tuple(low.shape)} and max_poses {tuple(high.shape)} differ, expected one shape")
            shift, scale = (high + low) / 2, (high - low) / 2
        else:
            raise InputError(f"{path}: found {', '.join(map(str, found)) or type(values).__name__}, expected {what}")
        if rot_rep is None:
            rot_rep = "rot6d" if shift.shape == (DIMS["rot6d"],) else "axis"
        return cls(shift, scale, rot_rep, source=str(path))

    @classmethod
    def published(cls) -> "Normalizer":
        """The axis-angle z-score of DPoser's first and second release, which ships with the library."""
        return cls(torch.tensor(published.MEAN), torch.tensor(published.STD))

    def normalize(self, pose: Tensor) -> Tensor:
        """x̃ = (x − shift) / scale: axis-angle (..., 63) in radians → (..., D)."""
        return (_represent(pose, self.rot_rep, self.wrap) - self.shift) / self.scale

    def denormalize(self, x: Tensor) -> Tensor:
        """x = scale x̃ + shift: (..., D) → axis-angle (..., 63) in radians."""
        value = x * self.scale + self.shift
        return rot6d_to_axis_angle(value) if self.rot_rep == "rot6d" else value

    def log_det(self) -> Tensor:
        """log |det ∂x̃/∂x| = −Σ log scale, 0-d: what turns a density of x̃ into one of x."""
        return -self.scale.log().sum()


def find_reference(folder: PathLike, rot_rep: RotationRepresentation, min_max: bool) -> Path | None:
    """The reference's normaliser file in ``folder``, if it is there."""
    path = Path(folder) / f"{rot_rep}_normalize{1 if min_max else 2}.pt"
    return path if path.is_file() else None


def _represent(pose: Tensor, rot_rep: RotationRepresentation, wrap: bool) -> Tensor:
    if wrap:
        pose = wrap_axis_angle(pose)
    return axis_angle_to_rot6d(pose) if rot_rep == "rot6d" else pose


def _range(x: Tensor, quantiles: tuple[float, float]) -> tuple[Tensor, Tensor]:
    if quantiles == (0.0, 1.0):
        return x.amin(0), x.amax(0)
    # numpy: torch.quantile refuses more than 16 million entries
    low, high = torch.from_numpy(np.quantile(x.cpu().numpy(), quantiles, axis=0)).to(x)
    return low, high
