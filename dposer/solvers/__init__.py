"""Prior + body + measurement → answer."""

from dposer.solvers.completion import (
    COMPLETION_PRESETS,
    CompletionSettings,
    SamplingSettings,
    complete,
    mode_settings,
    sampling_settings,
)

__all__ = ["COMPLETION_PRESETS", "CompletionSettings", "SamplingSettings", "complete", "mode_settings", "sampling_settings"]
