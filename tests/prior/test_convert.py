"""Published files of the documented names and shapes become checkpoints of ours."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dposer.errors import InputError
from dposer.prior.checkpoint import load_checkpoint
from dposer.prior.config import ModelConfig
from dposer.prior.convert import convert
from dposer.prior.networks import build_network
from dposer.prior.normalizer import Normalizer
from dposer.prior.pose_prior import PosePrior
from run._cli import cli
from run.convert_checkpoint import main

SMALL = ModelConfig(HIDDEN_DIM=64, EMBED_DIM=16)


def published(dim: int = 63, dead_layer: bool = True, model: ModelConfig = SMALL) -> tuple[dict[str, Tensor], list[Tensor]]:
    """A state dict in the published order, and an averaged list that differs from it."""
    state: dict[str, Tensor] = {}
    hidden = model.HIDDEN_DIM
    for name, tensor in build_network(model, dim).state_dict().items():
        state[name] = tensor
        if name == "pre_dense_t.bias" and dead_layer:
            state["pre_dense_cond.weight"], state["pre_dense_cond.bias"] = torch.zeros(hidden, hidden), torch.zeros(hidden)
    averaged = [tensor + 0.5 for name, tensor in state.items() if name not in ("sigmas", "gauss_proj.W")]
    return state, averaged


def first_release(path: Path, **kwargs: Any) -> tuple[dict[str, Tensor], list[Tensor]]:
    state, averaged = published(**kwargs)
    ema = {"decay": 0.9999, "num_updates": 400_000, "shadow_params": averaged}
    torch.save({"epoch": 1, "model_state_dict": state, "optimizer_state_dict": {}, "ema": ema, "step": 400_000}, path)
    return state, averaged


def lightning(path: Path, ema: Any = None, **kwargs: Any) -> tuple[dict[str, Tensor], list[Tensor]]:
    state, averaged = published(dead_layer=False, **kwargs)
    body = {"body_model_vis.betas": torch.zeros(1, 10), "body_model_eval.v_template": torch.zeros(5, 3)}
    whole = {**{f"model.{name}": tensor for name, tensor in state.items()}, **body}
    torch.save({"state_dict": whole, "model_ema": averaged if ema is None else ema(state, averaged), "global_step": 150_000}, path)
    return state, averaged


def _is_averaged(network: dict[str, Tensor], state: dict[str, Tensor]) -> bool:
    names = [name for name in state if not name.startswith("pre_dense_cond")]
    tables = ("sigmas", "gauss_proj.W")
    return set(network) == set(names) and all(torch.equal(network[n], state[n] + (0 if n in tables else 0.5)) for n in names)


@pytest.mark.parametrize("embedding", ["positional", "fourier"])
def test_the_first_release(tmp_path: Path, embedding: Any) -> None:
    path = tmp_path / "axis-zscore-400k.pth"
    state, averaged = first_release(path, model=ModelConfig(HIDDEN_DIM=64, EMBED_DIM=16, embedding_type=embedding))
    assert len(averaged) == 36 and len(state) == (37 if embedding == "positional" else 38)
    checkpoint = convert(path)
    assert _is_averaged(checkpoint.network, state)
    assert checkpoint.config.model.HIDDEN_DIM == 64 and checkpoint.config.model.N_BLOCKS == 2
    assert checkpoint.config.model.embedding_type == embedding
    assert torch.equal(checkpoint.normalizer.shift, Normalizer.published().shift)
    assert checkpoint.provenance["step"] == 400_000 and checkpoint.provenance["normalizer"] == "published AMASS statistics"


@pytest.mark.parametrize(
    "ema",
    [None, lambda state, averaged: {"shadow_params": averaged}, lambda state, averaged: dict(zip(list(state)[1:], averaged, strict=True))],
)
def test_lightning_files(tmp_path: Path, ema: Any) -> None:
    state, averaged = lightning(tmp_path / "last.ckpt", ema)
    assert len(averaged) == 34
    checkpoint = convert(tmp_path / "last.ckpt", "published")
    assert _is_averaged(checkpoint.network, state) and checkpoint.provenance["step"] == 150_000


def test_lightning_files_do_not_guess_a_normaliser(tmp_path: Path) -> None:
    lightning(tmp_path / "last.ckpt")
    with pytest.raises(InputError, match="no normaliser found"):
        convert(tmp_path / "last.ckpt")


def test_the_normaliser_beside_the_file_or_given(tmp_path: Path) -> None:
    first_release(tmp_path / "a.pth")
    statistics = {"mean_poses": torch.full((63,), 0.25), "std_poses": torch.ones(63)}
    folder = tmp_path / "train"
    folder.mkdir()
    torch.save(statistics, folder / "axis_normalize2.pt")
    for given in (folder, folder / "axis_normalize2.pt", Normalizer(statistics["mean_poses"], statistics["std_poses"])):
        assert convert(tmp_path / "a.pth", given).normalizer.shift[0] == 0.25
    assert convert(tmp_path / "a.pth", tmp_path / "nowhere").provenance["normalizer"] == "published AMASS statistics"
    torch.save(statistics, tmp_path / "axis_normalize2.pt")
    assert convert(tmp_path / "a.pth").provenance["normalizer"] == "axis_normalize2.pt"
    assert convert(tmp_path / "a.pth", "published").normalizer.shift[0] != 0.25


def test_rot6d_needs_its_own_normaliser(tmp_path: Path) -> None:
    first_release(tmp_path / "a.pth", dim=126)
    with pytest.raises(InputError, match="no normaliser found"):
        convert(tmp_path / "a.pth")
    torch.save({"mean_poses": torch.zeros(126), "std_poses": torch.ones(126)}, tmp_path / "rot6d_normalize2.pt")
    assert convert(tmp_path / "a.pth").config.data.rot_rep == "rot6d"
    with pytest.raises(InputError, match="expected one for the rot6d weights"):
        convert(tmp_path / "a.pth", Normalizer.published())


def test_from_pretrained_takes_published_files(tmp_path: Path, generator: torch.Generator) -> None:
    state, _ = first_release(tmp_path / "axis-zscore-400k.pth")
    prior = PosePrior.from_pretrained(tmp_path / "axis-zscore-400k.pth")
    network = build_network(SMALL, 63).eval()
    network.load_state_dict({n: t + (0 if n == "sigmas" else 0.5) for n, t in state.items() if "cond" not in n})
    x = torch.randn(3, 63, generator=generator)
    torch.testing.assert_close(prior.denoiser.noise(x, 0.3), network(x, torch.tensor([299.7])))


def test_objects_are_refused_in_one_line(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "hyper_parameters": Namespace(lr=1)}, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="Python objects besides tensors") as error:
        convert(tmp_path / "a.ckpt")
    assert "\n" not in str(error.value)


def test_a_malicious_file_is_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"model_state_dict": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="evil.pth"):
        convert(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_other_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    state, averaged = published()

    def refused(content: Any, match: str) -> None:
        torch.save(content, path)
        with pytest.raises(InputError, match=match) as error:
            convert(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)

    refused(torch.zeros(3), "found a Tensor")
    refused({"weights": state}, "found keys weights")
    refused({"model_state_dict": state}, "found keys model_state_dict")
    refused({"model_state_dict": state, "ema": {"shadow_params": averaged[:-1]}}, "35 averaged weights, expected 36")
    refused({"model_state_dict": state, "ema": {"shadow_params": averaged[::-1]}}, "averaged weight pre_dense.weight has shape")
    refused({"model_state_dict": {"layer.weight": torch.zeros(2)}, "ema": {"shadow_params": averaged}}, "not a ScoreModelFC")
    refused(
        {"model_state_dict": {**state, "pre_dense.weight": torch.zeros(64, 90)}, "ema": {"shadow_params": averaged}},
        "prior over 90 numbers",
    )
    broken = [*averaged[:-1], torch.full((63,), float("nan"))]
    refused({"model_state_dict": state, "ema": {"shadow_params": broken}}, "post_dense.bias holds NaN")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="not a readable tensor file"):
        convert(path)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, output = tmp_path / "axis-zscore-400k.pth", tmp_path / "out" / "prior.safetensors"
    state, _ = first_release(path)
    cli(main, ["--ckpt-path", str(path), "--output", str(output), "--half"])
    assert "prior.safetensors" in capsys.readouterr().out
    torch.testing.assert_close(load_checkpoint(output).network["pre_dense.bias"], state["pre_dense.bias"] + 0.5, atol=1e-3, rtol=1e-3)
    path.write_text("{}")
    with pytest.raises(SystemExit) as end:
        cli(main, ["--ckpt-path", str(path)])
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1
