"""The second-order solver: its system against autograd of its energy, and what its steps must and must not do. All in float64."""

import dataclasses
from typing import Any

import pytest
import roma
import torch
from torch import Tensor

from dposer.body import BodyModel
from dposer.body.points import BodyPoints, Place, Skeleton
from dposer.body.skeleton import LAYOUTS, SMPLX_22
from dposer.geometry.camera import Camera
from dposer.solvers.gauss_newton import MotionSolver, MotionState, Observation, Quadratic, Smoothness

FRAMES, BATCH = 4, 2
DOUBLE = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def random_state(frames: int = FRAMES, seed: int = 0, spread: float = 0.3) -> MotionState:
    roots = roma.rotvec_to_rotmat(normal(frames, BATCH, 3, seed=seed + 1))
    shape = 0.5 * normal(BATCH, 10, seed=seed + 3)
    return MotionState(spread * normal(frames, BATCH, 63, seed=seed), roots, normal(frames, BATCH, 3, seed=seed + 2), shape)


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel(dtype=DOUBLE)


@pytest.fixture(scope="module")
def skeleton(body: BodyModel) -> Skeleton:
    return Skeleton(body)


@pytest.fixture(scope="module")
def joints(body: BodyModel) -> BodyPoints:
    return BodyPoints.of_layout(body, SMPLX_22)


@pytest.fixture(scope="module")
def surface(body: BodyModel) -> BodyPoints:
    """Points with and without levers, and one that is not there."""
    names = ("nose", "left_heel", "right_index2", "left_wrist", "neck", "left_hip", "right_ankle")
    markers = [Place(str(v), {v: 1.0}, distance=0.01) for v in (300, 4000, 9000, 12000)]
    return BodyPoints(body, [*(Place(name, {name: 1.0}) for name in names), *markers, Place("absent", {})])


@pytest.fixture(scope="module")
def prior() -> Quadratic:
    root = 0.3 * normal(63, 63, seed=4)
    return Quadratic(0.2 * normal(63, seed=5), root @ root.T)


class Problems:
    """Makes solvers for random measurements: ``make(points, frames, rows=..., **options)``."""

    def __init__(self, skeleton: Skeleton, joints: BodyPoints) -> None:
        self.skeleton, self.joints = skeleton, joints

    def __call__(self, points: BodyPoints | None = None, frames: int = FRAMES, rows: slice = slice(None), **options: Any) -> MotionSolver:
        points = points or self.joints
        places, precision = normal(frames, BATCH, len(points), 3, seed=7), 4 * uniform(frames, BATCH, len(points), seed=8)
        observation = Observation(points, places[rows], torch.where(precision > 1, precision, 0)[rows])
        return MotionSolver(self.skeleton, self.joints, observation, **options)

    def exact(self, truth: MotionState, points: BodyPoints | None = None, precision: float = 1e4, **options: Any) -> MotionSolver:
        """Measured without any error."""
        points = points or self.joints
        blank = Observation(points, normal(len(truth.pose), BATCH, len(points), 3), torch.ones(1))
        solver = MotionSolver(self.skeleton, self.joints, blank, **options)
        places = points(solver.posed(truth), truth.betas.expand(len(truth.pose), -1, -1).flatten(0, 1)).unflatten(0, truth.trans.shape[:2])
        solver.observation = Observation(points, places, torch.full_like(places[..., 0], precision))
        return solver


@pytest.fixture(scope="module")
def make(skeleton: Skeleton, joints: BodyPoints) -> Problems:
    return Problems(skeleton, joints)


def changed(state: MotionState, turn: Tensor, bend: Tensor, shift: Tensor, shape: Tensor) -> MotionState:
    return MotionState(state.pose + bend, roma.rotvec_to_rotmat(turn) @ state.root, state.trans + shift, state.betas + shape)


def gradients(solver: MotionSolver, state: MotionState, prior: Quadratic | None) -> tuple[Tensor, Tensor]:
    """Of the energies' sum by autograd: (F, B, 69) in turn, pose and translation, and (B, 10) in shape."""
    sizes = (state.trans, state.pose, state.trans, state.betas)
    changes = [torch.zeros_like(like).requires_grad_(True) for like in sizes]
    turn, bend, shift, shape = torch.autograd.grad(solver.energy(changed(state, *changes), prior).sum(), changes)
    return torch.cat((turn, bend, shift), -1), shape


