"""DiffHPE-2D as published, for Human3.6M and its CPN detections; occlusion as in diffhpe_h36m.py."""

from dposer.lifting.config import DiffusionConfig, LiftingConfig, LossConfig, NetworkConfig, OptimConfig

config = LiftingConfig(
    method="diffhpe-2d",
    variant="compat",
    flip=False,
    hidden="zero",
    network=NetworkConfig(frames=27, channels=64, depth=16, drop_path=0.0, dropout=0.032),
    diffusion=DiffusionConfig(timesteps=50, beta_end=0.5),
    loss=LossConfig(kind="mse"),
    optim=OptimConfig(
        lr=0.0008083464402314577,
        optimizer="adam",
        weight_decay=1e-6,
        decay=0.5,
        schedule="plateau",
        patience=60,
        threshold=0.1,
        epochs=1000,
        batch=100,
        flip=False,
        random_start=True,
    ),
)
