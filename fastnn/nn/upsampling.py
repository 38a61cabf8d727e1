"""The up-sampling layer."""

from __future__ import annotations

from typing import Any

from fastnn import ops
from fastnn.errors import OptionError, check_flags
from fastnn.graph.value import Value
from fastnn.nn.module import Module
from fastnn.ops.layout import check_channels, check_scales, each
from fastnn.public import publish


class Upsample(Module):
    """Enlarges sequences or images, as PyTorch's.

    Args:
        size: places of the result, one number or one for each axis; or
        scale_factor: how often the input's, rounded down.
        mode: "nearest", or "linear" (for images also called "bilinear").
        align_corners: for "linear": whether the first and last places of input and output are the
            same; otherwise (None too, as in PyTorch) their outer edges are.
        channels: as of `MaxPool1d`.

    Shapes: input (N, C, T) or (N, C, H, W), or with ``channels="last"`` (N, T, C) or (N, H, W, C);
    output likewise. Called with ``lengths`` of sequences, integers of shape (N,), it returns
    outputs and their lengths: each sequence is enlarged by itself, as if it were alone, and past
    its end outputs are 0.

    Raises:
        OptionError: options that do not fit.
        ShapeError: an input of another shape.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Upsample(scale_factor=2).predict(np.array([[[1, 2]]], np.float32))
    array([[[1., 1., 2., 2.]]], dtype=float32)
    """

    def __init__(
        self, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
        align_corners: bool | None = None, channels: str = "first",
    ):  # fmt: skip
        check_channels("Upsample", channels)
        check_flags("Upsample", align_corners=align_corners is not None and align_corners)
        if mode not in ("nearest", "linear", "bilinear"):
            raise OptionError(
                f"Upsample: expected mode 'nearest', 'linear' or 'bilinear', got {mode!r}"
            )
        if (size is None) == (scale_factor is None):
            raise OptionError("Upsample: expected either size or scale_factor; give one of the two")
        given = scale_factor if size is None else size  # of how many axes, the input says
        rank = len(given) if isinstance(given, (tuple, list)) else 1
        if size is None:
            check_scales("Upsample", scale_factor, rank)
        else:
            each("Upsample", "size", size, rank)
        self.size, self.scale_factor, self.mode = size, scale_factor, mode
        self.align_corners, self.channels = bool(align_corners), channels

    def forward(self, x: Value, lengths: Value | None = None) -> Any:
        return ops.upsample(
            x, self.size, self.scale_factor, self.mode, self.align_corners, self.channels, lengths
        )

    def extra(self) -> str:
        given = {"size": self.size, "scale_factor": self.scale_factor}
        return ", ".join(
            [f"{n}={v}" for n, v in given.items() if v is not None] + [f"mode={self.mode!r}"]
        )


publish(globals(), type)
