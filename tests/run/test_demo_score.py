"""Scores of whole files through the real command line, and what they mean for the prior that ships."""

import csv
import json
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dposer.assets import asset
from dposer.body.skeleton import BODY_JOINTS
from dposer.data.amass import AmassSequence, read_poses, write_amass
from dposer.files import load_npz
from dposer.prior import PosePrior
from tests.run.test_demo import demo

BROKEN, JOINT = 41, BODY_JOINTS.index("left_knee")


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A quiet walk between two ordinary poses, one knee of one frame of it bent forwards."""
    folder = tmp_path_factory.mktemp("score")
    start, end = read_poses(asset("examples", "toy_data.npz"))[[73, 140]]
    sway = np.sin(np.linspace(0, 9, 90))[:, None] / 2 + 0.5
    poses = ((1 - sway) * start + sway * end).astype(np.float32)
    poses[BROKEN, 3 * JOINT] = -0.8
    write_amass(folder / "walk.npz", AmassSequence.of_poses(poses, fps=20))
    result = demo("--task", "score", "--file-path", "walk.npz", "--num", 3, "--faster", "--output-path", "out", cwd=folder)
    return folder / "out/score", result


def test_one_broken_joint_of_one_frame_is_found(scored: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, result = scored
    assert result.returncode == 0, result.stderr
    report = json.loads((folder / "scores.json").read_text())
    worst = report["worst"]
    assert worst[0]["frame"] == BROKEN and worst[0]["worst_joint"] == "left_knee" and worst[0]["time"] == BROKEN / 20
    assert worst[0]["worst_joint_score"] == 0 and worst[0]["score"] < 10
    frames = sorted(row["frame"] for row in worst)
    assert np.diff(frames).min() >= 10  # half a second
    first = next(line for line in result.stdout.splitlines() if line.split()[:1] == ["1"])
    assert first.split()[1] == str(BROKEN) and "left_knee" in first
    assert "held-out motion" in result.stdout and "share of frames below 5 %" in result.stdout


def test_all_files_say_the_same(scored: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = scored
    report = json.loads((folder / "scores.json").read_text())
    arrays = load_npz(folder / "scores.npz", "scores")
    with (folder / "scores.csv").open() as table:
        rows = list(csv.DictReader(table))
    poses = torch.as_tensor(read_poses(folder.parents[1] / "walk.npz"))
    expected = PosePrior.from_pretrained().plausibility(poses)
    assert len(rows) == len(report["frames"]) == len(arrays["score"]) == 90
    for scores in ([float(row["score"]) for row in rows], [frame["score"] for frame in report["frames"]], arrays["score"]):
        assert np.allclose(scores, expected.score, atol=0.05)
    per_joint = [[float(row[name]) for name in BODY_JOINTS] for row in rows]
    assert np.allclose(per_joint, expected.per_joint, atol=0.05) and np.allclose(arrays["per_joint"], per_joint, atol=1e-3)
    assert [row["worst_joint"] for row in rows] == arrays["worst_joint"].tolist()
    assert report["summary"]["median"] == pytest.approx(float(np.median(arrays["score"])))


def test_the_broken_knee_is_red(scored: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = scored
    names = {path.name for path in folder.iterdir()}
    assert names >= {"scores.csv", "scores.json", "scores.npz", "scores.png", "contact_sheet.png", f"worst1_frame{BROKEN}.png"}
    assert len(list(folder.glob("worst*_frame*.png"))) == 3
    picture = cv2.imread(str(folder / f"worst1_frame{BROKEN}.png")).astype(int)
    blue, green, red = np.moveaxis(picture, -1, 0)
    ink = np.argwhere(picture.min(-1) < 250)
    alarmed = np.argwhere((red > 2 * blue) & (red > 2 * green))
    assert len(alarmed) > 50
    top, bottom = ink[:, 0].min(), ink[:, 0].max()
    assert 0.55 < (np.median(alarmed[:, 0]) - top) / (bottom - top) < 0.95  # of the height, from the head down


def test_scores_of_held_out_poses_are_about_uniform() -> None:
    """A plausibility is a rank among held-out motion; the examples come from subjects that neither training nor calibration knows."""
    poses = torch.as_tensor(read_poses(asset("examples", "toy_data.npz")))
    ranked = PosePrior.from_pretrained().plausibility(poses)
    levels = torch.arange(1, len(poses) + 1) / len(poses)

    def farthest(percent: torch.Tensor) -> torch.Tensor:
        """Kolmogorov and Smirnov's distance from the uniform distribution."""
        return (percent.sort(0).values / 100 - levels.view(-1, *[1] * (percent.ndim - 1))).abs().amax(0)

    assert float(farthest(ranked.score)) < 0.2
    assert float(farthest(ranked.per_joint).median()) < 0.25 and bool((farthest(ranked.per_joint) < 0.5).all())
