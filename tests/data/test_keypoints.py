"""2D keypoints: what small writers of each format put in comes back, layouts change as the paper says, damage becomes one clear line."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dposer.body import BodyModel
from dposer.body.points import layout_places
from dposer.body.skeleton import (
    BLAZEPOSE_33,
    COCO_17,
    COCO_WHOLEBODY_133,
    HALPE_26,
    LAYOUTS,
    OPENPOSE_18,
    OPENPOSE_25,
    Layout,
    layout_map,
)
from dposer.data.keypoints import (
    DETECTED,
    Keypoints,
    find_keypoints,
    read_keypoints,
    read_sequence,
    to_openpose25,
    write_openpose,
)
from dposer.errors import InputError

_SETTINGS = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_NAMES = pytest.mark.parametrize("layout", DETECTED.values(), ids=DETECTED.keys())


def people_of(layout: Layout) -> st.SearchStrategy[np.ndarray]:
    """(P, K, 3) in pixels beyond what could be fractions, some keypoints missing."""

    @st.composite
    def draw_people(draw: st.DrawFn) -> np.ndarray:
        shape = (draw(st.integers(1, 3)), len(layout.joints))
        xy = draw(hnp.arrays(np.float64, (*shape, 2), elements=st.floats(3, 4000), fill=st.just(7.25)))
        confidence = draw(hnp.arrays(np.float64, shape, elements=st.floats(1e-3, 0.999) | st.just(0.0), fill=st.just(0.5)))
        return np.concatenate([np.where(confidence[..., None] > 0, xy, 0.0), confidence[..., None]], axis=-1)

    return draw_people()


def some_people(layout: Layout, people: int = 2, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = rng.uniform([10, 20, 0.2], [600, 400, 0.9], (people, len(layout.joints), 3))
    points[:, 3] = 0
    return points


def save(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# --- small writers -------------------------------------------------------------------------------------------------------


def openpose(points: np.ndarray) -> Any:
    people = [{"person_id": [i], "pose_keypoints_2d": person.ravel().tolist(), "face_keypoints_2d": []} for i, person in enumerate(points)]
    return {"version": 1.3, "people": people}


def coco_results(points: np.ndarray, image: str | int = "1.jpg") -> Any:
    return [{"image_id": image, "category_id": 1, "keypoints": p.ravel().tolist(), "score": 2.9, "idx": i} for i, p in enumerate(points)]


def vitpose(points: np.ndarray) -> Any:
    return [{"keypoints": person.tolist(), "bbox": [0, 0, 1, 1]} for person in points]


def mmpose(points: np.ndarray) -> Any:
    return [{"keypoints": p[:, :2].tolist(), "keypoint_scores": p[:, 2].tolist(), "bbox": [[0, 0, 1, 1]], "bbox_score": 1} for p in points]


def mmpose_demo(points: np.ndarray) -> Any:
    return {"meta_info": {"dataset_name": "coco"}, "instance_info": mmpose(points)}


def landmarks(points: np.ndarray) -> Any:
    return {"pose_landmarks": [[{"x": x, "y": y, "z": -0.1, "visibility": c} for x, y, c in person] for person in points.tolist()]}


def tfjs(points: np.ndarray) -> Any:
    return [{"score": 0.9, "keypoints": [{"x": x, "y": y, "score": c, "name": "any"} for x, y, c in person]} for person in points.tolist()]


WRITERS: tuple[Callable[[np.ndarray], Any], ...] = (openpose, coco_results, vitpose, mmpose, mmpose_demo, landmarks, tfjs)
_WRITERS = pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)


# --- layouts -------------------------------------------------------------------------------------------------------------


@_NAMES
def test_layouts_are_consistent(layout: Layout) -> None:
    rows = range(len(layout.joints))
    limbs = {frozenset(edge) for edge in layout.edges}
    assert len(set(layout.joints)) == len(layout.joints) and len(limbs) == len(layout.edges)
    assert {row for limb in limbs for row in limb} == set(rows) and all(len(limb) == 2 for limb in limbs)
    assert [layout.mirror[i] for i in layout.mirror] == list(rows)
    assert limbs == {frozenset(layout.mirror[row] for row in limb) for limb in limbs}


def test_layouts_differ_in_size() -> None:
    sizes = {name: len(layout.joints) for name, layout in DETECTED.items()}
    assert sizes == {"openpose25": 25, "openpose18": 18, "coco17": 17, "coco_wholebody133": 133, "halpe26": 26, "blazepose33": 33}


def test_rows_of_the_formats() -> None:
    """Landmarks of each format's own documentation."""
    feet = [f"{side}_{joint}" for side in ("left", "right") for joint in ("big_toe", "small_toe", "heel")]
    assert [COCO_WHOLEBODY_133.joints.index(name) for name in feet] == [17, 18, 19, 20, 21, 22]
    assert [HALPE_26.joints.index(name) for name in feet] == [20, 22, 24, 21, 23, 25]
    assert HALPE_26.joints[17:20] == ("head_top", "neck", "pelvis")
    assert COCO_WHOLEBODY_133.joints[:17] == HALPE_26.joints[:17] == COCO_17.joints
    face = {"right_jaw1": 23, "chin": 31, "left_jaw1": 39, "nose_base": 56, "right_eye_outer": 59, "left_eye_outer": 68, "right_mouth": 71}
    hands = {"left_hand_root": 91, "left_index1": 96, "right_hand_root": 112, "right_thumb_tip": 116, "right_pinky_tip": 132}
    assert {name: COCO_WHOLEBODY_133.joints.index(name) for name in (*face, *hands)} == {**face, **hands}
    assert OPENPOSE_18.joints[7:9] == ("left_wrist", "right_hip") and OPENPOSE_18.joints[-1] == "left_ear"


