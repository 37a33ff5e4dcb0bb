"""Bent lenses, screen units and where cameras stand."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dposer.geometry.lens import Lens, Stand, screen, unscreen

H36M = Lens.of(
    (1145.04944, 1143.78113), (512.541504, 515.451477), (-0.207098916, 0.247775182, -0.00307515031), (-0.000975698873, -0.00142447161)
)
SIZE = (1000, 1002)


def _points(seed: int, count: int = 17) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, generator=random) * torch.tensor([2.0, 2.0, 2.0]) + torch.tensor([-1.0, -1.0, 3.0])


def test_projection_is_the_equation_by_hand() -> None:
    point = torch.tensor([[0.6, -0.9, 3.0]], dtype=torch.float64)
    s = np.array([0.2, -0.3])
    r = s @ s
    k, p = np.array([-0.207098916, 0.247775182, -0.00307515031]), np.array([-0.000975698873, -0.00142447161])
    gain = 1 + k[0] * r + k[1] * r**2 + k[2] * r**3 + p @ s
    expected = np.array([1145.04944, 1143.78113]) * (s * gain + p * r) + np.array([512.541504, 515.451477])
    np.testing.assert_allclose(H36M.to(point).project(point)[0], expected, atol=1e-4)
    linear = np.array([1145.04944, 1143.78113]) * s + np.array([512.541504, 515.451477])
    np.testing.assert_allclose(H36M.to(point).project(point, linear=True)[0], linear, atol=1e-4)


def test_the_slope_is_clipped_at_forty_five_degrees() -> None:
    far = torch.tensor([[50.0, -50.0, 1.0]])
    assert torch.equal(H36M.project(far), H36M.project(torch.tensor([[1.0, -1.0, 1.0]])))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_rays_undo_projection_and_screen_units_are_the_same_picture(seed: int) -> None:
    points = _points(seed).double()
    lens = H36M.to(points)
    pixels = lens.project(points)
    torch.testing.assert_close(lens.ray(pixels, 30) * points[:, 2:], points, atol=1e-4, rtol=0)
    torch.testing.assert_close(lens.on_screen(SIZE).project(points), screen(pixels, SIZE), atol=2e-3, rtol=0)  # heights: fy / width
    torch.testing.assert_close(unscreen(screen(pixels, SIZE), SIZE), pixels)
    torch.testing.assert_close(Lens.of_vector(lens.vector).project(points), pixels)


def test_screen_units_keep_the_aspect() -> None:
    corners = torch.tensor([[0.0, 0.0], [1000.0, 1002.0], [500.0, 501.0]])
    torch.testing.assert_close(screen(corners, SIZE), torch.tensor([[-1, -1.002], [1, 1.002], [0, 0]]))


def test_a_mirrored_lens_sees_a_mirrored_world_mirrored() -> None:
    lens, points = H36M.on_screen(SIZE), _points(3)
    mirrored = lens.mirrored().project(points * torch.tensor([-1.0, 1.0, 1.0]))
    torch.testing.assert_close(mirrored, lens.project(points) * torch.tensor([-1.0, 1.0]))


def test_a_stand_turns_the_world_and_back() -> None:
    half = math.sqrt(0.5)
    stand = Stand(torch.tensor([half, 0.0, 0.0, half]), torch.tensor([1.0, 2.0, 3.0]))  # camera axes turned by 90 degrees about z
    points = _points(1)
    torch.testing.assert_close(stand.to_world(stand.to_camera(points)), points)
    torch.testing.assert_close(stand.to_world(torch.tensor([[1.0, 0.0, 0.0]])), torch.tensor([[1.0, 3.0, 3.0]]))
