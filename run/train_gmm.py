"""Fit the classic prior, a mixture of Gaussians as SMPLify has it, to the poses that `python -m run.prepare_data` writes.

python -m run.train_gmm --dataset-folder data/cmu_processed --output pretrained_models/gmm8.safetensors
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from dposer import __version__
from dposer.body.rotations import mirror_pose
from dposer.data.processed import PoseSplit, read_split
from dposer.errors import InputError
from dposer.prior.mixture import PoseMixture
from run._cli import cli, table, writable_folder


@dataclass
class Args:
    dataset_folder: Path = Path("./data/AMASS/amass_processed")
    """Folder of processed data sets (`python -m run.prepare_data`)."""
    version: str = "version1"
    """Which of them."""
    output: Path = Path("./output/gmm8.safetensors")
    """File to write."""
    components: int = 8
    """Gaussians."""
    floor: float = 0.05
    """Radians that each pose is taken to be known to: its square is added to all variances."""
    poses: int = 100_000
    """How many to draw for the fit, each with weight n^-balance for a subject of n frames, mirrored at random."""
    balance: float = 0.5
    """0: every frame counts the same; 1: every subject."""
    steps: int = 200
    """Of expectation maximisation, at most."""
    seed: int = 0


def main(args: Args) -> None:
    if args.components < 1 or args.poses < args.components or args.steps < 0 or not args.floor > 0:
        raise InputError("--components, --poses, --steps and --floor: expected positive numbers, and no fewer poses than components")
    writable_folder(args.output.parent)
    folder = args.dataset_folder / args.version
    train, valid = read_split(folder, "train"), read_split(folder, "valid")
    generator = torch.Generator().manual_seed(args.seed)
    drawn = _drawn(train, args.poses, args.balance, generator)
    provenance = {
        "data": f"{len(train)} poses of {folder}/train",
        "drawn": args.poses,
        "balance": args.balance,
        "mirror": True,
        "floor": args.floor,
        "seed": args.seed,
        "library": __version__,
    }
    mixture = PoseMixture.fit(drawn, args.components, floor=args.floor, steps=args.steps, generator=generator, provenance=provenance)
    mixture.save(args.output)
    held_out = _drawn(valid, min(len(valid), args.poses), args.balance, generator)
    rows = [[name, len(poses), f"{float(mixture.log_prob(poses).mean()):.2f}"] for name, poses in (("train", drawn), ("valid", held_out))]
    print(table(["split", "poses drawn", "mean log p, nats"], rows))
    print(f"weights {', '.join(f'{weight:.3f}' for weight in mixture.weights.tolist())}; written to {args.output}")


def _drawn(split: PoseSplit, count: int, balance: float, generator: torch.Generator) -> torch.Tensor:
    """(count, 63), with replacement."""
    if balance and split.subject is None:
        raise InputError(f"--balance {balance:g} needs the subject of each pose (subject.pt), which this data set lacks; set it to 0")
    chance = torch.ones(len(split)) if split.subject is None else torch.bincount(split.subject).double()[split.subject] ** -balance
    poses = split.pose_body[torch.multinomial(chance, count, replacement=True, generator=generator)]
    flip = torch.rand(count, 1, generator=generator) < 0.5
    return torch.where(flip, mirror_pose(poses), poses)


if __name__ == "__main__":
    cli(main)
