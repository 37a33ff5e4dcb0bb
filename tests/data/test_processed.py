"""The prepared layout: round trip, clear errors, balanced sampling."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dposer.data.processed import PoseSplit, balanced_indices, read_split, subject_weights, write_split
from dposer.errors import InputError


def _poses(n: int = 6, subject: bool = True) -> PoseSplit:
    generator = torch.Generator().manual_seed(n)
    parts = (torch.randn(n, width, generator=generator) for width in (63, 3, 10))
    return PoseSplit(*parts, subject=torch.arange(n) // 2 if subject else None)


def test_round_trip_and_sampling(tmp_path: Path) -> None:
    poses = _poses()
    write_split(tmp_path, "train", poses)
    again = read_split(tmp_path, "train")
    for key in ("pose_body", "root_orient", "betas", "subject"):
        assert torch.equal(getattr(again, key), getattr(poses, key))
    every_fourth = read_split(tmp_path, "train", sample=4)
    assert torch.equal(every_fourth.pose_body, poses.pose_body[::4]) and torch.equal(every_fourth.subject, poses.subject[::4])


def test_layout_is_bare_tensors(tmp_path: Path) -> None:
    write_split(tmp_path, "test", _poses())
    tensor = torch.load(tmp_path / "test" / "pose_body.pt", weights_only=True)
    assert tensor.shape == (6, 63) and tensor.dtype == torch.float32


def test_a_stale_subject_file_goes(tmp_path: Path) -> None:
    write_split(tmp_path, "train", _poses())
    write_split(tmp_path, "train", _poses(4, subject=False))
    assert read_split(tmp_path, "train").subject is None


def test_reference_files_without_subjects_are_read(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for key, width in (("pose_body", 63), ("root_orient", 3), ("betas", 10)):
        torch.save(torch.zeros(5, width, dtype=torch.float64), tmp_path / "train" / f"{key}.pt")
    assert read_split(tmp_path, "train").betas.dtype == torch.float32


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run.prepare_data"):
        read_split(tmp_path, "train")
    write_split(tmp_path, "train", _poses())
    with pytest.raises(InputError, match="sample"):
        read_split(tmp_path, "train", sample=0)
    torch.save(torch.zeros(6, 62), tmp_path / "train" / "pose_body.pt")
    with pytest.raises(InputError, match="pose_body.pt: found shape"):
        read_split(tmp_path, "train")
    torch.save(torch.full((6, 63), float("nan")), tmp_path / "train" / "pose_body.pt")
    with pytest.raises(InputError, match="NaN"):
        read_split(tmp_path, "train")
    torch.save(torch.zeros(5, 63), tmp_path / "train" / "pose_body.pt")
    with pytest.raises(InputError, match="expected \\(5"):
        read_split(tmp_path, "train")


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_subject_weights_give_every_subject_the_same_sum(counts: list[int]) -> None:
    subject = torch.repeat_interleave(torch.arange(len(counts)) * 3 + 1, torch.tensor(counts))
    weights = subject_weights(subject)
    sums = torch.stack([weights[subject == s].sum() for s in subject.unique()])
    torch.testing.assert_close(sums, torch.full_like(sums, 1 / len(counts)))


def test_balanced_indices_are_balanced_seeded_and_complete() -> None:
    subject = torch.tensor([5] * 90 + [2] * 9 + [7])[torch.randperm(100, generator=torch.Generator().manual_seed(1))]
    drawn = balanced_indices(subject, 6000, torch.Generator().manual_seed(0))
    counts = torch.stack([(subject[drawn] == s).sum() for s in (2, 5, 7)])
    assert ((counts - 2000).abs() < 200).all()  # five standard deviations
    assert len(drawn.unique()) == 100
    assert torch.equal(drawn, balanced_indices(subject, 6000, torch.Generator().manual_seed(0)))
