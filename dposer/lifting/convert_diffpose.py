"""Published weights of DiffPose (``model-final.pt``) as checkpoints of this library, and back.

They hold layers that nothing uses (batch norms, a second read-out) and tables of the process: left out on the way in, made anew on the way
out. The settings that belong to them are in a file beside them, see :mod:`dposer.lifting.settings_diffpose`.

Source: Holmquist and Wandt, DiffPose (ICCV 2023); format of github.com/bastianwandt/DiffPose, whose averages are those of ema-pytorch.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dposer.body.skeleton import HEATMAP_16
from dposer.errors import InputError
from dposer.files import PathLike, load_tensors, save_tensors
from dposer.lifting.checkpoint import LiftingCheckpoint, check_weights
from dposer.lifting.config import HeatmapConfig, LiftingConfig
from dposer.lifting.convert import schedule_buffers
from dposer.lifting.model import noise_schedule
from dposer.lifting.settings_diffpose import DATASETS, ICCV, config_to_published

_WHAT = "published weights of DiffPose (model-final.pt with step, model, ema, scaler)"
_JOINTS = len(HEATMAP_16.joints)
_NAMES = {
    "condition.code.": "condition_emb.pos_encoder.",
    "condition.project.": "condition_emb.pos_proj.",
    "condition.joints.": "condition_emb.joint_embedding.",
    "condition.mixer.": "condition_emb.transformer.",
    "condition.readout.": "condition_emb.pos_out.",
    "network.first.": "denoise_fn.upscale.",
    "network.blocks.0.first.": "denoise_fn.res_pose1.l1.",
    "network.blocks.0.second.": "denoise_fn.res_pose1.l2.",
    "network.blocks.1.first.": "denoise_fn.res_pose2.l1.",
    "network.blocks.1.second.": "denoise_fn.res_pose2.l2.",
    "network.last.": "denoise_fn.pose.",
}
"""Ours → theirs, what names begin with."""
_SIZES = {48: DATASETS["h36m"], 72: DATASETS["3dpw"]}
"""By the numbers of a pose."""
_FRESH_SCALER = {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 0}


def published_name(name: str) -> str:
    """``network.blocks.0.first.bias`` → ``denoise_fn.res_pose1.l1.bias``; others stay as they are."""
    return next((theirs + name.removeprefix(ours) for ours, theirs in _NAMES.items() if name.startswith(ours)), name)


def our_name(name: str) -> str:
    """Inverse of :func:`published_name`."""
    return next((ours + name.removeprefix(theirs) for ours, theirs in _NAMES.items() if name.startswith(theirs)), name)


def import_diffpose(path: PathLike, config: LiftingConfig | None = None, averaged: bool = False) -> LiftingCheckpoint:
    """Read published weights.

    Args:
        config: of the settings beside them, see :func:`~dposer.lifting.settings_diffpose.config_from_published`. None: the published
            recipe, as far as names and shapes do not tell another; they tell nothing of likelihoods, of candidates but for concatenated
            ones, of the norm of coordinates, nor of what the network estimates.
        averaged: those averaged over training; the published code measures the others.

    Raises:
        InputError: another kind of file, or names, shapes or a noise schedule that are not those of the settings.
    """
    path = Path(path)
    values = load_tensors(path, _WHAT)
    state = _state(path, values, averaged)
    config = config or _told_by_shapes(path, state)
    idle = _idle(config)
    _require_schedule(path, state, config)
    weights = {our_name(name): tensor.float() for name, tensor in state.items() if name not in idle}
    check_weights(path, _turned(weights, config), config)
    step = values.get("step")
    provenance = {"converted_from": path.name, "step": step if isinstance(step, int) else None, "averaged": averaged}
    return LiftingCheckpoint(config, _turned(weights, config), provenance)


def export_diffpose(checkpoint: LiftingCheckpoint, path: PathLike) -> None:
    """Write a checkpoint as the published code loads it; its weights are both the trained and the averaged ones there.

    Raises:
        InputError: a network or a process that the published code cannot build.
    """
    config = checkpoint.config
    config_to_published(config)
    weights = _turned(checkpoint.weights, config)
    state = {published_name(name): tensor.detach().cpu().float() for name, tensor in weights.items()} | _idle(config)
    step = checkpoint.provenance.get("step") or 0
    averages = {f"{model}.{name}": tensor for model in ("online_model", "ema_model") for name, tensor in state.items()}
    ema = {"initted": torch.ones(1), "step": torch.tensor([step]), **averages}
    save_tensors(path, {"step": step, "model": state, "ema": ema, "scaler": _FRESH_SCALER if config.optim.amp else {}})


def is_diffpose(values: Any) -> bool:
    """Whether the contents of a file are what :func:`import_diffpose` reads."""
    state = values.get("model") if isinstance(values, dict) else None
    return isinstance(state, dict) and "denoise_fn.upscale.weight" in state


def _state(path: Path, values: Any, averaged: bool) -> dict[str, Tensor]:
    entry = "ema" if averaged else "model"
    state = values.get(entry) if isinstance(values, dict) else None
    if averaged and isinstance(state, dict):
        prefix = "ema_model."
        state = {name.removeprefix(prefix): value for name, value in state.items() if isinstance(name, str) and name.startswith(prefix)}
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: found no weights under {entry}, expected {_WHAT}")
    return state


def _told_by_shapes(path: Path, state: Mapping[str, Tensor]) -> LiftingConfig:
    """The published recipe, with other parts where names and shapes say so."""
    shapes = {name.removeprefix("condition_emb.").removeprefix("denoise_fn."): tuple(tensor.shape) for name, tensor in state.items()}
    try:
        inputs, numbers, (steps,) = shapes["upscale.weight"][1], shapes["pose.weight"][0], shapes["betas"]
        readout, told = shapes.get("pos_out.weight", (ICCV.heatmap.readout, _JOINTS * ICCV.network.channels))
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(f"{path}: its weights are not of the published names and shapes ({error}), expected {_WHAT}") from error
    if told == ICCV.network.channels:
        raise InputError(f"{path}: its condition_emb.pos_out is that of MODEL.EXTRA.OLD, expected the read-out of published recipes")
    if numbers not in _SIZES or not steps:
        raise InputError(f"{path}: poses of {numbers} numbers in {steps} steps, expected {' or '.join(map(str, _SIZES))} in some")
    heatmap = HeatmapConfig("concat", (inputs - numbers - 1) // (2 * _JOINTS), likelihood=False, drop=0.0, norm="mean_std")
    if "joint_embedding.weight" in shapes:
        channel = "pos_encoder.centers" in shapes
        heatmap = HeatmapConfig(
            code="channel" if channel else "linear" if "pos_encoder.0.weight" in shapes else "sin",
            norm="unit" if channel else "mean_std",
            projection="pos_proj.weight" in shapes,
            transformer="transformer.layers.0.norm1.weight" in shapes,
            readout=readout,
        )
    layout, fps = _SIZES[numbers]
    return replace(ICCV, layout=layout, fps=fps, diffusion=replace(ICCV.diffusion, timesteps=steps), heatmap=heatmap)


def _idle(config: LiftingConfig) -> dict[str, Tensor]:
    """What the published code keeps besides the weights it uses, as it is before training."""
    h, channels = config.heatmap, config.network.channels
    state = {name: table.float() for name, table in schedule_buffers(config.diffusion).items()}
    state["p2_loss_weight"] = torch.ones(config.diffusion.timesteps)
    for norm in (f"denoise_fn.res_pose{block}.bn{layer}." for block in (1, 2) for layer in (1, 2)):
        state |= {norm + name: torch.ones(h.width) for name in ("weight", "running_var")}
        state |= {norm + name: torch.zeros(h.width) for name in ("bias", "running_mean")}
        state[norm + "num_batches_tracked"] = torch.tensor(0)
    if h.condition == "reference":
        state |= {"condition_emb.conf_out.weight": torch.zeros(1, channels), "condition_emb.conf_out.bias": torch.zeros(1)}
        if h.code == "channel":
            state["condition_emb.pos_encoder.centers"] = torch.linspace(-1, 1, channels // 2)
    return state


def _require_schedule(path: Path, state: Mapping[str, Tensor], config: LiftingConfig) -> None:
    if (theirs := state.get("betas")) is None:
        return
    mine = noise_schedule(config.diffusion).betas.to(theirs)
    if theirs.shape != mine.shape or not torch.allclose(theirs, mine, atol=1e-6):
        raise InputError(
            f"{path}: its noise of {theirs.numel()} steps is not the cosine schedule of {len(mine)} in its settings; give the file's own"
        )


def _turned(weights: Mapping[str, Tensor], config: LiftingConfig) -> dict[str, Tensor]:
    """Ours ↔ theirs: of a 2D pose, the published first layer sees row and −column where ours sees column and −row."""
    turned = dict(weights)
    if config.heatmap.condition == "pose" and "network.first.weight" in turned:
        begin, rows, columns = turned["network.first.weight"].tensor_split((-2 * _JOINTS, -_JOINTS), 1)
        turned["network.first.weight"] = torch.cat((begin, -columns, -rows), 1)
    return turned
