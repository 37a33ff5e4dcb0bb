"""Gong et al.'s single-graph refiner on Human3.6M (DiffPose, CVPR 2023), one frame, for CPN keypoints.

Trained on true ones (``--keypoints gt_gmm``), which tests better, and tested on CPN's (``--keypoints cpn_ft_h36m_dbb_gmm``).
``--start-from`` a GraFormer. Published weights are not averaged; ``--config.optim.ema=0.999`` averages them.
"""

from dposer.lifting.config import DiffusionConfig, LiftingConfig, NetworkConfig, OptimConfig, RefineConfig

config = LiftingConfig(
    method="single-graph",
    variant="compat",
    flip=False,
    inputs="mixture",
    network=NetworkConfig(frames=1, channels=96, depth=5, heads=4, dropout=0.25),
    diffusion=DiffusionConfig(timesteps=51, schedule="linear", beta_start=1e-4, beta_end=1e-3),
    refine=RefineConfig(noise_from="mixture", component="draw", span=24),
    optim=OptimConfig(
        lr=1e-3,
        optimizer="adam",
        decay=0.9,
        decay_epochs=60,
        weight_decay=0.0,
        epochs=80,
        batch=1024,
        flip=False,
        clip=1.0,
    ),
    seed=19960903,
)
