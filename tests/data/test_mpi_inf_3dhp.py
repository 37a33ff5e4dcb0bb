"""MPI-INF-3DHP: small files of the exact layout, there and back, and what is said of broken ones."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dposer.body.skeleton import MPI_INF_3DHP_17
from dposer.data.lifting_clip import LiftingClip
from dposer.data.mpi_inf_3dhp import (
    OUTDOORS,
    RAW_JOINTS,
    SENSORS,
    STUDIO,
    TRAIN_FRAMES,
    VALID_COUNTS,
    VIEWS,
    best_lens,
    check_3dhp,
    load_matlab5,
    read_3dhp_test,
    read_3dhp_train,
    write_3dhp_test,
    write_3dhp_train,
)
from dposer.errors import InputError
from dposer.files import save_npz

STANDING = {
    "head_top": (0, -0.75), "neck": (0, -0.5), "shoulder": (0.18, -0.45), "elbow": (0.2, -0.15), "wrist": (0.22, 0.1),
    "hip": (0.1, 0.02), "knee": (0.1, 0.45), "ankle": (0.1, 0.87), "pelvis": (0, 0), "spine": (0, -0.25), "head": (0, -0.62),
}  # fmt: skip


def person(frames: int, seed: int = 0) -> np.ndarray:
    """(frames, 17, 3) metres: one who stands 4 m before the camera, sways and walks about."""
    rng = np.random.default_rng(seed)
    rows = []
    for name in MPI_INF_3DHP_17.joints:
        x, y = STANDING[name.removeprefix("left_").removeprefix("right_")]
        rows.append((-x if name.startswith("right_") else x, y, 0.0))
    sway = 0.005 * rng.normal(size=(frames, 17, 3))
    return np.array(rows) + sway + rng.uniform((-1, -0.1, 3), (1, 0.1, 5), (frames, 1, 3))


def pixels(joints: np.ndarray, sequence: str) -> np.ndarray:
    return SENSORS[sequence].lens().project(torch.from_numpy(joints)).numpy()


def write_annot_data(file: Path, frames: int = 6, seed: int = 0, **changes: Any) -> np.ndarray:
    """A look-alike of ``annot_data.mat``; returns its (frames, 17, 3) metres. A change of None leaves a data set out."""
    joints = person(frames, seed)
    pelvis = joints[:, 14:15]
    sets: dict[str, Any] = {
        "valid_frame": (np.arange(frames) % 3 != 1)[:, None],
        "activity_annotation": (np.arange(frames) % 7 + 1)[:, None],
        "annot2": pixels(joints, file.parent.name)[:, None],
        "annot3": 1000 * joints[:, None],
        "univ_annot3": 1000 * (pelvis + 0.95 * (joints - pelvis))[:, None],
        **changes,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w", userblock_size=512) as archive:
        for key, value in sets.items():
            if value is not None:
                shape = np.shape(value)
                chunks = {"chunks": shape, "compression": "gzip"} if "annot2" in key or "annot3" in key else {}
                archive.create_dataset(key, data=np.asarray(value, float), **chunks).attrs["MATLAB_class"] = np.bytes_("double")
        cells = [archive.create_dataset(f"#refs#/{frame}", data=np.zeros((34, 1))).ref for frame in range(frames)]
        archive.create_dataset("bb_crop", data=np.array(cells, h5py.ref_dtype)[:, None], dtype=h5py.ref_dtype)
    with open(file, "r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + b"\x00\x02IM")
    return joints


def write_annot(file: Path, frames: int = 5, **changes: Any) -> np.ndarray:
    """A look-alike of ``annot.mat``; returns (14, frames, 28, 3) mm, which no person is but which tell where each number went."""
    annot3 = 3000 + np.arange(14 * frames * 84, dtype=float).reshape(14, frames, 28, 3) % 2000
    fields: dict[str, Any] = {"annot3": annot3, "univ_annot3": annot3 + 1, "annot2": annot3[..., :2] / 2} | changes
    cells = {}
    for key, value in fields.items():
        if value is not None:
            cells[key] = np.empty((14, 1), object)
            for view in range(14):
                cells[key][view, 0] = value[view].reshape(len(value[view]), -1)
    file.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(file, cells, do_compression=True)
    return annot3


def one_line(call: Callable[[], Any], *words: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_lenses_of_the_test_sequences() -> None:
    """§ cameras: f_mm and offsets give the published focal lengths and centres; "compat" leaves the aspect out."""
    for sensor, fx, fy, centre in ((STUDIO, 1500.172, 1500.832, (1017.387, 1043.032)), (OUTDOORS, 1683.983, 1672.59, (939.858, 560.141))):
        lens = sensor.lens()
        np.testing.assert_allclose(lens.focal, (fx, fy), atol=0.01)
        np.testing.assert_allclose(lens.centre, centre, atol=0.001)
        np.testing.assert_allclose(sensor.lens("compat").focal, (fx, fx), atol=0.01)
        assert not lens.radial.any() and not lens.tangential.any()
    assert sum(VALID_COUNTS.values()) == 2875 and sum(frames for frames, _ in TRAIN_FRAMES.values()) == 131592


def test_annotations_of_test_sequences(tmp_path: Path) -> None:
    """Every frame comes, in metres and pixels, and joints land on keypoints; a single frame stays a frame."""
    truth = {name: write_annot_data(tmp_path / name / "annot_data.mat", n, n) for name, n in (("TS2", 6), ("TS6", 1))}
    clips = read_3dhp_test(tmp_path)
    assert [clip.name for clip in clips] == ["TS2/annot3/0", "TS6/annot3/0"]
    assert [clip.size for clip in clips] == [(2048, 2048), (1920, 1080)]
    for clip in clips:
        assert clip.joints is not None and clip.lens is not None and clip.layout == MPI_INF_3DHP_17
        np.testing.assert_allclose(clip.joints, truth[clip.subject], atol=1e-6)
        projected = clip.lens.project(torch.from_numpy(clip.joints)).numpy()
        np.testing.assert_allclose(clip.keypoints[..., :2], projected, atol=0.01)
        assert (clip.keypoints[..., 2] == 1).all()
    assert clips[0].valid is not None and clips[0].valid.tolist() == [True, False, True, True, False, True]
    assert clips[0].activity is not None and clips[0].activity.tolist() == [1, 2, 3, 4, 5, 6]
    (universal,) = read_3dhp_test(tmp_path / "TS2" / "annot_data.mat", "univ_annot3", "compat")
    assert universal.joints is not None and universal.action == "univ_annot3" and universal.lens is not None
    relative = universal.joints - universal.joints[:, 14:15]
    np.testing.assert_allclose(relative, 0.95 * (truth["TS2"] - truth["TS2"][:, 14:15]), atol=1e-6)
    np.testing.assert_allclose(universal.lens.focal[0], universal.lens.focal[1])
    assert [clip.subject for clip in read_3dhp_test(tmp_path, sequences=["TS6"])] == ["TS6"]


def test_test_sequences_there_and_back(tmp_path: Path) -> None:
    for name in ("TS1", "TS5"):
        write_annot_data(tmp_path / "raw" / name / "annot_data.mat")
    for target, name in (("annot3", "data_test_3dhp_ori.npz"), ("univ_annot3", "data_test_3dhp.npz")):
        clips = read_3dhp_test(tmp_path / "raw", target)
        path = write_3dhp_test(tmp_path / "npz", clips, target)
        assert path == tmp_path / "npz" / name
        same_clips(read_3dhp_test(tmp_path / "npz", target), clips)
        renamed = path.rename(path.with_name(f"{target}.npz"))  # the target is in the file, whatever it is called
        one_line(lambda to=renamed, other=target: read_3dhp_test(to, "annot3" if other != "annot3" else "univ_annot3"), "holds the target")  # type: ignore[misc]
    one_line(lambda: write_3dhp_test(tmp_path, clips, "annot3"), "univ_annot3")
    one_line(lambda: read_3dhp_test(tmp_path / "npz"), "neither", "data_test_3dhp_ori.npz")


def same_clips(found: list[LiftingClip], expected: list[LiftingClip]) -> None:
    assert [(clip.name, clip.size, clip.fps) for clip in found] == [(clip.name, clip.size, clip.fps) for clip in expected]
    for one, other in zip(found, expected, strict=True):
        for key in ("keypoints", "joints", "valid", "activity"):
            if getattr(other, key) is None:
                assert getattr(one, key) is None
            else:
                np.testing.assert_allclose(getattr(one, key), getattr(other, key), rtol=1e-6)


def test_npz_of_others(tmp_path: Path) -> None:
    """The layout of P-STMO and D3DP: float64, ``valid`` without a sure shape, no activity, no target; the name tells the target."""
    joints = person(4)
    part = {"data_2d": pixels(joints, "TS1"), "data_3d": 1000 * joints, "valid": np.array([[1.0], [0], [1], [1]])}
    path = tmp_path / "data_test_3dhp_ori.npz"
    save_npz(path, {"data": np.array({"TS1": part}, object)})
    (clip,) = read_3dhp_test(tmp_path)
    assert clip.activity is None and clip.valid is not None and clip.valid.tolist() == [True, False, True, True]
    one_line(lambda: read_3dhp_test(path, "univ_annot3"), "holds the target annot3")
    (clip,) = read_3dhp_test(path.rename(tmp_path / "mine.npz"), "univ_annot3")
    assert clip.action == "univ_annot3"


def test_annotations_of_training_sequences(tmp_path: Path) -> None:
    annot3 = {name: write_annot(tmp_path / name / "annot.mat", 5 + i) for i, name in enumerate(("S1/Seq2", "S3/Seq1"))}
    clips = read_3dhp_train(tmp_path)
    assert [clip.name for clip in clips] == [f"{name}/{view}" for name in annot3 for view in VIEWS]
    for clip in clips:
        raw = annot3[f"{clip.subject}/{clip.action}"][int(clip.view)][:, RAW_JOINTS]
        assert clip.joints is not None and clip.fps == 50 and clip.size == (2048, 2048) and clip.lens is None
        np.testing.assert_allclose(clip.joints, raw / 1000, rtol=1e-6)
        np.testing.assert_allclose(clip.keypoints[..., :2], raw[..., :2] / 2, rtol=1e-6)
    few = read_3dhp_train(tmp_path, "univ_annot3", subjects=["S3"], views=["13"])
    assert [clip.name for clip in few] == ["S3/Seq1/13"] and few[0].joints is not None
    np.testing.assert_allclose(few[0].joints, annot3["S3/Seq1"][13][:, RAW_JOINTS] / 1000 + 0.001, rtol=1e-6)
    assert write_3dhp_train(tmp_path / "npz", clips) == tmp_path / "npz" / "data_train_3dhp_ori.npz"
    same_clips(read_3dhp_train(tmp_path / "npz"), clips)
    same_clips(read_3dhp_train(tmp_path / "npz", subjects=["S1"], views=["4"]), [clips[3]])
    one_line(lambda: read_3dhp_train(tmp_path, subjects=["S4"]), "found subject S1, S3, expected S4")
    one_line(lambda: read_3dhp_train(tmp_path, views=["14"]), "found view 0, 1, 2", "expected 14")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"annot3": None}, ("lacks 'annot3'", "annot2")),
        ({"annot2": np.zeros((6, 17, 2))}, ("'annot2'", "(6, 17, 2)")),
        ({"annot3": np.ones((6, 1, 16, 3))}, ("'annot3'", "(6, 1, 16, 3)", "17")),
        ({"annot3": 3 * np.ones((6, 1, 17, 3))}, ("depth of 3", "millimetres")),
        ({"annot3": 3000 * np.ones((5, 1, 17, 3))}, ("6 frames of 2D and 5 of 3D",)),
        ({"annot3": np.full((6, 1, 17, 3), np.nan)}, ("'data_3d'", "NaN")),
        ({"valid_frame": np.ones((5, 1))}, ("'valid'", "expected (6,)")),
        ({"valid_frame": 2 * np.ones((6, 1))}, ("'valid'", "from 0 to 1")),
        ({"activity_annotation": np.zeros((6, 1))}, ("'activity'", "from 1 to 7")),
    ],
)
def test_broken_annotations(tmp_path: Path, changes: dict[str, Any], words: tuple[str, ...]) -> None:
    file = tmp_path / "TS1" / "annot_data.mat"
    write_annot_data(file, **changes)
    one_line(lambda: read_3dhp_test(tmp_path), str(file), *words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"annot3": None}, ("lacks annot3",)),
        ({"annot2": np.zeros((14, 5, 17, 2))}, ("(5, 34)", "(frames, 56)")),
        ({"annot2": np.zeros((14, 4, 28, 2))}, ("4 frames of 2D and 5 of 3D",)),
    ],
)
def test_broken_training_annotations(tmp_path: Path, changes: dict[str, Any], words: tuple[str, ...]) -> None:
    file = tmp_path / "S1" / "Seq1" / "annot.mat"
    write_annot(file, **changes)
    one_line(lambda: read_3dhp_train(tmp_path), str(file), *words)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([1, 2], ("a list of 2",)),
        ({}, ("a dict",)),
        ({"TS7": {}}, ("'TS7'", "TS1 to TS6")),
        ({"TS1": 3}, ("lacks 'data_2d'", "a int")),
        ({"TS1": {"data_2d": "text"}}, ("'data_2d'", "numbers")),
        ({"TS1": {"data_2d": np.zeros((2, 17, 2)), "data_3d": np.full((2, 17, 3), 4000.0)}}, ("lacks 'valid'",)),
    ],
)
def test_broken_npz(tmp_path: Path, data: Any, words: tuple[str, ...]) -> None:
    boxed = np.empty((), object)
    boxed[()] = data
    save_npz(tmp_path / "data_test_3dhp_ori.npz", {"data": boxed})
    one_line(lambda: read_3dhp_test(tmp_path), *words)


def test_one_file_for_another(tmp_path: Path) -> None:
    """MATLAB v5 and v7.3, text, nothing, folders and flags."""
    old, new = tmp_path / "S1" / "Seq1" / "annot.mat", tmp_path / "TS1" / "annot_data.mat"
    write_annot(old)
    write_annot_data(new)
    one_line(lambda: load_matlab5(new, None, "predictions"), "v7.3", "predictions")
    swapped = tmp_path / "TS2" / "annot_data.mat"
    swapped.parent.mkdir()
    swapped.write_bytes(old.read_bytes())
    one_line(lambda: read_3dhp_test(swapped), "MATLAB v5")
    swapped.write_text("annotation")
    one_line(lambda: read_3dhp_test(swapped), "not a readable HDF5 file")
    old.write_text("annotation")
    one_line(lambda: read_3dhp_train(old), "not a readable MATLAB v5 file")
    one_line(lambda: read_3dhp_test(tmp_path / "none"), "found nothing")
    one_line(lambda: read_3dhp_train(new), "S1 Seq1")
    one_line(lambda: read_3dhp_test(tmp_path, "annot2"), "annot3, univ_annot3")
    one_line(lambda: read_3dhp_test(tmp_path, aspect="square"), "clean, compat")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_files(tmp_path: Path, share: float) -> None:
    """However short a file is cut, there is one line, and no other exception."""
    new, old = tmp_path / "TS1" / "annot_data.mat", tmp_path / "S1" / "Seq1" / "annot.mat"
    write_annot_data(new)
    write_annot(old)
    for file, read in ((new, read_3dhp_test), (old, read_3dhp_train)):
        whole = file.read_bytes()
        file.write_bytes(whole[: int(share * len(whole))])
        one_line(lambda file=file, read=read: read(file), str(file))  # type: ignore[misc]


def test_doctor(tmp_path: Path) -> None:
    frames = VALID_COUNTS["TS3"]
    write_annot_data(tmp_path / "TS3" / "annot_data.mat", frames, valid_frame=np.ones((frames, 1)))
    (clip,) = read_3dhp_test(tmp_path)
    assert clip.joints is not None and clip.valid is not None
    steady = np.repeat(person(1) - person(1)[:, 14:15], frames, 0) + clip.joints[:, 14:15]
    clip = replace(clip, joints=steady.astype(np.float32), keypoints=np.dstack((pixels(steady, "TS3"), np.ones((frames, 17)))))
    assert check_3dhp([clip]) == ()

    def notes(**changes: Any) -> str:
        (note,) = check_3dhp([replace(clip, **changes)])
        return note

    assert "506" in notes(valid=np.arange(frames) > 3) and "502 valid" in notes(valid=np.arange(frames) > 3)
    shifted = clip.keypoints + np.array((30, 40, 0))
    assert "50.0 pixels" in notes(keypoints=shifted)
    assert "legs of 0.08" in notes(joints=steady / 10)  # a change of scale leaves the picture as it is
    assert "behind the camera" in notes(joints=-steady)
    switching = steady.astype(np.float32)
    foot = [MPI_INF_3DHP_17.joints.index(f"{side}_ankle") for side in ("left", "right")]
    switching[100:150, foot] += np.array((0, 0.05, 0), np.float32)
    switching[200, foot] += np.array((0, 0.05, 0), np.float32)
    on_it = np.dstack((pixels(switching, "TS3"), np.ones((frames, 17))))
    assert "455 frames" in notes(joints=switching, keypoints=on_it) and "(100-149, 200-200)" in notes(joints=switching, keypoints=on_it)
    # Without a lens the one that suits best is found, and a mirrored picture tells.
    best = best_lens(clip.keypoints.reshape(-1, 3)[:, :2], steady.reshape(-1, 3))
    assert clip.lens is not None
    np.testing.assert_allclose(best.vector, clip.lens.vector, rtol=1e-4, atol=1e-3)
    assert notes(lens=None, keypoints=clip.keypoints * np.array((-1, 1, 1))).startswith(
        "TS3/annot3/0: the lens that suits it best has focal"
    )
    lost = replace(clip, subject="S1", action="Seq1", joints=None, valid=None)
    assert check_3dhp([lost]) == ("S1/Seq1/0: 506 frames, published 6416", "S1/Seq1/0: no 3D joints")


def test_published_annotations() -> None:
    """The real TS5 and TS6 in the folder that DPOSER_3DHP names: counts, reprojection, the two targets apart, the legs of TS6."""
    folder = os.environ.get("DPOSER_3DHP")
    if folder is None:
        pytest.skip("no MPI-INF-3DHP test annotations (set DPOSER_3DHP to the folder with TS5 and TS6)")
    names = ["TS5", "TS6"]
    true, universal = (read_3dhp_test(folder, target, sequences=names) for target in ("annot3", "univ_annot3"))
    square = read_3dhp_test(folder, aspect="compat", sequences=names)
    assert [len(clip) for clip in true] == [320, 492]
    for clip, other, compat, apart, clean, rough in zip(true, universal, square, (20.15, 8.59), (0.31, 0.11), (1.57, 1.37), strict=True):
        assert clip.valid is not None and clip.joints is not None and other.joints is not None
        assert clip.valid.sum() == VALID_COUNTS[clip.subject]
        difference = (clip.joints - clip.joints[:, 14:15]) - (other.joints - other.joints[:, 14:15])
        assert abs(1000 * np.linalg.norm(difference[clip.valid], axis=-1).mean() - apart) < 0.005
        for lens, expected in ((clip.lens, clean), (compat.lens, rough)):
            assert lens is not None
            error = lens.project(torch.from_numpy(clip.joints)).numpy() - clip.keypoints[..., :2]
            assert abs(np.linalg.norm(error, axis=-1).mean() - expected) < 0.005
    (note,) = check_3dhp(true)
    assert "293 frames" in note and "110-129, 149-189, 249-279, 319-354, 399-469" in note
