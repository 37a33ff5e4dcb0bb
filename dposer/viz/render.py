"""Pictures of meshes: seen from a named view, or through the camera that took a photograph."""

import re
from collections.abc import Callable

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from dposer.errors import InputError
from dposer.files import finite
from dposer.viz import gl, software

SIZE = (512, 384)
FOCAL = 1500.0
CENTRE = (192.0, 200.0)
DISTANCE = 7.0
"""The demo camera of DPoser: picture (h, w), focal length and principal point (x, y) in pixels, metres to the mesh."""

RENDERERS = ("auto", "software", "pyrender")
CLAY = (0.72, 0.78, 0.86)
WHITE = (1.0, 1.0, 1.0)

VIEWS = "front, back, left, right or random; half before left or right for 45 degrees; above or bottom for a tilt (such as left_half_above)"
_WORDS = re.compile(r"(front|back|left|right|random|half|above|bottom)|[\s_+-]+")

Image = np.ndarray
Colour = tuple[float, float, float] | np.ndarray


def view_rotation(view: str, generator: np.random.Generator | None = None) -> np.ndarray:
    """``R = R_x(tilt) R_y(turn)``: how a named view turns a mesh that faces the camera.

    ``left`` turns by -90° about y and so shows the body's left side, ``right`` by +90°, ``back`` by 180°, ``random`` by an angle
    drawn uniformly; ``half`` makes ``left`` and ``right`` 45°. ``above`` tilts by +30° about x, ``bottom`` by -30°. Words may be
    joined in any order.

    Args:
        view: such as ``front``, ``left_half`` or ``back_above``.
        generator: needed by ``random`` only.

    Returns:
        (3, 3) rotation in a frame with x right, y up, z towards the viewer.

    Raises:
        InputError: unknown or contradictory words, or ``random`` without a generator.
    """
    words = {match.group(1) for match in _WORDS.finditer(view)} - {None}
    sides = words & {"front", "back", "left", "right", "random"}
    tilts = words & {"above", "bottom"}
    unknown = _WORDS.sub("", view)
    if unknown or not words or len(sides) > 1 or len(tilts) > 1 or ("half" in words and not sides & {"left", "right"}):
        raise InputError(f"view: found '{view}', expected {VIEWS}")
    side = sides.pop() if sides else "front"
    if side == "random":
        if generator is None:
            raise InputError("view: 'random' needs a generator, for example numpy.random.default_rng(0)")
        turn = generator.uniform(-180, 180)
    else:
        turn = {"front": 0, "back": 180, "left": -90, "right": 90}[side] * (0.5 if "half" in words else 1)
    tilt = {"above": 30, "bottom": -30}[tilts.pop()] if tilts else 0
    return Rotation.from_euler("yx", [turn, tilt], degrees=True).as_matrix()


