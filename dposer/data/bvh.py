"""Biovision hierarchies (BVH): joint tree, rest offsets and one line of channel values per frame.

``R_j`` is the product of the elementary rotations in the order of the channels (``Zrotation Yrotation Xrotation`` means
``Rz Ry Rx``). Position channels replace the joint's offset; any joint may have them.
"""

from dataclasses import dataclass, field

import numpy as np

from dposer.data.motion import Motion, euler_matrices
from dposer.data.text import fail, number_table, numbers, read_lines
from dposer.errors import InputError
from dposer.files import PathLike, save_bytes

_CHANNELS = tuple(f"{axis}{kind}" for kind in ("position", "rotation") for axis in "XYZ")


@dataclass
class _Joint:
    name: str
    parent: int
    offset: np.ndarray
    channels: tuple[str, ...] = ()
    tip: np.ndarray = field(default_factory=lambda: np.zeros(3))


def read_bvh(path: PathLike, scale: float = 0.01) -> Motion:
    """Read a BVH file, plain or ``.gz``.

    Args:
        scale: metres per file unit (default: centimetres; ``0.0254 / 0.45`` for CMU conversions in ASF units).

    Raises:
        InputError: naming file, line, what was found and what was expected.
    """
    lines = read_lines(path, "a BVH motion")
    joints, line = _read_hierarchy(path, lines)
    frames, seconds, line = _read_motion_header(path, lines, line)
    rows = lines[line:]
    while rows and not rows[-1].strip():
        rows.pop()
    if len(rows) != frames:
        raise fail(path, len(lines), f"{len(rows)} lines of numbers", f"{frames} frames, as the header says")
    values = number_table(rows, path, line + 1, sum(len(joint.channels) for joint in joints))
    rotations, translations = _unpack(joints, values)
    return Motion(
        names=tuple(joint.name for joint in joints),
        parents=tuple(joint.parent for joint in joints),
        offsets=np.array([joint.offset for joint in joints]) * scale,
        rotations=rotations,
        translations=translations * scale,
        fps=1.0 / seconds,
        tips=np.array([joint.tip for joint in joints]) * scale,
    )


def write_bvh(path: PathLike, motion: Motion, scale: float = 0.01) -> None:
    """Write a motion with ``Zrotation Yrotation Xrotation`` channels; the root, and joints that slide, get positions too."""
    slides = ~np.isclose(motion.translations, motion.offsets, atol=1e-9).all(axis=(0, 2))
    slides[0] = True
    text = ["HIERARCHY"]
    order: list[int] = []
    _write_joint(motion, 0, 0, scale, slides, text, order)
    if len(order) != len(motion.names):
        raise InputError(f"{path}: the motion has {motion.parents.count(-1)} roots, expected one; split it before writing BVH")
    text += ["MOTION", f"Frames: {len(motion)}", f"Frame Time: {1 / motion.fps:.9g}"]
    columns = []
    for j in order:
        if slides[j]:
            columns.append(motion.translations[:, j] / scale)
        columns.append(_zyx_degrees(motion.rotations[:, j]))
    text += [" ".join(f"{value:.6f}" for value in row) for row in np.concatenate(columns, axis=1)]
    save_bytes(path, ("\n".join(text) + "\n").encode())


def _zyx_degrees(matrices: np.ndarray) -> np.ndarray:
    """Angles of ``R = Rz Ry Rx`` (F, 3), without the warning that a library gives in gimbal lock."""
    m = matrices
    middle = -np.arcsin(np.clip(m[:, 2, 0], -1, 1))
    locked = np.hypot(m[:, 2, 1], m[:, 2, 2]) < 1e-9
    first = np.where(locked, np.arctan2(-m[:, 0, 1], m[:, 1, 1]), np.arctan2(m[:, 1, 0], m[:, 0, 0]))
    last = np.where(locked, 0.0, np.arctan2(m[:, 2, 1], m[:, 2, 2]))
    return np.degrees(np.stack([first, middle, last], axis=-1))


def _write_joint(motion: Motion, j: int, depth: int, scale: float, slides: np.ndarray, text: list[str], order: list[int]) -> None:
    indent = "  " * depth
    order.append(j)
    text += [f"{indent}{'JOINT' if depth else 'ROOT'} {motion.names[j]}", f"{indent}{{", f"{indent}  {_offset(motion.offsets[j] / scale)}"]
    positions = "6 Xposition Yposition Zposition" if slides[j] else "3"
    text.append(f"{indent}  CHANNELS {positions} Zrotation Yrotation Xrotation")
    children = [k for k, parent in enumerate(motion.parents) if parent == j]
    for child in children:
        _write_joint(motion, child, depth + 1, scale, slides, text, order)
    if not children:
        text += [f"{indent}  End Site", f"{indent}  {{", f"{indent}    {_offset(motion.tips[j] / scale)}", f"{indent}  }}"]
    text.append(f"{indent}}}")


