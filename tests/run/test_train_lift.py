"""Training and evaluation of lifting from the command line: a run, its continuation, its report, and bad input in one line."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from dposer.data.objects import load_object
from dposer.lifting.checkpoint import load_lifting
from run._cli import cli
from run.convert_lift import main as convert
from run.eval_lift import main as evaluate
from run.train_lift import main as train
from tests.lifting_data import write_3dhp, write_dataset

SMALL = [
    "--config.network.frames", "9", "--config.network.channels", "16", "--config.network.depth", "2", "--config.network.heads", "2",
    "--config.optim.batch", "16", "--config.optim.lr", "1e-3", "--device", "cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder, "open", "noisy", {"train": ("01", "02"), "valid": ("03",), "test": ("04", "05")})
    write_3dhp(folder)
    return folder


def _train(data: Path, output: Path, *more: str) -> None:
    cli(train, ["--data", str(data), "--output", str(output), "--name", "run", *SMALL, *more])


def _error(capsys: pytest.CaptureFixture[str], main: object, arguments: list[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        cli(main, arguments)  # type: ignore[arg-type]
    text = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2
    return text[-1]


def test_a_run_is_continued_evaluated_and_converted(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _train(data, tmp_path, "--config.optim.epochs", "1", "--config.variant", "compat", "--save-every", "1")
    _train(data, tmp_path, "--config.optim.epochs", "2", "--config.variant", "compat", "--save-every", "1")
    folder = tmp_path / "run"
    log = (folder / "training_log.txt").read_text().splitlines()
    assert [re.match(r"\[(\d)\] time [\d.]+ lr [\d.]+ 3d_train [\d.]+ 3d_pos_train [\d.]+ 3d_pos_valid", line)[1] for line in log] == [
        "1",
        "2",
    ]  # type: ignore[index]
    assert (folder / "epoch_1.safetensors").exists() and load_lifting(folder / "last.safetensors").provenance["epoch"] == 2
    assert "already trained for 2 epochs" in _error(
        capsys,
        train,
        [
            "--data",
            str(data),
            "--output",
            str(tmp_path),
            "--name",
            "run",
            *SMALL,
            "--config.optim.epochs",
            "2",
            "--config.variant",
            "compat",
        ],
    )
    best = str(folder / "best.safetensors")
    cli(evaluate, ["--checkpoint", best, "--data", str(data), "--num-proposals", "3", "--sampling-timesteps", "2", "--p2",
                   "--group", "subject",
                   "--output", str(tmp_path / "report"), "--device", "cpu"])  # fmt: skip
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    errors = {row["setting"]: row["figures"]["MPJPE"] for row in report["rows"] if row["group"] == "average" and row["step"] == 1}
    assert errors["J-Best"] < errors["P-Best"] <= errors["Single"] and (report["hypotheses"], report["steps"]) == (3, 2)
    assert "P-MPJPE" in (tmp_path / "report" / "report.md").read_text()
    cli(convert, ["--input", best, "--output", str(tmp_path / "best_epoch.bin")])
    cli(convert, ["--input", str(tmp_path / "best_epoch.bin"), "--output", str(tmp_path / "back.safetensors")])
    theirs, ours = load_lifting(tmp_path / "back.safetensors").weights, load_lifting(best).weights
    assert all(bool((theirs[name] == tensor).all()) for name, tensor in ours.items())


def test_training_and_evaluation_with_occlusions(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _train(data, tmp_path, "--config.optim.epochs", "1", "--config.occlusion.pattern", "mixed+noise", "--config.method", "mixste",
           "--config.inputs", "visible", "--config.no-flip")  # fmt: skip
    flags = ["--checkpoint", str(tmp_path / "run" / "last.safetensors"), "--data", str(data), "--device", "cpu", "--tables", "diffhpe"]
    for folder, more in (("clean", []), ("hidden", ["--occlusion", "frames", "--occlusion-share", "0.5"])):
        cli(evaluate, [*flags, *more, "--output", str(tmp_path / folder)])
    report = json.loads((tmp_path / "hidden" / "report.json").read_text())
    assert "keypoints are occluded: frames:0.5" in report["notes"] and report["settings"]["occlusion"]["pattern"] == "frames"
    tables = {name: (tmp_path / "hidden" / f"{name}.csv").read_text().splitlines() for name in (
        "protocol_1_err", "seg_symmetry", "seg_consistency", "cw_err", "jw_err")}  # fmt: skip
    assert {len(lines) for lines in tables.values()} == {3} and tables["protocol_1_err"][0].startswith("act,mpjpe,sag sym,seg std,")
    average = {name: [float(value) for value in lines[-1].split(",")[1:]] for name, lines in tables.items()}
    assert [len(average[name]) for name in tables] == [8, 7, 18, 3, 17]
    mpjpe, symmetry, consistency = average["protocol_1_err"][:3]
    assert mpjpe == pytest.approx(sum(average["jw_err"]) / 17) and symmetry == pytest.approx(sum(average["seg_symmetry"][:6]) / 6)
    assert consistency == pytest.approx(sum(average["seg_consistency"][:16]) / 16)
    assert "expected none, random" in _error(capsys, evaluate, [*flags, "--occlusion", "everything"])


def test_refiners_and_what_they_refine(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = ["--config.network.frames", "1", "--config.optim.epochs", "1", "--config.optim.batch", "64"]
    lifter, refiner, back = (tmp_path / name for name in ("lifter", "refiner", "back.safetensors"))
    _train(data, lifter, *frames, "--config.method", "graformer", "--config.loss.kind", "mse")
    process = ["--config.diffusion.timesteps", "51", "--config.diffusion.schedule", "linear", "--config.diffusion.beta-end", "1e-3"]
    start = lifter / "run" / "last.safetensors"
    _train(data, refiner, *frames, *process, "--config.method", "cross-channel", "--start-from", str(start))
    weights = str(refiner / "run" / "last.safetensors")
    common = ["--data", str(data), "--device", "cpu", "-b", "32", "--p2"]
    cli(evaluate, ["--checkpoint", weights, *common, "--output", str(tmp_path / "own"), "--tables", "cross-channel"])
    told = capsys.readouterr().out
    assert "\n===Action=== ==p#1 mm== =p#2 mm=\nWalking      " in told and re.search(r"\nAverage      *[\d.]+ +[\d.]+\n", told)
    poses = load_object(tmp_path / "own" / "pred.npy", "", "poses")
    assert len(poses) == 16 and np.shape(poses["Walking 1_04_v0"]) == (47, 17, 3)
    cli(evaluate, ["--checkpoint", str(start), *common, "--output", str(tmp_path / "raw")])
    cli(evaluate, ["--checkpoint", str(start), *common, "--output", str(tmp_path / "refined"), "--refine", weights, "--refine-error", "40",
                   "--compare", str(tmp_path / "raw" / "report.json")])  # fmt: skip
    assert "this run less the other (graformer" in capsys.readouterr().out
    cli(convert, ["--input", weights, "--output", str(tmp_path / "ckpt.pth"), "--lifter", str(tmp_path / "gcn.pth")])
    cli(convert, ["--input", str(tmp_path / "ckpt.pth"), "--lifter", str(tmp_path / "gcn.pth"), "--output", str(back)])
    theirs, ours = load_lifting(back).weights, load_lifting(weights).weights
    assert all(bool((theirs[name] == tensor).all()) for name, tensor in ours.items())
    assert "without the lifter" in _error(capsys, convert, ["--input", str(tmp_path / "ckpt.pth"), "--output", str(back)])
    assert "refines nothing" in _error(capsys, evaluate, ["--checkpoint", weights, *common, "--refine", str(start)])


def test_diffhpe_around_a_mixste(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = ["--config.no-flip", "--config.hidden", "zero", "--config.optim.epochs", "1"]
    _train(data, tmp_path / "trunk", *plain, "--config.method", "mixste", "--config.loss.kind", "mse")
    trunk = ["--config.condition.kind", "features", "--config.condition.channels", "16", "--config.condition.depth", "2"]
    trunk += ["--config.condition.heads", "2", "--config.diffusion.timesteps", "50", "--config.diffusion.beta-end", "0.5"]
    start = ["--start-from", str(tmp_path / "trunk" / "run" / "last.safetensors")]
    _train(data, tmp_path / "wrapper", *plain, *trunk, *start, "--config.method", "diffhpe")
    weights = str(tmp_path / "wrapper" / "run" / "last.safetensors")
    cli(evaluate, ["--checkpoint", weights, "--data", str(data), "--device", "cpu", "--num-proposals", "2", "--subset", "0.2",
                   "--output", str(tmp_path / "report")])  # fmt: skip
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (report["method"], report["hypotheses"], report["settings"]["steps"]) == ("diffhpe", 2, 5)
    capsys.readouterr()
    assert "the trunk takes" in _error(capsys, train, ["--data", str(data), *SMALL, *plain, "--config.method", "diffhpe", *trunk, *start,
                                                      "--config.condition.depth", "3"])  # fmt: skip


def test_3dhp_is_counted_by_its_own_protocol(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dposer.lifting.checkpoint import LiftingCheckpoint, save_lifting
    from dposer.lifting.config import LiftingConfig, NetworkConfig
    from dposer.lifting.methods import build_model

    config = LiftingConfig(method="d3dp", layout="mpi_inf_3dhp17", fps=25.0, network=NetworkConfig(9, 16, 2, 2))
    save_lifting(tmp_path / "w.safetensors", LiftingCheckpoint(config, dict(build_model(config).state_dict())))
    arguments = ["--checkpoint", str(tmp_path / "w.safetensors"), "-d", "3dhp", "--data", str(data), "--num-proposals", "2",
                 "--sampling-timesteps", "2", "--output", str(tmp_path / "out"), "--device", "cpu", "--compat"]  # fmt: skip
    cli(evaluate, arguments)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"inference_data_J_Best.mat", "mpii_3dhp_evaluation_sequencewise_ori_P_Agg_t2.csv", "3dhp_test_log_H2_K2.txt"} <= names
    assert "annot3" in capsys.readouterr().out
    assert "mpi_inf_3dhp17" in _error(capsys, evaluate, ["--checkpoint", str(tmp_path / "w.safetensors"), "--data", str(data)])


def test_bad_input_is_one_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--output", str(tmp_path), *SMALL]
    assert "found nothing" in _error(capsys, train, ["--data", str(tmp_path / "nowhere"), *common])
    assert "has no subject S1" in _error(capsys, train, ["--data", str(data), "--subjects-train", "S1", *common])
    assert "unknown key" in _error(capsys, train, ["--config", str(_recipe(tmp_path)), "--data", str(data)])
    assert "neither a file nor one of" in _error(
        capsys, evaluate, ["--checkpoint", "nothing", "--data", str(data), "--output", str(tmp_path)]
    )


def _recipe(folder: Path) -> Path:
    (folder / "recipe.py").write_text("config = LiftingConfig(metod='d3dp')\n")
    return folder / "recipe.py"
