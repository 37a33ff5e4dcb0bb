"""The lens of a camera, from the file that a calibration left: ``K = [[f_x, 0, c_x], [0, f_y, c_y], [0, 0, 1]]`` in pixels.

- ``.txt``, ``.csv``: the nine numbers of K, row by row; ``#`` begins a comment;
- ``.npy``: K; ``.npz``: K by one of the names of :data:`NAMES`;
- ``.json``: ``{"K": [[...], [...], [...]]}`` or any of these names, with the nine numbers in rows, in one list or as ``{"data": [...]}``;
  ``{"fx": f_x, "fy": f_y, "cx": c_x, "cy": c_y}``, also with ``fl_x`` and ``fl_y``, also below one of the names; or K alone;
- ``.yml``, ``.yaml``: the same names, as OpenCV's FileStorage and ROS write them.

If the file tells the size of its pictures (``image_width`` and ``image_height``, ``width`` and ``height``, ``w`` and ``h``), it must be
that of the picture. Skew and lens distortion are refused, since no solver here knows of them.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dposer.errors import InputError
from dposer.files import PathLike, existing_file, load_npy, load_npz

NAMES = ("K", "camera_matrix", "cameraMatrix", "intrinsics", "intrinsic_matrix", "mtx")
"""What K is called in files, by precedence."""

_LENGTHS = (("fx", "fy", "cx", "cy"), ("fl_x", "fl_y", "cx", "cy"))
_SIZES = (("image_width", "image_height"), ("width", "height"), ("w", "h"))
_DISTORTIONS = ("distortion_coefficients", "distortion", "distCoeffs", "dist_coeffs", "dist", "D", "k1", "k2", "k3", "k4", "p1", "p2")
_WHAT = "a camera matrix K"
_SHORTEST, _LONGEST = 0.1, 100.0
"""Focal lengths in diagonals of the picture; beyond these, K is not in pixels of this picture."""
_ASIDE = 0.5
"""Of the picture's width or height: how far outside of it the principal point may lie."""
_NEGLIGIBLE = 1e-3
"""Skew as a fraction of the focal length."""


class Intrinsics(NamedTuple):
    """``u = f_x x / z + c_x,  v = f_y y / z + c_y``, pixels."""

    focal: tuple[float, float]
    """``(f_x, f_y)``."""
    centre: tuple[float, float]
    """``(c_x, c_y)``, the principal point."""


def read_intrinsics(path: PathLike, size: tuple[int, int]) -> Intrinsics:
    """Read the lens that took a picture of this size.

    Args:
        path: in one of the forms above.
        size: width and height of the picture, pixels.

    Raises:
        InputError: missing, damaged or without K; a K that is no pinhole camera's, or not of a picture of this size; lens distortion.
    """
    path = existing_file(path, _WHAT)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: expected {_WHAT} as {', '.join(_READERS)}; save it as one of these")
    try:
        content = reader(path)
        _check_size(content, size)
        _check_distortion(content)
        return _lens(_matrix(content), size)
    except _Wrong as error:
        raise InputError(f"{path}: {error}") from None


class _Wrong(Exception):
    """What is wrong with the content; the reader adds the name of the file."""


_Content = Mapping[str, Any]
"""Numbers by name; K alone is called K."""

# --- what it means -------------------------------------------------------------------------------------------------------


def _matrix(content: _Content) -> np.ndarray:
    """K (3, 3)."""
    value = next((content[name] for name in NAMES if name in content), content)
    if isinstance(value, Mapping) and "data" in value:
        value = value["data"]
    if isinstance(value, Mapping):
        names = next((names for names in _LENGTHS if all(name in value for name in names)), None)
        if names is None:
            raise _Wrong(f"holds {', '.join(map(str, content))[:80] or 'nothing'}, expected K or fx, fy, cx and cy; name them so")
        fx, fy, cx, cy = (_numbers(value[name], name, 1)[0] for name in names)
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    return _numbers(value, "K", 9).reshape(3, 3)


