"""People in images: 2D keypoints from the files that detectors write, and back as OpenPose JSON.

A file is recognised by its structure, its layout by the number of keypoints:

- OpenPose: ``{"people": [{"pose_keypoints_2d": [x, y, c, ...]}]}``;
- COCO results and AlphaPose: ``[{"image_id": 1, "keypoints": [x, y, c, ...]}]``;
- COCO annotations: ``{"images": [...], "annotations": [{"image_id": 1, "keypoints": [x, y, v, ...]}]}``;
- ViTPose and MMPose: ``[{"keypoints": [[x, y, c], ...]}]`` or ``[{"keypoints": [[x, y], ...], "keypoint_scores": [c, ...]}]``, also under
  ``"instance_info"``, and for videos ``[{"frame_id": 1, "instances": [...]}]``;
- MediaPipe: ``[{"x": x, "y": y, "visibility": c}, ...]`` for a person or a list of those, also under ``"landmarks"`` or
  ``"pose_landmarks"``;
- ``.npy``, ``.npz`` (``keypoints``): (K, 3) or (people, K, 3); also (…, 2), where (0, 0) is missing.

A keypoint with a NaN or with confidence 0 is missing. Coordinates that all lie within ±2 are fractions of the image, since nobody is
that small in pixels. Confidences may leave [0, 1] by 0.05, as those of heat maps do, and are clipped. If they are only 0, 1 and 2, they
are COCO's visibilities: 2 (seen) becomes 1 and 1 (hidden, its place guessed by the annotator) becomes 0.5; without any 2 only in
annotations, because detectors write 0 and 1 as well.

Sources: OpenPose (Cao et al., TPAMI 2021), COCO (Lin et al., ECCV 2014), COCO-WholeBody (Jin et al., ECCV 2020), Halpe-FullBody (Fang et
al., TPAMI 2022), BlazePose (Bazarevsky et al., 2020) for the formats; DPoser (arXiv 2312.05541) for neck and pelvis of other layouts.
"""

import json
import re
import reprlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, NamedTuple, TypeVar

import numpy as np

from dposer.body.skeleton import BLAZEPOSE_33, COCO_17, COCO_WHOLEBODY_133, HALPE_26, OPENPOSE_18, OPENPOSE_25, Layout, layout_map
from dposer.errors import InputError
from dposer.files import PathLike, existing_file, load_npy, load_npz, save_bytes

DETECTED: dict[str, Layout] = {
    layout.name: layout for layout in (OPENPOSE_25, COCO_17, COCO_WHOLEBODY_133, BLAZEPOSE_33, HALPE_26, OPENPOSE_18)
}
"""Layouts of detectors by name; no two have the same number of keypoints."""

DERIVED: dict[str, tuple[str, ...]] = {
    "pelvis": ("left_hip", "right_hip"),
    "neck": ("left_shoulder", "right_shoulder"),
    "left_big_toe": ("left_foot_index",),
    "right_big_toe": ("right_foot_index",),
}
"""Joint → what it is the mean of in a layout without it."""

ImageSize = tuple[int, int]
"""Width and height in pixels."""

_KAPPA = {
    "nose": 0.052, "eye": 0.050, "ear": 0.070, "shoulder": 0.158, "elbow": 0.144, "wrist": 0.124, "hip": 0.214, "knee": 0.174,
    "ankle": 0.178, "neck": 0.158, "pelvis": 0.214,
}  # fmt: skip
"""Twice the deviation of COCO's annotators; neck and pelvis, which COCO lacks, like what they are the mean of."""
_KAPPA_OTHERS = 0.16
"""In the middle of the limbs'."""
_WHAT = "2D keypoints"
_PRODUCERS = "OpenPose (people), COCO or AlphaPose (image_id, keypoints), ViTPose or MMPose (keypoints) or MediaPipe (pose_landmarks)"
_TOLERANCE = 0.05
"""By which confidences may leave [0, 1]."""
_FRACTION = 2.0
"""Coordinates up to this are fractions of the image."""
_FARTHEST = 1e5
"""Pixels; no image is that large."""


