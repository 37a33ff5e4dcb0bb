"""Points on the body against the body model itself, and their derivatives against autograd."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dposer.body import BodyModel
from dposer.body.points import REGRESSED, BodyPoints, Place, PosedSkeleton, Skeleton, layout_places, left_jacobian
from dposer.body.skeleton import H36M_17, LAYOUTS, SMPLX_22, Layout
from dposer.errors import InputError
from tests.body import synthetic

WRIST, KNEE, NOSE = 20, 4, 9120
MIXTURE = (
    Place("joint", {"left_wrist": 1.0}),
    Place("finger", {"right_index2": 1.0}),
    Place("vertex", {4000: 1.0}),
    Place("marker", {11000: 1.0}, distance=0.01),
    Place("stick", {"left_knee": 1.0}, offset=(0.05, -0.02, 0.1)),
    Place("middle", {"left_hip": 0.5, "right_hip": 0.5}),
    Place("mean", {"nose": 0.5, "head": 0.75, "neck": -0.25}),
    Place("absent", {}),
)
"""One point of every kind."""


class Person(NamedTuple):
    """Three people turned, moved and shaped at random."""

    pose: Tensor
    root: Tensor
    betas: Tensor
    trans: Tensor


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel(dtype=torch.float64)


@pytest.fixture(scope="module")
def skeleton(body: BodyModel) -> Skeleton:
    return Skeleton(body)


@pytest.fixture(scope="module")
def person() -> Person:
    widths, generator = {"pose": 63, "root": 3, "betas": 10, "trans": 3}, torch.Generator().manual_seed(3)
    parts = {name: 0.6 * torch.randn(3, width, generator=generator, dtype=torch.float64) for name, width in widths.items()}
    parts["pose"][0, :6] = 0
    return Person(**parts)


def posed(skeleton: Skeleton, person: Person) -> PosedSkeleton:
    return skeleton(person.pose, roma.rotvec_to_rotmat(person.root), person.trans, person.betas)


def at_rest(skeleton: Skeleton) -> PosedSkeleton:
    return skeleton(*(part.double() for part in (torch.zeros(1, 63), torch.eye(3)[None], torch.zeros(1, 3))))


def turned(person: Person) -> Tensor:
    """(N, 22, 3, 3) world rotations, down the chain of SMPL-X."""
    local = roma.rotvec_to_rotmat(torch.cat((person.root, person.pose), 1).unflatten(1, (22, 3)))
    world: list[Tensor] = []
    for joint in range(22):
        parent = synthetic.PARENTS["smplx"][joint]
        world.append(local[:, joint] if parent < 0 else world[parent] @ local[:, joint])
    return torch.stack(world, 1)


# ---- where the points are ----------------------------------------------------------------------------------------------


def test_the_skeleton_is_the_bodys(body: BodyModel, skeleton: Skeleton, person: Person) -> None:
    found = posed(skeleton, person)
    joints = body(person.pose, person.root, person.betas, person.trans, vertices=None, joints="body").joints
    torch.testing.assert_close(found.positions, joints)
    torch.testing.assert_close(found.world, turned(person))
    mean = skeleton(person.pose, roma.rotvec_to_rotmat(person.root), person.trans)
    torch.testing.assert_close(mean.positions, body(person.pose, person.root, None, person.trans, vertices=None, joints="body").joints)


@pytest.mark.parametrize("name", LAYOUTS)
def test_joints_of_a_layout_are_those_of_the_body(name: str, body: BodyModel, skeleton: Skeleton, person: Person) -> None:
    layout = LAYOUTS[name]
    out = body(person.pose, person.root, person.betas, person.trans)
    assert out.vertices is not None
    have = dict(zip(body.keypoint_layout.joints, body.keypoints(out).unbind(1), strict=True))
    have["crown"] = out.vertices[:, int(body.v_template[:, 1].argmax())]
    regressed = REGRESSED.get(name, {})
    points = BodyPoints.of_layout(body, layout)
    found = points(posed(skeleton, person), person.betas)
    assert points.names == layout.joints and len(points) == len(layout.joints) and found.shape == (3, len(points), 3)
    for row, joint in enumerate(layout.joints):
        sources = regressed.get(joint, {joint: 1.0})
        assert bool(points.known[row]) == (sources.keys() <= have.keys())
        if points.known[row]:
            torch.testing.assert_close(found[:, row], sum(weight * have[source] for source, weight in sources.items()), msg=joint)


def test_layouts_lack_only_what_no_body_has(body: BodyModel) -> None:
    absent = {name: [p.name for p in layout_places(body, layout) if not p.sources] for name, layout in LAYOUTS.items()}
    face = [f"{side}_{what}" for what in ("eye_inner", "eye_outer", "mouth") for side in ("left", "right")]
    assert sorted(absent.pop("blazepose33")) == sorted(face) and not any(absent.values())


def test_regressed_joints_keep_their_places_in_the_body(body: BodyModel, skeleton: Skeleton) -> None:
    """At rest: hips apart and level, the head above the neck and its top above all."""
    rest = at_rest(skeleton)
    for name in ("h36m17", "mpi_inf_3dhp17"):
        points = BodyPoints.of_layout(body, LAYOUTS[name])
        at = dict(zip(points.names, points(rest)[0], strict=True))
        heights = [float(at[joint][1]) for joint in ("pelvis", "spine", "neck", "head", "head_top")]
        assert heights == sorted(heights) and heights[-1] <= float(body.v_template[:, 1].max())
        torch.testing.assert_close(at["left_hip"] + at["right_hip"], 2 * at["pelvis"], atol=0.002, rtol=0)
    torch.testing.assert_close(points.total, torch.ones_like(points.total))


@pytest.mark.parametrize("kind", synthetic.PARENTS)
def test_every_kind_of_body_has_points(kind: str, person: Person, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Joints down to the fingertips, and every vertex, where pose correctives do not move it."""
    arrays = synthetic.body_arrays(kind, vertices=40, correctives=0)
    body = BodyModel(synthetic.write_npz(tmp_path_factory.mktemp(kind) / "body.npz", arrays), dtype=torch.float64)
    out = body(person.pose, person.root, person.betas, person.trans)
    names = body.keypoint_layout.joints[: len(body.parents)]
    places = [Place(name, {name: 1.0}) for name in names] + [Place(str(vertex), {vertex: 1.0}) for vertex in range(40)]
    points = BodyPoints(body, places)
    found = points(posed(Skeleton(body), person), person.betas)
    assert out.vertices is not None
    torch.testing.assert_close(found, torch.cat((out.joints, out.vertices), 1))
    hands = layout_places(body, LAYOUTS["blazepose33"])
    assert {place.name for place in hands if place.sources} >= {"left_wrist", "right_heel", "nose"}
    assert any(place.name == "left_pinky" and place.sources for place in hands) == (kind != "smpl")


