"""One self-describing file for a prior: weights, normaliser, settings, provenance, calibration.

A safetensors file. Tensors: ``network.*`` (averaged weights), optionally ``raw.*`` (the un-averaged ones),
``normalizer.shift``, ``normalizer.scale``, optionally ``calibration.total``, ``calibration.per_joint``. Its header holds
the settings and the provenance as JSON. Nothing in it can run.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dposer.errors import InputError
from dposer.files import PathLike, existing_file, save_bytes
from dposer.prior.config import PriorConfig
from dposer.prior.networks import build_network
from dposer.prior.normalizer import DIMS, Normalizer

FORMAT = "dposer.prior/1"
_WHAT = "a dposer checkpoint (.safetensors)"

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint file, on the CPU, float32."""

    config: PriorConfig
    network: dict[str, Tensor]
    """State dict of ``build_network(config.model, normalizer.dim)``, the averaged weights."""
    normalizer: Normalizer
    provenance: dict[str, Any] = field(default_factory=dict)
    """Free-form JSON: data, recipe, command, step, library version."""
    calibration: dict[str, Tensor] = field(default_factory=dict)
    """``total`` (Q,) and ``per_joint`` (21, Q), or nothing."""
    raw: dict[str, Tensor] | None = None
    """The un-averaged weights, if kept."""


def save_checkpoint(path: PathLike, checkpoint: Checkpoint, dtype: torch.dtype | None = None) -> None:
    """Write ``checkpoint`` whole or not at all.

    Args:
        dtype: of the stored weights; ``torch.float16`` halves the file. Tables and statistics stay float32.

    Raises:
        InputError: a weight that is not finite (also: not in this dtype), or a path that cannot be written.
    """
    normalizer = checkpoint.normalizer
    weights = _prefixed("network", checkpoint.network) | _prefixed("raw", checkpoint.raw or {})
    tensors = {name: tensor if dtype is None or name.endswith(".sigmas") else tensor.to(dtype) for name, tensor in weights.items()}
    tensors |= _prefixed("normalizer", normalizer.state_dict()) | _prefixed("calibration", checkpoint.calibration)
    _require_finite(path, tensors)
    header = {
        "format": FORMAT,
        "config": json.dumps(checkpoint.config.to_dict()),
        "normalizer": json.dumps({"rot_rep": normalizer.rot_rep, "wrap": normalizer.wrap}),
        "provenance": json.dumps(checkpoint.provenance, default=str),
    }
    # clones: safetensors refuses tensors that share storage
    save_bytes(path, save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}, header))


def load_checkpoint(path: PathLike) -> Checkpoint:
    """Read a checkpoint written by :func:`save_checkpoint`.

    Raises:
        InputError: missing, truncated, another kind of file, tensors missing or of other shapes than the settings say,
            weights that are not finite.
    """
    path = existing_file(path, _WHAT, "check the path, or train one with `python -m run.train`")
    header, tensors = _read(path)
    config = PriorConfig.from_dict(_json(path, header, "config"), str(path))
    settings = _json(path, header, "normalizer")
    parts = {part: _unprefixed(part, tensors) for part in ("network", "raw", "normalizer", "calibration")}
    if settings.get("rot_rep") not in DIMS or parts["normalizer"].keys() != {"shift", "scale"}:
        raise InputError(f"{path}: no usable normaliser, expected normalizer.shift, normalizer.scale and a rotation representation")
    if parts["calibration"] and parts["calibration"].keys() != {"total", "per_joint"}:
        raise InputError(
            f"{path}: calibration holds {', '.join(sorted(parts['calibration']))}, expected total and per_joint; fetch it again"
        )
    normalizer = Normalizer(**parts["normalizer"], rot_rep=settings["rot_rep"], wrap=bool(settings.get("wrap")), source=str(path))
    check_weights(path, parts["network"], config, normalizer.dim)
    if parts["raw"]:
        check_weights(path, parts["raw"], config, normalizer.dim)
    _require_finite(path, tensors)
    return Checkpoint(config, parts["network"], normalizer, _json(path, header, "provenance"), parts["calibration"], parts["raw"] or None)


def check_weights(path: PathLike, state: State, config: PriorConfig, dim: int) -> None:
    """Raise :class:`InputError` unless ``state`` has exactly the names and shapes of the network that ``config`` describes."""
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in build_network(config.model, dim).state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if wrong := sorted(expected.keys() ^ found.keys()):
        names = ", ".join(wrong[:3])
        raise InputError(
            f"{path}: weights {names} {'are missing' if wrong[0] in expected else 'are not known'}, expected those of {config.model.type}"
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise InputError(
                f"{path}: weight {name} has shape {found[name]}, its settings say {shape}; the file or its settings were altered"
            )


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with path.open("rb") as file:
        start = file.read(9)
    # torch.save writes a zip archive, formerly a bare pickle; a safetensors header opens with a brace after its length
    if start[8:] != b"{" and start.startswith((b"PK", b"\x80")):
        raise InputError(
            f"{path}: found a PyTorch file, expected {_WHAT}; convert it: python -m run.convert_checkpoint --ckpt-path {path} --output OUT"
        )
    return read_safetensors(path, _WHAT, FORMAT)


def read_safetensors(path: Path, what: str, form: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header and tensors, float32 on the CPU, of a file that tells its format.

    Args:
        what: what the file should be, for messages.
        form: its format.

    Raises:
        InputError: truncated, or of another format.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            if header.get("format") != form:
                raise InputError(f"{path}: a safetensors file of format {header.get('format')!r}, expected {what} with format {form!r}")
            return header, {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: not a readable safetensors file ({error}), expected {what}; it may be truncated, fetch it again"
        ) from error


def _json(path: Path, header: dict[str, str], key: str) -> dict[str, Any]:
    try:
        value = json.loads(header.get(key, ""))
    except ValueError as error:
        raise InputError(f"{path}: '{key}' in its header is not JSON, expected {_WHAT}; fetch it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: '{key}' in its header is a {type(value).__name__}, expected a group of keys; fetch it again")
    return value


def _require_finite(path: PathLike, tensors: State) -> None:
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{path}: {name} holds NaN or infinity, expected finite numbers; use an earlier snapshot or a wider dtype")


def _prefixed(prefix: str, tensors: State) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _unprefixed(prefix: str, tensors: State) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(prefix + ".")}