@dataclass(frozen=True)
class Keypoints:
    """The people in one image."""

    points: np.ndarray
    """(P, K, 3) float64: x, y in pixels, confidence in [0, 1]; all 0 where missing."""
    layout: Layout
    """What the K keypoints are."""
    ids: tuple[int | None, ...]
    """Of each person, the same over a video; None where the file does not tell."""
    image_size: ImageSize | None = None
    """Of the image they were found in; None if neither the file nor the caller tells."""

    def __len__(self) -> int:
        return len(self.points)

    def of(self, rows: np.ndarray) -> "Keypoints":
        """Some of the people."""
        return replace(self, points=self.points[rows], ids=tuple(self.ids[row] for row in rows))

    def joint(self, name: str) -> np.ndarray:
        r"""(P, 3): one joint; where the layout lacks it, what :data:`DERIVED` says it is the mean of, else missing.

        .. math:: x = \tfrac{1}{n} \sum_i x_i, \qquad c = \prod_i c_i
        """
        rows = layout_map(self.layout.joints, (name,) if name in self.layout.joints else DERIVED.get(name, ()))
        if not rows or -1 in rows:
            return np.zeros((len(self), 3))
        sources = self.points[:, list(rows)]
        confidence = sources[..., 2].prod(1, keepdims=True)
        return np.concatenate([np.where(confidence > 0, sources[..., :2].mean(1), 0.0), confidence], axis=1)

    def to(self, layout: Layout) -> "Keypoints":
        """The same people in another layout, joint by joint as :meth:`joint` gives them."""
        return replace(self, points=np.stack([self.joint(name) for name in layout.joints], axis=1), layout=layout)


def kappas(names: Iterable[str]) -> np.ndarray:
    """(K,): κ of object keypoint similarity, how loosely keypoints are placed, as a share of the person's size."""
    return np.array([next((kappa for part, kappa in _KAPPA.items() if part in name), _KAPPA_OTHERS) for name in names])


def to_openpose25(keypoints: Keypoints) -> Keypoints:
    """The same people in OpenPose BODY_25. Where a layout has no pelvis it is the mean of the hips, where it has no neck that of the
    shoulders, with the product of both confidences; BlazePose's ``foot_index`` stands for the big toe."""
    return keypoints.to(OPENPOSE_25)


def read_keypoints(path: PathLike, layout: str = "auto", image_size: ImageSize | None = None, image: str | int | None = None) -> Keypoints:
    """Read the people of one image from any of the formats above. A file may hold nobody: then P is 0.

    Args:
        layout: one of :data:`DETECTED` that the file must be in; ``auto`` goes by the number of keypoints.
        image_size: of the image, which fractions need, and which the keypoints are checked against.
        image: id or file name of the image, to choose among several in the file.

    Raises:
        InputError: damaged, of an unknown producer or another layout; confidences outside [0, 1]; several images and ``image`` names
            none of them; fractions without ``image_size``; keypoints mostly outside the image, or of one of another size.
    """
    file = _read(path, _layout(layout))
    return file.keypoints(file.find(image), image_size)


def write_openpose(path: PathLike, keypoints: Keypoints) -> None:
    """Write OpenPose 1.3 JSON atomically, in BODY_25. The size of the image goes beside it, as ``canvas_width`` and ``canvas_height``."""
    empty: dict[str, list[float]] = {
        f"{part}_keypoints_{dim}d": [] for dim in (2, 3) for part in ("pose", "face", "hand_left", "hand_right")
    }
    people = [
        {"person_id": [-1 if person is None else person], **empty, "pose_keypoints_2d": points.ravel().tolist()}
        for person, points in zip(keypoints.ids, to_openpose25(keypoints).points, strict=True)
    ]
    size = zip(("canvas_width", "canvas_height"), keypoints.image_size or (), strict=False)
    save_bytes(path, (json.dumps({"version": 1.3, **dict(size), "people": people}) + "\n").encode())


# --- folders and videos --------------------------------------------------------------------------------------------------

