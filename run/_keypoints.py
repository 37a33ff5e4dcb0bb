"""2D keypoints of one person over time, from whatever file they are in, or detected."""

import contextlib
import itertools
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dposer.body.skeleton import H36M_17, MPI_INF_3DHP_17, Layout
from dposer.data.keypoints import DETECTED, ImageSize, Keypoints, kappas, read_keypoints, read_sequence
from dposer.data.video import Video
from dposer.errors import InputError
from dposer.files import load_npz
from dposer.lifting.inputs import likely_layout
from dposer.solvers.tracking import TrackingSettings, similarities, track_people
from run._cli import progress_bar
from run._fitting import detector

LAYOUTS = DETECTED | {layout.name: layout for layout in (H36M_17, MPI_INF_3DHP_17)}
"""Of arrays; files of detectors have one of :data:`~dposer.data.keypoints.DETECTED`."""

_FORMATS = ((640, 480), (1000, 1000), (1280, 720), (1920, 1080), (2048, 2048), (2560, 1440), (3840, 2160))
"""Of pictures, when nothing tells it; either side up."""
_ALIKE = 0.5
"""Object keypoint similarity from which on people in a list without frame numbers are one person over time."""


@dataclass(frozen=True)
class Person:
    """Somebody from the first to the last frame in which they are found."""

    layout: Layout
    keypoints: np.ndarray
    """(F, K, 3) pixels and confidence, 0 where missing."""
    first: int = 0
    """Number of the first frame."""
    size: ImageSize | None = None
    """Of the pictures, if it is told."""
    fps: float | None = None
    notes: tuple[str, ...] = ()
    """What was assumed."""


@dataclass(frozen=True)
class _Crowd:
    """Everybody in every frame."""

    layout: Layout
    people: dict[int, Keypoints]
    size: ImageSize | None = None
    notes: tuple[str, ...] = field(default=())


