"""Train a lifting method on Human3.6M, MPI-INF-3DHP or the open benchmark.

Stop it whenever you like: the same command continues from the last snapshot to the same bits. Several processes:
`torchrun --nproc-per-node 2 -m run.train_lift --config ...`. Watch it with `tensorboard --logdir output/lifting`.
"""

import logging
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated

import torch.distributed as dist
import tyro
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from dposer import __version__
from dposer.data.lifting_clip import LiftingClip
from dposer.data.mpi_inf_3dhp import TARGETS
from dposer.errors import InputError
from dposer.files import save_bytes
from dposer.lifting.checkpoint import load_lifting, save_lifting
from dposer.lifting.config import LiftingConfig
from dposer.lifting.training import Trainer, validation_error
from run._cli import cli, table
from run._lifting import Dataset, read_clips, subjects_of
from run._processes import start_processes

logger = logging.getLogger(__name__)


@dataclass
class Args:
    config: LiftingConfig = field(default_factory=LiftingConfig)
    """A recipe file (configs/lifting/), single values as --config.section.key=value."""
    dataset: Annotated[Dataset, tyro.conf.arg(aliases=["-d"])] = "open"
    """h36m, 3dhp or open (python -m run.prepare_data --source lifting); of diffpose heatmaps (--source heatmaps) or h5, a file or folder of
    python -m run.prepare_diffpose."""
    data: Path = Path("data/lifting")
    """Folder of its npz files."""
    keypoints: Annotated[str, tyro.conf.arg(aliases=["-k"])] = ""
    """Which 2D keypoints, by the end of the file's name; default: cpn_ft_h36m_dbb (h36m), noisy (open)."""
    subjects_train: Annotated[str, tyro.conf.arg(aliases=["-str"])] = ""
    """Comma list; default: the training subjects of the data set without the one that is kept for choosing weights."""
    subjects_valid: str = ""
    """Comma list on which the best weights are chosen; default: of the data set (h36m: S8). The papers choose on the test subjects. Of
    heatmaps and h5 these are splits: train, valid, test, and of h5 rest, which is train without valid."""
    actions: Annotated[str, tyro.conf.arg(aliases=["-a"])] = "*"
    """Comma list of what actions begin with."""
    target: str = TARGETS[0]
    """Of 3dhp: annot3 (true size) or univ_annot3; numbers of one cannot be compared with those of the other."""
    uv_square: bool = False
    """Take pictures to be 1000 x 1000 whatever their size, as the published cross-channel refiner does."""
    stride: int = 1
    """Keep every k-th frame."""
    output: Path = Path("output/lifting")
    """Parent folder of runs."""
    name: str = ""
    """Run folder below --output; a run of this name is continued. Default: the date and time."""
    start_from: tuple[Path, ...] = ()
    """Begin a new run with these weights: of the same method; of MixSTE (d3dp, ddhpose, the trunk of diffhpe); of a graformer, which
    refiners refine. Of several, later ones replace what they know of (diffhpe and another trunk)."""
    keep_raw: bool = False
    """Also keep the weights that are trained as last_raw.safetensors, where the recipe averages them (optim.ema)."""
    valid_every: int = 20
    """Of the windows of the validation subjects, look at every k-th."""
    save_every: Annotated[int, tyro.conf.arg(aliases=["-cf"])] = 20
    """Epochs between weights that are kept as epoch_N.safetensors; 0: none."""
    snapshot_steps: int = 500
    """Steps between resumable snapshots."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    data_note: str = ""
    """A sentence on the data for the checkpoint's provenance."""


def main(args: Args) -> None:
    device = start_processes(args.device)
    folder = args.output / (args.name or datetime.now().strftime("%Y-%m-%d-%H-%M-%S"))
    training = _clips(args, "train", args.subjects_train)
    validation = _clips(args, "valid", args.subjects_valid)
    trainer = Trainer(args.config, training, folder, device, args.snapshot_steps)
    if not trainer.resume():
        for path in args.start_from:
            trainer.start_from(load_lifting(path))
    if trainer.done:
        raise InputError(f"{folder}: already trained for {trainer.epoch} epochs; raise --config.optim.epochs or give a new --name")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        rows = _train(args, trainer, validation)
    except FloatingPointError as error:
        raise InputError(f"{folder}: {error}") from error
    if trainer.world.rank == 0:
        print(table(["epoch", "min", "lr", "loss", "train mm", "valid mm"], rows[-20:]))
        print(f"\nweights: {folder / 'best.safetensors'} (lowest error), {folder / 'last.safetensors'}")
    if dist.is_initialized():
        dist.destroy_process_group()