_BESIDE = ("{}_keypoints.json", "{}_2Djnt.json", "results_{}.json", "{}.json")
_FRAME = re.compile(r"(?P<name>.*?)(?P<number>\d+)")
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class KeypointSequence:
    """The people of each frame of a video."""

    frames: tuple[int, ...]
    """Numbers of the frames that could be read, growing."""
    keypoints: tuple[Keypoints, ...]
    """Of those frames, all in one layout."""
    failures: tuple[str, ...] = ()
    """Why frames could not be read, a line each."""

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def layout(self) -> Layout:
        """Of all frames."""
        return self.keypoints[0].layout

    @property
    def gaps(self) -> tuple[int, ...]:
        """Numbers of the frames that are missing between the first and the last."""
        return tuple(sorted(set(range(self.frames[0], self.frames[-1])) - set(self.frames)))


def find_keypoints(folder: PathLike, images: Iterable[PathLike]) -> tuple[dict[Path, Path], tuple[Path, ...]]:
    """Pair images with the files of a folder: ``<stem>_keypoints.json`` (OpenPose), ``<stem>_2Djnt.json`` (EHF, where the image is
    ``<stem>_img``), ``results_<stem>.json`` (MMPose) or ``<stem>.json``, the first of these that is there.

    Returns:
        Image → file, and the images that have none, both in the order of ``images``.

    Raises:
        InputError: no such folder.
    """
    folder = _folder(folder)
    names = {entry.name for entry in folder.iterdir() if entry.is_file()}
    found: dict[Path, Path] = {}
    missing = []
    for image in map(Path, images):
        candidates = (pattern.format(stem) for stem in dict.fromkeys((image.stem, image.stem.removesuffix("_img"))) for pattern in _BESIDE)
        name = next((name for name in candidates if name in names), None)
        if name is None:
            missing.append(image)
        else:
            found[image] = folder / name
    return found, tuple(missing)


def read_sequence(path: PathLike, layout: str = "auto", image_size: ImageSize | None = None, name: str | None = None) -> KeypointSequence:
    """Read a video: a folder with ``<name>_<number>_keypoints.json`` (or ``<name><number>.json``) for each frame, or one file of many
    images whose ids or names end in numbers (MMPose, AlphaPose).

    Args:
        layout, image_size: as for :func:`read_keypoints`.
        name: of the video, if the folder holds several.

    Raises:
        InputError: no frame, several videos, a frame twice, frames of different layouts, or no frame that can be read.
    """
    if not Path(path).is_dir():
        file = _read(path, _layout(layout))
        images = _numbered(path, {key: PurePath(source.name).stem for key, source in file.images.items()}, name)
        return _sequence(path, {number: file.keypoints(key, image_size) for number, key in images.items()})
    stems = {file: re.sub("_(keypoints|2Djnt)$", "", file.stem) for file in sorted(Path(path).glob("*.json"))}
    keypoints, failures = {}, []
    for number, one in _numbered(path, stems, name).items():
        try:
            keypoints[number] = read_keypoints(one, layout, image_size)
        except InputError as error:
            failures.append(str(error))
    if not keypoints:
        raise InputError(failures[0])
    return _sequence(path, keypoints, tuple(failures))


def _numbered(path: PathLike, stems: dict[_Item, str], name: str | None) -> dict[int, _Item]:
    """Frame number → what it is the frame of, in order, for stems that end in a number."""
    videos: dict[str, dict[int, _Item]] = {}
    for item, stem in stems.items():
        if match := _FRAME.fullmatch(stem):
            frames = videos.setdefault(match["name"].rstrip("_-. "), {})
            if (number := int(match["number"])) in frames:
                raise InputError(f"{path}: '{frames[number]}' and '{item}' are both frame {number}, expected one; remove the other")
            frames[number] = item
    if not videos:
        raise InputError(
            f"{path}: no numbered frames, expected a folder of <name>_<number>_keypoints.json, or a file of numbered images; rename them"
        )
    if name is None and len(videos) > 1:
        raise InputError(f"{path}: frames of {len(videos)} videos ({_few(videos)}), expected one; name one of them")
    if name is not None and name not in videos:
        raise InputError(f"{path}: no frames of video '{name}', found {_few(videos)}; name one of these")
    return dict(sorted(videos[next(iter(videos)) if name is None else name].items()))


