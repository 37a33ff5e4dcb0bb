"""The second release's recipe: as the first, but RAdam under a half cosine, 200,000 steps."""

from dposer.prior.config import ModelConfig, OptimConfig, PriorConfig, TrainingConfig

config = PriorConfig(
    model=ModelConfig(type="ScoreModelFC", HIDDEN_DIM=1024, EMBED_DIM=512, N_BLOCKS=2, dropout=0.1),
    training=TrainingConfig(sde="subvpsde", batch_size=1280, n_iters=200_000, eval_freq=10_000),
    optim=OptimConfig(optimizer="RAdam", lr=2e-4, warmup=5_000, grad_clip=1.0, schedule="cosine"),
    seed=42,
)
