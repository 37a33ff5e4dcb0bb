"""What the shipped lifters start from: a small MixSTE on the open benchmark, 27 frames, 64 channels, about an hour on two CPU cores."""

from dposer.lifting.config import LiftingConfig, LossConfig, NetworkConfig, OptimConfig

config = LiftingConfig(
    method="mixste",
    fps=30.0,
    network=NetworkConfig(frames=27, channels=64, depth=4, heads=4, drop_path=0.0),
    loss=LossConfig(kind="mixste"),
    optim=OptimConfig(
        lr=8e-4,
        schedule="cosine",
        warmup=200,
        weight_decay=0.01,
        epochs=24,
        batch=8,
        epoch_windows=4000,
        random_start=True,
        ema=0.998,
        clip=1.0,
    ),
)
