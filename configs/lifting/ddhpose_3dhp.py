"""DDHPose on MPI-INF-3DHP (Cai et al., AAAI 2024): 243 frames, true keypoints, losses in millimetres."""

from dposer.lifting.config import LiftingConfig, LossConfig, OptimConfig

config = LiftingConfig(
    method="ddhpose",
    variant="compat",
    layout="mpi_inf_3dhp17",
    loss=LossConfig(kind="bones", unit=0.001, length_unit=0.001, squared=True),
    optim=OptimConfig(lr=1e-4, decay=0.993, epochs=400, batch=4),
)
