"""Checkpoints: round trips, and one line for every way a file can be wrong."""

import dataclasses
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dposer.errors import InputError
from dposer.prior.checkpoint import FORMAT, Checkpoint, load_checkpoint, save_checkpoint
from dposer.prior.config import DataConfig, ModelConfig, PriorConfig
from dposer.prior.networks import build_network
from dposer.prior.normalizer import Normalizer

CONFIG = PriorConfig(model=ModelConfig(HIDDEN_DIM=32, EMBED_DIM=8, N_BLOCKS=1))


@pytest.fixture
def checkpoint(generator: torch.Generator) -> Checkpoint:
    network = dict(build_network(CONFIG.model, 63).state_dict())
    calibration = {"total": torch.linspace(0, 1, 5), "per_joint": torch.linspace(0, 1, 5).expand(21, 5)}
    normalizer = Normalizer(torch.rand(63, generator=generator), 0.5 + torch.rand(63, generator=generator), wrap=True)
    raw = {name: tensor + 1 for name, tensor in network.items()}
    return Checkpoint(CONFIG, network, normalizer, {"step": 7, "data": "open corpus"}, calibration, raw)


@pytest.fixture
def path(tmp_path: Path, checkpoint: Checkpoint) -> Path:
    save_checkpoint(tmp_path / "prior.safetensors", checkpoint)
    return tmp_path / "prior.safetensors"


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def _rewrite(path: Path, tensors: dict[str, Tensor] | None = None, **header: str) -> None:
    """Save the file again with other tensors or header entries."""
    kept = load_file(path)
    size = int.from_bytes(path.read_bytes()[:8], "little")
    metadata = json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]
    save_file({**kept, **(tensors or {})}, path, {**metadata, **header})


def test_float32_round_trip_is_exact(path: Path, checkpoint: Checkpoint) -> None:
    loaded = load_checkpoint(path)
    assert loaded.config == CONFIG and loaded.provenance == {"step": 7, "data": "open corpus"}
    assert loaded.raw is not None and checkpoint.raw is not None
    assert _equal(loaded.network, checkpoint.network) and _equal(loaded.raw, checkpoint.raw)
    assert _equal(loaded.calibration, checkpoint.calibration)
    assert _equal(dict(loaded.normalizer.state_dict()), dict(checkpoint.normalizer.state_dict()))
    assert loaded.normalizer.wrap and loaded.normalizer.rot_rep == "axis"


def test_float16_halves_the_weights_and_keeps_the_tables(tmp_path: Path, checkpoint: Checkpoint, path: Path) -> None:
    save_checkpoint(tmp_path / "half.safetensors", checkpoint, torch.float16)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.7 * path.stat().st_size
    loaded = load_checkpoint(tmp_path / "half.safetensors")
    assert torch.equal(loaded.network["sigmas"], checkpoint.network["sigmas"])
    assert torch.equal(loaded.normalizer.shift, checkpoint.normalizer.shift)
    for name, tensor in checkpoint.network.items():
        assert loaded.network[name].dtype == torch.float32
        torch.testing.assert_close(loaded.network[name], tensor, atol=1e-6, rtol=1e-3)


def test_rot6d_and_fourier_round_trip(tmp_path: Path) -> None:
    model = dataclasses.replace(CONFIG.model, embedding_type="fourier")
    config = PriorConfig(model=model, data=DataConfig(rot_rep="rot6d"))
    saved = Checkpoint(config, dict(build_network(model, 126).state_dict()), Normalizer(torch.zeros(126), torch.ones(126), "rot6d"))
    save_checkpoint(tmp_path / "a.safetensors", saved)
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.config == config and _equal(loaded.network, saved.network) and loaded.raw is None and loaded.calibration == {}


def _refused(path: Path, *words: str) -> None:
    with pytest.raises(InputError) as error:
        load_checkpoint(path)
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    assert all(word in message for word in words), message


def test_missing_empty_and_truncated_files(path: Path, tmp_path: Path) -> None:
    _refused(tmp_path / "nothing.safetensors", "found nothing")
    data = path.read_bytes()
    for size in (0, 3, 50, 5000, len(data) - 1):
        path.write_bytes(data[:size])
        _refused(path)


def test_a_safetensors_file_of_another_kind(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    _refused(tmp_path / "other.safetensors", "format None", FORMAT)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_published_file_is_told_to_be_converted(tmp_path: Path, legacy: bool) -> None:
    torch.save({"model_state_dict": {}}, tmp_path / "axis.pth", _use_new_zipfile_serialization=not legacy)
    _refused(tmp_path / "axis.pth", "run.convert_checkpoint")


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "ran",)

    (tmp_path / "evil.safetensors").write_bytes(pickle.dumps(Payload()))
    _refused(tmp_path / "evil.safetensors")
    assert not (tmp_path / "ran").exists()


def test_altered_contents_are_named(path: Path) -> None:
    original = path.read_bytes()
    changes: list[tuple[dict[str, Tensor], dict[str, str], str]] = [
        ({"network.pre_dense.bias": torch.zeros(31)}, {}, "pre_dense.bias has shape (31,)"),
        ({"network.unheard_of": torch.zeros(1)}, {}, "unheard_of are not known"),
        ({"network.pre_dense.bias": torch.full((32,), float("nan"))}, {}, "pre_dense.bias holds NaN"),
        ({"raw.pre_dense.bias": torch.full((32,), float("inf"))}, {}, "raw.pre_dense.bias holds NaN or infinity"),
        ({"normalizer.shift": torch.zeros(5)}, {}, "shift of shape (5,)"),
        ({"calibration.more": torch.zeros(5)}, {}, "calibration holds more"),
        ({}, {"config": "{"}, "'config' in its header is not JSON"),
        ({}, {"config": "[]"}, "'config' in its header is a list"),
        ({}, {"config": json.dumps({"model": {"DEPTH": 3}})}, "unknown key DEPTH"),
        ({}, {"normalizer": json.dumps({"rot_rep": "quaternion"})}, "no usable normaliser"),
    ]
    for tensors, header, words in changes:
        path.write_bytes(original)
        _rewrite(path, tensors, **header)
        _refused(path, words)


def test_missing_weights_are_named(tmp_path: Path, checkpoint: Checkpoint) -> None:
    network = {name: tensor for name, tensor in checkpoint.network.items() if name != "post_dense.bias"}
    save_checkpoint(tmp_path / "a.safetensors", dataclasses.replace(checkpoint, network=network))
    _refused(tmp_path / "a.safetensors", "post_dense.bias are missing")


def test_unusable_weights_are_not_written(tmp_path: Path, checkpoint: Checkpoint) -> None:
    path = tmp_path / "a.safetensors"
    large = {**checkpoint.network, "post_dense.bias": torch.full((63,), 1e6)}
    with pytest.raises(InputError, match="wider dtype"):
        save_checkpoint(path, dataclasses.replace(checkpoint, network=large), torch.float16)
    assert list(tmp_path.iterdir()) == []
    save_checkpoint(path, dataclasses.replace(checkpoint, network=large))
    assert load_checkpoint(path).network["post_dense.bias"][0] == 1e6
