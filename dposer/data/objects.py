"""Object arrays of ``.npz`` and ``.npy`` files, as published data sets keep their dicts, read without running anything they contain."""

import io
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dposer.errors import InputError
from dposer.files import PathLike, existing_file, save_bytes
from dposer.pickles import plain, unpickled

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def load_object(path: PathLike, key: str, what: str, optional: bool = False) -> Any:
    """The member ``key`` of a ``.npz`` (or the one of a ``.npy``): dicts, lists, tuples, strings, numbers and arrays.

    Plain arrays come as they are.

    Args:
        what: what the file should be, for messages.
        optional: return None if there is no such member.

    Raises:
        InputError: missing, truncated, without ``key``, or an unsafe pickle, which names anything but arrays.
    """
    path = existing_file(path, what)
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                file.seek(0)
                return _array(path, key, file, what)
            with zipfile.ZipFile(file) as archive:
                found = [name.removesuffix(".npy") for name in archive.namelist()]
                if key not in found:
                    if optional:
                        return None
                    raise InputError(f"{path}: lacks {key} (found {', '.join(found) or 'no arrays'}), expected {what}")
                return _array(path, key, io.BytesIO(archive.read(archive.namelist()[found.index(key)])), what)
    except InputError:
        raise
    except Exception as error:  # damaged archives raise almost anything, from zlib's errors to the tokenizer's
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(f"{path}: '{key}' is not readable ({reason}), expected {what}; it may be truncated, fetch it again") from error


def _array(path: Path, key: str, file: BinaryIO, what: str) -> Any:
    start = file.tell()
    version = np.lib.format.read_magic(file)
    dtype = _HEADERS[version](file)[2] if version in _HEADERS else None
    if dtype is not None and dtype.hasobject:
        return plain(unpickled(path, file, what), f"{path}: '{key}'")
    file.seek(start)
    return np.lib.format.read_array(file, allow_pickle=False)


def boxed(value: Any) -> np.ndarray:
    """A 0-d object array that holds ``value``, as published files keep nested dicts."""
    box = np.empty((), dtype=object)
    box[()] = value
    return box


def save_object(path: PathLike, value: Any) -> None:
    """Write ``value`` as a ``.npy`` of one object, whole or not at all; :func:`load_object` reads it."""
    buffer = io.BytesIO()
    np.save(buffer, boxed(value))
    save_bytes(path, buffer.getvalue())
