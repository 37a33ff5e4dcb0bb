r"""Files of keypoints as mixtures of Gaussians (:mod:`dposer.data.gmm`), in the layouts of DiffPose and of what followed it.

==========================================  ==================================================================================
``data_2d_<dataset>_<name>_gmm.npz``        ``positions_2d``: {subject: {action: [of each camera (T, 17, M, 5)]}}: π, the mean in
                                            pixels, two spreads
``data_2d_<dataset>_<name>_gmm_norm.npy``   {subject: {action: (cameras, T, 17, 2)}}: component 0's means, in screen units of
                                            pictures that are taken to be 1000 x 1000
==========================================  ==================================================================================

Published files do not say what their spreads are. Those written here do, in a member ``meta`` {spread, W, H, M, generator, seed, ...};
without it the unit is guessed. Sources: Gong et al. (CVPR 2023), Jiang & Chen (ICASSP 2024).
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from dposer.body.skeleton import H36M_17
from dposer.data.gmm import COLUMNS, mixture_of
from dposer.data.lifting_clip import LiftingClip
from dposer.data.objects import boxed, load_object, save_object
from dposer.errors import InputError
from dposer.files import PathLike, finite, save_npz
from dposer.geometry.lens import screen, unscreen

logger = logging.getLogger(__name__)

Unit = Literal["std_uv", "std_px", "var_uv", "var_px"]
"""Of spreads: standard deviation or variance, in screen units or pixels."""
Size = tuple[int, int]
Films = dict[str, dict[str, list[np.ndarray]]]
"""{subject: {action: [of each camera]}}."""
SQUARE: Size = (1000, 1000)
"""What some take every picture of Human3.6M for (``uv_square``)."""
H36M_SIZES: tuple[Size, ...] = ((1000, 1002), (1000, 1000), (1000, 1000), (1000, 1002))

_WHAT = "keypoints as mixtures of Gaussians"
_USUAL = 0.016
"""Standard deviation of a detector's keypoints, screen units."""
_BOUNDS = (1e-4, 2.0)
"""Where the middle of all deviations is: a twentieth of a pixel and the width of the picture, screen units."""
_WIDEST = 4.0
"""What no deviation exceeds."""


def read_gmm(
    path: PathLike,
    keypoints: str = "cpn_ft_h36m_dbb",
    dataset: str = "h36m",
    sizes: Sequence[Size] | None = None,
    uv_square: bool = False,
) -> Films:
    """Mixtures (T, 17, M, 5) float32 of a file, in screen units with standard deviations; all cameras cut to the shortest.

    Of a ``.npy`` of means they are those of :func:`~dposer.data.gmm.mixture_of` for keypoints that are sure.

    Args:
        path: a file, or the folder of ``data_2d_<dataset>_<keypoints>_gmm.npz``.
        sizes: of each camera's pictures; None: as ``meta`` says, else Human3.6M's.
        uv_square: take the pictures to be 1000 x 1000 whatever their size, as Jiang & Chen do.

    Raises:
        InputError: missing or damaged; other shapes; spreads that can be none, or not in the unit that ``meta`` tells.
    """
    path = Path(path)
    path = path / f"data_2d_{dataset}_{keypoints}_gmm.npz" if path.is_dir() else path
    films = read_means(path) if path.suffix == ".npy" else film_dict(path, load_object(path, "positions_2d", _WHAT))
    sizes = list(sizes or _stated_sizes(path) or H36M_SIZES)
    unit = None if path.suffix == ".npy" else spread_unit(path, films, sizes[0][0])
    made: Films = {}
    for name, views in _each(films):
        if len(views) != len(sizes):
            raise InputError(f"{path}: {'/'.join(name)} has {len(views)} cameras, expected {len(sizes)}; give the sizes of their pictures")
        shortest = min(map(len, views))
        made.setdefault(name[0], {})[name[1]] = [
            _of_points(view, SQUARE if uv_square else size) if unit is None else on_screen(view[:shortest], unit, size, uv_square)
            for view, size in zip(views, sizes, strict=True)
        ]
    return made


