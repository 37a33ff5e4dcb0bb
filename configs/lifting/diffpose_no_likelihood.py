"""DiffPose's ablation no_likelihood, else as in diffpose_h36m.py: codes are not weighted by the map's height."""

from dposer.lifting.config import DiffusionConfig, HeatmapConfig, LiftingConfig, LossConfig, NetworkConfig, OptimConfig

config = LiftingConfig(
    method="diffpose",
    inputs="heatmap",
    flip=False,
    network=NetworkConfig(frames=1, channels=128, depth=4, heads=4, drop_path=0.0, dropout=0.1),
    diffusion=DiffusionConfig(timesteps=25, scale=10.0, bound=3.0, predicts="noise", eta=1.0),
    heatmap=HeatmapConfig(likelihood=False),
    loss=LossConfig(kind="mse"),
    optim=OptimConfig(
        lr=1e-4,
        optimizer="adam",
        decay=1.0,
        weight_decay=0.0,
        epochs=100,
        batch=32,
        epoch_windows=224_000,
        flip=False,
        ema=0.995,
        ema_every=10,
        ema_after=100,
        amp=True,
    ),
    seed=42,
)
