"""Scores that are made in parts, kept as files, and put together again."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch


class Stored:
    """Of a dataclass whose fields are all tensors of one length."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything as arrays, for :meth:`from_arrays`."""
        return {name: values.cpu().numpy() for name, values in vars(self).items()}

    @classmethod
    def from_arrays(cls, parts: Sequence[Mapping[str, np.ndarray]]) -> Self:
        """The scores of all the parts that :meth:`arrays` gave, in their order."""
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        return cls(**{name: torch.from_numpy(np.concatenate([part[name] for part in parts])) for name in names})