def _offset(vector: np.ndarray) -> str:
    return "OFFSET " + " ".join(f"{value:.6f}" for value in vector)


def _read_hierarchy(path: PathLike, lines: list[str]) -> tuple[list[_Joint], int]:
    """The joints in file order and the index of the line after ``MOTION``."""
    joints: list[_Joint] = []
    open_blocks: list[int | None] = []  # a joint's index, or None for an End Site
    current: int | None = None
    announced = False  # a name was read, its brace was not
    started = False
    for i, text in enumerate(lines):
        words = text.split()
        if not words:
            continue
        keyword = words[0]
        if not started:
            if keyword != "HIERARCHY":
                raise fail(path, i + 1, text.strip(), "HIERARCHY on the first line of a BVH file")
            started = True
        elif announced:
            if keyword != "{":
                raise fail(path, i + 1, text.strip(), "'{' after a joint's name")
            announced = False
            open_blocks.append(current)
        elif keyword == "}" and open_blocks:
            open_blocks.pop()
            current = open_blocks[-1] if open_blocks else None
        elif keyword in ("ROOT", "JOINT") and len(words) >= 2 and (keyword == "ROOT") == (not joints) and bool(open_blocks) == bool(joints):
            if open_blocks and current is None:
                raise fail(path, i + 1, text.strip(), "no joint inside an End Site")
            joints.append(_Joint(" ".join(words[1:]), -1 if current is None else current, np.zeros(3)))
            current, announced = len(joints) - 1, True
        elif keyword == "End" and current is not None:
            current, announced = None, True
        elif keyword == "OFFSET" and open_blocks:
            offset = numbers(words[1:], path, i + 1, 3, "offset")
            if current is None:
                joint = next(block for block in reversed(open_blocks) if block is not None)
                joints[joint].tip = offset
            else:
                joints[current].offset = offset
        elif keyword == "CHANNELS" and current is not None and open_blocks:
            joints[current].channels = _read_channels(path, i + 1, words)
        elif keyword == "MOTION" and joints and not open_blocks:
            return joints, i + 1
        else:
            raise fail(path, i + 1, text.strip(), "OFFSET, CHANNELS, JOINT, End Site, a brace, or MOTION after the last brace")
    raise InputError(f"{path}: ends after {len(lines)} lines inside the hierarchy, expected MOTION; the file is truncated, fetch it again")


def _read_channels(path: PathLike, line: int, words: list[str]) -> tuple[str, ...]:
    channels = tuple(words[2:])
    known = set(channels) <= set(_CHANNELS) and len(set(channels)) == len(channels)
    if len(words) < 2 or words[1] != str(len(channels)) or not known:
        raise fail(path, line, " ".join(words), f"CHANNELS, their number, and that many different ones of {', '.join(_CHANNELS)}")
    return channels


def _read_motion_header(path: PathLike, lines: list[str], line: int) -> tuple[int, float, int]:
    values: list[float] = []
    for prefix in ("Frames:", "Frame Time:"):
        while line < len(lines) and not lines[line].strip():
            line += 1
        text = lines[line].strip() if line < len(lines) else ""
        if not text.startswith(prefix):
            raise fail(path, line + 1, text, f"'{prefix}' after MOTION")
        values.append(float(numbers(text[len(prefix) :].split(), path, line + 1, 1, prefix)[0]))
        line += 1
        if values[-1] <= 0:
            raise fail(path, line, text, f"a positive number after '{prefix}'")
    if values[0] != int(values[0]):
        raise fail(path, line - 1, str(values[0]), "a whole number of frames")
    return int(values[0]), values[1], line


def _unpack(joints: list[_Joint], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Channel values (F, C) to local rotations (F, J, 3, 3) and translations (F, J, 3) in file units."""
    frames = len(values)
    rotations = np.empty((frames, len(joints), 3, 3))
    translations = np.empty((frames, len(joints), 3))
    column = 0
    for j, joint in enumerate(joints):
        block = values[:, column : column + len(joint.channels)]
        column += len(joint.channels)
        turns = [i for i, channel in enumerate(joint.channels) if channel.endswith("rotation")]
        rotations[:, j] = euler_matrices("".join(joint.channels[i][0] for i in turns), block[:, turns])
        translations[:, j] = joint.offset
        for i, channel in enumerate(joint.channels):
            if channel.endswith("position"):
                translations[:, j, "XYZ".index(channel[0])] = block[:, i]
    return rotations, translations
