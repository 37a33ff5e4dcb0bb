"""Who is who over a video, whatever the order of detections, with people who cross, hide, or are found twice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dposer.body.skeleton import COCO_17, OPENPOSE_25
from dposer.data.keypoints import kappas
from dposer.errors import InputError
from dposer.solvers.tracking import Track, Tracking, TrackingSettings, similarities, track_people

FIGURE = np.random.default_rng(7).uniform((-40, -100), (40, 100), (25, 2))
"""A person about 200 pixels tall."""


def person(x: float, y: float = 200.0, confidence: float = 0.9, seed: int | None = None) -> np.ndarray:
    """(25, 3); two pixels of noise with a seed."""
    noise = 0 if seed is None else np.random.default_rng(seed).normal(0, 2, (25, 2))
    return np.column_stack([FIGURE + (x, y) + noise, np.full(25, confidence)])


def frame(*people: np.ndarray) -> np.ndarray:
    return np.array(people).reshape(-1, 25, 3)


def tracked(frames: list[np.ndarray], **options: float) -> Tracking:
    return track_people(frames, OPENPOSE_25, settings=TrackingSettings(**options))  # type: ignore[arg-type]


def middles(track: Track) -> np.ndarray:
    """x of the person in each frame, NaN without."""
    seen = track.people >= 0
    return np.where(seen, (track.keypoints[..., 0] - FIGURE[:, 0]).mean(1), np.nan)


def test_similarity_is_that_of_coco() -> None:
    one, kappa = person(0)[None], kappas(OPENPOSE_25.joints)
    other = one.copy()
    nose, hip, hidden = (OPENPOSE_25.joints.index(name) for name in ("nose", "left_hip", "neck"))
    other[0, nose, :2] += (3, 4)
    other[0, hip, :2] += (0, 20)
    other[0, hidden] = 0
    area = np.ptp(FIGURE, axis=0).prod()
    expected = (22 + np.exp(-25 / (2 * area * 0.052**2)) + np.exp(-400 / (2 * area * 0.214**2))) / 24
    assert similarities(one, other, kappa)[0, 0] == pytest.approx(expected, rel=1e-6)
    assert similarities(other, one, kappa)[0, 0] == pytest.approx(expected, rel=1e-6)
    blind = one.copy()
    blind[..., 2] = 0
    assert similarities(one, np.concatenate([one, blind]), kappa).tolist() == [[1, 0]]
    assert similarities(one[:0], one, kappa).shape == (0, 1)
    assert kappas(COCO_17.joints)[[0, 5, 10, 16]].tolist() == [0.052, 0.158, 0.124, 0.178]


@settings(max_examples=15, deadline=None)
@given(st.data(), st.integers(0, 1000))
def test_the_order_of_detections_does_not_matter(data: st.DataObject, seed: int) -> None:
    generator = np.random.default_rng(seed)
    starts, speeds = generator.uniform(0, 900, 4), generator.uniform(-15, 15, 4)
    found = generator.random((10, 4)) < 0.85
    frames = [
        frame(*(person(starts[i] + t * speeds[i], 200, 0.5 + 0.1 * i, 10 * t + i) for i in np.flatnonzero(found[t]))) for t in range(10)
    ]
    orders = [data.draw(st.permutations(range(len(people)))) for people in frames]
    one, other = tracked(frames), tracked([people[list(order)] for people, order in zip(frames, orders, strict=True)])
    for some, others in ((one.tracks, other.tracks), (one.dropped, other.dropped)):
        assert len(some) == len(others)
        for track, again in zip(some, others, strict=True):
            assert track.first == again.first and np.array_equal(track.keypoints, again.keypoints)
            rows = [orders[track.first + i][row] if row >= 0 else -1 for i, row in enumerate(again.people)]
            assert track.people.tolist() == rows


@pytest.mark.parametrize("hidden", [range(0), range(14, 18)])
def test_people_who_cross_are_not_exchanged(hidden: range) -> None:
    """Also if they hide each other: then they go on as they went."""
    frames = [
        frame(*(person(x, seed=100 * t + i) for i, x in enumerate((100 + 12 * t, 484 - 12 * t))) if t not in hidden else ())
        for t in range(32)
    ]
    tracks = tracked(frames).tracks
    assert len(tracks) == 2
    for track, start, speed in zip(tracks, (100, 484), (12, -12), strict=True):
        assert len(track) == 32 and track.detections == 32 - len(hidden)
        assert np.nanmax(np.abs(middles(track) - start - speed * np.arange(32))) < 3
        assert not track.keypoints[hidden].any() and (track.people[hidden] == -1).all()


def test_gaps_are_bridged_up_to_their_limit() -> None:
    frames = [frame() if 8 <= t < 18 else frame(person(100 + 5 * t, seed=t)) for t in range(26)]
    assert [(track.first, len(track)) for track in tracked(frames, gap=10).tracks] == [(0, 26)]
    assert [(track.first, len(track), track.stop) for track in tracked(frames, gap=9).tracks] == [(0, 8, 8), (18, 8, 26)]


def test_a_person_found_twice_is_one_and_two_beside_each_other_are_two() -> None:
    twice = [frame(person(100, confidence=0.4, seed=t), person(101, seed=50 + t)) for t in range(6)]
    (track,) = tracked(twice).tracks
    assert track.people.tolist() == [1] * 6 and not tracked(twice).dropped
    apart = [frame(person(100, seed=t), person(150, seed=50 + t)) for t in range(6)]
    assert len(tracked(apart).tracks) == 2


def test_what_is_too_short_or_shows_too_little_is_left_out() -> None:
    flash = person(600)
    flash[2:] = 0
    frames = [frame(person(100, seed=t), *([person(400)] if t < 3 else ()), flash) for t in range(8)]
    found = tracked(frames, shortest=4)
    assert [track.detections for track in found.tracks] == [8] and [track.detections for track in found.dropped] == [3]


def test_identities_of_the_detector_decide_if_all_have_them() -> None:
    frames = [frame(person(100), person(600)) for _ in range(8)]
    ids = [[7, 3] if t % 2 else [3, 7] for t in range(8)]  # people who jump: only the detector can know
    named = track_people(frames, OPENPOSE_25, ids).tracks
    assert [(track.identity, track.people.tolist()) for track in named] == [(3, [0, 1] * 4), (7, [1, 0] * 4)]
    for broken in ([[None, 7], *ids[1:]], [[3, 3], *ids[1:]]):
        assert [track.people.tolist() for track in track_people(frames, OPENPOSE_25, broken).tracks] == [[0] * 8, [1] * 8]
    with pytest.raises(InputError, match="ids"):
        track_people(frames, OPENPOSE_25, ids[:-1])


def test_nobody_and_wrong_shapes() -> None:
    assert tracked([frame()] * 3).tracks == () and tracked([]).tracks == ()
    with pytest.raises(InputError, match=r"frame 1: .*\(1, 25, 2\)"):
        tracked([frame(), person(0)[None, :, :2]])
    holes = person(0)
    holes[3, 0] = np.nan
    assert np.isfinite(tracked([frame(holes)] * 5).tracks[0].keypoints).all()
