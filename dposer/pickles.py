"""Pickles of arrays, read without running anything they contain.

Every class named in a pickle becomes an inert record of what was stored for it, and arrays are rebuilt from those records. No package
that a pickle names is imported for it, and no name but those of arrays is admitted.
"""

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from dposer.errors import InputError
from dposer.files import PathLike, existing_file


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
                f"the pickle names {module}.{name}, which is not an array, so it was not opened; an unsafe pickle, expected arrays only"
            )
        return kind


def read_pickle(path: PathLike, what: str = "a pickled dict of arrays", mend: str = "check the path") -> dict[str, Any]:
    """Read a pickled dict without executing it. Values are plain Python, or records that :func:`to_array` turns into arrays.

    Args:
        what: what the file should be, for messages.
        mend: what to do if it is not there.

    Raises:
        InputError: missing, truncated, not a dict, or naming anything other than arrays.
    """
    path = existing_file(path, what, mend)
    with path.open("rb") as file:
        value = unpickled(path, file, what)
    if not isinstance(value, dict):
        raise InputError(f"{path}: the pickle holds a {type(value).__name__.strip('_')}, expected a dict of arrays")
    return value


def unpickled(path: Path, file: BinaryIO, what: str) -> Any:
    """The next pickle of an open file, see :func:`read_pickle`; ``path`` is for messages."""
    try:
        return _ArrayUnpickler(file, encoding="latin1").load()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # a broken pickle can raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(f"{path}: not a readable pickle ({reason}), expected {what}; it may be truncated, fetch it again") from error


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


def plain(value: Any, name: str) -> Any:
    """What was unpickled as dicts, lists, tuples, strings, numbers and arrays; an array of objects as the list of them, or as the object
    itself if the array has no axes. ``name`` is for the error message.

    Raises:
        InputError: anything else in it, or arrays whose parts do not fit together.
    """
    try:
        return _plain(value, name)
    except (AttributeError, IndexError, LookupError, RecursionError, TypeError, UnicodeDecodeError) as error:
        raise InputError(f"{name}: holds objects that are not as numpy writes them; it may be damaged, fetch it again") from error


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {_plain(key, name): _plain(item, name) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item, name) for item in value)
    if isinstance(value, _NumpyArray) and _code(value.state[2]) == "O":
        return _plain(value.state[4] if value.state[1] else value.state[4][0], name)
    if isinstance(value, _NumpyScalar) and _code(value.args[0]) == "U":
        return _bytes(value.args[1]).decode("utf-32-be" if value.args[0].state[1] == ">" else "utf-32-le")
    if isinstance(value, _Record):
        array = to_array(value, name)
        return array if array.ndim else array.item()
    return value


def _code(dtype: _NumpyDtype) -> str:
    return str(dtype.args[0])[:1]


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
