"""Readers of 3D point sequences: what small writers put in comes back, holes become NaN, and damage becomes one clear line."""

import io
from collections.abc import Callable
from pathlib import Path

import c3d
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dposer.body.skeleton import COCO_17, H36M_17
from dposer.data.points import PointSequence, arrange, check_sequence, read_points
from dposer.data.upright import Convention
from dposer.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:No analog data")  # the C3D writer of the tests says so

_SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def recordings(draw: st.DrawFn) -> tuple[np.ndarray, tuple[str, ...]]:
    """(F, K, 3) of float32 values away from zero with holes, and K names."""
    frames, count = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    values = draw(hnp.arrays(np.float32, (frames, count, 3), elements=st.floats(1, 4096, width=32)))
    holes = draw(hnp.arrays(bool, (frames, count)))
    letters = st.text("ABCxyz0189", min_size=1, max_size=6)
    names = draw(st.lists(letters, min_size=count, max_size=count, unique_by=str.lower))
    return np.where(holes[..., None], np.nan, values.astype(np.float64)), tuple(names)


# --- small writers -------------------------------------------------------------------------------------------------------


def _cell(value: float) -> str:
    return "" if np.isnan(value) else repr(float(value))


def csv_text(points: np.ndarray, names: tuple[str, ...], delimiter: str = ",", joint: str = "_", fps: float | None = None) -> str:
    header = [f"{name}{joint}{axis}" for name in names for axis in "xyz"]
    rows = [[_cell(value) for value in frame.ravel()] for frame in points]
    if fps is not None:
        header = ["Frame", "Time", *header]
        rows = [[str(i), f"{i / fps:.6f}", *row] for i, row in enumerate(rows)]
    return "\n".join(delimiter.join(row) for row in [header, *rows]) + "\n"


def trc_text(points: np.ndarray, names: tuple[str, ...], fps: float = 100.0, units: str = "mm") -> str:
    frames, count = points.shape[:2]
    lines = [
        "PathFileType\t4\t(X/Y/Z)\twalk.trc",
        "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\tOrigDataRate\tOrigDataStartFrame\tOrigNumFrames",
        f"{fps}\t{fps}\t{frames}\t{count}\t{units}\t{fps}\t1\t{frames}",
        "Frame#\tTime\t" + "\t\t\t".join(names) + "\t\t",
        "\t\t" + "\t".join(f"{axis}{i + 1}" for i in range(count) for axis in "XYZ"),
        "",
    ]
    lines += ["\t".join([str(i + 1), f"{i / fps:.5f}", *map(_cell, frame.ravel())]) for i, frame in enumerate(points)]
    return "\n".join(lines) + "\n"


def c3d_bytes(
    points: np.ndarray, names: tuple[str, ...], fps: float = 120.0, units: str = "mm", first: int = 1, **lists: list[str]
) -> bytes:
    writer = c3d.Writer(point_rate=fps, point_units=units)
    holes = np.isnan(points).any(axis=-1)
    columns = np.concatenate([np.nan_to_num(points), np.where(holes, -1.0, 0.0)[..., None], np.zeros((*holes.shape, 1))], axis=-1)
    writer.add_frames([(frame.astype(np.float32), np.zeros((0, 0))) for frame in columns])
    writer.set_point_labels(names)
    writer.set_start_frame(first)
    for name, labels in lists.items():
        text, width = c3d.Writer.pack_labels(labels)
        writer.point_group.add_str(name, "", text, width, len(labels))
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


