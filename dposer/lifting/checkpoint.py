"""One self-describing file for a lifting model: weights, settings, provenance.

A safetensors file; its header holds the settings and the provenance as JSON. Nothing in it can run.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from dposer.errors import InputError
from dposer.files import PathLike, existing_file, save_bytes
from dposer.lifting.config import LiftingConfig
from dposer.lifting.methods import build_model
from dposer.lifting.model import LiftingModel, sizes
from dposer.prior.checkpoint import read_safetensors

FORMAT = "dposer.lifting/1"
_WHAT = "a lifting checkpoint (.safetensors)"


@dataclass(frozen=True)
class LiftingCheckpoint:
    """The contents of a file, on the CPU, float32."""

    config: LiftingConfig
    weights: dict[str, Tensor]
    """State dict of ``build_model(config)``."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Free-form JSON: data, recipe, step, library version, validation."""

    def model(self, device: torch.device | str | None = None) -> LiftingModel:
        """In evaluation mode."""
        with torch.random.fork_rng(devices=[]):
            model = build_model(self.config)
        model.load_state_dict(self.weights)
        return model.to(device or "cpu").eval().requires_grad_(False)


def save_lifting(path: PathLike, checkpoint: LiftingCheckpoint) -> None:
    """Write it whole or not at all.

    Raises:
        InputError: a weight that is not finite, or a path that cannot be written.
    """
    _require_finite(path, checkpoint.weights)
    header = {
        "format": FORMAT,
        "config": json.dumps(checkpoint.config.to_dict()),
        "provenance": json.dumps(checkpoint.provenance, default=str),
    }
    # clones: safetensors refuses tensors that share storage
    save_bytes(path, save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in checkpoint.weights.items()}, header))


def load_lifting(path: PathLike) -> LiftingCheckpoint:
    """Read a file written by :func:`save_lifting`.

    Raises:
        InputError: missing, truncated, another kind of file, weights missing, of other shapes than the settings say, or not finite.
    """
    path = existing_file(path, _WHAT, "check the path, or train one with `python -m run.train_lift`")
    header, weights = read_safetensors(path, _WHAT, FORMAT)
    try:
        config, provenance = json.loads(header.get("config", "")), json.loads(header.get("provenance", "{}"))
    except ValueError as error:
        raise InputError(f"{path}: its header is not JSON, expected {_WHAT}; fetch it again") from error
    checkpoint = LiftingCheckpoint(LiftingConfig.from_dict(config, str(path)), weights, provenance)
    check_weights(path, weights, checkpoint.config)
    _require_finite(path, weights)
    return checkpoint


def check_weights(path: PathLike, weights: Mapping[str, Tensor], config: LiftingConfig) -> None:
    """Raise :class:`InputError` unless names and shapes are those of the model that ``config`` describes."""
    with torch.device("meta"):
        expected = sizes(build_model(config))
    if wrong := sorted(expected.keys() ^ weights.keys()):
        state = "are missing" if wrong[0] in expected else "are not known"
        raise InputError(f"{path}: weights {', '.join(wrong[:3])} {state}, expected those of {config.method} ({config.variant})")
    for name, shape in expected.items():
        if tuple(weights[name].shape) != shape:
            raise InputError(f"{path}: weight {name} has shape {tuple(weights[name].shape)}, its settings say {shape}; check the settings")


def _require_finite(path: PathLike, weights: Mapping[str, Tensor]) -> None:
    for name, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{path}: {name} holds NaN or infinity, expected finite numbers; use an earlier snapshot")
