"""Evaluation of stubs whose errors are known."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dposer.body.skeleton import H36M_17, MPI_INF_3DHP_17, Layout
from dposer.data.lifting_clip import LiftingClip
from dposer.errors import InputError
from dposer.geometry.lens import Lens
from dposer.lifting.config import LiftingConfig, NetworkConfig, OcclusionConfig
from dposer.lifting.evaluation import EvalSettings, evaluate, expected_minimum
from dposer.lifting.model import LiftingModel
from dposer.lifting.noise import Noise
from dposer.lifting.report import AVERAGE, POOLED, Report, paired_bootstrap

F, J = 5, 17
LENS = Lens.of((1100.0, 1090.0), (500.0, 505.0))
SIZE = (1000, 1002)
DEPTH = torch.linspace(4.7, 5.3, J)
"""Of each joint, always, so that a stub can tell the pose from its keypoints."""


def person(layout: Layout) -> Tensor:
    """(J, 3) a rigid one whose left mirrors its right in bone lengths."""
    generator = torch.Generator().manual_seed(0)
    points = 0.3 * torch.randn(J, 3, generator=generator)
    return torch.cat((points[:, :2], DEPTH[:, None]), -1)


def clip(action: str = "Walking 1", frames: int = 12, subject: str = "S9", view: str = "0", **more: Any) -> LiftingClip:
    """A person that moves sideways with a steady speed."""
    layout = more.pop("layout", H36M_17)
    joints = person(layout) + torch.arange(frames)[:, None, None] * torch.tensor([0.01, 0.0, 0.0])
    pixels = LENS.project(joints)
    keypoints = torch.cat((pixels, torch.ones(frames, J, 1)), -1).numpy()
    values: dict[str, Any] = {"keypoints": keypoints, "joints": joints.numpy(), "size": SIZE, "lens": LENS, "layout": layout, "fps": 50.0}
    return LiftingClip(subject, action, view, **(values | more))


class Stub(nn.Module):
    """The truth, and what ``spoil`` does to it: (B, K, H, F, J, 3), keypoints (B, F, J, 2) in screen units and noise of one's shape."""

    def __init__(self, spoil: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda pose, keypoints, noise: pose, layout: Layout = H36M_17):
        super().__init__()
        self.spoil = spoil
        name = cast(Any, layout.name)
        self.config = LiftingConfig(layout=name, network=NetworkConfig(frames=F, channels=8, depth=1, heads=1))

    def predict(self, keypoints: Tensor, hypotheses: int, steps: int, noise: Noise, max_batch: int) -> Tensor:
        root = self.config.skeleton.joints.index("pelvis")
        points = LENS.on_screen(SIZE).ray(keypoints) * DEPTH[:, None]
        pose = (points - points[..., [root], :])[:, None, None].expand(-1, steps, hypotheses, -1, -1, -1)
        pairs = list(itertools.product(range(len(keypoints)), range(hypotheses)))
        drawn = noise.streams(pairs)(pose.new_empty(len(pairs), steps, F, J, 3))
        return self.spoil(pose, keypoints, drawn.unflatten(0, (len(keypoints), hypotheses)).transpose(1, 2)).clone()


def measured(stub: Stub, clips: list[LiftingClip], settings: EvalSettings | None = None, **more: Any) -> Report:
    return evaluate(cast(LiftingModel, stub), clips, settings, **more)


def noisy(pose: Tensor, keypoints: Tensor, noise: Tensor) -> Tensor:
    return pose + 0.05 * noise


FULL = EvalSettings(hypotheses=4, steps=2, p2=True, aggregates=("mean", "median", "joint", "limb", "soft"))


@pytest.mark.parametrize("layout", [H36M_17, MPI_INF_3DHP_17])
def test_the_truth_has_no_error(layout: Layout) -> None:
    report = measured(Stub(layout=layout), [clip(layout=layout), clip("Eating", 3, layout=layout)], FULL)
    assert report.setting_names == list(FULL.names) and len(FULL.names) == 11
    assert {(row.group, row.step) for row in report.rows} == set(itertools.product(("Walking", "Eating", AVERAGE, POOLED), (0, 1)))
    for row in report.rows:
        for name in ("MPJPE", "P-MPJPE", "N-MPJPE", "MPJVE", "velocity", "acceleration", "consistency"):
            assert row.figures[name] == pytest.approx(0, abs=2e-2)
        assert row.figures["PCK"] == 100 and row.figures["AUC"] == pytest.approx(100 * 30 / 31)
        assert max(row.joints + row.levels) < 2e-2 and len(row.levels) == 6
    assert report.frames == 15 and report.notes == [] and report.clamped == 0


