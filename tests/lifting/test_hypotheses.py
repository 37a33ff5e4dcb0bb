"""Aggregates: orderings, equivariances, and the root solved from the keypoints."""

from typing import Any

import numpy as np
import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dposer.body.skeleton import H36M_17, MPI_INF_3DHP_17
from dposer.errors import InputError
from dposer.geometry.lens import Lens, screen
from dposer.lifting.hypotheses import (
    AGGREGATES,
    geometric_median,
    joint_agg,
    joint_best,
    limb_agg,
    limbs,
    mean_pose,
    pose_best,
    soft_agg,
    solve_root,
)
from dposer.metrics.poses import mpjpe

LENS = Lens.of((1145.0, 1143.8), (512.5, 515.5), (-0.207, 0.248, -0.003), (-0.001, -0.0014))
F, J = 5, 17


def scene(seed: int, hypotheses: int, windows: int = 2) -> dict[str, Any]:
    """Hypotheses around a truth, where it stands, and its keypoints."""
    generator = torch.Generator().manual_seed(seed)
    truth = 0.4 * torch.randn(windows, F, J, 3, generator=generator)
    truth[..., 0, :] = 0
    h = truth[:, None] + 0.05 * torch.randn(windows, hypotheses, F, J, 3, generator=generator)
    h[..., 0, :] = 0
    root = torch.tensor([0.3, -0.2, 5.0]) + 0.2 * torch.randn(windows, F, 3, generator=generator)
    return {"h": h, "truth": truth, "root": root, "keypoints": LENS.project(truth + root[..., None, :]), "lens": LENS, "layout": H36M_17}


def all_aggregates(s: dict[str, Any], h: Tensor) -> dict[str, Tensor]:
    known = {key: s[key] for key in ("root", "keypoints", "lens", "layout")}
    return {name: combine(h, **known) for name, combine in AGGREGATES.items()}


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 6))
def test_best_ones_are_ordered(seed: int, hypotheses: int) -> None:
    s = scene(seed, hypotheses)
    h, truth = s["h"].double(), s["truth"].double()
    poses = [joint_best(h, truth), *(pose_best(h, truth, scope) for scope in ("frame", "window", "batch"))]
    errors = [float(mpjpe(pose, truth).mean()) for pose in poses]
    single = [float(e) for e in mpjpe(h, truth[:, None]).mean((0, 2))]
    assert errors == sorted(errors)
    assert errors[-1] == pytest.approx(min(single))
    assert errors[0] <= float(mpjpe(joint_agg(h, s["root"], s["keypoints"], LENS), truth).mean())


def test_one_hypothesis_is_every_aggregate() -> None:
    s = scene(0, 1)
    poses = [pose_best(s["h"], s["truth"], "batch"), joint_best(s["h"], s["truth"]), *all_aggregates(s, s["h"]).values()]
    for pose in poses:
        torch.testing.assert_close(pose, s["h"][:, 0])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.permutations(range(4)))
def test_order_of_hypotheses_does_not_matter(seed: int, order: list[int]) -> None:
    s = scene(seed, 4)
    for one, other in zip(all_aggregates(s, s["h"]).values(), all_aggregates(s, s["h"][:, order]).values(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31))
