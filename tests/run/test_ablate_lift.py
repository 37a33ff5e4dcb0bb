"""Recipes with several seeds: trained, measured, and neither again when the command is repeated."""

import csv
import json
import statistics
from pathlib import Path

import pytest

from run._cli import cli
from run.ablate_lift import main as ablate
from tests.lifting_data import write_dataset

TINY = """config = LiftingConfig(
    method="diffpose", inputs="heatmap", flip=False, fps=30.0,
    network=NetworkConfig(frames=1, channels=16, depth=1, heads=2, drop_path=0.0),
    diffusion=DiffusionConfig(timesteps=4, scale=10.0, bound=3.0),
    heatmap=HeatmapConfig(candidates=4, feedforward=16, readout=32, width=32),
    loss=LossConfig(kind="mse"),
    optim=OptimConfig(optimizer="adam", lr=1e-3, epochs=3, batch=32, epoch_windows=64, flip=False),
)
"""


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    write_dataset(tmp_path / "data", "open", "noisy", {"train": ("01",), "valid": ("02",), "test": ("03",)}, frames=8)
    (tmp_path / "tiny.py").write_text(TINY)
    return ["--configs", str(tmp_path / "tiny.py"), "--data", str(tmp_path / "data"), "--output", str(tmp_path / "out"),
            "--seeds", "1", "2", "--set", "optim.epochs=1", "--hypotheses", "3", "--every", "9", "--device", "cpu"]  # fmt: skip


def test_a_family_of_two_recipes_with_two_seeds(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family, out = [*flags, "--vary", "heatmap.candidates=1,4"], tmp_path / "out"
    cli(ablate, family)
    told = capsys.readouterr().out
    runs = ("tiny_candidates1_1", "tiny_candidates1_2", "tiny_candidates4_1", "tiny_candidates4_2")
    files = [out / run / name for run in runs for name in ("last.safetensors", "scores.json")]
    before = [file.stat().st_mtime_ns for file in files]
    lines = list(csv.DictReader((out / "ablation.csv").open()))
    errors = {(line["recipe"], line["seed"]): float(line["PA-MPJPE best"]) for line in lines if line["frames"] == "all"}
    assert len(errors) == 4 and len(set(errors.values())) == 4
    first, second = ([errors[f"tiny_candidates{count}", seed] for seed in "12"] for count in (1, 4))
    figure = json.loads((out / "ablation.json").read_text())["summary"]["tiny_candidates4"]["all"]["PA-MPJPE best"]
    assert figure == pytest.approx({"mean": statistics.fmean(second), "sd": statistics.stdev(second)})
    gaps = [b - a for a, b in zip(first, second, strict=True)]
    assert f"{statistics.fmean(gaps):+.2f} ± {statistics.stdev(gaps):.2f}" in told.split("less tiny_candidates1")[1]
    assert "± " in (out / "ablation.md").read_text()
    cli(ablate, family)
    assert [file.stat().st_mtime_ns for file in files] == before and capsys.readouterr().out.count("±") == told.count("±")
    with pytest.raises(SystemExit):
        cli(ablate, [*family, "--set", "heatmap.drop=0.2", "--only", "score"])
    assert "4 of 4 runs failed" in (error := capsys.readouterr().err) and "by another recipe" in error


def test_what_cannot_be_is_refused_before_any_training(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, line in (
        (["--set", "heatmap.candidate=3"], "--set heatmap.candidate=3: expected a key"),
        (["--vary", "heatmap.candidates=4,many"], "HeatmapConfig.candidates = 'many', expected int"),
        (["--vary", "heatmap.candidates=4,0"], "heatmap.candidates = 0"),
        (["--figures", "MPJPE"], "--figures 'MPJPE': not known"),
        (["--configs", flags[1], flags[1]], "a second recipe by the name tiny"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli(ablate, [*flags, *more])
        assert ended.value.code == 2 and line in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
