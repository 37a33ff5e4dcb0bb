"""DiffHPE: the published sizes and tables, what a perfect denoiser gives, conditions, guidance and published weights."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dposer.body.skeleton import H36M_17
from dposer.errors import InputError
from dposer.files import save_tensors
from dposer.lifting.checkpoint import LiftingCheckpoint
from dposer.lifting.config import ConditionConfig, DiffusionConfig, LiftingConfig, LossConfig, NetworkConfig
from dposer.lifting.convert import export_published, import_published
from dposer.lifting.ctgcn import CTGCN, GraphLayer, StepEmbedding, groups
from dposer.lifting.diffhpe import DiffHPE
from dposer.lifting.graph import adjacency, bones
from dposer.lifting.losses import Losses
from dposer.lifting.methods import build_model
from dposer.lifting.model import LiftingModel
from dposer.lifting.noise import Noise

PROCESS = DiffusionConfig(timesteps=50, beta_end=0.5)
FULL = NetworkConfig(frames=27, channels=64, depth=16, drop_path=0.0, dropout=0.27)
SMALL = NetworkConfig(frames=9, channels=8, depth=2, drop_path=0.0)
TRUNK = ConditionConfig("features", channels=16, depth=2, heads=2)


def _config(method: str, **others: object) -> LiftingConfig:
    condition = TRUNK if method == "diffhpe" else ConditionConfig()
    settings = {"network": SMALL, "diffusion": PROCESS, "flip": False, "hidden": "zero", "condition": condition} | others
    return LiftingConfig(method=method, **settings)  # type: ignore[arg-type]


def _model(method: str, **others: object) -> LiftingModel:
    """Trained a little, since a fresh denoiser says the same of everything."""
    torch.manual_seed(0)
    model = build_model(_config(method, **others)).eval()
    with torch.no_grad():
        model.network.output.weight.normal_(0, 0.2)
    return model


def _poses(count: int = 1) -> Tensor:
    poses = torch.randn(count, 9, 17, 3) * 0.2
    return poses - poses[:, :, :1]


def _count(parameters: nn.Module, trained: bool = False) -> int:
    return sum(p.numel() for p in parameters.parameters() if p.requires_grad or not trained)


def test_the_published_sizes() -> None:
    raw = build_model(_config("diffhpe-2d", network=FULL))
    assert _count(raw) == 3_201_971
    wrapper = build_model(_config("diffhpe", network=FULL, condition=ConditionConfig("features")))
    assert (_count(wrapper), _count(wrapper, trained=True), _count(wrapper.network)) == (3_749_043, 3_210_099, 3_209_843)


def test_the_published_tables() -> None:
    schedule = build_model(_config("diffhpe-2d")).schedule
    assert isinstance(schedule.betas, Tensor)
    betas = {0: 0.00174751, 1: 0.00368895, 10: 0.0217907, 25: 0.0630498, 40: 0.184972, 46: 0.436223, 47: 0.5, 49: 0.5}
    assert [float(schedule.betas[i]) for i in betas] == pytest.approx(list(betas.values()), rel=1e-5)
    bars = {0: 0.998252, 10: 0.879122, 25: 0.462707, 40: 0.0766498, 46: 0.00871812, 49: 0.00108976}
    assert [float(schedule.alpha_bars[i]) for i in bars] == pytest.approx(list(bars.values()), rel=1e-5)
    assert StepEmbedding(50, 128).table[1, :3].tolist() == pytest.approx([0.8415, 0.9158, 0.9734], abs=1e-4)
    mixing = adjacency(bones(H36M_17), 17)
    assert sorted(mixing[0][mixing[0] > 0].tolist()) == [0.25] * 4
    assert mixing[8][mixing[8] > 0].tolist() == pytest.approx([0.2] * 5)
    assert mixing[3].max() == 0.5
    assert groups(H36M_17, compat=True)[4:] == [(8, 9), (10, 15), (16, 12), (13, 11)]
    assert groups(H36M_17, compat=False)[4:] == [(8, 9, 10), (15, 16), (12, 13), (11, 14)]
    assert float(GraphLayer(H36M_17, 27, 0).weight.detach().abs().max()) == pytest.approx(0.0294, abs=2e-4)


def test_a_graph_layer_is_the_sum_over_neighbours() -> None:
    layer = GraphLayer(H36M_17, 4, 0.0).eval()
    x, mixing, weight = torch.randn(17, 3, 4), adjacency(bones(H36M_17), 17), layer.weight
    for i in (0, 8, 16):
        y = mixing[i, i] * x[i] @ weight[0, i] + sum(mixing[i, k] * x[k] @ weight[1, k] for k in range(17) if k != i) + layer.bias
        torch.testing.assert_close(layer(x)[i], (y / (1 + layer.norm.eps) ** 0.5).relu())


def test_before_training_noise_is_told_to_be_a_constant_of_each_channel() -> None:
    model = build_model(_config("diffhpe-2d")).eval()
    assert isinstance(model.network, CTGCN)
    found = model.network(torch.randn(2, 9, 17, 5), torch.tensor([3.0, 40.0]))
    torch.testing.assert_close(found, model.network.output.bias.expand_as(found))
    losses = model.loss(torch.zeros(64, 9, 17, 2), _poses(64), torch.Generator().manual_seed(0))
    assert float(losses["loss"].detach()) == pytest.approx(1 + float(model.network.output.bias.detach().square().mean()), abs=0.03)


class _Oracle(nn.Module):
    """The true noise, or the clean state, of a known pose."""

    def __init__(self, model: DiffHPE, pose: Tensor) -> None:
        super().__init__()
        self.schedule, self.pose, self.d = model.schedule, pose, model.config.diffusion

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.schedule.alpha(t)[:, None, None, None], self.schedule.sigma(t)[:, None, None, None]
        clean = (self.d.scale * self.pose).expand_as(z[..., :3])
        return clean if self.d.predicts == "clean" else ((z[..., :3] - alpha * clean) / sigma).float()


@pytest.mark.parametrize(
    ("variant", "steps", "process"),
    [
        ("compat", 50, PROCESS),
        ("clean", 50, PROCESS),
        ("clean", 7, dataclasses.replace(PROCESS, scale=3.0)),
        ("clean", 7, dataclasses.replace(PROCESS, scale=3.0, predicts="clean")),
    ],
)
def test_a_perfect_denoiser_recovers_the_pose(variant: str, steps: int, process: DiffusionConfig) -> None:
    model = _model("diffhpe-2d", variant=variant, diffusion=process)
    assert isinstance(model, DiffHPE)
    pose = _poses()[0]
    model.network = _Oracle(model, pose)  # type: ignore[assignment]
    found = model.predict(torch.zeros(2, 9, 17, 2), hypotheses=3, steps=steps)
    assert found.shape == (2, 1, 3, 9, 17, 3)
    torch.testing.assert_close(found, pose.expand_as(found), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["diffhpe-2d", "diffhpe"])
def test_no_result_depends_on_what_is_computed_together(method: str) -> None:
    model, keypoints = _model(method, flip=True), torch.randn(3, 9, 17, 2)
    noise = Noise.of(7, "clip", [0, 9, 18])
    together = model.predict(keypoints, 2, 3, noise)
    torch.testing.assert_close(model.predict(keypoints, 2, 3, noise, max_batch=5), together)
    torch.testing.assert_close(model.predict(keypoints[1:2], 2, 3, noise[1:2]), together[1:2])
    assert not torch.allclose(together[:, :, 0], together[:, :, 1])


def test_the_trunk_is_evaluated_once_a_window_and_never_trained() -> None:
    model, calls = _model("diffhpe"), []
    trunk = model.condition.trunk
    trunk.register_forward_hook(lambda *_: calls.append(1))
    trunk.patch.register_forward_hook(lambda module, given, out: calls.append(len(out)))
    model.predict(torch.randn(2, 9, 17, 2), hypotheses=4, steps=5)
    assert calls == [2]
    before = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    model.train()
    assert not trunk.training and model.network.training
    model.loss(torch.randn(2, 9, 17, 2), _poses(2))["loss"].backward()
    optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in trunk.state_dict().items())


@pytest.mark.parametrize("condition", [
    ConditionConfig("none"),
    ConditionConfig("points", drop=0.5, guidance=1.0),
    dataclasses.replace(TRUNK, kind="trained", drop=0.5, guidance=1.0),
    dataclasses.replace(TRUNK, drop=0.5, drop_before=True, drop_share=0.3, guidance=0.5),
    dataclasses.replace(TRUNK, keep_head=True, encode_pose=False, mix="sum"),
    dataclasses.replace(TRUNK, mix="sum"),
], ids=lambda c: f"{c.kind}-{c.mix}-{c.guidance}")  # fmt: skip
@pytest.mark.parametrize("inputs", ["points", "visible"])
def test_every_condition_trains_and_samples(condition: ConditionConfig, inputs: str) -> None:
    method = "diffhpe" if condition.kind in ("features", "trained") else "diffhpe-2d"
    model = _model(method, condition=condition, inputs=inputs, flip=True)
    observed = torch.randn(2, 9, 17, model.config.columns)
    model.train().loss(observed, _poses(2))["loss"].backward()
    assert all(p.grad is not None for p in model.network.parameters())
    assert model.eval().predict(observed, 2, 3).isfinite().all()


def test_guidance_is_an_extrapolation_from_the_unconditional_noise() -> None:
    plain, guided = (_model("diffhpe-2d", condition=ConditionConfig(drop=0.1, guidance=w)) for w in (0.0, 1.5))
    state, t, observed = _poses(2), torch.tensor([5.0, 30.0]), torch.randn(2, 9, 17, 2)
    told, nothing = (plain.forward(state, t, plain.context(some)) for some in (observed, 0 * observed))
    torch.testing.assert_close(guided.forward(state, t, guided.context(observed)), 2.5 * told - 1.5 * nothing)


def test_bones_that_vary_or_differ_cost() -> None:
    losses = Losses(LiftingConfig(loss=LossConfig("mse", consistency=0.2, symmetry=0.3)))
    still = _poses()[:, :1].expand(-1, 9, -1, -1)
    same = losses.denoising(torch.tensor(0.0), still, still)
    assert float(same["consistency"]) == pytest.approx(0, abs=1e-9) and float(same["symmetry"]) > 0
    assert float(same["loss"]) == pytest.approx(0.3 * float(same["symmetry"]))


def test_the_wrapper_begins_with_a_mixste() -> None:
    mixste = build_model(LiftingConfig(method="mixste", network=NetworkConfig(9, 16, 2, 2), hidden="zero"))
    model = _model("diffhpe")
    model.start_from(mixste.config, mixste.state_dict())
    observed = torch.randn(2, 9, 17, 2)
    torch.testing.assert_close(model.context(observed)[:, 0], mixste.eval().network.head[0](mixste.network.features(observed)))
    for other in (_model("diffhpe-2d"), _model("diffhpe", condition=dataclasses.replace(TRUNK, depth=3))):
        with pytest.raises(InputError, match="trunk takes MixSTE"):
            other.start_from(mixste.config, mixste.state_dict())


@pytest.mark.parametrize("method", ["diffhpe-2d", "diffhpe"])
def test_published_weights_come_back(method: str, tmp_path: Path) -> None:
    model = _model(method, variant="compat")
    export_published(LiftingCheckpoint(model.config, model.state_dict()), tmp_path / "model.pth")
    back = import_published(tmp_path / "model.pth", heads=2)
    assert back.config.condition.kind == model.config.condition.kind and back.config.network.depth == 2
    observed = torch.randn(1, 9, 17, 2)
    torch.testing.assert_close(back.model().predict(observed, 2, 3), model.predict(observed, 2, 3))
    state = {f"{name}.weight": torch.zeros(3) for name in ("diffmodel.input_projection", "diffmodel.output_projection1")}
    save_tensors(tmp_path / "other.pth", state)
    with pytest.raises(InputError, match="lacks"):
        import_published(tmp_path / "other.pth")


@pytest.mark.parametrize("condition", [ConditionConfig(guidance=1.0), ConditionConfig(drop=0.1, drop_share=0.5)])
def test_settings_without_effect_are_refused(condition: ConditionConfig) -> None:
    with pytest.raises(InputError, match=r"condition\.drop|drop_before"):
        build_model(_config("diffhpe-2d", condition=condition))


@pytest.mark.parametrize(("method", "kind"), [("diffhpe", "points"), ("diffhpe-2d", "features")])
def test_a_condition_of_the_other_method_is_refused(method: str, kind: str) -> None:
    with pytest.raises(InputError, match=f"condition.kind = '{kind}'"):
        build_model(_config(method, condition=dataclasses.replace(TRUNK, kind=kind)))
