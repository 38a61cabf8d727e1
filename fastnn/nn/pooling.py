"""Pooling layers."""

from __future__ import annotations

from typing import Any

from fastnn import ops
from fastnn.errors import OptionError, check_flags, check_numbers
from fastnn.graph.value import Value
from fastnn.nn.module import Module
from fastnn.ops.layout import check_channels, each
from fastnn.public import publish


class _Pool(Module):
    """What layers with windows share: their options, checked, and how they are shown."""

    _rank: int
    #: options with their defaults, in the order in which they are shown
    _usual: dict[str, Any]

    def _keep(self, kernel_size: Any, stride: Any, **options: Any) -> None:
        name = type(self).__name__
        self.kernel_size = each(name, "kernel_size", kernel_size, self._rank)
        given = self.kernel_size if stride is None else stride
        self.stride = each(name, "stride", given, self._rank)
        for option, value in options.items():
            if option in ("padding", "dilation"):
                value = each(name, option, value, self._rank, int(option == "dilation"))
            elif option in ("ceil_mode", "count_include_pad", "return_indices"):
                check_flags(name, **{option: value})
            setattr(self, option, value)
        check_channels(name, options["channels"])
        self._usual = {
            "padding": 0, "dilation": 1, "ceil_mode": False, "count_include_pad": True,
            "divisor_override": None, "return_indices": False, "channels": "first",
        }  # fmt: skip
        self._given = tuple(options)

    def _options(self) -> dict[str, Any]:
        return {"stride": self.stride, **{name: getattr(self, name) for name in self._given}}

    def extra(self) -> str:
        shown = [f"kernel_size={_brief(self.kernel_size)}"]
        if self.stride != self.kernel_size:
            shown.append(f"stride={_brief(self.stride)}")
        for name in self._given:
            value = _brief(getattr(self, name))
            if value != self._usual.get(name):
                shown.append(f"{name}={value!r}")
        return ", ".join(shown)


def _brief(value: Any) -> Any:
    """Equal numbers of all axes as one."""
    return value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value


class MaxPool1d(_Pool):
    """The largest element of each window over time, of each channel.

    Args:
        kernel_size: steps of a window.
        stride: steps from one window to the next; None: `kernel_size`.
        padding: steps added on both sides, which are never the largest.
        dilation: steps from one element of a window to the next.
        return_indices: whether to return as well which step each is, integers of the same shape
            (the first one of equal steps).
        ceil_mode: whether a last window may reach over the end.
        channels: where the channels are, "first" as in PyTorch or "last".

    Shapes: input (N, C, T), output (N, C, steps); with ``channels="last"`` (N, T, C) and
    (N, steps, C). Called with ``lengths``, integers of shape (N,), it returns outputs (and indices)
    and their lengths: what is past a sequence's end is never the largest, and windows past it are 0
    (their indices -1).

    Raises:
        OptionError: options that do not fit.
        ShapeError: an input of another shape, or shorter than the kernel.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.MaxPool1d(2).predict(np.array([[[1, 5, 2, 4]]], np.float32))
    array([[[5., 4.]]], dtype=float32)
    """

    _rank = 1

    def __init__(
        self, kernel_size: int, stride: int | None = None, padding: int = 0, dilation: int = 1,
        return_indices: bool = False, ceil_mode: bool = False, channels: str = "first",
    ):  # fmt: skip
        self._keep(kernel_size, stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode,
                  return_indices=return_indices, channels=channels)  # fmt: skip

    def forward(self, x: Value, lengths: Value | None = None) -> Any:
        return ops.max_pool1d(x, self.kernel_size, **self._options(), lengths=lengths)


class MaxPool2d(_Pool):
    """The largest element of each window of an image, of each channel.

    Args:
        kernel_size, stride, padding, dilation: as of `MaxPool1d`, a number or one for rows and one
            for columns.
        return_indices: as of `MaxPool1d`; an index counts the places of a channel's image row by
            row, ``row*W + column``.
        ceil_mode, channels: as of `MaxPool1d`.

    Shapes: input (N, C, H, W), output (N, C, rows, columns); with ``channels="last"`` (N, H, W, C)
    and (N, rows, columns, C).

    Raises:
        OptionError, ShapeError: as of `MaxPool1d`.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.MaxPool2d(2).predict(np.zeros((2, 6, 28, 28), np.float32)).shape
    (2, 6, 14, 14)
    """

    _rank = 2

    def __init__(
        self, kernel_size: int | tuple[int, int], stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0, dilation: int | tuple[int, int] = 1,
        return_indices: bool = False, ceil_mode: bool = False, channels: str = "first",
    ):  # fmt: skip
        self._keep(kernel_size, stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode,
                  return_indices=return_indices, channels=channels)  # fmt: skip

    def forward(self, x: Value) -> Any:
        return ops.max_pool2d(x, self.kernel_size, **self._options())


