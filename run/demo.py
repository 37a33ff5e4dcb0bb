"""Try the pose prior: look at poses, generate, interpolate, complete and score them.

Everything has a default that ships with the library:

    python -m run.demo --task completion                     # ten completions of poses whose right arm is hidden
    python -m run.demo --task completion --part legs --hypo 5 --view left_half
    python -m run.demo --task completion --missing left_elbow,right_knee.x --mode posterior
    python -m run.demo --task score --file-path walk_stageii.npz      # how human is each frame, which joints are not
    python -m run.demo --task generation --metrics
    python -m run.demo --task generation_process
    python -m run.demo --task interpolation --video
    python -m run.demo --task interpolation --file-path walk_stageii.npz --anchors 0 57
    python -m run.demo --bodymodel-path SMPLX_NEUTRAL.npz --ckpt-path axis-zscore-400k.pth --file-path walk_stageii.npz
"""

from collections.abc import Callable, Iterator
from itertools import islice, pairwise, repeat

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dposer.assets import asset
from dposer.body.parts import part_surface
from dposer.data.masks import read_missing
from dposer.data.video import open_video
from dposer.errors import InputError
from dposer.metrics.poses import mpjpe
from dposer.solvers import complete, mode_settings
from dposer.solvers.generation_scores import generation_report, joint_positions, self_intersection_report
from dposer.viz import contact_sheet, write_video
from run._cli import cli, progress_bar, step_bar, table
from run._score import score
from run._studio import SCORE_MEANING, Args, Studio, Task, percent

ANCHORS = (1, 10, 11, 12, 17, 14)
"""Poses of the toy data that the interpolation passes through."""
FILM_FRAMES, FILM_FPS = 100, 30


def view(studio: Studio) -> None:
    """Draw the poses of the file."""
    poses = studio.poses()
    poses = poses[: studio.count(20, len(poses))]
    images = [studio.save(f"GT_sample{i}.png", image) for i, image in enumerate(progress_bar(studio.draw(poses), "drawing", len(poses)), 1)]
    studio.note("pictures", "GT_sample*.png")
    studio.sheet(images)
    studio.export(poses, "poses")


def generation(studio: Studio) -> None:
    """Draw poses from the prior."""
    args, count = studio.args, studio.count(50, 100_000)
    drawn = max(count, args.metric_samples) if args.metrics else count
    samples = studio.prior.sample(drawn, progress=step_bar("sampling"), **studio.sampling("dpm++"))
    shown = samples[:count]
    images = [
        studio.save(f"generated_sample{i}.png", image) for i, image in enumerate(progress_bar(studio.draw(shown), "drawing", len(shown)), 1)
    ]
    studio.note("pictures", "generated_sample*.png")
    studio.sheet(images)
    studio.export(shown, "samples")
    if args.metrics:
        measured = samples[: args.metric_samples]
        report = generation_report(measured, studio.poses(), body=studio.body)
        report["SI"] = self_intersection_report(measured, studio.body, step_bar("self-intersection"))
        print(table([f"figure of {len(measured)} samples", "value"], [[key, f"{value:.3f}"] for key, value in report.items()]) + "\n")


def generation_process(studio: Studio) -> None:
    """Film noise turning into poses."""
    count = studio.count(3, 100)
    options = studio.sampling("euler_maruyama")
    _, states = studio.prior.sample(count, trajectory=True, progress=step_bar("sampling"), **options)
    moments = np.ceil(np.arange(1, FILM_FRAMES + 1) * len(states) / FILM_FRAMES).astype(int) - 1  # of 1000: every tenth
    moments, times = np.unique(moments, return_counts=True)
    times[-1] += FILM_FPS  # the pose stands for a second
    stage = studio.stage(*states[moments])
    films = [studio.folder / f"generation_process{k}.mp4" for k in range(1, count + 1)]
    for k, film in enumerate(films):
        pictures = progress_bar(studio.draw(states[moments, k], stage), f"film {k + 1} of {count}", len(moments))
        write_video(film, (image for image, t in zip(pictures, times, strict=True) for image in repeat(image, t)), fps=FILM_FPS)
    studio.note("films", "generation_process*.mp4")
    if count > 1:
        together = (_within(contact_sheet(frames), 1920) for frames in zip(*map(open_video, films), strict=True))
        write_video(studio.folder / "generation_process.mp4", together, fps=FILM_FPS)
        studio.note("all films side by side", "generation_process.mp4")
    late = 1.0 if options["sampler"] == "dpm++" else 2.5  # even steps in time keep for the last of them what can be seen
    some = np.unique(np.rint((1 - np.linspace(1, 0, 10) ** late) * (len(states) - 1)).astype(int))
    pictures = studio.draw(states[some].transpose(0, 1).flatten(0, 1), stage)
    studio.sheet(list(pictures), columns=len(some), captions=[f"step {step + 1}" for step in some] * count)
    studio.export(states[-1], "samples")


