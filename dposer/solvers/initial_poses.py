"""Where optimisations begin.

Source: released code of DPoser (arXiv 2312.05541), after SMPLify (Bogo et al., ECCV 2016).
"""

MEAN_POSE: tuple[float, ...] = (
    -0.2239, 0.0174, 0.0925,  # left_hip
    -0.2378, -0.0465, -0.0786,  # right_hip
    0.2782, 0.0141, 0.0138,  # spine1
    0.4328, -0.0629, -0.0961,  # left_knee
    0.5043, 0.0035, 0.0610,  # right_knee
    0.0230, -0.0317, 0.0058,  # spine2
    0.0070, 0.1317, -0.0544,  # left_ankle
    -0.0589, -0.1752, 0.1355,  # right_ankle
    0.0134, -0.0037, 0.0089,  # spine3
    -0.2093, 0.1600, 0.1092,  # left_foot
    -0.0387, 0.0824, -0.2041,  # right_foot
    -0.0056, -0.0075, -0.0035,  # neck
    -0.0237, -0.1248, -0.2736,  # left_collar
    -0.0459, 0.1991, 0.2373,  # right_collar
    0.0667, -0.0405, 0.0329,  # head
    0.0536, -0.2914, -0.6969,  # left_shoulder
    0.0559, 0.2858, 0.6525,  # right_shoulder
    0.1222, -0.9116, 0.2383,  # left_elbow
    -0.0366, 0.9237, -0.2554,  # right_elbow
    -0.0657, -0.1045, 0.0501,  # left_wrist
    -0.0388, 0.0909, -0.0707,  # right_wrist
)  # fmt: skip
"""(63,) the mean pose of SMPL's fitting software, axis-angle in radians."""
