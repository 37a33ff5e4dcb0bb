"""How good: samples and completions of the prior beside real poses and simple baselines, on held-out subjects."""

import copy
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.timing import compared, milliseconds, seconds
from dposer.assets import asset
from dposer.body import BodyModel
from dposer.body.parts import part_missing
from dposer.data.amass import read_poses
from dposer.data.processed import read_split
from dposer.prior import PosePrior
from dposer.solvers import COMPLETION_PRESETS, complete, mode_settings
from dposer.solvers.completion import Mode
from dposer.solvers.completion_scores import completion_scores, mean_completion, nearest_completions
from dposer.solvers.generation_scores import (
    FIGURES,
    UNITS,
    Reference,
    generation_report,
)
from dposer.solvers.tradeoff import PARTS
from run._report import figures_row, headed, markdown


@dataclass(frozen=True)
class Data:
    """A prior and the poses it is measured on."""

    prior: PosePrior
    reference: Reference
    training: Tensor | None
    note: str


def load(folder: Path | None, checkpoint: Path | None, count: int, seed: int) -> Data:
    """The test split, each subject as likely as any other; without a data set, the example poses that ship."""
    prior = PosePrior.from_pretrained(checkpoint)
    if folder is None:
        poses = torch.as_tensor(read_poses(asset("examples", "toy_data.npz")))
        reference = Reference.split(poses, seed=seed)
        return Data(prior, reference, None, f"{len(reference.poses)} example poses")
    test, train = read_split(folder, "test"), read_split(folder, "train")
    reference = Reference.split(test.pose_body, test.subject, 8 * count, seed)
    note = f"{len(reference.poses)} poses of held-out subjects, each subject alike; {len(train)} training poses"
    return Data(prior, reference, train.pose_body, note)


def sampling(data: Data, seed: int, count: int = 500, steps: tuple[int, ...] = (10, 15, 20), quality: int = 3000) -> str:
    """Time and quality of fast samplers beside 1000 steps of Euler–Maruyama."""
    rows, slow = [], 0.0
    for sampler, number in (("euler_maruyama", 1000), *(("dpm++", n) for n in steps), ("ddim", 20)):
        generator = torch.Generator().manual_seed(seed)
        data.prior.sample(count, steps=2, sampler=sampler, generator=generator)  # warm up
        start = time.perf_counter()
        data.prior.sample(count, steps=number, sampler=sampler, generator=generator)
        duration = time.perf_counter() - start
        slow = slow or duration
        samples = data.prior.sample(quality, steps=number, sampler=sampler, generator=generator)
        figures = figures_row(f"{sampler}, {number} steps", generation_report(samples, data.reference.poses), FIGURES[:4])
        rows.append([figures[0], milliseconds(duration), f"{slow / duration:.1f}×", *figures[1:]])
    header = ["sampler", f"time of {count}", "ratio", *headed(FIGURES[:4], UNITS)]
    return f"Quality of {quality} samples against {data.note}.\n\n{markdown(header, rows)}"


_COMPLETIONS: tuple[tuple[str, Mode, str | None], ...] = (
    ("posterior", "posterior", None),
    ("DPoser as published (v1)", "DPoser", "v1"),
    ("DPoser, own starts", "DPoser", None),
)


def completion(data: Data, seed: int, count: int = 200, hypotheses: int = 10) -> str:
    """The missing part of held-out poses: the solvers beside filling in mean and nearest training poses."""
    body = BodyModel()
    poses = data.reference.others[:count]
    rows = []
    keys: list[str] = []
    for part in PARTS:
        candidates = {}
        for name, mode, preset in _COMPLETIONS:
            generator = torch.Generator().manual_seed(seed)
            settings = mode_settings(data.prior, mode, preset)
            guesses = complete(data.prior, poses, part_missing(part), hypotheses, mode, generator, settings)
            candidates[f"{name}, {hypotheses} hypotheses"] = guesses
        if data.training is not None:
            candidates["mean training pose"] = mean_completion(data.training, poses, part)
            candidates["nearest training pose"] = nearest_completions(data.training, poses, part)
            candidates[f"{hypotheses} nearest training poses"] = nearest_completions(data.training, poses, part, hypotheses)
        for name, guesses in candidates.items():
            report = completion_scores(body, guesses, poses, part).report()
            keys = list(report)
            rows.append([part, *figures_row(name, report, keys, 1)])
    note = f"{len(poses)} held-out poses, errors of the hidden part in mm, no alignment; APD between hypotheses in cm."
    return f"{note}\n\n{markdown(['hidden', 'filled in by', *keys], rows)}"


