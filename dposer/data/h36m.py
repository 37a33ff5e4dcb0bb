"""Human3.6M as VideoPose3D lays it out, and any other data set of people before fixed cameras in the same layout.

=================================  ===========================================================================================
``data_3d_<dataset>.npz``          ``positions_3d``: {subject: {action: (n, 32 or 17, 3) metres in the world}}
``data_2d_<dataset>_<name>.npz``   ``positions_2d``: {subject: {action: [of each camera (n, 17, 2 or 3) pixels and confidence]}},
                                   ``metadata``: {layout_name, num_joints, keypoints_symmetry}
=================================  ===========================================================================================

Human3.6M's cameras are not in its files and stand below. Other data sets keep theirs in two more members of the first file: ``cameras``
{subject: [of each camera: id, size, focal, centre, radial, tangential, orientation (w, x, y, z), translation]} and ``metadata`` {fps,
splits, ...}. Source of the layout: VideoPose3D (Pavllo et al., CVPR 2019).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.io import loadmat

from dposer.body.skeleton import COCO_17, H36M_17
from dposer.data.gmm_files import SQUARE, film_dict, holds_mixtures, on_screen, read_means, spread_unit
from dposer.data.lifting_clip import LiftingClip
from dposer.data.objects import load_object
from dposer.errors import InputError
from dposer.files import PathLike, finite, save_npz
from dposer.geometry.lens import Lens, Stand

KEPT = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
"""Of Human3.6M's 32 joints, those of H36M_17."""
SYMMETRY = [list(H36M_17.left), list(H36M_17.right)]
FPS = 50.0
SPLITS = {"train": ("S1", "S5", "S6", "S7"), "valid": ("S8",), "test": ("S9", "S11")}
"""Of Human3.6M; published methods train on S8 too."""
CORRUPT = (("S11", "Directions"),)
"""What is left out of Human3.6M."""


@dataclass(frozen=True)
class View:
    """One camera and where it stands."""

    name: str
    size: tuple[int, int]
    """Pixels, width and height."""
    lens: Lens
    stand: Stand

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "View":
        """From the ``cameras`` of a file."""
        lens = Lens.of(*(values[key] for key in ("focal", "centre", "radial", "tangential")))
        stand = Stand(*(torch.tensor(np.asarray(values[key]), dtype=torch.float32) for key in ("orientation", "translation")))
        width, height = (int(side) for side in values["size"])
        return cls(str(values["id"]), (width, height), lens, stand)

    @property
    def values(self) -> dict[str, Any]:
        """Inverse of :meth:`of`."""
        lens, stand = self.lens, self.stand
        numbers = {
            "focal": lens.focal, "centre": lens.centre, "radial": lens.radial, "tangential": lens.tangential,
            "orientation": stand.orientation, "translation": stand.position,
        }  # fmt: skip
        return {"id": self.name, "size": list(self.size), **{key: value.tolist() for key, value in numbers.items()}}


_LENSES: dict[str, tuple[float, ...]] = {
    "54138969": (
        1145.04944, 1143.78113, 512.541504, 515.451477, -0.207098916, 0.247775182, -0.00307515031, -0.000975698873, -0.00142447161, 1002
    ),
    "55011271": (
        1149.67566, 1147.59167, 508.848633, 508.064911, -0.194213629, 0.24040854, 0.00681997556, -0.00161902665, -0.00274089444, 1000
    ),
    "58860488": (
        1149.14075, 1148.79895, 519.815857, 501.402649, -0.208338186, 0.255488008, -0.00246049743, 0.00148438697, -0.000759999326, 1000
    ),
    "60457274": (
        1145.51135, 1144.77393, 514.968201, 501.882019, -0.198384091, 0.218323678, -0.00894780736, -0.000587205577, -0.001813362, 1002
    ),
}  # fmt: skip
"""fx, fy, cx, cy, k1, k2, k3, p1, p2 and the height of the picture, which is 1000 wide; pixels."""

