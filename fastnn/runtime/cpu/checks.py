"""A mode for finding faults: `FASTNN_CHECK=1` has kernels compiled with checks of their indices."""

from __future__ import annotations

from fastnn import switches


def checked() -> bool:
    """Whether the mode is on."""
    return switches.on("FASTNN_CHECK")
