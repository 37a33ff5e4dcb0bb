"""Films and figures of lifted motions: what is to be seen is there, where geometry puts it."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from dposer.body.skeleton import COCO_17, H36M_17
from dposer.data.video import open_video
from dposer.errors import InputError
from dposer.viz.lifting import LiftingFilm, _hue, draw_hypotheses, plot_spread
from dposer.viz.skeletons import LEFT, RIGHT
from dposer.viz.video import save_film

FRAMES, HEIGHT = 5, 160
_REST = {
    "pelvis": (0, 0), "hip": (0.13, 0), "knee": (0.12, 0.42), "ankle": (0.1, 0.84), "spine": (0, -0.25), "neck": (0, -0.5),
    "head": (0, -0.62), "head_top": (0, -0.75), "shoulder": (0.16, -0.5), "elbow": (0.4, -0.5), "wrist": (0.65, -0.5),
}  # fmt: skip


def standing() -> np.ndarray:
    """(J, 3): facing the camera, the left arm forward."""
    places = []
    for name in H36M_17.joints:
        x, y = _REST[name.removeprefix("left_").removeprefix("right_")]
        places.append((x if name.startswith("left_") else -x, y, 0.0))
    pose = np.array(places)
    for name, z in (("left_elbow", -0.25), ("left_wrist", -0.5)):
        pose[H36M_17.joints.index(name)] = (0.16, -0.5, z)
    return pose


@pytest.fixture
def film() -> LiftingFilm:
    keypoints = np.zeros((FRAMES, 17, 3))
    keypoints[:, 5:9] = [(60, 30, 1), (40, 30, 1), (70, 50, 1), (30, 50, 1)]  # shoulders and elbows
    return LiftingFilm(
        keypoints, COCO_17, (100, 80), np.tile(standing(), (FRAMES, 1, 1)), H36M_17, height=HEIGHT, captions=("picture", "space")
    )


def columns(image: np.ndarray, colour: tuple[float, float, float]) -> np.ndarray:
    """x of the pixels that are of a colour."""
    return np.flatnonzero((np.abs(image.astype(int) - np.rint(255 * np.array(colour))).max(-1) <= 6).any(0))


def test_frames_are_of_one_size_with_the_picture_to_the_left(film: LiftingFilm) -> None:
    picture = np.full((40, 50, 3), (10, 200, 30), np.uint8)
    images = list(replace(film, pictures=[picture, picture]))
    assert len(images) == FRAMES and len({image.shape for image in images}) == 1 and images[0].dtype == np.uint8
    head, width = images[0].shape[0] - HEIGHT, 200  # the picture's aspect
    assert (images[1][head + 5, 5] == (10, 200, 30)).all() and (images[2][head + 5, 5] > 230).all()  # one frame longer than the video
    assert (images[0][:head] < 128).any()  # captions
    left, right = (columns(images[0][head:, :width], colour) for colour in (LEFT, RIGHT))
    assert abs(left.max() - 144) < 6 and abs(right.min() - 56) < 6  # keypoints, twice as large
    assert not len(columns(replace(film, keypoints=0 * film.keypoints).draw(0)[:, :width], LEFT))


def test_hidden_keypoints_are_faint(film: LiftingFilm) -> None:
    hidden = np.zeros((FRAMES, 17), bool)
    hidden[1, [5, 7]] = True  # the left arm
    seen, faint = (replace(film, hidden=hidden).draw(frame)[:, :200] for frame in (0, 1))
    nothing = replace(film, keypoints=film.keypoints * ~hidden[1][:, None]).draw(1)[:, :200]
    assert len(columns(seen, LEFT)) and not len(columns(faint, LEFT)) and len(columns(faint, RIGHT))
    assert (faint != nothing).any()
    with pytest.raises(InputError, match=r"hidden: shape \(5, 3\)"):
        replace(film, hidden=hidden[:, :3])


def test_the_views_go_round_the_person(film: LiftingFilm) -> None:
    def view(azimuth: float, **changes: float) -> np.ndarray:
        return replace(film, captions=(), azimuths=(azimuth,), **changes).draw(FRAMES - 1 if changes else 0)[:, -HEIGHT:]

    middle = HEIGHT / 2
    front, back, side = view(0), view(180), view(90)
    assert columns(front, LEFT).mean() > middle + 5 > columns(front, RIGHT).mean()  # who faces the camera has the left to the right
    assert columns(back, LEFT).mean() < middle - 5 < columns(back, RIGHT).mean()
    assert columns(side, LEFT).min() < columns(side, RIGHT).min() - 10  # the arm points at the camera
    np.testing.assert_array_equal(view(0, turn=90.0, fps=4.0), side)


def test_the_cloud_is_pale_and_the_truth_black(film: LiftingFilm) -> None:
    rng = np.random.default_rng(0)
    spread = film.poses + rng.normal(0, 0.15, (6, *film.poses.shape))
    plain, cloudy = film.draw(0), replace(film, hypotheses=spread).draw(0)
    changed = (plain != cloudy).any(-1)
    assert changed[:, 206:].mean() > 0.01 and not changed[:, :200].any() and cloudy[changed].mean() > 150
    np.testing.assert_array_equal(columns(plain, LEFT), np.intersect1d(columns(plain, LEFT), columns(cloudy, LEFT)))
    truth = film.poses + (0.3, 0, 0)
    truth[:, 3] = np.nan  # not known everywhere
    dark = [int((image[-HEIGHT:, 206:].max(-1) < 80).sum()) for image in (plain, replace(film, truth=truth).draw(0))]
    assert dark[1] > dark[0] + 20


def test_the_person_stays_in_the_middle_and_the_ground_passes_by(film: LiftingFilm) -> None:
    root = np.linspace((-1.0, 0.3, 4.0), (1.1, -0.4, 5.0), FRAMES)  # the camera is tilted: who goes away comes up
    walk = replace(film, root=root, fps=2.0, captions=())
    images = [walk.draw(frame)[:, 206:] for frame in range(FRAMES)]
    where = np.array([columns(image, LEFT).mean() for image in images])
    assert np.ptp(where) < 0.1 * HEIGHT
    assert (images[0][-25:] != images[2][-25:]).any()
    np.testing.assert_array_equal(film.draw(0), film.draw(3))  # nobody moves, nothing does


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"keypoints": np.zeros((4, 17, 3))}, "keypoints: shape"),
        ({"poses": np.full((FRAMES, 17, 3), np.nan)}, "poses"),
        ({"hypotheses": np.zeros((2, FRAMES, 16, 3))}, "hypotheses: shape"),
        ({"root": np.zeros((FRAMES, 2))}, "root: shape"),
        ({"height": 8}, "at least 32"),
    ],
)
def test_what_does_not_go_together_is_refused(film: LiftingFilm, changes: dict, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        replace(film, **changes)


def test_films_in_every_format(film: LiftingFilm, tmp_path: Path) -> None:
    small = replace(film, height=64, captions=(), turn=90.0)
    for suffix in (".mp4", ".webp", ".gif"):
        assert save_film(tmp_path / f"film{suffix}", small, 12.5) == FRAMES
    assert len(list(open_video(tmp_path / "film.mp4"))) == FRAMES
    for suffix in (".webp", ".gif"):
        with Pillow.open(tmp_path / f"film{suffix}") as written:
            assert written.size == small.draw(0).shape[1::-1] and getattr(written, "n_frames", 1) == FRAMES and written.info["loop"] == 0
            written.seek(1)
            written.load()
            assert written.info["duration"] == 80
    with pytest.raises(InputError, match="no frames"):
        save_film(tmp_path / "none.gif", iter(()), 10)
    with pytest.raises(InputError, match="fps"):
        save_film(tmp_path / "none.gif", small, 0)
    with pytest.raises(InputError, match="avi"):
        save_film(tmp_path / "film.avi", small, 10)
    assert not (tmp_path / "none.gif").exists()


def test_figure_of_many_hypotheses() -> None:
    pose = standing()
    many = pose + np.random.default_rng(0).normal(0, 0.03, (12, 17, 3))
    image = draw_hypotheses(many, H36M_17, mean=pose, joint=pose + 0.02, truth=pose - 0.02, dpi=200)
    assert image.shape == (1000, 700, 3)
    for rgb in ((27, 67, 50), (193, 18, 31), (29, 78, 216)):
        assert (np.abs(image.astype(int) - rgb).max(-1) < 40).sum() > 30
    hues = np.array([_hue(number) for number in range(60)])
    assert (np.linalg.norm(hues[:, None] - hues, axis=-1) + np.eye(60)).min() > 0.01  # never runs out
    with pytest.raises(InputError, match="truth: shape"):
        draw_hypotheses(many, H36M_17, truth=pose[1:])
    with pytest.raises(InputError, match="hypotheses"):
        draw_hypotheses(np.nan * many, H36M_17)


def test_spread_over_time() -> None:
    spread = np.full((30, 17), 0.01)
    spread[10:20, 13] = 0.2
    image = plot_spread(spread, H36M_17.joints, 30.0)
    dark = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    assert image.ndim == 3 and (dark[:, 300:700] < 30).sum() > 500
    for wrong in (spread[:, :3], spread[:0], np.nan * spread):
        with pytest.raises(InputError, match="spread"):
            plot_spread(wrong, H36M_17.joints)
