"""The evaluation of MPI-INF-3DHP: MPJPE, PCK at 150 mm and AUC of every test sequence and every activity.

With the error e of a joint in a frame (mm, relative to the pelvis, valid frames only),

    PCK(t) = 100 · share of {e < t} at t = 150,    AUC = mean over t = 0, 5, ..., 150 of PCK(t)

over the (joint, frame) pairs of a group of joints; a total is over all groups, and leaves out spine, head and pelvis. The threshold 0
always scores 0, so that no AUC exceeds 96.77. MPJPE is over all 17 joints, the pelvis (0) among them. What methods report is the
unweighted mean over the six sequences.

Source: Mehta et al., 3DV 2017, and the MATLAB script of the data set as D3DP (ICCV 2023) uses it.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from dposer.body.skeleton import MPI_INF_3DHP_17
from dposer.data.lifting_clip import LiftingClip
from dposer.data.mpi_inf_3dhp import ACTIVITIES, load_matlab5
from dposer.errors import InputError
from dposer.files import PathLike, finite, save_bytes

GROUPS: dict[str, tuple[int, ...]] = {
    "Head": (0,), "Neck": (1,), "Shou": (2, 5), "Elbow": (3, 6), "Wrist": (4, 7), "Hip": (8, 11), "Knee": (9, 12), "Ankle": (10, 13),
}  # fmt: skip
"""Rows of the layout that PCK and AUC count."""

PCK_THRESHOLD = 150.0
AUC_THRESHOLDS = np.arange(0.0, 151.0, 5.0)
"""Millimetres."""

_ROOT = MPI_INF_3DHP_17.joints.index("pelvis")
_COLUMNS = len(MPI_INF_3DHP_17.joints) + 2
_SIZES = np.array([len(rows) for rows in GROUPS.values()])


@dataclass(frozen=True)
class Scores:
    """Of one set of frames."""

    frames: int
    joints: np.ndarray
    """(17,) mean error of each joint, mm."""
    pck: np.ndarray
    """(8,) percent, in the order of :data:`GROUPS`."""
    auc: np.ndarray
    """(8,) percent."""

    @property
    def mpjpe(self) -> float:
        """Mean over the joints, mm."""
        return float(self.joints.mean())

    @property
    def pck_total(self) -> float:
        """Percent, over the 14 joints of the groups."""
        return float(self.pck @ _SIZES / _SIZES.sum())

    @property
    def auc_total(self) -> float:
        """Percent, over the 14 joints of the groups."""
        return float(self.auc @ _SIZES / _SIZES.sum())


def score(errors: np.ndarray) -> Scores:
    """Scores of errors (F, 17) in mm."""
    groups = [errors[:, rows] for rows in GROUPS.values()]
    pck = [100 * (group < PCK_THRESHOLD).mean() for group in groups]
    auc = [100 * (group[..., None] < AUC_THRESHOLDS).mean() for group in groups]
    return Scores(len(errors), errors.mean(0), np.array(pck), np.array(auc))


@dataclass(frozen=True)
class Evaluation:
    """One set of predictions against the test sequences; ``mpjpe``, ``pck`` and ``auc`` are what methods report."""

    sequences: dict[str, Scores]
    activities: dict[str, Scores]
    """Those that have frames; empty if the activity of some frames is not known."""
    pooled: Scores
    """Over all frames of all sequences at once."""

    @property
    def mpjpe(self) -> float:
        """Unweighted mean over the sequences, mm."""
        return float(np.mean([scores.mpjpe for scores in self.sequences.values()]))

    @property
    def pck(self) -> float:
        """Unweighted mean over the sequences, percent."""
        return float(np.mean([scores.pck_total for scores in self.sequences.values()]))

    @property
    def auc(self) -> float:
        """Unweighted mean over the sequences, percent."""
        return float(np.mean([scores.auc_total for scores in self.sequences.values()]))


def evaluate_3dhp(predictions: Mapping[str, np.ndarray], clips: Sequence[LiftingClip]) -> Evaluation:
    """Score predictions against the truth.

    Args:
        predictions: {"TS1": (F, 17, 3), ...} metres, for all F frames of each clip; where the pelvis is does not matter.
        clips: as :func:`dposer.data.mpi_inf_3dhp.read_3dhp_test` reads them; frames that are not valid do not count.

    Raises:
        InputError: predictions and clips do not go together, values that are not finite or not in metres, or no valid frame.
    """
    names = [clip.subject for clip in clips]
    if sorted(names) != sorted(predictions) or not names:
        found, expected = (", ".join(sorted(each)) or "nothing" for each in (predictions, names))
        raise InputError(f"predictions: of {found}, expected one for each clip: {expected}")
    errors = {clip.subject: _errors(np.asarray(predictions[clip.subject]), clip) for clip in clips}
    pooled = np.concatenate(list(errors.values()))
    activities = [clip.activity[_valid(clip)] for clip in clips if clip.activity is not None]
    of_frame = np.concatenate(activities) if len(activities) == len(clips) else np.zeros(len(pooled), int)
    return Evaluation(
        {name: score(errors[name]) for name in sorted(errors)},
        {name: score(pooled[of_frame == i]) for i, name in enumerate(ACTIVITIES, 1) if (of_frame == i).any()},
        score(pooled),
    )


def _valid(clip: LiftingClip) -> np.ndarray:
    return np.ones(len(clip), bool) if clip.valid is None else clip.valid


def _errors(predicted: np.ndarray, clip: LiftingClip) -> np.ndarray:
    """(valid frames, 17) mm."""
    if clip.joints is None or clip.layout != MPI_INF_3DHP_17:
        found = "no joints" if clip.joints is None else f"the layout {clip.layout.name}"
        raise InputError(f"{clip.name}: found {found}, expected the 17 joints of MPI-INF-3DHP; read the clip with read_3dhp_test")
    if not _valid(clip).any():
        raise InputError(f"{clip.name}: no valid frame, expected some; leave the sequence out")
    if predicted.shape != clip.joints.shape:
        raise InputError(f"predictions of {clip.subject}: shape {predicted.shape}, expected {clip.joints.shape}, every frame of the clip")
    poses = _relative(finite(predicted, f"predictions of {clip.subject}"))
    size = float(np.median(np.abs(poses).max((-2, -1))))
    if size > 20:
        raise InputError(f"predictions of {clip.subject}: joints as far as {size:.0f} from the pelvis, expected metres; divide mm by 1000")
    distances: np.ndarray = np.linalg.norm(poses - _relative(clip.joints), axis=-1)[_valid(clip)]
    return 1000 * distances


def _relative(joints: np.ndarray) -> np.ndarray:
    points = joints.astype(np.float64)
    return points - points[..., [_ROOT], :]


# --- files -------------------------------------------------------------------------------------------------------------


def write_csv(folder: PathLike, evaluation: Evaluation, setting: str, step: int, target: str = "annot3") -> tuple[Path, ...]:
    """Write ``mpii_3dhp_evaluation_sequencewise_ori_{setting}_t{step}.csv`` and ``..._activitywise_...``, laid out as MATLAB's.

    Args:
        setting: "P_Agg", "J_Agg", "P_Best" or "J_Best".
        step: iteration of the sampler, from 1.
        target: "annot3", or "univ_annot3", whose files are without ``ori``.

    Returns:
        The paths; the second is left out if activities are not known.
    """
    tables = [("sequence", "seq_table", {name.replace("TS", "TestSeq"): scores for name, scores in evaluation.sequences.items()})]
    if evaluation.activities:
        nothing = Scores(0, np.full(len(MPI_INF_3DHP_17.joints), np.nan), *np.full((2, len(GROUPS)), np.nan))
        rows = {name: evaluation.activities.get(name, nothing) for name in ACTIVITIES} | {"All": evaluation.pooled}
        tables.append(("activity", "activity_table", rows))
    suffix = "_ori" if target == "annot3" else ""
    paths = []
    for kind, title, rows in tables:
        paths.append(Path(folder) / f"mpii_3dhp_evaluation_{kind}wise{suffix}_{setting}_t{step}.csv")
        save_bytes(paths[-1], _csv(title, rows).encode())
    return tuple(paths)


def _csv(title: str, rows: Mapping[str, Scores]) -> str:
    """A block of errors, one of PCK and one of AUC, each row filled up to the width of the first."""
    table: list[list[Any]] = [["", *MPI_INF_3DHP_17.joints, "Average"]]
    table += [[name, *scores.joints, scores.mpjpe] for name, scores in rows.items()]
    table += [["PCK", *GROUPS, "Total"], *([name, *scores.pck, scores.pck_total] for name, scores in rows.items())]
    table += [["AUC", *GROUPS, "Total"], *([name, *scores.auc, scores.auc_total] for name, scores in rows.items())]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([f"{title}{column}" for column in range(1, _COLUMNS + 1)])
    writer.writerows([_cell(cell) for cell in row] + [""] * (_COLUMNS - len(row)) for row in table)
    return stream.getvalue()


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.15g}".replace("nan", "NaN")


def write_predictions(path: PathLike, predictions: Mapping[str, np.ndarray]) -> None:
    """Write ``inference_data_{setting}.mat`` (MATLAB v5): TS1 to TS6 of (3, 17, n, K) float32, mm, relative to the pelvis.

    Args:
        predictions: {"TS1": (K, n, 17, 3), ...} metres, of each of K iterations.
    """
    variables = {}
    for name, poses in predictions.items():
        if np.ndim(poses) != 4 or np.shape(poses)[2:] != (17, 3):
            raise InputError(f"predictions of {name}: shape {np.shape(poses)}, expected (iterations, frames, 17, 3)")
        variables[name] = (1000 * _relative(np.asarray(poses))).transpose(3, 2, 1, 0).astype(np.float32)
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, variables)
    save_bytes(path, buffer.getvalue())


def read_predictions(path: PathLike) -> dict[str, np.ndarray]:
    """Inverse of :func:`write_predictions`: {"TS1": (K, n, 17, 3), ...} metres, float32.

    Raises:
        InputError: missing, damaged or another kind of file.
    """
    what = "predictions on MPI-INF-3DHP, TS1 to TS6 of (3, 17, frames, iterations)"
    poses = {}
    for name, array in load_matlab5(path, None, what).items():
        # MATLAB itself drops last dimensions of one.
        full = array.reshape(array.shape + (1,) * (4 - array.ndim)) if isinstance(array, np.ndarray) else np.empty(0)
        if full.ndim != 4 or full.shape[:2] != (3, 17):
            raise InputError(f"{path}: '{name}' has shape {np.shape(array)}, expected {what}")
        poses[name] = (finite(full, f"{path}: '{name}'") / 1000).transpose(3, 2, 1, 0).astype(np.float32)
    if not poses:
        raise InputError(f"{path}: holds no variables, expected {what}")
    return poses
