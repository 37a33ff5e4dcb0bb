"""The data command lines, from the outside."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dposer.assets import asset
from run import prepare_data, split_fragments
from run._cli import cli

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """``run(main, *arguments)``: exit code, standard output and standard error of a command line."""

    def execute(main: Callable[[Any], None], *arguments: object) -> tuple[int, str, str]:
        code = 0
        try:
            cli(main, [str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return execute


@pytest.fixture
def amass(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for i, name in enumerate(("CMU/01/a_poses", "HumanEva/S1/b_stageii", "Transitions/t/c_poses", "SSM/s/d_poses")):
        path = tmp_path / "amass" / f"{name}.npz"
        path.parent.mkdir(parents=True)
        poses = rng.normal(size=(50 + i, 165 if "stageii" in name else 156))
        np.savez(path, poses=poses, trans=np.zeros((len(poses), 3)), betas=rng.normal(size=16), mocap_frame_rate=60.0)
    (tmp_path / "amass" / "CMU" / "01" / "broken_poses.npz").write_bytes(b"PK not really")
    return tmp_path / "amass"


def test_amass(amass: Path, tmp_path: Path, run: Run) -> None:
    for version in ("a", "b"):
        code, out, err = run(prepare_data.main, "--source", "amass", "--input", amass, "--output", tmp_path / "out", "--version", version)
        assert code == 0, err
    assert "1 of 5 files could not be used" in out and "broken_poses.npz" in out
    rows = {line.split()[0]: line.split()[1:4] for line in out.splitlines() if line and line.split()[0] in ("train", "valid", "test")}
    assert rows == {"train": ["1", "1", "12"], "valid": ["1", "1", "12"], "test": ["2", "2", "24"]}
    for split in rows:
        for key in ("pose_body", "root_orient", "betas", "subject"):
            first, second = (torch.load(tmp_path / "out" / version / split / f"{key}.pt", weights_only=True) for version in ("a", "b"))
            assert torch.equal(first, second)
    assert (tmp_path / "out" / "a" / "a.log").read_text().count("broken_poses.npz") == 1


def test_amass_duplicated_like_the_reference(amass: Path, tmp_path: Path, run: Run) -> None:
    flags = ("--source", "amass", "--input", amass, "--output", tmp_path / "out", "--duplicate-like-reference")
    code, _, err = run(prepare_data.main, *flags)
    assert code == 0, err
    pose_body = torch.load(tmp_path / "out" / "version1" / "test" / "pose_body.pt", weights_only=True)
    assert len(pose_body) == 12 + 12 + 12  # Transitions twice, SSM once


@pytest.mark.skipif(not asset("body_models", "smplx", "SMPLX_OPEN.npz").exists(), reason="no body model file is shipped")
def test_cmu_and_fragments(mocap: Path, tmp_path: Path, run: Run) -> None:
    source = mocap / "cmu" / "asf_amc" / "02"
    (tmp_path / "in").mkdir()
    for name in ("02.asf", "02_01.amc.gz"):
        (tmp_path / "in" / name).write_bytes((source / name).read_bytes())
    flags = ("--source", "cmu", "--input", tmp_path / "in", "--output", tmp_path / "out", "--write-amass", tmp_path / "amass")
    code, _, err = run(prepare_data.main, *flags)
    assert code == 0, err
    poses = torch.load(tmp_path / "out" / "version1" / "test" / "pose_body.pt", weights_only=True)
    assert poses.shape[1] == 63 and len(poses) > 50
    flags = ("--input-dir", tmp_path / "amass" / "test", "--output-dir", tmp_path / "pieces", "--seq-len", 20)
    code, out, err = run(split_fragments.main, *flags)
    assert code == 0, err
    assert f"{len(poses) // 20} fragments of 20 frames from 1 sequences" in out


def test_bad_input_ends_in_one_line(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "nothing"
    for main, flags in (
        (prepare_data.main, ("--source", "amass", "--input", folder)),
        (split_fragments.main, ("--input-dir", folder, "--output-dir", tmp_path)),
    ):
        code, _, err = run(main, *flags)
        assert code == 2
        assert len(err.strip().splitlines()) == 1 and str(folder) in err


def test_nothing_usable_is_an_error(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "in" / "CMU" / "01" / "a_poses.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"garbage")
    code, _, err = run(prepare_data.main, "--source", "amass", "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert code == 2 and "none of its 1 motion files" in err
    assert not (tmp_path / "out").exists()
