"""Acclaim skeletons (ASF) and motions (AMC) with the conventions of the CMU motion-capture database.

Per bone: local rotation ``C M C^-1`` with the bone's axis matrix C and the motion rotation M; angles in degrees, the first
degree of freedom applied first (``rx ry rz`` means ``Rz Ry Rx``). Lengths in metres are ``value / length_unit * 0.0254``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dposer.data.motion import Motion, euler_matrices, root_path
from dposer.data.text import fail, number_table, numbers, read_lines
from dposer.errors import InputError
from dposer.files import PathLike

_INCH = 0.0254
_CMU_RATE = 120.0
_TWO_DOF = ("lfoot", "rfoot", "lhand", "rhand")
_DOF = ("rx", "ry", "rz", "tx", "ty", "tz")


@dataclass(frozen=True)
class AsfBone:
    """One bone as written in an ASF file (file units, degrees)."""

    direction: np.ndarray
    length: float
    axis: np.ndarray
    """(3, 3) axis matrix C."""
    dof: tuple[str, ...]


@dataclass(frozen=True)
class AsfSkeleton:
    """An ASF file: ``names[0]`` is ``root``, the other joints are its bones, parents before children."""

    names: tuple[str, ...]
    parents: tuple[int, ...]
    bones: tuple[AsfBone, ...]
    metres: float
    """Metres per file unit."""

    @property
    def offsets(self) -> np.ndarray:
        """(J, 3) in metres: a bone begins where its parent ends."""
        return np.array([np.zeros(3) if p < 0 else self._end(p) for p in self.parents])

    @property
    def tips(self) -> np.ndarray:
        """(J, 3) in metres: ends of the bones that carry no other bone."""
        return np.array([np.zeros(3) if j in self.parents else self._end(j) for j in range(len(self.names))])

    def _end(self, joint: int) -> np.ndarray:
        bone = self.bones[joint]
        return bone.direction * bone.length * self.metres


def read_asf(path: PathLike) -> AsfSkeleton:
    """Read an Acclaim skeleton, plain or ``.gz``.

    Raises:
        InputError: naming file and line if something is missing, malformed or not supported.
    """
    lines = _Lines(path, read_lines(path, "an Acclaim skeleton (.asf)"))
    bones: dict[str, AsfBone] = {}
    parents: dict[str, str] = {}
    unit = 1.0
    for number, words in lines:
        keyword = words[0].lower()
        if keyword == "length" and not bones:
            unit = float(numbers(words[1:], path, number, 1, "unit of length")[0])
            if unit <= 0:
                raise fail(path, number, " ".join(words), "a positive unit of length")
        elif keyword == "angle" and words[1:] != ["deg"]:
            raise fail(path, number, " ".join(words), "'angle deg' (radians are not supported)")
        elif keyword == ":root":
            bones["root"] = _read_root(lines)
        elif keyword == ":bonedata":
            bones.update(_read_bones(lines))
        elif keyword == ":hierarchy":
            parents = _read_hierarchy(lines, bones)
    if "root" not in bones or not parents:
        raise InputError(f"{path}: found no {':root' if 'root' not in bones else ':hierarchy'} section, expected one; fetch the file again")
    order = _parents_first(path, parents)
    names = ("root", *order)
    indices = (-1, *(names.index(parents[name]) for name in order))
    return AsfSkeleton(names, indices, tuple(bones[name] for name in names), _INCH / unit)


def read_amc(path: PathLike, asf: AsfSkeleton | PathLike, fps: float | None = None, repair: bool = True) -> Motion:
    """Read an Acclaim motion, plain or ``.gz``.

    Args:
        asf: the skeleton it was recorded with, or its path.
        fps: frames per second; AMC files do not say. Default: what a ``# ... -> 30 Hz`` comment says, else CMU's 120.
        repair: undo the jumps of the two-dof feet and hands to the other Euler branch, which CMU files contain:
            wrap both angles to (-180, 180] and add 180 degrees to both where both exceed 90 in size.

    Raises:
        InputError: naming file, line, what was found and what was expected.
    """
    skeleton = asf if isinstance(asf, AsfSkeleton) else read_asf(asf)
    lines = read_lines(path, "an Acclaim motion (.amc)")
    start = next((i for i, text in enumerate(lines) if text.strip().isdigit()), None)
    if start is None:
        raise InputError(f"{path}: found no frame number in {len(lines)} lines, expected an Acclaim motion (.amc); check the path")
    header = [text.strip().upper() for text in lines[:start]]
    if ":RADIANS" in header:
        raise fail(path, header.index(":RADIANS") + 1, ":RADIANS", "':DEGREES' (radians are not supported)")
    channels = _read_frames(path, skeleton, lines, start)
    rotations = np.tile(np.eye(3), (len(channels["root"]), len(skeleton.names), 1, 1))
    for j, (name, bone) in enumerate(zip(skeleton.names, skeleton.bones, strict=True)):
        if name in channels:
            rotations[:, j] = _local_rotations(bone, channels[name], repair and name in _TWO_DOF)
    path_of_root = _root_positions(skeleton.bones[0], channels["root"]) * skeleton.metres
    rate = fps or _rate_from_comment(lines[:start]) or _CMU_RATE
    translations = root_path(skeleton.offsets, path_of_root)
    return Motion(skeleton.names, skeleton.parents, skeleton.offsets, rotations, translations, rate, skeleton.tips)


def _local_rotations(bone: AsfBone, values: np.ndarray, repair: bool) -> np.ndarray:
    """``C M C^-1`` (F, 3, 3) from channel values (F, dof)."""
    turns = [i for i, dof in enumerate(bone.dof) if dof[0] == "r"]
    angles = values[:, turns]
    if repair and len(turns) == 2:
        angles = one_euler_branch(angles)
    axes = "".join(bone.dof[i][1] for i in turns).upper()
    return bone.axis @ euler_matrices(axes[::-1], angles[:, ::-1]) @ bone.axis.T


def _root_positions(root: AsfBone, values: np.ndarray) -> np.ndarray:
    positions = np.zeros((len(values), 3))
    for i, dof in enumerate(root.dof):
        if dof[0] == "t":
            positions[:, "xyz".index(dof[1])] = values[:, i]
    return positions


def one_euler_branch(degrees: np.ndarray) -> np.ndarray:
    """Pairs of angles (..., 2) wrapped to (-180, 180], moved by 180 degrees where both are larger than 90 in size."""
    degrees = _wrap(degrees)
    flipped = (np.abs(degrees) > 90).all(axis=-1, keepdims=True)
    return np.where(flipped, _wrap(degrees + 180), degrees)


def _wrap(degrees: np.ndarray) -> np.ndarray:
    return 180 - (180 - degrees) % 360


class _Lines:
    """Numbered, split lines without blank ones and comments; an iterator that sections consume one after the other."""

    def __init__(self, path: PathLike, lines: list[str]) -> None:
        self.path = Path(path)
        split = ((i, text.split("#")[0].split()) for i, text in enumerate(lines, start=1))
        self._rows = [(i, words) for i, words in split if words]
        self._at = 0

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        while self._at < len(self._rows):
            self._at += 1
            yield self._rows[self._at - 1]

    def section(self) -> Iterator[tuple[int, list[str]]]:
        """The rest of the current section: up to the next ``:keyword``."""
        while self._at < len(self._rows) and not self._rows[self._at][1][0].startswith(":"):
            self._at += 1
            yield self._rows[self._at - 1]


def _read_root(lines: _Lines) -> AsfBone:
    order: tuple[str, ...] = ()
    axes, orientation = "XYZ", np.zeros(3)
    for number, words in lines.section():
        if words[0] == "order":
            order = _dof(words[1:], lines.path, number)
        elif words[0] == "axis" and len(words) == 2:
            axes = _axis_order(words[1], lines.path, number)
        elif words[0] == "orientation":
            orientation = numbers(words[1:], lines.path, number, 3, "root orientation")
    return AsfBone(np.zeros(3), 0.0, euler_matrices(axes[::-1], orientation[::-1]), order)


def _read_bones(lines: _Lines) -> dict[str, AsfBone]:
    bones: dict[str, AsfBone] = {}
    entry: dict[str, tuple[int, list[str]]] = {}
    for number, words in lines.section():
        if words[0] == "begin":
            entry = {}
        elif words[0] == "end":
            name, bone = _bone(entry, lines.path, number)
            bones[name] = bone
        else:
            entry[words[0]] = (number, words[1:])
    return bones


def _bone(entry: dict[str, tuple[int, list[str]]], path: Path, end: int) -> tuple[str, AsfBone]:
    for key in ("name", "direction", "length", "axis"):
        if key not in entry or not entry[key][1]:
            raise fail(path, end, "end", f"a '{key}' in every bone before its end")
    number, direction = entry["direction"]
    vector = numbers(direction, path, number, 3, "direction")
    number, axis = entry["axis"]
    order = _axis_order(axis[-1], path, number)
    angles = numbers(axis[:-1], path, number, 3, "axis angles")
    length = float(numbers(entry["length"][1], path, entry["length"][0], 1, "length")[0])
    dof = _dof(entry["dof"][1], path, entry["dof"][0]) if "dof" in entry else ()
    return entry["name"][1][0], AsfBone(vector, length, euler_matrices(order[::-1], angles[::-1]), dof)


def _axis_order(word: str, path: Path, number: int) -> str:
    if sorted(word.upper()) != ["X", "Y", "Z"]:
        raise fail(path, number, word, "an axis order such as XYZ")
    return word.upper()


def _dof(words: list[str], path: Path, number: int) -> tuple[str, ...]:
    dof = tuple(word.lower() for word in words)
    if not set(dof) <= set(_DOF) or len(set(dof)) != len(dof):
        raise fail(path, number, " ".join(words), "degrees of freedom out of rx ry rz tx ty tz")
    return dof


def _read_hierarchy(lines: _Lines, bones: dict[str, AsfBone]) -> dict[str, str]:
    parents: dict[str, str] = {}
    for number, words in lines.section():
        if words[0] in ("begin", "end"):
            continue
        for name in words:
            if name not in bones:
                raise fail(lines.path, number, name, "a bone that :bonedata describes")
        for child in words[1:]:
            if child in parents or child == "root":
                raise fail(lines.path, number, child, "each bone once as a child")
            parents[child] = words[0]
    return parents


def _parents_first(path: PathLike, parents: dict[str, str]) -> list[str]:
    placed: list[str] = []
    waiting = list(parents)
    while waiting:
        ready = [name for name in waiting if parents[name] == "root" or parents[name] in placed]
        if not ready:
            raise InputError(
                f"{path}: found bones that do not hang on the root ({', '.join(waiting[:5])}), expected one tree; repair :hierarchy"
            )
        placed += ready
        waiting = [name for name in waiting if name not in placed]
    return placed


def _read_frames(path: PathLike, skeleton: AsfSkeleton, lines: list[str], start: int) -> dict[str, np.ndarray]:
    """Channel values (F, dof) of every bone that moves. All frames must list the same bones in the same order."""
    end = max(i for i, text in enumerate(lines) if text.strip()) + 1
    words = [[*text.split(None, 1), "", ""] for text in lines[start:end]]
    heads, rests = [w[0] for w in words], [w[1] for w in words]
    block = next((i for i, head in enumerate(heads) if i and head.isdigit()), len(heads))
    dof = dict(zip(skeleton.names, (bone.dof for bone in skeleton.bones), strict=True))
    names = _bones_of_a_frame(path, heads[1:block], start + 2, dof)
    for i, head in enumerate(heads):
        slot = i % block
        if not (head == names[slot - 1] if slot else head.isdigit()):
            raise fail(
                path, start + i + 1, lines[start + i].strip(), f"{names[slot - 1] if slot else 'the number'} of frame {i // block + 1}"
            )
    if len(heads) % block:
        raise fail(path, end, lines[end - 1].strip(), f"{names[len(heads) % block - 1]} after it, in frame {len(heads) // block + 1}")
    return {name: number_table(rests[i::block], path, start + i + 1, len(dof[name]), block) for i, name in enumerate(names, start=1)}


def _bones_of_a_frame(path: PathLike, names: list[str], first_line: int, dof: dict[str, tuple[str, ...]]) -> list[str]:
    for i, name in enumerate(names):
        if name not in dof or name in names[:i]:
            raise fail(path, first_line + i, name, "a bone of the skeleton, once a frame (is it the right .asf?)")
    missing = [name for name, own in dof.items() if own and name not in names]
    if missing:
        raise fail(path, first_line + len(names) - 1, (names or ["nothing"])[-1], f"{', '.join(missing[:5])} in the frame as well")
    return names


def _rate_from_comment(header: list[str]) -> float | None:
    for text in header:
        found = re.search(r"->\s*([0-9.]+)\s*Hz", text)
        if found and text.startswith("#"):
            return float(found.group(1)) or None
    return None
