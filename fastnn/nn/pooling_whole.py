"""Pooling layers that share out all places among their windows, or take all of them as one."""

from __future__ import annotations

from typing import Any

from fastnn import ops
from fastnn.errors import where
from fastnn.graph.value import Value
from fastnn.nn.module import Module
from fastnn.ops.layout import check_channels, check_rank, shares
from fastnn.public import publish


class _Sized(Module):
    _rank: int

    def __init__(self, output_size: Any, channels: str = "first"):
        name = type(self).__name__
        check_channels(name, channels)
        shares(name, output_size, self._rank, (1,) * self._rank)
        self.output_size, self.channels = output_size, channels

    def extra(self) -> str:
        last = "" if self.channels == "first" else f", channels={self.channels!r}"
        return f"output_size={self.output_size}{last}"


class AdaptiveAvgPool1d(_Sized):
    """The averages of `output_size` windows that share out a sequence, as in PyTorch.

    Args:
        output_size: how many windows; window p has the steps from ``floor(p*T / output_size)`` to
            ``ceil((p + 1)*T / output_size)``.
        channels: as of `MaxPool1d`.

    Shapes: input (N, C, T), output (N, C, output_size); with ``channels="last"`` (N, T, C) and (N,
    output_size, C). Called with ``lengths``, integers of shape (N,), windows share out the valid
    steps of each sequence: T is its length. All outputs are valid; they are 0 without steps.

    Raises:
        OptionError, ShapeError: as of `MaxPool1d`.

    >>> nn.AdaptiveAvgPool1d(2).predict(np.array([[[1.0, 2.0, 3.0, 6.0]]], np.float32))
    array([[[1.5, 4.5]]], dtype=float32)
    """

    _rank = 1

    def forward(self, x: Value, lengths: Value | None = None) -> Value:
        return ops.adaptive_avg_pool1d(x, self.output_size, self.channels, lengths)


class AdaptiveAvgPool2d(_Sized):
    """The averages of windows that share out an image, as in PyTorch.

    Args:
        output_size: how many windows for both axes, or for each (None: as many as there are
            places).
        channels: as of `MaxPool1d`.

    Shapes: as of `MaxPool2d`.

    Raises:
        OptionError, ShapeError: as of `MaxPool1d`.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.AdaptiveAvgPool2d((2, None)).predict(np.zeros((1, 6, 7, 5), np.float32)).shape
    (1, 6, 2, 5)
    """

    _rank = 2

    def forward(self, x: Value) -> Value:
        return ops.adaptive_avg_pool2d(x, self.output_size, self.channels)


class _Global(Module):
    _rank: int

    def __init__(self, channels: str = "first"):
        check_channels(type(self).__name__, channels)
        self.channels = channels

    def _check(self, x: Value) -> None:
        label = f"{where(x.graph.scope)}{type(self).__name__}"
        check_rank(x, self._rank, self.channels, label)

    def extra(self) -> str:
        return "" if self.channels == "first" else f"channels={self.channels!r}"


class GlobalAvgPool1d(_Global):
    """The average of each channel over time; called with ``lengths``, integers of shape (N,), that
    of the valid steps.

    Shapes: input (N, C, T), with ``channels="last"`` (N, T, C); output (N, C).
    Raises OptionError for unknown `channels`, ShapeError for other inputs or lengths.

    >>> nn.GlobalAvgPool1d().predict(np.array([[[1.0, 2.0, 6.0]]], np.float32))
    array([[3.]], dtype=float32)
    """

    _rank = 1

    def forward(self, x: Value, lengths: Value | None = None) -> Value:
        self._check(x)
        return ops.global_avg_pool(x, self.channels, lengths)


class GlobalAvgPool2d(_Global):
    """The average of each channel over the image.

    Shapes: input (N, C, H, W), with ``channels="last"`` (N, H, W, C); output (N, C).
    Raises OptionError for unknown `channels`, ShapeError for other inputs.

    >>> nn.GlobalAvgPool2d().predict(np.ones((4, 3, 5, 5), np.float32)).shape
    (4, 3)
    """

    _rank = 2

    def forward(self, x: Value) -> Value:
        self._check(x)
        return ops.global_avg_pool(x, self.channels)


class GlobalMaxPool1d(_Global):
    """The largest element of each channel over time; called with ``lengths``, integers of shape
    (N,), that of the valid steps.

    Shapes: input (N, C, T), with ``channels="last"`` (N, T, C); output (N, C).
    Raises OptionError for unknown `channels`, ShapeError for other inputs or lengths.

    >>> nn.GlobalMaxPool1d().predict(np.array([[[1.0, 2.0, 6.0]]], np.float32))
    array([[6.]], dtype=float32)
    """

    _rank = 1

    def forward(self, x: Value, lengths: Value | None = None) -> Value:
        self._check(x)
        return ops.global_max_pool(x, self.channels, lengths)


class GlobalMaxPool2d(_Global):
    """The largest element of each channel of the image.

    Shapes: input (N, C, H, W), with ``channels="last"`` (N, H, W, C); output (N, C).
    Raises OptionError for unknown `channels`, ShapeError for other inputs.

    >>> nn.GlobalMaxPool2d().predict(np.ones((4, 3, 5, 5), np.float32)).shape
    (4, 3)
    """

    _rank = 2

    def forward(self, x: Value) -> Value:
        self._check(x)
        return ops.global_max_pool(x, self.channels)


publish(globals(), type)
