"""What both devices and the planner know of convolutions."""

from __future__ import annotations

#: bytes of the windows that are laid out side by side before they are multiplied: they stay in the
#: cache, beside the weights that pass by
WINDOW_BYTES = 96 << 10
#: positions of windows that a sum over them takes at a time, at most
POSITIONS = 512


def windows_at_once(depth: int, positions: int, itemsize: int) -> int:
    """How many windows of `depth` numbers are laid out at a time, of `positions` that there are:
    a multiple of what a tile of any CPU takes."""
    fit = max(WINDOW_BYTES // (depth * itemsize) // 24, 1) * 24
    return max(1, min(fit, positions, POSITIONS))
