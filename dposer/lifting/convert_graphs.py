"""Published weights of GraFormer (``gcn_xyz_*.pth``) and of the refiners as checkpoints of this library, and back.

The files are lists: the state dict comes first, its names with or without ``module.``; those of refiners go on with the optimiser's state,
epoch, step and averaged weights. A refiner and its lifter come in two files.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dposer.errors import InputError
from dposer.files import PathLike, save_tensors
from dposer.lifting.checkpoint import LiftingCheckpoint, check_weights
from dposer.lifting.config import DiffusionConfig, LiftingConfig, LossConfig, Method, NetworkConfig, RefineConfig
from dposer.lifting.convert import read_published
from dposer.lifting.methods import build_model

PROCESS = DiffusionConfig(timesteps=51, schedule="linear", beta_start=1e-4, beta_end=1e-3)
"""Of both refiners."""
_LIFTER, _REFINER = "published weights of GraFormer (a list)", "published weights of a cross-channel or single-graph refiner (a list)"
_PARTS = {
    "input": "gconv_input",
    "output": "gconv_output",
    "attention": "atten_layers",
    "convolution": "gconv_layers",
    "time.dense": "temb.dense",
    "raise_keypoints": "fc1",
    "join": "fc2",
    "spread_joints": "fc3",
}
"""Ours → theirs; those of the guiding branch end in ``_t``."""
_LAYERS = {
    "attention.query": "self_attn.linears.0",
    "attention.key": "self_attn.linears.1",
    "attention.value": "self_attn.linears.2",
    "attention.out": "self_attn.linears.3",
    "graph.adjacency": "feed_forward.A_hat",
    "graph.widen": "feed_forward.gconv1.fc",
    "graph.narrow": "feed_forward.gconv2.fc",
    "norms.0.scale": "sublayer.0.norm.a_2",
    "norms.0.shift": "sublayer.0.norm.b_2",
    "norms.1.scale": "sublayer.1.norm.a_2",
    "norms.1.shift": "sublayer.1.norm.b_2",
    "first": "gconv1.gconv",
    "second": "gconv2.gconv",
    "time": "temb_proj",
}
_NAME = re.compile(
    rf"(?P<guiding>guidance\.)?(?P<part>{'|'.join(map(re.escape, _PARTS))})(\.(?P<level>\d+))?"
    rf"(\.(?P<layer>{'|'.join(map(re.escape, _LAYERS))}))?(?P<rest>(\.\w+)?)"
)


def published_name(name: str) -> str:
    """``guidance.attention.3.graph.widen.weight`` → ``atten_layers_t.3.feed_forward.gconv1.fc.weight``."""
    found = _NAME.fullmatch(name)
    assert found is not None, name
    part = _PARTS[found["part"]] + ("_t" if found["guiding"] else "")
    return ".".join(filter(None, (part, found["level"], _LAYERS.get(found["layer"] or "")))) + found["rest"]


def import_lifter(path: PathLike, heads: int = 4, fps: float = 50.0) -> LiftingCheckpoint:
    """A published GraFormer, "graformer". Its time layers, which nothing uses, are left out.

    Args:
        heads: of each attention, which the file does not tell.
        fps: of the data it was trained on.

    Raises:
        InputError: another kind of file, or names or shapes of another network.
    """
    path = Path(path)
    state = {name: tensor for name, tensor in _state(path, read_published(path, _LIFTER), _LIFTER).items() if not name.startswith("temb.")}
    config = _config(path, "graformer", state, heads, fps, _LIFTER)
    weights = _named(state, "network.", config)
    check_weights(path, weights, config)
    return LiftingCheckpoint(config, weights, {"converted_from": path.name})


def import_refiner(
    denoiser: PathLike, lifter: PathLike, heads: int = 4, fps: float = 50.0, span: int = 12, averaged: bool = False
) -> LiftingCheckpoint:
    """A published refiner with its lifter, "cross-channel" or "single-graph"; the names tell which.

    Args:
        heads, fps: see :func:`import_lifter`.
        span: T', which the file does not tell: 24 for single-graph on CPN keypoints, else 12.
        averaged: take the averaged weights, which the published code keeps but does not evaluate.

    Raises:
        InputError: another kind of file, names or shapes of another network, or networks of different sizes.
    """
    path, before = Path(denoiser), import_lifter(lifter, heads, fps)
    values = read_published(path, _REFINER)
    state = _state(path, values, _REFINER)
    if averaged:
        if not (isinstance(values, list) and len(values) > 4 and isinstance(values[4], dict) and values[4]):
            raise InputError(f"{path}: holds no averaged weights, expected them as the fifth entry; take the plain ones")
        state |= {name.removeprefix("module."): tensor.float() for name, tensor in values[4].items()}
    config = _config(path, "cross-channel" if "fc1.weight" in state else "single-graph", state, heads, fps, _REFINER, span)
    if config.network != before.config.network:
        raise InputError(f"{lifter}: a lifter of {before.config.network}, {path.name} is of {config.network}, expected the same sizes")
    weights = _named(state, "network.", config) | {
        "lifter." + name.removeprefix("network."): tensor for name, tensor in before.weights.items()
    }
    check_weights(path, weights, config)
    epoch = values[2] if isinstance(values, list) and len(values) > 2 and isinstance(values[2], int) else None
    return LiftingCheckpoint(config, weights, {"converted_from": [path.name, Path(lifter).name], "epoch": epoch, "averaged": averaged})


def export_lifter(checkpoint: LiftingCheckpoint, path: PathLike) -> None:
    """Write a GraFormer, or a refiner's, as the published code reads it: ``module.``, and zeros for the time layers that it expects."""
    own = "network." if checkpoint.config.method == "graformer" else "lifter."
    state = {published_name(name.removeprefix(own)): tensor for name, tensor in checkpoint.weights.items() if name.startswith(own)}
    channels = checkpoint.config.network.channels
    for layer, inputs in enumerate((channels, 4 * channels)):
        state |= {
            f"temb.dense.{layer}.weight": torch.zeros(4 * channels, inputs),
            f"temb.dense.{layer}.bias": torch.zeros(4 * channels),
        }
    save_tensors(path, [_prefixed(state)])


