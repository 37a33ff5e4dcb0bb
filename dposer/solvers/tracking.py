r"""People found frame by frame → who is who over a video.

Two detections are alike by how near their keypoints are, in proportion to the person and to how loosely each keypoint is placed:

.. math:: \text{OKS} = \frac{1}{|V|} \sum_{k \in V} \exp\left(-\frac{d_k^2}{2 s^2 \kappa_k^2}\right)

with V the keypoints that both have and s² the area of the box around the person. A person is expected where constant velocity
leads, and people found are given to people expected so that the sum of similarities is largest.

Sources: object keypoint similarity and its constants κ: COCO (Lin et al., ECCV 2014, and its evaluation); assignment: Kuhn, 1955.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from dposer.body.skeleton import Layout
from dposer.data.keypoints import kappas
from dposer.errors import InputError

_NARROW = 0.3
"""A box counts as at least this wide for its height, and the other way round: people stand straight and sideways too."""
_INERTIA = 0.5
"""Share of the former velocity in a new one."""


@dataclass(frozen=True)
class TrackingSettings:
    """Settings of :func:`track_people`."""

    similarity: float = 0.3
    """Least OKS of a person found to the one expected."""
    duplicate: float = 0.8
    """People in one frame who are this alike are one, found twice."""
    gap: int = 15
    """Frames for which a person may be missing before somebody new begins."""
    shortest: int = 5
    """Detections that a track needs; what has fewer is left out."""
    fewest: int = 3
    """Keypoints that a detection needs, to count."""


@dataclass(frozen=True)
class Track:
    """One person from the first to the last of F frames."""

    first: int
    """Number of the first frame."""
    keypoints: np.ndarray
    """(F, K, 3) pixels and confidence; all 0 in frames without the person."""
    people: np.ndarray
    """(F,) the person's row among the detections of the frame, -1 where there is none."""
    identity: int | None = None
    """What the detector calls the person, where it says so for all."""

    def __len__(self) -> int:
        return len(self.people)

    @property
    def stop(self) -> int:
        """Number of the frame after the last."""
        return self.first + len(self)

    @property
    def detections(self) -> int:
        """Frames with the person."""
        return int((self.people >= 0).sum())


@dataclass(frozen=True)
class Tracking:
    """Who is who."""

    tracks: tuple[Track, ...]
    """In order of appearance, from left to right within a frame."""
    dropped: tuple[Track, ...]
    """Too short to go by."""


def track_people(
    frames: Sequence[np.ndarray],
    layout: Layout,
    ids: Sequence[Sequence[int | None]] | None = None,
    settings: TrackingSettings | None = None,
) -> Tracking:
    """Follow people through a video; the order in which a frame lists them does not matter.

    Args:
        frames: of every frame, without gaps, (P, K, 3): pixels and confidence of P people, 0 where a keypoint is missing.
        layout: what the K keypoints are.
        ids: of every person in every frame, by the detector. They decide if nobody is without, and no frame has one twice.
        settings: None takes the defaults.

    Raises:
        InputError: wrong shapes.
    """
    settings = settings or TrackingSettings()
    frames = [_checked(people, number, layout) for number, people in enumerate(frames)]
    if ids is not None and _decisive(ids, frames):
        found = _by_identity(frames, ids, settings)
    else:
        found = _by_similarity(frames, kappas(layout.joints), settings)
    tracks = sorted((path.track(frames) for path in found), key=_appearance)
    return Tracking(
        tuple(track for track in tracks if track.detections >= settings.shortest),
        tuple(track for track in tracks if track.detections < settings.shortest),
    )


def similarities(one: np.ndarray, other: np.ndarray, kappa: np.ndarray) -> np.ndarray:
    """OKS (P, Q) of people (P, K, 3) and (Q, K, 3), with the larger one's area; 0 without common keypoints.

    Args:
        kappa: (K,), see :func:`~dposer.data.keypoints.kappas`.
    """
    both = (one[:, None, :, 2] > 0) & (other[None, :, :, 2] > 0)
    squared = np.square(one[:, None, :, :2] - other[None, :, :, :2]).sum(-1)
    area = np.maximum(_area(one)[:, None], _area(other)[None])
    likeness = np.exp(-squared / (2 * area[..., None] * kappa**2))
    return (likeness * both).sum(-1) / np.maximum(both.sum(-1), 1)


# --- who is who ----------------------------------------------------------------------------------------------------------


class _Path:
    """Where a person was found so far, and where to look next."""

    def __init__(self, frame: int, row: int, person: np.ndarray, identity: int | None = None) -> None:
        self.rows = {frame: row}
        self.identity = identity
        self.last = frame
        self.points = person.copy()
        """(K, 3) where each keypoint was last or, if it has not been found since, where it would be now."""
        self.found = np.where(person[:, 2] > 0, frame, -1)
        """(K,) frame in which each keypoint was found last."""
        self.velocity = np.zeros(2)
        """Pixels per frame."""

    def expected(self, frame: int, gap: int) -> np.ndarray:
        """(K, 3): ``x + v Δt``; keypoints that were not found for long are missing."""
        points = self.points.copy()
        points[:, :2] += self.velocity * (frame - self.last)
        points[frame - self.found > gap + 1, 2] = 0
        return points

    def extend(self, frame: int, row: int, person: np.ndarray) -> None:
        here, before = person[:, 2] > 0, self.found == self.last
        time, moved = frame - self.last, (person - self.points)[here & before, :2]
        if len(moved):
            velocity = np.median(moved, axis=0) / time
            self.velocity = velocity if len(self.rows) == 1 else _INERTIA * self.velocity + (1 - _INERTIA) * velocity
        self.points[:, :2] = np.where(here[:, None], person[:, :2], self.points[:, :2] + self.velocity * time)
        self.points[here, 2] = person[here, 2]
        self.found[here] = frame
        self.rows[frame], self.last = row, frame

    def track(self, frames: Sequence[np.ndarray]) -> Track:
        first = min(self.rows)
        people = np.full(self.last + 1 - first, -1)
        keypoints = np.zeros((len(people), *self.points.shape))
        for frame, row in self.rows.items():
            people[frame - first], keypoints[frame - first] = row, frames[frame][row]
        return Track(first, keypoints, people, self.identity)


