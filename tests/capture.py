"""A tiny motion-capture corpus of our own making: CMU's bone names on a made-up skeleton."""

from pathlib import Path

import numpy as np

from dposer.body.skeleton import SMPLX_JOINTS

# Left side and middle of the open body's rest joints, millimetres.
_REST = {
    "pelvis": (0, -350, 10), "hip": (61, -447, -14), "spine1": (0, -242, -18), "knee": (115, -812, -30), "spine2": (0, -106, -22),
    "ankle": (86, -1225, -56), "spine3": (0, -56, 5), "foot": (117, -1287, 67), "neck": (0, 110, -26), "collar": (48, 31, -6),
    "head": (0, 272, -3), "shoulder": (155, 89, -18), "elbow": (416, 33, -57), "wrist": (665, 44, -64),
}  # fmt: skip

# bone: parent, direction, length, axis angles, dof (left side and middle; the right side is the mirror image)
_BONES = {
    "lfemur": ("root", (0.34202, -0.939693, 0), 7.0, (0, 0, 20), "rx ry rz"),
    "ltibia": ("lfemur", (0.34202, -0.939693, 0), 7.5, (0, 0, 20), "rx"),
    "lfoot": ("ltibia", (0.07, -0.18, 0.98), 2.4, (-90, 0, 20), "rx rz"),
    "lowerback": ("root", (0, 1, -0.09), 2.0, (0, 0, 0), "rx ry rz"),
    "upperback": ("lowerback", (0, 1, 0), 2.0, (0, 0, 0), "rx ry rz"),
    "thorax": ("upperback", (0, 1, 0), 2.0, (0, 0, 0), "rx ry rz"),
    "head": ("thorax", (0, 1, 0), 3.0, (0, 0, 0), "rx ry rz"),
    "lclavicle": ("thorax", (0.9, 0.4, 0), 3.0, (0, 0, 0), ""),
    "lhumerus": ("lclavicle", (1, 0, 0), 5.0, (180, 30, 90), "rx ry rz"),
    "lradius": ("lhumerus", (1, 0, 0), 3.5, (180, 30, 90), "rx"),
    "lwrist": ("lradius", (1, 0, 0), 1.7, (180, -90, 0), "ry"),
    "lhand": ("lwrist", (1, 0, 0), 0.7, (180, -90, 0), "rx rz"),
}

MM = 0.0254 / 0.45 * 1000
"""Millimetres per unit of the fixture skeleton, as in CMU's files."""


def _both_sides() -> dict[str, tuple[str, tuple[float, ...], float, tuple[float, ...], str]]:
    bones = {}
    for name, (parent, direction, length, axis, dof) in _BONES.items():
        bones[name] = (parent, direction, length, axis, dof)
        if name.startswith("l") and name != "lowerback":
            mirrored = "r" + parent[1:] if parent in _BONES and parent.startswith("l") and parent != "lowerback" else parent
            x, y, z = direction
            bones["r" + name[1:]] = (mirrored, (-x, y, z), length, (axis[0], -axis[1], -axis[2]), dof)
    return bones


BONES = _both_sides()


def rest_joints() -> np.ndarray:
    """(22, 3) rest joints of an SMPL-X-like body."""
    joints = np.array([_REST[name.split("_")[-1]] for name in SMPLX_JOINTS[:22]], dtype=float) / 1000
    joints[[name.startswith("right_") for name in SMPLX_JOINTS[:22]], 0] *= -1
    return joints


def asf_text() -> str:
    """The skeleton as an ASF file."""
    entries, children = [], {}
    for i, (name, (parent, direction, length, axis, dof)) in enumerate(BONES.items(), start=1):
        children.setdefault(parent, []).append(name)
        moves = f"    dof {dof}\n    limits " + "\n           ".join("(-180 180)" for _ in dof.split()) + "\n" if dof else ""
        entries.append(
            f"  begin\n     id {i}\n     name {name}\n     direction {' '.join(map(str, direction))}\n     length {length}\n"
            f"     axis {' '.join(map(str, axis))}  XYZ\n{moves}  end\n"
        )
    hierarchy = "".join(f"    {parent} {' '.join(names)}\n" for parent, names in children.items())
    return (
        "# a comment\n:version 1.10\n:name VICON\n:units\n  mass 1.0\n  length 0.45\n  angle deg\n:documentation\n  none\n"
        ":root\n   order TX TY TZ RX RY RZ\n   axis XYZ\n   position 0 0 0\n   orientation 0 0 0\n:bonedata\n"
        + "".join(entries)
        + ":hierarchy\n  begin\n"
        + hierarchy
        + "  end\n"
    )


def amc_text(frames: int, seed: int = 0, size: float = 25.0, angles: dict[str, str] | None = None, header: str = "") -> str:
    """An AMC text with small random angles; ``angles={"lfemur": "10 0 0"}`` fixes some bones."""
    rng = np.random.default_rng(seed)
    lines = ["#!OML:ASF none.ASF", ":FULLY-SPECIFIED", ":DEGREES", *([header] if header else [])]
    for frame in range(1, frames + 1):
        lines.append(str(frame))
        for name, dof in [("root", "tx ty tz rx ry rz"), *((name, bone[4]) for name, bone in BONES.items() if bone[4])]:
            values = " ".join(f"{v:.5f}" for v in rng.uniform(-size, size, len(dof.split())))
            lines.append(f"{name} {(angles or {}).get(name, values)}")
    return "\n".join(lines) + "\n"


def write_corpus(folder: Path) -> Path:
    """Plain CMU folders: two clips of subject 01 (train), one each of 03 (valid) and 02 (test), 8 frames at 120 Hz."""
    for subject, trial in (("01", "01"), ("01", "02"), ("03", "01"), ("02", "01")):
        target = folder / subject
        target.mkdir(parents=True, exist_ok=True)
        (target / f"{subject}.asf").write_text(asf_text())
        (target / f"{subject}_{trial}.amc").write_text(amc_text(8, seed=int(subject) * 10 + int(trial)))
    return folder
