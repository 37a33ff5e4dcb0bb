"""Figures of hypotheses: what is to be seen is there, where geometry puts it."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from dposer.body.skeleton import H36M_17, HEATMAP_16
from dposer.errors import InputError
from dposer.viz.hypotheses import (
    MARGIN,
    REACH,
    HypothesisCloud,
    blended,
    draw_cloud,
    draw_heatmaps,
    draw_joints,
    figure_sheet,
    joint_hues,
    on_map,
    silhouettes,
    turned,
)
from dposer.viz.skeletons import LEFT, RIGHT
from tests.hypotheses_data import WRIST, hidden_arm

SIDE = 32


@pytest.fixture(scope="module")
def cloud() -> HypothesisCloud:
    return hidden_arm()


@pytest.fixture(scope="module")
def maps(cloud: HypothesisCloud) -> np.ndarray:
    """(16, 32, 32): one cell of each joint is 1, the last joint is missing."""
    rows = [H36M_17.joints.index(name) for name in HEATMAP_16.joints]
    cells = on_map(cloud.pose[0], cloud.pose[0], SIDE)[rows].round().astype(int)
    maps = np.zeros((16, SIDE, SIDE))
    maps[np.arange(16), cells[:, 1], cells[:, 0]] = 1
    maps[-1] = 0
    return maps


def pixels(image: np.ndarray, colour: tuple[float, ...] | np.ndarray, near: int = 12) -> np.ndarray:
    """(n, 2) x, y of those that are of a colour."""
    return np.argwhere(np.abs(image.astype(int) - np.rint(255 * np.array(colour))).max(-1) <= near)[:, ::-1]


def test_hues_are_told_apart() -> None:
    hues = joint_hues(16)
    assert (np.linalg.norm(hues[:, None] - hues, axis=-1) + np.eye(16)).min() > 0.15 and 0 <= hues.min() <= hues.max() <= 1


def test_maps_lie_in_their_colours_over_the_ground() -> None:
    maps = np.zeros((3, 8, 8))
    maps[1, 2, 5], maps[2, 6, 1] = 1, 0.1
    photo = np.full((64, 64, 3), 200, np.uint8)
    dark, over = blended(maps), blended(maps, photo)
    assert dark.shape == over.shape == (64, 64, 3) and (over[0, 0] == 100).all() and dark[0, 0].max() < 30
    for image in (dark, over):
        strong = np.unravel_index(np.abs(image.astype(int) - image[0, 0]).sum(-1).argmax(), (64, 64))
        assert np.abs(np.array(strong) - (20, 44)).max() <= 1  # the middle of the cell
        assert np.abs(image[strong] / 255 - joint_hues(3)[1]).max() < 0.25  # bilinear: no pixel is all of a cell
    assert (dark[52, 12] != dark[0, 0]).any()  # dim ones are seen


def test_heatmaps_have_dots_and_a_legend(maps: np.ndarray) -> None:
    image = draw_heatmaps(maps, inches=2.5)
    side = image.shape[0]
    assert image.shape[1] == pytest.approx(1.42 * side, abs=2) and (image[:, int(1.1 * side) :].min(-1) < 120).sum() > 300
    for joint, found in ((0, True), (15, False)):
        dots = pixels(image[:, :side], joint_hues(16)[joint], 25)
        assert (len(dots) > 8) is found
        if found:
            y, x = np.unravel_index(maps[joint].argmax(), (SIDE, SIDE))
            assert np.abs(dots.mean(0) - (np.array([x, y]) + 0.5) * side / SIDE).max() < side / SIDE
    with pytest.raises(InputError, match="16 of them for 3 names"):
        draw_heatmaps(maps, ("a", "b", "c"))
    with pytest.raises(InputError, match="shape"):
        draw_heatmaps(maps[0])


def test_the_cloud_is_seen_from_two_sides(cloud: HypothesisCloud) -> None:
    image = draw_cloud(cloud, 1, inches=3.0)
    half = image.shape[1] // 2
    front, side = image[:, :half], image[:, half:]
    assert pixels(front, LEFT)[:, 0].mean() > pixels(front, RIGHT)[:, 0].mean() + 10  # who faces the camera has the left to the right
    assert abs(pixels(side, LEFT)[:, 0].mean() - pixels(side, RIGHT)[:, 0].mean()) < 15
    ring = (162 / 255, 28 / 255, 175 / 255)
    sure = draw_cloud(replace(cloud, truth=None, ambiguous=np.zeros_like(cloud.ambiguous)), 1, inches=3.0)
    assert len(pixels(image, ring, 40)) > 30 and not len(pixels(sure, ring, 40))
    dark = [int((some.max(-1) < 60).sum()) for some in (image, sure)]
    assert dark[0] > dark[1] + 50  # the truth
    assert draw_cloud(cloud, 1, ellipsoids=True, inches=3.0).shape[1] > image.shape[1]  # they reach farther
    with pytest.raises(InputError, match="frame 2: expected 0 to 1"):
        draw_cloud(cloud, 2)


def test_silhouettes_are_those_of_the_ellipsoid() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(2, 3, 3))
    covariance, mean = root @ root.swapaxes(1, 2), rng.normal(size=(2, 3))
    ball = rng.normal(size=(20000, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    for azimuth in (0.0, 35.0):
        outline = silhouettes(mean, covariance, azimuth)
        surface = turned(mean[:, None] + REACH * ball @ root.swapaxes(1, 2), azimuth)
        np.testing.assert_allclose(outline[:, 0], outline[:, -1])
        for joint in range(2):
            hull = cv2.convexHull(surface[joint].astype(np.float32))
            assert cv2.contourArea(outline[joint].astype(np.float32)) == pytest.approx(cv2.contourArea(hull), rel=0.02)


def test_a_person_fills_a_map(cloud: HypothesisCloud) -> None:
    pose = cloud.pose[0]
    places = on_map(pose, pose)
    assert np.ptp(places, axis=0).max() == pytest.approx(64 / MARGIN)
    np.testing.assert_allclose((places.max(0) + places.min(0)) / 2, 32)
    np.testing.assert_allclose(on_map(pose + (0, 0, 1), pose), places, rtol=1e-6)  # depth is not seen


def test_joints_one_by_one(maps: np.ndarray, cloud: HypothesisCloud) -> None:
    moved = cloud.hypotheses.copy()
    moved[0, :, WRIST, 0] += 0.2
    one, other = (draw_joints(maps, some, inches=6.0) for some in (cloud, replace(cloud, hypotheses=moved)))
    assert one.shape[1] == 780
    rows, columns = np.nonzero((one != other).any(-1))
    assert len(rows) > 20 and rows.min() > 0.75 * len(one) and columns.min() > 0.86 * 780  # of the last joint, beside its map
    with pytest.raises(InputError, match="heatmaps"):
        draw_joints(maps[:5], cloud)


def test_everything_side_by_side(maps: np.ndarray, cloud: HypothesisCloud) -> None:
    photo = np.full((50, 40, 3), (10, 200, 30), np.uint8)
    sheets = [figure_sheet(cloud, height=300), figure_sheet(cloud, maps, photo, title="somebody", height=300)]
    assert sheets[1].shape[1] > sheets[0].shape[1] + 240 + 400 and sheets[1].shape[0] > sheets[0].shape[0] > 300
    assert len(pixels(sheets[1], (10 / 255, 200 / 255, 30 / 255), 0)) == 240 * 300


def test_what_does_not_go_together_is_refused(cloud: HypothesisCloud) -> None:
    for change in ({"pose": cloud.pose[:1]}, {"truth": cloud.pose[:, :3]}, {"weights": cloud.weights[:, :1]}):
        with pytest.raises(InputError, match="shape"):
            replace(cloud, **change)
    with pytest.raises(InputError, match="mean"):
        replace(cloud, mean=np.full_like(cloud.mean, np.nan))
    with pytest.raises(InputError, match="lacks mean"):
        HypothesisCloud.of(H36M_17, cloud.hypotheses, {"pose": cloud.pose})
    assert cloud.ambiguous[:, WRIST].all() and len(cloud) == 2
