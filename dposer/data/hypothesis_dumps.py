"""Hypotheses that any method left in a file, beside the truth: to be scored, joined and compared later.

=============================  ===========================================================================================================
``NAME.npz``                   this library's: ``hypotheses`` (F, N, J, 3) and ``truth`` (F, J, 3) float32 metres relative to the root, axes
                               of the camera (x right, y down, z forward); ``group`` and ``clip`` (F,) text, ``hard`` (F,) bool, ``frame``
                               (F,) int; ``joint_names`` (J,) text; ``method``, ``n``, ``seed``, ``steps``, ``weights``, ``dataset``;
                               ``central`` (F, J, 3) where a method has one pose in the middle
``NAME_samples_poses.npy``     DiffPose's (F, N, 3, J) or (N, F, 3, J) millimetres, y up and z backward, with ``NAME_samples_gt.npy`` and
                               perhaps ``NAME_samples_z0.npy`` (F, 3, J); NAME begins with "hard" for the ambiguous frames
``NAME.pkl``                   a dict of ``p3d_pred_sharma`` (F, N, 17, 3) or (N, F, 17, 3) and ``p3d_gt`` (F, 17, 3), millimetres
=============================  ===========================================================================================================

The published files say neither clips nor groups: then the frames are one group, and runs of :data:`BLOCK` of them stand for clips.
"""

import dataclasses
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dposer.body.skeleton import H36M_17, SMPL_24
from dposer.errors import InputError
from dposer.files import PathLike, finite, load_npy, load_npz, save_bytes, save_npz
from dposer.pickles import read_pickle, to_array

BLOCK = 64
"""Frames."""
POSES, TRUTH, CENTRAL = "_samples_poses.npy", "_samples_gt.npy", "_samples_z0.npy"
_WHAT = "a dump of hypotheses"
_KNOWN = {len(layout.joints): layout.joints for layout in (H36M_17, SMPL_24)}
_TURN = np.array([1, -1, -1], np.float32)
_SAME = 2e-3
"""Metres by which one truth may differ between two files."""


@dataclass(frozen=True)
class ScoredFrames:
    """F frames, N hypotheses of each."""

    hypotheses: Tensor
    """(F, N, J, 3) metres relative to the root."""
    truth: Tensor
    """(F, J, 3) the same."""
    group: np.ndarray
    """(F,) names that averages are over, e.g. of actions."""
    hard: np.ndarray
    """(F,) bool: ambiguous frames."""
    central: Tensor | None = None
    """(F, J, 3) the one pose that the method would give (z0)."""
    clip: np.ndarray | None = None
    """(F,) names of what is filmed together, so that its frames are not independent; None: the groups."""
    frame: np.ndarray | None = None
    """(F,) numbers in their clip; None: from 0."""

    def __post_init__(self) -> None:
        shape = tuple(self.hypotheses.shape)
        if len(shape) != 4 or shape[-1] != 3 or 0 in shape[1:]:
            raise InputError(f"hypotheses of shape {shape}, expected (frames, hypotheses, joints, 3)")
        wanted = {"truth": (shape[0], *shape[2:]), "central": (shape[0], *shape[2:])} | dict.fromkeys(
            ("group", "hard", "clip", "frame"), shape[:1]
        )
        for name, expected in wanted.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != expected:
                raise InputError(f"{name} of shape {tuple(value.shape)}, expected {expected} for hypotheses of shape {shape}")

    def __len__(self) -> int:
        return len(self.hypotheses)

    @property
    def clips(self) -> np.ndarray:
        return self.group if self.clip is None else self.clip

    @property
    def numbers(self) -> np.ndarray:
        return np.arange(len(self)) if self.frame is None else self.frame

    def take(self, rows: slice | np.ndarray) -> "ScoredFrames":
        """Some frames."""
        return dataclasses.replace(self, **{name: value[rows] for name, value in vars(self).items() if value is not None})

    def first(self, number: int | None) -> "ScoredFrames":
        """With the first hypotheses alone (None: all)."""
        return dataclasses.replace(self, hypotheses=self.hypotheses[:, :number])

    def to(self, device: torch.device | str) -> "ScoredFrames":
        """With its poses there."""
        central = None if self.central is None else self.central.to(device)
        return dataclasses.replace(self, hypotheses=self.hypotheses.to(device), truth=self.truth.to(device), central=central)

    def chunks(self, frames: int) -> Iterator["ScoredFrames"]:
        """A few frames at a time."""
        return (self.take(slice(start, start + frames)) for start in range(0, len(self), frames))

    @classmethod
    def stacked(cls, some: Sequence["ScoredFrames"]) -> "ScoredFrames":
        """One after another.

        Raises:
            InputError: none, or with different numbers of hypotheses or joints.
        """
        shapes = {tuple(frames.hypotheses.shape[1:]) for frames in some}
        if len(shapes) != 1:
            raise InputError(f"hypotheses: found {sorted(shapes)} (N, J, 3) of a frame, expected the same of all frames, and some")
        if any(frames.central is None for frames in some):
            some = [dataclasses.replace(frames, central=None) for frames in some]
        return cls(
            torch.cat([frames.hypotheses for frames in some]),
            torch.cat([frames.truth for frames in some]),
            np.concatenate([frames.group for frames in some]),
            np.concatenate([frames.hard for frames in some]),
            None if some[0].central is None else torch.cat([frames.central for frames in some if frames.central is not None]),
            np.concatenate([frames.clips for frames in some]),
            np.concatenate([frames.numbers for frames in some]),
        )


