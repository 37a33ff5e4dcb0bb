"""Prior + body + measurement → answer."""

from dposer.solvers.completion import CompletionSettings, complete

__all__ = ["CompletionSettings", "complete"]
