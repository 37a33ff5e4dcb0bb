"""Files are written whole or not at all, and reading one never executes code."""

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dposer.errors import InputError

PathLike = str | os.PathLike[str]


@contextlib.contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` on success, delete it on any failure.

    The temporary name keeps the suffix, since writers pick a format by it. Missing parent folders are made.

    Raises:
        InputError: the folder cannot be made or written to, or the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose another output folder or free the disk") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def existing_file(path: PathLike, what: str, mend: str = "check the path") -> Path:
    """Return ``path`` if it is a readable, non-empty file; raise :class:`InputError` naming ``what`` it should be."""
    path = Path(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise InputError(f"{path}: found {found}, expected {what}; {mend}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty, expected {what}; {mend}")
    return path


def load_npz(path: PathLike, what: str, required: tuple[str, ...] = (), optional: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    """Read a ``.npz`` into a dict of arrays. Pickled members are refused, never executed.

    Args:
        what: what the file should be, for messages.
        required: members it must have.
        optional: further members to read; None reads all there are.

    Raises:
        InputError: missing, truncated, not an npz, lacking one of ``required`` or holding pickled objects there.
    """
    path = existing_file(path, what)
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputError(f"{path}: found a single array, expected {what} (.npz)")
            found = sorted(archive.files)
            wanted = [key for key in found if optional is None or key in required or key in optional]
            arrays = {key: array for key in wanted if (array := _member(archive, key, path, required)) is not None}
    except InputError:
        raise
    except Exception as error:  # damaged archives raise almost anything, from zlib's errors to the tokenizer's
        raise InputError(
            f"{path}: not a readable npz file ({_first_line(error)}), expected {what}; it may be truncated, fetch it again"
        ) from error
    missing = [key for key in required if key not in arrays]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)} (found {', '.join(found) or 'no arrays'}), expected {what}")
    return arrays


def load_npy(path: PathLike, what: str) -> np.ndarray:
    """Read a ``.npy``. Pickled objects are refused, never executed.

    Raises:
        InputError: missing, truncated, not an npy, or holding pickled objects.
    """
    path = existing_file(path, what)
    try:
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("an archive of arrays, rename it to .npz")
    except Exception as error:  # damaged headers raise almost anything, from the tokenizer's errors to memory errors
        raise InputError(
            f"{path}: not a readable npy file ({_first_line(error)}), expected {what} as one numeric array; save it anew"
        ) from error
    return array


def _member(archive: Any, key: str, path: Path, required: tuple[str, ...]) -> np.ndarray | None:
    """One member; None for pickled objects nobody needs."""
    try:
        array: np.ndarray = archive[key]
        return array
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        if key in required:
            raise InputError(f"{path}: '{key}' holds pickled objects, expected a plain array; save it with a numeric dtype") from None
        return None


def save_npz(path: PathLike, arrays: Mapping[str, Any]) -> None:
    """Write a compressed ``.npz`` atomically."""
    buffer = io.BytesIO()
    members: dict[str, Any] = {key: np.asarray(value) for key, value in arrays.items()}
    np.savez_compressed(buffer, **members)
    save_bytes(path, buffer.getvalue())


def load_tensors(path: PathLike, what: str) -> Any:
    """``torch.load`` restricted to tensors and plain containers, on the CPU.

    Raises:
        InputError: missing, truncated, or holding anything but tensors and plain containers.
    """
    path = existing_file(path, what)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for each way a file can be broken
        raise InputError(f"{path}: not a readable tensor file ({_first_line(error)}), expected {what}") from error


def save_tensors(path: PathLike, value: Any) -> None:
    """``torch.save`` atomically; equal values give equal bytes, since the file's name does not enter the archive."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    save_bytes(path, buffer.getvalue())


def save_bytes(path: PathLike, data: bytes) -> None:
    """Write bytes atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def save_json(path: PathLike, value: Any) -> None:
    """Write indented JSON atomically."""
    save_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:120]


def finite(array: np.ndarray, name: str) -> np.ndarray:
    """Return ``array``; raise :class:`InputError` if it is not numeric or holds NaN or infinity."""
    if not np.issubdtype(array.dtype, np.number):
        raise InputError(f"{name}: dtype {array.dtype}, expected numbers")
    bad = ~np.isfinite(array)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"{name}: {int(bad.sum())} values are NaN or infinite (first at {first}), expected finite numbers; drop or fill those rows"
        )
    return array
