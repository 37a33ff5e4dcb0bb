"""Fragments: lengths, names, remainders, and files that hold no poses."""

from pathlib import Path

import numpy as np
import pytest

from dposer.data.fragments import split_fragments
from dposer.errors import InputError


def test_fragments(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "S1"
    folder.mkdir(parents=True)
    poses = np.random.default_rng(0).normal(size=(25, 156))
    np.savez(folder / "walk_poses.npz", poses=poses)
    np.savez(folder / "short_poses.npz", poses=poses[:9])
    np.savez(folder / "shape.npz", betas=np.zeros(10))
    results = dict(split_fragments(tmp_path / "in", tmp_path / "out", seq_len=10))
    assert results[folder / "walk_poses.npz"] == 2 and results[folder / "short_poses.npz"] == 0
    assert isinstance(results[folder / "shape.npz"], InputError)
    written = sorted(path.name for path in (tmp_path / "out" / "S1").iterdir())
    assert written == ["walk_poses_batch000.npz", "walk_poses_batch001.npz"]
    with np.load(tmp_path / "out" / "S1" / "walk_poses_batch001.npz") as arrays:
        np.testing.assert_array_equal(arrays["pose_body"], poses[10:20, 3:66])
        np.testing.assert_array_equal(arrays["root_orient"], poses[10:20, :3])


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no .npz files"):
        list(split_fragments(tmp_path, tmp_path / "out"))
    with pytest.raises(InputError, match="seq-len"):
        list(split_fragments(tmp_path, tmp_path / "out", seq_len=0))
