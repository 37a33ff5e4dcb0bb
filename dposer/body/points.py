r"""Points on the body as functions of pose and shape, with their derivatives in closed form.

Every point that moves with the skeleton, be it a joint, a vertex, a marker off the skin or a weighted mean of such, is

.. math:: q_k = \sum_j \left( W_j b_{kj} + m_{kj} P_j \right)

with world rotations :math:`W` and positions :math:`P` of the joints, masses :math:`m` and levers :math:`b`, which are affine in the
shape. Turning joint :math:`i` by a small :math:`\omega` (world axes) moves it by

.. math:: \omega \times \Big( \sum_{j \succeq i} (W_j b_{kj} + m_{kj} P_j) - P_i \sum_{j \succeq i} m_{kj} \Big),

and its rotation vector :math:`r_i` turns the joint by :math:`\omega = W_{p(i)} J_l(r_i) \, \mathrm{d} r_i`, with the left Jacobian
:math:`J_l` of SO(3). So the whole Jacobian is a few products of small arrays, without a graph.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor, nn

from dposer.body.kinematics import JointTree
from dposer.body.model import BodyModel
from dposer.body.skeleton import BLAZEPOSE_33, BODY_JOINTS, H36M_17, MPI_INF_3DHP_17, Layout
from dposer.errors import InputError

BODY = 1 + len(BODY_JOINTS)
"""Joints that pose and carry everything else: the pelvis and those of ``pose_body``."""

_LIMBS = ("knee", "ankle", "foot", "elbow", "wrist")
_LITTLE = 0.1
"""Of a point's weights: what moves with a joint to less than this does not count as moved by it."""
_HIPS = {"left_hip": 0.5, "right_hip": 0.5}
_HEAD = {"neck": 0.3, "head": 0.5, "nose": 0.2}
REGRESSED: dict[str, dict[str, Mapping[str, float]]] = {
    H36M_17.name: {
        "pelvis": _HIPS,
        "left_hip": {"left_hip": 1.6, "right_hip": -0.6},
        "right_hip": {"right_hip": 1.6, "left_hip": -0.6},
        "spine": {"spine1": 0.55, "spine2": 0.45},
        "head": _HEAD,
        "head_top": {"crown": 0.5, "head": 0.5},
    },
    MPI_INF_3DHP_17.name: {"pelvis": _HIPS, "spine": {"spine2": 1.0}, "head": _HEAD, "head_top": {"crown": 1.0}},
    BLAZEPOSE_33.name: {
        f"{side}_{point}": {f"{side}_{source}": 1.0}
        for side in ("left", "right")
        for point, source in {"pinky": "pinky1", "index": "index1", "thumb": "thumb2", "foot_index": "big_toe"}.items()
    },
}
"""Layout → joint → what it is a weighted sum of, where that is not the joint of the same name on the body; ``crown`` is the highest
vertex at rest. Human3.6M's hips lie about 0.13 m to either side of the middle, its spine nearly half way up to the thorax and its neck and
head about 0.12 m and 0.24 m above that, which sets these weights; they are a choice of this library."""


@dataclass(frozen=True)
class Place:
    """One point: a weighted sum of places on the body.

    Args:
        name: how it is called.
        sources: name of a joint or surface keypoint, or number of a vertex → weight; the weights sum to 1. Empty: not on this body.
        distance: metres off the skin, along the normal at rest, of a single vertex.
        offset: metres from a single joint, along SMPL-X axes at rest.
    """

    name: str
    sources: Mapping[str, float] | Mapping[int, float]
    distance: float = 0.0
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class PosedSkeleton:
    """World rotations ``(N, 22, 3, 3)`` and positions ``(N, 22, 3)`` of the body joints, and what a change of a joint's rotation
    vector turns it by, in world axes, ``(N, 22, 3, 3)``; of the root: about world axes itself."""

    world: Tensor
    positions: Tensor
    turning: Tensor


