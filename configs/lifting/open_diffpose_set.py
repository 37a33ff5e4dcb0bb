"""open_diffpose.py with a small network of each candidate in place of sums, which see of a map but its marginals."""

from dposer.lifting.config import DiffusionConfig, HeatmapConfig, LiftingConfig, LossConfig, NetworkConfig, OptimConfig

config = LiftingConfig(
    method="diffpose",
    inputs="heatmap",
    flip=False,
    fps=30.0,
    network=NetworkConfig(frames=1, channels=128, depth=2, heads=4, drop_path=0.0, dropout=0.0),
    diffusion=DiffusionConfig(timesteps=25, scale=10.0, bound=1.0, predicts="clean"),
    heatmap=HeatmapConfig(condition="set", feedforward=256, readout=256, width=384, late=1),
    loss=LossConfig(kind="mse"),
    optim=OptimConfig(
        lr=1e-3,
        schedule="cosine",
        warmup=200,
        optimizer="adam",
        weight_decay=0.0,
        epochs=20,
        batch=128,
        epoch_windows=64000,
        ema=0.998,
        sizes=0.04,
        clip=1.0,
    ),
)
