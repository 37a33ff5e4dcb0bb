import numpy as np
import pytest

from dposer.body.skeleton import SMPLX_JOINTS, SMPLX_PARENTS
from dposer.errors import InputError
from dposer.viz import draw_keypoints, render_skeleton, side_colours

PAGE = np.full((100, 120, 3), 255, np.uint8)
RED, BLUE = (1.0, 0, 0), (0, 0, 1.0)


def centre_of(picture):
    ink = 255 - picture.astype(float).min(-1)
    rows, columns = np.indices(ink.shape) + 0.5
    return (ink * columns).sum() / ink.sum(), (ink * rows).sum() / ink.sum()


def test_dots_lie_on_their_keypoints_to_a_part_of_a_pixel():
    for point in ((50.0, 40.0), (50.5, 40.25), (30.75, 70.5)):
        drawn = draw_keypoints(PAGE, np.array([point]), [], colours=(0, 0, 0), radius=4)
        np.testing.assert_allclose(centre_of(drawn), point, atol=0.15)
    assert (PAGE == 255).all()


def test_edges_join_their_keypoints_in_the_colour_of_the_second():
    points = np.array([[20, 50, 1], [100, 50, 1.0]])
    drawn = draw_keypoints(PAGE, points, [(0, 1)], colours=np.array([RED, BLUE]), radius=3)
    np.testing.assert_array_equal(drawn[49, 60], [0, 0, 255])
    np.testing.assert_array_equal(drawn[49, 19], [255, 0, 0])


def test_missing_keypoints_and_their_edges_are_not_drawn():
    points = np.array([[20, 50, 1], [100, 50, 0], [60, np.nan, 1], [60, 1e12, 1]])
    drawn = draw_keypoints(PAGE, points, [(0, 1), (0, 2), (0, 3)], radius=3)
    assert (drawn[:, 30:] == 255).all()
    assert (drawn[:, :30] < 255).any()
    assert (draw_keypoints(PAGE, points, [], threshold=1.0) == 255).all()


def test_keypoints_far_outside_clip_to_the_picture():
    drawn = draw_keypoints(PAGE, np.array([[-5000, 50], [5000, 50.0]]), [(0, 1)], radius=2, colours=(0, 0, 0))
    assert (drawn[50].min(-1) < 128).all()


def test_bad_keypoints_are_named():
    with pytest.raises(InputError, match=r"keypoints: shape \(3,\)"):
        draw_keypoints(PAGE, np.zeros(3), [])
    with pytest.raises(InputError, match=r"edges: found \(0, 7\)"):
        draw_keypoints(PAGE, np.zeros((3, 2)), [(0, 1), (0, 7)])


def test_a_rod_runs_from_joint_to_parent():
    joints = np.array([[0, 0, 0], [0.5, 0.4, 0]])
    drawn = render_skeleton(joints, [-1, 0], thickness=0.02, colours=(0, 0, 0), centre=np.zeros(3))
    ink = 255 - drawn[..., 0].astype(int)
    scale = 1500 / 7
    for share in (0.0, 0.3, 0.7, 1.0):
        assert ink[int(200 - share * 0.4 * scale), int(192 + share * 0.5 * scale)] == 255
    length = np.hypot(0.5, 0.4) * scale
    assert ink.sum() / 255 == pytest.approx(length * 0.04 * scale, rel=0.2)


def test_skeleton_takes_the_views_of_meshes_and_batches():
    rng = np.random.default_rng(0)
    joints = rng.normal(size=(2, 55, 3)) * 0.3
    colours = side_colours(SMPLX_JOINTS)
    pictures = render_skeleton(joints, SMPLX_PARENTS, colours=colours, view="left_above", size=(96, 72))
    assert pictures.shape == (2, 96, 72, 3)
    for picture, pose in zip(pictures, joints, strict=True):
        np.testing.assert_array_equal(picture, render_skeleton(pose, SMPLX_PARENTS, colours=colours, view="left_above", size=(96, 72)))
    with pytest.raises(InputError, match="view"):
        render_skeleton(joints, SMPLX_PARENTS, view="sideways")


def test_bones_of_no_length_and_any_direction_are_drawn():
    joints = np.array([[0, 0, 0], [0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1.0]])
    assert (render_skeleton(joints, [-1, 0, 0, 0, 0], size=(64, 48)) < 255).any()


def test_sides_have_their_own_colours():
    left, right, middle = side_colours(["left_hip", "right_hip", "neck"])
    assert len({tuple(c) for c in (left, right, middle)}) == 3


def test_bad_skeletons_are_named():
    with pytest.raises(InputError, match=r"joints: shape \(3, 3\), expected \(2, 3\)"):
        render_skeleton(np.zeros((3, 3)), [-1, 0])
    with pytest.raises(InputError, match=r"parents: found -1\.\.5"):
        render_skeleton(np.zeros((2, 3)), [-1, 5])
    with pytest.raises(InputError, match="NaN"):
        render_skeleton(np.full((2, 3), np.nan), [-1, 0])
