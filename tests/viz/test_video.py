import struct

import numpy as np
import pytest

from dposer.data.video import open_video
from dposer.errors import InputError
from dposer.viz import write_video


def film(count, height, width):
    """Smooth pictures that H.264 keeps well; each frame has its own brightness."""
    ramp = np.linspace(0, 60, width)[None, :, None] + np.linspace(0, 60, height)[:, None, None]
    return np.stack([np.repeat(ramp + 10 * i, 3, -1) for i in range(count)]).astype(np.uint8)


@pytest.mark.parametrize(("fps", "size"), [(30, (64, 48)), (60, (65, 49)), (29.97, (33, 64)), (20, (3, 5))])
def test_round_trip_keeps_frames_size_and_rate(tmp_path, fps, size):
    frames = film(7, *size)
    counted = []
    assert write_video(tmp_path / "film.mp4", iter(frames), fps, progress=counted.append) == 7
    assert counted == list(range(1, 8))
    back = np.stack(list(open_video(tmp_path / "film.mp4")))
    assert back.shape == (7, size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    assert back.dtype == np.uint8
    assert np.abs(back[:, : size[0], : size[1]].astype(int) - frames).mean() < 4
    assert open_video(tmp_path / "film.mp4").fps == pytest.approx(fps, rel=1e-4)


def test_film_can_start_before_it_is_whole_and_every_player_knows_its_colours(tmp_path):
    import av

    write_video(tmp_path / "film.mp4", film(3, 64, 64), 30)
    data = (tmp_path / "film.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "film.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_a_film_that_is_stopped_leaves_nothing_and_spares_the_old_one(tmp_path, failure):
    def stopped():
        yield from film(5, 32, 32)
        raise failure

    with pytest.raises(failure):
        write_video(tmp_path / "film.mp4", stopped(), 30)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "film.mp4").write_bytes(b"old")
    with pytest.raises(failure):
        write_video(tmp_path / "film.mp4", stopped(), 30)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_frames_are_taken_one_at_a_time(tmp_path):
    written = []

    def lazily():
        for i, frame in enumerate(film(4, 16, 16)):
            assert len(written) >= i - 1
            yield frame

    write_video(tmp_path / "film.mp4", lazily(), 10, progress=written.append)


def test_rotation_tag_is_honoured(tmp_path):
    frames = film(1, 32, 64)
    frames[0, :, 32:] = 200
    write_video(tmp_path / "flat.mp4", frames, 30)
    data = (tmp_path / "flat.mp4").read_bytes()
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    place = data.index(upright, data.index(b"tkhd"))
    quarter_clockwise = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(data[:place] + quarter_clockwise + data[place + 36 :])
    (turned,) = open_video(tmp_path / "turned.mp4")
    assert turned.shape == (64, 32, 3)
    assert turned[40:].mean() > 180 > 100 > turned[:24].mean()  # the right half, turned clockwise, is the lower half


def test_bad_input_is_named(tmp_path):
    frames = film(2, 8, 8)
    with pytest.raises(InputError, match=r"suffix '.avi', expected '.mp4'"):
        write_video(tmp_path / "film.avi", frames, 30)
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="fps"):
            write_video(tmp_path / "film.mp4", frames, fps)
    with pytest.raises(InputError, match="no frames"):
        write_video(tmp_path / "film.mp4", [], 30)
    with pytest.raises(InputError, match=r"frames\[1\]: found \(4, 4\), expected \(8, 8\)"):
        write_video(tmp_path / "film.mp4", [frames[0], frames[0, :4, :4]], 30)
    with pytest.raises(InputError, match=r"frames\[0\]: found float32"):
        write_video(tmp_path / "film.mp4", frames.astype(np.float32), 30)
    assert list(tmp_path.iterdir()) == []
