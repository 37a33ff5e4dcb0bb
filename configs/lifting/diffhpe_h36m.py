"""DiffHPE-Wrapper as published, for Human3.6M and its CPN detections, around the weights of mixste_diffhpe_h36m.py (--start-from).

The rate halves after 60 epochs without a gain of a tenth. With occlusion: --config.occlusion.pattern frames --config.occlusion.share
0.2, or random 0.2, arm_leg 0.4, joints 0.4; then also in the training of the MixSTE that it starts from.
"""

from dposer.lifting.config import ConditionConfig, DiffusionConfig, LiftingConfig, LossConfig, NetworkConfig, OptimConfig

config = LiftingConfig(
    method="diffhpe",
    variant="compat",
    flip=False,
    hidden="zero",
    network=NetworkConfig(frames=27, channels=64, depth=16, drop_path=0.0, dropout=0.2703806090969092),
    diffusion=DiffusionConfig(timesteps=50, beta_end=0.5),
    condition=ConditionConfig(kind="features", channels=64, depth=8, heads=8),
    loss=LossConfig(kind="mse"),
    optim=OptimConfig(
        lr=0.0002701385346296177,
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
