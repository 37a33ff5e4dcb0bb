"""DiffPose's HDF5 files: written and read, and read as the original code writes them; names and hard frames; one Gaussian a map."""

import logging
import math
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dposer.body.skeleton import H36M_17, HEATMAP_16, SMPL_24
from dposer.data.diffpose_files import (
    Kind,
    canonical_name,
    fit_gaussians,
    hard_by_fit,
    hard_frames_of,
    read_diffpose,
    read_hard_list,
    row_type,
    write_diffpose,
)
from dposer.data.h36m import CAMERAS, KEPT
from dposer.data.heatmap_mixtures import StoredMaps, cells
from dposer.errors import InputError
from tests.lifting_data import someone

BOX = np.array([100.0, 50.0, 640.0])


def rows_of(kind: Kind, count: int) -> np.ndarray:
    """(count,) rows: the highest cell of channel k of row i is at x = (5 k + i) % 64, y = (3 k + 2 i) % 64."""
    rows = np.zeros(count, row_type(kind))
    i, k = np.arange(count)[:, None], np.arange(16)
    x, y = (5 * k + i) % 64, (3 * k + 2 * i) % 64
    rows["heatmap"] = -0.01
    rows["heatmap"][i, k, y, x] = 0.75
    rows["argmax_2d"] = (np.stack((y, x), 1) / 64).reshape(rows["argmax_2d"].shape)
    rows["crop"], rows["frame_orig"] = BOX, 4 * np.arange(count) + 3
    joints = np.tile(1000 * someone(1, 0)[:, :, [0, 2, 1]] * [1, -1, 1] + [0, 900, 4000], (count, 1, 1))
    if kind == "h36m":
        rows["gt_3d"] = joints.swapaxes(1, 2)
        every = np.random.default_rng(0).uniform(150, 600, (count, 2, 32))
        rows["gt_2d"], rows["crop_size"] = every[..., list(KEPT)], BOX[2]
        rows["gt_2d_image_coords"] = (every - BOX[:2, None]) / BOX[2]
    elif kind == "3dhp":
        rows["gt_3d_uni"], rows["subject"] = joints.swapaxes(1, 2).reshape(count, -1), b"TS3"
    else:
        rows["gt_3d"], rows["subject"] = np.tile(joints / 1000, (1, 2, 1))[:, :24], b"te"
    return rows


