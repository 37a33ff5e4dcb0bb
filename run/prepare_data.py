"""Turn a folder of motion data into the sets that training reads.

--source amass samples frames of AMASS sequences (SMPL+H or SMPL-X); --source cmu retargets AMC and BVH motion capture.
--source lifting puts the motions that --write-amass wrote before cameras and a simulated keypoint detector, --source heatmaps before
cameras and a detector of heatmaps whose doubts are known; --source h36m gathers Human3.6M's own files. All three are for training and
measuring lifting.
"""

import math
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from dposer.data.prepare import Piece, Task, amass_tasks, capture_tasks, run_tasks, write_pieces
from dposer.errors import InputError
from dposer.files import save_bytes
from run._cli import cli, table

LIFTING = Path("data/lifting")


@dataclass
class Args:
    """Where the motions are and where the poses go."""

    source: Literal["amass", "cmu", "lifting", "heatmaps", "h36m"]
    """amass: an AMASS folder with its official splits; cmu: AMC or BVH files, split by subject; lifting and heatmaps: what --write-amass
    wrote; h36m: Human3.6M's <subject>/.../D3_Positions/*.cdf.mat."""
    input: Path
    """Folder of the motion files."""
    output: Path | None = None
    """Folder of the prepared sets, data/AMASS/amass_processed unless given; they go into a sub-folder named by --version.
    lifting, h36m: of data_3d_*.npz and data_2d_*.npz, data/lifting unless given. heatmaps: of <split>.npz, data/heatmaps."""
    version: str = "version1"
    """Name of this set."""
    seed: int = 42
    """Seed of the frame sampling (amass), or of bodies, cameras and detections (lifting, heatmaps); the same seed gives the same set."""
    duplicate_like_reference: bool = False
    """Repeat subsets as the reference preparation did (test: Transitions twice), to match the published set sizes (amass)."""
    include_noncommercial: bool = False
    """Also prepare the clips under noncommercial terms, as a split of their own for testing (cmu)."""
    write_amass: Path | None = None
    """Also write every motion here, whole, as AMASS files <split>/<subject>/<clip>_stageii.npz (cmu)."""
    frames: int = 60_000
    """Of the training set; the other splits are in proportion (heatmaps)."""
    workers: int = 2
    """Processes that read files."""


def main(args: Args) -> None:
    {"lifting": _lifting, "heatmaps": _heatmaps, "h36m": _h36m}.get(args.source, _poses)(args)


def _poses(args: Args) -> None:
    tasks = _tasks(args)
    results = list(tqdm(run_tasks(tasks, args.workers), total=len(tasks), desc="clips", unit="clip", disable=None))
    pieces = [result for result in results if isinstance(result, Piece)]
    errors = [f"  {result}" for result in results if isinstance(result, InputError)]
    _print_skipped(errors, len(tasks), "more, see the log")
    if not any(len(piece) for piece in pieces):
        raise InputError(f"{args.input}: none of its {len(tasks)} motion files gave a pose; the reasons are above")
    folder = (args.output or Path("data/AMASS/amass_processed")) / args.version
    summary = table(["split", "subjects", "clips", "frames", "implausible"], [astuple(row) for row in write_pieces(folder, pieces)])
    settings = f"source {args.source}, seed {args.seed}, duplicate_like_reference {args.duplicate_like_reference}"
    save_bytes(folder / f"{args.version}.log", "\n".join([settings, summary, *errors, ""]).encode())
    print(f"{summary}\nwritten to {folder}")


