"""Reading body files: every official layout, and nothing else."""

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from dposer.body.model_files import BodyArrays, find_body_file, read_body, read_pickle, to_array
from dposer.errors import InputError
from tests.body import synthetic

VERTICES = 30


def arrays(kind: str = "smplx") -> dict[str, Any]:
    return synthetic.body_arrays(kind, vertices=VERTICES)


def assert_same(body: BodyArrays, expected: dict[str, Any]) -> None:
    assert np.allclose(body.v_template, expected["v_template"])
    assert np.allclose(np.concatenate((body.shapedirs, body.expressiondirs), 2), expected["shapedirs"])
    assert body.posedirs is not None and np.allclose(body.posedirs, expected["posedirs"])
    assert np.allclose(body.joint_regressor, expected["J_regressor"])
    assert np.allclose(body.weights, expected["weights"])
    assert np.array_equal(body.faces, expected["f"])
    assert body.parents == synthetic.PARENTS[body.kind]


@pytest.mark.parametrize("kind", ["smplx", "smplh", "smpl"])
@pytest.mark.parametrize("write", [synthetic.write_npz, synthetic.write_pkl, synthetic.write_chumpy_pkl])
def test_every_layout_whatever_its_name(tmp_path: Path, kind: str, write: Callable[..., Path]) -> None:
    expected = arrays(kind)
    body = read_body(write(tmp_path / "anything.bin.npz", expected))
    assert body.kind == kind
    assert_same(body, expected)
    assert "chumpy" not in sys.modules


@pytest.mark.parametrize("protocol", range(5))
def test_every_pickle_protocol(tmp_path: Path, protocol: int) -> None:
    expected = arrays("smpl")
    expected["v_template"] = np.asfortranarray(expected["v_template"]).astype(">f4")
    assert_same(read_body(synthetic.write_pkl(tmp_path / "a.pkl", expected, protocol)), expected)


def test_python_2_spellings(tmp_path: Path) -> None:
    """Old files name numpy.core, scipy.sparse.csc, copy_reg and __builtin__."""
    data = pickle.dumps({"a": np.arange(3.0), "b": sparse.csc_matrix(np.eye(2)), "c": {1}, "d": np.float64(2)}, 2)
    data = data.replace(b"numpy._core", b"numpy.core").replace(b"scipy.sparse._csc", b"scipy.sparse.csc")
    (tmp_path / "a.pkl").write_bytes(data)
    value = read_pickle(tmp_path / "a.pkl")
    assert np.array_equal(to_array(value["a"], "a"), np.arange(3.0))
    assert np.array_equal(to_array(value["b"], "b"), np.eye(2))
    assert value["c"] == {1} and to_array(value["d"], "d") == 2

    reconstructed = b"ccopy_reg\n_reconstructor\n(cchumpy.ch\nCh\nc__builtin__\nobject\nNtR(dS'x'\n(lI1\naI2\nasb"
    (tmp_path / "b.pkl").write_bytes(b"(dS'a'\n" + reconstructed + b"s.")
    assert np.array_equal(to_array(read_pickle(tmp_path / "b.pkl")["a"], "a"), [1, 2])


def test_shape_and_expression_columns(tmp_path: Path) -> None:
    for columns, shape, expression in ((10, 10, 0), (20, 10, 10), (400, 300, 100)):
        directions = np.zeros((VERTICES, 3, columns))
        body = read_body(synthetic.write_npz(tmp_path / "a.npz", {**arrays(), "shapedirs": directions}))
        assert (body.shapedirs.shape[2], body.expressiondirs.shape[2]) == (shape, expression)


def test_unneeded_pickled_members_are_left_alone(tmp_path: Path) -> None:
    extra = {"part2num": np.array({"head": Bomb(tmp_path / "bomb")}, dtype=object)}
    assert read_body(synthetic.write_npz(tmp_path / "a.npz", {**arrays(), **extra})).kind == "smplx"
    assert not (tmp_path / "bomb").exists()