def test_a_point_is_whatever_sums_to_it(body: BodyModel, skeleton: Skeleton, person: Person) -> None:
    found = dict(zip((p.name for p in MIXTURE), BodyPoints(body, MIXTURE)(posed(skeleton, person), person.betas).unbind(1), strict=True))
    out = body(person.pose, person.root, person.betas, person.trans)
    assert out.vertices is not None
    joints = dict(zip(body.joint_names, out.joints.unbind(1), strict=True))
    torch.testing.assert_close(found["joint"], joints["left_wrist"])
    torch.testing.assert_close(found["finger"], joints["right_index2"])
    torch.testing.assert_close(found["vertex"], out.vertices[:, 4000])
    torch.testing.assert_close(found["middle"], (joints["left_hip"] + joints["right_hip"]) / 2)
    torch.testing.assert_close(found["mean"], 0.5 * out.vertices[:, NOSE] + 0.75 * joints["head"] - 0.25 * joints["neck"])
    stick = torch.tensor(MIXTURE[4].offset, dtype=torch.float64)
    torch.testing.assert_close(found["stick"], joints["left_knee"] + turned(person)[:, KNEE] @ stick)
    assert not found["absent"].any()


def test_markers_are_off_the_skin_along_its_normal(body: BodyModel, skeleton: Skeleton, person: Person) -> None:
    """The normal of a closed surface is along the gradient of the volume it encloses."""
    vertices = list(range(5, body.num_vertices, 997))
    skin, markers = (BodyPoints(body, [Place(str(v), {v: 1.0}, distance=distance) for v in vertices]) for distance in (0.0, 0.02))
    rest = at_rest(skeleton)
    surface = body.v_template.clone().requires_grad_(True)
    a, b, c = surface[torch.as_tensor(np.asarray(body.faces, dtype=np.int64))].unbind(1)
    (growth,) = torch.autograd.grad((a * torch.linalg.cross(b, c)).sum() / 6, surface)
    normals = torch.nn.functional.normalize(growth[vertices], dim=-1)
    torch.testing.assert_close((markers(rest) - skin(rest))[0], 0.02 * normals)
    away = (markers(posed(skeleton, person), person.betas) - skin(posed(skeleton, person), person.betas)).norm(dim=-1)
    assert float(away.max()) < 0.02 + 1e-9 and float(away.median()) > 0.015  # blended normals shorten, never lengthen


