"""Typed settings of a lifting method and of its training; a recipe is one file in configs/lifting/."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from dposer.body.skeleton import H36M_17, MPI_INF_3DHP_17, SMPL_24, Layout
from dposer.config import build
from dposer.errors import InputError

Method = Literal["mixste", "d3dp", "ddhpose", "diffhpe-2d", "diffhpe", "graformer", "cross-channel", "single-graph", "diffpose"]
Inputs = Literal["points", "visible", "mixture", "heatmap"]
PATTERNS = ("none", "random", "arm_leg", "joints", "frames", "noise", "mixed")
_LAYOUTS = {layout.name: layout for layout in (H36M_17, MPI_INF_3DHP_17, SMPL_24)}


@dataclass(frozen=True)
class NetworkConfig:
    """The denoiser, or the regressor."""

    frames: int = 243
    """Of a window."""
    channels: int = 512
    depth: int = 8
    """Pairs of a spatial and a temporal block; layers of graph networks."""
    heads: int = 8
    drop_path: float = 0.1
    """Stochastic depth of the last pair, rising from 0 at the first."""
    dropout: float = 0.0
    """Of graph networks."""


@dataclass(frozen=True)
class DiffusionConfig:
    """The process; without effect on a regressor."""

    timesteps: int = 1000
    schedule: Literal["cosine", "linear", "quad"] = "cosine"
    """quad: the square roots of betas are evenly spaced."""
    beta_start: float = 1e-4
    """Of linear and quad."""
    beta_end: float = 0.999
    """Of linear and quad; the most that cosine has."""
    scale: float = 1.0
    """Of the signal."""
    bound: float = 1.1
    """Clamp of the state, in units of ``scale``, and of the estimated pose, in metres."""
    predicts: Literal["noise", "clean"] = "noise"
    """What DiffHPE's network estimates; the D3DP family always estimates the clean pose, refiners the noise."""
    eta: float = 1.0
    """Stochasticity of the sampler: 0 adds no noise between steps, 1 as much as the chain of all of them does."""


@dataclass(frozen=True)
class ConditionConfig:
    """How DiffHPE's denoiser is told the keypoints."""

    kind: Literal["points", "features", "trained", "none"] = "points"
    """points: as they are (diffhpe-2d); features: those of a trained MixSTE, which stays as it is (diffhpe); trained: of one that is
    trained along; none: not at all."""
    channels: int = 64
    """Of that MixSTE, and of the noisy pose beside its features."""
    depth: int = 8
    heads: int = 8
    encode_pose: bool = True
    """A linear layer takes the noisy pose to as many channels; else it enters as it is."""
    keep_head: bool = False
    """Condition on the pose that MixSTE estimates, not on its features."""
    mix: Literal["concat", "sum"] = "concat"
    """Noisy pose and condition side by side, or added."""
    drop: float = 0.0
    """Probability by which a sequence is trained without its condition, for guidance."""
    drop_before: bool = False
    """Drop the keypoints, not what MixSTE makes of them."""
    drop_share: float = 1.0
    """Below 1: each keypoint of such a sequence is dropped with this probability alone; asks for ``drop_before``."""
    guidance: float = 0.0
    """w of (1 + w) conditional − w unconditional noise."""


@dataclass(frozen=True)
class RefineConfig:
    """The refiners: noise, where their few steps start, and what is refined."""

    noise: float = 0.1
    """Of the keypoints, that of the pose being 1."""
    noise_from: Literal["constant", "mixture"] = "constant"
    """mixture: noise of the keypoints as wide as the joint's mixture."""
    component: Literal["first", "draw"] = "first"
    """Which mean of the mixture the keypoint is in training."""
    forward: Literal["zero_mean", "mixture"] = "zero_mean"
    """mixture: the state decays to the mixture's mean, not to zero."""
    guidance: Literal["clean", "noisy"] = "clean"
    """Which keypoints the second branch sees (cross-channel)."""
    span: int = 12
    """T': steps are taken from below this time."""
    eta: float = 0.0
    skip: Literal["uniform", "quad"] = "uniform"
    start: Literal["lifter", "drawn"] = "lifter"
    """drawn: every hypothesis lifts keypoints of its own, drawn from the mixture."""
    spread: float = 1.0
    """By which the mixture's deviations are multiplied then."""