def write_gmm(path: PathLike, clips: Sequence[LiftingClip], generator: str, seed: int = 0, **meta: Any) -> Path:
    """Write the mixtures of clips, those of the same subject and action being its cameras in order; returns the path.

    Args:
        path: ends in ``.npz``, or in ``.npy`` for the means alone.
        generator: what made the mixtures, and ``seed`` its randomness; kept in ``meta`` with whatever else there is to tell.

    Raises:
        InputError: no clip, one without a mixture, or pictures of other sizes for one subject than for another.
    """
    path = Path(path)
    films: Films = {}
    sizes: dict[tuple[str, str], tuple[Size, ...]] = {}
    for clip in clips:
        if clip.mixture is None:
            raise InputError(f"{clip.name}: has no mixture to write; make one with dposer.data.gmm.mixture_of")
        films.setdefault(clip.subject, {}).setdefault(clip.action, []).append(_in_pixels(clip.mixture, clip.size))
        sizes[clip.subject, clip.action] = (*sizes.get((clip.subject, clip.action), ()), clip.size)
    if len(set(sizes.values())) != 1:
        raise InputError(f"{path}: {len(clips)} clips of different sets of cameras, expected the same picture sizes; write a file for each")
    if path.suffix == ".npy":
        means = {subject: {action: _square_means(views) for action, views in actions.items()} for subject, actions in films.items()}
        save_object(path, means)
        return path
    width, height = zip(*next(iter(sizes.values())), strict=True)
    count = next(view.shape[2] for _, views in _each(films) for view in views)
    told = {"spread": "std_uv", "W": list(width), "H": list(height), "M": count, "generator": generator, "seed": seed, **meta}
    save_npz(path, {"positions_2d": boxed(films), "meta": boxed(told)})
    return path


# ---- parts of the files ------------------------------------------------------------------------------------------------


def film_dict(path: Path, value: Any, key: str = "positions_2d") -> dict[str, dict[str, Any]]:
    """``value`` if it is {subject: {action: list or array}}, else InputError."""
    nested = isinstance(value, dict) and all(isinstance(actions, dict) for actions in value.values())
    if not nested or not all(isinstance(views, list | tuple | np.ndarray) for actions in value.values() for views in actions.values()):
        raise InputError(f"{path}: '{key}' is not {{subject: {{action: ...}}}}, expected VideoPose3D's layout")
    return value