def _lens(matrix: np.ndarray, size: tuple[int, int]) -> Intrinsics:
    (fx, skew, cx), (tilt, fy, cy), last = matrix.tolist()
    if last != [0, 0, 1] or tilt != 0:
        shown = "; ".join(" ".join(f"{number:g}" for number in row) for row in matrix)
        raise _Wrong(f"K is {shown}, expected fx 0 cx; 0 fy cy; 0 0 1; transpose it if it was saved column by column")
    diagonal = math.hypot(*size)
    if not all(_SHORTEST * diagonal <= focal <= _LONGEST * diagonal for focal in (fx, fy)):
        raise _Wrong(
            f"focal lengths {fx:g} and {fy:g}, expected {_SHORTEST * diagonal:.0f} to {_LONGEST * diagonal:.0f} pixels for a picture of "
            f"{_shown(size)}; multiply a K in fractions of the picture by its size"
        )
    if abs(skew) > _NEGLIGIBLE * fx:
        raise _Wrong(f"skew {skew:g}, which is not supported, expected 0; calibrate again without skew")
    if not all(-_ASIDE * side <= place <= (1 + _ASIDE) * side for place, side in zip((cx, cy), size, strict=True)):
        raise _Wrong(f"principal point ({cx:g}, {cy:g}) far outside of the picture of {_shown(size)}; give the K of pictures of that size")
    return Intrinsics((fx, fy), (cx, cy))


def _check_size(content: _Content, size: tuple[int, int]) -> None:
    for names in _SIZES:
        if all(name in content for name in names):
            told = tuple(_numbers(content[name], name, 1)[0] for name in names)
            if told != size:
                raise _Wrong(
                    f"is of pictures of {_shown(told)}, found one of {_shown(size)}; give the K of this size "
                    "(where a picture was scaled, K's first two rows scale with it)"
                )


def _check_distortion(content: _Content) -> None:
    for name in _DISTORTIONS:
        value = content.get(name)
        value = value.get("data", ()) if isinstance(value, Mapping) else value
        if value is not None and (numbers := _numbers(value, name)).any():
            raise _Wrong(
                f"lens distortion ({name} {' '.join(f'{number:g}' for number in numbers[:5])}) is not supported; undistort picture and "
                "keypoints (cv2.undistort), or write zeros to leave it out of account"
            )


def _numbers(value: Any, name: str, count: int | None = None) -> np.ndarray:
    """Flat, finite, and so many."""
    try:
        numbers = np.asarray(value).astype(np.float64, casting="same_kind").ravel()
    except (TypeError, ValueError, OverflowError):
        raise _Wrong(f"'{name}' is not made of numbers; write them anew") from None
    if not np.isfinite(numbers).all():
        raise _Wrong(f"'{name}' holds NaN or infinity, expected finite numbers; calibrate again")
    if count is not None and len(numbers) != count:
        raise _Wrong(f"'{name}' holds {len(numbers)} numbers, expected {count}; write {'K in three rows' if count == 9 else 'one'}")
    return numbers


def _shown(size: tuple[float, ...]) -> str:
    return " x ".join(f"{side:g}" for side in size)


# --- how it is written ---------------------------------------------------------------------------------------------------

_BLOCK = re.compile(r"^([A-Za-z]\w*)[ \t]*:(.*(?:\n(?![A-Za-z]).*)*)", re.MULTILINE)
"""A name at the beginning of a line, and all up to the next one."""
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])|[-+]?\.(?:nan|inf)\b", re.IGNORECASE)


def _read_text(path: Path) -> _Content:
    rows = "\n".join(line.partition("#")[0] for line in _text(path).splitlines())
    cells = re.split(r"[\s,;]+", rows.strip(" \t\r\n,;"))
    try:
        return {"K": [float(cell) for cell in cells]}
    except ValueError:
        raise _Wrong("K is not made of numbers, expected nine of them in three rows; write them anew") from None


def _read_json(path: Path) -> _Content:
    try:
        content = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise _Wrong(f"not readable as JSON ({str(error)[:80]}), expected {_WHAT}; write it anew") from None
    return content if isinstance(content, dict) else {"K": content}


def _read_yaml(path: Path) -> _Content:
    """Not all of YAML: the numbers below each name, of a matrix those of its ``data``. OpenCV's own reader hangs on some damaged files."""
    return {name: _numbers_of(body.rpartition("data:")[2]) for name, body in _BLOCK.findall(_text(path))}


def _numbers_of(text: str) -> list[float]:
    return [float(number.lower().replace(".nan", "nan").replace(".inf", "inf")) for number in _NUMBER.findall(text)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise _Wrong(f"not a text file, expected {_WHAT}; write it anew") from None


_READERS: Mapping[str, Callable[[Path], _Content]] = {
    ".txt": _read_text,
    ".csv": _read_text,
    ".npy": lambda path: {"K": load_npy(path, _WHAT)},
    ".npz": lambda path: load_npz(path, _WHAT),
    ".json": _read_json,
    ".yml": _read_yaml,
    ".yaml": _read_yaml,
}
