"""What the published code of the cross-channel refiner prints and writes of an evaluation on Human3.6M."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from dposer.data.lifting_clip import LiftingClip
from dposer.data.objects import save_object
from dposer.errors import InputError
from dposer.files import PathLike
from dposer.lifting.report import AVERAGE, POOLED, Report

_ACTIONS = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Photo", "Posing", "Purchases", "Sitting", "SittingDown", "Smoking",
    "Waiting", "WalkDog", "Walking", "WalkTogether",
)  # fmt: skip
"""In their order there; others follow."""


def action_table(report: Report, setting: str) -> str:
    """MPJPE and P-MPJPE of every action, then the mean over actions, to the letter as published.

    Raises:
        InputError: the report lacks P-MPJPE.
    """
    rows = {row.group: row for row in report.rows if row.step == report.steps - 1 and row.setting == setting and not row.subject}
    actions = [name for name in _ACTIONS if name in rows]
    actions += [name for name in rows if name not in (*actions, AVERAGE, POOLED)]
    lines = [f"{'Action':=^12} {'p#1 mm':=^10} {'p#2 mm':=^8}"]
    for title, row in [(name, rows[name]) for name in actions] + [("Average", rows[AVERAGE])]:
        if "P-MPJPE" not in row.figures:
            raise InputError("the table of actions: the evaluation has no P-MPJPE, expected it too; ask for --p2")
        lines.append(f"{title:<12} {row.figures['MPJPE']:6.2f} {row.figures['P-MPJPE']:10.2f}")
    return "\n".join(lines)


def prediction_names(clips: Sequence[LiftingClip]) -> dict[str, str]:
    """Name of a clip → <action>_<subject>_v<number>, the number of its camera among those of the same motion."""
    cameras: dict[tuple[str, str], int] = defaultdict(int)
    names = {}
    for clip in clips:
        names[clip.name] = f"{clip.action}_{clip.subject}_v{cameras[clip.action, clip.subject]}"
        cameras[clip.action, clip.subject] += 1
    return names


def write_poses(path: PathLike, poses: Mapping[str, np.ndarray]) -> None:
    """``pred.npy``: {:func:`prediction_names`: [of each frame (J, 3) metres relative to the root]}."""
    save_object(path, {name: list(frames) for name, frames in poses.items()})
