r"""The classic prior: a mixture of Gaussians over body poses, as axis-angle vectors.

.. math:: p(\theta) = \sum_k w_k N(\theta; \mu_k, \Sigma_k), \qquad E(\theta) = \min_k -\log\left( w_k N(\theta; \mu_k, \Sigma_k) \right)

A solver takes the energy E of the nearest component, which is a quadratic where it is smooth. Source: SMPLify (Bogo et al., ECCV 2016),
eq. 4 to 6.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from dposer.assets import asset
from dposer.errors import InputError
from dposer.files import PathLike, existing_file, save_bytes
from dposer.pickles import read_pickle, to_array
from dposer.prior.checkpoint import read_safetensors

FORMAT = "dposer.mixture/1"
DEFAULT_MIXTURE = ("pretrained_models", "gmm8.safetensors")
DIM = 63

_WHAT = "a mixture of Gaussians over poses (.safetensors of this library, or SMPLify's gmm_08.pkl)"
_SMPLIFY = {"weights": "weights", "means": "means", "covariances": "covars"}
_SPREAD_STEPS = 10
"""Of k-means, before EM begins."""
_CHUNK = 4096
"""Poses at once, few enough for a processor's cache."""
_LEAST = 1e-6
"""Poses, of a component that none is near to."""
_SETTLED = 1e-3
"""Nats per pose and step, below which EM has come to rest."""


class PoseMixture(nn.Module):
    """p(pose) as K Gaussians with full covariances.

    Args:
        weights: (K,) positive; scaled to sum to 1.
        means: (K, 63) radians.
        covariances: (K, 63, 63), symmetric and positive definite.
        provenance: where it comes from, free-form.

    Raises:
        InputError: shapes that do not belong together, or values that make no such mixture.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor
    precisions: Tensor  # (K, 63, 63): inverses of the covariances
    offsets: Tensor  # (K,): log w_k - (log det Σ_k + D log 2π) / 2

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor, provenance: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        count = len(weights)
        if weights.shape != (count,) or means.shape != (count, DIM) or covariances.shape != (count, DIM, DIM):
            found = ", ".join(str(tuple(part.shape)) for part in (weights, means, covariances))
            raise InputError(f"mixture: weights, means and covariances of shapes {found}, expected (K,), (K, {DIM}) and (K, {DIM}, {DIM})")
        factor, failed = torch.linalg.cholesky_ex(covariances.double())
        if failed.any() or not (bool((weights > 0).all()) and bool(factor.isfinite().all()) and bool(means.isfinite().all())):
            raise InputError("mixture: expected positive weights, finite means and positive definite covariances; fit it anew")
        logs = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) + DIM * math.log(2 * math.pi)
        weights = weights / weights.sum()
        derived = {"precisions": torch.cholesky_inverse(factor), "offsets": weights.double().log() - logs / 2}
        for name, value in ({"weights": weights, "means": means, "covariances": covariances} | derived).items():
            self.register_buffer(name, value.to(means))
        self.provenance = dict(provenance or {})

    def __len__(self) -> int:
        return len(self.weights)

    @classmethod
    def fit(
        cls,
        poses: Tensor,
        components: int = 8,
        *,
        floor: float = 0.05,
        steps: int = 200,
        generator: torch.Generator | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> "PoseMixture":
        """Expectation maximisation from a k-means start.

        Args:
            poses: (N, 63) radians, each of which counts the same.
            components: K.
            floor: radians: ``floor²`` is added to all variances, as if every pose were known to that only. Without it a mixture is
                infinitely sure of what never turned among its poses.
            steps: of EM, at most.
            generator: source of the start.

        Raises:
            InputError: fewer poses than components, or poses that are not finite.
        """
        if poses.ndim != 2 or poses.shape[1] != DIM or not 0 < components <= len(poses) or not bool(poses.isfinite().all()):
            raise InputError(f"poses: shape {tuple(poses.shape)}, expected finite (N, {DIM}), N no less than the components ({components})")
        x = poses.double()
        belongs = torch.nn.functional.one_hot(_clusters(x, components, generator), components).to(x)
        parts = zip(x.split(_CHUNK), belongs.split(_CHUNK), strict=True)
        mixture, before = cls(*_maximised([_moments(*part) for part in parts], floor)), -math.inf
        for _ in range(steps):
            joint = [(part, mixture.log_joint(part)) for part in x.split(_CHUNK)]
            likelihood = float(torch.cat([values.logsumexp(1) for _, values in joint]).mean())
            if likelihood - before < _SETTLED:
                break
            before = likelihood
            mixture = cls(*_maximised([_moments(part, values.softmax(1)) for part, values in joint], floor))
        mixture.provenance = dict(provenance or {})
        return mixture.to(poses.dtype)

    def log_joint(self, poses: Tensor) -> Tensor:
        """``log (w_k N_k)`` of poses (N, 63): (N, K)."""
        away = poses[:, None] - self.means
        pull = torch.stack([part @ precision for part, precision in zip(away.unbind(1), self.precisions, strict=True)], 1)
        return self.offsets - 0.5 * (away * pull).sum(-1)

    def log_prob(self, poses: Tensor) -> Tensor:
        """``log p`` of poses (N, 63): (N,), nats."""
        return self.log_joint(poses).logsumexp(1)

    def nearest(self, poses: Tensor) -> Tensor:
        """The component with the highest ``w_k N_k``: (N,)."""
        return self.log_joint(poses).argmax(1)

    def energy(self, poses: Tensor) -> Tensor:
        """``min_k -log (w_k N_k)``: (N,), nats."""
        return -self.log_joint(poses).amax(1)

    def gaussian(self) -> tuple[Tensor, Tensor]:
        """Mean (63,) and covariance (63, 63) of the whole, which are those of the poses it was fitted to (but for the floor)."""
        mean = self.weights @ self.means
        away = self.means - mean
        return mean, torch.einsum("k,kij->ij", self.weights, self.covariances + away[:, :, None] * away[:, None])

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Poses (count, 63)."""
        device = self.means.device if generator is None else generator.device
        rows = torch.multinomial(self.weights.to(device), count, replacement=True, generator=generator).to(self.means.device)
        noise = torch.randn(count, DIM, generator=generator, device=device, dtype=self.means.dtype).to(self.means.device)
        factors = torch.linalg.cholesky(self.covariances)
        return self.means[rows] + (factors[rows] @ noise[..., None])[..., 0]

    # ---- files ---------------------------------------------------------------------------------------------------------

    def save(self, path: PathLike) -> None:
        """Write it as float32, whole or not at all."""
        tensors = {name: getattr(self, name).detach().cpu().float().contiguous() for name in _SMPLIFY}
        save_bytes(path, save(tensors, {"format": FORMAT, "provenance": json.dumps(self.provenance, default=str)}))

    @classmethod
    def from_pretrained(cls, path: PathLike | None = None, device: torch.device | str | None = None) -> "PoseMixture":
        """Read a mixture.

        Args:
            path: what :meth:`save` has written, or SMPLify's ``gmm_08.pkl``, of which SMPL's two hand joints are left out. None: the
                mixture that ships.
            device: default CPU.

        Raises:
            InputError: a file that is missing, truncated or of another kind.
        """
        path = existing_file(asset(*DEFAULT_MIXTURE) if path is None else path, _WHAT, "make one with `python -m run.train_gmm`")
        parts, provenance = _pickled(path) if path.suffix.lower() == ".pkl" else _stored(path)
        try:
            return cls(**parts, provenance=provenance).to(device or "cpu")
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


