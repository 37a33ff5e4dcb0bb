"""Published settings of DiffPose (``config.yaml``) as a recipe of this library, and back.

A key is honoured, or refused where it asks for what there is not, or listed where the published code itself has no use for it. Keys that
are left out have the defaults of the published code, which are not those of its recipes.

Source: Holmquist and Wandt, DiffPose (ICCV 2023); format of github.com/bastianwandt/DiffPose.
"""

import ast
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal, TypeVar

from dposer.body.skeleton import HEATMAP_16
from dposer.errors import InputError
from dposer.files import PathLike, existing_file, save_bytes
from dposer.lifting.config import DiffusionConfig, HeatmapConfig, LiftingConfig, LossConfig, NetworkConfig, OptimConfig

T = TypeVar("T")

ICCV = LiftingConfig(
    method="diffpose",
    inputs="heatmap",
    flip=False,
    network=NetworkConfig(frames=1, channels=128, depth=4, heads=4, drop_path=0.0, dropout=0.1),
    diffusion=DiffusionConfig(timesteps=25, scale=10.0, bound=3.0),
    loss=LossConfig("mse"),
    optim=OptimConfig(
        lr=1e-4, optimizer="adam", decay=1.0, weight_decay=0.0, epochs=100, batch=32, epoch_windows=224_000, flip=False,
        ema=0.995, ema_every=10, ema_after=100, amp=True,
    ),
    seed=42,
)  # fmt: skip
"""The published recipe, configs/lifting/diffpose_h36m.py."""

_SETTINGS = "published settings of DiffPose (config.yaml)"
_JOINTS = len(HEATMAP_16.joints)
_BATCH = 32
"""Frames of a backward pass, whatever the settings say."""
_EPOCH = 7000
"""Steps of an epoch at most; the published code has none."""

_CONDITIONS: dict[str, Literal["reference", "concat", "pose"]] = {
    "embedded_poseformer": "reference",
    "heatmap_sampling_concatenated": "concat",
    "pose_2d": "pose",
    "none": "pose",
}
_CODES: dict[str, Literal["channel", "sin", "linear"]] = {"channel": "channel", "sin": "sin", "linear": "linear"}
_NORMS: dict[str, Literal["unit", "half", "mean_std", "mean_std_per_sample"]] = {
    "image": "unit",
    "image_half": "half",
    "mean_std": "mean_std",
    "mean_std_per_sample": "mean_std_per_sample",
    "none": "unit",
}
_OBJECTIVES: dict[str, Literal["noise", "clean"]] = {"pred_noise": "noise", "pred_x0": "clean"}
_LOSSES: dict[str, Literal["mae", "mse"]] = {"l1": "mae", "l2": "mse"}
DATASETS: dict[str, tuple[Literal["h36m17", "smpl24"], float]] = {
    "h36m": ("h36m17", 50.0),
    "3DHP": ("h36m17", 50.0),
    "3dpw": ("smpl24", 30.0),
}
"""Layout and rate; the tests on 3DHP are of weights that were trained on Human3.6M."""
_COMMAND_LINE = {
    "OUTPUT_DIR": "--output",
    "MODEL.NAME": "--name",
    "DATASET.ROOT": "--data",
    "DATASET.TRAINFILE": "--data",
    "DATASET.TESTFILE": "--data",
    "DATASET.VALFILE": "--data",
    "TEST.BATCH_SIZE_PER_GPU": "--batch",
    "TEST.NUM_HYPO": "--num-proposals",
}
"""Keys that are flags here."""
_IGNORED = {
    "": "GPUS WORKERS PRINT_FREQ AUTO_RESUME PIN_MEMORY RANK LOG_DIR DATA_DIR",
    "CUDNN.": "BENCHMARK DETERMINISTIC ENABLED",
    "DEBUG.": "DEBUG SAVE_BATCH_IMAGES_GT SAVE_BATCH_IMAGES_PRED SAVE_HEATMAPS_GT SAVE_HEATMAPS_PRED",
    "DATASET.": "FLIP TRAIN_SET TEST_SET",
    "MODEL.": "INIT_WEIGHTS DIFFUSION_TYPE DIFFUSION_PRIOR DIFFUSION_PRIOR_KEY",
    "MODEL.EXTRA.": "CAT_SAMPLES",
    "TRAIN.": "BATCH_SIZE_PER_GPU SHUFFLE WD LR_STEP LR_FACTOR GAMMA1 GAMMA2 MOMENTUM NESTEROV RESUME CHECKPOINT USE_STEP_LR USE_EXP_DECAY "
    "CLIP_GRAD COSINE_OFFSET",
}
"""Keys that the published code has, and no use for."""
_OF_CONDITIONS = (
    "NUM_SAMPLES NORM_METHOD DROP_METHOD DROP_PROB SAMPLEABLE POS_EMB OLD PROJ_POS_EMB NO_REPLACEMENT WITHOUT_TRANSFORMER WITHOUT_ARGMAX "
    "WITHOUT_POSEMB_SCALING FULL_HEATMAP CONDITION_ORDERED_SAMPLES CONCAT_LIKELIHOOD"
)
"""Further keys of MODEL.EXTRA; each condition has a use for some of them."""