def test_body_has_what_detectors_see_but_the_face() -> None:
    body = BodyModel()
    absent = {layout.name: {place.name for place in layout_places(body, layout) if not place.sources} for layout in DETECTED.values()}
    assert absent["halpe26"] == {"head_top"} and not absent["openpose18"]
    hands = {name for name in COCO_WHOLEBODY_133.joints[91:] if name.endswith(("_tip", "_root"))}
    assert absent["coco_wholebody133"] == {*COCO_WHOLEBODY_133.joints[23:91], *hands}


# --- round trips ---------------------------------------------------------------------------------------------------------


@_WRITERS
@_NAMES
def test_every_format_in_every_layout(tmp_path: Path, write: Callable[[np.ndarray], Any], layout: Layout) -> None:
    points = some_people(layout)
    keypoints = read_keypoints(save(tmp_path / "a.json", write(points)))
    np.testing.assert_array_equal(keypoints.points, points)
    assert keypoints.layout is layout and keypoints.points.dtype == np.float64 and len(keypoints) == 2
    assert keypoints.ids == ((0, 1) if write in (openpose, coco_results) else (None, None)) and keypoints.image_size is None


@_SETTINGS
@given(people_of(OPENPOSE_25), st.sampled_from([None, (4000, 4000)]), st.data())
def test_openpose_round_trip(tmp_path: Path, points: np.ndarray, size: tuple[int, int] | None, data: st.DataObject) -> None:
    ids = tuple(data.draw(st.lists(st.integers(0, 99) | st.none(), min_size=len(points), max_size=len(points))))
    path = tmp_path / "a_keypoints.json"
    write_openpose(path, Keypoints(points, OPENPOSE_25, ids, size))
    found = read_keypoints(path)
    np.testing.assert_array_equal(found.points, points)
    assert (found.ids, found.layout, found.image_size) == (ids, OPENPOSE_25, size)


