"""Published DPoser weights (``axis-zscore-400k.pth``, Lightning ``.ckpt``) as a checkpoint of this library.

The averaged weights are taken; the raw ones next to them score worse. Nothing in the file is executed.
"""

import dataclasses
import logging
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dposer.errors import InputError
from dposer.files import PathLike, load_tensors
from dposer.prior.checkpoint import Checkpoint, check_weights
from dposer.prior.config import ModelConfig, PriorConfig
from dposer.prior.networks import build_network
from dposer.prior.normalizer import DIMS, Normalizer, RotationRepresentation, find_reference

logger = logging.getLogger(__name__)

PUBLISHED_SUFFIXES = (".pth", ".pt", ".ckpt")
_WHAT = "published DPoser weights (.pth with model_state_dict and ema, or .ckpt with state_dict and model_ema)"
_UNUSED = ("pre_dense_cond.weight", "pre_dense_cond.bias")
"""A layer of the first release that no output depends on, yet counted in its list of averaged weights."""


def convert(path: PathLike, normalizer: PathLike | Normalizer | None = None, config: PriorConfig | None = None) -> Checkpoint:
    """Read published weights.

    Args:
        path: ``.pth`` of the first release or Lightning ``.ckpt`` of the later ones.
        normalizer: the normaliser the weights were trained with: a reference file, a folder that holds it, or
            "published" for the AMASS statistics of the first two releases. Default: a reference file beside ``path``;
            failing that, for axis-angle weights of the first release, the published statistics.
        config: what the file does not tell (SDE, nonlinearity, ...); default: the published recipe.

    Raises:
        InputError: another kind of file, weights of other shapes, or no normaliser.
    """
    path = Path(path)
    state, averaged, step, lightning = _parse(path, _load(path))
    config = _inferred(path, state, config or PriorConfig())
    network = {name: state[name] for name in ("sigmas", "gauss_proj.W") if name in state} | _named(path, state, averaged, config)
    dim = DIMS[config.data.rot_rep]
    check_weights(path, network, config, dim)
    for name, tensor in network.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{path}: {name} holds NaN or infinity, expected finite weights; fetch the file again")
    statistics, origin = _normalizer(path, normalizer, config, lightning)
    provenance = {"converted_from": path.name, "step": step, "weights": "averaged", "normalizer": origin}
    return Checkpoint(config, {name: tensor.float() for name, tensor in network.items()}, statistics, provenance)


def _load(path: Path) -> dict[str, Any]:
    try:
        values = load_tensors(path, _WHAT)
    except InputError as error:
        if isinstance(error.__cause__, pickle.UnpicklingError):
            raise InputError(
                f"{path}: holds Python objects besides tensors, which are never loaded, expected {_WHAT}; "
                "re-save only its weights and averaged weights where it was made"
            ) from error
        raise
    if not isinstance(values, dict):
        raise InputError(f"{path}: found a {type(values).__name__}, expected {_WHAT}")
    return values


