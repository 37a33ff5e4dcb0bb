"""Scores of hypotheses over frames: groups, parts, intervals and pairs; and frames of clips lifted piece by piece."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from dposer.body.skeleton import H36M_17, MPI_INF_3DHP_17, SMPL_24
from dposer.data.heatmap_mixtures import heatmaps_of_keypoints, render
from dposer.data.lifting_clip import LiftingClip
from dposer.errors import InputError
from dposer.lifting import hypothesis_frames
from dposer.lifting.checkpoint import LiftingCheckpoint
from dposer.lifting.config import DiffusionConfig, HeatmapConfig, LiftingConfig, NetworkConfig
from dposer.lifting.hypothesis_report import Origin, ScoredFrames, hypotheses_of, score_hypotheses
from dposer.lifting.hypothesis_scores import FIGURES, HypothesisScores, JointSets, compared
from dposer.lifting.lifter import Lifter
from dposer.lifting.methods import build_model
from dposer.lifting.report import AVERAGE, POOLED
from tests.lifting_data import someone

F, N, J = 24, 8, 17


def frames(seed: int = 0, spread: float = 0.1) -> ScoredFrames:
    """Four clips of six frames in two groups; two of each clip are ambiguous."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.from_numpy(someone(F, 1)) + 0.05 * torch.randn(F, J, 3, generator=torch.Generator().manual_seed(99))
    h = truth[:, None] + spread * torch.randn(F, N, J, 3, generator=generator)
    h, truth = h - h[..., :1, :], truth - truth[:, :1]
    clip = np.repeat(["a", "b", "c", "d"], 6)
    return ScoredFrames(h, truth, np.repeat(["Walking", "Sitting"], (18, 6)), np.arange(F) % 6 < 2, h.mean(1), clip, np.arange(F) % 6)


def test_groups_parts_and_central_poses() -> None:
    some = frames()
    report = score_hypotheses(some.chunks(5), H36M_17.joints, Origin("x", 25, "EMA", 3, "toy"), uncertain=3)
    errors = 1000 * (some.hypotheses - some.truth[:, None]).norm(dim=-1).mean(-1)
    best = errors.amin(1)
    assert report.row().figures["MPJPE best"] == pytest.approx(float(best.mean()), rel=1e-5)
    assert report.row().farthest == pytest.approx(float(best.max()), rel=1e-5)
    by_group = [report.row(group).figures["MPJPE best"] for group in ("Walking", "Sitting")]
    assert by_group == pytest.approx([float(best[:18].mean()), float(best[18:].mean())], rel=1e-5)
    assert report.row(AVERAGE).figures["MPJPE best"] == pytest.approx(np.mean(by_group), rel=1e-6)
    hard = report.row(part="ambiguous")
    assert hard.frames == 8 and hard.figures["MPJPE best"] == pytest.approx(float(best[torch.arange(F) % 6 < 2].mean()), rel=1e-5)
    assert report.parts == ["all", "ambiguous", "clear"] and report.row(part="clear").frames == 16
    figures = report.row().figures
    assert set(figures) == set(FIGURES)
    assert figures["MPJPE best"] < figures["MPJPE median"] < figures["MPJPE worst"] and figures["PA-MPJPE best"] < figures["MPJPE best"]
    assert figures["MPJPE z0"] == pytest.approx(figures["MPJPE mean pose"]) and figures["PCK"] > figures["PCK-SC"] * 0.8
    assert figures["std x"] == pytest.approx(100 * 2**0.5, rel=0.1)  # of a joint and of the root
    curve = report.row().curves["MPJPE"]
    assert report.counts == [1, 2, 5, 8] and curve[-1] == pytest.approx(figures["MPJPE best"], rel=1e-5)
    assert curve[0] == pytest.approx(figures["MPJPE mean"], rel=1e-5)
    spreads = [frame.spread for frame in report.uncertain]
    assert len(spreads) == 3 and spreads == sorted(spreads, reverse=True)


