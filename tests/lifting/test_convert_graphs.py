"""Weights of GraFormer and the refiners in the published layout: written, read back, and what is refused."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dposer.errors import InputError
from dposer.lifting.checkpoint import LiftingCheckpoint, load_lifting, save_lifting
from dposer.lifting.config import LiftingConfig, NetworkConfig
from dposer.lifting.convert_graphs import export_lifter, export_refiner, import_lifter, import_refiner, published_name
from dposer.lifting.methods import build_model

SMALL = NetworkConfig(frames=1, channels=8, depth=3, heads=4, drop_path=0.0, dropout=0.25)


def _checkpoint(method: str, variant: str = "compat") -> LiftingCheckpoint:
    config = LiftingConfig(method=method, variant=variant, network=SMALL)  # type: ignore[arg-type]
    return LiftingCheckpoint(config, {name: torch.randn_like(tensor) for name, tensor in build_model(config).state_dict().items()})


@pytest.mark.parametrize(("method", "module"), [("cross-channel", True), ("single-graph", False)])
def test_round_trip_through_the_published_form(method: str, module: bool, tmp_path: Path) -> None:
    """``module.`` where it is published without, and the other way round; the other tests have it as published."""
    checkpoint = _checkpoint(method)
    export_refiner(checkpoint, tmp_path / "ckpt.pth")
    export_lifter(checkpoint, tmp_path / "gcn_xyz.pth")
    values = torch.load(tmp_path / "ckpt.pth", weights_only=True)
    assert len(values) == 5 and all(name.startswith("module.") == (method == "single-graph") for name in values[0])
    state = {("module." if module else "") + name.removeprefix("module."): tensor for name, tensor in values[0].items()}
    torch.save([state, {"state": {}}, 3, 9, {name: tensor + 1 for name, tensor in values[4].items()}], tmp_path / "ckpt.pth")
    found = import_refiner(tmp_path / "ckpt.pth", tmp_path / "gcn_xyz.pth", span=24)
    assert (found.config.method, found.config.network, found.config.variant) == (method, SMALL, "compat")
    assert found.config.refine.span == 24 and found.provenance["epoch"] == 3
    assert found.weights.keys() == checkpoint.weights.keys()
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in checkpoint.weights.items())
    averaged = import_refiner(tmp_path / "ckpt.pth", tmp_path / "gcn_xyz.pth", averaged=True)
    torch.testing.assert_close(averaged.weights["network.output.bias"], found.weights["network.output.bias"] + 1)
    save_lifting(tmp_path / "own.safetensors", found)
    assert load_lifting(tmp_path / "own.safetensors").config == found.config


def test_the_lifter_alone_and_what_the_published_code_expects_of_it(tmp_path: Path) -> None:
    checkpoint = _checkpoint("graformer")
    export_lifter(checkpoint, tmp_path / "gcn_xyz.pth")
    (state,) = torch.load(tmp_path / "gcn_xyz.pth", weights_only=True)
    assert state["module.temb.dense.1.weight"].shape == (32, 32)
    found = import_lifter(tmp_path / "gcn_xyz.pth")
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in checkpoint.weights.items())
    points = torch.randn(2, 1, 17, 2)
    assert torch.equal(found.model().predict(points), _without_flip(checkpoint).model().predict(points))


def test_published_names() -> None:
    for ours, theirs in (
        ("input.weight", "gconv_input.weight"),
        ("attention.2.attention.out.bias", "atten_layers.2.self_attn.linears.3.bias"),
        ("attention.0.graph.adjacency", "atten_layers.0.feed_forward.A_hat"),
        ("attention.4.norms.1.scale", "atten_layers.4.sublayer.1.norm.a_2"),
        ("guidance.attention.3.graph.widen.weight", "atten_layers_t.3.feed_forward.gconv1.fc.weight"),
        ("guidance.convolution.0.time.bias", "gconv_layers_t.0.temb_proj.bias"),
        ("convolution.1.second.weight", "gconv_layers.1.gconv2.gconv.weight"),
        ("guidance.output.bias", "gconv_output_t.bias"),
        ("time.dense.1.weight", "temb.dense.1.weight"),
        ("spread_joints.weight", "fc3.weight"),
    ):
        assert published_name(ours) == theirs


def test_a_clean_refiner_is_written_with_idle_layers(tmp_path: Path) -> None:
    checkpoint = _checkpoint("cross-channel", "clean")
    export_refiner(checkpoint, tmp_path / "a.pth")
    export_lifter(checkpoint, tmp_path / "b.pth")
    found = import_refiner(tmp_path / "a.pth", tmp_path / "b.pth")
    idle = found.weights.keys() - checkpoint.weights.keys()
    assert idle and not any(found.weights[name].any() for name in idle)


def test_what_is_no_published_file_is_named(tmp_path: Path) -> None:
    checkpoint = _checkpoint("single-graph")
    lifter = tmp_path / "lifter.pth"
    export_lifter(checkpoint, lifter)
    export_refiner(checkpoint, tmp_path / "refiner.pth")
    with pytest.raises(InputError, match="no averaged weights"):
        import_refiner(_written([_state(tmp_path / "refiner.pth")], tmp_path), lifter, averaged=True)
    with pytest.raises(InputError, match="found no state dict"):
        import_lifter(_written([1, 2], tmp_path))
    with pytest.raises(InputError, match="expected published weights of GraFormer"):
        import_lifter(_written([{"module.x": torch.zeros(1)}], tmp_path))
    with pytest.raises(InputError, match="extra are not known"):
        import_lifter(_written([_state(lifter) | {"module.extra": torch.zeros(1)}], tmp_path))
    whole = _state(lifter)
    del whole["module.gconv_output.bias"]
    with pytest.raises(InputError, match=r"network\.output\.bias are missing"):
        import_lifter(_written([whole], tmp_path))
    with pytest.raises(InputError, match="not a readable tensor file"):
        (tmp_path / "y.pth").write_bytes(b"PK\x03\x04 nothing")
        import_lifter(tmp_path / "y.pth")


def _without_flip(checkpoint: LiftingCheckpoint) -> LiftingCheckpoint:
    return LiftingCheckpoint(LiftingConfig.from_dict(checkpoint.config.to_dict() | {"flip": False}, "test"), checkpoint.weights)


def _state(path: Path) -> dict[str, Tensor]:
    return torch.load(path, weights_only=True)[0]


def _written(values: object, folder: Path) -> Path:
    torch.save(values, folder / "x.pth")
    return folder / "x.pth"
