"""The shipped prior: a narrower network for the open corpus, trained on two CPU cores in about an hour."""

from dposer.prior.config import DataConfig, ModelConfig, OptimConfig, PriorConfig, TrainingConfig

config = PriorConfig(
    data=DataConfig(mirror=True, balance=0.5, rotation_noise=0.02),
    model=ModelConfig(HIDDEN_DIM=768, EMBED_DIM=512, N_BLOCKS=2, dropout=0.0, scale_by_sigma=False, ema_rate=0.999),
    training=TrainingConfig(batch_size=512, shared_times=64, n_iters=16_000, log_freq=100, eval_freq=4_000, snapshot_freq=500),
    optim=OptimConfig(lr=1e-3, warmup=500, schedule="cosine"),
)
