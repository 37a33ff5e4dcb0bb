import itertools
from fractions import Fraction

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dposer.errors import InputError
from dposer.metrics import self_intersection as module
from dposer.metrics.self_intersection import self_intersecting_faces, self_intersection


def _combine(*meshes: trimesh.Trimesh) -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.util.concatenate(meshes)
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)


# Brute force in exact arithmetic, by clipping one triangle's edges with the other: nothing shared with the library


def _sub(u: list, v: list) -> list:
    return [a - b for a, b in zip(u, v, strict=True)]


def _cross(u: list, v: list) -> list:
    return [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]]


def _dot(u: list, v: list) -> Fraction:
    return sum(a * b for a, b in zip(u, v, strict=True))


def _piercing_points(edge: tuple[list, list], triangle: list[list]) -> list[list]:
    """The point in which an edge crosses a closed triangle it is not parallel to, if any."""
    (p, q), (a, b, c) = edge, triangle
    normal = _cross(_sub(b, a), _sub(c, a))
    towards = _dot(normal, _sub(q, p))
    if towards == 0:
        return []
    t = _dot(normal, _sub(a, p)) / towards
    if not 0 <= t <= 1:
        return []
    x = [u + t * v for u, v in zip(p, _sub(q, p), strict=True)]
    inside = all(_dot(normal, _cross(_sub(v, u), _sub(x, u))) >= 0 for u, v in ((a, b), (b, c), (c, a)))
    return [x] if inside else []


def _brute_force(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    exact = [[Fraction(float(x)) for x in v] for v in vertices]
    marked = np.zeros(len(faces), dtype=bool)
    low, high = vertices[faces].min(axis=1), vertices[faces].max(axis=1)
    for i, j in itertools.combinations(range(len(faces)), 2):
        shared = set(faces[i].tolist()) & set(faces[j].tolist())
        if len(shared) == 2 or (low[i] > high[j]).any() or (low[j] > high[i]).any():
            continue
        p, q = ([exact[v] for v in faces[k]] for k in (i, j))
        points = [x for one, other in ((p, q), (q, p)) for k in range(3) for x in _piercing_points((one[k], one[(k + 1) % 3]), other)]
        beyond = [x for x in points if x not in [exact[v] for v in shared]]
        if len(shared) == 3 or beyond:
            marked[[i, j]] = True
    return marked


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), vertices=st.integers(4, 12), faces=st.integers(2, 10))
def test_equals_exact_brute_force_on_random_soups(seed: int, vertices: int, faces: int) -> None:
    rng = np.random.default_rng(seed)
    v = rng.normal(size=(vertices, 3))
    f = np.array([rng.choice(vertices, 3, replace=False) for _ in range(faces)])  # many share one vertex or two
    assert (self_intersecting_faces(v, f) == _brute_force(v, f)).all()


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**31), depth=st.floats(0.3, 0.9))
def test_equals_exact_brute_force_on_crossing_solids(seed: int, depth: float) -> None:
    turn = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    one, other = trimesh.creation.icosphere(0), trimesh.creation.box((2.4, 0.6, 0.6))
    v, f = _combine(one, other)
    v[len(one.vertices) :] = v[len(one.vertices) :] @ turn.T + [depth, 0.03, 0.01]
    expected = _brute_force(v, f)
    assert expected.any()
    assert (self_intersecting_faces(v, f) == expected).all()


def test_a_spike_through_one_face() -> None:
    tetrahedron = np.array([[0.0, 0, 0], [4, 0, 0], [0, 4, 0], [0, 0, 4]])
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    spike = np.array([[1.0, 1, 0.5], [1, 1, -9], [1.1, 1, -9], [1, 1.1, -9]])  # its tip enters through z = 0
    v, f = np.concatenate([tetrahedron, spike]), np.concatenate([faces, faces + 4])
    # The bottom of the one, and of the spike the three faces that meet at its tip but not its far end.
    assert self_intersecting_faces(v, f).tolist() == [True, False, False, False, True, True, True, False]
    assert self_intersection(v, f) == 50.0


@pytest.mark.parametrize(
    "mesh", [trimesh.creation.icosphere(3), trimesh.creation.torus(1, 0.3), trimesh.creation.box((1, 2, 3)).subdivide()]
)
def test_closed_surfaces_do_not_intersect_themselves(mesh: trimesh.Trimesh) -> None:
    v = np.asarray(mesh.vertices)
    turned = v @ Rotation.from_rotvec([0.3, -1.0, 0.5]).as_matrix().T + [100.0, 0, 0]  # coplanar neighbours no longer exactly so
    assert not self_intersecting_faces(np.stack([v, turned, 1e-4 * v, 1e4 * v, turned.astype(np.float32)]), mesh.faces).any()


def test_two_spheres_are_marked_along_a_ring() -> None:
    sphere, moved = trimesh.creation.icosphere(3), trimesh.creation.icosphere(3)
    moved.apply_transform(trimesh.transformations.rotation_matrix(0.4, [1, 2, 3]))
    moved.apply_translation([1.0, 0.0, 0.0])  # they cross in the plane x = 1/2
    v, f = _combine(sphere, moved)
    marked = self_intersecting_faces(v, f)
    extent = v[f][..., 0]
    assert marked[: len(sphere.faces)].any() and marked[len(sphere.faces) :].any()
    assert (np.abs(extent[marked].mean(axis=1) - 0.5) < 0.2).all()
    # Along the ring no gap: every face of either that straddles the other's surface well is marked.
    own = np.arange(len(f)) < len(sphere.faces)
    centre = np.where(own[:, None], [[1.0, 0, 0]], [[0.0, 0, 0]])
    radius = np.linalg.norm(v[f] - centre[:, None], axis=-1)
    straddles = (radius.min(axis=1) < 0.98) & (radius.max(axis=1) > 1.01)
    assert straddles[own].any() and marked[straddles].all()


