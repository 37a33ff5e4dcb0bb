"""DiffPose: what its settings are worth on the synthetic heatmaps, and how fast and in how much memory hypotheses are drawn."""

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.motion import tell
from benchmarks.motion_speed import peak
from dposer.data.hypothesis_dumps import Origin
from dposer.data.synthetic_heatmaps import read_heatmaps
from dposer.files import atomic_path
from dposer.lifting import Lifter
from dposer.lifting.candidates import channel_code, on_crop
from dposer.lifting.checkpoint import LiftingCheckpoint
from dposer.lifting.config import DiffusionConfig, HeatmapConfig, LiftingConfig, LossConfig, NetworkConfig
from dposer.lifting.diffpose import Condition, DiffPose, Network
from dposer.lifting.hypothesis_report import HypothesisReport, hypotheses_of, score_hypotheses
from dposer.lifting.noise import Noise
from dposer.viz import save_image
from dposer.viz.calibration import plot_best_of, plot_calibration
from run._report import markdown

FIGURES = (
    "MPJPE best", "PA-MPJPE best", "MPJPE mean", "MPJPE mean pose", "CPS", "ECE", "kappa", "coverage 50", "coverage 90", "energy",
)  # fmt: skip
_PARTS = ("all", "ambiguous")


@dataclass(frozen=True)
class Study:
    """Frames that are measured: every so many of either preset's test frames."""

    folder: Path
    weights: str
    raw: Path | None
    every: int
    hypotheses: int
    seed: int

    def measured(self, checkpoint: LiftingCheckpoint, steps: int | None = None, highest_only: bool = False, split: str = "test") -> Any:
        """Report, and seconds a frame."""
        model = checkpoint.model()
        clips = read_heatmaps(self.folder, split)
        began = time.perf_counter()
        frames = list(hypotheses_of(model, clips, self.hypotheses, steps, self.seed, every=self.every, highest_only=highest_only))
        took = (time.perf_counter() - began) / sum(len(some.truth) for some in frames)
        origin = Origin("diffpose", steps or model.usual, "EMA", self.seed, str(self.folder))
        return score_hypotheses(frames, checkpoint.config.skeleton.joints, origin), took


def settings(study: Study, folder: Path) -> str:
    """Tables of the sampler's settings, all of the same weights, and pictures of how honest the spread is in ``folder``."""
    shipped = Lifter.from_pretrained(study.weights).checkpoint
    found: dict[str, tuple[HypothesisReport, float]] = {}
    for name, (checkpoint, arguments) in _variants(shipped, study.raw).items():
        found[name] = study.measured(checkpoint, **arguments)
        row = found[name][0].row()
        tell(f"{name}: " + " ".join(f"{figure} {row.figures[figure]:.3g}" for figure in FIGURES))
    first = next(iter(found.values()))[0]
    parts = [
        f"N = {study.hypotheses} hypotheses of every {study.every}th test frame ({first.row().frames}, of which "
        f"{first.row(part='ambiguous').frames} ambiguous: some joint's map is wider than 5 cells); one in three is of the preset hard. "
        "Each row is the first with one setting changed. Intervals (95 %) are a bootstrap over motions."
    ]
    for part in _PARTS:
        lines = [
            [name, *(_cell(report, figure, part) for figure in FIGURES), f"{1000 * took:.0f}"] for name, (report, took) in found.items()
        ]
        parts.append(markdown([f"{part} frames", *FIGURES, "ms a frame"], lines))
    row = first.row()
    joints = first.joints[1:]
    save(folder / "calibration.png", plot_calibration(first.levels, np.array(row.omega)[1:], joints, np.array(row.joints["ECE"])[1:]))
    curves = {f"{part} frames": (first.counts, first.row(part=part).curves["MPJPE"]) for part in _PARTS}
    save(folder / "best_of.png", plot_best_of(curves))
    parts += [f"![How often the truth is so central among hypotheses, joint by joint]({folder.name}/calibration.png)"]
    parts += [f"![Best of n]({folder.name}/best_of.png)"]
    return "\n\n".join(parts)


