"""Dumps of hypotheses: every layout reads back, files are joined frame by frame, and what is wrong is said in one line."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from dposer.body.skeleton import H36M_17
from dposer.data.hypothesis_dumps import (
    POSES,
    TRUTH,
    Dump,
    Origin,
    ScoredFrames,
    check_same,
    joined,
    read_hypotheses,
    write_hypotheses,
)
from dposer.errors import InputError

F, N, J = 5, 3, 17


def dump(seed: int = 0, number: int = N, central: bool = True) -> Dump:
    generator = torch.Generator().manual_seed(seed)
    h, truth = torch.randn(F, number, J, 3, generator=generator), torch.randn(F, J, 3, generator=torch.Generator().manual_seed(9))
    h[..., 0, :], truth[:, 0] = 0, 0
    frames = ScoredFrames(
        h, truth, np.array(["Walking", "Sitting"] * 2 + ["Sitting"]), np.arange(F) % 2 == 0, h[:, 0] if central else None,
        np.array(["S9/Walking", "S9/Sitting 1"] * 2 + ["S11/Sitting"]), np.arange(F) * 64,
    )  # fmt: skip
    return Dump(frames, H36M_17.joints, Origin("diffpose", 25, "EMA", 7, "h5"))


def test_own_files_keep_everything(tmp_path: Path) -> None:
    made = dump()
    write_hypotheses(tmp_path / "a.npz", made)
    found = read_hypotheses(tmp_path / "a.npz")
    assert (found.joints, found.origin) == (made.joints, made.origin)
    for name, value in vars(made.frames).items():
        np.testing.assert_array_equal(getattr(found.frames, name), value)
    write_hypotheses(tmp_path / "b.npz", Dump(dump(central=False).frames, H36M_17.joints, Origin()))
    plain = read_hypotheses(tmp_path / "b.npz")
    assert plain.frames.central is None and plain.origin == Origin()


def test_published_files_turn_the_axes(tmp_path: Path) -> None:
    made = dump()
    write_hypotheses(tmp_path / f"hard{POSES}", made)
    stored = np.load(tmp_path / f"hard{POSES}")
    assert stored.shape == (F, N, 3, J)
    np.testing.assert_allclose(stored[2, 1, :, 4], made.frames.hypotheses[2, 1, 4].numpy() * [1000, -1000, -1000], rtol=1e-6)
    for swapped in (False, True):  # (F, N, ...) and (N, F, ...)
        np.save(tmp_path / f"hard{POSES}", stored.swapaxes(0, 1) if swapped else stored)
        frames = read_hypotheses(tmp_path / f"hard{POSES}").frames
        torch.testing.assert_close(frames.hypotheses, made.frames.hypotheses)
        torch.testing.assert_close(frames.truth, made.frames.truth)
        assert frames.central is not None and frames.hard.all() and set(frames.group) == {"hard"}


def test_pickled_dicts_are_read_without_running_them(tmp_path: Path) -> None:
    made = dump().frames
    poses, truth = 1000 * made.hypotheses.numpy(), 1000 * made.truth.numpy()
    path = tmp_path / "sharma.pkl"
    path.write_bytes(pickle.dumps({"p3d_pred_sharma": poses.swapaxes(0, 1), "p3d_gt": truth}))
    torch.testing.assert_close(read_hypotheses(path).frames.hypotheses, made.hypotheses)
    for values, said in (
        ({"p3d_gt": truth}, "lacks p3d_pred_sharma"),
        ({"p3d_pred_sharma": poses[0], "p3d_gt": truth}, "expected \\(F, N, 17, 3"),
    ):
        path.write_bytes(pickle.dumps(values))
        with pytest.raises(InputError, match=said):
            read_hypotheses(path)
    path.write_bytes(pickle.dumps({"p3d_gt": Path("/")}))
    with pytest.raises(InputError, match="not an array"):
        read_hypotheses(path)


def test_joined_files_have_the_best_of_every_frame() -> None:
    one, other = dump(1), dump(2, number=4)
    both = joined([one, other])
    assert both.frames.hypotheses.shape[1] == 7 and both.origin.method == "diffpose"
    error = [(some.frames.hypotheses - some.frames.truth[:, None]).norm(dim=-1).mean(-1).amin(1) for some in (one, other, both)]
    torch.testing.assert_close(torch.minimum(error[0], error[1]), error[2])
    two = ScoredFrames.stacked([one.frames, dump(3, central=False).frames])
    assert len(two) == 2 * F and two.central is None and list(two.clips[:F]) == list(one.frames.clips)
    assert [len(some) for some in two.chunks(4)] == [4, 4, 2]


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    made = dump()
    with pytest.raises(InputError, match="5 and 3 frames"):
        check_same(made, Dump(made.frames.take(slice(3)), made.joints, made.origin))
    moved = ScoredFrames(made.frames.hypotheses, made.frames.truth + 0.1, made.frames.group, made.frames.hard)
    with pytest.raises(InputError, match="100 mm apart"):
        check_same(made, Dump(moved, made.joints, made.origin))
    with pytest.raises(InputError, match=r"hard of shape \(4,\), expected \(5,\)"):
        ScoredFrames(made.frames.hypotheses, made.frames.truth, made.frames.group, made.frames.hard[:4])

    poses = 1000 * made.frames.hypotheses.numpy().swapaxes(-1, -2)
    path = tmp_path / f"x{POSES}"
    for stored, truth, said in (
        (poses, poses[:2, 0], "expected 2 frames"),
        (poses[..., :16], poses[:, 0], "17 or 24 joints"),
        (poses.swapaxes(-1, -2), poses[:, 0], r"expected \(F, N, 3, J\)"),
        (poses / 1000, poses[:, 0], "expected millimetres"),
        (np.where(poses == poses.max(), np.nan, poses), poses[:, 0], "1 values are NaN"),
    ):
        np.save(path, stored)
        np.save(tmp_path / f"x{TRUTH}", truth)
        with pytest.raises(InputError, match=said) as raised:
            read_hypotheses(path)
        assert str(path) in str(raised.value) and "\n" not in str(raised.value)
    for name in ("x.txt", "x.npy"):
        with pytest.raises(InputError, match="expected a dump"):
            read_hypotheses(tmp_path / name)
        with pytest.raises(InputError, match="expected NAME.npz"):
            write_hypotheses(tmp_path / name, made)
    np.savez(tmp_path / "y.npz", hypotheses=poses, truth=poses[:, 0], joint_names=np.array(H36M_17.joints))
    with pytest.raises(InputError, match="for its joint_names"):
        read_hypotheses(tmp_path / "y.npz")
