r"""Second-order fitting of a motion to points: damped Gauss–Newton along time.

Over poses θ, and where they are free roots, translations and shapes β, of F frames, minimise

.. math:: \tfrac12 \sum_{f,k} w_{fk} \|q_k(\theta_f) - y_{fk}\|^2 + \tfrac12 \sum_{f,j} a_{fj} \|\Delta^2 J_{fj}\|^2
          + \tfrac12 \sum_f (\Delta^2 \theta_f)^T S \Delta^2 \theta_f
          + \tfrac12 \sum_f (\theta_f - c_f)^T C (\theta_f - c_f) + \tfrac12 \|\beta\|^2

with points q and joints J of the body and :math:`\Delta^2 J_f = J_{f-1} - 2 J_f + J_{f+1}`. Robust terms enter by their weights,
anew at every step (iteratively reweighted least squares: Cauchy for the measurement, Student's t for accelerations); a prior enters as
the quadratic (c, C) that stands for it at the current poses. Accelerations couple a frame with the next two, so a step solves a
block-banded system (:mod:`dposer.solvers.banded`); a shape shared by all frames borders it, and is eliminated by its Schur complement.
Sequences of a batch are damped apart (Levenberg–Marquardt) and never meet.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import roma
import torch
from torch import Tensor

from dposer.body.points import BodyPoints, PosedSkeleton, Skeleton
from dposer.geometry.camera import Camera
from dposer.solvers.banded import BandedCholesky

_DAMPING = (1e-6, 1e10)
_EASE, _STIFFEN = 0.2, 8.0
_NEAREST = 0.1
"""Metres before the camera."""


@dataclass(frozen=True)
class MotionState:
    """F frames of B sequences, time first."""

    pose: Tensor
    """(F, B, 63) axis-angle, radians."""
    root: Tensor
    """(F, B, 3, 3) rotation of the pelvis."""
    trans: Tensor
    """(F, B, 3) metres."""
    betas: Tensor
    """(B, S)."""

    def frames(self, rows: slice) -> "MotionState":
        return dataclasses.replace(self, pose=self.pose[rows], root=self.root[rows], trans=self.trans[rows])

    def transposed(self) -> "MotionState":
        """Frames as sequences of one frame each, or back."""
        return MotionState(self.pose.transpose(0, 1), self.root.transpose(0, 1), self.trans.transpose(0, 1), self.betas)


class Quadratic(NamedTuple):
    """½ (θ − centre)ᵀ precision (θ − centre) for every frame."""

    centre: Tensor
    """(F, B, 63) or what expands to it."""
    precision: Tensor
    """(63, 63) or (F, B, 63, 63), or diagonals that expand to (F, B, 63)."""

    def pull(self, pose: Tensor) -> Tensor:
        """Gradient at poses (F, B, 63)."""
        away = pose - self.centre
        return (away[..., None, :] @ self.precision)[..., 0, :] if self._dense else away * self.precision

    def energy(self, pose: Tensor) -> Tensor:
        return 0.5 * ((pose - self.centre) * self.pull(pose)).sum((0, 2))

    def add_to(self, block: Tensor) -> None:
        """Add the precision to the pose part of blocks (F, B, 63, 63), in place."""
        if self._dense:
            block += self.precision
        else:
            block.diagonal(dim1=-2, dim2=-1).add_(self.precision)

    @property
    def _dense(self) -> bool:
        return self.precision.ndim in (2, 4) and self.precision.shape[-2] == 63


@dataclass(frozen=True)
class Smoothness:
    """Student's t on the accelerations of joints, and of rotations, whose twist joints do not show."""

    scale: float
    """Of joints, metres per frame²."""
    freedom: float | None = 1.0
    """Degrees of freedom; None: Gaussian."""
    rotations: Tensor | None = None
    """(63,) scale of each rotation vector's entries, radians per frame²; None: rotations are left alone."""


