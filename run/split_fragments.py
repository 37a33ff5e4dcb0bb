"""Cut AMASS sequences into fragments of equal length for the motion tasks."""

from dataclasses import dataclass
from pathlib import Path

from dposer.data.fragments import split_fragments
from dposer.errors import InputError
from run._cli import cli


@dataclass
class Args:
    """What to cut and where to put it."""

    input_dir: Path
    """Folder of AMASS sequences (searched for .npz files)."""
    output_dir: Path
    """Folder for the fragments, one sub-folder per subject."""
    seq_len: int = 60
    """Frames per fragment; a shorter rest is dropped."""


def main(args: Args) -> None:
    results = list(split_fragments(args.input_dir, args.output_dir, args.seq_len))
    counts = [result for _, result in results if isinstance(result, int)]
    skipped = [f"skipped {result}" for _, result in results if isinstance(result, InputError)]
    if skipped:
        print("\n".join(skipped[:10]) + (f"\n... and {len(skipped) - 10} more" if len(skipped) > 10 else ""))
    if not counts:
        raise InputError(f"{args.input_dir}: none of its {len(skipped)} files is a pose sequence; check --input-dir")
    print(
        f"{sum(counts)} fragments of {args.seq_len} frames from {len(counts)} sequences in {args.output_dir} ({len(skipped)} files skipped)"
    )


if __name__ == "__main__":
    cli(main)
