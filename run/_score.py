"""The demo's task ``score``: every frame and every joint of it ranked against held-out human motion, and the worst shown."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dposer.body.skeleton import BODY_JOINTS, PARTS
from dposer.errors import InputError
from dposer.files import save_json, save_npz
from dposer.viz import colour_bar, contact_sheet, plot_plausibility, spaced_peaks, surface_heat
from dposer.viz.sheet import trimmed
from run._cli import progress_bar, table
from run._studio import SCORE_MEANING, Studio, percent

STRIP = [j for j, name in enumerate(BODY_JOINTS) if "_" not in name] + [*PARTS["left_body"], *PARTS["right_body"]]
"""Order of the joints in the plot: limb by limb."""
HALF_SECOND, MOST = 0.5, 120
"""Seconds between two of the worst frames, and how many are drawn at most."""


@dataclass(frozen=True)
class Scores:
    """Plausibilities of F frames in per cent, and the worst of the frames."""

    total: np.ndarray
    """(F,)"""
    per_joint: np.ndarray
    """(F, 21)"""
    residual: np.ndarray
    """(F, 21) the statistic that is ranked, which goes on where a plausibility is 0."""
    worst_joint: list[str]
    """F names."""
    fps: float | None
    worst: np.ndarray
    """Frames, worst first."""

    def frame(self, frame: int) -> dict[str, Any]:
        """What is said about one frame."""
        time = {} if self.fps is None else {"time": round(frame / self.fps, 4)}
        name = self.worst_joint[frame]
        least = round(float(self.per_joint[frame].min()), 3)
        return {"frame": frame, **time, "score": round(float(self.total[frame]), 3), "worst_joint": name, "worst_joint_score": least}

    def joints(self, frame: int) -> dict[str, float]:
        return dict(zip(BODY_JOINTS, np.round(self.per_joint[frame], 3).tolist(), strict=True))

    def summary(self) -> dict[str, float]:
        """Figures of the whole file; held-out motion has 50, 5, 1 and 5."""
        return {
            "median": float(np.median(self.total)),
            "5th percentile": float(np.percentile(self.total, 5)),
            "share of frames below 1 %": 100 * float((self.total < 1).mean()),
            "share of frames below 5 %": 100 * float((self.total < 5).mean()),
        }


def score(studio: Studio) -> None:
    """Score the poses of the file, write and print the scores, draw the worst frames."""
    if studio.prior.calibration is None:
        raise InputError(
            f"{studio.args.ckpt_path}: these weights hold no calibration tables, expected some for --task score; "
            "take the weights that ship, or call prior.calibrate(held_out_poses) and prior.save(...)"
        )
    poses, fps, in_time = studio.motion()
    count = studio.count(8, min(len(poses), MOST))
    ranked = studio.plausibility(poses)
    total, per_joint, residual = (values.double().cpu().numpy() for values in ranked)
    gap = max(1, round(HALF_SECOND * (fps or 30))) if in_time else 1
    worst = spaced_peaks(residual.mean(1), count, gap)
    scores = Scores(total, per_joint, residual, studio.worst_joints(ranked), fps, worst)
    _write(studio, scores)
    title = f"{studio.path.name}, {len(poses)} frames"
    studio.save("scores.png", plot_plausibility(total, per_joint[:, STRIP], [BODY_JOINTS[j] for j in STRIP], fps, worst, title))
    studio.note("scores over time", "scores.png")
    _draw(studio, poses[torch.as_tensor(worst)], scores)
    _print(scores, studio.path.name)


def _write(studio: Studio, scores: Scores) -> None:
    frames = [scores.frame(frame) for frame in range(len(scores.total))]
    joints = [scores.joints(frame) for frame in range(len(scores.total))]
    studio.csv("scores.csv", [*frames[0], *BODY_JOINTS], ([*a.values(), *b.values()] for a, b in zip(frames, joints, strict=True)))
    report = {
        "file": str(studio.path),
        "fps": scores.fps,
        "summary": scores.summary(),
        "worst": [frames[frame] for frame in scores.worst],
        "frames": [{**a, "per_joint": b} for a, b in zip(frames, joints, strict=True)],
    }
    save_json(studio.folder / "scores.json", report)
    arrays: dict[str, Any] = {"score": scores.total, "per_joint": scores.per_joint, "residual": scores.residual}
    arrays |= {"joint_names": list(BODY_JOINTS), "worst_joint": scores.worst_joint, "worst_frames": scores.worst}
    save_npz(studio.folder / "scores.npz", arrays if scores.fps is None else {**arrays, "mocap_frame_rate": scores.fps})
    studio.note("the same with a summary", "scores.json")
    studio.note("the same as arrays", "scores.npz")


def _draw(studio: Studio, poses: Tensor, scores: Scores) -> None:
    """The worst frames from the front and from the side, every joint in its colour."""
    colours, stage = surface_heat(studio.skin(), scores.per_joint[scores.worst]), studio.stage(poses)
    sides = [studio.draw(poses, stage, colours=colours, aside=aside) for aside in (False, True)]
    front, left = (trimmed(list(progress_bar(side, "drawing", len(poses)))) for side in sides)
    images, captions = [], []
    for rank, (frame, views) in enumerate(zip(scores.worst.tolist(), zip(front, left, strict=True), strict=True), 1):
        images.append(studio.save(f"worst{rank}_frame{frame}.png", contact_sheet(views)))
        said = scores.frame(frame)
        when = f" ({said['time']:.2f} s)" if "time" in said else ""
        captions.append(f"{rank}: frame {frame}{when}, {percent(said['score'])}, {said['worst_joint'].replace('_', ' ')}")
    studio.note("the worst frames", "worst*_frame*.png")
    sheet = studio.sheet(images, columns=min(4, len(images)), captions=captions, title=SCORE_MEANING)
    studio.save("contact_sheet.png", np.hstack([sheet, colour_bar(len(sheet))]))


def _print(scores: Scores, name: str) -> None:
    held_out = (50, 5, 1, 5)
    rows = [[key, f"{value:.2f} %", f"{usual} %"] for (key, value), usual in zip(scores.summary().items(), held_out, strict=True)]
    print(table([f"plausibility of {len(scores.total)} frames", name, "held-out motion"], rows) + "\n")
    worst = [scores.frame(frame) for frame in scores.worst.tolist()]
    print(table([key.replace("_", " ") for key in ("rank", *worst[0])], [[i, *row.values()] for i, row in enumerate(worst, 1)]) + "\n")
