"""The command through its own entry: files of several kinds in, all exports out, and one clear line for what cannot be."""

import csv
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
import trimesh

from dposer.assets import asset
from dposer.body import BodyModel
from dposer.body.points import BodyPoints, Skeleton
from dposer.body.skeleton import SMPLX_22
from dposer.data.amass import AmassSequence, read_amass, read_poses, write_amass
from dposer.data.bvh import read_bvh
from dposer.data.markers import Marker, MarkerLayout, marker_places, write_markers
from dposer.data.motion import forward_kinematics
from dposer.data.smplx_motion import Y_UP
from dposer.data.video import open_video
from run import fit_motion as module
from run._cli import cli

FRAMES, FPS = 16, 25.0
VERTICES = (0, 331, 1500, 2817, 4000, 4404, 5200, 6140, 7000, 8635, 8846, 9120, 10204, 11000, 12000, 13000)


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel()


@pytest.fixture(scope="module")
def truth() -> AmassSequence:
    """Somebody of another shape who moves, turns and walks."""
    poses = read_poses(asset("examples", "toy_data.npz"))[[0, 1]].astype(np.float32)
    share = np.linspace(0, 0.4, FRAMES, dtype=np.float32)[:, None]
    upright = np.tile(np.array([math.pi / 2, 0, 0], np.float32), (FRAMES, 1))
    trans = np.concatenate([share, 0.5 * share, 1 + 0 * share], axis=1)
    betas = np.array([0.8, -0.5, *[0.0] * 8], np.float32)
    return AmassSequence((1 - share) * poses[:1] + share * poses[1:], upright, trans, betas, "neutral", FPS)


@pytest.fixture(scope="module")
def layout(body: BodyModel) -> MarkerLayout:
    skin = [Marker(f"M{vertex}", vertex, 0.01, None, None) for vertex in VERTICES]
    return MarkerLayout((*skin, Marker("WRIST", None, 0.0, "left_wrist", (0.03, 0.02, 0.0))), None)


@torch.no_grad()
def placed(body: BodyModel, truth: AmassSequence, points: BodyPoints) -> np.ndarray:
    """(F, K, 3) metres: where a body has its points."""
    pose, root, trans, betas = (torch.as_tensor(v) for v in (truth.pose_body, truth.root_orient, truth.trans, truth.betas[None]))
    posed = Skeleton(body)(pose, roma.rotvec_to_rotmat(root), trans, betas.expand(len(pose), -1))
    return points(posed, betas.expand(len(pose), -1)).double().numpy()


def joints_of(body: BodyModel, sequence: AmassSequence) -> np.ndarray:
    return placed(body, sequence, BodyPoints.of_layout(body, SMPLX_22))


@pytest.fixture(scope="module")
def joints(body: BodyModel, truth: AmassSequence) -> np.ndarray:
    return joints_of(body, truth)


