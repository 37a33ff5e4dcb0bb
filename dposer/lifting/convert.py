"""Published weights of MixSTE, D3DP and DDHPose (``best_epoch.bin``) as checkpoints of this library, and back.

Nothing in the file is executed: beside tensors and plain containers it holds a pickled random state, which is skipped.
"""

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dposer.diffusion.schedule import DiscreteSchedule
from dposer.errors import InputError
from dposer.files import PathLike, existing_file, save_tensors
from dposer.lifting.checkpoint import LiftingCheckpoint, check_weights
from dposer.lifting.config import DiffusionConfig, LiftingConfig, LossConfig, Method, NetworkConfig
from dposer.lifting.convert_diffhpe import PREFIX, diffhpe_from_published, diffhpe_to_published
from dposer.lifting.methods import build_model

_WHAT = "published weights of MixSTE, D3DP or DDHPose (.bin with model_pos)"
_PREFIXES: dict[Method, str] = {"mixste": "module.", "d3dp": "module.pose_estimator.", "ddhpose": "module.dir_bone_estimator."}
_LOSSES: dict[Method, LossConfig] = {
    "mixste": LossConfig("mixste", squared=True),
    "d3dp": LossConfig("position", squared=True),
    "ddhpose": LossConfig("bones", length_unit=1.0, squared=True),
}
_NAMES = {
    "patch": "Spatial_patch_to_embedding",
    "spatial_position": "Spatial_pos_embed",
    "temporal_position": "Temporal_pos_embed",
    "spatial_norm": "Spatial_norm",
    "temporal_norm": "Temporal_norm",
    "time": "time_mlp",
    "group": "group",
    "spatial": "STEblocks",
    "temporal": "TTEblocks",
    "head": "head",
}
"""Ours → theirs."""
_SKIPPED = (
    "numpy.random._pickle.__randomstate_ctor", "numpy.random._pickle.__bit_generator_ctor", "numpy.random._mt19937.MT19937",
    "numpy.random._pickle.__generator_ctor", "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.ndarray", "numpy.dtype", "_codecs.encode",
)  # fmt: skip


