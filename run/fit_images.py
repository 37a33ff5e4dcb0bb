"""Fit bodies to the people in a folder of photographs or in a video, from their 2D keypoints.

    python -m run.fit_images --images photos --keypoints photos_openpose --output fits    # every photograph by itself
    python -m run.fit_images --images photos --output fits                                # keypoints are detected (extra: detect)
    python -m run.fit_images --video walk.mp4 --keypoints walk_openpose --output walk     # people followed and fitted over time
    python -m run.fit_images --images frames --sequence --fps 25 --keypoints poses.json --output walk
    torchrun --nproc-per-node 2 -m run.fit_images --images photos --keypoints photos_openpose --output fits

Photographs: <name>_fit.npz and <name>_overlay.jpg of each. Videos: for each person one body shape and a smooth motion in the camera's
coordinates (x right, y down, z away), track<NN>_stageii.npz (AMASS's names) and track<NN>_fit.npz (with camera, keypoints, residuals);
overlay.mp4 and tracks.json. Both: summary.csv and failures.json.

--keypoints is a folder with a file for each image (<name>_keypoints.json, <name>.json, ...) or one file for all of them; formats are those
of dposer/data/keypoints.py. What is detected is written to <output>/keypoints first, where it can be looked at and edited.

A run that was stopped is continued by the same command. What is finished is done again only if the photographs or the keypoints have
changed since, so that a few that failed can be mended and the command repeated. An image that cannot be used does not stop the others: all
such are listed at the end, and the exit code is then 1.
"""

import contextlib
import glob
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import tyro

from dposer.body.skeleton import Layout
from dposer.data.amass import AmassSequence, write_amass
from dposer.data.images import read_photo
from dposer.data.keypoints import Keypoints, read_sequence, write_openpose
from dposer.data.video import Video, open_video
from dposer.errors import InputError
from dposer.files import load_npz, save_json, save_npz
from dposer.geometry.camera import Camera
from dposer.solvers.mesh_fitting import FEWEST, FitSettings
from dposer.solvers.tracking import Track, Tracking, TrackingSettings, track_people
from dposer.solvers.video_fitting import TrackSettings, fit_track
from dposer.viz import save_image, write_video
from dposer.viz.overlay import PEOPLE, overlay
from run._cli import cli, progress_bar, writable_folder
from run._fitting import Detect, FitFlags, Fitter, MeshFormat, detector, export_meshes, without
from run._jobs import Job, Report, Watch, figures, file_state, fingerprint, tell
from run._pictures import Source, Stills, pictures
from run._shards import Crew, Shards, processes

_FPS = 30.0
_INEXACT = 1.1
"""What a file says of its number of frames can be less than there are, up to so many times."""


@dataclass
class Args:
    output: Path
    """Folder for the results."""
    images: Path | None = None
    """Folder of photographs, or with --sequence of the frames of a video."""
    video: Path | None = None
    """A video file."""
    keypoints: Path | None = None
    """Folder or file of their 2D keypoints; default: they are detected."""
    sequence: bool = False
    """--images are the frames of one video, in the order of their numbers."""
    fps: float | None = None
    """Frames per second; default: what the video file tells, 30 for --sequence."""
    batch: int = 16
    """Photographs solved for together."""
    gap: int = TrackingSettings.gap
    """Frames for which a person in a video may be missing before somebody new begins."""
    shortest: int = TrackingSettings.shortest
    """Frames in which a person in a video must be found; who is found in fewer is left out."""
    overlay: bool = True
    """--no-overlay leaves the pictures and the film out."""
    longest: int = 1280
    """Longer side of overlay.mp4 in pixels, at most; drawing takes the most time of a video."""
    export: tuple[MeshFormat, ...] = ()
    """Also write the bodies of photographs as meshes: obj, glb, ply."""
    fit: Annotated[FitFlags, tyro.conf.arg(name="")] = field(default_factory=FitFlags)
    """Of every command that fits bodies to keypoints."""

    @property
    def moving(self) -> bool:
        return self.video is not None or self.sequence


