"""The command line that makes mixtures, from the outside."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dposer.data.gmm import Calibration
from dposer.data.gmm_files import read_gmm
from dposer.data.h36m import read_h36m
from run import make_gmm
from run._cli import cli
from tests.lifting_data import write_dataset


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    code = 0
    try:
        cli(make_gmm.main, [str(argument) for argument in arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    return code, *capsys.readouterr()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dataset(tmp_path, "open", "noisy", {"train": ("A",), "valid": ("B",), "test": ()}, 30)
    return tmp_path


def test_of_keypoints(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--data", folder, "--components", 2)
    assert code == 0, err
    assert "16 films" in out and "--keypoints noisy_gmm" in out
    clips = read_h36m(folder, "noisy_gmm", "open")
    assert clips[0].mixture is not None and clips[0].mixture.shape == (37, 17, 2, 5)
    assert (clips[0].mixture[:, :, 0, 0] == 1).all()  # sure
    np.testing.assert_allclose(clips[3].keypoints, read_h36m(folder, "noisy", "open")[3].keypoints, atol=1e-3)


def test_drawn_and_calibrated(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--data", folder, "--keypoints", "gt", "--synthetic", "--output", tmp_path / "out")
    code, out, err = run(capsys, *flags, "--calibrate")
    assert code == 0, err
    assert "calibrated" in out and {path.name for path in (tmp_path / "out").iterdir()} == {
        "data_2d_open_gt_synthetic_gmm.npz", "data_2d_open_gt_synthetic_calibration.json"
    }  # fmt: skip
    calibration = tmp_path / "out" / "data_2d_open_gt_synthetic_calibration.json"
    assert set(Calibration.load(calibration).table) >= {"pelvis", "left_wrist"}
    first = read_gmm(tmp_path / "out", "gt_synthetic", "open")["A"]["Walking 1"][2]
    assert run(capsys, *flags, "--calibration", calibration)[0] == 0
    np.testing.assert_array_equal(read_gmm(tmp_path / "out", "gt_synthetic", "open")["A"]["Walking 1"][2], first)  # the same seed
    assert run(capsys, *flags, "--seed", 1)[0] == 0
    assert not np.array_equal(read_gmm(tmp_path / "out", "gt_synthetic", "open")["A"]["Walking 1"][2], first)


def test_of_heatmaps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maps = np.zeros((2, 17, 10, 10), np.float32)
    maps[:, :, 4, 6] = 1
    np.savez(tmp_path / "walk.npz", heatmaps=maps, image_size=[200, 100])
    code, out, err = run(capsys, "--heatmaps", tmp_path / "walk.npz", "--output", tmp_path)
    assert code == 0, err
    assert "2 frames, 5 Gaussians" in out
    film = read_gmm(tmp_path / "walk_gmm.npz")["walk"]["clip"][0]
    assert film.shape == (2, 17, 5, 5)
    np.testing.assert_allclose(film[0, 0, 0], [1, 2 * 129.5 / 200 - 1, (2 * 44.5 - 100) / 200, 0.1, 0.05], atol=1e-6)
    np.save(tmp_path / "stand.npy", maps)
    flags = ("--heatmaps", tmp_path / "stand.npy", "--output", tmp_path, "--image-size", 200, 100)
    assert run(capsys, *flags, "--affine", 1, 0, 0, 0, 1, 0)[0] == 0
    np.testing.assert_allclose(read_gmm(tmp_path / "stand_gmm.npz")["stand"]["clip"][0][0, 0, 0, 1:3], [-0.94, -0.46], atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--keypoints", "cpn"), "data_2d_open_cpn.npz: found nothing"),
        (("--components", 4), "--components 4: expected 1 to 3"),
        (("--calibrate", "--calibration", "a.json"), "--calibrate and --calibration: expected one"),
        (("--calibration", "a.json"), "a.json: found nothing, expected a calibration"),
        (("--calibrate", "--heatmaps", "a.npy"), "--heatmaps: has spreads of its own"),
        (("--heatmaps", "a.npy"), "a.npy: found nothing, expected heatmaps"),
        (("--calibrate", "--keypoints", "gt"), "mostly where it should be exactly, expected detections"),
    ],
)
def test_bad_input_ends_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], flags: tuple[Any, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    code, _, err = run(capsys, "--data", folder, *flags)
    assert code == 2 and message in err.splitlines()[-1]
    assert not list(folder.glob("*_gmm.npz"))
