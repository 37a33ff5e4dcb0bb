"""The command through its own entry: keypoints of several kinds in, every file out, and one clear line for what cannot be."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from dposer.assets import asset
from dposer.body.skeleton import COCO_17, H36M_17, MPI_INF_3DHP_17, OPENPOSE_25
from dposer.data.amass import read_amass
from dposer.data.heatmap_crops import HeatmapFile, write_heatmaps_file
from dposer.data.heatmap_mixtures import heatmaps_of_keypoints, render
from dposer.data.keypoints import read_sequence
from dposer.data.video import open_video
from dposer.lifting.checkpoint import LiftingCheckpoint, save_lifting
from dposer.lifting.config import DiffusionConfig, HeatmapConfig, LiftingConfig, LossConfig, NetworkConfig
from dposer.lifting.inputs import to_layout
from dposer.lifting.lifter import SHIPPED
from dposer.lifting.methods import build_model
from run import lift as module
from run._cli import cli

WALK = asset("examples", "walk_keypoints")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained networks as small as they can be."""
    folder, found = tmp_path_factory.mktemp("weights"), {}
    configs = [
        LiftingConfig(method=method, layout=layout.name, fps=fps, network=NetworkConfig(frames=9, channels=16, depth=1, heads=2))
        for method, layout, fps in (("d3dp", H36M_17, 15.0), ("mixste", MPI_INF_3DHP_17, 30.0))
    ]
    configs.append(
        LiftingConfig(
            method="diffpose",
            inputs="heatmap",
            flip=False,
            network=NetworkConfig(1, 16, 1, 2, 0.0),
            loss=LossConfig("mse"),
            diffusion=DiffusionConfig(timesteps=25, scale=10.0, predicts="clean"),
            heatmap=HeatmapConfig(readout=16, width=16),
        )  # fmt: skip
    )
    for config in configs:
        torch.manual_seed(0)
        found[config.method] = folder / f"{config.method}.safetensors"
        save_lifting(found[config.method], LiftingCheckpoint(config, build_model(config).state_dict(), {}))
    return found


@pytest.fixture(scope="module")
def walk() -> np.ndarray:
    """(F, 25, 3) of the example."""
    return np.stack([some.points[0] for some in read_sequence(WALK).keypoints])[:12]


def run(weights: Path, output: Path, *extra: object) -> None:
    flags = ["--checkpoint", weights, "--output", output, "--device", "cpu", "-n", 3, "--sampling-timesteps", 2]
    cli(module.main, [str(flag) for flag in (*flags, *extra)])


def told(output: Path, stem: str) -> dict:
    result: dict = json.loads((output / f"{stem}_lifted.json").read_text())
    return result


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as found:
        return dict(found)


