"""Normaliser of the published DPoser weights: mean and unbiased standard deviation of AMASS, axis-angle in radians.

Source: ``axis_normalize2.pt`` of DPoser's first and second release (arXiv 2312.05541), to six digits. DPoser-X
checkpoints come with their own.
"""

MEAN: tuple[float, ...] = (
    -0.179873, -0.013994, 0.063457,  # left_hip
    -0.227283, -0.016006, -0.046833,  # right_hip
    0.270246, 0.017664, -0.005718,  # spine1
    0.435368, -0.075527, -0.081399,  # left_knee
    0.497393, -0.007230, 0.040978,  # right_knee
    -0.013109, -0.034178, 0.017935,  # spine2
    -0.174014, 0.176906, 0.035474,  # left_ankle
    -0.125955, -0.123419, 0.070221,  # right_ankle
    0.033479, -0.005704, 0.012038,  # spine3
    -0.018249, 0.013526, 0.005857,  # left_foot
    -0.004460, 0.005701, -0.013029,  # right_foot
    0.036653, -0.008017, -0.028133,  # neck
    -0.008748, -0.060510, -0.272636,  # left_collar
    -0.016041, 0.114280, 0.232898,  # right_collar
    -0.021097, -0.008223, 0.040089,  # head
    0.081287, -0.245179, -0.779250,  # left_shoulder
    0.094446, 0.253974, 0.742063,  # right_shoulder
    0.129421, -0.728589, 0.119893,  # left_elbow
    0.061429, 0.807469, -0.178689,  # right_elbow
    -0.153028, -0.146306, 0.124978,  # left_wrist
    -0.127202, 0.109880, -0.083177,  # right_wrist
)  # fmt: skip
"""(63,) mean."""

STD: tuple[float, ...] = (
    0.398824, 0.122557, 0.146414,  # left_hip
    0.410061, 0.104778, 0.137779,  # right_hip
    0.371086, 0.086804, 0.071518,  # spine1
    0.568507, 0.197209, 0.125085,  # left_knee
    0.537981, 0.169146, 0.102231,  # right_knee
    0.123137, 0.055145, 0.059564,  # spine2
    0.202550, 0.109494, 0.113716,  # left_ankle
    0.230878, 0.188323, 0.138063,  # right_ankle
    0.074751, 0.045086, 0.042617,  # spine3
    0.073446, 0.055040, 0.053681,  # left_foot
    0.038235, 0.040681, 0.071126,  # right_foot
    0.172953, 0.158988, 0.095019,  # neck
    0.104697, 0.209199, 0.189786,  # left_collar
    0.094707, 0.202551, 0.211677,  # right_collar
    0.188511, 0.160574, 0.100378,  # head
    0.182778, 0.245200, 0.298416,  # left_shoulder
    0.232317, 0.238514, 0.313049,  # right_shoulder
    0.261717, 0.513501, 0.183471,  # left_elbow
    0.279821, 0.540597, 0.220822,  # right_elbow
    0.324449, 0.138356, 0.268865,  # left_wrist
    0.334595, 0.130832, 0.294543,  # right_wrist
)  # fmt: skip
"""(63,) standard deviation."""
