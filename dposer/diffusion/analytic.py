"""Targets whose diffusion and conditionals are known in closed form, to measure samplers against."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dposer.diffusion.denoiser import Denoiser
from dposer.diffusion.schedule import Schedule


@dataclass(frozen=True)
class GaussianMixture:
    """x_0 ~ sum_k w_k N(m_k, C_k), so that x_t ~ sum_k w_k N(alpha m_k, alpha^2 C_k + sigma^2 I)."""

    weights: Tensor
    """(K,) of sum 1."""
    means: Tensor
    """(K, D)."""
    covariances: Tensor
    """(K, D, D)."""

    @property
    def mean(self) -> Tensor:
        """(D,)."""
        return self.weights @ self.means

    @property
    def covariance(self) -> Tensor:
        """(D, D)."""
        centred = self.means - self.mean
        return torch.einsum("k,kij->ij", self.weights, self.covariances) + torch.einsum("k,ki,kj->ij", self.weights, centred, centred)

    def log_prob(self, x: Tensor) -> Tensor:
        """(batch, D) -> (batch,)."""
        return torch.logsumexp(self._components(x).log_prob(x[:, None]) + self.weights.log(), dim=1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """(n, D)."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        z = torch.randn(n, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return self.means[k] + torch.einsum("nij,nj->ni", torch.linalg.cholesky(self.covariances)[k], z)

    def marginal(self, alpha: Tensor, sigma: Tensor) -> "GaussianMixture":
        """The law of alpha x_0 + sigma z."""
        identity = torch.eye(self.means.shape[1], dtype=self.means.dtype)
        return GaussianMixture(self.weights, alpha * self.means, alpha**2 * self.covariances + sigma**2 * identity)

    def given(self, known: Tensor, value: Tensor) -> "GaussianMixture":
        """The law of the entries that are not ``known`` (D,), given the value (D,) of those that are."""
        free = ~known
        gain = self.covariances[:, free][:, :, known] @ torch.linalg.inv(self.covariances[:, known][:, :, known])
        gap = value[known] - self.means[:, known]
        covariances = self.covariances[:, free][:, :, free] - gain @ self.covariances[:, known][:, :, free]
        evidence = GaussianMixture(self.weights, self.means[:, known], self.covariances[:, known][:, :, known])
        log_weights = self.weights.log() + evidence._components(value).log_prob(value[known])
        return GaussianMixture(log_weights.softmax(0), self.means[:, free] + torch.einsum("kij,kj->ki", gain, gap), covariances)

    def denoiser(self, schedule: Schedule) -> Denoiser:
        """The exact denoiser on ``schedule``, VP or sub-VP; its network takes ``known``, as one trained with masks."""
        return Denoiser(_Exact(self, schedule), schedule)

    def _components(self, x: Tensor) -> torch.distributions.MultivariateNormal:
        return torch.distributions.MultivariateNormal(self.means.to(x), self.covariances.to(x))


class _Exact(nn.Module):
    """The noise -sigma grad log p_t(x) of a mixture; given known entries, that of the conditional, all of one mask."""

    def __init__(self, target: GaussianMixture, schedule: Schedule) -> None:
        super().__init__()
        self.target, self.schedule = target, schedule

    def forward(self, x: Tensor, label: Tensor, known: Tensor | None = None) -> Tensor:
        t = label[0].double() / 999
        if known is None:
            return self._noise(self.target, x, t)
        mask = known[0]
        noise = torch.zeros_like(x)
        noise[:, ~mask] = self._noise(self.target.given(mask, x[0]), x[:, ~mask], t)
        return noise

    def _noise(self, target: GaussianMixture, x: Tensor, t: Tensor) -> Tensor:
        law = target.marginal(self.schedule.alpha(t), self.schedule.sigma(t))
        precisions = torch.linalg.inv(law.covariances).to(x)
        components = law._components(x)
        responsibility = (components.log_prob(x[:, None]) + law.weights.to(x).log()).softmax(dim=1)
        score = -torch.einsum("bk,kij,bkj->bi", responsibility, precisions, x[:, None] - law.means.to(x))
        return -self.schedule.sigma(t).to(x) * score
