"""Fit bodies to the people in a photograph, from their 2D keypoints.

    python -m run.demo_fit --img photo.jpg --openpose photo_keypoints.json
    python -m run.demo_fit --img photo.jpg --openpose keypoints.npy --layout coco17 --focal 1500

Keypoints are those of OpenPose, COCO, MMPose, ViTPose, AlphaPose or MediaPipe (dposer/data/keypoints.py says in which files), for any
number of people. The focal length is that of --focal, else of the photograph's EXIF with --exif, else its diagonal.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dposer.body import BodyModel
from dposer.body.skeleton import layout_map
from dposer.data.images import read_photo
from dposer.data.keypoints import Keypoints, read_keypoints
from dposer.errors import InputError
from dposer.files import save_json, save_npz
from dposer.geometry.camera import Camera
from dposer.prior.config import PriorConfig
from dposer.solvers.mesh_fitting import FitSettings, MeshFit, fit_keypoints
from dposer.viz import save_image, save_mesh, side_colours
from dposer.viz.overlay import draw_detections, fit_sheet, overlay
from run._cli import cli, load_prior, pick_device, step_bar, table, writable_folder
from run._report import machine


@dataclass
class Args:
    img: Path
    """The photograph."""
    openpose: Path
    """Its 2D keypoints."""
    config: PriorConfig | None = None
    """A recipe file, as other commands have it; nothing is read from it, the network's settings come with the weights."""
    layout: str = "auto"
    """What the keypoints are; auto goes by their number."""
    outdir: Path = Path("./output/test_results/hmr")
    """Where results go."""
    focal: float | None = None
    """Focal length in pixels; default: the diagonal of the photograph."""
    exif: bool = False
    """Take the focal length that the photograph's EXIF tells."""
    ignore: tuple[str, ...] = ()
    """Keypoints that do not count, e.g. left_hip right_hip neck."""
    gender: str = "neutral"
    """Which body to take from a folder: neutral, female or male."""
    bodymodel_path: Path | None = None
    """SMPL-X, SMPL-H or SMPL file; default: the open body that ships."""
    ckpt_path: Path | None = None
    """Weights: a .safetensors of this library or a published .pth/.ckpt; default: the prior that ships."""
    dataset_folder: Path = Path("./data/AMASS/amass_processed")
    """Where a published checkpoint's normaliser is looked for."""
    version: str = "version1"
    """Version folder below --dataset-folder."""
    prior: bool = True
    """--no-prior fits by the keypoints alone."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    seed: int = 42
    """Same seed, same device, same result."""


def main(args: Args) -> None:
    """Read, fit, tell, draw, write."""
    if args.focal is not None and not 1 <= args.focal <= 1e6:
        raise InputError(f"--focal {args.focal}, expected pixels, 1 to 1000000")
    writable_folder(args.outdir)
    device = pick_device(args.device)
    torch.set_num_threads(1)
    photo = read_photo(args.img)
    people = read_keypoints(args.openpose, args.layout, photo.size)
    if not len(people):
        raise InputError(f"{args.openpose}: holds nobody, expected at least one person; detect people in the picture first")
    body = BodyModel(args.bodymodel_path, device, gender=args.gender)
    prior = load_prior(args.ckpt_path, args.dataset_folder / args.version, device)
    people = _without(people, args.ignore)
    if args.exif and photo.focal is None:
        raise InputError(f"{args.img}: its EXIF tells no focal length (35 mm equivalent); leave --exif out, or give --focal")
    camera = Camera.of_size(*photo.size, args.focal or (photo.focal if args.exif else None))
    fit = fit_keypoints(
        prior if args.prior else None,
        torch.as_tensor(people.points, dtype=torch.float32, device=device),
        camera,
        people.layout,
        body=body,
        settings=FitSettings(),
        generator=torch.Generator(device).manual_seed(args.seed),
        progress=step_bar("fitting"),
    )
    surfaces = body(fit.pose_body, fit.root_orient, fit.betas, fit.trans).vertices
    assert surfaces is not None
    _write(args, photo.pixels, people, fit, surfaces.cpu().numpy(), body, camera)
    scores = prior.plausibility(fit.pose_body).score.tolist() if prior.calibration else [float("nan")] * len(people)
    rows = [
        [i, f"{fit.residuals[i].nanmean():.1f}", f"{fit.trans[i, 2]:.2f}", f"{score:.0f}", int(fit.objective[i].argmin())]
        for i, score in enumerate(scores)
    ]
    print(table(["person", "residual px", "distance m", "plausibility %", "start"], rows))
    print(f"\nwritten to {args.outdir}: kpt2d_gt.jpg, kpt2d.jpg, mesh_fit.jpg, fit_sheet.jpg, fit.npz, fit.json and person*.obj")


def _without(people: Keypoints, names: tuple[str, ...]) -> Keypoints:
    """The same, those named missing."""
    rows = layout_map(people.layout.joints, names)
    if -1 in rows:
        known = ", ".join(people.layout.joints)
        raise InputError(f"--ignore {names[rows.index(-1)]}: not a keypoint of {people.layout.name}, expected some of {known}")
    points = people.points.copy()
    points[:, list(rows)] = 0
    return dataclasses.replace(people, points=points)


def _write(args: Args, image: np.ndarray, people: Keypoints, fit: MeshFit, surfaces: np.ndarray, body: BodyModel, camera: Camera) -> None:
    edges, colours = people.layout.edges, side_colours(people.layout.joints)
    seen = fit.keypoints.cpu().numpy()
    focal, centre = (tuple(part.tolist()) for part in (camera.focal, camera.centre))
    save_image(args.outdir / "kpt2d_gt.jpg", draw_detections(image, people.points, edges, colours=colours))
    save_image(args.outdir / "kpt2d.jpg", draw_detections(image, seen, edges, colours=colours))
    save_image(args.outdir / "mesh_fit.jpg", overlay(image, surfaces, body.faces, focal, centre))
    sheet = fit_sheet(image, surfaces, body.faces, focal, centre, people.points, seen, edges, point_colours=colours)
    save_image(args.outdir / "fit_sheet.jpg", sheet)
    for i, surface in enumerate(surfaces):
        save_mesh(args.outdir / f"person{i}.obj", surface, body.faces)
    arrays = {
        "global_orient": fit.root_orient, "body_pose": fit.pose_body, "betas": fit.betas, "transl": fit.trans,
        "focal": camera.focal, "centre": camera.centre, "keypoints": fit.keypoints, "residuals": fit.residuals,
    }  # fmt: skip
    save_npz(args.outdir / "fit.npz", {name: value.cpu().numpy() for name, value in arrays.items()})
    save_json(args.outdir / "fit.json", {"image": str(args.img), "keypoints": str(args.openpose), "body": body.kind, "machine": machine()})


if __name__ == "__main__":
    cli(main)