def test_written_openpose_is_as_openpose_writes_it(tmp_path: Path) -> None:
    keypoints = Keypoints(some_people(COCO_17), COCO_17, (None, 7))
    write_openpose(tmp_path / "new" / "a.json", keypoints)
    content = json.loads((tmp_path / "new" / "a.json").read_text())
    assert content["version"] == 1.3 and set(content) == {"version", "people"}
    parts = {f"{part}_keypoints_{dim}d" for dim in (2, 3) for part in ("pose", "face", "hand_left", "hand_right")}
    for person, identity in zip(content["people"], (-1, 7), strict=True):
        assert set(person) == {"person_id", *parts} and person["person_id"] == [identity]
        assert len(person["pose_keypoints_2d"]) == 75 and not any(person[part] for part in parts - {"pose_keypoints_2d"})


@_SETTINGS
@given(people_of(HALPE_26), st.sampled_from(WRITERS))
def test_formats_round_trip(tmp_path: Path, points: np.ndarray, write: Callable[[np.ndarray], Any]) -> None:
    np.testing.assert_array_equal(read_keypoints(save(tmp_path / "a.json", write(points)), "halpe26").points, points)


@_NAMES
def test_arrays(tmp_path: Path, layout: Layout) -> None:
    points = some_people(layout)
    np.save(tmp_path / "one.npy", points[0].astype(np.float32))
    np.savez(tmp_path / "all.npz", keypoints=points, other=np.zeros(3))
    np.save(tmp_path / "xy.npy", points[..., :2])
    np.testing.assert_allclose(read_keypoints(tmp_path / "one.npy").points, points[:1], rtol=1e-6)
    np.testing.assert_array_equal(read_keypoints(tmp_path / "all.npz", layout.name).points, points)
    np.testing.assert_array_equal(read_keypoints(tmp_path / "xy.npy").points[..., 2], points[..., 2] > 0)


@pytest.mark.parametrize("content", [{"people": []}, [], {"annotations": []}, {"instance_info": []}, {"pose_landmarks": None}])
def test_nobody_is_no_error(tmp_path: Path, content: Any) -> None:
    path = save(tmp_path / "a.json", content)
    assert read_keypoints(path, image_size=(640, 480)).points.shape == (0, 25, 3)
    assert read_keypoints(path, "coco17").points.shape == (0, 17, 3)


def test_nobody_is_written_and_read(tmp_path: Path) -> None:
    write_openpose(tmp_path / "a.json", Keypoints(np.zeros((0, 17, 3)), COCO_17, ()))
    assert json.loads((tmp_path / "a.json").read_text())["people"] == [] and len(read_keypoints(tmp_path / "a.json")) == 0


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: [m], lambda m: {"landmarks": m}, lambda m: {"poseLandmarks": {"landmark": m}}])
def test_forms_of_landmarks(tmp_path: Path, wrap: Callable[[Any], Any]) -> None:
    points = some_people(BLAZEPOSE_33, 1)
    path = save(tmp_path / "a.json", wrap(landmarks(points)["pose_landmarks"][0]))
    np.testing.assert_array_equal(read_keypoints(path).points, points)


def test_one_person_alone(tmp_path: Path) -> None:
    points = some_people(COCO_WHOLEBODY_133, 1)
    np.testing.assert_array_equal(read_keypoints(save(tmp_path / "a.json", vitpose(points)[0])).points, points)


# --- what the numbers mean -----------------------------------------------------------------------------------------------


@_WRITERS
def test_fractions_become_pixels(tmp_path: Path, write: Callable[[np.ndarray], Any]) -> None:
    points = some_people(BLAZEPOSE_33)
    points[0, 30] = (900, -5, 0.3)  # a foot beyond the border
    path = save(tmp_path / "a.json", write(points / np.array([640, 480, 1])))
    keypoints = read_keypoints(path, image_size=(640, 480))
    np.testing.assert_allclose(keypoints.points, points, atol=1e-9)
    assert keypoints.image_size == (640, 480)
    with pytest.raises(InputError, match="fractions of the image"):
        read_keypoints(path)


