"""Which values of a pose are missing, said in words or in a file.

left_leg            legs+left_arm            left_elbow,right_knee.x            trunk,head.yz            mask.npz
"""

import difflib
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dposer.body.skeleton import BODY_JOINTS, PARTS
from dposer.errors import InputError
from dposer.files import existing_file, finite, load_npz, load_tensors

SUFFIXES = (".npz", ".npy", ".pt", ".txt", ".csv")
_WHAT = "a mask of 0 (known) and 1 (missing): (21,), (63,), (poses, 21) or (poses, 63)"


def read_missing(spec: str, poses: int) -> Tensor:
    """The missing values of ``poses`` poses: bool, (63,) for all of them, or (poses, 63) with a row for each.

    Args:
        spec: names of body parts and joints joined by ``+`` or ``,``, each with all its axes or with those named
            (``right_knee.x``, ``legs.yz``); or a mask file: ``.npz`` with the key ``missing``, ``.npy``, ``.pt`` (a bare
            tensor), ``.txt`` or ``.csv`` (a pose a line), holding (21,), (63,), (poses, 21) or (poses, 63) of 0 and 1.
            A single row stands for every pose.
        poses: how many poses there are.

    Raises:
        InputError: an unknown name (its closest matches are told), a file that is absent, of another kind or shape or with
            values other than 0 and 1, a pose of which nothing or everything is missing.
    """
    is_file = Path(spec).suffix.lower() in SUFFIXES or "/" in spec
    missing = _from_file(Path(spec), poses) if is_file else _from_words(spec)
    return _partly_missing(missing, spec)


def _from_words(spec: str) -> Tensor:
    missing = torch.zeros(21, 3, dtype=torch.bool)
    for word in re.split(r"[,+]", spec):
        name, dot, axes = word.strip().partition(".")
        if dot and not (axes and set(axes) <= set("xyz")):
            raise InputError(f"missing '{spec}': '{word.strip()}' names the axes '{axes}', expected some of x, y and z, e.g. {name}.x")
        joints = torch.tensor(_joints(name, spec))
        missing[joints[:, None], torch.tensor(["xyz".index(axis) for axis in axes or "xyz"])] = True
    return missing.flatten()


def _joints(name: str, spec: str) -> tuple[int, ...]:
    if name in PARTS:
        return PARTS[name]
    if name in BODY_JOINTS:
        return (BODY_JOINTS.index(name),)
    close = difflib.get_close_matches(name, (*PARTS, *BODY_JOINTS))
    hint = (
        f"did you mean {' or '.join(close)}" if close else f"expected a part ({', '.join(PARTS)}), a body joint ({', '.join(BODY_JOINTS)})"
    )
    raise InputError(f"missing '{spec}': there is no part or joint '{name}'; {hint} or a file ({', '.join(SUFFIXES)})?")


def _from_file(path: Path, poses: int) -> Tensor:
    array = np.squeeze(_read(path))
    array = finite(array.astype(np.uint8) if array.dtype == bool else array, str(path))
    if array.shape not in ((21,), (63,), (poses, 21), (poses, 63)):
        raise InputError(f"{path}: shape {array.shape}, expected (21,), (63,), ({poses}, 21) or ({poses}, 63); it must fit the poses")
    if not np.isin(array, (0, 1)).all():
        raise InputError(f"{path}: holds the value {array[~np.isin(array, (0, 1))][0]:g}, expected {_WHAT}")
    missing = torch.from_numpy(array == 1)
    return missing.repeat_interleave(63 // missing.shape[-1], dim=-1)


def _read(path: Path) -> np.ndarray:
    existing_file(path, _WHAT)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return load_npz(path, _WHAT, required=("missing",), optional=())["missing"]
    if suffix == ".pt":
        tensor = load_tensors(path, _WHAT)
        if not isinstance(tensor, Tensor):
            raise InputError(f"{path}: found a {type(tensor).__name__}, expected a bare tensor, {_WHAT}")
        return tensor.detach().float().numpy()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: suffix '{suffix}', expected one of {', '.join(SUFFIXES)}")
    try:
        if suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        lines = path.read_text(encoding="utf-8").replace(",", " ").splitlines()
        return np.array([[float(word) for word in line.split()] for line in lines if line.strip()])
    except Exception as error:  # a damaged file raises almost anything
        reason = (str(error) or type(error).__name__).splitlines()[0][:100]
        raise InputError(f"{path}: not readable ({reason}), expected {_WHAT}") from error


def _partly_missing(missing: Tensor, spec: str) -> Tensor:
    counts = missing.sum(-1)
    wrong = (counts == 0) | (counts == 63)
    if bool(wrong.any()):
        row = int(wrong.flatten().nonzero()[0])
        amount = "nothing" if int(counts.flatten()[row]) == 0 else "everything"
        which = f" of pose {row}" if missing.ndim == 2 else ""
        raise InputError(f"missing '{spec}': {amount}{which} is missing, expected some of its 63 values; mark at least one and not all")
    return missing
