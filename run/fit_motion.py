"""Fit a body in motion to 3D joints or markers, noisy and full of holes as they may be.

    python -m run.fit_motion                                                  # the shipped example
    python -m run.fit_motion --joints walk.csv --layout h36m17 --fps 50
    python -m run.fit_motion --joints walk.c3d --layout markers.json --export npz bvh glb mp4
    python -m run.fit_motion --joints walk_stageii.npz --layout markers.json --bodymodel-path SMPLX_NEUTRAL.npz

Read are .npz, .npy, .csv, .trc and .c3d (dposer/data/points.py says how), with holes as NaN, blank cells or confidence 0. Unit, up axis
and noise are found out where no flag says them, and told. Written are the motion (.npz as in AMASS, .bvh, .glb), a film with a
contact sheet (.mp4, _sheet.png), the residuals of every frame (_residuals.csv) and every figure and assumption (.json).

A marker layout is {"model": "smplx", "markers": {"LFHD": {"vertex": 707}, "LWRA": {"joint": "left_wrist", "offset": [0, 0.02, 0]}}} or
one of MoSh++ or SOMA.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dposer import __version__
from dposer.assets import asset
from dposer.body import BodyModel
from dposer.body.points import BodyPoints, Place, Skeleton, layout_places
from dposer.body.skeleton import LAYOUTS, SMPLX_22, Layout
from dposer.data.amass import AmassSequence, read_amass, read_betas, write_amass
from dposer.data.bvh import write_bvh
from dposer.data.markers import MarkerLayout, arrange_markers, marker_places, read_markers
from dposer.data.points import PointSequence, arrange, check_sequence, read_points
from dposer.data.smplx_motion import local_quaternions, smplx_motion
from dposer.data.upright import Unit, Up, detect_convention
from dposer.errors import InputError
from dposer.files import load_npz, save_json
from dposer.prior.config import PriorConfig
from dposer.prior.pose_prior import PosePrior
from dposer.solvers.fitting_scores import Spread, doubts, seen_jitter, surface_gap
from dposer.solvers.motion_fitting import MotionFit, estimate_noise, fit_motion
from dposer.viz import save_image, write_video
from dposer.viz.gltf import save_animation
from dposer.viz.motion import MeshLayer, Pane, PointLayer, Stage, film, film_sheet, heading, lowest
from dposer.viz.render import view_rotation
from dposer.viz.skeletons import LEFT, side_colours
from run._cli import cli, load_prior, pick_device, progress_bar, step_bar, table, writable_folder
from run._report import machine, save_csv

Export = Literal["npz", "bvh", "glb", "mp4"]

_FPS = 30.0
"""What a file without a frame rate is taken to have, and about what a film has."""
_LONG_TABLE = 40
_SURFACE_FRAMES = 200
"""Frames, spread over the sequence, in which distances to the surface are measured."""
_CHUNK = 32
_MARKER = 0.015
"""Radius of a marker in pictures, metres."""


@dataclass
class Args:
    joints: Path | None = None
    """Joints or markers over time: .npz, .npy, .csv, .trc or .c3d; default: examples/noisy_joints.npz."""
    layout: str = SMPLX_22.name
    """What the points are: smplx22, smplx, h36m17, coco17, openpose25, mpi_inf_3dhp17, blazepose33, or a marker layout (.json)."""
    key: str | None = None
    """The array of an .npz; default: joints, keypoints, points, positions, markers and the like."""
    fps: float | None = None
    """Frames per second; default: as the file says, else 30."""
    unit: Unit = "auto"
    """Of the file; auto goes by the size of the person."""
    up: Up = "auto"
    """The axis of the file that points up; auto goes by the person's stance."""
    noise_std: float | None = None
    """Standard deviation of the points' errors in millimetres, along each axis; default: estimated."""
    prior: bool = True
    """--no-prior fits by the points and smoothness alone."""
    gender: Literal["neutral", "female", "male"] = "neutral"
    """Which body to take from a folder."""
    betas: Path | None = None
    """The person's shape if it is known: an .npz with betas; default: solved for."""
    bodymodel_path: Path | None = None
    """SMPL-X, SMPL-H or SMPL file; default: the open body that ships."""
    ckpt_path: Path | None = None
    """Weights: a .safetensors of this library or a published .pth/.ckpt; default: the prior that ships."""
    config: PriorConfig | None = None
    """A recipe file, as other commands have it; nothing is read from it, the network's settings come with the weights."""
    dataset_folder: Path = Path("./data/AMASS/amass_processed")
    """Where a published checkpoint's normaliser is looked for."""
    version: str = "version1"
    """Version folder below --dataset-folder."""
    window: int = 120
    """Frames that are solved for at once; the next window takes over a quarter of them."""
    output: Path = Path("./output/fit_motion")
    """Where results go, named after --joints."""
    export: tuple[Export, ...] = ("npz", "bvh", "mp4")
    """What to write: npz (AMASS), bvh, glb (animated mesh), mp4 (film and contact sheet)."""
    view: str = "front"
    """front, back, left or right of the person in the first frame, with half (45 degrees), above or bottom, e.g. left_half_above."""
    faster: bool = False
    """Smaller pictures."""
    max_frames: int = 300
    """Frames of the film."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    seed: int = 42
    """Same seed, same device, same result."""


def main(args: Args) -> None:
    """Read, fit, tell, write."""
    path = _checked(args)
    device = pick_device(args.device)
    torch.set_num_threads(1)  # of a window's small products two threads make no faster work, and on a busy machine far slower
    betas = np.zeros(0) if args.betas is None else _known_part(read_betas(args.betas))
    body = BodyModel(args.bodymodel_path, device, num_betas=_count(betas), gender=args.gender)
    prior = load_prior(args.ckpt_path, args.dataset_folder / args.version, device)
    measured = measure(path, args, body)
    print("\n".join([f"{path}: {len(measured)} frames of {len(measured.names)} points", *measured.notes]) + "\n")
    fit = fit_motion(
        prior if args.prior else None,
        torch.as_tensor(measured.sequence.points, dtype=torch.float32, device=device),
        measured.what,
        confidence=torch.as_tensor(measured.sequence.confidence, dtype=torch.float32, device=device),
        fps=measured.fps,
        body=body,
        betas=torch.as_tensor(betas, dtype=torch.float32, device=device) if args.betas else None,
        noise_std=None if args.noise_std is None else args.noise_std / 1000,
        window=args.window,
        overlap=args.window // 4,
        generator=torch.Generator(device).manual_seed(args.seed),
        progress=step_bar("fitting"),
    )
    fitted = Fitted(args, body, measured, fit)
    report = fitted.report(prior)
    _tell(report)
    _write(fitted, path, report)


def _checked(args: Args) -> Path:
    """The file to read; a wrong flag is told before the work."""
    bounds = {"fps": (1e-3, 1e5), "noise_std": (1e-3, 1e3), "window": (8, 100_000), "max_frames": (1, 10_000_000)}
    for name, (least, most) in bounds.items():
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            raise InputError(f"--{name.replace('_', '-')} {value}, expected {least:g} to {most:g}")
    if "random" in args.view:
        raise InputError(f"--view {args.view}: a film has one view, expected front, back, left or right, with half, above or bottom")
    view_rotation(args.view)
    path = args.joints or asset("examples", "noisy_joints.npz")
    writable_folder(args.output)
    if "npz" in args.export and (args.output / f"{path.stem}.npz").resolve() == path.resolve():
        raise InputError(f"--output {args.output}: the result would take the place of {path}; choose another folder")
    return path


def _known_part(betas: np.ndarray) -> np.ndarray:
    """Without the zeros that fill a row of coefficients up."""
    return np.trim_zeros(betas, "b") if betas.any() else betas[:1]


def _count(betas: np.ndarray) -> int:
    """How many coefficients a body needs to take this shape."""
    return max(10, len(_known_part(betas)))


@dataclass(frozen=True)
class Actor:
    """A body in motion."""

    body: BodyModel
    sequence: AmassSequence

    @cached_property
    def shape(self) -> Tensor:
        """(1, S)."""
        return self._tensor(_known_part(self.sequence.betas)[None])

    @torch.no_grad()
    def surfaces(self, frames: np.ndarray) -> np.ndarray:
        """(N, V, 3) metres at N frames."""
        motion = self.sequence
        parts = []
        for rows in np.split(frames, range(_CHUNK, len(frames), _CHUNK)):
            pose, root, trans = (self._tensor(values[rows]) for values in (motion.pose_body, motion.root_orient, motion.trans))
            parts.append(_array(self.body(pose, root, self.shape, trans).vertices))
        return np.concatenate(parts)

    def vertices(self, frame: int) -> np.ndarray:
        """(V, 3) metres."""
        return self.surfaces(np.array([frame]))[0]

    @torch.no_grad()
    def at_rest(self) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (V, 3) and joints (J, 3) of the zero pose."""
        pose = self.shape.new_zeros(1, 63)
        return _array(self.body(pose, betas=self.shape).vertices)[0], _array(self.body.rest_joints(self.shape))[0]

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.body.device)