_STANDS: dict[str, tuple[tuple[float, ...], ...]] = {
    "S1": (
        (0.140705645, -0.150070176, -0.755240798, 0.622328043, 1841.10706, 4955.28467, 1563.44543),
        (0.615718782, -0.764836311, -0.148338258, 0.117947407, 1761.27856, -5078.00684, 1606.26501),
        (0.146514729, -0.146478519, 0.76530236, -0.609417558, -1846.77771, 5215.04639, 1491.97241),
        (0.583400846, -0.785316229, 0.145488232, -0.14749594, -1794.78967, -3722.69897, 1574.8927),
    ),
    "S5": (
        (0.146737725, -0.162370965, -0.7551893, 0.617893875, 2097.3916, 4880.94482, 1605.73242),
        (0.615975857, -0.762679219, -0.15728192, 0.118981503, 2031.70081, -5167.93311, 1612.9231),
        (0.142913714, -0.129078418, 0.767838478, -0.611014307, -1620.59485, 5171.65869, 1496.43701),
        (0.592047989, -0.781421781, 0.127474859, -0.150364175, -1637.17371, -3867.31738, 1547.0332),
    ),
    "S6": (
        (0.133789778, -0.156923965, -0.757109046, 0.619887948, 1935.45178, 4950.24561, 1618.08386),
        (0.614719748, -0.762881279, -0.161747679, 0.118192449, 1969.80396, -5128.73877, 1632.77881),
        (0.152994812, -0.135291308, 0.764609635, -0.611278117, -1769.59644, 5185.36133, 1476.99341),
        (0.591610134, -0.780477405, 0.128322706, -0.156159386, -1721.6687, -3884.13135, 1540.48792),
    ),
    "S7": (
        (0.143524185, -0.163133681, -0.754832864, 0.618882477, 1974.51294, 4926.35449, 1597.83264),
        (0.614167273, -0.763826251, -0.159664556, 0.117792994, 1937.05847, -5119.79004, 1631.56653),
        (0.1455006, -0.128748164, 0.76605165, -0.612713933, -1741.81116, 5208.24951, 1464.82458),
        (0.591284811, -0.782176435, 0.124454737, -0.151964873, -1734.71057, -3832.42139, 1548.58301),
    ),
    "S8": (
        (0.141105875, -0.155898675, -0.75619173, 0.619644046, 2150.65186, 4896.16113, 1611.90466),
        (0.616960168, -0.764766812, -0.148463503, 0.111581579, 2219.96558, -5148.45312, 1613.04407),
        (0.147144407, -0.133771196, 0.767012835, -0.610036969, -1571.22156, 5137.01855, 1498.17615),
        (0.592782438, -0.782587051, 0.121478163, -0.146319956, -1476.91333, -3896.74121, 1547.97217),
    ),
    "S9": (
        (0.155405879, -0.155482158, -0.753209531, 0.619959474, 2044.4585, 4935.11719, 1481.22754),
        (0.618784487, -0.763473511, -0.141322389, 0.119339682, 1990.95972, -5123.81055, 1568.80481),
        (0.133578271, -0.136710048, 0.768945456, -0.610073864, -1670.99219, 5211.98584, 1528.38794),
        (0.587939918, -0.782340705, 0.142761439, -0.147948697, -1696.04346, -3827.09985, 1591.41272),
    ),
    "S11": (
        (0.152324721, -0.154423207, -0.754756331, 0.619107008, 2098.44019, 4926.55469, 1500.27856),
        (0.618944943, -0.760091722, -0.15300633, 0.125525832, 2083.18237, -4912.17285, 1561.07861),
        (0.149432287, -0.156502277, 0.768123388, -0.602630436, -1609.81531, 5177.33594, 1537.89673),
        (0.589425147, -0.78188771, 0.139912114, -0.147153616, -1590.73804, -3854.16895, 1578.01758),
    ),
}  # fmt: skip
"""Subject → of each camera its orientation w, x, y, z and its position in millimetres."""

CAMERAS: dict[str, tuple[View, ...]] = {
    subject: tuple(
        View(name, (1000, int(lens[9])), Lens.of_vector(torch.tensor(lens[:9])), Stand(torch.tensor(row[:4]), torch.tensor(row[4:]) / 1000))
        for (name, lens), row in zip(_LENSES.items(), rows, strict=True)
    )
    for subject, rows in _STANDS.items()
}
"""Human3.6M's four cameras, as each subject found them."""

_WHAT_3D, _WHAT_2D = "3D joints as VideoPose3D lays them out", "2D keypoints as VideoPose3D lays them out"
_FETCH = (
    "VideoPose3D's DATASETS.md says how Human3.6M is asked for and prepared; or make an open data set: "
    "python -m run.prepare_data --source lifting --input <AMASS folder> --output <this folder>"
)
_METRES = (0.2, 10.0)
"""How far the farthest joint may be from the root, in the middle of a film."""


