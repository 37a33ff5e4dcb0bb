r"""The body: pose, shape and translation in, joints and surface out.

Rest joints :math:`J(\beta) = J_0 + J_S \beta` are affine in the shape, so joints never touch the mesh.
The surface is linear blend skinning:

.. math:: v_i = \sum_k w_{ik} \left( W_k (\bar v_i - J_k) + P_k \right), \qquad \bar v = v_0 + S \beta + C \, \mathrm{vec}(R - 1)

with world rotations :math:`W` and positions :math:`P` of the joints (:mod:`dposer.body.kinematics`) and local rotations :math:`R`.

Source: SMPL (Loper et al., SIGGRAPH Asia 2015), SMPL-H (Romero et al., 2017), SMPL-X (Pavlakos et al., CVPR 2019).
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from dposer.assets import asset
from dposer.body.kinematics import JointTree
from dposer.body.model_files import BodyArrays, Kind, find_body_file, read_body
from dposer.body.parts import body_weights
from dposer.body.skeleton import SMPLX_JOINTS, SURFACE_KEYPOINTS, Layout, surface_layout
from dposer.errors import InputError
from dposer.files import PathLike

SURFACES: Mapping[str, int] = {"smplx": 10475, "smplh": 6890, "smpl": 6890}
"""Vertices of the licensed bodies."""
_BODY = 22  # pelvis and the 21 joints of pose_body: the first joints of all three kinds

_JOINT_NAMES: dict[Kind, tuple[str, ...]] = {
    "smplx": SMPLX_JOINTS,
    "smplh": SMPLX_JOINTS[:_BODY] + SMPLX_JOINTS[25:],
    "smpl": (*SMPLX_JOINTS[:_BODY], "left_hand", "right_hand"),
}
_EXTREMITIES: dict[Kind, dict[str, int]] = {  # in joint order, with their widths
    "smplx": {"jaw_pose": 3, "leye_pose": 3, "reye_pose": 3, "left_hand_pose": 45, "right_hand_pose": 45},
    "smplh": {"left_hand_pose": 45, "right_hand_pose": 45},
    "smpl": {"left_hand_pose": 3, "right_hand_pose": 3},
}
_SMPL_SURFACE = (332, 6260, 2800, 4071, 583, 3216, 3226, 3387, 6617, 6624, 6787)
_SURFACE_VERTICES: dict[Kind, tuple[int, ...]] = {  # in the order of SURFACE_KEYPOINTS
    "smplx": (9120, 9929, 9448, 616, 6, 5770, 5780, 8846, 8463, 8474, 8635),
    "smplh": _SMPL_SURFACE,
    "smpl": _SMPL_SURFACE,
}


@dataclass(frozen=True)
class BodyOutput:
    """Joints ``(B, J, 3)`` and vertices ``(B, V, 3)`` in metres; vertices are None if none were asked for."""

    joints: Tensor
    vertices: Tensor | None = None


class BodyModel(nn.Module):
    """An SMPL-X, SMPL-H or SMPL body.

    Args:
        path: a ``.npz`` or ``.pkl`` file, or a folder that holds e.g. ``SMPLX_NEUTRAL.npz``. None: the open body that ships.
        device: where the arrays go.
        dtype: their precision; inputs are cast to it.
        num_betas: shape coefficients to load.
        num_expressions: expression coefficients to load, as far as the file has them.
        gender: which file to take from a folder.

    Raises:
        InputError: the file is missing or is not a body file.
    """

    v_template: Tensor  # (V, 3)
    weights: Tensor  # (V, J)
    joint_regressor: Tensor  # (J, V)
    _body_weights: Tensor  # (V, 22): every joint's weight given to its nearest body joint
    _anchors: Tensor  # (J - 22,): that body joint
    _shapedirs: Tensor  # (V, 3, betas + expressions)
    _posedirs: Tensor | None  # (V, 3, 9 (J - 1))
    _offsets: Tensor  # (3, J): from the parent's to the joint's rest position
    _offsetdirs: Tensor  # (3, J, betas + expressions)
    _hand_means: Tensor | None  # (2, 45)
    _keypoint_vertices: Tensor  # (11,)

    def __init__(
        self,
        path: PathLike | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        num_betas: int = 10,
        num_expressions: int = 10,
        gender: str = "neutral",
    ) -> None:
        super().__init__()
        file = find_body_file(path if path is not None else asset("body_models", "smplx", "SMPLX_OPEN.npz"), gender)
        arrays = read_body(file)
        available = arrays.shapedirs.shape[2]
        if not 0 < num_betas <= available:
            raise InputError(f"num_betas: {num_betas}, expected 1 to {available}, the shape coefficients of {file}")
        self.kind: Kind = arrays.kind
        self.parents = arrays.parents
        self.joint_names = _JOINT_NAMES[self.kind]
        self.faces = arrays.faces
        self.num_betas = num_betas
        self.num_expressions = min(num_expressions, arrays.expressiondirs.shape[2])
        self.tree = JointTree(self.parents, dtype)
        self.body_tree = JointTree(self.parents[:_BODY], dtype)
        for name, array in _derived(arrays, self.num_betas, self.num_expressions).items():
            value = None if array is None else torch.from_numpy(array)
            if value is not None and value.dtype != torch.int64:
                value = value.to(dtype)
            self.register_buffer(name, value, persistent=False)
        self.to(device)

    @property
    def device(self) -> torch.device:
        return self.v_template.device

    @property
    def dtype(self) -> torch.dtype:
        return self.v_template.dtype

    @property
    def num_vertices(self) -> int:
        return len(self.v_template)

    @property
    def shape_space(self) -> str:
        """Whose shape coefficients ``betas`` are: ``smplx``, ``smplh`` or ``smpl`` of the licensed files, else ``own``."""
        return self.kind if self.num_vertices == SURFACES[self.kind] else "own"

    @property
    def keypoint_vertices(self) -> dict[str, int]:
        """Vertex of each surface keypoint: ``nose``, ``reye``, ..., ``RHeel``."""
        return dict(zip(SURFACE_KEYPOINTS, _SURFACE_VERTICES[self.kind], strict=True))

    @property
    def keypoint_layout(self) -> Layout:
        """Names and limbs of what :meth:`keypoints` returns."""
        return surface_layout(self.kind, self.joint_names, self.parents)

    def forward(
        self,
        pose_body: Tensor,
        root_orient: Tensor | None = None,
        betas: Tensor | None = None,
        trans: Tensor | None = None,
        *,
        vertices: Literal["all", "keypoints"] | Tensor | Sequence[int] | np.ndarray | None = "all",
        joints: Literal["all", "body"] = "all",
        left_hand_pose: Tensor | None = None,
        right_hand_pose: Tensor | None = None,
        jaw_pose: Tensor | None = None,
        leye_pose: Tensor | None = None,
        reye_pose: Tensor | None = None,
        expression: Tensor | None = None,
        hands: Literal["flat", "mean"] = "flat",
    ) -> BodyOutput:
        r"""Pose the body. Differentiable in every input; a batch of 1 goes with any batch ``B``; whatever is None is zero.

        Cost follows what is asked for: joints alone never touch the mesh, chosen vertices only their own rows, and hands,
        jaw and eyes left at rest move with the wrists and the head at no cost.

        Args:
            pose_body: ``(B, 63)`` axis-angle of the 21 body joints, radians.
            root_orient: ``(B, 3)`` axis-angle about the pelvis, radians.
            betas: ``(B, n)`` shape coefficients, ``n`` at most ``num_betas``.
            trans: ``(B, 3)`` metres.
            vertices: ``"all"``, None, vertex indices, or ``"keypoints"`` for those that :meth:`keypoints` needs.
            joints: ``"body"`` stops at the first 22.
            left_hand_pose: ``(B, 45)`` axis-angle of 15 finger joints, radians; SMPL: ``(B, 3)`` of its one hand joint.
            right_hand_pose: likewise.
            jaw_pose: ``(B, 3)``, SMPL-X only.
            leye_pose: ``(B, 3)``, SMPL-X only.
            reye_pose: ``(B, 3)``, SMPL-X only.
            expression: ``(B, n)``, SMPL-X only.
            hands: whether a hand pose is relative to the flat hand (AMASS) or to the file's mean hand.

        Returns:
            joints ``(B, J, 3)`` and vertices ``(B, V, 3)``, metres.

        Raises:
            InputError: a wrong width, batches that do not match, or a part this kind of body does not have.
        """
        if joints not in ("all", "body") or hands not in ("flat", "mean"):
            raise InputError(f"joints: '{joints}', expected 'all' or 'body'; hands: '{hands}', expected 'flat' or 'mean'")
        extremities = {"jaw_pose": jaw_pose, "leye_pose": leye_pose, "reye_pose": reye_pose}
        extremities |= {"left_hand_pose": left_hand_pose, "right_hand_pose": right_hand_pose}
        given = self._checked(
            {"pose_body": pose_body, "root_orient": root_orient, "trans": trans, "betas": betas, "expression": expression, **extremities}
        )
        batch = max(len(value) for value in given.values())
        ids = self._vertex_ids(vertices)
        moving = (ids is not None or joints == "all") and (hands == "mean" or any(name in given for name in extremities))
        rotations = self._rotations(given, batch, hands, moving)
        tree, weights = (self.tree, self.weights) if moving else (self.body_tree, self._body_weights)

        shape = self._shape(given)
        offsets = self._rest_offsets(shape)
        world, positions, local = tree(rotations, offsets[:, : rotations.shape[1]])
        if "trans" in given:
            positions = positions + given["trans"].T[:, None]
        if joints == "all" and not moving:
            points = torch.cat((positions, self._attached(world, positions, offsets)), 1)
        else:
            points = positions[:, :_BODY] if joints == "body" else positions
        surface = None
        if ids is not None:
            rest = self.tree.rest(offsets)[:, : rotations.shape[1]]
            translations = positions - (world * rest).sum(1)
            surface = _skin(weights[ids], world, translations, self._rest_surface(ids, shape, local))
        return BodyOutput(points.permute(2, 1, 0), surface)

    def rest_joints(self, betas: Tensor | None = None, expression: Tensor | None = None) -> Tensor:
        """Joints of the zero pose ``(B, J, 3)`` in metres; ``B`` is 1 for the mean shape."""
        given = self._checked({"betas": betas, "expression": expression})
        return self.tree.rest(self._rest_offsets(self._shape(given))).permute(2, 1, 0)

    @property
    def body_weights(self) -> Tensor:
        """``(V, 22)``: skinning weights with those of fingers, jaw and eyes given to the body joint that carries them."""
        return self._body_weights

    @property
    def carriers(self) -> tuple[int, ...]:
        """The body joint that each of the J joints moves with."""
        return (*range(_BODY), *self._anchors.tolist())

    def body_offsets(self) -> tuple[Tensor, Tensor]:
        """Rest position of the 22 body joints relative to their parents ``(3, 22)``, and its shape directions ``(3, 22, num_betas)``."""
        return self._offsets[:, :_BODY], self._offsetdirs[:, :_BODY, : self.num_betas]

    def rest_joints_affine(self) -> tuple[Tensor, Tensor]:
        """Joints of the zero pose and mean shape ``(J, 3)``, and their shape directions ``(J, 3, num_betas)``."""
        rest = self.tree.rest(self._offsets[..., None])[..., 0]
        return rest.T, self.tree.rest(self._offsetdirs[..., : self.num_betas]).transpose(0, 1)

    def rest_vertex(self, vertex: int) -> tuple[Tensor, Tensor]:
        """A vertex of the zero pose and mean shape ``(3,)``, and its shape directions ``(3, num_betas)``."""
        return self.v_template[vertex], self._shapedirs[vertex, :, : self.num_betas]

    def keypoints(self, output: BodyOutput) -> Tensor:
        """Joints and surface keypoints in the order of :attr:`keypoint_layout`: ``(B, 66, 3)`` for SMPL-X.

        Args:
            output: of a call with ``vertices="all"``, or the cheaper ``vertices="keypoints"``, and all joints.
        """
        count = len(SURFACE_KEYPOINTS)
        if (
            output.vertices is None
            or output.vertices.shape[1] not in (count, self.num_vertices)
            or output.joints.shape[1] != len(self.parents)
        ):
            raise InputError(
                'keypoints: the output lacks joints or vertices; call the body with joints="all" and vertices="keypoints" or "all"'
            )
        if output.vertices.shape[1] == count:
            return torch.cat((output.joints, output.vertices), 1)
        return torch.cat((output.joints, output.vertices[:, self._vertex_ids("keypoints")]), 1)

    # --- the pieces of forward ---------------------------------------------------------------------------------------

    def _checked(self, arguments: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """The arguments that were given, cast to the body's dtype."""
        widths = {"pose_body": 63, "root_orient": 3, "trans": 3, **_EXTREMITIES[self.kind]}
        most = {"betas": self.num_betas, "expression": self.num_expressions}
        given = {name: value.to(self.dtype) for name, value in arguments.items() if value is not None}
        batch = max((len(value) for value in given.values() if value.ndim), default=1)
        for name, value in given.items():
            if name not in widths and most.get(name, 0) == 0:
                raise InputError(f"{name}: this body ({self.kind}) has none; leave it out or load an SMPL-X file")
            width = widths.get(name)
            fits = value.ndim == 2 and (value.shape[1] == width if width else 0 < value.shape[1] <= most[name])
            if not fits or len(value) not in (1, batch):
                expected = width or f"1 to {most[name]}"
                raise InputError(f"{name}: shape {tuple(value.shape)}, expected (batch, {expected}) with a batch of 1 or {batch}")
        return given

    def _vertex_ids(self, vertices: object) -> Tensor | slice | None:
        if vertices is None:
            return None
        if isinstance(vertices, str):
            if vertices not in ("all", "keypoints"):
                raise InputError(f"vertices: '{vertices}', expected 'all', 'keypoints', None or vertex indices")
            if vertices == "all":
                return slice(None)
            vertices = self._keypoint_vertices
        ids = torch.as_tensor(vertices, device=self.device)
        if ids.ndim != 1 or ids.is_floating_point() or ids.dtype == torch.bool:
            raise InputError(f"vertices: {ids.dtype} of shape {tuple(ids.shape)}, expected one row of integer vertex indices")
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self.num_vertices:
            raise InputError(
                f"vertices: indices {int(ids.min())} to {int(ids.max())}, expected 0 to {self.num_vertices - 1}, the vertices of this body"
            )
        return ids.long()

    def _rotations(self, given: Mapping[str, Tensor], batch: int, hands: str, moving: bool) -> Tensor:
        """Axis-angle ``(3, 22 or J, B)`` of the body alone, or of every joint if ``moving``."""
        parts = [given.get("root_orient", self.v_template.new_zeros(1, 3)), given["pose_body"]]
        if moving:
            means = self._mean_hands() if hands == "mean" else {}
            for name, width in _EXTREMITIES[self.kind].items():
                part = given.get(name, self.v_template.new_zeros(1, width))
                parts.append(part + means[name] if name in means else part)
        return torch.cat([part.expand(batch, -1) for part in parts], 1).unflatten(1, (-1, 3)).permute(2, 1, 0).contiguous()

    def _mean_hands(self) -> dict[str, Tensor]:
        if self._hand_means is None:
            raise InputError("hands: 'mean', but this body file has no hands_meanl and hands_meanr; use hands='flat'")
        return {"left_hand_pose": self._hand_means[0], "right_hand_pose": self._hand_means[1]}

    def _shape(self, given: Mapping[str, Tensor]) -> Tensor | None:
        """Betas and expression side by side ``(B, betas + expressions)``, or None if neither was given."""
        sizes = {"betas": self.num_betas, "expression": self.num_expressions}
        if not given.keys() & sizes.keys():
            return None
        parts = [given.get(name, self.v_template.new_zeros(1, size)) for name, size in sizes.items()]
        batch = max(len(part) for part in parts)
        padded = [nn.functional.pad(part, (0, size - part.shape[1])) for part, size in zip(parts, sizes.values(), strict=True)]
        return torch.cat([part.expand(batch, -1) for part in padded], 1)

    def _rest_offsets(self, shape: Tensor | None) -> Tensor:
        """Rest position of every joint relative to its parent ``(3, J, B or 1)``."""
        offsets = self._offsets[..., None]
        return offsets if shape is None else offsets + self._offsetdirs @ shape.T

    def _attached(self, world: Tensor, positions: Tensor, offsets: Tensor) -> Tensor:
        """Joints beyond the body ``(3, J - 22, B)``, moving rigidly with the body joint they hang from."""
        rest = self.tree.rest(offsets)
        lever = rest[:, _BODY:] - rest.index_select(1, self._anchors)
        return positions.index_select(1, self._anchors) + (world.index_select(2, self._anchors) * lever).sum(1)

    def _rest_surface(self, ids: Tensor | slice, shape: Tensor | None, local: Tensor) -> Tensor:
        r"""Chosen vertices before skinning :math:`\bar v`, ``(V, 3, B or 1)``."""
        points = self.v_template[ids][..., None]
        if shape is not None:
            points = points + self._shapedirs[ids] @ shape.T
        if self._posedirs is not None:
            identity = torch.eye(3, dtype=local.dtype, device=local.device)[:, :, None, None]
            feature = (local[:, :, 1:] - identity).permute(2, 0, 1, 3).flatten(0, 2)
            directions = self._posedirs[ids][..., : len(feature)]  # joints at rest add nothing
            points = points + (directions.flatten(0, 1) @ feature).unflatten(0, (-1, 3))
        return points


