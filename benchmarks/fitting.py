"""How good: bodies from the keypoints of a modelled detector with no prior, with Gaussians and with DPoser, and motions from films."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import roma
import torch
from torch import Tensor

from benchmarks.fitting_data import Detector, People, film
from benchmarks.motion import tell
from benchmarks.motion_data import FPS
from dposer.assets import asset
from dposer.body import BodyModel
from dposer.body.points import BodyPoints, Skeleton
from dposer.body.skeleton import OPENPOSE_25
from dposer.data.amass import AmassSequence
from dposer.data.images import read_photo
from dposer.data.keypoints import read_keypoints
from dposer.files import load_npz
from dposer.geometry.camera import Camera
from dposer.metrics.poses import acceleration_error, mpjpe, pa_mpjpe, root_aligned
from dposer.prior import PosePrior
from dposer.prior.mixture import PoseMixture
from dposer.solvers.mesh_adam import SmplifyResult, SmplifySettings, smplify_settings
from dposer.solvers.mesh_fitting import FitSettings, MeshFit, fit_keypoints
from dposer.solvers.mesh_scores import FIGURES, PUBLISHED_EHF, MeshScores, mesh_scores
from dposer.solvers.pose_terms import EnergyTerm, GaussianTerm, MixtureTerm
from dposer.solvers.video_fitting import TrackSettings, fit_track
from dposer.viz import fit_sheet, save_image, side_colours
from run._report import markdown

CONDITIONS: Mapping[str, Detector] = {
    **{f"{100 * noise:g} % of noise": Detector(noise) for noise in (0.005, 0.01, 0.02, 0.04)},
    "1 % of noise, half of the keypoints missing": Detector(0.01, missing=0.5),
    "1 % of noise, legs hidden": Detector(0.01, hidden="legs"),
}
NONE, GAUSSIAN, MIXTURE, DPOSER = "no prior", "Gaussian", "GMM", "**DPoser, the default**"
ADAM_NONE, ADAM = "the releases' Adam, no prior", "the releases' Adam, DPoser"
GAUSSIAN_WEIGHT, MIXTURE_WEIGHT = 1.0, 0.3
"""Of the two in the place of DPoser: those that `--only fitting_tune` found best on people of validation subjects, over all conditions."""
WEIGHTS = (0.1, 0.3, 0.5, 0.7, 1.0, 1.5)

_CHUNK = 16
"""Surfaces at once."""


@dataclass(frozen=True)
class Models:
    """What bodies are fitted with, and how."""

    prior: PosePrior
    mixture: PoseMixture
    body: BodyModel
    seed: int = 0
    settings: FitSettings = FitSettings()
    track: TrackSettings = TrackSettings()
    releases: SmplifySettings = smplify_settings("paper")

    def gaussian(self, weight: float = GAUSSIAN_WEIGHT) -> GaussianTerm:
        """That of the mixture's training poses."""
        return GaussianTerm(*self.mixture.gaussian(), weight)


@dataclass(frozen=True)
class Bodies:
    """N people, H starts of each: (N, H, ...)."""

    pose_body: Tensor
    root_orient: Tensor
    trans: Tensor
    betas: Tensor
    objective: Tensor

    @classmethod
    def of_people(cls, truth: People) -> "Bodies":
        return cls.of_one(truth, torch.zeros(len(truth)))

    @classmethod
    def of_one(cls, found: MeshFit | SmplifyResult | People, objective: Tensor) -> "Bodies":
        """N people, one start each, with objectives (N,)."""
        parts = (found.pose_body, found.root_orient, found.trans, found.betas, objective)
        return cls(*(part[:, None] for part in parts))

    @property
    def chosen(self) -> "Bodies":
        """The start with the lowest objective, as a user would get it."""
        rows, best = torch.arange(len(self.objective)), self.objective.argmin(1)
        return Bodies(*(part[rows, best][:, None] for part in vars(self).values()))

    def surfaces(self, body: BodyModel) -> Tensor:
        """(N, H, V, 3) metres."""
        vertices = body(*(part.flatten(0, 1) for part in (self.pose_body, self.root_orient, self.betas, self.trans))).vertices
        assert vertices is not None
        return vertices.unflatten(0, self.objective.shape)

    def joints(self, body: BodyModel) -> Tensor:
        """(N, H, 22, 3) metres."""
        parts = (part.flatten(0, 1) for part in (self.pose_body, self.root_orient, self.betas, self.trans))
        return body(*parts, vertices=None, joints="body").joints.unflatten(0, self.objective.shape)

    def split(self) -> list["Bodies"]:
        """In parts small enough for surfaces."""
        return [Bodies(*parts) for parts in zip(*(part.split(_CHUNK) for part in vars(self).values()), strict=True)]