def _within(image: np.ndarray, side: int) -> np.ndarray:
    scale = side / max(image.shape)
    return image if scale >= 1 else cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def interpolation(studio: Studio) -> None:
    """Walk through poses along great circles of the latent space."""
    args, poses = studio.args, studio.poses()
    chosen = _anchors(studio, len(poses))
    if not 2 <= args.frames <= 10_000:
        raise InputError(f"--frames {args.frames}, expected 2 to 10000 from one anchor to the next")
    anchors = poses[chosen]
    tqdm.write("encoding and decoding by the probability-flow ODE ...")
    path = studio.prior.interpolate(anchors, frames=args.frames)  # (pairs, frames, 63)
    reconstructions = torch.cat([path[:, 0], path[-1:, -1]])
    errors = 1000 * mpjpe(joint_positions(studio.body, reconstructions), joint_positions(studio.body, anchors))
    rows = [[row, f"{error:.2f}"] for row, error in zip(chosen, errors.tolist(), strict=True)]
    print(table(["anchor", "encoded and decoded again, mm"], rows) + "\n")
    walk = path.flatten(0, 1)
    stage = studio.stage(anchors, walk)
    for name, group in (("original", anchors), ("reconstruction", reconstructions)):
        for i, image in enumerate(studio.draw(group, stage), 1):
            studio.save(f"{name}_sample{i}.png", image)
        studio.note(f"{name}s", f"{name}_sample*.png")
    frames = progress_bar(studio.draw(walk, stage), "drawing", len(walk))
    if args.video:
        write_video(studio.folder / "interpolation_video.mp4", frames, fps=60)
        studio.note("film", "interpolation_video.mp4")
    else:
        for i, image in enumerate(frames):
            studio.save(f"inter_{i // args.frames + 1}_{i % args.frames + 1}.png", image)
        studio.note("pictures", "inter_*_*.png")
    some = np.unique(np.linspace(0, args.frames - 1, 7).astype(int))
    captions = [text for a, b in pairwise(chosen) for text in (f"pose {a}", *[""] * (len(some) - 2), f"pose {b}")]
    studio.sheet(list(studio.draw(path[:, some].flatten(0, 1), stage)), columns=len(some), captions=captions)
    studio.export(walk, "interpolation", fps=60)


def _anchors(studio: Studio, available: int) -> list[int]:
    """Rows of the file that the walk passes through."""
    if available < 2:
        raise InputError(f"{studio.path}: found {available} pose, expected at least 2 to interpolate between")
    if studio.args.anchors is None:
        return list(ANCHORS) if studio.path == asset("examples", "toy_data.npz") else [0, available - 1]
    chosen = list(studio.args.anchors)
    if len(chosen) < 2:
        raise InputError(f"--anchors {' '.join(map(str, chosen))}: found {len(chosen)}, expected at least 2 rows of {studio.path}")
    for row in chosen:
        if not 0 <= row < available:
            raise InputError(f"--anchors {row}: {studio.path} has {available} poses, expected 0 to {available - 1}")
    return chosen