@pytest.mark.parametrize(("offset", "within"), [(0.0723, 16), (0.1523, 0)])
def test_a_constant_offset(offset: float, within: int) -> None:
    def moved(pose: Tensor, keypoints: Tensor, noise: Tensor) -> Tensor:
        return pose + torch.tensor([0.0, offset, 0.0])

    report = measured(Stub(moved), [clip()], EvalSettings(hypotheses=3))
    for setting in report.setting_names:
        assert report.value("MPJPE", setting) == pytest.approx(1000 * offset * 16 / 17, rel=1e-4)  # the root stays at zero
        assert report.value("PCK", setting) == 100 * (offset < 0.15)
        assert report.value("AUC", setting) == pytest.approx(100 * within / 31)
        assert report.value("MPJVE", setting) == pytest.approx(0, abs=1e-2)
    row = report.rows[0]
    assert row.joints[0] == row.levels[0] == 0 and row.levels[1:] == pytest.approx([1000 * offset] * 5, rel=1e-4)


def test_one_hypothesis_is_every_setting() -> None:
    report = measured(Stub(noisy), [clip()], dataclasses.replace(FULL, hypotheses=1))
    for figure in ("MPJPE", "P-MPJPE", "MPJVE", "symmetry"):
        values = [report.value(figure, setting) for setting in report.setting_names]
        assert values == pytest.approx([values[0]] * len(values), rel=1e-5) and values[0] > 1
    assert report.uncertainty == []


@pytest.mark.parametrize("figure", ["MPJPE", "P-MPJPE"])
def test_bounds_are_ordered(figure: str) -> None:
    clips = [clip(frames=13), clip("Eating", 7)]
    scopes = {
        scope: measured(Stub(noisy), clips, dataclasses.replace(FULL, scope=cast(Any, scope))) for scope in ("frame", "window", "batch")
    }
    p_best = [report.value(figure, "P-Best") for report in scopes.values()]
    value = {name: scopes["frame"].value(figure, name) for name in FULL.names}
    assert value["J-Best"] < p_best[0] < p_best[1] < p_best[2] < value["Single"]
    assert all(value["J-Best"] < value[name] for name in ("J-Agg (GT root)", "J-Agg (solved root)", "Limb"))
    assert all(value[name] < value["Single"] for name in FULL.names if name != "Single")
    assert value["Mean"] == pytest.approx(value["P-Agg"], rel=0.02) and value["Joint"] == pytest.approx(
        value["J-Agg (solved root)"], rel=0.02
    )


def test_results_do_not_depend_on_what_is_computed_together() -> None:
    clips = [clip(), clip("Eating", 7)]
    for scope in ("frame", "window"):
        settings = EvalSettings(hypotheses=3, p2=True, scope=cast(Any, scope))
        one, other = (measured(Stub(noisy), clips, dataclasses.replace(settings, batch=batch)) for batch in (1, 7))
        for a, b in zip(one.rows, other.rows, strict=True):
            assert a.figures == pytest.approx(b.figures, rel=1e-5)
        assert one.window_errors.errors["P-Best"] == pytest.approx(other.window_errors.errors["P-Best"], rel=1e-5)


def test_frames_of_two_windows_count_once_or_twice() -> None:
    settings = EvalSettings(hypotheses=2)
    once, twice = (measured(Stub(noisy), [clip()], dataclasses.replace(settings, overlap=cast(Any, count))) for count in ("once", "twice"))
    assert (once.frames, twice.frames, once.windows) == (12, 15, 3)  # windows begin at 0, 5, 7
    errors = once.window_errors
    assert errors.start == [0, 5, 7] and np.mean(errors.errors["P-Agg"]) == pytest.approx(twice.value("MPJPE", "P-Agg"))
    assert measured(Stub(), [clip(frames=3)], EvalSettings(overlap="twice")).frames == F
    every = measured(Stub(), [clip(), clip(view="1")], EvalSettings(every=4))
    assert (every.windows, every.clips, every.frames) == (2, 2, 10)  # the windows 0 and 4 of 6
    assert EvalSettings(p2=True).published("h36m") == EvalSettings(p2=True, scope="batch", overlap="twice", root="gt")


