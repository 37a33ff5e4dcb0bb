"""Candidates are drawn as often as maps are high, mixtures like the maps they stand for, and codes are what the paper says."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from dposer.data.heatmap_mixtures import COLUMNS, SIDE, SIGMA, height, render
from dposer.lifting.candidates import Candidates, channel_code, draw_candidates, marginals, normalised, on_crop, sine_code
from tests.heatmap_data import mixtures
from tests.heatmap_data import normal as noise


def test_cells_are_drawn_in_proportion_to_the_map() -> None:
    maps = torch.zeros(1, 16, SIDE * SIDE)
    maps[..., [5, 700, 701, 4095]] = torch.tensor([0.1, 0.4, 0.2, 0.3])
    maps[..., 9] = -0.5  # never drawn
    drawn = draw_candidates(maps, noise(1, 20000), first_highest=False)
    cell = (drawn.places[..., 1] * SIDE + drawn.places[..., 0]).long()
    counts = torch.stack([(cell == k).sum() for k in (5, 700, 701, 4095)])
    assert counts.sum() == 16 * 20000
    assert chisquare(counts.numpy(), 16 * 20000 * np.array([0.1, 0.4, 0.2, 0.3])).pvalue > 1e-3
    assert torch.equal(drawn.likelihood, maps.gather(-1, cell))
    sharper = draw_candidates(maps, noise(1, 20000), first_highest=False, power=2.0)
    share = (sharper.likelihood == 0.4).float().mean()
    assert share == pytest.approx(0.16 / 0.30, abs=5e-3)


def test_mixtures_are_drawn_like_their_maps() -> None:
    mixture = mixtures()
    maps = render(mixture).flatten(-2)
    of_mixture = draw_candidates(mixture, noise(1, 40000), first_highest=False)
    of_map = draw_candidates(maps, noise(1, 40000, 1), first_highest=False)
    for joint in range(16):
        (a, b) = (drawn.places[0, joint].double() for drawn in (of_mixture, of_map))
        torch.testing.assert_close(a.mean(0), b.mean(0), atol=0.4, rtol=0)
        torch.testing.assert_close(torch.cov(a.T), torch.cov(b.T), atol=1.5, rtol=0.05)
    torch.testing.assert_close(of_mixture.likelihood, height(mixture, of_mixture.places))


def test_the_highest_cell_comes_first() -> None:
    mixture = mixtures(3, rows=4)
    for heatmaps in (mixture, render(mixture).flatten(-2)):
        drawn = draw_candidates(heatmaps, noise(4, 7))
        assert drawn.places.shape == (4, 16, 8, 2) and (drawn.likelihood[..., :1] >= drawn.likelihood).all()
    alone = draw_candidates(mixture, noise(4, 0))
    assert alone.places.shape == (4, 16, 1, 2)


def test_a_missing_joint_has_candidates_of_no_likelihood() -> None:
    for empty in (torch.zeros(1, 16, SIDE * SIDE), -torch.ones(1, 16, SIDE * SIDE), mixtures(gain=0.0)):
        drawn = draw_candidates(empty, noise(1, 5), first_highest=False)
        assert not drawn.likelihood.any() and drawn.places.min() >= 0 and drawn.places.max() < SIDE


def test_a_sure_map_gives_the_figures_of_the_paper() -> None:
    """Of a Gaussian of height 1 and deviation 2, the mean likelihood is ½ and candidates deviate by 2 cells."""
    sure = torch.zeros(1, 16, COLUMNS)
    sure[..., [0, 9]] = 1
    sure[..., 2:6] = 32
    drawn = draw_candidates(sure, noise(1, 5000), first_highest=False)
    assert drawn.likelihood.mean() == pytest.approx(0.5, abs=0.01)
    assert drawn.places.std((0, 1, 2)).mean() == pytest.approx(math.hypot(SIGMA, math.sqrt(1 / 12)), abs=0.03)  # cells are whole numbers


def test_channel_codes() -> None:
    x = on_crop(torch.arange(SIDE, dtype=torch.float64))
    code = channel_code(x, 64)
    centres = torch.linspace(-1, 1, 64, dtype=torch.float64)
    assert not code[(x[:, None] - centres).abs() > 1 / 16].any()
    assert code[0].sum() == pytest.approx(1.49, abs=0.01) and code[8:-8].sum(-1).mean() == pytest.approx(1.97, abs=0.02)
    inside = (code > 0).sum(-1)[4:-4].double().mean()
    assert inside == pytest.approx(3.9, abs=0.15)
    torch.testing.assert_close(sine_code(torch.zeros(3), 8), torch.cat((torch.zeros(3, 4), torch.ones(3, 4)), -1))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["unit", "half", "mean_std", "mean_std_per_sample"]))
def test_norms(seed: int, norm: str) -> None:
    places = torch.rand(3, 16, 5, 2, generator=torch.Generator().manual_seed(seed)) * 63
    found = normalised(places, norm)
    if norm in ("unit", "half"):
        assert found.abs().max() <= 1 / (1 if norm == "unit" else 2)
    else:
        others = (1,) if norm == "mean_std_per_sample" else (1, 2)
        torch.testing.assert_close(found.mean(others), torch.zeros_like(found.mean(others)), atol=1e-4, rtol=0)
        torch.testing.assert_close(found.std((*others, 3)), torch.ones_like(found.std((*others, 3))))
    moved = normalised(places * 0.9 + 1, norm)
    if norm.startswith("mean"):
        torch.testing.assert_close(moved, found, atol=1e-4, rtol=1e-4)  # wherever the crop is, however large


def test_marginals_are_histograms() -> None:
    drawn = draw_candidates(mixtures(rows=2), noise(2, 31))
    sums = marginals(drawn, drawn.likelihood)
    torch.testing.assert_close(sums.sum(-1), drawn.likelihood.sum(-1)[..., None].expand(-1, -1, 2))
    one = Candidates(drawn.places[:1, :1, :1], torch.ones(1, 1, 1))
    x, y = one.places[0, 0, 0].long().tolist()
    assert marginals(one, one.likelihood)[0, 0].argmax(-1).tolist() == [x, y]
