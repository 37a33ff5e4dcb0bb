"""Typed settings of a pose prior and of its training, with the names and defaults of the published recipe.

Section and key names are those of the DPoser configuration files (arXiv 2312.05541), so that
``--config.model.HIDDEN_DIM=512`` means what its users expect. Keys marked *ours* are additions; their defaults leave
the published recipe as it is.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from dposer.config import build


@dataclass(frozen=True)
class DataConfig:
    """How poses are represented and augmented."""

    normalize: bool = True
    """Normalise poses before diffusion."""
    rot_rep: Literal["axis", "rot6d"] = "axis"
    """Rotation representation: axis-angle (63 numbers) or two matrix columns (126)."""
    min_max: bool = False
    """Min-max instead of z-score normalisation."""
    balance: float = 0.0
    """Ours: draw poses of a subject with n frames with weight n^-balance (0 = every frame alike, 1 = every subject alike)."""
    mirror: bool = False
    """Ours: add the left-right mirror image of every pose."""
    rotation_noise: float = 0.0
    """Ours: standard deviation in radians of Gaussian noise added to the axis-angle training poses."""


@dataclass(frozen=True)
class ModelConfig:
    """The score network and the constants of its SDE."""

    type: Literal["ScoreModelFC", "TimeMLPs"] = "ScoreModelFC"
    HIDDEN_DIM: int = 1024
    EMBED_DIM: int = 512
    N_BLOCKS: int = 2
    dropout: float = 0.1
    embedding_type: Literal["positional", "fourier"] = "positional"
    fourier_scale: float = 16.0
    nonlinearity: Literal["swish", "elu", "relu", "lrelu"] = "swish"
    scale_by_sigma: bool = True
    """Divide the output by the descending sigma table; part of the published function."""
    masked: bool = False
    """Ours: the network is also told which entries are known and gets them without noise, so that it denoises p(missing | known)."""
    ema_rate: float = 0.9999
    sigma_min: float = 0.01
    sigma_max: float = 50.0
    num_scales: int = 1000
    beta_min: float = 0.1
    beta_max: float = 20.0


@dataclass(frozen=True)
class TrainingConfig:
    """The objective and the length of training."""

    sde: Literal["vpsde", "subvpsde", "vesde"] = "subvpsde"
    continuous: bool = True
    """Continuous-time loss; False takes the legacy discrete DDPM (vpsde) or SMLD (vesde) loss."""
    likelihood_weighting: bool = False
    reduce_mean: bool = True
    auxiliary_loss: bool = False
    """Add vertex and joint distances after denoising. About ten times slower; its authors advise against it."""
    denoise_steps: int = 10
    """DDIM steps of the auxiliary loss."""
    shared_times: int = 0
    """Ours: K stratified times a batch, each shared by batch_size / K poses, so that the network embeds only K times; 0 = one a pose."""
    mask_rate: float = 0.0
    """Ours: share of the poses of a batch of which some entries are known (needs model.masked)."""
    batch_size: int = 1280
    n_iters: int = 400_001
    log_freq: int = 50
    eval_freq: int = 50_000
    """Steps between evaluations with EMA weights."""
    snapshot_freq: int = 5_000
    """Ours: steps between resumable checkpoints."""


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser."""

    optimizer: Literal["Adam", "AdamW", "RAdam"] = "Adam"
    lr: float = 2e-4
    beta1: float = 0.9
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup: int = 5_000
    grad_clip: float = 1.0
    schedule: Literal["constant", "cosine"] = "constant"
    """After warm-up: constant (first release) or half a cosine down to zero at n_iters (second release)."""


@dataclass(frozen=True)
class SamplingConfig:
    """The sampler used for evaluation and demos."""

    method: Literal["pc", "ode"] = "pc"
    predictor: Literal["euler_maruyama", "reverse_diffusion", "ancestral", "ddim", "dpm++", "none"] = "euler_maruyama"
    corrector: Literal["langevin", "ald", "none"] = "none"
    n_steps_each: int = 1
    noise_removal: bool = True
    probability_flow: bool = False
    snr: float = 0.16


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation during training."""

    batch_size: int = 50
    num_samples: int = 500


@dataclass(frozen=True)
class PriorConfig:
    """Everything that determines a trained prior."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    seed: int = 42

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict, e.g. for a checkpoint's header."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str = "configuration") -> "PriorConfig":
        """Inverse of :meth:`to_dict`. Raises :class:`InputError` on unknown keys or wrong types, naming ``source``."""
        return build(cls, values, source)
