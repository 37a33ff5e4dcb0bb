"""Builds the openly licensed default body: an SMPL-X-format model file made of MakeHuman's CC0 assets alone.

It is not SMPL-X: mesh and shape space are its own. Joint names, order, tree, rest frames and (to millimetres) rest
positions are those of SMPL-X, so that real axis-angle poses drive it directly. See body_models/README.md.

:func:`build_open_body` is the recipe; each of its lines is a module of this package.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dposer.body.open_body.assets import Assets, Phenotype, find_assets
from dposer.body.open_body.hands import hand_basis, relaxed_hands
from dposer.body.open_body.landmarks import KEYPOINTS, face_landmarks, slot_order
from dposer.body.open_body.mesh import build_mesh
from dposer.body.open_body.shape import Progress, expressions, joint_regressor, shape_space
from dposer.body.open_body.t_pose import t_pose, unpose
from dposer.body.open_body.weights import skin_weights
from dposer.body.skeleton import SMPLX_JOINTS, SMPLX_PARENTS

__all__ = ["KEYPOINTS", "Assets", "build_open_body", "find_assets"]

_POSE_FEATURES = 486  # 54 joints x 9, the columns of posedirs


def build_open_body(assets: Assets, generator: np.random.Generator, progress: Progress = iter) -> Mapping[str, NDArray]:
    """The arrays of the model file, about a minute on one core.

    Args:
        assets: from :func:`find_assets`.
        generator: draws the random adults that span the shape space; the shipped file has ``np.random.default_rng(0)``.
        progress: wraps the loop over those adults, e.g. ``tqdm``.

    Returns:
        ``v_template`` (V, 3) metres, ``f`` (F, 3), ``shapedirs`` (V, 3, 20) = 10 betas and 10 expressions, ``posedirs`` (V, 3, 486)
        zeros, ``J_regressor`` (55, V), ``weights`` (V, 55), ``kintree_table`` (2, 55), hand poses, face landmarks,
        ``base_vertex`` (V,) ids in MakeHuman's base mesh and ``joint_names`` (55,). V = 13492, F = 26972.
    """
    vertices = assets.body(Phenotype())
    pose = t_pose(assets, vertices)
    mesh = build_mesh(assets)
    kept = vertices[mesh.base_vertex]
    weights = skin_weights(assets, mesh, kept, pose.rest)
    template = mesh.symmetrise(unpose(kept, weights, pose))

    betas, joint_betas = shape_space(assets, mesh, weights, template, pose.joints, generator, progress)
    regressor = joint_regressor(mesh, weights, template, betas, pose, joint_betas)
    shapedirs = np.concatenate([betas, expressions(assets, mesh)], axis=-1)

    order = slot_order(mesh)
    triangles = np.argsort(order)[mesh.triangles]
    template = template[order]
    arrays = {
        "v_template": template,
        "f": triangles,
        "shapedirs": shapedirs[order],
        "posedirs": np.zeros((len(template), 3, _POSE_FEATURES)),
        "J_regressor": regressor[:, order],
        "weights": weights[order],
        "kintree_table": np.array([SMPLX_PARENTS, range(len(SMPLX_JOINTS))]),
        **relaxed_hands(pose),
        **hand_basis(),
        **face_landmarks(template, triangles),
        "base_vertex": mesh.base_vertex[order],
        "joint_names": np.array(SMPLX_JOINTS),
    }
    return {name: array.astype(_dtype(name, array)) for name, array in arrays.items()}


def _dtype(name: str, array: NDArray) -> np.dtype:
    """float32 and int32, but for what readers of SMPL-X files expect otherwise, and the empty pose correctives in one byte each."""
    special: dict[str, Any] = {"posedirs": np.dtype(np.int8), "kintree_table": np.dtype(np.int64), "joint_names": array.dtype}
    return np.dtype(special.get(name, np.float32 if array.dtype.kind == "f" else np.int32))
