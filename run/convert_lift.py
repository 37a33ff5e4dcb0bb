"""Turn published lifting weights into one self-describing .safetensors, or back.

python -m run.convert_lift --input best_epoch.bin --output ddhpose_h36m.safetensors         # MixSTE, D3DP, DDHPose
python -m run.convert_lift --input model.pth --output diffhpe_h36m.safetensors              # DiffHPE, 2D or Wrapper
python -m run.convert_lift --input gcn_xyz_cpn.pth --output graformer_h36m.safetensors      # GraFormer
python -m run.convert_lift --input ckpt.pth --lifter gcn_xyz_cpn.pth --output refiner.safetensors  # cross-channel, single-graph
python -m run.convert_lift --input ddhpose_h36m.safetensors --output best_epoch.bin
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dposer.errors import InputError
from dposer.files import PathLike
from dposer.lifting.checkpoint import LiftingCheckpoint, load_lifting, save_lifting
from dposer.lifting.convert import export_published, import_published, read_published
from dposer.lifting.convert_graphs import export_lifter, export_refiner, import_lifter, import_refiner
from run._cli import cli, table

_REFINERS = ("cross-channel", "single-graph")


@dataclass
class Args:
    input: Path
    """The file to read."""
    output: Path
    """The file to write: .safetensors, or another suffix for the published form."""
    lifter: Path | None = None
    """Of a refiner in published form: the other file, with the GraFormer it refines; it is read, or written."""
    layout: Literal["h36m17", "mpi_inf_3dhp17"] = "h36m17"
    """Joints of published weights, which their file does not tell."""
    fps: float = 50.0
    """Rate of the data that published weights were trained on."""
    span: int = 12
    """Of published refiners: time from below which their steps start; 24 for single-graph on CPN keypoints."""


def main(args: Args) -> None:
    checkpoint = _read(args)
    if args.output.suffix == ".safetensors":
        save_lifting(args.output, checkpoint)
    else:
        _export(args, checkpoint)
    network, count = checkpoint.config.network, sum(tensor.numel() for tensor in checkpoint.weights.values())
    rows = [
        ["method", f"{checkpoint.config.method} ({checkpoint.config.variant}), {checkpoint.config.layout}"],
        ["network", f"{network.frames} frames, {network.channels} channels, {network.depth} levels, {count:,} weights"],
        ["written", f"{args.output} ({args.output.stat().st_size / 1e6:.1f} MB)"],
    ]
    print(table(["what", "value"], rows))


def _read(args: Args) -> LiftingCheckpoint:
    if args.input.suffix == ".safetensors":
        return load_lifting(args.input)
    if args.lifter is not None:
        return import_refiner(args.input, args.lifter, fps=args.fps, span=args.span)
    values = read_published(args.input)
    if not isinstance(values, list):
        return import_published(args.input, args.layout, fps=args.fps)
    first = values[0] if values and isinstance(values[0], dict) else {}
    if any("temb_proj" in str(name) for name in first):
        raise InputError(f"{args.input}: a refiner without the lifter it refines, expected both; give gcn_xyz_*.pth as --lifter")
    return import_lifter(args.input, fps=args.fps)


def _export(args: Args, checkpoint: LiftingCheckpoint) -> None:
    method = checkpoint.config.method
    if (method in _REFINERS) != (args.lifter is not None):
        raise InputError(f"{args.input}: of {method}; --lifter, the second file, is for {' and '.join(_REFINERS)}, and they need it")
    write: Callable[[LiftingCheckpoint, PathLike], None] = {
        "graformer": export_lifter, "cross-channel": export_refiner, "single-graph": export_refiner,
    }.get(method, export_published)  # fmt: skip
    write(checkpoint, args.output)
    if args.lifter is not None:
        export_lifter(checkpoint, args.lifter)


if __name__ == "__main__":
    cli(main)
