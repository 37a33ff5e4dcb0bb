"""The probability-flow ODE dx/dt = f - 1/2 g^2 score: data to latents and back, without noise.

Source: Song et al., Score-Based Generative Modeling through SDEs (ICLR 2021), section 4.3.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from dposer.diffusion.denoiser import Denoiser


def ode_sample(
    denoiser: Denoiser,
    z: Tensor,
    t_start: float | None = None,
    t_end: float | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    denoise: bool = False,
    **condition: Any,
) -> tuple[Tensor, int]:
    """Solve the ODE from the latent z (batch, *dims) at t_start (None: t_max) down to t_end (None: sampling_eps).

    ``denoise`` adds one noise-free step from t_end to the clean estimate. Error control is by the RMS over the whole
    batch, so a sample depends on its companions within the tolerances.

    Returns:
        x (batch, *dims) and the number of evaluations of the ODE.

    Raises:
        ValueError: discrete schedule, or a network that returns NaN or infinity.
    """
    schedule = denoiser.schedule
    start = schedule.t_max if t_start is None else t_start
    end = schedule.sampling_eps if t_end is None else t_end
    (x,), nfe = integrate(lambda t, x: (denoiser.velocity(x, t, **condition),), [z], start, end, rtol, atol)
    if denoise:
        with torch.no_grad():
            x, nfe = denoiser.clean(x, end, **condition), nfe + 1
    return x, nfe


def ode_encode(
    denoiser: Denoiser,
    x: Tensor,
    t_start: float | None = None,
    t_end: float | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    **condition: Any,
) -> tuple[Tensor, int]:
    """The inverse of :func:`ode_sample`: from data x at t_start (None: sampling_eps) up to the latent at t_end (None: t_max)."""
    schedule = denoiser.schedule
    start = schedule.sampling_eps if t_start is None else t_start
    end = schedule.t_max if t_end is None else t_end
    return ode_sample(denoiser, x, start, end, rtol, atol, **condition)


def integrate(
    velocity: Callable[..., Sequence[Tensor]], state: Sequence[Tensor], start: float, end: float, rtol: float, atol: float
) -> tuple[list[Tensor], int]:
    """Solve d(state)/dt = velocity(t, *state) by SciPy's RK45 on the flattened float64 state; no gradients.

    Returns:
        the state at ``end``, each tensor in its own shape, dtype and device, and the number of evaluations.

    Raises:
        ValueError: the velocity is not finite, or the step size underflows.
    """
    sizes = [tensor.numel() for tensor in state]

    def pack(tensors: Sequence[Tensor]) -> np.ndarray:
        return np.concatenate([tensor.detach().cpu().double().flatten().numpy() for tensor in tensors])

    def unpack(flat: np.ndarray) -> list[Tensor]:
        parts = torch.from_numpy(flat).split(sizes)
        return [part.reshape(like.shape).to(like) for part, like in zip(parts, state, strict=True)]

    def derivative(t: float, flat: np.ndarray) -> np.ndarray:
        # copy: SciPy may hand out a view of its own work array
        rate = pack(velocity(float(t), *unpack(flat.copy())))
        if not np.isfinite(rate).all():  # RK45 would search for a step size for ever
            raise ValueError(f"the network returned NaN or infinity at t = {t:.4g} of the probability-flow ODE")
        return rate

    with torch.no_grad():
        solution = solve_ivp(derivative, (start, end), pack(state), method="RK45", rtol=rtol, atol=atol, t_eval=[end])
    if not solution.success:
        raise ValueError(f"the probability-flow ODE was not solved from t = {start} to {end}: {solution.message}; loosen rtol and atol")
    return unpack(np.ascontiguousarray(solution.y[:, -1])), int(solution.nfev)
