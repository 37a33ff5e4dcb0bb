"""Log-likelihood by the instantaneous change of variables along the probability-flow ODE.

log p_0(x) = log p_T(z) + int_eps^T div v(x_t, t) dt,  v = f - 1/2 g^2 score.
Source: Chen et al., Neural ODEs (NeurIPS 2018); Song et al. (ICLR 2021), section 4.3 and appendix D.2.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.func import jvp, vmap

from dposer.diffusion.denoiser import Denoiser
from dposer.diffusion.ode import integrate
from dposer.diffusion.schedule import gaussian_like

Method = Literal["exact", "hutchinson"]
Probe = Literal["rademacher", "gaussian"]


def log_likelihood(
    denoiser: Denoiser,
    x: Tensor,
    eps: float = 1e-4,
    method: Method = "exact",
    probe: Probe = "rademacher",
    rtol: float = 1e-4,
    atol: float = 1e-4,
    generator: torch.Generator | None = None,
    chunk: int = 16,
    **condition: Any,
) -> tuple[Tensor, Tensor, int]:
    """log p(x) in nats per sample, the ODE being solved from eps to t_max together with the divergence.

    Error control is by the RMS over the whole batch, so a value depends on its companions within the tolerances.

    Args:
        x: (batch, *dims), D = prod(dims).
        method: "exact" sums the D diagonal entries of the Jacobian, ``chunk`` forward-mode products at a time, which
            bounds the memory; "hutchinson" takes one product with one probe, unbiased, kept for the whole solve.
        probe: entries of Hutchinson's probe: +-1 or N(0, 1).

    Returns:
        log p (batch,), the latent z (batch, *dims), and the number of evaluations of the ODE.

    Raises:
        ValueError: unknown method or probe, discrete schedule, or a network that returns NaN or infinity.
    """
    if method not in get_args(Method) or probe not in get_args(Probe):
        raise ValueError(f"method = {method!r}, probe = {probe!r}, expected one of {get_args(Method)} and of {get_args(Probe)}")
    if method == "exact":
        dims = x[0].numel()
        directions = torch.eye(dims, dtype=x.dtype, device=x.device).reshape(dims, *x.shape[1:])
    else:
        noise = gaussian_like(x, generator)
        directions = (noise if probe == "gaussian" else torch.where(noise < 0, -1.0, 1.0).to(x)).unsqueeze(0)

    def augmented(t: float, x: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        return velocity_and_divergence(lambda x: denoiser.velocity(x, t, **condition), x, directions, chunk)

    start = torch.zeros(len(x), dtype=torch.float64)
    (z, gain), nfe = integrate(augmented, [x, start], eps, denoiser.schedule.t_max, rtol, atol)
    return denoiser.schedule.prior_log_prob(z) + gain.to(z), z, nfe


def velocity_and_divergence(velocity: Callable[[Tensor], Tensor], x: Tensor, directions: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """v(x) (batch, *dims) and sum_k e_k^T (dv/dx) e_k (batch,), for directions e_k (K, *dims) or (K, batch, *dims)."""

    def curvature(direction: Tensor) -> Tensor:
        direction = direction.expand_as(x)
        return (jvp(velocity, (x,), (direction,))[1] * direction).flatten(1).sum(1)

    return velocity(x), vmap(curvature, chunk_size=chunk)(directions).sum(0)


def bits_per_dim(log_prob: Tensor, dims: int) -> Tensor:
    """-log p / (D ln 2)."""
    return -log_prob / (dims * math.log(2))