def read_person(path: Path, layout: str = "auto", size: ImageSize | None = None, person: int | None = None) -> Person:
    """Read the keypoints of one person.

    Args:
        path: a file of any format of :mod:`dposer.data.keypoints` or a folder with one for each frame; or .npy or .npz ("keypoints",
            optionally "fps", "image_size" and "layout") of shape (F, K, 2 or 3).
        layout: one of :data:`LAYOUTS`, or auto.
        size: of the pictures, if it is known.
        person: whom to follow if there are several, by order of appearance; None: who is seen most.

    Raises:
        InputError: nobody in it, no such person, or as :func:`~dposer.data.keypoints.read_keypoints`.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise InputError(f"layout {layout}: not one that can be lifted, expected auto, {', '.join(LAYOUTS)}")
    if path.suffix.lower() in (".npz", ".npy"):
        found: Person | _Crowd = _array(path, layout, size)
    elif layout in LAYOUTS and layout not in DETECTED:
        raise InputError(f"layout {layout}: of arrays (.npz, .npy), no detector writes it; leave it out for {path}")
    else:
        found = _detections(path, layout, size)
    one = _followed(path, found, person) if isinstance(found, _Crowd) else found
    if not (one.keypoints[..., 2] > 0).any():
        raise InputError(f"{path}: no person in any of {len(one.keypoints)} frames, expected one; check the file and its confidences")
    return one


def detect_person(video: Video, person: int | None = None) -> Person:
    """Find people in a video, and follow one as :func:`read_person` does."""
    detect = detector(thorough=False)
    people = {frame: detect(pixels) for frame, pixels in enumerate(progress_bar(video, "detecting", video.frames))}
    return _followed(video.path, _Crowd(people[0].layout, people, video.size), person)


def guessed_size(keypoints: np.ndarray) -> ImageSize:
    """The smallest usual size of a picture that holds all keypoints (F, K, 3)."""
    width, height = keypoints[keypoints[..., 2] > 0][:, :2].max(0)
    usual = [size for wide in _FORMATS for size in (wide, wide[::-1]) if width <= size[0] and height <= size[1]]
    return min(usual, key=math.prod, default=(math.ceil(width), math.ceil(height)))


def _detections(path: Path, layout: str, size: ImageSize | None) -> Person | _Crowd:
    try:
        sequence = read_sequence(path, layout, size)
    except InputError:
        with contextlib.suppress(InputError):
            if not path.is_dir():
                return _unnumbered(path, read_keypoints(path, layout, size))
        raise
    people = dict(zip(sequence.frames, sequence.keypoints, strict=True))
    sizes = {some.image_size for some in people.values() if some.image_size}
    if len(sizes) > 1:
        (w, h), (width, height) = sorted(sizes)[:2]
        raise InputError(f"{path}: frames of {w} x {h} and of {width} x {height} pixels, expected one size; keep those of one video")
    lost = sequence.failures
    notes = (f"{len(lost)} frames could not be read and are interpolated; the first: {lost[0]}",) if lost else ()
    return _Crowd(sequence.layout, people, sizes.pop() if sizes else None, notes)


def _unnumbered(path: Path, people: Keypoints) -> Person | _Crowd:
    """People of one picture or, if they are alike one after another, one person over time."""
    alike = [similarities(a[None], b[None], kappas(people.layout.joints))[0, 0] for a, b in itertools.pairwise(people.points)]
    if alike and np.median(alike) > _ALIKE:
        note = f"{path.name} numbers no frames: its {len(people)} people, one like the other, are taken for one person over time."
        return Person(people.layout, people.points, size=people.image_size, notes=(note,))
    return _Crowd(people.layout, {0: people}, people.image_size)


def _array(path: Path, layout: str, size: ImageSize | None) -> Person:
    meta = load_npz(path, "2D keypoints", ("keypoints",), ("fps", "image_size", "layout")) if path.suffix.lower() == ".npz" else {}
    try:
        fps = float(meta["fps"]) if "fps" in meta else None
        width, height = (int(side) for side in meta["image_size"].reshape(2)) if "image_size" in meta else (0, 0)
    except (TypeError, ValueError):
        raise InputError(f"{path}: fps or image_size are no numbers, expected one, and width and height; save it anew") from None
    size = size or ((width, height) if min(width, height) > 0 else None)
    layout = str(meta["layout"]) if layout == "auto" and "layout" in meta else layout
    if layout != "auto" and layout not in LAYOUTS:
        raise InputError(f"{path}: layout '{layout}', expected one of {', '.join(LAYOUTS)}; give --layout")
    frames = read_keypoints(path, layout if layout in DETECTED else "auto", size)
    known = LAYOUTS.get(layout, frames.layout)
    notes: tuple[str, ...] = ()
    if layout == "auto" and len(known.joints) == len(H36M_17.joints):
        known = likely_layout(frames.points)
        notes = (f"{len(known.joints)} joints are taken for {known.name}, by the lengths of the bones. Give --layout if not.",)
    if len(frames.layout.joints) != len(known.joints):
        raise InputError(f"{path}: {len(frames.layout.joints)} joints, expected the {len(known.joints)} of {known.name}; check --layout")
    return Person(known, frames.points, size=size, fps=fps, notes=notes)


def _followed(path: Path, crowd: _Crowd, person: int | None) -> Person:
    nobody = Keypoints(np.zeros((0, len(crowd.layout.joints), 3)), crowd.layout, ())
    start, stop = min(crowd.people, default=0), max(crowd.people, default=-1) + 1
    everybody = [crowd.people.get(frame, nobody) for frame in range(start, stop)]
    settings = TrackingSettings(shortest=min(TrackingSettings.shortest, len(everybody)), gap=len(everybody))
    tracks = track_people([some.points for some in everybody], crowd.layout, [some.ids for some in everybody], settings).tracks
    if not tracks:
        raise InputError(f"{path}: no person in any of {len(everybody)} frames, expected one; check the file and its confidences")
    notes = crowd.notes
    if person is None:
        person = int(np.argmax([track.keypoints[..., 2].sum() for track in tracks]))
        if len(tracks) > 1:
            where = ", ".join(f"{i} (frames {track.first + start} to {track.stop + start - 1})" for i, track in enumerate(tracks[:6]))
            notes += (f"{len(tracks)} people: {where}; {person} is followed, who is seen most. Give --person for another.",)
    if not person < len(tracks):
        raise InputError(f"--person {person}: found {len(tracks)} people in {path}, expected 0 to {len(tracks) - 1}")
    track = tracks[person]
    return Person(crowd.layout, track.keypoints, track.first + start, crowd.size, notes=notes)
