"""Object arrays without their code."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from dposer.data.objects import load_object
from dposer.errors import InputError

numbers = arrays(st.sampled_from(["<f4", ">f8", "<i8", "u1", "?"]), array_shapes(min_dims=1, max_dims=3, min_side=0))
leaves = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text() | numbers | numbers.map(np.asfortranarray)
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=6)


def written(path: Path, value: Any) -> Path:
    member = np.empty((), dtype=object)
    member[()] = value
    np.savez_compressed(path, data=member, plain=np.arange(3))
    return path


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            assert_same(*pair)
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype.newbyteorder("=")
    else:
        assert found == expected


@given(value=values)
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    assert_same(load_object(written(tmp_path_factory.mktemp("a") / "a.npz", value), "data", "a test"), value)


@pytest.mark.parametrize("protocol", range(5))
def test_every_protocol_and_age_of_numpy(tmp_path: Path, protocol: int) -> None:
    value = {"S1": [np.arange(6.0).reshape(2, 3), {"fps": np.float64(50), "name": np.str_("é")}]}
    member = np.empty((), dtype=object)
    member[()] = value
    data = pickle.dumps(member, protocol)
    if protocol < 4:  # later ones count the bytes
        data = data.replace(b"numpy._core", b"numpy.core")
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(data)
    assert_same(load_object(tmp_path / "a.npy", "data", "a test"), {"S1": [value["S1"][0], {"fps": 50.0, "name": "é"}]})


def test_rows_of_objects_and_plain_arrays(tmp_path: Path) -> None:
    rows = np.empty(2, dtype=object)
    rows[:] = [np.zeros(2), np.ones(3)]
    path = written(tmp_path / "a.npz", {"rows": rows})
    assert_same(load_object(path, "data", "a test"), {"rows": [np.zeros(2), np.ones(3)]})
    assert_same(load_object(path, "plain", "a test"), np.arange(3))
    assert load_object(path, "other", "a test", optional=True) is None
    with pytest.raises(InputError, match=r"a\.npz: lacks other \(found data, plain\), expected a test"):
        load_object(path, "other", "a test")


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_code_is_refused_and_not_run(tmp_path: Path) -> None:
    path = written(tmp_path / "a.npz", {"S1": Bomb(tmp_path / "bomb")})
    with pytest.raises(InputError, match=r"a\.npz: the pickle names (posix|nt)\.mkdir.*an unsafe pickle") as caught:
        load_object(path, "data", "a test")
    assert "\n" not in str(caught.value) and not (tmp_path / "bomb").exists()


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damage_is_an_input_error_or_harmless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bytes of an uncompressed member changed, or the end cut off."""
    folder = tmp_path_factory.mktemp("a")
    member = np.empty((), dtype=object)
    member[()] = {"S1": {"Walking": [np.zeros((2, 3), np.float32)], "fps": np.float64(3)}}
    np.save(folder / "a.npy", member)
    raw = bytearray((folder / "a.npy").read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=3)):
        raw[place] = data.draw(st.integers(0, 255))
    (folder / "a.npy").write_bytes(raw[: data.draw(st.integers(1, len(raw)))])
    try:
        load_object(folder / "a.npy", "data", "a test")
    except InputError as error:
        assert "\n" not in str(error) and "a.npy" in str(error)


def test_truncated_archive(tmp_path: Path) -> None:
    path = written(tmp_path / "a.npz", {"S1": [1]})
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"a\.npz: 'data' is not readable .*expected a test; it may be truncated, fetch it again"):
        load_object(path, "data", "a test")
