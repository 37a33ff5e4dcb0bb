"""The completion protocol through its real command line: results, interruptions, several processes, and bad input."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dposer.assets import asset
from dposer.body.parts import part_missing
from dposer.data.amass import read_poses
from dposer.data.processed import PoseSplit, write_split
from run import completion as module
from run._cli import cli

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
POSES, HYPOTHESES = 7, 2
FLAGS = ["--mode", "DPoser", "--hypo", str(HYPOTHESES), "--steps", "100", "--batch-size", "2", "--device", "cpu", "--save-poses"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A processed set of the shipped example poses."""
    folder = tmp_path_factory.mktemp("data")
    poses = torch.as_tensor(read_poses(asset("examples", "toy_data.npz")))
    for split, some in {"train": poses[100:140], "test": poses[:POSES]}.items():
        write_split(folder / "version1", split, PoseSplit(some, torch.zeros(len(some), 3), torch.zeros(len(some), 10)))
    return folder


@pytest.fixture(scope="module")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("reference")
    complete(data, folder)
    return folder


def arguments(data: Path, output: Path, *extra: object) -> list[str]:
    return ["--dataset-folder", str(data), "--output", str(output), *FLAGS, *map(str, extra)]


def complete(data: Path, output: Path, *extra: object) -> None:
    cli(module.main, arguments(data, output, *extra))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def pieces(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Every batch's arrays but its time."""
    return {path.name: {k: v for k, v in np.load(path).items() if k != "seconds"} for path in sorted(folder.glob("*/*/batch_*.npz"))}


def same(one: Path, other: Path) -> bool:
    a, b = pieces(one), pieces(other)
    return len(a) > 0 and a.keys() == b.keys() and all(np.array_equal(a[name][key], b[name][key]) for name in a for key in a[name])


def test_results_tell_every_pose(reference: Path, data: Path) -> None:
    (row,) = rows(reference / "results.csv")
    poses = rows(reference / "DPoser/left_leg/poses.csv")
    assert (row["mode"], row["part"], row["poses"], row["hypotheses"]) == ("DPoser", "left_leg", str(POSES), str(HYPOTHESES))
    assert float(row["evaluations"]) == 100 and float(row["ms"]) > 0
    assert [int(pose["pose"]) for pose in poses] == list(range(POSES))  # the last batch, of one pose, counts too
    for figure in ("MPVPE min", "MPJPE mean", "APD", "plausibility"):
        assert float(row[figure]) == pytest.approx(np.mean([float(pose[figure]) for pose in poses]), rel=1e-5)
    with np.load(reference / "DPoser/left_leg/completions.npz") as saved:
        hidden = part_missing("left_leg").repeat_interleave(3).numpy()
        truth = torch.load(data / "version1/test/pose_body.pt", weights_only=True).numpy()
        assert saved["completions"].shape == (POSES, HYPOTHESES, 63) and np.array_equal(saved["missing"], hidden)
        assert np.array_equal(saved["pose_body"], truth)
        assert np.array_equal(saved["completions"][..., ~hidden], np.broadcast_to(truth[:, None, ~hidden], (POSES, HYPOTHESES, 51)))
    report = json.loads((reference / "results.json").read_text())
    assert report["results"][0]["MPJPE min"] == float(row["MPJPE min"]) and report["flags"]["hypo"] == HYPOTHESES


def test_an_interrupted_run_is_continued_to_the_same_bits(reference: Path, data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "run.completion", *arguments(data, tmp_path)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs are deaf to it, and so are their children
    process = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, preexec_fn=heard, **pipes)
    folder = tmp_path / "DPoser/left_leg"
    deadline = time.monotonic() + 100
    while not (folder / "batch_000000.npz").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and errors.strip().splitlines()[-1].startswith("error: interrupted") and "Traceback" not in errors
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert {path.suffix for path in written} <= {".npz", ".json"} and not any(path.name.startswith(".") for path in written)
    complete(data, tmp_path)
    assert all(path.stat().st_mtime_ns == moment for path, moment in written.items())  # what was done is not done again
    assert same(tmp_path, reference)


def test_a_finished_run_computes_nothing(
    reference: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(module, "evaluate_completion", refuse)
    before = (reference / "results.csv").read_bytes()
    complete(data, reference)
    assert (reference / "results.csv").read_bytes() == before and "left_leg" in capsys.readouterr().out


def two_processes(folder: Path, arguments: list[str]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of two processes started as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        crew = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "run.completion", *arguments]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command, cwd=folder, env={**ENVIRONMENT, **crew, "RANK": str(rank)}, **pipes) for rank in range(2)]
    outputs = [process.communicate(timeout=200) for process in started]
    return [(process.returncode, *output) for process, output in zip(started, outputs, strict=True)]


