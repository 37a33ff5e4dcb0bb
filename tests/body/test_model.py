"""The body model against smplx, and against what must hold of any body."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import roma
import torch
from torch import Tensor

from dposer.body.model import BodyModel
from dposer.body.skeleton import OPENPOSE_25, layout_map
from dposer.errors import InputError
from tests.body import synthetic

KINDS = ("smplx", "smplh", "smpl")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Full-size files that smplx can read too."""
    folder = tmp_path_factory.mktemp("bodies")
    writers = {"smplx": (synthetic.write_npz, "npz"), "smplh": (synthetic.write_pkl, "pkl"), "smpl": (synthetic.write_pkl, "pkl")}
    return {kind: write(folder / f"{kind.upper()}_NEUTRAL.{ext}", synthetic.body_arrays(kind)) for kind, (write, ext) in writers.items()}


@pytest.fixture(scope="module")
def bodies(files: dict[str, Path]) -> dict[str, BodyModel]:
    return {kind: BodyModel(file) for kind, file in files.items()}


@pytest.fixture(scope="module")
def body(bodies: dict[str, BodyModel]) -> BodyModel:
    return bodies["smplx"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> BodyModel:
    """A SMPL-X body of 40 vertices in double precision."""
    arrays = synthetic.body_arrays("smplx", vertices=40, correctives=0.05)
    return BodyModel(synthetic.write_npz(tmp_path_factory.mktemp("small") / "body.npz", arrays), dtype=torch.float64)


def random_inputs(kind: str, batch: int, generator: torch.Generator, **options: Any) -> dict[str, Tensor]:
    """Every input of a body of this kind, with two zero rotations among them."""
    widths = {"pose_body": 63, "root_orient": 3, "betas": 10, "trans": 3, "left_hand_pose": 45, "right_hand_pose": 45}
    if kind == "smplx":
        widths |= {"jaw_pose": 3, "leye_pose": 3, "reye_pose": 3, "expression": 10}
    if kind == "smpl":
        widths |= {"left_hand_pose": 3, "right_hand_pose": 3}
    inputs = {name: 0.5 * torch.randn(batch, width, generator=generator, **options) for name, width in widths.items()}
    inputs["pose_body"][:, :6] = 0
    return inputs


def reference(kind: str, file: Path, inputs: dict[str, Tensor], flat: bool = True) -> tuple[Tensor, Tensor]:
    """Joints with surface keypoints, and vertices, from the smplx package."""
    smplx = pytest.importorskip("smplx")
    options = {} if kind == "smpl" else {"use_pca": False, "flat_hand_mean": flat}
    model = smplx.create(str(file), model_type=kind, ext=file.suffix[1:], batch_size=len(inputs["pose_body"]), **options)
    names = {"pose_body": "body_pose", "root_orient": "global_orient", "trans": "transl"}
    arguments = {names.get(name, name): value for name, value in inputs.items()}
    if kind == "smpl":
        hands = [arguments.pop(f"{side}_hand_pose") for side in ("left", "right")]
        arguments["body_pose"] = torch.cat((arguments["body_pose"], *hands), 1)
    output = model(**arguments)
    return output.joints[:, : len(synthetic.PARENTS[kind]) + 11], output.vertices


@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_smplx(kind: str, files: dict[str, Path], bodies: dict[str, BodyModel], generator: torch.Generator) -> None:
    inputs = {name: value.requires_grad_() for name, value in random_inputs(kind, 3, generator).items()}
    output = bodies[kind](**inputs)
    keypoints = bodies[kind].keypoints(output)
    joints, vertices = reference(kind, files[kind], inputs)
    assert (keypoints - joints).abs().max() < 1e-5
    assert (output.vertices - vertices).abs().max() < 1e-5

    pulls = [torch.randn(x.shape, generator=generator) for x in (joints, vertices)]
    ours = torch.autograd.grad((keypoints, output.vertices), list(inputs.values()), pulls)
    theirs = torch.autograd.grad((joints, vertices), list(inputs.values()), pulls)
    for name, a, b in zip(inputs, ours, theirs, strict=True):
        assert (a - b).norm() < 1e-4 * b.norm(), name


@pytest.mark.parametrize("kind", ["smplx", "smplh"])
def test_mean_hands_agree_with_smplx(kind: str, files: dict[str, Path], bodies: dict[str, BodyModel], generator: torch.Generator) -> None:
    inputs = random_inputs(kind, 2, generator)
    output = bodies[kind](**inputs, hands="mean")
    joints, vertices = reference(kind, files[kind], inputs, flat=False)
    assert (bodies[kind].keypoints(output) - joints).abs().max() < 1e-5
    assert (output.vertices - vertices).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_resting_extremities_follow_the_body(kind: str, bodies: dict[str, BodyModel], generator: torch.Generator) -> None:
    """The short path for flat hands gives what posing the hands by zero gives."""
    pose = random_inputs(kind, 2, generator)
    body_only = {name: pose[name] for name in ("pose_body", "root_orient", "betas", "trans")}
    width = pose["left_hand_pose"].shape[1]
    short, full = bodies[kind](**body_only), bodies[kind](**body_only, left_hand_pose=torch.zeros(1, width))
    assert torch.allclose(short.joints, full.joints, atol=2e-6)
    assert torch.allclose(short.vertices, full.vertices, atol=5e-6)


def test_zero_pose_is_the_template(body: BodyModel) -> None:
    output = body(torch.zeros(1, 63))
    assert torch.allclose(output.vertices[0], body.v_template, atol=1e-6)
    assert torch.allclose(output.joints[0], body.joint_regressor @ body.v_template, atol=1e-6)
    assert torch.allclose(output.joints, body.rest_joints(), atol=1e-6)


def test_rest_joints_are_regressed_from_the_shaped_surface(body: BodyModel, generator: torch.Generator) -> None:
    shape = {"betas": torch.randn(4, 10, generator=generator), "expression": torch.randn(4, 10, generator=generator)}
    vertices = body.v_template + torch.einsum("vcs,bs->bvc", body._shapedirs, torch.cat(tuple(shape.values()), 1))
    assert torch.allclose(body.rest_joints(**shape), body.joint_regressor @ vertices, atol=1e-5)


def test_translation_and_rotation_act_rigidly(body: BodyModel, generator: torch.Generator) -> None:
    inputs = random_inputs("smplx", 2, generator)
    plain = body(**{**inputs, "root_orient": torch.zeros(2, 3), "trans": torch.zeros(2, 3)})
    moved = body(**inputs)
    pelvis = plain.joints[:, :1]
    rotation = roma.rotvec_to_rotmat(inputs["root_orient"])
    for before, after in ((plain.joints, moved.joints), (plain.vertices, moved.vertices)):
        expected = (before - pelvis) @ rotation.mT + pelvis + inputs["trans"][:, None]
        assert torch.allclose(after, expected, atol=2e-5)


def test_chosen_vertices_are_rows_of_the_mesh(body: BodyModel, generator: torch.Generator) -> None:
    inputs = random_inputs("smplx", 2, generator)
    ids = [5, 9929, 0, 5]
    whole = body(**inputs)
    for choice in (ids, torch.tensor(ids), np.array(ids, np.int32)):
        assert torch.allclose(body(**inputs, vertices=choice).vertices, whole.vertices[:, ids], atol=1e-6)
    joints_only = body(**inputs, vertices=None)
    assert joints_only.vertices is None
    assert torch.equal(joints_only.joints, whole.joints)
    assert torch.allclose(body(**inputs, vertices=None, joints="body").joints, whole.joints[:, :22], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_keypoints(kind: str, bodies: dict[str, BodyModel], generator: torch.Generator) -> None:
    body, inputs = bodies[kind], random_inputs(kind, 2, generator)
    whole = body(**inputs)
    keypoints = body.keypoints(body(**inputs, vertices="keypoints"))
    assert torch.allclose(keypoints, body.keypoints(whole), atol=1e-6)
    layout = body.keypoint_layout
    assert keypoints.shape[1] == len(layout.joints) == len(body.parents) + 11
    heel = keypoints[:, layout_map(layout.joints, OPENPOSE_25.joints)[24]]
    assert torch.allclose(heel, whole.vertices[:, body.keypoint_vertices["RHeel"]], atol=1e-6)
    with pytest.raises(InputError, match="keypoints"):
        body.keypoints(body(**inputs, vertices=None))


def test_a_batch_of_one_goes_with_any_batch(body: BodyModel, generator: torch.Generator) -> None:
    inputs = random_inputs("smplx", 3, generator)
    for single in ("betas", "pose_body", "trans", "jaw_pose"):
        mixed = {**inputs, single: inputs[single][:1]}
        full = {**inputs, single: inputs[single][:1].expand(3, -1)}
        assert torch.allclose(body(**mixed, vertices=[7]).vertices, body(**full, vertices=[7]).vertices, atol=1e-6)


def test_fewer_betas_are_padded_with_zeros(body: BodyModel, generator: torch.Generator) -> None:
    pose, betas = torch.zeros(1, 63), torch.randn(1, 4, generator=generator)
    padded = torch.nn.functional.pad(betas, (0, 6))
    assert torch.equal(body(pose, betas=betas).vertices, body(pose, betas=padded).vertices)


@pytest.mark.parametrize("vertices", [None, [3, 11]])
@pytest.mark.parametrize("joints", ["all", "body"])
def test_gradients(small: BodyModel, generator: torch.Generator, vertices: list[int] | None, joints: str) -> None:
    inputs = {name: value.requires_grad_() for name, value in random_inputs("smplx", 1, generator, dtype=torch.float64).items()}
    names = ("pose_body", "root_orient", "betas", "trans")

    def call(*values: Tensor) -> tuple[Tensor, ...]:
        output = small(**dict(zip(names, values, strict=True)), vertices=vertices, joints=joints)
        return (output.joints,) if vertices is None else (output.joints, output.vertices)

    assert torch.autograd.gradcheck(call, [inputs[name] for name in names], fast_mode=True)
    assert torch.autograd.gradgradcheck(call, [inputs[name] for name in names], fast_mode=True)


def test_gradients_of_extremities(small: BodyModel, generator: torch.Generator) -> None:
    inputs = {name: value.requires_grad_() for name, value in random_inputs("smplx", 1, generator, dtype=torch.float64).items()}

    def call(*values: Tensor) -> tuple[Tensor, Tensor]:
        output = small(**dict(zip(inputs, values, strict=True)), hands="mean", vertices=[0, 20])
        return output.joints, output.vertices

    assert torch.autograd.gradcheck(call, list(inputs.values()), fast_mode=True)


def test_gradient_at_the_zero_pose(body: BodyModel) -> None:
    """Turning joint k by a small r moves what lies beyond it by r x lever; float32 loses nothing at zero."""
    pose = torch.zeros(1, 63, requires_grad=True)
    joints = body(pose, vertices=None).joints
    (gradient,) = torch.autograd.grad(joints[0, 20, 1], pose)  # left wrist, y
    lever = (joints[0, 20] - joints[0, 18]).detach()  # from the left elbow
    expected = torch.stack((-lever[2], torch.zeros(()), lever[0]))
    assert torch.allclose(gradient.view(21, 3)[17], expected, atol=1e-6)
    assert torch.isfinite(gradient).all()


def test_posing_by_more_than_a_turn(body: BodyModel, generator: torch.Generator) -> None:
    pose = torch.randn(2, 21, 3, generator=generator)
    turns = pose * (1 + 2 * torch.pi / pose.norm(dim=-1, keepdim=True))
    once, more = (body(x.flatten(1), vertices=None).joints for x in (pose, turns))
    assert torch.allclose(once, more, atol=1e-5)


def test_absent_correctives_are_skipped(tmp_path: Path) -> None:
    arrays = synthetic.body_arrays("smplx", vertices=50)
    body = BodyModel(synthetic.write_npz(tmp_path / "a.npz", {**arrays, "posedirs": np.zeros((50, 3, 486), np.int8)}))
    assert body._posedirs is None
    assert body(torch.ones(1, 63)).vertices.shape == (1, 50, 3)


def test_it_is_a_module(body: BodyModel, small: BodyModel) -> None:
    assert not small.state_dict() and not list(small.parameters())
    assert small.dtype == torch.float64 and small(torch.zeros(1, 63)).joints.dtype == torch.float64
    assert small(torch.zeros(1, 63, dtype=torch.float32)).joints.dtype == torch.float64
    assert (body.num_vertices, body.faces.shape, body.device.type) == (9930, (200, 3), "cpu")
    assert len(body.joint_names) == len(body.parents) == 55


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("smplx", {"pose_body": (2, 69)}, r"pose_body: shape \(2, 69\), expected \(batch, 63\)"),
        ("smplx", {"pose_body": (63,)}, "pose_body: shape"),
        ("smplx", {"pose_body": (3, 63), "betas": (2, 10)}, "betas: shape .* batch of 1 or 3"),
        ("smplx", {"pose_body": (1, 63), "betas": (1, 16)}, "betas: shape .* 1 to 10"),
        ("smplh", {"pose_body": (1, 63), "jaw_pose": (1, 3)}, "jaw_pose: this body"),
        ("smpl", {"pose_body": (1, 63), "expression": (1, 3)}, "expression: this body"),
        ("smpl", {"pose_body": (1, 63), "left_hand_pose": (1, 45)}, "left_hand_pose: shape"),
    ],
)
def test_bad_inputs(bodies: dict[str, BodyModel], kind: str, arguments: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        bodies[kind](**{name: torch.zeros(shape) for name, shape in arguments.items()})


@pytest.mark.parametrize("vertices", [[-1], [9930], [[0]], [0.5], [True], "some"])
def test_bad_vertices(body: BodyModel, vertices: Any) -> None:
    with pytest.raises(InputError, match="vertices"):
        body(torch.zeros(1, 63), vertices=vertices)


def test_mean_hands_need_a_file_that_has_them(bodies: dict[str, BodyModel]) -> None:
    with pytest.raises(InputError, match="hands"):
        bodies["smpl"](torch.zeros(1, 63), hands="mean")


def test_too_many_betas(files: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="num_betas: 300, expected 1 to 10"):
        BodyModel(files["smpl"], num_betas=300)


@pytest.mark.parametrize("option", [{"joints": "22"}, {"hands": "relaxed"}])
def test_unknown_options(body: BodyModel, option: dict[str, str]) -> None:
    with pytest.raises(InputError, match=next(iter(option.values()))):
        body(torch.zeros(1, 63), **option)