def run(solver: MotionSolver, state: MotionState, steps: int, prior: Quadratic | None = None, damping: float = 1.0) -> MotionState:
    damped = torch.full((len(state.betas),), damping, dtype=DOUBLE)
    for _ in range(steps):
        state, damped = solver.step(state, prior, damped)
    return state


def repeated(state: MotionState, frames: int) -> MotionState:
    """A single frame, again and again."""
    pose, root, trans = (part[0].expand(frames, *part.shape[1:]) for part in (state.pose, state.root, state.trans))
    return MotionState(pose, root, trans, state.betas)


def sequence(state: MotionState, row: slice) -> MotionState:
    return MotionState(state.pose[:, row], state.root[:, row], state.trans[:, row], state.betas[row])


def assert_same(found: MotionState, expected: MotionState, atol: float = 1e-9) -> None:
    for field in dataclasses.fields(MotionState):
        torch.testing.assert_close(getattr(found, field.name), getattr(expected, field.name), atol=atol, rtol=0, msg=field.name)


# ---- the system --------------------------------------------------------------------------------------------------------

TURNS = 0.1 + uniform(63, seed=9)
SMOOTHNESS = {
    "none": None,
    "exact": Smoothness(0.3, None),
    "robust": Smoothness(0.3, 1.0),
    "exact turns": Smoothness(0.3, None, TURNS),
    "robust turns": Smoothness(0.3, 2.0, TURNS),
}


@pytest.mark.parametrize("smoothness", SMOOTHNESS)
@pytest.mark.parametrize("robust", [None, 0.4])
@pytest.mark.parametrize("with_before", [False, True])
@pytest.mark.parametrize("shape", ["fixed", "free", "one"])
@pytest.mark.parametrize("free_root", [True, False])
def test_its_gradient_is_that_of_the_energy(
    make: Problems,
    surface: BodyPoints,
    prior: Quadratic,
    smoothness: str,
    robust: float | None,
    with_before: bool,
    shape: str,
    free_root: bool,
) -> None:
    """Robust weights are those of the derivative, so that also theirs is exact."""
    state = random_state()
    before = dataclasses.replace(random_state(2, seed=20), betas=state.betas) if with_before else None
    options: dict[str, Any] = {"free_root": free_root, "free_shape": shape != "fixed", "one_shape": shape == "one"}
    points = surface if free_root else None
    solver = make(points, smoothness=SMOOTHNESS[smoothness], robust=robust, before=before, **options)
    by_frame, by_shape = gradients(solver, state, prior)
    _, gradient, _, corner = solver._system(state, prior)
    torch.testing.assert_close(gradient, by_frame if free_root else by_frame[..., 3:66], atol=1e-8, rtol=1e-8)
    if corner is None:
        assert shape == "fixed"
    else:
        own = state.betas * (1 - 1 / BATCH if shape == "one" else 0)  # energies share ½ ‖β‖² out
        torch.testing.assert_close(corner[..., -1] + state.betas, by_shape + own, atol=1e-8, rtol=1e-8)


