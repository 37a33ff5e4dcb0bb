"""Hypotheses of the frames of clips, by any lifting method, a few frames at a time."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dposer.data.heatmap_mixtures import CELLS, SIDE, highest
from dposer.data.hypothesis_dumps import ScoredFrames
from dposer.data.lifting_clip import LiftingClip
from dposer.lifting.config import LiftingConfig
from dposer.lifting.evaluation import check_clips, group_of
from dposer.lifting.model import MAX_BATCH, LiftingModel, Progress
from dposer.lifting.noise import Noise
from dposer.lifting.training import Pair, observed_of
from dposer.lifting.windows import clip_starts, gather

_POSES = 1 << 18
"""That are kept at once while a clip is lifted."""


@torch.no_grad()
def hypotheses_of(
    model: LiftingModel,
    clips: Sequence[LiftingClip],
    hypotheses: int = 200,
    steps: int | None = None,
    seed: int = 0,
    max_batch: int = MAX_BATCH,
    progress: Progress | None = None,
    *,
    every: int = 1,
    hard_only: bool = False,
    group: Literal["action", "subject", "sequence"] = "action",
    central: LiftingModel | None = None,
    highest_only: bool = False,
) -> Iterator[ScoredFrames]:
    """Lift clips, some frames at a time; only what holds a frame that counts is lifted.

    Hypotheses are the same as those of :class:`~dposer.lifting.lifter.Lifter` and of :func:`~dposer.lifting.evaluation.evaluate`: of
    frames in two windows those of the later one.

    Args:
        model: of any method.
        clips: with the joints' truth and in the layout of the model.
        hypotheses, steps: N, T; None: as many steps as serve the method.
        seed: decides the noise, with the clip's name and the place of a window.
        max_batch: sequences that the network sees at once.
        progress: told (done, total) frames.
        every: of the frames of all clips, one after another, every so many.
        hard_only: ambiguous frames alone.
        group: see :class:`~dposer.lifting.evaluation.EvalSettings`.
        central: gives the central poses (z0), e.g. the same method without noise.
        highest_only: heatmaps are told by their highest cells alone: what spread is left comes of the noise, not of what the picture
            leaves open.

    Raises:
        InputError: no clip, one without truth or of another layout.
    """
    check_clips(clips, model.config.skeleton)
    steps = (steps or model.usual) if model.usual > 1 else 1  # some take one, whatever is asked for
    frames, device = model.config.network.frames, next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    rows = _counted(clips, every, hard_only)
    done, total = 0, sum(map(len, rows))
    at_once = max(1, _POSES // (hypotheses * steps * frames))
    for clip, mine in ((clip, mine) for clip, mine in zip(clips, rows, strict=True) if len(mine)):
        starts, window_of = clip_starts(len(clip), frames), _windows(clip, model.config)
        owner = torch.searchsorted(starts, mine, right=True) - 1
        for some in owner.unique().split(at_once):
            here = mine[(owner >= some[0]) & (owner <= some[-1])]
            observed = window_of(starts[some])
            observed = (_peaks(observed) if highest_only else observed).to(device)
            noise = Noise.of(seed, clip.name, starts[some])
            window = torch.searchsorted(starts[some], here, right=True) - 1
            place = here - starts[some][window]
            found = model.predict(observed, hypotheses, steps, noise, max_batch)[:, -1].cpu()  # (windows, H, F, J, 3)
            middle = None if central is None else central.predict(observed, 1, steps, noise, max_batch)[:, -1, 0].cpu()[window, place]
            yield _scored(clip, here.numpy(), found[window, :, place], middle, group)
            done += len(here)
            if progress:
                progress(done, total)


def _counted(clips: Sequence[LiftingClip], every: int, hard_only: bool) -> list[Tensor]:
    """Rows of each clip that count."""
    before, rows = 0, []
    for clip in clips:
        there = (before + np.arange(len(clip))) % every == 0
        before += len(clip)
        if clip.valid is not None:
            there &= clip.valid.astype(bool)
        if hard_only:
            there &= _hard(clip)
        rows.append(torch.from_numpy(np.flatnonzero(there)))
    return rows


def _hard(clip: LiftingClip) -> np.ndarray:
    return np.zeros(len(clip), bool) if clip.hard is None else clip.hard.astype(bool)


def _windows(clip: LiftingClip, config: LiftingConfig) -> Callable[[Tensor], Tensor]:
    """What is observed of windows, by their first frames; heatmaps, of single frames, are read when they are asked for."""
    if config.inputs != "heatmap":
        observed = Pair.of(clip, config).observed
        return lambda starts: gather(observed, starts, config.network.frames)

    def read(starts: Tensor) -> Tensor:
        rows = starts.numpy()
        maps = None if clip.heatmaps is None else clip.heatmaps[rows]
        bare = dataclasses.replace(clip, keypoints=clip.keypoints[rows], joints=None, heatmaps=maps, mixture=None, valid=None, hard=None)
        return observed_of(bare, config)[:, None]

    return read


def _peaks(heatmaps: Tensor) -> Tensor:
    """Maps (..., 16, 4096) that are zero but at the highest cell."""
    x, y, value = highest(heatmaps).unbind(-1)
    flat = heatmaps.new_zeros(*heatmaps.shape[:-1], CELLS)
    return flat.scatter_(-1, (y * SIDE + x).long()[..., None], value[..., None])


def _scored(clip: LiftingClip, rows: np.ndarray, found: Tensor, central: Tensor | None, by: str) -> ScoredFrames:
    assert clip.joints is not None
    joints = clip.joints[rows]
    truth = torch.from_numpy(np.ascontiguousarray(joints - joints[:, clip.root : clip.root + 1], np.float32))
    names = np.full(len(rows), group_of(clip, by)), np.full(len(rows), clip.name.rpartition("/")[0])  # views of a take are not independent
    return ScoredFrames(found, truth, names[0], _hard(clip)[rows], central, names[1], rows)
