import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dposer.errors import InputError
from dposer.viz import colour_bar, plausibility_colours, plot_plausibility, spaced_peaks, surface_heat

NAMES = ("left_hip", "right_hip", "spine1")


def lightness(rgb: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return 116 * np.cbrt(linear @ (0.2126, 0.7152, 0.0722)) - 16


def test_colours_are_ordered_by_lightness_from_red_to_calm_blue() -> None:
    colours = plausibility_colours(np.linspace(0, 100, 1001))
    assert (np.diff(lightness(colours)) > 0).all() and np.ptp(lightness(colours)) > 50
    assert colours.min() >= 0 and colours.max() <= 1
    assert colours[0, 0] > 3 * colours[0, 1:].max() and colours[-1, 2] > colours[-1, 0]
    steps = np.linalg.norm(np.diff(plausibility_colours(np.array([0, 1, 5, 25])), axis=0), axis=1)
    assert (steps > 0.2).all()  # what one wants to tell apart looks different


def test_a_vertex_has_the_colour_of_the_joints_that_move_it() -> None:
    weights = np.array([[0, 1, 0, 0], [0, 0.5, 0.5, 0], [1, 0, 0, 0]])
    colours = surface_heat(weights, np.array([[0, 10, 50], [100, 100, 100]]))
    assert np.allclose(colours[0], plausibility_colours(np.array([0, 5, 100])))
    assert np.allclose(colours[1], plausibility_colours(np.array(100)))
    with pytest.raises(InputError, match="J \\+ 1"):
        surface_heat(weights, np.zeros((2, 4)))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=60), st.integers(1, 10), st.integers(1, 12))
def test_peaks_are_apart_and_in_order(values: list[float], count: int, gap: int) -> None:
    array = np.array(values)
    peaks = spaced_peaks(array, count, gap)
    assert 0 < len(peaks) <= count and array[peaks[0]] == array.max()
    assert (np.diff(array[peaks]) <= 0).all()
    assert len(peaks) == 1 or np.diff(np.sort(peaks)).min() >= gap


def test_plot_of_one_bad_frame_among_very_many_shows_it() -> None:
    score, per_joint = np.full(5000, 60.0), np.full((5000, 3), 60.0)
    calm = plot_plausibility(score, per_joint, NAMES, fps=30)
    per_joint[1234, 1] = 0
    bad = plot_plausibility(score, per_joint, NAMES, fps=30)
    differs = (calm.astype(int) - bad).any(-1)
    assert calm.shape == bad.shape and calm.dtype == np.uint8
    assert 0 < differs.sum() < 200 and np.ptp(np.argwhere(differs)[:, 1]) <= 3
    column = np.argwhere(differs)[0, 1] / calm.shape[1]
    assert 0.25 < column < 0.35  # of the picture, at 1234 of 5000 frames


def test_plot_marks_frames_and_takes_a_single_one() -> None:
    score, per_joint = np.linspace(0, 100, 40), np.full((40, 3), 60.0)
    plain, marked = (plot_plausibility(score, per_joint, NAMES, marked=some, title="walk") for some in ((), (0, 20)))
    assert (plain != marked).any()
    assert plot_plausibility(score[:1], per_joint[:1], NAMES, marked=[0]).ndim == 3


@pytest.mark.parametrize(
    ("score", "per_joint", "marked", "complaint"),
    [
        (np.zeros(4), np.zeros((5, 3)), (), "per_joint: shape"),
        (np.zeros(0), np.zeros((0, 3)), (), "per_joint: shape"),
        (np.full(4, np.nan), np.zeros((4, 3)), (), "score: 4 values"),
        (np.zeros(4), np.zeros((4, 3)), (4,), "marked: frames 4..4"),
    ],
)
def test_unusable_plots_are_refused(score: np.ndarray, per_joint: np.ndarray, marked: tuple[int, ...], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        plot_plausibility(score, per_joint, NAMES, marked=marked)


@pytest.mark.parametrize("height", [200, 701])
def test_colour_bar_runs_from_red_to_blue(height: int) -> None:
    bar = colour_bar(height)
    assert bar.shape[0] == height and bar.dtype == np.uint8
    column = bar[:, int(0.15 * bar.shape[1])]
    inside = np.flatnonzero(column.min(-1) < 240)
    assert np.abs(column[inside[3]] / 255 - plausibility_colours(np.array(100))).max() < 0.03
    assert np.abs(column[inside[-3]] / 255 - plausibility_colours(np.array(0))).max() < 0.06
