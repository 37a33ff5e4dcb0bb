"""What users have → what a network wants: conversions keep the geometry, holes are filled, rates change, and nonsense is noticed."""

import numpy as np
import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dposer.assets import asset
from dposer.body import BodyModel
from dposer.body.points import BodyPoints, Skeleton
from dposer.body.skeleton import COCO_17, H36M_17, MPI_INF_3DHP_17, OPENPOSE_25, Layout, mirror_name
from dposer.data.amass import read_amass
from dposer.data.keypoints import DETECTED
from dposer.errors import InputError
from dposer.lifting.inputs import (
    check_plausible,
    fill_gaps,
    likely_layout,
    resample_keypoints,
    resample_rate,
    standing_places,
    to_layout,
)

TARGETS = (H36M_17, MPI_INF_3DHP_17)
SIZE = (1000, 1000)
seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=15, deadline=None)


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel()


@pytest.fixture(scope="module")
def space(body: BodyModel) -> dict[str, np.ndarray]:
    """Layout → (F, K, 3) metres, x right, y down, z away: somebody who walks."""
    motion = read_amass(asset("examples", "motion.npz"))
    rows = slice(0, 60, 3)
    pose, root, trans = (torch.as_tensor(v[rows], dtype=torch.float32) for v in (motion.pose_body, motion.root_orient, motion.trans))
    posed = Skeleton(body)(pose, roma.rotvec_to_rotmat(root), trans)
    layouts = (COCO_17, OPENPOSE_25, *TARGETS)
    return {layout.name: BodyPoints.of_layout(body, layout)(posed).numpy()[..., [0, 2, 1]] * (1, -1, 1) for layout in layouts}


