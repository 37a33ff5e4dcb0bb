"""Windows cover clips as the published loaders cut them, and the mirror is an involution."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dposer.body.skeleton import H36M_17, MPI_INF_3DHP_17
from dposer.lifting.windows import clip_starts, flip, gather, merge, overlapping_starts, train_starts


def test_training_windows_share_the_overhang_between_both_ends() -> None:
    assert train_starts(500, 243).tolist() == [-114, 129, 372]  # 3 windows of 243 overhang by 229
    assert train_starts(243, 243).tolist() == [0]
    window = gather(np.arange(5), train_starts(5, 9), 9)
    assert window.tolist() == [[0, 0, 0, 1, 2, 3, 4, 4, 4]]


def test_the_last_window_overlaps_hangs_over_or_is_dropped() -> None:
    assert clip_starts(500, 243).tolist() == [0, 243, 257]
    assert clip_starts(500, 243, "pad").tolist() == [0, 243, 486]
    assert clip_starts(500, 243, "drop").tolist() == [0, 243]
    assert clip_starts(100, 243).tolist() == [0]
    assert clip_starts(486, 243).tolist() == [0, 243]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 80), st.integers(1, 20), st.booleans(), st.data())
def test_windows_of_a_clip_merge_to_the_clip(length: int, frames: int, fade: bool, data: st.DataObject) -> None:
    clip = torch.randn(length, 2, dtype=torch.float64)
    stride = data.draw(st.integers(1, frames))
    for starts in (clip_starts(length, frames), clip_starts(length, frames, "pad"), overlapping_starts(length, frames, stride)):
        torch.testing.assert_close(merge(gather(clip, starts, frames), starts, length, fade), clip)


def test_the_later_window_counts_where_two_overlap() -> None:
    starts = clip_starts(5, 3)
    windows = torch.tensor([[0.0], [1.0]]).expand(2, 3)
    assert merge(windows, starts, 5).tolist() == [0, 0, 1, 1, 1]
    assert merge(windows, starts, 5, fade=True)[2] == pytest.approx(0.5)


@pytest.mark.parametrize("layout", [H36M_17, MPI_INF_3DHP_17], ids=lambda layout: layout.name)
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_flipping_twice_is_the_identity(layout: object, channels: int) -> None:
    points = torch.randn(2, 5, 17, channels)
    mirrored = flip(points, layout)  # type: ignore[arg-type]
    assert torch.equal(flip(mirrored, layout), points)  # type: ignore[arg-type]
    left, right = layout.joints.index("left_wrist"), layout.joints.index("right_wrist")  # type: ignore[attr-defined]
    assert torch.equal(mirrored[..., left, 0], -points[..., right, 0]) and torch.equal(mirrored[..., left, 1:], points[..., right, 1:])