def render_mesh(
    vertices: np.ndarray,
    faces: np.ndarray,
    *,
    view: str = "front",
    size: tuple[int, int] = SIZE,
    distance: float = DISTANCE,
    fit: bool | np.ndarray = False,
    centre: np.ndarray | None = None,
    renderer: str = "auto",
    colour: Colour = CLAY,
    vertex_colours: np.ndarray | None = None,
    background: Colour = WHITE,
    generator: np.random.Generator | None = None,
) -> Image:
    """``x' = R_view (x - centre) - (0, 0, distance)``, drawn by a camera at the origin that looks down -z with y up.

    The focal length and the principal point are :data:`FOCAL` and :data:`CENTRE`, scaled when ``size`` is not :data:`SIZE`.

    ``auto`` is ``software`` wherever OpenCV can rasterise, else ``pyrender``. Both give the same picture up to edge pixels, so the
    choice is one of certainty: software starts at once and gives the same picture on every machine, while OpenGL takes seconds to
    probe and to start and, without a graphics card, is no faster.

    Args:
        vertices: (V, 3) or (N, V, 3) metres, y up; a person at rest faces +z with the left hand at +x.
        faces: (F, 3) vertex indices, counter-clockwise seen from outside.
        view: see :func:`view_rotation`; one view for all N.
        size: (h, w).
        fit: slide the picture, then step back from ``distance``, no farther than it takes for all of every mesh to be in it. Or
            points (M, 3) of which this shall hold instead, such as all that a film shows: then every picture of it, drawn about
            one ``centre``, has the same camera.
        centre: (3,) or (N, 3) point to turn about and look at; by default each mesh's mean vertex, which on a body with a fine
            face lies high. One centre for a whole motion lets the person move through the picture.
        renderer: one of :data:`RENDERERS`.
        colour: RGB in [0, 1] of the whole mesh.
        vertex_colours: (V, 3) or (N, V, 3) RGB in [0, 1] (or 0..255 integers) instead of ``colour``.
        background: RGB in [0, 1].
        generator: for the view ``random``.

    Returns:
        (h, w, 3) or (N, h, w, 3) uint8 RGB.

    Raises:
        InputError: shapes, indices, NaN, the view, or a renderer that does not work here.
    """
    vertices, faces = checked_mesh(vertices, faces)
    colours = _rgb(colour, "colour") if vertex_colours is None else checked_colours(vertices, vertex_colours)
    backdrop = _plain(background, size)
    middle = vertices.mean(-2) if centre is None else _point(centre, vertices)
    rotation = view_rotation(view, generator)
    scale = np.array(size) / SIZE
    intrinsics = _intrinsics(FOCAL * scale.min(), (CENTRE[0] * scale[1], CENTRE[1] * scale[0]))
    ahead = _ahead(vertices, middle, rotation)
    framed = _ahead(_points(fit), middle, rotation) if isinstance(fit, np.ndarray) else ahead if fit else ahead[:0]
    if framed.size:
        intrinsics, distance = fit_camera(framed, intrinsics, size, distance)
    return _draw(ahead + (0, 0, distance), faces, intrinsics, backdrop, renderer, colours)


def render_camera(
    vertices: np.ndarray,
    faces: np.ndarray,
    focal: float | tuple[float, float],
    centre: tuple[float, float],
    *,
    image: Image | None = None,
    size: tuple[int, int] | None = None,
    renderer: str = "auto",
    colour: Colour = CLAY,
    vertex_colours: np.ndarray | None = None,
    background: Colour = WHITE,
    opacity: float = 1.0,
) -> Image:
    """``u = f_x x / z + c_x,  v = f_y y / z + c_y``: meshes over the photograph they were fitted to.

    Args:
        vertices: (V, 3) or (N, V, 3) metres in the camera's frame: x right, y down, z away from the camera.
        faces: (F, 3) vertex indices, counter-clockwise seen from outside.
        focal: one focal length or (f_x, f_y), pixels.
        centre: principal point (c_x, c_y), pixels.
        image: (h, w, 3) uint8 RGB drawn over; ``size`` then follows from it.
        size: (h, w) when there is no ``image``.
        opacity: 1 hides the photograph behind the mesh, 0 hides the mesh.
        renderer, colour, vertex_colours, background: as in :func:`render_mesh`.

    Returns:
        (h, w, 3) or (N, h, w, 3) uint8 RGB.

    Raises:
        InputError: as :func:`render_mesh`; neither or both of ``image`` and ``size``.
    """
    vertices, faces = checked_mesh(vertices, faces)
    colours = _rgb(colour, "colour") if vertex_colours is None else checked_colours(vertices, vertex_colours)
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity: found {opacity}, expected a number in [0, 1]")
    if (image is None) == (size is None):
        raise InputError(f"render_camera: found {'neither' if image is None else 'both'} of image and size, expected one of them")
    backdrop = _plain(background, size) if image is None else checked_image(image, "image").astype(np.float32) / 255
    return _draw(vertices, faces, _intrinsics(focal, centre), backdrop, renderer, colours, opacity)