def _variants(shipped: LiftingCheckpoint, raw: Path | None) -> dict[str, tuple[LiftingCheckpoint, dict[str, Any]]]:
    def changed(steps: int | None = None, bound: float | None = None, eta: float = 1.0, **heatmap: Any) -> Any:
        config = shipped.config
        diffusion = replace(config.diffusion, eta=eta, bound=bound or config.diffusion.bound)
        config = replace(config, diffusion=diffusion, heatmap=replace(config.heatmap, **heatmap))
        return dataclasses.replace(shipped, config=config), {"steps": steps}

    h = shipped.config.heatmap
    found: dict[str, Any] = {"as shipped": (shipped, {})}
    if raw is not None:
        found["raw weights, not averaged"] = (Lifter.from_pretrained(raw).checkpoint, {})
    found |= {
        "highest cells only": (shipped, {"highest_only": True}),
        "whole chain, from T - 1": changed(late=0),
        "clip at 3 m, as published": changed(bound=3.0),
        "whole chain and 3 m, as published": changed(late=0, bound=3.0),
        **{f"noise × {scale:g}": changed(noise=scale) for scale in (1.0, 1.3, 1.8) if scale != h.noise},
        "DDIM, 10 steps": changed(10, eta=0.0, sampler="ddim"),
        "DPM-Solver++, 5 steps": changed(5, eta=0.0, sampler="dpm++"),
        "DPM-Solver++, 10 steps": changed(10, eta=0.0, sampler="dpm++"),
    }
    return found


def _cell(report: HypothesisReport, name: str, part: str) -> str:
    row = report.row(part=part)
    digits = 3 if name in ("ECE", "kappa") else 1
    text = f"{row.figures[name]:.{digits}f}"
    if name in row.intervals and name in ("MPJPE best", "PA-MPJPE best", "ECE"):
        low, high = row.intervals[name]
        text += f" ({low:.{digits}f}–{high:.{digits}f})"
    return text


def save(path: Path, image: Any) -> None:
    with atomic_path(path) as temporary:
        save_image(temporary, image)


# ---- speed -------------------------------------------------------------------------------------------------------------


def _published() -> LiftingConfig:
    return LiftingConfig(
        method="diffpose", inputs="heatmap", flip=False, network=NetworkConfig(1, 128, 4, 4, 0.0, 0.1),
        diffusion=DiffusionConfig(timesteps=25, scale=10.0, bound=3.0), heatmap=HeatmapConfig(), loss=LossConfig("mse"),
    )  # fmt: skip


def _heatmaps(frames: int) -> Tensor:
    """(F, 1, 16, 10): one blurred mode each."""
    maps = torch.zeros(frames, 1, 16, 10)
    maps[..., [0, 9]] = 1
    maps[..., 2:6] = 8 + 48 * torch.rand(frames, 1, 16, 2).repeat(1, 1, 1, 2)
    maps[..., [6, 8]] = 4
    return maps


