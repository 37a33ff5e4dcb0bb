"""What every lifting data set is read into: one person before one camera."""

from dataclasses import dataclass

import numpy as np

from dposer.body.skeleton import Layout
from dposer.data.heatmap_mixtures import StoredMaps
from dposer.errors import InputError
from dposer.geometry.lens import Lens, Stand


@dataclass(frozen=True)
class LiftingClip:
    """F frames of J joints."""

    subject: str
    action: str
    """As the file spells it ("Walking 1")."""
    view: str
    """Name or number of the camera."""
    keypoints: np.ndarray
    """(F, J, 3) float32: pixels and confidence in [0, 1], 1 where the file has none; 0 = missing."""
    joints: np.ndarray | None
    """(F, J, 3) float32 metres before the camera (x right, y down, z forward), the root where it is; None if not known."""
    size: tuple[int, int]
    """Width and height of the picture."""
    lens: Lens | None
    """In pixels; None if not known."""
    layout: Layout
    fps: float
    stand: Stand | None = None
    valid: np.ndarray | None = None
    """(F,) bool: frames that metrics count; None: all."""
    activity: np.ndarray | None = None
    """(F,) int: MPI-INF-3DHP's activities 1..7."""
    mixture: np.ndarray | None = None
    """(F, J, M, 5) float32: the keypoints as mixtures of Gaussians, in screen units (:mod:`dposer.data.gmm`); None if not known."""
    heatmaps: np.ndarray | StoredMaps | None = None
    """(F, 16, 10) or (F, 16, 4096) float: heatmaps of single frames, as mixtures in crops or cell by cell
    (:mod:`dposer.data.heatmap_mixtures`); None if not known. Frames are then no film."""
    hard: np.ndarray | None = None
    """(F,) bool: frames in which some joint is hard to find."""

    def __post_init__(self) -> None:
        frames, joints = len(self.keypoints), len(self.layout.joints)
        if self.keypoints.shape != (frames, joints, 3):
            raise InputError(f"{self.name}: keypoints of shape {self.keypoints.shape}, expected (frames, {joints}, 3) ({self.layout.name})")
        if self.joints is not None and self.joints.shape != self.keypoints.shape:
            raise InputError(f"{self.name}: joints of shape {self.joints.shape}, expected {self.keypoints.shape}, as its keypoints")
        if self.mixture is not None and (
            self.mixture.ndim != 4 or self.mixture.shape[::3] != (frames, 5) or self.mixture.shape[1] != joints
        ):
            raise InputError(f"{self.name}: mixture of shape {self.mixture.shape}, expected ({frames}, {joints}, components, 5)")

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def name(self) -> str:
        return f"{self.subject}/{self.action}/{self.view}"

    @property
    def root(self) -> int:
        """Row of the pelvis."""
        return self.layout.joints.index("pelvis")
