"""AMASS files: every layout, rejections, the round trip, splits and frame sampling."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dposer.data.amass import AmassSequence, draw_frames, draw_repeats, find_amass, read_amass, read_betas, write_amass
from dposer.errors import InputError


def _poses(columns: int, frames: int = 4) -> np.ndarray:
    return np.arange(frames * columns, dtype=float).reshape(frames, columns) / 100


@pytest.mark.parametrize(("columns", "hands"), [(72, None), (156, slice(66, 156)), (165, slice(75, 165))])
@pytest.mark.parametrize("rate_key", ["mocap_framerate", "mocap_frame_rate"])
def test_layouts(tmp_path: Path, columns: int, hands: slice | None, rate_key: str) -> None:
    poses = _poses(columns)
    np.savez(tmp_path / "a.npz", poses=poses, trans=np.ones((4, 3)), betas=np.arange(16.0), gender="female", **{rate_key: 100.0})
    sequence = read_amass(tmp_path / "a.npz")
    np.testing.assert_array_equal(sequence.root_orient, poses[:, :3])
    np.testing.assert_array_equal(sequence.pose_body, poses[:, 3:66])
    assert (sequence.gender, sequence.fps, len(sequence.betas), len(sequence)) == ("female", 100.0, 16, 4)
    if hands is None:
        assert sequence.hands is None
    else:
        np.testing.assert_array_equal(sequence.hands, poses[:, hands])


def test_split_keys_and_bytes_gender(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", pose_body=_poses(63), root_orient=_poses(3), gender=np.bytes_(b"male"))
    sequence = read_amass(tmp_path / "a.npz")
    assert (sequence.gender, sequence.fps, sequence.hands) == ("male", None, None)
    np.testing.assert_array_equal(sequence.root_orient, _poses(3))


@pytest.mark.parametrize("hands", [None, _poses(90)])
def test_round_trip(tmp_path: Path, hands: np.ndarray | None) -> None:
    sequence = AmassSequence(_poses(63), _poses(3), _poses(3) + 1, np.arange(10.0), "neutral", 30.0, hands)
    write_amass(tmp_path / "a_stageii.npz", sequence, plausible=np.ones(4, dtype=bool))
    again = read_amass(tmp_path / "a_stageii.npz")
    for key in ("pose_body", "root_orient", "trans", "betas", "gender", "fps"):
        np.testing.assert_array_equal(getattr(again, key), getattr(sequence, key))
    np.testing.assert_array_equal(again.hands, np.zeros((4, 90)) if hands is None else hands)
    with np.load(tmp_path / "a_stageii.npz", allow_pickle=False) as arrays:
        assert str(arrays["surface_model_type"]) == "smplx" and arrays["poses"].shape == (4, 165)
        parts = [arrays[key] for key in ("root_orient", "pose_body", "pose_jaw", "pose_eye", "pose_hand")]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), arrays["poses"])


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"betas": np.zeros(10), "gender": "male"}, "no poses"),
        ({"poses": np.zeros((4, 100))}, "shape"),
        ({"poses": np.zeros((0, 156))}, "shape"),
        ({"poses": np.full((4, 156), np.nan)}, "NaN"),
        ({"poses": np.zeros((4, 156)), "trans": np.zeros((3, 3))}, "trans"),
        ({"poses": np.zeros((4, 156)), "mocap_frame_rate": 0.0}, "mocap_frame_rate"),
        ({"pose_body": np.zeros((4, 63)), "root_orient": np.zeros((4, 4))}, "root_orient"),
        ({"poses": np.array([["a"] * 156])}, "numbers"),
    ],
)
def test_rejections(tmp_path: Path, arrays: dict[str, np.ndarray], expected: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=expected) as caught:
        read_amass(tmp_path / "a.npz")
    assert str(tmp_path / "a.npz") in str(caught.value)


def test_pickled_poses_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", poses=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError):
        read_amass(tmp_path / "a.npz")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1), garbage=st.binary(max_size=16), cut=st.booleans())
def test_damaged_files_raise_input_error_only(tmp_path: Path, at: float, garbage: bytes, cut: bool) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, poses=_poses(156), trans=_poses(3))
    data = path.read_bytes()
    where = int(at * len(data))
    path.write_bytes(data[:where] + garbage + (b"" if cut else data[where + 8 :]))
    try:
        read_amass(path)
    except InputError as error:
        assert "\n" not in str(error)


def _sequence_file(path: Path, frames: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, poses=np.zeros((frames, 156)), trans=np.zeros((frames, 3)), betas=np.zeros(16))


def test_find_knows_aliases_and_splits(tmp_path: Path) -> None:
    for name in ("CMU/01/b_poses", "CMU/01/a_stageii", "MPI_HDM05/bk/x_poses", "SSM_synced/s/y_poses", "Unknown/s/z_poses"):
        _sequence_file(tmp_path / f"{name}.npz", 10)
    (tmp_path / "CMU" / "01" / "shape.npz").write_bytes(b"-")
    files = find_amass(tmp_path)
    assert [(f.split, f.subset, f.subject, f.path.name) for f in files] == [
        ("train", "CMU", "CMU/01", "a_stageii.npz"),
        ("train", "CMU", "CMU/01", "b_poses.npz"),
        ("valid", "HDM05", "HDM05/bk", "x_poses.npz"),
        ("test", "SSM", "SSM/s", "y_poses.npz"),
    ]
    with pytest.raises(InputError, match="known AMASS subset"):
        find_amass(tmp_path / "CMU")


@settings(max_examples=50, deadline=None)
@given(frames=st.integers(0, 2000), seed=st.integers(0, 1000))
def test_frames_come_from_the_middle_without_repetition(frames: int, seed: int) -> None:
    drawn = draw_frames(frames, np.random.default_rng(seed))
    assert len(drawn) == 24 * frames // 100 == len(set(drawn.tolist()))
    assert (np.diff(drawn) > 0).all()
    if len(drawn):
        assert drawn[0] >= frames // 10 and drawn[-1] < 9 * frames // 10


def test_a_files_draw_does_not_depend_on_the_others(tmp_path: Path) -> None:
    for name in ("CMU/01/a_poses", "CMU/02/b_poses", "KIT/3/c_poses"):
        _sequence_file(tmp_path / f"{name}.npz", 100)
    all_files = {f.path.name: draw_frames(100, f.generator(42)) for f in find_amass(tmp_path)}
    (tmp_path / "CMU" / "01" / "a_poses.npz").unlink()
    fewer = {f.path.name: draw_frames(100, f.generator(42)) for f in find_amass(tmp_path)}
    for name, drawn in fewer.items():
        np.testing.assert_array_equal(drawn, all_files[name])
    some = find_amass(tmp_path)[0]
    assert (draw_frames(100, some.generator(42)) != draw_frames(100, some.generator(43))).any()
    assert (draw_frames(100, some.generator(42)) != draw_frames(100, some.generator(42, repeat=1))).any()


def test_repeats_of_the_reference(tmp_path: Path) -> None:
    """Of the k subsets of a split the first is drawn from k times, the last once: Transitions twice, SSM once."""
    for name in ("Transitions/a/x_poses", "SSM/b/y_poses", "HumanEva/c/z_poses"):
        _sequence_file(tmp_path / f"{name}.npz", 10)
    repeats = [(file.subset, repeat) for file, repeat in draw_repeats(find_amass(tmp_path))]
    assert sorted(repeats) == [("HumanEva", 0), ("SSM", 0), ("Transitions", 0), ("Transitions", 1)]


def test_shapes_of_any_file(tmp_path: Path) -> None:
    betas = np.arange(16.0)
    np.savez(tmp_path / "shape.npz", betas=betas, gender="male")
    np.savez(tmp_path / "frames.npz", betas=np.stack([betas, -betas]), poses=_poses(156))
    for name in ("shape", "frames"):
        np.testing.assert_array_equal(read_betas(tmp_path / f"{name}.npz"), betas)
    np.savez(tmp_path / "none.npz", poses=_poses(156))
    with pytest.raises(InputError, match="lacks betas"):
        read_betas(tmp_path / "none.npz")
    for empty in (np.zeros(0), np.zeros((0, 10)), np.zeros((1, 1, 10))):
        np.savez(tmp_path / "empty.npz", betas=empty)
        with pytest.raises(InputError, match="'betas'"):
            read_betas(tmp_path / "empty.npz")