def save(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def assert_sequence(sequence: PointSequence, points: np.ndarray, names: tuple[str, ...] | None, fps: float | None) -> None:
    np.testing.assert_array_equal(sequence.points, points)
    assert sequence.points.dtype == np.float64
    np.testing.assert_array_equal(sequence.confidence, ~np.isnan(points).any(axis=-1))
    assert sequence.names == names and sequence.fps == (None if fps is None else pytest.approx(fps, rel=1e-4))


# --- round trips ---------------------------------------------------------------------------------------------------------


@_SETTINGS
@given(recordings(), st.sampled_from([",", ";", "\t"]), st.sampled_from(["_", ".", ":", " "]), st.sampled_from([None, 30.0, 59.94]))
def test_csv_round_trip(
    tmp_path: Path, recording: tuple[np.ndarray, tuple[str, ...]], delimiter: str, joint: str, fps: float | None
) -> None:
    points, names = recording
    path = save(tmp_path / "a.csv", csv_text(points, names, delimiter, joint, fps))
    assert_sequence(read_points(path), points, names, fps if len(points) > 1 else None)


def test_csv_rate_survives_rounded_times_and_left_out_rows(tmp_path: Path) -> None:
    times = np.delete(np.arange(100) / 30, [20, 21, 50])
    text = "time,a_x,a_y,a_z\n" + "".join(f"{time:.2f},1,2,3\n" for time in times)
    assert read_points(save(tmp_path / "a.csv", text)).fps == pytest.approx(30, rel=1e-3)


@_SETTINGS
@given(recordings(), st.sampled_from(["m", "mm"]), st.booleans())
def test_trc_round_trip(tmp_path: Path, recording: tuple[np.ndarray, tuple[str, ...]], unit: str, trimmed: bool) -> None:
    points, names = recording
    text = trc_text(points, names, 100.0, unit)
    if trimmed:
        text = "\n".join(line.rstrip("\t") if number > 4 else line for number, line in enumerate(text.splitlines()))
    sequence = read_points(save(tmp_path / "a.trc", text))
    assert_sequence(sequence, points, names, 100.0)
    assert sequence.unit == unit and sequence.source == str(tmp_path / "a.trc")


@_SETTINGS
@given(recordings(), st.sampled_from(["m", "mm"]), st.sampled_from([1, 77, 70000, 140000]))
def test_c3d_round_trip(tmp_path: Path, recording: tuple[np.ndarray, tuple[str, ...]], unit: str, first: int) -> None:
    points, names = recording
    path = save(tmp_path / "a.c3d", c3d_bytes(points, tuple(f"subject:{name}" for name in names), 119.88, unit, first))
    sequence = read_points(path)
    assert_sequence(sequence, points, names, 119.88)
    assert sequence.unit == unit


@_SETTINGS
@given(recordings(), st.sampled_from(["joints", "keypoints_3d", "marker_data"]), st.sampled_from(["3", "4", "flat"]), st.booleans())
def test_npz_round_trip(tmp_path: Path, recording: tuple[np.ndarray, tuple[str, ...]], key: str, form: str, as_bytes: bool) -> None:
    points, names = recording
    sure = (~np.isnan(points).any(axis=-1)).astype(float)
    array = {"3": points, "4": np.concatenate([points, sure[..., None]], axis=-1), "flat": points.reshape(len(points), -1)}[form]
    labels = np.array(names, dtype="S" if as_bytes else "U")
    np.savez(tmp_path / "a.npz", **{key: array}, marker_labels=labels, mocap_frame_rate=60)
    assert_sequence(read_points(tmp_path / "a.npz"), points, names, 60.0)
    np.save(tmp_path / "a.npy", array)
    assert_sequence(read_points(tmp_path / "a.npy"), points, None, None)


@pytest.mark.parametrize("name", ["confidence", "confidences", "scores", "visible"])
def test_confidences_of_their_own(tmp_path: Path, name: str) -> None:
    points = np.ones((2, 3, 3))
    points[0, 0] = np.nan
    given = np.array([[1.0, 0.5, 0.0], [np.nan, 0.25, 1.0]])
    if name == "visible":
        given = np.nan_to_num(given) > 0
    np.savez(tmp_path / "a.npz", joints=points, **{name: given[..., None]})
    sequence = read_points(tmp_path / "a.npz")
    expected = np.array([[0, given[0, 1], 0], [0, given[1, 1], 1]], dtype=float)
    np.testing.assert_array_equal(sequence.confidence, expected)
    np.testing.assert_array_equal(np.isnan(sequence.points).all(axis=-1), expected == 0)


def test_csv_confidence_decimal_commas_quotes_and_byte_order_mark(tmp_path: Path) -> None:
    text = '\ufeff"nose_X";"nose_Y";"nose_Z";"nose_C";"ear.x";"ear.y";"ear.z"\n1,5;2;3;0,25;4;NaN;6\n1;2;3;0;4;5;6\n\n'
    sequence = read_points(save(tmp_path / "a.csv", text))
    np.testing.assert_array_equal(sequence.points[0], [[1.5, 2, 3], [np.nan] * 3])
    np.testing.assert_array_equal(sequence.points[1], [[np.nan] * 3, [4, 5, 6]])
    np.testing.assert_array_equal(sequence.confidence, [[0.25, 0], [0, 1]])
    assert sequence.names == ("nose", "ear")


def test_csv_without_header(tmp_path: Path) -> None:
    sequence = read_points(save(tmp_path / "a.csv", "1,2,3,,,\n4,5,6,7,8,9\n"))
    np.testing.assert_array_equal(sequence.points, [[[1, 2, 3], [np.nan] * 3], [[4, 5, 6], [7, 8, 9]]])
    assert sequence.names is None


def test_the_first_usual_key_wins_unless_one_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", markers=np.full((2, 4, 3), 2.0), joints=np.ones((2, 3, 3)), odd=np.full((2, 5, 3), 3.0))
    assert read_points(tmp_path / "a.npz").points.shape == (2, 3, 3)
    assert read_points(tmp_path / "a.npz", key="odd").points.shape == (2, 5, 3)


def test_names_that_are_pickled_or_no_strings_are_none(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz", marker_data=np.ones((2, 3, 3)), marker_labels=np.array(["a", "b", None], dtype=object), labels=np.arange(2)
    )
    assert read_points(tmp_path / "a.npz").names is None


# --- zeros and c3d's own ways --------------------------------------------------------------------------------------------


def test_zeros_are_holes_where_the_format_says_so(tmp_path: Path) -> None:
    points = np.ones((3, 2, 3))
    points[1, 0] = points[:, 1] = 0
    for path in (
        save(tmp_path / "a.trc", trc_text(points, ("a", "b"))),
        save(tmp_path / "a.c3d", c3d_bytes(points, ("a", "b"))),
    ):
        np.testing.assert_array_equal(read_points(path).confidence, [[1, 0], [0, 0], [1, 0]])


def test_other_zeros_are_holes_if_the_point_moves_and_no_confidence_speaks(tmp_path: Path) -> None:
    points = np.ones((3, 2, 3))
    points[1, 0] = points[:, 1] = 0
    np.save(tmp_path / "a.npy", points)
    for path in (tmp_path / "a.npy", save(tmp_path / "a.csv", csv_text(points, ("a", "b")))):
        np.testing.assert_array_equal(read_points(path).confidence, [[1, 1], [0, 1], [1, 1]])
    np.savez(tmp_path / "a.npz", joints=points, confidence=np.ones((3, 2)))
    np.testing.assert_array_equal(read_points(tmp_path / "a.npz").confidence, np.ones((3, 2)))


def test_c3d_leaves_out_what_is_no_point(tmp_path: Path) -> None:
    points = np.arange(1.0, 25).reshape(2, 4, 3)
    path = save(tmp_path / "a.c3d", c3d_bytes(points, ("S:A", "S:Knee", "S:B", "Force"), ANGLES=["S:Knee"], FORCES=["Force"]))
    assert_sequence(read_points(path), points[:, [0, 2]], ("A", "B"), 120.0)


def test_c3d_with_more_labels_than_a_parameter_holds(tmp_path: Path) -> None:
    names = tuple(f"M{i}" for i in range(250))
    path = save(tmp_path / "a.c3d", c3d_bytes(np.ones((1, 250, 3)), names[:200], LABELS2=list(names[200:240])))
    assert read_points(path).names == (*names[:240], *(f"unnamed{i}" for i in range(240, 250)))


# --- bad input -----------------------------------------------------------------------------------------------------------


def _npz(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


_ONES = np.ones((4, 3, 3))


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"poses": np.zeros((4, 165)), "trans": np.zeros((4, 3))}, "joints or markers"),
        ({"other": _ONES}, "lacks joints .*found other"),
        ({"joints": np.array([{"a": 1}], dtype=object)}, "pickled"),
        ({"joints": np.ones((4, 17, 2))}, r"\(4, 17, 2\)"),
        ({"joints": np.ones((4, 17))}, r"\(4, 17\)"),
        ({"joints": np.ones((4, 0, 3))}, "no points"),
        ({"joints": np.full((4, 3, 3), 1j)}, "real numbers"),
        ({"joints": np.full((4, 3, 3), "a")}, "real numbers"),
        ({"joints": np.where(np.arange(3) == 1, np.inf, _ONES)}, "infinite"),
        ({"joints": _ONES, "confidence": np.full((4, 3), -0.1)}, "-0.1"),
        ({"joints": _ONES, "confidence": np.full((4, 3), 95.0)}, "by 100"),
        ({"joints": _ONES, "confidence": np.full((4, 3), np.inf)}, "inf"),
        ({"joints": np.full((4, 3, 4), 50.0)}, "by 100"),
        ({"joints": _ONES, "confidence": np.ones((5, 3))}, r"\(5, 3\).*\(4, 3\)"),
        ({"joints": np.ones((4, 3, 4)), "scores": np.ones((4, 3))}, "once"),
        ({"joints": _ONES, "names": np.array(["a", "b"])}, "2 names for 3 points"),
        ({"joints": _ONES, "fps": 0.0}, "fps"),
        ({"joints": _ONES, "fps": np.nan}, "fps"),
        ({"joints": _ONES, "frame_rate": "fast"}, "frame_rate"),
    ],
)
def test_npz_rejections(tmp_path: Path, arrays: dict[str, object], expected: str) -> None:
    _rejects(save(tmp_path / "a.npz", _npz(**arrays)), expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n\n", "blank"),
        ("a_x,a_y\n1,2\n", "a_z"),
        ("a_x,a_y,a_z,a_X\n1,2,3,4\n", "twice"),
        ("a_x,a_y,a_z,speed\n1,2,3,4\n", "'speed'"),
        ("frame,time\n1,2\n", "names no point"),
        ("a_x,a_y,a_z\n1,2,3\n1,2\n", "line 3.*2 cells"),
        ("a_x,a_y,a_z\n1,2,3\n1,b,3\n", "line 3.*'b'"),
        ("a_x,a_y,a_z\n1,2,inf\n", "infinite"),
        ("1,2,3,4\n", "4 columns"),
        ("a_x,a_y,a_z,a_c\n1,2,3,40\n", "by 100"),
        ("time,a_x,a_y,a_z\n0,1,2,3\n0,1,2,3\n", "grow"),
        ("time,a_x,a_y,a_z\n0,1,2,3\n,1,2,3\n", "grow"),
        ("time,a_x,a_y,a_z\n0,1,2,3\n33,1,2,3\n66,1,2,3\n", "seconds"),
        ("1 2 3\n", "1 2 3"),
        ("a\0b", "binary"),
    ],
)
def test_csv_rejections(tmp_path: Path, text: str, expected: str) -> None:
    _rejects(save(tmp_path / "a.csv", text), expected)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda text: text.replace("PathFileType", "Something"), "PathFileType"),
        (lambda text: text.replace("NumFrames", "Frames"), "NumFrames"),
        (lambda text: text.replace("DataRate\tCamera", "Rate\tCamera"), "DataRate"),
        (lambda text: text.replace("100.0\t", "0\t", 1), "DataRate"),
        (lambda text: text.replace("100.0\t", "fast\t", 1), "DataRate"),
        (lambda text: text.replace("\tb\t", "\t\t"), "1 marker names"),
        (lambda text: text[: text.rindex("\n3\t") + 1], "2 frames.*3"),
        (lambda text: text.replace("3.0", "x"), "'x'"),
        (lambda text: text + "4\t0.04\t1\n", "4 frames"),
        (lambda text: text.rstrip().rpartition("\t")[0], "7 cells"),
        (lambda text: text[:100], "header"),
    ],
)
def test_trc_rejections(tmp_path: Path, change: Callable[[str], str], expected: str) -> None:
    _rejects(save(tmp_path / "a.trc", change(trc_text(np.arange(1.0, 19).reshape(3, 2, 3), ("a", "b")))), expected)


