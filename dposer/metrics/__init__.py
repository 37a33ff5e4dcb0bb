"""Metrics over arrays: joints, vertices and poses in, numbers out. Nothing here knows a body model or a prior.

The percentage of self-intersecting faces is ``dposer.metrics.self_intersection.self_intersection``: the package itself
leaves that name to the module.
"""

from dposer.metrics.distribution import (
    PRDC,
    dnn,
    fid,
    frechet_distance,
    gaussian_statistics,
    precision_recall_density_coverage,
)
from dposer.metrics.poses import (
    BestOf,
    acceleration_error,
    apd,
    asymmetry,
    auc,
    best_of,
    bone_lengths,
    consistency,
    distances,
    jitter,
    mean_distance,
    mpjpe,
    mpjve,
    mpvpe,
    n_mpjpe,
    pa_mpjpe,
    pck,
)
from dposer.metrics.self_intersection import self_intersecting_faces

__all__ = [
    "PRDC",
    "BestOf",
    "acceleration_error",
    "apd",
    "asymmetry",
    "auc",
    "best_of",
    "bone_lengths",
    "consistency",
    "distances",
    "dnn",
    "fid",
    "frechet_distance",
    "gaussian_statistics",
    "jitter",
    "mean_distance",
    "mpjpe",
    "mpjve",
    "mpvpe",
    "n_mpjpe",
    "pa_mpjpe",
    "pck",
    "precision_recall_density_coverage",
    "self_intersecting_faces",
]
