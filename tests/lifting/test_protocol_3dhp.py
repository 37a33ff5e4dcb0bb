"""The evaluation of MPI-INF-3DHP: closed forms of MPJPE, PCK and AUC, means over sequences, and its files."""

import csv
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from dposer.body.skeleton import MPI_INF_3DHP_17
from dposer.data.lifting_clip import LiftingClip
from dposer.data.mpi_inf_3dhp import ACTIVITIES
from dposer.errors import InputError
from dposer.lifting.protocol_3dhp import GROUPS, Evaluation, evaluate_3dhp, read_predictions, score, write_csv, write_predictions
from dposer.metrics.poses import auc, mpjpe, pck


def clip(name: str, frames: int, seed: int = 0, activity: int | None = None) -> LiftingClip:
    rng = np.random.default_rng(seed)
    joints = (rng.normal(scale=0.3, size=(frames, 17, 3)) + (0, 0, 4)).astype(np.float32)
    of_frame = None if activity is None else np.full(frames, activity)
    keypoints = np.ones((frames, 17, 3), np.float32)
    return LiftingClip(name, "annot3", "0", keypoints, joints, (2048, 2048), None, MPI_INF_3DHP_17, 25.0, activity=of_frame)


def moved(truth: LiftingClip, millimetres: float) -> np.ndarray:
    """Every joint but the pelvis is that far off, in a random direction; all of it is somewhere else."""
    assert truth.joints is not None
    steps = np.random.default_rng(1).normal(size=truth.joints.shape)
    steps *= millimetres / 1000 / np.linalg.norm(steps, axis=-1, keepdims=True)
    steps[:, 14] = 0
    return truth.joints + steps - (0, 0, 4)


@pytest.mark.parametrize("error", [0.0, 0.1, 5.0, 72.5, 149.999, 150.0, 400.0])
def test_constant_error(error: float) -> None:
    """PCK = 100 [e < 150], AUC = 100 #{t > e} / 31, in every group and in total; 96.77 is the most there is."""
    scores = score(np.full((3, 17), error))
    above = sum(threshold > error for threshold in range(0, 151, 5))
    np.testing.assert_allclose([*scores.pck, scores.pck_total], 100.0 * (error < 150))
    np.testing.assert_allclose([*scores.auc, scores.auc_total], 100 * above / 31)
    np.testing.assert_allclose([*scores.joints, scores.mpjpe], error)
    assert scores.auc_total <= 96.78


def test_groups_and_totals() -> None:
    """The groups are 14 joints, each once, both sides alike; totals are over them pooled, and agree with the metrics of the library."""
    rows = sorted(row for group in GROUPS.values() for row in group)
    assert rows == [row for row, name in enumerate(MPI_INF_3DHP_17.joints) if name not in ("pelvis", "spine", "head")]
    mirror = MPI_INF_3DHP_17.mirror
    assert all({mirror[row] for row in group} == set(group) for group in GROUPS.values())
    points = np.random.default_rng(0).normal(scale=0.08, size=(50, 17, 3))
    errors = 1000 * np.linalg.norm(points, axis=-1)
    scores = score(errors)
    some = torch.from_numpy(points[:, rows])
    assert scores.pck_total == pytest.approx(100 * (errors[:, rows] < 150).mean())
    assert scores.pck_total == pytest.approx(100 * pck(some, torch.zeros_like(some)).mean())
    assert scores.auc_total == pytest.approx(100 * auc(some, torch.zeros_like(some)).mean())
    assert scores.mpjpe == pytest.approx(errors.mean())


def test_means_over_sequences_and_frames() -> None:
    """Sequences count alike whatever their length, the pooled numbers count frames; frames that are not valid do not count."""
    one, two = clip("TS1", 30, 0, activity=1), clip("TS2", 10, 1, activity=7)
    predictions = {"TS1": moved(one, 16), "TS2": moved(two, 48)}
    predictions["TS2"][5:] += np.random.default_rng(2).normal(size=(5, 17, 3))
    two = replace(two, valid=np.arange(10) < 5)
    result = evaluate_3dhp(predictions, [one, two])
    share = 16 / 17  # the pelvis is counted as an error of zero
    assert result.mpjpe == pytest.approx(32 * share, rel=1e-5)
    assert result.pooled.mpjpe == pytest.approx((30 * 16 + 5 * 48) / 35 * share, rel=1e-5)
    assert result.pck == 100 and result.auc == pytest.approx((100 * 27 / 31 + 100 * 21 / 31) / 2)
    assert {name: scores.frames for name, scores in result.activities.items()} == {"Standing/Walking": 30, "Miscellaneous": 5}
    assert result.activities["Miscellaneous"].mpjpe == pytest.approx(48 * share, rel=1e-5) and result.pooled.frames == 35
    assert one.joints is not None
    root = torch.from_numpy(one.joints - one.joints[:, 14:15])
    found = torch.from_numpy(predictions["TS1"] - predictions["TS1"][:, 14:15])
    assert result.sequences["TS1"].mpjpe == pytest.approx(1000 * float(mpjpe(found, root).mean()), rel=1e-5)
    assert not evaluate_3dhp(predictions, [one, replace(two, activity=None)]).activities


