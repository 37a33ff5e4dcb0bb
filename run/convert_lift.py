"""Turn published lifting weights into one self-describing .safetensors, or back.

python -m run.convert_lift --input best_epoch.bin --output ddhpose_h36m.safetensors         # MixSTE, D3DP, DDHPose
python -m run.convert_lift --input model.pth --output diffhpe_h36m.safetensors              # DiffHPE, 2D or Wrapper
python -m run.convert_lift --input gcn_xyz_cpn.pth --output graformer_h36m.safetensors      # GraFormer
python -m run.convert_lift --input ckpt.pth --lifter gcn_xyz_cpn.pth --output refiner.safetensors  # cross-channel, single-graph
python -m run.convert_lift --input model-final.pt --yaml config.yaml --output diffpose.safetensors  # DiffPose
python -m run.convert_lift --input ddhpose_h36m.safetensors --output best_epoch.bin
python -m run.convert_lift --input diffpose.safetensors --output model-final.pt --yaml config.yaml
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dposer.errors import InputError
from dposer.files import PathLike
from dposer.lifting.checkpoint import LiftingCheckpoint, load_lifting, save_lifting
from dposer.lifting.config import LiftingConfig
from dposer.lifting.convert import export_published, import_published, read_published
from dposer.lifting.convert_diffpose import export_diffpose, import_diffpose, is_diffpose
from dposer.lifting.convert_graphs import export_lifter, export_refiner, import_lifter, import_refiner
from dposer.lifting.settings_diffpose import config_from_published, read_settings, write_settings
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
    yaml: Path | None = None
    """Of DiffPose in published form: the settings beside the weights; they are read, or written. Without them published weights are taken
    for those of the published recipe, but for what their shapes tell."""
    ema: bool = False
    """Of published DiffPose or refiners: take the weights that were averaged over training."""
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
        if args.ema:
            raise InputError(f"{args.input}: holds one set of weights; --ema is for published files")
        return load_lifting(args.input)
    if args.lifter is not None:
        return import_refiner(args.input, args.lifter, fps=args.fps, span=args.span, averaged=args.ema)
    values = read_published(args.input)
    if is_diffpose(values):
        return import_diffpose(args.input, _recipe(args), args.ema)
    if args.ema or args.yaml is not None:
        raise InputError(f"{args.input}: no file of DiffPose (model-final.pt); --yaml and --ema do not go with it, leave them out")
    if not isinstance(values, list):
        return import_published(args.input, args.layout, fps=args.fps)
    first = values[0] if values and isinstance(values[0], dict) else {}
    if any("temb_proj" in str(name) for name in first):
        raise InputError(f"{args.input}: a refiner without the lifter it refines, expected both; give gcn_xyz_*.pth as --lifter")
    return import_lifter(args.input, fps=args.fps)


def _recipe(args: Args) -> LiftingConfig | None:
    """Of published DiffPose, if its settings are given."""
    if args.yaml is None:
        return None
    config, notes = config_from_published(read_settings(args.yaml), str(args.yaml))
    for note in notes:
        print(f"note: {args.yaml}: {note}")
    return config


def _export(args: Args, checkpoint: LiftingCheckpoint) -> None:
    method = checkpoint.config.method
    if (method in _REFINERS) != (args.lifter is not None):
        raise InputError(f"{args.input}: of {method}; --lifter, the second file, is for {' and '.join(_REFINERS)}, and they need it")
    if args.yaml is not None and method != "diffpose":
        raise InputError(f"{args.input}: of {method}; --yaml, the settings, is for diffpose")
    write: Callable[[LiftingCheckpoint, PathLike], None] = {
        "graformer": export_lifter, "cross-channel": export_refiner, "single-graph": export_refiner, "diffpose": export_diffpose,
    }.get(method, export_published)  # fmt: skip
    write(checkpoint, args.output)
    if args.lifter is not None:
        export_lifter(checkpoint, args.lifter)
    if args.yaml is not None:
        write_settings(args.yaml, checkpoint.config)


if __name__ == "__main__":
    cli(main)
