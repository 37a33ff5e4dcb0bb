"""The body: joint names and keypoint layouts, rotations, and the body model."""

from dposer.body.model import BodyModel, BodyOutput

__all__ = ["BodyModel", "BodyOutput"]
