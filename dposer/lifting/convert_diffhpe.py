"""Published weights of DiffHPE (``model.pth``), 2D and Wrapper, as checkpoints of this library, and back."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dposer.errors import InputError
from dposer.lifting.checkpoint import LiftingCheckpoint, check_weights
from dposer.lifting.config import ConditionConfig, DiffusionConfig, LiftingConfig, LossConfig, NetworkConfig
from dposer.lifting.methods import build_model

PREFIX = "diffmodel."
_WHAT = "published weights of DiffHPE (model.pth)"
_PARTS = {
    "network.step.first": "diffmodel.diffusion_embedding.projection1",
    "network.step.second": "diffmodel.diffusion_embedding.projection2",
    "network.input": "diffmodel.input_projection",
    "network.skip": "diffmodel.output_projection1",
    "network.output": "diffmodel.output_projection2",
    "network.blocks": "diffmodel.residual_layers",
    "condition.encode": "conditioning.data_enc",
    "condition.trunk.patch": "conditioning.Spatial_patch_to_embedding",
    "condition.trunk.spatial_position": "conditioning.Spatial_pos_embed",
    "condition.trunk.temporal_position": "conditioning.Temporal_pos_embed",
    "condition.trunk.spatial_norm": "conditioning.Spatial_norm",
    "condition.trunk.temporal_norm": "conditioning.Temporal_norm",
    "condition.trunk.spatial": "conditioning.STEblocks",
    "condition.trunk.temporal": "conditioning.TTEblocks",
    "condition.trunk.head": "conditioning.head",
}
"""Ours → theirs; the longest that fits."""
_OF_BLOCKS = {
    "time": "diffusion_projection",
    "temporal": "time_layer",
    "spatial": "feature_layer",
    "gate": "mid_projection",
    "out": "output_projection",
    "nonlocal_.g": "non_local.non_local.g.0",
    "nonlocal_.theta": "non_local.non_local.theta",
    "nonlocal_.phi": "non_local.non_local.phi.0",
    "nonlocal_.pair": "non_local.non_local.concat_project.0",
    "nonlocal_.out": "non_local.non_local.W.0",
    "nonlocal_.norm": "non_local.non_local.W.1",
}
_OF_LAYERS = {"norm": "bn", "weight": "gconv.W", "bias": "gconv.bias"}
_CONVOLUTIONS = re.compile(
    r"network\.(input|skip|output|blocks\.\d+\.(gate|out|nonlocal_\.(g|theta|phi|out)))\.weight|network\.blocks\.\d+\.nonlocal_\.pair\.weight"
)
"""Weights that are 1 × 1 convolutions there."""


def published_name(name: str) -> str:
    """``network.blocks.3.temporal.weight`` → ``diffmodel.residual_layers.3.time_layer.gconv.W``."""
    part = max((part for part in _PARTS if name.startswith(f"{part}.") or name == part), key=len)
    rest = name.removeprefix(part)
    if part == "network.blocks":
        _, number, rest = rest.split(".", 2)
        inner = max((inner for inner in _OF_BLOCKS if rest.startswith(f"{inner}.")), key=len)
        rest = rest.removeprefix(f"{inner}.")
        if inner in ("temporal", "spatial"):
            first, dot, others = rest.partition(".")
            rest = f"{_OF_LAYERS[first]}{dot}{others}"
        rest = f".{number}.{_OF_BLOCKS[inner]}.{rest}"
    return _PARTS[part] + rest


def diffhpe_from_published(
    path: Path, state: Mapping[str, Tensor], layout: str = "h36m17", heads: int = 8, fps: float = 50.0
) -> LiftingCheckpoint:
    """A checkpoint of what is stored under the published names; sizes are told from shapes.

    Args:
        layout, heads, fps: which the file does not tell.

    Raises:
        InputError: names or shapes of something else.
    """
    state = {re.sub(r"^conditioning\.head\.(weight|bias)$", r"conditioning.head.0.\1", name): tensor for name, tensor in state.items()}
    try:
        frames = state["diffmodel.residual_layers.0.time_layer.gconv.W"].shape[-1]
        channels = state["diffmodel.residual_layers.0.feature_layer.gconv.W"].shape[-1]
        wraps = "conditioning.Spatial_pos_embed" in state
        condition = ConditionConfig(
            kind="features" if wraps else "points",
            channels=state["conditioning.Spatial_pos_embed"].shape[-1] if wraps else 64,
            depth=_count(state, r"conditioning\.STEblocks\.\d+\.norm1\.weight") if wraps else 8,
            heads=heads,
            encode_pose=not wraps or "conditioning.data_enc.weight" in state,
            keep_head="conditioning.head.1.weight" in state,
        )
    except KeyError as error:
        raise InputError(f"{path}: lacks {error}, expected {_WHAT}") from error
    config = LiftingConfig.from_dict(
        LiftingConfig(
            method="diffhpe" if wraps else "diffhpe-2d",
            variant="compat",
            fps=fps,
            flip=False,
            hidden="zero",
            network=NetworkConfig(frames, channels, _count(state, r"diffmodel\.residual_layers\.\d+\.mid_projection\.weight"), heads, 0.0),
            diffusion=DiffusionConfig(timesteps=50, beta_end=0.5),
            condition=condition,
            loss=LossConfig("mse"),
        ).to_dict()
        | {"layout": layout},
        "layout",
    )
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in build_model(config).state_dict().items()}
    ours = {published_name(name): name for name in shapes}
    weights = {}
    for name, tensor in state.items():
        mine = ours.get(name, name)
        squeezed = _CONVOLUTIONS.fullmatch(mine) and tensor.numel() == shapes[mine].numel()
        weights[mine] = tensor.reshape(shapes[mine]) if squeezed else tensor
    check_weights(path, weights, config)
    return LiftingCheckpoint(config, weights, {"converted_from": path.name})


def diffhpe_to_published(checkpoint: LiftingCheckpoint) -> dict[str, Tensor]:
    """The state that the published code loads."""
    state = {}
    for name, tensor in checkpoint.weights.items():
        extra = 2 if name.endswith("pair.weight") else 1
        state[published_name(name)] = tensor.reshape(*tensor.shape, *[1] * extra) if _CONVOLUTIONS.fullmatch(name) else tensor
    return state


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return sum(bool(re.fullmatch(pattern, name)) for name in state)