def _array(values: Tensor | None) -> np.ndarray:
    assert values is not None
    return values.cpu().numpy()


# ---- what was measured -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """Points over time, and what they are."""

    sequence: PointSequence
    """Metres, +z up."""
    what: Layout | list[Place]
    names: tuple[str, ...]
    present: list[int]
    """Which of them the body has."""
    markers: MarkerLayout | None
    fps: float
    notes: list[str]
    """What was assumed."""
    own: Actor | None
    """The body that the file itself has for its markers."""

    def __len__(self) -> int:
        return len(self.sequence)


def measure(path: Path, args: Args, body: BodyModel) -> Measured:
    """Read the points and find out what they are, in metres and upright."""
    sequence = read_points(path, args.key)
    what: Layout | list[Place]
    if args.layout.lower().endswith(".json"):
        sequence, markers = arrange_markers(sequence, read_markers(Path(args.layout)))
        with _naming(args.layout):
            places = what = marker_places(markers, body.num_vertices)
            layout, rest = None, _at_rest(body, places)
    elif args.layout.lower() in LAYOUTS:
        layout = what = LAYOUTS[args.layout.lower()]
        sequence, markers, rest = arrange(sequence, layout), None, None
        places = layout_places(body, layout)
    else:
        raise InputError(f"--layout {args.layout} does not exist, expected one of {', '.join(LAYOUTS)} or a marker layout (.json)")
    notes = list(check_sequence(sequence, layout))
    with _naming(path):
        convention = detect_convention(sequence.points, sequence.confidence, layout, args.unit, args.up, sequence.unit, rest)
    fps, rate_notes = _frame_rate(args.fps, sequence.fps)
    names = tuple(place.name for place in places)
    present = [i for i, place in enumerate(places) if place.sources]
    absent = [place.name for place in places if not place.sources]
    notes += [*convention.notes, *rate_notes, *([f"not on this body, and left out: {', '.join(absent)}."] if absent else [])]
    if markers is not None and markers.model is None and args.bodymodel_path is None:
        notes.append("the marker layout names no model: its vertex numbers are taken as those of the open body.")
    own, own_notes = _own_body(path, args, len(sequence), convention.up) if markers is not None else (None, [])
    notes += own_notes
    return Measured(sequence.upright(convention), what, names, present, markers, fps, notes, own)


