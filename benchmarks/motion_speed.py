"""How fast: fragments of motion beside the original's way, and a sequence of ten minutes."""

import resource
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.motion import DEFAULT, tell
from benchmarks.motion_data import FPS, Motions
from dposer.assets import asset
from dposer.body import BodyModel
from dposer.body.model import BodyOutput
from dposer.metrics.poses import mpjpe
from dposer.solvers.denoising_scores import solver
from dposer.solvers.generation_scores import joint_positions
from dposer.solvers.motion_adam import denoising_settings
from dposer.solvers.motion_denoising import MotionSettings, NewtonSettings
from dposer.solvers.motion_fitting import fit_motion
from run._report import markdown

WINDOW, OVERLAP = 120, 30
_HOLES = 0.05


class SmplxBody(BodyModel):
    """The open body posed by the package smplx, which always skins the whole mesh."""

    def __init__(self) -> None:
        super().__init__()
        import smplx

        path = asset("body_models", "smplx", "SMPLX_OPEN.npz")
        self._smplx = smplx.create(str(path), model_type="smplx", ext="npz", use_pca=False, flat_hand_mean=True)

    def forward(
        self,
        pose_body: Tensor,
        root_orient: Tensor | None = None,
        betas: Tensor | None = None,
        trans: Tensor | None = None,
        **ignored: Any,
    ) -> BodyOutput:
        zeros = {
            f"{name}_pose": pose_body.new_zeros(len(pose_body), width)
            for name, width in (("jaw", 3), ("leye", 3), ("reye", 3), ("left_hand", 45), ("right_hand", 45))
        }
        for name, value, width in (("global_orient", root_orient, 3), ("transl", trans, 3), ("betas", betas, 10), ("expression", None, 10)):
            zeros[name] = pose_body.new_zeros(len(pose_body), width) if value is None else value
        out = self._smplx(body_pose=pose_body, **zeros)
        return BodyOutput(out.joints[:, :22], out.vertices)


@dataclass(frozen=True)
class Contender:
    """One way to denoise."""

    name: str
    settings: MotionSettings
    body: BodyModel
    together: bool = True
    """Whether it is also tried on many fragments at once."""


def speed(motions: Motions, noise_std: float = 0.04, frames: int = 60, repeats: int = 3, per_subject: int = 6) -> str:
    """Fragments one at a time, and many together."""
    fragments = motions.fragments("test", per_subject, frames)
    poses, observed = fragments.poses, fragments.observed(noise_std, motions.seed)
    full, joints = denoising_settings("v2", noise_std), denoising_settings("paper", noise_std)
    contenders = [
        Contender("the published optimiser, whole mesh by smplx", full, SmplxBody(), together=False),
        Contender("the same, whole mesh by this library", full, motions.body, together=False),
        Contender("the paper's text: temporal term on joints", joints, motions.body),
        Contender(DEFAULT, NewtonSettings(), motions.body),
    ]
    rows, slowest = [], 0.0
    for one in contenders:
        solve = solver(motions.prior, one.body, noise_std, one.settings)

        def run(some: slice, solve: Any = solve) -> tuple[float, Tensor]:
            start = time.perf_counter()
            found = solve(observed[some], torch.ones(22, dtype=torch.bool), torch.Generator().manual_seed(motions.seed), None)
            return time.perf_counter() - start, _errors(motions.body, found, poses[some])

        singles = [run(slice(i, i + 1)) for i in range(repeats + 1)][1:]  # the first warms up
        alone = statistics.median(duration for duration, _ in singles)
        slowest = slowest or alone
        row = [one.name, f"{alone:.2f}", f"{slowest / alone:.1f}×", f"{float(torch.cat([error for _, error in singles]).mean()):.2f}"]
        if one.together:
            duration, errors = run(slice(None))
            each = duration / len(poses)
            row += [f"{each:.3f}", f"{alone / each:.1f}×", f"{float(errors.mean()):.2f}"]
        rows.append(row + ["-"] * (7 - len(row)))
        tell(" ".join(rows[-1]))
    many = f"{len(poses)} together"
    header = [
        "",
        "s per fragment, alone",
        "faster",
        "MPJPE mm",
        f"s per fragment, {many}",
        f"{many}, faster than alone",
        f"MPJPE mm of {many}",
    ]
    note = (
        f"Fragments of {frames} frames of held-out subjects, {1000 * noise_std:g} mm of noise, {torch.get_num_threads()} threads. Alone: "
        f"the median time of {repeats} fragments, and the mean error of the same. The original poses the whole mesh of "
        f"{motions.body.num_vertices} vertices in each of its steps and takes gradients through it."
    )
    return f"{note}\n\n{markdown(header, rows)}"


