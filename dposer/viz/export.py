"""Writes pictures and meshes to files that other programs open."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import trimesh

from dposer.errors import InputError
from dposer.files import PathLike, save_bytes
from dposer.viz.render import Image, checked_colours, checked_image, checked_mesh

MESH_SUFFIXES = (".obj", ".glb", ".ply")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


def save_mesh(
    path: PathLike, vertices: np.ndarray, faces: np.ndarray, vertex_colours: np.ndarray | None = None, *, spacing: float = 0.0
) -> None:
    """Write one mesh as ``.obj``, ``.ply`` or ``.glb``, or several as the named nodes ``mesh_0``, ``mesh_1``, … of one ``.glb``.

    Vertices keep their order and number.

    Args:
        path: its suffix picks the format.
        vertices: (V, 3) or, for ``.glb``, (N, V, 3) metres.
        faces: (F, 3) vertex indices.
        vertex_colours: (V, 3) or (N, V, 3) RGB in [0, 1] (or 0..255 integers).
        spacing: metres along x from one of the N meshes to the next; 0 leaves them where they are.

    Raises:
        InputError: another suffix, several meshes in a format for one, wrong shapes, or a folder that cannot be written.
    """
    suffix = _suffix(path, MESH_SUFFIXES)
    vertices, faces = checked_mesh(vertices, faces)
    if vertices.ndim == 3 and suffix != ".glb":
        raise InputError(f"{path}: found {len(vertices)} meshes, expected one for '{suffix}'; write '.glb' or one file a mesh")
    if vertices.ndim == 3 and len(vertices) == 0:
        raise InputError(f"{path}: no meshes to write, expected at least one")
    colours = None if vertex_colours is None else np.broadcast_to(checked_colours(vertices, vertex_colours), vertices.shape)
    scene = trimesh.Scene()
    for i in np.ndindex(vertices.shape[:-2]):
        place = vertices[i] + (spacing * sum(i), 0, 0)
        mesh = trimesh.Trimesh(place, faces, vertex_colors=None if colours is None else _bytes(colours[i]), process=False)
        name = "_".join(["mesh", *map(str, i)])
        scene.add_geometry(mesh, node_name=name, geom_name=name)
    data: Any = (scene if suffix == ".glb" else mesh).export(file_type=suffix[1:])
    save_bytes(path, data.encode() if isinstance(data, str) else data)


def save_image(path: PathLike, image: Image) -> None:
    """Write (h, w, 3) uint8 RGB as ``.png`` or ``.jpg``.

    Raises:
        InputError: another suffix, another dtype or shape, or a folder that cannot be written.
    """
    suffix = _suffix(path, IMAGE_SUFFIXES)
    _, data = cv2.imencode(suffix, cv2.cvtColor(checked_image(image, "image"), cv2.COLOR_RGB2BGR))
    save_bytes(path, data.tobytes())


def _suffix(path: PathLike, allowed: tuple[str, ...]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in allowed:
        raise InputError(f"{path}: suffix '{suffix}', expected one of {', '.join(allowed)}")
    return suffix


def _bytes(colours: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(colours, 0, 1)).astype(np.uint8)