def splits(folder: PathLike, dataset: str = "h36m") -> dict[str, tuple[str, ...]]:
    """Subjects of "train", "valid" and "test".

    Raises:
        InputError: the file is missing or damaged, or tells no splits and is not Human3.6M.
    """
    path = _file_3d(folder, dataset)
    stored = _metadata(path, _WHAT_3D, optional=True).get("splits", SPLITS if dataset == "h36m" else None)
    if not (isinstance(stored, dict) and all(isinstance(subjects, list | tuple) for subjects in stored.values())):
        raise InputError(f"{path}: 'metadata' has no splits, expected {{split: [subjects]}}; write it with write_h36m")
    return {split: tuple(subjects) for split, subjects in stored.items()}


def read_h36m(
    folder: PathLike,
    keypoints: str = "cpn_ft_h36m_dbb",
    dataset: str = "h36m",
    subjects: Sequence[str] | None = None,
    actions: str = "*",
    stride: int = 1,
    from_coco: Callable[[np.ndarray], np.ndarray] | None = None,
    uv_square: bool = False,
) -> list[LiftingClip]:
    r"""One clip per subject, action and camera, with joints :math:`R^{-1} (X - t)` before it.

    Mixtures of Gaussians in place of keypoints, and their means (:mod:`dposer.data.gmm_files`), are known by their shape and name
    (``<name>_gmm``, ``<name>_gmm_norm``).

    Args:
        folder: of ``data_3d_<dataset>.npz`` and ``data_2d_<dataset>_<keypoints>.npz``.
        subjects: None: all there are.
        actions: ``*``, or prefixes of names with commas between.
        stride: every how many frames one is kept.
        from_coco: turns COCO's 17 keypoints (n, 17, 3) into those of H36M_17, for files of such detections; None: these are refused.
        uv_square: take all pictures to be 1000 x 1000, as Jiang & Chen do, so that their middle moves by a pixel in some.

    Raises:
        InputError: a file, subject, action or camera is missing, or does not fit its counterpart; not metres; not finite; another layout.
    """
    if stride < 1:
        raise InputError(f"stride {stride}: expected 1 or more frames")
    suffix = "npy" if keypoints.endswith("_gmm_norm") else "npz"
    path_3d, path_2d = _file_3d(folder, dataset), _file(folder, f"data_2d_{dataset}_{keypoints}.{suffix}", _WHAT_2D)
    fps = float(_metadata(path_3d, _WHAT_3D, optional=True).get("fps", FPS)) / stride
    cameras, positions = _cameras(path_3d), _positions(path_3d, "3d")
    films = read_means(path_2d) if suffix == "npy" else _positions(path_2d, "2d")
    mixed = holds_mixtures(films)
    unit = spread_unit(path_2d, films, next(iter(cameras.values()))[0].size[0]) if mixed else None
    convert = _conversion(path_2d, from_coco, bare=mixed or suffix == "npy")
    clips = []
    for subject, action in _chosen(path_3d, positions, dataset, subjects, actions):
        world = _world(f"{path_3d}: {subject}/{action}", positions[subject][action])
        if subject not in cameras:
            raise InputError(f"{path_3d}: the cameras of {subject} are not known (known: {', '.join(cameras)}); leave it out")
        for view, film in zip(cameras[subject], _films(path_2d, films, subject, action, len(cameras[subject])), strict=True):
            mixture = None if unit is None else on_screen(film[: len(world) : stride], unit, view.size, uv_square)
            found = film if mixture is None else film[:, :, 0, 1:3]
            pixels = convert(_pixels(f"{path_2d}: {subject}/{action}/{view.name}", found, len(world))[::stride])
            joints = view.stand.to_camera(torch.from_numpy(world[::stride])).numpy()
            size = SQUARE if uv_square else view.size
            clips.append(
                LiftingClip(subject, action, view.name, pixels, joints, size, view.lens, H36M_17, fps, view.stand, mixture=mixture)
            )
    return clips


def write_h36m(
    folder: PathLike,
    dataset: str,
    positions_3d: Mapping[str, Mapping[str, np.ndarray]],
    positions_2d: Mapping[str, Mapping[str, Mapping[str, Sequence[np.ndarray]]]],
    cameras: Mapping[str, Sequence[View]],
    metadata: Mapping[str, Any],
) -> list[Path]:
    """Write ``data_3d_<dataset>.npz`` and a ``data_2d_<dataset>_<name>.npz`` for each name in ``positions_2d``; returns their paths.

    Args:
        positions_3d: {subject: {action: (n, 17 or 32, 3) metres in the world}}.
        positions_2d: {name: {subject: {action: [of each camera (n, 17, 2 or 3)]}}}.
        metadata: ``fps`` and ``splits``, and whatever else there is to tell; plain values.
    """
    layout = {"layout_name": "h36m", "num_joints": len(H36M_17.joints), "keypoints_symmetry": SYMMETRY}
    views = {subject: [view.values for view in some] for subject, some in cameras.items()}
    files: dict[str, dict[str, Any]] = {
        f"data_3d_{dataset}.npz": {"positions_3d": positions_3d, "cameras": views, "metadata": {**layout, **metadata}},
        **{f"data_2d_{dataset}_{name}.npz": {"positions_2d": films, "metadata": layout} for name, films in positions_2d.items()},
    }
    for name, members in files.items():
        save_npz(Path(folder) / name, {key: np.array(value, dtype=object) for key, value in members.items()})
    return [Path(folder) / name for name in files]


