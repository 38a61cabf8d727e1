"""The LSTM whose outputs are projected to fewer features."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import numpy as np

from fastnn.errors import ShapeError, where
from fastnn.graph.value import Value
from fastnn.ops.arithmetic import add, multiply, subtract
from fastnn.ops.comparison import equal, less
from fastnn.ops.indexing import pad
from fastnn.ops.lengths import checked_lengths
from fastnn.ops.linear import linear
from fastnn.ops.operands import as_value, graph_of
from fastnn.ops.recurrent import lstm
from fastnn.ops.shape import concatenate, reshape
from fastnn.public import publish


def projected_lstm(
    x: Any, w_ih: Any, w_hh: Any, w_hr: Any, b_ih: Any = None, b_hh: Any = None, h0: Any = None,
    c0: Any = None, lengths: Any = None, **options: Any,
) -> tuple[Value, Value, Value]:  # fmt: skip
    """The LSTM with h = W_hr (o tanh(c)) (Sak, Senior & Beaufays 2014).

    Computed as an LSTM of the unprojected outputs u, whose recurrent weights are W_hh W_hr: all
    projections are one product at the end. The first step's W_hh h0, which no u stands for, comes
    in as further inputs.

    Args:
        w_hh: parameter of shape (4H, P), kept transposed.
        w_hr: parameter of shape (P, H), kept transposed.
        h0: shape (B, P), or None.
        x, w_ih, b_ih, b_hh, c0, lengths, options: as for `lstm`.

    Returns:
        The outputs of all steps, (B, T, P), zero past the end, the last h (B, P) and c (B, H).

    Raises ShapeError for states or lengths that do not fit x.

    >>> w_ih, w_hh, w_hr = np.ones((3, 16)), np.ones((2, 16)), np.ones((4, 2))
    >>> made = lambda x: ops.projected_lstm(x, w_ih, w_hh, w_hr)
    >>> [y.shape for y in testing.apply(made, np.ones((2, 5, 3)))]
    [(2, 5, 2), (2, 2), (2, 4)]
    """
    graph = graph_of(x)
    if x.ndim == 3:  # else `lstm` says so
        lengths = checked_lengths(graph, lengths, x.shape[0], x.shape[1], "lstm")
    first, second, projection = (as_value(graph, w) for w in (w_ih, w_hh, w_hr))
    if h0 is not None:
        if h0.shape != (x.shape[0], projection.shape[1]):
            raise ShapeError(
                f"{where(graph.scope)}lstm: expected h0 of shape "
                f"{(x.shape[0], projection.shape[1])}, got {h0.shape}"
            )
        start = _at_the_first_step(h0, x.shape[1], lengths, bool(options.get("reverse")))
        x, first = concatenate(x, start), concatenate(first, second, axis=0)
    recurrent = graph.apply("linear", x=projection, w=second, bias=None)
    u, last, c = lstm(x, first, recurrent, b_ih, b_hh, None, c0, lengths, **options)
    h = linear(last, w_hr)
    if h0 is not None and lengths is not None:  # nothing follows the state of an empty sequence
        h = add(h, multiply(h0, reshape(equal(lengths, 0), -1, 1)))
    return linear(u, w_hr), h, c


def _at_the_first_step(h0: Value, steps: int, lengths: Any, reverse: bool) -> Value:
    """(B, T, P), zero but for h0 at the step that is computed first."""
    batch, size = h0.shape
    if not reverse or lengths is None:
        rest = (steps - 1, 0) if reverse else (0, steps - 1)
        return pad(reshape(h0, batch, 1, size), [(0, 0), rest, (0, 0)])
    ends = reshape(lengths, -1, 1)
    step = np.arange(steps)[None]
    last = subtract(less(step, ends), less(step + 1, ends))  # 1 at the last valid step
    return multiply(reshape(last, batch, steps, 1), reshape(h0, batch, 1, size))


publish(globals(), FunctionType)