class Linear(NamedTuple):
    """Points (F, B, K, 3), their Jacobian (F, B, 3 K, D) and their derivatives in the shape (F, B, 3 K, S), if that is free."""

    places: Tensor
    jacobian: Tensor
    shape: Tensor | None


@dataclass(frozen=True)
class Observation:
    """What was measured: points in space, or with a camera in its picture."""

    points: BodyPoints
    places: Tensor
    """(F, B, K, 3) metres, or (F, B, K, 2) pixels; any finite value where the precision is 0."""
    precision: Tensor
    """(F, B, K): 1 / variance per coordinate, 0 where nothing was seen."""
    camera: Camera | None = None
    """Of every frame and sequence (F, B, 2); None: points in space."""

    def frames(self, rows: slice) -> "Observation":
        return self._each(lambda values: values[rows])

    def transposed(self) -> "Observation":
        """Frames as sequences of one frame each, or back."""
        return self._each(lambda values: values.transpose(0, 1))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Observation":
        camera = None if self.camera is None else Camera(change(self.camera.focal), change(self.camera.centre))
        return Observation(self.points, change(self.places), change(self.precision), camera)

    def misses(self, points: Tensor) -> Tensor:
        """How far points (F, B, K, 3) are from where they were measured, in its coordinates; infinitely far at the lens and behind."""
        if self.camera is None:
            return points - self.places
        ahead = self._ahead(points)
        return torch.where(ahead[..., 2:] > _NEAREST, self.camera.project(ahead) - self.places, torch.inf)

    def seen(self, points: Linear) -> Linear:
        """The Jacobians of the misses, by the chain rule."""
        if self.camera is None:
            return points
        lens = self.camera.jacobian(self._ahead(points.places))

        def through(jacobian: Tensor) -> Tensor:
            return (lens @ jacobian.unflatten(-2, (-1, 3))).flatten(-3, -2)

        return Linear(points.places, through(points.jacobian), None if points.shape is None else through(points.shape))

    def _ahead(self, points: Tensor) -> Tensor:
        """Points that were not seen, and may be anywhere, where they have a picture."""
        return torch.where(self.precision[..., None] > 0, points, points.new_tensor([0, 0, 1]))


