"""People in photographs: 2D keypoints by MediaPipe's BlazePose, an optional dependency (``pip install "dposer[detect]"``).

BlazePose finds one person. Several are found one after another: whoever was found is painted over, and it is asked again, until it
finds nobody. It looks at the whole picture, at the picture with a margin, for people whom its border cuts, and at overlapping parts of
it, for people who are small. The weights are those inside MediaPipe's package: nothing is fetched.

Source: Bazarevsky et al., *BlazePose: On-device real-time body pose tracking*, 2020.
"""

import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any, NamedTuple

import cv2
import numpy as np

from dposer.body.skeleton import BLAZEPOSE_33
from dposer.data.keypoints import Keypoints
from dposer.errors import InputError

MOST = 8
"""People in a picture."""

_GREY = (128, 128, 128)
_MARGIN = 0.3
"""Of the picture's longer side, on every side."""
_PART = 0.75
"""Side of a square part, of the picture's shorter side; neighbours overlap by at least half."""
_SURE = 0.5
"""From this on something is a person, and a keypoint is seen."""
_REPEAT = 0.6
"""Of somebody's keypoints within the outline of another: the same person."""
_CUT = 0.1
"""Of somebody's keypoints in another part of the picture: better seen from there."""
_SOME, _MOST_OF = 0.2, 0.8
"""Of somebody's keypoints in the picture: needed at all, and of a small person, whom else the remains of a large one resemble."""
_SCRAP = 0.3
"""Of the trunk's length: how far apart keypoints in the picture are at least."""
_THICK, _OUTLINE = 0.35, 0.15
"""Of the trunk's length: thickness of a painted limb, and how far an outline is from the keypoints."""

_ROW = {name: row for row, name in enumerate(BLAZEPOSE_33.joints)}
_TRUNK = [_ROW[name] for name in ("left_shoulder", "right_shoulder", "left_hip", "right_hip")]
_EARS = [_ROW[name] for name in ("left_ear", "right_ear")]


class Detector:
    """Finds people in pictures; the network is loaded with the first picture and kept until :meth:`close`.

    Args:
        thorough: look for people whom the border cuts and for small ones too, which takes some seven times as long.

    Use as ``with Detector() as detector: ...`` or call :meth:`close`.
    """

    def __init__(self, thorough: bool = True) -> None:
        self.thorough = thorough
        self._network: Any = None

    def __call__(self, pixels: np.ndarray, most: int = MOST) -> Keypoints:
        """The people in a picture, those found first coming first.

        Args:
            pixels: (h, w, 3) uint8 RGB.
            most: how many to look for.

        Returns:
            BLAZEPOSE_33 keypoints in pixels; confidence is the network's "visibility", and 0 outside the picture.

        Raises:
            InputError: MediaPipe is not installed or of another version; or no picture, or ``most`` below 1.
        """
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
            raise InputError(f"picture: {pixels.dtype} of shape {pixels.shape}, expected uint8 RGB (h, w, 3)")
        if most < 1:
            raise InputError(f"most: {most}, expected at least 1 person to look for")
        self.load()
        height, width = pixels.shape[:2]
        found: list[np.ndarray] = []
        for view in _views(width, height, self.thorough):
            self._look(view, pixels, found, most)
        points = np.array(found).reshape(-1, len(BLAZEPOSE_33.joints), 3)
        points[points[..., 2] == 0] = 0
        return Keypoints(points, BLAZEPOSE_33, (None,) * len(points), (width, height))

    def _look(self, view: "_View", pixels: np.ndarray, found: list[np.ndarray], most: int) -> None:
        """Add whoever is seen in a view and was not found before."""
        size = pixels.shape[1], pixels.shape[0]
        picture = view.cut(pixels)
        for other in found:
            _hide(picture, other[:, :2] - view.corner)
        for _ in range(2 * most):
            person = self._ask(picture) if len(found) < most else None
            if person is None:
                return
            _hide(picture, person[:, :2])
            cut = ~view.holds(person)
            person[:, :2] += view.corner
            inside = _within(person, size)
            person[~inside, 2] = 0
            scrap = inside.mean() < view.share or np.ptp(person[inside, :2], axis=0).max() < _SCRAP * _trunk(person)
            if not scrap and (cut & inside).mean() < _CUT and not any(_same(person, other) for other in found):
                found.append(person)

    def _ask(self, picture: np.ndarray) -> np.ndarray | None:
        """(33, 3): the one person that BlazePose sees."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # protobuf deprecates what MediaPipe calls
            landmarks = self._network.process(picture).pose_landmarks
        if landmarks is None:
            return None
        scale = np.array([picture.shape[1], picture.shape[0], 1.0])
        points = np.array([(point.x, point.y, point.visibility) for point in landmarks.landmark]) * scale
        return np.clip(points, (-np.inf, -np.inf, 0), (np.inf, np.inf, 1))

    def load(self) -> None:
        """Load the network now, rather than with the first picture.

        Raises:
            InputError: MediaPipe is not installed or of another version.
        """
        if self._network is None:
            self._network = _load()

    def close(self) -> None:
        """Free the network; another call loads it again."""
        if self._network is not None:
            self._network.close()
            self._network = None

    def __enter__(self) -> "Detector":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def detect_people(pixels: np.ndarray, most: int = MOST, thorough: bool = True) -> Keypoints:
    """The people in one picture, see :class:`Detector`."""
    with Detector(thorough) as detector:
        return detector(pixels, most)


# --- where to look -------------------------------------------------------------------------------------------------------


class _View(NamedTuple):
    """A rectangle of the picture, which may reach beyond it."""

    left: int
    top: int
    right: int
    bottom: int
    share: float
    """Of somebody's keypoints that must be in the picture."""

    @property
    def corner(self) -> np.ndarray:
        return np.array([self.left, self.top])

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """A copy of what is seen in it; grey beyond the picture."""
        height, width = pixels.shape[:2]
        beyond = max(0, -self.top), max(0, self.bottom - height), max(0, -self.left), max(0, self.right - width)
        inner = pixels[max(0, self.top) : self.bottom, max(0, self.left) : self.right]
        return cv2.copyMakeBorder(inner, *beyond, cv2.BORDER_CONSTANT, value=_GREY)

    def holds(self, points: np.ndarray) -> np.ndarray:
        """(K,): which points, given from its corner, lie in it."""
        return _within(points, (self.right - self.left, self.bottom - self.top))


