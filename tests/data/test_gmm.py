"""Keypoints as mixtures of Gaussians: what they are made of, how sure they are, and the files that hold them."""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dposer.body.skeleton import H36M_17, MPI_INF_3DHP_17, Layout
from dposer.data.gmm import Calibration, coverage, hidden_mixture, mixture_of, person_scale, proportions, synthetic_keypoints
from dposer.data.gmm_files import H36M_SIZES, SQUARE, read_gmm, write_gmm
from dposer.data.h36m import CAMERAS, projections, read_h36m, write_h36m
from dposer.data.heatmaps import mixture_of_heatmaps
from dposer.data.lifting_clip import LiftingClip
from dposer.errors import InputError
from dposer.geometry.lens import screen
from dposer.lifting.config import LiftingConfig
from dposer.lifting.observed import mirrored, observe, points_of
from dposer.lifting.windows import flip
from tests.lifting_data import someone

FRAMES = 6
LAYOUTS = (H36M_17, MPI_INF_3DHP_17)


@pytest.fixture(scope="module")
def points() -> Tensor:
    """(6, 17, 2) screen units."""
    views = projections({"S1": {"a": someone(FRAMES, 0)}}, CAMERAS)["S1"]["a"]
    return screen(torch.from_numpy(views[0]), (1000, 1002))


@pytest.fixture(scope="module")
def confidence() -> Tensor:
    drawn = torch.rand(FRAMES, 17, generator=torch.Generator().manual_seed(0))
    return torch.where(drawn < 0.15, 0.0, drawn)


