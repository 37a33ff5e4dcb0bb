"""Pictures, films and mesh files, from arrays alone."""

from dposer.viz.export import save_image, save_mesh
from dposer.viz.gltf import save_animation
from dposer.viz.motion import MeshLayer, Pane, PointLayer, Stage, film, film_sheet, heading, lowest
from dposer.viz.overlay import draw_detections, draw_residuals, fit_sheet, side_and_top
from dposer.viz.plots import colour_bar, plausibility_colours, plot_plausibility, spaced_peaks, surface_heat
from dposer.viz.render import render_camera, render_mesh
from dposer.viz.sheet import contact_sheet
from dposer.viz.skeletons import draw_keypoints, render_skeleton, side_colours
from dposer.viz.video import write_video

__all__ = [
    "MeshLayer",
    "Pane",
    "PointLayer",
    "Stage",
    "colour_bar",
    "contact_sheet",
    "draw_detections",
    "draw_keypoints",
    "draw_residuals",
    "film",
    "film_sheet",
    "fit_sheet",
    "heading",
    "lowest",
    "plausibility_colours",
    "plot_plausibility",
    "render_camera",
    "render_mesh",
    "render_skeleton",
    "save_animation",
    "save_image",
    "save_mesh",
    "side_and_top",
    "side_colours",
    "spaced_peaks",
    "surface_heat",
    "write_video",
]
