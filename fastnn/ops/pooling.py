"""Pooling: maxima, averages and norms of windows."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import numpy as np

from fastnn.errors import OptionError, ShapeError, check_flags, check_numbers, is_whole
from fastnn.graph.node import Node
from fastnn.graph.op import lookup
from fastnn.graph.value import Value
from fastnn.ops.activation import relu
from fastnn.ops.arithmetic import astype, divide, maximum, multiply, power
from fastnn.ops.arithmetic import where as chosen
from fastnn.ops.beam import _ids
from fastnn.ops.comparison import greater
from fastnn.ops.declare import Operand, need
from fastnn.ops.layout import from_last
from fastnn.ops.lengths import within
from fastnn.ops.windows import Windows, _avg_pool, _max_pool, _max_pool_places
from fastnn.public import publish


def _rectified(found: Windows) -> Node | None:
    """The ReLU whose result is pooled, if maxima are fewer: the maximum of what it gives is what it
    gives of the maximum, and so are the gradients."""
    node = found.x.node if any(step > 1 for step in found.stride) else None
    return node if node is not None and node.of is None and node.op is lookup("relu") else None


def _max(found: Windows, lengths: Any, return_indices: bool) -> Any:
    check_flags(found.label, return_indices=return_indices)
    if return_indices and lengths is None:
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
    image, options = found.image, found.attributes(True)
    y, ends = _max_pool(image, **options), found.ends(lengths)
    pooled = from_last(within(found.lines(y), ends), found.channels)
    if not return_indices:
        return pooled, ends
    if found.x.shape[1] > 1 << np.finfo(found.x.graph.dtype).nmant:
        raise ShapeError(
            f"{found.label}: expected at most {1 << np.finfo(found.x.graph.dtype).nmant:,} steps "
            f"for return_indices with lengths, got {found.x.shape[1]:,}; cut the sequences"
        )
    places = astype(found.lines(_max_pool_places(image, y, **options)))
    return pooled, from_last(_ids(within(places, ends, -1.0)), found.channels), ends


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
        ceil_mode: whether a last window may reach over the end (of each sequence, with `lengths`).
        channels: where the channels are, "first" or "last".
        lengths: number of valid steps of each sequence, integers of shape (N,): what is past the
            end is never the largest, and windows past it are 0.
        return_indices: whether to return as well which step each is, integers of the same shape:
            the first one of equal steps, and -1 for windows past the end.

    Returns:
        Shape (N, C, steps) or (N, steps, C); with `return_indices` the steps, and last, with
        `lengths`, how many windows of each sequence are valid.

    Raises:
        ShapeError, OptionError: sizes or options that do not fit.

    >>> testing.apply(lambda x: ops.max_pool1d(x, 2), [[[1.0, 3.0, 2.0, 0.0]]])
    array([[[3., 2.]]])
    """
    found = Windows("max_pool1d", 1, x, kernel_size, stride, padding, dilation, ceil_mode, channels)
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
    found = Windows("max_pool2d", 2, x, kernel_size, stride, padding, dilation, ceil_mode, channels)
    return _max(found, None, return_indices)


def _average(found: Windows, padding_counts: bool, divisor: int | None, lengths: Any) -> Any:
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
    y, ends = _mean_within(found, lengths, padding_counts), found.ends(lengths)
    return from_last(within(y, ends), found.channels), ends


def _mean_within(found: Windows, lengths: Value, padding_counts: bool = True) -> Value:
    """The averages of windows of x, which is 0 past the sequences' ends."""
    a = found.attributes(False)
    if padding_counts and not found.ceil_mode:  # all windows have as many elements
        return found.lines(_avg_pool(found.image, **a))
    total = found.lines(_avg_pool(found.image, **a, divisor=1))
    return divide(total, maximum(found.counts(lengths, padding_counts), 1.0))


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
    found = Windows("avg_pool1d", 1, x, kernel_size, stride, padding, 1, ceil_mode, channels)
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
    found = Windows("avg_pool2d", 2, x, kernel_size, stride, padding, 1, ceil_mode, channels)
    result: Value = _average(found, count_include_pad, divisor_override, None)
    return result


def _norm(found: Windows, norm_type: float, lengths: Any = None) -> Any:
    check_numbers(found.label, norm_type=norm_type)
    if not norm_type > 0:
        raise OptionError(f"{found.label}: expected norm_type above 0, got {norm_type!r}")
    if lengths is None:
        found.x = power(found.x, float(norm_type))
    else:  # a power has a slope at 1, whatever the exponent
        lengths = found.checked(lengths)
        found.x = within(power(within(found.x, lengths, 1.0), float(norm_type)), lengths)
    if lengths is None:
        mean = _avg_pool(found.image, **found.attributes(False))
    else:
        mean = _mean_within(found, lengths)
    total = multiply(mean, float(np.prod(found.kernel)))
    some = greater(total, 0.0)  # where the sum is 0 the root has no slope
    y = multiply(power(chosen(some, total, 1.0), 1.0 / norm_type), some)
    if lengths is None:
        return found.result(y)
    ends = found.ends(lengths)
    return from_last(within(y, ends), found.channels), ends


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
    found = Windows("lp_pool1d", 1, x, kernel_size, stride, 0, 1, ceil_mode, channels)
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
    result: Value = _norm(Windows("lp_pool2d", *args), norm_type)
    return result


publish(globals(), FunctionType)
