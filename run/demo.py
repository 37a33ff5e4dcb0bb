"""Try the pose prior: look at poses, generate, interpolate and complete them.

Everything has a default that ships with the library:

    python -m run.demo --task completion                     # ten completions of poses whose right arm is hidden
    python -m run.demo --task completion --part legs --hypo 5 --view left_half
    python -m run.demo --task generation --metrics
    python -m run.demo --task generation_process
    python -m run.demo --task interpolation --video
    python -m run.demo --bodymodel-path SMPLX_NEUTRAL.npz --ckpt-path axis-zscore-400k.pth --file-path walk_stageii.npz
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dposer.assets import asset
from dposer.body import BodyModel
from dposer.body.parts import part_missing, part_surface
from dposer.data.amass import AmassSequence, read_poses, write_amass
from dposer.errors import InputError
from dposer.prior.config import PriorConfig
from dposer.prior.convert import PUBLISHED_SUFFIXES
from dposer.prior.pose_prior import PosePrior
from dposer.solvers import complete
from dposer.solvers.evaluation import generation_report, self_intersection_report
from dposer.viz import contact_sheet, render_mesh, save_image, save_mesh, write_video
from dposer.viz.render import view_rotation
from dposer.viz.sheet import trimmed
from run._cli import cli, pick_device, progress_bar, step_bar, table, writable_folder

Task = Literal["view", "generation", "generation_process", "interpolation", "completion"]
Part = Literal["left_leg", "right_leg", "left_arm", "right_arm", "trunk", "hands", "legs", "arms"]

ANCHORS = (1, 10, 11, 12, 17, 14)
"""Poses of the toy data that the interpolation passes through."""
COMPLETED = (0.93, 0.58, 0.30)
KNOWN = (0.66, 0.72, 0.80)


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
    """Where pictures and results go."""
    part: Part = "right_arm"
    """What is hidden from completion."""
    hypo: int = 10
    """Completions of each pose (1 to 1000)."""
    num: int | None = None
    """How many poses, samples or films; default: 20 view, 50 generation, 3 generation_process, 5 completion."""
    metrics: bool = False
    """generation: also measure samples (APD, FID, precision, recall, self-intersection)."""
    metric_samples: int = 500
    """generation --metrics: how many samples are measured."""
    view: str = "front"
    """front, back, left, right or random, with half (45 degrees), above or bottom, e.g. left_half_above."""
    sampler: Literal["dpm++", "ddim", "euler_maruyama", "reverse_diffusion", "ode_euler"] = "dpm++"
    """How samples are drawn."""
    steps: int | None = None
    """Network evaluations per sample; default: 20 for dpm++, 1000 for the others."""
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
        self.body = BodyModel(args.bodymodel_path, device=self.device)
        statistics = args.dataset_folder / args.version / "train"
        self.prior = PosePrior.from_pretrained(args.ckpt_path, self.device, statistics if _is_foreign(args, statistics) else None)
        self.generator = torch.Generator(self.device).manual_seed(args.seed)
        self.written: list[list[str]] = []

    def poses(self) -> Tensor:
        """The poses of --file-path (N, 63)."""
        path = self.args.file_path or asset("examples", "toy_data.npz")
        return torch.as_tensor(read_poses(path), dtype=torch.float32, device=self.device)

    def count(self, default: int, available: int) -> int:
        if self.args.num is not None and not 1 <= self.args.num <= 100_000:
            raise InputError(f"--num {self.args.num}, expected 1 to 100000")
        return min(self.args.num or default, available)

    def draw(self, poses: Tensor, hidden: Tensor | None = None, coloured: Tensor | None = None) -> Iterator[np.ndarray]:
        """Pictures of poses (N, 63), one by one; ``hidden`` vertices are left out, ``coloured`` ones stand out."""
        centre = self.body.v_template.mean(0).cpu().numpy()  # one for all, so that a body stays put when a limb moves
        size = (256, 192) if self.args.faster else (512, 384)
        faces, colours = self.body.faces, np.tile(KNOWN, (self.body.num_vertices, 1))
        if hidden is not None:
            faces = faces[~np.isin(faces, hidden.cpu().numpy()).any(1)]
        if coloured is not None:
            colours[coloured.cpu().numpy()] = COMPLETED
        look: dict[str, Any] = {"view": self.args.view, "size": size, "renderer": self.args.renderer}
        rng = np.random.default_rng(self.args.seed)
        for pose in poses.split(1):
            mesh = self.vertices(pose)[0]
            yield render_mesh(mesh, faces, fit=True, centre=centre, vertex_colours=colours, generator=rng, **look)

    @torch.no_grad()
    def vertices(self, poses: Tensor) -> np.ndarray:
        """(N, V, 3) metres."""
        vertices = self.body(poses).vertices
        assert vertices is not None
        return vertices.cpu().numpy()

    def save(self, name: str, image: np.ndarray) -> np.ndarray:
        save_image(self.folder / name, image)
        return image

    def note(self, what: str, pattern: str) -> None:
        self.written.append([what, str(self.folder / pattern)])

    def export(self, poses: Tensor, name: str) -> None:
        """Write the results in the formats asked for."""
        for kind in self.args.export:
            path = self.folder / f"{name}.{kind}"
            if kind == "npz":
                write_amass(path, AmassSequence.of_poses(poses.cpu().numpy()))
            else:
                save_mesh(path, self.vertices(poses[:100]), self.body.faces)
            self.note("poses (AMASS layout)" if kind == "npz" else "meshes", path.name)


def view(studio: Studio) -> None:
    """Draw the poses of the file."""
    poses = studio.poses()
    poses = poses[: studio.count(20, len(poses))]
    images = [studio.save(f"GT_sample{i}.png", image) for i, image in enumerate(progress_bar(studio.draw(poses), "drawing", len(poses)), 1)]
    studio.note("pictures", "GT_sample*.png")
    _sheet(studio, images)
    studio.export(poses, "poses")


def generation(studio: Studio) -> None:
    """Draw poses from the prior."""
    count = studio.count(50, 100_000)
    samples = _sample(studio, max(count, studio.args.metric_samples) if studio.args.metrics else count)
    shown = samples[:count]
    images = [
        studio.save(f"generated_sample{i}.png", image) for i, image in enumerate(progress_bar(studio.draw(shown), "drawing", len(shown)), 1)
    ]
    studio.note("pictures", "generated_sample*.png")
    _sheet(studio, images)
    studio.export(shown, "samples")
    if studio.args.metrics:
        measured = samples[: studio.args.metric_samples]
        report = generation_report(measured, studio.poses(), body=studio.body)
        report["SI"] = self_intersection_report(measured, studio.body, step_bar("self-intersection"))
        print(table([f"figure of {len(measured)} samples", "value"], [[key, f"{value:.3f}"] for key, value in report.items()]) + "\n")


def generation_process(studio: Studio) -> None:
    """Film noise turning into poses."""
    count = studio.count(3, 100)
    _, states = studio.prior.sample(
        count, sampler="euler_maruyama", steps=1000, generator=studio.generator, trajectory=True, progress=step_bar("sampling")
    )
    for k in range(count):
        poses = states[9::10, k]
        frames = progress_bar(studio.draw(poses), f"film {k + 1} of {count}", len(poses))
        write_video(studio.folder / f"generation_process{k + 1}.mp4", frames, fps=30)
    studio.note("films", "generation_process*.mp4")
    moments = states[[0, 400, 600, 700, 800, 850, 900, 950, 975, 999]]
    _sheet(studio, list(studio.draw(moments.transpose(0, 1).flatten(0, 1))), columns=len(moments))
    studio.export(states[-1], "samples")


def interpolation(studio: Studio) -> None:
    """Walk through poses along great circles of the latent space."""
    poses = studio.poses()
    if len(poses) < 2:
        raise InputError(f"{studio.args.file_path}: {len(poses)} poses, expected at least 2 to interpolate between")
    anchors = poses[[i % len(poses) for i in ANCHORS]]
    tqdm.write("encoding and decoding by the probability-flow ODE ...")
    latents = studio.prior.encode(anchors)
    reconstructions = studio.prior.decode(latents)
    path = studio.prior.interpolate(anchors, frames=60, latents=latents)  # (pairs, 60, 63)
    for name, some in (("original", anchors), ("reconstruction", reconstructions)):
        for i, image in enumerate(studio.draw(some), 1):
            studio.save(f"{name}_sample{i}.png", image)
        studio.note(f"{name}s", f"{name}_sample*.png")
    frames = progress_bar(studio.draw(path.flatten(0, 1)), "drawing", path.shape[0] * path.shape[1])
    if studio.args.video:
        write_video(studio.folder / "interpolation_video.mp4", frames, fps=60)
        studio.note("film", "interpolation_video.mp4")
    else:
        for i, image in enumerate(frames):
            studio.save(f"inter_{i // 60 + 1}_{i % 60 + 1}.png", image)
        studio.note("pictures", "inter_*_*.png")
    _sheet(studio, list(studio.draw(path[:, ::10].flatten(0, 1))), columns=6)
    studio.export(path.flatten(0, 1), "interpolation")


def completion(studio: Studio) -> None:
    """Hide a part of each pose and complete it."""
    args = studio.args
    if not 1 <= args.hypo <= 1000:
        raise InputError(f"--hypo {args.hypo}, expected 1 to 1000 completions of each pose")
    poses = studio.poses()
    poses = poses[: studio.count(5, len(poses))]
    completions = complete(
        studio.prior, poses, part_missing(args.part), hypotheses=args.hypo, generator=studio.generator, progress=step_bar("completing")
    )
    part = part_surface(studio.body.weights, args.part)
    images: list[np.ndarray] = []
    originals, masked = studio.draw(poses), studio.draw(poses, hidden=part)
    pictures = progress_bar(studio.draw(completions.flatten(0, 1), coloured=part), "drawing", len(poses) * args.hypo)
    drawn = iter(pictures)
    for i in range(1, len(poses) + 1):
        images += [studio.save(f"sample{i}_original.jpg", next(originals)), studio.save(f"sample{i}_masked.png", next(masked))]
        images += [studio.save(f"sample{i}_completion{h}.png", next(drawn)) for h in range(1, args.hypo + 1)]
    for what, pattern in (("originals", "original.jpg"), ("what was observed", "masked.png"), ("completions", "completion*.png")):
        studio.note(what, f"sample*_{pattern}")
    captions = ["original", "observed", *(f"completion {h}" for h in range(1, args.hypo + 1))] * len(poses)
    _sheet(studio, images, columns=2 + args.hypo, captions=captions)
    studio.export(completions.flatten(0, 1), "completions")


def _is_foreign(args: Args, statistics: Path) -> bool:
    """Published weights lie apart from their normaliser, which the reference keeps with the training data."""
    return args.ckpt_path is not None and args.ckpt_path.suffix in PUBLISHED_SUFFIXES and any(statistics.glob("*_normalize*.pt"))


def _sample(studio: Studio, count: int) -> Tensor:
    """Samples by --sampler, or by the sampling section of --config where one is given."""
    args = studio.args
    options: dict[str, Any] = {"sampler": args.sampler, "steps": args.steps or (20 if args.sampler == "dpm++" else 1000)}
    if args.config is not None:
        settings = args.config.sampling
        options = {"sampler": settings.predictor, "corrector": settings.corrector, "corrector_steps": settings.n_steps_each}
        options |= {"snr": settings.snr, "noise_removal": settings.noise_removal, "steps": args.steps or 1000}
    return studio.prior.sample(count, generator=studio.generator, progress=step_bar("sampling"), **options)


def _sheet(studio: Studio, images: list[np.ndarray], columns: int | None = None, captions: list[str] | None = None) -> None:
    save_image(studio.folder / "contact_sheet.png", contact_sheet(trimmed(images[:240]), captions=captions, columns=columns))
    studio.note("all at a glance", "contact_sheet.png")


def main(args: Args) -> None:
    studio = Studio(args)
    TASKS[args.task](studio)
    print(table(["written", "where"], studio.written))


TASKS: dict[str, Callable[[Studio], None]] = {
    "view": view,
    "generation": generation,
    "generation_process": generation_process,
    "interpolation": interpolation,
    "completion": completion,
}

if __name__ == "__main__":
    cli(main)
