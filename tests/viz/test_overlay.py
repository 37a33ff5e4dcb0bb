"""Pictures of a fit: bodies where their camera sees them, who is nearer in front, faint keypoints, two more sides in one scale."""

import math

import cv2
import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from dposer.body import BodyModel
from dposer.errors import InputError
from dposer.viz.overlay import RESIDUAL, draw_detections, draw_residuals, fit_sheet, mean_residual, overlay, side_and_top

BALL = trimesh.creation.icosphere(3, 0.5)
PAGE = np.full((120, 160, 3), 255, np.uint8)
FOCAL, CENTRE = 150.0, (80.0, 60.0)
RED, GREEN, BLUE = np.eye(3)


def ball(x: float = 0.0, y: float = 0.0, z: float = 3.0, size: float = 1.0) -> np.ndarray:
    return np.asarray(size * BALL.vertices) + (x, y, z)


def box_of(picture: np.ndarray, page: np.ndarray) -> np.ndarray:
    """Left, top, right and bottom edge of what differs from the page by more than half of the most."""
    difference = np.abs(picture.astype(int) - page).max(-1)
    rows, columns = np.nonzero(difference > difference.max() / 2)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def painted(picture: np.ndarray, channel: int) -> np.ndarray:
    """Where one of the colours red, green, blue was drawn on a white page."""
    others = [other for other in range(3) if other != channel]
    return (picture[..., channel].astype(int) - picture[..., others].max(-1) > 20).astype(bool)


# --- bodies over the photograph ------------------------------------------------------------------------------------------


def test_a_body_is_where_its_camera_sees_it() -> None:
    body = BodyModel()
    out = body(torch.zeros(1, 63), torch.tensor([[math.pi, 0, 0]]), trans=torch.tensor([[0.1, 0.2, 3.0]]))
    assert out.vertices is not None
    (vertices,), (joints,) = out.vertices.numpy(), out.joints[:, :22].numpy()
    page = np.full((480, 640, 3), 255, np.uint8)
    focal, centre = 500.0, np.array([310.0, 250.0])
    picture = overlay(page, [vertices], body.faces, focal, (310.0, 250.0), colours=(0, 0, 0), opacity=1.0)

    pixels = focal * vertices[:, :2] / vertices[:, 2:] + centre
    np.testing.assert_allclose(box_of(picture, page), [*pixels.min(0), *pixels.max(0)], atol=1)
    columns, rows = np.floor(focal * joints[:, :2] / joints[:, 2:] + centre).astype(int).T
    assert (picture[rows, columns] == 0).all()
    assert rows[15] < rows[0] < rows[10] and columns[1] > columns[2]  # upright, and facing the camera


@settings(max_examples=10, deadline=None)
@given(x=st.floats(-0.8, 0.8), y=st.floats(-0.5, 0.5), z=st.floats(2, 6), ratio=st.floats(0.7, 1.4))
def test_outlines_follow_the_intrinsics(x: float, y: float, z: float, ratio: float) -> None:
    vertices = ball(x, y, z, size=0.6)
    focal = np.array([FOCAL, ratio * FOCAL])
    picture = overlay(PAGE, [vertices], BALL.faces, (focal[0], focal[1]), CENTRE, colours=(0, 0, 0), opacity=1.0)
    pixels = focal * vertices[:, :2] / vertices[:, 2:] + CENTRE
    corners = np.concatenate([pixels.min(0), pixels.max(0)])
    np.testing.assert_allclose(box_of(picture, PAGE), np.clip(corners, 0, (160, 120, 160, 120)), atol=1)


def test_the_nearer_person_hides_the_other_whatever_the_order() -> None:
    people, colours = np.stack([ball(z=2.5, size=0.4), ball(0.1, z=4.0)]), np.array([RED, BLUE])
    picture = overlay(PAGE, people, BALL.faces, FOCAL, CENTRE, colours=colours)
    np.testing.assert_array_equal(picture, overlay(PAGE, people[::-1], BALL.faces, FOCAL, CENTRE, colours=colours[::-1]))
    alone = overlay(PAGE, people[:1], BALL.faces, FOCAL, CENTRE, colours=RED)
    within = cv2.erode(painted(alone, 0).astype(np.uint8), np.ones((3, 3))).astype(bool)
    assert within.any()
    np.testing.assert_array_equal(picture[within], alone[within])  # nothing shines through
    assert painted(picture, 2).any()


def test_those_who_cross_are_seen_in_part() -> None:
    people = np.stack([ball(-0.15), ball(0.15)])
    picture = overlay(PAGE, people, BALL.faces, FOCAL, CENTRE, colours=np.array([RED, BLUE]))
    assert painted(picture, 0)[:, :79].any() and not painted(picture, 0)[:, 82:].any()
    assert painted(picture, 2)[:, 82:].any() and not painted(picture, 2)[:, :79].any()


