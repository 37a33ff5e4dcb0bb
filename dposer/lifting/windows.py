"""Windows: clips of any length cut into pieces of F frames and put together again; and the mirror.

Source: the rules of VideoPose3D (Pavllo et al., CVPR 2019) as D3DP and DDHPose keep them, and those of MixSTE (CVPR 2022).
"""

from collections.abc import Iterable
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from dposer.body.skeleton import Layout
from dposer.geometry.lens import screen, unscreen

__all__ = ["LastWindow", "clip_starts", "flip", "gather", "merge", "overlapping_starts", "screen", "train_starts", "unscreen"]

Array = TypeVar("Array", Tensor, np.ndarray)
LastWindow = Literal["overlap", "pad", "drop"]


def train_starts(length: int, frames: int) -> Tensor:
    """(⌈length / F⌉,) first frames of training windows that cover a clip evenly: the excess ⌊(nF − length) / 2⌋ hangs over at its head.

    :func:`gather` repeats the first and the last frame where they hang over.
    """
    count = -(-length // frames)
    return torch.arange(count) * frames - (count * frames - length) // 2


def clip_starts(length: int, frames: int, last: LastWindow = "overlap") -> Tensor:
    """First frames of the windows of a clip that is lifted: one after another from its beginning.

    Args:
        last: what happens to a rest: "overlap" (VideoPose3D's successors): the last window is the last F frames, and one shorter than a
            window is padded; "pad": the last window hangs over the end; "drop" (DiffHPE): the rest is left out.
    """
    starts = torch.arange(0, length, frames)
    if last == "drop":
        return starts[: length // frames]
    if last == "overlap":
        starts = starts.clamp(max=max(length - frames, 0))
    return starts


def overlapping_starts(length: int, frames: int, stride: int) -> Tensor:
    """Windows every ``stride`` frames, the last one flush with the end."""
    end = max(length - frames, 0)
    return torch.cat((torch.arange(0, end, stride), torch.tensor([end])))


def gather(array: Array, starts: Tensor, frames: int) -> Array:
    """(length, ...) → (windows, F, ...); beyond its ends the first or last frame is repeated."""
    index = (starts[:, None] + torch.arange(frames)).clamp(0, len(array) - 1)
    return array[index] if isinstance(array, Tensor) else array[index.numpy()]


def merge(windows: Tensor, starts: Tensor, length: int, fade: bool = False) -> Tensor:
    """(windows, F, ...) → (length, ...), what hangs over is cut; where windows overlap the later one counts.

    Args:
        fade: there, a mean with weights that fall linearly towards the edges of a window instead.
    """
    frames = windows.shape[1]
    index = starts[:, None] + torch.arange(frames)
    inside = (index >= 0) & (index < length)
    if not fade:
        merged = windows.new_zeros(length, *windows.shape[2:])
        for window, rows, there in zip(windows, index, inside, strict=True):
            merged[rows[there].to(windows.device)] = window[there.to(windows.device)]
        return merged
    ramp = torch.minimum(torch.arange(1, frames + 1), torch.arange(frames, 0, -1)).to(windows)
    weight = ramp.expand(len(windows), -1)[inside]
    rows = index[inside].to(windows.device)
    shape = (-1, *[1] * (windows.ndim - 2))
    total = windows.new_zeros(length).index_add(0, rows, weight)
    merged = windows.new_zeros(length, *windows.shape[2:]).index_add(0, rows, windows[inside.to(windows.device)] * weight.reshape(shape))
    return merged / total.reshape(shape)


def flip(points: Tensor, layout: Layout, sideways: Iterable[int] = (0,)) -> Tensor:
    """The mirrored person: −x, left and right exchanged; (..., J, D) on the screen or before the camera, ``sideways`` being the x's."""
    sign = torch.ones(points.shape[-1]).to(points)
    sign[list(sideways)] = -1
    return points[..., list(layout.mirror), :] * sign
