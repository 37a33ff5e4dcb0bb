"""Masks in words and in files: what is said is what is missing, and nonsense ends in one line."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dposer.body.parts import part_missing
from dposer.body.skeleton import BODY_JOINTS, PARTS
from dposer.data.masks import read_missing
from dposer.errors import InputError

masks = st.lists(st.booleans(), min_size=63, max_size=63).map(torch.tensor).filter(lambda mask: 0 < int(mask.sum()) < 63)


def in_words(mask: Tensor, separator: str) -> str:
    """A mask (63,) as a specification: whole joints by name, others by their axes."""
    words = []
    for name, axes in zip(BODY_JOINTS, mask.view(21, 3).tolist(), strict=True):
        letters = "".join(letter for letter, is_missing in zip("xyz", axes, strict=True) if is_missing)
        words += [name if letters == "xyz" else f"{name}.{letters}"] if letters else []
    return separator.join(words)


@settings(max_examples=25, deadline=None)
@given(mask=masks, separator=st.sampled_from([",", "+", ", "]))
def test_words_say_the_mask(mask: Tensor, separator: str) -> None:
    assert torch.equal(read_missing(in_words(mask, separator), 4), mask)


@settings(max_examples=25, deadline=None)
@given(names=st.lists(st.sampled_from([*PARTS, *BODY_JOINTS]), min_size=1, max_size=3))
def test_names_are_united(names: list[str]) -> None:
    expected = torch.zeros(21, dtype=torch.bool)
    for name in names:
        expected[list(PARTS.get(name, ())) or BODY_JOINTS.index(name)] = True
    assert torch.equal(read_missing("+".join(names), 1), expected.repeat_interleave(3))


def write(path: Path, mask: np.ndarray) -> Path:
    if path.suffix == ".npz":
        np.savez(path, missing=mask)
    elif path.suffix == ".npy":
        np.save(path, mask)
    elif path.suffix == ".pt":
        torch.save(torch.from_numpy(mask), path)
    else:
        np.savetxt(path, np.atleast_2d(mask), fmt="%d", delimiter="," if path.suffix == ".csv" else " ")
    return path


@settings(max_examples=30, deadline=None)
@given(
    mask=masks,
    suffix=st.sampled_from([".npz", ".npy", ".pt", ".txt", ".csv"]),
    dtype=st.sampled_from([bool, np.int64, np.float32]),
    rows=st.sampled_from([None, 1, 3]),
)
def test_files_hold_the_mask(tmp_path_factory: pytest.TempPathFactory, mask: Tensor, suffix: str, dtype: type, rows: int | None) -> None:
    values = mask if rows is None else torch.stack([mask.roll(i) for i in range(rows)])
    path = write(tmp_path_factory.getbasetemp() / f"mask{suffix}", values.numpy().astype(dtype))
    assert torch.equal(read_missing(str(path), rows or 5), values.squeeze())


def test_a_mask_of_joints_covers_their_axes(tmp_path: Path) -> None:
    joints = torch.stack([part_missing("legs"), part_missing("hands")])
    path = write(tmp_path / "joints.npy", joints.numpy())
    assert torch.equal(read_missing(str(path), 2), joints.repeat_interleave(3, dim=1))


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("left_elbw", "left_elbw.*did you mean left_elbow"),
        ("left_leg,,arms", "no part or joint ''"),
        ("left_elbow.w", "axes 'w'"),
        ("left_elbow.", "axes ''"),
        ("legs+arms+trunk+hands+spine1,neck,head,left_collar,right_collar", "everything is missing"),
        ("absent.npz", "absent.npz: found nothing"),
        ("masks/absent", "found nothing"),
    ],
)
def test_bad_words(spec: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as error:
        read_missing(spec, 3)
    assert "\n" not in str(error.value)


_ROWS = np.eye(3, 21)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("wide.npy", np.ones((3, 22)), r"shape \(3, 22\), expected \(21,\)"),
        ("long.npy", np.ones((4, 21)), r"\(3, 21\)"),
        ("half.npy", np.full(21, 0.5), "value 0.5"),
        ("nan.npy", np.where(np.eye(3, 63) > 0, np.nan, 0), "NaN"),
        ("text.npy", np.array(["a"] * 21), "expected numbers"),
        ("all.npy", np.concatenate([_ROWS[:2], np.ones((1, 21))]), "everything of pose 2"),
        ("none.npy", np.concatenate([_ROWS[:1], np.zeros((1, 21)), _ROWS[:1]]), "nothing of pose 1"),
        ("words.txt", b"1 0 yes", "not readable"),
        ("ragged.csv", b"1,0\n1", "not readable"),
        ("cut.npy", b"\x93NUMPY\x01", "not readable"),
        ("empty.txt", b"", "empty"),
        ("mask.json", b"[]", "suffix '.json'"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: np.ndarray | bytes, complaint: str) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(InputError, match=complaint) as error:
        read_missing(str(path), 3)
    assert re.fullmatch(r"[^\n]*", str(error.value)) and name in str(error.value)


def test_the_key_is_named_where_an_npz_lacks_it(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", mask=np.eye(3, 21))
    with pytest.raises(InputError, match="lacks missing"):
        read_missing(str(tmp_path / "other.npz"), 3)
