"""Signed distance to a mesh: against brute force over all triangles, closed forms, and rigid motions."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dposer.errors import InputError
from dposer.metrics.surface import surface_distance

_SETTINGS = settings(max_examples=20, deadline=None)


def brute_force(vertices: np.ndarray, faces: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(K,) the smallest distance to the plane of a triangle, where the foot lies in it, or to one of its edges."""
    a, b, c = vertices[faces].transpose(1, 0, 2)
    best = np.full(len(points), np.inf)
    for k, p in enumerate(points):
        normal = np.cross(b - a, c - a)
        area = np.einsum("ij,ij->i", normal, normal)
        u = np.einsum("ij,ij->i", np.cross(b - p, c - p), normal) / area
        v = np.einsum("ij,ij->i", np.cross(c - p, a - p), normal) / area
        above = (u >= 0) & (v >= 0) & (u + v <= 1)
        plane = np.abs(np.einsum("ij,ij->i", p - a, normal)) / np.sqrt(area)
        best[k] = plane[above].min(initial=np.inf)
        for start, end in ((a, b), (b, c), (c, a)):
            along = np.clip(np.einsum("ij,ij->i", p - start, end - start) / np.square(end - start).sum(1), 0, 1)
            best[k] = min(best[k], np.linalg.norm(p - start - along[:, None] * (end - start), axis=1).min())
    return best


@_SETTINGS
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.5, 3.0]))
def test_distance_is_that_of_brute_force(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    ball = trimesh.creation.icosphere(2)
    vertices = ball.vertices * rng.uniform(0.3, 2, 3) + 0.05 * rng.normal(size=ball.vertices.shape)  # faces of many sizes
    points = vertices[rng.integers(len(vertices), size=12)] + spread * rng.normal(size=(12, 3))
    found = surface_distance(vertices[None], ball.faces, points[None])[0]
    np.testing.assert_allclose(np.abs(found), brute_force(vertices, ball.faces, points), atol=1e-12)


@_SETTINGS
@given(st.integers(0, 2**32 - 1))
def test_box_distance_has_a_closed_form(seed: int) -> None:
    rng = np.random.default_rng(seed)
    box = trimesh.creation.box((2, 2, 2))
    points = rng.uniform(-2, 2, (1, 40, 3))
    beyond = np.abs(points) - 1
    outside = np.linalg.norm(np.maximum(beyond, 0), axis=-1)
    expected = np.where((beyond < 0).all(-1), beyond.max(-1), outside)  # edges and corners of the box decide many signs
    np.testing.assert_allclose(surface_distance(np.asarray(box.vertices)[None], box.faces, points), expected, atol=1e-12)


def test_each_frame_has_its_own_surface_and_rigid_motion_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    ball = trimesh.creation.icosphere(3)
    points = rng.normal(size=(1, 20, 3))
    still = surface_distance(np.asarray(ball.vertices)[None], ball.faces, points)
    np.testing.assert_allclose(still[0], np.linalg.norm(points[0], axis=-1) - 1, atol=0.01)  # of a sphere
    turn, shift = Rotation.random(5, random_state=rng).as_matrix(), rng.normal(size=(5, 1, 3))
    moved = surface_distance(ball.vertices @ turn.transpose(0, 2, 1) + shift, ball.faces, points @ turn.transpose(0, 2, 1) + shift)
    np.testing.assert_allclose(moved, np.repeat(still, 5, 0), atol=1e-9)


def test_missing_points_stay_missing() -> None:
    box = trimesh.creation.box()
    points = np.array([[[0, 0, 2.0], [np.nan, 0, 0]], [[np.nan] * 3, [np.nan] * 3]])
    found = surface_distance(np.stack([box.vertices] * 2), box.faces, points)
    assert found[0, 0] == pytest.approx(1.5) and np.isnan(found).tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize(
    ("vertices", "faces", "points", "complaint"),
    [
        (np.zeros((2, 4, 3)), [[0, 1, 2]], np.zeros((1, 1, 3)), "of one F"),
        (np.zeros((4, 3)), [[0, 1, 2]], np.zeros((1, 1, 3)), "expected"),
        (np.zeros((1, 4, 3)), [[0, 1, 4]], np.zeros((1, 1, 3)), "0 to 3"),
        (np.zeros((1, 4, 3)), [[0, 1]], np.zeros((1, 1, 3)), "integers"),
        (np.full((1, 4, 3), np.nan), [[0, 1, 2]], np.zeros((1, 1, 3)), "NaN"),
    ],
)
def test_refusals(vertices: np.ndarray, faces: list, points: np.ndarray, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        surface_distance(vertices, np.array(faces), points)
