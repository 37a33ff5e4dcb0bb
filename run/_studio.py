"""The demo's flags, and what its tasks share: the models, a camera, and a record of what was written."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.spatial import ConvexHull
from torch import Tensor

from dposer.assets import asset
from dposer.body import BodyModel
from dposer.body.parts import body_weights
from dposer.body.skeleton import BODY_JOINTS
from dposer.data.amass import AmassSequence, read_amass, read_poses, write_amass
from dposer.errors import InputError
from dposer.files import load_npz, save_bytes
from dposer.prior.config import PriorConfig
from dposer.prior.plausibility import Plausibility
from dposer.solvers.completion import Mode
from dposer.viz import contact_sheet, render_mesh, save_image, save_mesh
from dposer.viz.render import view_rotation
from dposer.viz.sheet import trimmed
from run._cli import load_prior, pick_device, step_bar, writable_folder

Task = Literal["view", "generation", "generation_process", "interpolation", "completion", "completion2", "score"]
Part = Literal["left_leg", "right_leg", "left_arm", "right_arm", "trunk", "hands", "legs", "arms", "left_body", "right_body"]
Preset = Literal["v1", "v1-demo", "v2", "v2-demo", "x", "paper"]
Sampler = Literal["dpm++", "ddim", "euler_maruyama", "reverse_diffusion", "ode_euler"]

KNOWN = (0.66, 0.72, 0.80)
COMPLETED = (0.93, 0.58, 0.30)
SCORE_MEANING = "per cent: share of held-out human motion that is less ordinary"
_CHUNK = 256
_AT_A_GLANCE = 240


@dataclass
class Args:
    task: Task = "view"
    """What to do."""
    config: PriorConfig | None = None
    """A recipe file (configs/) whose sampling section is used; the network's own settings come with the weights."""
    ckpt_path: Path | None = None
    """Weights: a .safetensors of this library or a published .pth/.ckpt; default: the prior that ships."""
    bodymodel_path: Path | None = None
    """SMPL-X, SMPL-H or SMPL file; default: the open body that ships."""
    dataset_folder: Path = Path("./data/AMASS/amass_processed")
    """Where a published checkpoint's normaliser is looked for."""
    version: str = "version1"
    """Version folder below --dataset-folder."""
    file_path: Path | None = None
    """Poses: .npz with pose_samples (N, 63), or an AMASS sequence; default: examples/toy_data.npz."""
    output_path: Path = Path("./output/test_results")
    """Where pictures and results go, in a folder of the task's name."""
    part: Part = "right_arm"
    """completion: the part that is hidden."""
    missing: str | None = None
    """completion: in place of --part, parts and joints joined by + or a comma, single axes too (left_elbow,right_knee.x), or a mask file
    (.npz, .npy, .pt, .txt, .csv) of 0 and 1, for all poses or one row a pose."""
    hypo: int = 10
    """completion: completions of each pose (1 to 1000)."""
    mode: Mode | None = None
    """completion: the solver; default: DPoser, for completion2 ScoreSDE."""
    preset: Preset | None = None
    """completion: settings of DPoser (v1-demo alters known joints a little), or v2 for ScoreSDE, MCG and DPS; default: the library's."""
    num: int | None = None
    """How many poses, samples, films or worst frames; default: 20 view, 50 generation, 3 generation_process, 5 completion, 8 score."""
    metrics: bool = False
    """generation: also measure samples (APD, FID, precision, recall, self-intersection)."""
    metric_samples: int = 500
    """generation --metrics: how many samples are measured."""
    view: str = "front"
    """front, back, left, right or random (by --seed), with half (45 degrees), above or bottom, e.g. left_half_above."""
    sampler: Sampler | None = None
    """generation: how samples are drawn; default: dpm++, for generation_process euler_maruyama."""
    steps: int | None = None
    """Steps of a sampler or a solver; default for samplers: 20 for dpm++, 1000 for the others, for completion: the mode's own."""
    anchors: tuple[int, ...] | None = None
    """interpolation: rows of --file-path to pass through, from 0; default: its first and last."""
    frames: int = 60
    """interpolation: frames from one anchor to the next, at 60 frames per second."""
    faster: bool = False
    """Smaller pictures."""
    video: bool = False
    """interpolation: one mp4 in place of pictures."""
    renderer: Literal["auto", "software", "pyrender"] = "auto"
    """auto and software need no OpenGL."""
    export: tuple[Literal["npz", "glb", "obj"], ...] = ("npz",)
    """Also save the poses as AMASS-style npz, the meshes as GLB or OBJ."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    seed: int = 42
    """Same seed, same device, same result."""


class Studio:
    """What every task needs: the models, a way to draw poses, and a record of what was written."""

    def __init__(self, args: Args):
        self.args = args
        self.folder = writable_folder(args.output_path / args.task)
        self.device = pick_device(args.device)
        view_rotation(args.view, np.random.default_rng(args.seed))  # a wrong view is told before the work
        self.path = args.file_path or asset("examples", "toy_data.npz")
        self.body = BodyModel(args.bodymodel_path, device=self.device)
        self.prior = load_prior(args.ckpt_path, args.dataset_folder / args.version, self.device)
        self.generator = torch.Generator(self.device).manual_seed(args.seed)
        self.centre = self.body.v_template.mean(0).cpu().numpy()  # one for all, so that a body stays put when a limb moves
        self.written: list[list[str]] = []

    # ---- poses ---------------------------------------------------------------------------------------------------------

    def poses(self) -> Tensor:
        """The poses of --file-path (N, 63)."""
        return torch.as_tensor(read_poses(self.path), dtype=torch.float32, device=self.device)

    def motion(self) -> tuple[Tensor, float | None, bool]:
        """The poses (N, 63), their frames per second if the file tells, and whether they follow each other in time."""
        is_collection = "pose_samples" in load_npz(self.path, "poses", optional=("pose_samples",))
        return self.poses(), None if is_collection else read_amass(self.path).fps, not is_collection

    def count(self, default: int, available: int) -> int:
        if self.args.num is not None and not 1 <= self.args.num <= 100_000:
            raise InputError(f"--num {self.args.num}, expected 1 to 100000")
        return min(self.args.num or default, available)

    def sampling(self, sampler: str) -> dict[str, Any]:
        """How to sample: by --sampler and --steps, then as the sampling section of --config says, then by ``sampler``."""
        options: dict[str, Any] = {"sampler": sampler}
        if self.args.config is not None:
            settings = self.args.config.sampling
            options = {"sampler": settings.predictor, "corrector": settings.corrector, "corrector_steps": settings.n_steps_each}
            options |= {"snr": settings.snr, "noise_removal": settings.noise_removal}
        if self.args.sampler is not None:
            options["sampler"] = self.args.sampler
        steps = 20 if self.args.config is None and options["sampler"] == "dpm++" else 1000
        return options | {"steps": steps if self.args.steps is None else self.args.steps, "generator": self.generator}

    # ---- plausibility --------------------------------------------------------------------------------------------------

    def plausibility(self, poses: Tensor) -> Plausibility:
        """Of poses (N, 63), a chunk at a time under a progress bar."""
        bar = step_bar("scoring")
        parts = []
        for start in range(0, len(poses), _CHUNK):
            parts.append(self.prior.plausibility(poses[start : start + _CHUNK]))
            bar(min(start + _CHUNK, len(poses)), len(poses))
        return Plausibility(*(torch.cat(values) for values in zip(*parts, strict=True)))

    def worst_joints(self, ranked: Plausibility) -> list[str]:
        """Name of each pose's least plausible joint; of several at 0 % the one farthest beyond held-out motion."""
        assert self.prior.calibration is not None
        beyond = ranked.residual / self.prior.calibration.per_joint[:, -1]
        least = ranked.per_joint == ranked.per_joint.amin(1, keepdim=True)
        return [BODY_JOINTS[joint] for joint in torch.where(least, beyond, -1).argmax(1).tolist()]

    # ---- pictures ------------------------------------------------------------------------------------------------------

    def stage(self, *groups: Tensor) -> np.ndarray:
        """Points (M, 3) to keep in view for all of these poses (N, 63) to be in view: corners of the hulls of their surfaces."""
        points = [self.vertices(some).reshape(-1, 3) for group in groups for some in group.split(_CHUNK)]
        return np.concatenate([some[ConvexHull(some).vertices] for some in points])

    def draw(
        self,
        poses: Tensor,
        stage: np.ndarray | None = None,
        *,
        colours: Iterable[np.ndarray] | None = None,
        hidden: Iterable[Tensor] | None = None,
        aside: bool = False,
    ) -> Iterator[np.ndarray]:
        """Pictures of poses (N, 63), one by one, all by one camera.

        Args:
            stage: what this camera has in view; default: all of these poses.
            colours: (V, 3) for each pose.
            hidden: indices of the vertices of each pose that are left out.
            aside: seen from the body's left instead of its front.
        """
        turn = np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]]) if aside else np.eye(3)

        def turned(points: np.ndarray) -> np.ndarray:
            return (points - self.centre) @ turn.T + self.centre

        stage = turned(self.stage(poses) if stage is None else stage)
        plain = self.paint()
        look: dict[str, Any] = {
            "view": self.args.view,
            "size": (256, 192) if self.args.faster else (512, 384),
            "renderer": self.args.renderer,
        }
        paints, gaps = repeat(plain) if colours is None else colours, repeat(None) if hidden is None else hidden
        for pose, colour, out in zip(poses.split(1), paints, gaps, strict=False):
            faces = self.body.faces if out is None else self.body.faces[~np.isin(self.body.faces, out.cpu().numpy()).any(1)]
            mesh, rng = turned(self.vertices(pose)[0]), np.random.default_rng(self.args.seed)  # always the same random view
            yield render_mesh(mesh, faces, fit=stage, centre=self.centre, vertex_colours=colour, generator=rng, **look)

    def paint(self, coloured: Tensor | None = None) -> np.ndarray:
        """Colours (V, 3) of the surface, those of the vertices ``coloured`` standing out."""
        colours = np.tile(KNOWN, (self.body.num_vertices, 1))
        if coloured is not None:
            colours[coloured.cpu().numpy()] = COMPLETED
        return colours

    def skin(self) -> np.ndarray:
        """(V, 22): how far each body joint moves each vertex."""
        return body_weights(self.body.weights, self.body.parents).cpu().numpy()

    @torch.no_grad()
    def vertices(self, poses: Tensor) -> np.ndarray:
        """(N, V, 3) metres."""
        vertices = self.body(poses).vertices
        assert vertices is not None
        return vertices.cpu().numpy()

    # ---- files ---------------------------------------------------------------------------------------------------------

    def note(self, what: str, pattern: str) -> None:
        self.written.append([what, str(self.folder / pattern)])

    def save(self, name: str, image: np.ndarray) -> np.ndarray:
        save_image(self.folder / name, image)
        return image

    def sheet(
        self,
        images: Sequence[np.ndarray],
        columns: int | None = None,
        captions: Sequence[str] | None = None,
        title: str | None = None,
    ) -> np.ndarray:
        """The pictures at a glance, the first of very many."""
        captions = None if captions is None else captions[:_AT_A_GLANCE]
        sheet = contact_sheet(trimmed(images[:_AT_A_GLANCE]), captions=captions, columns=columns, title=title)
        self.note("all at a glance", "contact_sheet.png")
        return self.save("contact_sheet.png", sheet)

    def csv(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *rows])
        save_bytes(self.folder / name, text.getvalue().encode())
        self.note("table", name)

    def export(self, poses: Tensor, name: str, fps: float = 30.0) -> None:
        """Write the results in the formats asked for."""
        for kind in self.args.export:
            path = self.folder / f"{name}.{kind}"
            if kind == "npz":
                write_amass(path, AmassSequence.of_poses(poses.cpu().numpy(), fps))
            else:
                save_mesh(path, self.vertices(poses[:100]), self.body.faces)
            self.note("poses (AMASS layout)" if kind == "npz" else "meshes", path.name)


def percent(value: float) -> str:
    """A percentile for a caption, with a decimal where it matters."""
    return f"{value:.0f} %" if value >= 10 else f"{value:.1f} %"