def test_chunks_change_nothing() -> None:
    some = frames()
    whole, parts = (HypothesisScores.of(given, H36M_17.joints, 2) for given in ([some], some.chunks(7)))
    assert whole.figures(whole.cells()) == pytest.approx(parts.figures(parts.cells()), rel=1e-9)
    assert [frame[1:4] for frame in whole.uncertain] == [frame[1:4] for frame in parts.uncertain]
    with pytest.raises(InputError, match=r"expected \(frames, 8, 17, 3\)"):
        whole.add(some.first(4))
    with pytest.raises(InputError, match="found none"):
        HypothesisScores.of([], H36M_17.joints)


def test_intervals_are_over_clips_and_pairs_are_drawn_together() -> None:
    a, b = (HypothesisScores.of([frames(seed, spread)], H36M_17.joints) for seed, spread in ((0, 0.1), (1, 0.15)))
    low, high = a.intervals(a.cells())["MPJPE best"]
    assert low < a.figures(a.cells())["MPJPE best"] < high
    assert high - low < 0.2 * high and set(a.intervals(a.cells())) == set(FIGURES)
    gap = compared(b, a, "ambiguous")
    assert gap["MPJPE best"].low > 0 and gap["MPJPE best"].p == 0 and compared(a, a)["ECE"] == (0, 0, 0, 1)
    assert a.intervals([cell for cell in a.cells() if cell.clip == "a"]) == {}
    short = HypothesisScores.of([frames().take(slice(12))], H36M_17.joints)
    with pytest.raises(InputError, match="of other frames"):
        compared(a, short)


def test_forms_of_a_report() -> None:
    report = score_hypotheses([frames()], H36M_17.joints, Origin("diffpose", 25, "EMA", 3, "h5"), uncertain=2)
    assert json.loads(report.to_json())["origin"]["weights"] == "EMA"
    lines = report.flat()
    assert len(lines) == len(report.rows) and len({tuple(line) for line in lines}) == 1 and lines[0]["hypotheses"] == N
    for table in report.tables():
        assert table.rows and all(len(row) == len(table.header) for row in table.rows)
    assert report.tables()[0].title == "diffpose, T = 25, weights EMA, seed 3, data h5, N = 8, 24 frames"
    files = report.text_files()
    assert list(files) == ["eval_diffpose_nhypo_8_h5.txt", "eval_diffpose_hardset_nhypo_8_h5.txt", "full_eval_diffpose_hardset_nhypo_8.txt"]
    text = files["eval_diffpose_nhypo_8_h5.txt"].splitlines()
    after = text[text.index("----Average----") :]
    assert f"MPJPE - best: {report.row(AVERAGE).figures['MPJPE best']:.4f}" in after and after[-1].startswith("Mean joint std: ")
    full = files["full_eval_diffpose_hardset_nhypo_8.txt"]
    assert f"PA-MPJPE (hard) - best: {report.row(POOLED, 'ambiguous').figures['PA-MPJPE best']:.4f}" in full


def test_joints_are_chosen_by_their_names() -> None:
    sets = JointSets.of(H36M_17.joints)
    assert sets.pck == [1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 13, 14, 15, 16] and sets.cps == [joint for joint in range(J) if joint != 7]
    pairs = {frozenset((sets.edges[left], sets.edges[right])) for left, right in sets.pairs}
    wanted = [((1, 2), (4, 5)), ((2, 3), (5, 6)), ((8, 11), (8, 14)), ((11, 12), (14, 15)), ((12, 13), (15, 16))]
    assert pairs == {frozenset(pair) for pair in wanted}
    pose = torch.from_numpy(someone(1, 0))
    assert float(sets.asymmetry(pose)) < 0.2 and len(JointSets.of(SMPL_24.joints).pck) == 13
    assert JointSets.of(MPI_INF_3DHP_17.joints).root == 14
    with pytest.raises(InputError, match="no left_hip"):
        JointSets.of(("pelvis", "neck"))


# ---- frames of clips ---------------------------------------------------------------------------------------------------