def solver_speed(data: Data, seed: int, count: int = 50, hypotheses: int = 10, part: str = "left_leg") -> str:
    """DPoser's optimiser for all hypotheses at once, beside one hypothesis after the other as the original runs it.

    Beside both, a quarter of the steps, each hypothesis from a start of its own.
    """
    body, poses, hidden = BodyModel(), data.reference.poses[:count], part_missing(part)
    found: dict[str, Tensor] = {}

    def ours() -> None:
        generator = torch.Generator().manual_seed(seed)
        found["ours"] = complete(data.prior, poses, hidden, hypotheses, "DPoser", generator, COMPLETION_PRESETS["v1"])

    def theirs() -> None:
        found["theirs"] = _one_after_the_other(data.prior, poses, hidden, hypotheses, torch.Generator().manual_seed(seed))

    def quarter() -> None:
        generator = torch.Generator().manual_seed(seed)
        found["quarter"] = complete(
            data.prior, poses, hidden, hypotheses, "DPoser", generator, mode_settings(data.prior, "DPoser", None, 50)
        )

    slow = seconds(theirs, 1, 0)
    rows = [("the same 200 steps", seconds(ours, 1), slow), ("50 steps, own starts", seconds(quarter, 1), slow)]
    errors = {name: completion_scores(body, guesses, poses, part).report() for name, guesses in found.items()}
    told = ", ".join(f"{name} {errors[key]['MPVPE min']:.1f} / {errors[key]['MPVPE mean']:.1f}" for name, key in _TOLD.items())
    return (
        f"{hypotheses} hypotheses of {len(poses)} poses, {part}.\n\n{compared(rows, ours='in one batch', theirs='one after the other')}\n\n"
        f"MPVPE min / mean, mm: {told}."
    )


_TOLD = {"one after the other": "theirs", "in one batch": "ours", "50 steps, own starts": "quarter"}


def _one_after_the_other(prior: PosePrior, poses: Tensor, hidden: Tensor, hypotheses: int, generator: torch.Generator) -> Tensor:
    """The original's way: for each hypothesis a fresh Adam, and in each step the graphs of the network, thrown away, and of the loss."""
    settings = COMPLETION_PRESETS["v1"]
    denoiser = copy.deepcopy(prior.denoiser).requires_grad_(True)
    known = ~hidden.repeat_interleave(3)
    y = prior.normalize(poses)
    noisy = torch.where(known, y, torch.randn(y.shape, generator=generator))
    times = settings.time.times(settings.outer_steps * settings.inner_steps)
    found = []
    for _ in range(hypotheses):
        x = noisy.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([x], settings.lr, settings.betas)
        for step, t in enumerate(times.tolist()):
            outer = 1 + step // settings.inner_steps
            denoiser.eval()
            x_t = prior.schedule.perturb(x, t, torch.randn(x.shape, generator=generator))
            clean = denoiser.clean(x_t, torch.full((len(x),), t)).detach()  # every pose embeds the time that all share
            weight = 0.5 * torch.sqrt(1 + prior.schedule.log_snr(t).exp())
            loss = settings.data_weight / outer * torch.mean((known * (x - y)) ** 2)
            loss = loss + settings.prior_weight * outer * torch.mean(weight * (x - clean) ** 2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append(torch.where(known, y, x.detach()))
    return prior.denormalize(torch.stack(found, 1))