# What the pairs share decides what counts


def test_faces_hinged_at_a_vertex() -> None:
    corner, a1, a2 = [0.0, 0, 0], [2.0, -1, 0], [2.0, 1, 0]
    f = np.array([[0, 1, 2], [0, 3, 4]])
    for x, expected in ((1.0, True), (2.0, True), (5.0, True), (-1.0, False)):  # cuts through, on the same side or the opposite one
        v = np.array([corner, a1, a2, [x, 0, -1], [x, 0, 1]])
        assert self_intersecting_faces(v, f).tolist() == [expected] * 2
    above = np.array([corner, a1, a2, [1.0, 0, 0.1], [1, 0, 1]])  # touches in the corner only
    assert not self_intersecting_faces(above, f).any()
    flat = np.array([corner, a1, a2, [1.0, 0, 0], [3, 0.1, 0]])  # coplanar and overlapping
    assert not self_intersecting_faces(flat, f).any()


def test_faces_across_an_edge_never_count_and_repeated_faces_always_do() -> None:
    v = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0.1, 0.9, 0]])
    assert not self_intersecting_faces(v, np.array([[0, 1, 2], [1, 0, 3]])).any()  # folded flat onto each other
    assert self_intersecting_faces(v, np.array([[0, 1, 2], [2, 1, 0]])).all()


def test_coplanar_and_touching_faces_without_common_vertices() -> None:
    f = np.array([[0, 1, 2], [3, 4, 5]])
    base = np.array([[0.0, 0, 0], [2, 0, 0], [0, 2, 0]])
    cases = [
        (base * 0.3 + [0.2, 0.2, 0], True),  # within
        (base + [0.5, 0.5, 0], True),  # overlapping
        (-base + [2.0, 2.0, 0], True),  # touching along the long edge
        (-base + [2.1, 2.1, 0], False),  # boxes overlap, triangles do not
        (base + [0, 0, 0.01], False),  # parallel planes
        (np.array([[0.5, 0.5, 0], [0.5, 0.5, 1], [0.6, 0.5, 1]]), True),  # a corner rests on the face
        (np.array([[0.2, 0.2, 0], [0.6, 0.2, 0], [0.2, 0.2, 1]]), True),  # an edge lies in it
        (np.array([[-1, 0.5, 0], [3, 0.5, 0], [1, 0.5, 1]]), True),  # an edge lies across it
        (np.array([[1.5, 1.5, 0], [1.9, 1.9, 0], [1.5, 1.5, 1]]), False),  # an edge lies in its plane, beside it
    ]
    for turn in (Rotation.identity(), Rotation.from_rotvec([np.pi / 2, 0, 0]), Rotation.from_rotvec([0, np.pi / 2, 0])):
        for other, expected in cases:
            v = np.round(turn.apply(np.concatenate([base, other])), 12)
            assert self_intersecting_faces(v, f).tolist() == [expected] * 2, other


def test_invariances_and_batches() -> None:
    rng = np.random.default_rng(0)
    v, f = rng.normal(size=(2, 3, 30, 3)), np.array([rng.choice(30, 3, replace=False) for _ in range(25)])
    marked = self_intersecting_faces(v, f)
    assert marked.shape == (2, 3, 25) and 0 < marked.mean() < 1
    assert (marked[1, 2] == self_intersecting_faces(v[1, 2], f)).all()
    np.testing.assert_allclose(self_intersection(v, f), 100 * marked.mean(-1))
    moved = 7 * v @ Rotation.from_rotvec([1.0, 2, 3]).as_matrix().T - 4
    assert (self_intersecting_faces(moved, f) == marked).all()
    order = rng.permutation(25)
    assert (self_intersecting_faces(v, np.roll(f, 1, axis=1)[order]) == marked[..., order]).all()


def test_one_huge_face_among_many_small_ones_and_faces_without_area() -> None:
    sphere = trimesh.creation.icosphere(2)
    n = len(sphere.vertices)
    v = np.concatenate([sphere.vertices, [[-1e4, -1e4, 0.01], [1e4, -1e4, 0.01], [0, 2e4, 0.01]]])
    f = np.concatenate([sphere.faces, [[n, n + 1, n + 2]]])
    heights = v[sphere.faces][..., 2] - 0.01
    assert (self_intersecting_faces(v, f)[:-1] == ((heights.min(1) <= 0) & (heights.max(1) >= 0))).all()
    assert self_intersecting_faces(np.zeros((9, 3)), np.arange(9).reshape(3, 3)).shape == (3,)


def test_blocks_of_pairs_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    v, f = rng.normal(size=(40, 3)), np.array([rng.choice(40, 3, replace=False) for _ in range(60)])
    expected = self_intersecting_faces(v, f)
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 10)
    assert (self_intersecting_faces(v, f) == expected).all()


def test_bad_meshes_are_named() -> None:
    v, f = np.zeros((4, 3)), np.array([[0, 1, 2]])
    for vertices, faces in ((v[:, :2], f), (v, f[:, :2]), (v, f.astype(float)), (v, f + 2), (v, f - 1), (v * np.nan, f), (v, f[:0])):
        with pytest.raises(InputError) as error:
            self_intersection(vertices, faces)
        assert "\n" not in str(error.value)
