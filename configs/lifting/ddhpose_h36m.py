"""DDHPose on Human3.6M (Cai et al., AAAI 2024, tables 1 and 7): 243 frames, CPN keypoints."""

from dposer.lifting.config import LiftingConfig, LossConfig, OptimConfig

config = LiftingConfig(
    method="ddhpose",
    variant="compat",
    loss=LossConfig(kind="bones", length_unit=1.0, squared=True),
    optim=OptimConfig(lr=1e-4, decay=0.993, epochs=400, batch=4),
)