def test_the_trunk_is_steady(body: BodyModel) -> None:
    points = BodyPoints.of_layout(body, SMPLX_22)
    moving = {name for name, steady in zip(points.names, points.steady.tolist(), strict=True) if not steady}
    assert moving == {f"{side}_{joint}" for side in ("left", "right") for joint in ("knee", "ankle", "foot", "elbow", "wrist")}


# ---- derivatives -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [SMPLX_22, H36M_17], ids=lambda layout: layout.name)
def test_what_is_seen_are_the_rotations_that_move_it(layout: Layout, body: BodyModel, skeleton: Skeleton, person: Person) -> None:
    points = BodyPoints.of_layout(body, layout)
    moved = points.jacobian(posed(skeleton, person), skeleton.ancestors)[1][0].abs().amax(1) > 1e-4  # (K, 66), metres per radian
    for k in (row for row, known in enumerate(points.known) if known):
        alone = torch.zeros(len(points), dtype=torch.bool).index_fill(0, torch.tensor(k), True)
        by_joint = moved[k, 3:].unflatten(0, (21, 3)).any(1)
        assert torch.equal(points.seen(alone).unflatten(0, (21, 3)), by_joint[:, None].expand(21, 3)), points.names[k]
    assert not points.seen(torch.zeros(2, len(points), dtype=torch.bool)).any()


