"""Pieces of work: kept, checked against the settings they belong to, and divided without loss."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dposer.errors import InputError
from dposer.randomness import keyed_generator
from run._shards import Crew, Shards, contiguous, digest

SETTINGS = {"seed": 1, "parts": ("legs", "arms"), "data": "0f"}


@settings(max_examples=50, deadline=None)
@given(count=st.integers(0, 50), size=st.integers(1, 9))
def test_runs_cover_everything_in_order_and_evenly(count: int, size: int) -> None:
    runs = [contiguous(range(count), rank, size) for rank in range(size)]
    assert [item for run in runs for item in run] == list(range(count))
    assert max(map(len, runs)) - min(map(len, runs)) <= 1


def test_pieces_are_kept_and_only_the_others_remain(tmp_path: Path) -> None:
    shards = Shards(tmp_path / "work", 3, SETTINGS)
    shards.open()
    assert shards.remaining() == [0, 1, 2]
    for index in (2, 0):
        shards.write(index, {"value": np.full(2, index)})
    again = Shards(tmp_path / "work", 3, SETTINGS)
    again.open()
    assert again.remaining() == [1]
    with pytest.raises(InputError, match="batch_000001"):
        again.read()
    again.write(1, {"value": np.full(2, 1)})
    assert [piece["value"].tolist() for piece in again.read()] == [[0, 0], [1, 1], [2, 2]]


def test_other_settings_are_named(tmp_path: Path) -> None:
    Shards(tmp_path, 1, SETTINGS).open()
    for changed, complaint in (({"seed": 2}, "seed 1, found 2"), ({"extra": 5}, "extra None, found 5"), ({"parts": ["legs"]}, "parts")):
        with pytest.raises(InputError, match=complaint):
            Shards(tmp_path, 1, SETTINGS | changed).open()
    fewer = {key: value for key, value in SETTINGS.items() if key != "data"}
    with pytest.raises(InputError, match="data 0f, found None"):
        Shards(tmp_path, 1, fewer).open()


def test_results_without_settings_and_broken_settings(tmp_path: Path) -> None:
    shards = Shards(tmp_path, 1, SETTINGS)
    shards.write(0, {"value": np.zeros(1)})
    with pytest.raises(InputError, match="no settings.json"):
        shards.open()
    for text in ("{", "[]"):
        (tmp_path / "settings.json").write_text(text)
        with pytest.raises(InputError, match="settings.json"):
            shards.open()


def test_a_damaged_piece_is_named(tmp_path: Path) -> None:
    shards = Shards(tmp_path, 1, SETTINGS)
    shards.path(0).write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(InputError, match=r"batch_000000.npz.*delete it"):
        shards.read()


def test_a_crew_of_one_does_everything_itself() -> None:
    crew = Crew()
    crew.wait()
    assert crew.is_leader and list(crew.share([3, 4])) == [3, 4] and crew.leader_first(lambda: 5) == 5
    assert crew.device("cpu") == torch.device("cpu")


def test_generators_depend_on_every_part_of_their_key() -> None:
    def draw(*key: object) -> float:
        return float(torch.rand(1, generator=keyed_generator("cpu", *key)))

    keys = [(1, "a", 0), (1, "a", 1), (2, "a", 0), (1, "b", 0), ("1", "a", 0), (1, "a"), (1, "a0")]
    assert draw(*keys[0]) == draw(*keys[0]) and len({draw(*key) for key in keys}) == len(keys)


def test_a_digest_tells_values_types_and_shapes_apart() -> None:
    x = torch.arange(6.0)
    others = [x.flip(0), x.double(), x.view(2, 3), x[:5]]
    assert digest([x]) == digest([x.clone()]) and len({digest([tensor]) for tensor in [x, *others]}) == 5
