"""A denoiser: a network, the schedule it was trained on, and the meaning of its output."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from dposer.diffusion.schedule import Schedule, Time, expand

Prediction = Literal["noise", "score", "clean"]


class Denoiser(nn.Module):
    """score = -noise / sigma,  clean = (x - sigma noise) / alpha (Tweedie): three faces of one prediction.

    Args:
        network: called as ``network(x, label, **condition)``, x (batch, *dims), label (batch,) -> (batch, *dims).
            When t holds K < batch times, so does the label: batch / K consecutive samples share one.
        schedule: the path the network was trained on.
        predicts: what the network returns: the noise z, the score of p_t, or the clean x_0.
        clip: bound on the entries of the clean estimate; the noise and the score then follow from the bounded estimate.
    """

    def __init__(self, network: nn.Module, schedule: Schedule, predicts: Prediction = "noise", clip: float | None = None) -> None:
        super().__init__()
        if predicts not in get_args(Prediction):
            raise ValueError(f"predicts = {predicts!r}, expected one of {', '.join(get_args(Prediction))}")
        self.network = network
        self.schedule = schedule
        self.predicts = predicts
        self.clip = clip

    def clean_and_noise(self, x: Tensor, t: Time, **condition: Any) -> tuple[Tensor, Tensor]:
        """(E[x_0 | x_t], E[z | x_t]), each (batch, *dims), from one evaluation of the network."""
        alpha, sigma = expand(self.schedule.alpha(t), x), expand(self.schedule.sigma(t), x)
        output = self._evaluate(x, t, condition)
        if self.predicts == "clean":
            clean, noise = output, (x - alpha * output) / sigma
        else:
            noise = output if self.predicts == "noise" else -sigma * output
            clean = (x - sigma * noise) / alpha
        if self.clip is not None:
            clean = clean.clamp(-self.clip, self.clip)
            noise = (x - alpha * clean) / sigma
        return clean, noise

    def clean(self, x: Tensor, t: Time, **condition: Any) -> Tensor:
        """E[x_0 | x_t]."""
        return self.clean_and_noise(x, t, **condition)[0]

    def noise(self, x: Tensor, t: Time, **condition: Any) -> Tensor:
        """E[z | x_t]."""
        return self.clean_and_noise(x, t, **condition)[1]

    def score(self, x: Tensor, t: Time, **condition: Any) -> Tensor:
        """Gradient of log p_t at x."""
        return -self.noise(x, t, **condition) / expand(self.schedule.sigma(t), x)

    def velocity(self, x: Tensor, t: Time, **condition: Any) -> Tensor:
        """f - 1/2 g^2 score: dx/dt of the probability-flow ODE (Song et al. 2021, eq. 13).

        Raises:
            ValueError: the schedule is discrete.
        """
        gain = expand(self.schedule.diffusion(t), x) ** 2
        return self.schedule.drift(x, t) - 0.5 * gain * self.score(x, t, **condition)

    def _evaluate(self, x: Tensor, t: Time, condition: dict[str, Any]) -> Tensor:
        label = self.schedule.label(t).to(device=x.device, dtype=torch.promote_types(x.dtype, torch.float32))
        output: Tensor = self.network(x, label.expand(len(x)) if label.ndim == 0 else label, **condition)
        return output