def h36m_from_source(folder: PathLike) -> dict[str, dict[str, np.ndarray]]:
    """Human3.6M's own files ``<subject>/.../D3_Positions/*.cdf.mat`` as {subject: {action: (n, 32, 3) metres in the world}}.

    Raises:
        InputError: none there, or one without ``data`` of (n, 96) millimetres.
    """
    positions: dict[str, dict[str, np.ndarray]] = {}
    for subject in CAMERAS:
        for path in sorted(Path(folder).glob(f"{subject}/**/D3_Positions/*.cdf.mat")):
            action = path.name.removesuffix(".cdf.mat").replace("TakingPhoto", "Photo").replace("WalkingDog", "WalkDog")
            if (subject, action) not in CORRUPT:
                positions.setdefault(subject, {})[action] = _source_positions(path)
    if not positions:
        binary = any(Path(folder).glob("S*/**/D3_Positions/*.cdf"))
        mend = "; the .cdf files there need NASA's library, take 'D3 Positions mat' instead" if binary else ""
        raise InputError(f"{folder}: found no S1/.../D3_Positions/*.cdf.mat, expected Human3.6M's 3D positions unpacked{mend}")
    return positions


def projections(
    positions: Mapping[str, Mapping[str, np.ndarray]], cameras: Mapping[str, Sequence[View]]
) -> dict[str, dict[str, list[np.ndarray]]]:
    """The exact keypoints (n, 17, 2) in each camera of joints (n, 32 or 17, 3) in the world."""
    return {
        subject: {action: [_seen(view, world) for view in cameras[subject]] for action, world in actions.items()}
        for subject, actions in positions.items()
    }


# ---- parts of the files ------------------------------------------------------------------------------------------------


def _file(folder: PathLike, name: str, what: str) -> Path:
    path = Path(folder) / name
    if not path.is_file():
        others = sorted(other.name for other in path.parent.glob("data_?d_*.npz"))
        raise InputError(f"{path}: found nothing, expected {what} (the folder has {', '.join(others) or 'no such files'}); {_FETCH}")
    return path


def _file_3d(folder: PathLike, dataset: str) -> Path:
    return _file(folder, f"data_3d_{dataset}.npz", _WHAT_3D)


def _metadata(path: Path, what: str, optional: bool = False) -> dict[str, Any]:
    metadata = load_object(path, "metadata", what, optional)
    if not isinstance(metadata, dict | None):
        raise InputError(f"{path}: 'metadata' is a {type(metadata).__name__}, expected a dict")
    return metadata or {}


def _positions(path: Path, kind: Literal["2d", "3d"]) -> dict[str, dict[str, Any]]:
    value = load_object(path, f"positions_{kind}", _WHAT_3D if kind == "3d" else _WHAT_2D)
    return film_dict(path, value, f"positions_{kind}")


