"""How the windows of a convolution lie, and where they are read: what its helpers get.

Helpers are inlined, and a named tuple costs nothing once it is.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Grid(NamedTuple):
    """Windows of `kernel_h` by `kernel_w` places with `group` channels each; a line of positions
    has `width` of them. The first window begins `top` lines and `left` places before the image."""

    width: int
    kernel_h: int
    kernel_w: int
    group: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    top: int
    left: int


class Image(NamedTuple):
    """A padded image: in `array`, from `at` on, with lines of `wide` places."""

    array: Any
    at: int
    wide: int


class Steps(NamedTuple):
    """Numbers from one line to the next, and from one place to the next."""

    line: int
    place: int
