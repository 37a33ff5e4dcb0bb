"""D3DP on Human3.6M (Shan et al., ICCV 2023): 243 frames, CPN keypoints."""

from dposer.lifting.config import LiftingConfig, LossConfig, OptimConfig

config = LiftingConfig(
    method="d3dp",
    variant="compat",
    loss=LossConfig(kind="position", squared=True),
    optim=OptimConfig(lr=6e-5, decay=0.993, epochs=400, batch=4),
)
