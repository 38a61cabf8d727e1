"""What both devices and the planner know of convolutions."""

from __future__ import annotations

#: bytes of the windows that are laid out side by side before they are multiplied: they stay in the
#: cache, beside the weights that pass by
WINDOW_BYTES = 96 << 10
#: numbers of windows and outputs that are laid out by lines: they stay in the L1 cache
LINE_NUMBERS = 8192
#: positions of windows that a sum over them takes at a time, at most
POSITIONS = 512


def lines_at_once(depth: int, outputs: int, width: int, lines: int, lanes: int) -> int:
    """Of images with one channel: for how many lines of positions an element of the windows is laid
    out at a time, beside the outputs."""
    line = (depth + -(-outputs // lanes) * lanes) * width
    return max(1, min(LINE_NUMBERS // line, lines))


def windows_at_once(depth: int, positions: int, itemsize: int) -> int:
    """How many windows of `depth` numbers are laid out at a time, of `positions` that there are:
    a multiple of what a tile of any CPU takes."""
    fit = max(WINDOW_BYTES // (depth * itemsize) // 24, 1) * 24
    return max(1, min(fit, positions, POSITIONS))
