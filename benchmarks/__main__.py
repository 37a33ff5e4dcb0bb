"""Measure this library beside the way the original does the same.

    python -m benchmarks                                  # speed, and the prior on the example poses
    python -m benchmarks --dataset-folder data/cmu_processed --output docs/benchmarks.md

With a processed data set (`python -m run.prepare_data`) samplers and completions are scored on its test split. How good
samples are beside real poses is told by `python -m run.evaluate`.

    python -m benchmarks --only denoising partial ik motion_speed long_motion --output docs/motion.md

needs whole motions (`python -m run.prepare_data ... --write-amass data/AMASS/amass_like`); without `--only` these sections
are left out where there are none.

    python -m benchmarks --only fitting_pictures fitting fitting_video fitting_speed --people 300 --output docs/fitting.md

poses people before cameras, in the example poses that ship or in those of a processed data set, and films of whole motions or of the
example that ships. `--only fitting_tune --dataset-folder data/cmu_processed` tries weights of Gaussian priors on validation subjects.

    python -m benchmarks --only lifting_pictures lifting lifting_robustness lifting_speed --output docs/lifting.md

needs the open lifting benchmark (`python -m run.prepare_data --source lifting`).

    python -m benchmarks --only lifting_methods lifting_occlusion --occlusion-models output/occluded --output docs/lifters.md

is every method and training pattern against every pattern of occlusion: the weights that ship, and those of a folder.

    python -m benchmarks --only diffpose diffpose_speed --output docs/hypotheses.md

needs the synthetic heatmaps (`python -m run.prepare_data --source heatmaps`).
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from benchmarks import (
    diffpose,
    fitting,
    fitting_data,
    fitting_speed,
    guidance,
    lifting,
    lifting_methods,
    lifting_occlusion,
    lifting_speed,
    motion,
    motion_data,
    motion_speed,
    prior,
    speed,
)
from dposer.body import BodyModel
from dposer.errors import InputError
from dposer.files import save_bytes
from dposer.lifting.config import Method
from dposer.prior import PosePrior
from dposer.prior.mixture import PoseMixture
from run._cli import cli
from run._report import machine

Section = Literal[
    "kinematics", "metrics", "large_metrics", "rendering", "sampling", "training", "solver", "completion", "guidance",
    "denoising", "partial", "ik", "motion_speed", "long_motion", "fitting", "fitting_speed", "fitting_video", "fitting_pictures",
    "fitting_tune", "lifting", "lifting_pictures", "lifting_robustness", "lifting_methods", "lifting_occlusion",
    "lifting_speed", "diffpose", "diffpose_speed",
]  # fmt: skip

_TOGETHER = 100
"""People of ``fitting_speed`` at most."""


@dataclass
class Args:
    dataset_folder: Path | None = None
    """Processed data set (holds a version folder)."""
    version: str = "version1"
    motion_folder: Path = motion_data.FOLDER
    """Whole motions: AMASS files <split>/<subject>/*.npz of the splits train, valid and test."""
    ckpt_path: Path | None = None
    """Weights; default: the prior that ships."""
    only: tuple[Section, ...] = ()
    """Which sections; default all."""
    poses: int = 500
    """Poses per figure of the prior."""
    per_subject: int = 2
    """Fragments of motion of each held-out subject."""
    people: int = 100
    """People, or of films at most so many, that are fitted to keypoints."""
    lifting_folder: Path = Path("data/lifting")
    """The open lifting benchmark."""
    lifting_weights: Path | None = None
    """Folder of <method>.safetensors; default: the weights that ship."""
    lifting_every: int = 16
    """Of its windows, many hypotheses are lifted of every k-th."""
    occlusion_methods: tuple[Method, ...] = ()
    """Methods of `lifting_occlusion`; default: all that ship."""
    occlusion_models: Path | None = None
    """Folder of weights (.safetensors) that `lifting_occlusion` also measures, trained on patterns of occlusion."""
    heatmap_folder: Path = Path("data/heatmaps")
    """The synthetic heatmaps."""
    heatmap_every: int = 8
    """Of their test frames, hypotheses of every k-th are measured."""
    hypotheses: int = 200
    """Of a frame, by `diffpose`."""
    diffpose_weights: str = "diffpose"
    """A file; default: the weights that ship."""
    diffpose_raw: Path | None = None
    """The same training's weights that are not averaged (last_raw.safetensors), to be compared."""
    threads: int = 0
    """Threads of torch; 0 leaves its default."""
    output: Path | None = None
    """Also write the tables to this Markdown file."""
    seed: int = 0


def main(args: Args) -> None:
    if args.threads:
        torch.set_num_threads(args.threads)
    sections: dict[str, Callable[[], str]] = {
        "kinematics": speed.kinematics,
        "metrics": lambda: speed.metrics(args.seed),
        "large_metrics": lambda: speed.large_metrics(args.seed),
        "rendering": speed.rendering,
        "sampling": lambda: prior.sampling(_data(args), args.seed),
        "training": speed.training,
        "solver": lambda: prior.solver_speed(_data(args), args.seed),
        "completion": lambda: prior.completion(_data(args), args.seed),
        "guidance": lambda: guidance.biases(args.seed),
    }
    if args.only or args.motion_folder.exists():
        sections |= {
            "denoising": lambda: motion.denoising(_motions(args), args.per_subject),
            "partial": lambda: motion.partial(_motions(args), args.per_subject),
            "ik": lambda: motion.ik(_motions(args)),
            "motion_speed": lambda: motion_speed.speed(_motions(args)),
            "long_motion": lambda: motion_speed.long_motion(_motions(args)),
        }
    if args.only:
        sections |= {
            "fitting": lambda: fitting.fitting(_models(args), _people(args, "test")),
            "fitting_speed": lambda: fitting_speed.speed(_models(args), _people(args, "test", _TOGETHER)),
            "fitting_video": lambda: fitting.video(_models(args), fitting_data.held_out_clips(args.motion_folder, args.people, args.seed)),
            "fitting_pictures": lambda: fitting.pictures(_models(args), (args.output or Path("output/fitting.md")).with_suffix("")),
            "fitting_tune": lambda: fitting.tune(_models(args), _people(args, "valid")),
            "lifting": lambda: lifting.accuracy(_study(args)),
            "lifting_pictures": lambda: lifting.picture((args.output or Path("output/lifting.md")).with_suffix("")),
            "lifting_robustness": lambda: lifting.robustness(_study(args), (args.output or Path("output/lifting.md")).with_suffix("")),
            "lifting_methods": lambda: lifting_methods.methods(_study(args)),
            "lifting_occlusion": lambda: lifting_occlusion.matrix(
                _study(args),
                lifting_occlusion.entrants(args.lifting_weights, args.occlusion_models, args.occlusion_methods),
                (args.output or Path("output/lifting_occlusion.md")).with_suffix(""),
            ),
            "lifting_speed": lifting_speed.speed,
            "diffpose": lambda: diffpose.settings(_heatmaps(args), (args.output or Path("output/diffpose.md")).with_suffix("")),
            "diffpose_speed": diffpose.speed,
        }
    pages = [f"# Measurements\n\nMade by `{' '.join(['python -m benchmarks', *sys.argv[1:]])}`. Machine: {machine()}.\n"]
    for name in args.only or sections:
        pages.append(f"## {name.replace('_', ' ').capitalize()}\n\n{sections[name]()}\n")
        print(pages[-1], flush=True)
    if args.output is not None:
        save_bytes(args.output, "\n".join(pages).encode())


def _data(args: Args) -> prior.Data:
    folder = args.dataset_folder / args.version if args.dataset_folder else None
    return prior.load(folder, args.ckpt_path, args.poses, args.seed)


def _motions(args: Args) -> motion_data.Motions:
    return motion_data.Motions(args.motion_folder, PosePrior.from_pretrained(args.ckpt_path), BodyModel(), args.seed)


def _study(args: Args) -> lifting.Study:
    return lifting.Study.of(args.lifting_folder, args.lifting_weights, args.lifting_every, args.seed)


def _heatmaps(args: Args) -> diffpose.Study:
    raw = args.diffpose_raw
    return diffpose.Study(args.heatmap_folder, args.diffpose_weights, raw, args.heatmap_every, args.hypotheses, args.seed)


def _models(args: Args) -> fitting.Models:
    return fitting.Models(PosePrior.from_pretrained(args.ckpt_path), PoseMixture.from_pretrained(), BodyModel(), args.seed)


def _people(args: Args, split: str, most: int | None = None) -> fitting_data.People:
    folder = args.dataset_folder / args.version if args.dataset_folder else None
    if folder is None and split != "test":
        raise InputError("fitting_tune: no data set, expected one with validation subjects; give --dataset-folder")
    count = args.people if most is None else min(args.people, most)
    poses = fitting_data.held_out_poses(folder, split, count, args.seed)
    return fitting_data.people(poses, BodyModel(), args.seed)


if __name__ == "__main__":
    cli(main)