def test_only_valid_frames_count() -> None:
    def spoilt(pose: Tensor, keypoints: Tensor, noise: Tensor) -> Tensor:
        return pose + (keypoints[:, None, None, :, :1, :1] > first) * 1.0

    whole = clip()
    first = float(whole.keypoints[6, 0, 0] * 2 / SIZE[0] - 1) + 1e-4  # of the frames from the seventh on
    report = measured(Stub(spoilt), [dataclasses.replace(whole, valid=np.arange(12) < 7)])
    assert report.frames == 7 and report.value("MPJPE", "Single") == pytest.approx(0, abs=1e-2)
    assert report.value("MPJVE", "Single") == pytest.approx(0, abs=1e-2)
    assert measured(Stub(spoilt), [whole]).value("MPJPE", "Single") > 100
    with pytest.raises(InputError, match="no frame of 1 clips counts"):
        measured(Stub(), [dataclasses.replace(whole, valid=np.zeros(12, bool))])


def test_averages_over_groups_are_unweighted() -> None:
    def frozen(pose: Tensor, keypoints: Tensor, noise: Tensor) -> Tensor:
        return 0 * pose + torch.tensor([0.0, 0.1, 0.0]) * (keypoints[:, None, None, :, :1, :1] > 10)

    far = clip("Eating 2", 15, "S11")
    far = dataclasses.replace(far, keypoints=far.keypoints + np.array([1e5, 0, 0], np.float32))
    report = measured(Stub(frozen), [clip("Walking", 5), far], EvalSettings(by_subject=True))
    values = {(row.group, row.subject): row.figures["MPJPE"] for row in report.rows if row.setting == "Single"}
    still, moved = values["Walking", ""], values["Eating", ""]
    assert values[AVERAGE, ""] == pytest.approx((still + moved) / 2) and values[POOLED, ""] == pytest.approx((still + 3 * moved) / 4)
    assert values["Walking", "S9"] == values[AVERAGE, "S9"] == still and values["Eating", "S11"] == moved
    by_clip = measured(Stub(), [clip(), clip(view="1")], EvalSettings(group="sequence"))
    assert {row.group for row in by_clip.rows} == {"S9/Walking 1/0", "S9/Walking 1/1", AVERAGE, POOLED}


def test_alignment_takes_turns_and_sizes_away() -> None:
    turn = torch.linalg.matrix_exp(torch.tensor([[0.0, -0.3, 0.1], [0.3, 0.0, 0.2], [-0.1, -0.2, 0.0]]))

    def turned(pose: Tensor, keypoints: Tensor, noise: Tensor) -> Tensor:
        return pose @ turn.T * (1 + 0.1 * noise[..., :1, :1])

    report = measured(Stub(turned), [clip()], EvalSettings(hypotheses=3, p2=True))
    for setting in report.setting_names:
        assert report.value("P-MPJPE", setting) == pytest.approx(0, abs=2e-2) and report.value("MPJPE", setting) > 10


def test_bone_lengths() -> None:
    joint = H36M_17.joints.index("left_wrist")
    elbow = H36M_17.joints.index("left_elbow")

    direction = (person(H36M_17)[joint] - person(H36M_17)[elbow]).numpy()
    direction /= np.linalg.norm(direction)

    def longer(pose: Tensor, keypoints: Tensor, noise: Tensor) -> Tensor:
        pose = pose.clone()
        bone = pose[..., joint, :] - pose[..., elbow, :]
        pose[..., joint, :] += 0.06 * torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0])[:, None] * bone / bone.norm(dim=-1, keepdim=True)
        return pose

    plain, changed = (measured(stub, [clip(frames=F)]) for stub in (Stub(), Stub(longer)))
    row = changed.row("Single")
    assert [name for name, value in zip(changed.bones, row.bones, strict=True) if value > 0.1] == ["left_elbow->left_wrist"]
    assert row.coordinates == pytest.approx([60 * 2 / 5 / J * abs(way) for way in direction], rel=1e-3)
    assert plain.value("consistency", "Single") == pytest.approx(0, abs=1e-2)
    deviation = 60 * np.std([0, 1, 0, 1, 0], ddof=1) / 16
    assert changed.value("consistency", "Single") == pytest.approx(deviation, rel=1e-3)
    assert changed.value("MPJVE", "Single") == pytest.approx(60 / 17, rel=1e-3)
    assert changed.value("velocity", "Single") == pytest.approx(50 * 60 / 17, rel=1e-3)
    assert changed.value("acceleration", "Single") == pytest.approx(120 / 17, rel=1e-3)
    lengths = [np.linalg.norm(person(H36M_17)[child] - person(H36M_17)[parent]) for parent, child in H36M_17.edges]
    pairs = [abs(lengths[left - 1] - lengths[right - 1]) for left, right in zip(H36M_17.left, H36M_17.right, strict=True)]
    assert plain.value("symmetry", "Single") == pytest.approx(1000 * np.mean(pairs), rel=1e-3)
    assert plain.row("Single").pairs[:-1] == pytest.approx([1000 * pair for pair in pairs], rel=1e-3)
    left, right = (
        float(np.linalg.norm(person(H36M_17)[H36M_17.joints.index(f"{side}_shoulder")] - person(H36M_17)[7])) for side in ("left", "right")
    )
    instead = 1000 * (sum(pairs) - pairs[3] + abs(left - right)) / 6  # the published bones have the shoulders at the spine
    assert plain.value("legacy symmetry", "Single") == pytest.approx(instead, rel=1e-3) and plain.pairs[3] == "neck->shoulder"


