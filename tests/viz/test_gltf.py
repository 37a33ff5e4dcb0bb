"""Animated glTF: read back by two other readers, its skinning evaluated by hand, against linear blend skinning."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from dposer.errors import InputError
from dposer.viz.gltf import save_animation, strongest

PARENTS = (-1, 0, 1, 1, 0)
JOINTS = np.array([[0, 0.9, 0], [0, 1.3, 0], [0.3, 1.3, 0], [-0.3, 1.3, 0], [0.1, 0.5, 0.1]])
BALL = trimesh.creation.icosphere(2, 0.5)
FRAMES, MOVING = 7, 4
DTYPES = {5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTHS = {"SCALAR": (), "VEC3": (3,), "VEC4": (4,), "MAT4": (4, 4)}


def scene(seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "vertices_rest": BALL.vertices + (0, 1, 0),
        "faces": BALL.faces,
        "weights": rng.dirichlet(np.full(5, 0.5), len(BALL.vertices)),
        "joints_rest": JOINTS,
        "parents": PARENTS,
        "rotations": Rotation.from_rotvec(rng.normal(size=(FRAMES * MOVING, 3))).as_quat().reshape(FRAMES, MOVING, 4),
        "translation": rng.normal(size=(FRAMES, 3)),
        "fps": 30.0,
    }


def chunks(path: Path) -> tuple[dict, bytes]:
    data = path.read_bytes()
    magic, version, length, size, kind = struct.unpack_from("<4sIII4s", data)
    assert (magic, version, length, kind, size % 4) == (b"glTF", 2, len(data), b"JSON", 0)
    extent, kind = struct.unpack_from("<I4s", data, 20 + size)
    assert kind == b"BIN\0" and extent % 4 == 0 and 28 + size + extent == len(data)
    return json.loads(data[20 : 20 + size]), data[28 + size :]


def values(document: dict, data: bytes, index: int) -> np.ndarray:
    accessor = document["accessors"][index]
    view = document["bufferViews"][accessor["bufferView"]]
    dtype, shape = DTYPES[accessor["componentType"]], WIDTHS[accessor["type"]]
    assert view["byteOffset"] % 4 == 0
    flat = np.frombuffer(data, dtype, view["byteLength"] // np.dtype(dtype).itemsize, view["byteOffset"])
    return flat.reshape(accessor["count"], *shape)


def matrix(translation: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = Rotation.from_quat(quaternion).as_matrix(), translation
    return result


def played(path: Path, frame: int) -> np.ndarray:
    """Vertices (V, 3) that a viewer shows, from the file alone, by the rules of glTF."""
    document, data = chunks(path)
    nodes = [dict(node) for node in document["nodes"]]
    animation = document["animations"][0]
    for channel in animation["channels"]:
        track = values(document, data, animation["samplers"][channel["sampler"]]["output"])
        nodes[channel["target"]["node"]][channel["target"]["path"]] = track[frame]
    world: dict[int, np.ndarray] = {}

    def visit(index: int, above: np.ndarray) -> None:
        node = nodes[index]
        world[index] = above @ matrix(node.get("translation", (0, 0, 0)), node.get("rotation", (0, 0, 0, 1)))
        for child in node.get("children", []):
            visit(child, world[index])

    for root in document["scenes"][0]["nodes"]:
        visit(root, np.eye(4))
    skin, primitive = document["skins"][0], document["meshes"][0]["primitives"][0]
    bind = values(document, data, skin["inverseBindMatrices"]).transpose(0, 2, 1)
    moved = np.array([world[node] for node in skin["joints"]]) @ bind
    rest, joints, weights = (values(document, data, primitive["attributes"][k]) for k in ("POSITION", "JOINTS_0", "WEIGHTS_0"))
    blended = (weights[..., None, None] * moved[joints]).sum(1)
    return np.einsum("vij,vj->vi", blended[:, :3], np.c_[rest, np.ones(len(rest))])


def skinned(given: dict, frame: int) -> np.ndarray:
    """Linear blend skinning with the four largest weights, in the motion's own world."""
    turns, places = np.zeros((5, 3, 3)), np.zeros((5, 3))
    for j, parent in enumerate(PARENTS):
        local = Rotation.from_quat(given["rotations"][frame, j]).as_matrix() if j < MOVING else np.eye(3)
        turns[j] = local if parent < 0 else turns[parent] @ local
        places[j] = JOINTS[0] + given["translation"][frame] if j == 0 else places[parent] + turns[parent] @ (JOINTS[j] - JOINTS[parent])
    weights = given["weights"].copy()
    weights[np.arange(len(weights)), weights.argmin(1)] = 0
    weights /= weights.sum(1, keepdims=True)
    each = np.einsum("jab,vjb->vja", turns, given["vertices_rest"][:, None] - JOINTS) + places
    return (weights[..., None] * each).sum(1)


@pytest.mark.parametrize("up", ["y", "z"])
def test_played_back_it_is_linear_blend_skinning(tmp_path: Path, up: str) -> None:
    given = scene()
    save_animation(tmp_path / "a.glb", **given, up=up)
    for frame in (0, 3, FRAMES - 1):
        x, y, z = skinned(given, frame).T
        np.testing.assert_allclose(played(tmp_path / "a.glb", frame), np.stack([x, y, z] if up == "y" else [x, z, -y], 1), atol=1e-5)


