"""Folders of pictures, and the files of keypoints that belong to them."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dposer.data.images import read_photo
from dposer.data.keypoints import ImageSize, Keypoints, find_keypoints, read_keypoints, write_openpose
from dposer.errors import InputError
from run._fitting import Detect, FitFlags, without

_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def pictures(folder: Path) -> list[Path]:
    """Those in a folder, in the order of the numbers in their names."""
    if not folder.is_dir():
        raise InputError(f"--images {folder}: found {'a file' if folder.exists() else 'nothing'}, expected a folder of pictures")
    paths = [path for path in folder.iterdir() if path.suffix.lower() in _PICTURES and not path.name.startswith(".")]
    if not paths:
        raise InputError(f"--images {folder}: no pictures in it, expected {', '.join(_PICTURES)}; check the path")
    paths.sort(key=lambda path: [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)])
    stems: dict[str, Path] = {}
    for path in paths:
        if (twin := stems.setdefault(path.stem, path)) != path:
            raise InputError(f"--images {folder}: {twin.name} and {path.name} would be written under one name; rename one of them")
    return paths


class Source:
    """Where the keypoints of pictures are, or go when they are detected.

    Args:
        given: folder with a file for each picture, or one file of all; None: they are detected.
        detect: what detects them then.
        detected: the folder where they go.
    """

    def __init__(self, images: Sequence[Path], flags: FitFlags, given: Path | None, detect: Detect | None, detected: Path):
        self.flags, self.given, self.detect, self.detected = flags, given, detect, detected
        self.found: dict[Path, Path] = {}
        if self.given is not None and self.given.is_dir():
            self.found, missing = find_keypoints(self.given, images)
            if len(missing) == len(images):
                some = f"{images[0].stem}_keypoints.json"
                raise InputError(f"--keypoints {self.given}: no file for any of {len(images)} images, expected {some} and so on")
        elif self.given is not None and len(images) > 1:
            try:
                read_keypoints(self.given, flags.layout)
            except InputError:  # of several images, as it should be; else it is told with each of them
                return
            raise InputError(f"--keypoints {self.given}: of one image, found {len(images)}; give a folder, or a file of all of them")

    def path(self, image: Path) -> Path | None:
        """The file with the keypoints of a picture; None if there is none."""
        if self.given is None:
            return self.detected / f"{image.stem}_keypoints.json"
        return self.found.get(image) if self.given.is_dir() else self.given

    def people(self, image: Path, size: ImageSize, pixels: Callable[[], np.ndarray]) -> Keypoints:
        """Of a picture, detected if need be."""
        path = self.path(image)
        if path is None:
            raise InputError(f"{image}: no keypoints in {self.given}, expected {image.stem}_keypoints.json or {image.stem}.json; add them")
        if self.detect is not None and not path.is_file():
            write_openpose(path, self.detect(pixels()))
        return without(read_keypoints(path, self.flags.layout, size, image.name), self.flags.ignore)


@dataclass
class Stills:
    """Pictures that are the frames of a video."""

    paths: Sequence[Path]
    failures: dict[str, str] = field(default_factory=dict)
    """Name → why it could not be shown."""

    def __post_init__(self) -> None:
        first = read_photo(self.paths[0])
        self.size, self.focal = first.size, first.focal

    def __iter__(self) -> Iterator[np.ndarray]:
        """Grey where a picture cannot be shown."""
        for path in self.paths:
            try:
                yield self.pixels(path)
            except InputError as error:
                self.failures[path.name] = str(error)
                yield np.full((self.size[1], self.size[0], 3), 128, np.uint8)

    def pixels(self, path: Path) -> np.ndarray:
        photo = read_photo(path)
        if photo.size != self.size:
            (w, h), (width, height) = photo.size, self.size
            raise InputError(f"{path}: {w} x {h} pixels, expected {width} x {height} as the first frame; scale it, or leave it out")
        return photo.pixels
