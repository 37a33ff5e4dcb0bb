"""Turn published DPoser weights (.pth, .ckpt) into one self-describing .safetensors.

python -m run.convert_checkpoint --ckpt-path axis-zscore-400k.pth
python -m run.convert_checkpoint --ckpt-path last.ckpt --normalizer axis_normalize2.pt --output body.safetensors --half
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from dposer.prior.checkpoint import save_checkpoint
from dposer.prior.config import PriorConfig
from dposer.prior.convert import convert
from run._cli import cli, table


@dataclass
class Args:
    ckpt_path: Path
    """The published file."""
    output: Path | None = None
    """The file to write; default: beside --ckpt-path, named .safetensors."""
    normalizer: str | None = None
    """The reference's normaliser file or its folder, or 'published' (AMASS statistics of the first two releases).
    Default: a file beside --ckpt-path; for the first release's .pth else 'published'."""
    half: bool = False
    """Store the weights as float16, at half the size."""
    config: PriorConfig = field(default_factory=PriorConfig)
    """What the file does not tell (SDE, nonlinearity), if other than published."""


def main(args: Args) -> None:
    checkpoint = convert(args.ckpt_path, args.normalizer, args.config)
    output = args.output or args.ckpt_path.with_suffix(".safetensors")
    save_checkpoint(output, checkpoint, torch.float16 if args.half else None)
    model = checkpoint.config.model
    rows = [
        ["network", f"{model.type}, {model.N_BLOCKS} blocks of {model.HIDDEN_DIM}, {checkpoint.config.data.rot_rep}"],
        ["weights", f"averaged, step {checkpoint.provenance['step']}"],
        ["normaliser", checkpoint.provenance["normalizer"]],
        ["written", f"{output} ({output.stat().st_size / 1e6:.1f} MB)"],
    ]
    print(table(["what", "value"], rows))


if __name__ == "__main__":
    cli(main)
