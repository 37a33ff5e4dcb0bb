"""Draws meshes through OpenGL (pyrender), where a working graphics driver exists: a graphics card, or Mesa on the processor.

A broken driver may kill the process that touches it, so each way in (EGL, then OSMesa) is first tried in a process of its own.
"""

import functools
import importlib.util
import os
import subprocess
import sys
from typing import Any

import numpy as np

from dposer.errors import InputError
from dposer.viz.software import in_front

PLATFORMS = ("egl", "osmesa")
"""Ways to a picture without a screen, in the order they are tried."""

_PROBE = (
    "import numpy, pyrender;"
    "scene = pyrender.Scene(bg_color=[0, 0, 0, 0]);"
    "scene.add(pyrender.PerspectiveCamera(1.0));"
    "triangle = pyrender.Primitive(positions=numpy.array([[-9, -9, -2], [9, -9, -2], [0, 9, -2.0]]));"
    "scene.add(pyrender.Mesh([triangle]));"
    "depth = pyrender.OffscreenRenderer(8, 8).render(scene)[1];"
    "raise SystemExit(0 if depth[4, 4] > 0 else 1)"
)


def _environment(platform: str) -> dict[str, str]:
    return {"PYOPENGL_PLATFORM": platform, "PYGLET_HEADLESS": "True"}


@functools.cache
def working_platform() -> str | None:
    """The first of :data:`PLATFORMS` (or the one ``PYOPENGL_PLATFORM`` names) that draws a triangle, or ``None``.

    Takes seconds at the first call; the answer is kept for the life of the process.
    """
    chosen = os.environ.get("PYOPENGL_PLATFORM")
    for platform in (chosen,) if chosen else PLATFORMS:
        command = [sys.executable, "-c", _PROBE]
        try:
            result = subprocess.run(command, env={**os.environ, **_environment(platform)}, capture_output=True, timeout=120, check=False)
        except subprocess.TimeoutExpired:
            continue
        if result.returncode == 0:
            return platform
    return None


@functools.cache
def _offscreen() -> Any:
    if importlib.util.find_spec("pyrender") is None:
        raise InputError("renderer 'pyrender': the package is not installed; pip install pyrender-maintained, or use renderer 'software'")
    platform = working_platform()
    if platform is None:
        raise InputError(
            "renderer 'pyrender': no working OpenGL was found (tried EGL and OSMesa); use renderer 'software', which needs none, "
            "or install one (Debian: apt-get install libegl1 libgl1 libgl1-mesa-dri, or libosmesa6)"
        )
    os.environ.update(_environment(platform))  # read by pyrender while it is imported
    import pyrender

    return pyrender.OffscreenRenderer(1, 1)


def rasterise(
    vertices: np.ndarray, faces: np.ndarray, colours: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`dposer.viz.software.rasterise` by OpenGL, four points a pixel.

    Raises:
        InputError: no way to OpenGL works on this machine.
    """
    renderer = _offscreen()
    import pyrender

    depth = vertices[:, 2]
    faces, used = in_front(faces, depth)
    if not len(faces):
        return np.zeros((*size, 3), np.float32), np.zeros(size, np.float32)
    rgba = np.column_stack([colours, np.ones(len(colours))]).astype(np.float32)
    material = pyrender.MetallicRoughnessMaterial(doubleSided=True)
    upright = vertices * (1, -1, -1)  # OpenGL's camera looks down -z with y up
    mesh = pyrender.Mesh([pyrender.Primitive(positions=upright, indices=faces, color_0=rgba, material=material)])
    fx, fy, cx, cy = intrinsics[(0, 1, 0, 1), (0, 1, 2, 2)]
    camera = pyrender.IntrinsicsCamera(fx, fy, cx, cy, znear=0.9 * float(depth[used].min()), zfar=1.1 * float(depth[used].max()))
    scene = pyrender.Scene(bg_color=np.zeros(4))
    scene.add(mesh)
    scene.add(camera)
    renderer.viewport_height, renderer.viewport_width = size
    flags = pyrender.RenderFlags.FLAT | pyrender.RenderFlags.RGBA  # unlit: colours arrive lit, so both renderers look alike
    drawn = renderer.render(scene, flags)[0].astype(np.float32) / 255
    return drawn[..., :3], drawn[..., 3]
