"""Pieces of work that are told of at the end: what came of each, what failed, and whether what it was made of has changed since.

    job = ...                                               # a Job, which says what its pieces are and does them
    for piece in crew.share(job.remaining()): job.work(piece, bar)
    crew.wait()
    tell(job.report(), job.columns, output)

A piece is finished if its record (see :mod:`run._shards`) is there, and was made of what is there now: so files that failed can be mended
and the command repeated, and nothing else is done again.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dposer.files import load_npz, save_json
from run._cli import step_bar, table
from run._report import save_csv
from run._shards import Shards

_RECORD = "the record of a finished piece (delete it, and the same command makes it again)"
_ROWS = 20
"""Printed of a table, the rest is in the files."""

Watch = Callable[[float], None]
"""Told the share of a piece that is done."""


@dataclass
class Report:
    """What is told of a piece of work at the end."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """Of ``summary.csv``."""
    failures: dict[str, str] = field(default_factory=dict)
    """Name → why, in one line."""
    notes: list[str] = field(default_factory=list)

    def add(self, other: "Report") -> None:
        self.rows += other.rows
        self.failures |= other.failures
        self.notes += other.notes


class Bar:
    """One progress bar over pieces of different sizes."""

    def __init__(self, unit: str, sizes: Mapping[int, int]):
        self.sizes, self.total = sizes, sum(sizes.values())
        self.update = step_bar(unit)

    def of(self, piece: int) -> Watch:
        before = sum(size for other, size in self.sizes.items() if other < piece)
        return lambda share: self.update(before + round(share * self.sizes[piece]), self.total)


class Job(ABC):
    """Numbered pieces of work."""

    columns: tuple[str, ...]
    unit: str
    shards: Shards

    @abstractmethod
    def stamp(self, piece: int) -> str:
        """Fingerprint of what a piece is made of."""

    @abstractmethod
    def size(self, piece: int) -> int:
        """In units of the progress bar."""

    @abstractmethod
    def compute(self, piece: int, watch: Watch) -> Report:
        """Do a piece and write its files."""

    @property
    def pieces(self) -> range:
        """Those that processes share."""
        return range(self.shards.count)

    def remaining(self) -> list[int]:
        return [piece for piece in self.pieces if not self.finished(piece)]

    def finished(self, piece: int) -> bool:
        path = self.shards.path(piece)
        return path.is_file() and str(load_npz(path, _RECORD, ("stamp",), ())["stamp"]) == self.stamp(piece)

    def work(self, piece: int, bar: Bar | None = None) -> None:
        """Do a piece and keep its record."""
        report = self.compute(piece, bar.of(piece) if bar else lambda share: None)
        self.shards.write(piece, {"stamp": np.array(self.stamp(piece)), "report": np.array(json.dumps(asdict(report)))})

    def bar(self, pieces: Sequence[int]) -> Bar:
        return Bar(self.unit, {piece: self.size(piece) for piece in pieces})

    def report(self) -> Report:
        """What is told of all pieces."""
        total = Report()
        for arrays in self.shards.read():
            total.add(Report(**json.loads(str(arrays["report"]))))
        return total


def tell(report: Report, columns: Sequence[str], output: Path) -> None:
    """Write ``summary.csv`` and ``failures.json``, and print what matters of them."""
    save_csv(output / "summary.csv", report.rows, columns)
    save_json(output / "failures.json", report.failures)
    if report.rows:
        print(table(columns, [["-" if row[name] is None else row[name] for name in columns] for row in report.rows[:_ROWS]]))
        print(_more(report.rows))
    for note in report.notes[:_ROWS]:
        print(note)
    print(f"{_more(report.notes)}written to {output}, figures to summary.csv")
    if report.failures:
        print(f"\n{len(report.failures)} failed (failures.json):\n" + "\n".join(report.failures.values()))


def _more(items: Sequence[Any]) -> str:
    """What is not printed of them."""
    return f"... and {len(items) - _ROWS} more\n" if len(items) > _ROWS else ""


def figures(names: Sequence[str], *values: float) -> dict[str, float | None]:
    """Rounded; None where there is none."""
    return {name: round(float(value), 3) if np.isfinite(value) else None for name, value in zip(names, values, strict=True)}


def fingerprint(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def file_state(path: Path | None) -> tuple[str, int, int] | None:
    """Changes when the file does."""
    if path is None or not path.is_file():
        return None
    status = path.stat()
    return path.name, status.st_mtime_ns, status.st_size
