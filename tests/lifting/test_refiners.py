"""GraFormer and the refiners as processes: times, noise, starts, the mirror, and what perfect and silent denoisers make of them."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dposer.errors import InputError
from dposer.lifting.config import LiftingConfig, LossConfig, NetworkConfig, RefineConfig
from dposer.lifting.convert_graphs import PROCESS
from dposer.lifting.graformer import GraFormer
from dposer.lifting.methods import build_model
from dposer.lifting.model import LiftingModel
from dposer.lifting.noise import Noise
from dposer.lifting.refiners import Refined, Refiner, antithetic_times
from dposer.lifting.windows import flip

SMALL = NetworkConfig(frames=1, channels=16, depth=2, heads=2, dropout=0.0)
REFINERS = pytest.mark.parametrize("method", ["cross-channel", "single-graph"])


def _model(method: str, **others: Any) -> LiftingModel:
    torch.manual_seed(0)
    config = LiftingConfig(method=method, network=SMALL, diffusion=PROCESS, loss=LossConfig("mse"))  # type: ignore[arg-type]
    return build_model(replace(config, **others)).eval()


def _refiner(method: str = "single-graph", refine: RefineConfig | None = None, **others: Any) -> Refiner:
    model = _model(method, refine=refine or RefineConfig(), **others)
    assert isinstance(model, Refiner)
    return model


def _pose(*shape: int) -> Tensor:
    pose = torch.randn(*shape, 17, 3) * 0.2
    return pose - pose[..., :1, :]


def _mixture(points: Tensor, weights: tuple[float, ...] = (0.7, 0.2, 0.1)) -> Tensor:
    """The keypoint, one to its right, one below, with spreads 0.01, 0.02, 0.03."""
    moved = (points, points + torch.tensor([0.5, 0.0]), points + torch.tensor([0.0, 0.5]))
    ones = torch.ones_like(points[..., :1])
    return torch.cat(
        [
            torch.cat((weight * ones, mean, 0.01 * (1 + i) * ones, 0.01 * (1 + i) * ones), -1)
            for i, (weight, mean) in enumerate(zip(weights, moved, strict=True))
        ],
        -1,
    )


class _Network(nn.Module):
    """ê = what it is given, whatever it is shown."""

    def __init__(self, noise: Tensor) -> None:
        super().__init__()
        self.noise = noise
        self.shown: list[tuple[Tensor, Tensor | None]] = []

    def forward(self, x: Tensor, t: Tensor, keypoints: Tensor | None = None) -> Tensor:
        self.shown.append((x, keypoints))
        return self.noise.expand_as(x)


def test_schedule_and_times() -> None:
    model = _refiner()
    bars = {0: 0.9999, 6: 0.998922, 12: 0.997299, 24: 0.992130, 50: 0.972331}
    sigmas = {0: 0.0100, 6: 0.0328, 12: 0.0520, 24: 0.0887, 50: 0.1663}
    for t, bar in bars.items():
        assert float(model.schedule.alpha_bars[t]) == pytest.approx(bar, abs=5e-7)
        assert float(model.schedule.sigma(float(t))) == pytest.approx(sigmas[t], abs=5e-5)
    assert model.times(2, 12).tolist() == [6, 0, -1]
    assert model.times(2, 24).tolist() == [12, 0, -1]
    assert model.times(1, 6).tolist() == [0, -1]
    assert model.times(5, 12).tolist() == [8, 6, 4, 2, 0, -1]
    assert _refiner(variant="compat").times(5, 12).tolist() == [10, 8, 6, 4, 2, 0, -1]
    quad = _refiner(refine=RefineConfig(skip="quad"))
    assert quad.times(3, 20).tolist() == [16, 4, 0, -1]  # (0, 2, 4)²
    assert model.span_of(0.033) == 12 and model.span_of(0.052) == 24
    for steps, span in ((0, 12), (2, 0), (2, 52)):
        with pytest.raises(InputError, match="expected 1 or more over 1 to the 51 times"):
            model.times(steps, span)


def test_times_come_in_pairs() -> None:
    t = antithetic_times(7, 51, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert t.dtype == torch.float32 and len(t) == 7
    assert (t[:3] + t[4:]).tolist() == [50, 50, 50]


@pytest.mark.parametrize("forward", ["zero_mean", "mixture"])
def test_a_perfect_denoiser_recovers_the_truth(forward: str) -> None:
    model = _refiner(refine=RefineConfig(forward=forward), inputs="mixture", flip=False)  # type: ignore[arg-type]
    pose, points = _pose(3, 2), torch.randn(3, 2, 17, 2)
    noise = torch.randn(6, 17, 5)
    noise[:, 0, 2:] = 0  # the root is known
    model.network = _Network(noise)
    noisy = model.schedule.perturb(pose, torch.tensor(12.0), noise[..., 2:].view_as(pose))
    torch.testing.assert_close(model.refine(_mixture(points), noisy, span=24), pose, atol=1e-5, rtol=0)


def test_a_silent_denoiser_only_undoes_the_decay() -> None:
    for method in ("cross-channel", "single-graph"):
        model, pose = _refiner(method), _pose(2, 3)
        model.network = _Network(torch.zeros(()))
        found = model.refine(torch.randn(2, 3, 17, 2), pose + 0.3, steps=2, span=12)
        torch.testing.assert_close(found, 1.000539 * pose, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("method", ["graformer", "cross-channel", "single-graph"])
def test_no_result_depends_on_what_is_computed_together(method: str) -> None:
    drawn = method != "graformer"
    refine = RefineConfig(start="drawn", eta=0.5) if drawn else RefineConfig()
    model, observed = _model(method, refine=refine, inputs="mixture"), _mixture(torch.randn(3, 4, 17, 2))
    noise = Noise.of(7, "clip", [0, 9, 18])
    together = model.predict(observed, 2, 3, noise, max_batch=64)
    assert together.shape == (3, 1, 2 if drawn else 1, 4, 17, 3) and model.draws == drawn
    assert not together[..., 0, :].any()
    torch.testing.assert_close(model.predict(observed, 2, 3, noise, max_batch=1), together)
    torch.testing.assert_close(model.predict(observed[1:2], 2, 3, noise[1:2]), together[1:2])
    if drawn:
        assert not torch.allclose(together[:, :, 0], together[:, :, 1])
        torch.testing.assert_close(model.predict(observed, 1, 3, noise), together[:, :, :1])


@pytest.mark.parametrize("method", ["graformer", "cross-channel", "single-graph"])
@pytest.mark.parametrize("variant", ["clean", "compat"])
def test_the_mirror(method: str, variant: str) -> None:
    """Twice is once undone, it commutes with leaving the root, and a mirrored clip gives mirrored poses."""
    model, points, pose = _model(method, variant=variant), torch.randn(2, 3, 17, 2), torch.randn(2, 3, 17, 3)
    layout = model.config.skeleton
    assert torch.equal(flip(flip(pose, layout), layout), pose)
    assert torch.equal(flip(pose - pose[..., :1, :], layout), flip(pose, layout) - flip(pose, layout)[..., :1, :])
    if isinstance(model, Refiner) and variant == "compat":  # the lifter's pose is mirrored, not lifted from mirrored keypoints
        straight, mirrored = (model.refine(p, q) for p, q in ((points, pose), (flip(points, layout), flip(pose, layout))))
    else:
        straight, mirrored = (model.predict(p, steps=2) for p in (points, flip(points, layout)))
    torch.testing.assert_close(mirrored, flip(straight, layout), atol=1e-5, rtol=1e-4)


@REFINERS
def test_the_start_is_the_lifters_pose(method: str) -> None:
    for variant in ("clean", "compat"):
        model = _refiner(method, flip=False, variant=variant)
        points = torch.randn(2, 1, 17, 2)
        lifted = model.lifter(points[:, 0])[:, None]
        torch.testing.assert_close(model.predict(points, steps=2)[:, 0, 0], model.refine(points, lifted))


@pytest.mark.parametrize("guidance", ["clean", "noisy"])
def test_which_keypoints_guide(guidance: str) -> None:
    model, points = _refiner("cross-channel", RefineConfig(guidance=guidance), flip=False), torch.randn(2, 1, 17, 2)  # type: ignore[arg-type]
    model.network = network = _Network(torch.randn(17, 5))
    model.refine(points, _pose(2, 1))
    for step, (x, keypoints) in enumerate(network.shown):
        assert keypoints is not None and torch.equal(keypoints, points[:, 0] if guidance == "clean" else x[..., :2])
        assert torch.equal(x[..., :2], points[:, 0]) == (step == 0)


def test_noise_and_keypoints_are_those_of_the_drawn_component() -> None:
    refine = RefineConfig(noise_from="mixture", component="draw", forward="mixture", start="drawn", spread=2.0)
    observed = _mixture(torch.zeros(500, 1, 17, 2))
    z = torch.randn(500, 1, 17, 3, generator=torch.Generator().manual_seed(0))
    for variant, factor in (("compat", 1.0), ("clean", 6.01)):
        told = _refiner(refine=refine, inputs="mixture", variant=variant)._told(observed, z[..., :1])
        points, noise, centre = told.split(2, -1)
        shares = [(points == torch.tensor(place)).all(-1).float().mean().item() for place in ([0.0, 0.0], [0.5, 0.0], [0.0, 0.5])]
        assert shares == pytest.approx([0.7, 0.2, 0.1], abs=0.02)
        right = points[..., 0] == 0.5
        torch.testing.assert_close(noise[right], torch.full_like(noise[right], 0.02 * factor), rtol=1e-3, atol=0)
        torch.testing.assert_close(centre, torch.tensor([0.1, 0.05]).expand_as(centre))
    drawn = _refiner(refine=refine, inputs="mixture")._told(observed, z)[..., :2]
    assert (drawn - points)[right].std().item() == pytest.approx(2 * 0.02, rel=0.05)
    wide = _mixture(torch.zeros(1, 1, 17, 2))
    wide[..., 3:5] = 1.0
    assert _refiner(refine=refine, inputs="mixture")._told(wide)[..., 2:4].unique().tolist() == [0.5]  # the clamp


def test_the_loss_by_hand() -> None:
    """With ê = 0 it is the expected square of the noise: 17 (2 · 0.1² + 3)."""
    model, points = _refiner("cross-channel"), torch.randn(600, 2, 17, 2)
    model.network = _Network(torch.zeros(()))
    losses = model.loss(points, _pose(600, 2), torch.Generator().manual_seed(0))
    assert float(losses["loss"]) == pytest.approx(17 * (2 * 0.01 + 3), rel=0.02)
    assert 0.05 < float(losses["position"]) < 0.3  # metres: √(1 − ᾱ) times the length of a standard normal vector


@REFINERS
def test_a_trained_lifter_is_taken_over_and_stays_as_it_is(method: str) -> None:
    lifter = _model("graformer")
    with torch.no_grad():
        for parameter in lifter.parameters():
            parameter.mul_(1.5)
    model = _refiner(method)
    model.start_from(lifter.config, lifter.state_dict())
    points = torch.randn(2, 17, 2)
    assert isinstance(lifter.network, GraFormer)
    torch.testing.assert_close(model.lifter(points), lifter.network(points))
    assert not any(parameter.requires_grad for parameter in model.lifter.parameters())
    again = _refiner(method, variant="compat")
    again.start_from(model.config, model.state_dict())
    torch.testing.assert_close(again.lifter(points), lifter.network(points))
    wider = replace(lifter.config, network=replace(SMALL, channels=32))
    with pytest.raises(InputError, match="the lifter is a GraFormer of as many channels"):
        model.start_from(wider, {})
    with pytest.raises(InputError, match="weights to start from are of mixste"):
        model.start_from(replace(wider, method="mixste"), {})


@pytest.mark.parametrize("theirs", ["points", "visible"])
def test_any_lifter_can_be_refined(theirs: str) -> None:
    torch.manual_seed(0)
    network = NetworkConfig(frames=3, channels=16, depth=1, heads=2)
    base = build_model(LiftingConfig(method="d3dp", inputs=theirs, network=network)).eval()  # type: ignore[arg-type]
    observed = torch.rand(2, 3, 17, 3 if theirs == "visible" else 2)
    for inputs in ("points", "mixture"):
        refiner = _refiner("cross-channel", inputs=inputs)
        both, noise = Refined(base, refiner, error=0.052), Noise.of(0, "clip", [0, 3])
        assert both.span == 24 and both.draws
        found = both.predict(observed, 2, 2, noise)
        assert found.shape == (2, 1, 2, 3, 17, 3)
        torch.testing.assert_close(both.predict(observed, 2, 2, noise, max_batch=2), found)
        started = base.predict(observed, 2, 2, noise)[:, -1, 1]
        given = observed[..., :2] if inputs == "points" else both._seen(observed)
        torch.testing.assert_close(refiner.refine(given, started, span=24), found[:, 0, 1])
    with pytest.raises(InputError, match="joints of mpi_inf_3dhp17"):
        Refined(_model("mixste", layout="mpi_inf_3dhp17"), _refiner())


def test_settings_that_need_a_mixture_ask_for_one() -> None:
    with pytest.raises(InputError, match=r"refine\.component, refine\.start asks for a mixture"):
        _refiner(refine=RefineConfig(component="draw", start="drawn"))
    with pytest.raises(InputError, match="'visible': not of graformer"):
        _model("graformer", inputs="visible")


@pytest.mark.parametrize("method", ["graformer", "cross-channel", "single-graph"])
def test_one_batch_can_be_learnt_by_heart(method: str) -> None:
    """Its noise and times, too, are always the same."""
    model, random = _model(method).train(), torch.Generator()
    points, pose = torch.randn(8, 1, 17, 2), _pose(8, 1)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    history = []
    for _ in range(25):
        losses = model.loss(points, pose, random.manual_seed(0))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        history.append(float(losses["loss"].detach()))
    assert history[-1] < 0.6 * history[0]
