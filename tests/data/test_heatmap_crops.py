"""Crops against the definition, files of heatmaps in and out, SimCC, and what wrong ones are told."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from dposer.body.skeleton import H36M_17, HEATMAP_16, layout_map
from dposer.data.heatmap_crops import (
    HeatmapFile,
    crop,
    crops,
    doubts,
    keypoints_of_heatmaps,
    maps_from_simcc,
    of_mpii,
    pad_square,
    read_heatmaps_file,
    write_heatmaps_file,
)
from dposer.data.heatmap_mixtures import crop_box, heatmaps_of_keypoints, render
from dposer.errors import InputError
from tests.lifting_data import someone

BOX = np.array([100.0, 50.0, 320.0])


def maps(frames: int = 2, box: np.ndarray = BOX) -> np.ndarray:
    """(frames, 16, 64, 64): somebody who stands before the camera."""
    joints = someone(frames, 0)
    points = np.stack((joints[..., 0] * 100 + 250, 330 - joints[..., 2] * 130), -1)
    keypoints = np.concatenate((points, np.full((*points.shape[:2], 1), 0.9)), -1)
    return render(heatmaps_of_keypoints(keypoints, H36M_17, np.tile(box, (frames, 1)))[0]).numpy()


# ---- crops


@pytest.mark.parametrize("box", [(10, 7, 90), (-30, -20, 120), (40, 20, 400), (12.5, 3.25, 60), (0, 0, 1), (500, 500, 50)])
def test_crops_are_bilinear_within_the_box_and_black_outside(box: tuple[float, float, float]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (80, 110, 3), dtype=np.uint8)
    left, top, side = box

    def value(x: float, y: float) -> np.ndarray:
        """At any place, pixel by pixel."""
        total = np.zeros(3)
        for row in (int(np.floor(y)), int(np.floor(y)) + 1):
            for column in (int(np.floor(x)), int(np.floor(x)) + 1):
                if 0 <= row < 80 and 0 <= column < 110:
                    total += image[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
        return total / 255

    found = crop(image, np.array(box))
    assert found.shape == (3, 255, 255)
    for k, m in ((0, 0), (254, 254), (0, 254), (17, 203), (128, 127)):
        x, y = (min(max((index + 0.5) * side / 255 - 0.5, 0), side - 1) for index in (k, m))
        np.testing.assert_allclose(found[:, m, k], value(left + x, top + y), atol=1e-5)


def test_inside_the_picture_a_crop_is_what_torch_resizes() -> None:
    image = np.random.default_rng(1).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    cut = torch.from_numpy(image[20:220, 30:230]).permute(2, 0, 1)[None] / 255
    expected = torch.nn.functional.interpolate(cut, (255, 255), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(crop(image, np.array([30, 20, 200])), expected, atol=5e-5, rtol=0)


def test_a_batch_is_its_crops_and_one_picture_serves_all_boxes() -> None:
    images = np.random.default_rng(2).integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)
    boxes = np.array([[0, 0, 30], [20, -5, 50]])
    each = torch.stack([crop(image, box) for image, box in zip(images, boxes, strict=True)])
    assert torch.equal(crops(images, boxes), each)
    assert torch.equal(crops(images[:1], boxes)[1], crop(images[0], boxes[1]))


def test_whole_pictures_stand_in_the_middle_of_a_square() -> None:
    assert pad_square((640, 480)).tolist() == [0, -80, 640]
    assert pad_square((480, 641)).tolist() == [-80, 0, 641]
    white = crop(np.full((100, 200, 3), 255, np.uint8), pad_square((200, 100)))
    assert not white[:, :60].any()
    assert not white[:, -60:].any()
    torch.testing.assert_close(white[:, 70:-70], torch.ones(3, 115, 255))


def test_wrong_pictures_and_boxes_are_told() -> None:
    image = np.zeros((1, 20, 20, 3), np.uint8)
    for images, boxes, line in (
        (image.astype(np.float32), BOX[None], "torch.float32, expected .* uint8"),
        (image[..., 0], BOX[None], "expected .F, H, W, 3. uint8"),
        (image, np.zeros((1, 4)), r"boxes of shape \(1, 4\)"),
        (np.repeat(image, 2, 0), np.ones((3, 3)), "for 2 pictures"),
        (image, np.array([[3.0, 4.0, 0.0]]), "found 3, 4, 0, expected left, top and side"),
        (image, np.array([[np.nan, 4.0, 9.0]]), "found nan, 4, 9"),
    ):
        with pytest.raises(InputError, match=line):
            crops(images, boxes)


# ---- joints


def test_keypoints_go_to_heatmaps_and_back() -> None:
    random = np.random.default_rng(3)
    keypoints = np.concatenate((random.uniform(100, 400, (5, 17, 2)), random.uniform(0.3, 1, (5, 17, 1))), -1)
    keypoints[0, H36M_17.joints.index("left_wrist")] = 0
    box = crop_box(keypoints[..., :2], keypoints[..., 2] > 0)
    mixture, _ = heatmaps_of_keypoints(keypoints, H36M_17, box)
    found = keypoints_of_heatmaps(render(mixture).flatten(-2), box)
    head, neck, crown = (H36M_17.joints.index(name) for name in ("head", "neck", "head_top"))
    rest = np.arange(17) != head
    cell = box[:, 2].max() / 64
    np.testing.assert_allclose(found[:, rest, :2], keypoints[:, rest, :2], atol=0.51 * cell)
    np.testing.assert_allclose(found[:, rest, 2], keypoints[:, rest, 2], atol=0.07)
    np.testing.assert_allclose(found[:, head, :2], (found[:, neck, :2] + found[:, crown, :2]) / 2, rtol=1e-6)
    assert not found[0, H36M_17.joints.index("left_wrist")].any()


def test_the_thorax_of_mpii_is_the_neck_and_the_spine_is_missing() -> None:
    found = of_mpii(torch.arange(16.0)[None, :, None, None].expand(2, 16, 3, 3) + 1)[..., 0, 0]
    assert found[0].tolist() == [1, 2, 3, 4, 5, 6, 7, 0, 8, *range(10, 17)]


@pytest.mark.parametrize(("wide", "high"), [(384, 512), (512, 384), (64, 64), (48, 48)])
def test_simcc_of_gaussians_is_a_gaussian(wide: int, high: int) -> None:
    """Its mean is that of the bins in cells of the square, its variance what the cells add, its height the product."""
    side, sigma = max(wide, high), 0.03 * max(wide, high)
    mean = np.array([0.4 * wide, 0.55 * high])
    x, y = (np.exp(-0.5 * ((np.arange(n) - m) / sigma) ** 2) for n, m in ((wide, mean[0]), (high, mean[1])))
    found = maps_from_simcc(0.8 * x[None, None] / x.max(), 0.6 * y[None, None] / y.max()).reshape(64, 64)
    assert float(found.max()) == pytest.approx(0.48)
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    places, share = torch.stack((columns, rows)), found / found.sum()
    middle = (places * share).sum((1, 2))
    offset = np.array([side - wide, side - high]) // 2
    np.testing.assert_allclose(middle, (mean + offset) / side * 64, atol=0.02)
    variance = ((places - middle[:, None, None]).square() * share).sum((1, 2)).numpy()
    np.testing.assert_allclose(variance, (0.03 * 64) ** 2 + 1 / 6, atol=0.17)


def test_simcc_knows_missing_joints_and_refuses_what_is_none() -> None:
    assert not maps_from_simcc(-np.ones((1, 2, 96)), np.ones((1, 2, 128))).any()
    for x, y, line in (
        (np.ones((2, 96)), np.ones((1, 2, 96)), "expected .F, J, bins."),
        (np.full((1, 2, 96), np.nan), np.ones((1, 2, 96)), "NaN"),
        (np.full((1, 2, 96), 200.0), np.ones((1, 2, 96)), "reaches 200"),
    ):
        with pytest.raises(InputError, match=line):
            maps_from_simcc(x, y)


# ---- files


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = HeatmapFile(maps().reshape(2, 16, 4096), np.array([BOX, BOX + 1]), (500, 400), 700.0)
    write_heatmaps_file(tmp_path / "maps.npz", file)
    found = read_heatmaps_file(tmp_path / "maps.npz")
    np.testing.assert_array_equal(found.maps, file.maps)
    np.testing.assert_array_equal(found.box, file.box)
    assert (found.size, found.focal, found.notes) == ((500, 400), 700.0, ())


@pytest.mark.parametrize("shape", [(16, 64, 64), (1, 16, 64, 64), (1, 16, 4096), (16, 128, 96)])
def test_arrays_of_any_shape_are_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    stored = np.zeros(shape)
    stored[:] = maps(1).reshape(shape) if shape[-2:] != (128, 96) else np.eye(128, 96)
    np.save(tmp_path / "maps.npy", stored)
    found = read_heatmaps_file(tmp_path / "maps.npy")
    assert (found.maps.shape, found.box) == ((1, 16, 4096), None)
    if shape[-2:] != (128, 96):
        np.testing.assert_array_equal(found.maps.ravel(), stored.astype(np.float32).ravel())


def test_wrong_files_are_told_in_one_line(tmp_path: Path) -> None:
    good, box = maps(2), np.tile(BOX, (2, 1))
    wrong: tuple[tuple[dict[str, object], str], ...] = (
        ({"heatmaps": np.zeros((16, 64, 64))}, "nowhere above 0"),
        ({"heatmaps": -good - 1}, "nowhere above 0"),
        ({"heatmaps": np.where(good > 0.5, np.nan, good)}, "NaN"),
        ({"heatmaps": good * 255}, "divide them, by 255"),
        ({"heatmaps": np.zeros((2, 17, 64, 64))}, r"\(2, 17, 64, 64\), expected .* in the order right_ankle, right_knee"),
        ({"heatmaps": np.moveaxis(good, 1, -1)}, r"\(2, 64, 64, 16\), expected .* move the channels"),
        ({"heatmaps": np.array(["a", "b"])}, "expected numbers"),
        ({"maps": good}, "lacks heatmaps .found maps."),
        ({"heatmaps": good, "box": np.zeros((2, 4))}, r"box of shape \(2, 4\), expected \(3,\) or \(2, 3\): left, top and side"),
        ({"heatmaps": good, "box": box[:, :2]}, r"box of shape \(2, 2\)"),
        ({"heatmaps": good, "box": box * [1, 1, -1]}, "box: found 100, 50, -320"),
        ({"heatmaps": good, "box": box * np.inf}, "box: .*NaN or infinite"),
        ({"heatmaps": good, "image_size": np.array([640])}, "image_size: found 640, expected width and height"),
        ({"heatmaps": good, "focal": np.array(-1.0)}, "focal: found -1, expected one number"),
    )
    path = tmp_path / "maps.npz"
    for members, line in wrong:
        np.savez(path, **members)  # type: ignore[arg-type]  # its stubs think of allow_pickle
        with pytest.raises(InputError, match=f"maps.npz.*{line}") as told:
            read_heatmaps_file(path)
        assert "\n" not in str(told.value)
    with pytest.raises(InputError, match=r"maps.png: expected heatmaps as .npy .* or .npz"):
        read_heatmaps_file(tmp_path / "maps.png")


# ---- doubts


def test_what_looks_wrong_is_noted() -> None:
    good = maps(3)
    twins = [*range(10), 15, 14, 13, 12, 11, 10]
    mpii = good.copy()
    mpii[:, 7], mpii[:, 8] = good[:, 8], (good[:, 8] + good[:, 9]) / 2
    rows = list(layout_map(HEATMAP_16.joints, [name for name in H36M_17.joints if name != "head"]))
    empty = good.copy()
    empty[1] = 0
    for wrong, line in (
        (good[:, np.random.default_rng(0).permutation(16)], "bones are no person's in the order of mpii16"),
        (good[:, rows], "that of h36m17 without the nose"),
        (good[:, twins], "left and right of shoulders and hips disagree in 3 of 3"),
        (good[:, :, ::-1].copy(), "the head is below the feet in 3 of 3"),
        (mpii, "channel 7 is between the shoulders"),
        (empty, "nobody is found in 1 of 3 frames"),
        (maps(3, BOX - [0, 50, 0]), "right_ankle, left_ankle at the border in 3 of 3 frames: the person may be cut off"),
    ):
        assert re.search(line, " ".join(doubts(wrong.reshape(3, 16, 4096))))
    assert doubts(good.reshape(3, 16, 4096)) == ()


def test_the_border_of_the_picture_counts_where_it_is_known() -> None:
    flat = maps(1).reshape(1, 16, 4096)
    assert doubts(flat, BOX, (500, 400)) == ()
    assert "at the border" in doubts(flat, BOX, (500, 320))[0]


def test_heights_of_another_scale_are_noted(tmp_path: Path) -> None:
    for scale, line in ((1 / 25, "multiply them by 25"), (5.0, "check their scale")):
        np.save(tmp_path / "maps.npy", maps(1) * scale)
        assert line in read_heatmaps_file(tmp_path / "maps.npy").notes[0]