class Bomb:
    """Makes a folder when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_code_is_refused_and_not_run(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb"
    file = tmp_path / "a.pkl"
    file.write_bytes(pickle.dumps({**arrays("smpl"), "J": Bomb(bomb)}))
    with pytest.raises(InputError, match=r"a\.pkl: the pickle names (posix|nt)\.mkdir"):
        read_body(file)
    assert not bomb.exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"c__builtin__\ngetattr\n(cnumpy\nndarray\nS'x'\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct.__class__\n.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cscipy.sparse\ncsr_matrix\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.",
        b"ccopy_reg\n_reconstructor\n(c__builtin__\nset\nc__builtin__\nobject\nNtR.",
        b"cnumpy\nndarray\n(dS'__setstate__'\nI1\nsb.",
        b"(i__builtin__\nlist\n.",
    ],
)
def test_hostile_pickles(tmp_path: Path, pickled: bytes) -> None:
    file = tmp_path / "a.pkl"
    file.write_bytes(pickled)
    with pytest.raises(InputError, match=r"a\.pkl"):
        read_body(file)


def _with_state(state: Any) -> Any:
    """A record as an attacker would write it: a sparse matrix with a state of their choice."""

    class Fake:
        def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
            return sparse.csc_matrix, (), state

    return Fake()


@pytest.mark.parametrize(
    "state",
    [
        {"data": [1.0], "indices": [5], "indptr": [0, 1], "_shape": (2, 1)},
        {"data": [1.0], "indices": [-1], "indptr": [0, 1], "_shape": (2, 1)},
        {"data": [1.0], "indices": [0], "indptr": [0, 9], "_shape": (2, 1)},
        {"data": [1.0], "indices": [0], "indptr": [0, -1], "_shape": (2, 1)},
        {"data": ["x"], "indices": [0], "indptr": [0, 1], "_shape": (2, 1)},
        {"data": [1.0]},
        "nonsense",
        None,
    ],
)
def test_sparse_matrices_whose_parts_do_not_fit(tmp_path: Path, state: Any) -> None:
    file = tmp_path / "a.pkl"
    file.write_bytes(pickle.dumps({**arrays("smpl"), "J_regressor": _with_state(state)}))
    with pytest.raises(InputError, match="J_regressor"):
        read_body(file)


@pytest.mark.parametrize("write", [synthetic.write_npz, synthetic.write_pkl])
def test_object_arrays_are_refused(tmp_path: Path, write: Callable[..., Path]) -> None:
    file = write(tmp_path / "a.npz", {**arrays("smpl"), "v_template": np.array([None, 1])})
    with pytest.raises(InputError, match="v_template"):
        read_body(file)


def test_byte_order_does_not_matter(tmp_path: Path) -> None:
    expected = {key: value.astype(value.dtype.newbyteorder(">")) for key, value in arrays("smpl").items()}
    body = read_body(synthetic.write_npz(tmp_path / "a.npz", expected))
    assert_same(body, expected)
    assert body.posedirs is not None and body.posedirs.dtype.isnative


@pytest.mark.parametrize("write", [synthetic.write_npz, synthetic.write_pkl])
@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.999])
def test_truncated_files(tmp_path: Path, write: Callable[..., Path], part: float) -> None:
    file = write(tmp_path / "a.npz", arrays("smpl"))
    data = file.read_bytes()
    file.write_bytes(data[: int(part * len(data))])
    with pytest.raises(InputError, match=r"a\.npz"):
        read_body(file)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.mktemp("bytes") / "a.pkl"
    file.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_body(file)
    assert "\n" not in str(caught.value) and "a.pkl" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": None}, "lacks weights"),
        ({"weights": np.zeros((VERTICES, 54))}, r"'weights' has shape \(30, 54\), expected \(30, 55\)"),
        ({"v_template": np.zeros((VERTICES, 2))}, "'v_template' has shape"),
        ({"posedirs": np.zeros((VERTICES, 3, 207))}, "'posedirs' has shape"),
        ({"J_regressor": np.zeros((23, VERTICES))}, "23 rows"),
        ({"f": np.array([[0, 1, VERTICES]])}, "'f' refers to vertices"),
        ({"kintree_table": np.zeros((2, 55), int)}, "'kintree_table' is not"),
        ({"shapedirs": np.full((VERTICES, 3, 10), np.nan)}, "'shapedirs'.*NaN"),
        ({"hands_meanl": np.zeros(6)}, "'hands_meanl' has shape"),
    ],
)
def test_files_that_are_not_bodies(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    changed = {key: value for key, value in {**arrays(), **change}.items() if value is not None}
    with pytest.raises(InputError, match=message):
        read_body(synthetic.write_npz(tmp_path / "a.npz", changed))


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "smplh").mkdir()
    female = synthetic.write_pkl(tmp_path / "smplh" / "SMPLH_FEMALE.pkl", arrays("smplh"))
    assert find_body_file(tmp_path, "female") == find_body_file(tmp_path / "smplh", "female") == female
    with pytest.raises(InputError, match=r"SMPLX_NEUTRAL\.npz.*open body"):
        find_body_file(tmp_path)
    neutral = synthetic.write_npz(tmp_path / "SMPLX_NEUTRAL.npz", arrays())
    assert find_body_file(tmp_path) == find_body_file(neutral) == neutral


def test_a_missing_licensed_file_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"smpl-x\.is\.tue\.mpg\.de.*open body") as caught:
        find_body_file(tmp_path / "SMPLX_NEUTRAL.npz")
    assert "\n" not in str(caught.value)
