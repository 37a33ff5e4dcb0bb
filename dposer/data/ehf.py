"""The EHF data set: 100 photographs of one person, each with OpenPose keypoints and the SMPL-X mesh aligned to a scan.

Source: Pavlakos et al., "Expressive Body Capture", CVPR 2019; the folder is to be had from the authors under their own licence.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from dposer.errors import InputError
from dposer.files import PathLike, existing_file, finite

SCAN_TO_CAMERA = (-2.98747896, 0.01172457, -0.05704687)
"""Axis-angle in radians of ``R``, from the frame of the scans (y up) to that of the camera (y down, z away)."""
CAMERA_TRANSLATION = (-0.03609917, 0.43416458, 2.37101226)
"""``t`` in metres."""
FOCAL = 1498.22426237
"""Pixels of a picture of 1600 x 1200, both ways."""
CENTRE = (790.263706, 578.90334)
"""Principal point in pixels. These four are the data set's camera, the same for all pictures, as public readers of it have them."""

_WHAT = "the EHF folder with NN_img.jpg (or .png), NN_2Djnt.json and NN_align.ply"
_FILES = {
    "image": re.compile(r"(.+)_img\.(?:jpg|jpeg|png)", re.IGNORECASE),
    "keypoints": re.compile(r"(.+)_2Djnt\.json", re.IGNORECASE),
    "mesh": re.compile(r"(.+)_align\.ply", re.IGNORECASE),
}
_OTHER_KEYPOINTS = re.compile(r"(.+?)(?:_2Djnt|(?:_img)?(?:_keypoints)?)\.json", re.IGNORECASE)
_NAMED = 6


@dataclass(frozen=True)
class EhfSample:
    """One photograph and what belongs to it."""

    name: str
    """``NN``."""
    image: Path
    keypoints: Path
    """JSON, by default of OpenPose."""
    mesh: Path
    """For :func:`read_mesh`."""


def read_ehf(folder: PathLike, keypoints: PathLike | None = None) -> list[EhfSample]:
    """The samples of a folder, sorted by name; files of other names are left alone.

    Args:
        folder: with ``NN_img.jpg`` (where both are there, else ``.png``), ``NN_2Djnt.json`` and ``NN_align.ply``.
        keypoints: a folder of another detector's keypoints instead, called ``NN_2Djnt.json``, ``NN_img.json``, ``NN_img_keypoints.json``,
            ``NN_keypoints.json`` or ``NN.json``.

    Raises:
        InputError: no such folder, another folder, or samples that lack a file.
    """
    found: dict[str, dict[str, Path]] = {
        "image": _files(folder, _FILES["image"]),
        "keypoints": _files(folder, _FILES["keypoints"]) if keypoints is None else _files(keypoints, _OTHER_KEYPOINTS),
        "mesh": _files(folder, _FILES["mesh"]),
    }
    names = sorted(found["image"].keys() | found["mesh"].keys())
    if not found["image"] or not found["mesh"]:
        missing = " and ".join(f"no {kind}" for kind in ("image", "mesh") if not found[kind])
        raise InputError(f"{folder}: holds {missing} of EHF, expected {_WHAT}; give the folder that the EHF archive unpacks to")
    lacking: dict[str, list[str]] = defaultdict(list)
    for name in names:
        for kind in found:
            if name not in found[kind]:
                lacking[name].append(kind)
    if lacking:
        listed = [f"{name} ({', '.join(kinds)})" for name, kinds in lacking.items()]
        more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
        where = f"{folder}" if keypoints is None else f"{folder}, {keypoints}"
        raise InputError(
            f"{where}: {len(listed)} of {len(names)} samples lack files: {'; '.join(listed[:_NAMED])}{more}; expected {_WHAT}; "
            "unpack the archive again or move these samples away"
        )
    return [EhfSample(name, **{kind: files[name] for kind, files in found.items()}) for name in names]


def _files(folder: PathLike, pattern: re.Pattern[str]) -> dict[str, Path]:
    """Files by the name of their sample; of several for one sample the first in the order of the alphabet (.jpg before .png)."""
    folder = Path(folder)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise InputError(f"{folder}: found {found}, expected {_WHAT}; check the path")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        match = pattern.fullmatch(path.name)
        if match and path.is_file():
            files.setdefault(match[1], path)
    return files


def read_mesh(path: PathLike, num_vertices: int) -> np.ndarray:
    """The vertices of a ``.ply`` file, text or binary, in the file's order: (V, 3) float64, metres.

    Args:
        num_vertices: of the body model that the mesh is compared with.

    Raises:
        InputError: missing or damaged, NaN, or a mesh of another body model.
    """
    path = existing_file(path, "a .ply mesh")
    try:
        with path.open("rb") as file:
            mesh: Any = trimesh.load(file, file_type="ply", process=False)  # processing would merge vertices
        vertices = np.asarray(mesh.vertices, dtype=np.float64)
    except Exception as error:  # damaged files raise almost anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise InputError(f"{path}: not a readable .ply mesh ({reason}); it may be truncated, fetch it again") from error
    if vertices.shape != (num_vertices, 3):
        raise InputError(
            f"{path}: found {len(vertices)} vertices, expected the {num_vertices} of the body model; "
            "load the body model that the meshes were made with (EHF: the licensed SMPL-X file, 10475 vertices)"
        )
    return finite(vertices, str(path))


def to_camera(vertices: np.ndarray) -> np.ndarray:
    """``R v + t``: a mesh (..., V, 3) of :func:`read_mesh` as its photograph's camera sees it, (..., V, 3) metres.

    With :data:`FOCAL` and :data:`CENTRE` it then projects onto the person. The published protocol turns by ``R`` only; all its errors
    are relative to the pelvis, so that ``t`` changes none.
    """
    rotation = Rotation.from_rotvec(SCAN_TO_CAMERA).as_matrix()
    return np.asarray(vertices) @ rotation.T + CAMERA_TRANSLATION
