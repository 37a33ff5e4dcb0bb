"""Turn 2D keypoints, or a detector's heatmaps, into mixtures of Gaussians: where each joint may be, not only where it was found.

    python -m run.make_gmm --dataset open --data data/lifting                      # writes data_2d_open_noisy_gmm.npz there
    python -m run.make_gmm --dataset open --data data/lifting --calibrate          # spreads learnt from the detector's errors
    python -m run.make_gmm --dataset h36m --data data --keypoints gt --synthetic   # detections drawn around exact projections
    python -m run.make_gmm --heatmaps walk.npz --image-size 1920 1080              # of one clip

A keypoint of confidence c becomes three Gaussians: a tight one, a wide one the likelier the less sure the detector is, and one at the
place of the other side's joint, in case the two were mistaken for each other. The files are read wherever keypoints are, by the name that
is printed (`python -m run.train_lift --keypoints noisy_gmm`); numbers and units are told in dposer/data/gmm_files.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dposer.body.skeleton import COCO_17, H36M_17
from dposer.data.gmm import COLUMNS, Calibration, coverage, mixture_of, synthetic_keypoints
from dposer.data.gmm_files import write_gmm
from dposer.data.h36m import read_h36m, splits
from dposer.data.heatmaps import mixture_of_heatmaps
from dposer.data.lifting_clip import LiftingClip
from dposer.errors import InputError
from dposer.files import finite, load_npy, load_npz
from dposer.geometry.lens import screen, unscreen
from dposer.lifting.inputs import to_layout
from dposer.randomness import keyed_generator
from run._cli import cli, progress_bar, step_bar, table, writable_folder
from run._lifting import KEYPOINTS

Pairs = tuple[Tensor, Tensor, Tensor]
"""Detected and true keypoints (N, 17, 2) in screen units, and confidences (N, 17)."""
_PAIRS = 100_000
"""Frames that a calibration is fitted to or checked on, at most."""


@dataclass
class Args:
    """What to make mixtures of, and where they go."""

    dataset: Literal["open", "h36m"] = "open"
    """Which files of --data: data_3d_<dataset>.npz and data_2d_<dataset>_<keypoints>.npz (`python -m run.prepare_data` makes both)."""
    data: Path = Path("data/lifting")
    """Their folder."""
    keypoints: str = ""
    """Which keypoints; default: noisy (open), cpn_ft_h36m_dbb (h36m). Confidences are the file's, 1 if it has none."""
    components: int | None = None
    """Gaussians M of a joint; default: 3, of heatmaps 5. Of keypoints 1 is the tight one alone, 2 with the wide one."""
    calibrate: bool = False
    """Learn how far off keypoints of each confidence are, from those of the training subjects and the 3D joints; written beside the
    output as .json, and checked on the validation subjects."""
    calibration: Path | None = None
    """Use such a file, in place of learning one."""
    synthetic: bool = False
    """Put drawn errors and confidences on the keypoints first, for which they should be exact (--keypoints gt)."""
    heatmaps: Path | None = None
    """Make them of this file in place of a data set: .npy (frames, 17, h, w), not negative, or .npz with 'heatmaps' and optionally
    'to_pixels' ((2, 3), or one for each frame) and 'image_size'. Joints as in Human3.6M's 17; a map of zeros: the joint is missing."""
    affine: tuple[float, float, float, float, float, float] | None = None
    """a b c d e f: the cell at (column, row) is at pixel (a column + b row + c, d column + e row + f) of the picture; default: as the file
    says, else the map covers the whole picture."""
    image_size: tuple[int, int] | None = None
    """Width and height of the picture (heatmaps), unless the file tells."""
    output: Path | None = None
    """Folder to write to; default: that of the data, or output/gmm (heatmaps)."""
    seed: int = 0
    """Of what is drawn: errors (--synthetic), where fits begin (--heatmaps)."""


def main(args: Args) -> None:
    """Read, mix, write."""
    _check(args)
    (_from_keypoints if args.heatmaps is None else _from_heatmaps)(args)


def _check(args: Args) -> None:
    if args.calibrate and args.calibration:
        raise InputError("--calibrate and --calibration: expected one of them; leave the other out")
    if args.heatmaps and (args.calibrate or args.calibration or args.synthetic):
        raise InputError("--heatmaps: has spreads of its own; leave --calibrate, --calibration and --synthetic out")
    if args.components is not None and not 1 <= args.components <= (3 if args.heatmaps is None else 32):
        raise InputError(f"--components {args.components}: expected 1 to 3 of keypoints, or up to 32 of --heatmaps")


# ---- keypoints ---------------------------------------------------------------------------------------------------------


def _from_keypoints(args: Args) -> None:
    folder, name = writable_folder(args.output or args.data), args.keypoints or KEYPOINTS[args.dataset]
    calibration = Calibration.load(args.calibration) if args.calibration else None
    clips = read_h36m(args.data, name, args.dataset, from_coco=lambda film: to_layout(film, COCO_17, H36M_17))
    if clips[0].mixture is not None:
        raise InputError(f"--keypoints {name}: are mixtures already, expected keypoints; leave _gmm out of the name")
    stem = f"data_2d_{args.dataset}_{name}{'_synthetic' * args.synthetic}"
    if args.calibrate:
        calibration = _calibrated(args, clips, folder / f"{stem}_calibration.json")
    components = args.components or 3
    mixed = []
    for clip in progress_bar(clips, "films"):
        points, confidence = _detections(args, clip)
        mixture = mixture_of(points, confidence, clip.layout, components, calibration).unflatten(-1, (components, COLUMNS))
        mixed.append(replace(clip, mixture=mixture.numpy()))
    source = f"keypoints {name}{', errors drawn' * args.synthetic}"
    told = {"calibration": "none" if calibration is None else str(args.calibration or f"{stem}_calibration.json")}
    path = write_gmm(folder / f"{stem}_gmm.npz", mixed, source, args.seed, **told)
    _tell(path, f"{len(mixed)} films, {sum(map(len, mixed))} frames, {components} Gaussians a joint")
    print(f"read it with --keypoints {stem.removeprefix(f'data_2d_{args.dataset}_')}_gmm")