def _errors(body: BodyModel, found: Tensor, poses: Tensor) -> Tensor:
    joints, truth = (joint_positions(body, some.flatten(0, 1)).unflatten(0, some.shape[:2]) for some in (found, poses))
    return 1000 * mpjpe(joints, truth)


# ---- a long sequence ---------------------------------------------------------------------------------------------------


def long_motion(motions: Motions, minutes: Sequence[float] = (1, 10), noise_std: float = 0.02) -> str:
    """Noisy joints with holes in world coordinates, of a body whose shape has to be found; each length in a process of its own."""
    rows, borders = [], []
    for duration in minutes:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # a process's peak never falls, hence one each
            task = pool.submit(_fit_long, motions, round(60 * FPS * duration), noise_std, torch.get_num_threads())
            whole, across = task.result()
        rows.append([f"{duration:g} min", *whole])
        borders.append([f"{duration:g} min", *across])
        tell(" ".join(rows[-1] + borders[-1][1:]))
    note = (
        f"{1000 * noise_std:g} mm of noise on each coordinate, {100 * _HOLES:g} % of the joints missing in holes of half a second, root, "
        f"translation and shape unknown; windows of {WINDOW} frames that overlap by {OVERLAP}. Errors over 22 joints in world coordinates, "
        f"no alignment. {torch.get_num_threads()} threads."
    )
    seams = (
        "Across window borders / everywhere else, mean over joints. Speed is the joints' way from the last frame of a window to the first "
        "of the next, its error the distance between that way and the true one; acceleration needs frames of both sides. The largest: "
        "99th percentile."
    )
    first = markdown(["", "time", "peak memory of the process", "before the fit", "observed MPJPE mm", "MPJPE mm"], rows)
    header = ["", "speed mm/frame", "its error mm/frame", "acceleration mm/frame²", "largest acceleration mm/frame²"]
    return f"{note}\n\n{first}\n\n{seams}\n\n{markdown(header, borders)}"


def _fit_long(motions: Motions, frames: int, noise_std: float, threads: int) -> tuple[list[str], list[str]]:
    """Time, memory and errors of the whole, and what happens at borders."""
    torch.set_num_threads(threads)
    motion = motions.long(frames)
    given = [torch.tensor(part, dtype=torch.float32) for part in (motion.pose_body, motion.root_orient, motion.betas[None], motion.trans)]
    truth = motions.body(*given, vertices=None, joints="body").joints
    generator = torch.Generator().manual_seed(motions.seed)
    length = round(FPS / 2)
    holes = (torch.rand(-(-frames // length), 22, generator=generator) < _HOLES).repeat_interleave(length, 0)[:frames]
    points = (truth + noise_std * torch.randn(truth.shape, generator=generator)).masked_fill(holes[..., None], torch.nan)
    before, start = peak(), time.perf_counter()
    fit = fit_motion(motions.prior, points, fps=FPS, body=motions.body, window=WINDOW, overlap=OVERLAP, generator=generator)
    duration = time.perf_counter() - start
    errors = (1000 * torch.linalg.vector_norm(some - truth, dim=-1).nanmean() for some in (points, fit.points))
    border = torch.arange(WINDOW - OVERLAP, frames - OVERLAP, WINDOW - OVERLAP)
    bends, both = fit.points.diff(n=2, dim=0), torch.cat((border - 2, border - 1))
    return (
        [f"{duration:.0f} s", f"{peak():.2f} GB", f"{before:.2f} GB", *(f"{float(error):.1f}" for error in errors)],
        [
            _across(fit.points.diff(dim=0), border - 1),
            _across((fit.points - truth).diff(dim=0), border - 1),
            _across(bends, both),
            _across(bends, both, 0.99),
        ],
    )


def _across(changes: Tensor, rows: Tensor, quantile: float | None = None) -> str:
    """Of (F, 22, 3) metres the mean length, or a quantile of it, in some rows and in all others."""
    lengths = 1000 * torch.linalg.vector_norm(changes, dim=-1)
    other = torch.ones(len(lengths), dtype=torch.bool)
    other[rows] = False
    some = [part.flatten().numpy() for part in (lengths[rows], lengths[other])]
    return " / ".join(f"{np.mean(part) if quantile is None else np.quantile(part, quantile):.2f}" for part in some)


def peak() -> float:
    """GB that this process has had in memory at most; without what the kernel carries over from the process that started it."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
