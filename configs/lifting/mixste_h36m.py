"""MixSTE on Human3.6M by its own recipe (Zhang et al., CVPR 2022): 243 frames, weighted loss."""

from dposer.lifting.config import LiftingConfig, LossConfig, OptimConfig

config = LiftingConfig(
    method="mixste",
    variant="compat",
    loss=LossConfig(kind="mixste", squared=True),
    optim=OptimConfig(lr=4e-5, decay=0.99, epochs=160, batch=4),
)
