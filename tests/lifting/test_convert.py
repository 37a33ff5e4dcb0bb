"""Weights in the published form: written, read back, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from dposer.errors import InputError
from dposer.lifting.checkpoint import LiftingCheckpoint, load_lifting, save_lifting
from dposer.lifting.config import LiftingConfig, NetworkConfig
from dposer.lifting.convert import export_published, import_published, schedule_buffers
from dposer.lifting.methods import build_model

SMALL = NetworkConfig(frames=9, channels=16, depth=3, heads=8)


def _checkpoint(method: str, variant: str = "compat", layout: str = "h36m17") -> LiftingCheckpoint:
    config = LiftingConfig(method=method, variant=variant, layout=layout, network=SMALL)  # type: ignore[arg-type]
    return LiftingCheckpoint(config, {name: torch.randn_like(tensor) for name, tensor in build_model(config).state_dict().items()})


@pytest.mark.parametrize("method", ["mixste", "d3dp", "ddhpose"])
def test_round_trip_through_the_published_form(method: str, tmp_path: Path) -> None:
    checkpoint = _checkpoint(method, layout="mpi_inf_3dhp17")
    export_published(checkpoint, tmp_path / "best_epoch.bin")
    found = import_published(tmp_path / "best_epoch.bin", "mpi_inf_3dhp17")
    assert (found.config.method, found.config.network, found.config.layout) == (method, SMALL, "mpi_inf_3dhp17")
    assert found.weights.keys() == checkpoint.weights.keys()
    assert all(torch.equal(found.weights[name], tensor) for name, tensor in checkpoint.weights.items())
    save_lifting(tmp_path / "own.safetensors", found)
    again = load_lifting(tmp_path / "own.safetensors")
    keypoints = torch.randn(1, 9, 17, 2)
    assert torch.equal(again.model().predict(keypoints), checkpoint.model().predict(keypoints))


def test_the_published_names_and_counts_are_those_of_the_releases(tmp_path: Path) -> None:
    """249 and 220 entries with the 12 tables, for 8 levels."""
    for method, entries, name in (
        ("ddhpose", 249, "module.dir_bone_estimator.STEblocks.6.attn.qkv_xc.weight"),
        ("d3dp", 220, "module.pose_estimator.TTEblocks.7.mlp.fc2.bias"),
    ):
        config = LiftingConfig(method=method, variant="compat", network=NetworkConfig(frames=9, channels=16))  # type: ignore[arg-type]
        export_published(LiftingCheckpoint(config, dict(build_model(config).state_dict())), tmp_path / "a.bin")
        state = torch.load(tmp_path / "a.bin", weights_only=True)["model_pos"]
        assert len(state) == entries and name in state and "module.posterior_mean_coef2" in state
    assert "module.dir_bone_estimator.STEblocks_0.0.norm1.weight" not in state


def test_a_pickled_random_state_is_skipped_and_other_objects_are_refused(tmp_path: Path) -> None:
    export_published(_checkpoint("d3dp"), tmp_path / "a.bin")
    values = torch.load(tmp_path / "a.bin", weights_only=True)
    torch.save(values | {"random_state": np.random.RandomState(1), "optimizer": {"state": {}}}, tmp_path / "b.bin")
    assert import_published(tmp_path / "b.bin").config.method == "d3dp"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save(values | {"random_state": Evil()}, tmp_path / "c.bin")
    with pytest.raises(InputError, match="Python objects besides tensors"):
        import_published(tmp_path / "c.bin")
    assert not (tmp_path / "ran").exists()


def test_what_is_no_published_file_is_named(tmp_path: Path) -> None:
    torch.save({"model_pos": {"module.x": torch.zeros(1)}}, tmp_path / "x.bin")
    with pytest.raises(InputError, match="none of mixste, d3dp, ddhpose"):
        import_published(tmp_path / "x.bin")
    (tmp_path / "y.bin").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(InputError, match="not a readable tensor file"):
        import_published(tmp_path / "y.bin")
    with pytest.raises(InputError, match="clean variant"):
        export_published(_checkpoint("ddhpose", "clean"), tmp_path / "z.bin")
    state = torch.load(_exported(tmp_path), weights_only=True)
    state["model_pos"]["module.pose_estimator.more"] = torch.zeros(2)
    torch.save(state, tmp_path / "more.bin")
    with pytest.raises(InputError, match="more are not known"):
        import_published(tmp_path / "more.bin")


def test_schedule_tables() -> None:
    tables = schedule_buffers(LiftingConfig().diffusion)
    assert len(tables) == 12
    assert tables["alphas_cumprod"][499].item() == pytest.approx(0.493844, abs=1e-6)
    total = tables["posterior_mean_coef1"] + tables["posterior_mean_coef2"] * tables["sqrt_alphas_cumprod"]
    torch.testing.assert_close(total, tables["alphas_cumprod_prev"].sqrt())  # the posterior's mean of x_{t-1} at x_t = alpha_t x_0


def _exported(folder: Path) -> Path:
    export_published(_checkpoint("d3dp"), folder / "d.bin")
    return folder / "d.bin"