def main(args: Args) -> None:
    """Fit what is not finished yet, then tell."""
    _check(args)
    torch.set_num_threads(1)  # the matrices are small: threads would wait for each other; processes share the work instead
    with processes() as crew:
        job = crew.leader_first(lambda: (Clip if args.moving else Album)(args, crew))
        job.prepare(crew)
        crew.leader_first(job.shards.open)
        pieces = crew.share(job.remaining())
        bar = job.bar(pieces) if crew.is_leader and pieces else None
        for piece in pieces:
            job.work(piece, bar)
        crew.wait()
        report = job.report() if crew.is_leader else Report()
        if crew.is_leader:
            tell(report, job.columns, args.output)
    if report.failures:
        sys.exit(1)


def _check(args: Args) -> None:
    args.fit.check()
    if (args.images is None) == (args.video is None):
        raise InputError(f"found {'neither' if args.images is None else 'both'} of --images and --video, expected one of them")
    if args.video and args.sequence:
        raise InputError("--sequence: belongs to --images; leave it out")
    if args.export and args.moving:
        raise InputError("--export: writes the bodies of photographs, found a video; leave it out (run.demo_fit exports single frames)")
    if args.fps is not None and not 0 < args.fps <= 1000:
        raise InputError(f"--fps {args.fps}, expected frames per second, above 0 and at most 1000")
    for name, least in (("batch", 1), ("gap", 0), ("shortest", 1), ("longest", 16)):
        value = getattr(args, name)
        if value is not None and not least <= value <= 100_000:
            raise InputError(f"--{name} {value}, expected {least} to 100000")
    if args.keypoints is None and args.fit.layout != "auto":
        raise InputError(f"--layout {args.fit.layout}: of --keypoints, found none; leave it out, what is detected is known")
    if args.keypoints is not None and not args.keypoints.exists():
        raise InputError(f"--keypoints {args.keypoints}: found nothing, expected a folder or a file; check the path")
    writable_folder(args.output)


class Fitting(Job):
    """What both kinds of input have in common."""

    def __init__(self, args: Args, crew: Crew):
        self.args, self.output = args, args.output
        self.fitter = Fitter(args.fit, crew.device(args.fit.device))
        self.detect = None if args.keypoints is not None else detector(thorough=not args.moving)

    def source_of(self, images: Sequence[Path]) -> Source:
        return Source(images, self.args.fit, self.args.keypoints, self.detect, self.output / "keypoints")

    def prepare(self, crew: Crew) -> None:
        """Do what the division of the work depends on."""


# ---- photographs -------------------------------------------------------------------------------------------------------


@dataclass
class Shot:
    """A photograph that can be fitted."""

    image: Path
    people: Keypoints
    rows: np.ndarray
    """Those of them who are fitted."""
    camera: Camera


