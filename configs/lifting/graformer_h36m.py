"""GraFormer on Human3.6M by its own recipe (Zhao et al., CVPR 2022), with 17 joints: what the refiners start from.

``--keypoints gt`` trains on true keypoints, the default on CPN's. The rate falls by a tenth every 50 000 steps, about two epochs.
"""

from dposer.lifting.config import LiftingConfig, LossConfig, NetworkConfig, OptimConfig

config = LiftingConfig(
    method="graformer",
    variant="compat",
    flip=False,
    network=NetworkConfig(frames=1, channels=96, depth=5, heads=4, dropout=0.25),
    loss=LossConfig(kind="mse"),
    optim=OptimConfig(
        lr=1e-3, optimizer="adam", decay=0.9, decay_epochs=2, weight_decay=0.0, epochs=100, batch=64, flip=False, clip=1.0
    ),
)  # fmt: skip