@functools.lru_cache(maxsize=2)
def default_body(device: torch.device) -> BodyModel:
    """The open body that ships, read once for each device; not to be changed."""
    return BodyModel(device=device)


def _skin(weights: Tensor, rotations: Tensor, translations: Tensor, points: Tensor) -> Tensor:
    r"""Linear blend skinning :math:`v_i = \sum_k w_{ik} (W_k \bar v_i + t_k)`, one wide matrix product for each column of :math:`[W \, t]`.

    Args:
        weights: ``(V, J)``.
        rotations: ``(3, 3, J, B)``.
        translations: ``(3, J, B)``.
        points: ``(V, 3, B or 1)``.

    Returns:
        ``(B, V, 3)``.
    """

    def blend(vectors: Tensor) -> Tensor:  # (3, J, B) -> (V, B, 3)
        _, joints, batch = vectors.shape
        return (weights @ vectors.permute(1, 2, 0).reshape(joints, -1)).view(-1, batch, 3)

    result = blend(translations)
    for axis in range(3):
        result = torch.addcmul(result, blend(rotations[:, axis]), points[:, axis, :, None])
    return result.transpose(0, 1)


def _derived(arrays: BodyArrays, num_betas: int, num_expressions: int) -> dict[str, np.ndarray | None]:
    """The buffers of :class:`BodyModel`, computed in double precision."""
    shapedirs = np.concatenate((arrays.shapedirs[:, :, :num_betas], arrays.expressiondirs[:, :, :num_expressions]), 2)
    parents = np.array(arrays.parents)
    anchors = np.arange(len(parents))
    for joint in range(_BODY, len(parents)):
        anchors[joint] = anchors[parents[joint]]

    def from_parent(rest: np.ndarray) -> np.ndarray:  # (J, ...) -> (3, J, ...)
        offsets = rest.copy()
        offsets[1:] -= rest[parents[1:]]
        return np.ascontiguousarray(np.moveaxis(offsets, 1, 0))

    return {
        "v_template": arrays.v_template,
        "weights": arrays.weights,
        "joint_regressor": arrays.joint_regressor,
        "_body_weights": body_weights(torch.from_numpy(arrays.weights), arrays.parents).numpy(),
        "_anchors": anchors[_BODY:],
        "_shapedirs": shapedirs,
        "_posedirs": arrays.posedirs,
        "_offsets": from_parent(arrays.joint_regressor @ arrays.v_template),
        "_offsetdirs": from_parent(np.einsum("jv,vcs->jcs", arrays.joint_regressor, shapedirs, optimize=True)),
        "_hand_means": None if arrays.hand_means is None else np.stack(arrays.hand_means),
        "_keypoint_vertices": np.array(_SURFACE_VERTICES[arrays.kind]),
    }
