"""Cameras, crops and doubts of simulated heatmaps, whether the truth is a draw from what they say, and their files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2, kstest

from dposer.body.skeleton import H36M_17, HEATMAP_16, layout_map
from dposer.data.amass import AmassSequence, write_amass
from dposer.data.heatmap_mixtures import crop_box, in_crop, in_picture
from dposer.data.synthetic_heatmaps import (
    DEFAULT,
    HARD,
    LENS,
    HeatmapDetector,
    behind_bones,
    filmed,
    hard_frames,
    read_heatmaps,
)  # fmt: skip
from dposer.errors import InputError
from dposer.files import load_npz, save_npz
from run import prepare_data
from tests.lifting_data import someone

ROW = {name: row for row, name in enumerate(H36M_17.joints)}
CHANNELS = list(layout_map(H36M_17.joints, HEATMAP_16.joints))
MIRROR = list(HEATMAP_16.mirror)
SURE: dict[str, Any] = {"rectangle": 0.0, "hidden": 0.0, "hidden_anyway": 0.0, "swapped": 0.0, "swapped_near": 0.0, "missed": 0.0}
EXACT = replace(DEFAULT, **SURE, seen=(1e-4, 0.0))


def seen_by(detector: HeatmapDetector, frames: int = 2000) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mixtures, where the joints really are in the crop (F, 16, 2), crops and numbers of candidates."""
    random = np.random.default_rng(1)
    joints = filmed(someone(frames, 0), random)
    sight = detector(joints, random)
    return sight.mixture, in_crop(LENS.project(torch.from_numpy(joints)).numpy()[:, CHANNELS], sight.box), sight.box, sight.candidates


def covariance(mixture: np.ndarray) -> np.ndarray:
    """S (..., 2, 2)."""
    return mixture[..., [6, 7, 7, 8]].reshape(*mixture.shape[:-1], 2, 2).astype(float)


# ---- cameras and crops -------------------------------------------------------------------------------------------------


def test_cameras_stand_around_the_middle_and_look_at_it() -> None:
    ends = np.concatenate((np.eye(3), -np.eye(3))) + [5, -7, 1]
    seen = filmed(np.tile(ends, (4000, 1, 1)), np.random.default_rng(0)).astype(float)
    middle = seen.mean(1)
    np.testing.assert_allclose(middle[:, :2], 0, atol=1e-5)
    assert 3.5 <= middle[:, 2].min() < 3.6 and 6.4 < middle[:, 2].max() <= 6.5
    axes = (seen[:, :3] - middle[:, None]).swapaxes(1, 2)  # rows: the camera's axes in the world
    np.testing.assert_allclose(axes @ axes.swapaxes(1, 2), np.tile(np.eye(3), (4000, 1, 1)), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(axes), 1, atol=1e-5)
    elevation = np.degrees(np.arcsin(-axes[:, 2, 2]))  # of the camera, above what it looks down on
    assert -5 <= elevation.min() < -4.8 and 24.8 < elevation.max() <= 25.001
    assert np.abs(axes[:, 2, :2].mean(0)).max() < 0.04  # from all around
    assert (axes[:, 1, 2] < 0).all()  # +y is down
    roll = np.degrees(np.arctan2(-axes[:, 0, 2], -axes[:, 1, 2]))
    assert roll.std() == pytest.approx(2, abs=0.1) and abs(roll.mean()) < 0.2


def test_crops_hold_the_person_and_go_back_to_the_picture() -> None:
    pixels = LENS.project(torch.from_numpy(filmed(someone(3000, 0), np.random.default_rng(0)))).numpy()
    exact, box = crop_box(pixels, np.ones(pixels.shape[:2], bool)), DEFAULT.crop(pixels, np.random.default_rng(0))
    np.testing.assert_array_equal(box, box.round())
    ratio = box[:, 2] / exact[:, 2]
    assert 0.94 < ratio.min() < 0.96 and 1.11 < ratio.max() < 1.13 and ratio.mean() == pytest.approx(1.035, abs=0.005)
    off = (box[:, :2] + box[:, 2:] / 2 - exact[:, :2] - exact[:, 2:] / 2) / box[:, 2:]
    assert off.std() == pytest.approx(0.02, rel=0.05) and abs(off.mean()) < 0.001
    places = in_crop(pixels, box)
    assert ((places > 0) & (places < 64)).mean() > 0.99
    np.testing.assert_allclose(in_picture(places, box), pixels, atol=1e-3)
    np.testing.assert_allclose(in_crop(box[:, None, :2] + box[:, None, 2:] / 2, box), 32)


