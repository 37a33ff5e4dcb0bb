"""How fast: people from keypoints, one after another and many at once, beside the original's way; and what memory many take."""

import dataclasses
import statistics
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from torch import Tensor

from benchmarks.fitting import DPOSER, Bodies, Models, Way, adam, misses
from benchmarks.fitting_data import Detector, People
from benchmarks.motion import tell
from benchmarks.motion_speed import SmplxBody, peak
from dposer.body import BodyModel
from dposer.body.model import BodyOutput
from dposer.body.skeleton import OPENPOSE_25, layout_map
from dposer.geometry.camera import Camera
from dposer.metrics.poses import pa_mpjpe
from dposer.solvers.mesh_adam import BodyStart, Places, gmof, solve_smplify, wrong_bending
from dposer.solvers.mesh_fitting import fit_keypoints
from run._report import markdown

ORIGINAL, ADAM = "the original's way: the whole mesh by smplx in each step", "the same steps, keypoints alone"
_DRAWS = 8
"""Of noise, by which the original's objective is told."""


def speed(models: Models, truth: People, few: int = 3, noise: float = 0.01) -> str:
    """One person after another, and all at once; memory; and what is left of the objectives."""
    keypoints = truth.detected(Detector(noise), models.seed)
    table, found = durations(models, truth, keypoints, min(few, len(truth)))
    note = (
        f"People as for `--only fitting`, {100 * noise:g} % of noise, {torch.get_num_threads()} threads. Alone: the median of {few} "
        f"people, one after another, after start-up. The original poses the whole mesh of {models.body.num_vertices} vertices in each of "
        f"its {models.releases.steps * len(models.releases.prior_weights)} steps and takes gradients through it; the same steps on "
        "keypoints alone find the same bodies, so that they stand for it below."
    )
    return "\n\n".join([note, table, memory(models, keypoints, truth.camera), objectives(models, truth, keypoints, found, noise)])


def durations(models: Models, truth: People, keypoints: Tensor, few: int) -> tuple[str, dict[str, Bodies]]:
    """A table, and all people as they are found by those who take them together."""
    ways = {ORIGINAL: original(models), ADAM: adam(models, models.prior), DPOSER: default(models)}
    rows, found, slowest = [], {}, 0.0
    for name, solve in ways.items():
        ones = [slice(i, i + 1) for i in range(few)]
        alone = statistics.median(_timed(solve, keypoints[one], truth.part(one).camera)[0] for one in ones)
        slowest = slowest or alone
        rows.append([name, f"{alone:.2f}", f"{slowest / alone:.1f}×"])
        if name == ORIGINAL:
            rows[-1] += ["-"] * 3
        else:
            duration, found[name] = _timed(solve, keypoints, truth.camera)
            each = duration / len(truth)
            rows[-1] += [f"{each:.3f}", f"{alone / each:.1f}×", f"{slowest / each:.0f}×"]
        tell(" ".join(rows[-1]))
    many = f"{len(truth)} together"
    header = ["", "s per person, alone", "faster", f"s per person, {many}", "faster than alone", "faster than the original's way"]
    return markdown(header, rows), found


def _timed(solve: Way, keypoints: Tensor, camera: Camera) -> tuple[float, Bodies]:
    start = time.perf_counter()
    found = solve(keypoints, camera)
    return time.perf_counter() - start, found


def default(models: Models) -> Way:
    """``fit_keypoints`` as it is."""

    def solve(keypoints: Tensor, camera: Camera) -> Bodies:
        generator = torch.Generator().manual_seed(models.seed)
        fit = fit_keypoints(models.prior, keypoints, camera, body=models.body, settings=models.settings, generator=generator)
        return Bodies.of_one(fit, fit.objective.amin(1))

    return solve


def original(models: Models) -> Way:
    """The releases' solver on the keypoints of a whole mesh."""
    place, settings = mesh_places(models.body), dataclasses.replace(models.releases, start_betas=())  # from the open body's own mean

    def solve(keypoints: Tensor, camera: Camera) -> Bodies:
        generator = torch.Generator().manual_seed(models.seed)
        found = solve_smplify(place, OPENPOSE_25.joints, keypoints, camera, models.prior, settings, generator=generator)
        return Bodies.of_one(found, found.objective.amin(1))

    return solve


