"""Reading plain or gzip-compressed text and tables of numbers, with errors that name the line."""

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dposer.errors import InputError
from dposer.files import PathLike, existing_file


def read_lines(path: PathLike, what: str) -> list[str]:
    """The lines of a text file, unpacked first if its name ends in ``.gz``.

    Raises:
        InputError: missing, empty, a broken gzip file, or not text.
    """
    path = existing_file(path, what)
    data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: not a readable gzip file ({error}), expected {what}; it may be truncated, fetch it again") from error
    if b"\0" in data:
        raise InputError(f"{path}: holds binary data, expected {what}; check the path")
    return data.decode("latin-1").splitlines()


def fail(path: PathLike, line: int, found: str, expected: str) -> InputError:
    """The error for line ``line`` (counted from 1) of a file."""
    shown = repr(found if len(found) <= 60 else found[:57] + "...")
    return InputError(f"{path}, line {line}: found {shown}, expected {expected}; the file is damaged or truncated, fetch it again")


def numbers(words: Sequence[str], path: PathLike, line: int, count: int, what: str) -> np.ndarray:
    """``count`` finite numbers from the words of one line."""
    if len(words) != count:
        raise fail(path, line, " ".join(words), f"{count} numbers ({what})")
    try:
        values = np.array(words, dtype=float)
    except ValueError:
        raise fail(path, line, " ".join(words), f"{count} numbers ({what})") from None
    if not np.isfinite(values).all():
        raise fail(path, line, " ".join(words), f"finite numbers ({what})")
    return values


def number_table(lines: Sequence[str], path: PathLike, first_line: int, columns: int, step: int = 1) -> np.ndarray:
    """Rows of ``columns`` finite numbers, one row a line (rows, columns).

    ``lines[i]`` is line ``first_line + step * i`` of the file. Read in one go; only a broken table is gone through line by line, to name
    the culprit.
    """
    try:
        table = np.array(" ".join(lines).split(), dtype=float).reshape(len(lines), columns)
    except ValueError:
        table = np.full((1, 1), np.nan)
    if np.isfinite(table).all():
        return table
    return np.stack(
        [numbers(text.split(), path, first_line + step * i, columns, "the channels of one frame") for i, text in enumerate(lines)]
    )


def suffix(path: PathLike) -> str:
    """Lower-case suffix without ``.gz``: ``.bvh`` for ``walk.bvh.gz``."""
    path = Path(path)
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()
