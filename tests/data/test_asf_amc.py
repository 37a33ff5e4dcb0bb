"""ASF/AMC: hand-computed kinematics, the Euler-branch repair, and errors that name the line."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dposer.data.asf_amc import one_euler_branch, read_amc, read_asf
from dposer.data.motion import forward_kinematics
from dposer.errors import InputError

_UNIT = 0.0254 / 0.45


@pytest.fixture
def asf(tmp_path: Path, asf_text: str) -> Path:
    path = tmp_path / "01.asf"
    path.write_text(asf_text)
    return path


def _zeros(amc_text: Callable[..., str], frames: int = 1, **angles: str) -> str:
    return amc_text(frames, size=0.0, angles=angles)


def test_rest_pose(tmp_path: Path, asf: Path, amc_text: Callable[..., str]) -> None:
    (tmp_path / "a.amc").write_text(_zeros(amc_text))
    rotations, positions = forward_kinematics(motion := read_amc(tmp_path / "a.amc", asf))
    np.testing.assert_allclose(rotations, np.broadcast_to(np.eye(3), rotations.shape), atol=1e-12)
    ankle = 14.5 * _UNIT * np.array([0.34202, -0.939693, 0])
    np.testing.assert_allclose(positions[0, motion.index("lfoot")], ankle, atol=1e-9)
    np.testing.assert_allclose(positions[0, motion.index("rfoot")], ankle * (-1, 1, 1), atol=1e-9)


def test_bone_turns_about_its_own_axes(tmp_path: Path, asf: Path, amc_text: Callable[..., str]) -> None:
    """Femur axes are turned by 20 degrees about z, so rx turns about (cos 20, sin 20, 0): rx = -90 lifts the shank forwards."""
    (tmp_path / "a.amc").write_text(_zeros(amc_text, lfemur="-90 0 0", root="1 2 3 0 0 0"))
    _, positions = forward_kinematics(motion := read_amc(tmp_path / "a.amc", asf))
    thigh = positions[0, motion.index("ltibia")] - positions[0, motion.index("root")]
    np.testing.assert_allclose(thigh, [0, 0, 7 * _UNIT], atol=1e-6)
    np.testing.assert_allclose(positions[0, 0], np.array([1, 2, 3]) * _UNIT, atol=1e-12)


def test_first_dof_is_applied_first(tmp_path: Path, asf: Path, amc_text: Callable[..., str]) -> None:
    """rx then rz, both 90: y -> z -> z and x -> x -> y."""
    (tmp_path / "a.amc").write_text(_zeros(amc_text, thorax="90 0 90"))
    motion = read_amc(tmp_path / "a.amc", asf)
    np.testing.assert_allclose(motion.rotations[0, motion.index("thorax")], [[0, 0, 1], [1, 0, 0], [0, 1, 0]], atol=1e-12)


def test_gzip_and_rate(tmp_path: Path, asf: Path, amc_text: Callable[..., str]) -> None:
    text = amc_text(3, header="# frames subsampled 1/4: 120 Hz -> 30 Hz")
    (tmp_path / "a.amc.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "b.amc").write_text(amc_text(3))
    packed, plain = read_amc(tmp_path / "a.amc.gz", asf), read_amc(tmp_path / "b.amc", read_asf(asf))
    np.testing.assert_array_equal(packed.rotations, plain.rotations)
    assert (packed.fps, plain.fps, read_amc(tmp_path / "b.amc", asf, fps=60).fps) == (30.0, 120.0, 60.0)


def test_euler_branch_repair() -> None:
    pairs = np.array([[10.0, -20.0], [190.0, -200.0], [-159.0, 146.0], [100.0, 10.0], [-190.0, 10.0]])
    expected = np.array([[10.0, -20.0], [10.0, -20.0], [21.0, -34.0], [100.0, 10.0], [170.0, 10.0]])
    np.testing.assert_allclose(one_euler_branch(pairs), expected)


def test_repair_only_touches_two_dof_feet_and_hands(tmp_path: Path, asf: Path, amc_text: Callable[..., str]) -> None:
    flipped = {"lfoot": "190 -160", "rhand": "-170 175"}
    (tmp_path / "a.amc").write_text(_zeros(amc_text, **flipped))
    (tmp_path / "b.amc").write_text(_zeros(amc_text, lfoot="10 20", rhand="10 -5"))
    np.testing.assert_allclose(read_amc(tmp_path / "a.amc", asf).rotations, read_amc(tmp_path / "b.amc", asf).rotations, atol=1e-12)
    raw = read_amc(tmp_path / "a.amc", asf, repair=False)
    assert np.trace(raw.rotations[0, raw.index("lfoot")]) < 0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda text: text.replace("ltibia ", "lshin ", 1), "bone of the skeleton"),
        (lambda text: text.replace("\nltibia 0.00000", "\nltibia nan", 1), "finite numbers"),
        (lambda text: text.replace("\nltibia 0.00000", "\nltibia x", 1), "numbers"),
        (lambda text: "\n".join(text.splitlines()[:-3]), "frame 2"),
        (lambda text: "\n".join(text.splitlines()[:-1]), "frame 2"),
        (lambda text: text.replace(":DEGREES", ":RADIANS"), "DEGREES"),
        (lambda text: "nothing here", "frame number"),
        (lambda text: "\n".join(line for line in text.splitlines() if not line.startswith("head")), "head"),
    ],
)
def test_broken_amc(tmp_path: Path, asf: Path, amc_text: Callable[..., str], change: Callable[[str], str], expected: str) -> None:
    path = tmp_path / "a.amc"
    path.write_text(change(_zeros(amc_text, frames=2)))
    with pytest.raises(InputError, match=expected) as caught:
        read_amc(path, asf)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_error_names_the_line(tmp_path: Path, asf: Path, amc_text: Callable[..., str]) -> None:
    lines = _zeros(amc_text, frames=3).splitlines()
    at = [i for i, line in enumerate(lines) if line.startswith("rhand")][1]
    lines[at] = "rhand 1"
    (tmp_path / "a.amc").write_text("\n".join(lines))
    with pytest.raises(InputError, match=f"line {at + 1}: found '1', expected 2 numbers"):
        read_amc(tmp_path / "a.amc", asf)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (":hierarchy", ":other", "hierarchy"),
        ("angle deg", "angle rad", "radians"),
        ("length 0.45", "length 0", "positive"),
        ("dof rx ry rz", "dof rx l", "degrees of freedom"),
        ("XYZ\n    dof", "XYW\n    dof", "axis order"),
        ("    lfemur ltibia\n", "    lfemur ltibia\n    ltibia lfemur\n", "each bone once"),
        ("    root ", "    root ghost ", "bonedata describes"),
        ("    thorax ", "    nothing ", "bonedata describes"),
    ],
)
def test_broken_asf(tmp_path: Path, asf_text: str, old: str, new: str, expected: str) -> None:
    assert old in asf_text
    (tmp_path / "a.asf").write_text(asf_text.replace(old, new, 1))
    with pytest.raises(InputError, match=expected):
        read_asf(tmp_path / "a.asf")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_raise_input_error_only(tmp_path: Path, asf_text: str, amc_text: Callable[..., str], data: st.DataObject) -> None:
    texts = {"asf": asf_text.encode(), "amc": amc_text(2).encode()}
    which = data.draw(st.sampled_from(sorted(texts)))
    text = texts[which]
    at = data.draw(st.integers(0, len(text)))
    texts[which] = text[:at] + data.draw(st.binary(max_size=6)) + (b"" if data.draw(st.booleans()) else text[at + 3 :])
    (tmp_path / "a.asf").write_bytes(texts["asf"])
    (tmp_path / "a.amc").write_bytes(texts["amc"])
    try:
        motion = read_amc(tmp_path / "a.amc", tmp_path / "a.asf")
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert np.isfinite(motion.rotations).all() and np.isfinite(motion.translations).all()


def test_truncated_gzip(tmp_path: Path, asf: Path, amc_text: Callable[..., str]) -> None:
    (tmp_path / "a.amc.gz").write_bytes(gzip.compress(amc_text(3).encode())[:-20])
    with pytest.raises(InputError, match="gzip"):
        read_amc(tmp_path / "a.amc.gz", asf)