def holds_mixtures(films: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the first film that there is has the four axes of one."""
    return next((view.ndim == 4 for _, views in _each(films) for view in views if isinstance(view, np.ndarray)), False)


def read_means(path: PathLike) -> Films:
    """Keypoints (T, 17, 2) in pixels of a ``.npy`` of means.

    Raises:
        InputError: missing, damaged, or anything else.
    """
    path = Path(path)
    films: Films = {}
    for (subject, action), views in _each(film_dict(path, load_object(path, "", "the means of mixtures (*_gmm_norm.npy)"))):
        name = f"{path}: {subject}/{action}"
        array = finite(np.asarray(views), name)
        if array.ndim != 4 or array.shape[2:] != (17, 2) or not array.size or np.median(np.abs(array)) > 2:
            raise InputError(
                f"{name}: shape {array.shape} up to {np.abs(array).max(initial=0):.3g}, expected (cameras, frames, 17, 2) in -1..1"
            )
        pixels = unscreen(torch.from_numpy(array.astype(np.float32)), SQUARE).numpy()
        films.setdefault(subject, {})[action] = list(pixels)
    return films


def spread_unit(path: Path, films: Mapping[str, Mapping[str, Any]], width: int) -> Unit:
    """The unit of a file's spreads: as its ``meta`` says, else the one in which they are nearest to a detector's; that is logged.

    Every film is checked on the way.

    Args:
        width: of the pictures.

    Raises:
        InputError: not (T, 17, M, 5) finite numbers with weights that sum to 1; spreads that are negative, zero everywhere, wider than the
            picture, or as narrow as none is, in the unit told or in any.
    """
    middle, widest = _spreads(path, films)
    told = _meta(path).get("spread")
    if told is not None and told not in get_args(Unit):
        raise InputError(f"{path}: 'meta' says that spreads are {told!r}, expected one of {', '.join(get_args(Unit))}; correct it")
    likely = min(get_args(Unit), key=lambda unit: abs(math.log(_deviation(unit, width)(middle) / _USUAL)))
    unit: Unit = told or likely
    deviation = _deviation(unit, width)
    if not (_BOUNDS[0] < deviation(middle) < _BOUNDS[1] and deviation(widest) < _WIDEST):
        pixels = 500 * deviation(middle), 500 * deviation(widest)
        mend = f"they look like {likely}: correct 'meta'" if told else "make them anew from the keypoints"
        raise InputError(
            f"{path}: spreads of {middle:.3g}, at most {widest:.3g}, would as {unit} be {pixels[0]:.3g} and {pixels[1]:.3g} pixels in a "
            f"picture 1000 wide, which those of keypoints are not; {mend}"
        )
    if told is None:
        logger.warning("%s: does not say what its spreads are; of %.3g in the middle, they are taken to be %s", path, middle, unit)
    return unit


def on_screen(film: np.ndarray, unit: Unit, size: Size, uv_square: bool = False) -> np.ndarray:
    """(T, J, M, 5) as in the file to screen units and standard deviations, float32; ``size`` is that of the picture."""
    taken = SQUARE if uv_square else size
    film = film.astype(np.float32)
    film[..., 1:3] = screen(torch.from_numpy(film[..., 1:3]), taken).numpy()
    film[..., 3:] = _deviation(unit, size[0])(film[..., 3:]) * (size[0] / taken[0])
    return film


def _deviation(unit: Unit, width: int) -> Callable[[Any], Any]:
    """From a spread to the standard deviation in screen units."""
    scale = 2 / width if unit.endswith("px") else 1.0
    return lambda spread: scale * (np.sqrt(spread) if unit.startswith("var") else spread)


def _spreads(path: Path, films: Mapping[str, Mapping[str, Any]]) -> tuple[float, float]:
    """The middle of component 0's that are not 0, and the largest of all."""
    middles, widest = [], 0.0
    for (subject, action), views in _each(films):
        for camera, film in enumerate(views):
            name = f"{path}: {subject}/{action}, camera {camera}"
            if not isinstance(film, np.ndarray) or film.ndim != 4 or film.shape[1::2] != (17, COLUMNS) or not film.size:
                raise InputError(f"{name}: {getattr(film, 'shape', type(film).__name__)}, expected (frames, 17, components, {COLUMNS})")
            weights, spreads = finite(film, name)[..., 0], film[..., 3:]
            if weights.min() < 0 or np.abs(weights.sum(-1) - 1).max() > 1e-2:
                raise InputError(f"{name}: weights from {weights.min():.3g}, sums up to {weights.sum(-1).max():.3g}, expected shares of 1")
            if spreads.min() < 0:
                raise InputError(
                    f"{name}: spreads of {spreads.min():.3g}, expected no negative ones; they may be logarithms, or another column"
                )
            first = spreads[:, :, 0]
            middles += [float(np.median(first[first > 0]))] if (first > 0).any() else []
            widest = max(widest, float(spreads.max()))
    if not middles:
        raise InputError(f"{path}: spreads are zero everywhere, expected those of keypoints; make them anew from the keypoints")
    return float(np.median(middles)), widest


def _meta(path: Path) -> dict[str, Any]:
    meta = load_object(path, "meta", _WHAT, optional=True)
    if not isinstance(meta, dict | None):
        raise InputError(f"{path}: 'meta' is a {type(meta).__name__}, expected a dict")
    return meta or {}


def _stated_sizes(path: Path) -> list[Size] | None:
    if path.suffix == ".npy" or not {"W", "H"} <= (meta := _meta(path)).keys():
        return None
    try:
        sizes = [(int(width), int(height)) for width, height in zip(meta["W"], meta["H"], strict=True)]
    except (TypeError, ValueError):
        sizes = []
    if not sizes or min(map(min, sizes)) < 1:
        raise InputError(f"{path}: 'meta' has W = {meta['W']!r}, H = {meta['H']!r}, expected a width and a height for each camera")
    return sizes


def _each(films: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[tuple[str, str], Any]]:
    return (((subject, action), views) for subject, actions in films.items() for action, views in actions.items())


def _of_points(pixels: np.ndarray, size: Size) -> np.ndarray:
    """(T, 17, M, 5) of sure keypoints."""
    points = screen(torch.from_numpy(pixels), size)
    return mixture_of(points, torch.ones(points.shape[:-1]), H36M_17).unflatten(-1, (-1, COLUMNS)).numpy()


def _in_pixels(film: np.ndarray, size: Size) -> np.ndarray:
    """(T, J, M, 5) with its means in pixels, not in screen units."""
    film = film.astype(np.float32)
    film[..., 1:3] = unscreen(torch.from_numpy(film[..., 1:3]), size).numpy()
    return film


def _square_means(views: Sequence[np.ndarray]) -> np.ndarray:
    """(cameras, T, J, 2) of films in pixels."""
    return screen(torch.from_numpy(np.stack([film[:, :, 0, 1:3] for film in views])), SQUARE).numpy()
