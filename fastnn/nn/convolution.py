"""Convolutional layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, check_flags, check_whole, where
from fastnn.graph.value import Value
from fastnn.nn import init
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.ops.layout import as_given, check_channels, check_padding, each
from fastnn.public import publish

Init = str | float | Callable[..., Any] | None


class _Convolution(Module):
    """What the four layers share: sizes, parameters, and how they are shown."""

    _rank: int
    _back = False  # whether it is the transpose

    def _build(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any, padding: Any,
        dilation: Any, groups: int, bias: bool, channels: str, weight_init: Init, bias_init: Init,
    ) -> None:  # fmt: skip
        name = type(self).__name__
        check_whole(name, 1, in_channels=in_channels, out_channels=out_channels, groups=groups)
        check_flags(name, bias=bias)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = each(name, "kernel_size", kernel_size, self._rank)
        self.stride = each(name, "stride", stride, self._rank)
        self.dilation = each(name, "dilation", dilation, self._rank)
        self.padding = check_padding(name, padding, self._rank)
        check_channels(name, channels)
        self.channels = channels
        if in_channels % groups or out_channels % groups:
            raise OptionError(
                f"{name}: expected channels that {groups} groups divide, got {in_channels} in and "
                f"{out_channels} out; choose groups that divide both"
            )
        if self._back:
            shape = (in_channels, out_channels // groups, *self.kernel_size)
        else:
            shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = Parameter(
            shape, init.torch_linear if weight_init is None else weight_init, transposed=True
        )
        fill = init.get("torch_bias", fan_in=init.fans(shape)[0])
        self.bias = (
            Parameter((out_channels,), fill if bias_init is None else bias_init) if bias else None
        )

    def _options(self) -> dict[str, Any]:
        return {
            "stride": self.stride, "padding": self.padding, "dilation": self.dilation,
            "groups": self.groups, "channels": self.channels,
        }  # fmt: skip

    def _check(self, x: Value) -> None:
        place = 1 if self.channels == "first" else -1
        if x.ndim == self._rank + 2 and x.shape[place] != self.in_channels:
            shape, channels, remedy = as_given(x, self.channels)
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected {self.in_channels} channels, "
                f"{channels}, got input of shape {shape}; change in_channels, or {remedy}"
            )

    def extra(self) -> str:
        shown = [f"{self.in_channels}, {self.out_channels}"]
        shown.append(f"kernel_size={_brief(self.kernel_size)}")
        usual = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1,
                 "channels": "first"}  # fmt: skip
        given = {name: _brief(getattr(self, name, usual[name])) for name in usual}
        shown += [f"{name}={value!r}" for name, value in given.items() if value != usual[name]]
        if self.bias is None:
            shown.append("bias=False")
        return ", ".join(shown)


def _brief(value: Any) -> Any:
    """Equal numbers of all axes as one."""
    return value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value


class Conv1d(_Convolution):
    """Convolution over time (a cross-correlation, as PyTorch's).

    Args:
        in_channels, out_channels: C and O.
        kernel_size: steps of a window.
        stride: steps from one window to the next.
        padding: zeros on both sides: a number; "same" (as many outputs as inputs / stride, rounded
            up), "valid" (none), or "causal" (all before the first step: an output depends on no
            later input).
        dilation: steps from one input of a window to the next.
        groups: channels are convolved in so many groups, each on its own; `in_channels` of them
            are a depthwise convolution.
        bias: whether to add a bias.
        channels: where the channels of input and output are, "first" as in PyTorch or "last". In
            memory they are last (`docs/convolution.md` says why), and between layers nothing is
            transposed either way.
        weight_init, bias_init: initialisers; None is PyTorch's default, uniform within
            ±1/sqrt(fan_in).

    Attributes:
        weight: shape (O, C / groups, kernel_size).
        bias: shape (O,), or None.

    Shapes: input (N, C, T), output (N, O, steps); with ``channels="last"`` (N, T, C) and
    (N, steps, O). Called with ``lengths``, integers of shape (N,), it returns outputs and their
    lengths: past a sequence's end inputs count as 0, and so do outputs.

    Raises:
        OptionError: options that do not fit.
        ShapeError: an input of another shape, or shorter than the kernel.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Conv1d(3, 8, 5, padding="causal").predict(np.zeros((2, 3, 20), np.float32)).shape
    (2, 8, 20)
    """

    _rank = 1

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1,
        padding: int | str = 0, dilation: int = 1, groups: int = 1, bias: bool = True,
        channels: str = "first", weight_init: Init = None, bias_init: Init = None,
    ):  # fmt: skip
        self._build(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            channels, weight_init, bias_init,
        )  # fmt: skip

    def forward(self, x: Value, lengths: Value | None = None) -> Any:
        self._check(x)
        return ops.conv1d(x, self.weight, self.bias, **self._options(), lengths=lengths)


class Conv2d(_Convolution):
    """Convolution over images (a cross-correlation, as PyTorch's).

    Args:
        in_channels, out_channels: C and O.
        kernel_size, stride, dilation: a number, or one for rows and one for columns.
        padding: likewise, zeros on each side; or "same" or "valid", as of `Conv1d`.
        groups, bias, channels, weight_init, bias_init: as of `Conv1d`.

    Attributes:
        weight: shape (O, C / groups, rows, columns).
        bias: shape (O,), or None.

    Shapes: input (N, C, H, W), output (N, O, rows, columns); with ``channels="last"`` (N, H, W, C)
    and (N, rows, columns, O).

    Raises:
        OptionError, ShapeError: as of `Conv1d`.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.Conv2d(1, 6, 5, padding=2).predict(np.zeros((2, 1, 28, 28), np.float32)).shape
    (2, 6, 28, 28)
    """

    _rank = 2

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True,
        channels: str = "first", weight_init: Init = None, bias_init: Init = None,
    ):  # fmt: skip
        self._build(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            channels, weight_init, bias_init,
        )  # fmt: skip

    def forward(self, x: Value) -> Value:
        self._check(x)
        return ops.conv2d(x, self.weight, self.bias, **self._options())


class _Transposed(_Convolution):
    _back = True

    def _build_back(self, output_padding: Any, *rest: Any) -> None:
        name = type(self).__name__
        if isinstance(rest[4], str):
            raise OptionError(f"{name}: expected padding to be a number, got {rest[4]!r}")
        self._build(*rest)
        self.output_padding = each(name, "output_padding", output_padding, self._rank, 0)


class ConvTranspose1d(_Transposed):
    """The transpose of a convolution over time, which makes sequences longer: each input adds a
    window to the output.

    Args:
        in_channels, out_channels: C and O.
        kernel_size: steps of a window.
        stride: steps from one window to the next in the output.
        padding: steps that are cut off on both sides of the output.
        output_padding: steps that the output has more at its end.
        groups, bias, dilation, channels, weight_init, bias_init: as of `Conv1d`.

    Attributes:
        weight: shape (C, O / groups, kernel_size).
        bias: shape (O,), or None.

    Shapes: input (N, C, T), output (N, O, steps), or with ``channels="last"`` (N, T, C) and
    (N, steps, O); ``steps = (T - 1)*stride - 2*padding + dilation*(kernel_size - 1) +
    output_padding + 1``. Called with ``lengths``, integers of shape (N,), it returns outputs and
    their lengths, which follow from T likewise: past a sequence's end inputs count as 0, and so do
    outputs.

    Raises:
        OptionError, ShapeError: as of `Conv1d`.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.ConvTranspose1d(3, 8, 4, stride=2).predict(np.zeros((2, 3, 20), np.float32)).shape
    (2, 8, 42)
    """

    _rank = 1

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1,
        padding: int = 0, output_padding: int = 0, groups: int = 1, bias: bool = True,
        dilation: int = 1, channels: str = "first", weight_init: Init = None,
        bias_init: Init = None,
    ):  # fmt: skip
        self._build_back(
            output_padding, in_channels, out_channels, kernel_size, stride, padding, dilation,
            groups, bias, channels, weight_init, bias_init,
        )  # fmt: skip

    def forward(self, x: Value, lengths: Value | None = None) -> Any:
        self._check(x)
        options = {**self._options(), "output_padding": self.output_padding}
        return ops.conv_transpose1d(x, self.weight, self.bias, **options, lengths=lengths)


class ConvTranspose2d(_Transposed):
    """The transpose of a convolution over images, which makes them larger.

    Args:
        in_channels, out_channels: C and O.
        kernel_size, stride, padding, output_padding, dilation: as of `ConvTranspose1d`, a number,
            or one for rows and one for columns.
        groups, bias, channels, weight_init, bias_init: as of `Conv1d`.

    Attributes:
        weight: shape (C, O / groups, rows, columns).
        bias: shape (O,), or None.

    Shapes: input (N, C, H, W), output (N, O, rows, columns), or with ``channels="last"`` (N, H, W,
    C) and (N, rows, columns, O).

    Raises:
        OptionError, ShapeError: as of `Conv1d`.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> layer = nn.ConvTranspose2d(8, 1, 4, stride=2, padding=1)
    >>> layer.predict(np.zeros((2, 8, 7, 7), np.float32)).shape
    (2, 1, 14, 14)
    """

    _rank = 2

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] = 0,
        output_padding: int | tuple[int, int] = 0, groups: int = 1, bias: bool = True,
        dilation: int | tuple[int, int] = 1, channels: str = "first", weight_init: Init = None,
        bias_init: Init = None,
    ):  # fmt: skip
        self._build_back(
            output_padding, in_channels, out_channels, kernel_size, stride, padding, dilation,
            groups, bias, channels, weight_init, bias_init,
        )  # fmt: skip

    def forward(self, x: Value) -> Value:
        self._check(x)
        options = {**self._options(), "output_padding": self.output_padding}
        return ops.conv_transpose2d(x, self.weight, self.bias, **options)


publish(globals(), type)