Way = Callable[[Tensor, Camera], Bodies]
"""Keypoints (N, 25, 3) and cameras → bodies."""


def second_order(models: Models, prior: PosePrior | None, term: EnergyTerm | None = None) -> Way:
    """The library's solver from each side alone, so that what is found from each can be told; the start with the lowest objective is what
    :func:`~dposer.solvers.mesh_fitting.fit_keypoints` finds from all of them."""
    return _from(models, prior, [dataclasses.replace(models.settings, term=term, sides=(side,)) for side in models.settings.sides])


def adam(models: Models, prior: PosePrior | None) -> Way:
    """The releases' solver, with the paper's settings and its own starts."""
    return _from(models, prior, [models.releases])


def _from(models: Models, prior: PosePrior | None, starts: Sequence[FitSettings | SmplifySettings]) -> Way:
    def solve(keypoints: Tensor, camera: Camera) -> Bodies:
        found = []
        for settings in starts:
            generator = torch.Generator().manual_seed(models.seed)
            fit = fit_keypoints(prior, keypoints, camera, body=models.body, settings=settings, generator=generator)
            found.append(Bodies.of_one(fit, fit.objective.amin(1)))
        return Bodies(*(torch.cat(parts, 1) for parts in zip(*(vars(one).values() for one in found), strict=True)))

    return solve


def contenders(models: Models) -> dict[str, Way]:
    return {
        NONE: second_order(models, None),
        GAUSSIAN: second_order(models, models.prior, models.gaussian()),
        MIXTURE: second_order(models, models.prior, MixtureTerm(models.mixture, MIXTURE_WEIGHT)),
        DPOSER: second_order(models, models.prior),
        ADAM_NONE: adam(models, None),
        ADAM: adam(models, models.prior),
    }


# ---- scores ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """Of N people."""

    meshes: MeshScores
    """(N, H)."""
    reprojection: Tensor
    """(N,) pixels from the detected keypoints, mean over these."""
    height: Tensor
    """(N,) pixels."""

    def columns(self) -> dict[str, Tensor]:
        """Name of a column → its values (N,), or none."""
        errors, starts = self.meshes.chosen(), self.meshes.objective.shape[1]
        several = starts > 1
        return {
            **{f"{name} mm": errors[name] for name in FIGURES},
            "reprojection px": self.reprojection,
            "‰ of height": 1000 * self.reprojection / self.height,
            "PA-MPJPE mm, one start": self.meshes.pa_mpjpe[:, 0] if several else torch.zeros(0),
            "PA-MPJPE mm, best of all starts": self.meshes.best()["PA-MPJPE"] if several else torch.zeros(0),
        }

    @property
    def main(self) -> Tensor:
        """(N,) PA-MPJPE, mm."""
        return self.meshes.chosen()["PA-MPJPE"]


def scored(models: Models, truth: People, keypoints: Tensor, found: Bodies) -> Scores:
    parts = []
    for some, real in zip(found.split(), Bodies.of_people(truth).split(), strict=True):
        parts.append(mesh_scores(models.body, some.surfaces(models.body), real.surfaces(models.body)[:, 0], some.objective).arrays())
    missed = torch.linalg.vector_norm(misses(models.body, keypoints, truth.camera, found), dim=-1).nanmean(1)
    return Scores(MeshScores.from_arrays(parts), missed, truth.height)


