"""Train a pose prior on the processed layout that `python -m run.prepare_data` writes.

Stop it whenever you like: the same command continues from the last snapshot to the same bits. Several processes:
`torchrun --nproc-per-node 2 -m run.train --config ...`. Watch it with `tensorboard --logdir output`.
"""

import logging
import sys
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from dposer import __version__
from dposer.body import BodyModel
from dposer.data.processed import read_split
from dposer.errors import InputError
from dposer.files import existing_file
from dposer.prior.config import PriorConfig
from dposer.prior.pose_prior import PosePrior
from dposer.prior.training import Trainer
from dposer.solvers.evaluation import mesh_loss, validate
from run._cli import cli, table
from run._processes import start_processes

logger = logging.getLogger(__name__)


@dataclass
class Args:
    config: PriorConfig = field(default_factory=PriorConfig)
    """A recipe file (configs/), single values as --config.section.key=value."""
    dataset_folder: Path = Path("./data/AMASS/amass_processed")
    """Folder of processed data sets."""
    version: str = "version1"
    """Which of them."""
    bodymodel_path: Path | None = None
    """SMPL-X file for the metrics; default: the open body that ships."""
    output: Path = Path("./output/amass_amass")
    """Parent folder of runs."""
    name: str = ""
    """Run folder below --output; a run of this name is continued. Default: the date and time."""
    start_from: Path | None = None
    """Begin a new run with the weights and the normaliser of this prior, e.g. to teach it masks (configs/subvp/open_masked.py)."""
    restore_dir: Path | None = None
    """Continue the run in this folder, whatever its name."""
    sample: int = 1
    """Keep every k-th pose."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    half: bool = False
    """Store the weights for inference as float16, at half the size."""
    data_note: str = ""
    """A sentence on the data for the checkpoint's provenance."""


def main(args: Args) -> None:
    device = start_processes(args.device)
    training = read_split(args.dataset_folder / args.version, "train", args.sample)
    validation = read_split(args.dataset_folder / args.version, "valid")
    folder = args.restore_dir or args.output / (args.name or datetime.now().strftime("%Y-%m-%d-%H-%M-%S"))
    if args.restore_dir is not None:
        existing_file(folder / "snapshot.pt", "a training snapshot", "give the folder of a run that was stopped")
    body = BodyModel(args.bodymodel_path, device=device)
    trainer = Trainer(
        args.config, training.pose_body, folder, subject=training.subject, device=device, auxiliary=lambda *a: mesh_loss(body, *a)
    )
    if not trainer.resume() and args.start_from is not None:
        trainer.start_from(PosePrior.from_pretrained(args.start_from, device))
    if trainer.step >= args.config.training.n_iters:
        raise InputError(f"{folder}: already trained to step {trainer.step}; raise --config.training.n_iters or give a new --name")
    folder.mkdir(parents=True, exist_ok=True)
    results = _train(args, trainer, folder, body, training.pose_body, validation.pose_body)
    if trainer.world.rank == 0 and results:
        print(table(["step", *results[-1][1]], [[step, *(f"{v:.3f}" for v in values.values())] for step, values in results]))
        print(f"\nweights: {folder / 'last.safetensors'} (best validation loss: {folder / 'best.safetensors'})")
    if dist.is_initialized():
        dist.destroy_process_group()


def _train(
    args: Args, trainer: Trainer, folder: Path, body: BodyModel, training_poses: Tensor, validation_poses: Tensor
) -> list[tuple[int, dict[str, float]]]:
    """Run the recipe in stretches between evaluations; returns the evaluations."""
    settings, leader = args.config.training, trainer.world.rank == 0
    results: list[tuple[int, dict[str, float]]] = []
    best = float("inf")
    writer = SummaryWriter(str(folder)) if leader else None
    bar = tqdm(total=settings.n_iters, initial=trainer.step, unit="step", disable=not leader or not sys.stderr.isatty())
    try:
        while trainer.step < settings.n_iters:
            stop = min(settings.n_iters, (trainer.step // settings.eval_freq + 1) * settings.eval_freq)
            for step, loss in trainer.run(stop):
                bar.update(step - bar.n)
                bar.set_postfix(loss=f"{loss:.4f}")
                if writer is not None:
                    writer.add_scalar("score_loss", loss, step)
            if writer is None:
                continue
            prior = trainer.prior()
            values = validate(prior, body, validation_poses, seed=args.config.seed)
            results.append((trainer.step, values))
            for key, value in values.items():
                writer.add_scalar(f"valid/{key}", value, trainer.step)
            tqdm.write(f"step {trainer.step}: " + ", ".join(f"{key} {value:.3f}" for key, value in values.items()), file=sys.stderr)
            prior.calibrate(validation_poses[torch.randperm(len(validation_poses), generator=torch.Generator().manual_seed(0))[:5000]])
            _save(prior, folder / "last.safetensors", args, trainer.step, training_poses, values)
            if values["loss"] < best:
                best = values["loss"]
                _save(prior, folder / "best.safetensors", args, trainer.step, training_poses, values)
    except FloatingPointError as error:
        raise InputError(str(error)) from error
    finally:
        bar.close()
        if writer is not None:
            writer.close()
    return results


def _save(prior: PosePrior, path: Path, args: Args, step: int, poses: Tensor, values: dict[str, float]) -> None:
    prior.save(
        path,
        provenance={
            "library": f"dposer {__version__}",
            "step": step,
            "training_poses": len(poses),
            "data": args.data_note or f"{args.dataset_folder.name}/{args.version}",
            "validation": values,
        },
        dtype=torch.float16 if args.half else None,
    )


if __name__ == "__main__":
    cli(main)
