"""How the windows of a convolution lie, and where they are read: what its helpers get.

Helpers are inlined, and a named tuple costs nothing once it is.
"""

from __future__ import annotations

from typing import Any, NamedTuple, get_type_hints


class Window(NamedTuple):
    """How windows lie: position p begins at ``p*stride - top`` (or `left`), element i of a window
    ``i*dilation`` further."""

    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    top: int
    left: int


SIZES = {"width": int, "kernel_h": int, "kernel_w": int, "group": int}
Grid = NamedTuple("Grid", [*SIZES.items(), *get_type_hints(Window).items()])
Grid.__doc__ = """Windows of `kernel_h` by `kernel_w` places with `group` channels each, which lie
as a `Window` says; a line of positions has `width` of them. The first window begins `top` lines
and `left` places before the image."""


class Image(NamedTuple):
    """A padded image: in `array`, from `at` on, with lines of `wide` places."""

    array: Any
    at: int
    wide: int


class Steps(NamedTuple):
    """Numbers from one line to the next, and from one place to the next."""

    line: int
    place: int