def misses(body: BodyModel, keypoints: Tensor, camera: Camera, found: Bodies) -> Tensor:
    """(N, 25, 2) pixels from the detected keypoints to those of the chosen bodies, NaN where none was detected."""
    return torch.where(keypoints[..., 2:] > 0, _seen(body, camera, found) - keypoints[..., :2], torch.nan)


def _seen(body: BodyModel, camera: Camera, found: Bodies) -> Tensor:
    """(N, 25, 2) pixels: where the chosen bodies have OpenPose's keypoints."""
    pose, root, trans, betas = (part[:, 0] for part in list(vars(found.chosen).values())[:4])
    return camera.project(BodyPoints.of_layout(body, OPENPOSE_25)(Skeleton(body)(pose, roma.rotvec_to_rotmat(root), trans, betas), betas))


# ---- people ------------------------------------------------------------------------------------------------------------


def fitting(models: Models, truth: People, conditions: Mapping[str, Detector] = CONDITIONS) -> str:
    """Every way under every condition."""
    ways, pages, summary = contenders(models), [], []
    for name, detector in conditions.items():
        keypoints = truth.detected(detector, models.seed)
        rows = {}
        for way, solve in ways.items():
            start = time.perf_counter()
            found = solve(keypoints, truth.camera)
            duration = time.perf_counter() - start
            rows[way] = scored(models, truth, keypoints, found)
            tell(f"{name}, {way}: PA-MPJPE {_told(rows[way].main)} mm, {duration:.0f} s")
        summary.append([name, *(_told(scores.main) for scores in rows.values())])
        pages += [f"### {name[0].upper()}{name[1:]}", _table(rows), _margins(rows), _beaten(rows)]
    published = PUBLISHED_EHF["from scratch"]
    paper = {NONE: "no prior", MIXTURE: "GMM", DPOSER: "DPoser"}
    summary.append(["published, EHF", *(f"{published[paper[way]]['PA-MPJPE']:.2f}" if way in paper else "-" for way in ways)])
    return "\n\n".join([_note(models, truth), "PA-MPJPE, mm:", markdown(["", *ways], summary), *pages])


def _note(models: Models, truth: People) -> str:
    one = Detector()
    return (
        f"{len(truth)} poses of held-out subjects, each on a body with a shape of its own, seen from anywhere around it and from 2.5 m on; "
        "the camera is known. OpenPose's 25 keypoints err by the share of the person's height that is told, along each axis and on the "
        "average over kinds of keypoints, whose proportions are those of COCO's annotators (the solver reckons with these); in all tables "
        f"{100 * one.gross:g} % of them are off by {100 * one.gross_size:g} % of the height, {100 * one.missing:g} % are missing "
        f"where nothing else is told, and {100 * one.swapped:g} % of the people have left and right of a limb swapped. Confidences hardly "
        "tell. Errors in mm, ± their standard error over people: of the 22 joints regressed from the surface (MPJPE) and of the surface "
        "(PVE), after the best similarity (PA-) or with the pelvises in one place. Reprojection: from the detected keypoints. Every person "
        f"is begun from {len(models.settings.sides)} sides, and the start with the lowest objective is taken; one start: only that which "
        "faces the camera; best of all starts: by the truth. The last column: in how many people the default's PA-MPJPE is lower.\n\n"
        "- no prior: the second-order solver with keypoints and shape alone.\n"
        "- Gaussian, GMM: the same with a Gaussian, or a mixture of eight as SMPLify has it, of DPoser's training poses in the place of "
        f"the network. Their weights ({GAUSSIAN_WEIGHT:g} and {MIXTURE_WEIGHT:g}) were chosen on people of validation subjects over all "
        "conditions, as the default's settings were.\n"
        "- DPoser, the default: what `fit_keypoints` does.\n"
        "- the releases' Adam: their staged optimiser with the paper's settings, from their own starts, and turned about where the "
        "shoulders are narrow."
    )