def export_refiner(checkpoint: LiftingCheckpoint, path: PathLike) -> None:
    """Write a refiner's network as the published code reads it; layers that nothing uses are zeros unless the checkpoint has them."""
    config = checkpoint.config
    compat = LiftingConfig(method=config.method, variant="compat", layout=config.layout, inputs=config.inputs, network=config.network)
    with torch.device("meta"):
        expected = build_model(compat).state_dict()
    state = {
        published_name(name.removeprefix("network.")): checkpoint.weights.get(name, torch.zeros(tensor.shape))
        for name, tensor in expected.items()
        if name.startswith("network.")
    }
    named = state if config.method == "cross-channel" else _prefixed(state)
    save_tensors(path, [named, {}, checkpoint.provenance.get("epoch") or 0, 0, dict(state)])


def _prefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{name}": tensor for name, tensor in state.items()}


def _state(path: Path, values: Any, what: str) -> dict[str, Tensor]:
    """The weights, names without ``module.``."""
    state = values[0] if isinstance(values, list) and values else values
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: found no state dict as the first entry, expected {what}")
    return {str(name).removeprefix("module."): tensor.float() for name, tensor in state.items()}


def _config(
    path: Path, method: Method, state: dict[str, Tensor], heads: int, fps: float, what: str, span: int = 12
) -> LiftingConfig:  # fmt: skip
    """Sizes as the shapes tell them."""
    if "gconv_input.weight" not in state or state["gconv_input.weight"].ndim != 4:
        raise InputError(f"{path}: weights {', '.join(list(state)[:3])} ..., expected {what}")
    depth = sum(bool(re.fullmatch(r"atten_layers\.\d+\.feed_forward\.A_hat", name)) for name in state)
    drawn = method == "single-graph"
    return LiftingConfig(
        method=method,
        variant="compat",
        fps=fps,
        flip=method == "cross-channel",
        inputs="mixture" if drawn else "points",
        network=NetworkConfig(1, state["gconv_input.weight"].shape[-1], depth, heads, 0.0, 0.25),
        diffusion=PROCESS,
        refine=RefineConfig(noise_from="mixture", component="draw", span=span) if drawn else RefineConfig(span=span),
        loss=LossConfig("mse" if method == "graformer" else "position"),
    )


def _named(state: dict[str, Tensor], prefix: str, config: LiftingConfig) -> dict[str, Tensor]:
    """Under our names; unknown ones stay as they are."""
    with torch.device("meta"):
        names = [name for name in build_model(config).state_dict() if name.startswith(prefix)]
    ours = {published_name(name.removeprefix(prefix)): name for name in names}
    return {ours.get(name, name): tensor for name, tensor in state.items()}
