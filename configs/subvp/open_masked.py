"""The shipped prior taught masks: starts from the weights of open_cpu.py and learns p(missing | known) beside p(pose)."""

from dposer.prior.config import DataConfig, ModelConfig, OptimConfig, PriorConfig, TrainingConfig

config = PriorConfig(
    data=DataConfig(mirror=True, balance=0.5, rotation_noise=0.02),
    model=ModelConfig(HIDDEN_DIM=768, EMBED_DIM=512, N_BLOCKS=2, dropout=0.0, scale_by_sigma=False, ema_rate=0.999, masked=True),
    training=TrainingConfig(
        batch_size=512, shared_times=64, mask_rate=0.75, n_iters=12_000, log_freq=100, eval_freq=2_000, snapshot_freq=500
    ),
    optim=OptimConfig(lr=5e-4, warmup=500, schedule="cosine"),
)
