"""Reads SMPL-X, SMPL-H and SMPL body files (``.npz`` or ``.pkl``) without running anything they contain.

The three official layouts share their keys and differ in the number of joints, which is how they are told apart:

====================  ===========================  ======================================================
``v_template``        (V, 3)                       metres
``f``                 (F, 3)                       triangles
``shapedirs``         (V, 3, S)                    betas; in SMPL-X files also the expressions
``posedirs``          (V, 3, 9 (J - 1))            pose correctives
``J_regressor``       (J, V), dense or sparse      J = 55 (SMPL-X), 52 (SMPL-H), 24 (SMPL)
``weights``           (V, J)                       rows sum to 1
``kintree_table``     (2, J)                       row 0: parents, the root's is -1 (or 2^32 - 1)
``hands_meanl, -r``   (45,)                        optional: the relaxed hand
====================  ===========================  ======================================================

Old ``.pkl`` files also hold ``scipy`` and ``chumpy`` objects, which :mod:`dposer.pickles` reads without either package.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dposer.body.skeleton import SMPLX_PARENTS
from dposer.errors import InputError
from dposer.files import PathLike, existing_file, finite, load_npz
from dposer.pickles import read_pickle, to_array

Kind = Literal["smplx", "smplh", "smpl"]

_KINDS: dict[int, Kind] = {55: "smplx", 52: "smplh", 24: "smpl"}
_REQUIRED = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table")
_WHAT = "an SMPL-X, SMPL-H or SMPL body file"
_MEND = (
    "licensed bodies come free for research from smpl-x.is.tue.mpg.de (SMPL-X), mano.is.tue.mpg.de (SMPL-H) or smpl.is.tue.mpg.de (SMPL); "
    "give no path to use the open body, which needs no licence"
)


@dataclass(frozen=True)
class BodyArrays:
    """The arrays of a body file, checked; ``V`` vertices, ``J`` joints, float64 unless noted."""

    kind: Kind
    v_template: np.ndarray  # (V, 3) metres
    faces: np.ndarray  # (F, 3) int64
    shapedirs: np.ndarray  # (V, 3, betas)
    expressiondirs: np.ndarray  # (V, 3, expressions), no columns unless SMPL-X
    posedirs: np.ndarray | None  # (V, 3, 9 (J - 1)) in the file's dtype; None if all zero
    joint_regressor: np.ndarray  # (J, V)
    weights: np.ndarray  # (V, J)
    parents: tuple[int, ...]  # -1 for the root
    hand_means: tuple[np.ndarray, np.ndarray] | None  # left and right (45,) axis-angle


def find_body_file(path: PathLike, gender: str = "neutral") -> Path:
    """The file itself, or the one a folder holds as ``SMPLX_NEUTRAL.npz`` or ``smplx/SMPLX_NEUTRAL.npz`` (then SMPL-H, then SMPL).

    Raises:
        InputError: neither exists.
    """
    path = Path(path)
    if not path.is_dir():
        return existing_file(path, _WHAT, _MEND)
    names = [f"{kind.upper()}_{gender.upper()}{suffix}" for kind in _KINDS.values() for suffix in (".npz", ".pkl")]
    for candidate in (folder / name for name in names for folder in (path, path / name.split("_")[0].lower())):
        if candidate.is_file():
            return candidate
    raise InputError(f"{path}: the folder holds none of {', '.join(names)}, expected {_WHAT}; {_MEND}")


def read_body(path: PathLike) -> BodyArrays:
    """Read and check a body file of any of the three kinds; its contents decide which, not its name.

    Raises:
        InputError: missing, truncated, a pickle that names anything but arrays, lacking a key, or with shapes that do not fit.
    """
    path = existing_file(path, _WHAT, _MEND)
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    raw: Mapping[str, Any] = load_npz(path, _WHAT, _REQUIRED) if zipped else read_pickle(path, _WHAT, _MEND)
    return _checked(path, raw)


def _checked(path: Path, raw: Mapping[str, Any]) -> BodyArrays:
    missing = [key for key in _REQUIRED if key not in raw]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}, expected {_WHAT} with {', '.join(_REQUIRED)}")

    def array(key: str, *shape: int | None) -> np.ndarray:
        value = finite(to_array(raw[key], f"{path}: '{key}'"), f"{path}: '{key}'")
        if value.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, value.shape, strict=True)):
            expected = ", ".join("any" if want is None else str(want) for want in shape)
            raise InputError(f"{path}: '{key}' has shape {value.shape}, expected ({expected}); this is not {_WHAT}")
        return value

    v_template = array("v_template", None, 3)
    vertices = len(v_template)
    regressor = array("J_regressor", None, vertices)
    joints = len(regressor)
    if joints not in _KINDS:
        raise InputError(f"{path}: J_regressor has {joints} rows, expected 55 (SMPL-X), 52 (SMPL-H) or 24 (SMPL)")
    kind = _KINDS[joints]
    faces = array("f", None, 3).astype(np.int64)
    if faces.size and (faces.min() < 0 or faces.max() >= vertices):
        raise InputError(f"{path}: 'f' refers to vertices {faces.min()} to {faces.max()}, expected 0 to {vertices - 1}")
    posedirs = array("posedirs", vertices, 3, 9 * (joints - 1))
    shapedirs = array("shapedirs", vertices, 3, None)
    first, last = _expression_columns(kind, shapedirs.shape[2])
    means = tuple(array(key, 45).astype(np.float64) for key in ("hands_meanl", "hands_meanr") if key in raw)
    return BodyArrays(
        kind=kind,
        v_template=v_template.astype(np.float64),
        faces=faces,
        shapedirs=shapedirs[:, :, :first].astype(np.float64),
        expressiondirs=shapedirs[:, :, first:last].astype(np.float64),
        posedirs=np.asarray(posedirs, posedirs.dtype.newbyteorder("=")) if posedirs.any() else None,
        joint_regressor=regressor.astype(np.float64),
        weights=array("weights", vertices, joints).astype(np.float64),
        parents=_parents(path, array("kintree_table", 2, joints)),
        hand_means=(means[0], means[1]) if len(means) == 2 else None,
    )


def _expression_columns(kind: Kind, columns: int) -> tuple[int, int]:
    """SMPL-X v1.1 stores 300 shape and 100 expression columns, earlier and reduced files 10 and 10."""
    if kind != "smplx":
        return columns, columns
    return (300, 400) if columns >= 400 else (min(columns, 10), min(columns, 20))


def _parents(path: Path, kintree: np.ndarray) -> tuple[int, ...]:
    parents = (-1, *(int(parent) for parent in kintree[0, 1:]))
    if parents[:22] != SMPLX_PARENTS[:22] or any(not 0 <= parent < joint for joint, parent in enumerate(parents[1:], start=1)):
        raise InputError(
            f"{path}: 'kintree_table' is not the SMPL family's tree (parents of joints 0 to 21: {parents[:22]}); this is not {_WHAT}"
        )
    return parents
