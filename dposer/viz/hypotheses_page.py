"""A page with hypotheses that can be turned, in one file that needs nothing else: no script from elsewhere, no network."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dposer.errors import InputError
from dposer.files import PathLike, finite, save_bytes
from dposer.viz.hypotheses import HypothesisCloud
from dposer.viz.render import Image, checked_image

SHOWN = 100
"""Hypotheses of a frame."""
_TEMPLATE = Path(__file__).with_suffix(".html")
_PLACE = "@DATA@"
_ENDING = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""What could end a script, or begin a comment in one; inside JSON these only stand in texts, where they may be escaped."""


def hypotheses_page(
    cloud: HypothesisCloud,
    *,
    title: str = "Hypotheses",
    notes: Sequence[str] = (),
    pictures: Mapping[int, Image] | None = None,
    columns: Mapping[str, np.ndarray] | None = None,
    names: Sequence[str] | None = None,
    shown: int = SHOWN,
) -> str:
    """HTML with hypotheses, representatives, consensus, truth and ellipsoids in space, and tables of joints and representatives.

    Args:
        cloud: F frames; with more than one there is a slider.
        title: above all.
        notes: lines of text below it: the method, what counts as ambiguous, ...
        pictures: frame → (h, w, 3) uint8 RGB, such as its heatmaps.
        columns: further columns (F, k) of the table of representatives by their titles, such as plausibility.
        names: of the frames; None: their numbers.
        shown: at most so many hypotheses of a frame are in the file, taken evenly; it grows with them, 0.2 kB each.

    Raises:
        InputError: shapes that do not go together, NaN, or a picture of no frame.
    """
    frames, few = len(cloud), cloud.weights.shape[1]
    pictures, columns = pictures or {}, columns or {}
    names = [str(frame) for frame in range(frames)] if names is None else list(names)
    if len(names) != frames or shown < 1:
        raise InputError(
            f"page: {len(names)} names and {shown} hypotheses shown, expected a name for each of {frames} frames, and at least 1"
        )
    if outside := [frame for frame in pictures if not 0 <= frame < frames]:
        raise InputError(f"pictures: of frame {outside[0]}, expected 0 to {frames - 1}")
    for name, values in columns.items():
        if np.shape(values) != (frames, few):
            raise InputError(f"columns: {name} of shape {np.shape(values)}, expected ({frames}, {few})")
        finite(np.asarray(values), f"columns: {name}")
    data = {
        "title": title,
        "notes": list(notes),
        "joints": [name.replace("_", " ") for name in cloud.layout.joints],
        "edges": [list(edge) for edge in cloud.layout.edges],
        "sides": [name.partition("_")[0] if name.startswith(("left_", "right_")) else "middle" for name in cloud.layout.joints],
        "columns": list(columns),
        "frames": [
            _frame(cloud, frame, shown)
            | {
                "name": names[frame],
                "picture": _embedded(pictures[frame]) if frame in pictures else None,
                "columns": [[f"{np.asarray(values)[frame, i]:.3g}" for values in columns.values()] for i in range(few)],
            }
            for frame in range(frames)
        ],
    }
    return _TEMPLATE.read_text("utf-8").replace(_PLACE, _quoted(data))


def save_hypotheses_page(path: PathLike, cloud: HypothesisCloud, **options: Any) -> None:
    """Write :func:`hypotheses_page`, atomically.

    Raises:
        InputError: as there, or a folder that cannot be written.
    """
    save_bytes(path, hypotheses_page(cloud, **options).encode())


def _frame(cloud: HypothesisCloud, frame: int, shown: int) -> dict[str, Any]:
    """Lengths in whole millimetres, covariances in mm²."""
    count = cloud.hypotheses.shape[1]
    some = np.linspace(0, count - 1, min(count, shown)).round().astype(int)
    upper = np.triu_indices(3)
    return {
        "hypotheses": _millimetres(cloud.hypotheses[frame][some].reshape(len(some), -1)),
        "representatives": _millimetres(cloud.representatives[frame].reshape(len(cloud.representatives[frame]), -1)),
        "weights": np.round(cloud.weights[frame].astype(float), 4).tolist(),
        "pose": _millimetres(cloud.pose[frame].ravel()),
        "mean": _millimetres(cloud.mean[frame].ravel()),
        "covariance": np.round(1e6 * cloud.covariance[frame].astype(float)[:, *upper], 1).tolist(),
        "spread": _millimetres(cloud.spread[frame]),
        "apart": _millimetres(cloud.apart[frame]),
        "ambiguous": cloud.ambiguous[frame].astype(bool).tolist(),
        "truth": None if cloud.truth is None else _millimetres(cloud.truth[frame].ravel()),
    }


def _millimetres(metres: np.ndarray) -> Any:
    return np.rint(1000 * np.asarray(metres)).astype(int).tolist()


def _embedded(picture: Image) -> str:
    """As a PNG inside an address."""
    _, data = cv2.imencode(".png", cv2.cvtColor(checked_image(picture, "picture"), cv2.COLOR_RGB2BGR))
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()


def _quoted(data: Any) -> str:
    """JSON that can stand inside a script element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for sign, escape in _ENDING.items():
        text = text.replace(sign, escape)
    return text
