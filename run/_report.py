"""What reports are made of: Markdown tables, CSV, pictures of completions, and a line about the machine."""

import csv
import io
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dposer.body import BodyModel
from dposer.body.parts import part_surface
from dposer.files import PathLike, save_bytes
from dposer.viz import contact_sheet, render_mesh
from dposer.viz.sheet import trimmed

_KNOWN, _COMPLETED = (0.66, 0.72, 0.80), (0.93, 0.58, 0.30)


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def figures_row(name: str, figures: Mapping[str, Any], keys: Sequence[str], digits: int = 3) -> list[str]:
    """A table row: the name, then the figures asked for, '-' where there is none."""
    return [name, *(_cell(figures.get(key), digits) for key in keys)]


def _cell(value: Any, digits: int) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def headed(keys: Sequence[str], units: Mapping[str, str]) -> list[str]:
    """Names of figures, with their units."""
    return [f"{key} {units[key]}" if key in units else key for key in keys]


def save_csv(path: PathLike, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> None:
    """Write rows atomically; what a row lacks stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    save_bytes(path, text.getvalue().encode())


@torch.no_grad()
def completion_sheet(body: BodyModel, poses: Tensor, completions: Tensor, part: str, view: str, size: tuple[int, int] = (256, 192)) -> Any:
    """A row a pose (N, 63): the pose, what is known of it, and its completions (N, H, 63), the completed part coloured."""
    surface = part_surface(body.weights, part).cpu().numpy()
    colours = np.tile(_KNOWN, (body.num_vertices, 1))
    coloured = colours.copy()
    coloured[surface] = _COMPLETED
    rest = body.faces[~np.isin(body.faces, surface).any(1)]
    centre = body.v_template.mean(0).cpu().numpy()

    def draw(pose: Tensor, faces: np.ndarray, paint: np.ndarray) -> np.ndarray:
        vertices = body(pose[None]).vertices
        assert vertices is not None
        mesh = vertices[0].cpu().numpy()
        return render_mesh(mesh, faces, fit=True, centre=centre, vertex_colours=paint, view=view, size=size)

    images, captions = [], []
    for pose, guesses in zip(poses, completions, strict=True):
        images += [draw(pose, body.faces, colours), draw(pose, rest, colours), *(draw(guess, body.faces, coloured) for guess in guesses)]
        captions += ["original", "observed", *(f"completion {h + 1}" for h in range(len(guesses)))]
    return contact_sheet(trimmed(images), captions=captions, columns=2 + completions.shape[1])


def machine(device: torch.device | None = None) -> str:
    """Processor, graphics card, threads and versions."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    card = f", {torch.cuda.get_device_name(device)}" if device is not None and device.type == "cuda" else ""
    return f"{name}{card}, {torch.get_num_threads()} threads, Python {platform.python_version()}, torch {torch.__version__}"