def test_missing_keypoints_are_zero(tmp_path: Path) -> None:
    points = some_people(COCO_17, 1)
    points[0, 0, 0] = points[0, 1, 2] = np.nan
    points[0, 2, 2] = 0
    points[0, 4] = (-1, -1, -0.01)  # where a heat map has no maximum
    found = read_keypoints(save(tmp_path / "a.json", vitpose(points))).points
    assert not found[0, :5].any()
    np.testing.assert_array_equal(found[0, 5:], points[0, 5:])
    content = json.loads(json.dumps(vitpose(points)).replace("NaN", "null"))
    np.testing.assert_array_equal(read_keypoints(save(tmp_path / "b.json", content)).points, found)


def test_confidences_a_little_beyond_are_clipped(tmp_path: Path) -> None:
    points = some_people(COCO_17, 1)
    points[0, 5, 2] = 1.04
    assert read_keypoints(save(tmp_path / "a.json", mmpose(points))).points[0, 5, 2] == 1


@pytest.mark.parametrize(
    ("values", "annotated", "expected"),
    [((0, 1, 2), True, (0, 0.5, 1)), ((0, 1, 2), False, (0, 0.5, 1)), ((0, 1), True, (0, 0.5)), ((0, 1), False, (0, 1))],
)
def test_visibilities(tmp_path: Path, values: Sequence[int], annotated: bool, expected: Sequence[float]) -> None:
    points = np.full((1, 17, 3), 50.0)
    points[0, :, 2] = np.resize(values, 17)
    entries = coco_results(points, 1)
    path = save(tmp_path / "a.json", {"annotations": entries} if annotated else entries)
    np.testing.assert_array_equal(read_keypoints(path).points[0, :, 2], np.resize(expected, 17))


def test_visibilities_of_one_image_are_told_by_all(tmp_path: Path) -> None:
    points = np.full((2, 17, 3), 50.0)
    points[0, :, 2], points[1, :, 2] = 1, 2
    path = save(tmp_path / "a.json", coco_results(points[:1], 1) + coco_results(points[1:], 2))
    assert (read_keypoints(path, image=1).points[..., 2] == 0.5).all()


# --- other layouts -------------------------------------------------------------------------------------------------------


@_NAMES
def test_to_openpose_is_by_name(layout: Layout) -> None:
    points = some_people(layout)
    found = to_openpose25(Keypoints(points, layout, (1, None), (640, 480)))
    assert (found.layout, found.ids, found.image_size) == (OPENPOSE_25, (1, None), (640, 480))
    for row, source in enumerate(layout_map(layout.joints, OPENPOSE_25.joints)):
        if source >= 0:
            np.testing.assert_array_equal(found.points[:, row], points[:, source])
    lacking = {name for name in OPENPOSE_25.joints if not found.joint(name).any() and name not in layout.joints}
    feet = {f"{side}_{joint}" for side in ("left", "right") for joint in ("big_toe", "small_toe", "heel")}
    expected = {"blazepose33": {"left_small_toe", "right_small_toe"}, "coco17": feet, "openpose18": feet}
    assert lacking == expected.get(layout.name, set())


def test_wholebody_to_openpose_as_the_paper_does() -> None:
    points = some_people(COCO_WHOLEBODY_133)
    found = to_openpose25(Keypoints(points, COCO_WHOLEBODY_133, (None, None))).points
    body = {0: 0, 2: 6, 3: 8, 4: 10, 5: 5, 6: 7, 7: 9, 9: 12, 10: 14, 11: 16, 12: 11, 13: 13, 14: 15, 15: 2, 16: 1, 17: 4, 18: 3}
    feet = {19: 17, 20: 18, 21: 19, 22: 20, 23: 21, 24: 22}
    for row, source in {**body, **feet}.items():
        np.testing.assert_array_equal(found[:, row], points[:, source])
    for row, (left, right) in {1: (5, 6), 8: (11, 12)}.items():
        np.testing.assert_allclose(found[:, row, :2], (points[:, left, :2] + points[:, right, :2]) / 2)
        np.testing.assert_allclose(found[:, row, 2], points[:, left, 2] * points[:, right, 2])