@dataclass(frozen=True)
class Origin:
    """How hypotheses were made: what a figure of them is worth nothing without."""

    method: str = "unknown"
    steps: int | None = None
    """T or K of the sampler; None: not known."""
    weights: str = "unknown"
    """raw, EMA."""
    seed: int | None = None
    dataset: str = "unknown"

    def __str__(self) -> str:
        steps, seed = ("?" if value is None else value for value in (self.steps, self.seed))
        return f"{self.method}, T = {steps}, weights {self.weights}, seed {seed}, data {self.dataset}"


@dataclass(frozen=True)
class Dump:
    """The contents of a file."""

    frames: ScoredFrames
    joints: tuple[str, ...]
    """Names of the J."""
    origin: Origin


# ---- files -------------------------------------------------------------------------------------------------------------


def read_hypotheses(path: PathLike) -> Dump:
    """A file of any of the kinds above, by its name.

    Raises:
        InputError: another kind, missing or damaged, of another layout, in another unit, NaN, or not as many frames of each array.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _read_own(path)
    if path.name.endswith(POSES):
        return _read_published(path)
    if suffix in (".pkl", ".pickle", ".p"):
        return _read_pickle(path)
    raise InputError(f"{path}: expected {_WHAT}, NAME.npz, NAME{POSES} or NAME.pkl; write one by run.eval_hypotheses --dump")


def write_hypotheses(path: PathLike, dump: Dump) -> None:
    """Write NAME.npz, or NAME_samples_poses.npy and what goes with it, each whole or not at all.

    Raises:
        InputError: another name, or it cannot be written.
    """
    path = check_name(path)
    if path.suffix == ".npz":
        save_npz(path, _own(dump))
        return
    frames, stem = dump.frames, path.name.removesuffix(POSES)
    for end, poses in ((POSES, frames.hypotheses), (TRUTH, frames.truth), (CENTRAL, frames.central)):
        if poses is not None:
            save_bytes(path.with_name(stem + end), _npy_bytes(1000 * poses.numpy().swapaxes(-1, -2) * _TURN[:, None]))


def check_name(path: PathLike) -> Path:
    """A name that :func:`write_hypotheses` takes.

    Raises:
        InputError: another one.
    """
    path = Path(path)
    if path.suffix != ".npz" and not path.name.endswith(POSES):
        raise InputError(f"{path}: expected NAME.npz, or NAME{POSES} for DiffPose's layout; rename it")
    return path


def _own(dump: Dump) -> dict[str, object]:
    frames, origin = dump.frames, dump.origin
    told = {"steps": origin.steps, "seed": origin.seed, "central": frames.central}
    return {
        "hypotheses": frames.hypotheses.numpy().astype(np.float32), "truth": frames.truth.numpy().astype(np.float32),
        "group": frames.group.astype(np.str_), "hard": frames.hard, "clip": frames.clips.astype(np.str_), "frame": frames.numbers,
        "joint_names": np.array(dump.joints), "n": frames.hypotheses.shape[1],
        "method": origin.method, "weights": origin.weights, "dataset": origin.dataset,
        **{name: value for name, value in told.items() if value is not None},
    }  # fmt: skip


def _read_own(path: Path) -> Dump:
    arrays = load_npz(path, f"{_WHAT} (.npz)", ("hypotheses", "truth", "joint_names"))
    h, truth = (finite(arrays[name], f"{path}: {name}").astype(np.float32) for name in ("hypotheses", "truth"))
    names = tuple(str(name) for name in arrays["joint_names"].ravel())
    if h.ndim != 4 or h.shape[2:] != (len(names), 3):
        raise InputError(f"{path}: hypotheses of shape {h.shape}, expected (frames, hypotheses, {len(names)}, 3) for its joint_names")
    if "n" in arrays and int(arrays["n"]) != h.shape[1]:
        raise InputError(f"{path}: {h.shape[1]} hypotheses, but n = {int(arrays['n'])}; write it anew")
    count = len(h)
    try:
        frames = ScoredFrames(
            torch.from_numpy(h),
            torch.from_numpy(truth),
            arrays.get("group", np.full(count, "frames")).astype(np.str_),
            arrays.get("hard", np.zeros(count, bool)).astype(bool),
            torch.from_numpy(finite(arrays["central"], f"{path}: central").astype(np.float32)) if "central" in arrays else None,
            arrays.get("clip", _blocks(count)).astype(np.str_),
            arrays.get("frame", np.arange(count)),
        )
    except InputError as error:
        raise InputError(f"{path}: {error}; write it anew") from None
    told = {name: str(arrays[name]) for name in ("method", "weights", "dataset") if name in arrays}
    numbers = {name: int(arrays[name]) for name in ("steps", "seed") if name in arrays}
    return Dump(frames, names, Origin(**told, **numbers))  # type: ignore[arg-type]


def _read_published(path: Path) -> Dump:
    stem = path.name.removesuffix(POSES)
    truth = _upright(load_npy(path.with_name(stem + TRUTH), "the truth of a dump (F, 3, J)"), 3, path.with_name(stem + TRUTH))
    h = _upright(load_npy(path, f"{_WHAT} (F, N, 3, J)"), 4, path)
    beside = path.with_name(stem + CENTRAL)
    central = _metres(_upright(load_npy(beside, "poses (F, 3, J)"), 3, beside), beside) if beside.exists() else None
    return _unnamed(h, truth, central, path, stem, stem.startswith("hard"))


def _read_pickle(path: Path) -> Dump:
    values = read_pickle(path, f"{_WHAT}, a dict of p3d_pred_sharma and p3d_gt")
    for key in ("p3d_pred_sharma", "p3d_gt"):
        if key not in values:
            raise InputError(f"{path}: lacks {key} (found {', '.join(map(str, values)) or 'nothing'}), expected {_WHAT}")
    h, truth = (to_array(values[key], f"{path}: {key}") for key in ("p3d_pred_sharma", "p3d_gt"))
    for key, array, axes in (("p3d_pred_sharma", h, 4), ("p3d_gt", truth, 3)):
        if array.ndim != axes or array.shape[-2:] != (17, 3):
            raise InputError(f"{path}: {key} of shape {array.shape}, expected {'(F, N, 17, 3)' if axes == 4 else '(F, 17, 3)'}")
    return _unnamed(h, truth, None, path, path.stem, hard=False)


def _unnamed(h: np.ndarray, truth: np.ndarray, central: Tensor | None, path: Path, stem: str, hard: bool) -> Dump:
    """Poses in millimetres, hypotheses or frames first; nothing is known of clips."""
    count = len(truth)
    if count not in h.shape[:2]:
        raise InputError(f"{path}: hypotheses of shape {h.shape}, expected {count} frames as of its truth, first or second")
    h = h if h.shape[0] == count else h.swapaxes(0, 1)
    try:
        frames = ScoredFrames(
            _metres(h, path), _metres(truth, path), np.full(count, stem), np.full(count, hard), central, _blocks(count), np.arange(count)
        )
    except InputError as error:
        raise InputError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from None
    return Dump(frames, _KNOWN[h.shape[2]], Origin(method=stem, dataset=stem))


def _upright(array: np.ndarray, axes: int, path: Path) -> np.ndarray:
    """(..., 3, J) with y up and z backward → (..., J, 3) with y down and z forward."""
    if array.ndim != axes or array.shape[-2] != 3 or array.shape[-1] not in _KNOWN:
        wanted = "(F, N, 3, J) or (N, F, 3, J)" if axes == 4 else "(F, 3, J)"
        raise InputError(f"{path}: poses of shape {array.shape}, expected {wanted} with {' or '.join(map(str, _KNOWN))} joints J")
    return array.swapaxes(-1, -2) * _TURN


def _metres(poses: np.ndarray, path: Path) -> Tensor:
    """Millimetres (..., J, 3) in metres, relative to the first joint."""
    poses = finite(poses, str(path)).astype(np.float32)
    poses = poses - poses[..., :1, :]
    reach = float(np.abs(poses).max(initial=0))
    if poses.size and not 100 < reach < 1e5:
        raise InputError(f"{path}: joints reach {reach:.3g} from the root, expected millimetres; multiply metres by 1000")
    return torch.from_numpy(poses / 1000)


def _blocks(count: int) -> np.ndarray:
    return np.array([f"block {number // BLOCK}" for number in range(count)], np.str_)


def _npy_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array.astype(np.float32), allow_pickle=False)
    return buffer.getvalue()


# ---- several files -----------------------------------------------------------------------------------------------------


def joined(dumps: Sequence[Dump]) -> Dump:
    """Hypotheses of the same frames together: the best of them is the best of each frame.

    Raises:
        InputError: other frames or joints.
    """
    first = dumps[0]
    for other in dumps[1:]:
        check_same(first, other)
    together = torch.cat([dump.frames.hypotheses for dump in dumps], 1)
    method = " + ".join(dict.fromkeys(dump.origin.method for dump in dumps))
    return dataclasses.replace(
        first, frames=dataclasses.replace(first.frames, hypotheses=together), origin=dataclasses.replace(first.origin, method=method)
    )


def check_same(one: Dump, other: Dump) -> None:
    """Raise :class:`InputError` unless both are of the same frames."""
    if one.joints != other.joints:
        raise InputError(f"dumps: {len(one.joints)} and {len(other.joints)} joints of different names, expected the same; convert one")
    if len(one.frames) != len(other.frames):
        raise InputError(f"dumps: {len(one.frames)} and {len(other.frames)} frames, expected the same ones; dump both by the same --every")
    away = float((one.frames.truth - other.frames.truth).abs().max()) if len(one.frames) else 0.0
    if away > _SAME:
        raise InputError(f"dumps: their truths are up to {1000 * away:.0f} mm apart, expected the same frames in the same order")
