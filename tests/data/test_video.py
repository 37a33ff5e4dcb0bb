"""Videos of our own making, read frame by frame, whole and broken."""

import struct
from pathlib import Path

import av
import numpy as np
import pytest

from dposer.data.video import open_video
from dposer.errors import InputError
from dposer.viz import write_video


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 frames of 48 x 64, brighter from frame to frame and from left to right."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    ramp = np.linspace(0, 100, 48)[None, :, None] + np.zeros((64, 1, 3))
    noise = np.random.default_rng(0).uniform(0, 40, (20, 64, 48, 3))  # so that frames take space
    write_video(path, (ramp + 5 * np.arange(20)[:, None, None, None] + noise).astype(np.uint8), 12.5)
    return path


def test_frames_come_one_at_a_time_and_again(film: Path) -> None:
    video = open_video(film)
    assert (video.size, video.fps, video.frames) == ((48, 64), 12.5, 20)
    for _ in range(2):
        means = [image.mean() for image in video if image.shape == (64, 48, 3) and image.dtype == np.uint8]
        assert len(means) == 20 and np.allclose(np.diff(means), 5, atol=2)
    assert next(iter(video)).shape == (64, 48, 3)


def test_rotation_tags_are_obeyed_by_size_and_frames(film: Path, tmp_path: Path) -> None:
    data = film.read_bytes()
    place = data.index(struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30), data.index(b"tkhd"))
    clockwise = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(data[:place] + clockwise + data[place + 36 :])
    video = open_video(tmp_path / "turned.mp4")
    first = next(iter(video))
    assert video.size == (64, 48) and first.shape == (48, 64, 3) and first.flags["C_CONTIGUOUS"]
    assert first[40:].mean() > first[:8].mean() + 50  # right became below


def test_a_video_that_was_cut_off_says_where(film: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    video, seen = open_video(path), 0
    with pytest.raises(InputError, match=r"cut\.mp4: damaged or cut off after \d+ frames") as raised:
        for _ in video:
            seen += 1
    assert 0 < seen < 20 and f"after {seen} frames" in str(raised.value)
    path.write_bytes(film.read_bytes()[:600])
    with pytest.raises(InputError, match=r"cut\.mp4"):
        open_video(path)


def test_what_is_no_video_is_told_in_one_line(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    (tmp_path / "words.mp4").write_text("not a video " * 100)
    (tmp_path / "empty.mp4").touch()
    for name, complaint in {"sound": "no pictures", "words": "not a readable video", "empty": "empty", "absent": "found nothing"}.items():
        with pytest.raises(InputError, match=rf"{name}\.mp4: .*{complaint}") as raised:
            open_video(tmp_path / f"{name}.mp4")
        assert "\n" not in str(raised.value)
