"""2D keypoints of a clip → several hypotheses of its 3D poses."""

from dposer.lifting.lifter import Lifted, Lifter

__all__ = ["Lifted", "Lifter"]
