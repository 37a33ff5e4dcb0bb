"""Jiang and Chen's cross-channel refiner on Human3.6M (ICASSP 2024), CPN keypoints: ``--keypoints cpn_ft_h36m_dbb``.

``--start-from`` a GraFormer trained on them. Published weights are not averaged; ``--config.optim.ema=0.999`` averages them.
"""

from dposer.lifting.config import DiffusionConfig, LiftingConfig, NetworkConfig, OptimConfig, RefineConfig

config = LiftingConfig(
    method="cross-channel",
    variant="compat",
    network=NetworkConfig(frames=1, channels=96, depth=5, heads=4, dropout=0.25),
    diffusion=DiffusionConfig(timesteps=51, schedule="linear", beta_start=1e-4, beta_end=1e-3),
    refine=RefineConfig(noise=0.1, span=12),
    optim=OptimConfig(
        lr=1e-3,
        optimizer="adam",
        decay=0.9,
        decay_epochs=60,
        weight_decay=0.0,
        epochs=800,
        batch=1024,
        epoch_windows=1_559_752,  # as many as there are frames; a window is mirrored half of the time
        clip=1.0,
    ),
    seed=19960903,
)
