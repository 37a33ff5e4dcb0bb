"""Which of MakeHuman's vertices and faces the open body keeps, and its left-right mirror."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from dposer.body.open_body.assets import MEND, Array, Assets, Ids
from dposer.body.open_body.t_pose import FLIP
from dposer.errors import InputError

# The sculpted nipples give way to a flat cap: these vertices go, and the ring around them is closed.
_DROPPED, _RING = range(1778, 1794), range(1762, 1778)


@dataclass(frozen=True)
class Mesh:
    """The kept part of the base mesh.

    Attributes:
        base_vertex: (V,) id in the base mesh of each kept vertex.
        triangles: (F, 3) indices into the kept vertices; closed, three components (skin, two eyeballs).
        mirror: (V,) index of each vertex' partner on the other side, exact in the base mesh.
    """

    base_vertex: Ids
    triangles: Ids
    mirror: Ids

    def symmetrise(self, values: Array) -> Array:
        """The mean of a (V, 3) field of points or offsets and its mirror image: exactly symmetric."""
        return (values + values[self.mirror] * FLIP) / 2


def build_mesh(assets: Assets) -> Mesh:
    """Skin and eyeballs as one closed triangle mesh, each quad (0, 1, 2, 3) split into (0, 1, 2) and (0, 2, 3)."""
    distance, partner = cKDTree(assets.base * FLIP).query(assets.base)
    dropped = np.concatenate([_DROPPED, partner[_DROPPED]])
    quads = assets.quads[~np.isin(assets.quads, dropped).any(axis=1)]
    ring = np.array(_RING)
    cap = np.array([[ring[(k + i) % 16] for k, i in ((3, -i), (6, i), (5, i), (4, -i))] for i in range(7)])
    quads = np.concatenate([quads, cap, partner[cap][:, ::-1]])

    base_vertex, quads = np.unique(quads, return_inverse=True)
    quads = quads.reshape(-1, 4)
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    index = np.full(len(assets.base), -1)
    index[base_vertex] = np.arange(len(base_vertex))
    mirror = index[partner[base_vertex]]
    if distance[base_vertex].any() or (mirror < 0).any():
        raise InputError(f"base mesh: not symmetric in x, expected the base mesh hm08; {MEND}")
    return Mesh(base_vertex, triangles, mirror)
