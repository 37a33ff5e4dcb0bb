"""The published recipe: sub-VP SDE, fully connected score network, Adam, 400,000 steps of 1280 AMASS poses."""

from dposer.prior.config import DataConfig, ModelConfig, OptimConfig, PriorConfig, SamplingConfig, TrainingConfig

config = PriorConfig(
    data=DataConfig(normalize=True, rot_rep="axis", min_max=False),
    model=ModelConfig(
        type="ScoreModelFC",
        HIDDEN_DIM=1024,
        EMBED_DIM=512,
        N_BLOCKS=2,
        dropout=0.1,
        embedding_type="positional",
        nonlinearity="swish",
        scale_by_sigma=True,
        ema_rate=0.9999,
        beta_min=0.1,
        beta_max=20.0,
    ),
    training=TrainingConfig(
        sde="subvpsde",
        continuous=True,
        likelihood_weighting=False,
        reduce_mean=True,
        auxiliary_loss=False,
        batch_size=1280,
        n_iters=400_001,
        log_freq=50,
        eval_freq=50_000,
    ),
    optim=OptimConfig(optimizer="Adam", lr=2e-4, beta1=0.9, eps=1e-8, weight_decay=0.0, warmup=5_000, grad_clip=1.0, schedule="constant"),
    sampling=SamplingConfig(method="pc", predictor="euler_maruyama", corrector="none", n_steps_each=1, noise_removal=True, snr=0.16),
    seed=42,
)