def test_opacity_mixes_with_the_photograph() -> None:
    whole, half, none = (overlay(PAGE, [ball()], BALL.faces, FOCAL, CENTRE, opacity=opacity) for opacity in (1.0, 0.5, 0.0))
    np.testing.assert_allclose(half, (whole.astype(float) + PAGE) / 2, atol=1)
    np.testing.assert_array_equal(none, PAGE)


def test_outlines_are_smooth_and_nobody_leaves_a_copy() -> None:
    picture = overlay(PAGE, [ball(size=0.7)], BALL.faces, FOCAL, CENTRE, colours=(0, 0, 0), opacity=1.0)
    levels = np.unique(picture)
    assert len(levels) >= 4 and levels[0] == 0
    empty = overlay(PAGE, [], BALL.faces, FOCAL, CENTRE)
    assert (empty == PAGE).all() and empty is not PAGE
    behind = overlay(PAGE, [ball(z=-3)], BALL.faces, FOCAL, CENTRE)
    assert (behind == PAGE).all()


# --- keypoints -----------------------------------------------------------------------------------------------------------


def test_the_less_sure_the_fainter() -> None:
    confidence = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    points = np.column_stack([np.arange(6) * 25.0 + 15.5, np.full(6, 60.5), confidence])
    picture = draw_detections(PAGE, points[None], [], colours=(0, 0, 0), radius=4)
    np.testing.assert_allclose(255 - picture[60, 15:150:25, 0].astype(int), 255 * confidence, atol=1)


def test_a_limb_is_as_faint_as_its_fainter_end_and_dots_keep_their_own() -> None:
    points = np.array([[[30, 60, 1.0], [130, 60, 0.4]]])
    picture = draw_detections(PAGE, points, [(0, 1)], colours=(0, 0, 0), radius=4)
    assert picture[59, 80, 0] == pytest.approx(255 * 0.6, abs=2)
    assert picture[59, 30, 0] == 0


def test_several_people_and_missing_points() -> None:
    points = np.array([[[20, 20, 1], [20, 100, 1]], [[80, 20, 1], [np.nan, 100, 1]], [[140, 20, 1], [140, 100, 0.0]]])
    picture = draw_detections(PAGE, points, [(0, 1)], colours=np.array([RED, BLUE]), radius=3)
    assert painted(picture, 2)[60, 19] and painted(picture, 2)[100, 19]
    assert painted(picture, 0)[19, [19, 79, 139]].all()
    assert (picture[30:, 40:] == 255).all()
    without = draw_detections(PAGE, points[:1, :, :2], [(0, 1)], colours=np.array([RED, BLUE]), radius=3)
    np.testing.assert_array_equal(without, draw_detections(PAGE, points[:1], [(0, 1)], colours=np.array([RED, BLUE]), radius=3))
    for nobody in (np.zeros((0, 25, 3)), np.zeros((2, 25, 3))):
        assert (draw_detections(PAGE, nobody, [(0, 1)]) == PAGE).all()


def test_residuals_lead_from_what_was_measured_to_the_body() -> None:
    measured = np.array([[[30, 30, 1.0], [30, 90, 0.0], [30, 60, 1.0]]])
    projected = np.array([[[90, 30], [90, 90], [np.nan, 60.0]]])
    picture = draw_residuals(PAGE, measured, projected, colours=BLUE, radius=3)
    np.testing.assert_allclose(picture[29, 60], 255 * np.array(RESIDUAL), atol=1)
    np.testing.assert_allclose(picture[29, 89], 255 * np.array(RESIDUAL), atol=1)
    assert painted(picture, 2)[29, 29]
    assert (picture[45:] == 255).all()
    assert mean_residual(measured, projected) == 60


def test_mean_residual_is_of_what_was_measured() -> None:
    measured = np.array([[[0, 0, 1.0], [0, 0, 0.5], [np.nan, 0, 1.0]]])
    projected = np.array([[[3.0, 4], [0, 20], [1, 1]]])
    assert mean_residual(measured, projected) == pytest.approx((5 + 20) / 2)
    assert math.isnan(mean_residual(0 * measured[:, :1], projected[:, :1]))


# --- from the side and from above ----------------------------------------------------------------------------------------