@pytest.fixture(scope="module")
def h36m(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 test rows in two films, 5 training rows of two subjects."""
    test, train = rows_of("h36m", 36), rows_of("h36m", 5)
    test["subject"], test["cam"], test["action"] = b"S9", b"55011271", b"Sitting"
    test["subaction"] = np.where(np.arange(36) < 17, b"1", b"0")
    test["hardsubset"] = np.arange(36) % 5 == 2
    train["subject"], train["action"], train["subaction"], train["cam"] = (
        np.array([b"S8", b"S8", b"S1", b"S1", b"S1"]),
        b"Photo",
        b"0",
        b"x",
    )
    path = tmp_path_factory.mktemp("h5") / "H36M.h5"
    write_diffpose(path, train, (test[start : start + 10] for start in range(0, 36, 10)))
    return path


def test_rows_come_back_as_clips_of_one_film(h36m: Path) -> None:
    test = rows_of("h36m", 36)
    first, second = read_diffpose(h36m, "test")
    assert (first.name, second.name) == ("S9/Sitting 1/55011271", "S9/Sitting/55011271") and (len(first), len(second)) == (17, 19)
    assert first.lens is CAMERAS["S9"][1].lens and first.size == (1000, 1000) and first.fps == 12.5
    assert second.joints is not None and np.allclose(second.joints, test["gt_3d"][17:].swapaxes(1, 2) / 1000)
    assert isinstance(second.heatmaps, StoredMaps) and second.heatmaps.shape == (19, 16, 4096)
    assert np.array_equal(second.heatmaps[np.array([3, 0])], test["heatmap"][[20, 17]].reshape(2, 16, -1).astype(np.float32))
    assert first.hard is not None and np.array_equal(np.flatnonzero(first.hard), [2, 7, 12])
    wrist, channel = H36M_17.joints.index("right_wrist"), HEATMAP_16.joints.index("right_wrist")
    cell = np.array([(5 * channel + 4) % 64, (3 * channel + 8) % 64])  # x, y, though rows come first in the file
    assert np.allclose(first.keypoints[4, wrist], [*(BOX[:2] + cell * 10), 1])
    neck, head, top = (first.keypoints[4, H36M_17.joints.index(name)] for name in ("neck", "head", "head_top"))
    assert np.allclose(head, (neck + top) / 2)


def test_protocols_and_splits_choose_rows(h36m: Path) -> None:
    def stored(split: str, protocol: str) -> list[int]:
        maps = [clip.heatmaps for clip in read_diffpose(h36m, split, protocol)]  # type: ignore[arg-type]
        return [row for some in maps if isinstance(some, StoredMaps) for row in some.rows.tolist()]

    assert stored("test", "h36m") == [0, 16, 32]  # of the table, though its films have 17 and 19 rows
    assert stored("test", "h36ma") == list(range(2, 36, 5))
    assert (stored("train", "all"), stored("valid", "all"), stored("rest", "all")) == ([0, 1, 2, 3, 4], [0, 1], [2, 3, 4])
    with pytest.raises(InputError, match="trainset has no hard frames"):
        read_diffpose(h36m, "train", "h36ma")
    with pytest.raises(InputError, match="asked for 'easy', expected one of all, h36m, h36ma"):
        read_diffpose(h36m, "test", "easy")  # type: ignore[arg-type]


def test_tables_are_marked_as_pytables_does(h36m: Path) -> None:
    with h5py.File(h36m) as file:
        table = file["dataset/testset"]
        assert file.attrs["PYTABLES_FORMAT_VERSION"] == b"2.1" and file.attrs["CLASS"] == file["dataset"].attrs["CLASS"] == b"GROUP"
        assert (table.attrs["CLASS"], table.attrs["VERSION"], table.attrs["NROWS"], len(table)) == (b"TABLE", b"2.7", 36, 36)
        names = table.dtype.names
        assert list(names) == sorted(names) and [table.attrs[f"FIELD_{n}_NAME"].decode() for n in range(len(names))] == list(names)
        kind = table.id.get_type()
        classes = {kind.get_member_name(n): kind.get_member_type(n).get_class() for n in range(kind.get_nmembers())}
        assert classes[b"hardsubset"] == h5py.h5t.BITFIELD and classes[b"heatmap"] == h5py.h5t.ARRAY
        assert table.attrs.get_id("CLASS").get_type().get_cset() == h5py.h5t.CSET_UTF8


def as_original(path: Path, rows: np.ndarray, name: str) -> Path:
    """As the original code writes rows: without crops, and bools in arrays of one."""
    fields = [(column, rows.dtype[column]) for column in rows.dtype.names or () if column != "crop"]
    dtype = np.dtype([(column, "?", (1,)) if column == "hardsubset" else (column, part) for column, part in fields])
    stored = np.zeros(len(rows), dtype)
    for column, _ in fields:
        stored[column] = rows[column].reshape(stored[column].shape)
    with h5py.File(path, "w") as file:
        file.create_group("dataset").create_dataset(name, data=stored, chunks=(3,), maxshape=(None,))
    return path


def test_crops_of_original_files_are_found_again(tmp_path: Path) -> None:
    rows = rows_of("h36m", 3)
    rows["subject"], rows["action"], rows["subaction"], rows["cam"], rows["hardsubset"] = b"S11", b"Waiting", b"0", b"60457274", [1, 0, 1]
    clip, *others = read_diffpose(as_original(tmp_path / "o.h5", rows, "testset"), "test")
    assert not others and clip.size == (1000, 1002) and clip.hard is not None and clip.hard.tolist() == [True, False, True]
    write_diffpose(tmp_path / "w.h5", rows[:0], rows)
    assert np.allclose(clip.keypoints, read_diffpose(tmp_path / "w.h5", "test")[0].keypoints)


def test_original_3dhp_is_read_though_its_cells_are_over_the_sides_of_crops(tmp_path: Path) -> None:
    rows = rows_of("3dhp", 3)
    (ours,) = read_diffpose(write_diffpose(tmp_path / "w.h5", [], rows, "3dhp"), "test")
    assert ours.subject == "TS3" and ours.size == (2048, 2048) and ours.joints is not None
    assert np.allclose(ours.joints, rows["gt_3d_uni"].reshape(3, 3, 17).swapaxes(1, 2) / 1000)
    rows["argmax_2d"] *= 64 / 417
    path = as_original(tmp_path / "o.h5", rows, "testset")
    (clip,) = read_diffpose(path, "test")
    assert clip.size == (64, 64) and clip.lens is None
    seen = ours.keypoints[..., 2] > 0
    assert np.allclose((10 * clip.keypoints[..., :2] + BOX[:2])[seen], ours.keypoints[..., :2][seen])  # in cells, of 10 pixels here
    assert np.allclose(np.unique(clip.keypoints[..., 2]), 0.75)
    with pytest.raises(InputError, match="lacks the table /dataset/trainset"):
        read_diffpose(path, "train")
    with pytest.raises(InputError, match="3dhp, but the protocol h36m"):
        read_diffpose(path, "test", "h36m")


def test_3dpw_has_smpl_joints_before_the_camera(tmp_path: Path) -> None:
    rows = rows_of("3dpw", 2)
    (clip,) = read_diffpose(write_diffpose(tmp_path / "w.h5", [], rows, "3dpw"), "test")
    assert clip.layout is SMPL_24 and clip.joints is not None and np.allclose(clip.joints, rows["gt_3d"])
    first, second = ({SMPL_24.joints[joint] for joint in np.flatnonzero(frame[:, 2])} for frame in clip.keypoints)
    assert second == set(HEATMAP_16.joints) & set(SMPL_24.joints) and len(second) == 14
    assert second - first == {"right_ankle"}  # its highest cell is the first one, as that of an empty map
    with pytest.raises(InputError, match="axes of the world"):
        read_diffpose(as_original(tmp_path / "o.h5", rows, "testset"), "test")


def _column_gone(rows: np.ndarray) -> np.ndarray:
    return rows[[name for name in rows.dtype.names or () if name != "argmax_2d"]].copy()


def _smaller_maps(rows: np.ndarray) -> np.ndarray:
    other = np.zeros(len(rows), [("heatmap", "f2", (16, 32, 32)) if n == "heatmap" else (n, rows.dtype[n]) for n in rows.dtype.names or ()])
    return other


def _metres(rows: np.ndarray) -> np.ndarray:
    rows["gt_3d"] /= 1000
    return rows


def _hole(rows: np.ndarray) -> np.ndarray:
    rows["gt_3d"][1, 0, 5] = np.nan
    return rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_column_gone, "testset lacks argmax_2d"),
        (_smaller_maps, r"column heatmap of float16 and shape \(16, 32, 32\), expected numbers of shape \(16, 64, 64\)"),
        (_metres, "gt_3d is to be in millimetres"),
        (_hole, "1 values are NaN"),
    ],
)
def test_bad_tables_are_told_in_a_line(tmp_path: Path, change: Callable[[np.ndarray], np.ndarray], message: str) -> None:
    path = as_original(tmp_path / "bad.h5", change(rows_of("h36m", 2)), "testset")
    with pytest.raises(InputError, match=message) as raised:
        read_diffpose(path, "test")
    assert "bad.h5" in str(raised.value) and "\n" not in str(raised.value)


def test_broken_files_and_rows_are_told_and_nothing_is_half_written(h36m: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.h5"
    cut.write_bytes(h36m.read_bytes()[:100_000])
    for path, message in ((cut, "truncated"), (tmp_path / "none.h5", "found nothing.*run.prepare_diffpose")):
        with pytest.raises(InputError, match=message):
            read_diffpose(path, "test")
    with pytest.raises(InputError, match="expected .n,. of row_type"):
        write_diffpose(tmp_path / "out.h5", rows_of("h36m", 1), [rows_of("3dhp", 1)])
    with pytest.raises(InputError, match="no rows"):
        write_diffpose(tmp_path / "out.h5", [], [])
    assert [path.name for path in tmp_path.iterdir()] == ["cut.h5"]


# ---- names and hard frames ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "raw", "expected"),
    [
        ("S9", "Directions.54138969", ("Directions", "0")),
        ("S9", "Directions 1.54138969", ("Directions", "1")),
        ("S9", "WalkingDog.54138969", ("WalkDog", "0")),
        ("S5", "TakingPhoto 2.54138969", ("Photo", "1")),
        ("S11", "Smoking 2.54138969", ("Smoking", "1")),
        ("S9", "Discussion 1.54138969", ("Discussion", "1")),
        ("S9", "Discussion 2.54138969", ("Discussion", "0")),
        ("S11", "Phoning 2.54138969", ("Phoning", "1")),
        ("S11", "Phoning 3.54138969", ("Phoning", "0")),
        ("S6", "Waiting 3.54138969", ("Waiting", "1")),
        ("S6", "Waiting.54138969", ("Waiting", "0")),
        ("S11", "Phoning 1.54138969", ("Phoning", "1")),  # canonical before
    ],
)
def test_names_of_films_become_canonical(subject: str, raw: str, expected: tuple[str, str]) -> None:
    assert canonical_name(subject, raw) == (*expected, "54138969")


@settings(max_examples=40, deadline=None)
@given(st.text(st.sampled_from("abS19 ./_-3"), max_size=20))
def test_other_names_are_told(raw: str) -> None:
    with pytest.raises(InputError, match="no name of a film"):
        canonical_name("S9", raw)


def test_hard_frames_are_those_of_the_list_by_canonical_names(h36m: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "list"
    path.write_text("/S9/Sitting 1.55011271/4.jpg\n\nS9/Sitting.55011271/144.jpg\n/S11/Phoning 1.54138969/8.jpg\n")
    rows = rows_of("h36m", 36)
    rows["subject"], rows["cam"], rows["action"], rows["subaction"] = b"S9", b"55011271", b"Sitting", [b"1"] * 17 + [b"0"] * 19
    assert np.flatnonzero(hard_frames_of(rows, read_hard_list(path))).tolist() == [0, 35]
    with caplog.at_level(logging.WARNING):
        assert [len(clip) for clip in read_diffpose(h36m, "test", "h36ma", path)] == [1, 1]
    assert "1 of the 3 frames" in caplog.text
    path.write_text("/S9/Sitting 1.55011271/4.jpg\n/S9/Sitting 1/4.jpg\n")
    with pytest.raises(InputError, match="line 2 is '/S9/Sitting 1/4.jpg'"):
        read_hard_list(path)


# ---- one Gaussian a map ------------------------------------------------------------------------------------------------


def blobs(sigmas: torch.Tensor, angle: torch.Tensor, mean: torch.Tensor, amplitude: torch.Tensor) -> torch.Tensor:
    """Maps (B, 64, 64) by the formula in sigmas, angle and their products."""
    (dx, dy), (major, minor) = (cells()[:, None] - mean).unbind(-1), sigmas.unbind(-1)
    cos, sin, twice = torch.cos(angle), torch.sin(angle), torch.sin(2 * angle)
    a = cos**2 / (2 * major**2) + sin**2 / (2 * minor**2)
    b = -twice / (4 * major**2) + twice / (4 * minor**2)
    c = sin**2 / (2 * major**2) + cos**2 / (2 * minor**2)
    return (amplitude * torch.exp(-(a * dx**2 + 2 * b * dx * dy + c * dy**2))).T.unflatten(-1, (64, 64))


def test_fits_find_the_gaussian_that_was_painted(generator: torch.Generator) -> None:
    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(20, *shape, generator=generator)

    sigmas, angle = torch.stack((uniform(4, 9), uniform(1.2, 3.5)), -1), uniform(-1.5, 1.5)
    angle[0], mean, amplitude = math.pi / 4, uniform(18, 45, 2), uniform(0.2, 1)
    fit = fit_gaussians(blobs(sigmas, angle, mean, amplitude).reshape(4, 5, 64, 64))
    for found, true in zip(fit[:4], (amplitude, mean, sigmas, angle), strict=True):
        assert torch.allclose(found.flatten(0, 1), true, atol=1e-3)
    assert fit.rmse.max() < 1e-5
    some = blobs(sigmas, angle, mean, amplitude)[:16]
    assert hard_by_fit(some[None]).tolist() == [bool((sigmas[:16] > 5).any())]
    assert not hard_by_fit(some[sigmas[:16, 0] < 5][:1].expand(1, 16, 64, 64)).any()


def test_fits_that_do_not_settle_keep_their_start() -> None:
    wide = blobs(torch.tensor([[7.0, 2.0]]), torch.tensor([0.3]), torch.tensor([[31.0, 20.0]]), torch.tensor([0.5]))
    fit = fit_gaussians(torch.cat((torch.zeros(1, 64, 64), wide)), iterations=1)
    assert torch.allclose(fit.sigmas, torch.tensor(2.0)) and fit.mean[1].tolist() == [31, 20] and fit.amplitude.tolist() == [0, 0.5]
    assert fit_gaussians(torch.zeros(0, 16, 64, 64)).sigmas.shape == (0, 16, 2)
