r"""Cameras with a lens that bends, as Human3.6M calibrates them, and where they stand.

With :math:`s = \operatorname{clip}(X_{xy} / Z, -1, 1)` and :math:`\rho^2 = |s|^2`,

.. math:: \Pi(X) = f \odot \big( s\,(1 + k_1 \rho^2 + k_2 \rho^4 + k_3 \rho^6 + p \cdot s) + p\,\rho^2 \big) + c .

Source: the camera model that goes with Human3.6M (Ionescu et al., TPAMI 2014) in the protocol of VideoPose3D (Pavllo et al., CVPR 2019).
"""

from dataclasses import dataclass, field
from typing import Any

import roma
import torch
from torch import Tensor

from dposer.geometry.camera import Camera


def screen(pixels: Tensor, size: tuple[float, float]) -> Tensor:
    """u' = 2u / w − 1, v' = 2v / w − h / w: pixels (..., 2) to screen units, in which the picture is 2 wide; the aspect is kept."""
    width, height = size
    return pixels * (2 / width) - pixels.new_tensor([1.0, height / width])


def unscreen(points: Tensor, size: tuple[float, float]) -> Tensor:
    """Inverse of :func:`screen`."""
    width, height = size
    return (points + points.new_tensor([1.0, height / width])) * (width / 2)


@dataclass(frozen=True)
class Lens:
    """Cameras whose leading dimensions go with those of what they look at; the unit of ``focal`` and ``centre`` is that of the image.

    Args:
        focal: (..., 2).
        centre: (..., 2).
        radial: (..., 3) k1, k2, k3.
        tangential: (..., 2) p1, p2.
    """

    focal: Tensor
    centre: Tensor
    radial: Tensor = field(default_factory=lambda: torch.zeros(3))
    tangential: Tensor = field(default_factory=lambda: torch.zeros(2))

    @classmethod
    def of(cls, focal: Any, centre: Any, radial: Any = (0.0, 0.0, 0.0), tangential: Any = (0.0, 0.0)) -> "Lens":
        """From numbers."""
        return cls(*(torch.as_tensor(part, dtype=torch.float32) for part in (focal, centre, radial, tangential)))

    @classmethod
    def of_size(cls, width: float, height: float, focal: float | None = None) -> "Lens":
        """One that does not bend, see :meth:`Camera.of_size`."""
        camera = Camera.of_size(width, height, focal)
        return cls(camera.focal, camera.centre)

    @classmethod
    def of_vector(cls, vector: Tensor) -> "Lens":
        """From (..., 9): fx, fy, cx, cy, k1, k2, k3, p1, p2."""
        return cls(*vector.split((2, 2, 3, 2), -1))

    @property
    def vector(self) -> Tensor:
        """(..., 9), see :meth:`of_vector`."""
        return torch.cat((self.focal, self.centre, self.radial, self.tangential), -1)

    @property
    def pinhole(self) -> Camera:
        """The same without bending."""
        return Camera(self.focal, self.centre)

    def project(self, points: Tensor, linear: bool = False) -> Tensor:
        """Points (..., K, 3) before the camera → (..., K, 2); ``linear`` leaves the bending out, the clip stays."""
        s = (points[..., :2] / points[..., 2:]).clamp(-1, 1)
        if not linear:
            s = self._bent(s)
        return self.focal[..., None, :] * s + self.centre[..., None, :]

    def _bent(self, s: Tensor) -> Tensor:
        k, p = self.radial[..., None, :], self.tangential[..., None, :]
        r = s.square().sum(-1, keepdim=True)
        gain = 1 + r * (k[..., :1] + r * (k[..., 1:2] + r * k[..., 2:]))
        return s * (gain + (p * s).sum(-1, keepdim=True)) + p * r

    def ray(self, image: Tensor, iterations: int = 10) -> Tensor:
        """(..., K, 2) → where the rays are at a depth of one (..., K, 3); the bending is undone by a fixed-point iteration."""
        bent = (image - self.centre[..., None, :]) / self.focal[..., None, :]
        s = bent
        for _ in range(iterations):
            s = s + bent - self._bent(s)
        return torch.cat((s, torch.ones_like(s[..., :1])), -1)

    def on_screen(self, size: tuple[float, float]) -> "Lens":
        """In screen units (:func:`screen`); both focal lengths are divided by the width."""
        return Lens(self.focal * (2 / size[0]), screen(self.centre, size), self.radial, self.tangential)

    def mirrored(self) -> "Lens":
        """The lens before a mirrored world, in screen units: cx and p1 change their signs."""
        sign = self.centre.new_tensor([-1.0, 1.0])
        return Lens(self.focal, sign * self.centre, self.radial, sign * self.tangential)

    def to(self, like: Tensor) -> "Lens":
        """On the device and in the precision of a tensor."""
        return Lens(self.focal.to(like), self.centre.to(like), self.radial.to(like), self.tangential.to(like))


@dataclass(frozen=True)
class Stand:
    """Where a camera stands in the world (z up): X_camera = R(q)⁻¹ (X_world − t).

    Args:
        orientation: (4,) unit quaternion w, x, y, z that turns camera axes into world axes.
        position: (3,) metres.
    """

    orientation: Tensor
    position: Tensor

    def rotation(self) -> Tensor:
        """(3, 3), camera axes to world axes."""
        return roma.unitquat_to_rotmat(self.orientation.double().roll(-1)).to(self.orientation)

    def to_camera(self, points: Tensor) -> Tensor:
        """World (..., 3) → camera (..., 3) metres."""
        return (points - self.position.to(points)) @ self.rotation().to(points)

    def to_world(self, points: Tensor) -> Tensor:
        """Camera (..., 3) → world (..., 3) metres."""
        return points @ self.rotation().to(points).T + self.position.to(points)