def _by_similarity(frames: Sequence[np.ndarray], kappa: np.ndarray, settings: TrackingSettings) -> list[_Path]:
    paths: list[_Path] = []
    for frame, people in enumerate(frames):
        waiting = [path for path in paths if frame - path.last <= settings.gap + 1]
        distinct, doubles = _distinct(people, kappa, settings)
        new, waiting = _extended(waiting, frame, people, distinct, kappa, settings)
        _extended(waiting, frame, people, doubles, kappa, settings)  # who is found twice may be two, one behind the other
        paths += [_Path(frame, row, people[row]) for row in new]
    return paths


def _extended(
    paths: Sequence[_Path], frame: int, people: np.ndarray, rows: Sequence[int], kappa: np.ndarray, settings: TrackingSettings
) -> tuple[list[int], list[_Path]]:
    """Give people to paths, none to one unlike, so that the similarities have the largest sum; the people and the paths that are left."""
    if not paths or not rows:
        return list(rows), list(paths)
    expected = np.stack([path.expected(frame, settings.gap) for path in paths])
    alike = similarities(expected, people[list(rows)], kappa)
    alike[alike < settings.similarity] = 0
    pairs = [(i, k) for i, k in zip(*linear_sum_assignment(alike, maximize=True), strict=True) if alike[i, k] > 0]
    for i, k in pairs:
        paths[i].extend(frame, rows[k], people[rows[k]])
    used, given = {i for i, _ in pairs}, {k for _, k in pairs}
    return [row for k, row in enumerate(rows) if k not in given], [path for i, path in enumerate(paths) if i not in used]


def _distinct(people: np.ndarray, kappa: np.ndarray, settings: TrackingSettings) -> tuple[list[int], list[int]]:
    """Rows of those who count, and of those of them who are like somebody more clearly seen; in an order that is theirs alone."""
    rows = [row for row, person in enumerate(people) if (person[:, 2] > 0).sum() >= settings.fewest]
    rows.sort(key=lambda row: (-people[row, :, 2].sum(), *people[row].ravel()))
    alike = similarities(people, people, kappa)
    distinct: list[int] = []
    doubles: list[int] = []
    for row in rows:
        (doubles if (alike[row, distinct] >= settings.duplicate).any() else distinct).append(row)
    return distinct, doubles


def _by_identity(frames: Sequence[np.ndarray], ids: Sequence[Sequence[int | None]], settings: TrackingSettings) -> list[_Path]:
    """By the detector's word; who is away for too long comes back as a new track."""
    latest: dict[int | None, _Path] = {}
    paths: list[_Path] = []
    for frame, (people, names) in enumerate(zip(frames, ids, strict=True)):
        for row, (person, name) in enumerate(zip(people, names, strict=True)):
            if (person[:, 2] > 0).sum() < settings.fewest:
                continue
            path = latest.get(name)
            if path is not None and frame - path.last <= settings.gap + 1:
                path.extend(frame, row, person)
            else:
                latest[name] = _Path(frame, row, person, name)
                paths.append(latest[name])
    return paths


def _decisive(ids: Sequence[Sequence[int | None]], frames: Sequence[np.ndarray]) -> bool:
    if [len(names) for names in ids] != [len(people) for people in frames]:
        raise InputError("ids: not as many as people in every frame, expected one for each; leave them out")
    return any(ids) and all(None not in names and len(set(names)) == len(names) for names in ids)


def _appearance(track: Track) -> tuple[float, ...]:
    """The first frame, then from left to right."""
    seen = track.keypoints[0][track.keypoints[0, :, 2] > 0]
    return (track.first, float(seen[:, 0].mean()), *track.keypoints[0].ravel().tolist())


def _area(people: np.ndarray) -> np.ndarray:
    """(P,) square pixels of the boxes around people (P, K, 3)."""
    seen = people[..., 2:] > 0
    low = np.where(seen, people[..., :2], np.inf).min(1, initial=np.inf)
    high = np.where(seen, people[..., :2], -np.inf).max(1, initial=-np.inf)
    sides = np.where(seen.any(1), high - low, 0)
    return np.maximum(sides, _NARROW * sides.max(1, keepdims=True, initial=0)).prod(1).clip(1)


def _checked(people: np.ndarray, number: int, layout: Layout) -> np.ndarray:
    people = np.asarray(people, np.float64)
    if people.ndim != 3 or people.shape[1:] != (len(layout.joints), 3):
        raise InputError(f"frame {number}: keypoints of shape {people.shape}, expected (people, {len(layout.joints)}, 3) of {layout.name}")
    return np.where(np.isfinite(people).all(-1, keepdims=True) & (people[..., 2:] > 0), people, 0)
