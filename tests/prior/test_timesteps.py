"""Time strategies: the published first and last values."""

import pytest
import torch

from dposer.errors import InputError
from dposer.prior.timesteps import PRESETS, GridTimes, LinearTimes, preset


@pytest.mark.parametrize(
    ("task", "steps", "first", "last", "fixed"),
    [
        ("completion", 200, 0.201, 0.002, 0.100),
        ("denoise20", 120, 0.101, 0.003, 0.009),
        ("denoise40", 180, 0.251, 0.003, 0.019),
        ("denoise100", 240, 0.333, 0.003, 0.039),
        ("fitting", 500, 0.057, 0.009, 0.099),
    ],
)
def test_the_first_release_runs_from_first_to_last(task: str, steps: int, first: float, last: float, fixed: float) -> None:
    times = preset("v1", task).times(steps)
    assert times.shape == (steps,)
    assert times[0].item() == pytest.approx(first, abs=6e-4) and times[-1].item() == pytest.approx(last, abs=6e-4)
    assert (times.diff() <= 0).all()
    torch.testing.assert_close(preset("v1", task, "2").times(3), torch.full((3,), fixed, dtype=torch.float64), atol=6e-4, rtol=0)


@pytest.mark.parametrize(
    ("release", "task", "first", "last", "fixed"),
    [
        ("v2", "completion", 0.3, 0.05, 0.1),
        ("v2", "denoise20", 0.2, 0.05, 0.1),
        ("v2", "denoise40", 0.25, 0.05, 0.1),
        ("v2", "denoise100", 0.15, 0.05, 0.1),
        ("v2", "fitting", 0.12, 0.08, 0.1),
        ("v2", "partial_legs", 0.2, 0.01, 0.05),
        ("v2", "partial", 0.3, 0.01, 0.05),
        ("x", "completion", 0.15, 0.05, 0.1),
        ("x", "denoise40", 0.25, 0.05, 0.1),
        ("x", "denoise100", 0.25, 0.1, 0.1),
    ],
)
def test_later_releases_leave_out_the_first_value(release: str, task: str, first: float, last: float, fixed: float) -> None:
    times = preset(release, task).times(10)
    torch.testing.assert_close(times[0].item(), last + 0.9 * (first - last))
    torch.testing.assert_close(times[-1].item(), last)
    assert preset(release, task, "2").times(1).item() == fixed


def test_the_paper_includes_both_ends() -> None:
    times = preset("paper", "denoise40").times(4)
    torch.testing.assert_close(times, torch.tensor([0.2, 0.15, 0.1, 0.05], dtype=torch.float64))


def test_annealing_on_the_grid_is_the_published_index() -> None:
    times, grid = GridTimes(1000, 5, 2, 900).times(7), torch.linspace(1, 1e-3, 1000, dtype=torch.float64)
    assert times.tolist() == [grid[1000 - int((7 - 1 - k) * 1000 / (5 * 7)) - 2].item() for k in range(7)]


@pytest.mark.parametrize("release", PRESETS)
def test_random_times_fill_the_unit_interval(release: str, generator: torch.Generator) -> None:
    strategy = preset(release, "completion", "1")
    times = strategy.times(4000, generator)
    assert times.min() >= 1e-3 and times.max() <= 1
    assert times.mean().item() == pytest.approx(0.5, abs=0.02)
    assert torch.equal(times[:5], strategy.times(4000, torch.Generator().manual_seed(0))[:5])


def test_one_step() -> None:
    assert LinearTimes(0.3, 0.1).times(1).item() == pytest.approx(0.1)
    assert LinearTimes(0.3, 0.1, inclusive=True).times(1).item() == pytest.approx(0.1)
    assert GridTimes(500, 10, 2, 1).times(1).shape == (1,)


def test_bad_requests_are_named() -> None:
    for call, match in (
        (lambda: preset("v3", "completion"), "'v3'"),
        (lambda: preset("v1", "juggling"), "'juggling'"),
        (lambda: preset("v1", "completion", "4").times(3), "'4'"),  # type: ignore[arg-type]
        (lambda: preset("v1", "completion").times(0), "steps = 0"),
    ):
        with pytest.raises(InputError, match=match):
            call()
