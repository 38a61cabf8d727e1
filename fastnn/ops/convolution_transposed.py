"""The transpose of convolutions over time and over images."""

from __future__ import annotations

from types import FunctionType
from typing import Any

from fastnn.errors import OptionError, ShapeError, where
from fastnn.graph.value import Value
from fastnn.ops.arithmetic import add
from fastnn.ops.convolution import (
    _check_bias,
    _check_groups,
    _convolution_transposed,
    _lines,
    _named,
    _planes,
    _weight,
)
from fastnn.ops.declare import Operand
from fastnn.ops.layout import as_given, each, extents_of, from_last, to_last
from fastnn.ops.lengths import checked_lengths, places_of, within
from fastnn.ops.operands import as_value, float_value, graph_of
from fastnn.ops.shape import reshape
from fastnn.public import publish


def _convolved_back(
    name: str, rank: int, x: Any, weight: Any, bias: Any, stride: Any, padding: Any,
    output_padding: Any, groups: int, dilation: Any, channels: str, lengths: Any = None,
) -> Any:  # fmt: skip
    graph = graph_of(x)
    label = f"{where(graph.scope)}{name}"
    given = float_value(x, name)
    x = to_last(given, rank, channels, label)
    w = _weight(graph, weight, rank, name)
    group, inputs = w.shape[-2:]
    _check_groups(label, inputs, group * groups, groups)
    b = None if bias is None else as_value(graph, bias)
    _check_bias(label, b, group * groups)
    if inputs != x.shape[-1]:
        shape, place, remedy = as_given(given, channels)
        raise ShapeError(
            f"{label}: expected {inputs} input channels, got {x.shape[-1]} (input of shape "
            f"{shape}, channels {place}); set the channels to {x.shape[-1]}, or {remedy}"
        )
    stride, dilation = each(label, "stride", stride, rank), each(label, "dilation", dilation, rank)
    before = each(label, "padding", padding, rank, 0)
    more = each(label, "output_padding", output_padding, rank, 0)
    out = []
    for n, k, s, d, p, m in zip(
        extents_of(x, label), w.shape[:rank], stride, dilation, before, more, strict=True
    ):
        if m >= max(s, d):
            raise OptionError(
                f"{label}: expected output_padding below stride or dilation, got {m} at stride {s} "
                f"and dilation {d}"
            )
        out.append((n - 1) * s - 2 * p + d * (k - 1) + m + 1)
    if min(out) < 1:
        raise ShapeError(
            f"{label}: expected outputs, but a kernel {w.shape[:rank]} with padding {before} "
            f"leaves none of {x.shape[1:-1]}; use less padding"
        )
    if lengths is not None:
        lengths = checked_lengths(graph, lengths, x.shape[0], x.shape[1], name)
        x = within(x, lengths)
    high, wide = (1,) * (2 - rank) + tuple(out)
    image, full = _planes(x), reshape(w, (1,) * (2 - rank) + w.shape)
    a: dict[str, Any] = _named(stride, dilation, before, groups)
    y = _lines(_convolution_transposed(image, full, **a, height=high, width=wide), rank)
    y = y if b is None else add(y, b)
    if lengths is None:
        return from_last(y, channels)
    ends = places_of(lengths, float(stride[0]), out[0] - x.shape[1] * stride[0])
    return from_last(within(y, ends), channels), ends


def conv_transpose1d(
    x: Operand, weight: Operand, bias: Operand = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1, channels: str = "first",
    lengths: Any = None,
) -> Any:  # fmt: skip
    """The transpose of a convolution over time: each input adds a window to the output.

    Args:
        x: shape (N, C, T), or with ``channels="last"`` (N, T, C).
        weight: shape (C, O / groups, kernel).
        bias: shape (O,), or None.
        stride: steps from one window to the next in the output.
        padding: steps that are cut off on both sides of the output.
        output_padding: steps that the output has more at its end (of the lengths that a convolution
            with this stride maps to the same one).
        groups, dilation, channels, lengths: as of `conv1d`.

    Returns:
        Shape (N, O, steps) or (N, steps, O), with
        ``(T - 1)*stride - 2*padding + dilation*(kernel - 1) + output_padding + 1`` steps; with
        `lengths` also how many of them are valid, which follows from each length T likewise.

    Raises:
        ShapeError, OptionError: sizes or options that do not fit.

    >>> x, weight = np.array([[[1.0, 2.0]]]), np.array([[[1.0, 10.0]]])
    >>> testing.apply(lambda x: ops.conv_transpose1d(x, weight, stride=2), x)
    array([[[ 1., 10.,  2., 20.]]])
    """
    return _convolved_back(
        "conv_transpose1d", 1, x, weight, bias, stride, padding, output_padding, groups, dilation,
        channels, lengths,
    )  # fmt: skip


def conv_transpose2d(
    x: Operand, weight: Operand, bias: Operand = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1, channels: str = "first",
) -> Value:  # fmt: skip
    """The transpose of a convolution over images; as `conv_transpose1d`, with a number for rows and
    columns each: x (N, C, H, W), weight (C, O / groups, rows, columns).

    >>> x, weight = np.array([[[[1.0, 2.0]]]]), np.ones((1, 1, 2, 2))
    >>> testing.apply(lambda x: ops.conv_transpose2d(x, weight, stride=2), x)
    array([[[[1., 1., 2., 2.],
             [1., 1., 2., 2.]]]])
    """
    result: Value = _convolved_back(
        "conv_transpose2d", 2, x, weight, bias, stride, padding, output_padding, groups, dilation,
        channels,
    )  # fmt: skip
    return result


publish(globals(), FunctionType)
