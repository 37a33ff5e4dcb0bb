import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dposer.assets import asset
from dposer.data.amass import read_amass, read_poses
from dposer.data.fragments import split_fragments
from dposer.data.video import open_video
from run import motion_denoising as module
from run._cli import cli

FLAGS = ["--preset", "paper", "--noise-std", "0.02", "--device", "cpu"]
FRAMES = 5


@pytest.fixture(scope="module")
def motion() -> np.ndarray:
    """(13, 63) a slow movement."""
    poses = read_poses(asset("examples", "toy_data.npz"))[[0, 1]]
    share = np.linspace(0, 0.3, 13)[:, None]
    return (1 - share) * poses[:1] + share * poses[1:]


@pytest.fixture(scope="module")
def data(motion: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two fragments as the splitter makes them, one of HPS, one of another length, one with NaN, one that is no motion."""
    folder = tmp_path_factory.mktemp("data")
    np.savez(folder / "walk_stageii.npz", poses=np.pad(motion, ((0, 0), (3, 99))))
    out = folder / "fragments"
    assert dict(split_fragments(folder, out, FRAMES)) == {folder / "walk_stageii.npz": 2}
    np.savez(out / "hps.npz", pose_body=np.pad(motion[:FRAMES], ((0, 0), (3, 0)), constant_values=9.0))
    np.savez(out / "longer.npz", pose_body=motion[: FRAMES + 1])
    np.savez(out / "nan.npz", pose_body=np.full((FRAMES, 63), math.nan))
    np.savez(out / "shape.npz", betas=np.zeros(10))
    return out


def run(data: Path, output: Path, *extra: object) -> None:
    cli(module.main, ["--data-dir", str(data), "--outpath-folder", str(output), *FLAGS, *map(str, extra)])


@pytest.fixture(scope="module")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference")
    run(data, folder, "--batch-size", 2)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_folder_is_scored_as_the_original_does(reference: Path, data: Path) -> None:
    table = rows(reference / "AMASS_results_logging.csv")
    assert list(table[0]) == ["Sequence", "init_MPJPE", "MPJPE", "MPVPE"]
    names = [row["Sequence"] for row in table]
    assert names == [*(f"{data.parent.name}/walk_stageii_batch00{i}" for i in range(2)), "hps", "longer"]
    report = json.loads((reference / "results.json").read_text())
    assert len(report["skipped"]) == 2 and report["published"]["DPoser"]["MPJPE"] == 13.64
    for row, fragment in zip(table, report["fragments"], strict=True):
        assert 10 * float(row["MPJPE"]) == pytest.approx(fragment["MPJPE"]) and fragment["MPJPE"] < fragment["init_MPJPE"] < 45
    frames = np.array([5, 5, 5, 6])
    errors = np.array([fragment["MPJPE"] for fragment in report["fragments"]])
    assert report["results"]["MPJPE"] == pytest.approx((frames * errors).sum() / frames.sum(), rel=1e-5)
    assert report["fragments"][0]["vis_MPJPE"] == pytest.approx(errors[0], rel=1e-4) and report["results"]["inv_MPJPE"] is None


def test_a_run_is_continued_and_a_finished_one_computes_nothing(
    reference: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (reference / "AMASS_results_logging.csv").read_bytes()
    piece = reference / "batches/batch_000001.npz"
    kept = reference / "batches/batch_000000.npz"
    moment = kept.stat().st_mtime_ns
    piece.unlink()
    run(data, reference, "--batch-size", 2)
    assert piece.is_file() and kept.stat().st_mtime_ns == moment and (reference / "AMASS_results_logging.csv").read_bytes() == before

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(module, "evaluate_denoising", refuse)
    run(data, reference, "--batch-size", 2)
    printed = capsys.readouterr().out
    assert "skipped" in printed and "nan.npz" in printed and "published DPoser" in printed


def test_other_settings_in_the_same_folder_are_refused(reference: Path, data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    refused(capfd, "was begun with seed 42, found 1", lambda: run(data, reference, "--batch-size", 2, "--seed", 1))


def test_the_measurement_does_not_depend_on_the_batch_size(reference: Path, data: Path, tmp_path: Path) -> None:
    run(data, tmp_path, "--batch-size", 1, "--prior", "None", "--dataset", "HPS")
    alone, together = rows(tmp_path / "HPS_results_logging.csv"), rows(reference / "AMASS_results_logging.csv")
    for one, other in zip(alone, together, strict=True):
        assert float(one["init_MPJPE"]) == pytest.approx(float(other["init_MPJPE"]), rel=1e-5)


def test_hidden_parts_are_scored_apart(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli(module.main, ["--data-dir", str(data), "--outpath-folder", str(tmp_path), "--part", "legs", "--prior", "None", "--seq-len", "3"])
    table = rows(tmp_path / "AMASS_results_logging.csv")
    assert list(table[0])[3:] == ["MPVPE", "vis_MPJPE", "inv_MPJPE"] and all(float(row["init_MPJPE"]) < 1e-4 for row in table)
    assert [row["Sequence"] for row in table][4:] == ["hps_000", "hps_001", "longer_000", "longer_001"]
    assert "0 mm of noise, legs hidden" in capsys.readouterr().out


def test_a_file_becomes_pictures_a_film_and_poses(motion: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "walk.npz", pose_body=motion[:4], mocap_frame_rate=np.array(25.0))
    out = tmp_path / "out"
    cli(module.main, [
        "--file-path", str(tmp_path / "walk.npz"), "--outpath-folder", str(out), "--seq-len", "3", "--missing", "left_elbow,head",
        "--faster", "--post-smooth", "--view", "left_half", *FLAGS,
    ])  # fmt: skip
    names = {path.relative_to(out).as_posix() for path in out.rglob("*.*")}
    pictures = {f"renders/{kind}_{i:04d}.png" for kind in ("frame", "gt", "out") for i in range(4)}
    assert names == pictures | {f"merges/merge_{i:04d}.png" for i in range(4)} | {"motion.mp4", "contact_sheet.png", "result.npz"}
    assert len(list(open_video(out / "motion.mp4"))) == 4 and open_video(out / "motion.mp4").fps == 20
    result = read_amass(out / "result.npz")
    assert result.pose_body.shape == (4, 63) and result.fps == 25
    with np.load(out / "result.npz") as saved:
        gone = np.isnan(saved["noisy_joints"]).all((0, 2))
    assert np.flatnonzero(gone).tolist() == [15, 18]


def test_mask_files_hide_joints_frame_by_frame(motion: np.ndarray, tmp_path: Path) -> None:
    mask = np.zeros((3, 21), np.uint8)
    mask[1, 4] = mask[0, 2] = mask[2, 2] = 1
    np.save(tmp_path / "mask.npy", mask)
    args = module.Args(data_dir=tmp_path, outpath_folder=tmp_path, missing=str(tmp_path / "mask.npy"), prior="None")
    seen = module.Laboratory(args, torch.device("cpu")).visible(3)
    assert (~seen).nonzero().tolist() == [[0, 3], [1, 5], [2, 3]]


@pytest.mark.parametrize(
    ("extra", "complaint"),
    [
        (["--part", "tail"], "--part tail does not exist"),
        (["--part", "legs", "--missing", "head"], "found both"),
        (["--part", "legs", "--noise-std", "0", "--preset", "v1"], "hidden joints"),
        (["--missing", "left_elbow.x"], "single axes"),
        (["--missing", "left_elbw"], "left_elbow"),
        (["--noise-std", "-0.1"], "--noise-std -0.1"),
        (["--noise-std", "nan"], "--noise-std nan"),
        (["--preset", "v9"], "v9"),
        (["--seq-len", "0"], "--seq-len 0"),
        (["--batch-size", "0"], "--batch-size 0"),
        (["--view", "random"], "--view random"),
        (["--view", "sideways"], "sideways"),
        (["--file-path", "walk.npz"], "found both"),
        (["--prior", "GMM"], "GMM"),
        (["--ckpt-path", "absent.safetensors"], "absent.safetensors: found nothing"),
        (["--outpath-folder", "/proc/nowhere"], "cannot be written"),
    ],
)
def test_bad_flags_end_in_one_line(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], extra: list[str], complaint: str) -> None:
    refused(capfd, complaint, lambda: run(data, tmp_path, *extra))


def test_a_time_strategy_belongs_to_a_preset(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    flags = ["--data-dir", str(data), "--outpath-folder", str(tmp_path), "--time-strategy", "1"]
    refused(capfd, "belongs to a preset", lambda: cli(module.main, flags))


def test_unusable_data_ends_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    refused(capfd, "found no .npz files", lambda: run(tmp_path / "empty", tmp_path / "out"))
    refused(capfd, "found no .npz files", lambda: run(tmp_path / "absent", tmp_path / "out"))
    np.savez(tmp_path / "shape.npz", betas=np.zeros(10))
    refused(capfd, "none of its 1 .npz files is a motion", lambda: run(tmp_path, tmp_path / "out"))
    flags = ["--outpath-folder", str(tmp_path / "out"), *FLAGS]
    for name, poses in {"nan": np.full((9, 63), math.nan), "thin": np.zeros((9, 60)), "none": np.zeros((0, 63))}.items():
        np.savez(tmp_path / f"{name}.npz", pose_body=poses)
        refused(capfd, f"{name}.npz", lambda name=name: cli(module.main, ["--file-path", str(tmp_path / f"{name}.npz"), *flags]))


def refused(capfd: pytest.CaptureFixture[str], complaint: str, call: object) -> None:
    with pytest.raises(SystemExit) as ended:
        call()  # type: ignore[operator]
    errors = capfd.readouterr().err
    assert ended.value.code == 2 and complaint in errors and "Traceback" not in errors
