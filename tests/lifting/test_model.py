"""The methods as processes: noise, steps, the mirror, and what a perfect denoiser gives."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dposer.diffusion.schedule import DiscreteSchedule
from dposer.lifting.config import LiftingConfig, LossConfig, NetworkConfig
from dposer.lifting.d3dp import D3DP
from dposer.lifting.losses import Losses
from dposer.lifting.methods import build_model
from dposer.lifting.model import LiftingModel, sampling_times
from dposer.lifting.noise import Noise
from dposer.lifting.windows import flip

SMALL = NetworkConfig(frames=9, channels=16, depth=2, heads=2)
METHODS = pytest.mark.parametrize("method", ["mixste", "d3dp", "ddhpose"])


def _model(method: str, variant: str = "clean", **others: object) -> LiftingModel:
    torch.manual_seed(0)
    return build_model(LiftingConfig(method=method, variant=variant, network=SMALL, **others)).eval()  # type: ignore[arg-type]


class _Oracle(nn.Module):
    """Says the same whatever it is asked, for straight and mirrored input."""

    def __init__(self, straight: Tensor, layout: object) -> None:
        super().__init__()
        self.both = torch.stack((straight, flip(straight, layout)))  # type: ignore[arg-type]

    def forward(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        return self.both.repeat_interleave(len(x) // 2, 0) if len(x) > 1 else self.both[:1]


def _pose() -> Tensor:
    pose = torch.randn(9, 17, 3) * 0.15
    return pose - pose[:, :1]


def test_schedule_and_step_tables() -> None:
    bars = DiscreteSchedule.cosine(1000).alpha_bars
    for step, value in ((0, 0.9999587), (199, 0.898706), (499, 0.493844), (799, 0.0940456), (999, 2.4288e-9)):
        assert float(bars[step]) == pytest.approx(value, rel=1e-5)
    assert sampling_times(1000, 1).tolist() == [999, -1]
    assert sampling_times(1000, 5).tolist() == [999, 799, 599, 399, 199, -1]
    assert sampling_times(1000, 10).tolist() == [*range(999, 0, -100), -1]


@pytest.mark.parametrize("method", ["d3dp", "ddhpose"])
@pytest.mark.parametrize("variant", ["clean", "compat"])
def test_a_perfect_denoiser_is_right_at_every_step(method: str, variant: str) -> None:
    model, pose = _model(method, variant), _pose()
    model.network = _Oracle(pose, model.config.skeleton)
    found = model.predict(torch.randn(1, 9, 17, 2), hypotheses=3, steps=4)
    assert found.shape == (1, 4, 3, 9, 17, 3)
    torch.testing.assert_close(found, pose.expand_as(found))


@METHODS
def test_no_result_depends_on_what_is_computed_together(method: str) -> None:
    model, keypoints = _model(method), torch.randn(3, 9, 17, 2)
    noise = Noise.of(7, "clip", [0, 9, 18])
    together = model.predict(keypoints, 2, 3, noise, max_batch=64)
    for max_batch in (1, 5):
        torch.testing.assert_close(model.predict(keypoints, 2, 3, noise, max_batch), together)
    torch.testing.assert_close(model.predict(keypoints[1:2], 2, 3, noise[1:2]), together[1:2])
    if method != "mixste":
        assert not torch.allclose(model.predict(keypoints, 2, 3, Noise.of(8, "clip", [0, 9, 18])), together)
        fewer = model.predict(keypoints, 1, 3, noise)
        torch.testing.assert_close(fewer, together[:, :, :1])  # hypothesis 0 is the same however many there are


@METHODS
def test_a_mirrored_clip_gives_mirrored_poses(method: str) -> None:
    """Exact for one step from noise that is mirrored too; here the noise is switched off by a network that ignores it."""
    model, keypoints = _model(method), torch.randn(1, 9, 17, 2)
    layout = model.config.skeleton
    with torch.no_grad():
        if method != "mixste":
            model.network.patch.weight[:, 2:] = 0
    straight, mirrored = (model.predict(points) for points in (keypoints, flip(keypoints, layout)))
    torch.testing.assert_close(mirrored, flip(straight, layout), atol=1e-5, rtol=1e-4)


def test_the_roots_slot_of_the_published_sampler_keeps_its_first_noise() -> None:
    """In the clean variant its variance falls with that of the others."""
    spreads = {}
    for variant in ("compat", "clean"):
        model, seen = _model("ddhpose", variant, flip=False), []

        def spy(x: Tensor, t: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(x[:, :, 0, 2:])
            return torch.zeros(*x.shape[:-1], 3)

        model.network = _Module(spy)
        model.predict(torch.zeros(40, 9, 17, 2), hypotheses=1, steps=5)
        spreads[variant] = [step.std().item() for step in seen]
        assert (variant == "compat") == torch.equal(seen[0], seen[-1])
    sigma = [DiscreteSchedule.cosine(1000).sigma(t).item() for t in (399.0, 199.0)]
    assert spreads["clean"][3:] == pytest.approx(sigma, rel=0.1)  # small enough that the clamp does not bite


class _Module(nn.Module):
    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.function(x, t)


def test_the_denoiser_sees_a_clamped_state_and_its_pose_is_clamped() -> None:
    model = _model("d3dp", flip=False)
    seen: list[Tensor] = []

    def big(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x)
        return torch.full((*x.shape[:-1], 3), 5.0)

    model.network = _Module(big)
    found = model.predict(torch.zeros(1, 9, 17, 2), steps=2)
    assert max(float(x[..., 2:].abs().max()) for x in seen) == pytest.approx(1.1)
    assert found[..., 1:, :].unique().tolist() == pytest.approx([1.1])
    assert not found[..., 0, :].any()


@pytest.mark.parametrize("unit", [1.0, 0.001])
def test_losses_by_hand(unit: float) -> None:
    pose = _pose()[None].double()
    moved = pose * 1.1
    config = LiftingConfig(loss=LossConfig("bones", wl=2.0, wd=3.0, unit=unit, length_unit=unit))
    parts = Losses(config)(moved, pose)
    up = list(config.skeleton.parents)
    length = (pose[..., 1:, :] - pose[..., up[1:], :]).norm(dim=-1).mean(1)
    torch.testing.assert_close(parts["position"], (pose * 0.1).norm(dim=-1).mean() / unit)
    torch.testing.assert_close(parts["length"], (0.1 * length).square().mean() / unit**2)
    assert float(parts["direction"]) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(parts["loss"], parts["position"] + 2 * parts["length"])
    backwards = Losses(config)(-pose, pose)
    assert float(backwards["direction"]) == pytest.approx(4)  # 2 - 2 cos 180 degrees
    squared = Losses(LiftingConfig(loss=LossConfig("position", squared=True)))(moved, pose)
    torch.testing.assert_close(squared["loss"], squared["position"] ** 2 / 2)


def test_mixste_weighs_joints_smoothness_and_velocity() -> None:
    losses = Losses(LiftingConfig(method="mixste", loss=LossConfig("mixste")))
    assert losses.weights.tolist() == [1, 1, 2.5, 2.5, 1, 2.5, 2.5, 1, 1, 1, 1.5, 1.5, 4, 4, 1.5, 4, 4]
    still = torch.zeros(1, 3, 17, 3)
    jump = still.clone()
    jump[:, 1, 13, 0] = 0.1
    parts = losses(jump, still)
    assert float(parts["smoothness"]) == pytest.approx(4 * 2 * 0.01 / (2 * 17 * 3))
    assert float(parts["velocity"]) == pytest.approx(2 * 0.1 / (2 * 17))
    assert float(parts["loss"]) == pytest.approx(4 * 0.1 / 51 + 0.5 * float(parts["smoothness"]) + 2 * float(parts["velocity"]))


@METHODS
def test_one_batch_can_be_learnt_by_heart(method: str) -> None:
    kind = {"mixste": "mixste", "d3dp": "position", "ddhpose": "bones"}[method]
    model = _model(method, loss=LossConfig(kind)).train()  # type: ignore[arg-type]
    random = torch.Generator().manual_seed(0)
    keypoints, pose = torch.randn(4, 9, 17, 2, generator=random), _pose().expand(4, -1, -1, -1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first = None
    for _ in range(40):
        losses = model.loss(keypoints, pose, random)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        first = first or float(losses["loss"].detach())
    assert isinstance(model, D3DP) == (method != "mixste")
    assert float(losses["loss"].detach()) < 0.5 * first