def _stored(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    header, tensors = read_safetensors(path, _WHAT, FORMAT)
    if tensors.keys() != _SMPLIFY.keys():
        raise InputError(f"{path}: holds {', '.join(sorted(tensors))}, expected {', '.join(_SMPLIFY)}; it was altered, fetch it again")
    try:
        return tensors, json.loads(header.get("provenance", "{}"))
    except ValueError as error:
        raise InputError(f"{path}: 'provenance' in its header is not JSON, expected {_WHAT}; fetch it again") from error


def _pickled(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    values = read_pickle(path)
    if missing := sorted(set(_SMPLIFY.values()) - values.keys()):
        raise InputError(f"{path}: lacks {', '.join(missing)} (found {', '.join(map(str, values)) or 'nothing'}), expected {_WHAT}")
    parts = {name: torch.tensor(to_array(values[key], f"{path}: {key}"), dtype=torch.float32) for name, key in _SMPLIFY.items()}
    if any(part.ndim != axes for axes, part in enumerate(parts.values(), 1)):
        raise InputError(f"{path}: arrays of other shapes than (K,), (K, D) and (K, D, D), expected {_WHAT}")
    parts |= {"means": parts["means"][:, :DIM], "covariances": parts["covariances"][:, :DIM, :DIM]}
    return parts, {"source": path.name}


# ---- expectation maximisation ------------------------------------------------------------------------------------------


def _moments(x: Tensor, belongs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Σ r (K,), Σ r x (K, 63) and Σ r x xᵀ (K, 63, 63) of poses (N, 63) that belong to components by shares (N, K)."""
    return belongs.sum(0), belongs.T @ x, torch.stack([(x * share[:, None]).T @ x for share in belongs.T])


def _maximised(moments: Sequence[tuple[Tensor, Tensor, Tensor]], floor: float) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, means and covariances of the mixture that is most likely, given the moments of all parts of the poses."""
    total, first, second = (torch.stack(parts).sum(0) for parts in zip(*moments, strict=True))
    total = total.clamp_min(_LEAST)
    means = first / total[:, None]
    covariances = second / total[:, None, None] - means[:, :, None] * means[:, None]
    return total, means, covariances + floor**2 * torch.eye(means.shape[1]).to(means)


def _clusters(x: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """(N,) number of the cluster of each pose: k-means from centres that lie far apart (k-means++, Arthur & Vassilvitskii, 2007)."""
    centres = x[torch.randint(len(x), (1,), generator=generator)]
    while len(centres) < count:
        chance = torch.cdist(x, centres).amin(1).square() + torch.finfo(x.dtype).tiny
        centres = torch.cat((centres, x[torch.multinomial(chance.cpu(), 1, generator=generator).to(x.device)]))
    for _ in range(_SPREAD_STEPS):
        belongs = torch.cdist(x, centres).argmin(1)
        sums = torch.zeros_like(centres).index_add_(0, belongs, x)
        sizes = torch.bincount(belongs, minlength=count)[:, None]
        centres = torch.where(sizes > 0, sums / sizes, centres)
    return torch.cdist(x, centres).argmin(1)