def test_refusals() -> None:
    truth = clip("TS1", 4)
    assert truth.joints is not None
    broken = truth.joints.copy()
    broken[2, 3, 1] = np.nan
    cases: list[tuple[dict[str, np.ndarray], LiftingClip, str]] = [
        ({}, truth, "of nothing, expected one for each clip: TS1"),
        ({"TS2": truth.joints}, truth, "TS2"),
        ({"TS1": truth.joints[:3]}, truth, "every frame of the clip"),
        ({"TS1": broken}, truth, "NaN"),
        ({"TS1": 1000 * truth.joints}, truth, "divide mm by 1000"),
        ({"TS1": truth.joints}, replace(truth, valid=np.zeros(4, bool)), "no valid frame"),
        ({"TS1": truth.joints}, replace(truth, joints=None), "no joints"),
    ]
    for predictions, against, words in cases:
        with pytest.raises(InputError, match=words) as caught:
            evaluate_3dhp(predictions, [against])
        assert "\n" not in str(caught.value)


def result() -> Evaluation:
    clips = [clip("TS1", 5, 0, activity=1), clip("TS6", 3, 1, activity=3)]
    return evaluate_3dhp({each.subject: moved(each, 62) for each in clips}, clips)


def test_tables_as_matlab_lays_them_out(tmp_path: Path) -> None:
    """19 columns; a block of errors, one of PCK and one of AUC, each with its own header; activities without frames are NaN."""
    sequences, activities = write_csv(tmp_path, result(), "J_Agg", 3)
    assert sequences.name == "mpii_3dhp_evaluation_sequencewise_ori_J_Agg_t3.csv"
    assert activities.name == "mpii_3dhp_evaluation_activitywise_ori_J_Agg_t3.csv"
    names = {"seq": (sequences, ["TestSeq1", "TestSeq6"]), "activity": (activities, [*ACTIVITIES, "All"])}
    for title, (path, rows) in names.items():
        table = list(csv.reader(path.read_text().splitlines()))
        assert table[0] == [f"{title}_table{column}" for column in range(1, 20)] and {len(row) for row in table} == {19}
        n = len(rows)
        assert [row[0] for row in table[1:]] == ["", *rows, "PCK", *rows, "AUC", *rows]
        assert table[1][1:] == [*MPI_INF_3DHP_17.joints, "Average"]
        assert table[2 + n][1:] == [*GROUPS, "Total", *[""] * 9] == table[3 + 2 * n][1:]
        last = [float(table[row][column]) for row, column in ((1 + n, -1), (2 + 2 * n, 9), (3 + 3 * n, 9))]
        np.testing.assert_allclose(last, (62 * 16 / 17, 100, 100 * 18 / 31), rtol=1e-5)
    assert table[3][1:] == ["NaN"] * 18
    (alone,) = write_csv(tmp_path, replace(result(), activities={}), "P_Agg", 1, target="univ_annot3")
    assert alone.name == "mpii_3dhp_evaluation_sequencewise_P_Agg_t1.csv"


def test_predictions_there_and_back(tmp_path: Path) -> None:
    """(3, 17, n, K) mm relative to the pelvis in the file; (K, n, 17, 3) metres here; a last dimension of one may be lost on the way."""
    rng = np.random.default_rng(0)
    poses = {"TS1": rng.normal(size=(4, 6, 17, 3)), "TS2": rng.normal(size=(4, 1, 17, 3))}
    path = tmp_path / "inference_data_P_Agg.mat"
    write_predictions(path, poses)
    stored = scipy.io.loadmat(path)["TS1"]
    assert stored.shape == (3, 17, 6, 4) and not stored[:, 14].any()
    np.testing.assert_allclose(stored[1, 3, 5, 2], 1000 * (poses["TS1"][2, 5, 3, 1] - poses["TS1"][2, 5, 14, 1]), rtol=1e-6)
    back = read_predictions(path)
    assert back.keys() == poses.keys()
    for name, array in back.items():
        np.testing.assert_allclose(array, poses[name] - poses[name][..., 14:15, :], atol=1e-6)
    scipy.io.savemat(path, {"TS1": stored[..., 0]})
    np.testing.assert_array_equal(read_predictions(path)["TS1"], back["TS1"][:1])


def test_broken_predictions(tmp_path: Path) -> None:
    path = tmp_path / "inference_data.mat"
    with pytest.raises(InputError, match="expected \\(iterations, frames, 17, 3\\)"):
        write_predictions(path, {"TS1": np.zeros((6, 17, 3))})
    scipy.io.savemat(path, {"TS1": np.zeros((6, 17, 3))})
    with pytest.raises(InputError, match="'TS1' has shape"):
        read_predictions(path)
    scipy.io.savemat(path, {})
    with pytest.raises(InputError, match="no variables"):
        read_predictions(path)
    with h5py.File(path, "w", userblock_size=512) as archive:
        archive["TS1"] = np.zeros((2, 6, 17, 3))
    with pytest.raises(InputError, match="v7.3"):
        read_predictions(path)