def _clips(args: Args, split: str, subjects: str) -> list[LiftingClip]:
    names = tuple(filter(None, subjects.split(","))) or subjects_of(args.dataset, args.data, split)
    return read_clips(
        args.dataset, args.data, args.keypoints, names, args.actions, args.stride, args.config, args.target, uv_square=args.uv_square
    )


def _train(args: Args, trainer: Trainer, validation: Sequence[LiftingClip]) -> list[list[str]]:
    """Epoch by epoch; returns the rows of the table."""
    folder, leader = trainer.folder, trainer.world.rank == 0
    writer = SummaryWriter(str(folder)) if leader else None
    rows: list[list[str]] = []
    while not trainer.done:
        begun, losses = time.time(), []
        total, initial = trainer.epoch_steps, trainer.step % trainer.epoch_steps
        bar = tqdm(total=total, initial=initial, unit="batch", leave=False, disable=not leader or not sys.stderr.isatty())
        for step, parts in trainer.run():
            losses.append(parts)
            bar.update()
            bar.set_postfix(loss=f"{parts['loss']:.4f}")
            if writer is not None and step % 20 == 0:
                for key, value in parts.items():
                    writer.add_scalar(f"train/{key}", value, step)
        bar.close()
        if writer is None:
            continue
        model, epoch = trainer.trained(), trainer.epoch
        error = validation_error(model, validation, args.valid_every)
        writer.add_scalar("valid/mpjpe_mm", 1000 * error, trainer.step)
        best = trainer.judge(error)
        _save(args, trainer, error, best)
        trainer.save()
        unit = 1000 * args.config.loss.unit
        mean = {key: math.fsum(parts[key] for parts in losses) / len(losses) for key in losses[0]}
        minutes, rate = (time.time() - begun) / 60, trainer.optimizer.param_groups[0]["lr"]
        position = unit * mean["position"]  # of methods that estimate noise: that of the clean poses it stands for
        line = (
            f"[{epoch}] time {minutes:.2f} lr {rate:.6f} 3d_train {unit * mean['loss']:.3f} "
            f"3d_pos_train {position:.3f} 3d_pos_valid {1000 * error:.3f}{' best epoch' if best else ''}"
        )
        _append(folder / "training_log.txt", line)
        tqdm.write(line, file=sys.stderr)
        rows.append([str(epoch), f"{minutes:.2f}", f"{rate:.2e}", f"{mean['loss']:.4f}", f"{position:.1f}", f"{1000 * error:.1f}"])
    if writer is not None:
        writer.close()
    return rows


def _save(args: Args, trainer: Trainer, error: float, best: bool) -> None:
    provenance = {
        "library": f"dposer {__version__}",
        "epoch": trainer.epoch,
        "step": trainer.step,
        "windows": trainer.step * args.config.optim.batch,
        "training_frames": len(trainer.data.poses),
        "weights": "EMA" if trainer.ema is not None else "raw",
        "data": args.data_note or f"{args.dataset}, {args.target if args.dataset == '3dhp' else args.keypoints or 'default keypoints'}",
        "validation_mpjpe_mm": round(1000 * error, 3),
    }
    checkpoint = trainer.checkpoint(provenance)
    names = ["last"] + ["best"] * best
    if args.save_every and trainer.epoch % args.save_every == 0:
        names.append(f"epoch_{trainer.epoch}")
    for name in names:
        save_lifting(trainer.folder / f"{name}.safetensors", checkpoint)
    if args.keep_raw and trainer.ema is not None:
        save_lifting(trainer.folder / "last_raw.safetensors", trainer.checkpoint(provenance | {"weights": "raw"}, averaged=False))


def _append(path: Path, line: str) -> None:
    before = path.read_text() if path.is_file() else ""
    save_bytes(path, f"{before}{line}\n".encode())


if __name__ == "__main__":
    cli(main)
