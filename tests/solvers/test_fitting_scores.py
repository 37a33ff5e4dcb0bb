"""What is told about a fit: statistics with holes, jitter where it can be compared, distances from the skin, doubts."""

import math

import numpy as np
import pytest
import torch
import trimesh

from dposer.errors import InputError
from dposer.metrics import jitter
from dposer.solvers.fitting_scores import Spread, doubts, seen_jitter, surface_gap


def test_spread_leaves_holes_out() -> None:
    values = torch.tensor([1.0, math.nan, 3.0, 2.0]).view(2, 2)
    assert Spread.of(values) == pytest.approx((2, 2, 2.9, 0.25))
    nothing = Spread.of(torch.full((3,), math.nan))
    assert math.isnan(nothing.mean) and nothing.missing == 1


def test_jitter_of_whole_sequences_is_the_metric(generator: torch.Generator) -> None:
    points, other = torch.randn(2, 9, 5, 3, generator=generator, dtype=torch.float64)
    assert seen_jitter(points, other) == pytest.approx((jitter(points).item(), jitter(other).item()))


def test_jitter_counts_runs_that_were_seen(generator: torch.Generator) -> None:
    time = torch.arange(12.0, dtype=torch.float64)[:, None, None]
    points = time**3 * torch.randn(1, 2, 3, generator=generator, dtype=torch.float64)  # the third difference of t³ is 6
    points[4:6, 0] = math.nan
    moved = points.clone()
    moved[4:6, 0] = 1e6  # where nothing was measured nothing is compared
    first, second = (6 * (points[1] - points[0]).norm(dim=-1)).tolist()
    runs = {0: 1 + 3, 1: 9}  # frames 0-3 and 6-11 of the first point
    expected = (runs[0] * first + runs[1] * second) / sum(runs.values())
    assert seen_jitter(points, moved) == pytest.approx((expected, expected))


def test_jitter_of_too_little_is_none() -> None:
    assert seen_jitter(torch.zeros(3, 2, 3), torch.zeros(3, 2, 3)) is None
    holes = torch.zeros(8, 1, 3)
    holes[::3] = math.nan
    assert seen_jitter(holes, torch.zeros(8, 1, 3)) is None
    with pytest.raises(InputError, match="shapes"):
        seen_jitter(torch.zeros(3, 2, 3), torch.zeros(3, 1, 3))


def test_surface_gap_counts_from_where_markers_should_be() -> None:
    box = trimesh.creation.box((2, 2, 2))
    markers = np.array([[[0, 0, 1.01], [0, 0, 0.99], [np.nan] * 3]])  # one floats above the skin, one has sunk in
    gap = surface_gap(np.asarray(box.vertices)[None], box.faces, markers, np.array([0.01, 0.01, 0.0]))
    assert gap is not None and gap == pytest.approx((0.01, 0.01, 2))
    assert surface_gap(np.asarray(box.vertices)[None], box.faces, markers[:, 2:], np.zeros(1)) is None


def test_doubts_name_what_is_odd() -> None:
    good = torch.full((6, 4), 0.01)
    names = ["a", "b", "c", "d"]
    assert doubts(good, names, 0.0, torch.zeros(10), 60.0) == ()
    odd = good.clone()
    odd[:, 2] = 0.3
    (sentence,) = doubts(odd, names)
    assert "c (300 mm)" in sentence and "a (" not in sentence
    assert "--layout" in doubts(10 * good, names)[0] and doubts(10 * good, names, noise_std=0.06) == ()  # noise explains it
    assert "--unit" in doubts(good, names, betas=torch.tensor([0.0, -6.0]))[0]
    assert "99.7 %" in doubts(good, names, plausibility=0.3)[0]
    holes = torch.full((6, 4), math.nan)
    holes[:, 0] = 0.01
    assert doubts(holes, names) == ()