def read_settings(path: PathLike) -> Any:
    """What a YAML file holds, plain values only.

    Raises:
        InputError: not a file, or not YAML.
    """
    import yaml

    path = existing_file(path, _SETTINGS)
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable YAML ({' '.join(str(error).split())[:120]}), expected {_SETTINGS}") from error


def write_settings(path: PathLike, config: LiftingConfig) -> None:
    """The settings of :func:`config_to_published` as a file, whole or not at all."""
    import yaml

    save_bytes(path, yaml.safe_dump(config_to_published(config), sort_keys=False).encode())


def config_from_published(values: Any, source: str = "config.yaml") -> tuple[LiftingConfig, list[str]]:
    """The recipe that published settings describe, and notes on keys that are no part of it.

    Args:
        values: nested as in the file.
        source: its name, for messages.

    Raises:
        InputError: an unknown key, or a value that is none of the key's, or asks for what there is not.
    """
    keys = _Keys(values, source)
    optim, notes = _optim(keys)
    heatmap = _heatmap(keys)
    layout, fps = keys.one_of("DATASET.DATASET", "h36m", DATASETS)
    config = replace(
        ICCV,
        layout=layout,
        fps=fps,
        diffusion=replace(
            ICCV.diffusion,
            timesteps=keys.whole("MODEL.TIMESTEPS", 1000),
            scale=keys.number("TRAIN.SCALE_3D_POSE", 1.0),
            predicts=keys.one_of("MODEL.DIFFUSION_OBJECTIVE", "pred_noise", _OBJECTIVES),
        ),
        heatmap=heatmap,
        loss=LossConfig(keys.one_of("LOSS.LOSS_TYPE", "l1", _LOSSES)),
        optim=optim,
    )
    joints = 16 if layout == "h36m17" else 23
    keys.only("DATASET.NUM_JOINTS", 16, joints, "that of the data set")
    keys.only("DATASET.COND_JOINTS", 16, _JOINTS, "one for each heatmap")
    keys.only("DATASET.DATA_FORMAT", "h5", "h5", "the other is no longer read by the published code either")
    keys.only("MODEL.NOISE_SCALE", 1.0, 1.0, "it is noise of training too; --config.heatmap.noise scales that of the sampler alone")
    return config, notes + keys.leftover()


