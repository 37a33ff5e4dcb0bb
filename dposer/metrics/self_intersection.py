"""Self-intersection (SI): the share of a mesh's faces that cut through other faces of the same mesh.

Broad phase: a uniform grid proposes the pairs of faces whose bounding boxes overlap. Narrow phase: sign tests on
volumes of tetrahedra, in float64, decide each pair by what it shares:

- no vertex: the closed triangles have a point in common (touching counts, coplanar faces that overlap count);
- one vertex: they meet again beyond that vertex; two faces that merely fold about it do not count, nor do coplanar ones;
- two vertices: neighbours across an edge, never counted;
- three vertices: the same face twice, always counted.

These are the rules of MeshLab's "select self intersecting faces". Vertices are told apart by index, not by position.
"""

from collections.abc import Iterator

import numpy as np

from dposer.errors import InputError

_ROUNDING = 1e-12
"""Volumes below this share of the cube of the faces' size are zero: well above float64 rounding, far below geometry."""

_PAIRS_AT_ONCE = 2_000_000
"""Bounds the memory, whatever the mesh: a crumpled one can propose nearly all pairs."""


def self_intersection(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """100 · (faces that intersect another) / F, percent of each mesh: (..., V, 3) to (...); SI is the mean over samples.

    Arguments and errors are those of :func:`self_intersecting_faces`.
    """
    return 100 * self_intersecting_faces(vertices, faces).mean(axis=-1)


def self_intersecting_faces(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Which faces intersect another one.

    Args:
        vertices: (..., V, 3) positions, in any unit.
        faces: (F, 3) vertex indices, shared by all meshes.

    Returns:
        (..., F) bool.

    Raises:
        InputError: shapes other than these, indices out of range, or positions that are NaN or infinite.
    """
    vertices, faces = np.asarray(vertices, dtype=np.float64), np.asarray(faces)
    if vertices.ndim < 2 or vertices.shape[-1] != 3:
        raise InputError(f"self_intersection: found vertices of shape {vertices.shape}, expected (..., V, 3)")
    if faces.ndim != 2 or faces.shape[1] != 3 or len(faces) == 0 or not np.issubdtype(faces.dtype, np.integer):
        raise InputError(f"self_intersection: found faces of shape {faces.shape} and type {faces.dtype}, expected (F, 3) integers")
    if faces.min() < 0 or faces.max() >= vertices.shape[-2]:
        raise InputError(f"self_intersection: faces index vertices {faces.min()} to {faces.max()}, but there are {vertices.shape[-2]}")
    if not np.isfinite(vertices).all():
        raise InputError("self_intersection: vertices hold NaN or infinity, expected finite positions; drop those meshes")
    meshes = vertices.reshape(-1, *vertices.shape[-2:])
    # Mesh by mesh: each has pairs of its own, in numbers that differ.
    marked = np.array([_intersecting(mesh, faces.astype(np.int32)) for mesh in meshes], dtype=bool)
    return marked.reshape(*vertices.shape[:-2], len(faces))


def _intersecting(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    mesh = _Mesh(vertices, faces)
    marked = np.zeros(len(faces), dtype=bool)
    for a, b in _overlapping_boxes(mesh.corners.min(axis=1), mesh.corners.max(axis=1)):
        common = mesh.common_vertices(a, b)
        for meet, shared in ((_disjoint_meet, 0), (_hinged_meet, 1), (_coincident_meet, 3)):
            chosen = common == shared
            for hit in meet(mesh, a[chosen], b[chosen]):
                marked[hit] = True
    return marked


class _Mesh:
    """Faces laid out for arithmetic on many pairs: coordinates first, pairs last."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        self.faces = np.ascontiguousarray(faces.T)  # (3 corners, F)
        self.corners = np.ascontiguousarray(vertices.T)[:, self.faces]  # (3 coordinates, 3 corners, F)
        self.normals = _cross(self.corners[:, 1] - self.corners[:, 0], self.corners[:, 2] - self.corners[:, 0])
        self.sizes = np.ptp(self.corners, axis=1).max(axis=0)

    def common_vertices(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """How many vertices each pair of faces shares: (n,)."""
        common = np.zeros(len(a), dtype=np.int8)
        ours, theirs = self.faces[:, a], self.faces[:, b]
        for i in range(3):
            for j in range(3):
                common += ours[i] == theirs[j]
        return common

    def rounding(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Volumes up to this are zero, for pairs of faces whose boxes overlap: (n,)."""
        size = self.sizes[a] + self.sizes[b]
        return _ROUNDING * (size * size * size)

    def sides(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Side of the plane of face ``a`` on which each corner of face ``b`` lies, six times a signed volume: (3, n)."""
        volumes = _dot(self.normals[:, None, a], self.corners[:, :, b] - self.corners[:, :1, a])
        return _snap(volumes, self.rounding(a, b))


# Broad phase


def _overlapping_boxes(low: np.ndarray, high: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield every unordered pair of boxes (3, F) that overlap, once, as blocks of two index arrays."""
    origin = low.min(axis=1, keepdims=True)
    cell = max(float((high - low).max(axis=0).mean()), float((high - origin).max()) / 1000, np.finfo(float).tiny)
    while True:
        first, last = (((corner - origin) / cell).astype(np.int32) for corner in (low, high))
        span = last - first + 1
        count = span.prod(axis=0, dtype=np.int64)
        if (total := int(count.sum())) <= 16 * len(count):  # a few huge boxes must not fill the grid
            break
        cell *= 2

    # Each box is entered into every cell it covers, and the entries are sorted by cell.
    box = np.repeat(np.arange(len(count), dtype=np.int32), count)
    step = np.arange(total) - np.repeat(count.cumsum() - count, count)
    step, z = np.divmod(step, span[2, box])
    x, y = np.divmod(step, span[1, box])
    shape = last.max(axis=1) + 1
    key = _cell_number(first[:, box] + np.stack([x, y, z]).astype(np.int32), shape)
    order = np.argsort(key)
    key, box = key[order], box[order]

    # Within a cell, every entry is paired with those after it.
    position = np.arange(total, dtype=np.int32)
    followers = np.searchsorted(key, key, side="right") - position - 1
    for start, stop in _blocks(followers, _PAIRS_AT_ONCE):
        n = followers[start:stop]
        skip = np.arange(n.sum(), dtype=np.int32) - np.repeat((n.cumsum() - n).astype(np.int32), n)
        entry = np.repeat(position[start:stop], n)
        a, b = box[entry], box[entry + 1 + skip]
        for least, most in zip(low, high, strict=True):
            keep = np.flatnonzero((least[a] <= most[b]) & (least[b] <= most[a]))
            a, b, entry = a[keep], b[keep], entry[keep]
        # Two boxes may share several cells; the pair counts in the one that holds the lower corner of their overlap.
        keep = _cell_number(np.maximum(first[:, a], first[:, b]), shape) == key[entry]
        yield a[keep], b[keep]


def _cell_number(cells: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return (cells[0] * shape[1] + cells[1]) * shape[2] + cells[2]


def _blocks(sizes: np.ndarray, limit: int) -> Iterator[tuple[int, int]]:
    """Cut ``range(len(sizes))`` into runs whose sizes add up to ``limit`` or little more."""
    total = sizes.cumsum(dtype=np.int64)
    cuts = np.searchsorted(total, np.arange(limit, total[-1], limit)) + 1
    edges = np.unique(np.concatenate([[0], cuts, [len(sizes)]]))
    yield from zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)


# Narrow phase: each takes pairs of faces as two index arrays and returns those that intersect


_Pairs = tuple[np.ndarray, np.ndarray]


def _coincident_meet(mesh: _Mesh, a: np.ndarray, b: np.ndarray) -> _Pairs:
    return a, b


def _hinged_meet(mesh: _Mesh, a: np.ndarray, b: np.ndarray) -> _Pairs:
    """Triangles (c, a₁, a₂) and (c, b₁, b₂) that share the corner c: do they meet anywhere else?

    Both planes contain c, so they cut each other in a line through it. A triangle reaches into that line only if the
    other's plane parts its two free corners, and then on the side of c where its opposite edge crosses the plane.
    The two meet again exactly if those sides agree.
    """
    for _ in range(2):  # once each way round
        sides = mesh.sides(a, b)  # c itself is at 0
        parted = (sides > 0).any(axis=0) & (sides < 0).any(axis=0)
        a, b = b[parted], a[parted]
    same = mesh.faces[:, None, a] == mesh.faces[None, :, b]
    crossings = []
    for one, other, corner in ((a, b, same.any(axis=1).argmax(axis=0)), (b, a, same.any(axis=0).argmax(axis=0))):
        c, left, right = (mesh.corners[:, (corner + k) % 3, one] for k in range(3))
        s_left, s_right = (np.abs(_dot(mesh.normals[:, other], free - c)) for free in (left, right))
        crossings.append(s_right * (left - c) + s_left * (right - c))
    hit = _dot(*crossings) > 0
    return a[hit], b[hit]


def _disjoint_meet(mesh: _Mesh, a: np.ndarray, b: np.ndarray) -> _Pairs:
    """Triangles without a common vertex: have the closed triangles a point in common?

    They do if an edge of one crosses the other (or touches it), or if they are coplanar and overlap.
    """
    for _ in range(2):  # most pairs go at the first plane
        sides = mesh.sides(a, b)
        reached = (sides >= 0).any(axis=0) & (sides <= 0).any(axis=0)
        a, b = b[reached], a[reached]
    sides_a, sides_b = mesh.sides(b, a), mesh.sides(a, b)
    p, q = mesh.corners[:, :, a], mesh.corners[:, :, b]
    turns = _snap(_turns(p, q), mesh.rounding(a, b))
    hit = _edges_cross(sides_a, turns) | _edges_cross(sides_b, turns.swapaxes(0, 1))
    flat = ~(sides_a.any(axis=0) | sides_b.any(axis=0))
    hit[flat] = _coplanar_overlap(p[:, :, flat], q[:, :, flat])
    return a[hit], b[hit]


def _turns(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Side on which edge i of ``p`` passes edge j of ``q`` (3, 3, n), six times the signed volume of the two: (3, 3, n).

    By Plücker coordinates: lines (d, m) and (d', m') give d·m' + d'·m.
    """
    p, q = p - p[:, :1], q - p[:, :1]  # near the origin the moments keep their digits
    p_next, q_next = np.roll(p, -1, axis=1), np.roll(q, -1, axis=1)
    p_edge, q_edge = (p_next - p)[:, :, None], (q_next - q)[:, None, :]
    p_moment, q_moment = _cross(p, p_next)[:, :, None], _cross(q, q_next)[:, None, :]
    return _dot(p_edge, q_moment) + _dot(p_moment, q_edge)


def _edges_cross(sides: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Whether any edge of a triangle crosses or touches another one: (n,).

    Args:
        sides: (3, n) side of the other's plane on which each corner lies.
        turns: (3, 3, n) how edge i of this one passes edge j of the other.
    """
    following = np.roll(sides, -1, axis=0)
    # An edge within the plane is left out: if it touches the other triangle, another edge of the two shows it.
    pierces = (np.sign(sides) * np.sign(following) <= 0) & (sides != following)
    inside = (turns >= 0).all(axis=1) | (turns <= 0).all(axis=1)
    return (pierces & inside).any(axis=0)


def _coplanar_overlap(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Whether coplanar triangles (3, 3, n) overlap or touch: no edge's line parts the one from the other."""
    normal = sum(np.abs(_cross(t[:, 1] - t[:, 0], t[:, 2] - t[:, 0])) for t in (p, q))  # of both, in case one has no area
    axes = np.argsort(normal, axis=0)[:2, None]  # drop the axis most along the normal
    p, q = np.take_along_axis(p, axes, axis=0), np.take_along_axis(q, axes, axis=0)
    separated = np.zeros(p.shape[-1], dtype=bool)
    for one, other in ((p, q), (q, p)):
        for i in range(3):
            start, edge = one[:, i], one[:, (i + 1) % 3] - one[:, i]
            own = _cross2(edge, one[:, (i + 2) % 3] - start)
            theirs = _cross2(edge[:, None], other - start[:, None])
            separated |= (own >= 0) & (theirs < 0).all(axis=0) | (own <= 0) & (theirs > 0).all(axis=0)
    return ~separated


def _snap(volumes: np.ndarray, zero: np.ndarray) -> np.ndarray:
    return np.where(np.abs(volumes) <= zero, 0.0, volumes)


def _dot(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.stack([u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]])


def _cross2(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u[0] * v[1] - u[1] * v[0]
