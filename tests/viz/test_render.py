import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dposer.errors import InputError
from dposer.viz import gl, render, software
from dposer.viz.render import render_camera, render_mesh, view_rotation

BALL = trimesh.creation.icosphere(4, 0.5)
SQUARE = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0.0]]), np.array([[0, 1, 2], [0, 2, 3]])


@pytest.fixture(params=["software", "pyrender"])
def renderer(request):
    if request.param == "pyrender" and gl.working_platform() is None:
        pytest.skip("no OpenGL on this machine")
    return request.param


def coverage(image, ink=0.0):
    """How much of each pixel something black hides of a white page."""
    return 1 - image[..., 0] / 255 / (1 - ink)


def black(vertices, faces, **options):
    return coverage(render_mesh(vertices, faces, colour=(0, 0, 0), **options))


def turned_to(view, point):
    return view_rotation(view) @ point


# views


@pytest.mark.parametrize(
    ("view", "forward", "left_hand"),
    [
        ("front", (0, 0, 1), (1, 0, 0)),
        ("back", (0, 0, -1), (-1, 0, 0)),
        ("left", (-1, 0, 0), (0, 0, 1)),
        ("right", (1, 0, 0), (0, 0, -1)),
        ("left_half", (-np.sqrt(0.5), 0, np.sqrt(0.5)), (np.sqrt(0.5), 0, np.sqrt(0.5))),
        ("half right", (np.sqrt(0.5), 0, np.sqrt(0.5)), (np.sqrt(0.5), 0, -np.sqrt(0.5))),
        ("above", (0, -0.5, np.sqrt(0.75)), (1, 0, 0)),
        ("front-bottom", (0, 0.5, np.sqrt(0.75)), (1, 0, 0)),
    ],
)
def test_named_views_turn_the_body_as_they_say(view, forward, left_hand):
    np.testing.assert_allclose(turned_to(view, [0, 0, 1]), forward, atol=1e-12)
    np.testing.assert_allclose(turned_to(view, [1, 0, 0]), left_hand, atol=1e-12)


@given(st.permutations(["half", "left", "above"]), st.sampled_from(["", "_", " ", "-"]))
@settings(max_examples=20, deadline=None)
def test_words_of_a_view_come_in_any_order(words, joint):
    np.testing.assert_array_equal(view_rotation(joint.join(words)), view_rotation("left_half_above"))


@pytest.mark.parametrize("view", ["", "_", "sideways", "front2", "left_right", "above_bottom", "half", "half_back", "random_left"])
def test_unknown_and_contradictory_views_are_refused(view):
    with pytest.raises(InputError, match="expected front, back, left, right"):
        view_rotation(view)


