"""Pooling: maxima, averages and norms of windows."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import numpy as np

from fastnn.errors import OptionError, check_flags, check_numbers, is_whole, where
from fastnn.graph.graph import Graph
from fastnn.graph.node import Node
from fastnn.graph.op import lookup
from fastnn.graph.value import Value
from fastnn.ops.activation import relu
from fastnn.ops.arithmetic import divide, maximum, multiply, power
from fastnn.ops.arithmetic import where as chosen
from fastnn.ops.comparison import greater
from fastnn.ops.declare import Operand, floats, need, op, output
from fastnn.ops.layout import each, extents_of, from_last, sizes, to_last
from fastnn.ops.lengths import checked_lengths, valid_steps, windows_of, within
from fastnn.ops.operands import float_value, graph_of
from fastnn.ops.shape import reshape
from fastnn.public import publish

Values = dict[str, Value]


# ---------------------------------------------------------------- ops


def _max_gradient(graph: Graph, node: Node, douts: Values, needed: set[str]) -> Values:
    x, y = need(node, "x"), node.outputs["y"]
    return {"x": graph.apply("max_pool_spread", x=x, best=y, t=douts["y"], **node.attrs)}


def _max_tangent(graph: Graph, node: Node, moved: Values) -> Values:
    x, y = need(node, "x"), node.outputs["y"]
    return {"y": graph.apply("max_pool_pick", x=x, best=y, t=moved["x"], **node.attrs)}


@op(gradient=_max_gradient, tangent=_max_tangent)
def _max_pool(
    x: Value, kernel_h: int = 1, kernel_w: int = 1, stride_h: int = 1, stride_w: int = 1,
    dilation_h: int = 1, dilation_w: int = 1, top: int = 0, left: int = 0, height: int = 1,
    width: int = 1,
) -> Value:  # fmt: skip
    """x (N, H, W, C): the largest element of each window, (N, height, width, C)."""
    return floats(x.shape[0], height, width, x.shape[3])


def _spread_gradient(graph: Graph, node: Node, douts: Values, needed: set[str]) -> Values:
    x, best = need(node, "x"), need(node, "best")
    return {"t": graph.apply("max_pool_pick", x=x, best=best, t=douts["y"], **node.attrs)}


@op(
    forward="max_pool_backward", gradient=_spread_gradient, constant=("x", "best"), linear=("t",),
    placement=lambda node: _as(node, "x"),
)  # fmt: skip
def _max_pool_spread(
    x: Value, best: Value, t: Value, kernel_h: int = 1, kernel_w: int = 1, stride_h: int = 1,
    stride_w: int = 1, dilation_h: int = 1, dilation_w: int = 1, top: int = 0, left: int = 0,
    height: int = 1, width: int = 1,
) -> Value:  # fmt: skip
    """`t` of each window where x has its first largest element, `best`; else 0."""
    return floats(*x.shape)


def _pick_gradient(graph: Graph, node: Node, douts: Values, needed: set[str]) -> Values:
    x, best = need(node, "x"), need(node, "best")
    return {"t": graph.apply("max_pool_spread", x=x, best=best, t=douts["y"], **node.attrs)}


@op(
    forward="max_pool_pick", gradient=_pick_gradient, constant=("x", "best"), linear=("t",),
    placement=lambda node: _as(node, "x"),
)  # fmt: skip
def _max_pool_pick(
    x: Value, best: Value, t: Value, kernel_h: int = 1, kernel_w: int = 1, stride_h: int = 1,
    stride_w: int = 1, dilation_h: int = 1, dilation_w: int = 1, top: int = 0, left: int = 0,
    height: int = 1, width: int = 1,
) -> Value:  # fmt: skip
    """What `t` has where x has the first largest element of a window, `best`."""
    return floats(*best.shape)


@op(forward="max_pool_places", constant=("x", "best"), placement=lambda node: _as(node, "x"))
def _max_pool_places(
    x: Value, best: Value, kernel_h: int = 1, kernel_w: int = 1, stride_h: int = 1,
    stride_w: int = 1, dilation_h: int = 1, dilation_w: int = 1, top: int = 0, left: int = 0,
    height: int = 1, width: int = 1,
) -> Value:  # fmt: skip
    """Where in its image, counted row by row, x has the first largest element of a window, `best`:
    integers."""
    return output(best.shape, "i")


def _as(node: Node, name: str) -> None:
    node.outputs["y"].batched = need(node, name).batched


@op(linear=("x",))
def _avg_pool(
    x: Value, kernel_h: int = 1, kernel_w: int = 1, stride_h: int = 1, stride_w: int = 1,
    top: int = 0, left: int = 0, adaptive: int = 0, padding_counts: int = 1, divisor: int = 0,
    height: int = 1, width: int = 1,
) -> Value:  # fmt: skip
    """x (N, H, W, C): the average of each window, (N, height, width, C)."""
    return floats(x.shape[0], height, width, x.shape[3])


# ---------------------------------------------------------------- windows


class _Windows:
    """The windows of an input with channels last, as (N, H, W, C)."""

    def __init__(
        self, name: str, rank: int, x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any,
        ceil_mode: bool, channels: str,
    ):  # fmt: skip
        graph = graph_of(x)
        self.label, self.rank, self.channels = f"{where(graph.scope)}{name}", rank, channels
        self.name = name
        x = to_last(float_value(x, name), rank, channels, self.label)
        self.kernel = each(self.label, "kernel_size", kernel, rank)
        stride = self.kernel if stride is None else stride
        self.stride = each(self.label, "stride", stride, rank)
        self.dilation = each(self.label, "dilation", dilation, rank)
        before = each(self.label, "padding", padding, rank, 0)
        for p, k, d in zip(before, self.kernel, self.dilation, strict=True):
            if 2 * p > d * (k - 1) + 1:
                raise OptionError(
                    f"{self.label}: expected padding of at most half the kernel, got {p} for a "
                    f"kernel of {k}; use less padding"
                )
        self.before, self.both, self.out = sizes(
            self.label, extents_of(x, self.label), self.kernel, self.stride, before, self.dilation,
            ceil_mode=ceil_mode, pools=True,
        )  # fmt: skip
        self.x = x

    @property
    def image(self) -> Value:
        return self.x if self.rank == 2 else reshape(self.x, self.x.shape[0], 1, *self.x.shape[1:])

    def attributes(self, dilated: bool) -> dict[str, Any]:
        def two(numbers: tuple[int, ...], other: int) -> tuple[int, ...]:
            return (other,) * (2 - self.rank) + tuple(numbers)

        named = {"kernel": (self.kernel, 1), "stride": (self.stride, 1)}
        if dilated:
            named["dilation"] = (self.dilation, 1)
        found = {
            f"{name}_{axis}": n
            for name, (numbers, other) in named.items()
            for axis, n in zip("hw", two(numbers, other), strict=True)
        }
        found["top"], found["left"] = two(self.before, 0)
        found["height"], found["width"] = two(self.out, 1)
        return found

    def result(self, y: Value) -> Value:
        """The pooled image, with its axes and channels where they are wanted."""
        return from_last(self.lines(y), self.channels)

    def lines(self, y: Value) -> Value:
        return y if self.rank == 2 else reshape(y, y.shape[0], *y.shape[2:])

    def checked(self, lengths: Any) -> Any:
        return checked_lengths(self.x.graph, lengths, self.x.shape[0], self.x.shape[1], self.name)

    def ends(self, lengths: Value) -> Value:
        span = self.dilation[0] * (self.kernel[0] - 1) + 1
        return windows_of(lengths, span, self.stride[0], self.both[0])


def _rectified(found: _Windows) -> Node | None:
    """The ReLU whose result is pooled, if maxima are fewer: the maximum of what it gives is what it
    gives of the maximum, and so are the gradients."""
    node = found.x.node if any(step > 1 for step in found.stride) else None
    return node if node is not None and node.of is None and node.op is lookup("relu") else None


def _max(found: _Windows, lengths: Any, return_indices: bool) -> Any:
    check_flags(found.label, return_indices=return_indices)
    if return_indices:
        if lengths is not None:
            raise OptionError(
                f"{found.label}: expected return_indices=False with lengths, got True; leave out "
                "one of them"
            )
        image, options = found.image, found.attributes(True)
        y = _max_pool(image, **options)
        return found.result(y), found.result(_max_pool_places(image, y, **options))
    if lengths is None:
        rectified, x = _rectified(found), found.x
        if rectified is None:
            return found.result(_max_pool(found.image, **found.attributes(True)))
        found.x = need(rectified, "x")
        y = _max_pool(found.image, **found.attributes(True))
        x.graph.passed.add(x)
        with x.graph.inside_scope(rectified.scope):
            return found.result(relu(y))
    lengths = found.checked(lengths)
    found.x = within(found.x, lengths, -np.inf)
    y = _max_pool(found.image, **found.attributes(True))
    ends = found.ends(lengths)
    return from_last(within(found.lines(y), ends), found.channels), ends


def max_pool1d(
    x: Operand, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, channels: str = "first", lengths: Any = None,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """The largest element of each window over time, of each channel.

    Args:
        x: shape (N, C, T), or with ``channels="last"`` (N, T, C).
        kernel_size: steps of a window.
        stride: steps from one window to the next; None: `kernel_size`.
        padding: steps added on both sides, which are never the largest.
        dilation: steps from one element of a window to the next.
        ceil_mode: whether a last window may reach over the end.
        channels: where the channels are, "first" or "last".
        lengths: number of valid steps of each sequence, integers of shape (N,): what is past the
            end is never the largest, and windows past it are 0.
        return_indices: whether to return as well which step each is, integers of the same shape:
            the first one of equal steps.

    Returns:
        Shape (N, C, steps) or (N, steps, C); with `lengths` also how many of them are valid.

    Raises:
        ShapeError, OptionError: sizes or options that do not fit.

    >>> testing.apply(lambda x: ops.max_pool1d(x, 2), [[[1.0, 3.0, 2.0, 0.0]]])
    array([[[3., 2.]]])
    """
    found = _Windows(
        "max_pool1d", 1, x, kernel_size, stride, padding, dilation, ceil_mode, channels
    )
    _no_ceil(found.label, ceil_mode, lengths)
    return _max(found, lengths, return_indices)


def max_pool2d(
    x: Operand, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, channels: str = "first", return_indices: bool = False,
) -> Any:  # fmt: skip
    """The largest element of each window of an image; as `max_pool1d`, with one number for both
    axes or one each: x (N, C, H, W), or with ``channels="last"`` (N, H, W, C). Indices count the
    places of a channel's image row by row, as PyTorch's: ``row*W + column``.

    >>> testing.apply(lambda x: ops.max_pool2d(x, 2), np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[ 5.,  7.],
             [13., 15.]]]])
    """
    found = _Windows(
        "max_pool2d", 2, x, kernel_size, stride, padding, dilation, ceil_mode, channels
    )
    return _max(found, None, return_indices)


def _no_ceil(label: str, ceil_mode: bool, lengths: Any) -> None:
    if ceil_mode and lengths is not None:
        raise OptionError(
            f"{label}: expected ceil_mode=False with lengths, got True: a window over a sequence's "
            "end would depend on its padding; use padding"
        )


def _average(found: _Windows, padding_counts: bool, divisor: int | None, lengths: Any) -> Any:
    if divisor is not None and (not is_whole(divisor, 1)):
        raise OptionError(
            f"{found.label}: expected divisor_override to be an integer from 1 on or None, got "
            f"{divisor!r}"
        )
    options = {"padding_counts": int(padding_counts), "divisor": divisor or 0}
    a = found.attributes(False)
    if lengths is None:
        return found.result(_avg_pool(found.image, **a, **options))
    lengths = found.checked(lengths)
    found.x = within(found.x, lengths)
    if not padding_counts:
        options["divisor"] = 1
    y = found.lines(_avg_pool(found.image, **a, **options))
    if not padding_counts:
        mask = valid_steps(lengths, found.x.shape[1])
        count = _avg_pool(reshape(mask, mask.shape[0], 1, mask.shape[1], 1), **a, **options)
        y = divide(y, maximum(found.lines(count), 1.0))
    ends = found.ends(lengths)
    return from_last(within(y, ends), found.channels), ends


def avg_pool1d(
    x: Operand, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, channels: str = "first", lengths: Any = None,
) -> Any:  # fmt: skip
    """The average of each window over time, of each channel.

    Args:
        x, kernel_size, stride, ceil_mode, channels: as of `max_pool1d`.
        padding: zeros on both sides.
        count_include_pad: whether they count as elements of a window.
        lengths: number of valid steps of each sequence, integers of shape (N,): what is past the
            end is padding, and windows past it are 0.

    Returns:
        Shape (N, C, steps) or (N, steps, C); with `lengths` also how many of them are valid.

    Raises:
        ShapeError, OptionError: sizes or options that do not fit.

    >>> testing.apply(lambda x: ops.avg_pool1d(x, 2), [[[1.0, 3.0, 2.0, 0.0]]])
    array([[[2., 1.]]])
    """
    found = _Windows("avg_pool1d", 1, x, kernel_size, stride, padding, 1, ceil_mode, channels)
    _no_ceil(found.label, ceil_mode, lengths)
    return _average(found, count_include_pad, None, lengths)


def avg_pool2d(
    x: Operand, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None, channels: str = "first",
) -> Value:  # fmt: skip
    """The average of each window of an image; as `avg_pool1d`, with one number for both axes or one
    each: x (N, C, H, W), or with ``channels="last"`` (N, H, W, C). `divisor_override` is what sums
    are divided by instead of the number of a window's elements.

    Raises OptionError for a `divisor_override` below 1; ShapeError for an input without four axes,
    or smaller than a window.

    >>> testing.apply(lambda x: ops.avg_pool2d(x, 2), np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[ 2.5,  4.5],
             [10.5, 12.5]]]])
    """
    found = _Windows("avg_pool2d", 2, x, kernel_size, stride, padding, 1, ceil_mode, channels)
    result: Value = _average(found, count_include_pad, divisor_override, None)
    return result


def _norm(found: _Windows, norm_type: float, lengths: Any = None) -> Any:
    check_numbers(found.label, norm_type=norm_type)
    if not norm_type > 0:
        raise OptionError(f"{found.label}: expected norm_type above 0, got {norm_type!r}")
    if lengths is None:
        found.x = power(found.x, float(norm_type))
    else:  # a power has a slope at 1, whatever the exponent
        lengths = found.checked(lengths)
        found.x = within(power(within(found.x, lengths, 1.0), float(norm_type)), lengths)
    mean = _avg_pool(found.image, **found.attributes(False))
    total = multiply(mean, float(np.prod(found.kernel)))
    some = greater(total, 0.0)  # where the sum is 0 the root has no slope
    y = multiply(power(chosen(some, total, 1.0), 1.0 / norm_type), some)
    if lengths is None:
        return found.result(y)
    ends = found.ends(lengths)
    return from_last(within(found.lines(y), ends), found.channels), ends


def lp_pool1d(
    x: Operand, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False,
    channels: str = "first", lengths: Any = None,
) -> Any:  # fmt: skip
    """The p-norm of each window over time, (sum of x^p)^(1/p) with ``p = norm_type``; the rest as
    of `max_pool1d`. (A window over the end counts as if it were whole.) Where the sum is not above
    0 the result is 0, and so is its gradient (PyTorch's is NaN).

    Raises OptionError for a `norm_type` that is not above 0; the rest as `max_pool1d`.

    >>> testing.apply(lambda x: ops.lp_pool1d(x, 2, 2), [[[3.0, 4.0, 6.0, 8.0]]])
    array([[[ 5., 10.]]])
    """
    found = _Windows("lp_pool1d", 1, x, kernel_size, stride, 0, 1, ceil_mode, channels)
    _no_ceil(found.label, ceil_mode, lengths)
    return _norm(found, norm_type, lengths)


def lp_pool2d(
    x: Operand, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False,
    channels: str = "first",
) -> Value:  # fmt: skip
    """The p-norm of each window of an image; arguments as `lp_pool1d`, sizes as `max_pool2d`.

    Raises OptionError for a `norm_type` that is not above 0; the rest as `max_pool2d`.

    >>> testing.apply(lambda x: ops.lp_pool2d(x, 2, (1, 2)), [[[[3.0, 4.0, 6.0, 8.0]]]])
    array([[[[ 5., 10.]]]])
    """
    args = 2, x, kernel_size, stride, 0, 1, ceil_mode, channels
    result: Value = _norm(_Windows("lp_pool2d", *args), norm_type)
    return result


publish(globals(), FunctionType)
