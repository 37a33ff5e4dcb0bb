"""BVH: hand-computed kinematics, round trips, any channel order, and errors that name the line."""

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dposer.data.bvh import read_bvh, write_bvh
from dposer.data.motion import Motion, forward_kinematics
from dposer.errors import InputError

_TEXT = """HIERARCHY
ROOT hip
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT knee
  {
    OFFSET 0 -40 0
    CHANNELS 3 Xrotation Yrotation Zrotation
    End Site
    {
      OFFSET 0 -30 10
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.05
0 100 0 0 0 0 0 0 0
10 90 0 90 0 0 90 0 0
"""


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_by_hand(tmp_path: Path) -> None:
    motion = read_bvh(_write(tmp_path / "a.bvh", _TEXT))
    _, positions = forward_kinematics(motion)
    assert motion.names == ("hip", "knee") and motion.fps == pytest.approx(20)
    np.testing.assert_allclose(positions[0], [[0, 1, 0], [0, 0.6, 0]], atol=1e-12)
    np.testing.assert_allclose(positions[1], [[0.1, 0.9, 0], [0.5, 0.9, 0]], atol=1e-12)  # the hip turns by 90 degrees about z
    rotations, _ = forward_kinematics(motion)
    np.testing.assert_allclose(rotations[1, 1] @ [0, 1, 0], [0, 0, 1], atol=1e-12)  # Rz Rx: y -> z -> z
    np.testing.assert_allclose(motion.tips[1], [0, -0.3, 0.1])


def test_channel_order(tmp_path: Path) -> None:
    """The same rotation, written with another order of channels."""
    other = _TEXT.replace(
        "CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation",
        "CHANNELS 6 Zrotation Xposition Yrotation Yposition Xrotation Zposition",
    )
    other = other.replace("\n0 100 0 0 0 0 0 0 0\n10 90 0 90 0 0 90 0 0\n", "\n0 0 0 100 0 0 0 0 0\n90 10 0 90 0 0 90 0 0\n")
    a, b = read_bvh(_write(tmp_path / "a.bvh", _TEXT)), read_bvh(_write(tmp_path / "b.bvh", other))
    np.testing.assert_allclose(a.rotations, b.rotations, atol=1e-12)
    np.testing.assert_allclose(a.translations, b.translations, atol=1e-12)


def test_scale_and_gzip(tmp_path: Path) -> None:
    (tmp_path / "a.bvh.gz").write_bytes(gzip.compress(_TEXT.encode()))
    np.testing.assert_allclose(read_bvh(tmp_path / "a.bvh.gz", scale=1.0).offsets, read_bvh(tmp_path / "a.bvh.gz").offsets * 100)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([0.1, 1.0, 3.0]))
def test_round_trip(tmp_path: Path, random_motion: Callable[..., Motion], seed: int, size: float) -> None:
    motion = random_motion(3, seed, size)
    write_bvh(tmp_path / "a.bvh", motion)
    again = read_bvh(tmp_path / "a.bvh")
    order = [again.index(name) for name in motion.names]
    assert again.fps == pytest.approx(motion.fps)
    for ours, theirs in zip(forward_kinematics(motion), forward_kinematics(again), strict=True):
        np.testing.assert_allclose(theirs[:, order], ours, atol=1e-6)
    np.testing.assert_allclose(again.tips[order], motion.tips, atol=1e-6)


def test_round_trip_in_gimbal_lock_and_with_sliding_joints(tmp_path: Path) -> None:
    motion = read_bvh(_write(tmp_path / "a.bvh", _TEXT.replace("10 90 0 90 0 0 90 0 0", "10 90 0 30 0 90 20 90 40")))
    slid = motion.translations.copy()
    slid[1, 1] += 0.02
    write_bvh(tmp_path / "b.bvh", replace(motion, translations=slid))
    again = read_bvh(tmp_path / "b.bvh")
    np.testing.assert_allclose(again.rotations, motion.rotations, atol=1e-7)
    np.testing.assert_allclose(again.translations, slid, atol=1e-7)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("HIERARCHY", "HIERACHY", "line 1: .*HIERARCHY"),
        ("OFFSET 0 -40 0", "OFFSET 0 -40", "line 8: found '0 -40', expected 3 numbers"),
        ("OFFSET 0 -40 0", "OFFSET 0 nan 0", "line 8: .*finite"),
        ("CHANNELS 3", "CHANNELS 4", "line 9: .*CHANNELS"),
        ("Xrotation Yrotation Zrotation", "Xrotation Xrotation Zrotation", "line 9: .*different"),
        ("MOTION\n", "}\nMOTION\n", "line 16"),
        ("Frames: 2", "Frames: two", "line 17"),
        ("Frames: 2", "Frames: 3", "found '2 lines of numbers', expected 3 frames"),
        ("Frame Time: 0.05", "Frame Time: 0", "line 18: .*positive"),
        ("10 90 0 90 0 0 90 0 0", "10 90 0 90 0 0 90 0", "line 20: .*expected 9 numbers"),
        ("10 90 0 90 0 0 90 0 0", "10 90 0 90 0 0 90 0 inf", "line 20: .*finite"),
        ("JOINT knee", "ROOT knee", "line 6"),
    ],
)
def test_broken(tmp_path: Path, old: str, new: str, expected: str) -> None:
    path = _write(tmp_path / "a.bvh", _TEXT.replace(old, new, 1))
    with pytest.raises(InputError, match=expected) as caught:
        read_bvh(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_empty_and_missing(tmp_path: Path) -> None:
    for path in (_write(tmp_path / "a.bvh", ""), tmp_path / "none.bvh", tmp_path):
        with pytest.raises(InputError):
            read_bvh(path)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(_TEXT)), garbage=st.binary(max_size=8), cut=st.booleans())
def test_damaged_files_raise_input_error_only(tmp_path: Path, at: int, garbage: bytes, cut: bool) -> None:
    text = _TEXT.encode()
    (tmp_path / "a.bvh").write_bytes(text[:at] + garbage + (b"" if cut else text[at + 4 :]))
    try:
        motion = read_bvh(tmp_path / "a.bvh")
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert np.isfinite(motion.rotations).all() and np.isfinite(motion.translations).all()