def _detections(args: Args, clip: LiftingClip) -> tuple[Tensor, Tensor]:
    """Keypoints (F, 17, 2) in screen units and confidences (F, 17)."""
    points, confidence = torch.from_numpy(clip.keypoints).split((2, 1), -1)
    points = screen(points, clip.size)
    if args.synthetic:
        return synthetic_keypoints(points, clip.layout, keyed_generator("cpu", args.seed, clip.name))
    return points, confidence[..., 0]


def _calibrated(args: Args, clips: Sequence[LiftingClip], path: Path) -> Calibration:
    """Fitted to the training subjects, checked on those for validation, and written."""
    names = splits(args.data, args.dataset)
    train, valid = ([clip for clip in clips if clip.subject in names.get(split, ())] for split in ("train", "valid"))
    if not train or not valid:
        raise InputError(
            f"--calibrate: {args.data} has films of {len(train)} for training and {len(valid)} for validation, expected some of both"
        )
    calibration = Calibration.fit(*_pairs(args, train, "errors"), H36M_17)
    calibration.save(path)
    pairs = _pairs(args, valid, "check")
    rows = []
    for name, some in (("as they come", None), ("calibrated", calibration)):
        found = coverage(*pairs, H36M_17, some)
        rows.append([name, f"{found.std:.2f}", f"{found.within_68:.1f}", f"{found.within_95:.1f}", "yes" if found.accepted else "no"])
    print(table(["validation subjects", "error / spread, rms", "within 68 %", "within 95 %", "as it should be"], rows))
    print(f"calibration written to {path}")
    return calibration


def _pairs(args: Args, clips: Sequence[LiftingClip], name: str) -> Pairs:
    every = -(-sum(map(len, clips)) // _PAIRS)
    rows = []
    for clip in progress_bar(clips, name):
        assert clip.lens is not None and clip.joints is not None
        truth = screen(clip.lens.project(torch.from_numpy(clip.joints)), clip.size)
        found, confidence = _detections(args, clip)
        rows.append((found[::every], truth[::every], confidence[::every]))
    detected, true, sure = (torch.cat(parts) for parts in zip(*rows, strict=True))
    return detected, true, sure


# ---- heatmaps ----------------------------------------------------------------------------------------------------------


def _from_heatmaps(args: Args) -> None:
    assert args.heatmaps is not None
    folder = writable_folder(args.output or Path("output/gmm"))
    maps, affine, size = _read_heatmaps(args, args.heatmaps)
    components = args.components or 5
    generator = torch.Generator().manual_seed(args.seed)
    mixture = mixture_of_heatmaps(maps, affine, size, components, generator=generator, progress=step_bar("maps"))
    film = mixture.unflatten(-1, (components, COLUMNS))
    pixels = unscreen(film[:, :, 0, 1:3], size)
    keypoints = torch.cat((pixels, torch.ones_like(pixels[..., :1])), -1).numpy()
    clip = LiftingClip(args.heatmaps.stem, "clip", "0", keypoints, None, size, None, H36M_17, 30.0, mixture=film.numpy())
    path = write_gmm(folder / f"{args.heatmaps.stem}_gmm.npz", [clip], f"heatmaps {args.heatmaps.name}", args.seed)
    _tell(path, f"{len(maps)} frames, {components} Gaussians a joint")


def _read_heatmaps(args: Args, path: Path) -> tuple[Tensor, Tensor, tuple[int, int]]:
    what = "heatmaps (frames, 17, h, w)"
    if path.suffix == ".npz":
        members = load_npz(path, what, ("heatmaps",), ("to_pixels", "image_size"))
    else:
        members = {"heatmaps": load_npy(path, what)}
    maps = finite(members["heatmaps"], f"{path}: heatmaps")
    maps = maps[None] if maps.ndim == 3 else maps
    if maps.ndim != 4 or maps.shape[1] != len(H36M_17.joints) or not maps.size:
        raise InputError(f"{path}: heatmaps of shape {maps.shape}, expected (frames, 17, h, w)")
    told = members.get("image_size", np.zeros(0)).ravel() if args.image_size is None else np.array(args.image_size)
    if len(told) != 2 or not (told >= 1).all():
        raise InputError(f"{path}: does not tell the size of the picture; give --image-size WIDTH HEIGHT")
    size = (int(told[0]), int(told[1]))
    across, down = size[0] / maps.shape[3], size[1] / maps.shape[2]
    whole = (across, 0.0, (across - 1) / 2, 0.0, down, (down - 1) / 2)
    affine = np.reshape(args.affine, (2, 3)) if args.affine else members.get("to_pixels", np.reshape(whole, (2, 3)))
    return torch.from_numpy(maps.astype(np.float32)), torch.from_numpy(finite(affine, f"{path}: to_pixels").astype(np.float32)), size


def _tell(path: Path, what: str) -> None:
    print(f"{what}; written to {path} ({path.stat().st_size / 2**20:.1f} MiB)")


if __name__ == "__main__":
    cli(main)
