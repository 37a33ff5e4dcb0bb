"""How good: samples and completions of the prior beside real poses and simple baselines, on held-out subjects."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.timing import markdown, milliseconds
from dposer.assets import asset
from dposer.body import BodyModel
from dposer.body.parts import part_missing
from dposer.data.amass import read_poses
from dposer.data.processed import read_split
from dposer.prior import PosePrior
from dposer.solvers import complete
from dposer.solvers.completion_scores import completion_scores, mean_completion, nearest_completions
from dposer.solvers.evaluation import (
    balanced_draw,
    generation_report,
    report_row,
    self_intersection_report,
)

KEYS = ("APD", "FID", "precision", "recall", "dNN", "SI", "bits/dim")


@dataclass(frozen=True)
class Data:
    """A prior and the poses it is measured on."""

    prior: PosePrior
    held_out: Tensor
    """(N, 63) reference poses of held-out subjects."""
    other: Tensor
    """(N, 63) more of them, disjoint from ``held_out``: what real poses score."""
    training: Tensor | None
    note: str


def load(folder: Path | None, checkpoint: Path | None, count: int, seed: int) -> Data:
    """The test split, each subject as likely as any other; without a data set, the example poses that ship."""
    prior = PosePrior.from_pretrained(checkpoint)
    if folder is None:
        poses = torch.as_tensor(read_poses(asset("examples", "toy_data.npz")))
        return Data(prior, poses[::2], poses[1::2], None, f"{len(poses)} example poses")
    test, train = read_split(folder, "test"), read_split(folder, "train")
    poses = balanced_draw(test.pose_body, test.subject, 16 * count, seed).unique(dim=0)
    poses = poses[torch.randperm(len(poses), generator=torch.Generator().manual_seed(seed))]
    half = len(poses) // 2
    note = f"{half} poses of held-out subjects, each subject alike; {len(train)} training poses"
    return Data(prior, poses[:half], poses[half:], train.pose_body, note)


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
        report = generation_report(data.prior.sample(quality, steps=number, sampler=sampler, generator=generator), data.held_out)
        values = [f"{report[key]:.3f}" for key in ("APD", "FID", "precision", "recall")]
        rows.append([f"{sampler}, {number} steps", milliseconds(duration), f"{slow / duration:.1f}×", *values])
    header = ["sampler", f"time of {count}", "ratio", "APD cm", "FID", "precision", "recall"]
    return f"Quality of {quality} samples against {data.note}.\n\n{markdown(header, rows)}"


def generation(data: Data, seed: int, count: int = 500) -> str:
    """Samples beside real poses and a Gaussian fitted to the training poses."""
    generator = torch.Generator().manual_seed(seed)
    body = BodyModel()
    candidates = {
        "real held-out poses": data.other[: 4 * count],
        "prior, DPM-Solver++ 20 steps": data.prior.sample(4 * count, generator=generator),
    }
    if data.training is not None:
        candidates["real training poses"] = data.training[torch.randperm(len(data.training), generator=generator)[: 4 * count]]
        candidates["Gaussian of the training poses"] = _gaussian(data.training, 4 * count, generator)
    rows = []
    for name, poses in candidates.items():
        report = generation_report(poses, data.held_out, data.training, body)
        report["SI"] = self_intersection_report(poses[:50], body)
        if name.startswith(("real", "Gaussian")):
            report["bits/dim"] = float(data.prior.bits_per_dim(poses[:50]).mean())
        rows.append(report_row(name, report, KEYS))
    note = f"{4 * count} poses each against {data.note}; SI of 50, bits/dim (under the prior) of 50."
    return f"{note}\n\n{markdown(['poses', 'APD cm', 'FID', 'precision', 'recall', 'dNN rad', 'SI %', 'bits/dim'], rows)}"


def _gaussian(poses: Tensor, count: int, generator: torch.Generator) -> Tensor:
    mean, covariance = poses.double().mean(0), poses.double().T.cov()
    values, vectors = torch.linalg.eigh(covariance)
    z = torch.randn(count, len(mean), generator=generator, dtype=torch.float64)
    return (mean + (z * values.clamp(min=0).sqrt()) @ vectors.T).float()


def completion(data: Data, seed: int, count: int = 200, hypotheses: int = 10) -> str:
    """The missing part of held-out poses: the solver beside filling in mean and nearest training poses."""
    body = BodyModel()
    poses = data.other[:count]
    rows = []
    for part in ("left_leg", "legs", "arms", "trunk"):
        generator = torch.Generator().manual_seed(seed)
        candidates = {f"DPoser, {hypotheses} hypotheses": complete(data.prior, poses, part_missing(part), hypotheses, generator=generator)}
        if data.training is not None:
            candidates["mean training pose"] = mean_completion(data.training, poses, part)
            candidates["nearest training pose"] = nearest_completions(data.training, poses, part)
            candidates[f"{hypotheses} nearest training poses"] = nearest_completions(data.training, poses, part, hypotheses)
        for name, guesses in candidates.items():
            report = completion_scores(body, guesses, poses, part).report()
            rows.append([part, *report_row(name, report, list(report), 1)])
    header = ["hidden", "filled in by", *(f"{m} {s}" for m in ("MPVPE", "MPJPE") for s in ("min", "mean", "std"))]
    return f"{count} held-out poses, errors of the hidden part in mm, no alignment.\n\n{markdown(header, rows)}"
