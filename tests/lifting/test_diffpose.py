"""The condition is the equation, the chain is the paper's, hypotheses have candidates of their own, and it learns."""

import dataclasses
from typing import Any

import pytest
import torch

from dposer.data.heatmap_mixtures import CELLS, highest, render
from dposer.errors import InputError
from dposer.lifting.candidates import Candidates, channel_code, on_crop
from dposer.lifting.config import DiffusionConfig, HeatmapConfig, LiftingConfig, LossConfig, NetworkConfig
from dposer.lifting.diffpose import Condition, DiffPose
from dposer.lifting.noise import Noise
from tests.heatmap_data import mixtures
from tests.heatmap_data import normal as noise


def recipe(late: int = 0, eta: float = 1.0, layout: str = "h36m17", **heatmap: Any) -> LiftingConfig:
    """As small as can be."""
    sizes: dict[str, Any] = {"feedforward": 32, "readout": 24, "width": 32, "candidates": 6}
    return LiftingConfig(
        method="diffpose", inputs="heatmap", flip=False, layout=layout,
        network=NetworkConfig(frames=1, channels=16, depth=1, heads=2, drop_path=0.0),
        diffusion=DiffusionConfig(timesteps=25, scale=10.0, bound=3.0, eta=eta), loss=LossConfig("mse"),
        heatmap=HeatmapConfig(**(sizes | {"late": late} | heatmap)),
    )  # fmt: skip


def model(config: LiftingConfig | None = None) -> DiffPose:
    torch.manual_seed(0)
    return DiffPose(config or recipe()).eval()


def poses(count: int, joints: int = 17) -> torch.Tensor:
    """(count, 1, joints, 3), the pelvis in the middle of the hips."""
    pose = 0.4 * torch.randn(count, 1, joints, 3, generator=torch.Generator().manual_seed(5))
    if joints == 17:
        pose[:, :, 4] = -pose[:, :, 1]
    return pose - pose[:, :, :1] * (joints != 17) if joints != 17 else pose.index_fill(2, torch.tensor([0]), 0)