def config_to_published(config: LiftingConfig) -> dict[str, Any]:
    """Published settings of a recipe; of its training, what they can tell.

    Raises:
        InputError: of another method, or the network or the process is none that the published code can build.
    """
    h, d, o = config.heatmap, config.diffusion, config.optim
    extra: dict[str, Any] = {"NUM_SAMPLES": h.candidates, "NORM_METHOD": _key(_NORMS, h.norm)}
    if h.condition == "concat":
        extra |= {"CONDITION_ORDERED_SAMPLES": True, "CONCAT_LIKELIHOOD": h.likelihood}
    elif h.condition == "reference":
        extra |= {
            "DROP_METHOD": "any" if h.drop else "none", "DROP_PROB": h.drop, "SAMPLEABLE": True, "POS_EMB": h.code, "OLD": False,
            "PROJ_POS_EMB": h.projection, "NO_REPLACEMENT": False, "WITHOUT_TRANSFORMER": not h.transformer,
            "WITHOUT_ARGMAX": not h.highest, "WITHOUT_POSEMB_SCALING": not h.likelihood,
        }  # fmt: skip
    size = {"concat": _JOINTS * h.candidates * (2 + h.likelihood), "pose": 2 * _JOINTS}.get(h.condition, h.readout // _JOINTS)
    steps = o.epochs * -(-o.epoch_windows // o.batch)
    values = {
        "DATASET": {
            "DATASET": "3dpw" if config.layout == "smpl24" else "h36m",
            "DATA_FORMAT": "h5",
            "NUM_JOINTS": 23 if config.layout == "smpl24" else 16,
            "COND_JOINTS": _JOINTS,
        },
        "MODEL": {
            "NAME": config.method,
            "CONDITION_TYPE": _key(_CONDITIONS, h.condition),
            "CONDITION_DIM": size,
            "CONDITION_KEY": "p2d_hrnet" if h.condition == "pose" else "heatmaps",
            "DENOISER_TYPE": "base",
            "DIFFUSION_OBJECTIVE": _key(_OBJECTIVES, d.predicts),
            "TIMESTEPS": d.timesteps,
            "EXTRA": {} if h.condition == "pose" else extra,
        },
        "LOSS": {"LOSS_TYPE": _key(_LOSSES, config.loss.kind)},
        "TRAIN": {
            "LR": o.lr,
            "NUM_STEPS": steps or ICCV.optim.epochs * _EPOCH,  # epochs of all data: only those who have it know
            "GRADIENT_ACCUMULATE_EVERY": max(1, o.batch // _BATCH),
            "OPTIMIZER": o.optimizer,
            "AMP": o.amp,
            "EMA_DECAY": o.ema,
            "SCALE_3D_POSE": d.scale,
        },
    }
    _require_same(config, config_from_published(values, "in published settings")[0])
    return values


def _require_same(config: LiftingConfig, told: LiftingConfig) -> None:
    """Raise :class:`InputError` if what weights depend on is lost in published settings."""
    mine, theirs = _lasting(config), _lasting(told)
    for key, value in mine.items():
        if value != theirs[key]:
            raise InputError(f"{key} = {value!r}: the published DiffPose has {theirs[key]!r}, and cannot run weights of another")


def _lasting(config: LiftingConfig) -> dict[str, Any]:
    """The network and the process, without what training or a sampler alone depends on, nor what the condition has no use for."""
    h, network = config.heatmap, replace(config.network, drop_path=0.0, dropout=0.0)
    heatmap = replace(h, drop=0.0, sampler="ancestral", late=0, noise=1.0)
    if h.condition in ("concat", "pose"):
        network = ICCV.network
        heatmap = HeatmapConfig(h.condition, width=h.width, blocks=h.blocks)
    if h.condition == "concat":
        heatmap = replace(
            heatmap, candidates=h.candidates, highest=h.highest, power=h.power, likelihood=h.likelihood, norm=h.norm
        )  # fmt: skip
    kept = replace(config, network=network, diffusion=replace(config.diffusion, bound=3.0, eta=1.0), heatmap=heatmap).to_dict()
    return dict(_flat({name: kept[name] for name in ("method", "layout", "network", "diffusion", "heatmap")}))


def _optim(keys: "_Keys") -> tuple[OptimConfig, list[str]]:
    """The optimiser, and a note where steps are no whole number of epochs."""
    steps = keys.whole("TRAIN.NUM_STEPS", 70_000)
    batch = _BATCH * keys.whole("TRAIN.GRADIENT_ACCUMULATE_EVERY", 2)
    epochs = -(-steps // _EPOCH)
    length = -(-steps // epochs)
    adam = keys.one_of("TRAIN.OPTIMIZER", "adam", {"adam": True, "adamw": False})
    optim = replace(
        ICCV.optim,
        lr=keys.number("TRAIN.LR", 1e-3),
        optimizer="adam" if adam else "adamw",
        weight_decay=0.0 if adam else 0.01,
        epochs=epochs,
        batch=batch,
        epoch_windows=length * batch,
        ema=keys.number("TRAIN.EMA_DECAY", 0.995),
        amp=keys.flag("TRAIN.AMP", True),
    )
    note = f"TRAIN.NUM_STEPS = {steps}: {epochs} epochs of {length} steps, {epochs * length} in all"
    return optim, [note] if epochs * length != steps else []


def _heatmap(keys: "_Keys") -> HeatmapConfig:
    """The condition, whose size has to be what the denoiser expects."""
    condition = keys.one_of("MODEL.CONDITION_TYPE", "pose_2d", _CONDITIONS)
    size = keys.whole("MODEL.CONDITION_DIM", 32, least=-1)
    base = keys.one_of("MODEL.DENOISER_TYPE", "base", {"base": True, "base_concat": False})
    keys.only("MODEL.CONDITION_KEY", "p2d_hrnet", "p2d_hrnet" if condition == "pose" else "heatmaps", "that of its condition")
    if condition == "reference":
        heatmap, made, of_each = _embedded(keys, size), _JOINTS * size, _JOINTS
    elif condition == "concat":
        heatmap = _concatenated(keys)
        made, of_each = _JOINTS * heatmap.candidates * (2 + heatmap.likelihood), 1
    else:
        heatmap, made, of_each = HeatmapConfig("pose", candidates=1, drop=0.0), 2 * _JOINTS, 1
    expected = of_each * size if base else 2 * _JOINTS * heatmap.candidates if size < 0 else size
    if expected != made or made < 1:
        raise InputError(
            f"{keys.source}: the condition has {made} numbers and the denoiser expects {expected}; mend MODEL.CONDITION_DIM = {size}"
        )
    return heatmap


def _embedded(keys: "_Keys", size: int) -> HeatmapConfig:
    extra = "MODEL.EXTRA."
    keys.only(extra + "OLD", True, False, "the read-out of the published recipes; without the key it is the other")
    keys.only(extra + "NO_REPLACEMENT", False, False, "candidates are drawn independently of each other")
    keys.only(extra + "FULL_HEATMAP", False, False, "all cells as candidates are not built, and wrong in the published code")
    candidates, highest = keys.whole(extra + "NUM_SAMPLES", 32), not keys.flag(extra + "WITHOUT_ARGMAX", False)
    if candidates > highest:
        keys.only(extra + "SAMPLEABLE", False, True, "each hypothesis draws its own candidates, which is nothing to weights")
    dropped = keys.one_of(extra + "DROP_METHOD", "none", {"none": False, "any": True})
    rate, code = keys.number(extra + "DROP_PROB", 0.1), keys.one_of(extra + "POS_EMB", "sin", _CODES)
    return HeatmapConfig(
        "reference",
        candidates,
        highest,
        code=code,
        likelihood=not keys.flag(extra + "WITHOUT_POSEMB_SCALING", False),
        projection=keys.flag(extra + "PROJ_POS_EMB", False),
        transformer=not keys.flag(extra + "WITHOUT_TRANSFORMER", False),
        drop=rate if dropped else 0.0,
        norm="unit" if code == "channel" else keys.one_of(extra + "NORM_METHOD", "mean_std", _NORMS),
        readout=_JOINTS * size,
    )


def _concatenated(keys: "_Keys") -> HeatmapConfig:
    extra = "MODEL.EXTRA."
    keys.only(extra + "CONDITION_ORDERED_SAMPLES", True, True, "candidates are put in order")
    return HeatmapConfig(
        "concat",
        candidates=keys.whole(extra + "NUM_SAMPLES", 32),
        likelihood=keys.flag(extra + "CONCAT_LIKELIHOOD", False),
        drop=0.0,
        norm=keys.one_of(extra + "NORM_METHOD", "image_half", _NORMS),
    )


class _Keys:
    """Keys of a settings file, which are taken one by one; what nobody takes is not known."""

    def __init__(self, values: Any, source: str) -> None:
        if not isinstance(values, dict):
            raise InputError(f"{source}: found {_short(values)}, expected {_SETTINGS}")
        self.source, self._left = source, dict(_flat(values))

    def one_of(self, key: str, default: str, choices: Mapping[str, T]) -> T:
        value = self._left.pop(key, default)
        name = "none" if value is None else value
        if not isinstance(name, str) or name not in choices:
            raise self._wrong(key, value, " or ".join(choices))
        return choices[name]

    def flag(self, key: str, default: bool) -> bool:
        value = self._left.pop(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def number(self, key: str, default: float) -> float:
        """0 or more. A string stands for what is written in it: 1e-4 without a point is none to YAML, and is one to the published code."""
        value = self._left.pop(key, default)
        found = _literal(value) if isinstance(value, str) else value
        if type(found) not in (int, float) or not 0 <= found < math.inf:
            raise self._wrong(key, value, "a number from 0 on")
        return float(found)

    def whole(self, key: str, default: int, least: int = 1) -> int:
        value = self._left.pop(key, default)
        if type(value) is not int or value < least:
            raise self._wrong(key, value, f"a whole number from {least} on")
        return value

    def only(self, key: str, default: Any, expected: Any, why: str) -> None:
        """Refuse any other value."""
        value = self._left.pop(key, default)
        if value != expected or isinstance(value, bool) != isinstance(expected, bool):
            raise self._wrong(key, value, f"{_shown(expected)}: {why}")

    def leftover(self) -> list[str]:
        """Notes on keys that are known but no part of a recipe, and an error for others."""
        flags = [f"{key} = {_short(value)} ({_COMMAND_LINE[key]})" for key, value in self._left.items() if key in _COMMAND_LINE]
        known = {prefix + name for prefix, names in _IGNORED.items() for name in names.split()}
        known |= {f"MODEL.EXTRA.{name}" for name in _OF_CONDITIONS.split()}
        ignored = [key for key in self._left if key in known]
        if unknown := [key for key in self._left if key not in known and key not in _COMMAND_LINE]:
            raise InputError(
                f"{self.source}: {', '.join(unknown[:3])} {'is' if len(unknown) == 1 else 'are'} not known, expected {_SETTINGS}"
            )
        notes = [f"to be said on the command line: {', '.join(flags)}"] if flags else []
        return notes + ([f"without effect, as in the published code: {', '.join(ignored)}"] if ignored else [])

    def _wrong(self, key: str, value: Any, expected: str) -> InputError:
        return InputError(f"{self.source}: {key} = {_short(value)}, expected {expected}")


def _flat(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys joined by points, and their values."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None


def _shown(value: Any) -> str:
    """As YAML has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _short(value: Any) -> str:
    return " ".join(_shown(value).split())[:60]


def _key(choices: Mapping[str, Any], value: Any) -> str:
    """The first key that stands for a value; the value itself, for a message, if none does."""
    return next((key for key, one in choices.items() if one == value), str(value))
