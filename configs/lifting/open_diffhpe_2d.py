"""The shipped DiffHPE-2D, on the open benchmark: about an hour on one CPU core."""

from dposer.lifting.config import DiffusionConfig, LiftingConfig, LossConfig, NetworkConfig, OptimConfig

config = LiftingConfig(
    method="diffhpe-2d",
    fps=30.0,
    network=NetworkConfig(frames=27, channels=48, depth=6, drop_path=0.0, dropout=0.03),
    diffusion=DiffusionConfig(timesteps=50, beta_end=0.5, scale=3.0, predicts="clean"),
    loss=LossConfig(kind="mse"),
    optim=OptimConfig(
        lr=1e-3,
        schedule="cosine",
        warmup=200,
        weight_decay=0.01,
        epochs=18,
        batch=16,
        epoch_windows=4000,
        random_start=True,
        ema=0.998,
        clip=1.0,
    ),
)