class Album(Fitting):
    """Photographs that have nothing to do with each other; a piece is some of them, whose people are one batch."""

    columns = ("image", "person", "residual_px", "distance_m", "plausibility_percent", "focal_px", "verdict")
    unit = "photographs"

    def __init__(self, args: Args, crew: Crew):
        super().__init__(args, crew)
        assert args.images is not None
        images = pictures(args.images)
        self.source = self.source_of(images)
        self.parts = [images[start : start + args.batch] for start in range(0, len(images), args.batch)]
        self.shards = Shards(self.output / "batches", len(self.parts), {"input": "photographs", **self.fitter.decisive})

    def stamp(self, piece: int) -> str:
        files = [(file_state(image), file_state(self.source.path(image))) for image in self.parts[piece]]
        return fingerprint(files, self.args.overlay, self.args.export)

    def size(self, piece: int) -> int:
        return len(self.parts[piece])

    def compute(self, piece: int, watch: Watch) -> Report:
        images, report = self.parts[piece], Report()
        shots: dict[str, list[Shot]] = {}
        for image in images:
            try:
                shot = self._read(image, report)
                shots.setdefault(shot.people.layout.name, []).append(shot)
            except InputError as error:
                report.failures[image.name] = str(error)
        done = len(report.failures)
        for some in shots.values():
            for shot, arrays in zip(some, self._solved(some), strict=True):
                if all(np.isfinite(arrays[name]).all() for name in ("body_pose", "global_orient", "transl", "betas")):
                    self._write(shot, arrays, report)
                else:
                    report.failures[shot.image.name] = f"{shot.image}: no body fits its keypoints; look at {self.source.path(shot.image)}"
                done += 1
                watch(done / len(images))
        watch(1.0)
        return report

    def _read(self, image: Path, report: Report) -> Shot:
        photo = read_photo(image)
        people, file = self.source.people(image, photo.size, lambda: photo.pixels), self.source.path(image)
        if not len(people):
            raise InputError(f"{image}: shows nobody, by {file}; leave it out, or detect people in another way")
        usable = self.fitter.usable(people.points, people.layout)
        if not usable.any():
            raise InputError(f"{image}: nobody shows {FEWEST} or more keypoints of the body, by {file}; leave it out, or detect them anew")
        if not usable.all():
            report.notes.append(
                f"{image.name}: {int((~usable).sum())} of {len(people)} people left out, with fewer than {FEWEST} keypoints"
            )
        return Shot(image, people, np.flatnonzero(usable), self.args.fit.camera(photo.size, photo.focal, image))

    def _solved(self, shots: Sequence[Shot]) -> list[dict[str, np.ndarray]]:
        """What is found of each, all of their people being one batch."""
        counts = [len(shot.rows) for shot in shots]
        points = np.concatenate([shot.people.points[shot.rows] for shot in shots])
        cameras = [shot.camera for shot in shots for _ in shot.rows]
        lenses = Camera(torch.stack([camera.focal for camera in cameras]), torch.stack([camera.centre for camera in cameras]))
        arrays = self.fitter.fit(points, shots[0].people.layout, lenses, shots[0].image.name)
        parts = {name: np.split(values, np.cumsum(counts)[:-1]) for name, values in arrays.items()}
        return [{name: values[i] for name, values in parts.items()} for i in range(len(shots))]

    def _write(self, shot: Shot, arrays: Mapping[str, np.ndarray], report: Report) -> None:
        name, focal, centre = shot.image.stem, shot.camera.focal.numpy(), shot.camera.centre.numpy()
        save_npz(self.output / f"{name}_fit.npz", {
            **arrays, "focal": focal, "centre": centre, "people": shot.rows, "body": np.array(self.fitter.body_name),
        })  # fmt: skip
        if self.args.overlay or self.args.export:
            surfaces, faces = self.fitter.surfaces(arrays), self.fitter.body.faces
            export_meshes(self.output, f"{name}_", surfaces, faces, self.args.export)
            if self.args.overlay:
                pixels = read_photo(shot.image).pixels  # again: a batch of large photographs does not fit into memory
                save_image(self.output / f"{name}_overlay.jpg", overlay(pixels, surfaces, faces, tuple(focal), tuple(centre)))
        for i, person in enumerate(shot.rows.tolist()):
            residual, distance, plausible = np.nanmean(arrays["residuals"][i]), arrays["transl"][i, 2], arrays["plausibility"][i]
            row = figures(self.columns[2:6], residual, distance, plausible, focal[0])
            report.rows.append({"image": shot.image.name, "person": person, **row, "verdict": str(arrays["verdict"][i])})


# ---- a video -----------------------------------------------------------------------------------------------------------


