"""Find people in photographs or a video and write their 2D keypoints as OpenPose JSON, to be looked at and edited before they are fitted.

    python -m run.detect --img photo.jpg --output keypoints
    python -m run.detect --images photos --output keypoints
    python -m run.detect --video walk.mp4 --output keypoints

<name>_keypoints.json of each picture or frame, and what was found drawn over it: <name>_detected.jpg, <video>_detected.mp4. Needs MediaPipe
(`pip install "dposer[detect]"`), which brings its weights along. The exit code is 1 if there is a picture in which nobody is found or
that cannot be read, or if nobody is found in a whole video.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from dposer.data.detection import MOST, Detector
from dposer.data.images import read_photo
from dposer.data.keypoints import Keypoints, to_openpose25, write_openpose
from dposer.data.video import open_video
from dposer.errors import InputError
from dposer.viz import save_image, side_colours, write_video
from dposer.viz.overlay import draw_detections
from run._cli import cli, progress_bar, table, writable_folder
from run._pictures import pictures

_ROWS = 20
"""Of the table that is printed."""
_FPS = 30.0


@dataclass
class Args:
    output: Path
    """Folder for the results; with --img also a .json file, the picture then goes beside it."""
    img: Path | None = None
    """A photograph."""
    images: Path | None = None
    """Folder of photographs."""
    video: Path | None = None
    """A video file."""
    most: int = MOST
    """People to look for in a picture."""
    look: Literal["auto", "quick", "thorough"] = "auto"
    """thorough also finds small people, and those whom the border cuts, in several times the time; auto: quick in videos."""
    draw: bool = True
    """--no-draw leaves the pictures out."""


def main(args: Args) -> None:
    given = [name for name in ("img", "images", "video") if getattr(args, name) is not None]
    if len(given) != 1:
        raise InputError(f"found {' and '.join(f'--{name}' for name in given) or 'no picture'}, expected one of --img, --images, --video")
    if args.output.suffix.lower() == ".json" and args.img is None:
        raise InputError(f"--output {args.output}: expected a folder, for the keypoints of many pictures; only --img writes a single file")
    with Detector(args.look == "thorough" or (args.look == "auto" and args.video is None)) as detector:
        detector.load()
        complete = _photographs(args, detector) if args.video is None else _film(args.video, args, detector)
    if not complete:
        sys.exit(1)


def _photographs(args: Args, detector: Detector) -> bool:
    """Whether people were found in all of them."""
    images = pictures(args.images) if args.images is not None else [args.img or Path()]
    rows, failures = [], []
    for image in images if args.img else progress_bar(images, "detecting"):
        try:
            photo = read_photo(image)
        except InputError as error:
            if args.img:
                raise
            failures.append(str(error))
            continue
        people = detector(photo.pixels, args.most)
        path, stem = _places(args.output, image.stem)
        write_openpose(path, people)
        if args.draw:
            save_image(path.with_name(f"{stem}_detected.jpg"), _drawn(photo.pixels, people))
        rows.append([path.name, *_figures([people])])
        if not len(people):
            failures.append(f"{image}: nobody was found, {path} holds no people; place keypoints by hand or take another detector's")
    if rows:
        more = [f"... and {len(rows) - _ROWS} more"] if len(rows) > _ROWS else []
        print("\n".join([table(["written", "people", "keypoints", "confidence"], rows[:_ROWS]), *more]))
    if failures:
        print(f"\n{len(failures)} of {len(images)} without people:\n" + "\n".join(failures))
    return not failures


def _places(output: Path, stem: str) -> tuple[Path, str]:
    """File of the keypoints, and what the picture beside it is named after."""
    if output.suffix.lower() == ".json":
        return output, output.stem.removesuffix("_keypoints")
    return output / f"{stem}_keypoints.json", stem


def _film(path: Path, args: Args, detector: Detector) -> bool:
    """Whether anybody was found."""
    film, folder, stem = open_video(path), writable_folder(args.output), path.stem
    found: list[Keypoints] = []

    def frames() -> Iterator[np.ndarray]:
        for number, pixels in enumerate(progress_bar(film, "detecting", film.frames)):
            people = detector(pixels, args.most)
            found.append(people)
            write_openpose(folder / f"{stem}_{number:012d}_keypoints.json", people)
            yield _drawn(pixels, people) if args.draw else pixels

    if args.draw:
        write_video(folder / f"{stem}_detected.mp4", frames(), film.fps or _FPS)
    else:
        for _ in frames():
            pass
    empty = sum(not len(people) for people in found)
    print(table(["written", "people", "keypoints", "confidence"], [[f"{folder}: {len(found)} files", *_figures(found)]]))
    print(f"\nnobody was found in {empty} of {len(found)} frames" if empty else "\nsomebody was found in every frame")
    return empty < len(found)


def _figures(found: list[Keypoints]) -> list[object]:
    """Of pictures: people, keypoints a person, and the mean confidence of those."""
    confidence = np.concatenate([to_openpose25(people).points[..., 2] for people in found])
    seen = confidence[confidence > 0]
    count = len(confidence)
    return [count, f"{len(seen) / count:.0f}" if count else "-", f"{seen.mean():.2f}" if count else "-"]


def _drawn(pixels: np.ndarray, people: Keypoints) -> np.ndarray:
    """What is written, over the picture."""
    written = to_openpose25(people)
    return draw_detections(pixels, written.points, written.layout.edges, colours=side_colours(written.layout.joints))


if __name__ == "__main__":
    cli(main)
