"""Files are written whole or not at all; reading refuses what could run code."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from dposer.errors import InputError
from dposer.files import atomic_path, finite, load_npz, load_tensors, save_npz


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, failure: type[BaseException]) -> None:
    path = tmp_path / "result.npz"
    save_npz(path, {"a": np.arange(3)})
    with pytest.raises(failure), atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise failure
    assert list(load_npz(path, "test data")["a"]) == [0, 1, 2]
    assert os.listdir(tmp_path) == ["result.npz"]


def test_an_unwritable_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="cannot be written"), atomic_path(tmp_path / "file" / "out.npz"):
        pass


@pytest.mark.parametrize("cut", [0, 1, 30, 100])
def test_truncated_npz(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "data.npz"
    save_npz(path, {"a": np.arange(100)})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match="data.npz"):
        load_npz(path, "test data")


def test_pickles_inside_files_are_refused_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "a.npz", poses=np.array([Malicious()], dtype=object), fine=np.arange(2))
    with pytest.raises(InputError, match="poses"):
        load_npz(tmp_path / "a.npz", "poses", required=("poses",))
    assert list(load_npz(tmp_path / "a.npz", "poses", required=("fine",))) == ["fine"]
    for name, write in (("a.pt", lambda p: torch.save(Malicious(), p)), ("b.pt", lambda p: p.write_bytes(pickle.dumps(Malicious())))):
        write(tmp_path / name)
        with pytest.raises(InputError, match=name):
            load_tensors(tmp_path / name, "tensors")
    assert not (tmp_path / "executed").exists()


def test_missing_keys_are_named(tmp_path: Path) -> None:
    save_npz(tmp_path / "a.npz", {"shape": np.zeros(10)})
    with pytest.raises(InputError, match=r"lacks poses \(found shape\)"):
        load_npz(tmp_path / "a.npz", "an AMASS sequence", required=("poses",))


def test_nan_is_located() -> None:
    with pytest.raises(InputError, match=r"poses: 1 values.*\(2, 1\)"):
        finite(np.array([[0, 0], [0, 0], [0, np.nan]]), "poses")