@pytest.mark.parametrize("places", [layout_places, None], ids=["joints", "mixture"])
def test_the_jacobians_are_those_of_autograd(places: object, body: BodyModel, skeleton: Skeleton, person: Person) -> None:
    points = BodyPoints.of_layout(body, SMPLX_22) if places else BodyPoints(body, MIXTURE)
    root = roma.rotvec_to_rotmat(person.root)

    def at(turn: Tensor, pose: Tensor, trans: Tensor, betas: Tensor) -> Tensor:
        """(K, 3), summed over the people, none of whom knows the others."""
        return points(skeleton(pose, roma.rotvec_to_rotmat(turn) @ root, trans, betas), betas).sum(0)

    inputs = (torch.zeros_like(person.root), person.pose, person.trans, person.betas)
    by_turn, by_pose, by_trans, by_betas = (value.movedim(2, 0) for value in torch.autograd.functional.jacobian(at, inputs))
    now = posed(skeleton, person)
    found, jacobian = points.jacobian(now, skeleton.ancestors, person.betas)
    torch.testing.assert_close(found, points(now, person.betas))
    torch.testing.assert_close(jacobian, torch.cat((by_turn, by_pose), -1), atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(points.total[:, None, None] * torch.eye(3).double().expand(3, len(points), 3, 3), by_trans)
    torch.testing.assert_close(points.shape_jacobian(now, skeleton), by_betas, atol=1e-9, rtol=1e-7)


def rotvecs(longest: float) -> st.SearchStrategy[Tensor]:
    """Uniform directions, angles up to ``longest``."""
    angles = st.floats(0, longest) | st.sampled_from([0.0, 1e-12, 1e-8, 1e-5, 1e-3, math.pi, longest])
    return st.builds(
        lambda z, a, angle: angle * torch.tensor([math.sqrt(1 - z * z) * math.cos(a), math.sqrt(1 - z * z) * math.sin(a), z]).double(),
        st.floats(-1, 1), st.floats(-math.pi, math.pi), angles,
    )  # fmt: skip


@given(rotvecs(3 * math.pi))
@settings(max_examples=50, deadline=None)
def test_the_left_jacobian_is_the_mean_of_the_rotations_on_the_way(rotvec: Tensor) -> None:
    """J(r) = ∫₀¹ exp(s r) ds, by Gauss's rule."""
    nodes, weights = (torch.as_tensor(values) for values in np.polynomial.legendre.leggauss(24))
    way = roma.rotvec_to_rotmat((nodes[:, None] + 1) / 2 * rotvec)
    torch.testing.assert_close(left_jacobian(rotvec), (weights[:, None, None] / 2 * way).sum(0), atol=1e-9, rtol=0)


@given(rotvecs(math.pi), rotvecs(1.0))
@settings(max_examples=50, deadline=None)
def test_the_left_jacobian_is_what_a_change_of_the_vector_turns_by(rotvec: Tensor, change: Tensor) -> None:
    """exp(r + h d) exp(r − h d)ᵀ = exp(2 h J(r) d)."""
    h = 1e-5
    turn = roma.rotvec_to_rotmat(rotvec + h * change) @ roma.rotvec_to_rotmat(rotvec - h * change).mT
    skew = (turn - turn.mT) / (4 * h)  # of a small turn
    torch.testing.assert_close(torch.stack((skew[2, 1], skew[0, 2], skew[1, 0])), left_jacobian(rotvec) @ change, atol=1e-8, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_left_jacobian_is_smooth_at_zero_and_known_at_half_a_turn(dtype: torch.dtype) -> None:
    zero = torch.zeros(2, 5, 3, dtype=dtype, requires_grad=True)
    found = left_jacobian(zero)
    torch.testing.assert_close(found, torch.eye(3, dtype=dtype).expand(2, 5, 3, 3))
    (gradient,) = torch.autograd.grad(found[..., 2, 1].sum(), zero)
    torch.testing.assert_close(gradient, torch.tensor([0.5, 0, 0], dtype=dtype).expand(2, 5, 3))
    half = math.pi * torch.eye(3, dtype=dtype)
    expected = torch.tensor([[1, 0, 0], [0, 0, -2 / math.pi], [0, 2 / math.pi, 0]], dtype=dtype)
    torch.testing.assert_close(left_jacobian(half)[0], expected)


# ---- what turns and moves with it --------------------------------------------------------------------------------------


@given(rotvecs(math.pi), st.tuples(*[st.floats(-10, 10)] * 3), st.booleans())
@settings(max_examples=20, deadline=None)
def test_turning_and_moving_the_person_moves_the_points_alike(
    body: BodyModel, skeleton: Skeleton, person: Person, rotvec: Tensor, shift: Sequence[float], mixed: bool
) -> None:
    points = BodyPoints(body, MIXTURE[:-1]) if mixed else BodyPoints.of_layout(body, SMPLX_22)
    before = posed(skeleton, person)
    turn, move = roma.rotvec_to_rotmat(rotvec), torch.tensor(shift).double()
    root = roma.rotvec_to_rotmat(person.root)
    pelvis = before.positions[:, 0]
    after = skeleton(person.pose, turn @ root, person.trans + (pelvis @ turn.T - pelvis) + move, person.betas)
    old, new = points(before, person.betas), points(after, person.betas)
    torch.testing.assert_close(new, old @ turn.T + move, atol=1e-6, rtol=0)  # skinning weights sum to 1 in float32
    (_, was), (_, now) = (points.jacobian(some, skeleton.ancestors, person.betas) for some in (before, after))
    torch.testing.assert_close(now[..., 3:], turn @ was[..., 3:], atol=1e-9, rtol=0)


# ---- what is not there -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("places", "complaint"),
    [
        ([Place("tail", {"tail": 1.0})], "point tail: 'tail' is neither a joint nor a surface keypoint"),
        ([Place("far", {20000: 1.0})], "point far: vertex 20000, expected 0 to 13491"),
        ([Place("below", {-1: 1.0})], "vertex -1"),
        ([Place("ok", {"nose": 1.0}), Place("half", {1.5: 1.0})], "1.5"),  # type: ignore[arg-type]
        ([Place("a", {}), Place("b", {})], "none of the 2 is on this body"),
        ([], "none of the 0"),
    ],
)
def test_what_is_not_on_the_body_is_told_in_one_line(body: BodyModel, places: list[Place], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as raised:
        BodyPoints(body, places)
    assert "\n" not in str(raised.value)


def test_unknown_joints_of_a_layout_are_left_out(body: BodyModel, skeleton: Skeleton, person: Person) -> None:
    points = BodyPoints.of_layout(body, Layout("odd", ("pelvis", "tail", "left_wrist"), ()))
    assert points.known.tolist() == [True, False, True]
    _, jacobian = points.jacobian(posed(skeleton, person), skeleton.ancestors, person.betas)
    assert not jacobian[:, 1].any() and points.total.tolist() == [1, 0, 1]
    with pytest.raises(InputError, match="check the layout"):
        BodyPoints.of_layout(body, Layout("alien", ("antenna",), ()))