# ---- what hides what ---------------------------------------------------------------------------------------------------


def test_bones_hide_what_is_behind_them() -> None:
    """A figure 4 m away; one wrist is moved about it."""
    figure = someone(1, 0)[:1] * 0 + [0, 0, 8.0]  # all far behind, at one place
    for name, place in {"pelvis": (0, 0, 4), "spine": (0, -0.25, 4), "neck": (0, -0.5, 4), "right_hip": (-0.1, 0, 4)}.items():
        figure[:, ROW[name]] = place

    def hidden(place: tuple[float, float, float], joint: str = "left_wrist") -> bool:
        moved = figure.copy()
        for name in ("left_wrist", "left_elbow"):  # their own bone is a point then
            moved[:, ROW[name]] = (3, 3, 8)
        moved[:, ROW[joint]] = place
        return bool(behind_bones(moved)[0, ROW[joint]])

    assert hidden((0, -0.2, 4.1)) and not hidden((0, -0.2, 4.07)) and not hidden((0, -0.2, 3.5))  # farther by 8 cm
    assert hidden((0.12, -0.2, 4.1)) and not hidden((0.14, -0.2, 4.1))  # the trunk is 13 cm thick,
    assert not hidden((0.01, -0.6, 4.1)) and not hidden((-0.15, 0.02, 4.1))  # and ends with its bones;
    assert hidden((-0.05, 0.055, 4.1)) and not hidden((-0.05, 0.07, 4.1))  # other bones 6 cm
    assert not behind_bones(figure)[0, [ROW["pelvis"], ROW["spine"], ROW["neck"]]].any()  # nothing hides itself


def test_rectangles_hide_too() -> None:
    assert seen_by(replace(DEFAULT, rectangle=1.0, rectangle_sides=(4.0, 4.0)), 20)[3].tolist() == [16] * 20
    few, many = (seen_by(replace(DEFAULT, rectangle=share))[3] for share in (0.0, 1.0))
    assert few.mean() + 1 < many.mean() < 8


def test_spreads_of_what_is_seen_and_hidden() -> None:
    mixture, *_ = seen_by(replace(DEFAULT, **SURE))
    axes = np.sqrt(np.linalg.eigvalsh(covariance(mixture)).clip(0)) / np.array(DEFAULT.factors)[:, None]
    np.testing.assert_allclose(axes[..., 0], axes[..., 1], rtol=1e-2)
    assert np.log(axes).mean() == pytest.approx(np.log(0.6), abs=0.01) and np.log(axes).std() == pytest.approx(0.4, abs=0.01)
    mixture, *_ = seen_by(replace(HARD, **{**SURE, "hidden_anyway": 1.0}))
    short, long = np.moveaxis(np.sqrt(np.linalg.eigvalsh(covariance(mixture))) / np.array(DEFAULT.factors)[:, None], -1, 0)
    assert 1.99 < long.min() < 2.1 and 6.9 < long.max() < 7.01 and long.mean() == pytest.approx(4.5, abs=0.05)
    assert 0.39 < (short / long).min() < 0.42 and (short / long).mean() == pytest.approx(0.7, abs=0.01)
    assert abs(mixture[..., 7].mean()) < 0.2 < mixture[..., 7].std()  # slanting either way


def test_hard_frames_have_a_wide_blob() -> None:
    mixture, *_ = seen_by(HARD)
    blobs = np.linalg.eigvalsh(covariance(mixture) + 4 * np.eye(2))[..., -1] ** 0.5
    np.testing.assert_array_equal(hard_frames(mixture), (blobs > 5).any(-1))
    easy = hard_frames(seen_by(DEFAULT)[0]).mean()
    assert 0.03 < easy < 0.12 and 0.35 < hard_frames(mixture).mean() < 0.65