def test_a_heavily_damped_step_goes_down_the_gradient(make: Problems, prior: Quadratic) -> None:
    state, damping = random_state(), 1e9
    solver = make(smoothness=SMOOTHNESS["robust turns"])
    by_frame, _ = gradients(solver, state, prior)
    moved, _ = solver.step(state, prior, torch.full((BATCH,), damping, dtype=DOUBLE))
    change = torch.cat((roma.rotmat_to_rotvec(moved.root @ state.root.mT), moved.pose - state.pose, moved.trans - state.trans), -1)
    torch.testing.assert_close(-damping * change, by_frame, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("turns", [False, True])
def test_a_quadratic_energy_is_minimised_in_one_step(make: Problems, prior: Quadratic, turns: bool) -> None:
    """Without measurement θ is where (C ⊗ 1 + Dᵀ S D) θ = C c, D taking second differences along time."""
    state = random_state()
    smoothness = Smoothness(1e6, None, TURNS) if turns else None
    centres = normal(FRAMES, BATCH, 63, seed=6)
    solver = make(smoothness=smoothness, free_root=False)
    solver.observation = dataclasses.replace(solver.observation, precision=torch.zeros_like(solver.observation.precision))
    for precision in (prior.precision + torch.eye(63), (0.5 + uniform(63)), 0.5 + uniform(FRAMES, BATCH, 63)):
        dense = torch.diag_embed(precision) if precision.shape != (63, 63) else precision
        dense = dense.expand(FRAMES, BATCH, 63, 63).transpose(0, 1)
        matrix = torch.zeros(BATCH, FRAMES, 63, FRAMES, 63, dtype=DOUBLE)
        for f in range(FRAMES):
            matrix[:, f, :, f] = dense[:, f]
        if turns:
            bends = torch.eye(FRAMES, dtype=DOUBLE).diff(n=2, dim=0)
            matrix += torch.einsum("fg,de->fdge", bends.T @ bends, torch.diag(TURNS**-2))
        right = (dense @ centres.transpose(0, 1)[..., None]).flatten(1, 2)
        expected = torch.linalg.solve(matrix.flatten(3).flatten(1, 2), right).unflatten(1, (FRAMES, 63))[..., 0].transpose(0, 1)
        found, _ = solver.step(state, Quadratic(centres, precision), torch.zeros(BATCH, dtype=DOUBLE))
        torch.testing.assert_close(found.pose, expected, atol=1e-6, rtol=0)
        assert torch.equal(found.root, state.root) and torch.equal(found.trans, state.trans)


def test_quadratics_are_what_they_say(prior: Quadratic) -> None:
    pose = normal(FRAMES, BATCH, 63).requires_grad_(True)
    own = normal(FRAMES, BATCH, 63, 63, seed=3)
    each = Quadratic(normal(FRAMES, BATCH, 63, seed=4), own @ own.mT)
    for some in (prior, each, Quadratic(prior.centre, prior.precision.diagonal()), Quadratic(normal(FRAMES, BATCH, 63), TURNS)):
        energy = some.energy(pose)
        assert energy.shape == (BATCH,) and bool((energy >= 0).all())
        torch.testing.assert_close(some.pull(pose), torch.autograd.grad(energy.sum(), pose)[0])
        block = torch.zeros(FRAMES, BATCH, 63, 63, dtype=DOUBLE)
        some.add_to(block)
        away = (pose - some.centre)[..., None]
        torch.testing.assert_close(0.5 * (away.mT @ block @ away).sum((0, 2, 3)), energy)


# ---- its steps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["fixed", "free", "one"])
@pytest.mark.parametrize("robust", [None, 0.3])
def test_the_energy_never_rises(make: Problems, surface: BodyPoints, prior: Quadratic, shape: str, robust: float | None) -> None:
    options: dict[str, Any] = {"free_shape": shape != "fixed", "one_shape": shape == "one", "robust": robust}
    solver = make(surface, smoothness=SMOOTHNESS["robust turns"], **options)
    state, damping = random_state(), torch.full((BATCH,), 1e-3, dtype=DOUBLE)
    if shape == "one":
        state = dataclasses.replace(state, betas=state.betas[:1].expand(BATCH, -1))
    steps = [solver.energy(state, prior)]
    for _ in range(8):
        state, damping = solver.step(state, prior, damping)
        steps.append(solver.energy(state, prior))
    energies = torch.stack(steps)
    if shape == "one":  # then they share their steps
        energies = energies.sum(1, keepdim=True)
        assert torch.equal(state.betas[0], state.betas[1])
    assert bool((energies.diff(dim=0) <= 0).all()) and bool((energies[-1] < 0.9 * energies[0]).all())


@pytest.mark.parametrize("robust", [None, 0.05])
def test_what_fits_already_stays(make: Problems, surface: BodyPoints, robust: float | None) -> None:
    truth = dataclasses.replace(random_state(), betas=torch.zeros(BATCH, 10, dtype=DOUBLE))
    solver = make.exact(truth, surface, free_shape=True, robust=robust)
    assert float(solver.residuals(truth).max()) < 1e-12
    assert_same(run(solver, truth, 3), truth)


def test_a_pose_is_found_from_its_points(make: Problems, body: BodyModel) -> None:
    truth = random_state(3, spread=0.2)
    points = BodyPoints.of_layout(body, LAYOUTS["smplx"])
    solver = make.exact(truth, points, precision=1e8, free_shape=True)
    start = MotionState(torch.zeros_like(truth.pose), truth.root, truth.trans + 0.3, torch.zeros_like(truth.betas))
    found = run(solver, start, 30, damping=1e2)
    residuals = solver.residuals(found)  # what twists a spine shows little and comes last
    assert float(residuals.max()) < 5e-3 and float(residuals.mean()) < 2e-4
    torch.testing.assert_close(found.betas, truth.betas, atol=0.1, rtol=0)


@pytest.mark.parametrize("freedom", [None, 1.0])
def test_it_converges_like_a_second_order_solver(make: Problems, body: BodyModel, freedom: float | None) -> None:
    """Quadratically where nothing is left over: somebody of mean shape who stands still is measured without error."""
    still = random_state(1)
    truth = dataclasses.replace(repeated(still, 5), betas=torch.zeros_like(still.betas))
    prior = Quadratic(truth.pose, torch.full((63,), 10.0, dtype=DOUBLE))
    points = BodyPoints.of_layout(body, LAYOUTS["smplx"])
    solver = make.exact(truth, points, free_shape=True, smoothness=Smoothness(0.03, freedom, TURNS))
    turn, bend, shift = (0.01 * normal(5, BATCH, n, seed=n) for n in (3, 63, 3))
    near = changed(truth, turn, bend, shift, 0.05 * normal(BATCH, 10))
    errors = [float(solver.residuals(run(solver, near, steps, prior, damping=1e-6)).max()) for steps in (0, 2, 4)]
    assert errors[0] > 0.02 and errors[1] < 1e-2 * errors[0] and errors[2] < 1e-6 * errors[0]


def test_shapes_of_several_sequences_can_be_one(make: Problems) -> None:
    truth = random_state(2)
    truth = dataclasses.replace(truth, betas=truth.betas[:1].expand(BATCH, -1))
    solver = make.exact(truth, precision=1e8, free_shape=True, one_shape=True)
    found = run(solver, dataclasses.replace(truth, pose=0.9 * truth.pose, betas=torch.zeros_like(truth.betas)), 15)
    assert torch.equal(found.betas[0], found.betas[1])
    assert float(solver.residuals(found).max()) < 1e-4


@pytest.mark.parametrize("shape", ["fixed", "free"])
def test_sequences_never_meet(make: Problems, surface: BodyPoints, prior: Quadratic, shape: str) -> None:
    """Not even where one of them is stuck: each is damped for itself."""
    state = random_state()
    solver = make(surface, smoothness=SMOOTHNESS["robust turns"], free_shape=shape == "free", robust=0.4)
    together = run(solver, state, 4, prior)
    for b in range(BATCH):
        row = slice(b, b + 1)
        own = Observation(surface, solver.observation.places[:, row], solver.observation.precision[:, row])
        single = MotionSolver(make.skeleton, make.joints, own, SMOOTHNESS["robust turns"], free_shape=shape == "free", robust=0.4)
        assert_same(run(single, sequence(state, row), 4, prior), sequence(together, row), atol=1e-7)


def test_a_fixed_root_and_shape_stay(make: Problems, prior: Quadratic) -> None:
    state = random_state()
    found = run(make(free_root=False, smoothness=SMOOTHNESS["robust"]), state, 3, prior)
    assert torch.equal(found.root, state.root) and torch.equal(found.trans, state.trans) and torch.equal(found.betas, state.betas)
    assert not torch.equal(found.pose, state.pose)


# ---- borders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothness", ["exact turns", "robust turns"])
def test_two_windows_cost_what_one_does(make: Problems, surface: BodyPoints, prior: Quadratic, smoothness: str) -> None:
    """The second window, with the two frames before it, takes in all accelerations that the first does not."""
    frames, cut = 7, 4
    state = random_state(frames)
    kind = SMOOTHNESS[smoothness]
    whole = make(surface, frames, smoothness=kind)
    first = make(surface, frames, slice(None, cut), smoothness=kind)
    second = make(surface, frames, slice(cut, None), smoothness=kind, before=state.frames(slice(cut - 2, cut)))
    parts = state.frames(slice(None, cut)), state.frames(slice(cut, None))
    torch.testing.assert_close(whole.energy(state, prior), first.energy(parts[0], prior) + second.energy(parts[1], prior))
    torch.testing.assert_close(gradients(second, parts[1], prior)[0], gradients(whole, state, prior)[0][cut:])
    free = make(surface, frames, slice(cut, None), smoothness=kind)
    assert bool((free.energy(parts[1], prior) < second.energy(parts[1], prior)).all())


def test_even_a_single_frame_feels_those_before_it(make: Problems) -> None:
    """Steady movement goes on where nothing is seen."""
    start = random_state(1)
    shift = torch.tensor([0.1, 0.0, -0.05], dtype=DOUBLE)
    before = dataclasses.replace(repeated(start, 2), trans=torch.stack((start.trans[0], start.trans[0] + shift)))
    solver = make(smoothness=Smoothness(0.1, None, TURNS), frames=1, before=before)
    solver.observation = dataclasses.replace(solver.observation, precision=torch.zeros_like(solver.observation.precision))
    found = run(solver, dataclasses.replace(start, pose=start.pose + 0.1), 12, damping=1e-2)
    torch.testing.assert_close(found.trans[0], start.trans[0] + 2 * shift, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.pose, start.pose, atol=1e-4, rtol=0)


@pytest.mark.parametrize("frames", [1, 2])
def test_too_few_frames_have_no_acceleration(make: Problems, frames: int) -> None:
    state = random_state(frames)
    plain, smooth = (make(frames=frames, smoothness=kind) for kind in (None, SMOOTHNESS["exact turns"]))
    torch.testing.assert_close(plain.energy(state, None), smooth.energy(state, None))
    assert_same(run(plain, state, 2), run(smooth, state, 2))


# ---- in a picture ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("robust", [None, 30.0])
@pytest.mark.parametrize("shape", [False, True])
def test_in_a_picture_its_gradient_is_that_of_the_energy(
    skeleton: Skeleton, joints: BodyPoints, surface: BodyPoints, robust: float | None, shape: bool
) -> None:
    camera = Camera(torch.tensor([800.0, 760.0], dtype=DOUBLE), torch.tensor([320.0, 240.0], dtype=DOUBLE))
    state = dataclasses.replace(random_state(), trans=random_state().trans + torch.tensor([0, 0, 8.0]))
    pixels = 300 + 80 * normal(FRAMES, BATCH, len(surface), 2, seed=9)
    precision = torch.where((uniform(FRAMES, BATCH, len(surface), seed=8) > 0.3) & surface.known, 0.01, 0).double()
    observation = Observation(surface, pixels, precision, camera)
    solver = MotionSolver(skeleton, joints, observation, Smoothness(0.1, 1.0), free_shape=shape, robust=robust)
    moved, shaped = gradients(solver, state, None)
    _, gradient, _, corner = solver._system(state, None)
    torch.testing.assert_close(gradient, moved)
    if shape:
        assert corner is not None
        torch.testing.assert_close(corner[..., -1] + state.betas, shaped)


def test_nobody_is_put_behind_the_camera(skeleton: Skeleton, joints: BodyPoints) -> None:
    camera = Camera.of_size(640, 480)
    ahead = dataclasses.replace(random_state(1), trans=torch.tensor([0, 0, 1.5], dtype=DOUBLE).expand(1, BATCH, 3))
    away = joints(MotionSolver(skeleton, joints, Observation(joints, torch.zeros(1, BATCH, 22, 3), torch.ones(1))).posed(ahead))
    pixels = 2 * camera.project(away)[None] - 240  # twice as large: as near as can be
    solver = MotionSolver(skeleton, joints, Observation(joints, pixels, torch.ones(1, BATCH, 22), camera))
    found = run(solver, ahead, 12)
    assert bool((solver._placed(joints, solver.posed(found), found)[..., 2] > 0.1).all())
    assert bool(solver.energy(found, None).isfinite().all())
    behind = dataclasses.replace(ahead, trans=-ahead.trans)
    assert bool(solver.energy(behind, None).isinf().all())
