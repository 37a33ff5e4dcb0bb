"""The demo through its real command line: every task, its files, and every way of asking for the impossible."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import trimesh

from dposer.assets import asset
from dposer.data.amass import read_amass
from dposer.viz import read_video

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def demo(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "run.demo", "--device", "cpu", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_completion_writes_what_the_original_wrote_and_keeps_known_joints(tmp_path: Path) -> None:
    result = demo("--task", "completion", "--num", 2, "--hypo", 3, "--part", "left_arm", "--faster", "--export", "npz", "glb", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "output/test_results/completion"
    expected = {f"sample{i}_{what}" for i in (1, 2) for what in ("original.jpg", "masked.png", *(f"completion{h}.png" for h in (1, 2, 3)))}
    assert files(folder) == expected | {"contact_sheet.png", "completions.npz", "completions.glb"}
    poses = read_amass(folder / "completions.npz").pose_body
    with np.load(asset("examples", "toy_data.npz")) as toy:
        truth = toy["pose_samples"][:2].repeat(3, axis=0)
    hidden = np.repeat(np.isin(np.arange(21), (12, 15, 17, 19)), 3)
    assert np.array_equal(poses[:, ~hidden], truth[:, ~hidden])
    assert np.ptp(poses[:3, hidden], axis=0).max() > 0.05  # the hypotheses differ
    assert isinstance(trimesh.load(folder / "completions.glb"), trimesh.Scene)
    assert "sample*_original.jpg" in result.stdout


def test_pictures_show_a_body_on_white(tmp_path: Path) -> None:
    assert demo("--num", 1, "--view", "left_half_above", cwd=tmp_path).returncode == 0
    image = cv2.imread(str(tmp_path / "output/test_results/view/GT_sample1.png"))
    assert image.shape == (512, 384, 3)
    share = (image.min(axis=2) < 250).mean()
    assert 0.05 < share < 0.5 and (image[0] > 250).all() and (image[:, 0] > 250).all()


def test_generation_is_decided_by_the_seed(tmp_path: Path) -> None:
    results = []
    for seed in (1, 1, 2):
        folder = tmp_path / str(len(results))
        run = demo("--task", "generation", "--num", 2, "--faster", "--seed", seed, "--output-path", folder, cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        results.append(read_amass(folder / "generation/samples.npz").pose_body)
    assert np.array_equal(results[0], results[1]) and not np.array_equal(results[0], results[2])


def test_a_recipe_chooses_the_sampler(tmp_path: Path) -> None:
    recipe = ROOT / "configs/subvp/amass_scorefc_continuous.py"
    run = demo("--task", "generation", "--num", 1, "--steps", 30, "--faster", "--config", recipe, cwd=tmp_path)
    assert run.returncode == 0, run.stderr


def test_interpolation_passes_through_its_anchors(tmp_path: Path) -> None:
    run = demo("--task", "interpolation", "--video", "--faster", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    folder = tmp_path / "output/test_results/interpolation"
    assert sum(1 for _ in read_video(folder / "interpolation_video.mp4")) == 300
    poses = read_amass(folder / "interpolation.npz").pose_body.reshape(5, 60, 63)
    with np.load(asset("examples", "toy_data.npz")) as toy:
        anchors = toy["pose_samples"][[1, 10, 11, 12, 17, 14]]
    assert np.abs(poses[:, 0] - anchors[:-1]).max() < 0.05 and np.abs(poses[:, -1] - anchors[1:]).max() < 0.05


def test_ctrl_c_in_the_middle_of_a_film_leaves_no_half_film(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "run.demo", "--task", "generation_process", "--num", "1", "--device", "cpu"]
    process = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    folder = tmp_path / "output/test_results/generation_process"
    deadline = time.monotonic() + 200
    while not any(folder.glob(".generation_process1*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and errors.strip().splitlines()[-1].startswith("error: interrupted")
    assert "Traceback" not in errors and not list(folder.iterdir())


def _broken(tmp_path: Path) -> dict[str, Path]:
    """Files that cannot be used, by name."""
    names = ("cut.safetensors", "text.pth", "cut.npz", "shape.npz", "nan.npz", "empty.npz", "objects.npz")
    paths = {name: tmp_path / name for name in names}
    weights = asset("pretrained_models", "dposer-open.safetensors").read_bytes()
    paths["cut.safetensors"].write_bytes(weights[: len(weights) // 2])
    paths["text.pth"].write_text("not weights")
    body = asset("body_models", "smplx", "SMPLX_OPEN.npz").read_bytes()
    paths["cut.npz"].write_bytes(body[: len(body) // 2])
    np.savez(paths["shape.npz"], betas=np.zeros(10))
    np.savez(paths["nan.npz"], pose_samples=np.full((3, 63), np.nan, dtype=np.float32))
    np.savez(paths["empty.npz"], pose_samples=np.zeros((0, 63)))
    np.savez(paths["objects.npz"], poses=np.array([{"a": 1}], dtype=object))
    return paths


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--part", "tail"], "tail"),
        (["--view", "sideways"], "sideways"),
        (["--hypo", "0"], "--hypo 0, expected 1 to 1000"),
        (["--hypo", "1000000"], "--hypo 1000000, expected 1 to 1000"),
        (["--num", "0"], "--num 0"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--output-path", "/proc/nowhere"], "cannot be written"),
        (["--ckpt-path", "absent.safetensors"], "absent.safetensors: found nothing"),
        (["--ckpt-path", "cut.safetensors"], "cut.safetensors"),
        (["--ckpt-path", "text.pth"], "text.pth"),
        (["--bodymodel-path", "SMPLX_NEUTRAL.npz"], "SMPLX_NEUTRAL.npz"),
        (["--bodymodel-path", "cut.npz"], "cut.npz"),
        (["--bodymodel-path", "shape.npz"], "shape.npz"),
        (["--file-path", "shape.npz"], "shape.npz"),
        (["--file-path", "nan.npz"], "nan.npz.*NaN"),
        (["--file-path", "empty.npz"], "empty.npz"),
        (["--file-path", "objects.npz"], "objects.npz.*pickled"),
        (["--config", "absent.py"], "absent.py"),
    ],
)
def test_bad_input_ends_in_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    import re

    from run import demo as module
    from run._cli import cli

    _broken(tmp_path)
    monkeypatch.chdir(tmp_path)
    state = torch.random.get_rng_state()
    with pytest.raises(SystemExit) as ended:
        cli(module.main, ["--task", "completion", "--num", "1", "--hypo", "2", "--device", "cpu", *arguments])
    torch.random.set_rng_state(state)
    assert ended.value.code == 2
    errors = capfd.readouterr().err
    assert re.search(complaint, errors), errors
    assert "Traceback" not in errors
    if "--part" not in arguments:  # tyro frames its own complaints
        assert len([line for line in errors.splitlines() if line.startswith("error:")]) == 1
    assert not list(tmp_path.glob("output/**/*.png"))