def test_some_joints_are_missed() -> None:
    gain = seen_by(HARD)[0][..., 9]
    assert (gain < 1).mean() == pytest.approx(0.02, abs=0.003)
    assert gain.min() >= 0 and 0.45 < gain[gain < 1].max() <= 0.5 and gain[gain < 1].mean() == pytest.approx(0.25, abs=0.02)


# ---- the truth is a draw from the posterior ----------------------------------------------------------------------------


def test_errors_have_the_covariance_that_is_told() -> None:
    mixture, places, *_ = seen_by(replace(HARD, swapped=0.0, swapped_near=0.0))
    assert (mixture[..., 0] == 1).all() and (mixture[..., 2:4] == mixture[..., 4:6]).all()
    white = np.linalg.solve(np.linalg.cholesky(covariance(mixture)), (places - mixture[..., 2:4])[..., None])[..., 0]
    for some in (white, white[hard_frames(mixture)], white[:, 0]):
        flat = some.reshape(-1, 2)
        np.testing.assert_allclose(flat.mean(0), 0, atol=4 / len(flat) ** 0.5)
        np.testing.assert_allclose(np.cov(flat.T), np.eye(2), atol=6 / len(flat) ** 0.5)
    assert kstest((white**2).sum(-1).ravel(), chi2(2).cdf).pvalue > 1e-3


def test_swaps_are_true_as_often_as_they_say() -> None:
    mixture, places, *_ = seen_by(replace(EXACT, swapped=1.0, swapped_near=1.0), 6000)
    twins = places[:, MIRROR]
    for group in (slice(0, 6), slice(10, 16)):
        weight, first, second = mixture[:, group, 0], mixture[:, group, 2:4], mixture[:, group, 4:6]
        right = np.abs(first - places[:, group]).max((1, 2)) < 2e-2  # one coin: all joints of the group, or none
        mistaken = np.abs(first - twins[:, group]).max((1, 2)) < 2e-2
        assert (right ^ mistaken).all()
        np.testing.assert_allclose(second, np.where(right[:, None, None], twins[:, group], places[:, group]), atol=2e-2)
        np.testing.assert_allclose(weight, weight[:, :1].repeat(6, 1))
        assert 0.5 <= weight.min() < 0.51 and 0.94 < weight.max() <= 0.95
        for low, high in ((0.5, 0.65), (0.65, 0.8), (0.8, 0.95)):
            some = (weight[:, 0] >= low) & (weight[:, 0] < high)
            assert abs(right[some].mean() - weight[some, 0].mean()) < 4 * 0.5 / some.sum() ** 0.5
    assert (mixture[:, 6:10, 0] == 1).all()  # the middle line has no twin
    np.testing.assert_allclose(mixture[..., 0] + mixture[..., 1], 1, atol=1e-6)


def test_swaps_are_likelier_where_limbs_are_near() -> None:
    mixture, places, *_ = seen_by(replace(EXACT, swapped_near=1.0))
    for group in (slice(0, 6), slice(10, 16)):
        near = np.linalg.norm(places - places[:, MIRROR], axis=-1)[:, group].mean(-1) < 6
        assert near.any() and not near.all()
        np.testing.assert_array_equal(mixture[:, group.start, 0] < 1, near)


def test_same_seed_same_bits() -> None:
    for one, other in zip(seen_by(HARD, 50), seen_by(HARD, 50), strict=True):
        np.testing.assert_array_equal(one, other)


# ---- files -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def motions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("amass")
    for number, (name, fps) in enumerate(
        {"train/01/a_stageii": 30.0, "train/01/b_poses": 60.0, "train/02/a": 30.0, "test/03/a": 30.0, "test/03/film": 24.0}.items()
    ):
        random = np.random.default_rng(number)
        pose = np.outer(np.linspace(0, 1, 60), random.normal(size=63) * 0.3)
        motion = AmassSequence(pose, np.tile([np.pi / 2, 0, 0], (60, 1)), np.zeros((60, 3)), np.zeros(10), "neutral", fps)
        write_amass(folder / f"{name}.npz", motion, plausible=np.arange(60) < 40)
    return folder