def speed(hypotheses: int = 200) -> str:
    """Hypotheses of single frames beside the two slower ways, and the memory of many frames."""
    rows = []
    for title, config, frames in (
        ("published size", _published(), 2), ("shipped size", Lifter.from_pretrained("diffpose").config, 8),
    ):  # fmt: skip
        torch.manual_seed(0)
        model, heatmaps = DiffPose(config).eval(), _heatmaps(frames)
        noise = Noise.of(0, "clip", range(frames))
        mine, reference = _timed(lambda m=model, x=heatmaps, n=noise: m.predict(x, hypotheses, m.usual, n))
        once, every = _OneByOne.of(model, False), _OneByOne.of(model, True)
        found = [mine / frames]
        for slow in (once, every):
            took, poses = _timed(lambda m=slow, x=heatmaps, n=noise: m.predict(x, hypotheses, m.usual, n), warm=False)
            torch.testing.assert_close(poses, reference, atol=2e-3, rtol=0)
            found.append(took / frames)
        few = replace(config, diffusion=replace(config.diffusion, eta=0.0), heatmap=replace(config.heatmap, sampler="dpm++"))
        quick = DiffPose(few).eval()
        found.append(_timed(lambda m=quick, x=heatmaps, n=noise: m.predict(x, hypotheses, 10, n))[0] / frames)
        rows.append([title, *(f"{seconds:.3f}" for seconds in found), *(f"{seconds / found[0]:.1f}×" for seconds in found[1:3])])
        rows[-1].append(f"{found[2] / found[3]:.1f}×")
        tell(" ".join(rows[-1]))
    header = [
        f"{hypotheses} hypotheses of a frame", "s, ours", "s, candidates one by one", "s, and the condition at each step",
        "s, ours, DPM-Solver++ in 10 steps", "ratio", "ratio", "ratio of the last",
    ]  # fmt: skip
    note = (
        "Ours: candidates summed before they are projected, the condition and what the first layer makes of it once a hypothesis. The "
        "published code projects candidates one by one and has the condition once a hypothesis (third column); working it out at each "
        "step is the fourth. All give the same poses."
    )
    return "\n\n".join([note, markdown(header, rows), _memory(hypotheses)])


def _memory(hypotheses: int, frames: int = 64) -> str:
    rows = []
    for title, published in (("published size", True), ("shipped size", False)):
        for kind in ("mixtures", "maps"):
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                before, most = pool.submit(_drawn, published, kind, frames, hypotheses, torch.get_num_threads()).result()
            rows.append([title, kind, f"{before:.2f}", f"{most:.2f}", f"{most - before:.2f}"])
            tell(" ".join(rows[-1]))
    note = f"Memory of {frames} frames × {hypotheses} hypotheses in 2 steps, with `--max-batch` as it is:"
    return f"{note}\n\n{markdown(['', 'heatmaps', 'GB before', 'GB at most', 'more'], rows)}"


def _drawn(published: bool, kind: str, frames: int, hypotheses: int, threads: int) -> tuple[float, float]:
    torch.set_num_threads(threads)
    config = _published() if published else Lifter.from_pretrained("diffpose").config
    model = DiffPose(replace(config, heatmap=replace(config.heatmap, sampler="ddim"))).eval()
    heatmaps = _heatmaps(frames) if kind == "mixtures" else torch.rand(frames, 1, 16, 4096)
    before = peak()
    model.predict(heatmaps, hypotheses, 2)
    return before, peak()


def _timed(function: Callable[[], Tensor], warm: bool = True) -> tuple[float, Tensor]:
    if warm:
        function()
    start = time.perf_counter()
    found = function()
    return time.perf_counter() - start, found


class _Projected(Condition):
    """Every candidate's code goes through the linear layer before they are summed."""

    def _summed(self, candidates: Any, kept: Tensor | None) -> Tensor:
        code = channel_code(on_crop(candidates.places), self.joints.weight.shape[1] // 2).flatten(-2)
        return self.project(code * candidates.likelihood[..., None]).sum(-2)


class _Whole(Network):
    """The first layer sees pose, time and condition together; with ``again``, the condition is worked out anew."""

    again: Callable[[], Tensor] | None

    def told(self, condition: Tensor) -> Tensor:
        return condition

    def forward(self, x: Tensor, t: Tensor, told: Tensor) -> Tensor:
        condition = told if self.again is None else self.again()
        y = self.first(torch.cat((x, t[:, None].to(x), condition), -1))
        for block in self.blocks:
            y = block(y)
        return self.last(y)


class _OneByOne(DiffPose):
    """The slower ways."""

    @classmethod
    def of(cls, model: DiffPose, at_each_step: bool) -> "DiffPose":
        slow = cls(model.config)
        slow.load_state_dict(model.state_dict())
        slow.condition.__class__, slow.network.__class__ = _Projected, _Whole
        slow.network.again = None  # type: ignore[assignment]
        if at_each_step:
            slow.condition.register_forward_pre_hook(
                lambda module, inputs: setattr(slow.network, "again", lambda: Condition.forward(module, *inputs))
            )
        return slow.eval()
