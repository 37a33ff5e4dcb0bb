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
    triangles = vertices[faces]
    marked = np.zeros(len(faces), dtype=bool)
    for a, b in _overlapping_boxes(triangles.min(axis=1), triangles.max(axis=1)):
        common = sum((faces[a, i] == faces[b, j]).astype(np.int8) for i in range(3) for j in range(3))
        for shared, meet in ((0, _disjoint_meet), (1, _hinged_meet), (3, _always)):
            chosen = common == shared
            first, second = a[chosen], b[chosen]
            hit = meet(triangles, faces, first, second)
            marked[first[hit]] = marked[second[hit]] = True
    return marked


# Broad phase


def _overlapping_boxes(low: np.ndarray, high: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield every unordered pair of boxes (F, 3) that overlap, once, as blocks of two index arrays."""
    origin, extent = low.min(axis=0), (high - low).max(axis=1)
    cell = max(float(extent.mean()), float((high.max(axis=0) - origin).max()) / 1000, np.finfo(float).tiny)
    while True:
        first, last = ((corner - origin) // cell for corner in (low, high))
        span = (last - first + 1).astype(np.int64)
        if (total := int(span.prod(axis=1).sum())) <= 16 * len(low):  # a few huge boxes must not fill the grid
            break
        cell *= 2
    first = first.astype(np.int64)
    shape = first.max(axis=0) + span.max(axis=0)

    # Each box is entered into every cell it covers, and the entries are sorted by cell.
    count = span.prod(axis=1)
    box = np.repeat(np.arange(len(low)), count)
    step = np.arange(total) - np.repeat(count.cumsum() - count, count)
    step, z = np.divmod(step, span[box, 2])
    x, y = np.divmod(step, span[box, 1])
    key = _cell_number(first[box] + np.stack([x, y, z], axis=1), shape)
    order = np.argsort(key)
    key, box = key[order], box[order]

    # Within a cell, every entry is paired with those after it.
    followers = np.searchsorted(key, key, side="right") - np.arange(total) - 1
    for start, stop in _blocks(followers, _PAIRS_AT_ONCE):
        n = followers[start:stop]
        entry = np.repeat(np.arange(start, stop), n)
        other = entry + 1 + np.arange(len(entry)) - np.repeat(n.cumsum() - n, n)
        for axis in range(3):
            a, b = box[entry], box[other]
            keep = (low[a, axis] <= high[b, axis]) & (low[b, axis] <= high[a, axis])
            entry, other = entry[keep], other[keep]
        a, b = box[entry], box[other]
        # Two boxes may share several cells; the pair counts in the one that holds the lower corner of their overlap.
        keep = _cell_number(np.maximum(first[a], first[b]), shape) == key[entry]
        yield a[keep], b[keep]


def _cell_number(cells: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return (cells[:, 0] * shape[1] + cells[:, 1]) * shape[2] + cells[:, 2]


def _blocks(sizes: np.ndarray, limit: int) -> Iterator[tuple[int, int]]:
    """Cut ``range(len(sizes))`` into runs whose sizes add up to ``limit`` or little more."""
    total = sizes.cumsum()
    cuts = np.searchsorted(total, np.arange(limit, total[-1], limit)) + 1
    edges = np.unique(np.concatenate([[0], cuts, [len(sizes)]]))
    yield from zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)


# Narrow phase: each takes triangles (F, 3, 3), faces (F, 3) and pairs of face indices (n,), and returns (n,) bool


def _always(triangles: np.ndarray, faces: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.ones(len(a), dtype=bool)


def _hinged_meet(triangles: np.ndarray, faces: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Triangles (c, a₁, a₂) and (c, b₁, b₂) that share the corner c: do they meet anywhere else?

    Both planes contain c, so they cut each other in a line through it. A triangle reaches into that line only if the
    other's plane parts its two free corners, and then on the side of c where its opposite edge crosses the plane.
    The two meet again exactly if those sides agree.
    """
    same = faces[a][:, :, None] == faces[b][:, None, :]
    i, j = same.any(axis=2).argmax(axis=1), same.any(axis=1).argmax(axis=1)
    corner = triangles[a, i]
    a1, a2 = triangles[a, (i + 1) % 3] - corner, triangles[a, (i + 2) % 3] - corner
    b1, b2 = triangles[b, (j + 1) % 3] - corner, triangles[b, (j + 2) % 3] - corner
    zero = _ROUNDING * np.max([_dot(e, e) for e in (a1, a2, b1, b2)], axis=0, initial=0) ** 1.5
    normal_a, normal_b = np.cross(a1, a2), np.cross(b1, b2)
    s1, s2, t1, t2 = _dot(normal_b, a1), _dot(normal_b, a2), _dot(normal_a, b1), _dot(normal_a, b2)
    parted = (s1 * s2 < 0) & (t1 * t2 < 0) & (np.min(np.abs([s1, s2, t1, t2]), axis=0, initial=np.inf) > zero)
    crossing_a = np.abs(s2)[:, None] * a1 + np.abs(s1)[:, None] * a2
    crossing_b = np.abs(t2)[:, None] * b1 + np.abs(t1)[:, None] * b2
    return parted & (_dot(crossing_a, crossing_b) > 0)


def _disjoint_meet(triangles: np.ndarray, faces: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Triangles without a common vertex: have the closed triangles a point in common?

    They do if an edge of one crosses the other (or touches it), or if they are coplanar and overlap.
    """
    hit = np.zeros(len(a), dtype=bool)
    left = np.arange(len(a))  # most pairs go at the first plane
    for one, other in ((a, b), (b, a)):
        sides = _sides(triangles[one[left]], triangles[other[left]])
        left = left[~((sides > 0).all(axis=1) | (sides < 0).all(axis=1))]
    p, q = triangles[a[left]], triangles[b[left]]
    sides_p, sides_q = _sides(q, p), _sides(p, q)
    flat = ~(sides_p.any(axis=1) | sides_q.any(axis=1))
    turns = _turns(p, q)
    hit[left] = _edges_cross(sides_p, turns) | _edges_cross(sides_q, turns.transpose(0, 2, 1))
    hit[left[flat]] = _coplanar_overlap(p[flat], q[flat])
    return hit


def _sides(planes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Six times the signed volumes over the triangles ``planes`` (n, 3, 3) of ``points`` (n, k, 3); rounding set to 0."""
    base = planes[:, :1]
    edges, offsets = planes[:, 1:] - base, points - base
    volumes = np.einsum("nk,npk->np", np.cross(edges[:, 0], edges[:, 1]), offsets)
    return _snap(volumes, np.maximum(np.abs(edges).max(axis=(1, 2)), np.abs(offsets).max(axis=(1, 2))))


def _turns(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """(n, 3, 3): six times the signed volume of edge i of ``p`` with edge j of ``q``, the side on which they pass.

    By Plücker coordinates: lines (d, m) and (d', m') give d·m' + d'·m.
    """
    base = p[:, :1]
    p, q = p - base, q - base
    p_next, q_next = np.roll(p, -1, axis=1), np.roll(q, -1, axis=1)
    p_moment, q_moment = np.cross(p, p_next), np.cross(q, q_next)
    volumes = (p_next - p) @ q_moment.transpose(0, 2, 1) + p_moment @ (q_next - q).transpose(0, 2, 1)
    return _snap(volumes, np.maximum(np.abs(p).max(axis=(1, 2)), np.abs(q).max(axis=(1, 2))))


def _edges_cross(sides: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Whether any edge of a triangle crosses or touches another one: (n,).

    Args:
        sides: (n, 3) side of the other's plane on which each corner lies.
        turns: (n, 3, 3) how edge i of this one passes edge j of the other.
    """
    following = np.roll(sides, -1, axis=1)
    # An edge within the plane is left out: if it touches the other triangle, another edge of the two shows it.
    pierces = (sides * following <= 0) & (sides != following)
    inside = (turns >= 0).all(axis=2) | (turns <= 0).all(axis=2)
    return (pierces & inside).any(axis=1)


def _coplanar_overlap(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Whether coplanar triangles (n, 3, 3) overlap or touch: no edge's line has all of one beyond it and the other not."""
    normal = np.abs(np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]) + np.cross(q[:, 1] - q[:, 0], q[:, 2] - q[:, 0]))
    axes = np.argsort(normal, axis=1)[:, None, :2]  # drop the axis most along the normal
    p, q = np.take_along_axis(p, axes, axis=2), np.take_along_axis(q, axes, axis=2)
    separated = np.zeros(len(p), dtype=bool)
    for one, other in ((p, q), (q, p)):
        for i in range(3):
            start, end, opposite = one[:, i], one[:, (i + 1) % 3], one[:, (i + 2) % 3]
            own = _cross2(end - start, opposite - start)
            theirs = _cross2((end - start)[:, None], other - start[:, None])
            separated |= (own >= 0) & (theirs < 0).all(axis=1) | (own <= 0) & (theirs > 0).all(axis=1)
    return ~separated


def _snap(volumes: np.ndarray, size: np.ndarray) -> np.ndarray:
    zero = (_ROUNDING * size**3).reshape(-1, *[1] * (volumes.ndim - 1))
    return np.where(np.abs(volumes) <= zero, 0.0, volumes)


def _dot(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.einsum("nk,nk->n", u, v)


def _cross2(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]