def test_consistency_is_that_of_windows() -> None:
    def growing(pose: Tensor, keypoints: Tensor, noise: Tensor) -> Tensor:
        return pose * (1 + 0.1 * (keypoints[:, None, None, :, :1, :1] > first))

    whole = clip(frames=10)
    first = float(whole.keypoints[5, 0, 0] * 2 / SIZE[0] - 1) - 1e-4  # two windows of five frames, each rigid
    report = measured(Stub(growing), [whole])
    assert report.value("consistency", "Single") == pytest.approx(0, abs=1e-2) and report.value("MPJPE", "Single") > 10
    padded = measured(Stub(noisy), [clip(frames=3)])
    assert padded.value("consistency", "Single") == pytest.approx(padded.value("legacy consistency", "Single"), rel=0.2)


def test_what_is_occluded_is_not_seen_by_anything() -> None:
    def told(pose: Tensor, keypoints: Tensor, noise: Tensor) -> Tensor:
        seen.append(keypoints)
        return pose + 0.05 * noise

    seen: list[Tensor] = []
    stub = Stub(told)
    stub.config = dataclasses.replace(stub.config, hidden="zero")
    clips = [clip(frames=27), clip("Eating", frames=13)]
    occluded = EvalSettings(hypotheses=4, occlusion=OcclusionConfig("joints:0.4", limbs="left_arm"), worst=True)
    one, other = (measured(stub, clips, dataclasses.replace(occluded, batch=batch)) for batch in (1, 9))
    torch.testing.assert_close(torch.cat(seen[:9]), seen[9])
    assert [row.figures for row in one.rows] == [pytest.approx(row.figures, rel=1e-5) for row in other.rows]
    hidden = (seen[9] == 0).all(-1)
    assert hidden.any((0, 1)).nonzero().flatten().tolist() == [11, 12, 13]
    assert hidden[:5].sum() + hidden[5, 3:].sum() == 10 * 3 and torch.equal(hidden[4, 2:], hidden[5, :3])  # windows begin at ..., 20, 22
    assert "keypoints are occluded: joints:0.4 of left_arm" in one.notes
    worst, single, best = (one.value("MPJPE", name) for name in ("P-Worst", "Single", "P-Best"))
    assert worst > single > best and single > measured(stub, clips, EvalSettings(hypotheses=4)).value("MPJPE", "Single")

    everything = dataclasses.replace(occluded, occlusion=OcclusionConfig("random:1"))
    blind = measured(Stub(told), clips, everything)
    assert blind.value("MPJPE", "J-Agg (solved root)") == pytest.approx(blind.value("MPJPE", "P-Agg"))
    noise = dataclasses.replace(occluded, occlusion=OcclusionConfig("noise:20"))
    assert measured(Stub(), clips, noise).value("MPJPE", "Single") == pytest.approx(
        20 / 1100 * 5000 * np.sqrt(np.pi / 2) * 1.41 * 16 / 17, rel=0.25
    )


