"""Many hypotheses measured and compared from the command line."""

import json
from pathlib import Path

import pytest
import torch

from dposer.data.hypothesis_dumps import read_hypotheses
from dposer.lifting.checkpoint import LiftingCheckpoint, save_lifting
from dposer.lifting.config import LiftingConfig, NetworkConfig
from dposer.lifting.methods import build_model
from run._cli import cli
from run.eval_hypotheses import main
from tests.lifting_data import write_dataset


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, an untrained method, and dumps of it with two seeds."""
    folder = tmp_path_factory.mktemp("work")
    write_dataset(folder, "open", "noisy", {"train": ("01",), "valid": ("02",), "test": ("03", "04")})
    config = LiftingConfig(method="d3dp", fps=30.0, network=NetworkConfig(frames=9, channels=16, depth=1, heads=2))
    torch.manual_seed(0)
    save_lifting(folder / "d3dp.safetensors", LiftingCheckpoint(config, build_model(config).state_dict()))
    for number, name in ((6, "six.npz"), (4, "four_samples_poses.npy")):
        cli(
            main,
            [*_lifting(folder), "-n", str(number), "--seed", str(number), "--dump", str(folder / name), "--output", str(folder / name[:3])],
        )
    return folder


def _lifting(folder: Path) -> list[str]:
    named = {"checkpoint": folder / "d3dp.safetensors", "dataset": "open", "data": folder, "sampling-timesteps": 1, "every": 16}
    return [text for name, value in (named | {"device": "cpu", "group": "subject"}).items() for text in (f"--{name}", str(value))]


def test_a_method_is_measured(work: Path) -> None:
    report = json.loads((work / "six" / "report.json").read_text())
    assert report["origin"] == {"method": "d3dp", "steps": 1, "weights": "raw", "seed": 6, "dataset": "open"} and report["hypotheses"] == 6
    assert {row["group"] for row in report["rows"]} == {"03", "04", "average", "all"}
    dump = read_hypotheses(work / "six.npz")
    assert dump.origin.method == "d3dp" and dump.frames.hypotheses.shape[1] == 6 and len(dump.frames) == report["rows"][-1]["frames"]
    text = (work / "six" / "eval_d3dp_nhypo_6_open.txt").read_text()
    assert text.startswith("d3dp, T = 1, weights raw, seed 6, data open, N = 6, ") and "----03----" in text
    assert "best of n hypotheses" in (work / "six" / "report.md").read_text()


def test_dumps_are_compared_at_the_same_number(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dumps = ["--dumps", str(work / "six.npz"), str(work / "four_samples_poses.npy")]
    cli(main, [*dumps, "--uncertain", "2", "--output", str(tmp_path)])
    said = capsys.readouterr().out
    assert "all frames, N = 4" in said and "four less d3dp, all frames" in said
    for name in ("comparison.md", "comparison.csv", "four/report.json"):
        assert (tmp_path / name).stat().st_size
    curve = (tmp_path / "comparison.md").read_text().split("MPJPE of the best of n")[1].split("##")[0]
    assert "| 6 | " in curve and " - |" in curve  # one of them has six hypotheses
    both = f"{work / 'six.npz'}+{work / 'four_samples_poses.npy'}"
    cli(main, ["--dumps", both, "--plot", "--dump", str(tmp_path / "ten.npz"), "--output", str(tmp_path / "joined")])
    assert all((tmp_path / "joined" / f"{name}.png").stat().st_size for name in ("calibration", "coverage", "best_of_n"))
    assert read_hypotheses(tmp_path / "ten.npz").frames.hypotheses.shape[1] == 10
    two = f"{work / 'six.npz'},{work / 'six.npz'}"
    cli(main, ["--dumps", two, "-n", "2", "--output", str(tmp_path / "longer")])
    assert json.loads((tmp_path / "longer" / "report.json").read_text())["rows"][-1]["frames"] == 2 * len(
        read_hypotheses(work / "six.npz").frames
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--dumps", "six.npz", "-n", "7"], "a dump has 6 hypotheses"),
        (["--dumps", "six.npz", "six.npz", "--dump", "x.npz"], "--dump: several --dumps"),
        (["--dumps", "none.npz"], "found nothing"),
        (["--every", "0"], "--every 0, expected 1 or more"),
        (["--dump", "x.txt"], "expected NAME.npz"),
        (["--checkpoint", "d3dp.safetensors", "--highest-only"], "sees no heatmaps"),
        (["--dumps", "six.npz", "--hard-only"], "found none"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, more: list[str], said: str
) -> None:
    monkeypatch.chdir(work)
    with pytest.raises(SystemExit) as ended:
        cli(main, [*more, "--output", str(tmp_path)])
    lines = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and lines[-1].startswith("error: ") and said in lines[-1]
