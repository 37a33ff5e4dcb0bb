"""A folder of EHF's layout, made with the open body, through the command line."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh

from dposer.body.skeleton import OPENPOSE_25
from dposer.data.ehf import CENTRE, FOCAL
from dposer.data.keypoints import Keypoints, write_openpose
from dposer.viz import save_image
from run import fitting as module
from run._cli import cli
from tests.photographs import NAMES, write_ehf

FLAGS = ("--batch", "2", "--steps", "12")
FIGURES = ("PA-MPJPE", "MPJPE", "PA-PVE", "PVE")


@pytest.fixture(scope="module")
def ehf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ehf")
    write_ehf(folder)
    return folder


def run(folder: Path, outdir: Path, *extra: object) -> None:
    cli(module.main, ["--data-dir", str(folder), "--outdir", str(outdir), "--device", "cpu", *map(str, extra)])


def rows(outdir: Path) -> list[dict[str, str]]:
    with (outdir / "results.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(ehf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    outdir = tmp_path_factory.mktemp("finished")
    run(ehf, outdir, *FLAGS)
    return outdir


def test_a_folder_is_fitted_and_scored(finished: Path) -> None:
    table = rows(finished)
    assert [row["image"] for row in table] == list(NAMES) and list(table[0]) == ["image", *FIGURES, "residual px"]
    for row in table:
        assert float(row["residual px"]) < 1 and float(row["PA-MPJPE"]) < float(row["MPJPE"]) < 60 and float(row["PVE"]) < 80
    report = json.loads((finished / "results.json").read_text())
    for name in FIGURES:
        assert report["results"][name] == pytest.approx(np.mean([float(row[name]) for row in table]), rel=1e-5)
    assert report["published"]["from scratch"]["DPoser"]["PA-MPJPE"] == 56.05
    with np.load(finished / "fits.npz") as fits:
        assert fits["body_pose"].shape == (3, 63) and fits["transl"].shape == (3, 3) and fits["keypoints"].shape == (3, 25, 2)
        assert fits["image"].tolist() == list(NAMES) and fits["focal"].tolist() == [[200, 200]] * 3


def test_a_run_is_continued(finished: Path, ehf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The batch that is gone is made again, and drawn again; nothing else is."""
    table, pictures = finished / "results.csv", [finished / f"{name}_img_mesh_fit.png" for name in NAMES]
    before, moments = [path.read_bytes() for path in (table, *pictures)], [path.stat().st_mtime_ns for path in pictures]
    (finished / "batches/batch_000001.npz").unlink()
    run(ehf, finished, *FLAGS)
    assert [path.read_bytes() for path in (table, *pictures)] == before
    assert [path.stat().st_mtime_ns == moment for path, moment in zip(pictures, moments, strict=True)] == [True, True, False]
    means = json.loads((finished / "results.json").read_text())["results"]
    printed = {line.partition("  ")[0]: line.split()[-4:] for line in map(str.strip, capsys.readouterr().out.splitlines()) if line}
    assert printed["DPoser"] == [f"{means[name]:.2f}" for name in FIGURES]
    assert printed["published DPoser, best of 10"] == ["53.28", "76.53", "-", "-"]
    assert printed["published GMM, from CLIFF"][0] == "51.02"


def test_the_best_of_several_and_the_camera_of_the_data_set(ehf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(ehf, tmp_path, "--hypotheses", 2, "--steps", 4, "--focal", "dataset", "--no-overlay", "--ignore", "neck", "left_hip")
    table = rows(tmp_path)
    assert list(table[0]) == ["image", *FIGURES, *(f"best {name}" for name in FIGURES), "residual px"]
    assert all(float(row[f"best {name}"]) <= float(row[name]) for row in table for name in FIGURES)
    with np.load(tmp_path / "batches/batch_000000.npz") as batch:
        assert batch["pa_mpjpe"].shape == (3, 2) and (batch["pa_mpjpe"][:, 0] != batch["pa_mpjpe"][:, 1]).all()
        assert np.isnan(batch["residuals"]).sum(1).tolist() == [2, 2, 2]
        np.testing.assert_allclose(batch["focal"], FOCAL / 10, rtol=1e-6)
        np.testing.assert_allclose(batch["centre"], np.tile(CENTRE, (3, 1)) / 10, rtol=1e-6)
    assert "\nDPoser, best of 2  " in capsys.readouterr().out and not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    ("extra", "complaint"),
    [
        (["--ignore", "tail"], "--ignore tail: not a keypoint of openpose25"),
        (["--ignore", *OPENPOSE_25.joints[:22]], "01_2Djnt.json: 3 keypoints of use"),
        (["--hypotheses", 0], "--hypotheses 0, expected 1"),
        (["--time-strategy", 1], "--time-strategy 1"),
        (["--keypoints", "nowhere"], "nowhere: found nothing"),
        (["--layout", "coco17"], "01_2Djnt.json"),
    ],
)
def test_bad_flags_end_in_one_line(ehf: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], extra: list, complaint: str) -> None:
    refused(capfd, complaint, ehf, tmp_path, *extra)


def test_bad_folders_end_in_one_line(ehf: Path, finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    refused(capfd, "was begun with seed 42, found 1", ehf, finished, *FLAGS, "--seed", 1)
    folder = Path(shutil.copytree(ehf, tmp_path / "ehf"))
    save_image(folder / "02_img.jpg", np.zeros((120, 100, 3), np.uint8))
    refused(capfd, "02_2Djnt.json", folder, tmp_path)
    write_openpose(folder / "01_2Djnt.json", Keypoints(np.zeros((0, 25, 3)), OPENPOSE_25, ()))
    refused(capfd, "01_2Djnt.json: holds nobody", folder, tmp_path)
    trimesh.creation.icosphere(1).export(folder / "01_align.ply")
    refused(capfd, "01_align.ply: found 42 vertices", folder, tmp_path)
    (folder / "10_align.ply").unlink()
    refused(capfd, "1 of 3 samples lack files: 10 (mesh)", folder, tmp_path)


def refused(capfd: pytest.CaptureFixture[str], complaint: str, folder: Path, outdir: Path, *extra: object) -> None:
    with pytest.raises(SystemExit) as ended:
        run(folder, outdir, *extra)
    told = capfd.readouterr().err.strip().splitlines()
    assert ended.value.code == 2 and told[-1].startswith("error: ") and complaint in told[-1] and "Traceback" not in "".join(told)