def _sequence(path: PathLike, keypoints: dict[int, Keypoints], failures: tuple[str, ...] = ()) -> KeypointSequence:
    """Frames without people are in whatever layout the others are in."""
    first = {people.layout.name: number for number, people in reversed(keypoints.items()) if len(people)}
    if len(first) > 1:
        found = " and ".join(f"{layout} (frame {number})" for layout, number in first.items())
        raise InputError(f"{path}: frames in {found}, expected one layout; keep those of one detector")
    layout = DETECTED[next(iter(first))] if first else next(iter(keypoints.values())).layout
    return KeypointSequence(
        tuple(keypoints), tuple(people if len(people) else people.to(layout) for people in keypoints.values()), failures
    )


def _folder(path: PathLike) -> Path:
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: found {'a file' if path.exists() else 'nothing'}, expected a folder of {_WHAT}; check the path")
    return path


# --- what a file holds ---------------------------------------------------------------------------------------------------


class _Wrong(Exception):
    """What is wrong with the content; :func:`_read` adds the name of the file."""


class _Source(NamedTuple):
    """An image of a file."""

    name: str
    size: ImageSize | None = None


class _Person(NamedTuple):
    """A person before the numbers are looked at."""

    keypoints: Any
    scores: Any = None
    identity: Any = None
    image: str = ""


@dataclass
class _Content:
    """What every format is brought to first."""

    people: list[_Person]
    images: dict[str, _Source] = field(default_factory=lambda: {"": _Source("")})
    annotated: bool = False
    """By hand, so that confidences are visibilities."""


_FORMS: tuple[Callable[[str], str], ...] = (
    str,
    lambda name: PurePath(name).name,
    lambda name: PurePath(name).stem,
    lambda name: PurePath(name).stem.lstrip("0"),
)
"""How image ids and file names are compared; COCO's image 785 is ``000000000785.jpg``."""


@dataclass
class _File:
    """What a file holds, checked."""

    path: PathLike
    images: dict[str, _Source]
    rows: dict[str, list[int]]
    """Of ``points``, for each image."""
    points: np.ndarray
    """(people of all images, K, 3), as in :class:`Keypoints` but for fractions."""
    ids: list[int | None]
    layout: Layout
    fractions: bool

    def find(self, image: str | int | None) -> str:
        """Key of an image, by ever looser comparisons; whatever its name if it is the only one."""
        if len(self.images) == 1:
            return next(iter(self.images))
        found = f"keypoints of {len(self.images)} images ({_few(source.name for source in self.images.values())})"
        if image is None:
            raise InputError(f"{self.path}: {found}, expected one image; choose one by its image_id or file name")
        for form in _FORMS:
            keys = [key for key, source in self.images.items() if form(str(image)) in (form(key), form(source.name))]
            if len(keys) == 1:
                return keys[0]
        raise InputError(f"{self.path}: {found}, expected '{image}' among them, once; choose one of these")

    def keypoints(self, key: str, image_size: ImageSize | None) -> Keypoints:
        """The people of an image, in pixels."""
        rows, size = self.rows[key], self.images[key].size or image_size
        points = self.points[rows]
        if size is not None and image_size is not None and size != tuple(image_size):
            raise InputError(
                f"{self.path}: made for an image of {size[0]} x {size[1]} pixels, but this one has {image_size[0]} x {image_size[1]}; "
                "take the keypoints of this image or the image they were found in"
            )
        if self.fractions and size is None and len(rows):
            raise InputError(f"{self.path}: coordinates are fractions of the image, expected pixels; give the image, or its size")
        if size is not None:
            points = points * np.array([*size, 1.0]) if self.fractions else points
            _check_inside(self.path, points, size)
        return Keypoints(points, self.layout, tuple(self.ids[row] for row in rows), size)


