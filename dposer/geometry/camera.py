r"""Pinhole cameras that look along +z, y down.

.. math:: u = f_x x / z + c_x, \qquad v = f_y y / z + c_y
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """Cameras whose leading dimensions go with those of what they look at.

    Args:
        focal: (..., 2) pixels, along x and y.
        centre: (..., 2) pixels, where the optical axis meets the picture.
    """

    focal: Tensor
    centre: Tensor

    @classmethod
    def of_size(cls, width: float, height: float, focal: float | None = None) -> "Camera":
        """In the middle of a picture; None takes its diagonal for the focal length, as SMPLify's followers do."""
        length = math.hypot(width, height) if focal is None else focal
        return cls(torch.tensor([length, length]), torch.tensor([width / 2, height / 2]))

    def project(self, points: Tensor) -> Tensor:
        """Points (..., K, 3) in metres → pixels (..., K, 2). Points behind the camera are mirrored, as the equation has it."""
        return self.focal[..., None, :] * points[..., :2] / points[..., 2:] + self.centre[..., None, :]

    def jacobian(self, points: Tensor) -> Tensor:
        """(..., K, 2, 3): derivatives of :meth:`project`, pixels per metre."""
        slope = self.focal[..., None, :] / points[..., 2:]
        return torch.cat((torch.diag_embed(slope), -(slope * points[..., :2] / points[..., 2:])[..., None]), -1)

    def ray(self, pixels: Tensor) -> Tensor:
        """Pixels (..., K, 2) → where their rays are at a depth of one metre (..., K, 3)."""
        away = (pixels - self.centre[..., None, :]) / self.focal[..., None, :]
        return torch.cat((away, torch.ones_like(away[..., :1])), -1)

    def to(self, like: Tensor) -> "Camera":
        """On the device and in the precision of a tensor."""
        return Camera(self.focal.to(like), self.centre.to(like))