@pytest.fixture(scope="module")
def walk(joints: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The joints as another program would write them: millimetres, y up, noise of 10 mm and holes, in a table with a header."""
    rng = np.random.default_rng(0)
    points = 1000 * (joints @ Y_UP.T) + rng.normal(0, 10, joints.shape)
    points[rng.uniform(size=points.shape[:2]) < 0.15] = math.nan
    points[5:9, 20] = math.nan
    header = ["frame", "time", *(f"{name}_{axis}" for name in SMPLX_22.joints for axis in "xyz")]
    rows = [[str(i), f"{i / FPS:.4f}", *("" if math.isnan(v) else f"{v:.3f}" for v in frame.ravel())] for i, frame in enumerate(points)]
    path = tmp_path_factory.mktemp("data") / "walk.csv"
    path.write_text("\n".join(",".join(row) for row in [header, *rows]))
    return path


def run(joints: Path, output: Path, *extra: object) -> None:
    cli(module.main, ["--joints", str(joints), "--output", str(output), "--device", "cpu", "--faster", *map(str, extra)])


def report(output: Path, stem: str) -> dict:
    result: dict = json.loads((output / f"{stem}.json").read_text())
    return result


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_noisy_joints_become_the_motion_in_every_format(
    walk: Path, body: BodyModel, joints: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(walk, tmp_path, "--export", "npz", "bvh", "glb", "mp4", "--view", "left_half", "--max-frames", 6)
    assert names(tmp_path) == {f"walk{end}" for end in (".npz", ".bvh", ".glb", ".mp4", "_sheet.png", "_residuals.csv", ".json")}

    found = read_amass(tmp_path / "walk.npz")
    fitted = joints_of(body, found)
    assert np.linalg.norm(fitted - joints, axis=-1).mean() < 0.015 and found.fps == FPS and found.betas.shape == (10,)
    with np.load(tmp_path / "walk.npz") as saved:
        assert saved["mocap_framerate"] == FPS and saved["poses"].shape == (FRAMES, 165)
        np.testing.assert_allclose(saved["points_fitted"], fitted, atol=1e-4)
        measured = saved["points_measured"]  # metres, z up: beside the truth
    assert np.nanmedian(np.linalg.norm(measured - joints, axis=-1)) < 0.03

    motion = read_bvh(tmp_path / "walk.bvh")
    order = [motion.index(name) for name in SMPLX_22.joints]
    np.testing.assert_allclose(forward_kinematics(motion)[1][:, order], fitted @ Y_UP.T, atol=2e-4)
    assert motion.fps == pytest.approx(FPS)
    assert isinstance(trimesh.load(tmp_path / "walk.glb"), trimesh.Scene)
    assert len(list(open_video(tmp_path / "walk.mp4"))) == 6 and open_video(tmp_path / "walk.mp4").fps == FPS

    told = report(tmp_path, "walk")
    assert told["fps"] == FPS and told["frames"] == FRAMES and told["noise_estimated"] and 4 < told["noise_std_mm"] < 20
    assert any("unit taken as mm" in note for note in told["notes"]) and any("up axis taken as y" in note for note in told["notes"])
    assert told["jitter_mm"]["fitted"] < told["jitter_mm"]["measured"] / 2 and told["prior_times"] and told["plausibility"]
    assert told["points"]["left_wrist"]["missing"] >= 4 / FRAMES and told["surface_mm"] == {}
    with (tmp_path / "walk_residuals.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert rows[6]["left_wrist"] == "" and len(rows) == FRAMES
    errors = np.array([float(row[name]) for row in rows for name in SMPLX_22.joints if row[name]])
    assert errors.mean() == pytest.approx(told["residuals_mm"]["mean"], abs=0.01)

    printed = capsys.readouterr().out
    for words in (
        "unit taken as mm",
        "noise of the points (estimated)",
        "left_wrist",
        "plausibility",
        "jitter",
        "(--max-frames)",
        "walk.glb",
    ):
        assert words in printed
    assert "check:" not in printed

    run(walk, tmp_path / "again", "--export", "npz")
    np.testing.assert_array_equal(read_amass(tmp_path / "again/walk.npz").pose_body, found.pose_body)


def test_without_a_prior_and_with_everything_told(walk: Path, body: BodyModel, joints: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "shape.npz", betas=np.array([0.8, -0.5, *[0.0] * 14]))
    flags = ["--no-prior", "--noise-std", 10, "--fps", 50, "--unit", "mm", "--up", "y", "--betas", tmp_path / "shape.npz"]
    run(walk, tmp_path / "out", *flags, "--export", "npz", "--window", 8)
    found, told = read_amass(tmp_path / "out/walk.npz"), report(tmp_path / "out", "walk")
    np.testing.assert_allclose(found.betas[:2], (0.8, -0.5), atol=1e-6)
    assert found.fps == 50 and told["prior_times"] is None and told["noise_std_mm"] == 10 and not told["noise_estimated"]
    assert any("--fps, though the file says 25" in note for note in told["notes"])
    assert np.linalg.norm(joints_of(body, found) - joints, axis=-1).mean() < 0.03
    assert names(tmp_path / "out") == {"walk.npz", "walk_residuals.csv", "walk.json"}


def test_markers_of_a_file_that_has_its_own_body(
    body: BodyModel, truth: AmassSequence, layout: MarkerLayout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = placed(body, truth, BodyPoints(body, marker_places(layout, body.num_vertices)))
    points += np.random.default_rng(1).normal(0, 0.001, points.shape)
    points[3:6, 2] = 0.0  # what is not seen
    labels = np.array([*layout.names[:-1], "*110", "WRIST"])
    data = np.insert(points, -1, 9.0, axis=1)  # a marker that the layout does not know
    write_amass(tmp_path / "walk_stageii.npz", truth, marker_data=data, labels=labels)
    write_markers(tmp_path / "markers.json", layout)
    run(tmp_path / "walk_stageii.npz", tmp_path / "out", "--layout", tmp_path / "markers.json", "--export", "npz", "mp4", "--max-frames", 2)
    told, found = report(tmp_path / "out", "walk_stageii"), read_amass(tmp_path / "out/walk_stageii.npz")
    assert list(told["points"]) == list(layout.names) and told["points"]["M1500"]["missing"] == pytest.approx(3 / FRAMES, abs=1e-4)
    assert told["residuals_mm"]["median"] < 6
    gaps = told["surface_mm"]
    assert gaps["this fit"]["markers"] == gaps["the file's own body"]["markers"] == len(VERTICES) * FRAMES - 3
    assert gaps["the file's own body"]["expected"] < 3 and gaps["this fit"]["expected"] < 6
    assert any("names no model" in note for note in told["notes"]) and "from the skin" in capsys.readouterr().out
    distance = np.linalg.norm(joints_of(body, found)[:, :8] - joints_of(body, truth)[:, :8], axis=-1)
    assert np.median(distance) < 0.05


def test_own_poses_that_cannot_be_compared_are_left_aside(
    body: BodyModel, truth: AmassSequence, layout: MarkerLayout, tmp_path: Path
) -> None:
    points = placed(body, truth, BodyPoints(body, marker_places(layout, body.num_vertices)))[:3]
    write_markers(tmp_path / "markers.json", layout)
    for poses, words in ((np.zeros((5, 165)), "5 frames"), (np.full((3, 165), math.nan), "NaN")):
        np.savez(tmp_path / "walk.npz", marker_data=points, labels=np.array(layout.names), poses=poses, fps=30.0)
        run(tmp_path / "walk.npz", tmp_path / "out", "--layout", tmp_path / "markers.json", "--export", "npz")
        told = report(tmp_path / "out", "walk")
        assert any("own poses are not compared" in note and words in note for note in told["notes"])
        assert list(told["surface_mm"]) == ["this fit"]


@pytest.mark.parametrize("frames", [1, 2])
def test_hardly_any_frames(joints: np.ndarray, tmp_path: Path, frames: int) -> None:
    np.save(tmp_path / "pose.npy", joints[:frames])
    run(tmp_path / "pose.npy", tmp_path / "out", "--export", "npz", "bvh", "glb", "mp4")
    told = report(tmp_path / "out", "pose")
    assert told["fps"] == 30 and told["jitter_mm"] is None
    assert any("only" in note for note in told["notes"]) and any("no frame rate" in note for note in told["notes"])
    assert read_amass(tmp_path / "out/pose.npz").pose_body.shape == (frames, 63)
    assert len(list(open_video(tmp_path / "out/pose.mp4"))) == frames


def test_swapped_points_are_called_out(joints: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = np.arange(22)
    order[[4, 15]] = order[[15, 4]]  # knee and head
    np.savez(tmp_path / "walk.npz", joints=joints[:, order], fps=FPS)
    run(tmp_path / "walk.npz", tmp_path / "out", "--export", "npz")
    assert "check: " in capsys.readouterr().out and report(tmp_path / "out", "walk")["doubts"]


@pytest.mark.parametrize(
    ("extra", "complaint"),
    [
        (["--layout", "openpose18"], "smplx, smplx22, openpose25, coco17, h36m17, mpi_inf_3dhp17, blazepose33"),
        (["--layout", "coco17"], "found 22 points a frame, expected the 17 of layout coco17; try smplx22"),
        (["--layout", "absent.json"], "absent.json: found nothing"),
        (["--joints", "absent.csv"], "absent.csv: found nothing"),
        (["--joints", "walk.fbx"], ".fbx"),
        (["--key", "pose"], "only .npz"),
        (["--fps", "0"], "--fps 0"),
        (["--fps", "nan"], "--fps nan"),
        (["--noise-std", "-1"], "--noise-std -1"),
        (["--window", "2"], "--window 2"),
        (["--max-frames", "0"], "--max-frames 0"),
        (["--unit", "foot"], "foot"),
        (["--up", "w"], "--up"),
        (["--view", "sideways"], "sideways"),
        (["--view", "random"], "--view random"),
        (["--export", "fbx"], "fbx"),
        (["--betas", "absent.npz"], "absent.npz"),
        (["--bodymodel-path", "absent.npz"], "absent.npz"),
        (["--ckpt-path", "absent.safetensors"], "absent.safetensors: found nothing"),
        (["--output", "/proc/nowhere"], "cannot be written"),
    ],
)
def test_bad_flags_end_in_one_line(walk: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], extra: list[str], complaint: str) -> None:
    refused(capfd, complaint, lambda: run(walk, tmp_path, *extra))


def test_unusable_files_end_in_one_line(
    joints: np.ndarray, layout: MarkerLayout, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    unknown = [{"markers": {"A": 1, "B": 2, "C": 3, "D": 4}}, {"markers": {f"M{v}": 99_999 for v in VERTICES}}, {"markers": {"A": "x"}}]
    for number, content in enumerate(unknown):
        (tmp_path / f"{number}.json").write_text(json.dumps(content))
    np.savez(tmp_path / "markers.npz", markers=joints[:, :16], labels=np.array(layout.names[:16]), fps=30)
    write_markers(tmp_path / "smplh.json", MarkerLayout(layout.markers, "smplh"))
    np.savez(tmp_path / "infinite.npz", joints=np.where(np.arange(22)[:, None] == 3, math.inf, joints))
    np.savez(tmp_path / "nothing.npz", joints=np.full_like(joints, math.nan))
    np.savez(tmp_path / "none.npz", joints=joints[:0])
    np.savez(tmp_path / "poses.npz", poses=np.zeros((3, 165)))
    (tmp_path / "torn.npz").write_bytes((tmp_path / "markers.npz").read_bytes()[:500])
    for stem, flags, complaint in (
        ("markers", ["--layout", tmp_path / "0.json"], "0 markers in common"),
        ("markers", ["--layout", tmp_path / "1.json"], "1.json: point M0: vertex 99999"),
        ("markers", ["--layout", tmp_path / "2.json"], "2.json: marker 'A'"),
        ("markers", ["--layout", tmp_path / "smplh.json"], "smplh.json: numbers the 6890 vertices"),
        ("infinite", [], "infinite.npz"),
        ("nothing", [], "nothing.npz: the points are missing in every frame"),
        ("none", [], "none.npz: found 0 frames"),
        ("poses", [], "no points"),
        ("torn", [], "torn.npz"),
    ):
        refused(capfd, complaint, partial(run, tmp_path / f"{stem}.npz", tmp_path / "out", *flags))


def test_the_input_is_not_overwritten(joints: np.ndarray, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "walk.npz", joints=joints)
    refused(capfd, "would take the place of", lambda: run(tmp_path / "walk.npz", tmp_path))


def refused(capfd: pytest.CaptureFixture[str], complaint: str, call: Callable[[], None]) -> None:
    with pytest.raises(SystemExit) as ended:
        call()
    errors = capfd.readouterr().err
    assert ended.value.code == 2 and complaint in errors and "Traceback" not in errors
