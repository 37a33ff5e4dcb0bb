"""Timing, and tables of it."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from run._report import markdown


def seconds(function: Callable[[], Any], repeats: int = 5, warm_up: int = 1) -> float:
    """Median wall-clock time of a call."""
    for _ in range(warm_up):
        function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def milliseconds(value: float) -> str:
    """A duration as text."""
    return f"{1000 * value:.2f} ms" if value < 1 else f"{value:.2f} s"


def compared(rows: Sequence[tuple[str, float, float]], ours: str = "ours", theirs: str = "the original's way") -> str:
    """A table of (what, seconds ours, seconds theirs) with the ratio."""
    body = [[what, milliseconds(mine), milliseconds(other), f"{other / mine:.1f}×"] for what, mine, other in rows]
    return markdown(["what", ours, theirs, "ratio"], body)
