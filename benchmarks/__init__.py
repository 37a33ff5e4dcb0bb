"""Measurements against the original's way of doing the same, on the same machine in the same run."""