def test_side_and_top_show_depth_height_and_width_in_one_scale() -> None:
    ellipsoid = BALL.vertices * (0.6, 2.0, 1.0)  # 0.6 m wide, 2 m high, 1 m deep
    for picture, extents in zip(side_and_top([ellipsoid], BALL.faces, size=(220, 260), colours=(0, 0, 0)), ((1, 2), (0.6, 1)), strict=True):
        left, top, right, bottom = box_of(np.where(picture > 90, 255, 0), PAGE[:1, :1])
        scale = (bottom - top) / extents[1]
        assert scale == pytest.approx(0.88 * 220 / 2, abs=1)
        assert right - left == pytest.approx(scale * extents[0], abs=2)
        assert (left + right) / 2 == pytest.approx(130, abs=1) and (top + bottom) / 2 == pytest.approx(110, abs=1)


def test_side_and_top_have_the_camera_left_and_below() -> None:
    near_left, far_right = ball(-0.5, 0.4, 2.0, 0.4), ball(0.5, -0.4, 4.0, 0.4)  # the far one is to the right, and higher
    side, top = side_and_top([near_left, far_right], BALL.faces, colours=np.array([RED, BLUE]))

    def middle(picture: np.ndarray, channel: int) -> np.ndarray:
        rows, columns = np.nonzero(painted(picture, channel))
        return np.array([columns.mean(), rows.mean()])

    (dx, dy), (tx, ty) = (middle(picture, 2) - middle(picture, 0) for picture in (side, top))
    assert dx == pytest.approx(-ty, rel=0.03) and dx / 2 == pytest.approx(tx, rel=0.03) == pytest.approx(-dy / 0.8, rel=0.03)
    assert dx > 0


def test_the_ground_is_drawn_under_the_lowest_point() -> None:
    side, top = side_and_top([ball()], BALL.faces, size=(300, 300), colours=RED)
    lowest = np.nonzero(painted(side, 0))[0].max()
    ground = np.flatnonzero((np.abs(side[:, :20].astype(int) - 150) < 5).all((1, 2)))
    assert len(ground) and abs(ground.mean() - lowest) < 3
    assert not (np.abs(top[:, :20].astype(int) - 150) < 5).all((1, 2)).any()


def test_a_fit_gone_astray_is_still_drawn() -> None:
    side, _ = side_and_top([ball(), ball(z=1e6)], BALL.faces, size=(100, 100))
    assert side.shape == (100, 100, 3)
    assert side_and_top([np.zeros((3, 3))], np.array([[0, 1, 2]]), size=(40, 60))[1].shape == (40, 60, 3)


# --- the sheet -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(120, 160), (160, 120), (1200, 900)])
def test_sheets_of_small_and_large_photographs(shape: tuple[int, int]) -> None:
    page = np.full((*shape, 3), 200, np.uint8)
    centre = (shape[1] / 2, shape[0] / 2)
    measured = np.array([[[centre[0], centre[1], 1.0], [10.0, 10.0, 0.5]]])
    sheet = fit_sheet(page, [ball(size=0.4)], BALL.faces, shape[0], centre, measured, measured[..., :2] + 3, [(0, 1)], longest=200)
    panes = {(120, 160): (2, 2), (160, 120): (1, 4), (1200, 900): (1, 4)}[shape]
    small = 200 * np.array(shape) / max(shape)
    assert (np.array(sheet.shape[:2]) > small * panes).all() and (np.array(sheet.shape[:2]) < small * panes + 150).all()
    assert (page == 200).all()


def test_the_sheet_scales_camera_and_photograph_together() -> None:
    measured = np.array([[[0.0, 0.0, 0.0]]])
    small, large = (
        fit_sheet(np.full((60 * k, 80 * k, 3), 255, np.uint8), [ball(0.2)], BALL.faces, 80.0 * k, (40.0 * k, 30.0 * k), measured,
                  measured[..., :2], [], longest=160)
        for k in (1, 3)
    )  # fmt: skip
    assert np.abs(small.astype(int) - large).mean() < 0.1


# --- bad input -----------------------------------------------------------------------------------------------------------


def test_wrong_shapes_are_named() -> None:
    points = np.zeros((1, 4, 3))
    for call, name in (
        (lambda: overlay(PAGE, [ball(), ball()[:9]], BALL.faces, 1.0, (0, 0)), "meshes"),
        (lambda: overlay(PAGE, [ball()], BALL.faces, 1.0, (0, 0), colours=np.zeros((2, 3))), "colours"),
        (lambda: overlay(PAGE[..., 0], [], BALL.faces, 1.0, (0, 0)), "image"),
        (lambda: overlay(PAGE, [ball() * np.nan], BALL.faces, 1.0, (0, 0)), "NaN"),
        (lambda: draw_detections(PAGE, points[0], []), "points"),
        (lambda: draw_detections(PAGE, points + 1, [(0, 4)]), "edges"),
        (lambda: draw_residuals(PAGE, points, points), "projected"),
        (lambda: side_and_top([], BALL.faces), "meshes"),
    ):
        with pytest.raises(InputError, match=name):
            call()
