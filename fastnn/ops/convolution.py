"""Convolution. Three ops, bilinear and each other's gradients: the convolution, its transpose (the
gradient to its input) and the gradient to its weight. All are of two dimensions, channels last."""

from __future__ import annotations

from types import FunctionType
from typing import Any

from fastnn.errors import OptionError, ShapeError, is_whole, where
from fastnn.graph.graph import Graph
from fastnn.graph.leaf import Leaf, stored_axes
from fastnn.graph.node import Node
from fastnn.graph.op import batched_like
from fastnn.graph.value import Value
from fastnn.ops.arithmetic import add
from fastnn.ops.declare import Operand, floats, need, op
from fastnn.ops.layout import as_given, each, extents_of, from_last, sizes, to_last
from fastnn.ops.lengths import checked_lengths, windows_of, within
from fastnn.ops.linear import linear
from fastnn.ops.operands import as_value, float_value, graph_of
from fastnn.ops.shape import reshape, transpose
from fastnn.public import publish

Values = dict[str, Value]


def _placed(node: Node) -> None:
    """A weight belongs to no sample."""


def _shared(node: Node) -> dict[str, int]:
    """The attributes that all three ops have."""
    sized = ("height", "width", "kernel_h", "kernel_w")
    return {name: value for name, value in node.attrs.items() if name not in sized}


def _image(x: Value) -> dict[str, int]:
    return {"height": x.shape[1], "width": x.shape[2]}


def _summed(terms: list[Value]) -> Value:
    return terms[0] if len(terms) == 1 else add(*terms)


# ---------------------------------------------------------------- the convolution


def _derivative(node: Node, d: Values) -> Values:
    x, w, dy, a = need(node, "x"), need(node, "w"), d["y"], _shared(node)
    return {
        "x": _convolution_transposed(dy, w, **a, **_image(x)),
        "w": _convolution_weight(x, dy, **a, kernel_h=w.shape[0], kernel_w=w.shape[1]),
        "bias": reshape(dy, -1, dy.shape[-1]).sum(0),
    }


def _tangent(graph: Graph, node: Node, moved: Values) -> Values:
    x, w, y, a = need(node, "x"), need(node, "w"), node.outputs["y"], node.attrs
    terms = []
    if "x" in moved:
        terms.append(_convolution(moved["x"], w, moved.get("bias"), **a))
    if "w" in moved:
        terms.append(_convolution(x, moved["w"], None if terms else moved.get("bias"), **a))
    if not terms:
        terms.append(add(graph.full(y.shape, 0.0, y.batched), moved["bias"]))
    return {"y": _summed(terms)}


@op(
    placement=batched_like("y"), differentiable=("x", "w", "bias"), derivative=_derivative,
    tangent=_tangent,
)  # fmt: skip
def _convolution(
    x: Value, w: Value, bias: Value | None, stride_h: int = 1, stride_w: int = 1,
    dilation_h: int = 1, dilation_w: int = 1, top: int = 0, left: int = 0, groups: int = 1,
    height: int = 1, width: int = 1,
) -> Value:  # fmt: skip
    """x (N, H, W, C), w (I, J, C / groups, K), bias (K,): y (N, height, width, K)."""
    return floats(x.shape[0], height, width, w.shape[3])


# ---------------------------------------------------------------- its transpose


def _transposed_derivative(node: Node, d: Values) -> Values:
    x, w, dy, a = need(node, "x"), need(node, "w"), d["y"], _shared(node)
    return {
        "x": _convolution(dy, w, None, **a, **_image(x)),
        "w": _convolution_weight(dy, x, **a, kernel_h=w.shape[0], kernel_w=w.shape[1]),
    }


def _transposed_tangent(graph: Graph, node: Node, moved: Values) -> Values:
    x, w, a = need(node, "x"), need(node, "w"), node.attrs
    terms = []
    if "x" in moved:
        terms.append(_convolution_transposed(moved["x"], w, **a))
    if "w" in moved:
        terms.append(_convolution_transposed(x, moved["w"], **a))
    return {"y": _summed(terms)}


