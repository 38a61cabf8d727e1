"""Windows of pooling: the ops over them, and those of sequences and images as what ops take."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.errors import OptionError, where
from fastnn.graph.graph import Graph
from fastnn.graph.node import Node
from fastnn.graph.value import Value
from fastnn.ops.arithmetic import add, multiply
from fastnn.ops.declare import floats, need, op, output
from fastnn.ops.layout import each, extents_of, from_last, sizes, to_last
from fastnn.ops.lengths import checked_lengths, places_of, steps_within, valid_steps, windows_of
from fastnn.ops.operands import float_value, graph_of
from fastnn.ops.shape import reshape

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


class Windows:
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
        self.x, self.ceil_mode = x, ceil_mode

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
        """How many windows each sequence has: those within it and its padding, and with `ceil_mode`
        one over the end, if it begins before that."""
        span, stride = self.dilation[0] * (self.kernel[0] - 1) + 1, self.stride[0]
        if not self.ceil_mode:
            return windows_of(lengths, span, stride, self.both[0])
        begun = windows_of(lengths, 1, stride, self.before[0])
        whole = windows_of(lengths, span - stride + 1, stride, self.both[0])
        both = (valid_steps(ends, self.out[0]) for ends in (begun, whole))
        return steps_within(multiply(*both))

    def counts(self, lengths: Value, padding_counts: bool) -> Value:
        """How many elements each window of a sequence has, (N, windows, 1): its valid steps, and
        the zeros around them if they count."""
        before = self.before[0] if padding_counts else 0
        steps = places_of(lengths, 1.0, before) if before else lengths
        mask = valid_steps(steps, self.x.shape[1] + before)
        image = reshape(mask, mask.shape[0], 1, mask.shape[1], 1)
        found = self.lines(_avg_pool(image, **self.attributes(False), divisor=1))
        if before:  # those before the first step
            first = before - self.stride[0] * np.arange(self.out[0])
            found = add(found, np.clip(first, 0, None)[:, None].astype(float))
        return found
