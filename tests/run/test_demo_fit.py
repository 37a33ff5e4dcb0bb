"""Photographs of people of our own making, fitted by the command line."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dposer.assets import asset
from dposer.body import BodyModel
from dposer.body.skeleton import OPENPOSE_25, layout_map
from dposer.data.amass import read_poses
from dposer.data.keypoints import Keypoints, write_openpose
from dposer.geometry.camera import Camera
from dposer.viz import save_image
from dposer.viz.overlay import overlay
from run import demo_fit as module
from run._cli import cli

SIZE = (320, 240)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """Two people, their keypoints beside, and the truth (2, V, 3)."""
    folder, body, camera = tmp_path_factory.mktemp("photo"), BodyModel(), Camera.of_size(*SIZE)
    poses = torch.as_tensor(read_poses(asset("examples", "toy_data.npz")))[[40, 200]]
    out = body(poses, torch.tensor([[math.pi, 0, 0]]).expand(2, 3), trans=torch.tensor([[-0.6, 0.1, 3.5], [0.7, 0.2, 4.2]]))
    rows = list(layout_map(body.keypoint_layout.joints, OPENPOSE_25.joints))
    points = torch.cat((camera.project(body.keypoints(out)[:, rows]), torch.ones(2, 25, 1)), -1)
    assert out.vertices is not None
    grey = np.full((SIZE[1], SIZE[0], 3), 180, np.uint8)
    lens = tuple(camera.focal.tolist()), tuple(camera.centre.tolist())
    save_image(folder / "two.png", overlay(grey, out.vertices.numpy(), body.faces, *lens))
    write_openpose(folder / "two_keypoints.json", Keypoints(points.double().numpy(), OPENPOSE_25, (None, None), SIZE))
    write_openpose(folder / "nobody.json", Keypoints(np.zeros((0, 25, 3)), OPENPOSE_25, ()))
    return folder, out.vertices.numpy()


def run(folder: Path, outdir: Path, *extra: object, keypoints: str = "two_keypoints.json", image: str = "two.png") -> None:
    flags = ["--img", folder / image, "--openpose", folder / keypoints, "--outdir", outdir, "--device", "cpu", *extra]
    cli(module.main, list(map(str, flags)))


def test_everybody_is_fitted_and_drawn(photo: tuple[Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, truth = photo
    run(folder, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    pictures = {"kpt2d_gt.jpg", "kpt2d.jpg", "mesh_init.jpg", "mesh_fit.jpg", "fit_sheet.jpg"}
    assert names == pictures | {"person0.obj", "person1.obj", "fit.npz", "fit.json"}
    with np.load(tmp_path / "fit.npz") as fit:
        assert fit["body_pose"].shape == (2, 63) and fit["betas"].shape == (2, 10) and fit["keypoints"].shape == (2, 25, 2)
        assert np.nanmean(fit["residuals"]) < 3 and np.abs(fit["transl"][:, 2] / [3.5, 4.2] - 1).max() < 0.25
        assert fit["focal"].tolist() == [400, 400] and fit["verdict"].tolist() == ["fits"] * 2 and fit["plausibility"].min() > 1
        assert fit["noise"].max() < 0.01
    assert "shape space of its own" in json.loads((tmp_path / "fit.json").read_text())["body"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[0] == "person" and len([line for line in lines if line.strip()[:1] in "01" and line.strip()]) == 2


def test_what_is_ignored_does_not_count_and_lenses_can_be_given(photo: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    run(photo[0], tmp_path, "--ignore", "left_hip", "neck", "--focal", 800)
    with np.load(tmp_path / "fit.npz") as fit:
        hidden = [OPENPOSE_25.joints.index(name) for name in ("left_hip", "neck")]
        assert np.isnan(fit["residuals"][:, hidden]).all() and np.isfinite(np.delete(fit["residuals"], hidden, 1)).all()
        assert fit["focal"].tolist() == [800, 800] and fit["transl"][:, 2].min() > 5


def test_people_may_begin_where_a_file_says(photo: tuple[Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(photo[0], tmp_path, "--steps", 12)
    run(photo[0], tmp_path / "again", "--steps", 1, "--init", tmp_path / "fit.npz", "--export")
    with np.load(tmp_path / "fit.npz") as first, np.load(tmp_path / "again" / "fit.npz") as second:
        assert second["objective"].shape == (2, 1) and np.abs(first["body_pose"] - second["body_pose"]).max() < 0.2
    np.savez(tmp_path / "one.npz", body_pose=np.zeros((1, 63)), global_orient=np.zeros((1, 3)))
    with pytest.raises(SystemExit):
        run(photo[0], tmp_path, "--init", tmp_path / "one.npz")
    assert "one.npz: body_pose is float64 (1, 63), expected finite numbers (2, 63)" in capsys.readouterr().err


@pytest.mark.parametrize("extra", [("--preset", "v1", "--time-strategy", 2, "--sde-N", 100), ("--prior", "GMM")])
def test_releases_and_the_mixture_fit_as_well(photo: tuple[Path, np.ndarray], tmp_path: Path, extra: tuple) -> None:
    run(photo[0], tmp_path, "--steps", 20, "--config-path", "configs.subvp.amass_scorefc_continuous.get_config", "--export", "glb", *extra)
    assert (tmp_path / "people.glb").is_file()
    with np.load(tmp_path / "fit.npz") as fit:
        assert np.nanmean(fit["residuals"]) < 25 and np.isfinite(fit["body_pose"]).all()


@pytest.mark.parametrize(
    ("extra", "files", "complaint"),
    [
        ((), {"keypoints": "nobody.json"}, "nobody.json: holds nobody"),
        ((), {"keypoints": "none.json"}, "none.json"),
        ((), {"image": "none.png"}, "none.png"),
        (("--layout", "coco17"), {}, "two_keypoints.json"),
        (("--ignore", "tail"), {}, "--ignore tail: not a keypoint of any layout"),
        (("--sde-N", 1000), {}, "give --preset"),
        (("--preset", "x", "--sde-N", 1000), {}, "only preset v1"),
        (("--preset", "x", "--prior", "GMM"), {}, "leave --preset out"),
        (("--prior", "GMM", "--gmm-path", "none.pkl"), {}, "none.pkl"),
        (("--focal", 0), {}, "--focal 0.0"),
        (("--exif",), {}, "EXIF tells no focal length"),
    ],
)
def test_bad_input_is_told_in_one_line(
    photo: tuple[Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: tuple, files: dict[str, str], complaint: str
) -> None:
    with pytest.raises(SystemExit) as raised:
        run(photo[0], tmp_path, *extra, **files)
    told = capsys.readouterr().err.strip().splitlines()
    assert raised.value.code == 2 and complaint in told[-1] and told[-1].startswith("error: ")
    assert not list(tmp_path.glob("*.jpg"))