def _check_inside(path: PathLike, points: np.ndarray, size: ImageSize) -> None:
    """Most of the confidence must lie in the image; people whom its border cuts may reach beyond."""
    outside = ((points[..., :2] < 0) | (points[..., :2] > size)).any(-1)
    if points[outside][:, 2].sum() > 0.5 * points[..., 2].sum():
        seen = points[points[..., 2] > 0]
        low, high = seen[:, :2].min(0), seen[:, :2].max(0)
        raise InputError(
            f"{path}: keypoints from ({low[0]:.0f}, {low[1]:.0f}) to ({high[0]:.0f}, {high[1]:.0f}) lie mostly outside the image of "
            f"{size[0]} x {size[1]} pixels; take the keypoints of this image"
        )


def _read(path: PathLike, layout: Layout | None) -> _File:
    path = existing_file(path, _WHAT)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: found suffix '{path.suffix}', expected one of {' '.join(_READERS)}; convert the file")
    try:
        content = reader(path)
        found = [_rows(person, f"person {number}") for number, person in enumerate(content.people)]
        layout = _common_layout(found, layout)
        points = _clean(np.array(found).reshape(-1, len(layout.joints), 3), content.annotated)
        fractions = _are_fractions(points, layout)
    except _Wrong as error:
        raise InputError(f"{path}: {error}") from None
    rows: dict[str, list[int]] = {key: [] for key in content.images}
    for row, person in enumerate(content.people):
        rows[person.image].append(row)
    return _File(path, content.images, rows, points, [_identity(person.identity) for person in content.people], layout, fractions)


def _layout(name: str) -> Layout | None:
    if name != "auto" and name not in DETECTED:
        raise InputError(f"layout '{name}' is not one that detectors use, expected auto, {', '.join(DETECTED)}; choose one of these")
    return DETECTED.get(name)


def _rows(person: _Person, where: str) -> np.ndarray:
    """(K, 3) of flat numbers, of [x, y(, c)] lists with or without scores beside them, or of {x, y} objects."""
    value, scores = person.keypoints, person.scores
    if isinstance(value, list) and value and all(isinstance(point, dict) for point in value):
        value = [[point.get("x"), point.get("y"), point.get("visibility", point.get("score", 1.0))] for point in value]
    points = _numbers(value, f"{where}: keypoints")
    if points.ndim == 1 and points.size % 3 == 0:
        points = points.reshape(-1, 3)
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        shape = f"{points.size} numbers" if points.ndim == 1 else f"shape {points.shape}"
        raise _Wrong(f"{where}: keypoints of {shape}, expected x, y and confidence of each; export them again")
    if scores is None:
        seen = points.any(axis=1, keepdims=True)
        return points if points.shape[1] == 3 else np.concatenate([points, seen], axis=1)
    scores = _numbers(scores, f"{where}: keypoint_scores")
    if points.shape[1] == 3 or scores.shape != points.shape[:1]:
        raise _Wrong(
            f"{where}: keypoints of shape {points.shape} beside keypoint_scores of shape {scores.shape}, expected (K, 2) and (K,); "
            "keypoints in 3D cannot be fitted to an image"
        )
    return np.concatenate([points, scores[:, None]], axis=1)


