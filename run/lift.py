"""Lift the 2D keypoints of a clip to 3D: several hypotheses of every pose, and one made of them.

    python -m run.lift                                                       # the shipped example, beside its truth
    python -m run.lift --input keypoints.json --output out                   # OpenPose, COCO, AlphaPose, MMPose, MediaPipe, ...
    python -m run.lift --input walk_keypoints --video walk.mp4 --focal 1200  # a folder with a file a frame, drawn over its video
    python -m run.lift --video walk.mp4                                      # keypoints are detected (extra: detect)
    python -m run.lift --method d3dp -n 5 --sampling-timesteps 5 --aggregate joint
    python -m run.lift --input clip.npz --layout h36m17 --smplx              # and a SMPL-X body fitted to it
    python -m run.lift --method graformer --refine single-graph
    python -m run.lift --hide left_arm --hide-frames 10:40                   # as if something stood before it
    python -m run.lift --method diffpose --photo photo.jpg                   # 200 hypotheses of one picture, with a page to turn them
    python -m run.lift --method diffpose --heatmaps maps.npz --smplx --rank  # of heatmaps (16, h, w) or (F, 16, h, w)

Read are the formats of dposer/data/keypoints.py, and arrays: .npy or .npz ("keypoints", optionally "fps", "image_size" and "layout") of
shape (F, K, 2 or 3), pixels and confidence. Written are, after the name of the input and _lifted:

    .npz             hypotheses (H, F, J, 3), poses (F, J, 3) made of them, both in metres relative to the pelvis, in the camera's axes
                     (x right, y down, z away); root (F, 3), where the pelvis is; spread (F, J) metres; keypoints (F, J, 3) as lifted and
                     filled (F, J), which of them were missing; joint_names, parents, frames, fps, image_size, focal, centre, method,
                     aggregate, seed
    .mp4             the keypoints beside the hypotheses in space, seen from the camera and from the side; _sheet.png at a glance
    _spread.png      how far hypotheses are apart; _hypotheses.png all of them in one frame
    _page.html       hypotheses to be turned in a browser, with their consensus (F, J, 3), representatives (F, k, J, 3) and their
                     weights (F, k), and ambiguous joints (F, J), all of which .npz then has too; _answer.png: heatmaps and hypotheses
                     of one frame (diffpose, or --page)
    _smplx.npz       the body in motion, z up, as in AMASS (--smplx); of a picture, bodies before the camera: of the consensus (row 0)
                     and of the representatives
    .json            every figure and assumption
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import roma
import torch
import tyro

from dposer import __version__
from dposer.assets import asset
from dposer.body import BodyModel
from dposer.body.points import BodyPoints, Skeleton
from dposer.body.skeleton import Layout, layout_map
from dposer.data.amass import write_amass
from dposer.data.intrinsics import read_intrinsics
from dposer.data.keypoints import ImageSize
from dposer.data.points import read_points
from dposer.data.video import Video, open_video
from dposer.errors import InputError
from dposer.files import existing_file, finite, load_npz, save_json, save_npz
from dposer.geometry.lens import Lens
from dposer.lifting import Lifted, Lifter
from dposer.lifting.config import LiftingConfig, Method
from dposer.lifting.consensus import Choice
from dposer.lifting.hypotheses import joint_agg, joint_best, pose_best, solve_root
from dposer.lifting.inputs import resample_keypoints, resample_rate, to_layout
from dposer.lifting.model import MAX_BATCH
from dposer.lifting.occlusion import named_joints
from dposer.metrics.poses import distances, mpjpe, pa_mpjpe, root_aligned
from dposer.prior.pose_prior import PosePrior
from dposer.solvers.motion_fitting import fit_motion
from dposer.viz import contact_sheet, save_image
from dposer.viz.lifting import LiftingFilm, draw_hypotheses, plot_spread
from dposer.viz.video import save_film
from run._answer import Answer
from run._cli import cli, load_prior, pick_device, progress_bar, step_bar, table, writable_folder
from run._keypoints import LAYOUTS, detect_person, guessed_size, read_person
from run._picture import read_heatmaps, read_picture
from run._report import machine

_FPS = 30.0
_SAME_RATE = 0.02
"""Rates that differ by less than this share are taken for one."""
_SOME, _MANY = 20, 200
"""Hypotheses by default, and where heatmaps tell what is left open."""
_SHOWN = 50
"""Hypotheses in a film."""
_SHEET = 8
"""Frames on a sheet."""
_TALL = (0.3, 3.5)
"""Metres that a person may span."""


@dataclass
class Args:
    input: Path | None = None
    """2D keypoints: a file, or a folder with a file for each frame; default: examples/walk_keypoints, or detected in --video."""
    video: Path | None = None
    """The video they were found in, to draw them on; it also tells frame rate and picture size."""
    method: Method = "ddhpose"
    """Whose shipped weights to use: lifters that draw hypotheses of motions (ddhpose, d3dp, diffhpe, diffhpe-2d) or of single frames with
    all that heatmaps leave open (diffpose), that do not draw (mixste, graformer), and refiners with the lifter they come with
    (cross-channel, single-graph)."""
    checkpoint: Path | None = None
    """Weights in place of those (.safetensors of this library)."""
    refine: str = ""
    """Refine every pose by cross-channel or single-graph, or by such weights of your own (a file)."""
    photo: Path | None = None
    """A picture of one person instead; keypoints are those of --input, or detected (extra: detect)."""
    heatmaps: Path | None = None
    """Heatmaps of one person instead: .npy (16, h, w) or (F, 16, h, w), or .npz with "heatmaps" and optionally "box" (left, top and side in
    pixels), "image_size" and "focal" (diffpose)."""
    hrnet: Path | None = None
    """Weights of HRNet-W32 with MPII's 16 joints, to make heatmaps of --photo (diffpose): fine_HRNet.pt, pose_hrnet_w32_256x256.pth."""
    box: tuple[float, float, float] | None = None
    """Left, top and side of the square that --hrnet looks at, pixels; default: around the keypoints."""
    layout: str = "auto"
    """What the keypoints are: openpose25, coco17, blazepose33, halpe26, h36m17, ...; auto goes by their number and the bones' lengths."""
    person: int | None = None
    """Whom to follow if there are several, numbered by when they appear and from left to right; default: who is seen most."""
    image_size: tuple[int, int] | None = None
    """Width and height of the pictures; default: of the video, or as the file says, else guessed."""
    focal: float | None = None
    """Focal length in pixels; default: the diagonal of the picture, by which depth scales."""
    intrinsics: Path | None = None
    """File with the camera's matrix K (.txt, .npy, .npz, .json, .yaml)."""
    fps: float | None = None
    """Frames per second; default: as the video or the file says, else 30."""
    max_frames: int | None = None
    """Only so many frames from the first."""
    num_proposals: Annotated[int | None, tyro.conf.arg(aliases=["-n"])] = None
    """Hypotheses H; default: 20, of diffpose 200."""
    sampling_timesteps: int | None = None
    """Steps K of the sampler; default: 5, of refiners 2, of diffpose as many as it was trained with. Published tables have 10 for d3dp and
    ddhpose, by which hypotheses differ more, and 50 for diffhpe and diffhpe-2d."""
    aggregate: Literal["auto", "mean", "median", "joint", "limb", "soft"] = "auto"
    """How hypotheses become one pose: their mean, geometric median, or by reprojection joint by joint (JPMA), limb by limb, softly."""
    page: bool | None = None
    """Write _page.html and what belongs to it; default: of diffpose."""
    consensus: Choice = "median"
    """The one pose of a page: the joints' geometric medians, the medoid, where hypotheses are densest, or by reprojection."""
    representatives: int = 5
    """Hypotheses that stand for all others there."""
    rank: bool = False
    """Also weigh those by the pose prior, and by reprojection where the focal length is known."""
    overlap: int | None = None
    """Frames by which windows overlap and are blended; default: a quarter of a window; 0: none, as published."""
    max_batch: Annotated[int, tyro.conf.arg(aliases=["-b"])] = MAX_BATCH
    """Sequences that the network sees at once; less takes less memory."""
    render_truth: Path | None = None
    """The true 3D joints, to draw and to measure by: .npz/.npy (F, J, 3), metres before the camera, or a SMPL-X motion there."""
    hide: str = ""
    """Comma list of limbs and joints of the model (left_arm, right_leg, trunk, head, ...) that it shall not see; they are drawn faintly."""
    hide_frames: str = ":"
    """When: first frame and the one after the last, from 0, such as 10:40, 10: or :40."""
    smplx: bool = False
    """Also fit a SMPL-X body to the result."""
    output: Path = Path("./output/lift")
    """Folder for the results."""
    format: Literal["mp4", "webp", "gif"] = "mp4"
    """Of the film."""
    draw: bool = True
    """--no-draw leaves film and pictures out."""
    turn: float = 0.0
    """Degrees a second by which the views of the film go round the person."""
    seed: int = 0
    """Same seed, same device, same result."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""


def main(args: Args) -> None:
    """Read, lift, tell, write."""
    _check(args)
    device = pick_device(args.device)
    clip = read_clip(args)
    lifter = Lifter.from_pretrained(args.checkpoint or args.method, device)
    if args.refine:
        lifter = lifter.refined(Lifter.from_pretrained(args.refine, device))
    result = lift(args, clip, lifter)
    print("\n".join([f"{clip.path}: {len(clip.keypoints)} frames of {clip.layout.name}", *clip.notes, *result.lifted.notes]))
    report = result.report()
    _tell(report)
    _write(result, report)


def _check(args: Args) -> None:
    _span(args.hide_frames)
    bounds = {
        "focal": (1, 1e6), "fps": (1e-3, 1e4), "max_frames": (1, 1e8), "num_proposals": (1, 1e4), "sampling_timesteps": (1, 1000),
        "overlap": (0, 1e4), "max_batch": (1, 1e6), "person": (0, 1e6), "turn": (-3600, 3600), "representatives": (1, 100),
    }  # fmt: skip
    for name, (least, most) in bounds.items():
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            raise InputError(f"--{name.replace('_', '-')} {value}, expected {least:g} to {most:g}")
    if args.heatmaps is not None and (args.input or args.video or args.photo):
        raise InputError("--heatmaps: found --input, --video or --photo besides, expected one source")
    if args.photo is not None and args.video is not None:
        raise InputError("--photo: found --video besides, expected one of them")
    if (args.hrnet is not None or args.box is not None) and (args.photo is None or args.hrnet is None):
        raise InputError("--hrnet and --box are for --photo, expected it, and --hrnet with --box")
    if args.layout != "auto" and args.layout not in LAYOUTS:
        raise InputError(f"--layout {args.layout}: not one that can be lifted, expected auto, {', '.join(LAYOUTS)}")
    if args.image_size is not None and not 8 <= min(args.image_size) <= max(args.image_size) <= 1e5:
        raise InputError(f"--image-size {args.image_size[0]} {args.image_size[1]}, expected width and height in pixels, 8 to 100000")
    if args.focal is not None and args.intrinsics is not None:
        raise InputError("--focal and --intrinsics: found two sources of the focal length, expected one")
    if args.checkpoint is not None:
        existing_file(args.checkpoint, "weights of a lifting method (.safetensors)")
    writable_folder(args.output)


# ---- what there is -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clip:
    """One person over time, and what is known of the camera."""

    path: Path
    keypoints: np.ndarray
    """(F, K, 3) pixels and confidence, 0 where missing."""
    layout: Layout
    frames: range
    """Of the video."""
    size: ImageSize
    fps: float
    lens: Lens | None
    video: Video | None
    truth: Path | None
    notes: list[str]
    """What was assumed."""
    heatmaps: np.ndarray | None = None
    """(F, 16, 4096)."""
    box: np.ndarray | None = None
    """(F, 3) where they are."""
    photo: np.ndarray | None = None
    """(h, w, 3) uint8 RGB of the one frame, if there is no video."""

    @property
    def name(self) -> str:
        """What the files that come of it begin with; never the name of a file that is read."""
        return f"{self.path.stem.removesuffix('_keypoints')}_lifted"

    def pictures(self) -> Iterator[np.ndarray]:
        if self.photo is not None:
            return iter((self.photo,))
        return iter(()) if self.video is None else itertools.islice(iter(self.video), self.frames.start, self.frames.stop)


def read_clip(args: Args) -> Clip:
    """Read the keypoints of one person and find out about the camera."""
    if args.heatmaps is not None or args.photo is not None:
        return _read_picture(args)
    path, video_path, focal, truth = args.input, args.video, args.focal, args.render_truth
    if path is None and video_path is None:
        path, video_path, example = (asset("examples", f"walk{end}") for end in ("_keypoints", ".mp4", "_truth.npz"))
        truth = truth or example
        if args.intrinsics is None:
            focal = focal or float(load_npz(example, "the example's truth", ("focal",), ())["focal"][0])
    video = open_video(video_path) if video_path is not None else None
    size = args.image_size or (video.size if video else None)
    if path is not None:
        person = read_person(path, args.layout, size, args.person)
    else:
        assert video is not None
        path, person = video.path, detect_person(video, args.person)
    notes, keypoints = list(person.notes), person.keypoints[: args.max_frames]
    size = size or person.size
    if size is None:
        size = guessed_size(person.keypoints)
        notes.append(f"nothing tells the size of the pictures: {size[0]} x {size[1]} assumed. Give --image-size or --video if not.")
    fps = args.fps or (video.fps if video else None) or person.fps
    if fps is None:
        fps = _FPS
        notes.append(f"nothing tells the frame rate: {fps:g} frames per second assumed. Give --fps if not.")
    if missing := int((~(keypoints[..., 2] > 0).any(1)).sum()):
        notes.append(f"nobody is found in {missing} of {len(keypoints)} frames, which are interpolated.")
    lens = None if focal is None else Lens.of_size(*size, focal)
    if args.intrinsics is not None:
        lens = Lens.of(*read_intrinsics(args.intrinsics, size))
    frames = range(person.first, person.first + len(keypoints))
    if video is not None and video.frames is not None:
        last = person.first + len(person.keypoints) - 1
        if person.first > 0 and last == video.frames:  # numbered from 1
            frames = range(frames.start - 1, frames.stop - 1)
        elif last >= video.frames:
            notes.append(f"keypoints go to frame {last}, {video.path.name} has {video.frames} frames: are they of this video?")
    return Clip(path, keypoints, person.layout, frames, size, fps, lens, video, truth, notes)


def _read_picture(args: Args) -> Clip:
    if args.heatmaps is not None:
        seen = read_heatmaps(args.heatmaps)
    else:
        assert args.photo is not None
        seen = read_picture(args.photo, args.input, args.layout, args.person, args.hrnet, args.box, pick_device(args.device))
    size, focal = args.image_size or seen.size, args.focal or seen.focal
    lens = None if focal is None else Lens.of_size(*size, focal)
    if args.intrinsics is not None:
        lens = Lens.of(*read_intrinsics(args.intrinsics, size))
    some = slice(args.max_frames)
    parts = {name: None if (value := getattr(seen, name)) is None else value[some] for name in ("heatmaps", "box")}
    keypoints = seen.keypoints[some]
    return Clip(
        seen.path, keypoints, seen.layout, range(len(keypoints)), size, args.fps or _FPS, lens, None, args.render_truth, list(seen.notes),
        photo=seen.photo, **parts,
    )  # fmt: skip


# ---- what comes of it --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What was lifted, at the rate of the clip."""

    args: Args
    clip: Clip
    lifter: Lifter
    lifted: Lifted
    """At the rate of the model."""
    keypoints: np.ndarray
    """(F, J, 3) in the layout of the model."""
    hidden: np.ndarray
    """(F, J) bool: those that the user hid."""
    truth: torch.Tensor | None
    """(F, J, 3) relative to the root."""
    overlap: int
    """Frames."""
    seconds: float
    prior: PosePrior | None = None
    """By which hypotheses are ranked."""

    @property
    def layout(self) -> Layout:
        return self.lifter.config.skeleton

    @property
    def lens(self) -> Lens:
        return self.clip.lens or Lens.of_size(*self.clip.size)

    @property
    def answers(self) -> bool:
        """Whether there is a page."""
        wanted = self.lifter.config.inputs == "heatmap" if self.args.page is None else self.args.page
        return wanted and len(self.hypotheses) > 1

    @cached_property
    def answer(self) -> Answer:
        return Answer(
            self.hypotheses, self.layout, self.keypoints, self.clip.lens, self.root, self.args.consensus, self.args.representatives,
            self.prior, self.args.rank, self.truth, self.clip.heatmaps, self.clip.box, self.clip.pictures, self.args.seed,
        )  # fmt: skip

    def _back(self, values: torch.Tensor) -> torch.Tensor:
        """From the rate of the model to that of the clip, frames first."""
        if not _resampled(self.clip.fps, self.lifter.config):
            return values
        return torch.from_numpy(resample_rate(values.numpy(), self.lifter.config.fps, self.clip.fps, len(self.keypoints)))

    @cached_property
    def hypotheses(self) -> torch.Tensor:
        """(H, F, J, 3)."""
        return self._back(self.lifted.hypotheses.transpose(0, 1)).transpose(0, 1).contiguous()

    @cached_property
    def poses(self) -> torch.Tensor:
        """(F, J, 3)."""
        return self._back(self.lifted.poses)

    @cached_property
    def root(self) -> torch.Tensor:
        """(F, 3)."""
        return self._back(self.lifted.root)

    @cached_property
    def spread(self) -> torch.Tensor:
        """(F, J)."""
        return self._back(self.lifted.spread)

    @cached_property
    def pixels(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keypoints (F, J, 2) and confidence (F, J)."""
        points = torch.as_tensor(self.keypoints, dtype=torch.float32)
        return points[..., :2], points[..., 2]

    @cached_property
    def by_joint(self) -> torch.Tensor:
        """(F, J, 3): each joint of the hypothesis that projects nearest to its keypoint."""
        points, confidence = self.pixels
        return joint_agg(self.hypotheses, solve_root(self.hypotheses, points, self.lens, confidence), points, self.lens, confidence)

    # ---- figures

    def report(self) -> dict[str, Any]:
        """Every figure and assumption."""
        clip, config, points = self.clip, self.lifter.config, self.pixels
        missed = torch.linalg.vector_norm(self.lens.project(self.poses + self.root[:, None]) - points[0], dim=-1)[points[1] > 0]
        window = config.network.frames
        more = max(0, len(self.lifted.poses) - window)
        return {
            "input": str(clip.path), "method": config.method, "refined_by": self.args.refine or None,
            "weights": str(self.args.checkpoint or self.args.method),
            "frames": len(self.keypoints), "first_frame": clip.frames.start, "fps": clip.fps, "model_fps": config.fps,
            "layout": clip.layout.name, "image_size": list(clip.size),
            "focal": [round(value, 3) for value in self.lens.focal.tolist()], "focal_known": clip.lens is not None,
            "window": window, "overlap": self.overlap, "windows": 1 - (-more // (window - self.overlap)),
            "hypotheses": len(self.hypotheses), "steps": self.lifted.steps, "aggregate": self.lifted.aggregate,
            "seconds": round(self.seconds, 3), "missing_keypoints": round(float((self.keypoints[..., 2] <= 0).mean()), 4),
            "spread_mm": _mm(self.spread.mean()), "reprojection_px": round(float(missed.mean()), 3) if len(missed) else None,
            "joints": {name: _mm(value) for name, value in zip(self.layout.joints, self.spread.mean(0), strict=True)},
            "errors_mm": self._errors(), "answer": self.answer.report() if self.answers else None,
            "notes": [*clip.notes, *self.lifted.notes],
            "flags": {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self.args).items()},
            "library": __version__, "machine": machine(self.lifter.device),
        }  # fmt: skip

    def _errors(self) -> dict[str, dict[str, float]]:
        """MPJPE and PA-MPJPE against the truth, if there is one; also of the hidden joints by themselves."""
        if self.truth is None:
            return {}
        h, truth = self.hypotheses, self.truth
        poses = {"one hypothesis": h[0]}
        if len(h) > 1:
            poses |= {f"aggregate ({self.lifted.aggregate})": self.poses, "joints by reprojection": self.by_joint}
            poses |= {"best pose": pose_best(h, truth), "best joints": joint_best(h, truth)}
        errors = {name: {"mpjpe": _mm(mpjpe(p, truth).mean()), "pa_mpjpe": _mm(pa_mpjpe(p, truth).mean())} for name, p in poses.items()}
        if self.hidden.any():
            for name, p in poses.items():
                errors[name]["hidden_mpjpe"] = _mm(distances(p, truth)[torch.from_numpy(self.hidden)].mean())
        return errors

    # ---- files

    def save_npz(self, path: Path) -> str:
        arrays = {"hypotheses": self.hypotheses, "poses": self.poses, "root": self.root, "spread": self.spread}
        known: dict[str, Any] = {
            "keypoints": self.keypoints.astype(np.float32), "filled": self.keypoints[..., 2] <= 0, "joint_names": self.layout.joints,
            "parents": self.layout.parents, "frames": np.array(self.clip.frames), "fps": self.clip.fps, "image_size": self.clip.size,
            "focal": self.lens.focal.numpy(), "centre": self.lens.centre.numpy(), "method": self.lifter.config.method,
            "aggregate": self.lifted.aggregate, "seed": self.args.seed,
        }  # fmt: skip
        known |= self.answer.arrays() if self.answers else {}
        save_npz(path, {name: value.numpy().astype(np.float32) for name, value in arrays.items()} | known)
        return "hypotheses, poses, where they are and how sure (see --help)"

    def save_film(self, path: Path) -> str:
        rows = np.array(layout_map(self.layout.joints, self.clip.layout.joints))
        film = LiftingFilm(
            self.clip.keypoints, self.clip.layout, self.clip.size, self.poses.numpy(), self.layout,
            hypotheses=self.hypotheses[:_SHOWN].numpy(),
            truth=None if self.truth is None else self.truth.numpy(), root=self.root.numpy(), fps=self.clip.fps,
            pictures=self.clip.pictures(), turn=self.args.turn, captions=self._captions(), hidden=self.hidden[:, rows] & (rows >= 0),
        )  # fmt: skip
        chosen = np.unique(np.linspace(0, len(film) - 1, _SHEET).round().astype(int)).tolist()
        kept = []

        def frames() -> Iterator[np.ndarray]:
            for number, image in enumerate(progress_bar(film, "drawing", len(film))):
                if number in chosen:
                    kept.append(image)
                yield image

        save_film(path, frames(), self.clip.fps)
        times = [f"{number / self.clip.fps:.2f} s" for number in chosen]
        save_image(path.with_name(f"{path.stem}_sheet.png"), contact_sheet(kept, times, columns=2))
        return f"keypoints beside the hypotheses in space; {path.stem}_sheet.png at a glance"

    def _captions(self) -> tuple[str, ...]:
        count = len(self.hypotheses)
        some = f"{_SHOWN} of {count}" if count > _SHOWN else f"{count}"
        what = f"{some} hypotheses, {self.lifted.aggregate} bold" if count > 1 else self.lifter.config.method
        views = ("turning", "a quarter turn further") if self.args.turn else ("seen by the camera", "from the side")
        return "keypoints", f"{what}, {views[0]}", views[1] + ("" if self.truth is None else " (black: truth)")

    def save_spread(self, path: Path) -> str:
        save_image(path, plot_spread(self.spread.numpy(), self.layout.joints, self.clip.fps))
        return "how far hypotheses are apart, over time and by joint"

    def save_hypotheses(self, path: Path) -> str:
        frame = int(self.spread.mean(1).argmax())
        truth = None if self.truth is None else self.truth[frame].numpy()
        h, mean, joint = self.hypotheses[:, frame].numpy(), self.hypotheses[:, frame].mean(0).numpy(), self.by_joint[frame].numpy()
        save_image(path, draw_hypotheses(h, self.layout, mean=mean, joint=joint, truth=truth, azimuth=30))
        return f"frame {frame}, where they are farthest apart; green: mean, red: by reprojection{'' if truth is None else ', blue: truth'}"

    def save_smplx(self, path: Path) -> str:
        """Fitted in a world with z up whose ground the feet touch; of a single frame, each pose by itself."""
        if self.answers and len(self.poses) == 1:
            return self.answer.save_bodies(path)
        points = (self.poses + self.root[:, None])[..., [0, 2, 1]] * torch.tensor([1.0, 1.0, -1.0])
        points[..., 2] -= points[..., 2].min()
        device = self.lifter.device
        fit = fit_motion(
            load_prior(None, None, device), points.to(device), self.layout, fps=self.clip.fps,
            generator=torch.Generator(device).manual_seed(self.args.seed), progress=step_bar("fitting"),
        )  # fmt: skip
        write_amass(path, fit.amass(self.clip.fps), mocap_framerate=np.array(self.clip.fps))
        return f"a SMPL-X body in motion, as in AMASS; {_mm(fit.residuals.nanmean()):.0f} mm from the poses"


def lift(args: Args, clip: Clip, lifter: Lifter) -> Result:
    """The library's call, at the rate of the model."""
    config = lifter.config
    keypoints = to_layout(clip.keypoints, clip.layout, config.skeleton)
    hidden = _hidden(args, len(keypoints), config.skeleton)
    keypoints = points = np.where(hidden[..., None], 0.0, keypoints)
    if _resampled(clip.fps, config):
        clip.notes.append(f"resampled from {clip.fps:g} to the model's {config.fps:g} frames per second, and back.")
        points = resample_keypoints(keypoints, config.skeleton, clip.fps, config.fps)
    truth = None if clip.truth is None else _read_truth(clip.truth, config.skeleton, clip.frames)
    overlap = config.network.frames // 4 if args.overlap is None else args.overlap
    count = args.num_proposals or (_MANY if config.inputs == "heatmap" else _SOME)
    began = time.perf_counter()
    lifted = lifter(
        points, clip.size, clip.lens, hypotheses=count, steps=args.sampling_timesteps, aggregate=args.aggregate, overlap=overlap,
        max_batch=args.max_batch, seed=args.seed, name=clip.name, progress=step_bar("lifting"), heatmaps=clip.heatmaps,
    )  # fmt: skip
    took = time.perf_counter() - began
    prior = load_prior(None, None, lifter.device) if args.rank or args.smplx else None
    return Result(args, clip, lifter, lifted, keypoints, hidden, truth, overlap, took, prior)


def _hidden(args: Args, frames: int, layout: Layout) -> np.ndarray:
    """(F, J) bool: what the user hides."""
    hidden = np.zeros((frames, len(layout.joints)), bool)
    if args.hide:
        hidden[_span(args.hide_frames)] = named_joints(args.hide, layout).numpy()
        if not hidden.any():
            raise InputError(f"--hide-frames {args.hide_frames}: none of the {frames} frames, expected some, numbered from 0")
    return hidden


def _span(text: str) -> slice:
    ends = text.split(":")
    if len(ends) != 2 or not all(end.isdecimal() or not end for end in ends):
        raise InputError(f"--hide-frames {text}: expected the first frame and the one after the last, such as 10:40, 10: or :40")
    first, last = (int(end) if end else None for end in ends)
    return slice(first, last)


def _resampled(fps: float, model: LiftingConfig) -> bool:
    """Whether the model wants another rate; one of single frames does not care."""
    return model.network.frames > 1 and abs(fps / model.fps - 1) > _SAME_RATE


def _read_truth(path: Path, layout: Layout, frames: range) -> torch.Tensor:
    """(F, J, 3) relative to the root, from metres before the camera: joints, or those of a SMPL-X motion."""
    motion = load_npz(path, "true joints", optional=("pose_body", "root_orient", "trans", "betas")) if path.suffix == ".npz" else {}
    if {"pose_body", "root_orient", "trans"} <= motion.keys():
        tensors = {name: torch.as_tensor(finite(array, f"{path}: {name}"), dtype=torch.float32) for name, array in motion.items()}
        body, count = BodyModel(), len(tensors["trans"])
        betas = tensors.get("betas", torch.zeros(1, 10))
        posed = Skeleton(body)(
            tensors["pose_body"],
            roma.rotvec_to_rotmat(tensors["root_orient"]),
            tensors["trans"],
            betas.reshape(-1, betas.shape[-1]).expand(count, -1),
        )
        joints = BodyPoints.of_layout(body, layout)(posed).detach()
    else:
        joints = torch.as_tensor(finite(read_points(path).points, f"{path}: joints"), dtype=torch.float32)
    if joints.shape[1] != len(layout.joints):
        raise InputError(f"{path}: {joints.shape[1]} joints, expected the {len(layout.joints)} of {layout.name}; convert them")
    if len(joints) != len(frames):
        if len(joints) < frames.stop:
            raise InputError(f"{path}: {len(joints)} frames, the keypoints go to frame {frames.stop}; give the truth of all of them")
        joints = joints[frames.start : frames.stop]
    tall = float((joints.amax(1) - joints.amin(1)).amax(-1).median())
    if not _TALL[0] <= tall <= _TALL[1]:
        raise InputError(f"{path}: the person spans {tall:.3g}, expected metres; divide millimetres by 1000")
    return root_aligned(joints, layout.joints.index("pelvis"))


def _mm(metres: torch.Tensor) -> float:
    return round(1000 * float(metres), 2)


# ---- telling and writing -----------------------------------------------------------------------------------------------


def _tell(report: dict[str, Any]) -> None:
    """Print the figures."""
    header = ["frames", "windows", "hypotheses", "steps", "seconds", "spread mm", "reprojection px", "missing %"]
    numbers = [*(report[key] for key in header[:4]), f"{report['seconds']:.1f}", f"{report['spread_mm']:.1f}"]
    error = "-" if report["reprojection_px"] is None else f"{report['reprojection_px']:.1f}"
    print("\n" + table(header, [[*numbers, error, f"{100 * report['missing_keypoints']:.1f}"]]))
    if report["errors_mm"]:
        figures = {"MPJPE": "mpjpe", "PA-MPJPE": "pa_mpjpe", "hidden joints": "hidden_mpjpe"}
        known = {title: key for title, key in figures.items() if all(key in errors for errors in report["errors_mm"].values())}
        rows = [[name, *(f"{errors[key]:.1f}" for key in known.values())] for name, errors in report["errors_mm"].items()]
        print("\n" + table(["against the truth, mm", *known], rows))


def _write(result: Result, report: dict[str, Any]) -> None:
    """Write the files, and say so."""
    args, name = result.args, result.clip.name
    writers = {f"{name}.npz": result.save_npz}
    if result.answers and (args.draw or args.page):
        writers[f"{name}_page.html"] = result.answer.save_page
    if args.draw:
        if len(result.poses) > 1:
            writers[f"{name}.{args.format}"] = result.save_film
        if result.answers:
            writers[f"{name}_answer.png"] = result.answer.save_sheet
        if len(result.hypotheses) > 1:
            writers |= {f"{name}_spread.png": result.save_spread, f"{name}_hypotheses.png": result.save_hypotheses}
    if args.smplx:
        writers[f"{name}_smplx.npz"] = result.save_smplx
    written = [[file, write(args.output / file)] for file, write in writers.items()]
    save_json(args.output / f"{name}.json", report)
    written.append([f"{name}.json", "every figure and assumption"])
    print(f"\nwritten to {args.output}:\n" + table(["file", "what"], written))


if __name__ == "__main__":
    cli(main)
