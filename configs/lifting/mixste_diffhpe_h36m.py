"""The small MixSTE that DiffHPE is compared to and wraps, as published, for Human3.6M; occlusion as in diffhpe_h36m.py."""

from dposer.lifting.config import LiftingConfig, LossConfig, NetworkConfig, OptimConfig

config = LiftingConfig(
    method="mixste",
    flip=False,
    hidden="zero",
    network=NetworkConfig(frames=27, channels=64, depth=8, heads=8, drop_path=0.1),
    loss=LossConfig(kind="mse"),
    optim=OptimConfig(
        lr=4e-5,
        optimizer="adam",
        weight_decay=1e-6,
        decay=0.5,
        schedule="plateau",
        patience=60,
        threshold=0.1,
        epochs=500,
        batch=25,
        flip=False,
        random_start=True,
    ),
)