class BodyPoints(nn.Module):
    """K points on a body.

    Args:
        body: whose points.
        places: K points.

    Raises:
        InputError: a name or vertex that the body does not have, or no point at all.
    """

    mass: Tensor  # (K, 22)
    lever: Tensor  # (K, 22, 3)
    lever_dirs: Tensor  # (K, 22, 3, S)
    known: Tensor  # (K,)
    reach: Tensor  # (K, 22), 1 where a joint's rotation moves the point

    def __init__(self, body: BodyModel, places: Sequence[Place]) -> None:
        super().__init__()
        self.names = tuple(place.name for place in places)
        anatomy = _Anatomy(body)
        parts = [anatomy.point(place) for place in places]
        if not any(place.sources for place in places):
            raise InputError(f"points: none of the {len(places)} is on this body; check the layout")
        for name, values in zip(("mass", "lever", "lever_dirs"), zip(*parts, strict=True), strict=True):
            self.register_buffer(name, torch.stack(values), persistent=False)
        self.register_buffer("known", torch.tensor([bool(place.sources) for place in places], device=body.device), persistent=False)
        above, own = body.body_tree.ancestors.to(self.mass) - torch.eye(BODY).to(self.mass), (self.lever != 0).any(-1)
        turned = self.mass.abs() @ above + self.mass.abs() * own  # a joint turns what it carries aside, but not itself
        self.register_buffer("reach", (turned > _LITTLE).to(self.mass), persistent=False)
        self._jointlike = not bool(self.lever.any())

    @classmethod
    def of_layout(cls, body: BodyModel, layout: Layout) -> "BodyPoints":
        """The joints of a keypoint layout; those without a counterpart on the body are not :attr:`known`."""
        return cls(body, layout_places(body, layout))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def total(self) -> Tensor:
        """``(K,)``: the weights of each point's sources summed, by how much it moves with the translation."""
        return self.mass.sum(1)

    @property
    def steady(self) -> Tensor:
        """``(K,)``: whether the trunk alone carries a point."""
        limbs = [row for row, name in enumerate(("pelvis", *BODY_JOINTS)) if name.endswith(_LIMBS)]
        return self.mass[:, limbs].abs().sum(1) < 0.5

    def seen(self, visible: Tensor) -> Tensor:
        """``(..., 63)`` bool: which of the body's rotations move a point that is ``visible`` ``(..., K)``."""
        return ((visible.to(self.reach) @ self.reach)[..., 1:] > 0).repeat_interleave(3, -1)

    def levers(self, betas: Tensor | None) -> Tensor:
        """``(K, 22, 3)``, or ``(N, K, 22, 3)`` for shapes ``(N, S)``."""
        if betas is None or self._jointlike:
            return self.lever
        return self.lever + torch.einsum("kjcs,ns->nkjc", self.lever_dirs, betas)

    def forward(self, posed: PosedSkeleton, betas: Tensor | None = None) -> Tensor:
        """Where the points are: ``(N, K, 3)`` metres."""
        return self._contributions(posed, betas).sum(2)

    def jacobian(self, posed: PosedSkeleton, ancestors: Tensor, betas: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The points ``(N, K, 3)`` and their derivatives ``(N, K, 3, 66)`` in the rotations, root first.

        Args:
            ancestors: ``(22, 22)``, 1 where the column is the row's joint or above it.
        """
        contributions = self._contributions(posed, betas)
        reached = (contributions.transpose(2, 3) @ ancestors).transpose(2, 3)
        lever = reached - (self.mass @ ancestors)[..., None] * posed.positions[:, None]
        axes = posed.turning.permute(2, 0, 1, 3).flatten(2)[:, :, None]  # (3, N, 1, 66): three axes for each joint
        arms = lever.movedim(-1, 0).repeat_interleave(3, -1)  # (3, N, K, 66)
        turned = [axes[c - 2] * arms[c - 1] - axes[c - 1] * arms[c - 2] for c in range(3)]  # axis × arm; torch's own is far slower
        return contributions.sum(2), torch.stack(turned, 2)

    def shape_jacobian(self, posed: PosedSkeleton, skeleton: "Skeleton") -> Tensor:
        """``(N, K, 3, S)``: derivatives in the shape."""
        moved = self.mass @ skeleton.shape_jacobian(posed).flatten(2)  # (22, 3 S) each
        moved = moved.unflatten(-1, (3, -1))
        if self._jointlike:
            return moved
        return moved + torch.einsum("njcd,kjds->nkcs", posed.world, self.lever_dirs)

    def _contributions(self, posed: PosedSkeleton, betas: Tensor | None) -> Tensor:
        """Each joint's part of each point, ``(N, K, 22, 3)``."""
        carried = self.mass[..., None] * posed.positions[:, None]
        if self._jointlike:
            return carried
        return carried + (posed.world[:, None] @ self.levers(betas)[..., None])[..., 0]


class Skeleton(nn.Module):
    """The 22 body joints of a body, posed without a graph."""

    ancestors: Tensor  # (22, 22)
    offsets: Tensor  # (3, 22)
    directions: Tensor  # (3, 22, S)
    tree: JointTree

    def __init__(self, body: BodyModel) -> None:
        super().__init__()
        self.tree = body.body_tree
        self.register_buffer("ancestors", body.body_tree.ancestors, persistent=False)
        offsets, directions = body.body_offsets()
        self.register_buffer("offsets", offsets, persistent=False)
        self.register_buffer("directions", directions, persistent=False)
        self._parents = list(body.parents[1:BODY])

    def forward(self, rotations: Tensor, root: Tensor, trans: Tensor, betas: Tensor | None = None) -> PosedSkeleton:
        """Pose it.

        Args:
            rotations: ``(N, 63)`` axis-angle of the body.
            root: ``(N, 3, 3)`` rotation of the pelvis.
            trans: ``(N, 3)`` metres.
            betas: ``(N or 1, S)``.
        """
        vectors = torch.cat((torch.zeros_like(rotations[:, :3]), rotations), 1).unflatten(1, (-1, 3))
        offsets = self.offsets[..., None] if betas is None else self.offsets[..., None] + self.directions @ betas.T
        pelvis = offsets[:, :1].clone()
        world, positions, _ = self.tree(vectors.permute(2, 1, 0).contiguous(), torch.cat((torch.zeros_like(pelvis), offsets[:, 1:]), 1))
        world = root[:, None] @ world.permute(3, 2, 0, 1)
        positions = (root[:, None] @ positions.permute(2, 1, 0)[..., None])[..., 0] + (pelvis[:, 0].T + trans)[:, None]
        turning = world[:, self._parents] @ left_jacobian(vectors[:, 1:])
        return PosedSkeleton(world, positions, torch.cat((torch.eye(3).to(world).expand(len(world), 1, 3, 3), turning), 1))

    def shape_jacobian(self, posed: PosedSkeleton) -> Tensor:
        """``(N, 22, 3, S)``: how the joints move with the shape."""
        frames = torch.cat((torch.eye(3).to(posed.world).expand(len(posed.world), 1, 3, 3), posed.world[:, self._parents]), 1)
        steps = frames @ self.directions.transpose(0, 1)  # (N, 22, 3, S)
        return (self.ancestors @ steps.flatten(2)).unflatten(-1, (3, -1))


def left_jacobian(rotvec: Tensor) -> Tensor:
    r"""The left Jacobian of SO(3) at rotation vectors: (..., 3) → (..., 3, 3).

    .. math:: 1 + \tfrac{1 - \cos\theta}{\theta^2} [r]_\times + \tfrac{\theta - \sin\theta}{\theta^3} [r]_\times^2
    """
    squared = rotvec.square().sum(-1)[..., None, None] + torch.finfo(rotvec.dtype).eps ** 2
    angle = squared.sqrt() / math.pi
    b, c = torch.sinc(angle / 2).square() / 2, (1 - torch.sinc(angle)) / squared
    x, y, z = rotvec.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))
    return torch.eye(3).to(rotvec) + b * cross + c * (cross @ cross)