def mesh_places(body: BodyModel) -> Places:
    """OpenPose's keypoints of the open body as the package smplx poses it."""
    whole, names = SmplxBody(), body.keypoint_layout.joints
    bones = len(body.parents)
    rows = list(layout_map((*names[:22], *names[bones:]), OPENPOSE_25.joints))
    surface = list(body.keypoint_vertices.values())

    def place(pose_body: Tensor, root_orient: Tensor, trans: Tensor, betas: Tensor) -> Tensor:
        out: BodyOutput = whole(pose_body, root_orient, betas, trans)
        assert out.vertices is not None
        return torch.cat((out.joints, out.vertices[:, surface]), 1)[:, rows]

    return place


def memory(models: Models, keypoints: Tensor, camera: Camera) -> str:
    """Of all people in one batch."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # a process's peak never falls, hence one of its own
        before, after = pool.submit(_peaks, models, keypoints, camera, torch.get_num_threads()).result()
    return f"Peak memory of a process that fits {len(keypoints)} people in one batch: {after:.2f} GB; before the fit: {before:.2f} GB."


def _peaks(models: Models, keypoints: Tensor, camera: Camera, threads: int) -> tuple[float, float]:
    torch.set_num_threads(threads)
    before = peak()
    default(models)(keypoints, camera)
    return before, peak()


# ---- what is left of two objectives ------------------------------------------------------------------------------------


def objectives(models: Models, truth: People, keypoints: Tensor, found: Mapping[str, Bodies], noise: float) -> str:
    """What is left of that of the original and of ours."""
    values = {
        name: {
            "the original's objective": original_objective(models, keypoints, truth.camera, bodies),
            "ours": our_objective(models, keypoints, truth.camera, bodies, noise),
            "PA-MPJPE mm": 1000 * pa_mpjpe(bodies.joints(models.body)[:, 0], truth.joints),
        }
        for name, bodies in found.items()
    }
    figures = list(values[DPOSER])
    rows = []
    for name, row in values.items():
        lower = "" if name == DPOSER else ", ".join(str(int((values[DPOSER][figure] < row[figure]).sum())) for figure in figures)
        rows.append([name, *(f"{float(row[figure].mean()):.1f} ({float(row[figure].median()):.1f})" for figure in figures), lower])
    note = (
        "What is left, mean (median) over all people: of the original's objective with the weights and the time of its last step, the "
        "noise of its prior's term the same for both; of ours, with the noise of keypoints as it is; and the error of the body's own "
        f"joints. The last column: in how many of the {len(truth)} people each is lower by the default."
    )
    return f"{note}\n\n{markdown(['', *figures, 'lower by the default in'], rows)}"


@torch.no_grad()
def original_objective(models: Models, keypoints: Tensor, camera: Camera, bodies: Bodies) -> Tensor:
    """(N,) of :mod:`dposer.solvers.mesh_adam`, as it is at the last step."""
    settings, best, confidence = models.releases, bodies.chosen, keypoints[..., 2]
    pose, betas = best.pose_body[:, 0], best.betas[:, 0]
    counted = confidence.square() * torch.tensor([name not in settings.ignored for name in OPENPOSE_25.joints])
    error = misses(models.body, keypoints, camera, bodies).nan_to_num(0)
    random = torch.Generator().manual_seed(models.seed)
    last = settings.time.times(settings.steps * len(settings.prior_weights), random)[-1].item()
    prior = torch.stack([models.prior.loss(pose, last, generator=random, weighting=settings.weighting) for _ in range(_DRAWS)]).mean(0)
    total = (counted * gmof(error, settings.robust).sum(-1)).sum(1) + settings.prior_weights[-1] ** 2 * prior
    return total + settings.angle_weights[-1] ** 2 * wrong_bending(pose) + settings.shape_weights[-1] ** 2 * betas.square().sum(-1)


def our_objective(models: Models, keypoints: Tensor, camera: Camera, bodies: Bodies, noise: float) -> Tensor:
    """(N,) of :mod:`dposer.solvers.mesh_fitting`: that of a fit which begins there and takes no step."""
    best = bodies.chosen
    start = BodyStart(best.pose_body[:, 0], best.root_orient[:, 0], best.trans[:, 0], best.betas[:, 0])
    settings = dataclasses.replace(models.settings, steps=0, noise=noise)
    return fit_keypoints(models.prior, keypoints, camera, body=models.body, initial=start, settings=settings).objective[:, 0]