def test_the_example_becomes_every_file(weights: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(weights["d3dp"], tmp_path / "out", "--max-frames", 13, "--smplx")
    ends = (".npz", ".mp4", "_sheet.png", "_spread.png", "_hypotheses.png", "_smplx.npz", ".json")
    assert names(tmp_path / "out") == {f"walk_lifted{end}" for end in ends}
    found, report, printed = arrays(tmp_path / "out/walk_lifted.npz"), told(tmp_path / "out", "walk"), capsys.readouterr().out
    assert found["hypotheses"].shape == (3, 13, 17, 3) and found["hypotheses"].dtype == np.float32
    np.testing.assert_allclose(found["hypotheses"].mean(0), found["poses"], atol=1e-5)
    assert (found["poses"][:, 0] == 0).all() and found["root"].shape == (13, 3) and found["spread"].shape == (13, 17)
    assert tuple(found["joint_names"]) == H36M_17.joints and tuple(found["focal"]) == (340, 340) and found["fps"] == 30
    assert found["frames"].tolist() == list(range(13)) and found["filled"].shape == (13, 17) and str(found["method"]) == "d3dp"
    assert len(list(open_video(tmp_path / "out/walk_lifted.mp4"))) == 13 and read_amass(tmp_path / "out/walk_lifted_smplx.npz").fps == 30
    assert report["windows"] == 1 and report["model_fps"] == 15 and report["focal_known"] and report["steps"] == 2
    errors = report["errors_mm"]
    assert errors["best joints"]["mpjpe"] < errors["best pose"]["mpjpe"] < errors["one hypothesis"]["mpjpe"]
    assert "to the model's 15 frames per second" in printed and "spread mm" in printed and "MPJPE" in printed

    flags = ["--input", WALK, "--video", asset("examples", "walk.mp4"), "--focal", 340, "--max-frames", 13, "--no-draw", "-b", 1]
    run(weights["d3dp"], tmp_path / "again", *flags)
    assert names(tmp_path / "again") == {"walk_lifted.npz", "walk_lifted.json"} and told(tmp_path / "again", "walk")["errors_mm"] == {}
    np.testing.assert_allclose(arrays(tmp_path / "again/walk_lifted.npz")["hypotheses"], found["hypotheses"], atol=1e-4)


def test_several_people_and_an_unknown_camera(weights: dict[str, Path], walk: np.ndarray, tmp_path: Path) -> None:
    coco = to_layout(np.where(walk[..., 2:] > 0, walk, 0), OPENPOSE_25, COCO_17)
    other = np.where(coco[..., 2:] > 0, coco + (400, 50, 0), 0)[3:]
    entries = []
    for frame, points in enumerate(coco):
        people = [points, other[frame - 3]] if frame >= 3 else [points]
        entries += [{"image_id": f"{frame}.jpg", "keypoints": person.ravel().tolist(), "score": 1} for person in people[:: (-1) ** frame]]
    (tmp_path / "clip.json").write_text(json.dumps(entries))
    run(weights["mixste"], tmp_path / "out", "--input", tmp_path / "clip.json", "--format", "gif")
    run(weights["mixste"], tmp_path / "second", "--input", tmp_path / "clip.json", "--person", 1, "--no-draw")
    first, second = (arrays(tmp_path / folder / "clip_lifted.npz") for folder in ("out", "second"))
    notes = " ".join(told(tmp_path / "out", "clip")["notes"])
    for words in (
        "2 people: 0 (frames 0 to 11), 1 (frames 3 to 11); 0 is followed",
        "640 x 480 assumed",
        "30 frames per second assumed",
        "no camera",
    ):
        assert words in notes
    assert names(tmp_path / "out") == {f"clip_lifted{end}" for end in (".npz", ".gif", "_sheet.png", ".json")}  # a regressor has no spread
    assert len(first["poses"]) == 12 and second["frames"].tolist() == list(range(3, 12))
    seen = second["keypoints"][..., 2] > 0
    np.testing.assert_allclose(second["keypoints"][seen], first["keypoints"][3:][seen] + (400, 50, 0), atol=1e-3)
    assert tuple(first["joint_names"]) == MPI_INF_3DHP_17.joints and not first["spread"].any()


def test_a_hidden_arm(weights: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--max-frames", 9, "--no-draw"]
    run(weights["d3dp"], tmp_path / "seen", *flags)
    run(weights["d3dp"], tmp_path / "hidden", *flags, "--hide", "left_arm,head", "--hide-frames", "2:5")
    seen, hidden = (arrays(tmp_path / folder / "walk_lifted.npz")["filled"] for folder in ("seen", "hidden"))
    rows = [H36M_17.joints.index(name) for name in ("head", "left_shoulder", "left_elbow", "left_wrist")]
    expected = seen.copy()
    expected[2:5, rows] = True
    np.testing.assert_array_equal(hidden, expected)
    assert "hidden_mpjpe" in told(tmp_path / "hidden", "walk")["errors_mm"]["best pose"] and "hidden joints" in capsys.readouterr().out
    for more, message in ((["--hide", "tail"], "'tail': no limb"), (["--hide-frames", "5"], "10:40"),
                          (["--hide", "head", "--hide-frames", "90:"], "none of the 9 frames")):  # fmt: skip
        with pytest.raises(SystemExit):
            run(weights["d3dp"], tmp_path / "bad", *flags, *more)
        assert message in capsys.readouterr().err


def test_arrays_with_holes_and_their_truth(
    weights: dict[str, Path], walk: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    h36m = to_layout(walk, OPENPOSE_25, H36M_17)
    h36m[4:6, 3] = np.nan
    h36m[7] = 0
    np.savez(tmp_path / "clip.npz", keypoints=h36m, fps=15.0, image_size=(320, 240))
    np.savez(tmp_path / "truth.npz", joints=np.random.default_rng(0).uniform(-0.5, 0.5, (12, 17, 3)) + (0, 0, 4))
    run(
        weights["d3dp"],
        tmp_path,
        "--input",
        tmp_path / "clip.npz",
        "--render-truth",
        tmp_path / "truth.npz",
        "--no-draw",
        "--aggregate",
        "limb",
    )
    found, report = arrays(tmp_path / "clip_lifted.npz"), told(tmp_path, "clip")
    assert report["fps"] == 15 and report["image_size"] == [320, 240] and report["aggregate"] == "limb" and report["errors_mm"]
    assert found["filled"][7].all() and found["filled"][4:6, 3].all() and np.isfinite(found["poses"]).all()
    notes = " ".join(report["notes"])
    assert "taken for h36m17" in notes and "nobody is found in 1 of 12 frames" in notes and "resampled" not in notes

    wrong = h36m[:, np.random.default_rng(0).permutation(17)]
    np.savez(tmp_path / "wrong.npz", keypoints=wrong, layout="h36m17", fps=15.0, image_size=(320, 240))
    run(weights["d3dp"], tmp_path, "--input", tmp_path / "wrong.npz", "--no-draw")
    assert "order of h36m17" in capsys.readouterr().out
    (tmp_path / "list.json").write_text(json.dumps(to_layout(walk, OPENPOSE_25, COCO_17).tolist()))
    run(weights["d3dp"], tmp_path, "--input", tmp_path / "list.json", "--no-draw", "--image-size", 320, 240, "--fps", 15)
    assert "one person over time" in capsys.readouterr().out and told(tmp_path, "list")["frames"] == 12


def test_a_film_of_single_frames_and_its_page(weights: dict[str, Path], tmp_path: Path) -> None:
    run(weights["diffpose"], tmp_path / "out", "--max-frames", 3, "--hide", "left_arm", "--hide-frames", ":2", "-n", 12)
    ends = (".npz", ".mp4", "_sheet.png", "_spread.png", "_hypotheses.png", "_answer.png", "_page.html", ".json")
    assert names(tmp_path / "out") == {f"walk_lifted{end}" for end in ends}
    found, report = arrays(tmp_path / "out/walk_lifted.npz"), told(tmp_path / "out", "walk")
    assert found["hypotheses"].shape == (12, 3, 17, 3) and found["consensus"].shape == (3, 17, 3)
    assert found["representatives"].shape == (3, 5, 17, 3) and found["ambiguous"].shape == (3, 17)
    np.testing.assert_allclose(found["weights"].sum(1), 1, atol=1e-6)
    assert sum(row["weight"] for row in report["answer"]["representatives"]) == pytest.approx(1, abs=1e-3)
    page = (tmp_path / "out/walk_lifted_page.html").read_text()
    assert "frame 2" in page and "left wrist" in page and page.count("data:image/png;base64,") == 3


def test_heatmaps_and_photographs(weights: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo, keypoints = asset("examples", "rendered.jpg"), asset("examples", "rendered_keypoints.json")
    flags = ["--photo", photo, "--input", keypoints, "--focal", 900, "--rank", "--smplx", "-n", 6, "--representatives", 2]
    run(weights["diffpose"], tmp_path / "photo", *flags)
    assert "rendered_lifted.mp4" not in names(tmp_path / "photo")  # of one frame there is no film
    bodies, found = arrays(tmp_path / "photo/rendered_lifted_smplx.npz"), arrays(tmp_path / "photo/rendered_lifted.npz")
    assert bodies["pose_body"].shape == (3, 63) and bodies["trans"][:, 2].min() > 0.5 and bodies["weights"][1:].sum() == pytest.approx(1)
    assert found["rank_weights"].shape == found["plausibility"].shape == found["missed"].shape == (1, 2)

    mixture, box = heatmaps_of_keypoints(found["keypoints"], H36M_17)
    write_heatmaps_file(tmp_path / "maps.npz", HeatmapFile(render(mixture).flatten(-2).numpy(), box, tuple(found["image_size"]), 900.0))
    run(weights["diffpose"], tmp_path / "maps", "--heatmaps", tmp_path / "maps.npz", "--no-draw", "-n", 6)
    again = arrays(tmp_path / "maps/maps_lifted.npz")
    known = found["keypoints"][..., 2] > 0
    known[:, H36M_17.joints.index("head")] = False
    np.testing.assert_allclose(again["keypoints"][known][:, :2], found["keypoints"][known][:, :2], atol=0.6 * float(box[0, 2]) / 64)
    np.save(tmp_path / "cells.npy", render(mixture).numpy())
    run(weights["diffpose"], tmp_path / "maps", "--heatmaps", tmp_path / "cells.npy", "--no-draw", "-n", 6)
    assert "pixels are cells" in capsys.readouterr().out

    np.save(tmp_path / "zero.npy", np.zeros((16, 64, 64)))
    np.save(tmp_path / "coco.npy", np.ones((17, 64, 64)))
    for extra, complaint in (
        (["--heatmaps", tmp_path / "zero.npy"], "zero.npy: heatmaps are nowhere above 0"),
        (["--heatmaps", tmp_path / "coco.npy"], "coco.npy"),
        (["--heatmaps", tmp_path / "maps.npz", "--photo", photo], "expected one source"),
        (["--hrnet", tmp_path / "absent.pth"], "--hrnet and --box are for --photo"),
        (["--photo", photo, "--hrnet", tmp_path / "absent.pth", "--input", keypoints], "absent.pth"),
        (["--photo", tmp_path / "absent.jpg", "--input", keypoints], "absent.jpg"),
    ):
        with pytest.raises(SystemExit) as ended:
            run(weights["diffpose"], tmp_path / "bad", *extra)
        assert ended.value.code == 2 and complaint in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(weights["d3dp"], tmp_path / "bad", "--heatmaps", tmp_path / "maps.npz")
    assert "d3dp sees none" in capsys.readouterr().err


@pytest.mark.parametrize("method", sorted(SHIPPED))
def test_shipped_weights_lift_the_example(method: str, tmp_path: Path) -> None:
    if not asset("pretrained_models", SHIPPED[method]).is_file():
        pytest.skip(f"{SHIPPED[method]} is not there")
    cli(
        module.main, ["--method", method, "-n", "2", "--sampling-timesteps", "2", "--no-draw", "--device", "cpu", "--output", str(tmp_path)]
    )
    errors = told(tmp_path, "walk")["errors_mm"]
    assert errors["one hypothesis"]["mpjpe"] < 150 and errors["one hypothesis"]["pa_mpjpe"] < 110


@pytest.mark.parametrize(
    ("extra", "complaint"),
    [
        (["--input", "absent.json"], "absent.json: found nothing"),
        (["--input", "absent_folder"], "absent_folder: found nothing"),
        (["--video", "absent.mp4"], "absent.mp4: found nothing"),
        (["--checkpoint", "absent.safetensors"], "absent.safetensors: found nothing"),
        (["--method", "magic"], "magic"),
        (["--aggregate", "best"], "best"),
        (["--layout", "coco19"], "--layout coco19"),
        (["--layout", "h36m17"], "no detector writes it"),
        (["--person", "1"], "--person 1: found 1 people"),
        (["--image-size", "640", "480"], "made for an image of 320 x 240"),
        (["--fps", "0"], "--fps 0"),
        (["-n", "0"], "--num-proposals 0"),
        (["--focal", "-3"], "--focal -3"),
        (["--overlap", "9"], "overlap = 9"),
        (["--render-truth", "absent.npz"], "absent.npz: found nothing"),
        (["--intrinsics", "absent.txt"], "absent.txt: found nothing"),
        (["--output", "/proc/nowhere"], "cannot be written"),
    ],
)
def test_bad_flags_end_in_one_line(
    weights: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str], extra: list[str], complaint: str
) -> None:
    given = ["--input", WALK, *extra] if "--input" not in extra and "--video" not in extra else extra
    refused(capfd, complaint, lambda: run(weights["mixste"], tmp_path, "--no-draw", *given))


def test_unusable_files_end_in_one_line(
    weights: dict[str, Path], walk: np.ndarray, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    h36m = to_layout(walk, OPENPOSE_25, H36M_17)
    np.savez(tmp_path / "count.npz", keypoints=h36m[:, :16])
    np.savez(tmp_path / "nobody.npz", keypoints=np.full_like(h36m, np.nan))
    np.savez(tmp_path / "far.npz", keypoints=h36m + (5000, 0, 0), image_size=(320, 240))
    np.savez(tmp_path / "layout.npz", keypoints=h36m, layout="mocap")
    np.savez(tmp_path / "rate.npz", keypoints=h36m, fps="fast")
    np.savez(tmp_path / "pickled.npz", keypoints=np.array([{"S1": h36m}], object))
    np.savez(tmp_path / "clip.npz", keypoints=h36m)
    np.savez(tmp_path / "short.npz", joints=np.zeros((5, 17, 3)))
    np.savez(tmp_path / "mm.npz", joints=1000 * np.random.default_rng(0).uniform(-0.5, 0.5, (12, 17, 3)))
    (tmp_path / "torn.json").write_text('[{"keypoints": [1,')
    (tmp_path / "empty.json").write_text('{"people": []}')
    for name, flags, complaint in (
        ("count.npz", [], "16 keypoints a person"),
        ("nobody.npz", [], "nobody.npz: no person in any of 12 frames"),
        ("far.npz", [], "lie mostly outside the image of 320 x 240"),
        ("layout.npz", [], "layout 'mocap'"),
        ("rate.npz", [], "fps or image_size are no numbers"),
        ("pickled.npz", [], "holds pickled objects"),
        ("clip.npz", ["--layout", "openpose25"], "17 keypoints, expected the 25"),
        ("clip.npz", ["--render-truth", tmp_path / "short.npz"], "short.npz: 5 frames, the keypoints go to frame 12"),
        ("clip.npz", ["--render-truth", tmp_path / "mm.npz"], "expected metres"),
        ("torn.json", [], "torn.json: not readable JSON"),
        ("empty.json", [], "empty.json: no person"),
    ):
        refused(capfd, complaint, partial(run, weights["d3dp"], tmp_path / "out", "--no-draw", "--input", tmp_path / name, *flags))


def refused(capfd: pytest.CaptureFixture[str], complaint: str, call: Callable[[], None]) -> None:
    with pytest.raises(SystemExit) as ended:
        call()
    errors = capfd.readouterr().err
    assert ended.value.code == 2 and complaint in errors and "Traceback" not in errors, errors