def _told(values: Tensor, digits: int = 1) -> str:
    """Mean ± its standard error."""
    if len(values) < 2:
        return f"{float(values):.{digits}f}" if len(values) else "-"
    return f"{float(values.mean()):.{digits}f} ± {float(values.std()) / math.sqrt(len(values)):.{digits}f}"


def _table(rows: Mapping[str, Scores]) -> str:
    default, lines = rows[DPOSER].main, []
    for name, scores in rows.items():
        nearer = "" if name == DPOSER else f"{int((default < scores.main).sum())} of {len(default)}"
        lines.append([name, *(_told(values) for values in scores.columns().values()), nearer])
    return markdown(["", *rows[DPOSER].columns(), "the default is nearer in"], lines)


def _margins(rows: Mapping[str, Scores]) -> str:
    """What the prior brings, as measured and as published."""
    published = {name: row["PA-MPJPE"] for name, row in PUBLISHED_EHF["from scratch"].items()}
    pairs = [(NONE, DPOSER, "no prior"), (GAUSSIAN, DPOSER, None), (MIXTURE, DPOSER, "GMM"), (ADAM_NONE, ADAM, "no prior")]
    lines = []
    for before, after, paper in pairs:
        change = _change(float(rows[before].main.mean()), float(rows[after].main.mean()))
        gain = rows[before].main - rows[after].main
        line = f"- {before} → {after}: {change}, {_told(gain)} mm nearer"
        lines.append(line if paper is None else f"{line}; published: {_change(published[paper], published['DPoser'])}")
    return "\n".join(["PA-MPJPE:", "", *lines])


def _change(before: float, after: float) -> str:
    return f"{before:.1f} → {after:.1f} mm ({100 * (after / before - 1):+.0f} %)"


def _beaten(rows: Mapping[str, Scores]) -> str:
    """Where the default is not best, reprojection apart, which is best without a prior."""
    better = []
    for column in (f"{name} mm" for name in FIGURES):
        default = float(rows[DPOSER].columns()[column].mean())
        names = [name for name, scores in rows.items() if float(scores.columns()[column].mean()) < default]
        if names:
            better.append(f"{column.removesuffix(' mm')} by {'; '.join(names)}")
    return f"The default is beaten in: {'. In: '.join(better)}." if better else "The default has the lowest errors in space."


def tune(models: Models, truth: People, weights: Sequence[float] = WEIGHTS, conditions: Mapping[str, Detector] = CONDITIONS) -> str:
    """Weights of the Gaussian and of the mixture, on people who are not those of the tables."""
    terms: dict[str, Callable[[float], EnergyTerm]] = {
        GAUSSIAN: models.gaussian,
        MIXTURE: lambda weight: MixtureTerm(models.mixture, weight),
    }
    ways = {
        f"{name}, weight {weight:g}": second_order(models, models.prior, term(weight)) for name, term in terms.items() for weight in weights
    }
    rows = []
    for name, solve in {**ways, DPOSER: second_order(models, models.prior)}.items():
        errors = [_quick(models, truth, truth.detected(detector, models.seed), solve) for detector in conditions.values()]
        rows.append([name, *(f"{error:.1f}" for error in errors), f"{sum(errors) / len(errors):.1f}"])
        tell(" ".join(rows[-1]))
    return f"PA-MPJPE, mm, of {len(truth)} people of validation subjects.\n\n{markdown(['', *conditions, 'mean'], rows)}"


def _quick(models: Models, truth: People, keypoints: Tensor, solve: Way) -> float:
    """Mean PA-MPJPE of the body's own joints, mm."""
    joints = solve(keypoints, truth.camera).chosen.joints(models.body)[:, 0]
    return 1000 * float(pa_mpjpe(joints, truth.joints).mean())


# ---- films -------------------------------------------------------------------------------------------------------------