def test_codes_are_summed_before_they_are_projected() -> None:
    """Σ_p (W ℓ_p e_p + b) = W Σ_p ℓ_p e_p + P b, where a joint that is dropped still has P b."""
    condition = Condition(recipe(transformer=False)).eval()
    drawn = condition.draw(mixtures(rows=3), noise(3, condition.drawn))
    kept = torch.ones(3, 16).index_fill(1, torch.tensor([4]), 0)
    code = channel_code(on_crop(drawn.places), 8).flatten(-2) * drawn.likelihood[..., None] * kept[..., None, None]
    token = condition.project(code).sum(-2) + condition.joints.weight
    torch.testing.assert_close(condition(drawn, kept), condition.readout(token.flatten(1)), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close((token - condition.joints.weight)[:, 4], (6 * condition.project.bias).expand(3, -1))


def test_only_the_set_knows_which_x_goes_with_which_y() -> None:
    drawn = Condition(recipe()).draw(mixtures(rows=2), noise(2, 5))
    crossed = Candidates(torch.stack((drawn.places[..., 0], drawn.places[..., 1].flip(-1)), -1), torch.ones_like(drawn.likelihood))
    straight = Candidates(drawn.places, torch.ones_like(drawn.likelihood))
    for kind, same in (("reference", True), ("set", False)):
        condition = Condition(recipe(condition=kind)).eval()
        assert torch.allclose(condition(straight), condition(crossed), atol=1e-5) == same


def test_the_set_is_a_network_of_each_candidate() -> None:
    """1/P Σ_p ℓ_p (W gelu(U e_p + a) + b), by a table and a sum before W."""
    condition = Condition(recipe(condition="set", transformer=False)).eval()
    drawn = condition.draw(mixtures(rows=3), noise(3, condition.drawn))
    code = channel_code(on_crop(drawn.places), 8).flatten(-2)
    each = condition.project(torch.nn.functional.gelu(condition.each(code)))
    token = (each * drawn.likelihood[..., None]).mean(-2) + condition.joints.weight
    torch.testing.assert_close(condition(drawn), condition.readout(token.flatten(1)), atol=2e-5, rtol=1e-4)


def test_concatenated_candidates_fall_in_likelihood() -> None:
    condition = Condition(recipe(condition="concat", norm="unit", likelihood=True))
    drawn = condition.draw(mixtures(rows=2), noise(2, 5))
    told = condition(drawn).unflatten(1, (6, 16, 3))
    assert condition.width == 6 * 16 * 3 and (told[:, 1:, :, 2].diff(dim=1) <= 0).all()
    torch.testing.assert_close(told[:, 0, :, :2], on_crop(highest(mixtures(rows=2))[..., :2]))
    pose = Condition(recipe(condition="pose", candidates=1))
    found = pose(pose.draw(mixtures(rows=2), noise(2, 0)))
    torch.testing.assert_close(found.std(1, correction=0), torch.ones(2))
    torch.testing.assert_close(found.unflatten(1, (2, 16)).mean(-1), torch.zeros(2, 2), atol=1e-5, rtol=0)


def test_poses_go_in_and_out() -> None:
    found = model()
    x = found.encoded(poses(5))
    assert x.shape == (5, 48) and torch.allclose(x.unflatten(1, (3, 16)).mean(-1), torch.zeros(5, 3), atol=1e-5)
    torch.testing.assert_close(found.decoded(x), poses(5), atol=1e-6, rtol=0)  # metres
    first = poses(5)[0, 0, 1:]
    torch.testing.assert_close(x[0, :16], 10 * (first[:, 0] - first[:, 0].mean()))
    torch.testing.assert_close(x[0, 16:32], -10 * (first[:, 1] - first[:, 1].mean()))
    smpl = model(recipe(layout="smpl24"))
    torch.testing.assert_close(smpl.decoded(smpl.encoded(poses(5, 24))), poses(5, 24), atol=1e-6, rtol=0)
    assert smpl.encoded(poses(5, 24)).shape == (5, 72)


def test_the_schedule() -> None:
    bars = model().schedule.alpha_bars
    expected = {0: 0.99457, 1: 0.98146, 12: 0.46271, 22: 0.015464, 23: 0.003881, 24: 3.88e-6}
    for t, value in expected.items():
        assert float(bars[t]) == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(("sampler", "steps", "late"), [("ancestral", 25, 0), ("ancestral", 24, 1), ("ddim", 7, 0), ("dpm++", 7, 1)])
def test_a_network_that_knows_the_noise_finds_the_pose(sampler: str, steps: int, late: int) -> None:
    found = model(recipe(late, 0.0 if sampler != "ancestral" else 1.0, sampler=sampler))
    truth = found.encoded(poses(1))

    class Oracle(torch.nn.Module):
        size = 48

        def told(self, condition: torch.Tensor) -> torch.Tensor:
            return condition

        def forward(self, x: torch.Tensor, t: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
            alpha, sigma = (getattr(found.schedule, name)(t.double()).float()[:, None] for name in ("alpha", "sigma"))
            return (x - alpha * truth) / sigma

    found.network = Oracle()  # type: ignore[assignment]
    assert steps <= found.steps and found.usual == (found.steps if sampler == "ancestral" else 10)
    lifted = found.predict(mixtures()[:, None], 3, steps)
    assert lifted.shape == (1, 1, 3, 1, 17, 3)
    torch.testing.assert_close(lifted[:, 0], poses(1)[:, None].expand(-1, 3, -1, -1, -1), atol=1e-3, rtol=0)


def test_hypotheses_have_candidates_of_their_own_whatever_the_batch() -> None:
    heatmaps, keys = mixtures(rows=3)[:, None], Noise.of(0, "clip", range(3))
    drawn: list[Candidates] = []

    class Watched(Condition):
        def forward(self, candidates: Candidates, kept: torch.Tensor | None = None) -> torch.Tensor:
            drawn.append(candidates)
            return super().forward(candidates, kept)

    for heatmap, shared in (({}, False), ({"candidates": 1}, True), ({"condition": "concat", "likelihood": False}, True)):
        found = model(recipe(**heatmap))
        found.condition.__class__ = Watched
        one = found.predict(heatmaps, 4, 5, keys)
        assert one.std(2).sum() > 0  # noise differs all the same
        places = drawn[-1].places.unflatten(0, (3, 4))
        assert bool((places == places[:, :1]).all()) == shared
        torch.testing.assert_close(found.predict(heatmaps, 4, 5, keys, max_batch=1), one, atol=1e-4, rtol=0)
        torch.testing.assert_close(found.predict(heatmaps[1:2], 2, 5, keys[1:2]), one[1:2, :, :2], atol=1e-4, rtol=0)


def test_less_noise_brings_hypotheses_together() -> None:
    spreads = []
    for scale in (0.0, 0.5, 1.0):
        spreads.append(float(model(recipe(noise=scale, candidates=1)).predict(mixtures()[:, None], 20, 25).std(2).mean()))
    assert spreads[0] < 1e-6 < spreads[1] < spreads[2]


@pytest.mark.parametrize("heatmap", [{}, {"condition": "set"}, {"code": "sin", "norm": "mean_std"}, {"code": "linear"}, {"power": 2.0}])
def test_every_weight_learns_from_either_kind_of_heatmaps(heatmap: dict[str, Any]) -> None:
    found = model(recipe(**heatmap)).train()
    for heatmaps in (mixtures(rows=2)[:, None], render(mixtures(rows=2)).flatten(-2)[:, None]):
        assert heatmaps.shape[-1] in (10, CELLS)
        found.zero_grad()
        losses = found.loss(heatmaps, poses(2), torch.Generator().manual_seed(0))
        losses["loss"].backward()
        assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in found.parameters())
        assert {"loss", "position", "denoising"} <= losses.keys()


def test_joints_are_dropped_in_training_alone() -> None:
    found = model(recipe(drop=0.5))
    heatmaps, generator = mixtures(rows=2)[:, None], torch.Generator()
    calm = [float(found.train(mode).loss(heatmaps, poses(2), generator.manual_seed(1))["loss"].detach()) for mode in (True, False)]
    assert calm[0] != calm[1]


def test_it_learns_a_few_frames_by_heart() -> None:
    config = recipe(width=128, readout=64, drop=0.0, late=1)
    found = model(dataclasses.replace(config, diffusion=dataclasses.replace(config.diffusion, predicts="clean", bound=1.0))).train()
    heatmaps, truth, generator = mixtures(rows=32)[:, None], 0.5 * poses(32), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(found.parameters(), 4e-3)
    for _ in range(150):
        optimizer.zero_grad()
        found.loss(heatmaps, truth, generator)["loss"].backward()
        optimizer.step()
    lifted = found.eval().predict(heatmaps, 3, found.usual)[:, -1]
    error = torch.linalg.vector_norm(lifted - truth[:, None], dim=-1).mean()
    assert error < 0.1 < 0.25 < torch.linalg.vector_norm(truth - truth.mean(0), dim=-1).mean()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"flip": True}, "flip = True"),
        ({"inputs": "points"}, "inputs = 'points'"),
        ({"network": NetworkConfig(frames=9, drop_path=0.0)}, "network.frames = 9"),
        ({"loss": LossConfig("bones")}, "loss.kind = 'bones'"),
        ({"diffusion": DiffusionConfig(timesteps=25, eta=0.0)}, "diffusion.eta = 0.0"),
        ({"heatmap": HeatmapConfig(late=1000)}, "heatmap.late = 1000"),
        ({"heatmap": HeatmapConfig(candidates=0)}, "heatmap.candidates = 0"),
    ],
)
def test_settings_without_effect_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        DiffPose(dataclasses.replace(recipe(), **change))
    with pytest.raises(InputError, match="30 steps, expected 1 to the 25"):
        model().predict(mixtures()[:, None], 1, 30)