def test_random_view_needs_and_follows_its_generator():
    with pytest.raises(InputError, match="generator"):
        view_rotation("random")
    first, again = (view_rotation("random", np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first @ [0, 1, 0], [0, 1, 0], atol=1e-12)
    assert not np.allclose(first, view_rotation("random", np.random.default_rng(4)))


@given(st.sampled_from(["left", "right_half", "back_above", "bottom"]))
@settings(max_examples=4, deadline=None)
def test_a_view_equals_the_front_view_of_the_turned_mesh(view):
    mesh = trimesh.creation.box((0.3, 0.9, 0.5)).subdivide().subdivide()
    np.testing.assert_allclose(
        black(mesh.vertices, mesh.faces, view=view), black(mesh.vertices @ view_rotation(view).T, mesh.faces), atol=1e-6
    )


def test_left_hand_is_on_the_right_of_the_front_picture(renderer):
    body = np.concatenate([BALL.vertices, 0.2 * BALL.vertices + (0.7, 0, 0)])
    faces = np.concatenate([BALL.faces, BALL.faces + len(BALL.vertices)])
    columns = black(body, faces, renderer=renderer, centre=np.zeros(3)).sum(0)
    assert columns[310:370].sum() > 300
    assert columns[:60].sum() == 0


# geometry


@pytest.mark.parametrize("size", [(512, 384), (256, 256), (200, 401)])
def test_ball_has_the_outline_of_a_ball(renderer, size):
    # A sphere of radius r at distance d on the optical axis fills the disc of radius f r / sqrt(d² - r²).
    hidden = black(BALL.vertices, BALL.faces, renderer=renderer, size=size)
    focal = 1500 * min(size[0] / 512, size[1] / 384)
    assert hidden.sum() == pytest.approx(np.pi * (focal * 0.5) ** 2 / (7**2 - 0.5**2), rel=0.01)
    rows, columns = np.indices(size) + 0.5
    assert (hidden * columns).sum() / hidden.sum() == pytest.approx(192 * size[1] / 384, abs=0.1)
    assert (hidden * rows).sum() / hidden.sum() == pytest.approx(200 * size[0] / 512, abs=0.1)


def test_camera_projects_as_the_equation_says(renderer):
    focal, centre, size = (300.0, 250.0), (70.0, 35.0), (90, 120)
    vertices = SQUARE[0] * (0.1, 0.1, 0) + (0.05, -0.02, 2.0)
    hidden = coverage(render_camera(vertices, SQUARE[1], focal, centre, size=size, colour=(0, 0, 0), renderer=renderer))
    edges_x, edges_y = focal[0] * np.array([-0.05, 0.15]) / 2 + centre[0], focal[1] * np.array([-0.12, 0.08]) / 2 + centre[1]
    assert hidden.sum() == pytest.approx(np.diff(edges_x)[0] * np.diff(edges_y)[0], rel=0.04)  # edges are worth half a sample
    rows, columns = np.indices(size) + 0.5
    assert (hidden * columns).sum() / hidden.sum() == pytest.approx(edges_x.mean(), abs=0.3)
    assert (hidden * rows).sum() / hidden.sum() == pytest.approx(edges_y.mean(), abs=0.3)


def test_nearer_surfaces_hide_farther_ones(renderer):
    near, far = SQUARE[0] * 0.2 + (0, 0, 2), SQUARE[0] + (0, 0, 3)
    inks = np.repeat([[1.0, 0, 0], [0, 0, 1.0]], 4, axis=0)
    for order in (1, -1):  # whichever is listed first
        pair = [(near, inks[:4]), (far, inks[4:])][::order]
        vertices, colours = (np.concatenate(parts) for parts in zip(*pair, strict=True))
        faces = np.concatenate([SQUARE[1], SQUARE[1] + 4])
        picture = render_camera(vertices, faces, 100, (50, 50), size=(100, 100), vertex_colours=colours, renderer=renderer)
        assert picture[50, 50, 0] > 100 > picture[50, 50, 2]
        assert picture[50, 25, 2] > 100 > picture[50, 25, 0]


def test_software_covers_the_pixels_whose_rays_meet_the_mesh():
    rng = np.random.default_rng(0)
    vertices, faces = rng.normal(size=(30, 3)) * 0.4 + (0, 0, 3), rng.integers(0, 30, (20, 3))
    focal, size = 60.0, (64, 48)
    rows, columns = np.indices(size) + 0.5
    rays = np.stack([(columns - 24) / focal, (rows - 32) / focal, np.ones(size)], -1).reshape(-1, 3)
    # Möller-Trumbore for all rays and faces: o + t d = (1 - u - v) a + u b + v c with o = 0.
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    across = np.cross(rays[:, None], c - a)
    determinant = (across * (b - a)).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = -(across * a).sum(-1) / determinant
        v = -(rays[:, None] * np.cross(a, b - a)).sum(-1) / determinant
        t = -((c - a) * np.cross(a, b - a)).sum(-1) / determinant
    met = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > software.NEAR)
    depth = np.where(met, t, np.inf).min(1).reshape(size)
    intrinsics = np.array([[focal, 0, 24], [0, focal, 32], [0, 0, 1]])
    colours = np.clip((vertices[:, 2:] - 1) / 4, 0, 1) * np.ones(3)
    _, covered = software.rasterise(vertices, faces, colours, intrinsics, size, samples=1)
    assert 300 < np.isfinite(depth).sum() < 2500
    assert ((covered > 0) != np.isfinite(depth)).mean() < 0.005  # rays that graze an edge may fall either side


def test_renderers_agree():
    if gl.working_platform() is None:
        pytest.skip("no OpenGL on this machine")
    one, other = (render_mesh(BALL.vertices, BALL.faces, renderer=name).astype(int) for name in ("software", "pyrender"))
    assert (abs(one - other).max(-1) > 4).mean() < 0.01
    assert abs(one - other).mean() < 0.2