def _rejects(path: Path, expected: str, **arguments: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        read_points(path, **arguments)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_suffixes_keys_and_missing_files(tmp_path: Path) -> None:
    _rejects(save(tmp_path / "a.fbx", "a"), ".c3d")
    _rejects(save(tmp_path / "a.csv", "1,2,3\n"), "leave the key out", key="joints")
    _rejects(save(tmp_path / "a.npz", _npz(joints=_ONES)), "lacks odd", key="odd")
    _rejects(save(tmp_path / "a.npy", _npz(joints=_ONES)), "npz")
    np.save(tmp_path / "b.npy", np.array([{}], dtype=object))
    _rejects(tmp_path / "b.npy", "npy")
    for suffix in ("npz", "npy", "csv", "trc", "c3d"):
        _rejects(tmp_path / f"none.{suffix}", "nothing")
        _rejects(save(tmp_path / f"empty.{suffix}", ""), "empty")


@pytest.mark.parametrize("suffix", ["npz", "npy", "c3d", "trc"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_files(tmp_path: Path, suffix: str, share: float) -> None:
    points = np.random.default_rng(0).normal(size=(200, 4, 3))
    np.save(tmp_path / "a.npy", points)
    np.savez(tmp_path / "a.npz", joints=points)
    save(tmp_path / "a.c3d", c3d_bytes(points, tuple("abcd")))
    save(tmp_path / "a.trc", trc_text(points, tuple("abcd")))
    data = (tmp_path / f"a.{suffix}").read_bytes()
    _rejects(save(tmp_path / f"cut.{suffix}", data[: int(share * len(data))]), "expected")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_c3d_is_refused_or_read(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    data = bytearray(c3d_bytes(np.ones((5, 4, 3)), tuple("abcd")))
    for place, value in changes:
        data[place % len(data)] = value
    path = save(tmp_path / "a.c3d", bytes(data))
    try:
        sequence = read_points(path)
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        np.testing.assert_array_equal(sequence.confidence == 0, np.isnan(sequence.points).any(axis=-1))


# --- arrange and check ---------------------------------------------------------------------------------------------------


def _sequence(points: np.ndarray, names: tuple[str, ...] | None = None) -> PointSequence:
    return PointSequence(points, (~np.isnan(points).any(axis=-1)).astype(float), names, 30.0, source="walk.npz")


def test_arrange_orders_by_name() -> None:
    order = np.random.default_rng(0).permutation(17)
    points = np.random.default_rng(1).normal(size=(4, 17, 3))
    names = tuple(H36M_17.joints[i].replace("_", " ").title() for i in order)
    extra = _sequence(np.concatenate([points[:, order], np.ones((4, 1, 3))], axis=1), (*names, "Ball"))
    arranged = arrange(extra, H36M_17)
    np.testing.assert_array_equal(arranged.points, points)
    assert check_sequence(arranged, H36M_17) == ()
    assert arrange(extra, COCO_17) is extra
    assert arrange(_sequence(points), H36M_17).names is None


def test_arrange_wants_each_name_once() -> None:
    sequence = _sequence(np.ones((4, 18, 3)), (*H36M_17.joints, "Left Hip"))
    with pytest.raises(InputError, match=r"walk.npz: 2 points are named 'left_hip'"):
        arrange(sequence, H36M_17)


def test_check_says_what_a_user_should_know() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 17, 3))
    assert check_sequence(_sequence(points), H36M_17) == check_sequence(_sequence(points), None) == ()
    points[:, 1:3] = 0
    points[[3, 4, 5, 9]] = np.nan
    points[:, 13] = np.nan
    points[20, 0] = np.nan
    notes = check_sequence(_sequence(points), H36M_17)
    assert len(notes) == 4
    assert "4 of 40" in notes[0] and "3-5, 9" in notes[0]
    assert "'left_wrist'" in notes[1]
    assert "%" in notes[2]
    assert "'right_hip', 'right_knee'" in notes[3]
    assert any("2 frames only" in note for note in check_sequence(_sequence(rng.normal(size=(2, 17, 3))), H36M_17))
    assert any("1 frame only" in note for note in check_sequence(_sequence(rng.normal(size=(1, 17, 3))), H36M_17))
    odd = check_sequence(_sequence(rng.normal(size=(9, 17, 3)), tuple(f"p{i}" for i in range(17))), H36M_17)
    assert len(odd) == 1 and "order of the file" in odd[0]
    assert check_sequence(_sequence(np.full((5, 3, 3), np.nan)), None)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((0, 17, 3), "0 frames"),
        ((4, 25, 3), "found 25 points.*the 17 of layout h36m17.*openpose25"),
        ((4, 19, 3), "found 19 points"),
        ((17, 1, 3), r"\(1, points, 3\)"),
    ],
)
def test_check_refuses(shape: tuple[int, ...], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        check_sequence(_sequence(np.ones(shape)), H36M_17)


def test_upright_turns_the_points_and_says_so() -> None:
    sequence = _sequence(np.array([[[1000.0, 2000.0, 3000.0]]])).upright(Convention("mm", "y", ()))
    np.testing.assert_allclose(sequence.points, [[[1, -3, 2]]])
    assert sequence.unit == "m"
