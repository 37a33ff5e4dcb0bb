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

Old ``.pkl`` files also hold ``scipy`` and ``chumpy`` objects. Here every class named in a pickle becomes an inert record
of what was stored for it, and arrays are rebuilt from those records. Neither package is imported, no other name is admitted.
"""

import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from dposer.body.skeleton import SMPLX_PARENTS
from dposer.errors import InputError
from dposer.files import PathLike, existing_file, finite, load_npz

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
    raw: Mapping[str, Any] = load_npz(path, _WHAT, _REQUIRED) if zipped else read_pickle(path)
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


# --- pickles -----------------------------------------------------------------------------------------------------------


class _Record:
    """What a pickle stored for an object: the arguments it was to be made with and its state. Nothing is ever called with them."""

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _NumpyArray(_Record):
    """``numpy._reconstruct(type, (0,), b"b")`` with state ``(version, shape, dtype, fortran order, bytes)``."""


class _NumpyScalar(_Record):
    """``numpy.scalar(dtype, bytes)``."""


class _NumpyDtype(_Record):
    """``numpy.dtype(code, align, copy)`` with state ``(version, byte order, ...)``."""


class _SparseColumns(_Record):
    """``scipy.sparse.csc_matrix`` with state ``data, indices, indptr, _shape``."""


class _Chumpy(_Record):
    """Any ``chumpy`` array: ``x`` is its value; ``a, idxs, preferred_shape`` are a selection from another."""


class _Rebuilt(_Record):
    """``copyreg._reconstructor(type, base, state)``: how protocol 2 stores old objects."""

    def __new__(cls, kind: Any, *_: Any) -> Any:
        if not (isinstance(kind, type) and issubclass(kind, _Record)):
            raise pickle.UnpicklingError("copyreg._reconstructor of something other than an array")
        return kind()


class _Encoded(_Record):
    """``_codecs.encode(text, "latin1")``: how Python 3 stores bytes in protocol 2."""

    def __new__(cls, text: Any, *_: Any) -> Any:
        return _bytes(text)


_ADMITTED: dict[str, type] = {
    "numpy.ndarray": _NumpyArray,
    "numpy.dtype": _NumpyDtype,
    **{f"numpy.{core}.multiarray._reconstruct": _NumpyArray for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _NumpyScalar for core in ("core", "_core")},
    **{f"scipy.sparse.{module}csc_matrix": _SparseColumns for module in ("csc.", "_csc.", "")},
    **{f"{module}._reconstructor": _Rebuilt for module in ("copyreg", "copy_reg")},
    "_codecs.encode": _Encoded,
    **{f"{module}.{kind.__name__}": kind for module in ("builtins", "__builtin__") for kind in (object, set)},
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        kind = _Chumpy if module.split(".")[0] == "chumpy" else _ADMITTED.get(f"{module}.{name}")
        if kind is None:
            raise InputError(
                f"the pickle names {module}.{name}, which is not an array, so it was not opened; a body file holds arrays only"
            )
        return kind


def read_pickle(path: PathLike) -> dict[str, Any]:
    """Read a pickled dict without executing it. Values are plain Python, or records that :func:`to_array` turns into arrays.

    Raises:
        InputError: missing, truncated, not a dict, or naming anything other than arrays.
    """
    path = existing_file(path, _WHAT, _MEND)
    with path.open("rb") as file:
        value = _unpickled(path, file)
    if not isinstance(value, dict):
        raise InputError(f"{path}: the pickle holds a {type(value).__name__.strip('_')}, expected a dict of arrays")
    return value


def _unpickled(path: Path, file: BinaryIO) -> Any:
    try:
        return _ArrayUnpickler(file, encoding="latin1").load()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # a broken pickle can raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(f"{path}: not a readable pickle ({reason}), expected {_WHAT}; it may be truncated, fetch it again") from error


def to_array(value: Any, name: str) -> np.ndarray:
    """The array a pickled record stands for; arrays, numbers and lists of numbers pass through. ``name`` is for the error message.

    Raises:
        InputError: it is no array of numbers, or its parts do not fit together.
    """
    try:
        return _array(value)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except (
        ArithmeticError,
        AttributeError,
        IndexError,
        KeyError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
        MemoryError,
    ) as error:
        raise InputError(f"{name}: not a readable array ({(str(error).splitlines() or [''])[0][:120]})") from error


def _array(value: Any) -> np.ndarray:
    decode = _DECODERS.get(type(value))
    array = decode(value) if decode else np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise InputError(f"found {array.dtype if decode else type(value).__name__}, expected an array of numbers")
    return array


def _numpy_array(record: _Record) -> np.ndarray:
    _, shape, dtype, fortran, data = record.state
    return _from_bytes(data, dtype, tuple(int(size) for size in shape), "F" if fortran else "C")


def _numpy_scalar(record: _Record) -> np.ndarray:
    dtype, data = record.args
    return _from_bytes(data, dtype, (), "C")


def _from_bytes(data: Any, record: _NumpyDtype, shape: tuple[int, ...], order: Literal["C", "F"]) -> np.ndarray:
    if not isinstance(record, _NumpyDtype) or str(record.args[0])[:1] not in ("f", "i", "u", "b"):
        raise InputError(f"holds values of type '{getattr(record, 'args', ('unknown',))[0]}', expected an array of numbers")
    dtype = np.dtype(str(record.args[0])).newbyteorder(record.state[1] if record.state else "=")
    data = _bytes(data)
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise InputError(f"holds {len(data)} bytes, expected shape {shape} of {dtype}")
    return np.frombuffer(data, dtype).reshape(shape, order=order).astype(dtype.newbyteorder("="))


def _sparse_columns(record: _Record) -> np.ndarray:
    state = record.state
    data, indices, indptr = (_array(state[key]) for key in ("data", "indices", "indptr"))
    rows, columns = (int(size) for size in state.get("_shape", state.get("shape")))
    counts = np.diff(indptr)
    if len(indptr) != columns + 1 or indptr[0] != 0 or counts.min(initial=0) < 0 or not len(data) == len(indices) == indptr[-1]:
        raise InputError("the sparse matrix's index arrays do not fit together")
    if len(indices) and not 0 <= indices.min() <= indices.max() < rows:
        raise InputError(f"the sparse matrix refers to rows {indices.min()} to {indices.max()}, expected 0 to {rows - 1}")
    dense = np.zeros((rows, columns))
    np.add.at(dense, (indices, np.repeat(np.arange(columns), counts)), data)
    return dense


def _chumpy(record: _Record) -> np.ndarray:
    state = record.state
    if "x" in state:
        return _array(state["x"])
    return _array(state["a"]).ravel()[_array(state["idxs"])].reshape([int(size) for size in _array(state["preferred_shape"])])


_DECODERS: dict[type, Callable[[Any], np.ndarray]] = {
    _NumpyArray: _numpy_array,
    _NumpyScalar: _numpy_scalar,
    _SparseColumns: _sparse_columns,
    _Chumpy: _chumpy,
}


def _bytes(data: Any) -> bytes:
    """Bytes as they are, or as Python 2's text read as Latin-1."""
    return data if isinstance(data, bytes) else str(data).encode("latin1")
