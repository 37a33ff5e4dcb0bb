"""Turn published MixSTE, D3DP or DDHPose weights (best_epoch.bin) into one self-describing .safetensors, or back.

python -m run.convert_lift --input best_epoch.bin --output ddhpose_h36m.safetensors
python -m run.convert_lift --input ddhpose_h36m.safetensors --output best_epoch.bin
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dposer.lifting.checkpoint import load_lifting, save_lifting
from dposer.lifting.convert import export_published, import_published
from run._cli import cli, table


@dataclass
class Args:
    input: Path
    """The file to read."""
    output: Path
    """The file to write: .safetensors, or another suffix for the published form."""
    layout: Literal["h36m17", "mpi_inf_3dhp17"] = "h36m17"
    """Joints of published weights, which their file does not tell."""
    fps: float = 50.0
    """Rate of the data that published weights were trained on."""


def main(args: Args) -> None:
    published = args.input.suffix != ".safetensors"
    checkpoint = import_published(args.input, args.layout, fps=args.fps) if published else load_lifting(args.input)
    if args.output.suffix == ".safetensors":
        save_lifting(args.output, checkpoint)
    else:
        export_published(checkpoint, args.output)
    network, count = checkpoint.config.network, sum(tensor.numel() for tensor in checkpoint.weights.values())
    rows = [
        ["method", f"{checkpoint.config.method} ({checkpoint.config.variant}), {checkpoint.config.layout}"],
        ["network", f"{network.frames} frames, {network.channels} channels, {network.depth} levels, {count:,} weights"],
        ["written", f"{args.output} ({args.output.stat().st_size / 1e6:.1f} MB)"],
    ]
    print(table(["what", "value"], rows))


if __name__ == "__main__":
    cli(main)