@pytest.fixture(scope="module")
def seen(space: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same through a camera: (F, K, 3) pixels and confidence."""
    middle = space[COCO_17.name].mean((0, 1))
    found = {}
    for name, points in space.items():
        points = points - middle + (0, 0, 5)
        pixels = 1000 * points[..., :2] / points[..., 2:] + 500
        found[name] = np.concatenate([pixels, np.ones_like(pixels[..., :1])], -1)
    return found


def some(seed: int, layout: Layout, frames: int = 6, missing: float = 0.2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = np.concatenate(
        [rng.uniform(0, 500, (frames, len(layout.joints), 2)), rng.uniform(0.1, 1, (frames, len(layout.joints), 1))], -1
    )
    points[rng.uniform(size=points.shape[:2]) < missing] = 0
    return points


# ---- joints


@pytest.mark.parametrize("target", TARGETS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("source", [*DETECTED.values(), *TARGETS], ids=lambda layout: layout.name)
def test_every_layout_becomes_every_target_and_commutes_with_similarities_and_mirrors(source: Layout, target: Layout) -> None:
    keypoints = some(0, source)
    found = to_layout(keypoints, source, target)
    assert found.shape == (6, 17, 3) and ((found[..., 2] > 0) | (found == 0).all(-1)).all()
    seen = found[..., 2] > 0

    turned = keypoints.copy()
    turned[..., :2] = 2 * keypoints[..., [1, 0]] * (-1, 1) + (30, 40)
    again = to_layout(turned, source, target)
    np.testing.assert_allclose(again[..., :2][seen], (2 * found[..., [1, 0]] * (-1, 1) + (30, 40))[seen])
    np.testing.assert_array_equal(again[..., 2], found[..., 2])

    mirrored = keypoints[:, [source.joints.index(mirror_name(name)) for name in source.joints]] * (-1, 1, 1)
    np.testing.assert_allclose(to_layout(mirrored, source, target), found[:, target.mirror] * (-1, 1, 1), atol=1e-9)


def test_the_weakest_part_decides_and_rules_do_not_change_in_between() -> None:
    keypoints = some(1, COCO_17, frames=9, missing=0)
    row = COCO_17.joints.index
    ears, shoulders = [row("left_ear"), row("right_ear")], [row("left_shoulder"), row("right_shoulder")]
    keypoints[4, ears[0]] = 0
    found = to_layout(keypoints, COCO_17, H36M_17)
    thorax, top = (found[:, H36M_17.joints.index(name)] for name in ("neck", "head_top"))
    np.testing.assert_allclose(thorax[:, :2], keypoints[:, shoulders, :2].mean(1))
    np.testing.assert_allclose(thorax[:, 2], keypoints[:, shoulders, 2].min(1))
    assert (np.flatnonzero(top[:, 2] == 0) == [4]).all()  # not another rule for one frame
    keypoints[1:, ears[0]] = 0
    eyes = keypoints[:, [row("left_eye"), row("right_eye")], :2].mean(1)
    np.testing.assert_allclose(to_layout(keypoints, COCO_17, H36M_17)[:, 10, :2], eyes)


def test_rules_put_joints_where_the_body_has_them(space: dict[str, np.ndarray]) -> None:
    for target, bounds in (
        (H36M_17, {"head": 0.02, "head_top": 0.02, "pelvis": 1e-6}),
        (MPI_INF_3DHP_17, {"head": 0.02, "head_top": 0.04}),
    ):
        for flat in ((0, 1), (2, 1)):  # seen from two sides, from far away
            source = np.concatenate([space[OPENPOSE_25.name][..., flat], np.ones((20, 25, 1))], -1)
            error = np.linalg.norm(to_layout(source, OPENPOSE_25, target)[..., :2] - space[target.name][..., flat], axis=-1).mean(0)
            for name, bound in bounds.items():
                assert error[target.joints.index(name)] < bound, (target.name, name)


def test_what_cannot_be_converted_is_told() -> None:
    with pytest.raises(InputError, match="no pelvis"):
        to_layout(np.ones((1, 1, 3)), Layout("face", ("nose",), ()), H36M_17)
    with pytest.raises(InputError, match="expected \\(frames, 17, 3\\) of coco17"):
        to_layout(np.ones((2, 18, 3)), COCO_17, H36M_17)


# ---- holes and rates


def test_who_is_cut_off_is_taken_to_stand(seen: dict[str, np.ndarray]) -> None:
    whole = seen[H36M_17.name]
    cut = whole.copy()
    cut[:, [row for row, name in enumerate(H36M_17.joints) if name.endswith(("knee", "ankle"))]] = 0
    tall, guessed = (np.ptp(points[..., 1], axis=1) for points in (whole, standing_places(cut, H36M_17)))
    np.testing.assert_allclose(guessed, tall, rtol=0.2)
    np.testing.assert_allclose(np.ptp(fill_gaps(cut, H36M_17)[0][..., 1], axis=1) / tall, 0.5, atol=0.15)  # their feet are at their hips
    np.testing.assert_array_equal(standing_places(whole, H36M_17), fill_gaps(whole, H36M_17)[0])


@quick
@given(seeds, st.floats(0, 0.9))
def test_gaps_are_filled_and_nothing_else_is_touched(seed: int, missing: float) -> None:
    keypoints = some(seed, H36M_17, 12, missing)
    keypoints[0, 0] = (3, 4, 1)  # somebody is there
    keypoints[1, 1, 0] = np.nan
    points, filled = fill_gaps(keypoints, H36M_17)
    assert np.isfinite(points).all() and filled[1, 1]
    np.testing.assert_array_equal(filled, ~((keypoints[..., 2] > 0) & np.isfinite(keypoints).all(-1)))
    np.testing.assert_array_equal(points[~filled], keypoints[~filled][:, :2])
    again, none = fill_gaps(np.concatenate([points, np.ones_like(points[..., :1])], -1), H36M_17)
    np.testing.assert_array_equal(again, points)
    assert not none.any()


def test_gaps_follow_straight_lines_and_stay_put_at_the_ends() -> None:
    time = np.arange(10.0)[:, None, None]
    keypoints = np.concatenate([time * (2, -3) + np.arange(17.0)[:, None], np.ones((10, 17, 1))], -1)
    truth = keypoints[..., :2].copy()
    keypoints[3:7, 5] = keypoints[:2, 6] = keypoints[8:, 6] = 0
    points, _ = fill_gaps(keypoints, H36M_17)
    np.testing.assert_allclose(points[:, 5], truth[:, 5])
    np.testing.assert_allclose(points[:, 6], truth[np.clip(np.arange(10), 2, 7), 6])


def test_limbs_never_seen_are_parallel_to_their_twins() -> None:
    keypoints = some(2, H36M_17, missing=0)
    row = H36M_17.joints.index
    for name in ("left_knee", "left_ankle", "head", "head_top"):
        keypoints[:, row(name)] = 0
    points, filled = fill_gaps(keypoints, H36M_17)
    right, left = (points[:, [row(f"{side}_{joint}") for joint in ("hip", "knee", "ankle")]] for side in ("right", "left"))
    np.testing.assert_allclose(np.diff(left, axis=1), np.diff(right, axis=1))
    np.testing.assert_array_equal(points[:, row("head_top")], points[:, row("neck")])
    assert filled[:, [row("left_knee"), row("head")]].all()
    with pytest.raises(InputError, match="no person in any of 6 frames"):
        fill_gaps(0 * keypoints, H36M_17)


@quick
@given(st.floats(5, 120), st.floats(5, 120), st.integers(1, 40))
def test_rates_keep_straight_lines(rate: float, other: float, frames: int) -> None:
    signal = np.stack([np.arange(frames) / rate, 1 - 2 * np.arange(frames) / rate], -1)
    found = resample_rate(signal, rate, other)
    time = np.minimum(np.arange(len(found)) / other, (frames - 1) / rate)
    np.testing.assert_allclose(found, np.stack([time, 1 - 2 * time], -1), atol=1e-9)
    assert time[-1] == pytest.approx((frames - 1) / rate)  # to the very end, and no further
    back = resample_rate(found, other, rate, frames)
    assert back.shape == signal.shape and np.abs(back - signal)[:-1].max(initial=0) <= 1 / min(rate, other)
    np.testing.assert_allclose(resample_rate(signal, rate, rate), signal, atol=1e-12)


def test_rates_of_holes_and_other_types() -> None:
    keypoints = some(3, H36M_17, 5, missing=0)
    keypoints[2, 4] = 0
    double = resample_keypoints(keypoints, H36M_17, 25, 50)
    assert double.shape == (9, 17, 3) and double[4, 4, 2] == 0 and 0 < double[3, 4, 2] < keypoints[1, 4, 2]
    np.testing.assert_allclose(double[4, 4, :2], keypoints[[1, 3], 4, :2].mean(0))
    assert resample_rate(np.zeros((4, 2), np.float32), 30, 50).dtype == np.float32
    for rates in ((0, 1), (1, -1), (1, np.inf)):
        with pytest.raises(InputError, match="rates"):
            resample_rate(np.zeros(3), *rates)


# ---- doubts


def test_right_orders_raise_no_doubt_and_are_recognised(seen: dict[str, np.ndarray]) -> None:
    for layout in (COCO_17, *TARGETS):
        assert check_plausible(seen[layout.name], layout, SIZE) == ()
        assert likely_layout(seen[layout.name]) is layout
        for other in (COCO_17, *TARGETS):
            if other is not layout:
                assert any(f"would be in that of {layout.name}" in doubt for doubt in check_plausible(seen[layout.name], other))
    with pytest.raises(InputError, match="16 joints"):
        likely_layout(seen[COCO_17.name][:, 1:])


@quick
@given(seeds)
def test_shuffled_orders_are_doubted(seen: dict[str, np.ndarray], seed: int) -> None:
    order = np.random.default_rng(seed).permutation(17)
    assert any("order of" in doubt for doubt in check_plausible(seen[H36M_17.name][:, order], H36M_17))


def test_every_doubt(seen: dict[str, np.ndarray]) -> None:
    right = seen[H36M_17.name]

    def doubts(keypoints: np.ndarray, size: tuple[int, int] | None = None) -> str:
        return "; ".join(check_plausible(keypoints, H36M_17, size))

    order = np.arange(17)
    order[[2, 10]] = 10, 2  # knee and head
    assert "right_knee–right_ankle" in doubts(right[:, order])
    assert "head is below the hips in 20 of 20 frames" in doubts(right * (1, -1, 1) + (0, 1000, 0))
    assert "% of the keypoints lie outside the picture of 400 x 400" in doubts(right, (400, 400))
    assert "no keypoint is beyond" in doubts(right, (4000, 4000))
    assert "outside" not in doubts(right, SIZE)
    swapped = right.copy()
    swapped[10] = right[10, list(H36M_17.mirror)]
    assert "left and right seem to change places 2 times" in doubts(swapped)
    short = right.copy()
    short[:, 13, :2] = 0.9 * short[:, 12, :2] + 0.1 * short[:, 13, :2]
    assert "elbow–wrist is" in doubts(short)
    assert doubts(0 * right) == ""
