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
#: positions that it takes at a time where windows are read from the image
PLACES = 256
#: positions, or all that there are, for which there has to be room beside packed gradients
FEW_WINDOWS = 24


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


def weight_room(depth: int, positions: int, outputs: int, itemsize: int, padded: int) -> int:
    """How many rows of `depth` numbers the gradient to the weights takes: windows, and for each of
    up to four workers, who have a part of the elements each, a padded sample (of `padded` numbers),
    packed gradients, and what lies between windows."""
    count = windows_at_once(depth, positions, itemsize)
    each = padded + count * (outputs + 128 // itemsize + 24)
    return count + -(-4 * each // depth)


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


#: bytes of a sample with its padding, up to which a convolution of 3x3 goes by tiles
TILED_BYTES = 256 << 10
#: bytes of tiles and their products that are computed at a time, if the weights take no more
TILES_BYTES = 192 << 10


def tiled(
    x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...], a: Mapping[str, Any],
    itemsize: int, lanes: int,
) -> bool:  # fmt: skip
    """Whether a convolution from x to y with the attributes `a` is computed by tiles: 3x3, with
    whole tiles and vectors, and channels enough for products of 16 matrices to pay."""
    plain = all(a[name] == 1 for name in ("stride_h", "stride_w", "dilation_h", "dilation_w"))
    if not plain or a["groups"] != 1 or w[:2] != (3, 3):
        return False
    channels, outputs = w[2], w[3]
    whole = y[1] % 2 == y[2] % 2 == 0 and channels % lanes == outputs % lanes == 0
    largest = (y[1] + 2) * (y[2] + 2) * max(channels, outputs) * itemsize
    enough = min(channels, outputs) >= 32 and y[1] * y[2] >= 64
    return whole and enough and largest <= TILED_BYTES


def tile_lines(y: tuple[int, ...], channels: int, itemsize: int) -> int:
    """Rows of tiles that are computed at a time: the longer the weights, the more, so that they are
    read from memory less often."""
    outputs = y[3]
    line = 16 * (y[2] // 2) * (channels + outputs) * itemsize
    weights = 16 * channels * outputs * itemsize
    return max(1, min(max(TILES_BYTES, weights + weights // 4) // line, y[1] // 2))


def tile_room(y: tuple[int, ...], channels: int, lines: int, lanes: int) -> int:
    """Numbers of scratch memory: a sample with its padding, tiles, and their products."""
    tiles = 16 * lines * (y[2] // 2) * (channels + y[3])
    return (y[1] + 2) * (y[2] + 2) * channels + lanes + tiles