class MotionSolver:
    """One fitting problem.

    Args:
        skeleton, joints: of the body; ``joints`` are its 22 body joints as points.
        observation: the measurement.
        smoothness: None leaves frames independent.
        free_root: whether roots and translations are solved for.
        free_shape: whether shapes are, one for each sequence.
        one_shape: if so, one for all sequences.
        robust: metres or pixels beyond which an error of measurement is discounted (Cauchy); None: Gaussian.
        before: the two frames before the first, which stay as they are.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        joints: BodyPoints,
        observation: Observation,
        smoothness: Smoothness | None = None,
        free_root: bool = True,
        free_shape: bool = False,
        one_shape: bool = False,
        robust: float | None = None,
        before: MotionState | None = None,
    ) -> None:
        self.skeleton, self.joints, self.observation = skeleton, joints, observation
        self.free_root, self.free_shape, self.robust = free_root, free_shape, robust
        none = observation.places.new_zeros
        batch = observation.places.shape[1]
        self._poses_before = none(0, batch, 63) if before is None else before.pose
        self._joints_before = none(0, batch, len(joints), 3) if before is None else self._placed(joints, self.posed(before), before)
        self._fixed = len(self._poses_before)
        self.smoothness = smoothness if self._fixed + len(observation.places) > 2 else None
        self.one_shape = one_shape

    def step(self, state: MotionState, prior: Quadratic | None, damping: Tensor) -> tuple[MotionState, Tensor]:
        """One damped step; sequences that it does not better stay where they are, with more damping (B,)."""
        blocks, gradient, border, corner = self._system(state, prior)
        blocks[0].diagonal(dim1=-2, dim2=-1).add_(damping[:, None])
        right = gradient[..., None] if border is None else torch.cat((gradient[..., None], border), -1)
        factor = BandedCholesky(blocks)
        solved = factor.solve(right)
        change, shape_change = -solved[..., 0], None
        if border is not None and corner is not None:
            shape_change = self._shape_change(border, corner, solved, state.betas)
            change = change - (solved[..., 1:] @ shape_change[..., None])[..., 0]
        moved = self._moved(state, change, shape_change)
        gain = self.energy(state, prior) - self.energy(moved, prior)
        definite = factor.definite  # rounding can make a matrix indefinite
        if self.one_shape:
            gain, definite = gain.sum().expand_as(gain), definite.all().expand_as(definite)
        better = definite & (gain >= 0)
        damping = torch.where(better, damping * _EASE, damping * _STIFFEN).clamp(*_DAMPING)
        return _chosen(better, moved, state), damping

    def _shape_change(self, border: Tensor, corner: Tensor, solved: Tensor, betas: Tensor) -> Tensor:
        """(B, S): (K + 1 − Bᵀ H⁻¹ B) δ = −(g_β + β − Bᵀ H⁻¹ g), with the prior ½ ‖β‖²."""
        reduced = corner - torch.cat(((border.mT @ solved[..., 1:]).sum(0), (border.mT @ solved[..., :1]).sum(0)), -1)
        if self.one_shape:
            reduced = reduced.sum(0, keepdim=True).expand_as(reduced)
        identity = torch.eye(betas.shape[-1]).to(betas)
        return -torch.linalg.solve(reduced[..., :-1] + identity, reduced[..., -1] + betas)

    def energy(self, state: MotionState, prior: Quadratic | None) -> Tensor:
        """The objective of every sequence (B,)."""
        posed = self.posed(state)
        total = self._data_energy(self._placed(self.observation.points, posed, state))
        if self.smoothness is not None:
            total = total + self._bending_energy(self.smoothness, self._placed(self.joints, posed, state), state.pose)
        if prior is not None:
            total = total + prior.energy(state.pose)
        if self.free_shape:
            total = total + 0.5 * state.betas.square().sum(-1) / (len(total) if self.one_shape else 1)
        return total

    def posed(self, state: MotionState) -> PosedSkeleton:
        betas = state.betas.expand(*state.trans.shape[:2], -1).flatten(0, 1)
        return self.skeleton(*(part.flatten(0, 1) for part in (state.pose, state.root, state.trans)), betas)

    def residuals(self, state: MotionState) -> Tensor:
        """Distance (F, B, K) of every point from where it was measured."""
        return torch.linalg.vector_norm(self.observation.misses(self._placed(self.observation.points, self.posed(state), state)), dim=-1)

    # ---- the linear system ---------------------------------------------------------------------------------------------

    def _system(self, state: MotionState, prior: Quadratic | None) -> tuple[list[Tensor], Tensor, Tensor | None, Tensor | None]:
        """Blocks H[f, f + k], gradient (F, B, D), and of a free shape the border (F, B, D, S) and the corner (B, S, S + 1), whose last
        column is its gradient."""
        posed = self.posed(state)
        points = self._linearised(self.observation.points, posed, state)
        measured, away = self.observation.seen(points), self.observation.misses(points.places)
        weights = self.observation.precision
        if self.robust is not None:
            weights = weights / (1 + away.square().sum(-1) / self.robust**2)
        blocks, gradient = [_product(measured.jacobian, weights, measured.jacobian)], _pulled(measured.jacobian, weights[..., None] * away)
        border = corner = None
        if measured.shape is not None:
            border = _product(measured.jacobian, weights, measured.shape)
            corner = _product(measured.shape, weights, torch.cat((measured.shape, away.flatten(2)[..., None]), -1)).sum(0)
        pose = slice(3, 66) if self.free_root else slice(None)
        if self.smoothness is not None:
            blocks += [torch.zeros_like(blocks[0][k:]) for k in (1, 2)]
            joints = points if self.joints is self.observation.points else self._linearised(self.joints, posed, state)
            self._smooth_joints(self.smoothness, joints, blocks, gradient, border, corner)
            if self.smoothness.rotations is not None:
                own = [block[..., pose, pose] for block in blocks]
                self._smooth_rotations(self.smoothness, self.smoothness.rotations, state.pose, own, gradient[..., pose])
        if prior is not None:
            prior.add_to(blocks[0][..., pose, pose])
            gradient[..., pose] += prior.pull(state.pose)
        return blocks, gradient, border, corner

    def _bending_energy(self, smoothness: Smoothness, joints: Tensor, pose: Tensor) -> Tensor:
        squared = _bends(torch.cat((self._joints_before, joints))).square().sum(-1) / smoothness.scale**2
        total = _robust_energy(squared, smoothness.freedom).sum((0, 2))
        if smoothness.rotations is not None:
            _, squared = self._turns(smoothness.rotations, pose)
            total = total + _robust_energy(squared, smoothness.freedom).sum((0, 2))
        return total

    def _smooth_joints(
        self,
        smoothness: Smoothness,
        joints: Linear,
        blocks: list[Tensor],
        gradient: Tensor,
        border: Tensor | None,
        corner: Tensor | None,
    ) -> None:
        """Add J_fᵀ A J_g for the frames f, g of every three in a row."""
        bends = _bends(torch.cat((self._joints_before, joints.places)))
        weights = _robust_weight(bends.square().sum(-1) / smoothness.scale**2, smoothness.freedom) / smoothness.scale**2
        for k, coupling in enumerate(_couplings(weights)):
            blocks[k] += _product(joints.jacobian[: len(blocks[k])], coupling[self._fixed :], joints.jacobian[k:])
        gradient += _pulled(joints.jacobian, _spread_back(weights[..., None] * bends)[self._fixed :])
        if joints.shape is not None and border is not None and corner is not None:
            bent = _bends(torch.cat((torch.zeros_like(joints.shape[:1]).expand(self._fixed, -1, -1, -1), joints.shape)))
            border += joints.jacobian.mT @ _spread_back(bent * _per_axis(weights))[self._fixed :]
            corner += _product(bent, weights, torch.cat((bent, bends.flatten(2)[..., None]), -1)).sum(0)

    def _turns(self, scale: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
        """Second differences of rotation vectors (F - 2, B, 63), and for every joint their square in units of ``scale``."""
        bends = _bends(torch.cat((self._poses_before, pose)))
        return bends, (bends / scale).square().unflatten(-1, (-1, 3)).sum(-1)

    def _smooth_rotations(self, smoothness: Smoothness, scale: Tensor, pose: Tensor, blocks: list[Tensor], gradient: Tensor) -> None:
        """The same for rotation vectors, whose Jacobian is the identity."""
        bends, squared = self._turns(scale, pose)
        weights = _robust_weight(squared, smoothness.freedom).repeat_interleave(3, -1) / scale.square()
        for k, coupling in enumerate(_couplings(weights)):
            blocks[k].diagonal(dim1=-2, dim2=-1).add_(coupling[self._fixed :])
        gradient += _spread_back(weights * bends)[self._fixed :]

    def _linearised(self, points: BodyPoints, posed: PosedSkeleton, state: MotionState) -> Linear:
        shape = state.trans.shape[:2]
        betas = self._betas(state)
        places, turned = points.jacobian(posed, self.skeleton.ancestors, betas)
        if self.free_root:
            jacobian = torch.cat((turned, points.total[:, None, None] * torch.eye(3).to(turned).expand(*turned.shape[:-1], 3)), -1)
        else:
            jacobian = turned[..., 3:]
        by_shape = points.shape_jacobian(posed, self.skeleton).flatten(1, 2).unflatten(0, shape) if self.free_shape else None
        return Linear(places.unflatten(0, shape), jacobian.flatten(1, 2).unflatten(0, shape), by_shape)

    def _placed(self, points: BodyPoints, posed: PosedSkeleton, state: MotionState) -> Tensor:
        return points(posed, self._betas(state)).unflatten(0, state.trans.shape[:2])

    def _betas(self, state: MotionState) -> Tensor:
        return state.betas.expand(*state.trans.shape[:2], -1).flatten(0, 1)

    def _data_energy(self, places: Tensor) -> Tensor:
        squared = self.observation.misses(places).square().sum(-1)
        if self.robust is not None:
            squared = self.robust**2 * torch.log1p(squared / self.robust**2)
        return 0.5 * (self.observation.precision * squared).sum((0, 2))

    def _moved(self, state: MotionState, change: Tensor, shape_change: Tensor | None) -> MotionState:
        betas = state.betas if shape_change is None else state.betas + shape_change
        if not self.free_root:
            return dataclasses.replace(state, pose=state.pose + change, betas=betas)
        turn, bend, shift = change.split((3, change.shape[-1] - 6, 3), -1)
        return MotionState(state.pose + bend, roma.rotvec_to_rotmat(turn) @ state.root, state.trans + shift, betas)


def _chosen(better: Tensor, new: MotionState, old: MotionState) -> MotionState:
    return MotionState(
        torch.where(better[:, None], new.pose, old.pose),
        torch.where(better[:, None, None], new.root, old.root),
        torch.where(better[:, None], new.trans, old.trans),
        torch.where(better[:, None], new.betas, old.betas),
    )


def _bends(values: Tensor) -> Tensor:
    """Second differences along time."""
    return values[:-2] - 2 * values[1:-1] + values[2:]


def _spread_back(values: Tensor) -> Tensor:
    """The transpose of :func:`_bends`."""
    nothing = torch.zeros_like(values[:1])
    left, right = torch.cat((values, nothing, nothing)), torch.cat((nothing, nothing, values))
    return left - 2 * torch.cat((nothing, values, nothing)) + right


def _couplings(weights: Tensor) -> list[Tensor]:
    """Bands 0, 1 and 2 of Dᵀ diag(weights) D, D taking second differences: (F − 2, ...) → (F, ...), (F − 1, ...), (F − 2, ...)."""
    nothing = torch.zeros_like(weights[:1])
    middle = torch.cat((nothing, weights, nothing))
    ends = torch.cat((weights, nothing, nothing)) + torch.cat((nothing, nothing, weights))
    return [4 * middle + ends, -2 * (middle[:-1] + middle[1:]), weights]


def _product(left: Tensor, weights: Tensor, right: Tensor) -> Tensor:
    """Aᵀ diag(weights) B of Jacobians (..., R K, D) and (..., R K, E), one weight (..., K) a point of R coordinates."""
    return left.mT @ (right * _per_axis(weights, right.shape[-2] // weights.shape[-1]))


def _pulled(jacobian: Tensor, force: Tensor) -> Tensor:
    """Jᵀ of forces (..., K, R)."""
    return (jacobian.mT @ force.flatten(-2)[..., None])[..., 0]


def _per_axis(weights: Tensor, axes: int = 3) -> Tensor:
    """(..., K) → (..., R K, 1): one weight for the coordinates of a point."""
    return weights.repeat_interleave(axes, -1)[..., None]


def _robust_weight(squared: Tensor, freedom: float | None) -> Tensor:
    """Student's t in three dimensions: (ν + 3) / (ν + e²), for standardised squares e²."""
    return torch.ones_like(squared) if freedom is None else (freedom + 3) / (freedom + squared)


def _robust_energy(squared: Tensor, freedom: float | None) -> Tensor:
    """−log p up to a constant: ½ (ν + 3) log(1 + e² / ν), or ½ e²."""
    return 0.5 * squared if freedom is None else 0.5 * (freedom + 3) * torch.log1p(squared / freedom)
