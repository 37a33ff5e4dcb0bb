"""The shipped DDHPose, from the weights of open_trunk.py (--start-from): half an hour on one CPU core."""

from dposer.lifting.config import DiffusionConfig, LiftingConfig, LossConfig, NetworkConfig, OptimConfig

config = LiftingConfig(
    method="ddhpose",
    fps=30.0,
    network=NetworkConfig(frames=27, channels=64, depth=4, heads=4, drop_path=0.0),
    diffusion=DiffusionConfig(scale=3.0),
    loss=LossConfig(kind="bones"),
    optim=OptimConfig(
        lr=5e-4,
        schedule="cosine",
        warmup=200,
        weight_decay=0.01,
        epochs=12,
        batch=8,
        epoch_windows=4000,
        random_start=True,
        ema=0.998,
        clip=1.0,
    ),
)
