"""Published weights and settings of DiffPose: sizes, names, a way there and back, and what is refused."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from dposer.config import read_config
from dposer.errors import InputError
from dposer.lifting.checkpoint import LiftingCheckpoint, load_lifting
from dposer.lifting.config import HeatmapConfig, LiftingConfig
from dposer.lifting.convert_diffpose import export_diffpose, import_diffpose, our_name, published_name
from dposer.lifting.methods import build_model
from dposer.lifting.settings_diffpose import ICCV, config_from_published, config_to_published, read_settings
from run._cli import cli
from run.convert_lift import main as convert

UNUSED_NORMS, UNUSED_HEAD = 8192, 129
RECIPES = Path(__file__).parents[2] / "configs" / "lifting"
EXTRA = {"NUM_SAMPLES": 32, "DROP_METHOD": "any", "SAMPLEABLE": True, "POS_EMB": "channel", "OLD": False, "PROJ_POS_EMB": True,
         "NORM_METHOD": "mean_std", "CAT_SAMPLES": False}  # fmt: skip
PUBLISHED: dict[str, Any] = {
    "MODEL": {"CONDITION_TYPE": "embedded_poseformer", "CONDITION_DIM": 128, "CONDITION_KEY": "heatmaps", "TIMESTEPS": 25, "EXTRA": EXTRA},
    "LOSS": {"LOSS_TYPE": "l2"},
    "TRAIN": {"LR": "1e-4", "NUM_STEPS": 700_000, "GRADIENT_ACCUMULATE_EVERY": 1, "SCALE_3D_POSE": 10.0, "WD": 1e-4, "CLIP_GRAD": True},
    "TEST": {"NUM_HYPO": 200},
    "GPUS": "(0,1,2,3)",
}
CONCAT = {"MODEL.CONDITION_TYPE": "heatmap_sampling_concatenated", "MODEL.CONDITION_DIM": -1, "MODEL.DENOISER_TYPE": "base_concat"}


def _settings(changes: dict[str, Any]) -> dict[str, Any]:
    values = deepcopy(PUBLISHED)
    for key, value in changes.items():
        *sections, last = key.split(".")
        node = values
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    return values


@pytest.mark.parametrize(
    ("recipe", "changes", "published", "unused"),
    [
        ("h36m", {}, 11_412_273, UNUSED_NORMS + UNUSED_HEAD),
        ("argmax_only", {"MODEL.EXTRA.NUM_SAMPLES": 1}, 11_412_273, UNUSED_NORMS + UNUSED_HEAD),
        ("no_argmax", {"MODEL.EXTRA.WITHOUT_ARGMAX": True}, 11_412_273, UNUSED_NORMS + UNUSED_HEAD),
        ("no_likelihood", {"MODEL.EXTRA.WITHOUT_POSEMB_SCALING": True}, 11_412_273, UNUSED_NORMS + UNUSED_HEAD),
        ("no_proj", {"MODEL.EXTRA.PROJ_POS_EMB": False}, 11_395_761, UNUSED_NORMS + UNUSED_HEAD),
        ("no_transformer", {"MODEL.EXTRA.WITHOUT_TRANSFORMER": True}, 10_619_185, UNUSED_NORMS + UNUSED_HEAD),
        ("wo_dropout", {"MODEL.EXTRA.DROP_METHOD": "none"}, 11_412_273, UNUSED_NORMS + UNUSED_HEAD),
        ("baseline_concat", CONCAT, 5_355_568, UNUSED_NORMS),
        ("baseline_argmax", CONCAT | {"MODEL.EXTRA.NUM_SAMPLES": 1}, 4_339_760, UNUSED_NORMS),
    ],
)
def test_recipes_are_the_published_ones_and_as_large(recipe: str, changes: dict[str, Any], published: int, unused: int) -> None:
    config = read_config(RECIPES / f"diffpose_{recipe}.py", LiftingConfig)
    assert config_from_published(_settings(changes))[0] == config
    assert config_from_published(config_to_published(config))[0] == config
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in build_model(config).parameters()) == published - unused


def test_3dpw_has_the_pelvis_and_another_rate() -> None:
    config = read_config(RECIPES / "diffpose_3dpw.py", LiftingConfig)
    told = config_from_published(_settings({"DATASET.DATASET": "3dpw", "DATASET.NUM_JOINTS": 23}))[0]
    assert (told.layout, told.fps, told.heatmap, told.diffusion) == (config.layout, config.fps, config.heatmap, config.diffusion)
    assert told.optim.epochs * told.optim.epoch_windows == config.optim.epochs * config.optim.epoch_windows == 700_000 * 32


def _checkpoint(config: LiftingConfig) -> LiftingCheckpoint:
    random = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in build_model(config).state_dict().items()}
    weights = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    return LiftingCheckpoint(config, weights, {"step": 700_000})


def test_weights_and_settings_there_and_back_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, file, settings = _checkpoint(ICCV), tmp_path / "model-final.pt", tmp_path / "config.yaml"
    export_diffpose(checkpoint, file)
    values = torch.load(file, weights_only=True)
    state = values["model"]
    assert values.keys() == {"step", "model", "ema", "scaler"} and values["step"] == 700_000
    buffers = {name for name in state if name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked", "centers")}
    schedule = {name for name in state if "." not in name}
    assert len(schedule) == 13 and len(buffers) == 13 and "denoise_fn.res_pose1.bn2.running_var" in buffers
    assert sum(tensor.numel() for name, tensor in state.items() if name not in buffers | schedule) == 11_412_273
    assert state["alphas_cumprod"][[0, 12]].tolist() == pytest.approx([0.99457, 0.46271], abs=1e-5)
    assert len(values["ema"]) == 2 * len(state) + 2

    values["ema"]["ema_model.denoise_fn.pose.bias"] = state["denoise_fn.pose.bias"] + 1
    torch.save(values, file)
    found = import_diffpose(file)
    assert found.config == ICCV and found.provenance["step"] == 700_000 and found.weights.keys() == checkpoint.weights.keys()
    assert all(torch.equal(tensor, checkpoint.weights[name]) for name, tensor in found.weights.items())
    ours = tmp_path / "ours.safetensors"
    settings.write_text("MODEL:\n  CONDITION_TYPE: [\n")
    with pytest.raises(SystemExit):
        cli(convert, ["--input", str(file), "--yaml", str(settings), "--output", str(ours)])
    assert "not readable YAML" in capsys.readouterr().err
    settings.unlink()
    cli(convert, ["--input", str(file), "--ema", "--output", str(ours)])
    averaged = load_lifting(ours)
    assert torch.equal(averaged.weights["network.last.bias"], checkpoint.weights["network.last.bias"] + 1)
    cli(convert, ["--input", str(ours), "--output", str(tmp_path / "back.pt"), "--yaml", str(settings)])
    assert config_from_published(read_settings(settings), "x")[0] == ICCV


def test_keys_that_are_left_out_have_the_defaults_of_the_code_not_of_its_recipes() -> None:
    config, notes = config_from_published({})
    assert config.heatmap == HeatmapConfig("pose", candidates=1, drop=0.0) and config.loss.kind == "mae" and not notes
    assert (config.diffusion.timesteps, config.diffusion.scale, config.optim.lr, config.optim.batch) == (1000, 1.0, 1e-3, 64)


def test_other_parts_are_told_by_names_and_shapes(tmp_path: Path) -> None:
    file = tmp_path / "model-final.pt"
    for changes in (CONCAT | {"MODEL.EXTRA.NUM_SAMPLES": 1}, {"MODEL.CONDITION_TYPE": "pose_2d", "MODEL.CONDITION_DIM": 32,
                                                               "MODEL.CONDITION_KEY": "p2d_hrnet"}):  # fmt: skip
        config = config_from_published(_settings(changes | {"MODEL.TIMESTEPS": 50}))[0]
        checkpoint = _checkpoint(config)
        export_diffpose(checkpoint, file)
        found = import_diffpose(file, config)
        assert all(torch.equal(tensor, checkpoint.weights[name]) for name, tensor in found.weights.items())
        if config.heatmap.condition == "pose":  # published layers see row and −column, ours column and −row
            mine, theirs = checkpoint.weights["network.first.weight"], torch.load(file, weights_only=True)["model"]
            assert torch.equal(theirs["denoise_fn.upscale.weight"][:, -32:-16], -mine[:, -16:])
        else:
            assert import_diffpose(file).config == config
        with pytest.raises(InputError, match="noise of 50 steps"):
            import_diffpose(file, config_from_published(_settings(changes))[0])


def test_published_names() -> None:
    for ours, theirs in (
        ("condition.project.weight", "condition_emb.pos_proj.weight"),
        ("condition.joints.weight", "condition_emb.joint_embedding.weight"),
        ("condition.code.6.bias", "condition_emb.pos_encoder.6.bias"),
        ("condition.mixer.layers.3.self_attn.in_proj_weight", "condition_emb.transformer.layers.3.self_attn.in_proj_weight"),
        ("condition.readout.bias", "condition_emb.pos_out.bias"),
        ("network.first.weight", "denoise_fn.upscale.weight"),
        ("network.blocks.1.second.bias", "denoise_fn.res_pose2.l2.bias"),
        ("network.last.bias", "denoise_fn.pose.bias"),
    ):
        assert published_name(ours) == theirs and our_name(theirs) == ours


def test_keys_without_effect_and_those_of_the_command_line_are_listed() -> None:
    config, notes = config_from_published(_settings({"TRAIN.NUM_STEPS": 7001, "OUTPUT_DIR": "x", "DATASET.FLIP": True}))
    length, flags, ignored = notes
    assert "2 epochs of 3501 steps, 7002 in all" in length and config.optim.epochs == 2
    assert "OUTPUT_DIR = x (--output)" in flags and "NUM_HYPO = 200" in flags
    assert {"GPUS", "TRAIN.WD", "TRAIN.CLIP_GRAD", "DATASET.FLIP", "MODEL.EXTRA.CAT_SAMPLES", "MODEL.EXTRA.NORM_METHOD"} <= set(
        ignored.partition(": ")[2].split(", ")
    )


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"MODEL.EXTRA.OLD": True}, "x.yaml: MODEL.EXTRA.OLD = true, expected false"),
        ({"MODEL.EXTRA.DROP_METHOD": "uncertain"}, "DROP_METHOD = uncertain, expected none or any"),
        ({"MODEL.EXTRA.NO_REPLACEMENT": True}, "NO_REPLACEMENT = true"),
        ({"MODEL.EXTRA.FULL_HEATMAP": True}, "FULL_HEATMAP = true"),
        ({"MODEL.EXTRA.SAMPLEABLE": False}, "SAMPLEABLE = false"),
        ({"MODEL.EXTRA.POS_EMB": "fourier"}, "POS_EMB = fourier, expected channel or sin or linear"),
        ({"MODEL.EXTRA.NUM_SAMPLES": "many"}, "NUM_SAMPLES = many, expected a whole number"),
        ({"MODEL.CONDITION_DIM": 0}, "mend MODEL.CONDITION_DIM"),
        ({"MODEL.DENOISER_TYPE": "base_concat"}, "condition has 2048 numbers and the denoiser expects 128"),
        ({"MODEL.CONDITION_KEY": "p2d_gt"}, "CONDITION_KEY = p2d_gt"),
        ({"MODEL.NOISE_SCALE": 0.5}, "NOISE_SCALE = 0.5"),
        ({"DATASET.DATA_FORMAT": "pickle"}, "DATA_FORMAT = pickle"),
        ({"DATASET.NUM_JOINTS": 23}, "NUM_JOINTS = 23, expected 16"),
        ({"TRAIN.OPTIMIZER": "sgd"}, "OPTIMIZER = sgd, expected adam or adamw"),
        ({"TRAIN.LR": "fast"}, "LR = fast, expected a number"),
        ({"TRAIN.AMP": 1}, "AMP = 1, expected true or false"),
        ({"MODEL.EXTRA.NUM_SAMPELS": 3}, "MODEL.EXTRA.NUM_SAMPELS is not known"),
    ],
)
def test_what_there_is_not_is_refused_in_one_line(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError) as refused:
        config_from_published(_settings(changes), "x.yaml")
    assert line in str(refused.value) and "\n" not in str(refused.value)


def test_a_network_that_the_published_code_cannot_build_is_not_written(tmp_path: Path) -> None:
    for heatmap, line in ((HeatmapConfig("set"), "CONDITION_TYPE = set"), (HeatmapConfig(width=64), "heatmap.width = 64")):
        config = LiftingConfig.from_dict(ICCV.to_dict() | {"heatmap": vars(heatmap)}, "test")
        with pytest.raises(InputError, match=line):
            export_diffpose(LiftingCheckpoint(config, {}), tmp_path / "x.pt")


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_objects_in_a_file_are_not_run_and_other_files_named(tmp_path: Path) -> None:
    file, sprung = tmp_path / "model-final.pt", tmp_path / "sprung"
    for values, line in (
        ({"model": {"denoise_fn.upscale.weight": _Trap(sprung)}}, "not a readable tensor file"),
        ({"model": {"x": torch.ones(1)}}, "not of the published names and shapes"),
        ({"step": 3}, "found no weights under model"),
        ([torch.ones(1)], "found no weights under model"),
    ):
        torch.save(values, file)
        with pytest.raises(InputError, match=line):
            import_diffpose(file)
    assert not sprung.exists()
    torch.save({"model": {"x": torch.ones(1)}}, file)
    with pytest.raises(InputError, match="under ema"):
        import_diffpose(file, averaged=True)