@contextlib.contextmanager
def _naming(path: Path | str) -> Iterator[None]:
    """Put the file before what is wrong with its content."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _at_rest(body: BodyModel, places: Sequence[Place]) -> np.ndarray:
    """(K, 3) where places are on a body in its rest pose, +y up."""
    zeros = body.v_template.new_zeros(1, 63)
    posed = Skeleton(body)(zeros, torch.eye(3).to(zeros)[None], zeros[:, :3])
    return BodyPoints(body, places)(posed)[0].cpu().numpy()


def _frame_rate(asked: float | None, declared: float | None) -> tuple[float, list[str]]:
    if asked is not None:
        differs = declared is not None and not math.isclose(asked, declared, rel_tol=1e-3)
        return asked, [f"{asked:g} frames per second by --fps, though the file says {declared:g}."] if differs else []
    if declared is not None:
        return declared, []
    return _FPS, [f"the file tells no frame rate: {_FPS:g} frames per second assumed. Give --fps if not."]


def _own_body(path: Path, args: Args, frames: int, up: str) -> tuple[Actor | None, list[str]]:
    """The body that an AMASS file has for its markers, if it has one that can be compared."""
    if path.suffix.lower() != ".npz" or not load_npz(path, "markers", optional=("poses",)):
        return None, []
    try:
        sequence = read_amass(path)
        if len(sequence) != frames or up != "z":
            raise InputError(f"{len(sequence)} frames with +z up, the markers have {frames} with {up} up")
        return Actor(BodyModel(args.bodymodel_path, num_betas=_count(sequence.betas), gender=sequence.gender), sequence), []
    except InputError as error:
        return None, [f"the file's own poses are not compared: {error}."]


# ---- the answer --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fitted:
    """The body that was fitted, what it was fitted to, and the files that come of it."""

    args: Args
    body: BodyModel
    measured: Measured
    fit: MotionFit

    @cached_property
    def actor(self) -> Actor:
        return Actor(self.body, self.fit.amass(self.measured.fps, self.args.gender))

    @cached_property
    def residuals(self) -> Tensor:
        """(F, those of the points that the body has) metres."""
        return self.fit.residuals[:, self.measured.present]

    @property
    def names(self) -> list[str]:
        """Of these points."""
        return [self.measured.names[i] for i in self.measured.present]

    # ---- figures -------------------------------------------------------------------------------------------------------

    def report(self, prior: PosePrior) -> dict[str, Any]:
        """Every figure (lengths in millimetres) and every assumption."""
        fit, measured = self.fit, self.measured
        points = torch.as_tensor(measured.sequence.points, dtype=fit.points.dtype, device=fit.points.device)
        before_after = seen_jitter(points, fit.points)
        scores = None if prior.calibration is None else Spread.of(prior.plausibility(fit.pose_body).score)
        betas = fit.betas if self.args.betas is None else None
        edges = measured.what.edges if isinstance(measured.what, Layout) else ()
        noise = estimate_noise(measured.sequence.points, edges) if self.args.noise_std is None else self.args.noise_std / 1000
        return {
            "joints": measured.sequence.source, "layout": self.args.layout, "frames": len(measured), "fps": measured.fps,
            "notes": measured.notes,
            "noise_std_mm": _mm(fit.noise_std), "noise_estimated": self.args.noise_std is None,
            "prior_times": None if fit.times is None else [round(time, 4) for time in fit.times],
            "residuals_mm": _spread(Spread.of(self.residuals)),
            "points": {name: _spread(Spread.of(column)) for name, column in zip(self.names, self.residuals.T, strict=True)},
            "jitter_mm": None if before_after is None else dict(zip(("measured", "fitted"), map(_mm, before_after), strict=True)),
            "plausibility": None if scores is None else {"mean": round(scores.mean, 1), "median": round(scores.median, 1)},
            "surface_mm": self._surface_gaps(),
            "betas": [round(beta, 4) for beta in self.actor.shape[0].tolist()],
            "doubts": list(doubts(self.residuals, self.names, noise, betas, None if scores is None else scores.median)),
            "flags": {key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(self.args).items()},
            "library": __version__, "machine": machine(self.body.device),
        }  # fmt: skip

    def _surface_gaps(self) -> dict[str, dict[str, float | int | None]]:
        """Of the markers on the skin: mean distances from the fitted surface, and from that of the file's own body."""
        measured = self.measured
        on_skin = [] if measured.markers is None else [(i, m.distance) for i, m in enumerate(measured.markers.markers) if m.joint is None]
        if not on_skin:
            return {}
        columns, heights = [i for i, _ in on_skin], np.array([height for _, height in on_skin])
        frames = np.unique(np.linspace(0, len(measured) - 1, min(_SURFACE_FRAMES, len(measured))).round().astype(int))
        markers = measured.sequence.points[frames][:, columns]
        actors = {"this fit": self.actor} | ({} if measured.own is None else {"the file's own body": measured.own})
        gaps = {name: surface_gap(actor.surfaces(frames), actor.body.faces, markers, heights) for name, actor in actors.items()}
        return {
            name: {"surface": _mm(gap.surface), "expected": _mm(gap.expected), "markers": gap.markers} for name, gap in gaps.items() if gap
        }

    # ---- files ---------------------------------------------------------------------------------------------------------

    def save_npz(self, path: Path) -> str:
        extra = {
            "mocap_framerate": np.array(self.measured.fps),  # as many tools spell it
            "points_measured": self.measured.sequence.points.astype(np.float32),
            "points_fitted": self.fit.points.cpu().numpy(),
            "point_names": np.array(self.measured.names),
        }
        write_amass(path, self.actor.sequence, **extra)
        return "the motion, as in AMASS"

    def save_bvh(self, path: Path) -> str:
        write_bvh(path, smplx_motion(self.actor.sequence, self.actor.at_rest()[1], self.measured.fps))
        return "the motion, for animation programs"

    def save_glb(self, path: Path) -> str:
        body, motion = self.body, self.actor.sequence
        vertices, joints = self.actor.at_rest()
        skeleton = (_array(body.weights), joints, body.parents, local_quaternions(motion), motion.trans)
        save_animation(path, vertices, body.faces, *skeleton, self.measured.fps, names=body.joint_names)
        return "the body in motion"

    def save_mp4(self, path: Path) -> str:
        panes, stage = self._scene()
        step = max(1, round(self.measured.fps / _FPS))
        whole, fps = range(0, len(self.measured), step), self.measured.fps / step
        frames = whole[: self.args.max_frames]
        write_video(path, progress_bar(film(panes, stage, frames), "drawing", len(frames)), fps)
        save_image(path.with_name(f"{path.stem}_sheet.png"), film_sheet(panes, stage, fps=self.measured.fps, columns=2))
        cut = f", its first {len(frames) / fps:.1f} s of {len(whole) / fps:.1f} s (--max-frames)" if len(frames) < len(whole) else ""
        return f"film{cut}; {path.stem}_sheet.png has all at a glance"

    def _scene(self) -> tuple[list[Pane], Stage]:
        """The points, the body, and both."""
        measured, motion = self.measured, self.actor.sequence
        if isinstance(measured.what, Layout):
            points = PointLayer(measured.sequence.points, measured.what.edges, side_colours(measured.names))
        else:
            points = PointLayer(measured.sequence.points, colour=LEFT, radius=_MARKER)
        mesh = MeshLayer(self.actor.vertices, self.body.faces)
        veiled = dataclasses.replace(mesh, opacity=0.6)
        stage = Stage.around(
            self.actor.at_rest()[1][0] + motion.trans,
            floor=lowest([mesh], len(measured)),
            view=self.args.view,
            heading=heading(motion.root_orient[0]),
            size=(192, 192) if self.args.faster else (384, 384),
        )
        return [Pane("measured", [points]), Pane("fitted", [mesh]), Pane("both", [veiled, points])], stage

    def save_residuals(self, path: Path) -> str:
        names, rows = ["frame", "time", *self.names], []
        for frame, values in enumerate((1000 * self.residuals).tolist()):
            cells: Mapping[str, Any] = {name: round(mm, 2) for name, mm in zip(names[2:], values, strict=True) if math.isfinite(mm)}
            rows.append({"frame": frame, "time": round(frame / self.measured.fps, 5), **cells})
        save_csv(path, rows, names)
        return "distance of every point from the body in mm, frame by frame"


