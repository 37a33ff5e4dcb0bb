"""Bodies fitted to points of a body that is known: what comes back, and what must not change it."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import roma
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dposer.assets import asset
from dposer.body import BodyModel
from dposer.body.points import BodyPoints, Place, Skeleton
from dposer.body.skeleton import LAYOUTS, SMPLX_22
from dposer.data.amass import read_amass
from dposer.errors import InputError
from dposer.prior import PosePrior
from dposer.solvers.motion_denoising import denoise_motion, simulate
from dposer.solvers.motion_fitting import MotionFit, NewtonSettings, Points, anneal_for, estimate_noise, fit_joints, fit_motion, unwrapped
from dposer.solvers.pose_terms import Anneal, GaussianTerm

FRAMES = 20
SHAPE = torch.tensor([1.2, -0.8, 0.5, *7 * [0.0]])
MARKERS = [Place(f"M{vertex}", {vertex: 1.0}, distance=0.0095) for vertex in range(100, 13400, 250)]
EFFECTORS = ("pelvis", "left_wrist", "right_wrist", "left_ankle", "right_ankle", "head")
QUICK = NewtonSettings(steps=6, robust=3.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(like: Tensor, seed: int) -> Tensor:
    return torch.randn(like.shape, generator=seeded(seed))


@dataclasses.dataclass(frozen=True)
class Motion:
    """F frames as a :class:`MotionFit` has them."""

    pose_body: Tensor
    root_orient: Tensor
    trans: Tensor
    betas: Tensor

    def __getitem__(self, rows: slice) -> "Motion":
        return Motion(self.pose_body[rows], self.root_orient[rows], self.trans[rows], self.betas)


Placed = Callable[..., Tensor]


@pytest.fixture(scope="module")
def placed(body: BodyModel) -> Placed:
    """placed(motion, what=SMPLX_22): where a body in motion has its points (F, K, 3)."""
    skeleton = Skeleton(body)

    def place(motion: Motion | MotionFit, what: Points = SMPLX_22) -> Tensor:
        if isinstance(what, str):
            what = LAYOUTS[what]
        points = BodyPoints(body, what) if isinstance(what, list) else BodyPoints.of_layout(body, what)  # type: ignore[arg-type]
        betas = torch.atleast_2d(motion.betas).expand(len(motion.trans), -1)
        return points(skeleton(motion.pose_body, roma.rotvec_to_rotmat(motion.root_orient), motion.trans, betas), betas)

    return place


@pytest.fixture(scope="module")
def motion(poses: Tensor) -> Motion:
    """Somebody who is not of mean shape goes from one pose to another, turns and walks upright."""
    u = torch.linspace(0, 1, FRAMES)[:, None]
    ease = 0.5 - 0.5 * torch.cos(math.pi * u)
    upright = torch.tensor([math.pi / 2, 0, 0]).expand(FRAMES, 3)
    turn = torch.cat((0 * u, 0 * u, 1.5 * ease), 1)
    trans = torch.cat((0.9 * u, 0.4 * ease, 1 + 0.04 * torch.sin(6 * u)), 1)
    return Motion(torch.lerp(poses[0], poses[1], 0.6 * ease), roma.rotvec_composition((turn, upright)), trans, SHAPE)


@pytest.fixture(scope="module")
def joints(placed: Placed, motion: Motion) -> Tensor:
    return placed(motion)


@pytest.fixture(scope="module")
def clip() -> Motion:
    """A real walk, 8 s."""
    sequence = read_amass(asset("examples", "motion.npz"))
    pose, root, trans = (torch.as_tensor(part) for part in (sequence.pose_body, sequence.root_orient, sequence.trans))
    return Motion(pose, root, trans, SHAPE)


def apart(found: Tensor, expected: Tensor) -> Tensor:
    """Distances in mm."""
    return 1000 * torch.linalg.vector_norm(found - expected, dim=-1)


def acceleration(points: Tensor) -> Tensor:
    """(F - 2, K)."""
    return torch.linalg.vector_norm(points.diff(n=2, dim=0), dim=-1)


# ---- how much it errs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outliers", [0.0, 0.05])
@pytest.mark.parametrize("noise", [0.005, 0.02, 0.05, 0.1])
def test_the_noise_of_a_motion_is_found(placed: Placed, clip: Motion, noise: float, outliers: float) -> None:
    clean = placed(clip)
    noisy = clean + noise * normal(clean, 1)
    wild = torch.rand(clean.shape[:2], generator=seeded(2)) < outliers
    noisy[wild] += normal(clean, 3)[wild]
    noisy[torch.rand(clean.shape[:2], generator=seeded(4)) < 0.1] = math.nan
    found = estimate_noise(noisy.numpy(), SMPLX_22.edges)
    assert found == pytest.approx(noise, rel=0.25 if outliers else 0.15)
    assert estimate_noise(1000 * noisy.numpy(), SMPLX_22.edges) == pytest.approx(1000 * found, rel=1e-3)


def test_movement_is_not_taken_for_noise(placed: Placed, clip: Motion) -> None:
    clean = placed(clip).double().numpy()
    assert estimate_noise(clean, SMPLX_22.edges) < 1e-6
    assert 1e-4 < estimate_noise(clean) < 0.01  # without limbs only what is smooth tells
    line = np.arange(40.0)[:, None, None] * np.ones((40, 22, 3)) + np.random.default_rng(0).normal(0, 0.3, (40, 22, 3))
    assert estimate_noise(line) == pytest.approx(0.3, rel=0.15)
    assert estimate_noise(line, SMPLX_22.edges) <= estimate_noise(line)


def test_too_little_tells_nothing_of_noise() -> None:
    assert estimate_noise(np.zeros((3, 22, 3)), SMPLX_22.edges) == 0 and estimate_noise(np.full((9, 22, 3), np.nan), SMPLX_22.edges) == 0


def test_levels_rise_with_the_noise() -> None:
    levels = [anneal_for(noise) for noise in (1e-4, 0.005, 0.02, 0.04, 0.1, 5.0)]
    assert all(a.first <= b.first and a.last <= b.last and a.first > a.last > 0 for a, b in zip(levels, levels[1:], strict=False))


# ---- turns without jumps -----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(*3 * [st.floats(-7, 7)]) | st.sampled_from([(0.0, 0.0, 0.0), (math.pi, 0.0, 0.0)]), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_unwrapped_turns_are_the_same_and_do_not_jump(rotvecs: list[tuple[float, float, float]]) -> None:
    wrapped = torch.tensor(rotvecs, dtype=torch.float64)
    found = unwrapped(wrapped)
    torch.testing.assert_close(roma.rotvec_to_rotmat(found), roma.rotvec_to_rotmat(wrapped), atol=1e-6, rtol=0)
    assert torch.equal(found[0], wrapped[0])
    for before, after in zip(found, found[1:], strict=False):
        step, axis = after - before, torch.nn.functional.normalize(after, dim=0)
        assert abs(float(step @ axis)) <= math.pi + 1e-6  # a whole turn more or less about its own axis is never nearer


@pytest.mark.parametrize("axis", [(0.0, 0.0, 1.0), (0.6, 0.0, -0.8), (1.0, 0.0, 0.0)])
def test_a_pirouette_is_one_steady_turn(axis: tuple[float, float, float]) -> None:
    angles = torch.linspace(0.2, 14, 60)
    steady = angles[:, None] * torch.tensor(axis)
    wrapped = roma.rotmat_to_rotvec(roma.rotvec_to_rotmat(steady))
    assert float(wrapped.diff(dim=0).norm(dim=-1).max()) > math.pi
    torch.testing.assert_close(unwrapped(wrapped), steady, atol=1e-4, rtol=0)


# ---- motions -----------------------------------------------------------------------------------------------------------


def holed(points: Tensor) -> Tensor:
    """One point in ten is missing, the left hand for a while and three frames altogether."""
    holes = torch.rand(points.shape[:2], generator=seeded(9)) < 0.1
    holes[12:16, SMPLX_22.joints.index("left_wrist")] = True
    holes[8:11] = True
    return torch.where(holes[..., None], math.nan, points)


def test_a_clean_motion_is_recovered(body: BodyModel, prior: PosePrior, placed: Placed, motion: Motion, joints: Tensor) -> None:
    measured = holed(joints)
    fit = fit_motion(prior, measured, body=body, generator=seeded())
    errors = apart(placed(fit), joints)
    assert float(errors.mean()) < 1.5 and float(errors.max()) < 20 and float(errors[8:11].mean()) < 3
    torch.testing.assert_close(fit.betas[:2], SHAPE[:2], atol=0.15, rtol=0)
    torch.testing.assert_close(fit.trans, motion.trans, atol=0.01, rtol=0)
    torch.testing.assert_close(fit.points, placed(fit), atol=1e-5, rtol=0)
    torch.testing.assert_close(fit.residuals, torch.linalg.vector_norm(fit.points - measured, dim=-1), equal_nan=True)
    assert torch.equal(fit.residuals.isnan(), measured.isnan().any(-1)) and fit.betas.shape == (10,)
    assert float(fit.root_orient.diff(dim=0).norm(dim=-1).max()) < 0.3
    assert fit.times is not None and 1 > fit.times[0] > fit.times[1] > 0


@pytest.mark.parametrize("with_prior", [True, False])
def test_noise_holes_and_outliers_are_overcome(body: BodyModel, prior: PosePrior, placed: Placed, joints: Tensor, with_prior: bool) -> None:
    noisy = joints + 0.02 * normal(joints, 1)
    raw = float(apart(noisy, joints).mean())
    measured = holed(noisy)
    measured[5, 7] += 1.0  # an ankle that is a metre away, and a head
    measured[17, 15, 2] -= 2.0
    fit = fit_motion(prior if with_prior else None, measured, body=body, generator=seeded())
    errors = apart(placed(fit), joints)
    assert float(errors.mean()) < (0.45 if with_prior else 0.6) * raw
    assert float(errors[5, 7]) < 80 and float(errors[17, 15]) < 80 and float(errors[8:11].mean()) < 1.2 * raw
    assert fit.noise_std == pytest.approx(0.02, rel=0.2) and (fit.times is None) == (not with_prior)


def test_an_outlier_moves_nothing(body: BodyModel, prior: PosePrior, placed: Placed, joints: Tensor) -> None:
    measured = joints.clone()
    measured[5, SMPLX_22.joints.index("left_ankle"), 0] += 1.0
    errors = apart(placed(fit_motion(prior, measured, body=body, settings=QUICK, generator=seeded())), joints)
    assert float(errors.median()) < 1 and float(errors.max()) < 10


def test_the_prior_brings_a_real_walk_nearer(body: BodyModel, prior: PosePrior, placed: Placed, clip: Motion) -> None:
    clean = placed(clip[60:80])
    noisy = clean + 0.03 * normal(clean, 6)
    with_prior, without = (
        float(apart(placed(fit_motion(some, noisy, body=body, noise_std=0.03, generator=seeded())), clean).mean()) for some in (prior, None)
    )
    assert with_prior < without and with_prior < 0.5 * float(apart(noisy, clean).mean())


@pytest.mark.parametrize("what", ["h36m17", "openpose25", "markers"])
def test_other_points_will_do(body: BodyModel, prior: PosePrior, placed: Placed, motion: Motion, joints: Tensor, what: str) -> None:
    points: Points = MARKERS if what == "markers" else what
    measured = placed(motion, points)[:12]
    fit = fit_motion(prior, measured + 0.005 * normal(measured, 3), points, body=body, settings=QUICK, generator=seeded())
    assert float(apart(placed(fit), joints[:12]).mean()) < 25 and float(fit.residuals.mean()) < 0.012


def test_names_and_layouts_are_the_same(body: BodyModel, joints: Tensor) -> None:
    fit = partial(fit_motion, None, joints[:4], body=body, noise_std=0.01, settings=dataclasses.replace(QUICK, steps=3))
    for what in ("smplx22", SMPLX_22.joints):
        torch.testing.assert_close(fit(what=what).pose_body, fit().pose_body, atol=1e-3, rtol=0)


def test_windows_leave_no_seams(body: BodyModel, prior: PosePrior, placed: Placed, clip: Motion) -> None:
    clean = placed(clip[100:130])
    noisy = clean + 0.01 * normal(clean, 2)
    steps: list[tuple[int, int]] = []
    fit = partial(fit_motion, prior, noisy, body=body, noise_std=0.01, settings=QUICK)
    whole = placed(fit(generator=seeded()))
    windows = placed(fit(window=14, overlap=4, generator=seeded(), progress=lambda *step: steps.append(step)))
    assert steps == [(10, 30), (20, 30), (30, 30)]
    assert float(apart(windows, whole).mean()) < 2.0 and float(apart(windows, clean).mean()) < 1.1 * float(apart(whole, clean).mean())
    bends, own = acceleration(windows), acceleration(whole)
    borders = [start + k for start in (10, 20) for k in (-2, -1, 0)]
    assert float(bends[borders].mean()) < 1.3 * float(own[borders].mean())


def test_same_seed_same_motion(body: BodyModel, prior: PosePrior, joints: Tensor) -> None:
    noisy = joints[:5] + 0.02 * normal(joints[:5], 1)
    fit = partial(fit_motion, prior, noisy, body=body, settings=dataclasses.replace(QUICK, steps=2))
    one, other, third = (fit(generator=seeded(seed)).pose_body for seed in (7, 7, 8))
    assert torch.equal(one, other) and not torch.equal(one, third)


def test_no_confidence_is_nothing_measured(body: BodyModel, joints: Tensor) -> None:
    noisy = joints[:6] + 0.02 * normal(joints[:6], 1)
    gone = torch.rand(noisy.shape[:2], generator=seeded(3)) < 0.2
    fit = partial(fit_motion, None, body=body, settings=QUICK)
    absent = fit(torch.where(gone[..., None], math.nan, noisy))
    doubted = fit(torch.where(gone[..., None], 1e3, noisy), confidence=1 - gone.float())
    assert torch.equal(absent.pose_body, doubted.pose_body) and absent.noise_std == doubted.noise_std
    assert torch.equal(absent.residuals.isnan(), gone) and torch.equal(doubted.residuals.isnan(), gone)


@pytest.mark.parametrize("trust", [0.01, 0.3, 1.0])
def test_a_point_counts_by_its_confidence(body: BodyModel, trust: float) -> None:
    """One joint that is wanted in two places goes to their weighted mean."""
    targets, confidence = torch.tensor([[[0.0, 0.0, 1.0], [0.2, 0.1, 1.0]]]), torch.tensor([[1.0, trust]])
    found = fit_joints(targets, ("pelvis", "pelvis"), confidence=confidence, body=body).points[0]
    torch.testing.assert_close(found, ((targets[0, 0] + trust * targets[0, 1]) / (1 + trust)).expand(2, 3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("betas", [SHAPE, SHAPE[:3], torch.zeros(10)])
def test_a_known_shape_is_kept(body: BodyModel, joints: Tensor, betas: Tensor) -> None:
    fit = fit_motion(None, joints[:5], betas=betas, body=body, settings=QUICK)
    assert torch.equal(fit.betas, torch.nn.functional.pad(betas, (0, 10 - len(betas))))
    if bool(betas.any()):
        assert float(fit.residuals.mean()) < 0.003
    else:  # what another shape cannot explain counts as noise
        assert float(fit.residuals.mean()) > 0.005 and fit.noise_std > 0.003


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_very_short_motions(body: BodyModel, prior: PosePrior, placed: Placed, joints: Tensor, frames: int) -> None:
    fit = fit_motion(prior, joints[:frames], body=body, generator=seeded())
    assert fit.pose_body.shape == (frames, 63) and float(apart(placed(fit), joints[:frames]).mean()) < 10


def test_one_frame_seen_of_many_is_held(body: BodyModel, prior: PosePrior, placed: Placed, joints: Tensor) -> None:
    measured = torch.full_like(joints[:8], math.nan)
    measured[3] = joints[3]
    found = placed(fit_motion(prior, measured, body=body, settings=QUICK, generator=seeded()))
    assert float(apart(found[3], joints[3]).mean()) < 20 and float(apart(found, found[3:4]).max()) < 200


@pytest.mark.parametrize("with_prior", [True, False])
def test_the_world_may_be_turned_and_moved(body: BodyModel, prior: PosePrior, placed: Placed, joints: Tensor, with_prior: bool) -> None:
    noisy = joints[:8] + 0.01 * normal(joints[:8], 1)
    turn, move = roma.rotvec_to_rotmat(torch.tensor([0.4, -1.0, 2.0])), torch.tensor([3.0, -2.0, 1.0])
    here, there = (
        placed(fit_motion(prior if with_prior else None, points, body=body, settings=QUICK, noise_std=0.01, generator=seeded()))
        for points in (noisy, noisy @ turn.T + move)
    )
    torch.testing.assert_close(there, here @ turn.T + move, atol=1e-3, rtol=0)


def test_the_prior_may_be_replaced(body: BodyModel, poses: Tensor, placed: Placed, joints: Tensor) -> None:
    """A Gaussian of great weight holds the pose at its mean, whatever was measured."""
    term = GaussianTerm(poses[3], 0.01 * torch.eye(63), weight=1e6)
    fit = fit_motion(None, joints[:2], body=body, settings=dataclasses.replace(QUICK, term=term))
    torch.testing.assert_close(fit.pose_body, poses[3].expand(2, 63), atol=0.01, rtol=0)
    assert fit.times is None


def test_a_motion_is_kept_as_amass_keeps_it(body: BodyModel, joints: Tensor) -> None:
    fit = fit_motion(None, joints[:3], body=body, settings=QUICK)
    sequence = fit.amass(25.0, "female")
    assert (sequence.fps, sequence.gender, len(sequence)) == (25.0, "female", 3)
    for name in ("pose_body", "root_orient", "trans", "betas"):
        np.testing.assert_array_equal(getattr(sequence, name), getattr(fit, name).numpy())
    single = fit_joints(joints[:2], body=body, fit_shape=True, settings=QUICK).amass(None)
    assert single.betas.shape == (10,) and single.gender == "neutral" and single.fps is None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"points": torch.zeros(5, 17, 3)}, r"shape \(5, 17, 3\), expected \(frames, 22, 3\)"),
        ({"points": torch.zeros(0, 22, 3)}, r"shape \(0, 22, 3\)"),
        ({"points": torch.zeros(22, 3)}, r"shape \(22, 3\)"),
        ({"points": torch.full((5, 22, 3), math.nan)}, "none is there"),
        ({"confidence": torch.zeros(5, 22)}, "none is there"),
        ({"points": 1000 * torch.rand(5, 22, 3)}, "metres across, expected metres; divide millimetres by 1000"),
        ({"confidence": torch.full((5, 22), 5.0)}, "confidence: expected numbers from 0 to 1"),
        ({"confidence": torch.full((5, 22), math.nan)}, "confidence: expected numbers from 0 to 1"),
        ({"confidence": torch.ones(22)}, r"confidence: shape \(22,\), expected \(5, 22\)"),
        ({"what": "smplx23"}, "'smplx23' does not exist, expected one of smplx"),
        ({"what": ("tail", "nose")}, "tail"),
        ({"what": [Place("far", {99999: 1.0})]}, "vertex 99999"),
        ({"noise_std": 0.0}, "noise_std = 0.0"),
        ({"noise_std": -1.0}, "noise_std = -1.0"),
        ({"noise_std": math.nan}, "noise_std = nan"),
        ({"noise_std": math.inf}, "noise_std = inf"),
        ({"fps": 0.0}, "fps = 0.0"),
        ({"fps": math.nan}, "fps = nan"),
        ({"window": 0, "overlap": 0}, "window = 0"),
        ({"window": 30, "overlap": 30}, "overlap = 30"),
        ({"overlap": 1}, "overlap = 1 frames, expected 2 <= overlap < window"),
        ({"betas": torch.zeros(11)}, r"betas: shape \(11,\)"),
        ({"betas": torch.zeros(0)}, r"betas: shape \(0,\)"),
        ({"betas": torch.zeros(5, 10)}, r"betas: shape \(5, 10\)"),
        ({"betas": torch.full((10,), math.nan)}, "betas: holds NaN"),
    ],
)
def test_bad_motions_are_told_in_one_line(body: BodyModel, change: dict[str, Any], complaint: str) -> None:
    arguments: dict[str, Any] = {"points": torch.zeros(5, 22, 3), "body": body}
    with pytest.raises(InputError, match=complaint) as raised:
        fit_motion(None, **(arguments | change))
    assert "\n" not in str(raised.value)


# ---- single poses ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def people(poses: Tensor) -> Motion:
    """Eight poses anywhere in the world, of mean shape."""
    generator = seeded(4)
    root = torch.randn(8, 3, generator=generator)
    return Motion(poses[100:500:50], root, torch.randn(8, 3, generator=generator), torch.zeros(10))


@pytest.mark.parametrize("with_prior", [True, False])
def test_end_effectors_are_reached(body: BodyModel, prior: PosePrior, placed: Placed, people: Motion, with_prior: bool) -> None:
    targets = placed(people)[:, [SMPLX_22.joints.index(name) for name in EFFECTORS]]
    fit = fit_joints(targets, EFFECTORS, prior if with_prior else None, body=body, generator=seeded())
    assert float(fit.residuals.max()) < (0.015 if with_prior else 0.002) and float(fit.residuals.mean()) < 0.004
    assert fit.betas.shape == (8, 10) and not fit.betas.any() and fit.points.shape == (8, 6, 3)
    if with_prior:
        assert float(prior.plausibility(fit.pose_body).score.mean()) > 20


def test_the_prior_decides_what_is_left_open(body: BodyModel, prior: PosePrior, placed: Placed, people: Motion) -> None:
    truth = placed(people)
    targets = truth[:, [SMPLX_22.joints.index(name) for name in EFFECTORS]]
    with_prior, without = (
        float(apart(placed(fit_joints(targets, EFFECTORS, some, body=body, generator=seeded())), truth).mean()) for some in (prior, None)
    )
    assert with_prior < without


def test_rows_stand_alone(body: BodyModel, placed: Placed, people: Motion) -> None:
    targets = placed(people)[:4].clone()
    targets[1, 5:15] = math.nan
    together = fit_joints(targets, body=body, fit_shape=True, settings=NewtonSettings(steps=10))
    for row in (1, 3):
        alone = fit_joints(targets[row : row + 1], body=body, fit_shape=True, settings=NewtonSettings(steps=10))
        torch.testing.assert_close(alone.points[0], together.points[row], atol=1e-3, rtol=0)
        torch.testing.assert_close(alone.betas[0], together.betas[row], atol=1e-2, rtol=0)


def test_markers_are_reached(body: BodyModel, prior: PosePrior, placed: Placed, people: Motion) -> None:
    fit = fit_joints(placed(people, MARKERS), MARKERS, prior, body=body, generator=seeded())
    assert float(fit.residuals.mean()) < 0.003
    assert float(apart(placed(fit), placed(people)).mean()) < 15


def test_a_shape_is_found_for_each(body: BodyModel, prior: PosePrior, placed: Placed, people: Motion) -> None:
    shapes = torch.zeros(8, 10)
    shapes[:, 0] = torch.linspace(-2.5, 2.5, 8)
    targets = placed(dataclasses.replace(people, betas=shapes))
    mean, own = (fit_joints(targets, "smplx22", prior, body=body, fit_shape=fit_shape, generator=seeded()) for fit_shape in (False, True))
    edges = torch.tensor(SMPLX_22.edges)

    def limbs(points: Tensor) -> Tensor:
        return (points[:, edges[:, 0]] - points[:, edges[:, 1]]).norm(dim=-1)

    wrong, right = ((limbs(placed(fit)) - limbs(targets)).abs().mean() for fit in (mean, own))
    assert float(right) < 0.3 * float(wrong) and float(own.residuals.mean()) < float(mean.residuals.mean())
    same_shapes = fit_joints(targets, betas=shapes, body=body)
    assert torch.equal(same_shapes.betas, shapes) and float(same_shapes.residuals.mean()) < 0.002


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"targets": torch.zeros(2, 3, 3)}, r"shape \(2, 3, 3\)"),
        ({"targets": torch.stack((torch.zeros(22, 3), torch.full((22, 3), math.nan)))}, "row 1 has no point"),
        ({"confidence": torch.cat((torch.zeros(1, 22), torch.ones(1, 22)))}, "row 0 has no point"),
        ({"what": "coco18"}, "coco18"),
        ({"noise_std": 0.0}, "noise_std = 0.0"),
        ({"betas": torch.zeros(3, 10)}, r"betas: shape \(3, 10\), expected 1 to 10 numbers, or such a row"),
        ({"betas": torch.tensor([math.inf])}, "betas: holds NaN or infinity"),
    ],
)
def test_bad_targets_are_told_in_one_line(body: BodyModel, change: dict[str, Any], complaint: str) -> None:
    arguments: dict[str, Any] = {"targets": torch.zeros(2, 22, 3), "body": body}
    with pytest.raises(InputError, match=complaint) as raised:
        fit_joints(**(arguments | change))
    assert "\n" not in str(raised.value)


# ---- the paper's experiment --------------------------------------------------------------------------------------------


def posed(body: BodyModel, poses: Tensor) -> Tensor:
    """(B, F, 22, 3) of body poses (B, F, 63)."""
    return body(poses.flatten(0, 1), vertices=None, joints="body").joints.unflatten(0, poses.shape[:2])


@pytest.fixture(scope="module")
def fragments(clip: Motion) -> Tensor:
    """(2, 16, 63)."""
    return torch.stack((clip.pose_body[:16], clip.pose_body[150:166]))


@pytest.mark.parametrize("noise", [None, 0.04])
def test_noise_falls(body: BodyModel, prior: PosePrior, fragments: Tensor, noise: float | None) -> None:
    joints = posed(body, fragments)
    noisy = simulate(joints, 0.04, seeded(1))
    steps: list[tuple[int, int]] = []
    found = denoise_motion(prior, noisy, noise_std=noise, body=body, generator=seeded(), progress=lambda *step: steps.append(step))
    assert found.shape == (2, 16, 63) and steps == [(k + 1, 12) for k in range(12)]
    assert bool((apart(posed(body, found), joints).mean((1, 2)) < 0.55 * apart(noisy, joints).mean((1, 2))).all())
    assert torch.equal(found, denoise_motion(prior, noisy, noise_std=noise, body=body, generator=seeded()))


def test_a_hidden_limb_stays_plausible(body: BodyModel, prior: PosePrior, fragments: Tensor) -> None:
    joints = posed(body, fragments)
    visible = torch.tensor([not name.startswith("left_") or "hip" in name for name in SMPLX_22.joints])
    found = denoise_motion(prior, joints, visible=visible, body=body, generator=seeded())
    errors = apart(posed(body, found), joints)
    assert bool(found.isfinite().all()) and float(errors[..., visible].mean()) < 3 and float(errors.max()) < 700
    assert float(prior.plausibility(found.flatten(0, 1)).score.mean()) > 20
    wild = torch.where(visible[:, None], joints, 1e6)
    assert torch.equal(found, denoise_motion(prior, wild, visible=visible, body=body, generator=seeded()))


def test_fragments_stand_alone(body: BodyModel, fragments: Tensor) -> None:
    noisy = simulate(posed(body, fragments), 0.04, seeded(1))
    together = denoise_motion(None, noisy, noise_std=0.04, body=body)
    alone = torch.stack([denoise_motion(None, points, noise_std=0.04, body=body) for points in noisy])
    assert float(apart(posed(body, together), posed(body, alone)).max()) < 1


def test_root_place_and_shape_are_taken_as_given(body: BodyModel, clip: Motion, placed: Placed) -> None:
    some = clip[40:52]
    found = denoise_motion(None, placed(some), root_orient=some.root_orient, trans=some.trans, betas=SHAPE[:3], body=body)
    assert float(apart(placed(dataclasses.replace(some, pose_body=found)), placed(some)).mean()) < 1


@pytest.mark.parametrize(
    "change",
    [
        {"freedom": None},
        {"bending": None},
        {"robust": 3.0},
        {"prior_weight": 0.0},
        {"prior_weight": 3.0},
        {"anneal": Anneal(1.0, 0.5, 0.1)},
    ],
)
def test_every_setting_solves(body: BodyModel, prior: PosePrior, fragments: Tensor, change: dict[str, Any]) -> None:
    joints = posed(body, fragments[:, :8])
    noisy = simulate(joints, 0.04, seeded(1))
    found = denoise_motion(prior, noisy, settings=NewtonSettings(**change), noise_std=0.04, body=body, generator=seeded())
    assert float(apart(posed(body, found), joints).mean()) < 0.8 * float(apart(noisy, joints).mean())


@pytest.mark.parametrize("frames", [1, 2])
def test_very_short_fragments(body: BodyModel, prior: PosePrior, fragments: Tensor, frames: int) -> None:
    joints = posed(body, fragments[:, :frames])
    found = denoise_motion(prior, joints, body=body, generator=seeded())
    assert found.shape == (2, frames, 63) and float(apart(posed(body, found), joints).mean()) < 5
