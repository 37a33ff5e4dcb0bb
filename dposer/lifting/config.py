"""Typed settings of a lifting method and of its training; a recipe is one file in configs/lifting/."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from dposer.body.skeleton import H36M_17, MPI_INF_3DHP_17, Layout
from dposer.config import build

Method = Literal["mixste", "d3dp", "ddhpose"]
_LAYOUTS = {layout.name: layout for layout in (H36M_17, MPI_INF_3DHP_17)}


@dataclass(frozen=True)
class NetworkConfig:
    """The denoiser, or the regressor."""

    frames: int = 243
    """Of a window."""
    channels: int = 512
    depth: int = 8
    """Pairs of a spatial and a temporal block."""
    heads: int = 8
    drop_path: float = 0.1
    """Stochastic depth of the last pair, rising from 0 at the first."""


@dataclass(frozen=True)
class DiffusionConfig:
    """The process; without effect on a regressor."""

    timesteps: int = 1000
    """Of the cosine schedule."""
    scale: float = 1.0
    """Of the signal."""
    bound: float = 1.1
    """Clamp of the state, in units of ``scale``, and of the estimated pose, in metres."""


@dataclass(frozen=True)
class LossConfig:
    """What training minimises."""

    kind: Literal["position", "bones", "mixste", "mse"] = "position"
    """position: mean distance (D3DP); bones: with bone lengths and directions besides (DDHPose); mixste: weighted joints, smoothness and
    velocities; mse: mean square of coordinates."""
    wl: float = 1.0
    """Weight of the squared errors of bone lengths averaged over time (bones)."""
    wd: float = 1.0
    """Weight of the squared errors of bone directions (bones)."""
    unit: float = 1.0
    """Metres that positions are measured in; 0.001 as published for MPI-INF-3DHP."""
    length_unit: float = 0.1
    """Metres that bone lengths are measured in. Published: ``unit``, so that lengths hardly count in metres and rule in millimetres."""
    squared: bool = False
    """Minimise half the square of the loss, as the published code does by seeding the backward pass with the loss itself."""


@dataclass(frozen=True)
class OptimConfig:
    """AdamW and the length of training."""

    lr: float = 1e-4
    decay: float = 0.993
    """Of the learning rate, each epoch."""
    schedule: Literal["exponential", "cosine"] = "exponential"
    """cosine: from ``lr`` to 0 over all epochs, in place of ``decay``."""
    warmup: int = 0
    """Steps over which the rate rises."""
    weight_decay: float = 0.1
    epochs: int = 400
    batch: int = 4
    """Windows."""
    epoch_windows: int = 0
    """Windows of an epoch; 0: all."""
    flip: bool = True
    """Each window also mirrored."""
    random_start: bool = False
    """Windows begin anywhere, not on a fixed grid."""
    ema: float = 0.0
    """Rate of the averaged weights that are then the ones kept; 0: none."""
    clip: float = 0.0
    """Of the norm of gradients; 0: none."""
    amp: bool = False
    """bfloat16 where the device has it (CUDA)."""


@dataclass(frozen=True)
class LiftingConfig:
    """Everything but the data and the weights."""

    method: Method = "ddhpose"
    variant: Literal["clean", "compat"] = "clean"
    """compat: with the defects of the published code, for weights that were trained with them."""
    layout: Literal["h36m17", "mpi_inf_3dhp17"] = "h36m17"
    fps: float = 50.0
    """Of the training data; clips are resampled to it."""
    flip: bool = True
    """Average each prediction with that of the mirrored input."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    seed: int = 1

    @property
    def skeleton(self) -> Layout:
        """The layout by its name."""
        return _LAYOUTS[self.layout]

    @property
    def compat(self) -> bool:
        return self.variant == "compat"

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Any, source: str) -> "LiftingConfig":
        """Inverse of :meth:`to_dict`; checks every key and type.

        Raises:
            InputError: naming ``source`` and the key.
        """
        return build(cls, values, source)