FILM_CONDITIONS: Mapping[str, Detector] = {
    "1 % of noise, anew in every frame": Detector(0.01),
    "1 % of noise that lasts": Detector(0.01, lasting=0.8),
}
ALONE, TRACK, TRUTH = "frame by frame", "**`fit_track`**", "the true bodies"
_FILM_COLUMNS = {
    "acceleration error mm/frame²": 2,
    "the same about the pelvis": 2,
    "PA-MPJPE mm": 1,
    "MPJPE mm": 1,
    "reprojection px": 2,
    "from the true keypoints px": 2,
    "s per film": 1,
}


def video(models: Models, clips: Sequence[AmassSequence], conditions: Mapping[str, Detector] = FILM_CONDITIONS) -> str:
    """Motions fitted as such, beside each frame for itself."""
    films, pages = [film(clip, models.body, models.seed + i) for i, clip in enumerate(clips)], []
    for name, detector in conditions.items():
        values: dict[str, list[list[float]]] = {ALONE: [], TRACK: []}
        true: list[float] = []
        for i, (clip, truth) in enumerate(zip(clips, films, strict=True)):
            keypoints = truth.detected(detector, models.seed + i, film=True)
            true.append(float(torch.linalg.vector_norm(keypoints[..., :2] - truth.pixels, dim=-1)[keypoints[..., 2] > 0].mean()))
            for way, rows in values.items():
                rows.append(_film_figures(models, clip, truth, keypoints, way == TRACK))
                tell(f"{name}, film {i + 1} of {len(films)}, {way}: {' '.join(f'{value:.2f}' for value in rows[-1])}")
        figures = {way: torch.tensor(rows) for way, rows in values.items()}
        lines = []
        for way, table in figures.items():
            lines.append([way, *(_told(column, digits) for column, digits in zip(table.T, _FILM_COLUMNS.values(), strict=True))])
        residual = list(_FILM_COLUMNS).index("reprojection px")
        lines.append([TRUTH, *(_told(torch.tensor(true), 2) if i == residual else "-" for i in range(len(_FILM_COLUMNS)))])
        margin = _film_margin(figures[ALONE], figures[TRACK])
        left = float(figures[ALONE][:, residual].mean()), sum(true) / len(true)
        said = "follow the noise" if left[0] < left[1] else "stay away from the keypoints"
        margin += f"\n\nThe detector's errors are {left[1]:.2f} px; fits frame by frame, at {left[0]:.2f} px, {said}."
        pages += [f"### {name[0].upper()}{name[1:]}", markdown(["", *_FILM_COLUMNS], lines), margin]
    frames = " or ".join(str(count) for count in sorted({len(clip) for clip in clips}))
    note = (
        f"{len(clips)} films of {frames} frames, {FPS:g} a second, of motions of held-out subjects before a camera at rest. The detector "
        f"errs as for single people; {100 * Detector().missing:g} % missing and {100 * Detector().gross:g} % gross are drawn anew in every "
        "frame, and where noise lasts, errors of neighbouring frames are correlated by 0.8. Frame by frame: `fit_keypoints` of all frames "
        "in one batch. Acceleration errors are those of 22 joints in the camera's axes, and of the same relative to the pelvis; "
        "reprojection is from the detected keypoints, and from where they truly are; ± is the standard error over films. "
        f"{torch.get_num_threads()} threads."
    )
    return "\n\n".join([note, *pages])


def _film_figures(models: Models, clip: AmassSequence, truth: People, keypoints: Tensor, track: bool) -> list[float]:
    """By the names of _FILM_COLUMNS."""
    generator, start = torch.Generator().manual_seed(models.seed), time.perf_counter()
    if track:
        rate = clip.fps or FPS
        motion = fit_track(models.prior, keypoints, truth.camera, fps=rate, body=models.body, settings=models.track, generator=generator)
        betas = motion.betas.expand(len(truth), -1)
        found, seen, residuals = (motion.pose_body, motion.root_orient, betas, motion.trans), motion.keypoints, motion.residuals
    else:
        fit = fit_keypoints(models.prior, keypoints, truth.camera, body=models.body, settings=models.settings, generator=generator)
        found, seen, residuals = (fit.pose_body, fit.root_orient, fit.betas, fit.trans), fit.keypoints, fit.residuals
    duration = time.perf_counter() - start
    joints = models.body(*found, vertices=None, joints="body").joints
    still, true_still = root_aligned(joints), root_aligned(truth.joints)
    distances = [acceleration_error(joints, truth.joints), acceleration_error(still, true_still)]
    distances += [pa_mpjpe(joints, truth.joints).mean(), mpjpe(still, true_still).mean()]
    away = torch.linalg.vector_norm(seen - truth.pixels, dim=-1)
    return [*(1000 * float(distance) for distance in distances), float(residuals.nanmean()), float(away.mean()), duration]


