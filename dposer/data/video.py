"""Videos, frame by frame, as they are meant to be looked at."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from dposer.errors import InputError
from dposer.files import PathLike, existing_file


@dataclass(frozen=True)
class Video:
    """A video file. Every iteration decodes it from the start, one frame (h, w, 3) uint8 RGB at a time.

    Iterating raises :class:`~dposer.errors.InputError` where the file is damaged or cut off; the frames before are good.
    """

    path: Path
    size: tuple[int, int]
    """Width and height of the upright frames, pixels."""
    fps: float | None
    """Frames per second, on average; None if the file does not tell."""
    frames: int | None
    """How many there are by the file's own account; None if it has none. Some may be marked as not to be shown."""

    def __iter__(self) -> Iterator[np.ndarray]:
        return _decoded(self.path)


def open_video(path: PathLike) -> Video:
    """Look into a video of any format that FFmpeg reads; frames stand upright, as the file's rotation tag asks.

    Raises:
        InputError: missing, damaged, no video, or one without frames.
    """
    path = existing_file(path, "a video")
    with _container(path) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
        frames = stream.frames or None
    first = next(_decoded(path), None)
    if first is None:
        raise InputError(f"{path}: a video without frames, expected one or more; record or convert it again")
    return Video(path, (first.shape[1], first.shape[0]), float(rate) if rate else None, frames)


def _decoded(path: Path) -> Iterator[np.ndarray]:
    count = 0
    with _container(path) as container:
        try:
            for frame in container.decode(video=0):
                yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
                count += 1
        except av.FFmpegError as error:
            raise InputError(f"{path}: damaged or cut off after {count} frames ({_reason(error)}); fetch or convert it again") from error


def _container(path: Path) -> av.container.InputContainer:
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        raise InputError(f"{path}: not a readable video ({_reason(error)}), expected .mp4 or the like; it may be cut off") from error
    if not container.streams.video:
        container.close()
        raise InputError(f"{path}: holds no pictures, expected a video")
    return container


def _reason(error: av.FFmpegError) -> str:
    return str(error.strerror or error).splitlines()[0][:100]
