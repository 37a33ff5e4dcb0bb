"""Turn Human3.6M, MPI-INF-3DHP or 3DPW into the HDF5 files of heatmaps that DiffPose is trained and tested with.

Every frame that counts goes through HRNet-W32, whose weights are to be brought. Whoever stops it and starts it again goes on after the last
film. All of Human3.6M takes about 70 GiB, and as much again until the file is whole.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from dposer.data.diffpose_files import FrameName, hard_by_fit, hard_frames_of, read_hard_list
from dposer.data.diffpose_prepare import FOOTAGE, Detector, Tally, prepare
from dposer.data.heatmap_crops import of_mpii
from dposer.data.hrnet import HRNet
from dposer.errors import InputError
from dposer.files import existing_file
from run._cli import cli, pick_device, progress_bar, table

_WHAT = "weights of HRNet-W32: fine_HRNet.pt, tuned to Human3.6M, or pose_hrnet_w32_256x256.pth, of MPII"


@dataclass
class Args:
    """Where the films and the detector's weights are and where the file goes."""

    source: Literal["h36m", "3dhp", "3dpw"]
    """h36m: <subject>/**/Videos/*.mp4 and positions (.cdf or .cdf.mat); 3dhp: TS1 to TS6 with annot_data.mat and imageSequence;
    3dpw: sequenceFiles and imageFiles."""
    input: Path
    """Folder of the data set."""
    output: Path = Path("data/diffpose")
    """Folder of the file, which is named after the data set and the weights."""
    weights: Path | None = None
    """HRNet-W32's: fine_HRNet.pt, which DiffPose's authors have tuned to Human3.6M, or pose_hrnet_w32_256x256.pth, of MPII."""
    mpii_channels: bool = False
    """Keep the channels of MPII's weights as they are, as the authors do: 7 and 8 are then thorax and upper neck. Else the former is the
    neck and the spine is missing."""
    hard_list: Path | None = None
    """List of the ambiguous frames of Human3.6M (H36MA), with lines as /S9/Directions 1.54138969/160.jpg."""
    hard_by_fit: bool = False
    """Take a frame to be ambiguous if the Gaussian that fits some map best is wider than 5 cells; slow without a GPU."""
    batch: int = 32
    """Pictures at once."""
    device: str = "auto"
    """cpu, cuda or auto."""


def main(args: Args) -> None:
    if args.batch < 1:
        raise InputError(f"--batch {args.batch}: expected 1 or more")
    if args.weights is None:
        raise InputError(f"--weights: not given, expected {_WHAT}; fetch them from the authors' pages and name the file")
    if args.hard_list and (args.source != "h36m" or args.hard_by_fit):
        raise InputError("--hard-list: is of Human3.6M, and instead of --hard-by-fit; leave one of them out")
    digest = hashlib.sha256(existing_file(args.weights, _WHAT).read_bytes()).hexdigest()
    listed = read_hard_list(args.hard_list) if args.hard_list else None
    footage = FOOTAGE[args.source](args.input)
    device = pick_device(args.device)
    detector, tuned = _detector(args, device)
    path = args.output / f"{args.source.upper()}_dataset_{'h36m' if tuned else 'orig'}_hrnet.h5"
    hard = "none" if listed is None else hashlib.sha256(repr(sorted(listed)).encode()).hexdigest()
    settings = {"weights": digest, "mpii_channels": args.mpii_channels, "hard": "fit" if args.hard_by_fit else hard}
    tallies = prepare(
        path, args.source, footage, detector, settings, _labels(args, listed, device), args.batch,
        lambda films: progress_bar(films, "films", len(films)),
    )  # fmt: skip
    _report(path, tallies, listed)


def _detector(args: Args, device: torch.device) -> tuple[Detector, bool]:
    """And whether it was tuned to Human3.6M."""
    network = HRNet.from_file(existing_file(args.weights or "", _WHAT), device)
    keep = network.tuned or args.mpii_channels

    def detector(crops: torch.Tensor) -> torch.Tensor:
        maps = network.heatmaps(crops, args.batch)
        return maps if keep else of_mpii(maps)

    return detector, network.tuned


def _labels(args: Args, listed: frozenset[FrameName] | None, device: torch.device) -> Callable[[np.ndarray], np.ndarray] | None:
    if listed is not None:
        return lambda rows: hard_frames_of(rows, listed)
    if args.hard_by_fit:
        return lambda rows: hard_by_fit(torch.from_numpy(rows["heatmap"]).to(device)).cpu().numpy()
    return None


def _report(path: Path, tallies: list[Tally], listed: frozenset[FrameName] | None) -> None:
    rows = [(one.split, one.subject, one.films, one.frames, one.hard, *(f"{number:.2f}" for number in one.error)) for one in tallies]
    print(table(["split", "subject", "films", "frames", "hard", "error", "95th"], rows))
    print("error: from the truth to the highest cell, in cells of 64, median and 95th percentile")
    for doubt in (one.doubt for one in tallies if one.doubt):
        print(f"look at {doubt}")
    if listed is not None and (lost := len(listed) - sum(one.hard for one in tallies)):
        print(f"{lost} of the {len(listed)} frames in the list of ambiguous ones are not there")
    print(f"written {path} ({path.stat().st_size / 2**30:.1f} GiB)")


if __name__ == "__main__":
    cli(main)