def completion(studio: Studio) -> None:
    """Hide some of each pose and complete it."""
    args = studio.args
    if not 1 <= args.hypo <= 1000:
        raise InputError(f"--hypo {args.hypo}, expected 1 to 1000 completions of each pose")
    mode = args.mode or ("ScoreSDE" if args.task == "completion2" else "DPoser")
    settings = mode_settings(studio.prior, mode, args.preset, args.steps)
    poses = studio.poses()
    missing = read_missing(args.part if args.missing is None else args.missing, len(poses)).to(studio.device).expand(len(poses), 63)
    count = studio.count(5, len(poses))
    poses, missing = poses[:count], missing[:count]
    completions = complete(
        studio.prior,
        poses,
        missing,
        hypotheses=args.hypo,
        mode=mode,
        generator=studio.generator,
        settings=settings,
        progress=step_bar("completing"),
    ).flatten(0, 1)
    captions = _completion_scores(studio, mode, poses, completions)
    stage = studio.stage(poses, completions)

    def surfaces() -> Iterator[Tensor]:
        return (part_surface(studio.body.weights, mask, studio.body.parents) for mask in missing)

    colours = (paint for surface in surfaces() for paint in repeat(studio.paint(surface), args.hypo))
    originals, masked = studio.draw(poses, stage), studio.draw(poses, stage, hidden=surfaces())
    completed = studio.draw(completions, stage, colours=colours)
    drawn = (image for _ in range(count) for image in (next(originals), next(masked), *islice(completed, args.hypo)))
    original = "original.png" if args.task == "completion2" else "original.jpg"
    kinds = [original, "masked.png", *(f"completion{h}.png" for h in range(1, args.hypo + 1))]
    names = [f"sample{i}_{kind}" for i in range(1, count + 1) for kind in kinds]
    images = [studio.save(name, image) for name, image in zip(names, progress_bar(drawn, "drawing", len(names)), strict=True)]
    for what, pattern in (("originals", original), ("what was observed", "masked.png"), ("completions", "completion*.png")):
        studio.note(what, f"sample*_{pattern}")
    studio.sheet(images, columns=2 + args.hypo, captions=captions, title=SCORE_MEANING if studio.prior.calibration else None)
    studio.export(completions, "completions")


def _completion_scores(studio: Studio, mode: str, poses: Tensor, completions: Tensor) -> list[str]:
    """Write how plausible the completions are, if the weights can tell; captions of all pictures."""
    count, hypotheses = len(poses), len(completions) // len(poses)
    names = ["original", "observed", *(f"completion {h}" for h in range(1, hypotheses + 1))]
    if studio.prior.calibration is None:
        return names * count
    ranked = studio.plausibility(torch.cat([poses, completions]))
    originals, completed = ranked.score.tolist()[:count], ranked.score.tolist()[count:]
    worst, least = studio.worst_joints(ranked)[count:], ranked.per_joint.amin(1).tolist()[count:]
    rows = []
    for row in range(len(completed)):
        i, h = divmod(row, hypotheses)
        rows.append([row, i + 1, h + 1, round(completed[row], 3), worst[row], round(least[row], 3), round(originals[i], 3)])
    header = ["row", "sample", "completion", "score", "worst_joint", "worst_joint_score", "original_score"]
    studio.csv("completions.csv", header, rows)
    medians = [["originals", percent(float(np.median(originals)))], [f"completions by {mode}", percent(float(np.median(completed)))]]
    print(table(["plausibility", "median"], medians) + "\n")
    captions = []
    for i in range(count):
        own = [originals[i], None, *completed[i * hypotheses : (i + 1) * hypotheses]]
        captions += [name if value is None else f"{name}: {percent(value)}" for name, value in zip(names, own, strict=True)]
    return captions


def main(args: Args) -> None:
    studio = Studio(args)
    TASKS[args.task](studio)
    print(table(["written", "where"], studio.written))


TASKS: dict[Task, Callable[[Studio], None]] = {
    "view": view,
    "generation": generation,
    "generation_process": generation_process,
    "interpolation": interpolation,
    "completion": completion,
    "completion2": completion,
    "score": score,
}

if __name__ == "__main__":
    cli(main)