@dataclass(frozen=True)
class HeatmapConfig:
    """How DiffPose is told the heatmaps, what denoises, and how it is sampled."""

    condition: Literal["reference", "set", "concat", "pose"] = "reference"
    """reference: codes of candidates are summed; set: what a small network makes of each is averaged, so that x and y stay together;
    concat: coordinates of the candidates by falling likelihood, one draw for all hypotheses; pose: the highest cells, as one 2D pose."""
    candidates: int = 32
    """Of a joint; all of them but for the highest cell are drawn. Of concat and pose with 1, only that cell."""
    highest: bool = True
    """The first candidate is the highest cell; else it is drawn too."""
    power: float = 1.0
    """τ: cells are drawn with probabilities in proportion to the map to this power."""
    code: Literal["channel", "sin", "linear"] = "channel"
    """Of coordinates: soft one-hot, sinusoids, or a trained network of both."""
    likelihood: bool = True
    """Codes are weighted by the map's height at the candidate; of concat: the heights stand beside coordinates."""
    projection: bool = True
    """A linear layer takes codes to as many channels."""
    transformer: bool = True
    """Joints are mixed by ``network.depth`` layers of attention."""
    drop: float = 0.1
    """Probability by which a joint is trained without candidates."""
    norm: Literal["unit", "half", "mean_std", "mean_std_per_sample"] = "unit"
    """Of coordinates, without effect on the channel code: the crop is -1 .. 1, or -½ .. ½; or less their mean, over their deviation: of
    all candidates of a person together, or of one of each joint at a time."""
    feedforward: int = 512
    """Width inside a layer of attention."""
    readout: int = 2048
    """Of the condition."""
    width: int = 1024
    blocks: int = 2
    """Of the denoiser."""
    sampler: Literal["ancestral", "ddim", "dpm++"] = "ancestral"
    """ancestral: the chain that was trained, backwards; the others take few steps, without noise between them unless ``diffusion.eta``."""
    late: int = 0
    """Steps that are left out at the beginning of the chain, where next to nothing is known yet."""
    noise: float = 1.0
    """Times all noise of the sampler: below 1 hypotheses are closer together."""


@dataclass(frozen=True)
class OcclusionConfig:
    """What is hidden or disturbed of the keypoints, see :mod:`dposer.lifting.occlusion`."""

    pattern: str = "none"
    """random: single keypoints; arm_leg: left arm and right leg in single frames; joints: the right leg for a while; frames: everything
    for a while; noise: white noise; mixed: one of the others but noise, or none, for each window. A + joins several, and a number after
    a colon takes the place of ``share`` or ``sigma``: joints:0.4+noise."""
    share: float = 0.2
    """Of keypoints (random) or frames; mixed has its own."""
    sigma: float = 5.0
    """Pixels (noise), in a picture 1000 pixels wide; of half its width in the variant compat."""
    limbs: str = ""
    """Comma list of limbs (left_arm, right_leg, trunk, ...) and joints that are hidden in place of those; empty: those."""

    def __post_init__(self) -> None:
        self.parts()

    def parts(self) -> list[tuple[str, float]]:
        """Patterns and what each is drawn with, its share or sigma; none of them is left out.

        Raises:
            InputError: another pattern, a share outside [0, 1], or a sigma below 0.
        """
        return [part for part in map(self._part, self.pattern.split("+")) if part[0] != "none"]

    def _part(self, text: str) -> tuple[str, float]:
        name, _, number = text.strip().partition(":")
        if name not in PATTERNS or (number and name in ("none", "mixed")):
            raise InputError(f"occlusion pattern {text!r}: expected {', '.join(PATTERNS)}, or several like joints:0.4+noise:5")
        try:
            amount = float(number) if number else self.sigma if name == "noise" else self.share
        except ValueError as error:
            raise InputError(f"occlusion pattern {text!r}: {number!r} is no number, expected one as in joints:0.4") from error
        if not 0 <= amount < math.inf or (name != "noise" and amount > 1):
            raise InputError(
                f"occlusion pattern {text!r}: {amount:g}, expected {'0 or more pixels' if name == 'noise' else 'a share in 0..1'}"
            )
        return name, amount