def test_a_joint_between_is_missing_with_either() -> None:
    points = some_people(COCO_17, 1)
    points[0, 12] = 0
    found = to_openpose25(Keypoints(points, COCO_17, (None,)))
    assert not found.joint("pelvis").any() and found.joint("neck").all()


def test_blazepose_toes() -> None:
    points = some_people(BLAZEPOSE_33, 1)
    found = to_openpose25(Keypoints(points, BLAZEPOSE_33, (None,))).points[0]
    np.testing.assert_array_equal(found[[19, 21, 22, 24]], points[0, [31, 29, 32, 30]])


@_NAMES
def test_layouts_map_to_themselves_and_back(layout: Layout) -> None:
    keypoints = Keypoints(some_people(layout), layout, (None, None))
    np.testing.assert_array_equal(keypoints.to(layout).points, keypoints.points)
    if layout is not OPENPOSE_18:
        np.testing.assert_array_equal(keypoints.to(COCO_17).points, keypoints.to(OPENPOSE_25).to(COCO_17).points)


# --- images of a file ----------------------------------------------------------------------------------------------------


def _dataset(points: np.ndarray) -> Any:
    images = [{"id": i, "file_name": f"train/{i:012d}.jpg", "width": 640 + i, "height": 480} for i in (7, 42, 50)]
    annotations = [{"image_id": i, "id": 900 + i, "keypoints": p.ravel().tolist()} for i, p in zip((7, 42, 42), points, strict=True)]
    return {"images": images, "annotations": annotations}


@pytest.mark.parametrize("image", [42, "42", "train/000000000042.jpg", "000000000042.jpg", "000000000042.png", "/data/000000000042.jpg"])
def test_images_are_chosen_by_id_or_name(tmp_path: Path, image: str | int) -> None:
    points = some_people(COCO_17, 3)
    keypoints = read_keypoints(save(tmp_path / "a.json", _dataset(points)), image=image)
    np.testing.assert_array_equal(keypoints.points, points[1:])
    assert keypoints.image_size == (682, 480) and keypoints.ids == (None, None)


def test_images_without_people(tmp_path: Path) -> None:
    assert len(read_keypoints(save(tmp_path / "a.json", _dataset(some_people(COCO_17, 3))), image=50)) == 0


def test_several_images_need_a_choice(tmp_path: Path) -> None:
    points = some_people(HALPE_26, 1)
    path = save(tmp_path / "a.json", [*coco_results(points, "a.jpg"), *coco_results(2 * points / [1, 1, 2], "b.jpg")])
    np.testing.assert_array_equal(read_keypoints(path, image="b").points, 2 * points / [1, 1, 2])
    _rejects(path, r"2 images \('a.jpg', 'b.jpg'\).*image_id or file name")
    _rejects(path, "'c.jpg' among them", image="c.jpg")
    only = save(tmp_path / "b.json", coco_results(points, "a.jpg"))
    np.testing.assert_array_equal(read_keypoints(only, image="renamed.jpg").points, points)


# --- bad input -----------------------------------------------------------------------------------------------------------