@op(
    placement=batched_like("y"), differentiable=("x", "w"), derivative=_transposed_derivative,
    tangent=_transposed_tangent,
)  # fmt: skip
def _convolution_transposed(
    x: Value, w: Value, stride_h: int = 1, stride_w: int = 1, dilation_h: int = 1,
    dilation_w: int = 1, top: int = 0, left: int = 0, groups: int = 1, height: int = 1,
    width: int = 1,
) -> Value:  # fmt: skip
    """x (N, P, Q, K), w (I, J, C / groups, K): y (N, height, width, C), the gradient of the
    convolution with `w` to its input, where x is that to its output."""
    return floats(x.shape[0], height, width, w.shape[2] * groups)


# ---------------------------------------------------------------- the gradient to its weight


def _weight_derivative(node: Node, d: Values) -> Values:
    x, t, dw, a = need(node, "x"), need(node, "t"), d["y"], _shared(node)
    return {
        "x": _convolution_transposed(t, dw, **a, **_image(x)),
        "t": _convolution(x, dw, None, **a, **_image(t)),
    }


def _weight_tangent(graph: Graph, node: Node, moved: Values) -> Values:
    x, t, a = need(node, "x"), need(node, "t"), node.attrs
    terms = []
    if "x" in moved:
        terms.append(_convolution_weight(moved["x"], t, **a))
    if "t" in moved:
        terms.append(_convolution_weight(x, moved["t"], **a))
    return {"y": _summed(terms)}


