"""Turn a folder of motion data into the pose sets that training reads.

--source amass samples frames of AMASS sequences (SMPL+H or SMPL-X); --source cmu retargets AMC and BVH motion capture.
"""

from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from dposer.data.prepare import Piece, Task, amass_tasks, capture_tasks, run_tasks, write_pieces
from dposer.errors import InputError
from dposer.files import save_bytes
from run._cli import cli, table


@dataclass
class Args:
    """Where the motions are and where the poses go."""

    source: Literal["amass", "cmu"]
    """amass: an AMASS folder with its official splits; cmu: AMC or BVH files, split by subject."""
    input: Path
    """Folder of the motion files."""
    output: Path = Path("data/AMASS/amass_processed")
    """Folder of the prepared sets; they go into a sub-folder named by --version."""
    version: str = "version1"
    """Name of this set."""
    seed: int = 42
    """Seed of the frame sampling (amass); the same seed gives the same poses."""
    duplicate_like_reference: bool = False
    """Repeat subsets as the reference preparation did (test: Transitions twice), to match the published set sizes (amass)."""
    include_noncommercial: bool = False
    """Also prepare the clips under noncommercial terms, as a split of their own for testing (cmu)."""
    write_amass: Path | None = None
    """Also write every motion here, whole, as AMASS files <split>/<subject>/<clip>_stageii.npz (cmu)."""
    workers: int = 2
    """Processes that read files."""


def main(args: Args) -> None:
    tasks = _tasks(args)
    results = list(tqdm(run_tasks(tasks, args.workers), total=len(tasks), desc="clips", unit="clip", disable=None))
    pieces = [result for result in results if isinstance(result, Piece)]
    errors = [f"  {result}" for result in results if isinstance(result, InputError)]
    if errors:
        print(f"{len(errors)} of {len(tasks)} files could not be used and were skipped:")
        print("\n".join(errors[:10] + [f"  ... {len(errors) - 10} more, see the log"] * (len(errors) > 10)))
    if not any(len(piece) for piece in pieces):
        raise InputError(f"{args.input}: none of its {len(tasks)} motion files gave a pose; the reasons are above")
    folder = args.output / args.version
    summary = table(["split", "subjects", "clips", "frames", "implausible"], [astuple(row) for row in write_pieces(folder, pieces)])
    settings = f"source {args.source}, seed {args.seed}, duplicate_like_reference {args.duplicate_like_reference}"
    save_bytes(folder / f"{args.version}.log", "\n".join([settings, summary, *errors, ""]).encode())
    print(f"{summary}\nwritten to {folder}")


def _tasks(args: Args) -> list[Task]:
    if args.source == "amass":
        return amass_tasks(args.input, args.seed, args.duplicate_like_reference)
    from dposer.body import BodyModel  # AMASS needs none

    rest_joints = BodyModel().rest_joints().detach().cpu().numpy().reshape(-1, 3)
    return capture_tasks(args.input, rest_joints, args.include_noncommercial, args.write_amass)


if __name__ == "__main__":
    cli(main)
