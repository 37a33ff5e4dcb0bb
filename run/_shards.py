"""Work in numbered pieces: shared between processes, kept as files, never done twice.

    with processes() as crew:                                # torchrun --nproc-per-node 2 -m run.something ...
        shards = Shards(folder, count=240, settings={...})
        crew.leader_first(shards.open)                       # other settings than the folder was begun with: InputError
        for i in crew.share(shards.remaining()): shards.write(i, compute(i))
        crew.wait()                                          # now every piece is there: shards.read()

A piece is whole or absent, so that a run may be stopped at any moment and is continued by the same command. Whatever is random
in a piece should come from :func:`~dposer.randomness.keyed_generator` with a key of that piece: then no number depends on who did it, or
when.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from dposer.errors import InputError
from dposer.files import load_npz, save_json, save_npz
from dposer.prior.pose_prior import Progress
from run._cli import pick_device

T = TypeVar("T")

_PATIENCE = timedelta(days=30)
"""How long a process waits for the others, whose share may take that much longer."""


@dataclass(frozen=True)
class Crew:
    """The processes of a run, seen from one of them."""

    rank: int = 0
    size: int = 1

    @property
    def is_leader(self) -> bool:
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """``auto`` or a device by name, see :func:`pick_device`; processes spread over the GPUs of a machine."""
        device = pick_device(name)
        if device.type == "cuda" and device.index is None and self.size > 1:
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", self.rank)) % torch.cuda.device_count())
        return device

    def leader_first(self, function: Callable[[], T]) -> T:
        """Call ``function`` in the leader, then in the others; if the leader finds an error it is told once, and all end with code 2."""
        if self.size == 1:
            return function()
        if not self.is_leader:
            if not self._told(None):
                raise SystemExit(2)
            return function()
        try:
            result = function()
        except BaseException:
            self._told(False)
            raise
        self._told(True)
        return result

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """The contiguous run of the leader's ``items`` that is this process's to do."""
        return contiguous(self._told(items), self.rank, self.size)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            with _companions():
                dist.barrier()

    def _told(self, value: Any) -> Any:
        """The leader's value."""
        if self.size == 1:
            return value
        box = [value]
        with _companions():
            dist.broadcast_object_list(box)
        return box[0]


def contiguous(items: Sequence[T], rank: int, size: int) -> Sequence[T]:
    """The ``rank``-th of ``size`` runs of ``items``, which differ in length by one at most."""
    return items[len(items) * rank // size : len(items) * (rank + 1) // size]


@contextlib.contextmanager
def processes() -> Iterator[Crew]:
    """Join the other processes (gloo) if torchrun started this one; alone otherwise."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield Crew()
        return
    dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Crew(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _companions() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise InputError("another process of this run ended early, its message is above; give the same command again") from error


@dataclass(frozen=True)
class Shards:
    """``count`` numbered pieces ``<folder>/batch_000123.npz``, and the settings they all belong to in ``<folder>/settings.json``."""

    folder: Path
    count: int
    settings: Mapping[str, Any]

    def open(self) -> None:
        """Note the settings, or check those that the folder was begun with.

        Raises:
            InputError: they differ, or there are pieces that nobody knows the settings of.
        """
        file = self.folder / "settings.json"
        settings = json.loads(json.dumps(self.settings, default=str))
        if not file.is_file():
            if any(self.folder.glob("batch_*.npz")):
                raise InputError(
                    f"{self.folder}: holds results but no settings.json to tell whose; give another output folder or delete it"
                )
            save_json(file, settings)
            return
        begun = _read_json(file)
        for key in [*settings, *begun]:
            if (old := begun.get(key)) != (new := settings.get(key)):
                raise InputError(
                    f"{self.folder}: was begun with {key} {_short(old)}, found {_short(new)}; "
                    "give the same settings, or another output folder"
                )

    def path(self, index: int) -> Path:
        return self.folder / f"batch_{index:06d}.npz"

    def remaining(self) -> list[int]:
        """The pieces that are not there yet."""
        return [index for index in range(self.count) if not self.path(index).is_file()]

    def write(self, index: int, arrays: Mapping[str, Any]) -> None:
        """Keep a piece, whole or not at all."""
        save_npz(self.path(index), arrays)

    def read(self) -> list[dict[str, np.ndarray]]:
        """All pieces in order.

        Raises:
            InputError: one is absent or damaged, and is named; deleted, it is done again.
        """
        return [
            load_npz(self.path(index), "a finished batch (delete it, and the same command makes it again)") for index in range(self.count)
        ]


class Study(Protocol):
    """Work in pieces, each of them computed by itself."""

    shards: Shards

    def watch(self, batches: Sequence[int]) -> Callable[[int], Progress]:
        """A progress bar over these pieces: a piece → its own progress."""
        ...

    def compute(self, batch: int, progress: Progress | None = None) -> Mapping[str, Any]:
        """What is kept of a piece."""
        ...


def work_through(crew: Crew, study: Study) -> None:
    """Do what is not done yet, this process its share; ends when every piece is there."""
    crew.leader_first(study.shards.open)
    batches = crew.share(study.shards.remaining())
    watch = study.watch(batches) if crew.is_leader and batches else None
    for batch in batches:
        study.shards.write(batch, study.compute(batch, watch(batch) if watch else None))
    crew.wait()


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{file}: not readable as JSON ({error}); delete {file.parent} and begin again") from error
    if not isinstance(value, dict):
        raise InputError(f"{file}: found a {type(value).__name__}, expected settings by name; delete {file.parent} and begin again")
    return value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:200] + "..."


def digest(tensors: Iterable[Tensor]) -> str:
    """A short fingerprint of the values, types and shapes of tensors."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]