class Clip(Fitting):
    """One video; a piece is one person over time, and the last piece, the leader's, is the film."""

    columns = ("track", "first_frame", "frames", "detections", "residual_px", "distance_m", "plausibility_percent")
    unit = "frames"
    layout: Layout
    tracking: Tracking

    def __init__(self, args: Args, crew: Crew):
        super().__init__(args, crew)
        single = self.fitter.settings
        if not isinstance(single, FitSettings):
            raise InputError(f"--preset {args.fit.preset}: the releases know photographs only, found a video; leave it out")
        self.settings = TrackSettings(single=single)
        if args.fit.steps is not None:
            self.settings = replace(self.settings, steps=args.fit.steps)
        self.frames: Video | Stills
        exif = None
        if args.video is not None:
            self.path, self.name = args.video, args.video.stem
            self.frames = open_video(args.video)
            self.count = self.frames.frames or sum(1 for _ in self.frames)
            self.fps = args.fps or self.frames.fps or 0.0
            if not self.fps:
                raise InputError(f"{args.video}: does not tell its frames per second; give --fps")
        else:
            assert args.images is not None
            self.path, self.name = args.images, args.images.resolve().name
            self.frames = stills = Stills(pictures(args.images))
            self.count, self.fps, exif = len(stills.paths), args.fps or _FPS, stills.focal
            self.source = self.source_of(stills.paths)
        self.camera = args.fit.camera(self.frames.size, exif, self.path)
        self.unread: dict[str, str] = {}

    # ---- who is who

    def prepare(self, crew: Crew) -> None:
        if self.detect is not None:
            self._look(crew, self.detect)
        crew.leader_first(self._follow)

    def _look(self, crew: Crew, detect: Detect) -> None:
        """Every process its share of the frames that are not there yet."""
        if isinstance(self.frames, Stills):
            share = self.frames.paths[crew.rank :: crew.size]
            for image in progress_bar(share, "detecting") if crew.is_leader else share:
                with contextlib.suppress(InputError):  # told when it is read
                    self._people_of(image)
        elif not all(self._file(number).is_file() for number in range(self.count)):
            frames = progress_bar(self.frames, "detecting", self.count) if crew.is_leader else self.frames
            for number, pixels in enumerate(frames):
                if number % crew.size == crew.rank and not self._file(number).is_file():
                    write_openpose(self._file(number), detect(pixels))
        crew.wait()

    def _file(self, number: int) -> Path:
        """Of the people detected in a frame of a video."""
        return self.output / "keypoints" / f"{self.name}_{number:012d}_keypoints.json"

    def _people_of(self, image: Path) -> Keypoints:
        frames = self.frames
        assert isinstance(frames, Stills)
        return self.source.people(image, frames.size, lambda: frames.pixels(image))

    def _follow(self) -> None:
        people = self._people()
        if not people:
            reason = f"{self.path}: nobody in any frame; take another video, or other keypoints"
            raise InputError(next(iter(self.unread.values()), reason))
        self.layout = people[min(people)].layout
        nobody = Keypoints(np.zeros((0, len(self.layout.joints), 3)), self.layout, ())
        everybody = [people.get(number, nobody) for number in range(max(people) + 1)]
        settings = TrackingSettings(gap=self.args.gap, shortest=self.args.shortest)
        self.tracking = track_people([some.points for some in everybody], self.layout, [some.ids for some in everybody], settings)
        if not self.tracking.tracks:
            raise InputError(
                f"{self.path}: nobody found in {self.args.shortest} frames or more; lower --shortest, or give better keypoints"
            )
        count = len(self.tracking.tracks) + self.args.overlay
        self.shards = Shards(
            self.output / "batches", count, {"input": "a video", "fps": self.fps, **self.fitter.decisive, "solver": repr(self.settings)}
        )

    def _people(self) -> dict[int, Keypoints]:
        """Frame → the people in it, all in one layout; frames that show nobody are left out."""
        one_by_one = isinstance(self.frames, Stills) and (self.args.keypoints is None or self.args.keypoints.is_dir())
        people = {number: some for number, some in (self._of_stills() if one_by_one else self._of_sequence()) if len(some)}
        layouts = {some.layout.name: number for number, some in reversed(people.items())}
        if len(layouts) > 1:
            found = " and ".join(f"{layout} (frame {number})" for layout, number in layouts.items())
            raise InputError(f"{self.args.keypoints}: frames in {found}, expected one layout; keep those of one detector")
        return people

    def _of_stills(self) -> Iterator[tuple[int, Keypoints]]:
        assert isinstance(self.frames, Stills)
        for number, image in enumerate(self.frames.paths):
            try:
                yield number, self._people_of(image)
            except InputError as error:
                self.unread[image.name] = str(error)

    def _of_sequence(self) -> Iterator[tuple[int, Keypoints]]:
        """Of keypoints that tell by numbers which frames they belong to."""
        source, name = self.args.keypoints or self.output / "keypoints", self.name.rstrip("_-. ")
        named = source.is_dir() and any(source.glob(f"{glob.escape(name)}[-_. ]*.json"))  # else they must be of one video, however called
        sequence = read_sequence(source, self.args.fit.layout, self.frames.size, name if named else None)
        self.unread |= {line.partition(":")[0]: line for line in sequence.failures}
        places = self._places(sequence.frames)
        for number, some in zip(sequence.frames, sequence.keypoints, strict=True):
            if number in places:
                yield places[number], without(some, self.args.fit.ignore)

    def _places(self, numbers: Sequence[int]) -> Mapping[int, int]:
        """Number that a frame has in the keypoints → its place in the video. Those of a video count from 0 or from 1."""
        if isinstance(self.frames, Stills):
            ends = [re.search(r"\d+$", path.stem) for path in self.frames.paths]
            places = {int(end[0]) if end else place: place for place, end in enumerate(ends)}
            fit = not places.keys().isdisjoint(numbers)
        else:
            start = int(numbers[0] > 0 and numbers[-1] == self.count)
            places = {number: number - start for number in numbers}
            fit = numbers[-1] <= _INEXACT * self.count
        if not fit:
            raise InputError(
                f"{self.args.keypoints}: of frames {numbers[0]} to {numbers[-1]}, found {self.count} in {self.path}; give the keypoints of "
                "this video"
            )
        return places

    # ---- the work

    @property
    def pieces(self) -> range:
        return range(len(self.tracking.tracks))

    def stamp(self, piece: int) -> str:
        if piece == len(self.tracking.tracks):
            files = self.frames.paths if isinstance(self.frames, Stills) else [self.path]
            return fingerprint([self.stamp(track) for track in self.pieces], [file_state(path) for path in files], self.args.longest)
        track = self.tracking.tracks[piece]
        return fingerprint(track.first, track.keypoints.tobytes(), [part.tolist() for part in (self.camera.focal, self.camera.centre)])

    def size(self, piece: int) -> int:
        return self.count if piece == len(self.tracking.tracks) else len(self.tracking.tracks[piece])

    def compute(self, piece: int, watch: Watch) -> Report:
        return self._film(watch) if piece == len(self.tracking.tracks) else self._fit(piece, watch)

    def _fit(self, number: int, watch: Watch) -> Report:
        track, report = self.tracking.tracks[number], Report()
        for kind in ("fit", "stageii"):
            self._path(number, kind).unlink(missing_ok=True)  # of an earlier track, should this one fail
        try:
            fit = fit_track(
                self.fitter.prior, self.fitter.tensor(track.keypoints), self.camera, self.layout, fps=self.fps, body=self.fitter.body,
                settings=self.settings, generator=self.fitter.generator(self.name, track.first, number),
                progress=lambda done, total: watch(done / total),
            )  # fmt: skip
        except InputError as error:
            report.failures[f"track{number:02d}"] = f"track {number}, frames {track.first} to {track.stop - 1}: {error}"
            return report
        arrays = self.fitter.arrays(fit, self.camera)
        when = {"first_frame": np.array(track.first), "fps": np.array(self.fps), "body": np.array(self.fitter.body_name)}
        save_npz(self._path(number, "fit"), arrays | when | {"people": track.people})
        pose, root, trans, betas = (arrays[name] for name in ("body_pose", "global_orient", "transl", "betas"))
        sequence = AmassSequence(pose, root, trans, betas, self.args.fit.gender, self.fps)
        write_amass(self._path(number, "stageii"), sequence, first_frame=when["first_frame"], body=when["body"])
        residual, distance, plausible = np.nanmean(arrays["residuals"]), np.median(arrays["transl"][:, 2]), arrays["plausibility"].mean()
        place = {"track": number, "first_frame": track.first, "frames": len(track), "detections": track.detections}
        report.rows.append(place | figures(self.columns[4:], residual, distance, plausible))
        return report

    def _path(self, number: int, kind: str) -> Path:
        return self.output / f"track{number:02d}_{kind}.npz"

    def _film(self, watch: Watch) -> Report:
        report = Report()
        write_video(self.output / "overlay.mp4", self._pictures(report, watch), self.fps)
        return report

    def _pictures(self, report: Report, watch: Watch) -> Iterator[np.ndarray]:
        """Everybody over the frames; as far as they can be read."""
        fits = {}
        for number in self.pieces:
            if self._path(number, "fit").is_file():
                fits[number] = load_npz(self._path(number, "fit"), "a fitted track", ("body_pose", "global_orient", "transl", "betas"), ())
        zoom = min(1.0, self.args.longest / max(self.frames.size))
        size = tuple(max(1, round(zoom * side)) for side in self.frames.size)
        focal, centre = (tuple(part.numpy() * np.array(size) / self.frames.size) for part in (self.camera.focal, self.camera.centre))
        faces = self.fitter.body.faces
        try:
            for frame, pixels in enumerate(self.frames):
                here = [number for number in fits if 0 <= frame - self.tracking.tracks[number].first < len(self.tracking.tracks[number])]
                rows = [(fits[number], frame - self.tracking.tracks[number].first) for number in here]
                meshes = [self.fitter.surfaces(arrays, slice(row, row + 1))[0] for arrays, row in rows]
                page = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if zoom < 1 else pixels
                yield overlay(page, meshes, faces, focal, centre, colours=PEOPLE[np.array(here, int) % len(PEOPLE)])
                watch(min(1.0, (frame + 1) / self.count))
        except InputError as error:
            report.failures[self.path.name] = str(error)
        if isinstance(self.frames, Stills):
            report.failures |= self.frames.failures

    def report(self) -> Report:
        tracks, dropped = self.tracking.tracks, self.tracking.dropped
        if self.args.overlay and not self.finished(len(tracks)):
            self.work(len(tracks), self.bar([len(tracks)]))
        total = super().report()
        total.failures |= self.unread
        for path in self.output.glob("track*_*.npz"):  # of an earlier run that found more people
            if (name := re.fullmatch(r"track(\d+)_(fit|stageii)", path.stem)) and int(name[1]) >= len(tracks):
                path.unlink()
        if dropped:
            total.notes.append(f"{len(dropped)} tracks of fewer than {self.args.shortest} detections left out (--shortest)")
        save_json(self.output / "tracks.json", {
            "video": str(self.path), "fps": self.fps, "size": list(self.frames.size), "frames": self.count, "layout": self.layout.name,
            "tracks": [_described(track) for track in tracks], "left_out": [_described(track) for track in dropped],
        })  # fmt: skip
        return total


def _described(track: Track) -> dict[str, Any]:
    return {"first_frame": track.first, "frames": len(track), "detections": track.detections, "id": track.identity}


if __name__ == "__main__":
    cli(main)
