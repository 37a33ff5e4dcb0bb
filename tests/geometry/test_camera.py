"""Pinhole cameras: the axis, scales, rays there and back, derivatives."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dposer.geometry.camera import Camera


def seen(count: int = 5) -> tuple[Camera, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    focal, centre = torch.rand(2, 2, generator=generator).double() * 500 + 300, torch.rand(2, 2, generator=generator).double() * 800
    points = torch.randn(2, count, 3, generator=generator).double()
    points[..., 2] += 6
    return Camera(focal, centre), points


def test_the_axis_meets_the_centre_and_sizes_shrink_with_distance() -> None:
    camera = Camera.of_size(640, 480)
    assert camera.focal.tolist() == [800, 800] and camera.centre.tolist() == [320, 240]
    points = torch.tensor([[0.0, 0.0, 3.0], [1.0, -0.5, 4.0], [1.0, -0.5, 8.0]])
    assert camera.project(points).tolist() == [[320, 240], [520, 140], [420, 190]]
    assert Camera.of_size(640, 480, 1000.0).focal.tolist() == [1000, 1000]


@given(st.floats(0.1, 100))
@settings(max_examples=20, deadline=None)
def test_what_is_on_a_ray_is_seen_where_it_began(depth: float) -> None:
    camera, points = seen()
    pixels = camera.project(points)
    torch.testing.assert_close(camera.project(depth * camera.ray(pixels)), pixels)
    assert bool((camera.ray(pixels)[..., 2] == 1).all())


def test_the_jacobian_is_that_of_autograd() -> None:
    camera, points = seen(3)
    full = torch.autograd.functional.jacobian(camera.project, points)
    own = torch.stack([torch.stack([full[b, k, :, b, k] for k in range(3)]) for b in range(2)])
    torch.testing.assert_close(camera.jacobian(points), own)
    assert camera.to(points.float()).focal.dtype == torch.float32


def test_one_camera_serves_many_people() -> None:
    camera, points = seen()
    one = Camera(camera.focal[0], camera.centre[0])
    torch.testing.assert_close(one.project(points)[0], camera.project(points)[0])
    assert one.jacobian(points).shape == (2, 5, 2, 3) and not torch.allclose(one.project(points)[1], camera.project(points)[1])
