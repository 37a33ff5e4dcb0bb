"""Heatmaps as mixtures and cell by cell: their mathematics, keypoints as heatmaps, and maps of other sizes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dposer.body.skeleton import COCO_17, H36M_17, HEATMAP_16
from dposer.data.heatmap_mixtures import (
    LEAST_TRUST,
    SIDE,
    SIGMA,
    cells,
    checked_heatmaps,
    crop_box,
    heatmaps_of_keypoints,
    height,
    hidden_heatmaps,
    highest,
    mirrored_heatmaps,
    parts,
    render,
)  # fmt: skip
from dposer.errors import InputError
from tests.heatmap_data import mixtures

BOX = np.array([[100.0, 50.0, 320.0]])
"""A cell is 5 pixels."""


def keypoints(confidence: float, cell: tuple[float, float] = (20.0, 30.0)) -> np.ndarray:
    """(1, 17, 3): all joints in one cell of BOX."""
    return np.tile([100 + 5 * cell[0], 50 + 5 * cell[1], confidence], (1, 17, 1))


def one_mode(x: float, y: float, *, spread: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> torch.Tensor:
    """(1, 10)."""
    return torch.tensor([[1, 0, x, y, x, y, *spread, 1]], dtype=torch.float32)


# ---- maps --------------------------------------------------------------------------------------------------------------


def test_a_map_is_as_blurred_as_it_is_dim() -> None:
    """Each mode contributes 2 π σ₀² w to the sum of a map, whatever its spread, and its mean and covariance are those of the mixture."""
    mixture = mixtures(3).double()
    maps = render(mixture)[0].flatten(-2)
    weight, mean, spread, _ = (part[0] for part in parts(mixture))
    assert maps.sum(-1) == pytest.approx(2 * math.pi * SIGMA**2, rel=1e-3)
    share = maps / maps.sum(-1, keepdim=True)
    middle = share @ cells().double()
    np.testing.assert_allclose(middle, (weight[..., None] * mean).sum(-2), atol=0.02)
    off = cells().double() - middle[:, None]
    apart = mean - middle[:, None]
    found = torch.einsum("jk,jka,jkb->jab", share, off, off)
    between = torch.einsum("jm,jma,jmb->jab", weight, apart, apart)
    own = spread[:, [0, 1, 1, 2]].unflatten(-1, (2, 2)) + SIGMA**2 * torch.eye(2)
    np.testing.assert_allclose(found, own + between, rtol=0.02, atol=0.1)
    single = mixture.clone()
    single[..., 1] = 0
    np.testing.assert_allclose(render(single).sum((-1, -2)), 2 * math.pi * SIGMA**2 * mixture[..., 0], rtol=1e-3)


def test_height_by_the_formula() -> None:
    mixture, place = mixtures(1)[0, 0].double(), torch.tensor([[30.0, 25.0], [10.5, 44.0]], dtype=torch.float64)
    w1, w2, x1, y1, x2, y2, xx, xy, yy, _ = mixture.tolist()
    blob = np.array([[xx + 4, xy], [xy, yy + 4]])
    for found, v in zip(height(mixture, place), place.numpy(), strict=True):
        ways = [(w, v - mean) for w, mean in ((w1, [x1, y1]), (w2, [x2, y2]))]
        expected = sum(w * 4 / np.linalg.det(blob) ** 0.5 * np.exp(-0.5 * d @ np.linalg.inv(blob) @ d) for w, d in ways)
        assert found == pytest.approx(expected, rel=1e-9)
    half = mixtures(1, gain=0.5)[0, 0].double()
    np.testing.assert_allclose(height(half, place), height(mixture, place) / 2)
    np.testing.assert_allclose(render(mixtures(1))[0, 0, 25, 30], height(mixture, place)[0], rtol=1e-5)  # [y, x]


@given(
    means=st.lists(st.floats(-3, 66), min_size=4, max_size=4),
    weight=st.floats(0, 1),
    axes=st.tuples(st.floats(0, 7), st.floats(0.4, 1), st.floats(0, math.pi)),
)
@settings(max_examples=60, deadline=None)
def test_highest_without_painting(means: list[float], weight: float, axes: tuple[float, float, float]) -> None:
    """What is found climbing is about as high as the highest of all cells, also of modes that run into each other or lie outside."""
    long, ratio, angle = axes
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    spread = turn @ np.diag([long**2, (ratio * long) ** 2]) @ turn.T
    mixture = torch.tensor([[weight, 1 - weight, *means, spread[0, 0], spread[0, 1], spread[1, 1], 1]], dtype=torch.float32)
    x, y, value = highest(mixture)[0].tolist()
    painted = render(mixture)[0]
    assert value == pytest.approx(float(painted[int(y), int(x)]), rel=1e-4, abs=1e-9)
    assert value >= 0.97 * float(painted.max()) - 1e-9


def test_highest_of_both_kinds() -> None:
    random = torch.Generator().manual_seed(0)
    mixture = torch.cat([one_mode(*(4 + 56 * torch.rand(2, generator=random)).tolist(), spread=(9.0, 3.0, 5.0)) for _ in range(100)])
    np.testing.assert_allclose(highest(mixture), highest(render(mixture).flatten(-2)), rtol=1e-5)
    maps = -torch.ones(2, 16, 64 * 64)
    maps[:, :, 64 * 7 + 5] = 0.5
    assert (highest(maps) == torch.tensor([5.0, 7.0, 0.5])).all()
    assert (highest(maps.clamp(max=0))[..., 2] == 0).all()


@given(seed=st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_mirrored(seed: int) -> None:
    mixture = mixtures(seed)
    twice = mirrored_heatmaps(mirrored_heatmaps(mixture))
    np.testing.assert_allclose(twice, mixture, atol=1e-5)
    maps = render(mixture).flatten(-2)
    assert torch.equal(mirrored_heatmaps(mirrored_heatmaps(maps)), maps)
    np.testing.assert_allclose(mirrored_heatmaps(maps), render(mirrored_heatmaps(mixture)).flatten(-2), atol=1e-5)
    left, right = (HEATMAP_16.joints.index(f"{side}_wrist") for side in ("left", "right"))
    np.testing.assert_allclose(mirrored_heatmaps(mixture)[:, left, 2], SIDE - 1 - mixture[:, right, 2])


def test_hidden_joints_have_empty_maps() -> None:
    hidden = torch.zeros(2, 17, dtype=torch.bool)
    hidden[0, H36M_17.joints.index("left_knee")] = hidden[1, H36M_17.joints.index("head")] = True  # the latter has no channel
    mixture, knee = mixtures(0, 2), HEATMAP_16.joints.index("left_knee")
    gone = hidden_heatmaps(mixture, hidden, H36M_17)
    assert (render(gone)[0, knee] == 0).all() and gone.isfinite().all()
    changed = (gone != mixture).any(-1).nonzero().tolist()
    assert changed == [[0, knee]]
    maps = render(mixture).flatten(-2)
    np.testing.assert_array_equal(hidden_heatmaps(maps, hidden, H36M_17), render(gone).flatten(-2))


# ---- keypoints ---------------------------------------------------------------------------------------------------------


@given(confidence=st.floats(0.01, 1))
@settings(max_examples=30, deadline=None)
def test_keypoints_paint_their_confidence(confidence: float) -> None:
    """The map is c high, and a Gaussian of deviation σ₀ / √c in all."""
    mixture, box = heatmaps_of_keypoints(keypoints(confidence), H36M_17, BOX)
    assert mixture.shape == (1, 16, 10) and box is BOX
    counted = max(confidence, LEAST_TRUST)
    np.testing.assert_allclose(highest(mixture)[0], np.tile([20, 30, counted], (16, 1)), rtol=1e-5)
    np.testing.assert_allclose(mixture[0, :, [6, 8]] + SIGMA**2, SIGMA**2 / counted, rtol=1e-5)
    assert (mixture[0, :, 7] == 0).all()


def test_missing_keypoints_have_no_map() -> None:
    some = keypoints(0.9)
    some[0, H36M_17.joints.index("neck"), 2] = 0
    some[0, H36M_17.joints.index("left_hip")] = np.nan
    gains = heatmaps_of_keypoints(some, H36M_17)[0][0, :, 9]
    assert {HEATMAP_16.joints[row] for row in (gains == 0).nonzero()[:, 0]} == {"neck", "left_hip"}
    mixture, box = heatmaps_of_keypoints(np.zeros((3, 17, 3)), COCO_17)  # nobody at all
    assert (mixture[..., 9] == 0).all() and mixture.isfinite().all() and np.isfinite(box).all()
    gains = heatmaps_of_keypoints(keypoints(1.0), COCO_17)[0][0, :, 9]
    assert {HEATMAP_16.joints[row] for row in (gains == 0).nonzero()[:, 0]} == {"pelvis", "spine", "neck", "head_top"}
    with pytest.raises(InputError, match="confidence 87, expected at most 1"):
        heatmaps_of_keypoints(keypoints(87.0), H36M_17)


@given(st.lists(st.tuples(st.floats(-2000, 4000), st.floats(-2000, 4000), st.booleans()), min_size=1, max_size=17))
@settings(max_examples=50, deadline=None)
def test_crops_are_around_what_is_seen(points: list[tuple[float, float, bool]]) -> None:
    places, seen = np.array([point[:2] for point in points])[None], np.array([point[2] for point in points])[None]
    left, top, side = crop_box(places, seen)[0]
    assert side >= 32 and all(value == round(value) for value in (left, top, side))
    if seen.any():
        there = places[seen]
        assert side == pytest.approx(max(1.2 * np.ptp(there, axis=0).max(), 32), abs=0.5 + 1e-6)
        np.testing.assert_allclose([left + side / 2, top + side / 2], (there.min(0) + there.max(0)) / 2, atol=1.01)


# ---- maps from elsewhere -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (48, 48), (96, 96), (128, 128), (256, 256), (64, 48), (96, 72), (128, 256)])
def test_maps_of_other_sizes_keep_their_place(size: tuple[int, int]) -> None:
    """The highest cell of the square around the map, to half a cell of the coarser of the two."""
    h, w = size
    side, random = max(size), np.random.default_rng(0)
    place = np.stack((random.uniform(0.2, 0.8, 16) * w, random.uniform(0.2, 0.8, 16) * h), -1)  # pixels; cells are pixels wide
    y, x = np.mgrid[:h, :w] + 0.5
    off = np.stack((x, y), -1) - place[:, None, None]
    maps = np.exp(-0.5 * (off**2).sum(-1) / (2 * side / 64) ** 2)
    found = highest(torch.from_numpy(checked_heatmaps(maps, "maps.npy")))
    pad = np.array([(side - w) // 2, (side - h) // 2])
    np.testing.assert_allclose((found[..., :2] + 0.5) * side / 64, place + pad, atol=0.51 * max(side / 64, 1) + 0.3)
    assert 0.85 < found[..., 2].min() <= found[..., 2].max() <= 1.0001


def test_maps_that_are_none_are_told() -> None:
    maps = np.zeros((16, 64, 64), np.float32)
    maps[:, 3, 4] = 1
    assert checked_heatmaps(maps[None].astype(np.float16), "a.npy").shape == (1, 16, 4096)
    assert checked_heatmaps(maps - 0.1, "a.npy").min() == pytest.approx(-0.1)  # whoever draws clamps
    for bad, message in (
        (maps[:15], r"a\.npy: heatmaps of shape \(15, 64, 64\), expected .*right_ankle"),
        (maps[0], r"a\.npy: heatmaps of shape \(64, 64\)"),
        (maps[None][:0], r"a\.npy: heatmaps of shape \(0, 16"),
        (np.where(maps > 0, np.nan, maps), r"a\.npy: heatmaps hold NaN"),
        (maps * 0, r"a\.npy: heatmaps are nowhere above 0"),
        (-maps, r"a\.npy: heatmaps are nowhere above 0"),
        (maps * 255, r"a\.npy: heatmaps reach 255, expected heights to about 1"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            checked_heatmaps(bad, "a.npy")
        assert "\n" not in str(caught.value)