class _Skipped:
    """Stands for whatever a random state is pickled as."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


def import_published(path: PathLike, layout: str = "h36m17", heads: int = 8, fps: float = 50.0) -> LiftingCheckpoint:
    """Read published weights; the method and the sizes are told from names and shapes, what files do not tell are arguments.

    Args:
        layout: "h36m17" or "mpi_inf_3dhp17".
        heads: of each attention.
        fps: of the data they were trained on.

    Raises:
        InputError: another kind of file, or names and shapes of none of the three.
    """
    path = Path(path)
    values = read_published(path)
    state = values.get("model_pos", values) if isinstance(values, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: found no state dict under model_pos, expected {_WHAT}")
    bare = {name.removeprefix("module."): tensor.float() for name, tensor in state.items()}
    if any(name.startswith(PREFIX) for name in bare):
        return diffhpe_from_published(path, bare, layout, heads, fps)
    state = {f"module.{name.removeprefix('model.')}": tensor for name, tensor in bare.items()}
    method = _method(path, state)
    buffers = {f"module.{name}" for name in schedule_buffers(DiffusionConfig())}
    theirs = {name.removeprefix(_PREFIXES[method]): tensor for name, tensor in state.items() if name not in buffers}
    try:
        frames, channels = theirs["Temporal_pos_embed"].shape[1:]
        depth = sum(bool(re.fullmatch(r"STEblocks(_0)?\.\d+\.norm1\.weight", name)) for name in theirs)
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: lacks {error}, expected {_WHAT}") from error
    config = LiftingConfig.from_dict(
        LiftingConfig(
            method=method,
            variant="compat",
            fps=fps,
            network=NetworkConfig(frames, channels, depth, heads),
            diffusion=DiffusionConfig(timesteps=len(state.get("module.betas", range(1000)))),
            loss=_LOSSES[method],
        ).to_dict()
        | {"layout": layout},
        "layout",
    )
    ours = {_published_name(name, config): name for name in _our_names(config)}
    weights = {ours.get(name, name): tensor for name, tensor in theirs.items()}
    check_weights(path, weights, config)
    epoch = values.get("epoch")
    return LiftingCheckpoint(config, weights, {"converted_from": path.name, "epoch": epoch if isinstance(epoch, int) else None})


def export_published(checkpoint: LiftingCheckpoint, path: PathLike) -> None:
    """Write a checkpoint as the published code reads it: ``model_pos`` with its names and schedule buffers, ``epoch``, ``lr``.

    Raises:
        InputError: a variant that the published code cannot run.
    """
    config = checkpoint.config
    if not config.compat:
        raise InputError(f"{path}: the weights are of the clean variant, which the published code would run wrongly; train compat for it")
    if config.method in ("diffhpe", "diffhpe-2d"):
        save_tensors(path, diffhpe_to_published(checkpoint))
        return
    prefix = _PREFIXES[config.method]
    state = {prefix + _published_name(name, config): tensor for name, tensor in checkpoint.weights.items()}
    if config.method != "mixste":
        state |= {f"module.{name}": table.float() for name, table in schedule_buffers(config.diffusion).items()}
    save_tensors(path, {"epoch": checkpoint.provenance.get("epoch") or 0, "lr": config.optim.lr, "model_pos": state})


def schedule_buffers(config: DiffusionConfig) -> dict[str, Tensor]:
    """The 12 float64 tables that published diffusion checkpoints carry (Ho et al., NeurIPS 2020, eqs. 4, 6, 7)."""
    schedule = DiscreteSchedule.cosine(config.timesteps)
    beta, bar = schedule.betas, schedule.alpha_bars
    before = torch.cat((torch.ones(1, dtype=torch.float64), bar[:-1]))
    variance = beta * (1 - before) / (1 - bar)
    return {
        "betas": beta,
        "alphas_cumprod": bar,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": bar.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - bar).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - bar).log(),
        "sqrt_recip_alphas_cumprod": (1 / bar).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / bar - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": beta * before.sqrt() / (1 - bar),
        "posterior_mean_coef2": (1 - before) * (1 - beta).sqrt() / (1 - bar),
    }


def read_published(path: Path, what: str = _WHAT) -> Any:
    """The tensors and plain values of a file that torch wrote; random states are skipped.

    Raises:
        InputError: not a file of that kind, or it holds other objects.
    """
    existing_file(path, what)
    try:
        skipped: list[Any] = [_Skipped, *((_Skipped, name) for name in _SKIPPED)]
        with warnings.catch_warnings(), torch.serialization.safe_globals(skipped):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for each way a file can be broken
        reason = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        if isinstance(error, pickle.UnpicklingError):
            raise InputError(f"{path}: holds Python objects besides tensors, which are never loaded, expected {what}") from error
        raise InputError(f"{path}: not a readable tensor file ({reason}), expected {what}; fetch it again") from error


def _method(path: Path, state: dict[str, Tensor]) -> Method:
    for method in ("ddhpose", "d3dp", "mixste"):
        prefix = _PREFIXES[method]
        if f"{prefix}Spatial_pos_embed" in state:
            return method
    raise InputError(f"{path}: weights {', '.join(list(state)[:3])} ... are of none of {', '.join(_PREFIXES)}; expected {_WHAT}")


def _our_names(config: LiftingConfig) -> list[str]:
    with torch.device("meta"):
        return list(build_model(config).state_dict())


def _published_name(name: str, config: LiftingConfig) -> str:
    """``network.spatial.3.norm1.weight`` → ``STEblocks.3.norm1.weight`` (DDHPose, whose first blocks stand apart: ``STEblocks.2...``)."""
    part, dot, rest = name.removeprefix("network.").partition(".")
    theirs = _NAMES[part]
    if config.method == "ddhpose":
        if part == "head":
            theirs = "head_pose"
        elif part in ("spatial", "temporal"):
            level, rest = rest.split(".", 1)
            theirs, rest = (f"{theirs}_0", f"0.{rest}") if level == "0" else (theirs, f"{int(level) - 1}.{rest}")
    return theirs + dot + rest