def test_mean_median_and_bests_turn_and_move_with_the_person(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    s = scene(seed, 4)
    h, truth = s["h"].double(), s["truth"].double()
    turn = roma.special_procrustes(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    shift = torch.randn(3, generator=generator, dtype=torch.float64)

    def moved(points: Tensor) -> Tensor:
        return points @ turn.T + shift

    for combine in (mean_pose, geometric_median):
        torch.testing.assert_close(combine(moved(h)), moved(combine(h)))
    torch.testing.assert_close(pose_best(moved(h), moved(truth)), moved(pose_best(h, truth)))
    torch.testing.assert_close(joint_best(moved(h), moved(truth)), moved(joint_best(h, truth)))


def test_joints_are_chosen_by_their_own_keypoints() -> None:
    s = scene(3, 4)
    h = s["h"].clone()
    right = torch.randint(4, (2, 1, F, J, 1), generator=torch.Generator().manual_seed(0))
    h.scatter_(1, right.expand(-1, -1, -1, -1, 3), s["truth"][:, None])  # somewhere each joint is right
    torch.testing.assert_close(joint_agg(h, s["root"], s["keypoints"], LENS), s["truth"])
    each = s["root"][:, None].expand(-1, 4, -1, -1)
    torch.testing.assert_close(joint_agg(h, each, s["keypoints"], LENS), s["truth"])
    torch.testing.assert_close(soft_agg(h, s["root"], s["keypoints"], LENS, temperature=1e-3), s["truth"], atol=1e-4, rtol=0)
    many = soft_agg(h, s["root"], s["keypoints"], LENS, temperature=1e9)
    torch.testing.assert_close(many, mean_pose(h))
    confidence = torch.ones(2, F, J)
    confidence[:, :, 3] = 0
    partly = joint_agg(h, s["root"], s["keypoints"], LENS, confidence)
    torch.testing.assert_close(partly[:, :, 3], mean_pose(h)[:, :, 3])
    torch.testing.assert_close(partly[:, :, 4], s["truth"][:, :, 4])


def test_the_unit_of_the_picture_does_not_matter() -> None:
    s = scene(5, 4)
    size = (1000, 1002)
    small = s | {"keypoints": screen(s["keypoints"], size), "lens": LENS.on_screen(size)}
    for one, other in zip(all_aggregates(s, s["h"]).values(), all_aggregates(small, s["h"]).values(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_a_limb_is_of_one_hypothesis() -> None:
    assert [limbs(MPI_INF_3DHP_17).count(limb) for limb in ("left_arm", "right_arm", "left_leg", "right_leg", "trunk")] == [3, 3, 3, 3, 5]
    s = scene(4, 5)
    pose = limb_agg(s["h"], s["root"], s["keypoints"], LENS, H36M_17)
    which = (pose[:, None] == s["h"]).all(-1).float().argmax(1)[..., 1:]  # the root is the same in all
    for limb in set(limbs(H36M_17)):
        rows = [i - 1 for i, name in enumerate(limbs(H36M_17)) if name == limb and i]
        assert (which[..., rows] == which[..., rows[:1]]).all()


def test_median_resists_strays() -> None:
    s = scene(6, 7)
    h = s["h"].clone()
    h[:, :2] += 3.0
    assert float((geometric_median(h) - s["truth"]).norm(dim=-1).max()) < 0.35 < float((mean_pose(h) - s["truth"]).norm(dim=-1).min())


def test_root_is_found_where_it_is() -> None:
    s = scene(7, 3)
    exact = s["truth"][:, None].expand(-1, 3, -1, -1, -1)
    each = s["root"][:, None].expand(-1, 3, -1, -1)
    torch.testing.assert_close(solve_root(exact, s["keypoints"], LENS), each, atol=2e-3, rtol=0)  # of 5 m, keypoints being float32
    confidence = torch.ones(2, F, J)
    confidence[:, :, 5] = 0
    spoilt = s["keypoints"].clone()
    spoilt[:, :, 5] = torch.nan
    torch.testing.assert_close(solve_root(exact, spoilt, LENS, confidence), each, atol=2e-3, rtol=0)


def test_root_lays_a_wrong_pose_over_the_keypoints() -> None:
    """At the solution the error in the picture has no slope: a step in any direction makes it larger."""
    s = scene(8, 2)
    h = s["h"].double()
    found = solve_root(h, s["keypoints"], LENS, iterations=8)

    def error(root: Tensor) -> Tensor:
        return (LENS.to(h).project(h + root[..., None, :]) - s["keypoints"][:, None]).square().sum((-2, -1))

    at = error(found)
    for axis, step in ((0, 0.02), (1, 0.02), (2, 0.2)):
        for sign in (-1, 1):
            away = found.clone()
            away[..., axis] += sign * step
            assert (error(away) > at).all()


def test_frames_that_do_not_tell_lie_between_those_that_do() -> None:
    s = scene(9, 2, windows=1)
    h, root = s["truth"][0].expand(2, -1, -1, -1), s["root"][0]
    confidence = torch.ones(F, J)
    confidence[2] = 0
    confidence[4, 1:] = 0  # one keypoint tells the ray, not the depth
    found = solve_root(h, s["keypoints"][0], LENS, confidence)
    torch.testing.assert_close(found[0, 2], (root[1] + root[3]) / 2, atol=2e-3, rtol=0)
    assert float(found[0, 4, 2]) == pytest.approx(float(root[3, 2]), abs=2e-3)
    torch.testing.assert_close(LENS.project(found[0, 4:, None])[0, 0], s["keypoints"][0, 4, 0], atol=0.1, rtol=0)
    nothing = solve_root(h, s["keypoints"][0], LENS, torch.zeros(F, J))
    torch.testing.assert_close(nothing, torch.tensor([0.0, 0.0, 4.0]).expand(2, F, 3))
    assert solve_root(h * 0, torch.zeros(F, J, 2), LENS).isfinite().all()


def test_smoothing_takes_the_shaking_out_of_depth_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = 0.4 * torch.randn(J, 3, generator=generator).expand(60, -1, -1)
    root = torch.tensor([0.2, 0.1, 4.5]).expand(60, 3)
    keypoints = LENS.project(truth + root[:, None]) + 3 * torch.randn(60, J, 2, generator=generator)
    rough, smooth = (solve_root(truth[None], keypoints, LENS, smooth=frames)[0] for frames in (0.0, 5.0))
    assert np.std(smooth[:, 2].numpy()) < 0.5 * np.std(rough[:, 2].numpy())
    assert float((smooth - root).norm(dim=-1).mean()) < float((rough - root).norm(dim=-1).mean())


def test_what_an_aggregate_lacks_is_named() -> None:
    s = scene(0, 2)
    with pytest.raises(InputError, match="limb_agg: lacks root, layout"):
        AGGREGATES["limb"](s["h"], keypoints=s["keypoints"], lens=LENS)