def _film_margin(alone: Tensor, track: Tensor) -> str:
    """Both (films, columns)."""
    lines = []
    for column, name in enumerate(_FILM_COLUMNS):
        before, after = float(alone[:, column].mean()), float(track[:, column].mean())
        lower = int((track[:, column] < alone[:, column]).sum())
        change = f"{after / before:.2f} of that frame by frame ({100 * (after / before - 1):+.1f} %)"
        lines.append(f"- {name}: {change}, lower in {lower} of {len(alone)} films")
    return "\n".join(lines)


# ---- pictures ----------------------------------------------------------------------------------------------------------

EXAMPLES: Mapping[str, float | None] = {"photographer": None, "rendered": 700.0, "rendered_two": 700.0}
"""Name of the example → its focal length in pixels; None: nobody knows, the diagonal is taken."""


def pictures(models: Models, folder: Path) -> str:
    """The examples that ship, each on a sheet in ``folder``."""
    rows = []
    for name, focal in EXAMPLES.items():
        photo = read_photo(asset("examples", f"{name}.jpg"))
        people = read_keypoints(asset("examples", f"{name}_keypoints.json"), image_size=photo.size)
        camera = Camera.of_size(*photo.size, focal)
        found = _from(models, models.prior, [models.settings])(torch.as_tensor(people.points, dtype=torch.float32), camera)
        surfaces, points = found.surfaces(models.body)[:, 0], torch.as_tensor(people.points, dtype=torch.float32)
        away = misses(models.body, points, camera, found)
        residual = torch.linalg.vector_norm(away, dim=-1)[points[..., 2] > 0].mean()
        lens = tuple(camera.focal.tolist()), tuple(camera.centre.tolist())
        seen = _seen(models.body, camera, found).numpy()
        layout = people.layout
        colours = side_colours(layout.joints)
        sheet = fit_sheet(
            photo.pixels, surfaces.numpy(), models.body.faces, *lens, people.points, seen, layout.edges, point_colours=colours
        )
        save_image(folder / f"{name}.jpg", sheet)
        rows.append([f"`{name}.jpg`", len(people), f"{float(residual):.1f}", *_against_truth(models, name, found)])
    header = ["", "people", "residual px", "PA-MPJPE mm", "distance m, found / true"]
    images = "\n\n".join(f"![{name}]({folder.name}/{name}.jpg)" for name in EXAMPLES)
    return f"The examples that ship.\n\n{markdown(header, rows)}\n\n{images}"


def _against_truth(models: Models, name: str, found: Bodies) -> list[str]:
    """Where it is known."""
    distances = found.trans[:, 0, 2]
    file = asset("examples", f"{name}_keypoints.json").with_name(f"{name}_truth.npz")
    if not file.is_file():
        return ["-", ", ".join(f"{distance:.2f}" for distance in distances)]
    truth = load_npz(file, "the truth of a rendered picture", ("joints", "trans"))
    errors = 1000 * pa_mpjpe(found.joints(models.body)[:, 0], torch.as_tensor(truth["joints"][:, :22], dtype=torch.float32))
    pairs = zip(distances.tolist(), truth["trans"][:, 2], strict=True)
    return [", ".join(f"{error:.1f}" for error in errors), ", ".join(f"{one:.2f} / {other:.2f}" for one, other in pairs)]