def fit_camera(
    vertices: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int], distance: float, margin: float = 4.0
) -> tuple[np.ndarray, float]:
    """A camera like the given one, but with every vertex in its picture.

    First the principal point slides by the pixels that stick out. If the mesh is larger than the picture, the distance then grows to
    ``max_v  f |x| / m - z``, with ``m`` the pixels from the principal point to the margin on the vertex's side.

    Args:
        vertices: (..., 3) metres about the point looked at: x right, y down, z away from the camera.
        intrinsics: (3, 3) pixels.
        size: (h, w).
        distance: metres from the camera to the point looked at.
        margin: pixels to keep clear on every side.

    Returns:
        New intrinsics (3, 3) and distance.
    """
    points, depth = vertices.reshape(-1, 3)[:, :2], vertices.reshape(-1, 3)[:, 2:]
    focal, centre, far_corner = intrinsics[(0, 1), (0, 1)], intrinsics[:2, 2], np.array(size[::-1])
    seen = focal * points / np.maximum(depth + distance, software.NEAR) + centre
    least, most = margin - seen.min(0), far_corner - margin - seen.max(0)  # the slides that keep both edges in the picture
    centre = centre + np.where(least <= most, np.clip(0, least, most), (least + most) / 2)
    centre = np.clip(centre, 2 * margin, far_corner - 2 * margin)
    room = np.where(points > 0, far_corner - centre, centre) - margin
    needed = (focal * np.abs(points) / room - depth).max()
    return np.column_stack([intrinsics[:, :2], [*centre, 1]]), max(distance, float(needed))


