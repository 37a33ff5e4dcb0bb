"""The shipped single-graph refiner, with the weights of open_graformer.py as its lifter (--start-from): half an hour on one CPU core."""

from dposer.lifting.config import DiffusionConfig, LiftingConfig, NetworkConfig, OptimConfig, RefineConfig

config = LiftingConfig(
    method="single-graph",
    fps=30.0,
    network=NetworkConfig(frames=1, channels=48, depth=4, heads=4, drop_path=0.0, dropout=0.1),
    diffusion=DiffusionConfig(timesteps=51, schedule="linear", beta_start=1e-4, beta_end=1e-3),
    refine=RefineConfig(span=12),
    optim=OptimConfig(
        lr=1e-3,
        schedule="cosine",
        warmup=200,
        weight_decay=0.01,
        epochs=45,
        batch=256,
        epoch_windows=25_600,
        ema=0.998,
        clip=1.0,
    ),
)