@op(
    placement=_placed, differentiable=("x", "t"), derivative=_weight_derivative,
    tangent=_weight_tangent,
)  # fmt: skip
def _convolution_weight(
    x: Value, t: Value, stride_h: int = 1, stride_w: int = 1, dilation_h: int = 1,
    dilation_w: int = 1, top: int = 0, left: int = 0, groups: int = 1, kernel_h: int = 1,
    kernel_w: int = 1,
) -> Value:  # fmt: skip
    """x (N, H, W, C), t (N, P, Q, K), the gradient to a convolution's output: y (kernel_h,
    kernel_w, C / groups, K)."""
    return floats(kernel_h, kernel_w, x.shape[3] // groups, t.shape[3])


# ---------------------------------------------------------------- functions


def _weight(graph: Graph, weight: Any, rank: int, name: str) -> Value:
    """A weight as it is multiplied with: (*kernel, in, out)."""
    shown = getattr(weight, "shape", ())
    if len(shown) != rank + 2:
        raise ShapeError(
            f"{where(graph.scope)}{name}: expected a weight of PyTorch's shape, (out, in / groups, "
            f"{', '.join(['kernel'] * rank)}), got {tuple(shown)}"
        )
    value = as_value(graph, weight)
    if isinstance(weight, Leaf) and weight.transposed:
        return value
    return transpose(value, stored_axes(rank + 2))


def _planes(x: Value) -> Value:
    """(N, T, C) as (N, 1, T, C)."""
    return x if x.ndim == 4 else reshape(x, x.shape[0], 1, *x.shape[1:])


def _lines(y: Value, rank: int) -> Value:
    return y if rank == 2 else reshape(y, y.shape[0], *y.shape[2:])


def _named(stride: Any, dilation: Any, before: Any, groups: int) -> dict[str, int]:
    """Numbers along one or two axes as the ops' attributes."""
    both = [(1,) * (2 - len(v)) + tuple(v) for v in (stride, dilation)]
    top, left = (0,) * (2 - len(before)) + tuple(before)
    return {
        "stride_h": both[0][0], "stride_w": both[0][1], "dilation_h": both[1][0],
        "dilation_w": both[1][1], "top": top, "left": left, "groups": groups,
    }  # fmt: skip


def _check_groups(label: str, channels: int, outputs: int, groups: Any) -> None:
    if not is_whole(groups, 1):
        raise OptionError(f"{label}: expected groups to be an integer from 1 on, got {groups!r}")
    if channels % groups or outputs % groups:
        raise OptionError(
            f"{label}: expected channels that {groups} groups divide, got {channels} in and "
            f"{outputs} out; choose groups that divide both"
        )


def _check_bias(label: str, bias: Value | None, outputs: int) -> None:
    if bias is not None and bias.shape != (outputs,):
        raise ShapeError(f"{label}: expected a bias of shape ({outputs},), got {bias.shape}")


def _convolved(
    name: str, rank: int, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
    groups: int, channels: str, lengths: Any = None,
) -> Any:  # fmt: skip
    graph = graph_of(x)
    label = f"{where(graph.scope)}{name}"
    given = float_value(x, name)
    x = to_last(given, rank, channels, label)
    w = _weight(graph, weight, rank, name)
    b = None if bias is None else as_value(graph, bias)
    group, outputs = w.shape[-2:]
    _check_groups(label, x.shape[-1], outputs, groups)
    _check_bias(label, b, outputs)
    if group * groups != x.shape[-1]:
        shape, place, remedy = as_given(given, channels)
        raise ShapeError(
            f"{label}: expected {group * groups} input channels, got {x.shape[-1]} (input of shape "
            f"{shape}, channels {place}); set the channels to {x.shape[-1]}, or {remedy}"
        )
    stride, dilation = each(label, "stride", stride, rank), each(label, "dilation", dilation, rank)
    top, both, out = sizes(label, extents_of(x, label), w.shape[:rank], stride, padding, dilation)
    if lengths is not None:
        lengths = checked_lengths(graph, lengths, x.shape[0], x.shape[1], name)
        x = within(x, lengths)
    if w.size == group * outputs and stride == (1,) * rank and groups == 1 and not any(both):
        y = linear(x, reshape(w, group, outputs), b)
    else:
        image, full = _planes(x), reshape(w, (1,) * (2 - rank) + w.shape)
        a: dict[str, Any] = _named(stride, dilation, top, groups)
        high, wide = (1,) * (2 - rank) + out
        y = _lines(_convolution(image, full, b, **a, height=high, width=wide), rank)
    if lengths is not None:
        ends = windows_of(lengths, dilation[0] * (w.shape[0] - 1) + 1, stride[0], both[0])
        return from_last(within(y, ends), channels), ends
    return from_last(y, channels)


def conv1d(
    x: Operand, weight: Operand, bias: Operand = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1, channels: str = "first", lengths: Any = None,
) -> Any:  # fmt: skip
    """Convolution over time (a cross-correlation, as in PyTorch).

    Args:
        x: shape (N, C, T), or with ``channels="last"`` (N, T, C).
        weight: shape (O, C / groups, kernel), a parameter (one made with ``transposed=True`` lies
            in memory as it is needed) or a value.
        bias: shape (O,), or None.
        stride: steps from one window to the next.
        padding: zeros on both sides, as a number; "same" (as many outputs as inputs / stride,
            rounded up), "valid" (none) or "causal" (all of them before the first step: an output
            depends on no later input).
        dilation: steps from one input of a window to the next.
        groups: channels are convolved in so many groups, each on its own.
        channels: where the channels are, "first" or "last".
        lengths: number of valid steps of each sequence, integers of shape (N,): past the end inputs
            count as 0, whatever is there, and so do outputs.

    Returns:
        Shape (N, O, steps) or (N, steps, O); with `lengths` also how many of them are valid.

    Raises:
        ShapeError, OptionError: sizes or options that do not fit.

    >>> x, weight = np.arange(5.0).reshape(1, 1, 5), np.array([[[1.0, 1.0]]])
    >>> testing.apply(lambda x: ops.conv1d(x, weight), x)
    array([[[1., 3., 5., 7.]]])
    """
    return _convolved(
        "conv1d", 1, x, weight, bias, stride, padding, dilation, groups, channels, lengths
    )


def conv2d(
    x: Operand, weight: Operand, bias: Operand = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1, channels: str = "first",
) -> Value:  # fmt: skip
    """Convolution over images (a cross-correlation, as in PyTorch).

    Args:
        x: shape (N, C, H, W), or with ``channels="last"`` (N, H, W, C).
        weight: shape (O, C / groups, rows, columns), as of `conv1d`.
        bias: shape (O,), or None.
        stride, dilation: a number, or one for rows and one for columns.
        padding: likewise, zeros on each side; or "same" or "valid", as of `conv1d`.
        groups, channels: as of `conv1d`.

    Returns:
        Shape (N, O, rows, columns) or (N, rows, columns, O).

    Raises:
        ShapeError, OptionError: sizes or options that do not fit.

    >>> x, weight = np.ones((1, 1, 3, 4)), np.ones((1, 1, 2, 2))
    >>> testing.apply(lambda x: ops.conv2d(x, weight), x)
    array([[[[4., 4., 4.],
             [4., 4., 4.]]]])
    """
    result: Value = _convolved(
        "conv2d", 2, x, weight, bias, stride, padding, dilation, groups, channels
    )
    return result


publish(globals(), FunctionType)