@dataclass(frozen=True)
class LossConfig:
    """What training minimises."""

    kind: Literal["position", "bones", "mixste", "mse", "mae"] = "position"
    """position: mean distance (D3DP); bones: with bone lengths and directions besides (DDHPose); mixste: weighted joints, smoothness and
    velocities; mse: mean square of coordinates, or of the noise; mae: mean absolute noise (diffpose)."""
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
    consistency: float = 0.0
    """λ of the variance of bone lengths over time of the clean pose that is estimated (DiffHPE)."""
    symmetry: float = 0.0
    """λ of squared differences between lengths of left and right bones (DiffHPE)."""


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser and the length of training."""

    lr: float = 1e-4
    optimizer: Literal["adamw", "adam"] = "adamw"
    """adam: ``weight_decay`` is added to gradients."""
    decay: float = 0.993
    """Of the learning rate, every ``decay_epochs``."""
    decay_epochs: int = 1
    schedule: Literal["exponential", "cosine", "plateau"] = "exponential"
    """cosine: from ``lr`` to 0 over all epochs, in place of ``decay``; plateau: times ``decay`` after ``patience`` epochs in which the
    validation error was not a ``threshold`` share below its best."""
    patience: int = 11
    threshold: float = 0.1
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
    sizes: float = 0.0
    """Poses of a window are exp(σ z) times as large, z ~ N(0, 1), as is their distance: the picture stays the same, and so does what is
    seen; σ is this."""
    ema: float = 0.0
    """Rate of the averaged weights that are then the ones kept; 0: none."""
    ema_every: int = 1
    """Steps between two averages."""
    ema_after: int = 0
    """Steps for which averages are copies; then the rate is at most 1 - (1 + n)^(-2/3) after n more steps. 0: (1 + n) / (10 + n)."""
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
    layout: Literal["h36m17", "mpi_inf_3dhp17", "smpl24"] = "h36m17"
    """smpl24: of diffpose on 3DPW alone."""
    fps: float = 50.0
    """Of the training data; clips are resampled to it."""
    flip: bool = True
    """Average each prediction with that of the mirrored input."""
    inputs: Inputs = "points"
    """What the network sees of a joint: its keypoint; with a column that says whether it is seen; a mixture of Gaussians (refiners); or its
    heatmap (diffpose)."""
    hidden: Literal["filled", "zero"] = "filled"
    """What stands for a missing keypoint: its neighbours in time, or the middle of the picture (DiffHPE)."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    condition: ConditionConfig = field(default_factory=ConditionConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    heatmap: HeatmapConfig = field(default_factory=HeatmapConfig)
    occlusion: OcclusionConfig = field(default_factory=OcclusionConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    seed: int = 1

    @property
    def skeleton(self) -> Layout:
        """The layout by its name."""
        return _LAYOUTS[self.layout]

    @property
    def columns(self) -> int:
        """Of a keypoint, as the network sees it.

        Raises:
            InputError: a mixture or heatmaps, whose number of columns lies with the data.
        """
        if self.inputs not in ("points", "visible"):
            raise InputError(f"inputs = {self.inputs!r}: not of {self.method}, expected points or visible; choose --config.inputs")
        return 3 if self.inputs == "visible" else 2

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
