"""DiffPose on Human3.6M as published: 700 000 steps of 32 frames, the rate never falls.

Heatmaps of another detector (diffpose_orig_hrnet) are other data, not another recipe. Two families of ablations change one number of it:

    --config.heatmap.candidates 16        # num_samples: 8, 16 .. 96; with --config.heatmap.no-highest 1, 8, 16 .. 64
    --config.diffusion.timesteps 50       # num_diffusionsteps: 10, 50, 100, 250, 500, 1000

which ``python -m run.ablate_lift --vary`` does for several numbers at once.
"""

from dposer.lifting.config import DiffusionConfig, HeatmapConfig, LiftingConfig, LossConfig, NetworkConfig, OptimConfig

config = LiftingConfig(
    method="diffpose",
    inputs="heatmap",
    flip=False,
    network=NetworkConfig(frames=1, channels=128, depth=4, heads=4, drop_path=0.0, dropout=0.1),
    diffusion=DiffusionConfig(timesteps=25, scale=10.0, bound=3.0, predicts="noise", eta=1.0),
    heatmap=HeatmapConfig(
        condition="reference", candidates=32, highest=True, code="channel", likelihood=True, projection=True, transformer=True, drop=0.1
    ),
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
    seed=42,  # the five published models: 42, 2967, 6173, 5478, 989
)