def _rejects(path: Path, expected: str, **arguments: Any) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        read_keypoints(path, **arguments)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"people": [', "not readable JSON"),
        ("[" * 100000, "not readable JSON"),
        ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1") + "{", "not readable JSON"),
        (3, "cannot tell what wrote 3.*OpenPose"),
        ("null", "cannot tell what wrote None"),
        ({}, "an object of nothing"),
        ({"bodies": [], "version": 0.1}, "an object of 'bodies', 'version'.*MediaPipe"),
        ([{"joints": []}], "cannot tell"),
        ([1, 2, 3], "cannot tell"),
        ({"keypoints": [{"0": [[1, 2, 3]]}], "skeleton": {}}, "expected"),
        ({"people": {}}, "'people' is {}, expected a list"),
        ({"people": [3]}, "person 0 is 3"),
        ({"people": [{"face_keypoints_2d": [1, 2, 3]}]}, "person 0 .*pose_keypoints_2d"),
        ({"people": [{"pose_keypoints_2d": []}]}, "0 keypoints a person"),
        ({"people": [{"pose_keypoints_2d": [9.0] * 45}]}, "15 keypoints a person.*25 .openpose25.*MPI.*BODY_25"),
        ({"people": [{"pose_keypoints_2d": [9.0] * 74}]}, "74 numbers"),
        ({"people": [{"pose_keypoints_2d": ["x"] * 75}]}, "person 0: keypoints are .*expected numbers"),
        ({"annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}, "person 0 .*'keypoints'"),
        ({"annotations": [], "images": [{"file_name": "a"}]}, "image 0 .*'id'"),
        ([{"keypoints": [[1, 2, 0.5]] * 17}, {"keypoints": [[9, 9, 0.5]] * 25}], "person 1 has 25 keypoints, expected the 17 of coco17"),
        ([{"keypoints": [[1, 2], [3]]}], "person 0: keypoints are"),
        ([{"keypoints": [[1, 2, 3, 4]] * 17}], r"shape \(17, 4\)"),
        ([{"keypoints": [[9, 9]] * 17, "keypoint_scores": [1] * 16}], r"shape \(16,\), expected \(K, 2\) and \(K,\)"),
        ([{"keypoints": [[9, 9, 9]] * 17, "keypoint_scores": [1] * 17}], "3D"),
        ([{"keypoints": [[9, 9]] * 17, "keypoint_scores": "high"}], "keypoint_scores are 'high'"),
        ([{"keypoints": [[9, 9, 87]] * 17}], "confidences up to 87.*by 100"),
        ([{"keypoints": [[9, 9, 1.06]] * 17}], "confidences up to 1.06"),
        ([{"keypoints": [[9, 9, -0.2]] * 17}], "confidences down to -0.2"),
        ([{"keypoints": [[9, 1e7, 0.5]] * 17}], "coordinates up to 1e.07"),
        ('[{"keypoints": [' + ",".join(["[Infinity, 9, 0.5]"] * 17) + "]}]", "infinite"),
        ([{"instances": []}], "frame 0 .*'frame_id'"),
        ([{"frame_id": 0, "instances": [3]}], "frame 0: a person is 3"),
        ({"landmarks": "none"}, "landmarks are 'none'"),
        ({"pose_landmarks": [[{"x": 1, "y": 1}] * 32]}, "32 keypoints a person"),
        ({"pose_landmarks": [[{"x": "a", "y": 1}] * 33]}, "expected numbers"),
        ({"people": [{"pose_keypoints_2d": [-0.5, 0.5, 0.9] * 25}]}, "--keypoint_scale 0"),
        ([{"x": 0.001 * (-1) ** i, "y": 0.5 * (i not in (23, 24)), "visibility": 1} for i in range(33)], "world landmarks"),
    ],
)  # fmt: skip
def test_json_rejections(tmp_path: Path, content: Any, expected: str) -> None:
    _rejects(save(tmp_path / "a.json", content), expected, image_size=(640, 480))


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.zeros(51), r"shape \(51,\)"),
        (np.ones((17, 4)), r"\(17, 4\)"),
        (np.ones((3, 2, 17, 3)), r"\(3, 2, 17, 3\)"),
        (np.full((17, 3), "a"), "<U1"),
        (np.ones((19, 3)), "19 keypoints"),
        (np.array([{}]), "not a readable"),
    ],
)
def test_array_rejections(tmp_path: Path, array: np.ndarray, expected: str) -> None:
    np.save(tmp_path / "a.npy", array)
    _rejects(tmp_path / "a.npy", expected)