class AvgPool1d(_Pool):
    """The average of each window over time, of each channel.

    Args:
        kernel_size, stride, ceil_mode, channels: as of `MaxPool1d`.
        padding: zeros on both sides.
        count_include_pad: whether they count as elements of a window.

    Shapes: as of `MaxPool1d`; called with ``lengths`` what is past a sequence's end is padding.

    Raises:
        OptionError, ShapeError: as of `MaxPool1d`.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.AvgPool1d(2).predict(np.array([[[1, 5, 2, 4]]], np.float32))
    array([[[3., 3.]]], dtype=float32)
    """

    _rank = 1

    def __init__(
        self, kernel_size: int, stride: int | None = None, padding: int = 0,
        ceil_mode: bool = False, count_include_pad: bool = True, channels: str = "first",
    ):  # fmt: skip
        self._keep(kernel_size, stride, padding=padding, ceil_mode=ceil_mode,
                  count_include_pad=count_include_pad, channels=channels)  # fmt: skip

    def forward(self, x: Value, lengths: Value | None = None) -> Any:
        return ops.avg_pool1d(x, self.kernel_size, **self._options(), lengths=lengths)


class AvgPool2d(_Pool):
    """The average of each window of an image, of each channel.

    Args:
        kernel_size, stride, padding: as of `AvgPool1d`, a number or one for rows and one for
            columns.
        ceil_mode, count_include_pad, channels: as of `AvgPool1d`.
        divisor_override: what sums are divided by instead of the number of a window's elements.

    Shapes: as of `MaxPool2d`.

    Raises:
        OptionError, ShapeError: as of `MaxPool1d`.

    >>> nn.AvgPool2d(2).predict(np.ones((1, 3, 4, 6), np.float32)).shape
    (1, 3, 2, 3)
    """

    _rank = 2

    def __init__(
        self, kernel_size: int | tuple[int, int], stride: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
        channels: str = "first",
    ):  # fmt: skip
        self._keep(kernel_size, stride, padding=padding, ceil_mode=ceil_mode,
                  count_include_pad=count_include_pad, divisor_override=divisor_override,
                  channels=channels)  # fmt: skip

    def forward(self, x: Value) -> Value:
        return ops.avg_pool2d(x, self.kernel_size, **self._options())


class _NormPool(_Pool):
    def __init__(
        self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False,
        channels: str = "first",
    ):  # fmt: skip
        check_numbers(type(self).__name__, norm_type=norm_type)
        if not norm_type > 0:
            raise OptionError(
                f"{type(self).__name__}: expected norm_type above 0, got {norm_type!r}"
            )
        self.norm_type = float(norm_type)
        self._keep(kernel_size, stride, ceil_mode=ceil_mode, channels=channels)

    def extra(self) -> str:
        return f"norm_type={self.norm_type:g}, {super().extra()}"


class LPPool1d(_NormPool):
    """The p-norm of each window over time, ``(sum of x^p)^(1/p)``.

    Args:
        norm_type: p.
        kernel_size, stride, ceil_mode, channels: as of `MaxPool1d`.

    Where the sum is not above 0 the result is 0, and so is its gradient (PyTorch's is NaN).

    Shapes: as of `MaxPool1d`; called with ``lengths`` what is past a sequence's end counts as 0.

    Raises:
        OptionError, ShapeError: as of `MaxPool1d`.

    >>> nn.LPPool1d(2, 2).predict(np.array([[[3.0, 4.0, 6.0, 8.0]]], np.float32))
    array([[[ 5., 10.]]], dtype=float32)
    """

    _rank = 1

    def forward(self, x: Value, lengths: Value | None = None) -> Any:
        options = self._options()
        return ops.lp_pool1d(x, self.norm_type, self.kernel_size, **options, lengths=lengths)


class LPPool2d(_NormPool):
    """The p-norm of each window of an image; arguments as of `LPPool1d`, shapes as of
    `MaxPool2d`.

    >>> nn.LPPool2d(2, 2).predict(np.ones((1, 3, 4, 6), np.float32)).shape
    (1, 3, 2, 3)
    """

    _rank = 2

    def forward(self, x: Value) -> Value:
        return ops.lp_pool2d(x, self.norm_type, self.kernel_size, **self._options())


publish(globals(), type)