def shade(vertices: np.ndarray, faces: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """``c (a + Σ_i k_i (n·l_i)₊)^(1/γ)``: matt (Lambert) surfaces under a key, a fill and a rim light that move with the camera.

    Light adds up in linear intensities; the power law takes the sum to the scale of RGB values.

    Args:
        vertices: (V, 3) in the camera's frame (x right, y down, z away).
        faces: (F, 3), counter-clockwise seen from outside.
        colours: (V, 3) or (3,) RGB in [0, 1].

    Returns:
        (V, 3) float32 RGB in [0, 1].
    """
    light = _AMBIENT + np.maximum(vertex_normals(vertices, faces) @ _LIGHTS.T, 0) @ _STRENGTHS
    return np.clip(np.asarray(colours) * light[:, None] ** (1 / _GAMMA), 0, 1).astype(np.float32)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Sum of the area-weighted normals of the faces around each vertex, normalised (zero where there are none): (V, 3)."""
    a, b, c = vertices[faces[:, 0]], vertices[faces[:, 1]], vertices[faces[:, 2]]
    corners = faces.ravel()
    area = np.repeat(np.cross(b - a, c - a), 3, axis=0)
    normals = np.stack([np.bincount(corners, area[:, axis], len(vertices)) for axis in range(3)], 1)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


_GAMMA = 2.2
_AMBIENT = 0.04
_LIGHTS = np.array([[-0.65, -0.70, -0.55], [0.95, -0.15, -0.25], [0.0, 0.0, -1.0], [0.3, -0.6, 0.8]])
_LIGHTS /= np.linalg.norm(_LIGHTS, axis=1, keepdims=True)
_STRENGTHS = np.array([0.80, 0.22, 0.12, 0.25])
"""Directions towards the key (above on the left), the fill (on the right), the viewer and the rim light (above and behind)."""


def _draw(
    vertices: np.ndarray,
    faces: np.ndarray,
    intrinsics: np.ndarray,
    backdrop: np.ndarray,
    renderer: str,
    colours: np.ndarray,
    opacity: float = 1.0,
) -> Image:
    rasterise = _rasteriser(renderer)
    frames = vertices.reshape(-1, *vertices.shape[-2:])
    pictures = np.empty((len(frames), *backdrop.shape), np.uint8)
    for picture, frame, colour in zip(pictures, frames, np.broadcast_to(colours, frames.shape), strict=True):
        drawn, coverage = rasterise(frame, faces, shade(frame, faces, colour), intrinsics, backdrop.shape[:2])
        clear = cv2.cvtColor(1 - opacity * coverage, cv2.COLOR_GRAY2RGB)  # copied to three channels: broadcasting is slower
        picture[:] = np.rint(np.clip(255 * (opacity * drawn + clear * backdrop), 0, 255))
    return pictures.reshape(*vertices.shape[:-2], *backdrop.shape)


def _rasteriser(renderer: str) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    if renderer not in RENDERERS:
        raise InputError(f"renderer: found '{renderer}', expected one of {', '.join(RENDERERS)}")
    if renderer == "pyrender" or (renderer == "auto" and not software.available()):
        return gl.rasterise
    return software.rasterise


def _intrinsics(focal: float | tuple[float, float], centre: tuple[float, float]) -> np.ndarray:
    fx, fy = np.broadcast_to(focal, 2)
    return np.array([[fx, 0, centre[0]], [0, fy, centre[1]], [0, 0, 1]])


def _plain(background: Colour, size: tuple[int, int] | None) -> np.ndarray:
    shape = tuple(size) if size is not None else ()
    if len(shape) != 2 or min(shape) < 1 or any(side != int(side) for side in shape):
        raise InputError(f"size: found {size}, expected two positive whole numbers (h, w)")
    return np.broadcast_to(_rgb(background, "background"), (*shape, 3))


def _ahead(points: np.ndarray, middle: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Points about ``middle`` in the demo camera's frame, turned to x right, y down, z away."""
    return (points - middle[..., None, :]) @ rotation.T * (1, -1, -1)


def _points(fit: np.ndarray) -> np.ndarray:
    if fit.ndim != 2 or fit.shape[1] != 3:
        raise InputError(f"fit: shape {fit.shape}, expected True, False or points (M, 3)")
    return finite(fit, "fit")


def _point(centre: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    centre = np.asarray(centre)
    if centre.shape not in ((3,), vertices.shape[:-2] + (3,)):
        raise InputError(f"centre: shape {centre.shape}, expected (3,)" + (f" or ({len(vertices)}, 3)" if vertices.ndim == 3 else ""))
    return finite(centre, "centre")


def _rgb(colour: Colour, name: str) -> np.ndarray:
    rgb = np.asarray(colour, np.float32)
    if rgb.shape != (3,) or not ((rgb >= 0) & (rgb <= 1)).all():
        raise InputError(f"{name}: found {colour}, expected three numbers (R, G, B) in [0, 1]")
    return rgb


def checked_mesh(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Float64 vertices (V, 3) or (N, V, 3) and faces (F, 3), or :class:`InputError` where shapes, indices or values are unusable."""
    vertices, faces = np.asarray(vertices), np.asarray(faces)
    if vertices.ndim not in (2, 3) or vertices.shape[-1] != 3 or vertices.shape[-2] == 0:
        raise InputError(f"vertices: shape {vertices.shape}, expected (V, 3) or (N, V, 3)")
    if faces.ndim != 2 or faces.shape[-1] != 3 or not np.issubdtype(faces.dtype, np.integer):
        raise InputError(f"faces: {faces.dtype} of shape {faces.shape}, expected whole numbers of shape (F, 3)")
    if faces.size and (faces.min() < 0 or faces.max() >= vertices.shape[-2]):
        raise InputError(f"faces: indices {faces.min()}..{faces.max()}, expected 0..{vertices.shape[-2] - 1} (one per vertex)")
    return finite(vertices, "vertices").astype(np.float64), faces


def checked_colours(vertices: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """One RGB per vertex in [0, 1], from floats or 0..255 integers: (V, 3) or as ``vertices``."""
    colours = np.asarray(colours)
    if colours.shape not in (vertices.shape, vertices.shape[-2:]):
        raise InputError(f"vertex_colours: shape {colours.shape}, expected {vertices.shape} (one RGB per vertex)")
    return colours / 255 if np.issubdtype(colours.dtype, np.integer) else finite(colours, "vertex_colours")


def checked_image(image: np.ndarray, name: str) -> Image:
    """Return ``image`` if it is (h, w, 3) uint8, else raise :class:`InputError` naming it."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        found = f"{image.dtype} of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(f"{name}: found {found}, expected uint8 of shape (h, w, 3), RGB")
    return image