def test_files_that_are_none(tmp_path: Path) -> None:
    _rejects(tmp_path / "none.json", "found nothing")
    _rejects(save(tmp_path / "empty.json", ""), "empty")
    _rejects(save(tmp_path / "a.yml", "a"), ".json .npz .npy")
    _rejects(save(tmp_path / "a.npy", "a"), "npy")
    _rejects(save(tmp_path / "a.npz", "a"), "npz")
    np.savez(tmp_path / "b.npz", points=np.ones((17, 3)))
    _rejects(tmp_path / "b.npz", "lacks keypoints")


def test_layout_is_checked(tmp_path: Path) -> None:
    path = save(tmp_path / "a.json", openpose(some_people(OPENPOSE_25)))
    _rejects(path, "person 0 has 25 keypoints, expected the 17 of coco17; that is openpose25", layout="coco17")
    with pytest.raises(InputError, match="layout 'openpose' is not .* openpose25"):
        read_keypoints(path, "openpose")
    assert not set(DETECTED) - set(LAYOUTS) - {"openpose18", "halpe26", "coco_wholebody133"}


def test_image_is_checked(tmp_path: Path) -> None:
    points = some_people(OPENPOSE_25)
    path = save(tmp_path / "a.json", openpose(points))
    _rejects(path, r"lie mostly outside the image of 100 x 80 pixels", image_size=(100, 80))
    assert len(read_keypoints(path, image_size=(400, 400))) == 2  # cut by the border
    write_openpose(path, Keypoints(points, OPENPOSE_25, (None, None), (640, 480)))
    _rejects(path, "an image of 640 x 480 pixels, but this one has 1280 x 960", image_size=(1280, 960))
    assert read_keypoints(path, image_size=(640, 480)).image_size == (640, 480)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 700) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(
            ["people", "pose_keypoints_2d", "person_id", "annotations", "images", "id", "image_id", "keypoints", "keypoint_scores",
             "instance_info", "instances", "frame_id", "landmarks", "pose_landmarks", "landmark", "x", "y", "visibility"]
        ),
        inner | st.just([50.0] * 51),
        max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_JSON)
def test_any_json_is_read_or_refused(tmp_path: Path, content: Any) -> None:
    path = save(tmp_path / "a.json", content)
    try:
        keypoints = read_keypoints(path)
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert np.isfinite(keypoints.points).all() and len(keypoints.ids) == len(keypoints)


# --- folders and videos --------------------------------------------------------------------------------------------------


def test_images_find_their_keypoints(tmp_path: Path) -> None:
    for name in ("a_keypoints.json", "a.json", "01_2Djnt.json", "results_b.json", "c.json"):
        save(tmp_path / name, openpose(some_people(OPENPOSE_25)))
    images = [Path("images") / name for name in ("c.png", "a.jpg", "01_img.jpg", "b.jpg", "d.jpg")]
    found, missing = find_keypoints(tmp_path, images)
    expected = {"c.png": "c.json", "a.jpg": "a_keypoints.json", "01_img.jpg": "01_2Djnt.json", "b.jpg": "results_b.json"}
    assert {image.name: file.name for image, file in found.items()} == expected and list(found) == images[:4]
    assert missing == (images[4],) and all(file.is_file() for file in found.values())
    with pytest.raises(InputError, match="expected a folder"):
        find_keypoints(tmp_path / "none", images)


def _write_frames(folder: Path, frames: Sequence[int], name: str = "walk2_", people: int = 1) -> None:
    for number in frames:
        save(folder / f"{name}{number:012d}_keypoints.json", openpose(some_people(OPENPOSE_25, people, seed=number)))


