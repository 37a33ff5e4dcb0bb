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
    fragments = sequences = 0
    skipped = []
    for path, result in split_fragments(args.input_dir, args.output_dir, args.seq_len):
        if isinstance(result, InputError):
            skipped.append(f"skipped {path}: {result}")
        else:
            fragments, sequences = fragments + result, sequences + 1
    print("\n".join(skipped[:10]) + f"\n... {len(skipped) - 10} more skipped" * (len(skipped) > 10) if skipped else "", end="\n" if skipped else "")
    if not sequences:
        raise InputError(f"{args.input_dir}: none of the {len(skipped)} files is a pose sequence; check --input-dir")
    print(f"{fragments} fragments of {args.seq_len} frames from {sequences} sequences in {args.output_dir} ({len(skipped)} files skipped)")


if __name__ == "__main__":
    cli(main)