@pytest.fixture(scope="module")
def written(motions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heatmaps")
    prepare_data.main(prepare_data.Args("heatmaps", motions, folder, frames=300))
    return folder


def test_written_and_read(motions: Path, written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare_data.main(prepare_data.Args("heatmaps", motions, tmp_path, frames=300))
    out = capsys.readouterr().out
    assert "1 of 5 files could not be used" in out and "film.npz: 24 frames a second" in out
    rows = [line.split()[:4] for line in out.splitlines() if line.startswith(("train", "test"))]
    assert rows == [
        ["train", "default", "2", "200"],
        ["train", "hard", "2", "100"],
        ["test", "default", "1", "15"],
        ["test", "hard", "1", "8"],
    ]
    for name in ("train", "test"):
        assert (written / f"{name}.npz").read_bytes() == (tmp_path / f"{name}.npz").read_bytes()
    stored = load_npz(written / "train.npz", "heatmaps")
    assert sorted(stored["clips"]) == ["01/a", "01/b", "02/a"] and int(stored["seed"]) == 42 and "simulated" in str(stored["source"])
    # 40, 20 and 40 plausible frames at 30 a second: 100 twice over for the 200 of the first preset
    assert np.bincount(stored["clip"][stored["preset"] == 0]).tolist() == [80, 40, 80] and stored["frame"].max() == 39
    np.testing.assert_array_equal(stored["hard"], hard_frames(stored["mixture"]))

    clips = read_heatmaps(written, "train")
    assert [(clip.subject, clip.action, len(clip)) for clip in clips] == [
        ("01", "default", 120), ("02", "default", 80), ("01", "hard", 60), ("02", "hard", 40),
    ]  # fmt: skip
    for clip in clips:
        assert clip.layout is H36M_17 and clip.heatmaps.dtype == np.float32 and clip.hard.shape == (len(clip),)
        exact = clip.lens.project(torch.from_numpy(clip.joints)).numpy()
        error = np.linalg.norm(clip.keypoints[..., :2] - exact, axis=-1)
        assert np.median(error[:, CHANNELS]) < 12 and np.median(error[:, ROW["head"]]) < 25  # a cell is some 8 pixels
        assert (clip.keypoints[..., 2] >= 0).all() and (clip.keypoints[..., 2] <= 1).all()
    assert [clip.action for clip in read_heatmaps(written, "test", ["hard"])] == ["hard"]


def test_another_seed_gives_other_cameras(motions: Path, written: Path, tmp_path: Path) -> None:
    prepare_data.main(prepare_data.Args("heatmaps", motions, tmp_path, seed=1, frames=30))
    one, other = read_heatmaps(tmp_path, "train")[0], read_heatmaps(written, "train")[0]
    assert np.abs(one.joints[0] - other.joints[0]).max() > 0.01


def test_bad_files_are_told(written: Path, tmp_path: Path, motions: Path) -> None:
    with pytest.raises(InputError, match=r"valid\.npz: found nothing.*--source heatmaps --input"):
        read_heatmaps(written, "valid")
    with pytest.raises(InputError, match="hrad: no preset.*default, hard"):
        read_heatmaps(written, "train", ["hrad"])
    with pytest.raises(InputError, match="--frames 0"):
        prepare_data.main(prepare_data.Args("heatmaps", motions, tmp_path, frames=0))
    (tmp_path / "train.npz").write_bytes((written / "train.npz").read_bytes()[:5000])
    with pytest.raises(InputError, match=r"train\.npz: not a readable npz"):
        read_heatmaps(tmp_path, "train")
    good = load_npz(written / "test.npz", "heatmaps")
    for change, message in {
        "mixture": (good["mixture"][:, :15], r"mixture is float32 of shape \(23, 15, 10\), expected \(23, 16, 10\)"),
        "joints": (good["joints"] * np.nan, "joints: .*NaN"),
        "hard": (good["hard"][:-1], r"hard is bool of shape \(22,\)"),
        "clip": (good["clip"] + 1, "clips that it does not name"),
        "preset": (good["preset"] * 0 + 2, "holds no frames of default, hard"),
    }.items():
        save_npz(tmp_path / "test.npz", {**good, change: message[0]})
        with pytest.raises(InputError, match=message[1]) as caught:
            read_heatmaps(tmp_path, "test")
        assert "\n" not in str(caught.value)
    save_npz(tmp_path / "test.npz", {name: array for name, array in good.items() if name != "box"})
    with pytest.raises(InputError, match="lacks box"):
        read_heatmaps(tmp_path, "test")
