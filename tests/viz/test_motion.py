"""Films: the camera keeps what it should, nothing is mirrored, the ground stays in place, frames are drawn one at a time."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dposer.errors import InputError
from dposer.viz.motion import MeshLayer, Pane, PointLayer, Stage, film, film_sheet, heading, lowest

BALL = trimesh.creation.icosphere(2, 0.2)
RED, BLUE = (1.0, 0, 0), (0, 0, 1.0)
SMALL = (96, 96)
STILL = np.zeros((3, 3))


def pixels(stage, points, frame):
    """(x, y) where the camera sees points of the world."""
    homogeneous = stage.seen(np.atleast_2d(points), frame) @ stage.intrinsics.T
    assert (homogeneous[:, 2] > 0).all()
    return homogeneous[:, :2] / homogeneous[:, 2:]


def ball(*places, **options):
    """A ball that is at one place in each frame."""
    return MeshLayer(BALL.vertices + np.array(places)[:, None], BALL.faces, **options)


def middle(picture, colour):
    """(x, y) of what has the hue of ``colour``."""
    other = [i for i in range(3) if colour[i] == 0]
    rows, columns = np.nonzero(picture[..., other].max(-1) < 0.6 * picture[..., np.argmax(colour)])
    return columns.mean() + 0.5, rows.mean() + 0.5


# the stage


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.2, 3.0, 20.0]),
    st.sampled_from(["front", "left_half_above", "back"]),
    st.sampled_from(["y", "z"]),
)
@settings(max_examples=20, deadline=None)
def test_all_within_reach_of_the_path_is_in_the_picture(seed, extent, view, up):
    rng = np.random.default_rng(seed)
    path = rng.normal(size=3) * 9 + np.cumsum(rng.uniform(-1, 1, (40, 3)), 0) * extent / 10
    stage = Stage.around(path, view=view, up=up, size=(80, 60), heading=rng.uniform(-4, 4), reach=0.8, smooth=5)
    around = 0.8 * np.concatenate([np.eye(3), -np.eye(3)])
    for frame in range(0, 40, 5):
        x, y = pixels(stage, path[frame] + around, frame).T
        assert min(x.min(), y.min()) >= 0 and x.max() <= 60 and y.max() <= 80


def test_a_short_path_is_seen_by_a_camera_that_stands_and_a_long_one_by_one_that_follows():
    line = np.linspace(0, 1, 50)[:, None] * [0.6, 0.8, 0]
    assert Stage.around(3 * line).steady
    follower = Stage.around(20 * line)
    assert not follower.steady and follower.distance < Stage.around(20 * line, roam=99).distance / 2
    np.testing.assert_allclose(follower.centres, 20 * line, atol=1e-9)  # no lag on the straight, not even at its ends
    tower = np.linspace(0, 9, 50)[:, None] * [0, 0, 1.0]
    assert Stage.around(tower).steady  # only the horizontal counts
    shaken = 20 * line + np.random.default_rng(0).normal(size=line.shape) * 0.1
    assert np.abs(np.diff(Stage.around(shaken, smooth=10).centres, 3, axis=0)).max() < np.abs(np.diff(shaken, 3, axis=0)).max() / 50


@pytest.mark.parametrize("up", ["y", "z"])
@pytest.mark.parametrize("turn", [0.0, 0.7, -2.5])
def test_seen_from_the_front_the_left_hand_is_on_the_right_and_down_is_down(up, turn):
    upright = Rotation.from_euler("x", 90 if up == "z" else 0, degrees=True)
    body = Rotation.from_rotvec(turn * np.array([0, 0, 1] if up == "z" else [0, 1, 0])) * upright
    assert heading(body.as_rotvec(), up) == pytest.approx(turn)
    stage = Stage.around(STILL, up=up, heading=turn, tilt=0)
    left_hand, foot, nose = body.apply(np.eye(3) * (0.7, -0.9, 0.2))
    centre, hand, toe = pixels(stage, [(0, 0, 0), left_hand, foot], 0)
    np.testing.assert_allclose(hand[1], centre[1])
    np.testing.assert_allclose(toe[0], centre[0])
    assert hand[0] > centre[0] + 50 and toe[1] > centre[1] + 50
    assert stage.seen(nose[None], 0)[0, 2] < stage.distance
    from_the_left = Stage.around(STILL, up=up, heading=turn, view="left")
    assert from_the_left.seen(left_hand[None], 0)[0, 2] < from_the_left.distance


def test_worlds_with_y_up_and_z_up_are_seen_alike():
    path = np.cumsum(np.random.default_rng(0).normal(size=(30, 3)) * 0.5, 0)
    turned = path[:, [0, 2, 1]] * (1, -1, 1)
    first, second = Stage.around(path, up="y", floor=-5.0), Stage.around(turned, up="z", floor=-5.0)
    np.testing.assert_allclose(first.seen(path, 7), second.seen(turned, 7), atol=1e-9)


@pytest.mark.parametrize("length", [1.0, 30.0])
def test_tiles_stay_where_they_are_in_the_world(length):
    path = np.linspace(0, length, 60)[:, None] * [1, 0, 0] + (0, 0, 1.0)
    stage = Stage.around(path, floor=0.0, view="above")
    for frame in (0, 30, 59):
        ground = stage.backdrop(frame)
        corner = np.floor(stage.centres[frame][:2])
        greys: dict[int, list[int]] = {0: [], 1: []}
        for shift in ((0, 0), (1, 0), (0, 1), (1, 1)):
            x, y = pixels(stage, [*(corner + shift + 0.5), 0.0], frame)[0].astype(int)
            if max(x, y) < 384:
                greys[int((corner + shift).sum()) % 2].append(int(ground[y, x, 0]))
        assert min(greys[0]) > max(greys[1]) + 10
    assert stage.steady == (length == 1)


def test_the_ground_ends_at_the_horizon_and_may_be_left_out():
    stage = Stage.around(STILL, floor=-1.0, tilt=0, size=SMALL)
    ground = stage.backdrop(0)
    assert (ground[: SMALL[0] // 2 - 1] == 255).all() and (ground[-10:] < 255).any()
    assert (Stage.around(STILL, size=SMALL).backdrop(0) == 255).all()


def test_the_floor_is_under_the_lowest_surface():
    high, low = ball((0, 0, 2), (0, 0, 1.5)), PointLayer(np.array([[[0, 0, -9.0]], [[np.nan] * 3]]))
    assert lowest([high, low], 2) == pytest.approx(1.3)
    assert lowest([low], 2) == -9
    assert lowest([high], 2, "y") == pytest.approx(-0.2)
    assert lowest([MeshLayer(lambda frame: BALL.vertices - (0, 0, frame), BALL.faces)], 1000) == pytest.approx(-999.2)
    with pytest.raises(InputError, match="layers: found no point"):
        lowest([PointLayer(np.full((2, 4, 3), np.nan))], 2)


# panes


def test_each_pane_shows_its_layers_where_the_camera_sees_them():
    places = [(-0.5, 0, 0), (0, 0, 0.4), (0.5, 0, 0)]
    stage = Stage.around(STILL, size=SMALL)
    panes = [Pane("", [ball(*places, colour=RED)]), Pane("", [PointLayer(np.array(places)[:, None], colour=BLUE, radius=0.1)])]
    for frame, picture in enumerate(film(panes, stage)):
        assert picture.shape[0] == 96 and picture.dtype == np.uint8
        wanted = pixels(stage, places[frame], frame)[0]
        np.testing.assert_allclose(middle(picture[:, :96], RED), wanted, atol=0.6)
        np.testing.assert_allclose(middle(picture[:, -96:], BLUE), wanted, atol=0.6)
        assert (picture[:, 96:-96] == 255).all() and picture.shape[1] > 192


def test_missing_points_and_their_rods_are_not_drawn():
    points = np.array([[-0.8, 0, 0], [0, 0, 0], [0.8, 0, 0.0]])
    track = np.stack([points] * 3)
    track[1, 2] = np.nan
    track[2] = np.inf
    layer = PointLayer(track, [(0, 1), (1, 2)], radius=0.05)
    stage = Stage.around(STILL, size=SMALL)
    whole, part, none = film([Pane("", [layer])], stage)
    x, y = pixels(stage, [(-0.4, 0, 0), (0.4, 0, 0)], 0).astype(int).T
    assert (whole[y, x] < 255).any(-1).all()
    assert (part[y[0], x[0]] < 255).any() and (part[:, int(pixels(stage, [0.1, 0, 0], 0)[0, 0]) :] == 255).all()
    assert (none == 255).all()


def test_rods_and_balls_have_their_points_colours():
    layer = PointLayer(np.array([[[-0.7, 0, 0], [0.7, 0, 0.0]]]), [(0, 1)], colour=np.array([RED, BLUE]), radius=0.1)
    stage = Stage.around(STILL[:1], size=SMALL)
    (picture,) = film([Pane("", [layer])], stage)
    (x, _), y = pixels(stage, [(-0.7, 0, 0), (0, 0, 0)], 0).astype(int).T
    assert picture[y[0], x].argmax() == 0 and picture[y[0], 48].argmax() == 2


def test_later_layers_are_painted_over_earlier_ones_as_opaque_as_they_say():
    stage = Stage.around(STILL[:1], size=SMALL)
    far, near = ball((0, 0.5, 0), colour=BLUE), ball((0, -0.5, 0), colour=RED)  # the camera stands at -y
    x, y = pixels(stage, [0, 0, 0], 0)[0].astype(int)

    def colour(*layers):
        return next(film([Pane("", layers)], stage))[y, x].astype(int)

    assert colour(far, near).argmax() == 0 and colour(near, far).argmax() == 2
    half = colour(far, ball((0, -0.5, 0), colour=RED, opacity=0.5))
    np.testing.assert_allclose(half, (colour(far) + colour(near)) / 2, atol=2)


# films


def test_frames_are_drawn_when_they_are_asked_for():
    asked = []

    def vertices(frame):
        asked.append(frame)
        return BALL.vertices

    stage = Stage.around(np.zeros((18000, 3)), size=SMALL)
    pictures = film([Pane("", [MeshLayer(vertices, BALL.faces)])], stage)
    assert asked == []
    first = next(pictures)
    kept = first.copy()
    next(pictures)
    assert asked == [0, 1]
    np.testing.assert_array_equal(first, kept)
    assert len(list(film([Pane("", [MeshLayer(vertices, BALL.faces)])], stage, range(0, 18000, 6000)))) == 3
    assert asked[2:] == [0, 6000, 12000]


def test_captions_stand_above_their_panes():
    stage = Stage.around(STILL, size=SMALL)
    (plain,) = film([Pane("", []), Pane("", [])], stage, [0])
    (picture,) = film([Pane("left", []), Pane("", [])], stage, [0])
    above = picture.shape[0] - plain.shape[0]
    assert plain.shape[0] == 96 and above > 10
    assert (picture[:above, :96] < 128).any() and (picture[:above, 96:] == 255).all()


def test_a_sheet_shows_frames_spread_over_the_film():
    places = [(x, 0, 0) for x in np.linspace(-0.6, 0.6, 21)]
    stage = Stage.around(np.zeros((21, 3)), size=SMALL)
    panes = [Pane("", [ball(*places, colour=RED)])]
    sheet = film_sheet(panes, stage, 3, fps=10, columns=3)
    seen = np.flatnonzero((sheet[..., 1] < 0.6 * sheet[..., 0]).any(0))
    assert len(np.split(seen, np.flatnonzero(np.diff(seen) > 1) + 1)) == 3
    assert film_sheet(panes, stage, 99).size > sheet.size  # never more frames than there are


def test_bad_input_is_named():
    stage = Stage.around(STILL, size=SMALL)
    with pytest.raises(InputError, match="panes: found none"):
        film([], stage)
    with pytest.raises(InputError, match=r"pane 'body': a layer of shape \(1, 162, 3\), expected \(3, N, 3\)"):
        film([Pane("body", [ball((0, 0, 0))])], stage)
    with pytest.raises(InputError, match=r"frames: found 3\.\.3, expected 0\.\.2"):
        film([Pane("", [])], stage, [3])
    with pytest.raises(InputError, match=r"frame 0 of a layer: shape \(4,\)"):
        next(film([Pane("", [PointLayer(lambda frame: np.zeros(4))])], stage))
    with pytest.raises(InputError, match="vertices: 486 values are NaN"):
        next(film([Pane("", [ball((0, np.nan, 0), (0, 0, 0), (0, 0, 0))])], stage))
    with pytest.raises(InputError, match=r"edges: found \(0, 1\), expected two indices in 0\.\.0"):
        next(film([Pane("", [PointLayer(STILL[:, None], [(0, 1)])])], stage))
    with pytest.raises(InputError, match=r"root_orient: shape \(2, 3\)"):
        heading(np.zeros((2, 3)))
    with pytest.raises(InputError, match="count: found 0"):
        film_sheet([Pane("", [])], stage, 0)
    for options, message in (
        ({"path": np.zeros((0, 3))}, r"path: shape \(0, 3\)"),
        ({"path": np.full((2, 3), np.nan)}, "path: 6 values are NaN"),
        ({"up": "x"}, "up: found 'x'"),
        ({"view": "sideways"}, "view: found 'sideways'"),
        ({"reach": 0}, "reach, smooth: found 0"),
        ({"size": (5, 5)}, r"size: found \(5, 5\)"),
    ):
        with pytest.raises(InputError, match=message):
            Stage.around(**{"path": STILL, **options})
