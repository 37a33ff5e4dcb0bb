"""Sequences of 3D joints or markers from ``.npz .npy .csv .trc .c3d`` files, read into one form.

Holes are NaN, a blank cell, confidence 0 or, in ``.c3d``, a negative residual. Many programs write ``(0, 0, 0)`` for a point they do
not see: in ``.trc`` and ``.c3d`` such a point is always a hole; in the other formats it is one if the file gives no confidences and the
same point is not zero in another frame (the pelvis of root-relative joints is always zero, and stays).
"""

import io
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import c3d
import numpy as np

from dposer.body.skeleton import LAYOUTS, Layout
from dposer.data.text import fail, read_lines, suffix
from dposer.data.upright import Convention, to_world
from dposer.errors import InputError
from dposer.files import PathLike, existing_file, load_npy, load_npz

_WHAT = "a sequence of 3D points"
_POINT_KEYS = ("joints", "keypoints", "points", "positions", "keypoints_3d", "joints_3d", "markers", "marker_data")
_CONFIDENCE_KEYS = ("confidence", "confidences", "scores", "visible")
_NAME_KEYS = ("names", "labels", "marker_labels")
_RATE_KEYS = ("fps", "frame_rate", "mocap_frame_rate", "mocap_framerate")


@dataclass(frozen=True)
class PointSequence:
    """K points over F frames."""

    points: np.ndarray
    """(F, K, 3) float64 in the file's own unit and axes until :meth:`upright`; NaN where missing."""
    confidence: np.ndarray
    """(F, K) in [0, 1]; 0 exactly where ``points`` are NaN."""
    names: tuple[str, ...] | None
    """Of the K points, without the subject's name (``subject:LFHD``); None if the file does not tell."""
    fps: float | None
    """Frames per second; None if the file does not tell."""
    unit: str | None = None
    """As the file spells it; None if it does not tell."""
    source: str = "points"
    """The file, for messages."""

    def __len__(self) -> int:
        return len(self.points)

    def select(self, columns: Sequence[int]) -> "PointSequence":
        """Only some of the points, in the order given."""
        rows = list(columns)
        names = None if self.names is None else tuple(self.names[row] for row in rows)
        return replace(self, points=self.points[:, rows], confidence=self.confidence[:, rows], names=names)

    def upright(self, convention: Convention) -> "PointSequence":
        """The same points in metres, +z up."""
        return replace(self, points=to_world(self.points, convention), unit="m")


def read_points(path: PathLike, key: str | None = None) -> PointSequence:
    """Read joints or markers; the suffix of the file picks the format.

    - ``.npz``: (F, K, 3), (F, K, 4) with confidence last, or (F, 3K) under ``joints``, ``keypoints``, ``points``, ``positions``,
      ``keypoints_3d``, ``joints_3d``, ``markers`` or ``marker_data``, the first of these that is there; beside it optionally
      ``confidence`` (``confidences``, ``scores``, ``visible``) (F, K), ``names`` (``labels``, ``marker_labels``) and ``fps``
      (``frame_rate``, ``mocap_frame_rate``, ``mocap_framerate``).
    - ``.npy``: one such array.
    - ``.csv``: columns ``<name>_x, <name>_y, <name>_z`` and optionally ``<name>_c`` (also ``.x``, ``:X``, `` X``), beside optional
      ``frame`` and ``time`` (seconds) columns; without a header 3K columns. Separated by commas, semicolons or tabs.
    - ``.trc``: OpenSim, Motion Analysis.
    - ``.c3d``: points only; angles, forces, moments and powers that some programs store as points are left out.

    Args:
        key: the array to read from an ``.npz`` instead of the usual ones.

    Raises:
        InputError: missing, damaged or of another format; infinite coordinates, confidences outside [0, 1], arrays that disagree in
            the number of frames or points.
    """
    kind = suffix(path)
    if kind not in _READERS and kind != ".npz":
        raise InputError(f"{path}: found suffix '{kind}', expected one of .npz {' '.join(_READERS)}; convert the file")
    if kind == ".npz":
        return _read_npz(path, key)
    if key is not None:
        raise InputError(f"{path}: an array '{key}' was asked for, but only .npz files hold named arrays; leave the key out")
    return _READERS[kind](path)


