"""What the commands that fit bodies to 2D keypoints share: flags, lenses, the models, and the arrays and meshes they write."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from dposer import __version__
from dposer.body import BodyModel
from dposer.body.points import BodyPoints
from dposer.body.skeleton import Layout, layout_map
from dposer.data.detection import Detector
from dposer.data.intrinsics import read_intrinsics
from dposer.data.keypoints import DETECTED, ImageSize, Keypoints
from dposer.errors import InputError
from dposer.files import existing_file
from dposer.geometry.camera import Camera
from dposer.prior.mixture import PoseMixture
from dposer.prior.pose_prior import Progress
from dposer.prior.timesteps import GridTimes, Strategy
from dposer.randomness import keyed_generator
from dposer.solvers.mesh_adam import SmplifySettings, smplify_settings
from dposer.solvers.mesh_fitting import FEWEST, STATURE, FitSettings, MeshFit, fit_keypoints
from dposer.solvers.pose_terms import MixtureTerm
from dposer.solvers.video_fitting import TrackFit
from dposer.viz import save_mesh
from run._cli import load_prior
from run._shards import digest

TOGETHER = 64
"""People solved for at once, so that memory does not grow with the crowd."""

MISSED, UNUSUAL = 0.06, 1.0
"""Mean residual as a share of the person's size, and plausibility in per cent, that a verdict points out."""

Detect = Callable[[np.ndarray], Keypoints]
"""Finds the people in a picture (h, w, 3) uint8 RGB."""
MeshFormat = Literal["obj", "glb", "ply"]


@dataclass(kw_only=True)
class SolverFlags:
    """By what and how bodies are found."""

    prior: Literal["DPoser", "GMM", "None"] = "DPoser"
    """What knows poses: the diffusion prior, a mixture of Gaussians as SMPLify has it, or nothing but the keypoints."""
    preset: Literal["library", "v1", "v2", "x", "paper"] = "library"
    """The library's second-order solver, or Adam in stages with the settings of a release or of the paper."""
    steps: int | None = None
    """Steps of the library's solver, or of each of the preset's stages; fewer are faster and coarser."""
    time_strategy: Strategy = "3"
    """Times of the presets: 1 random, 2 fixed, 3 truncated annealing."""
    sde_N: int = 500
    """Grid of times of preset v1."""
    gmm_path: Path | None = None
    """A mixture of python -m run.train_gmm or SMPLify's gmm_08.pkl; default: the one that ships."""

    def solver(self, device: torch.device, ehf: bool = False) -> FitSettings | SmplifySettings:
        """Settings of the solver.

        Args:
            ehf: as the releases have them for the EHF data set.

        Raises:
            InputError: flags that do not go together.
        """
        if self.steps is not None and not 1 <= self.steps <= 100_000:
            raise InputError(f"--steps {self.steps}, expected 1 to 100000")
        if self.preset == "library":
            if (self.sde_N, self.time_strategy) != (500, "3"):
                raise InputError(
                    f"--sde-N {self.sde_N} --time-strategy {self.time_strategy}: the library's own solver has no such times; give --preset"
                )
            term = MixtureTerm(PoseMixture.from_pretrained(self.gmm_path, device)) if self.prior == "GMM" else None
            settings = FitSettings(term=term)
            return settings if self.steps is None else replace(settings, steps=self.steps)
        if self.prior == "GMM":
            raise InputError(f"--prior GMM --preset {self.preset}: the releases know no mixture; leave --preset out")
        adam = smplify_settings(self.preset, self.time_strategy, ehf=ehf)
        if isinstance(adam.time, GridTimes):
            if not 50 <= self.sde_N <= 100_000:
                raise InputError(f"--sde-N {self.sde_N}, expected 50 to 100000")
            index = round(adam.time.fixed_index * self.sde_N / adam.time.levels)
            adam = replace(adam, time=replace(adam.time, levels=self.sde_N, fixed_index=index))
        elif self.sde_N != 500:
            raise InputError(f"--sde-N {self.sde_N}: only preset v1 has a grid of times, expected 500; leave it out")
        return adam if self.steps is None else replace(adam, steps=self.steps, camera_steps=self.steps)


