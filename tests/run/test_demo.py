"""The demo through its real command line: every task, its files, and every way of asking for the impossible."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import trimesh

from dposer.assets import asset
from dposer.data.amass import AmassSequence, read_amass, read_poses, write_amass
from dposer.data.video import open_video
from dposer.prior import PosePrior

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def demo(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "run.demo", "--device", "cpu", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def toy() -> np.ndarray:
    return read_poses(asset("examples", "toy_data.npz"))


def test_completion_writes_what_the_original_wrote_and_keeps_known_joints(tmp_path: Path) -> None:
    result = demo("--task", "completion", "--num", 2, "--hypo", 3, "--part", "left_arm", "--faster", "--export", "npz", "glb", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "output/test_results/completion"
    expected = {f"sample{i}_{what}" for i in (1, 2) for what in ("original.jpg", "masked.png", *(f"completion{h}.png" for h in (1, 2, 3)))}
    assert files(folder) == expected | {"contact_sheet.png", "completions.npz", "completions.glb", "completions.csv"}
    poses = read_amass(folder / "completions.npz").pose_body
    truth = toy()[:2].repeat(3, axis=0)
    hidden = np.repeat(np.isin(np.arange(21), (12, 15, 17, 19)), 3)
    assert np.array_equal(poses[:, ~hidden], truth[:, ~hidden])
    assert np.ptp(poses[:3, hidden], axis=0).max() > 0.05  # the hypotheses differ
    assert isinstance(trimesh.load(folder / "completions.glb"), trimesh.Scene)
    assert "sample*_original.jpg" in result.stdout and "completions by DPoser" in result.stdout
    with (folder / "completions.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [(row["row"], row["sample"], row["completion"]) for row in rows] == [(str(k), str(k // 3 + 1), str(k % 3 + 1)) for k in range(6)]
    scores = PosePrior.from_pretrained().plausibility(torch.from_numpy(poses)).score
    assert [float(row["score"]) for row in rows] == pytest.approx(scores.tolist(), abs=0.05)


def test_completion_of_single_axes_by_another_mode(tmp_path: Path) -> None:
    missing = np.zeros((500, 63), dtype=bool)
    missing[0, 9:12] = missing[1:, 45] = True  # the left knee of the first pose, an axis of the left shoulder of the others
    np.savez(tmp_path / "mask.npz", missing=missing)
    flags = ("--num", 2, "--hypo", 2, "--faster", "--missing", "mask.npz", "--mode", "posterior")
    result = demo("--task", "completion2", *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "output/test_results/completion2"
    assert "sample1_original.png" in files(folder) and "completions by posterior" in result.stdout
    changed = read_amass(folder / "completions.npz").pose_body.reshape(2, 2, 63) != toy()[:2, None]
    assert np.array_equal(changed.any(1), missing[:2])
    orange = [_orange(folder / f"sample{i}_completion1.png") for i in (1, 2)]
    assert orange[0].any() and orange[1].any()
    assert np.argwhere(orange[0])[:, 0].mean() > np.argwhere(orange[1])[:, 0].mean() + 30  # the shin, and the upper arm


def _orange(path: Path) -> np.ndarray:
    blue, _, red = np.moveaxis(cv2.imread(str(path)).astype(int), -1, 0)
    return red > blue + 50


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
    run = demo("--task", "interpolation", "--video", "--frames", 20, "--faster", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    folder = tmp_path / "output/test_results/interpolation"
    assert sum(1 for _ in open_video(folder / "interpolation_video.mp4")) == 100
    walk = read_amass(folder / "interpolation.npz")
    assert walk.fps == open_video(folder / "interpolation_video.mp4").fps == 60
    poses, anchors = walk.pose_body.reshape(5, 20, 63), toy()[[1, 10, 11, 12, 17, 14]]
    assert np.abs(poses[:, 0] - anchors[:-1]).max() < 0.05 and np.abs(poses[:, -1] - anchors[1:]).max() < 0.05
    errors = {row: float(error) for row, error in re.findall(r"^ *(\d+) +([\d.]+)$", run.stdout, re.MULTILINE)}
    assert list(errors) == ["1", "10", "11", "12", "17", "14"] and max(errors.values()) < 5


def test_interpolation_between_poses_of_ones_own(tmp_path: Path) -> None:
    write_amass(tmp_path / "mine.npz", AmassSequence.of_poses(toy()[:6]))
    run = demo("--task", "interpolation", "--file-path", "mine.npz", "--anchors", 5, 0, 3, "--frames", 3, "--faster", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    folder = tmp_path / "output/test_results/interpolation"
    pictures = {f"{name}_sample{i}.png" for name in ("original", "reconstruction") for i in (1, 2, 3)}
    pictures |= {f"inter_{pair}_{frame}.png" for pair in (1, 2) for frame in (1, 2, 3)}
    assert files(folder) == pictures | {"contact_sheet.png", "interpolation.npz"}
    assert np.abs(read_amass(folder / "interpolation.npz").pose_body[[0, 2, 3, 5]] - toy()[[5, 0, 0, 3]]).max() < 0.05


def test_the_films_of_generation_end_with_the_pose_held(tmp_path: Path) -> None:
    flags = ("--num", 2, "--steps", 10, "--sampler", "ddim", "--faster")
    run = demo("--task", "generation_process", *flags, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    folder = tmp_path / "output/test_results/generation_process"
    names = {"generation_process.mp4", "generation_process1.mp4", "generation_process2.mp4"}
    assert files(folder) == names | {"contact_sheet.png", "samples.npz"}
    films = {name: np.stack(list(open_video(folder / name))).astype(int) for name in names}
    one, two, both = (films[name] for name in ("generation_process1.mp4", "generation_process2.mp4", "generation_process.mp4"))
    assert len(one) == len(two) == len(both) == 130 and both.shape[2] > one.shape[2] + two.shape[2]
    assert np.abs(one[-1] - one[-30]).mean() < 1 < np.abs(one[-1] - one[0]).mean()


def test_ctrl_c_in_the_middle_of_a_film_leaves_no_half_film(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "run.demo", "--task", "generation_process", "--num", "1", "--device", "cpu"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs are deaf to it, and so are their children
    process = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, preexec_fn=heard, **pipes)
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
    names = ("cut.safetensors", "text.pth", "cut.npz", "shape.npz", "nan.npz", "empty.npz", "objects.npz", "one.npz", "mask.txt")
    paths = {name: tmp_path / name for name in names}
    weights = asset("pretrained_models", "dposer-open.safetensors").read_bytes()
    paths["cut.safetensors"].write_bytes(weights[: len(weights) // 2])
    paths["text.pth"].write_text("not weights")
    body = asset("body_models", "smplx", "SMPLX_OPEN.npz").read_bytes()
    paths["cut.npz"].write_bytes(body[: len(body) // 2])
    np.savez(paths["shape.npz"], betas=np.zeros(10))
    np.savez(paths["nan.npz"], pose_samples=np.full((3, 63), np.nan, dtype=np.float32))
    np.savez(paths["empty.npz"], pose_samples=np.zeros((0, 63)))
    np.savez(paths["one.npz"], pose_samples=np.zeros((1, 63), dtype=np.float32))
    paths["mask.txt"].write_text("0 1 1")
    prior = PosePrior.from_pretrained()
    prior.calibration = None
    prior.save(tmp_path / "uncalibrated.safetensors")
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
        (["--missing", "left_elbo"], "'left_elbo'.*did you mean left_elbow"),
        (["--missing", "mask.txt"], r"mask.txt: shape \(3,\), expected \(21,\)"),
        (["--preset", "v1", "--mode", "RePaint"], "preset 'v1': mode 'RePaint' has no such settings"),
        (["--task", "generation", "--steps", "0"], "steps = 0"),
        (["--task", "interpolation", "--anchors", "3"], "--anchors 3: found 1, expected at least 2"),
        (["--task", "interpolation", "--anchors", "3", "500"], "--anchors 500: .*expected 0 to 499"),
        (["--task", "interpolation", "--frames", "1"], "--frames 1, expected 2"),
        (["--task", "interpolation", "--file-path", "one.npz"], "one.npz: found 1 pose"),
        (["--task", "score", "--ckpt-path", "uncalibrated.safetensors"], "uncalibrated.safetensors: .*no calibration"),
        (["--task", "score", "--file-path", "empty.npz"], "empty.npz"),
    ],
)
def test_bad_input_ends_in_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
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
