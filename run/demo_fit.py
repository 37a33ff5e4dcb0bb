"""Fit bodies to the people in a photograph, from their 2D keypoints.

    python -m run.demo_fit --img photo.jpg --openpose photo_keypoints.json
    python -m run.demo_fit --img photo.jpg                                         # keypoints are detected (extra: detect)
    python -m run.demo_fit --img photo.jpg --openpose keypoints.npy --layout coco17 --focal 1500 --export obj glb
    python -m run.demo_fit --img photo.jpg --openpose photo_keypoints.json --preset v1 --time-strategy 2   # as a release did it

Keypoints are those of OpenPose, COCO, MMPose, ViTPose, AlphaPose or MediaPipe (dposer/data/keypoints.py says in which files), for any
number of people. The focal length is that of --focal or --intrinsics, of the photograph's EXIF with --exif, else its diagonal. Folders and
videos are for python -m run.fit_images.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from dposer.data.images import Photo, read_photo
from dposer.data.keypoints import Keypoints, read_keypoints, write_openpose
from dposer.errors import InputError
from dposer.files import load_npz, save_json, save_npz
from dposer.geometry.camera import Camera
from dposer.prior.config import PriorConfig
from dposer.solvers.mesh_adam import BodyStart
from dposer.solvers.mesh_fitting import FEWEST, fit_keypoints
from dposer.viz import save_image, side_colours
from dposer.viz.overlay import draw_detections, fit_sheet, overlay
from run._cli import cli, pick_device, step_bar, table, writable_folder
from run._fitting import FitFlags, Fitter, MeshFormat, detector, export_meshes, without
from run._report import machine


@dataclass
class Args:
    img: Path
    """The photograph."""
    openpose: Path | None = None
    """Its 2D keypoints; default: they are detected, and written beside the results."""
    config: PriorConfig | None = None
    """A recipe file, as other commands have it; nothing is read from it, the network's settings come with the weights."""
    config_path: str | None = None
    """The same by the original's name for it; nothing is read from it either."""
    init: Path | None = None
    """Where people begin, for one by a regressor: npz with body_pose, global_orient and perhaps transl and betas, as in fit.npz."""
    outdir: Path = Path("./output/test_results/hmr")
    """Where results go."""
    export: tuple[MeshFormat, ...] = ("obj",)
    """The bodies as meshes: obj, ply (one file a person), glb (all in one)."""
    fit: Annotated[FitFlags, tyro.conf.arg(name="")] = field(default_factory=FitFlags)
    """Of every command that fits bodies to keypoints."""


def main(args: Args) -> None:
    """Read or detect, fit, draw, write, tell."""
    args.fit.check()
    if args.img.is_dir():
        raise InputError(f"--img {args.img}: a folder, expected a photograph; give it to python -m run.fit_images --images")
    writable_folder(args.outdir)
    torch.set_num_threads(1)  # the matrices are small: threads would wait for each other
    photo = read_photo(args.img)
    camera = args.fit.camera(photo.size, photo.focal, args.img)
    fitter = Fitter(args.fit, pick_device(args.fit.device))
    people = _people(args, photo, fitter)
    lens = Camera(camera.focal.expand(len(people), 2), camera.centre.expand(len(people), 2))
    fit = fit_keypoints(
        fitter.prior, fitter.tensor(people.points), lens, people.layout, body=fitter.body, settings=fitter.settings,
        initial=_start(args.init, len(people), fitter), generator=fitter.generator(args.img.name), progress=step_bar("fitting"),
    )  # fmt: skip
    arrays = fitter.arrays(fit, lens) | {"focal": camera.focal.numpy(), "centre": camera.centre.numpy()}
    starts = {
        "body_pose": fit.start.pose_body, "global_orient": fit.start.root_orient, "transl": fit.start.trans, "betas": fit.start.betas,
    }  # fmt: skip
    begun = fitter.surfaces({name: value.cpu().numpy() for name, value in starts.items() if value is not None})
    _draw(args, photo.pixels, people, arrays, begun, fitter)
    save_npz(args.outdir / "fit.npz", {
        **arrays, "objective": fit.objective.cpu().numpy(), "noise": fit.noise.cpu().numpy(), "body": np.array(fitter.body_name),
    })  # fmt: skip
    columns = ("person", "residual px", "distance m", "plausibility %", "start", "verdict")
    rows = [
        [i, f"{np.nanmean(arrays['residuals'][i]):.1f}", f"{fit.trans[i, 2]:.2f}", f"{arrays['plausibility'][i]:.0f}",
         int(fit.objective[i].argmin()), arrays["verdict"][i]]
        for i in range(len(people))
    ]  # fmt: skip
    save_json(args.outdir / "fit.json", {
        "image": str(args.img), "keypoints": str(args.openpose or _detected(args)), "body": fitter.body_name,
        "people": [dict(zip(columns, map(str, row), strict=True)) for row in rows], "settings": fitter.decisive, "machine": machine(),
    })  # fmt: skip
    print(table(columns, rows))
    meshes = f" and person*.{{{','.join(args.export)}}}" if args.export else ""
    print(f"\nbody: {fitter.body_name}")
    print(f"written to {args.outdir}: kpt2d_gt.jpg, kpt2d.jpg, mesh_init.jpg, mesh_fit.jpg, fit_sheet.jpg, fit.npz, fit.json{meshes}")


