"""The EHF folder: its samples are found and paired, its meshes come back vertex by vertex, and damage becomes one clear line."""

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dposer.data import ehf
from dposer.data.ehf import read_ehf, read_mesh, to_camera
from dposer.errors import InputError

BALL = trimesh.creation.icosphere(1)
_SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def ply(vertices: np.ndarray, encoding: str = "binary", faces: np.ndarray = BALL.faces) -> bytes:
    data: bytes = trimesh.Trimesh(vertices, faces, process=False).export(file_type="ply", encoding=encoding)
    return data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three samples, out of order, among the other files that the archive has."""
    for name in ("10", "02", "01"):
        (tmp_path / f"{name}_img.jpg").write_bytes(b"a picture")
        (tmp_path / f"{name}_img.png").write_bytes(b"the same")
        (tmp_path / f"{name}_2Djnt.json").write_text(json.dumps({"people": []}))
        (tmp_path / f"{name}_2Djnt.png").write_bytes(b"drawn")
        (tmp_path / f"{name}_align.ply").write_bytes(ply(BALL.vertices))
        (tmp_path / f"{name}_scan.obj").write_text("v 0 0 0\n")
    (tmp_path / "EHF_camera.txt").write_text("focal")
    return tmp_path


def test_samples_are_paired_and_sorted(folder: Path) -> None:
    samples = read_ehf(folder)
    assert [sample.name for sample in samples] == ["01", "02", "10"]
    first = samples[0]
    assert (first.image.name, first.keypoints.name, first.mesh.name) == ("01_img.jpg", "01_2Djnt.json", "01_align.ply")
    for sample in samples:
        sample.image.with_suffix(".jpg").unlink()
    assert [sample.image.name for sample in read_ehf(folder)] == ["01_img.png", "02_img.png", "10_img.png"]


@pytest.mark.parametrize("ending", ["_2Djnt", "_img", "_img_keypoints", "_keypoints", ""])
def test_keypoints_of_another_detector(folder: Path, tmp_path_factory: pytest.TempPathFactory, ending: str) -> None:
    other = tmp_path_factory.mktemp("vitpose")
    for name in ("01", "02", "10"):
        (other / f"{name}{ending}.json").write_text("[]")
        (folder / f"{name}_2Djnt.json").unlink()
    assert [sample.keypoints for sample in read_ehf(folder, other)] == [other / f"{name}{ending}.json" for name in ("01", "02", "10")]
    with pytest.raises(InputError, match=r"01 \(keypoints\); 02 \(keypoints\)"):
        read_ehf(folder)


def test_samples_that_lack_files_are_named(folder: Path) -> None:
    (folder / "02_align.ply").unlink()
    (folder / "10_img.jpg").unlink()
    (folder / "10_img.png").unlink()
    (folder / "10_2Djnt.json").unlink()
    with pytest.raises(InputError, match=r"2 of 3 samples lack files: 02 \(mesh\); 10 \(image, keypoints\)") as error:
        read_ehf(folder)
    assert "\n" not in str(error.value)


def test_many_lacking_samples_stay_one_line(folder: Path) -> None:
    for i in range(20, 60):
        (folder / f"{i}_img.jpg").write_bytes(b"a picture")
    with pytest.raises(InputError, match=r"40 of 43 samples .* and 34 more") as error:
        read_ehf(folder)
    assert len(str(error.value)) < 600


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no image and no mesh of EHF"):
        read_ehf(tmp_path)
    with pytest.raises(InputError, match=r"found nothing"):
        read_ehf(tmp_path / "nowhere")
    (tmp_path / "EHF.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"found a file"):
        read_ehf(tmp_path / "EHF.zip")


@_SETTINGS
@given(encoding=st.sampled_from(["ascii", "binary"]), seed=st.integers(0, 1000))
def test_vertices_come_back_in_their_order(tmp_path: Path, encoding: str, seed: int) -> None:
    vertices = np.random.default_rng(seed).normal(size=BALL.vertices.shape)
    vertices[3] = vertices[7]  # readers that merge or drop points would break the topology
    path = tmp_path / "01_align.ply"
    path.write_bytes(ply(vertices, encoding, faces=BALL.faces[:5]))
    np.testing.assert_allclose(read_mesh(path, len(vertices)), vertices, atol=1e-6)


def test_points_without_faces_are_vertices_too(tmp_path: Path) -> None:
    path = tmp_path / "points.ply"
    path.write_text(
        "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n0 1 2\n3 4 5\n"
    )
    np.testing.assert_array_equal(read_mesh(path, 2), [[0, 1, 2], [3, 4, 5]])


def test_a_mesh_of_another_body_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "01_align.ply"
    path.write_bytes(ply(BALL.vertices))
    with pytest.raises(InputError, match=r"01_align.ply: found 42 vertices, expected the 10475 of the body model; load the body model"):
        read_mesh(path, 10475)


def test_nan_is_refused(tmp_path: Path) -> None:
    vertices = np.array(BALL.vertices)
    vertices[4, 1] = np.nan
    path = tmp_path / "01_align.ply"
    path.write_bytes(ply(vertices))
    with pytest.raises(InputError, match=r"NaN or infinite \(first at \(4, 1\)\)"):
        read_mesh(path, len(vertices))


_WHOLE = ply(BALL.vertices)


@_SETTINGS
@given(
    st.one_of(
        st.integers(1, len(_WHOLE) - 1).map(lambda length: _WHOLE[:length]),
        st.binary(min_size=1, max_size=200),
        st.binary(max_size=60).map(lambda tail: b"ply\nformat ascii 1.0\nelement vertex 42\n" + tail),
        st.just(_WHOLE.replace(b"vertex 42", b"vertex 9999999999999")),
    )
)
def test_damage_is_an_input_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "broken.ply"
    path.write_bytes(data)
    try:
        vertices = read_mesh(path, len(BALL.vertices))
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:  # cut within the faces
        np.testing.assert_allclose(vertices, BALL.vertices, atol=1e-6)


def test_missing_and_empty_meshes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.ply").touch()
    for name in ("empty.ply", "missing.ply"):
        with pytest.raises(InputError, match=name):
            read_mesh(tmp_path / name, 42)


def test_scans_stand_upright_before_the_camera() -> None:
    scan = np.array([[0.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]])  # feet, head, a step forward, to the person's left
    feet, head, front, left = to_camera(scan)
    assert head[1] < feet[1] and front[2] < feet[2] and left[0] > feet[0]  # y is down, the person looks at the camera
    rotation = Rotation.from_rotvec((-2.98747896, 0.01172457, -0.05704687))
    np.testing.assert_allclose(feet, (-0.03609917, 0.43416458, 2.37101226))
    np.testing.assert_allclose(to_camera(scan[None])[0] - feet, rotation.apply(scan), atol=1e-12)
    assert abs(ehf.FOCAL * feet[0] / feet[2] + ehf.CENTRE[0] - 800) < 100  # the origin of the scans is about the middle of 1600 pixels