def test_faces_at_or_behind_the_camera_are_left_out(renderer):
    behind = SQUARE[0] + (0, 0, -2)
    through = SQUARE[0] @ Rotation.from_euler("y", 90, degrees=True).as_matrix()
    for vertices in (behind, through):
        assert (render_camera(vertices, SQUARE[1], 50, (20, 20), size=(40, 40), renderer=renderer) == 255).all()


def test_meshes_outside_the_picture_leave_it_blank():
    assert (render_camera(SQUARE[0] + (50, 0, 2), SQUARE[1], 50, (20, 20), size=(40, 40)) == 255).all()
    assert (render_mesh(BALL.vertices, BALL.faces[:0]) == 255).all()


@given(st.floats(0.2, 4), st.floats(0.2, 4), st.sampled_from(["front", "left_above", "back"]))
@settings(max_examples=15, deadline=None)
def test_fit_keeps_everything_in_the_picture(width, height, view):
    mesh = trimesh.creation.box((width, height, 0.4))
    hidden = black(mesh.vertices + (0, 0.5, 0), mesh.faces, view=view, size=(128, 96), fit=True, centre=np.zeros(3))
    assert hidden.sum() > 0
    assert not any(side.any() for side in (hidden[0], hidden[-1], hidden[:, 0], hidden[:, -1]))


def test_fit_changes_nothing_that_already_fits():
    np.testing.assert_array_equal(render_mesh(BALL.vertices, BALL.faces, fit=True), render_mesh(BALL.vertices, BALL.faces))


# colour


def test_light_comes_from_above_and_outlines_blend_into_the_background(renderer):
    picture = render_mesh(BALL.vertices, BALL.faces, renderer=renderer).astype(int)
    shades = picture[130:270, 192].sum(-1)
    assert shades[:40].mean() > shades[-40:].mean() + 60
    assert picture.max() == 255
    body = picture[200, 192 - 100 : 192 + 100]
    assert body[100].min() > 60
    assert body[100].max() < 235
    outline = render_mesh(BALL.vertices, BALL.faces, renderer=renderer, colour=(0, 0, 0), background=(0.2, 0.6, 1.0))
    line = (outline / np.array([51, 153, 255])).reshape(-1, 3)
    assert np.ptp(line, axis=1).max() < 0.03  # every pixel is the background times what is left uncovered
    assert ((line > 0.1) & (line < 0.9)).any()


def test_vertex_colours_paint_their_vertices():
    colours = np.where(BALL.vertices[:, :1] > 0, [[1.0, 0, 0]], [[0, 1.0, 0]])
    picture = render_mesh(BALL.vertices, BALL.faces, vertex_colours=colours)
    assert picture[200, 220, 1] == 0 < picture[200, 220, 0]
    assert picture[200, 160, 0] == 0 < picture[200, 160, 1]
    np.testing.assert_array_equal(picture, render_mesh(BALL.vertices, BALL.faces, vertex_colours=(255 * colours).astype(np.uint8)))


def test_photograph_shows_through_by_opacity_and_is_not_written_to():
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    before = photo.copy()
    mesh = SQUARE[0] * 0.2 + (0, 0, 2), SQUARE[1]
    solid, half, clear = (render_camera(*mesh, 100, (40, 30), image=photo, opacity=opacity) for opacity in (1.0, 0.5, 0.0))
    np.testing.assert_array_equal(clear, photo)
    np.testing.assert_array_equal(photo, before)
    np.testing.assert_array_equal(solid[0], photo[0])
    np.testing.assert_allclose(half[30, 40], (solid[30, 40].astype(float) + photo[30, 40]) / 2, atol=1)


def test_normals_of_a_ball_point_outwards_and_turn_with_it():
    normals = render.vertex_normals(BALL.vertices, BALL.faces)
    np.testing.assert_allclose(normals, 2 * BALL.vertices, atol=0.01)
    turn = Rotation.from_rotvec([0.3, -1.0, 0.5]).as_matrix()
    np.testing.assert_allclose(render.vertex_normals(BALL.vertices @ turn.T, BALL.faces), normals @ turn.T, atol=1e-12)


# batches and bad input


