"""Distances between a set of sampled poses and a set of real ones.

Poses are (N, 63) axis-angle vectors in radians, taken raw: two vectors that differ by a full turn about their axis are
different points to every metric here but :func:`dnn`, which compares rotations. Tensors and arrays are both accepted;
the work is done where ``samples`` are.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import roma
import torch
from torch.nn import functional

from dposer.errors import InputError

Array = np.ndarray | torch.Tensor


_BLOCK = 2**22
"""Distances held at once: 32 MB of float64, few enough to stay near the processor and enough to keep it busy."""


def gaussian_statistics(samples: Array, weights: Array | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (D,) and unbiased covariance (D, D), float64, of ``samples`` (N, D), N ≥ 2, each with its weight (N,) if there are any."""
    x = _points(samples, "samples", torch.float64, least=2)
    if weights is None:
        return x.mean(dim=0), torch.atleast_2d(x.T.cov())
    w = torch.as_tensor(weights, dtype=torch.float64).to(x.device)
    return w @ x / w.sum(), torch.atleast_2d(x.T.cov(aweights=w))


def frechet_distance(mean1: Array, covariance1: Array, mean2: Array, covariance2: Array) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁^½ Σ₂ Σ₁^½)^½), the squared 2-Wasserstein distance of two Gaussians.

    The last trace is Σ_i σ_i(Σ₁^½ Σ₂^½), singular values of a product of two symmetric roots, which stays real and
    loses no digits when a covariance is singular.

    Args:
        mean1, mean2: (D,).
        covariance1, covariance2: (D, D), symmetric and positive semi-definite.

    Raises:
        InputError: the four shapes do not belong together.

    Source: Dowson and Landau, J. Multivariate Analysis 1982, equation 16.
    """
    mean1, covariance1, mean2, covariance2 = (torch.as_tensor(a, dtype=torch.float64) for a in (mean1, covariance1, mean2, covariance2))
    size = mean1.shape[0] if mean1.ndim == 1 else -1
    if mean2.shape != (size,) or covariance1.shape != (size, size) or covariance2.shape != (size, size):
        found = ", ".join(str(tuple(a.shape)) for a in (mean1, covariance1, mean2, covariance2))
        raise InputError(f"frechet_distance: found shapes {found}, expected (D,), (D, D), (D,), (D, D)")
    coupling = torch.linalg.svdvals(_symmetric_root(covariance1) @ _symmetric_root(covariance2)).sum()
    distance = (mean1 - mean2).square().sum() + covariance1.trace() + covariance2.trace() - 2 * coupling
    return max(0.0, float(distance))


def fid(samples: Array, reference: Array) -> float:
    """:func:`frechet_distance` between Gaussians fitted to ``samples`` (N, D) and ``reference`` (M, D).

    DPoser takes raw 63-d axis-angle vectors; values are not comparable with a FID of joint positions.
    """
    mean, covariance = gaussian_statistics(samples)
    reference_mean, reference_covariance = gaussian_statistics(reference)
    return frechet_distance(mean, covariance, reference_mean.to(mean.device), reference_covariance.to(mean.device))


def _symmetric_root(matrix: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T  # a rank-deficient covariance has eigenvalues just below 0


class PRDC(NamedTuple):
    """Shares in [0, 1], but for the density, which has no upper bound."""

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall_density_coverage(samples: Array, reference: Array, k: int = 3, chunk: int | None = None) -> PRDC:
    """Agreement of two point sets y_j (``samples``, (N, D)) and x_i (``reference``, (M, D)) by k-nearest-neighbour balls.

    With r(·) the distance of a point to its k-th nearest neighbour in its own set, itself not counted:

    - precision = 1/N Σ_j 1[∃ i: ‖x_i − y_j‖ < r(x_i)]
    - recall    = 1/M Σ_i 1[∃ j: ‖x_i − y_j‖ < r(y_j)]
    - density   = 1/(kN) Σ_j Σ_i 1[‖x_i − y_j‖ < r(x_i)]
    - coverage  = 1/M Σ_i 1[∃ j: ‖x_i − y_j‖ < r(x_i)]

    Squared distances are ‖q‖² − 2⟨q, p⟩ + ‖p‖² of centred points in float64. In float32 that difference would be off by
    1e-6 of the norms, more than what parts neighbouring frames of a motion; on a processor it would save half the time.

    Args:
        chunk: rows of a distance matrix held at once; None: as many as make 32 MB.

    Raises:
        InputError: fewer than k + 1 points in a set, different dimensions, or values that are NaN or infinite.

    Source: Naeem et al., ICML 2020, equations 1 to 5. DPoser: k = 3, 10,000 training poses as reference.
    """
    if k < 1 or (chunk is not None and chunk < 1):
        raise InputError(f"precision_recall_density_coverage: found k {k} and chunk {chunk}, expected both to be 1 or more")
    y = _points(samples, "samples", torch.float64, least=k + 1)
    x = _points(reference, "reference", torch.float64, least=k + 1).to(y.device)
    _same_dimension(y, x)
    centre = x.mean(dim=0)  # products of centred points lose fewer digits
    x, y = x - centre, y - centre
    ball_x, ball_y = _squared_radii(x, k, chunk), _squared_radii(y, k, chunk)

    precise = hits = 0
    recalled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    nearest = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
    for rows, squared in _squared_distances(y, x, chunk):
        within = (squared < ball_x).sum(dim=1)
        precise += int(within.count_nonzero())
        hits += int(within.sum())
        recalled |= (squared < ball_y[rows, None]).any(dim=0)
        nearest = torch.minimum(nearest, squared.amin(dim=0))
    return PRDC(
        precision=precise / len(y),
        recall=float(recalled.double().mean()),
        density=hits / (k * len(y)),
        coverage=float((nearest < ball_x).double().mean()),
    )


def _squared_radii(points: torch.Tensor, k: int, chunk: int | None) -> torch.Tensor:
    # The k + 1 smallest, since each point meets itself at distance 0.
    return torch.cat([squared.topk(k + 1, dim=1, largest=False).values[:, -1] for _, squared in _squared_distances(points, points, chunk)])


def _squared_distances(queries: torch.Tensor, points: torch.Tensor, chunk: int | None) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield ‖q‖² − 2⟨q, p⟩ + ‖p‖² for ``chunk`` queries at a time, (rows, (chunk, P)); the block is overwritten by the next."""
    chunk = chunk or max(1, _BLOCK // len(points))
    query_norms, norms, transposed = queries.square().sum(dim=1), points.square().sum(dim=1), -2 * points.T
    # Rounding leaves a residue between equal points; they must stay at 0, or a repeated point would have a ball.
    residue = 1e-13 * float(query_norms.max() + norms.max())
    block = norms.new_empty(min(chunk, len(queries)), len(points))
    for start in range(0, len(queries), chunk):
        rows = slice(start, min(start + chunk, len(queries)))
        squared = torch.addmm(norms, queries[rows], transposed, out=block[: rows.stop - start])
        yield rows, functional.threshold(squared.add_(query_norms[rows, None]), residue, 0.0, inplace=True)


def dnn(samples: Array, reference: Array, chunk: int | None = None) -> torch.Tensor:
    """Distance of every sample to its nearest reference pose: Σ_j 2 arccos |⟨q_j, q'_j⟩|, (N,) in radians.

    The nearest pose q' is the one of least Euclidean distance between the 21 unit quaternions of both poses. q and −q
    are the same rotation; each quaternion is taken with w ≥ 0 before the search, so that an angle and the same angle
    less a full turn agree. (A joint turned by nearly half a turn can still be missed by the search, never by the sum.)
    The search is in float32 and may return a pose that is farther than the nearest by about 1e-3 radians.

    Args:
        samples: (N, 3J) axis-angle radians.
        reference: (M, 3J) axis-angle radians, the training set.
        chunk: poses of each set that are compared at once.

    Returns:
        (N,) float64; DPoser's dNN is its mean.

    Raises:
        InputError: an empty set, dimensions that differ or are no multiple of 3, or values that are NaN or infinite.

    Source: DPoser-X, after Pose-NDF and NRDF.
    """
    if chunk is not None and chunk < 1:
        raise InputError(f"dnn: found chunk {chunk}, expected 1 or more")
    q, p = _points(samples, "samples", torch.float64), _points(reference, "reference")
    _same_dimension(q, p)
    if q.shape[1] % 3:
        raise InputError(f"dnn: found poses of {q.shape[1]} numbers, expected axis-angle vectors, a multiple of 3")
    queries, points = (_quaternions(poses.to(q.device, torch.float32)).flatten(1) for poses in (q, p))
    # Products of centred points lose fewer digits: poses share most of their quaternions' w.
    centre = points.mean(dim=0)
    queries -= centre
    points -= centre
    bias = points.square().sum(dim=1) / -2
    best = torch.full((len(q),), -torch.inf, device=q.device)
    nearest = torch.zeros(len(q), dtype=torch.long, device=q.device)
    rows = chunk or 512
    columns = chunk or _BLOCK // rows
    for start in range(0, len(p), columns):
        some, lift = points[start : start + columns].T, bias[start : start + columns]
        # The least of ‖q − p‖² is the greatest of ⟨q, p⟩ − ‖p‖²/2.
        found, place = (
            torch.cat(parts) for parts in zip(*(torch.addmm(lift, b, some).max(dim=1) for b in queries.split(rows)), strict=True)
        )
        nearest = torch.where(found > best, start + place, nearest)
        best = torch.maximum(found, best)
    return _geodesic(_quaternions(q), _quaternions(p[nearest.to(p.device)].to(q))).sum(dim=1)


def _quaternions(poses: torch.Tensor) -> torch.Tensor:
    q = roma.rotvec_to_unitquat(poses.unflatten(1, (-1, 3)))
    return torch.where(q[..., 3:] < 0, -q, q)


def _geodesic(q: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """2 arccos |⟨q, p⟩| of unit quaternions, by the tangent of a quarter of it, which keeps its digits near 0."""
    apart, together = torch.linalg.vector_norm(q - p, dim=-1), torch.linalg.vector_norm(q + p, dim=-1)
    return 4 * torch.atan2(torch.minimum(apart, together), torch.maximum(apart, together))


def _points(array: Array, name: str, dtype: torch.dtype | None = None, least: int = 1) -> torch.Tensor:
    points = torch.as_tensor(array, dtype=dtype)
    if points.ndim != 2 or len(points) < least:
        raise InputError(f"{name}: found shape {tuple(points.shape)}, expected (N, D) with N of {least} or more")
    if not points.isfinite().all():
        raise InputError(f"{name}: holds NaN or infinite values, expected finite ones; drop those poses")
    return points


def _same_dimension(samples: torch.Tensor, reference: torch.Tensor) -> None:
    if samples.shape[1] != reference.shape[1]:
        raise InputError(f"samples of {samples.shape[1]} numbers and reference of {reference.shape[1]}, expected the same number")