# --- arrays --------------------------------------------------------------------------------------------------------------


def _read_npz(path: PathLike, key: str | None) -> PointSequence:
    wanted = _POINT_KEYS if key is None else (key,)
    arrays = load_npz(path, _WHAT, optional=(*wanted, *_CONFIDENCE_KEYS, *_NAME_KEYS, *_RATE_KEYS))
    found = next((name for name in wanted if name in arrays), None)
    if found is None:
        raise _no_points(path, wanted)
    points, confidence = _split_confidence(f"{path}: '{found}'", arrays[found])
    given = _first(arrays, _CONFIDENCE_KEYS)
    if given is not None and confidence is not None:
        raise InputError(f"{path}: confidences in '{found}' and in '{given}', expected them once; remove one of the two")
    if given is not None:
        confidence = _numbers(f"{path}: '{given}'", arrays[given])
        confidence = confidence[..., 0] if confidence.ndim == 3 and confidence.shape[2] == 1 else confidence
        if confidence.shape != points.shape[:2]:
            raise InputError(
                f"{path}: '{given}' has shape {confidence.shape} and '{found}' {points.shape[:2]} (frames, points), expected the same; "
                "cut both to the same frames"
            )
    strings = next((arrays[name] for name in _NAME_KEYS if name in arrays and arrays[name].dtype.kind in "US"), None)
    names = None if strings is None else tuple(np.char.decode(strings, errors="replace") if strings.dtype.kind == "S" else strings)
    rate = _first(arrays, _RATE_KEYS)
    return _sequence(path, points, confidence, names, None if rate is None else _rate(f"{path}: '{rate}'", arrays[rate]))


def _first(arrays: dict[str, np.ndarray], keys: Iterable[str]) -> str | None:
    return next((key for key in keys if key in arrays), None)


def _no_points(path: PathLike, wanted: tuple[str, ...]) -> InputError:
    with zipfile.ZipFile(path) as archive:
        found = [name.removesuffix(".npy") for name in archive.namelist()]
    pickled = [name for name in wanted if name in found]
    if pickled:
        return InputError(f"{path}: '{pickled[0]}' holds pickled objects, expected numbers; save it as one numeric array")
    if "poses" in found or "pose_body" in found:
        return InputError(f"{path}: holds body poses (AMASS) and no points, expected 3D joints or markers; there is nothing to fit")
    return InputError(f"{path}: lacks {' | '.join(wanted)} (found {', '.join(found) or 'no arrays'}), expected {_WHAT}; name the array")


def _read_npy(path: PathLike) -> PointSequence:
    return _sequence(path, *_split_confidence(str(path), load_npy(path, _WHAT)))


