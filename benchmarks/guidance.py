"""How far guided samplers are from conditionals that are known in closed form, and what a sample costs them."""

from typing import Any

import torch

from dposer.diffusion import SubVPSDE
from dposer.diffusion.analytic import GaussianMixture
from dposer.diffusion.guidance import Method, Observation, guided_sample
from run._report import markdown

_FEW: dict[str, Any] = {"eta": 1.0, "spacing": "log_snr"}
_PUBLISHED: dict[str, Any] = {"sampler": "euler_maruyama", "steps": 1000, "scale": 1.0}
METHODS: dict[str, tuple[Method, dict[str, Any]]] = {
    "network trained with masks, DPM-Solver++": ("inpainting", {"sampler": "dpm++", "steps": 20, "t_end": 0.02}),
    "ScoreSDE (replacement)": ("ScoreSDE", {"sampler": "euler_maruyama", "steps": 1000}),
    "ScoreSDE, DDIM": ("ScoreSDE", {"steps": 100, **_FEW}),
    "RePaint": ("RePaint", {"steps": 40, "resamples": 20, **_FEW}),
    "MCG, published step": ("MCG", _PUBLISHED),
    "MCG, DDIM": ("MCG", {"steps": 100, "eta": 1.0}),
    "DPS, published step": ("DPS", _PUBLISHED),
    "DPS, published form (no Jacobian)": ("DPS", {**_PUBLISHED, "jacobian": False, "limit": False}),
    "DPS, DDIM": ("DPS", {"steps": 100, "eta": 1.0}),
    "PiGDM, DDIM": ("PiGDM", {"steps": 100, **_FEW}),
    "PiGDM, DPM-Solver++": ("PiGDM", {"sampler": "dpm++", "steps": 20, "t_end": 0.02}),
    "SMC, 16 particles": ("SMC", {"steps": 100, "particles": 16}),
}


def targets() -> dict[str, GaussianMixture]:
    """A Gaussian whose entries correlate by 0.8 with the known one, and a mixture in which the known entry decides the component."""
    one, two = torch.ones(1, dtype=torch.float64), torch.tensor([0.5, 0.5], dtype=torch.float64)
    gaussian = torch.tensor([[[1.0, 0.8, 0.0], [0.8, 1.0, 0.3], [0.0, 0.3, 0.5]]], dtype=torch.float64)
    means = torch.tensor([[-1.0, -1.5], [1.0, 1.5]], dtype=torch.float64)
    spreads = torch.tensor([[[0.6, 0.2], [0.2, 0.2]], [[0.6, -0.2], [-0.2, 0.2]]], dtype=torch.float64)
    return {
        "Gaussian": GaussianMixture(one, torch.tensor([[0.3, -0.4, 0.2]], dtype=torch.float64), gaussian),
        "mixture": GaussianMixture(two, means, spreads),
    }


def biases(seed: int, count: int = 4000, value: float = 1.2) -> str:
    """Mean and spread of the first free entry, the entry before it being known."""
    schedule, rows = SubVPSDE(), []
    for name, (method, options) in METHODS.items():
        row = [name]
        for target in targets().values():
            generator = torch.Generator().manual_seed(seed)
            size = target.means.shape[1]
            known, y = torch.arange(size) == 0, torch.full((size,), value, dtype=torch.float64)
            denoiser, calls = target.denoiser(schedule), [0]

            def count_rows(_module: Any, inputs: tuple[torch.Tensor, ...], _output: Any, calls: list[int] = calls) -> None:
                calls[0] += len(inputs[0])

            denoiser.network.register_forward_hook(count_rows)
            z = schedule.sample_prior((count, size), generator, dtype=torch.float64)
            x = guided_sample(denoiser, z, Observation(known.expand(z.shape), y.expand(z.shape)), method, generator=generator, **options)
            law = target.given(known, y)
            exact = law.covariance[0, 0].sqrt()
            row += [f"{float((x[:, 1].mean() - law.mean[0]) / exact):+.2f}", f"{float(x[:, 1].std() / exact):.2f}"]
        rows.append([*row, f"{calls[0] / count:.0f}"])
    note = (
        f"{count} samples given one known entry, exact score, no network. Bias: error of the conditional mean in its standard deviations; "
        "spread: ratio of standard deviations (exact: 0 and 1)."
    )
    header = ["sampler", *(f"{target}: {figure}" for target in targets() for figure in ("bias", "spread")), "evaluations"]
    return f"{note}\n\n{markdown(header, rows)}"