def _start(path: Path | None, count: int, fitter: Fitter) -> BodyStart | None:
    """Where ``count`` people begin, by a file."""
    if path is None:
        return None
    widths = {"body_pose": 63, "global_orient": 3, "transl": 3, "betas": fitter.body.num_betas}
    arrays = load_npz(path, "where people begin", ("body_pose", "global_orient"), ("transl", "betas"))
    for name, value in arrays.items():
        if value.dtype.kind not in "fiu" or value.shape != (count, widths[name]) or not np.isfinite(value).all():
            raise InputError(
                f"{path}: {name} is {value.dtype} {value.shape}, expected finite numbers ({count}, {widths[name]}), a row a person"
            )
    pose, root, trans, betas = (fitter.tensor(arrays[name]) if name in arrays else None for name in widths)
    assert pose is not None and root is not None
    return BodyStart(pose, root, trans, betas)


def _detected(args: Args) -> Path:
    return args.outdir / f"{args.img.stem}_keypoints.json"


def _people(args: Args, photo: Photo, fitter: Fitter) -> Keypoints:
    """Those in the picture who show enough."""
    path = args.openpose
    if path is None:
        path = _detected(args)
        write_openpose(path, detector(thorough=True)(photo.pixels))
        print(f"keypoints detected: {path}")
    people = without(read_keypoints(path, args.fit.layout, photo.size, args.img.name), args.fit.ignore)
    if not len(people):
        raise InputError(f"{path}: holds nobody, expected at least one person; detect people in the picture in another way")
    usable = fitter.usable(people.points, people.layout)
    if not usable.any():
        raise InputError(f"{path}: nobody shows {FEWEST} or more keypoints of the body; detect them anew")
    if not usable.all():
        print(f"{int((~usable).sum())} of {len(people)} people left out, with fewer than {FEWEST} keypoints")
    return people.of(np.flatnonzero(usable))


def _draw(
    args: Args, image: np.ndarray, people: Keypoints, arrays: Mapping[str, np.ndarray], begun: np.ndarray, fitter: Fitter
) -> None:  # fmt: skip
    """The pictures and meshes."""
    edges, colours, faces = people.layout.edges, side_colours(people.layout.joints), fitter.body.faces
    seen, surfaces = arrays["keypoints"], fitter.surfaces(arrays)
    focal, centre = (tuple(arrays[name].tolist()) for name in ("focal", "centre"))
    save_image(args.outdir / "kpt2d_gt.jpg", draw_detections(image, people.points, edges, colours=colours))
    save_image(args.outdir / "kpt2d.jpg", draw_detections(image, seen, edges, colours=colours))
    save_image(args.outdir / "mesh_init.jpg", overlay(image, begun, faces, focal, centre))
    save_image(args.outdir / "mesh_fit.jpg", overlay(image, surfaces, faces, focal, centre))
    sheet = fit_sheet(image, surfaces, faces, focal, centre, people.points, seen, edges, point_colours=colours)
    save_image(args.outdir / "fit_sheet.jpg", sheet)
    export_meshes(args.outdir, "", surfaces, faces, args.export)


if __name__ == "__main__":
    cli(main)
