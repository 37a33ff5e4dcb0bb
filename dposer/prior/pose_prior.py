"""The pose prior: diffusion over normalised body poses, behind one class.

Poses cross this boundary as axis-angle in radians, (batch, 63). Methods that say "normalised" take or give the
(batch, D) vectors x̃ that the network sees. Source: Lu et al., DPoser (arXiv 2312.05541).
"""

import contextlib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dposer.assets import asset
from dposer.diffusion.likelihood import bits_per_dim, log_likelihood
from dposer.diffusion.samplers import ode_encode, ode_sample, sample
from dposer.diffusion.schedule import Schedule, Time, expand, gaussian_like
from dposer.errors import InputError
from dposer.files import PathLike
from dposer.prior.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from dposer.prior.config import PriorConfig
from dposer.prior.convert import PUBLISHED_SUFFIXES, convert
from dposer.prior.networks import build_denoiser, build_network
from dposer.prior.normalizer import Normalizer
from dposer.prior.plausibility import Calibration, Plausibility, joint_residual

__all__ = ["PosePrior", "Progress", "Weighting", "slerp", "watched"]

Weighting = Literal["plain", "sqrt(1+snr)", "sqrt(1+snr^2)"]
Reduction = Literal["none", "mean", "sum"]
Form = Literal["residual", "red-diff"]
Progress = Callable[[int, int], None]

DEFAULT_WEIGHTS = ("pretrained_models", "dposer-open.safetensors")
_FAST_START, _FAST_END, _FAST_ETA = 0.1, 0.03, 0.7
"""Where dpm++ begins (α/σ) and ends (σ/α) by default, and its share of noise. At the start the pose is a tenth of the noise: earlier,
errors of ε̂ enter the clean estimate divided by a smaller α; later than the end there is only noise too small to see. Noise on the
way forgets errors. The three were set on the shipped prior, by FID, precision and recall of 20-step samples."""
_SAMPLE_CHUNK = 16_384
_DENSITY_CHUNK = 1024


