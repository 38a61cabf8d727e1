"""A thread for each element of an image, whose dimensions are (N, H, W, C); and one for each sum
over all samples and positions."""

from __future__ import annotations

from ..cuda.device import cast, cuda
from ..declare import ceil_div, helper
from ..simd import fma
from .grid import Window

#: threads that share the samples of a weight's gradient
PARTS = 8


def elements(letters: str):
    """The launch with a thread for each element of an array with these dimensions."""

    def launch(s):
        count = 1
        for letter in letters:
            count *= s[letter]
        return ceil_div(count, 128), 128

    return launch


@helper
def place_of(at, H, W, C):
    """n, h, w, c of element number `at`."""
    place = at // C
    line = place // W
    return line // H, line % H, place - line * W, at - place * C


def weights_launch(outputs: str):
    """Blocks of 32 channels of an element of the window, times `PARTS`. (Only a grid's first
    dimension has room for the elements of any window.)"""

    def launch(s):
        return (s["D"], ceil_div(s[outputs], 32)), (32, PARTS)

    return launch


@helper
def sum_of_samples(x, dy, channel, k, i, j, part, window: Window):
    """The sum of x*dy over the positions of every eighth sample from `part` on, for element (i, j)
    of the window: of a sample, then of the samples."""
    stride_h, stride_w, dilation_h, dilation_w, top, left = window
    total = cast(dy, 0)
    for n in range(part, x.shape[0], PARTS):
        sample = cast(dy, 0)
        for p in range(dy.shape[1]):
            h = p * stride_h + i * dilation_h - top
            if h < 0 or h >= x.shape[1]:
                continue
            for q in range(dy.shape[2]):
                w = q * stride_w + j * dilation_w - left
                if w >= 0 and w < x.shape[2]:
                    sample = fma(x[n, h, w, channel], dy[n, p, q, k], sample)
        total += sample
    return total


@helper
def add_parts(sums, total, lane, part):
    """The sum of a block's parts, in their order; for the threads of part 0."""
    sums[part, lane] = total
    cuda.syncthreads()
    if part == 0:
        for other in range(1, PARTS):
            total += sums[other, lane]
    return total
