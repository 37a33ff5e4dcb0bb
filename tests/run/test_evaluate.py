"""The evaluation through its real command line: tables, kept samples, reports, and every way of asking for the impossible."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from dposer.assets import asset
from dposer.data.amass import read_poses
from dposer.data.processed import PoseSplit, write_split
from dposer.files import save_npz
from dposer.metrics import fid
from dposer.prior import PosePrior
from dposer.prior.config import ModelConfig, PriorConfig
from dposer.prior.networks import build_network
from dposer.prior.normalizer import Normalizer
from run import evaluate
from run._cli import cli

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
QUICK = ("--si-samples", "1", "--bpd-samples", "0", "--device", "cpu", "--seed", "7")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set of three subjects, made of the example poses."""
    folder = tmp_path_factory.mktemp("data")
    poses = torch.from_numpy(read_poses(asset("examples", "toy_data.npz")))
    for split, rows in (("train", poses[::2]), ("test", poses[1::2])):
        n = len(rows)
        write_split(folder / "version1", split, PoseSplit(rows, torch.zeros(n, 3), torch.zeros(n, 10), torch.arange(n) % 3))
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Away from whatever data the checkout has been given."""
    monkeypatch.chdir(tmp_path)


def run(*arguments: Any) -> None:
    """The command inside this process, where a start costs nothing."""
    cli(evaluate.main, [*QUICK, *map(str, arguments)])


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_generation_beside_real_poses_and_baselines(tmp_path: Path, data: Path) -> None:
    command = [sys.executable, "-m", "run.evaluate", *QUICK, "--dataset-folder", data, "--samples", 30, "--baselines"]
    command += ["--report", "page.md"]
    result = subprocess.run([*map(str, command)], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "output/evaluation"
    rows = {row["poses"]: row for row in table(folder / "generation.csv")}
    assert list(rows) == ["samples of the prior", "real poses, the other half", "real training poses", "Gaussian of the training poses"]
    figures = {"APD", "FID", "precision", "recall", "density", "coverage", "dNN", "SI"}
    assert all(set(row) == {"poses", "count", *figures} and row["count"] == "30" for row in rows.values())
    assert float(rows["real training poses"]["dNN"]) < 1e-5 and float(rows["samples of the prior"]["dNN"]) > 0.5
    assert float(rows["real poses, the other half"]["recall"]) > 0.3
    report = json.loads((folder / "generation.json").read_text())
    assert report["published on AMASS"]["DPoser"] == {"APD": 14.28, "FID": 0.07, "precision": 0.72, "recall": 0.80, "dNN": 2.63}
    page = (tmp_path / "page.md").read_text()
    assert "| DPoser | 14.280 | 0.070 |" in page and "run.evaluate --si-samples 1" in page and "published, on AMASS" in result.stdout


def test_samples_are_kept_under_what_decides_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    few = ("--si-samples", 0, "--steps", 3, "--output-path", tmp_path)

    def kept() -> dict[Path, float]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.glob("samples/*/samples_*.npz")}

    run(*few, "--samples", 510)
    first = kept()
    assert sorted(path.name for path in first) == ["samples_000000_500.npz", "samples_000500_10.npz"]
    figures = table(tmp_path / "generation.csv")
    capfd.readouterr()
    run(*few, "--samples", 510)
    assert kept() == first and table(tmp_path / "generation.csv") == figures and "510 of them were there" in capfd.readouterr().out
    next(path for path in first if "000500" in path.name).unlink()  # as if it had been stopped before the second part
    run(*few, "--samples", 510)
    assert table(tmp_path / "generation.csv") == figures
    assert len({path.parent for path in kept()}) == 1
    for change in (("--seed", 8), ("--steps", 4), ("--eps", 0.01)):
        run(*few, "--samples", 10, *change)
    assert len({path.parent for path in kept()}) == 4
    path = next(path for path in first if "000000" in path.name)
    save_npz(path, {"pose_samples": np.zeros((500, 60))})
    with pytest.raises(SystemExit):
        run(*few, "--samples", 510)
    assert re.search(rf"error: {path}.*\(500, 60\), expected \(500, 63\)", capfd.readouterr().err)


def test_the_likelihood_is_that_of_real_poses(tmp_path: Path) -> None:
    config = PriorConfig(model=ModelConfig(HIDDEN_DIM=32, EMBED_DIM=32))
    poses = torch.from_numpy(read_poses(asset("examples", "toy_data.npz")))
    torch.manual_seed(0)
    PosePrior(build_network(config.model, 63), Normalizer.fit(poses), config).save(tmp_path / "small.safetensors")
    run("--samples", 4, "--si-samples", 0, "--bpd-samples", 3, "--output-path", tmp_path, "--ckpt-path", "small.safetensors")
    drawn, real = table(tmp_path / "generation.csv")
    assert drawn["bits/dim"] == "" and 0 < float(real["bits/dim"]) < 1000  # of an untrained network


def test_protocols_and_recipes_choose_samplers_and_columns(tmp_path: Path, data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    few = ("--samples", 5, "--steps", 3, "--dataset-folder", data, "--output-path", tmp_path)
    for protocol, columns, said in (
        ("v1", ["APD", "SI"], "euler_maruyama, steps 3, corrector langevin, t_end 0.005"),
        ("v2", ["APD", "FID", "precision", "recall", "density", "coverage", "SI"], "poses of the train split"),
        ("paper", ["APD", "FID", "precision", "recall", "dNN"], "each pose alike"),
    ):
        run("--protocol", protocol, *few)
        assert list(table(tmp_path / "generation.csv")[0]) == ["poses", "count", *columns]
        assert said in capfd.readouterr().out
    recipe = ROOT / "configs/subvp/amass_scorefc_continuous.py"
    run("--config", recipe, *few, "--sampler", "ddim", "--corrector", "ald", "--split", "train", "--si-samples", 0)
    assert "sampler ddim, corrector ald, corrector_steps 1, snr 0.16" in capfd.readouterr().out


def test_published_statistics_serve_the_fid_alone(tmp_path: Path) -> None:
    poses = read_poses(asset("examples", "toy_data.npz"))
    save_npz(tmp_path / "statistics.npz", {"mu": poses.mean(0), "sigma": np.cov(poses, rowvar=False)})
    run("--reference", tmp_path / "statistics.npz", "--samples", 100, "--si-samples", 0, "--output-path", tmp_path)
    (row,) = table(tmp_path / "generation.csv")
    (drawn,) = tmp_path.glob("samples/*/samples_*.npz")
    assert set(row) == {"poses", "count", "APD", "FID"}
    assert float(row["FID"]) == pytest.approx(fid(read_poses(drawn), poses), rel=1e-6)


def test_solvers_are_tabled_drawn_and_reported(tmp_path: Path, data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "docs/page.md"
    flags = ("--task", "solvers", "--num", 2, "--hypo", 2, "--part", "left_leg", "--only", "DPoser v1", "--output-path", tmp_path)
    run(*flags, "--dataset-folder", data, "--report", page)
    assert "measured before" not in capfd.readouterr().out
    rows = {row["label"]: row for row in table(tmp_path / "solvers.csv")}
    assert {"mean of the training poses", "DPoser v1"} <= set(rows) and float(rows["DPoser v1"]["evaluations"]) == 200
    assert float(rows["DPoser v1"]["MPVPE min"]) <= float(rows["DPoser v1"]["MPVPE mean"])
    text = page.read_text()
    assert "| DPoser, published | 38.8 | 78.3 |" in text
    pictures = re.findall(r"\]\(([^)]+\.png)\)", text)
    assert pictures == ["page/tradeoff.png", "page/left_leg_front.png", "page/left_leg_left_half.png"]
    assert all(cv2.imread(str(page.parent / name)) is not None for name in pictures)
    assert (tmp_path / "tradeoff.png").is_file()
    run(*flags, "--dataset-folder", data)
    assert "5 of 5 rows measured before" in capfd.readouterr().out and table(tmp_path / "solvers.csv") == list(rows.values())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--protocol", "v3"], "v3"),
        (["--samples", "3"], r"--samples 3, expected 4 to .*3 neighbours"),
        (["--reference-size", "2"], "--reference-size 2, expected 4"),
        (["--hypo", "0"], "--hypo 0, expected 1 to 1000"),
        (["--steps", "0"], "steps"),
        (["--report", "page"], r"--report page: expected a name that ends in \.md"),
        (["--eps", "2"], "t_end"),
        (["--split", "valid"], "valid: found no pose_body.pt"),
        (["--split", "empty"], r"empty.*\(0, 63\)"),
        (["--dataset-folder", "nowhere"], "nowhere.*found no pose_body.pt"),
        (["--reference", "nan.npz"], "nan.npz.*NaN"),
        (["--reference", "few.npz"], "1 different poses, expected at least 8"),
        (["--reference", "absent.npz"], "absent.npz: found nothing"),
        (["--reference", "shape.npz"], "shape.npz.*mu of shape"),
        (["--task", "solvers", "--reference", "statistics.npz"], "statistics.npz: holds no poses"),
        (["--task", "solvers", "--only", "Magic"], "--only Magic: no such solver"),
        (["--ckpt-path", "absent.safetensors"], "absent.safetensors: found nothing"),
        (["--output-path", "/proc/nowhere"], "cannot be written"),
    ],
)
def test_bad_input_ends_in_one_line_and_exit_code_2(
    tmp_path: Path, data: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    if "empty" in arguments:
        (tmp_path / "mine/version1").mkdir(parents=True)
        write_split(tmp_path / "mine/version1", "empty", PoseSplit(torch.zeros(0, 63), torch.zeros(0, 3), torch.zeros(0, 10)))
        arguments = [*arguments, "--dataset-folder", "mine"]
    np.savez("nan.npz", pose_samples=np.full((20, 63), np.nan, dtype=np.float32))
    np.savez("few.npz", pose_samples=np.zeros((5, 63)))
    np.savez("shape.npz", mu=np.zeros(3), sigma=np.eye(3))
    np.savez("statistics.npz", mu=np.zeros(63), sigma=np.eye(63))
    folder = [] if "--dataset-folder" in arguments else ["--dataset-folder", data]
    with pytest.raises(SystemExit) as ended:
        run(*folder, *arguments)
    assert ended.value.code == 2
    errors = capfd.readouterr().err
    assert re.search(complaint, errors), errors
    assert "Traceback" not in errors
    if "--protocol" not in arguments:  # tyro frames its own complaints
        assert len([line for line in errors.splitlines() if line.startswith("error:")]) == 1
    assert not list(tmp_path.glob("output/**/*.csv"))