def test_sequence_is_in_order_and_knows_its_gaps(tmp_path: Path) -> None:
    _write_frames(tmp_path, [12, 9, 10, 2, 5])
    save(tmp_path / "settings.json", {})
    sequence = read_sequence(tmp_path)
    assert sequence.frames == (2, 5, 9, 10, 12) and sequence.gaps == (3, 4, 6, 7, 8, 11) and len(sequence) == 5
    assert sequence.layout is OPENPOSE_25 and not sequence.failures
    for number, keypoints in zip(sequence.frames, sequence.keypoints, strict=True):
        np.testing.assert_array_equal(keypoints.points, some_people(OPENPOSE_25, 1, seed=number))


def test_damaged_frames_are_gaps_with_a_reason(tmp_path: Path) -> None:
    _write_frames(tmp_path, [0, 1, 2])
    save(tmp_path / "walk2_000000000001_keypoints.json", '{"people": [')
    sequence = read_sequence(tmp_path)
    assert sequence.frames == (0, 2) and sequence.gaps == (1,)
    assert len(sequence.failures) == 1 and "000001_keypoints.json" in sequence.failures[0]
    for number in (0, 2):
        save(tmp_path / f"walk2_{number:012d}_keypoints.json", "[")
    with pytest.raises(InputError, match="000000_keypoints.json"):
        read_sequence(tmp_path)


def test_frames_without_people_are_in_the_layout_of_the_others(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"{number}.json", vitpose(some_people(COCO_17, number)))
    sequence = read_sequence(tmp_path)
    assert [keypoints.points.shape for keypoints in sequence.keypoints] == [(0, 17, 3), (1, 17, 3), (2, 17, 3)]
    assert {keypoints.layout.name for keypoints in sequence.keypoints} == {"coco17"} and sequence.gaps == ()


def test_videos_are_told_apart(tmp_path: Path) -> None:
    _write_frames(tmp_path, [0, 1])
    _write_frames(tmp_path, [3, 4, 5], "run_")
    with pytest.raises(InputError, match="2 videos .'run', 'walk2'"):
        read_sequence(tmp_path)
    assert read_sequence(tmp_path, name="run").frames == (3, 4, 5)
    with pytest.raises(InputError, match="no frames of video 'jump'"):
        read_sequence(tmp_path, name="jump")


def test_sequence_rejections(tmp_path: Path) -> None:
    for path in (tmp_path, save(tmp_path / "a.json", openpose(some_people(OPENPOSE_25)))):
        with pytest.raises(InputError, match="no numbered frames"):
            read_sequence(path)
    with pytest.raises(InputError, match="found nothing"):
        read_sequence(tmp_path / "none")
    _write_frames(tmp_path, [1])
    save(tmp_path / "walk2_1.json", openpose(some_people(OPENPOSE_25)))
    with pytest.raises(InputError, match="both frame 1"):
        read_sequence(tmp_path)
    (tmp_path / "walk2_1.json").unlink()
    save(tmp_path / "walk2_2.json", vitpose(some_people(COCO_17)))
    with pytest.raises(InputError, match=r"openpose25 \(frame 1\) and coco17 \(frame 2\)|coco17 .frame 2. and openpose25 .frame 1."):
        read_sequence(tmp_path)


def test_videos_in_one_file(tmp_path: Path) -> None:
    points = some_people(COCO_17, 2)
    frames = [{"frame_id": i, "instances": mmpose(points[:people])} for i, people in ((3, 2), (1, 1), (2, 0))]
    sequence = read_sequence(save(tmp_path / "mmpose.json", {"meta_info": {}, "instance_info": frames}))
    assert sequence.frames == (1, 2, 3) and [len(people) for people in sequence.keypoints] == [1, 0, 2]
    entries = [entry for i in (10, 9) for entry in coco_results(points, f"{i}.jpg")]
    sequence = read_sequence(save(tmp_path / "alphapose.json", entries), "coco17", (640, 480))
    assert sequence.frames == (9, 10) and sequence.keypoints[0].ids == (0, 1) and sequence.keypoints[0].image_size == (640, 480)
    np.testing.assert_array_equal(sequence.keypoints[1].points, points)