def _views(width: int, height: int, thorough: bool) -> Iterator[_View]:
    yield _View(0, 0, width, height, _SOME)
    if not thorough:
        return
    margin = round(_MARGIN * max(width, height))
    yield _View(-margin, -margin, width + margin, height + margin, _SOME)
    side = max(2, round(_PART * min(width, height)))
    for top in _spread(height - side, side // 2):
        for left in _spread(width - side, side // 2):
            yield _View(left, top, left + side, top + side, _MOST_OF)


def _spread(length: int, step: int) -> list[int]:
    """From 0 to ``length`` in even steps of at most ``step``."""
    return np.linspace(0, length, -(-length // step) + 1).astype(int).tolist()


# --- who is who ----------------------------------------------------------------------------------------------------------


def _within(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(((points[:, :2] >= 0) & (points[:, :2] < size)).all(1))


def _trunk(points: np.ndarray) -> float:
    """From the middle of the shoulders to that of the hips, or across either if that is more; pixels."""
    shoulders, hips = points[_TRUNK[:2], :2], points[_TRUNK[2:], :2]
    lengths = [np.ptp(shoulders, axis=0), np.ptp(hips, axis=0), shoulders.mean(0) - hips.mean(0)]
    return max(1.0, *np.linalg.norm(lengths, axis=1).tolist())


def _hide(picture: np.ndarray, points: np.ndarray) -> None:
    """Paint a person grey, limb by limb, so that those behind stay seen."""
    trunk = _trunk(points)
    thickness = max(3, round(_THICK * trunk))
    pixels = np.clip(points, -1e4, 1e4).round().astype(np.int32)
    for start, end in BLAZEPOSE_33.edges:
        cv2.line(picture, pixels[start].tolist(), pixels[end].tolist(), _GREY, thickness)
    cv2.fillConvexPoly(picture, cv2.convexHull(pixels[_TRUNK]), _GREY)
    head = max(thickness, round(float(np.linalg.norm(np.subtract(*points[_EARS])))))
    cv2.circle(picture, pixels[_EARS].mean(0).round().astype(int).tolist(), head, _GREY, -1)


def _same(person: np.ndarray, other: np.ndarray) -> bool:
    """Whether somebody is within the outline of another."""
    outline = cv2.convexHull(other[other[:, 2] > 0, :2].astype(np.float32))
    beyond = [-cv2.pointPolygonTest(outline, point.tolist(), True) for point in person[person[:, 2] > 0, :2]]
    return float(np.mean(np.array(beyond) <= _OUTLINE * _trunk(other))) > _REPEAT


# --- MediaPipe -----------------------------------------------------------------------------------------------------------

_MEND = "pip install mediapipe==0.10.14, and then the headless OpenCV once more, as README.md has it"


def _load() -> Any:
    try:
        mediapipe = importlib.import_module("mediapipe")
    except ImportError as error:
        raise InputError(f"mediapipe: cannot be imported ({error}), needed to detect people; {_MEND}, or give keypoints") from error
    if not hasattr(mediapipe, "solutions"):
        raise InputError(f"mediapipe {mediapipe.__version__}: comes without weights, expected 0.10.14; {_MEND}")
    with _quiet():
        network = mediapipe.solutions.pose.Pose(static_image_mode=True, model_complexity=1, min_detection_confidence=_SURE)
        network.process(np.zeros((64, 64, 3), np.uint8))  # with the first picture it logs what cannot be turned off
    return network


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Standard error to nowhere, that of native code too."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
