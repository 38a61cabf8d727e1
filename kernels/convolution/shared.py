"""What both devices and the planner know of convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: bytes of the windows that are laid out side by side before they are multiplied: they stay in the
#: cache, beside the weights that pass by
WINDOW_BYTES = 96 << 10
#: numbers of windows and outputs that are laid out by lines: they stay in the L1 cache
LINE_NUMBERS = 8192
#: bytes of a sample with its padding, up to which windows are copied from such an image
PADDED_BYTES = 128 << 10
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


def padded_numbers(
    x: tuple[int, ...], y: tuple[int, ...], kernel: tuple[int, int], a: Mapping[str, Any],
    itemsize: int, lanes: int,
) -> int:  # fmt: skip
    """Numbers that a sample with its padding takes, and the vectors behind it and behind windows;
    0 where windows are copied from the sample as it is. `x` and `y` are the shapes of inputs and
    outputs of a convolution with the attributes `a`."""
    high = (y[1] - 1) * a["stride_h"] + (kernel[0] - 1) * a["dilation_h"] + 1
    wide = (y[2] - 1) * a["stride_w"] + (kernel[1] - 1) * a["dilation_w"] + 1
    numbers = high * wide * x[3] + 2 * lanes
    plain = a["groups"] == 1 and (a["dilation_w"] == 1 or x[3] == 1)
    return numbers if plain and numbers * itemsize <= PADDED_BYTES else 0