def _split_confidence(where: str, array: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """(F, K, 3) and (F, K) or None, of (F, K, 3), (F, K, 4) or (F, 3K)."""
    array = _numbers(where, array)
    if array.ndim == 2 and array.shape[1] % 3 == 0:
        array = array.reshape(len(array), array.shape[1] // 3, 3)
    if array.ndim != 3 or array.shape[2] not in (3, 4):
        raise InputError(f"{where} has shape {array.shape}, expected (frames, points, 3 or 4) or (frames, 3 * points) in 3D; reshape it")
    return array[..., :3], array[..., 3] if array.shape[2] == 4 else None


def _numbers(where: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise InputError(f"{where} has dtype {array.dtype}, expected real numbers; save it with a numeric dtype")
    return array.astype(np.float64)


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _rate(where: str, value: np.ndarray | float) -> float:
    rate = _numbers(where, np.asarray(value))
    if rate.size != 1 or not np.isfinite(rate).all() or rate.item() <= 0:
        raise InputError(f"{where} is {value}, expected a positive number of frames per second; correct or remove it")
    return float(rate.item())


# --- text ----------------------------------------------------------------------------------------------------------------

_COORDINATE = re.compile(r"(?P<name>.*\S)\s*[ _.:]\s*(?P<axis>[xyzc])", re.IGNORECASE)
_FRAME_COLUMNS = ("", "frame", "frames", "frame#", "index")
_TIME_COLUMNS = ("time", "t", "seconds", "time (s)", "time_s", "time[s]", "time [s]")


def _read_csv(path: PathLike) -> PointSequence:
    lines = read_lines(path, "a table of 3D points")
    lines[0] = lines[0].removeprefix("\u00ef\u00bb\u00bf")  # the byte order mark of UTF-8, read as Latin-1
    while lines and not lines[-1].strip(" "):  # tabs alone are a frame of holes
        lines.pop()
    if not lines:
        raise InputError(f"{path}: holds blank lines only, expected a table of 3D points; export it again")
    delimiter = max(";\t,", key=lines[0].count)
    if delimiter == ";":
        lines = [line.replace(",", ".") for line in lines]  # decimal commas
    rows = [[cell.strip().strip('"').strip() for cell in line.split(delimiter)] for line in lines]
    if all(_is_number(cell) for cell in rows[0]):
        table = _table(path, rows, 1, len(rows[0]))
        if table.shape[1] % 3:
            raise InputError(f"{path}: {table.shape[1]} columns and no header, expected 3 a point; add a header or drop other columns")
        return _sequence(path, table.reshape(len(table), -1, 3))
    columns, time = _csv_columns(path, rows[0])
    table = _table(path, rows[1:], 2, len(rows[0]))
    points = table[:, [[axes[axis] for axis in "xyz"] for axes in columns.values()]]
    confidence = None
    if any("c" in axes for axes in columns.values()):
        confidence = np.stack([table[:, axes["c"]] if "c" in axes else np.ones(len(table)) for axes in columns.values()], axis=1)
    return _sequence(path, points, confidence, tuple(columns), None if time is None else _time_rate(path, table[:, time]))


def _csv_columns(path: PathLike, header: list[str]) -> tuple[dict[str, dict[str, int]], int | None]:
    """Column of each coordinate of each point, and of the time."""
    columns: dict[str, dict[str, int]] = {}
    time, others = None, []
    for index, cell in enumerate(header):
        if match := _COORDINATE.fullmatch(cell):
            axes = columns.setdefault(match["name"], {})
            if match["axis"].lower() in axes:
                raise InputError(f"{path}: column '{cell}' occurs twice, expected each once; rename one")
            axes[match["axis"].lower()] = index
        elif cell.lower() in _TIME_COLUMNS:
            time = index
        elif cell.lower() not in _FRAME_COLUMNS:
            others.append(cell)
    if others or not columns:
        found = f"cannot tell what columns {_some(others)} are" if others else "the header names no point"
        raise InputError(f"{path}: {found}, expected <name>_x, <name>_y, <name>_z, and <name>_c, frame or time; rename or drop others")
    for name, axes in columns.items():
        if lacking := [axis for axis in "xyz" if axis not in axes]:
            raise InputError(f"{path}: point '{name}' has no column {name}_{lacking[0]}, expected {name}_x, {name}_y and {name}_z; add it")
    return columns, time


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True


def _table(path: PathLike, rows: list[list[str]], first_line: int, columns: int) -> np.ndarray:
    """Rows of numbers (rows, columns); blank cells are NaN. ``rows[i]`` is line ``first_line + i`` of the file."""
    for i, row in enumerate(rows):
        if len(row) != columns:
            raise fail(path, first_line + i, f"{len(row)} cells", f"{columns} as in the first row")
    try:
        return np.array([[cell or "nan" for cell in row] for row in rows], dtype=np.float64).reshape(len(rows), columns)
    except ValueError:
        i, cell = next((i, cell) for i, row in enumerate(rows) for cell in row if not _is_number(cell))
        raise fail(path, first_line + i, cell, "a number or nothing") from None


def _time_rate(path: PathLike, time: np.ndarray) -> float | None:
    """Frames per second of a column of seconds; None for fewer than two frames. A step over left-out rows counts as several frames."""
    if len(time) < 2:
        return None
    steps = np.diff(time)
    if not (steps > 0).all():
        row = int(np.argmin(steps > 0))
        raise InputError(
            f"{path}: time goes from {time[row]:g} to {time[row + 1]:g}, expected it to grow; sort the rows or drop the column"
        )
    step = float(np.median(steps))
    if step >= 1.0:
        raise InputError(f"{path}: time grows by {step:g} a frame, expected seconds; divide the column (milliseconds: by 1000) or drop it")
    count = np.rint(steps / step).clip(1).sum()  # over the whole file, since times are written with few digits
    return round(float(count / (time[-1] - time[0])), 3)


def _read_trc(path: PathLike) -> PointSequence:
    lines = read_lines(path, "a TRC marker file")
    if len(lines) < 5 or "pathfiletype" not in lines[0].lower():
        raise fail(path, 1, lines[0], "a TRC header of five lines that begins with PathFileType")
    header = {name.strip().lower(): value.strip() for name, value in zip(lines[1].split("\t"), lines[2].split("\t"), strict=False)}
    frames, markers = (_header_count(path, header, name) for name in ("NumFrames", "NumMarkers"))
    names = tuple(cell.strip() for cell in lines[3].split("\t")[2:] if cell.strip())
    if len(names) != markers:
        raise fail(path, 4, f"{len(names)} marker names", f"{markers}, as NumMarkers says")
    rows = [(number, line.split("\t")) for number, line in enumerate(lines[5:], start=6) if line.strip()]
    if len(rows) != frames:
        raise fail(path, len(lines), f"{len(rows)} frames", f"{frames}, as NumFrames says")
    table = np.concatenate([np.empty((0, 2 + 3 * markers)), *(_trc_row(path, number, row, markers) for number, row in rows)])
    rate = header.get("datarate", "")
    if not _is_number(rate):
        raise fail(path, 3, rate, "DataRate in frames per second")
    points = table[:, 2:].reshape(frames, markers, 3)
    return _sequence(path, points, None, names, _rate(f"{path}: DataRate", float(rate or "nan")), header.get("units") or None, True)


def _trc_row(path: PathLike, line: int, cells: list[str], markers: int) -> np.ndarray:
    """(1, 2 + 3K) numbers of one frame. A line may end with the last marker seen, or in separators."""
    cells = [cell.strip() for cell in cells]
    width = 2 + 3 * markers
    while len(cells) > width and not cells[-1]:
        cells.pop()
    if len(cells) < width and len(cells) % 3 == 2:
        cells += [""] * (width - len(cells))
    return _table(path, [cells], line, width)


def _header_count(path: PathLike, header: dict[str, str], name: str) -> int:
    value = header.get(name.lower(), "")
    if not value.isdecimal():
        raise fail(path, 3, value, f"{name} as a whole number")
    return int(value)


# --- c3d -----------------------------------------------------------------------------------------------------------------

_NOT_POINTS = ("ANGLES", "FORCES", "MOMENTS", "POWERS", "SCALARS")
"""Parameters of the POINT group that list labels of points which are no positions."""


def _read_c3d(path: PathLike) -> PointSequence:
    path = existing_file(path, "a C3D file")
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # the library warns of what is checked below
            # in memory, so that a length from a damaged header reads no more than there is
            reader = c3d.Reader(io.BytesIO(path.read_bytes()))
            frames, count, fps = _c3d_frames(reader), int(reader.point_used), round(float(reader.point_rate), 3)
            if count == 0:
                raise ValueError("no points")
            samples = [points[:, :4] for _, points, _ in islice(reader.read_frames(), frames)]
            labels, unit = _c3d_strings(reader, "LABELS"), _c3d_strings(reader, "UNITS")
            skipped = {label for kind in _NOT_POINTS for label in _c3d_strings(reader, kind)}
    except Exception as error:  # the library raises a different type for each way a file can be broken
        raise InputError(
            f"{path}: not a readable C3D file ({_reason(error)}), expected 3D markers; it may be truncated, fetch it again"
        ) from error
    if len(samples) != frames:
        raise InputError(f"{path}: ends after {len(samples)} frames, expected {frames} as its header says; it is truncated, fetch it again")
    data = np.array(samples, dtype=np.float64).reshape(frames, count, 4)
    points = np.where(data[..., 3:] < 0, np.nan, data[..., :3])
    names = tuple([*labels, *(f"unnamed{i}" for i in range(len(labels), count))][:count]) if labels else None
    sequence = _sequence(path, points, None, names, fps if np.isfinite(fps) and fps > 0 else None, unit[0] if unit else None, True)
    return sequence.select([i for i, label in enumerate(names) if label not in skipped]) if names and skipped else sequence


def _c3d_frames(reader: c3d.Reader) -> int:
    """Number of frames; the library miscounts the first frame when its number needs a second word."""
    start = reader.get("TRIAL:ACTUAL_START_FIELD")
    first = reader.header.first_frame if start is None else int(start.uint16_array[0]) + 65536 * int(start.uint16_array[1])
    return max(int(reader.last_frame) - first + 1, 0)


def _c3d_strings(reader: c3d.Reader, kind: str) -> list[str]:
    """Strings of a parameter of the POINT group and of its continuations (``LABELS2``: a parameter holds at most 255)."""
    texts: list[str] = []
    for number in ("", *range(2, 100)):
        parameter = reader.get(f"POINT:{kind}{number}")
        if parameter is None:
            break
        data = parameter.bytes
        width = max(parameter.dimensions[0] if len(parameter.dimensions) > 1 else len(data), 1)
        texts += [data[i : i + width].decode("utf-8", errors="replace").strip(" \0") for i in range(0, len(data), width)]
    return texts


_READERS: dict[str, Callable[[PathLike], PointSequence]] = {".npy": _read_npy, ".csv": _read_csv, ".trc": _read_trc, ".c3d": _read_c3d}


# --- what all formats share ----------------------------------------------------------------------------------------------


def _sequence(
    path: PathLike,
    points: np.ndarray,
    confidence: np.ndarray | None = None,
    names: tuple[str, ...] | None = None,
    fps: float | None = None,
    unit: str | None = None,
    zero_is_missing: bool = False,
) -> PointSequence:
    """Check the values and make the holes the same everywhere: NaN with confidence 0.

    Args:
        zero_is_missing: whether (0, 0, 0) is always a hole; otherwise as the module says.
    """
    count = points.shape[1]
    if count == 0:
        raise InputError(f"{path}: holds no points, expected {_WHAT}; check what was exported")
    if names is not None and len(names) != count:
        raise InputError(f"{path}: {len(names)} names for {count} points, expected one each; correct or remove the names")
    if np.isinf(points).any():
        frame, point, _ = np.argwhere(np.isinf(points))[0]
        raise InputError(f"{path}: infinite coordinates (first at frame {frame}, point {point}), expected numbers; write nan for holes")
    zero = (points == 0).all(axis=-1)
    if not zero_is_missing:
        zero &= False if confidence is not None else ((points != 0) & np.isfinite(points)).any(axis=(0, 2))
    certain = np.ones(points.shape[:2]) if confidence is None else np.nan_to_num(_checked_confidence(path, confidence), nan=0.0)
    missing = ~np.isfinite(points).all(axis=-1) | zero | (certain == 0)
    return PointSequence(
        points=np.where(missing[..., None], np.nan, points),
        confidence=np.where(missing, 0.0, certain),
        names=None if names is None else tuple(str(name).rpartition(":")[2].strip() for name in names),
        fps=fps,
        unit=unit,
        source=str(path),
    )


def _checked_confidence(path: PathLike, confidence: np.ndarray) -> np.ndarray:
    if (confidence < 0).any():
        raise InputError(f"{path}: confidences down to {np.nanmin(confidence):g}, expected 0 (missing) to 1; clip them")
    if (confidence > 1).any():
        raise InputError(f"{path}: confidences up to {np.nanmax(confidence):g}, expected 0 to 1; divide them (percent: by 100)")
    return confidence


def plain_name(name: str) -> str:
    """A name as it is compared: ``Subject:L_FHD`` → ``lfhd``."""
    return re.sub(r"[\s_]", "", name.rpartition(":")[2]).lower()


def columns_by_name(sequence: PointSequence, wanted: Sequence[str]) -> list[int | None]:
    """Column of each wanted name, None where the file has no such point; names are compared by :func:`plain_name`.

    Raises:
        InputError: the file has two points of a wanted name.
    """
    found = [plain_name(name) for name in sequence.names or ()]
    counts = Counter(found)
    for name in wanted:
        if counts[plain_name(name)] > 1:
            raise InputError(f"{sequence.source}: {counts[plain_name(name)]} points are named '{name}', expected one; keep one subject")
    columns = {name: column for column, name in enumerate(found)}
    return [columns.get(plain_name(name)) for name in wanted]


def arrange(sequence: PointSequence, layout: Layout) -> PointSequence:
    """The joints of a layout, in its order, if the file names them all; otherwise the sequence as it is.

    Raises:
        InputError: the file has two points of the same name.
    """
    columns = columns_by_name(sequence, layout.joints)
    found = [column for column in columns if column is not None]
    return sequence.select(found) if len(found) == len(columns) else sequence


def check_sequence(sequence: PointSequence, layout: Layout | None) -> tuple[str, ...]:
    """Sentences about what a user should know before the sequence is fitted; empty if all is well.

    Args:
        layout: what the K points are; None for markers.

    Raises:
        InputError: no frames, or not as many points as the layout has.
    """
    frames, count = sequence.confidence.shape
    if frames == 0:
        raise InputError(f"{sequence.source}: found 0 frames, expected at least 1; check what was exported")
    if layout is not None and count != len(layout.joints):
        raise _wrong_count(sequence.source, count, layout)
    notes = []
    if frames < 3:
        notes.append(f"{frames} frame{'s' * (frames > 1)} only: nothing is known of how the points move.")
    seen = sequence.confidence > 0
    empty = np.flatnonzero(~seen.any(axis=1))
    if len(empty):
        notes.append(f"{len(empty)} of {frames} frames hold no point ({_ranges(empty)}): they follow from their neighbours.")
    labels = sequence.names or (layout.joints if layout is not None else tuple(str(i) for i in range(count)))
    never = np.flatnonzero(~seen.any(axis=0))
    if len(never):
        notes.append(f"points never seen: {_some([labels[i] for i in never])}.")
    holes = float(np.mean(~seen[seen.any(axis=1)][:, seen.any(axis=0)])) if seen.any() else 0.0
    if holes > 0:
        notes.append(f"{100 * holes:.2g} % of the remaining points are missing.")
    zero = np.flatnonzero(seen.any(axis=0) & ~(np.nan_to_num(sequence.points) != 0).any(axis=(0, 2)))
    if len(zero) > 1:
        notes.append(f"points always exactly at (0, 0, 0): {_some([labels[i] for i in zero])}; if they were not seen, write nan there.")
    if layout is not None and list(map(plain_name, labels)) != list(map(plain_name, layout.joints)):
        notes.append(f"the names in the file are not those of {layout.name}: the points are taken in the order of the file.")
    return tuple(notes)


def _wrong_count(source: str, count: int, layout: Layout) -> InputError:
    fitting = [name for name, other in LAYOUTS.items() if len(other.joints) == count]
    mend = f"try {' or '.join(fitting)}" if fitting else "choose the layout of the file"
    if count == 1:
        mend = "a single frame needs shape (1, points, 3)"
    return InputError(f"{source}: found {count} points a frame, expected the {len(layout.joints)} of layout {layout.name}; {mend}")


def _some(items: Sequence[str]) -> str:
    return ", ".join(f"'{item}'" for item in items[:8]) + (f" and {len(items) - 8} more" if len(items) > 8 else "")


def _ranges(numbers: np.ndarray) -> str:
    """``3-5, 9`` for 3, 4, 5, 9; the first few."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    shown = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs[:5]]
    return ", ".join(shown) + (", ..." if len(runs) > 5 else "")
