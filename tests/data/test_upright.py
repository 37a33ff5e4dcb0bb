"""Unit and up axis: every pair of them recovered from a walking skeleton, with and without joint names, and doubts said aloud."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dposer.body.skeleton import SMPLX_JOINTS, Layout
from dposer.data.upright import METRES, Convention, detect_convention, to_world
from dposer.errors import InputError
from tests import capture

UPS = ("x", "y", "z", "-x", "-y", "-z")
BODY = Layout("body", SMPLX_JOINTS[:22], ())


def walk(frames: int = 60) -> np.ndarray:
    """(F, 22, 3) metres, +z up, along +y: the trunk goes on evenly, the feet swing about it, each at rest once a step."""
    rest = capture.rest_joints() @ Rotation.from_euler("x", 90, degrees=True).as_matrix().T
    phase = np.linspace(0, 6 * np.pi, frames)
    points = np.repeat(rest[None], frames, axis=0)
    points[..., 1] += 0.2 * phase[:, None]
    for side, start in (("left", 0.0), ("right", np.pi)):
        for joint, share in (("knee", 0.5), ("ankle", 1.0), ("foot", 1.0)):
            points[:, SMPLX_JOINTS.index(f"{side}_{joint}"), 1] -= share * 0.2 * np.sin(phase + start)
    return points


def ones(points: np.ndarray) -> np.ndarray:
    return np.isfinite(points).all(axis=-1).astype(float)


def to_file(points: np.ndarray, unit: str, up: str) -> np.ndarray:
    """The inverse of :func:`to_world`."""
    turn = to_world(np.eye(3), Convention("m", up, ()))  # rows: images of the axes
    return points @ turn.T / METRES[unit]


@pytest.mark.parametrize("up", UPS)
@pytest.mark.parametrize("unit", METRES)
@pytest.mark.parametrize("layout", [BODY, None])
def test_every_unit_and_axis_is_recovered(unit: str, up: str, layout: Layout | None) -> None:
    points = walk()
    given = to_file(points, unit, up)
    convention = detect_convention(given, ones(given), layout)
    assert (convention.unit, convention.up) == (unit, up)
    assert len(convention.notes) == 2 and "--unit" in convention.notes[0] and "--up" in convention.notes[1]
    np.testing.assert_allclose(to_world(given, convention), points, atol=1e-12)


@pytest.mark.parametrize("up", UPS)
def test_to_world_is_a_rotation_that_lifts_the_axis(up: str) -> None:
    turn = to_world(np.eye(3), Convention("m", up, ())).T
    assert np.linalg.det(turn) == 1
    np.testing.assert_array_equal(turn @ turn.T, np.eye(3))
    axis = np.eye(3)["xyz".index(up[-1])] * (-1 if up[0] == "-" else 1)
    np.testing.assert_array_equal(turn @ axis, [0, 0, 1])


@pytest.mark.parametrize("up", UPS)
def test_rest_positions_stand_in_for_a_layout(up: str) -> None:
    given = to_file(walk(), "mm", up)
    convention = detect_convention(given, ones(given), None, rest=capture.rest_joints())
    assert (convention.unit, convention.up) == ("mm", up)


def test_holes_and_glitches_change_nothing() -> None:
    rng = np.random.default_rng(0)
    points = to_file(walk(), "cm", "-y")
    points[rng.random(points.shape[:2]) < 0.5] = np.nan
    points[3] = np.nan
    points[7, 4] = 1e12
    confidence = ones(points)
    points[9], confidence[9] = 1e7, 0  # hidden, whatever the numbers say
    for layout in (BODY, None):
        convention = detect_convention(points, confidence, layout)
        assert (convention.unit, convention.up) == ("cm", "-y")


@pytest.mark.parametrize("hidden", ["legs", "trunk and arms", "all but the legs' ends"])
def test_a_part_of_the_body_suffices(hidden: str) -> None:
    points = to_file(walk(), "inch", "y")
    low = np.array([any(part in name for part in ("hip", "knee", "ankle", "foot", "pelvis")) for name in BODY.joints])
    end = np.array([any(part in name for part in ("knee", "ankle")) for name in BODY.joints])
    points[:, {"legs": low, "trunk and arms": ~low, "all but the legs' ends": ~end}[hidden]] = np.nan
    convention = detect_convention(points, ones(points), BODY)
    assert (convention.unit, convention.up) == ("inch", "y")


def test_given_values_are_not_doubted_but_the_size_is() -> None:
    points = walk()
    assert detect_convention(points, ones(points), BODY, "m", "x") == Convention("m", "x", ())
    convention = detect_convention(points, ones(points), BODY, "mm", "z")
    assert convention.unit == "mm" and len(convention.notes) == 1 and "--unit" in convention.notes[0]


@pytest.mark.parametrize("spelling", ["mm", " MM ", "millimeters", "Millimetre"])
def test_the_files_unit_is_believed_if_it_fits(spelling: str) -> None:
    child = 0.5 * walk() / METRES["mm"]
    assert detect_convention(child, ones(child), BODY, declared_unit=spelling).unit == "mm"
    wrong = walk()
    convention = detect_convention(wrong, ones(wrong), BODY, declared_unit=spelling)
    assert convention.unit == "m" and spelling.strip() in convention.notes[0]


def test_an_unknown_spelling_is_no_unit() -> None:
    assert detect_convention(walk(), ones(walk()), BODY, declared_unit="furlong").unit == "m"
    assert detect_convention(walk(), ones(walk()), BODY, declared_unit="").unit == "m"


def test_an_implausible_size_is_a_warning() -> None:
    giant = 100 * walk()  # the nearest reading, centimetres, is still right in size; in metres it is not
    assert detect_convention(giant, ones(giant), BODY).unit == "cm"
    flea = 1e-3 * walk()
    convention = detect_convention(flea, ones(flea), BODY)
    assert convention.unit == "m" and any("0.00" in note for note in convention.notes)


@pytest.mark.parametrize("layout", [BODY, None])
def test_a_leaning_person_is_a_guess(layout: Layout | None) -> None:
    points = walk() @ Rotation.from_euler("x", 44, degrees=True).as_matrix().T
    convention = detect_convention(points, ones(points), layout)
    assert "guess" in convention.notes[-1] and "--up" in convention.notes[-1]


def test_a_still_cloud_points_up_by_guess() -> None:
    points = np.repeat(walk()[:1], 30, axis=0)
    convention = detect_convention(points, ones(points), None)
    assert convention.up == "z" and "guess" in convention.notes[-1]
    assert detect_convention(points[:1], ones(points[:1]), None).up == "z"


def test_joints_of_unknown_names_are_a_cloud() -> None:
    points = to_file(walk(), "m", "-z")
    assert detect_convention(points, ones(points), Layout("odd", tuple(f"p{i}" for i in range(22)), ())).up == "-z"


@pytest.mark.parametrize(
    ("points", "arguments", "expected"),
    [
        (np.full((5, 22, 3), np.nan), {}, "missing in every frame"),
        (np.zeros((0, 22, 3)), {}, "missing in every frame"),
        (np.ones((5, 22, 3)), {}, "--unit"),
        (np.ones((5, 22, 3)), {"unit": "ft"}, "--unit"),
        (np.ones((5, 22, 3)), {"up": "w"}, "--up"),
    ],
)
def test_rejections(points: np.ndarray, arguments: dict, expected: str) -> None:
    for layout in (BODY, None):
        with pytest.raises(InputError, match=expected):
            detect_convention(points, ones(points), layout, **arguments)


def test_points_in_one_place_pass_with_a_given_unit() -> None:
    points = np.ones((5, 22, 3))
    convention = detect_convention(points, ones(points), BODY, unit="m")
    assert convention.unit == "m" and len(convention.notes) == 2