def _mm(metres: float) -> float | None:
    """Rounded; None for NaN, which JSON does not know."""
    return round(1000 * metres, 2) if math.isfinite(metres) else None


def _spread(spread: Spread) -> dict[str, float | None]:
    return {name: _mm(getattr(spread, name)) for name in ("mean", "median", "p95")} | {"missing": round(spread.missing, 4)}


# ---- telling and writing -----------------------------------------------------------------------------------------------


def _tell(report: Mapping[str, Any]) -> None:
    """Print the figures."""
    how = "estimated" if report["noise_estimated"] else "given"
    times = report["prior_times"]
    print(f"noise of the points ({how}): {report['noise_std_mm']:.1f} mm along each axis")
    print("no prior" if times is None else f"prior at times {times[0]:.3f} to {times[1]:.3f}")
    points = report["points"]
    shown = list(points)
    if len(points) > _LONG_TABLE:
        shown = sorted(points, key=lambda name: -(points[name]["mean"] or 0))[:_LONG_TABLE]
        print(f"the {_LONG_TABLE} of {len(points)} points with the largest residuals:")
    rows = [_row(name, points[name]) for name in shown]
    print("\n" + table(["residuals in mm", "mean", "median", "95 %", "missing %"], [*rows, _row("all", report["residuals_mm"])]) + "\n")
    if report["plausibility"]:
        print(f"plausibility: {report['plausibility']['mean']:.0f} % of human motion is less ordinary (mean over frames)")
    if report["jitter_mm"]:
        print(f"jitter: {report['jitter_mm']['measured']:.2f} mm/frame³ as measured, {report['jitter_mm']['fitted']:.2f} as fitted")
    if report["surface_mm"]:
        gaps = [[name, f"{gap['surface']:.2f}", f"{gap['expected']:.2f}"] for name, gap in report["surface_mm"].items()]
        print("\n" + table(["markers, mean distance in mm", "from the skin", "from their place above it"], gaps))
    for doubt in report["doubts"]:
        print(f"\ncheck: {doubt}")


def _row(name: str, spread: Mapping[str, float | None]) -> list[str]:
    cells = ["-" if spread[key] is None else f"{spread[key]:.1f}" for key in ("mean", "median", "p95")]
    return [name, *cells, f"{100 * (spread['missing'] or 0):.1f}"]


def _write(fitted: Fitted, path: Path, report: Mapping[str, Any]) -> None:
    """Write the files asked for, and say so."""
    writers = {"npz": fitted.save_npz, "bvh": fitted.save_bvh, "glb": fitted.save_glb, "mp4": fitted.save_mp4}
    names = {f"{path.stem}.{kind}": writers[kind] for kind in fitted.args.export} | {f"{path.stem}_residuals.csv": fitted.save_residuals}
    written = [[name, write(fitted.args.output / name)] for name, write in names.items()]
    save_json(fitted.args.output / f"{path.stem}.json", report)
    written.append([f"{path.stem}.json", "every figure and assumption"])
    print(f"\nwritten to {fitted.args.output}:\n" + table(["file", "what"], written))


if __name__ == "__main__":
    cli(main)