def parts(mixture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (..., J, M), means and deviations (..., J, M, 2)."""
    weight, mean, deviation = mixture.unflatten(-1, (-1, 5)).split((1, 2, 2), -1)
    return weight[..., 0], mean, deviation


# ---- keypoints ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_a_keypoint_becomes_three_gaussians(points: Tensor, layout: Layout) -> None:
    rows = [H36M_17.joints.index(name) for name in layout.joints]
    x, c = points[:, rows], torch.full((FRAMES, 17), 0.6)
    weight, mean, deviation = parts(mixture_of(x, c, layout))
    sides = (x.amax(1) - x.amin(1)) * 1.1
    sigma = 0.25 * sides.prod(-1).sqrt()[:, None] * proportions(layout) * np.exp(1.6 * 0.4)
    wrist, other, spine = (layout.joints.index(name) for name in ("left_wrist", "right_wrist", "spine"))
    assert torch.allclose(weight[:, wrist], torch.tensor([1 - 0.2 - 0.06, 0.2, 0.06]))
    assert torch.allclose(weight[:, spine], torch.tensor([0.8, 0.2, 0.0]))
    assert torch.equal(mean[:, :, 0], x) and torch.equal(mean[:, :, 1], x) and torch.equal(mean[:, wrist, 2], x[:, other])
    assert torch.allclose(deviation[:, :, 0], sigma[..., None].expand_as(x)) and torch.allclose(deviation[:, :, 1], 4 * deviation[:, :, 0])
    assert dict(zip(layout.joints, proportions(layout).tolist(), strict=True)) == pytest.approx(
        {name: kappa for part, kappa in KAPPA.items() for name in ((part,) if part in layout.joints else (f"left_{part}", f"right_{part}"))}
    )


KAPPA = {
    "pelvis": 0.076, "hip": 0.107, "knee": 0.087, "ankle": 0.089, "spine": 0.085, "neck": 0.056, "head": 0.040, "head_top": 0.035,
    "shoulder": 0.079, "elbow": 0.072, "wrist": 0.062,
}  # fmt: skip


@given(shift=st.tuples(st.floats(-1, 1), st.floats(-1, 1)), zoom=st.floats(0.25, 4))
@settings(max_examples=15, deadline=None)
def test_mixtures_move_grow_and_turn_with_the_person(points: Tensor, confidence: Tensor, shift: tuple[float, float], zoom: float) -> None:
    mixture = mixture_of(points, confidence, H36M_17)
    weight, mean, deviation = parts(mixture)
    assert torch.allclose(weight.sum(-1), torch.ones(FRAMES, 17)) and bool((weight >= 0).all() and (deviation > 0).all())
    moved = parts(mixture_of(zoom * points + torch.tensor(shift), confidence, H36M_17))
    torch.testing.assert_close(moved, (weight, zoom * mean + torch.tensor(shift), zoom * deviation), rtol=1e-4, atol=1e-5)
    turned = mixture_of(flip(points, H36M_17), confidence[:, list(H36M_17.mirror)], H36M_17)
    torch.testing.assert_close(turned, mirrored(mixture, "mixture", H36M_17))
    one = mixture_of(points[2], confidence[2], H36M_17)
    assert torch.equal(one, mixture[2]) and torch.equal(mixture_of(points[2:4], confidence[2:4], H36M_17)[0], one)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_missing_joints_are_around_their_parents(layout: Layout) -> None:
    x = torch.rand(17, 2, generator=torch.Generator().manual_seed(1))
    row = layout.joints.index
    gone = [row(name) for name in ("left_elbow", "left_wrist", "pelvis")]
    c = torch.ones(17)
    c[gone] = torch.tensor([0.0, torch.nan, 0.5])
    x[gone[2]] = torch.nan
    weight, mean, deviation = parts(mixture := mixture_of(x, c, layout))
    there = torch.ones(17, dtype=torch.bool)
    there[gone] = False
    assert torch.equal(mean[gone[0], 0], x[row("left_shoulder")]) and torch.equal(mean[gone[1], 0], x[row("left_shoulder")])
    torch.testing.assert_close(mean[gone[2], 0], x[there].mean(0))  # the root has no parent: the middle of what is seen
    assert torch.equal(weight[gone], torch.tensor([1.0, 0, 0]).expand(3, 3))
    scale = person_scale(x.nan_to_num(), there.float())
    torch.testing.assert_close(deviation[gone, 0, 0], 8 * proportions(layout)[gone] * scale)
    assert weight[row("right_wrist"), 2] == 0  # cannot be exchanged with a joint that is not seen
    whole = mixture_of(x.nan_to_num(), torch.ones(17), layout)
    torch.testing.assert_close(hidden_mixture(whole, ~there, layout)[gone], mixture[gone])
    assert torch.equal(hidden_mixture(whole, ~there, layout)[there], whole[there])
    assert not parts(hidden_mixture(whole, ~there, layout, zero=True))[1][gone].any()
    nobody = hidden_mixture(whole, torch.ones(17, dtype=torch.bool), layout)
    assert bool(nobody.isfinite().all()) and not parts(nobody)[1].any()


def test_numbers_of_components(points: Tensor, confidence: Tensor) -> None:
    assert [mixture_of(points, confidence, H36M_17, count).shape[-1] for count in (1, 2, 3)] == [5, 10, 15]
    assert torch.equal(parts(mixture_of(points, confidence, H36M_17, 1))[0], torch.ones(FRAMES, 17, 1))
    with pytest.raises(InputError, match="components = 4, expected 1, 2 or 3"):
        mixture_of(points, confidence, H36M_17, 4)
    with pytest.raises(InputError, match=r"expected \(\.\.\., 17, 2\)"):
        mixture_of(points[:, :16], confidence, H36M_17)


def test_networks_see_mixtures(points: Tensor, confidence: Tensor) -> None:
    pixels = (points + torch.tensor([1.0, 1.0])).numpy() * 500
    keypoints = np.concatenate((pixels, confidence.numpy()[..., None]), -1).astype(np.float32)
    config = LiftingConfig(inputs="mixture")
    made = observe(keypoints, (1000, 1000), config)
    seen = confidence > 0
    torch.testing.assert_close(made[seen], mixture_of(points, confidence, H36M_17)[seen], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(points_of(made, "mixture")[seen], points[seen], atol=1e-5, rtol=0)
    known = torch.rand(FRAMES, 17, 5, 5)
    given_one = observe(keypoints, (1000, 1000), config, known.numpy())
    assert torch.equal(given_one[seen], known.flatten(-2)[seen]) and bool(
        (parts(given_one)[0][~seen] == torch.tensor([1.0, 0, 0, 0, 0])).all()
    )
    zero = observe(keypoints, (1000, 1000), LiftingConfig(inputs="mixture", hidden="zero"), known.numpy())
    assert not points_of(zero, "mixture")[~seen].any()
    assert torch.equal(points_of(observe(keypoints, (1000, 1000), LiftingConfig()), "points")[seen], points_of(made, "mixture")[seen])


# ---- errors and calibration --------------------------------------------------------------------------------------------


def draws(count: int, seed: int, slope: float) -> tuple[Tensor, Tensor, Tensor]:
    """Detections whose errors are normal and the larger the less sure, the truth, and confidences."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(count, 17, 2, generator=generator)
    confidence = torch.rand(count, 17, generator=generator) * 0.8 + 0.2
    sigma = 0.02 * proportions(H36M_17) / 0.07 * torch.exp(slope * (1 - confidence))
    return truth + sigma[..., None] * torch.randn(truth.shape, generator=generator), truth, confidence


def test_calibration_foretells_errors_that_it_has_not_seen(tmp_path: Path, points: Tensor) -> None:
    fitted = Calibration.fit(*draws(2000, 0, 1.0), H36M_17)
    fitted.save(tmp_path / "a.json")
    calibration = Calibration.load(tmp_path / "a.json")
    assert calibration == fitted
    held_out = draws(2000, 1, 1.0)
    before, after = coverage(*held_out, H36M_17), coverage(*held_out, H36M_17, calibration)
    assert not before.accepted and after.accepted
    assert after.std == pytest.approx(1, abs=0.06) and after.within_68 == pytest.approx(68.3, abs=2)
    unsure, sure = (calibration(torch.full((1, 17), c), H36M_17) for c in (0.0, 1.0))
    assert bool((unsure > sure).all())
    torch.testing.assert_close(calibration(torch.rand(3, 2, 17), MPI_INF_3DHP_17).shape, torch.Size((3, 2, 17)))
    deviation = parts(mixture_of(points, torch.ones(FRAMES, 17), H36M_17, calibration=calibration))[2][:, :, 0, 0]
    torch.testing.assert_close(deviation, sure * person_scale(points, torch.ones(FRAMES, 17))[:, None])


def test_calibration_of_one_confidence_and_of_too_few() -> None:
    detected, truth, _ = draws(100, 0, 0.0)
    flat = Calibration.fit(detected, truth, torch.ones(100, 17), H36M_17)
    assert {len(row[0]) for row in flat.table.values()} == {1}
    assert float(flat(torch.tensor([0.3] * 17), H36M_17)[0]) == pytest.approx(flat.table["pelvis"][1][0])
    with pytest.raises(InputError, match="pelvis is seen in 10 pairs, expected at least 20"):
        Calibration.fit(detected[:10], truth[:10], torch.ones(10, 17), H36M_17)
    with pytest.raises(InputError, match="pelvis is mostly where it should be exactly"):
        Calibration.fit(truth, truth, torch.ones(100, 17), H36M_17)
    with pytest.raises(InputError, match="lacks head_top"):
        Calibration({name: row for name, row in flat.table.items() if name != "head_top"})(torch.ones(17), H36M_17)


@given(
    text=st.text(max_size=20)
    | st.sampled_from(['{"format": "dposer.calibration/1", "joints": {"a": {"confidence": [1, 0], "spread": [1, 1]}}}'])
)
@settings(max_examples=15, deadline=None)
def test_what_is_no_calibration_is_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("a") / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.json: .*expected a calibration"):
        Calibration.load(path)


def test_drawn_errors_are_those_of_the_model(points: Tensor) -> None:
    truth = points[:1].expand(4000, -1, -1)
    found, confidence = synthetic_keypoints(truth, H36M_17, torch.Generator().manual_seed(0))
    sigma = 0.25 * proportions(H36M_17) * person_scale(truth[0], torch.ones(17))
    error = (found - truth).norm(dim=-1) / sigma
    torch.testing.assert_close(confidence, torch.exp(-error / 3).clamp(0.05, 1))
    spine, wrist, other = (H36M_17.joints.index(name) for name in ("spine", "left_wrist", "right_wrist"))
    z = ((found - truth) / sigma[:, None])[:, spine]
    assert float(z.square().mean()) == pytest.approx(0.92 + 0.08 * 16, rel=0.12)
    swapped = (found[:, wrist] - truth[:, other]).norm(dim=-1) < 4 * sigma[wrist]
    assert float(swapped.float().mean()) == pytest.approx(0.02, abs=0.007)


# ---- heatmaps ----------------------------------------------------------------------------------------------------------


def test_heatmaps_give_back_the_mixture_they_were_drawn_from() -> None:
    centres, spread, share = torch.tensor([[12.3, 20.0], [40.0, 31.5]]), torch.tensor([[2.0, 3.0], [4.0, 2.5]]), torch.tensor([0.7, 0.3])
    grid = torch.stack(torch.meshgrid(torch.arange(56.0), torch.arange(48.0), indexing="xy"), -1)
    z = (grid[..., None, :] - centres) / spread
    drawn = (share * torch.exp(-0.5 * z.square().sum(-1)) / spread.prod(-1)).sum(-1)
    maps = drawn.expand(2, 17, -1, -1).clone()
    maps[1, 3] = 0
    affine = torch.tensor([[[8.0, 0, 4], [0, 8, 4]], [[0, -8.0, 400], [8, 0, 4]]])  # the second picture lies on its side
    mixture = mixture_of_heatmaps(9 * maps, affine, (640, 480), 2, generator=torch.Generator().manual_seed(0))
    weight, mean, deviation = parts(mixture)
    torch.testing.assert_close(weight[0, 0], share, atol=0.01, rtol=0)
    torch.testing.assert_close(mean[0, 0], screen(8 * centres + 4, (640, 480)), atol=0.003, rtol=0)
    torch.testing.assert_close(deviation[0, 0], spread * 8 / 320, atol=0.002, rtol=0)
    torch.testing.assert_close(deviation[1, 0], deviation[0, 0].flip(-1))
    torch.testing.assert_close(mean[1, 0, 0], screen(torch.tensor([400 - 8 * 20.0, 4 + 8 * 12.3]), (640, 480)), atol=0.003, rtol=0)
    assert weight[1, 3].tolist() == [1, 0] and torch.equal(mean[1, 3, 0], mean[1, 2, 0])  # missing: where its parent is


def test_narrow_maps_and_more_components_than_cells() -> None:
    maps = torch.zeros(17, 8, 6)
    maps[:, 5, 2] = 3
    weight, mean, deviation = parts(mixture_of_heatmaps(maps, torch.eye(2, 3), (100, 100), generator=torch.Generator().manual_seed(0)))
    assert weight.shape == (17, 5) and torch.allclose(weight.sum(-1), torch.ones(17))
    assert torch.allclose(mean[:, 0], screen(torch.tensor([2.0, 5.0]), (100, 100))) and torch.allclose(deviation[:, 0], torch.tensor(0.01))


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (torch.zeros(17, 4, 4), "zero everywhere"),
        (-torch.ones(17, 4, 4), "negative, NaN or infinite"),
        (torch.full((17, 4, 4), torch.nan), "negative, NaN or infinite"),
        (torch.ones(16, 4, 4), r"expected \(\.\.\., 17, h, w\)"),
        (torch.ones(17, 0, 4), r"expected \(\.\.\., 17, h, w\)"),
    ],
)
def test_what_are_no_heatmaps(maps: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mixture_of_heatmaps(maps, torch.eye(2, 3), (9, 9), generator=torch.Generator())


# ---- files -------------------------------------------------------------------------------------------------------------


def clips_of(mixture: Tensor, sizes: tuple[tuple[int, int], ...] = ((1000, 1002), (1000, 1000))) -> list[LiftingClip]:
    film = mixture.unflatten(-1, (-1, 5)).numpy()
    keypoints = np.ones((len(film), 17, 3), np.float32)
    return [
        LiftingClip("S1", action, str(camera), keypoints, None, size, None, H36M_17, 50.0, mixture=film)
        for action in ("Walking 1", "Photo") for camera, size in enumerate(sizes)
    ]  # fmt: skip


def test_what_is_written_is_read(tmp_path: Path, points: Tensor, confidence: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    mixture = mixture_of(points, confidence, H36M_17)
    path = write_gmm(tmp_path / "data_2d_h36m_x_gmm.npz", clips_of(mixture), "a test", 7, calibration="none")
    films = read_gmm(tmp_path, "x")
    assert {subject: list(actions) for subject, actions in films.items()} == {"S1": ["Walking 1", "Photo"]}
    for film in films["S1"]["Photo"]:
        assert film.dtype == np.float32
        np.testing.assert_allclose(film.reshape(FRAMES, 17, 15), mixture, atol=1e-6)
    assert tuple(view.size for view in CAMERAS["S1"]) == H36M_SIZES
    meta = np.load(path, allow_pickle=True)["meta"].item()
    assert meta == {
        "spread": "std_uv", "W": [1000, 1000], "H": [1002, 1000], "M": 3, "generator": "a test", "seed": 7, "calibration": "none"
    }  # fmt: skip
    square = read_gmm(path, uv_square=True)["S1"]["Photo"]
    np.testing.assert_allclose(square[1], films["S1"]["Photo"][1])
    np.testing.assert_allclose(square[0][..., 2] - films["S1"]["Photo"][0][..., 2], 0.002, atol=1e-6)  # the middle moved by a pixel
    means = write_gmm(tmp_path / "data_2d_h36m_x_gmm_norm.npy", clips_of(mixture), "a test")
    stored = np.load(means, allow_pickle=True).item()["S1"]["Photo"]
    assert stored.shape == (2, FRAMES, 17, 2)
    np.testing.assert_allclose(stored, [film[:, :, 0, 1:3] for film in square], atol=1e-6)
    again = read_gmm(means, sizes=((1000, 1002), (1000, 1000)))["S1"]["Photo"]
    np.testing.assert_allclose(again[0][:, :, 0, 1:3], films["S1"]["Photo"][0][:, :, 0, 1:3], atol=1e-6)
    assert not caplog.records  # nothing had to be guessed
    with pytest.raises(InputError, match="S1/Walking 1 has 2 cameras, expected 3"):
        read_gmm(path, sizes=[SQUARE] * 3)
    with pytest.raises(InputError, match="has no mixture to write"):
        write_gmm(path, [LiftingClip("S1", "a", "0", np.ones((1, 17, 3)), None, SQUARE, None, H36M_17, 50.0)], "a test")


def published(path: Path, mixture: Tensor, unit: str = "std_uv", **meta: Any) -> Path:
    """As DiffPose has it: no member but one, films of different lengths, spreads in any unit."""
    film = mixture.unflatten(-1, (-1, 5)).double().numpy()
    film[..., 1:3] = (film[..., 1:3] + [1, 1]) * 500
    scaled = film[..., 3:] * (500 if unit.endswith("px") else 1)
    film[..., 3:] = scaled**2 if unit.startswith("var") else scaled
    longer = np.concatenate((film, film[-1:]))
    members = {"positions_2d": {"S1": {"Walking 1": [film, longer, longer, longer]}}, **meta}
    np.savez_compressed(path, **{name: np.array(value, dtype=object) for name, value in members.items()})
    return path


@pytest.mark.parametrize("unit", ["std_uv", "std_px", "var_uv", "var_px"])
def test_units_are_guessed_and_the_guess_is_told(
    tmp_path: Path, points: Tensor, confidence: Tensor, unit: str, caplog: pytest.LogCaptureFixture
) -> None:
    mixture = mixture_of(points, confidence.clamp(0.8, 1), H36M_17)
    path = published(tmp_path / "data_2d_h36m_x_gmm.npz", mixture, unit)
    with caplog.at_level(logging.WARNING):
        films = read_gmm(path, sizes=[SQUARE] * 4)["S1"]["Walking 1"]
    assert [len(film) for film in films] == [FRAMES] * 4
    np.testing.assert_allclose(films[1].reshape(FRAMES, 17, 15), mixture, atol=1e-5)
    assert [record.getMessage().endswith(f"taken to be {unit}") for record in caplog.records] == [True]
    declared = published(tmp_path / "declared_gmm.npz", mixture, unit, meta={"spread": unit, "W": [1000] * 4, "H": [1000] * 4})
    np.testing.assert_array_equal(read_gmm(declared)["S1"]["Walking 1"][0], films[0])
    assert len(caplog.records) == 1


def test_wrong_units_and_broken_files_are_refused(tmp_path: Path, points: Tensor, confidence: Tensor) -> None:
    mixture = mixture_of(points, confidence, H36M_17)

    def refused(message: str, mixture: Tensor = mixture, unit: str = "std_uv", **meta: Any) -> None:
        with pytest.raises(InputError, match=message) as caught:
            read_gmm(published(tmp_path / "a_gmm.npz", mixture, unit, **meta))
        assert "\n" not in str(caught.value) and "a_gmm.npz" in str(caught.value)

    def changed(column: int, value: float) -> Tensor:
        return mixture.index_fill(-1, torch.arange(column, 15, 5), value)

    refused("would as std_uv be .* pixels .*; they look like std_px: correct 'meta'", unit="std_px", meta={"spread": "std_uv"})
    refused("would as std_px be .*; they look like std_uv: correct 'meta'", meta={"spread": "std_px"})
    refused("spreads are 'inches', expected one of std_uv", meta={"spread": "inches"})
    refused("'meta' is a list", meta=["std_uv"])
    refused(r"'meta' has W = \[1\], H = 3", meta={"spread": "std_uv", "W": [1], "H": 3})
    refused("spreads of -0.1, expected no negative ones", changed(3, -0.1))
    refused("spreads are zero everywhere", changed(3, 0).index_fill(-1, torch.arange(4, 15, 5), 0))
    refused("values are NaN or infinite", changed(4, torch.nan))
    refused("would as var_px be", changed(3, 1e9).index_fill(-1, torch.arange(4, 15, 5), 1e9))
    refused("weights from 0.5, sums up to 1.5", changed(0, 0.5))
    refused(r"\(6, 16, 3, 5\), expected \(frames, 17, components, 5\)", mixture[:, :16])
    np.savez(tmp_path / "a_gmm.npz", positions_2d=np.zeros(3))
    with pytest.raises(InputError, match=r"not \{subject: \{action"):
        read_gmm(tmp_path / "a_gmm.npz")


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_pickles_that_run_are_not_run(tmp_path: Path) -> None:
    box = np.array({"S1": {"a": Bomb(tmp_path / "hit")}}, dtype=object)
    np.save(tmp_path / "a_gmm_norm.npy", box)
    np.savez(tmp_path / "a_gmm.npz", positions_2d=box)
    for name in ("a_gmm_norm.npy", "a_gmm.npz"):
        with pytest.raises(InputError, match="unsafe pickle"):
            read_gmm(tmp_path / name)
    assert not (tmp_path / "hit").exists()


def test_clips_come_with_their_mixtures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    positions = {"S1": {"Walking 1": someone(FRAMES, 0)}}
    write_h36m(tmp_path, "h36m", positions, {"gt": projections(positions, CAMERAS)}, {"S1": CAMERAS["S1"]}, {"fps": 50.0})
    exact = read_h36m(tmp_path, "gt")
    mixed = [
        mixture_of(screen(torch.from_numpy(clip.keypoints[..., :2].copy()), clip.size), torch.ones(FRAMES, 17), H36M_17) for clip in exact
    ]
    clips = [
        LiftingClip(c.subject, c.action, c.view, c.keypoints, None, c.size, None, H36M_17, 50.0, mixture=m.unflatten(-1, (-1, 5)).numpy())
        for c, m in zip(exact, mixed, strict=True)
    ]
    write_gmm(tmp_path / "data_2d_h36m_gt_gmm.npz", clips, "a test")
    write_gmm(tmp_path / "data_2d_h36m_gt_gmm_norm.npy", clips, "a test")
    for name in ("gt_gmm", "gt_gmm_norm"):
        for clip, other, mixture in zip(read_h36m(tmp_path, name, stride=2), exact, mixed, strict=True):
            np.testing.assert_allclose(clip.keypoints, other.keypoints[::2], atol=1e-3)
            assert clip.size == other.size
            if name == "gt_gmm":
                np.testing.assert_allclose(clip.mixture.reshape(-1, 17, 15), mixture[::2], atol=1e-6)
    squares = read_h36m(tmp_path, "gt_gmm", uv_square=True)
    assert {clip.size for clip in squares} == {SQUARE}
    np.testing.assert_allclose(squares[0].mixture[..., 2], mixed[0].unflatten(-1, (-1, 5))[..., 2] + 0.002, atol=1e-6)
    assert not caplog.records
    long = {"S1": {"Walking 1": someone(FRAMES + 1, 0)}}
    write_h36m(tmp_path, "h36m", long, {}, {"S1": CAMERAS["S1"]}, {"fps": 50.0})
    with pytest.raises(InputError, match="6 frames of keypoints, but 7 of 3D joints"):
        read_h36m(tmp_path, "gt_gmm")
    with pytest.raises(InputError, match=r"mixture of shape \(5, 17, 3, 5\), expected \(6, 17, components, 5\)"):
        LiftingClip("S1", "a", "0", np.ones((FRAMES, 17, 3)), None, SQUARE, None, H36M_17, 50.0, mixture=np.ones((5, 17, 3, 5)))
