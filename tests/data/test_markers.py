"""Marker layouts: both forms read, ours written back, names matched, and every wrong entry named."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dposer.body.points import Place
from dposer.data.markers import DISTANCE, Marker, MarkerLayout, arrange_markers, marker_places, read_markers, write_markers
from dposer.data.points import PointSequence
from dposer.errors import InputError

_LENGTHS = st.floats(-1, 1)
_ON_SKIN = st.tuples(st.integers(0, 10474), _LENGTHS).map(lambda a: (a[0], a[1], None, None))
_ON_JOINT = st.tuples(st.sampled_from(["left_wrist", "head"]), st.tuples(_LENGTHS, _LENGTHS, _LENGTHS)).map(lambda a: (None, 0.0, *a))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.text("abcdefgh0123", min_size=1, max_size=5), st.one_of(_ON_SKIN, _ON_JOINT), min_size=1, max_size=6),
    st.sampled_from(["smplx", "smplh", "smpl", None]),
)
def test_round_trip(tmp_path: Path, markers: dict, model: str | None) -> None:
    layout = MarkerLayout(tuple(Marker(name, *where) for name, where in markers.items()), model)
    write_markers(tmp_path / "a.json", layout)
    assert read_markers(tmp_path / "a.json") == layout


def _save(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_shorthand_and_defaults(tmp_path: Path) -> None:
    content = {"markers": {"A": 7, "B": {"vertex": 8}, "C": {"joint": "head"}, "D": {"vertex": 9, "distance": 0}}}
    layout = read_markers(_save(tmp_path / "a.json", content))
    assert layout.model is None
    assert layout.markers == (
        Marker("A", 7, DISTANCE, None, None),
        Marker("B", 8, DISTANCE, None, None),
        Marker("C", None, 0.0, "head", (0.0, 0.0, 0.0)),
        Marker("D", 9, 0.0, None, None),
    )


def test_mosh_form(tmp_path: Path) -> None:
    content = {
        "markersets": [
            {"distance_from_skin": 0.0095, "indices": {"ARIEL": 9011, "C7": 3832}, "type": "body", "marker_radius": 0.0095},
            {"distance_from_skin": 0.0, "indices": {"LTHM": 5361}, "type": "finger"},
        ],
        "surface_model_type": "smplx",
    }
    layout = read_markers(_save(tmp_path / "a.json", content))
    assert (layout.model, layout.names) == ("smplx", ("ARIEL", "C7", "LTHM"))
    assert [(marker.vertex, marker.distance) for marker in layout.markers] == [(9011, 0.0095), (3832, 0.0095), (5361, 0.0)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "JSON"),
        ("\x00", "JSON"),
        ("[" * 100000, "JSON"),
        ("[]", "braces"),
        ("{}", "lacks 'markers'"),
        ('{"markers": {}}', "no marker"),
        ('{"markers": []}', "braces"),
        ('{"markers": {"A": 1, "A": 2}}', "'A' occurs twice"),
        ('{"markers": {"A": 1, "a": 2}}', "'a' and 'A'"),
        ('{"markers": {"A": 1, "x:A": 2}}', "'x:A' and 'A'"),
        ('{"markers": {" ": 1}}', "a name"),
        ('{"markers": {"A": 1}, "modle": "smplx"}', "unknown key 'modle'"),
        ('{"markers": {"A": 1}, "model": "flame"}', "flame"),
        ('{"markers": {"A": 1}, "model": ["smplx"]}', "smplx"),
        ('{"markers": {"A": -1}}', "-1"),
        ('{"markers": {"A": 1.5}}', "1.5"),
        ('{"markers": {"A": true}}', "true"),
        ('{"markers": {"A": "1"}}', "whole number"),
        ('{"markers": {"A": {"vertex": 1, "joint": "head"}}}', "unknown key 'vertex'"),
        ('{"markers": {"A": {"distance": 0.1}}}', "lacks 'vertex'"),
        ('{"markers": {"A": {"vertex": 1, "distance": 9.5}}}', "millimetres"),
        ('{"markers": {"A": {"vertex": 1, "distance": NaN}}}', "NaN"),
        ('{"markers": {"A": {"vertex": 1, "distance": 1e999}}}', "metres"),
        ('{"markers": {"A": {"vertex": 1, "distance": null}}}', "null"),
        ('{"markers": {"A": {"joint": 3}}}', "left_wrist"),
        ('{"markers": {"A": {"joint": "head", "offset": [1, 2]}}}', "three numbers"),
        ('{"markers": {"A": {"joint": "head", "offset": [0, 0, "1"]}}}', "metres"),
        ('{"markers": {"A": {"joint": "head", "offset": [0, 0, 20]}}}', "millimetres"),
        ('{"markersets": {}}', "list of sets"),
        ('{"markersets": []}', "no marker"),
        ('{"markersets": [3]}', "braces"),
        ('{"markersets": [{"type": "body"}]}', "indices"),
        ('{"markersets": [{"indices": {"A": 1}}, {"indices": {"A": 2}}]}', "same"),
        ('{"markersets": [{"indices": {"A": 1}, "distance_from_skin": 9.5}]}', "millimetres"),
        ('{"markersets": [{"indices": {"A": 1}}], "surface_model_type": "flame"}', "flame"),
    ],
)
def test_rejections(tmp_path: Path, content: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        read_markers(_save(tmp_path / "a.json", content))
    assert str(tmp_path / "a.json") in str(caught.value) and "\n" not in str(caught.value)


def test_binary_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    for name in ("a.json", "none.json"):
        with pytest.raises(InputError, match=name):
            read_markers(tmp_path / name)


def _sequence(names: tuple[str, ...] | None, count: int) -> PointSequence:
    points = np.arange(2.0 * count * 3).reshape(2, count, 3)
    return PointSequence(points, np.ones((2, count)), names, None, source="walk.c3d")


_LAYOUT = MarkerLayout(tuple(Marker(name, i, DISTANCE, None, None) for i, name in enumerate(("A", "B", "C", "D", "E"))), "smplx")


def test_common_markers_in_the_order_of_the_file() -> None:
    sequence = _sequence(("e", "X", "S:d", "B", "a", "Y"), 6)
    points, layout = arrange_markers(sequence, _LAYOUT)
    assert layout.names == ("E", "D", "B", "A") and layout.model == "smplx"
    assert [marker.vertex for marker in layout.markers] == [4, 3, 1, 0]
    np.testing.assert_array_equal(points.points, sequence.points[:, [0, 2, 3, 4]])
    assert points.names == ("e", "S:d", "B", "a") and points.confidence.shape == (2, 4)


def test_without_names_the_order_is_taken_as_given() -> None:
    sequence = _sequence(None, 5)
    assert arrange_markers(sequence, _LAYOUT) == (sequence, _LAYOUT)
    with pytest.raises(InputError, match=r"walk.c3d: 4 points without names.*the 5"):
        arrange_markers(_sequence(None, 4), _LAYOUT)


@pytest.mark.parametrize(
    ("names", "expected"), [(("A", "B", "C", "X", "Y"), r"3 markers in common.*A, B, C, X, Y"), (("A", "B", "C", "D", "a"), "named 'A'")]
)
def test_too_few_or_doubled_names(names: tuple[str, ...], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        arrange_markers(_sequence(names, 5), _LAYOUT)


def test_markers_are_places_on_the_body() -> None:
    skin, joint = Marker("A", 7, 0.01, None, None), Marker("B", None, 0.0, "head", (0.0, 0.1, 0.0))
    places = [Place("A", {7: 1.0}, distance=0.01), Place("B", {"head": 1.0}, offset=(0.0, 0.1, 0.0))]
    assert marker_places(MarkerLayout((skin, joint), "smplx"), 10475) == places
    assert marker_places(MarkerLayout((skin, joint), None), 13492) == places
    assert marker_places(MarkerLayout((joint,), "smpl"), 13492) == places[1:]  # joints have names, not numbers
    with pytest.raises(InputError, match=r"6890 vertices of smplh, but the body has 13492.*--bodymodel-path"):
        marker_places(MarkerLayout((skin, joint), "smplh"), 13492)