def test_two_processes_give_what_one_gives(reference: Path, data: Path, tmp_path: Path) -> None:
    (code, printed, errors), other = two_processes(tmp_path, arguments(data, tmp_path))
    assert code == 0, errors
    assert other[0] == 0, other[2]
    assert same(tmp_path, reference)
    assert "MPVPE min" in printed and other[1] == ""  # one of them speaks


def test_more_processes_than_batches_end_in_one_line(data: Path, tmp_path: Path) -> None:
    results = two_processes(tmp_path, arguments(data, tmp_path, "--batch-size", POSES))
    errors = "".join(result[2] for result in results)
    assert [result[0] for result in results] == [2, 2]
    assert errors.count("error:") == 1 and f"2 processes for {POSES} poses in 1 batches" in errors and "Traceback" not in errors


def test_masks_modes_and_baselines_side_by_side(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    per_pose = np.eye(POSES, 21, k=3, dtype=np.uint8)
    np.save(tmp_path / "mask.npy", per_pose)
    complete(
        data, tmp_path / "out", "--mode", "ScoreSDE", "DPoser", "--part", "arms", "--missing", tmp_path / "mask.npy",
        "--hypo", 10, "--steps", 2, "--baselines",
    )  # fmt: skip
    table = rows(tmp_path / "out/results.csv")
    assert {row["part"] for row in table} == {"arms", "missing_mask"}
    hypotheses = {row["mode"]: int(row["hypotheses"]) for row in table}
    assert hypotheses == {"ScoreSDE": 10, "DPoser": 10, "mean": 1, "nearest": 1, "nearest-10": 10}
    assert all(row["APD"] == "" and float(row["evaluations"]) == 0 for row in table if row["mode"] == "mean")
    with np.load(tmp_path / "out/nearest/missing_mask/completions.npz") as saved:
        assert np.array_equal(saved["missing"], per_pose.repeat(3, axis=1))
    printed = capsys.readouterr().out
    assert printed.count("  published") == 2 and "59.25" not in printed and "51.27" in printed and "AMASS" in printed
    report = json.loads((tmp_path / "out/results.json").read_text())
    assert {row["APD"] for row in report["results"] if row["mode"] == "nearest"} == {None}


@pytest.mark.parametrize(
    ("extra", "complaint"),
    [
        (["--split", "best"], "best: found no pose_body.pt"),
        (["--part", "tail"], "--part tail"),
        (["--missing", "left_elbw"], "left_elbow"),
        (["--hypo", "0"], "--hypo 0, expected 1 to 1000"),
        (["--batch_size", "0"], "--batch-size 0"),
        (["--sample", "0"], "--sample 0"),
        (["--steps", "101"], "multiple of 2"),
        (["--preset", "v9"], "v9"),
        (["--preset", "v1", "--mode", "DPS"], "belongs to DPoser, found --mode DPS"),
        (["--mode", "magic"], "magic"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--output", "/proc/nowhere"], "cannot be written"),
        (["--ckpt-path", "absent.safetensors"], "absent.safetensors: found nothing"),
    ],
)
def test_bad_flags_end_in_one_line_and_exit_code_2(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], extra: list[str], complaint: str
) -> None:
    _refused(data, tmp_path / "out", capfd, complaint, *extra)


@pytest.mark.parametrize(
    ("poses", "complaint"),
    [(torch.zeros(0, 63), r"found shape \(0, 63\)"), (torch.full((3, 63), torch.nan), "NaN"), (None, "run.prepare_data")],
)
def test_unusable_poses_end_in_one_line_and_exit_code_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], poses: torch.Tensor | None, complaint: str
) -> None:
    if poses is not None:
        write_split(tmp_path / "version1", "test", PoseSplit(poses, torch.zeros(len(poses), 3), torch.zeros(len(poses), 10)))
    _refused(tmp_path, tmp_path / "out", capfd, complaint)


def _refused(data: Path, output: Path, capfd: pytest.CaptureFixture[str], complaint: str, *extra: object) -> None:
    with pytest.raises(SystemExit) as ended:
        complete(data, output, *extra)
    errors = capfd.readouterr().err
    assert ended.value.code == 2 and re.search(complaint, errors) and "Traceback" not in errors
    assert not list(output.glob("*/*"))


@pytest.mark.parametrize(
    ("extra", "complaint"),
    [
        (["--hypo", "3"], "hypo 2, found 3"),
        (["--seed", "1"], "seed 42, found 1"),
        (["--batch-size", "3"], "batch_size 2, found 3"),
        (["--sample", "2"], "sample 1, found 2"),
        (["--preset", "x"], "solver"),
        (["--no-save-poses"], "save_poses True, found False"),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(
    reference: Path, data: Path, capfd: pytest.CaptureFixture[str], extra: list[str], complaint: str
) -> None:
    before = pieces(reference)
    with pytest.raises(SystemExit) as ended:
        complete(data, reference, *extra)
    assert ended.value.code == 2 and f"was begun with {complaint}" in capfd.readouterr().err
    assert pieces(reference).keys() == before.keys()
