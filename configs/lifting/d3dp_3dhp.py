"""D3DP on MPI-INF-3DHP (Shan et al., ICCV 2023): 243 frames, true keypoints, losses in millimetres."""

from dposer.lifting.config import LiftingConfig, LossConfig, OptimConfig

config = LiftingConfig(
    method="d3dp",
    variant="compat",
    layout="mpi_inf_3dhp17",
    loss=LossConfig(kind="position", unit=0.001, squared=True),
    optim=OptimConfig(lr=6e-5, decay=0.993, epochs=400, batch=4),
)