def test_other_readers_open_it(tmp_path: Path) -> None:
    pygltflib = pytest.importorskip("pygltflib")
    given = scene()
    names = [f"bone {j}" for j in range(5)]
    save_animation(tmp_path / "a.glb", **given, names=names, colour=(1, 0, 0.5))
    file = pygltflib.GLTF2.load(str(tmp_path / "a.glb"))
    assert [file.nodes[node].name for node in file.skins[0].joints] == names
    assert [c.target.path for c in file.animations[0].channels] == ["translation"] + ["rotation"] * MOVING
    times = file.accessors[file.animations[0].samplers[0].input]
    assert times.count == FRAMES and times.max == pytest.approx([(FRAMES - 1) / 30])
    assert file.materials[0].pbrMetallicRoughness.baseColorFactor == pytest.approx([1, 0, 0.5**2.2, 1])
    mesh = trimesh.load(tmp_path / "a.glb", process=False).geometry["body"]
    np.testing.assert_allclose(mesh.vertices, given["vertices_rest"], atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, given["faces"])


def test_turns_never_jump_and_bounds_are_those_of_the_data(tmp_path: Path) -> None:
    given = scene()
    angles = np.linspace(0, 20, 100)
    turning = Rotation.from_rotvec(angles[:, None] * [0, 0, 1.0]).as_quat(canonical=True)[:, None]
    save_animation(tmp_path / "a.glb", **{**given, "rotations": turning, "translation": np.zeros((100, 3))})
    document, data = chunks(tmp_path / "a.glb")
    (sampler,) = (
        document["animations"][0]["samplers"][c["sampler"]]
        for c in document["animations"][0]["channels"]
        if c["target"]["path"] == "rotation"
    )
    assert np.abs(np.diff(values(document, data, sampler["output"]), axis=0)).max() < 0.11
    for index, accessor in enumerate(document["accessors"]):
        if "min" in accessor:
            array = values(document, data, index)
            np.testing.assert_array_equal(np.atleast_1d(array.min(0)).astype(np.float32), np.float32(accessor["min"]))
            np.testing.assert_array_equal(np.atleast_1d(array.max(0)).astype(np.float32), np.float32(accessor["max"]))


def test_the_four_largest_weights_stay_in_proportion() -> None:
    joints, kept = strongest(np.array([[0.1, 0.2, 0, 0.3, 0.15, 0.25], [0, 0, 0, 0, 0, 2.0]]), (2, 6))
    np.testing.assert_array_equal(joints, [[3, 5, 1, 4], [5, 0, 0, 0]])
    np.testing.assert_allclose(kept, [np.array([0.3, 0.25, 0.2, 0.15]) / 0.9, [1, 0, 0, 0]])
    joints, kept = strongest(np.array([[0.5, 0.5]]), (1, 2))
    assert joints.shape == kept.shape == (1, 4) and joints.max() == 1


def test_size_is_little_more_than_the_numbers(tmp_path: Path) -> None:
    save_animation(tmp_path / "a.glb", **scene())
    vertices, faces = len(BALL.vertices), len(BALL.faces)
    numbers = vertices * (12 + 12 + 8 + 16) + faces * 12 + 5 * 64 + FRAMES * (4 + 12 + 16 * MOVING)
    assert numbers < (tmp_path / "a.glb").stat().st_size < numbers + 6000


BAD = [
    ({"fps": 0}, "fps: found 0"),
    ({"up": "x"}, "up: found 'x'"),
    ({"colour": (2, 0, 0)}, "colour: found"),
    ({"parents": (-1, 0, 3, 1, 0)}, "parents: found"),
    ({"parents": (-1, 0, 1, -1, 0)}, "parents: found"),
    ({"names": ["one"]}, "names: found 1, expected 5"),
    ({"joints_rest": np.zeros((4, 3))}, r"joints_rest: shape \(4, 3\), expected \(5, 3\)"),
    ({"weights": np.ones((3, 5))}, r"weights: shape \(3, 5\)"),
    ({"weights": np.zeros((len(BALL.vertices), 5))}, "weights: vertex 0 has"),
    ({"rotations": np.ones((2, 5, 4))}, "rotations: lengths 2 to 2"),
    ({"rotations": np.zeros((2, 6, 4))}, r"rotations: shape \(2, 6, 4\)"),
    ({"translation": np.zeros((2, 3))}, r"translation: shape \(2, 3\), expected \(7, 3\)"),
    ({"translation": np.full((FRAMES, 3), np.nan)}, "translation: 21 values are NaN"),
    ({"faces": BALL.faces + 1}, "faces: indices"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[next(iter(change)) for change, _ in BAD])
def test_bad_input_is_named_and_leaves_no_file(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        save_animation(tmp_path / "a.glb", **{**scene(), **change})
    assert not list(tmp_path.iterdir())


def test_the_suffix_is_glb(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"suffix '\.gltf', expected '\.glb'"):
        save_animation(tmp_path / "a.gltf", **scene())
