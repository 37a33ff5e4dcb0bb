"""Pictures, films and mesh files, from arrays alone."""

from dposer.viz.export import save_image, save_mesh
from dposer.viz.plots import colour_bar, plausibility_colours, plot_plausibility, spaced_peaks, surface_heat
from dposer.viz.render import render_camera, render_mesh
from dposer.viz.sheet import contact_sheet
from dposer.viz.skeletons import draw_keypoints, render_skeleton, side_colours
from dposer.viz.video import read_video, video_fps, write_video

__all__ = [
    "colour_bar",
    "contact_sheet",
    "draw_keypoints",
    "plausibility_colours",
    "plot_plausibility",
    "read_video",
    "render_camera",
    "render_mesh",
    "render_skeleton",
    "save_image",
    "save_mesh",
    "side_colours",
    "spaced_peaks",
    "surface_heat",
    "video_fps",
    "write_video",
]
