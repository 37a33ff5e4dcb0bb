"""Random streams that belong to a thing, not to the order in which things are computed."""

import hashlib
from typing import Any

import torch


def keyed_generator(device: torch.device | str, *key: Any) -> torch.Generator:
    """A generator decided by ``key`` alone: keys that differ anywhere give independent streams."""
    number = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1
    return torch.Generator(device).manual_seed(number)