def test_a_batch_is_its_members(renderer):
    rng = np.random.default_rng(1)
    batch = BALL.vertices * rng.uniform(0.5, 1.5, (3, 1, 3)) + rng.normal(size=(3, 1, 3))
    inks = rng.uniform(size=batch.shape)
    pictures = render_mesh(batch, BALL.faces, vertex_colours=inks, view="above", size=(64, 48), renderer=renderer)
    assert pictures.shape == (3, 64, 48, 3)
    assert pictures.dtype == np.uint8
    for picture, vertices, ink in zip(pictures, batch, inks, strict=True):
        alone = render_mesh(vertices, BALL.faces, vertex_colours=ink, view="above", size=(64, 48), renderer=renderer)
        np.testing.assert_array_equal(picture, alone)
    assert render_mesh(batch[:0], BALL.faces, size=(64, 48), fit=True).shape == (0, 64, 48, 3)


def test_one_centre_lets_a_motion_move():
    batch = BALL.vertices + np.array([[[-0.3, 0, 0]], [[0.3, 0, 0]]])
    columns = black(batch, BALL.faces, centre=np.zeros(3)).sum(1)
    middle = (columns * (np.arange(384) + 0.5)).sum(-1) / columns.sum(-1)
    np.testing.assert_allclose(middle - 192, [-0.3 * 1500 / 7, 0.3 * 1500 / 7], rtol=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertices": np.zeros((4, 2))}, r"vertices: shape \(4, 2\), expected"),
        ({"vertices": np.full((4, 3), np.nan)}, "vertices: 12 values are NaN"),
        ({"faces": np.array([[0, 1, 4]])}, r"faces: indices 0\.\.4, expected 0\.\.3"),
        ({"faces": np.array([[0.0, 1, 2]])}, "faces: float64"),
        ({"size": (0, 5)}, "size"),
        ({"size": (5,)}, "size"),
        ({"renderer": "opengl"}, "expected one of auto, software, pyrender"),
        ({"colour": (255, 0, 0)}, r"colour: found .* in \[0, 1\]"),
        ({"background": 1.0}, "background"),
        ({"vertex_colours": np.zeros((3, 3))}, "vertex_colours: shape"),
        ({"view": "up"}, "view: found 'up'"),
        ({"centre": np.zeros(2)}, r"centre: shape \(2,\)"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(InputError, match=message):
        render_mesh(**{"vertices": SQUARE[0], "faces": SQUARE[1], **change})


def test_camera_wants_an_image_or_a_size():
    with pytest.raises(InputError, match="neither of image and size"):
        render_camera(*SQUARE, 50, (5, 5))
    with pytest.raises(InputError, match="opacity: found 2"):
        render_camera(*SQUARE, 50, (5, 5), size=(4, 4), opacity=2)
    with pytest.raises(InputError, match="image: found float64"):
        render_camera(*SQUARE, 50, (5, 5), image=np.zeros((4, 4, 3)))


def test_pictures_fit_to_points_share_one_camera():
    film = np.array([[0, 0, 0], [1.5, 0, 0.3], [-1, 1.2, 0]])[:, None] + BALL.vertices
    together = render_mesh(film, BALL.faces, fit=film.reshape(-1, 3), centre=np.zeros(3))
    alone = np.stack([render_mesh(frame, BALL.faces, fit=film.reshape(-1, 3), centre=np.zeros(3)) for frame in film])
    assert np.array_equal(together, alone) and np.array_equal(together, render_mesh(film, BALL.faces, fit=True, centre=np.zeros(3)))
    seen = together.min(-1) < 250
    assert seen.any((1, 2)).all() and not seen[:, :, (0, -1)].any() and not seen[:, (0, -1)].any()
    with pytest.raises(InputError, match=r"fit: shape \(3,\), expected"):
        render_mesh(*SQUARE, fit=np.zeros(3))


def test_missing_opengl_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(gl, "PLATFORMS", ())
    monkeypatch.delenv("PYOPENGL_PLATFORM", raising=False)
    gl.working_platform.cache_clear()
    gl._offscreen.cache_clear()
    try:
        with pytest.raises(InputError, match="use renderer 'software'.*apt-get install libegl1"):
            render_mesh(BALL.vertices, BALL.faces, renderer="pyrender")
    finally:
        gl.working_platform.cache_clear()
        gl._offscreen.cache_clear()