def layout_places(body: BodyModel, layout: Layout) -> list[Place]:
    """What each joint of a layout is on this body."""
    regressed = REGRESSED.get(layout.name, {})
    names = set(body.keypoint_layout.joints)

    def place(name: str) -> Place:
        sources: Mapping[str, float] = regressed.get(name, {name: 1.0})
        return Place(name, dict(sources) if names | {"crown"} >= sources.keys() else {})

    return [place(name) for name in layout.joints]


class _Anatomy:
    """Joints, keypoints and vertices of a body as masses and levers."""

    def __init__(self, body: BodyModel) -> None:
        self.body = body
        rows = body.keypoint_layout.joints
        joints, surface = rows[: len(body.parents)], rows[len(body.parents) :]
        self.joints = {name: row for row, name in enumerate(joints)}
        self.vertices = dict(zip(surface, body.keypoint_vertices.values(), strict=True))
        self.vertices["crown"] = int(body.v_template[:, 1].argmax())
        self.rest, self.rest_dirs = body.rest_joints_affine()

    def point(self, place: Place) -> tuple[Tensor, Tensor, Tensor]:
        """Mass (22,), lever (22, 3) and its shape directions (22, 3, S)."""
        rest, rest_dirs = self.rest[:BODY], self.rest_dirs[:BODY]
        mass, lever, directions = rest.new_zeros(BODY), torch.zeros_like(rest), torch.zeros_like(rest_dirs)
        for source, weight in place.sources.items():
            bound, at, moves = self._source(source, place)
            mass += weight * bound
            lever += weight * bound[:, None] * (at - rest)
            directions += weight * bound[:, None, None] * (moves - rest_dirs)
        return mass, lever, directions

    def _source(self, source: str | int, place: Place) -> tuple[Tensor, Tensor, Tensor]:
        """How far each joint carries a source (22,), where it lies at rest (3,) and how that moves with the shape (3, S)."""
        if source in self.joints:
            row = self.joints[str(source)]
            bound = torch.zeros_like(self.rest[:BODY, 0])
            bound[self.body.carriers[row]] = 1
            return bound, self.rest[row] + self.rest.new_tensor(place.offset), self.rest_dirs[row]
        vertex = self.vertices.get(str(source), source)
        if not isinstance(vertex, Integral):
            raise InputError(f"point {place.name}: '{source}' is neither a joint nor a surface keypoint of this body ({self.body.kind})")
        if not 0 <= vertex < self.body.num_vertices:
            raise InputError(
                f"point {place.name}: vertex {vertex}, expected 0 to {self.body.num_vertices - 1} on this body ({self.body.kind}); "
                "take points made for this body, or the body they were made for"
            )
        row = int(vertex)
        at, moves = self.body.rest_vertex(row)
        return self.body.body_weights[row], at + place.distance * self._normal(row), moves

    def _normal(self, vertex: int) -> Tensor:
        """Mean of the normals of the faces around, by their areas."""
        faces = torch.as_tensor(self.body.faces[(self.body.faces == vertex).any(1)], dtype=torch.long, device=self.body.device)
        a, b, c = self.body.v_template[faces].unbind(1)
        return torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a).sum(0), dim=0)