def clip(length: int, seed: int = 0, **more: object) -> LiftingClip:
    joints = someone(length, seed)[..., [0, 2, 1]] * np.array([1, -1, 1], np.float32) + np.array([0, 0.9, 4], np.float32)
    points = joints[..., :2] / joints[..., 2:] * 1000 + 500
    keypoints = np.concatenate((points, np.ones((length, J, 1))), -1).astype(np.float32)
    return LiftingClip("S9", "Walking 1", str(seed), keypoints, joints, (1000, 1000), None, H36M_17, 50.0, **more)  # type: ignore[arg-type]


def lifter(config: LiftingConfig) -> Lifter:
    torch.manual_seed(0)
    return Lifter(LiftingCheckpoint(config, build_model(config).state_dict()))


VIDEO = LiftingConfig(method="d3dp", network=NetworkConfig(frames=9, channels=16, depth=1, heads=2))
SINGLE = LiftingConfig(
    method="diffpose", inputs="heatmap", flip=False, network=NetworkConfig(frames=1, channels=16, depth=1, heads=2, drop_path=0.0),
    diffusion=DiffusionConfig(timesteps=4, scale=10.0, bound=3.0), heatmap=HeatmapConfig(readout=8, width=16, feedforward=16),
)  # fmt: skip
SINGLE = dataclasses.replace(SINGLE, loss=dataclasses.replace(SINGLE.loss, kind="mse"))


def test_films_are_lifted_as_the_lifter_does(monkeypatch: pytest.MonkeyPatch) -> None:
    method, film = lifter(VIDEO), clip(22, valid=np.arange(22) != 5)
    whole = method(film.keypoints, film.size, hypotheses=3, steps=2, name=film.name).hypotheses.transpose(0, 1)
    monkeypatch.setattr(hypothesis_frames, "_POSES", 1)  # a window at a time
    some = list(hypotheses_of(method.model, [film], 3, 2))
    found = ScoredFrames.stacked(some)
    assert len(some) == 3 and found.numbers.tolist() == [i for i in range(22) if i != 5]
    torch.testing.assert_close(found.hypotheses, whole[found.numbers])
    assert set(found.group) == {"Walking"} and set(found.clips) == {"S9/Walking 1"} and not found.hard.any()
    done: list[tuple[int, int]] = []
    films = [film, clip(10, 1)]
    few = ScoredFrames.stacked(list(hypotheses_of(method.model, films, 3, 2, every=8, progress=lambda *state: done.append(state))))
    assert few.numbers.tolist() == [0, 8, 16, 2] and done[-1] == (4, 4)  # every eighth of 32 rows
    torch.testing.assert_close(few.hypotheses[:3], whole[[0, 8, 16]])
    with pytest.raises(InputError, match="found twice"):
        list(hypotheses_of(method.model, [film, film], 3, 2))


def test_single_frames_of_heatmaps(monkeypatch: pytest.MonkeyPatch) -> None:
    method, film = lifter(SINGLE), clip(6)
    mixtures = heatmaps_of_keypoints(film.keypoints, H36M_17)[0].numpy()
    hard = np.arange(6) >= 4
    told = [
        dataclasses.replace(film, heatmaps=maps, hard=hard) for maps in (mixtures, render(torch.from_numpy(mixtures)).flatten(-2).numpy())
    ]
    monkeypatch.setattr(hypothesis_frames, "_POSES", 2 * 5 * 4)  # two frames at a time
    some = list(hypotheses_of(method.model, told[:1], 5))
    found = ScoredFrames.stacked(some)
    assert [len(part) for part in some] == [2, 2, 2] and found.hypotheses.shape == (6, 5, J, 3) and found.hard.tolist() == hard.tolist()
    only = ScoredFrames.stacked(list(hypotheses_of(method.model, [clip(4, 1), *told[:1]], 5, hard_only=True, central=method.model)))
    torch.testing.assert_close(only.hypotheses, found.hypotheses[4:])
    assert only.central is not None
    torch.testing.assert_close(only.central, only.hypotheses[:, 0], rtol=1e-4, atol=1e-4)
    peaks = [ScoredFrames.stacked(list(hypotheses_of(method.model, [maps], 5, highest_only=True))).hypotheses for maps in told]
    torch.testing.assert_close(*peaks)  # both kinds of heatmaps have the same highest cells
    assert not torch.allclose(peaks[0], found.hypotheses)
