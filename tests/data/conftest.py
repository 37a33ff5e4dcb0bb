"""Fixtures over the tiny motion-capture corpus of tests/capture.py."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dposer.data.motion import Motion, root_path
from tests import capture
from tests.capture import BONES, MM


@pytest.fixture(scope="session")
def rest_joints() -> np.ndarray:
    """(22, 3) rest joints of an SMPL-X-like body."""
    return capture.rest_joints()


@pytest.fixture(scope="session")
def asf_text() -> str:
    return capture.asf_text()


@pytest.fixture(scope="session")
def amc_text() -> Callable[..., str]:
    return capture.amc_text


@pytest.fixture(scope="session")
def random_motion() -> Callable[..., Motion]:
    """``random_motion(frames, seed, size)``: the fixture skeleton with free random rotations of every joint, up to ``size`` radians."""
    from scipy.spatial.transform import Rotation

    names = ("root", *BONES)
    parents = (-1, *(names.index(bone[0]) for bone in BONES.values()))
    ends = np.array([np.zeros(3), *(np.array(bone[1]) / np.linalg.norm(bone[1]) * bone[2] for bone in BONES.values())]) * MM / 1000
    offsets = np.array([np.zeros(3) if p < 0 else ends[p] for p in parents])
    tips = np.array([np.zeros(3) if j in parents else ends[j] for j in range(len(names))])

    def make(frames: int = 5, seed: int = 0, size: float = 0.5) -> Motion:
        rng = np.random.default_rng(seed)
        vectors = rng.uniform(-size, size, (frames * len(names), 3))
        rotations = Rotation.from_rotvec(vectors).as_matrix().reshape(frames, len(names), 3, 3)
        return Motion(names, parents, offsets, rotations, root_path(offsets, rng.normal(size=(frames, 3))), 30.0, tips)

    return make


@pytest.fixture
def tiny_corpus(tmp_path: Path) -> Path:
    return capture.write_corpus(tmp_path / "corpus")
