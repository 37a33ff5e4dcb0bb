import cv2
import numpy as np
import pytest
import trimesh

from dposer.errors import InputError
from dposer.viz import save_image, save_mesh

BALL = trimesh.creation.icosphere(2)


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb", ".GLB"])
@pytest.mark.parametrize("painted", [False, True])
def test_mesh_round_trip_keeps_vertices_faces_and_colours(tmp_path, suffix, painted):
    colours = np.random.default_rng(0).uniform(size=BALL.vertices.shape)
    save_mesh(tmp_path / f"ball{suffix}", BALL.vertices, BALL.faces, colours if painted else None)
    assert [path.name for path in tmp_path.iterdir()] == [f"ball{suffix}"]
    back = trimesh.load(tmp_path / f"ball{suffix}", process=False, force="mesh")
    np.testing.assert_allclose(back.vertices, BALL.vertices, atol=1e-6)
    np.testing.assert_array_equal(back.faces, BALL.faces)
    if painted:
        np.testing.assert_allclose(back.visual.vertex_colors[:, :3] / 255, colours, atol=0.003)


def test_several_meshes_become_named_nodes_side_by_side(tmp_path):
    batch = BALL.vertices * np.array([1, 2, 3]).reshape(3, 1, 1)
    save_mesh(tmp_path / "balls.glb", batch, BALL.faces, np.full((3, *BALL.vertices.shape), 0.5), spacing=10)
    scene = trimesh.load(tmp_path / "balls.glb", process=False)
    assert sorted(scene.graph.nodes_geometry) == ["mesh_0", "mesh_1", "mesh_2"]
    for i in range(3):
        np.testing.assert_allclose(scene.geometry[f"mesh_{i}"].vertices, batch[i] + (10 * i, 0, 0), atol=1e-5)


def test_unused_and_repeated_vertices_are_kept(tmp_path):
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [5, 5, 5.0]])
    for suffix in (".ply", ".glb"):
        save_mesh(tmp_path / f"odd{suffix}", vertices, np.array([[0, 1, 2]]))
        assert len(trimesh.load(tmp_path / f"odd{suffix}", process=False, force="mesh").vertices) == 5, suffix
    save_mesh(tmp_path / "odd.obj", vertices, np.array([[0, 1, 2]]))
    lines = (tmp_path / "odd.obj").read_text().splitlines()  # trimesh itself drops unused ones when it reads
    np.testing.assert_allclose([[float(x) for x in line.split()[1:4]] for line in lines if line.startswith("v ")], vertices)


@pytest.mark.parametrize("name", ["mesh.stl", "mesh", "mesh.obj.gz"])
def test_unknown_mesh_suffix_is_named(tmp_path, name):
    with pytest.raises(InputError, match="expected one of .obj, .glb, .ply"):
        save_mesh(tmp_path / name, BALL.vertices, BALL.faces)


def test_unusable_meshes_are_named_and_leave_no_file(tmp_path):
    with pytest.raises(InputError, match="found 2 meshes, expected one for '.obj'"):
        save_mesh(tmp_path / "two.obj", np.stack([BALL.vertices] * 2), BALL.faces)
    with pytest.raises(InputError, match="NaN"):
        save_mesh(tmp_path / "nan.ply", np.full((3, 3), np.nan), np.array([[0, 1, 2]]))
    with pytest.raises(InputError, match="vertex_colours"):
        save_mesh(tmp_path / "paint.ply", BALL.vertices, BALL.faces, np.zeros((4, 3)))
    with pytest.raises(InputError, match="no meshes"):
        save_mesh(tmp_path / "none.glb", np.zeros((0, 4, 3)), np.array([[0, 1, 2]]))
    assert list(tmp_path.iterdir()) == []


def test_image_round_trip(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    save_image(tmp_path / "new" / "a.png", image)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "new" / "a.png"))[..., ::-1], image)
    red = np.zeros((32, 32, 3), np.uint8) + np.array([200, 30, 10], np.uint8)
    for suffix in ("jpg", "JPEG"):
        save_image(tmp_path / f"a.{suffix}", red)
        assert np.abs(cv2.imread(str(tmp_path / f"a.{suffix}"))[..., ::-1].astype(int) - red).max() < 6


def test_bad_images_are_named(tmp_path):
    with pytest.raises(InputError, match="suffix '.bmp', expected one of .png, .jpg, .jpeg"):
        save_image(tmp_path / "a.bmp", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError, match="image: found float64"):
        save_image(tmp_path / "a.png", np.zeros((4, 4, 3)))
    assert list(tmp_path.iterdir()) == []
