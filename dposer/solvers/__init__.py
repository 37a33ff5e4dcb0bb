"""Prior + body + measurement → answer."""

from dposer.solvers.completion import (
    COMPLETION_PRESETS,
    CompletionSettings,
    SamplingSettings,
    complete,
    mode_settings,
    sampling_settings,
)
from dposer.solvers.mesh_adam import BodyStart, SmplifySettings, smplify_settings
from dposer.solvers.mesh_fitting import FitSettings, MeshFit, fit_keypoints
from dposer.solvers.motion_denoising import AdamSettings, NewtonSettings, denoise_motion, denoising_settings
from dposer.solvers.motion_fitting import MotionFit, fit_joints, fit_motion
from dposer.solvers.video_fitting import TrackFit, TrackSettings, fit_track

__all__ = [
    "COMPLETION_PRESETS",
    "AdamSettings",
    "BodyStart",
    "CompletionSettings",
    "FitSettings",
    "MeshFit",
    "MotionFit",
    "NewtonSettings",
    "SamplingSettings",
    "SmplifySettings",
    "TrackFit",
    "TrackSettings",
    "complete",
    "denoise_motion",
    "denoising_settings",
    "fit_joints",
    "fit_keypoints",
    "fit_motion",
    "fit_track",
    "mode_settings",
    "sampling_settings",
    "smplify_settings",
]