def _cameras(path: Path) -> dict[str, tuple[View, ...]]:
    stored = load_object(path, "cameras", _WHAT_3D, optional=True)
    if stored is None:
        return CAMERAS
    try:
        return {subject: tuple(View.of(values) for values in views) for subject, views in stored.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: 'cameras' has one that cannot be read ({error!r}), expected what write_h36m writes") from error


def _conversion(path: Path, from_coco: Callable[[np.ndarray], np.ndarray] | None, bare: bool) -> Callable[[np.ndarray], np.ndarray]:
    """From the file's layout to H36M_17, which it is in if it is of a kind without metadata."""
    metadata = {"layout_name": "h36m"} if path.suffix == ".npy" else _metadata(path, _WHAT_2D, optional=bare)
    name, symmetry = metadata.get("layout_name", "h36m" if bare else None), metadata.get("keypoints_symmetry", SYMMETRY)

    def symmetric_as(sides: list[list[int]]) -> bool:
        return np.array_equal(np.array(symmetry, dtype=object), np.array(sides, dtype=object))

    if name == "h36m" and symmetric_as(SYMMETRY):
        return lambda film: film
    if from_coco is not None and name == "coco" and symmetric_as([list(COCO_17.left), list(COCO_17.right)]):
        return lambda film: from_coco(film).astype(np.float32)
    raise InputError(
        f"{path}: keypoints in the layout '{name}' with symmetry {symmetry}, expected h36m with {SYMMETRY}; fetch keypoints in that layout"
    )


def _chosen(
    path: Path, positions: Mapping[str, Mapping[str, Any]], dataset: str, subjects: Sequence[str] | None, actions: str
) -> list[tuple[str, str]]:
    """Subject and action of what was asked for."""
    prefixes = ("",) if actions == "*" else tuple(prefix.strip() for prefix in actions.split(","))
    wanted = tuple(positions) if subjects is None else tuple(subjects)
    if unknown := [subject for subject in wanted if subject not in positions]:
        raise InputError(f"{path}: has no subject {', '.join(unknown)} (has {', '.join(positions)}); choose among these")
    there = [(subject, action) for subject in wanted for action in positions[subject]]
    chosen = [pair for pair in there if pair[1].startswith(prefixes) and not (dataset == "h36m" and pair in CORRUPT)]
    if not chosen:
        known = ", ".join(sorted({action for _, action in there})[:40])
        raise InputError(f"{path}: no action begins with '{actions}' (there are {known or 'none'}); choose among these, or * for all")
    return chosen


def _numbers(name: str, value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise InputError(f"{name}: found a {type(value).__name__}, expected an array")
    return finite(value, name).astype(np.float32)


def _world(name: str, value: Any) -> np.ndarray:
    """(n, 17, 3) metres."""
    world = _numbers(name, value)
    if world.ndim != 3 or world.shape[1:] not in ((32, 3), (17, 3)) or not len(world):
        raise InputError(f"{name}: 3D joints of shape {world.shape}, expected (frames, 32 or 17, 3)")
    world = _kept(world)
    reach = float(np.median(np.linalg.norm(world[:, 1:] - world[:, :1], axis=-1).max(1)))
    if not _METRES[0] < reach < _METRES[1]:
        raise InputError(f"{name}: the farthest joint is {reach:.3g} from the pelvis, expected metres; divide millimetres by 1000")
    return world


def _kept(world: np.ndarray) -> np.ndarray:
    """(n, 32 or 17, 3) → (n, 17, 3)."""
    return world[:, KEPT] if world.shape[1] == 32 else world


def _films(path: Path, films: Mapping[str, Mapping[str, Any]], subject: str, action: str, views: int) -> Sequence[Any]:
    found = films.get(subject, {}).get(action)
    if found is None:
        raise InputError(f"{path}: has no keypoints of {subject}/{action}, which has 3D joints; fetch the file that goes with them")
    if not isinstance(found, list | tuple | np.ndarray) or len(found) != views:
        count = len(found) if hasattr(found, "__len__") else "no"
        raise InputError(f"{path}: {subject}/{action} has keypoints of {count} cameras, expected {views}; fetch the file that goes with it")
    return list(found)


def _pixels(name: str, value: Any, frames: int) -> np.ndarray:
    """(frames, 17, 3) pixels and confidence, 1 if the file has none; a third column that leaves [0, 1] is none."""
    film = _numbers(name, value)
    if film.ndim != 3 or film.shape[1] != 17 or film.shape[2] not in (2, 3):
        raise InputError(f"{name}: keypoints of shape {film.shape}, expected (frames, 17, 2 or 3)")
    if len(film) < frames:
        raise InputError(f"{name}: {len(film)} frames of keypoints, but {frames} of 3D joints; fetch the file that goes with them")
    film = film[:frames]
    if film.shape[2] == 3 and film[..., 2].min() >= 0 and film[..., 2].max() <= 1:
        return film
    return np.concatenate((film[..., :2], np.ones_like(film[..., :1])), -1)


def _source_positions(path: Path) -> np.ndarray:
    try:
        rows = loadmat(path, variable_names=["data"])["data"][0, 0]
        return np.asarray(rows, dtype=np.float32).reshape(-1, 32, 3) / 1000
    except Exception as error:  # damaged files raise almost anything
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(
            f"{path}: not readable ({reason}), expected 'data' with (n, 96) millimetres of Human3.6M; unpack it again"
        ) from error


def _seen(view: View, world: np.ndarray) -> np.ndarray:
    return view.lens.project(view.stand.to_camera(torch.from_numpy(_kept(world)))).numpy()