class PosePrior(nn.Module):
    """p(pose), learned by denoising; see :meth:`from_pretrained`.

    Dropout is off when the prior is in evaluation mode, as the constructors below leave it.

    Args:
        network: called as ``network(x, label)``; x̃_t (batch, D) and τ (batch,) → the noise (for VE: the score).
        normalizer: axis-angle ↔ x̃.
        config: the recipe the network was trained with.
        provenance: where the weights come from, free-form.
        calibration: residuals of held-out motion, for :meth:`plausibility`.
    """

    def __init__(
        self,
        network: nn.Module,
        normalizer: Normalizer,
        config: PriorConfig | None = None,
        provenance: dict[str, Any] | None = None,
        calibration: Calibration | None = None,
    ):
        super().__init__()
        self.config = config or PriorConfig()
        self.normalizer = normalizer
        self.denoiser = build_denoiser(network, self.config)
        self.provenance = provenance or {}
        self.calibration = calibration

    # ---- files -------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls, path: PathLike | None = None, device: torch.device | str | None = None, normalizer: PathLike | Normalizer | None = None
    ) -> "PosePrior":
        """Read a prior, in evaluation mode and without gradients for its weights.

        Args:
            path: a ``.safetensors`` of this library, or a published ``.pth`` / ``.ckpt``. None: the weights that ship.
            device: default CPU.
            normalizer: for published files only, see :func:`dposer.prior.convert.convert`.

        Raises:
            InputError: a file that is missing, truncated or of another kind.
        """
        path = asset(*DEFAULT_WEIGHTS) if path is None else Path(path)
        published = path.suffix.lower() in PUBLISHED_SUFFIXES
        return cls.from_checkpoint(convert(path, normalizer) if published else load_checkpoint(path)).to(device or "cpu")

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> "PosePrior":
        """The prior of a checkpoint, in evaluation mode and without gradients for its weights."""
        with torch.device("meta"):  # no time and no random numbers are spent on weights that are replaced at once
            network = build_network(checkpoint.config.model, checkpoint.normalizer.dim)
        network.load_state_dict(checkpoint.network, assign=True)
        calibration = Calibration(**checkpoint.calibration) if checkpoint.calibration else None
        prior = cls(network, checkpoint.normalizer, checkpoint.config, checkpoint.provenance, calibration)
        return prior.eval().requires_grad_(False)

    def save(self, path: PathLike, provenance: dict[str, Any] | None = None, dtype: torch.dtype | None = None) -> None:
        """Write one self-describing file; ``torch.float16`` halves it. ``provenance`` replaces that of the prior."""
        calibration = dict(self.calibration.state_dict()) if self.calibration is not None else {}
        state = self.denoiser.network.state_dict()
        provenance = self.provenance if provenance is None else provenance
        save_checkpoint(path, Checkpoint(self.config, state, self.normalizer, provenance, calibration), dtype)

    # ---- representation ----------------------------------------------------------------------------------------

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    @property
    def dim(self) -> int:
        """D: 63 for axis-angle, 126 for rot6d."""
        return self.normalizer.dim

    @property
    def device(self) -> torch.device:
        return self.normalizer.shift.device

    @property
    def dtype(self) -> torch.dtype:
        return self.normalizer.shift.dtype

    def normalize(self, pose: Tensor) -> Tensor:
        """Axis-angle (..., 63) → normalised (..., D). Differentiable."""
        return self.normalizer.normalize(pose)

    def denormalize(self, x: Tensor) -> Tensor:
        """Normalised (..., D) → axis-angle (..., 63). Differentiable."""
        return self.normalizer.denormalize(x)

    @property
    def masked(self) -> bool:
        """Whether the network was trained with masks, so that it also knows p(missing | known)."""
        return self.config.model.masked

    def fast_window(self) -> dict[str, float]:
        """``t_start`` and ``t_end`` of samplers with few steps: from α/σ = 0.1 to σ/α = 0.03."""
        start, end = (float(self.schedule.time(math.log(ratio))) for ratio in (_FAST_START, 1 / _FAST_END))
        return {"t_start": start, "t_end": end}

    @contextlib.contextmanager
    def checked_sampling(self, sampler: str, options: dict[str, Any], function: Callable[..., Any] = sample) -> Iterator[dict[str, Any]]:
        """Yield ``options`` with this prior's defaults for ``sampler``; what it or ``function`` refuses becomes an InputError."""
        if sampler == "dpm++":
            options = {**self.fast_window(), "eta": _FAST_ETA, **options}
        with _checked(options, ode_sample if sampler == "ode" else sample, function):
            yield options

    def expand_joints(self, joints: Tensor) -> Tensor:
        """A value per joint (..., 21) repeated for every normalised dimension of that joint, (..., D)."""
        return joints.repeat_interleave(self.dim // 21, dim=-1)

    # ---- samples -----------------------------------------------------------------------------------------------

    def sample(
        self,
        n: int,
        steps: int = 20,
        sampler: str = "dpm++",
        generator: torch.Generator | None = None,
        trajectory: bool = False,
        progress: Progress | None = None,
        **options: Any,
    ) -> Any:
        """Draw poses.

        Args:
            n: how many; large numbers are drawn in chunks.
            steps: network evaluations of each sample.
            sampler: a key of ``dposer.diffusion.samplers.PREDICTORS``, or "ode" (RK45, picks its own steps).
            generator: source of the noise, on any device; same generator, same device, same poses.
            trajectory: also return the state after every step.
            progress: called as ``progress(done, total)`` after every step.
            options: handed to :func:`dposer.diffusion.samplers.sample` (corrector, snr, eta, t_end, ...); dpm++ runs from
                α/σ = 0.1 to σ/α = 0.03 with ``eta`` = 0.7 unless told otherwise.

        Returns:
            (n, 63) axis-angle, or ((n, 63), (steps, n, 63)).

        Raises:
            InputError: n or steps below 1, an unknown sampler or option value.
        """
        if n < 1:
            raise InputError(f"n = {n}, expected at least 1 sample")
        if trajectory and sampler == "ode":
            raise InputError("trajectory: the ode sampler keeps none, expected another sampler, e.g. 'ode_euler'")
        sizes = [min(_SAMPLE_CHUNK, n - start) for start in range(0, n, _SAMPLE_CHUNK)]
        parts: list[tuple[Tensor, ...]] = []
        with self.checked_sampling(sampler, options) as options:
            for i, size in enumerate(sizes):
                z = self.schedule.sample_prior((size, self.dim), generator, self.device, self.dtype)
                if sampler == "ode":
                    parts.append((ode_sample(self.denoiser, z, **options)[0],))
                    continue
                watch = None if progress is None else watched(progress, i, len(sizes))
                result = sample(
                    self.denoiser, z, sampler=sampler, steps=steps, generator=generator, trajectory=trajectory, progress=watch, **options
                )
                parts.append(result if trajectory else (result,))
        poses = self.denormalize(torch.cat([part[0] for part in parts]))
        return (poses, self.denormalize(torch.cat([part[1] for part in parts], dim=1))) if trajectory else poses

    @torch.no_grad()
    def encode(self, pose: Tensor, **options: Any) -> Tensor:
        """Latents of poses by the probability-flow ODE: (batch, 63) → (batch, D), about N(0, I) where p(pose) is right."""
        with _checked(options, ode_encode):
            return ode_encode(self.denoiser, self.normalize(self._pose(pose)), **options)[0]

    @torch.no_grad()
    def decode(self, latent: Tensor, **options: Any) -> Tensor:
        """Inverse of :meth:`encode`: (batch, D) → (batch, 63)."""
        if latent.ndim != 2 or latent.shape[1] != self.dim or len(latent) == 0:
            raise InputError(f"latent: shape {tuple(latent.shape)}, expected (batch, {self.dim})")
        with _checked(options, ode_sample):
            return self.denormalize(ode_sample(self.denoiser, latent.to(self.device, self.dtype), **options)[0])

    def interpolate(self, poses: Tensor, frames: int = 60, latents: Tensor | None = None) -> Tensor:
        """Walk from pose to pose along great circles of the latent space, [sin((1−u)ω) a + sin(uω) b] / sin ω.

        Args:
            poses: (K, 63), K >= 2.
            frames: per pair of neighbours, both ends included.
            latents: (K, D) of the poses, if :meth:`encode` has been called already.

        Returns:
            (K − 1, frames, 63).
        """
        if len(poses) < 2 or frames < 2:
            raise InputError(f"{len(poses)} poses and {frames} frames, expected at least two of each to interpolate")
        latents = self.encode(poses) if latents is None else latents
        u = torch.linspace(0, 1, frames, device=latents.device, dtype=latents.dtype)
        path = slerp(latents[:-1, None], latents[1:, None], u[:, None])
        return self.decode(path.flatten(0, 1)).unflatten(0, (-1, frames))

    # ---- denoising ---------------------------------------------------------------------------------------------

    def denoise(
        self,
        pose: Tensor,
        t: Time,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        steps: int = 1,
        t_end: Time | None = None,
    ) -> Tensor:
        """x̂₀ = (x_t − σ ε̂) / α at x_t = α x̃ + σ z: add noise of time t, then take the mean of what it may have been.

        The larger t, the more is forgotten of ``pose`` and the more typical the result.

        Args:
            pose: (batch, 63).
            t: time in (0, 1]: float, 0-d or (batch,).
            noise: z, (batch, D) standard normal; None draws it.
            steps, t_end: see :meth:`ddim`.

        Returns:
            (batch, 63). Differentiable in ``pose``.
        """
        return self.denormalize(self._perturb_and_denoise(self.normalize(self._pose(pose)), t, noise, generator, steps, t_end))

    def ddim(self, x_t: Tensor, t: Time, steps: int = 1, t_end: Time | None = None) -> Tensor:
        """x ← (α_s / α_t) (x − σ_t ε̂) + σ_s ε̂ along ``steps`` even steps from t to t_end. Normalised; differentiable.

        One step without ``t_end`` goes to clean data: x̂₀ = (x_t − σ ε̂) / α. More steps end at t / (2 steps) by default.
        """
        t = _time(t)
        if steps < 1:
            raise InputError(f"steps = {steps}, expected at least 1")
        if t_end is None and steps == 1:
            return self.denoiser.clean(x_t, t)
        t_end = t / (2 * steps) if t_end is None else t_end
        nodes = [t + (t_end - t) * (k / steps) for k in range(steps + 1)]
        x = x_t
        for s in nodes[1:]:
            clean, noise = self.denoiser.clean_and_noise(x, t)
            x, t = self.schedule.perturb(clean, s, noise), s
        return x

    # ---- the regulariser ---------------------------------------------------------------------------------------

    def loss(
        self,
        pose: Tensor,
        t: Time,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        steps: int = 1,
        t_end: Time | None = None,
        weighting: Weighting = "plain",
        reduction: Reduction = "none",
        form: Form = "residual",
    ) -> Tensor:
        """L = w ‖x̃ − sg(x̂₀)‖², sg the stop-gradient: how far denoising from time t moves the pose, in normalised space.

        Its gradient in x̃ is 2 w (x̃ − x̂₀), for one step 2 w (σ/α) (ε̂ − z); no network is differentiated. The inner loop
        of solvers: values are not checked for NaN.

        Args:
            pose: (batch, 63).
            t, noise, generator, steps, t_end: as in :meth:`denoise`.
            weighting: w = ½, ½ √(1 + SNR) or ½ √(1 + SNR²), with SNR = α/σ.
            reduction: over the batch; the D dimensions are always summed.
            form: "red-diff" is 2 w ⟨sg(x̃ − x̂₀), x̃⟩, of the same gradient (Mardani et al., arXiv 2305.04391).

        Returns:
            (batch,), or 0-d.

        Source: Lu et al., DPoser (arXiv 2312.05541), eq. 8 and released code.
        """
        x = self.normalize(self._pose(pose, finite=False))
        residual = x - self._denoised(x, t, noise, generator, steps, t_end)
        if form == "residual":
            values = residual.square().sum(-1)
        elif form == "red-diff":
            values = 2 * (residual.detach() * x).sum(-1)
        else:
            raise InputError(f"form = {form!r}, expected 'residual' or 'red-diff'")
        return _reduce(expand(self._weight(t, weighting), values) * values, reduction)

    @torch.no_grad()
    def loss_gradient(
        self,
        x: Tensor,
        t: Time,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        steps: int = 1,
        t_end: Time | None = None,
        weighting: Weighting = "plain",
    ) -> Tensor:
        """∂L/∂x̃ = 2 w (x̃ − x̂₀) of :meth:`loss`, without building a graph: normalised (batch, D) → (batch, D)."""
        return 2 * expand(self._weight(t, weighting), x) * (x - self._denoised(x, t, noise, generator, steps, t_end))

    @torch.no_grad()
    def _denoised(
        self, x: Tensor, t: Time, noise: Tensor | None, generator: torch.Generator | None, steps: int, t_end: Time | None
    ) -> Tensor:
        """x̂₀ of the normalised x at time t, without a graph."""
        return self._perturb_and_denoise(x, t, noise, generator, steps, t_end)

    def _perturb_and_denoise(
        self, x: Tensor, t: Time, noise: Tensor | None, generator: torch.Generator | None, steps: int, t_end: Time | None
    ) -> Tensor:
        noise = gaussian_like(x, generator) if noise is None else noise
        return self.ddim(self.schedule.perturb(x, _time(t), noise), t, steps, t_end)

    def _weight(self, t: Time, weighting: Weighting) -> Tensor:
        snr = self.schedule.log_snr(_time(t)).exp()
        if weighting == "plain":
            return torch.full_like(snr, 0.5)
        if weighting == "sqrt(1+snr)":
            return 0.5 * (1 + snr).sqrt()
        if weighting == "sqrt(1+snr^2)":
            return 0.5 * (1 + snr**2).sqrt()
        raise InputError(f"weighting = {weighting!r}, expected 'plain', 'sqrt(1+snr)' or 'sqrt(1+snr^2)'")

    # ---- density -----------------------------------------------------------------------------------------------

    def log_prob(self, pose: Tensor, generator: torch.Generator | None = None, **options: Any) -> Tensor:
        """log p(pose) in nats per radian^63: log p(x̃) + log |det ∂x̃/∂pose|, by the probability-flow ODE.

        Exact up to the solver's tolerance (``method="hutchinson"`` trades that for speed). The density is that of
        poses blurred by the noise of time ``eps`` = 1e-4, since data may lie on a surface.

        Args:
            pose: (batch, 63).
            options: handed to :func:`dposer.diffusion.likelihood.log_likelihood`.

        Raises:
            InputError: a rot6d prior, whose density is not one over axis-angles; use :meth:`bits_per_dim`.
        """
        if self.normalizer.rot_rep != "axis":
            raise InputError(f"log_prob: a prior over {self.normalizer.rot_rep} has no density over axis-angles; use bits_per_dim")
        return self._log_prob_normalized(pose, generator, options) + self.normalizer.log_det()

    def bits_per_dim(self, pose: Tensor, generator: torch.Generator | None = None, **options: Any) -> Tensor:
        """−log p(x̃) / (D ln 2), (batch,): in normalised space, without the normaliser's Jacobian, as published."""
        return bits_per_dim(self._log_prob_normalized(pose, generator, options), self.dim)

    @torch.no_grad()
    def _log_prob_normalized(self, pose: Tensor, generator: torch.Generator | None, options: dict[str, Any]) -> Tensor:
        x = self.normalize(self._pose(pose))
        with _checked(options, log_likelihood):
            parts = [log_likelihood(self.denoiser, some, generator=generator, **options)[0] for some in x.split(_DENSITY_CHUNK)]
        return torch.cat(parts)

    # ---- plausibility ------------------------------------------------------------------------------------------

    def plausibility(self, pose: Tensor, generator: torch.Generator | None = None) -> Plausibility:
        """How ordinary each pose and each joint is, in per cent of held-out human motion that is less so.

        Args:
            pose: (batch, 63).
            generator: see :func:`dposer.prior.plausibility.joint_residual`.

        Raises:
            InputError: the weights have no calibration.
        """
        if self.calibration is None:
            raise InputError("plausibility: these weights hold no calibration tables; call prior.calibrate(held_out_poses) once")
        ranked: Plausibility = self.calibration(self._joint_residual(pose, generator))
        return ranked

    def calibrate(self, poses: Tensor, generator: torch.Generator | None = None) -> Calibration:
        """Tabulate the residuals of held-out poses (N, 63) for :meth:`plausibility`; kept with the prior, and returned."""
        self.calibration = Calibration.fit(self._joint_residual(poses, generator))
        return self.calibration

    @torch.no_grad()
    def _joint_residual(self, pose: Tensor, generator: torch.Generator | None) -> Tensor:
        return joint_residual(self.denoiser, self.normalize(self._pose(pose)), generator)

    # ---- checks ------------------------------------------------------------------------------------------------

    def _pose(self, pose: Tensor, finite: bool = True) -> Tensor:
        """The argument ``pose``, checked, where the weights are."""
        if pose.ndim != 2 or pose.shape[1] != 63 or len(pose) == 0:
            raise InputError(f"pose: shape {tuple(pose.shape)}, expected (batch, 63) axis-angle in radians")
        if finite and not bool(torch.isfinite(pose).all()):
            row = int((~torch.isfinite(pose)).any(1).nonzero()[0])
            raise InputError(f"pose: row {row} holds NaN or infinity, expected finite axis-angles; drop or mend that row")
        return pose.to(self.device, self.dtype)


def slerp(a: Tensor, b: Tensor, u: Tensor) -> Tensor:
    """[sin((1−u) ω) a + sin(u ω) b] / sin ω, ω the angle between the vectors a and b (..., D); a straight line if they are parallel."""
    cosine = torch.cosine_similarity(a, b, dim=-1).unsqueeze(-1)
    angle = cosine.clamp(-1, 1).acos()
    parallel = angle.sin() < 1e-4
    sine = torch.where(parallel, 1, angle.sin())
    arc = (torch.sin((1 - u) * angle) * a + torch.sin(u * angle) * b) / sine
    return torch.where(parallel, torch.lerp(a, b, u), arc)


def _time(t: Time) -> Time:
    """Check a time given as a number; tensors are taken as they are, since looking would wait for the device."""
    if not isinstance(t, Tensor) and not 0 < t <= 1:
        raise InputError(f"t = {t}, expected a diffusion time in (0, 1]")
    return t


def _reduce(values: Tensor, reduction: Reduction) -> Tensor:
    if reduction == "none":
        return values
    if reduction == "mean":
        return values.mean()
    if reduction == "sum":
        return values.sum()
    raise InputError(f"reduction = {reduction!r}, expected 'none', 'mean' or 'sum'")


def watched(progress: Progress, chunk: int, chunks: int) -> Callable[[Iterable[int]], Iterable[int]]:
    """The sampler wraps its range of steps; here progress is (done, total) over all chunks."""

    def wrap(steps: Iterable[int]) -> Iterator[int]:
        numbers = list(steps)
        for i in numbers:
            yield i
            progress(chunk * len(numbers) + i + 1, chunks * len(numbers))

    return wrap


@contextlib.contextmanager
def _checked(options: dict[str, Any], *functions: Callable[..., Any]) -> Iterator[None]:
    """Options come from the caller, so that those which no function knows, or one refuses, are bad input."""
    known = {p.name for f in functions for p in inspect.signature(f).parameters.values() if p.kind is not p.VAR_KEYWORD}
    if unknown := sorted(set(options) - known):
        raise InputError(f"unknown option {', '.join(unknown)}, expected one of {', '.join(sorted(known))}")
    try:
        yield
    except ValueError as error:
        raise InputError(str(error)) from error