def test_expected_minimum_is_the_mean_over_subsets() -> None:
    errors = torch.rand(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = expected_minimum(errors)
    for m in range(1, 6):
        subsets = [errors[:, list(subset)].amin(1) for subset in itertools.combinations(range(5), m)]
        torch.testing.assert_close(found[:, m - 1], torch.stack(subsets).mean(0))
    report = measured(Stub(noisy), [clip()], EvalSettings(hypotheses=4, steps=2))
    last = report.uncertainty[-1]
    assert last["pose curve"][-1] == pytest.approx(report.value("MPJPE", "P-Best"), rel=1e-4)
    assert last["joint curve"][-1] == pytest.approx(report.value("MPJPE", "J-Best"), rel=1e-4)
    assert last["joint curve"][0] == pytest.approx(last["pose curve"][0], rel=1e-4)
    assert last["exchangeable"] == 60 and last["spread"] == pytest.approx(50 * np.sqrt(3 * 0.75 * 16 / 17), rel=0.1)


def test_a_report_goes_to_json_and_back() -> None:
    report = measured(Stub(noisy), [clip(), clip("Eating"), clip("Eating", subject="S11")], dataclasses.replace(FULL, by_subject=True))
    text = report.to_json()
    assert Report.from_json(text) == report and json.loads(text)["settings"]["p2"] is True
    rows = report.flat()
    assert len(rows) == len(report.rows) and len({tuple(row) for row in rows}) == 1
    assert rows[0]["MPJPE mm"] == report.rows[0].figures["MPJPE"] and rows[0]["action"] == "Walking"
    for table in report.tables():
        assert table.rows and all(len(row) == len(table.header) for row in table.rows)
    lines = report.log_lines()
    value = report.value("MPJPE", "J-Best", 1, "Eating")
    assert f"step 1 : Protocol #1 Error (MPJPE) J_Best: {value:.6f} mm" in lines[lines.index("----Eating----") :]
    assert f"step 0 Protocol #1   (MPJPE) action-wise average P_Agg: {report.value('MPJPE', 'P-Agg', 0):.6f} mm" in lines
    with pytest.raises(InputError, match="x.json: not a report"):
        Report.from_json('{"rows": []}', "x.json")


def test_what_reaches_the_bound_is_told() -> None:
    def far(pose: Tensor, keypoints: Tensor, noise: Tensor) -> Tensor:
        pose = 0 * pose
        pose[..., 3, 1] = -9
        return pose.clamp(-1.1, 1.1)

    assert measured(Stub(far), [clip()]).clamped == pytest.approx(100 / (3 * J))


def test_poses_are_handed_over() -> None:
    kept: dict[tuple[str, str], Tensor] = {}
    done: list[tuple[int, int]] = []
    clips = [clip(), clip("Eating", 3)]
    measured(
        Stub(), clips, EvalSettings(steps=2, batch=2), keep=lambda film, name, poses: kept.update({(film.action, name): poses}),
        progress=lambda *state: done.append(state),
    )  # fmt: skip
    assert done == [(2, 4), (4, 4)]
    for some in clips:
        assert some.joints is not None
        truth = torch.from_numpy(some.joints - some.joints[:, :1]).expand(2, -1, -1, -1)
        torch.testing.assert_close(kept[some.action, "J-Agg (solved root)"], truth, atol=1e-4, rtol=0)


def test_bootstrap_of_paired_runs() -> None:
    generator = torch.Generator().manual_seed(0)
    a = 40 + 5 * torch.randn(200, generator=generator)
    assert paired_bootstrap(a, a, generator) == (0, 0, 0, 1)
    b = a - 1 + torch.randn(200, generator=generator)
    found = paired_bootstrap(a, b, generator)
    assert found.low < found.mean < found.high and found.low > 0.7 and found.p == 0
    width = found.high - found.low
    assert width == pytest.approx(2 * 1.96 / 200**0.5, rel=0.2)
    again = paired_bootstrap(a.repeat(4), b.repeat(4), generator, takes=list(range(200)) * 4)  # four views tell no more than one
    assert again.high - again.low == pytest.approx(width, rel=0.15)
    with pytest.raises(InputError, match="expected"):
        paired_bootstrap(a, b[:-1], generator)


def test_clips_that_cannot_be_measured_are_named() -> None:
    for clips, message in (
        ([], "found none"),
        ([dataclasses.replace(clip(), joints=None)], "S9/Walking 1/0: no 3D joints"),
        ([clip(layout=MPI_INF_3DHP_17)], "the model's h36m17"),
        ([clip(), clip()], "found twice"),
    ):
        with pytest.raises(InputError, match=message):
            measured(Stub(), clips)
    with pytest.raises(InputError, match="scope: 'clip', expected one of frame, window, batch"):
        EvalSettings(scope=cast(Any, "clip"))
    with pytest.raises(InputError, match="steps: 0"):
        EvalSettings(steps=0)
    notes = measured(Stub(), [dataclasses.replace(clip(), lens=None, fps=25.0)]).notes
    assert len(notes) == 2 and "no camera" in notes[0] and "another rate" in notes[1]
