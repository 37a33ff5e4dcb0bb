"""Make examples/toy_data.npz: poses of held-out subjects, each subject as likely as any other.

python -m run.make_examples --dataset-folder data/cmu_processed
"""

from dataclasses import dataclass
from pathlib import Path

from dposer.data.processed import read_split
from dposer.files import save_npz
from dposer.solvers.generation_scores import balanced_draw
from run._cli import cli, table


@dataclass
class Args:
    dataset_folder: Path = Path("./data/AMASS/amass_processed")
    """Folder of processed data sets (`python -m run.prepare_data`)."""
    version: str = "version1"
    """Which of them."""
    split: str = "test"
    """Split to draw from; keep it one that the prior was not trained on."""
    num: int = 500
    """How many poses."""
    output: Path = Path("./examples/toy_data.npz")
    """File to write: pose_samples (num, 63), axis-angle in radians."""
    seed: int = 0


def main(args: Args) -> None:
    split = read_split(args.dataset_folder / args.version, args.split)
    poses = balanced_draw(split.pose_body, split.subject, args.num, args.seed)
    save_npz(args.output, {"pose_samples": poses.numpy()})
    print(table(["written", "poses"], [[str(args.output), len(poses)]]))


if __name__ == "__main__":
    cli(main)
