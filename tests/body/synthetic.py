"""Small random bodies in the official file layouts."""

import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from dposer.body.skeleton import SMPLX_PARENTS

PARENTS = {
    "smplx": SMPLX_PARENTS,
    "smplh": SMPLX_PARENTS[:22] + tuple(parent if parent < 22 else parent - 3 for parent in SMPLX_PARENTS[25:]),
    "smpl": (*SMPLX_PARENTS[:22], 20, 21),
}
VERTICES = {"smplx": 9930, "smplh": 6800, "smpl": 6800}  # as many as smplx's hard-coded keypoint indices need


def body_arrays(kind: str, vertices: int | None = None, seed: int = 0, correctives: float = 1e-3) -> dict[str, Any]:
    """Random arrays of one kind of body: sparse regressor rows, six influences a vertex, dense blend shapes."""
    rng = np.random.default_rng(seed)
    parents, vertices = PARENTS[kind], vertices or VERTICES[kind]
    joints = len(parents)
    regressor = np.zeros((joints, vertices))
    for row in regressor:
        row[rng.choice(vertices, 8, replace=False)] = rng.dirichlet(np.ones(8))
    weights = np.zeros((vertices, joints))
    bones = np.argsort(rng.random((vertices, joints)), 1)[:, :6]
    np.put_along_axis(weights, bones, rng.dirichlet(np.ones(6), vertices), 1)
    kintree = np.array([parents, np.arange(joints)]).astype(np.uint32)  # the root's parent becomes 2^32 - 1, as in the official files
    arrays: dict[str, Any] = {
        "v_template": rng.normal(0, 0.4, (vertices, 3)),
        "f": rng.integers(0, vertices, (200, 3)).astype(np.uint32),
        "shapedirs": rng.normal(0, 0.01, (vertices, 3, 20 if kind == "smplx" else 10)),
        "posedirs": (correctives * rng.standard_normal((vertices, 3, 9 * (joints - 1)), np.float32)).astype(np.float16),
        "J_regressor": regressor,
        "weights": weights,
        "kintree_table": kintree,
    }
    if kind != "smpl":
        for side in "lr":
            arrays[f"hands_mean{side}"] = rng.normal(0, 0.3, 45)
            arrays[f"hands_components{side}"] = np.eye(45)
    if kind == "smplx":
        arrays |= {
            "lmk_faces_idx": rng.integers(0, 200, 51),
            "lmk_bary_coords": rng.dirichlet(np.ones(3), 51),
            "dynamic_lmk_faces_idx": rng.integers(0, 200, (79, 17)),
            "dynamic_lmk_bary_coords": rng.dirichlet(np.ones(3), (79, 17)),
        }
    return arrays


def write_npz(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path, **arrays)
    return path


def write_pkl(path: Path, arrays: dict[str, Any], protocol: int = 2) -> Path:
    """As the official pickles: a sparse joint regressor, and protocol 2."""
    path.write_bytes(pickle.dumps({**arrays, "J_regressor": sparse.csc_matrix(arrays["J_regressor"])}, protocol))
    return path


def write_chumpy_pkl(path: Path, arrays: dict[str, Any]) -> Path:
    """As the first SMPL release: shape directions are a chumpy array, correctives a chumpy selection. Needs no chumpy."""
    modules = {name: types.ModuleType(name) for name in ("chumpy", "chumpy.ch", "chumpy.reordering")}
    for module, name in (("chumpy.ch", "Ch"), ("chumpy.reordering", "Select")):
        setattr(modules[module], name, type(name, (), {"__module__": module}))
    shape = modules["chumpy.ch"].Ch()
    shape.__dict__.update(x=arrays["shapedirs"], _dirty_vars=set())
    whole = modules["chumpy.ch"].Ch()
    whole.x = arrays["posedirs"][::-1].copy()
    selection = modules["chumpy.reordering"].Select()
    order = np.arange(whole.x.size).reshape(whole.x.shape)[::-1].ravel()
    selection.__dict__.update(a=whole, idxs=order, preferred_shape=arrays["posedirs"].shape)
    sys.modules.update(modules)
    try:
        return write_pkl(path, {**arrays, "shapedirs": shape, "posedirs": selection})
    finally:
        for name in modules:
            del sys.modules[name]
