"""Writes films; :mod:`dposer.data.video` reads them."""

from collections.abc import Callable, Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import cv2
import numpy as np

from dposer.errors import InputError
from dposer.files import PathLike, atomic_path
from dposer.viz.render import Image, checked_image


def write_video(path: PathLike, frames: Iterable[Image], fps: float, progress: Callable[[int], None] | None = None) -> int:
    """Encode frames as H.264 (yuv420p, so every player shows it) in an ``.mp4``; nothing is left behind if it stops half-way.

    Frames are taken one at a time, so an iterator may render them on the way. H.264 needs even sides: odd ones gain a copy of their
    last row or column.

    Args:
        path: ends in ``.mp4``.
        frames: (h, w, 3) uint8 RGB each, all of one size; an array (N, h, w, 3) or any iterable.
        fps: frames a second.
        progress: called with the number of frames written so far after each one.

    Returns:
        The number of frames.

    Raises:
        InputError: no frames, frames of differing sizes or wrong dtype, fps not positive, another suffix, or a folder that cannot be
            written.
    """
    if Path(path).suffix.lower() != ".mp4":
        raise InputError(f"{path}: suffix '{Path(path).suffix}', expected '.mp4'")
    if not 0 < fps <= 1000:
        raise InputError(f"fps: found {fps}, expected a number above 0 and at most 1000")
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise InputError(f"{path}: no frames to write, expected at least one")
    height, width = checked_image(first, "frames[0]").shape[:2]
    count = 0
    with atomic_path(path) as temporary, av.open(str(temporary), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": "18"})
        stream.pix_fmt = "yuv420p"
        stream.height, stream.width = height + height % 2, width + width % 2
        for count, image in enumerate(chain([first], iterator), start=1):
            if checked_image(image, f"frames[{count - 1}]").shape != first.shape:
                raise InputError(f"frames[{count - 1}]: found {image.shape[:2]}, expected {(height, width)} (h, w) as the first frame")
            even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
            if progress is not None:
                progress(count)
        container.mux(stream.encode())
    return count


def save_film(path: PathLike, frames: Iterable[Image], fps: float) -> int:
    """Write a film as ``.mp4`` (:func:`write_video`), or as an animated ``.webp`` or ``.gif``, which loop and keep all
    frames in memory until they are written.

    Returns:
        the number of frames.

    Raises:
        InputError: no frames, another suffix, a rate that is not positive, or a folder that cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".webp", ".gif"):
        return write_video(path, frames, fps)
    if not 0 < fps <= 1000:
        raise InputError(f"fps: found {fps}, expected a number above 0 and at most 1000")
    animation = cv2.Animation()
    animation.frames = [cv2.cvtColor(checked_image(frame, "frame"), cv2.COLOR_RGB2BGR) for frame in frames]
    if not animation.frames:
        raise InputError(f"{path}: no frames to write, expected at least one")
    ends = [round(1000 * (i + 1) / fps) for i in range(len(animation.frames))]  # milliseconds, without drift
    animation.durations = np.diff([0, *ends]).tolist()
    animation.loop_count = 0
    with atomic_path(path) as temporary:
        cv2.imwriteanimation(str(temporary), animation, [cv2.IMWRITE_WEBP_QUALITY, 85] if suffix == ".webp" else [])
    return len(animation.frames)
