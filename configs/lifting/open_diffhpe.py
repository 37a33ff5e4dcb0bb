"""The shipped DiffHPE-Wrapper, around the weights of open_mixste.py (--start-from): about an hour on one CPU core."""

from dposer.lifting.config import ConditionConfig, DiffusionConfig, LiftingConfig, LossConfig, NetworkConfig, OptimConfig

config = LiftingConfig(
    method="diffhpe",
    fps=30.0,
    network=NetworkConfig(frames=27, channels=48, depth=6, drop_path=0.0, dropout=0.03),
    diffusion=DiffusionConfig(timesteps=50, beta_end=0.5, scale=3.0, predicts="clean"),
    condition=ConditionConfig(kind="features", channels=64, depth=4, heads=4),
    loss=LossConfig(kind="mse"),
    optim=OptimConfig(
        lr=1e-3,
        schedule="cosine",
        warmup=200,
        weight_decay=0.01,
        epochs=12,
        batch=16,
        epoch_windows=4000,
        random_start=True,
        ema=0.998,
        clip=1.0,
    ),
)
