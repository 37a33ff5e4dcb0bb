"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(int(os.environ.get("DPOSER_TEST_THREADS", "1")))


@pytest.fixture(scope="session")
def mocap() -> Path:
    """The open motion-capture corpus beside the checkout, or skip."""
    folder = Path(os.environ.get("DPOSER_MOCAP", Path(__file__).resolve().parents[2] / "shared" / "mocap"))
    if not (folder / "MANIFEST.csv").is_file():
        pytest.skip(f"no motion-capture corpus at {folder} (set DPOSER_MOCAP)")
    return folder


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
