"""The shipped GraFormer, on the open benchmark; what the shipped refiners start from. About twenty minutes on one CPU core."""

from dposer.lifting.config import LiftingConfig, LossConfig, NetworkConfig, OptimConfig

config = LiftingConfig(
    method="graformer",
    fps=30.0,
    network=NetworkConfig(frames=1, channels=48, depth=4, heads=4, drop_path=0.0, dropout=0.1),
    loss=LossConfig(kind="mse"),
    optim=OptimConfig(
        lr=1e-3,
        schedule="cosine",
        warmup=200,
        weight_decay=0.01,
        epochs=30,
        batch=256,
        epoch_windows=25_600,
        ema=0.998,
        clip=1.0,
    ),
)
