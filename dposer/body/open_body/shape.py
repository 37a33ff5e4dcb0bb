"""Shape space, expressions and joint regressor of the open body."""

from collections.abc import Callable, Iterable

import numpy as np
import scipy.linalg

from dposer.body.open_body.assets import Array, Assets, Ids, Phenotype
from dposer.body.open_body.mesh import Mesh
from dposer.body.open_body.t_pose import JOINT, JOINT_MIRROR, Pose, t_pose, unpose
from dposer.body.skeleton import SMPLX_JOINTS, SMPLX_PARENTS

Progress = Callable[[Iterable[int]], Iterable[int]]

BETAS = 10
_SAMPLES = 300

_EXPRESSIONS = (
    ("mouth-corner-puller",),
    ("mouth-depression-retraction",),
    ("mouth-open",),
    ("mouth-pursing",),
    ("mouth-protusion",),
    ("eyebrows-left-up", "eyebrows-right-up"),
    ("eyebrows-left-down", "eyebrows-right-down"),
    ("eye-left-closure", "eye-right-closure"),
    ("nose-compression",),
    ("mouth-compression",),
)

_CANDIDATES = 600
_FIT_VERTICES, _FIT_SUM, _RIDGE = 100.0, 200.0, 1e-5


def random_adult(generator: np.random.Generator) -> Phenotype:
    """One random adult: broad in muscle and weight, either sex, all origins."""
    african, asian, caucasian = generator.dirichlet((2, 2, 2))
    sliders = {
        "gender": generator.choice((0.1, 0.9)) + generator.uniform(-0.1, 0.1),
        "age": generator.uniform(0.6, 0.95),
        "muscle": generator.uniform(0.1, 0.9),
        "weight": generator.uniform(0, 1),
        "height": generator.normal(0.40, 0.085),
        "proportions": generator.uniform(0.3, 1),
        "cupsize": generator.normal(0.5, 0.2),
        "firmness": generator.normal(0.5, 0.2),
    }
    sliders = {name: float(np.clip(value, 0, 1)) for name, value in sliders.items()}
    return Phenotype(**sliders, african=african, asian=asian, caucasian=caucasian)


def shape_space(
    assets: Assets, mesh: Mesh, weights: Array, template: Array, joints: Array, generator: np.random.Generator, progress: Progress
) -> tuple[Array, Array]:
    """Principal components of 300 random adults in the T-pose, each scaled to one standard deviation.

    Centring drops the difference of the mean adult from the template, so betas of 0 are the template.
    Sign: a positive beta makes the body taller (the first) or gives it more volume (the others).

    Returns:
        (V, 3, 10) offsets per unit of beta, and (55, 3, 10) how the joints move with them.
    """
    samples, moved = np.empty((_SAMPLES, *template.shape)), np.empty((_SAMPLES, 55, 3))
    for i in progress(range(_SAMPLES)):
        vertices = assets.body(random_adult(generator))
        pose = t_pose(assets, vertices)
        samples[i] = unpose(vertices[mesh.base_vertex], weights, pose) - template
        moved[i] = pose.joints - joints
    samples -= samples.mean(axis=0)
    moved -= moved.mean(axis=0)

    scores, spread, directions = scipy.linalg.svd(samples.reshape(_SAMPLES, -1), full_matrices=False)
    components = (directions[:BETAS] * spread[:BETAS, None] / np.sqrt(_SAMPLES)).reshape(BETAS, -1, 3)
    joint_components = np.einsum("sk,sjc->kjc", scores[:, :BETAS], moved) / np.sqrt(_SAMPLES)
    signs = _signs(components, template, mesh.triangles)[:, None, None]
    components = np.stack([mesh.symmetrise(component) for component in signs * components], axis=-1)
    return components, np.moveaxis(signs * joint_components, 0, -1)


def _signs(components: Array, template: Array, triangles: Ids) -> Array:
    """(10,) signs that make the first of (10, V, 3) components raise the stature and the others the volume."""
    signs = np.sign(np.einsum("kvc,vc->k", components, _vertex_areas(template, triangles)))
    height = template[:, 1]
    signs[0] = np.sign(components[0, height.argmax(), 1] - components[0, height.argmin(), 1])
    return signs