def _numbers(value: Any, where: str) -> np.ndarray:
    try:
        return np.array(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        raise _Wrong(f"{where} are {_shown(value)}, expected numbers, as many for each; export them again") from None


def _common_layout(found: Sequence[np.ndarray], layout: Layout | None) -> Layout:
    """Of all people; OpenPose's if there are none to tell."""
    by_count = {len(known.joints): known for known in DETECTED.values()}
    if layout is None:
        layout = by_count.get(len(found[0])) if found else OPENPOSE_25
    if layout is None:
        known = ", ".join(f"{count} ({other.name})" for count, other in by_count.items())
        mpi = "OpenPose's MPI model, run it with --model_pose BODY_25" if len(found[0]) == 15 else "let a detector write one of these"
        raise _Wrong(f"{len(found[0])} keypoints a person, expected {known}; {mpi}")
    count = len(layout.joints)
    for number, points in enumerate(found):
        if len(points) != count:
            other = by_count.get(len(points))
            mend = f"that is {other.name}" if other else "check which model wrote the file"
            raise _Wrong(f"person {number} has {len(points)} keypoints, expected the {count} of {layout.name}; {mend}")
    return layout


def _clean(points: np.ndarray, annotated: bool) -> np.ndarray:
    """(N, K, 3) with confidences in [0, 1], and zeros for what is missing."""
    if np.isinf(points).any():
        raise _Wrong("infinite values, expected pixels and confidences; write null or confidence 0 for what is missing")
    confidence = points[..., 2]
    if np.isin(confidence, (0, 1, 2)).all() and (annotated or (confidence == 2).any()):
        confidence = confidence / 2
    if (confidence < -_TOLERANCE).any():
        raise _Wrong(f"confidences down to {np.nanmin(confidence):g}, expected 0 (missing) to 1; clip them")
    if (confidence > 1 + _TOLERANCE).any():
        raise _Wrong(f"confidences up to {np.nanmax(confidence):g}, expected 0 to 1; divide them by their largest value (percent: by 100)")
    missing = np.isnan(points).any(-1) | (confidence <= 0)
    points = np.where(missing[..., None], 0.0, np.concatenate([points[..., :2], confidence.clip(0, 1)[..., None]], axis=-1))
    if (np.abs(points[..., :2]) > _FARTHEST).any():
        raise _Wrong(f"coordinates up to {np.abs(points[..., :2]).max():g}, expected pixels, at most {_FARTHEST:g}; export them again")
    return points


def _are_fractions(points: np.ndarray, layout: Layout) -> bool:
    """Whether coordinates are fractions of the image, by all people of a file."""
    seen = points[points[..., 2] > 0][:, :2]
    if not len(seen) or np.abs(seen).max() > _FRACTION:
        return False
    if layout in (OPENPOSE_25, OPENPOSE_18) and seen.min() < -0.2:
        raise _Wrong(f"coordinates from {seen.min():.2f} to {seen.max():.2f}, expected pixels; run OpenPose with --keypoint_scale 0")
    pelvis = Keypoints(points, layout, ()).joint("pelvis")
    if layout is BLAZEPOSE_33 and (pelvis[:, 2] > 0).any() and np.abs(pelvis[:, :2]).max() < 0.01:
        raise _Wrong("landmarks in metres about the hips (MediaPipe's world landmarks), expected those in the image (pose_landmarks)")
    return True


def _identity(value: Any) -> int | None:
    """Number of a person: n or [n]; -1 stands for none."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _few(names: Iterable[str]) -> str:
    names = [repr(name) for name in names]
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _shown(value: Any) -> str:
    text = reprlib.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# --- formats -------------------------------------------------------------------------------------------------------------

_LANDMARKS = ("pose_landmarks", "poseLandmarks", "landmarks", "landmark")


def _read_json(path: PathLike) -> _Content:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: not readable JSON ({str(error)[:120]}), expected {_WHAT}; it may be truncated, write it again"
        ) from error
    return _recognise(content)


def _recognise(content: Any) -> _Content:
    """Tell who wrote a JSON file."""
    if isinstance(content, dict):
        return _recognise_object(content)
    if isinstance(content, list):
        first = content[0] if content else None
        if not content:
            return _Content([])
        if isinstance(first, list) or (isinstance(first, dict) and "x" in first):
            return _landmarks(content)
        if isinstance(first, dict) and "instances" in first:
            return _frames(content)
        if isinstance(first, dict) and "keypoints" in first:
            return _entries(content)
    raise _Wrong(f"cannot tell what wrote {_shown(content)}, expected {_PRODUCERS}; convert it to one of these")


def _recognise_object(content: dict[str, Any]) -> _Content:
    if "people" in content:
        return _openpose(content)
    if "annotations" in content:
        return _entries(_list(content, "annotations"), _list(content, "images") if "images" in content else (), annotated=True)
    if "instance_info" in content:
        return _recognise(content["instance_info"])
    if key := next((key for key in _LANDMARKS if key in content), None):
        return _landmarks(content[key])
    if "keypoints" in content:
        return _recognise([content])
    raise _Wrong(f"cannot tell what wrote an object of {_few(content) or 'nothing'}, expected {_PRODUCERS}; convert it to one of these")


def _openpose(content: dict[str, Any]) -> _Content:
    people = [
        _Person(_member(person, "pose_keypoints_2d", f"person {number}"), identity=person.get("person_id"))
        for number, person in enumerate(_list(content, "people"))
    ]
    return _Content(people, {"": _Source("", _size(content.get("canvas_width"), content.get("canvas_height")))})


def _entries(entries: Sequence[Any], images: Sequence[Any] = (), annotated: bool = False) -> _Content:
    """One entry a person: COCO, AlphaPose, ViTPose, MMPose."""
    sources = {}
    for number, image in enumerate(images):
        key = str(_member(image, "id", f"image {number}"))
        sources[key] = _Source(str(image.get("file_name", key)), _size(image.get("width"), image.get("height")))
    people = []
    for number, entry in enumerate(entries):
        keypoints = _member(entry, "keypoints", f"person {number}")
        key = str(entry.get("image_id", ""))
        sources.setdefault(key, _Source(key))
        people.append(_Person(keypoints, entry.get("keypoint_scores"), entry.get("track_id", entry.get("idx")), key))
    return _Content(people, sources or {"": _Source("")}, annotated)


def _frames(frames: Sequence[Any]) -> _Content:
    """MMPose's video: one entry a frame."""
    entries, images = [], []
    for number, frame in enumerate(frames):
        identity = _member(frame, "frame_id", f"frame {number}")
        images.append({"id": identity})
        for person in _list(frame, "instances"):
            _member(person, "keypoints", f"frame {identity}: a person")
            entries.append({**person, "image_id": identity})
    return _entries(entries, images)


def _landmarks(value: Any) -> _Content:
    """MediaPipe: landmarks of one person, or a list of such; null if there is nobody."""
    while isinstance(value, dict) and (key := next((key for key in _LANDMARKS if key in value), None)):
        value = value[key]
    value = [] if value is None else value
    if not isinstance(value, list):
        raise _Wrong(f"landmarks are {_shown(value)}, expected a list of {{x, y, visibility}}; export them again")
    people = [value] if value and isinstance(value[0], dict) else value
    return _Content([_Person(person) for person in people])


def _list(content: Any, key: str) -> list[Any]:
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, list):
        raise _Wrong(f"'{key}' is {_shown(value)}, expected a list; export it again")
    return value


def _member(value: Any, key: str, where: str) -> Any:
    if not isinstance(value, dict) or value.get(key) is None:
        raise _Wrong(f"{where} is {_shown(value)}, expected an object with '{key}'; export it again")
    return value[key]


def _size(width: Any, height: Any) -> ImageSize | None:
    return (width, height) if isinstance(width, int) and isinstance(height, int) and min(width, height) > 0 else None


def _read_npz(path: PathLike) -> _Content:
    return _array(load_npz(path, _WHAT, required=("keypoints",), optional=())["keypoints"])


def _read_npy(path: PathLike) -> _Content:
    return _array(load_npy(path, _WHAT))


def _array(array: np.ndarray) -> _Content:
    if array.dtype.kind not in "fiu" or array.ndim not in (2, 3) or array.shape[-1] not in (2, 3):
        raise _Wrong(f"an array of {array.dtype} and shape {array.shape}, expected numbers of shape (K, 3) or (people, K, 3); reshape it")
    return _Content([_Person(person) for person in array.reshape(-1, *array.shape[-2:])])


_READERS: dict[str, Callable[[PathLike], _Content]] = {".json": _read_json, ".npz": _read_npz, ".npy": _read_npy}
