"""Camera matrices: every form gives one lens, and what is no pinhole camera of this picture is told."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dposer.data.intrinsics import Intrinsics, read_intrinsics
from dposer.errors import InputError

SIZE = (640, 480)
K = np.array([[700.5, 0, 330.25], [0, 710, 236], [0, 0, 1]])
LENS = Intrinsics((700.5, 710.0), (330.25, 236.0))
ROWS = K.tolist()
ROS = f"""image_width: 640
image_height: 480
camera_name: head_left 2
camera_matrix:
  rows: 3
  cols: 3
  data: [{", ".join(map(str, K[:2].ravel()))},
         0., 0., 1.]
distortion_model: plumb_bob
distortion_coefficients: {{rows: 1, cols: 5, data: [0, 0.0, 0, 0, 0]}}
"""


def _saved(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "# calibrated\n700.5 0 330.25\n0 7.1e2 236\n0 0 1  # last\n"),
        ("a.csv", "700.5, 0, 330.25\n0, 710, 236\n0, 0, 1\n"),
        ("a.json", {"K": ROWS}),
        ("a.json", ROWS),
        ("a.json", {"intrinsics": K.ravel().tolist(), "width": 640, "height": 480, "k1": 0}),
        ("a.json", {"camera_matrix": {"rows": 3, "data": K.ravel().tolist()}, "distortion_coefficients": {"data": [0, 0]}}),
        ("a.json", {"fx": 700.5, "fy": 710, "cx": 330.25, "cy": 236}),
        ("a.json", {"camera_matrix": {"fl_x": 700.5, "fl_y": 710, "cx": 330.25, "cy": 236}}),
        ("a.yaml", ROS),
        ("a.yml", "K:\n- [700.5, 0, 330.25]\n- [0, 710, 236]\n- [0, 0, 1]\n"),
        ("a.yml", "fx: 700.5\nfy: 710\ncx: 330.25\ncy: 236\n"),
    ],
)
def test_every_form_gives_the_same_lens(tmp_path: Path, name: str, content: object) -> None:
    assert read_intrinsics(_saved(tmp_path / name, content), SIZE) == LENS


def test_arrays_and_what_opencv_writes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", K)
    np.savez(tmp_path / "a.npz", mtx=K, dist=np.zeros((1, 5)), w=640, h=480)
    storage = cv2.FileStorage(str(tmp_path / "a.yml"), cv2.FILE_STORAGE_WRITE)
    for name, value in {"image_width": 640, "image_height": 480, "camera_matrix": K, "distortion_coefficients": np.zeros(5)}.items():
        storage.write(name, value)
    storage.release()
    assert {read_intrinsics(tmp_path / name, SIZE) for name in ("a.npy", "a.npz", "a.yml")} == {LENS}


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.txt", "1 2 3\n", "'K' holds 3 numbers, expected 9"),
        ("a.txt", "1500 0 x\n", "not made of numbers"),
        ("a.txt", "700 0 nan 0 700 240 0 0 1", "NaN"),
        ("a.txt", "700 0 0 0 700 0 320 240 1", "transpose"),
        ("a.txt", "-700 0 320 0 700 240 0 0 1", "focal lengths -700 and 700, expected 80 to 80000 pixels"),
        ("a.txt", "1.1 0 0.5 0 1.5 0.5 0 0 1", "in fractions of the picture"),
        ("a.txt", "700 9 320 0 700 240 0 0 1", "skew 9, which is not supported"),
        ("a.txt", "700 0 1320 0 700 240 0 0 1", "outside of the picture of 640 x 480"),
        ("a.json", {"K": ROWS, "image_width": 1280, "image_height": 960}, "pictures of 1280 x 960, found one of 640 x 480"),
        ("a.json", {"K": ROWS, "dist": [[0.1, -0.2, 0, 0, 0]]}, r"distortion \(dist 0.1 -0.2 0 0 0\) is not supported"),
        ("a.yaml", ROS.replace("[0, 0.0", "[-.3, 0.0"), "distortion_coefficients -0.3"),
        ("a.yaml", ROS.replace("330.25", ".nan"), "NaN"),
        ("a.json", {"fx": 700}, "holds fx, expected K or fx, fy, cx and cy"),
        ("a.json", {"K": "unknown"}, "'K' is not made of numbers"),
        ("a.json", {"K": [[1, 2], [3]]}, "'K' is not made of numbers"),
        ("a.json", "{", "not readable as JSON"),
        ("a.toml", "K = 1", "expected a camera matrix K as .txt"),
        ("a.yml", "hello", "holds nothing, expected K"),
    ],
)
def test_rejections(tmp_path: Path, name: str, content: object, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        read_intrinsics(_saved(tmp_path / name, content), SIZE)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


_FUZZ = st.binary(min_size=1, max_size=120) | st.integers(1, len(ROS) - 1).map(lambda length: ROS[:length].encode())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_FUZZ, st.sampled_from([".txt", ".npy", ".npz", ".json", ".yml"]))
def test_damage_is_an_input_error(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(data)
    try:
        assert read_intrinsics(path, SIZE) == LENS  # cut behind K
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    with pytest.raises(InputError, match="nowhere.txt"):
        read_intrinsics(tmp_path / "nowhere.txt", SIZE)