@dataclass(kw_only=True)
class FitFlags(SolverFlags):
    """Flags of the commands that fit bodies to pictures."""

    layout: str = "auto"
    """What the keypoints are (openpose25, coco17, ...); auto goes by their number."""
    ignore: tuple[str, ...] = ()
    """Keypoints that do not count, e.g. left_hip right_hip neck."""
    focal: float | None = None
    """Focal length in pixels; default: the diagonal of the picture."""
    exif: bool = False
    """Take the focal length that a photograph's EXIF tells."""
    intrinsics: Path | None = None
    """File with the camera's matrix K (.txt, .npy, .npz, .json, .yaml)."""
    gender: str = "neutral"
    """Which body to take from a folder: neutral, female or male."""
    bodymodel_path: Path | None = None
    """SMPL-X, SMPL-H or SMPL file; default: the open body that ships, which has a shape space of its own."""
    ckpt_path: Path | None = None
    """Weights: a .safetensors of this library or a published .pth/.ckpt; default: the prior that ships."""
    dataset_folder: Path = Path("./data/AMASS/amass_processed")
    """Where a published checkpoint's normaliser is looked for."""
    version: str = "version1"
    """Version folder below --dataset-folder."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    seed: int = 42
    """Same seed, same device, same result."""

    def check(self) -> None:
        """Raises :class:`InputError` for what no picture could mend."""
        lenses = [f"--{name}" for name in ("focal", "exif", "intrinsics") if getattr(self, name)]
        if len(lenses) > 1:
            raise InputError(f"{' and '.join(lenses)}: found {len(lenses)} sources of the focal length, expected one")
        if self.focal is not None and not 1 <= self.focal <= 1e6:
            raise InputError(f"--focal {self.focal}, expected pixels, 1 to 1000000")
        if self.intrinsics is not None:
            existing_file(self.intrinsics, "a camera matrix K")
        if self.layout not in ("auto", *DETECTED):
            raise InputError(f"--layout {self.layout}: not one that detectors use, expected auto, {', '.join(DETECTED)}")
        layouts = DETECTED.values() if self.layout == "auto" else [DETECTED[self.layout]]
        for name in self.ignore:
            if not any(name in layout.joints for layout in layouts):
                raise InputError(f"--ignore {name}: not a keypoint of {self.layout if self.layout != 'auto' else 'any layout'}")

    def camera(self, size: ImageSize, exif: float | None, name: object) -> Camera:
        """Of a picture: focal length and centre (2,), pixels.

        Args:
            exif: focal length that the picture itself tells.
            name: of the picture, for messages.
        """
        if self.intrinsics is not None:
            lens = read_intrinsics(self.intrinsics, size)
            return Camera(torch.tensor(lens.focal), torch.tensor(lens.centre))
        if self.exif and exif is None:
            raise InputError(f"{name}: its EXIF tells no focal length (35 mm equivalent); leave --exif out, or give --focal")
        return Camera.of_size(*size, self.focal or (exif if self.exif else None))


def without(people: Keypoints, names: Sequence[str]) -> Keypoints:
    """The same, those named missing."""
    rows = layout_map(people.layout.joints, names)
    if -1 in rows:
        known = ", ".join(people.layout.joints)
        raise InputError(f"--ignore {names[rows.index(-1)]}: not a keypoint of {people.layout.name}, expected some of {known}")
    points = people.points.copy()
    points[:, list(rows)] = 0
    return replace(people, points=points)


def detector(thorough: bool) -> Detect:
    """What detects people by itself; raises :class:`InputError` at once if it cannot work here.

    Args:
        thorough: look for small people too, which takes several times as long.
    """
    detect = Detector(thorough)
    detect(np.zeros((64, 64, 3), np.uint8))
    return detect


class Fitter:
    """The body, the prior and the settings that a command line asks for."""

    def __init__(self, flags: FitFlags, device: torch.device):
        self.flags, self.device = flags, device
        self.settings = flags.solver(device)
        self.body = BodyModel(flags.bodymodel_path, device, gender=flags.gender)
        file = flags.bodymodel_path
        name = "the open body" if file is None else f"{file.name} ({self.body.kind})"
        self.body_name = f"{name}, which has a shape space of its own" if self.body.shape_space == "own" else name
        self.judge = load_prior(flags.ckpt_path, flags.dataset_folder / flags.version, device)
        self.prior = None if flags.prior == "None" else self.judge

    def fit(self, points: np.ndarray, layout: Layout, camera: Camera, *key: Any, progress: Progress | None = None) -> dict[str, np.ndarray]:
        """People (P, K, 3), fitted by :func:`fit_keypoints`, as :func:`fit_arrays` of P rows each.

        Args:
            camera: of each person, (P, 2).
            key: what the noise is decided by, beside the seed.
        """
        groups = [slice(start, start + TOGETHER) for start in range(0, len(points), TOGETHER)]
        parts = []
        for i, rows in enumerate(groups):
            lens = Camera(camera.focal[rows], camera.centre[rows])
            fit = fit_keypoints(
                self.prior, self.tensor(points[rows]), lens, layout, body=self.body, settings=self.settings,
                generator=self.generator(*key, i), progress=progress,
            )  # fmt: skip
            parts.append(self.arrays(fit, lens))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def arrays(self, fit: MeshFit | TrackFit, camera: Camera) -> dict[str, np.ndarray]:
        """:func:`fit_arrays`, how plausible each pose is, per cent, and a word on each."""
        plausibility = self.plausibility(fit.pose_body)
        tall = (camera.focal.mean(-1).to(fit.trans) * STATURE / fit.trans[:, 2]).cpu().numpy()
        missed = np.nanmean(np.where(np.isnan(fit.residuals.cpu()).all(1, keepdims=True), 0, fit.residuals.cpu()), 1) > MISSED * tall
        words = np.where(missed, "keypoints missed", np.where(plausibility < UNUSUAL, "unusual pose", "fits"))
        return fit_arrays(fit, camera) | {"plausibility": plausibility, "verdict": words}

    def plausibility(self, pose: torch.Tensor) -> np.ndarray:
        """(P,) per cent; NaN where the weights cannot tell."""
        if self.judge.calibration is None:
            return np.full(len(pose), np.nan, np.float32)
        return self.judge.plausibility(pose).score.cpu().numpy()

    @torch.no_grad()
    def surfaces(self, arrays: Mapping[str, np.ndarray], rows: Any = slice(None)) -> np.ndarray:
        """(P, V, 3) metres, in front of the camera: of :func:`fit_arrays`, or some rows of them."""
        pose, root, trans = (self.tensor(arrays[name][rows]) for name in ("body_pose", "global_orient", "transl"))
        betas = self.tensor(arrays["betas"] if arrays["betas"].ndim == 1 else arrays["betas"][rows])
        vertices = self.body(pose, root, betas.expand(len(pose), -1), trans).vertices
        assert vertices is not None
        return vertices.cpu().numpy()

    def usable(self, points: np.ndarray, layout: Layout) -> np.ndarray:
        """(P,) bool: who shows enough keypoints that the body has, of people (P, K, 3)."""
        known = BodyPoints.of_layout(self.body, layout).known.cpu().numpy()
        return ((points[..., 2] > 0) & known).sum(1) >= FEWEST

    def generator(self, *key: Any) -> torch.Generator:
        return keyed_generator(self.device, self.flags.seed, "fit", *key)

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=self.device)

    @cached_property
    def decisive(self) -> dict[str, Any]:
        """What decides the numbers, beside the pictures and their keypoints."""
        flags = self.flags
        return {
            "seed": flags.seed, "prior": flags.prior, "solver": repr(self.settings), "layout": flags.layout, "ignore": sorted(flags.ignore),
            "focal": flags.focal, "exif": flags.exif,
            "intrinsics": None if flags.intrinsics is None else hashlib.sha256(flags.intrinsics.read_bytes()).hexdigest()[:16],
            "device": self.device.type, "weights": digest(self.judge.state_dict().values()), "mixture": mixture_digest(self.settings),
            "body": digest([self.body.v_template, self.body.weights]), "library": __version__,
        }  # fmt: skip


def mixture_digest(settings: FitSettings | SmplifySettings) -> str | None:
    """Fingerprint of the mixture that is the prior, if one is."""
    term = settings.term if isinstance(settings, FitSettings) else None
    return digest(term.mixture.state_dict().values()) if isinstance(term, MixtureTerm) else None


def fit_arrays(fit: MeshFit | TrackFit, camera: Camera) -> dict[str, np.ndarray]:
    """What is written of a fit, by SMPL-X's names; the camera looks along +z, y down."""
    arrays = {
        "global_orient": fit.root_orient, "body_pose": fit.pose_body, "betas": fit.betas, "transl": fit.trans,
        "focal": camera.focal, "centre": camera.centre, "keypoints": fit.keypoints, "residuals": fit.residuals,
    }  # fmt: skip
    return {name: value.cpu().numpy() for name, value in arrays.items()}


def export_meshes(folder: Path, name: str, surfaces: np.ndarray, faces: np.ndarray, formats: Sequence[MeshFormat]) -> None:
    """People (P, V, 3) as ``<name>person<i>.obj`` or ``.ply`` each, or all in one ``<name>people.glb``; y up, as programs for meshes
    expect it, that is, the camera's frame turned by 180° about x."""
    upright = surfaces * np.array([1, -1, -1], surfaces.dtype)
    for suffix in formats:
        if suffix == "glb":
            save_mesh(folder / f"{name}people.glb", upright, faces)
        else:
            for i, surface in enumerate(upright):
                save_mesh(folder / f"{name}person{i}.{suffix}", surface, faces)