def _parse(path: Path, values: dict[str, Any]) -> tuple[dict[str, Tensor], list[Tensor], int | None, bool]:
    """The state dict without prefix, the averaged weights in order, the step, and whether it is a Lightning file."""
    lightning = "state_dict" in values
    state = _tensors(values.get("state_dict" if lightning else "model_state_dict"))
    averaged = values.get("model_ema" if lightning else "ema")
    if isinstance(averaged, dict) and "shadow_params" in averaged:
        averaged = averaged["shadow_params"]
    shadow = list(_tensors(dict(enumerate(averaged)) if isinstance(averaged, list | tuple) else averaged).values())
    if not state or not shadow:
        raise InputError(f"{path}: found keys {', '.join(map(str, values)) or 'none'}, expected {_WHAT}")
    if lightning:
        prefix = "model."
        state = {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
    step = values.get("global_step" if lightning else "step")
    return state, shadow, step if isinstance(step, int) else None, lightning


def _tensors(values: Any) -> dict[Any, Tensor]:
    """``values`` if it is a dict of tensors, else nothing."""
    return values if isinstance(values, dict) and all(isinstance(value, Tensor) for value in values.values()) else {}


def _inferred(path: Path, state: dict[str, Tensor], config: PriorConfig) -> PriorConfig:
    """``config`` with what the shapes tell: widths, depth, embedding and rotation representation."""
    try:
        hidden, dim = state["pre_dense.weight"].shape
        embedding = state["pre_dense_t.weight"].shape[1]
        sigmas = state["sigmas"]
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(f"{path}: its network is not a ScoreModelFC (no {error}), expected {_WHAT}") from error
    rot_rep: RotationRepresentation | None = next((name for name, size in DIMS.items() if size == dim), None)
    if rot_rep is None:
        raise InputError(f"{path}: a prior over {dim} numbers, expected 63 (axis-angle) or 126 (rot6d) of the body")
    model = dataclasses.replace(
        config.model,
        type="ScoreModelFC",
        HIDDEN_DIM=hidden,
        EMBED_DIM=embedding,
        N_BLOCKS=sum(name.endswith("_dense1.weight") for name in state),
        embedding_type="fourier" if "gauss_proj.W" in state else "positional",
        num_scales=len(sigmas),
    )
    return dataclasses.replace(config, model=model, data=dataclasses.replace(config.data, rot_rep=rot_rep))


def _named(path: Path, state: dict[str, Tensor], averaged: list[Tensor], config: PriorConfig) -> dict[str, Tensor]:
    """Names of the averaged weights, which the file lists in the order of the network's parameters."""
    names = _parameter_names(config.model, DIMS[config.data.rot_rep])
    if _UNUSED[0] in state:
        place = names.index("pre_dense_t.bias") + 1
        names[place:place] = _UNUSED
    if len(averaged) != len(names):
        raise InputError(f"{path}: {len(averaged)} averaged weights, expected {len(names)}, one for each parameter")
    for name, tensor in zip(names, averaged, strict=True):
        if name not in state or state[name].shape != tensor.shape:
            found = tuple(state[name].shape) if name in state else "missing"
            raise InputError(
                f"{path}: averaged weight {name} has shape {tuple(tensor.shape)}, the raw one is {found}; the file was altered"
            )
    return {name: tensor for name, tensor in zip(names, averaged, strict=True) if name not in _UNUSED}


def _parameter_names(model: ModelConfig, dim: int) -> list[str]:
    with torch.device("meta"):
        return [name for name, parameter in build_network(model, dim).named_parameters() if parameter.requires_grad]


def _normalizer(path: Path, given: PathLike | Normalizer | None, config: PriorConfig, lightning: bool) -> tuple[Normalizer, str]:
    """The normaliser and where it comes from."""
    data = config.data
    if isinstance(given, Normalizer):
        if given.rot_rep != data.rot_rep:
            raise InputError(f"normalizer: for {given.rot_rep}, expected one for the {data.rot_rep} weights of {path}")
        return given, "given"
    wants_published = given is not None and str(given) == "published"
    if given is not None and not wants_published and Path(given).suffix:
        return Normalizer.from_reference(given, data.rot_rep), Path(given).name
    if not wants_published:
        for folder in [given, path.parent] if given is not None else [path.parent]:
            if (file := find_reference(folder, data.rot_rep, data.min_max)) is not None:
                return Normalizer.from_reference(file, data.rot_rep), file.name
    if data.rot_rep != "axis" or data.min_max or (lightning and not wants_published):
        raise InputError(
            f"{path}: no normaliser found, and these weights may have their own; give the reference's normaliser file "
            "(--normalizer), or 'published' for the AMASS statistics of the first two releases (axis-angle z-score)"
        )
    logger.info("%s: no normaliser file beside it, taking the published AMASS statistics", path)
    return Normalizer.published(), "published AMASS statistics"