def _vertex_areas(vertices: Array, triangles: Ids) -> Array:
    """(V, 3) gradient of the enclosed volume: a third of the area vectors of the triangles around each vertex."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    area = np.cross(b - a, c - a) / 6
    total = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(total, triangles[:, k], area)
    return total


def expressions(assets: Assets, mesh: Mesh) -> Array:
    """(V, 3, 10) offsets of ten facial expressions; the head does not turn into the T-pose, so rest offsets serve."""
    offsets = np.zeros((*assets.base.shape, len(_EXPRESSIONS)))
    for k, units in enumerate(_EXPRESSIONS):
        for unit in units:
            ids, deltas = assets.target(f"expression/units/caucasian/{unit}")
            offsets[ids, :, k] += deltas
    offsets = offsets[mesh.base_vertex]
    return np.stack([mesh.symmetrise(offsets[..., k]) for k in range(len(_EXPRESSIONS))], axis=-1)


def joint_regressor(mesh: Mesh, weights: Array, template: Array, components: Array, pose: Pose, joint_components: Array) -> Array:
    """(55, V) rows with Σ_v r_jv = 1, Σ_v r_jv v = J_j exactly, and joints that follow the shape as closely as can be."""
    regressor = np.zeros((55, len(template)))
    for j, name in enumerate(SMPLX_JOINTS):
        if name.startswith("right_"):
            continue
        ids = _candidates(j, mesh, weights, template, pose.joints[j])
        row = np.zeros(len(template))
        row[ids] = _fit_row(template[ids], components[ids], pose.joints[j], joint_components[j])
        mirrored = row[mesh.mirror]
        middle = JOINT_MIRROR[j] == j
        regressor[j] = (row + mirrored) / 2 if middle else row
        if not middle:
            regressor[JOINT_MIRROR[j]] = mirrored
    return regressor


def _candidates(j: int, mesh: Mesh, weights: Array, template: Array, joint: Array) -> Ids:
    """The vertices nearest to a joint that are skinned to it or to its neighbours in the tree."""
    name = SMPLX_JOINTS[j]
    near = {j, SMPLX_PARENTS[j], *(i for i, p in enumerate(SMPLX_PARENTS) if p == j)} - {-1}
    if name == "jaw":
        near.add(JOINT["neck"])
    if name == "left_eye":
        near = {j}
    allowed = weights[:, sorted(near)].max(axis=1) > 0.1
    if name.startswith("left_"):
        allowed &= template[:, 0] >= 0
    distance = np.where(allowed, np.linalg.norm(template - joint, axis=1), np.inf)
    ids = np.argsort(distance, kind="stable")[:_CANDIDATES]
    return ids[np.isfinite(distance[ids])]


def _fit_row(points: Array, components: Array, joint: Array, joint_components: Array) -> Array:
    """argmin_x Σ (x - w)²/w + |A x - b|²/ridge, then the nearest such x with Vᵀx = J and Σ x = 1; w is a Gaussian around the joint."""
    square = ((points - joint) ** 2).sum(axis=1)
    width = max(np.sqrt(square.min()), 0.01)
    prior = np.exp(-(square - square.min()) / (2 * width**2))
    prior /= prior.sum()

    follow, followed = np.moveaxis(components, 0, -1).reshape(-1, len(points)), joint_components.reshape(-1)
    exact = np.concatenate([points.T, np.ones((1, len(points)))])
    given = np.append(joint, 1.0)
    scale = np.array([_FIT_VERTICES] * 3 + [_FIT_SUM])
    rows = np.concatenate([exact * scale[:, None], follow])
    x = _correct(prior, prior, rows, np.concatenate([given * scale, followed]), _RIDGE)
    return _correct(x, prior, exact, given, 0.0)


def _correct(x: Array, prior: Array, rows: Array, values: Array, ridge: float) -> Array:
    """x + D Rᵀ (R D Rᵀ + ridge)⁻¹ (b - R x), D = diag(prior): the smallest change, in the prior's metric, towards R x = b."""
    spread = rows * prior
    return x + spread.T @ np.linalg.solve(spread @ rows.T + ridge * np.eye(len(rows)), values - rows @ x)