def _lifting(args: Args) -> None:
    from dposer.data.open_lifting import Actors, find_motions, record, summarise, write_recordings

    folder = args.output or LIFTING
    subjects, actors = find_motions(args.input), Actors()
    bar = tqdm(subjects.items(), desc="subjects", unit="subject", disable=None)
    recordings = [record(split, subject, paths, actors, args.seed) for (split, subject), paths in bar]
    _print_skipped([f"  {error}" for recording in recordings for error in recording.errors], sum(map(len, subjects.values())))
    if not any(map(len, recordings)):
        raise InputError(f"{args.input}: no motion gave a piece of 27 plausible frames or more; the reasons are above")
    files = write_recordings(folder, recordings, f"{args.input.name} on drawn bodies, simulated cameras and detections", args.seed)
    rows = [
        (row.split, row.subjects, row.pieces, row.frames, f"{row.error:.2f}", f"{100 * row.missing:.2f}") for row in summarise(recordings)
    ]
    print(table(["split", "subjects", "pieces", "frames", "2D error px", "missing %"], rows))
    print("four cameras each; written " + ", ".join(f"{file} ({file.stat().st_size / 2**20:.0f} MiB)" for file in files))


def _heatmaps(args: Args) -> None:
    from dposer.data.open_lifting import Actors, find_motions
    from dposer.data.synthetic_heatmaps import FRAMES, draw_scenes, perform, summarise, write_heatmaps

    if args.frames < 1:
        raise InputError(f"--frames {args.frames}: expected 1 or more")
    subjects, actors = find_motions(args.input), Actors()
    bar = tqdm(subjects.items(), desc="subjects", unit="subject", disable=None)
    performances = [perform(split, subject, paths, actors, args.seed) for (split, subject), paths in bar]
    _print_skipped([f"  {error}" for one in performances for error in one.errors], sum(map(len, subjects.values())))
    if not any(map(len, performances)):
        raise InputError(f"{args.input}: no motion has a plausible frame; the reasons are above")
    share = args.frames / sum(FRAMES["train"])
    counts = {split: tuple(math.ceil(share * count) for count in some) for split, some in FRAMES.items()}
    scenes = draw_scenes(performances, args.seed, counts)
    files = write_heatmaps(
        args.output or Path("data/heatmaps"), scenes, f"{args.input.name} on drawn bodies, simulated heatmaps", args.seed
    )
    rows = [
        (row.split, row.preset, row.subjects, row.frames, *(f"{n:.2f}" for n in (100 * row.hard, *row.error, row.candidates)))
        for row in summarise(scenes)
    ]
    print(table(["split", "preset", "subjects", "frames", "hard %", "error mean", "median", "95th", "behind something"], rows))
    print("errors are from a joint to the highest cell of its map, in cells of 64; behind something: joints of a frame, mean")
    print("written " + ", ".join(f"{file} ({file.stat().st_size / 2**20:.0f} MiB)" for file in files))


def _h36m(args: Args) -> None:
    from dposer.data.h36m import CAMERAS, FPS, SPLITS, h36m_from_source, projections, write_h36m

    positions = h36m_from_source(args.input)
    cameras = {subject: CAMERAS[subject] for subject in positions}
    metadata = {"fps": FPS, "splits": SPLITS, "source": "Human3.6M"}
    files = write_h36m(args.output or LIFTING, "h36m", positions, {"gt": projections(positions, cameras)}, cameras, metadata)
    rows = [(subject, len(actions), sum(map(len, actions.values()))) for subject, actions in positions.items()]
    print(table(["subject", "actions", "frames"], rows))
    print("four cameras each; written " + ", ".join(map(str, files)))


def _print_skipped(errors: list[str], total: int, rest: str = "more") -> None:
    if errors:
        print(f"{len(errors)} of {total} files could not be used and were skipped:")
        print("\n".join(errors[:10] + [f"  ... {len(errors) - 10} {rest}"] * (len(errors) > 10)))


def _tasks(args: Args) -> list[Task]:
    if args.source == "amass":
        return amass_tasks(args.input, args.seed, args.duplicate_like_reference)
    from dposer.body import BodyModel  # AMASS needs none

    rest_joints = BodyModel().rest_joints().detach().cpu().numpy().reshape(-1, 3)
    return capture_tasks(args.input, rest_joints, args.include_noncommercial, args.write_amass)


if __name__ == "__main__":
    cli(main)
