"""Attention."""

from __future__ import annotations

import math
from types import FunctionType
from typing import Any

import numpy as np

from fastnn.errors import OptionError, ShapeError, check_whole, where
from fastnn.graph.value import Value
from fastnn.ops.arithmetic import minimum, multiply
from fastnn.ops.arithmetic import where as choose
from fastnn.ops.declare import Operand, floats, op, outputs
from fastnn.ops.indexing import split
from fastnn.ops.lengths import checked_lengths, valid_steps
from fastnn.ops.matmul import matmul
from fastnn.ops.operands import as_shown, float_value, graph_of
from fastnn.ops.reduce import cumsum, softmax
from fastnn.ops.reduce import sum as total_of
from fastnn.ops.shape import reshape
from fastnn.public import publish

#: what is far below every score, yet a number
LOW = -1e30


def _heads_first(x: Value, heads: int, apart: int) -> Value:
    """(B, H, T, D) of either layout."""
    if apart:
        return reshape(x, (x.shape[0], heads, x.shape[1] // heads, x.shape[2]))
    return reshape(x, (*x.shape[:2], heads, x.shape[2] // heads)).transpose(0, 2, 1, 3)


def _by_products(
    q: Value, k: Value, v: Value, key_lengths: Value | None, query_lengths: Value | None,
    heads: int, apart: int, causal: int, first: int, scale: float, keep: float, stream: int,
) -> Value:  # fmt: skip
    """The same by products and a softmax, with all weights in memory: for second gradients."""
    if keep != 1.0:
        raise OptionError(
            f"{where(q.graph.scope)}attention: expected no dropout of weights for a gradient of "
            f"a gradient, got dropout={1.0 - keep:g}; set it to 0"
        )
    shape = (*q.shape[:2], v.shape[2])
    a, b, c = (_heads_first(x, heads, apart) for x in (q, k, v))
    (batch, _, queries, _), keys = a.shape, b.shape[2]
    seen = None
    scores = matmul(a, b.transpose(0, 1, 3, 2)) * scale
    if causal:
        reach = np.arange(keys) <= np.arange(queries)[:, None] + first
        seen = q.graph.constant(reach.astype(float)[None, None], name="causal")
    for lengths, steps, place in ((key_lengths, keys, 3), (query_lengths, queries, 2)):
        if lengths is not None:
            wide = [batch, 1, 1, 1]
            wide[place] = steps
            mask = reshape(valid_steps(lengths, steps), tuple(wide))
            seen = mask if seen is None else multiply(seen, mask)
    if seen is None:
        y = matmul(softmax(scores), c)
    else:
        y = matmul(multiply(softmax(choose(seen, scores, LOW)), seen), c)
    return reshape(y if apart else y.transpose(0, 2, 1, 3), shape)


@op(
    saves=("lse",), expression=_by_products, constant=("key_lengths", "query_lengths"),
    differentiable=("q", "k", "v"),
)  # fmt: skip
def _attention(
    q: Value, k: Value, v: Value, key_lengths: Value | None, query_lengths: Value | None,
    heads: int = 1, apart: int = 0, causal: int = 0, first: int = 0, scale: float = 1.0,
    keep: float = 1.0, stream: int = 0,
) -> Value:  # fmt: skip
    queries = q.shape[1] // heads if apart else q.shape[1]
    y = floats(*q.shape[:2], v.shape[2])
    return outputs(y=y, lse=floats(q.shape[0], heads * queries))


def _split(
    x: Value, lengths: Value | None, heads: int, causal: int, scale: float, keep: float, stream: int
) -> Value:
    q, k, v = split(x, 3)
    return _by_products(q, k, v, lengths, lengths, heads, 0, causal, 0, scale, keep, stream)


@op(saves=("lse",), expression=_split, constant=("lengths",), differentiable=("x",))
def _self_attention(
    x: Value, lengths: Value | None, heads: int = 1, causal: int = 0, scale: float = 1.0,
    keep: float = 1.0, stream: int = 0,
) -> Value:  # fmt: skip
    batch, steps, width = x.shape
    return outputs(y=floats(batch, steps, width // 3), lse=floats(batch, heads * steps))


# ---------------------------------------------------------------- functions


def attention(
    q: Operand, k: Operand, v: Operand, *, heads: int = 1, causal: bool = False,
    key_lengths: Any = None, query_lengths: Any = None, first: int = 0,
    scale: float | None = None, dropout: float = 0.0,
) -> Value:  # fmt: skip
    """Sums of values, weighted by how well their keys fit a query (Vaswani et al. 2017)::

        softmax(scale * q k^T) v

    It is computed block by block (Dao et al. 2022): the weights are never all in memory, which
    grows with the number of queries and keys, not with their product.

    Args:
        q: queries, shape (batch, M, heads * D), heads side by side; or (..., heads, M, D), with
            `heads` left at 1.
        k: keys, shape (batch, N, heads * D), or (..., heads, N, D).
        v: values, shape (batch, N, heads * E), or (..., heads, N, E).
        heads: how many heads the last dimension has, which attend each for itself.
        causal: query i looks at keys 0 to i alone (to `first` + i).
        key_lengths: how many keys each sample has, integers of shape (batch,), or None: all. What
            lies behind them reaches nothing.
        query_lengths: likewise of queries; outputs past them are 0.
        first: with `causal`, the place of the first query among the keys.
        scale: factor of the scores, above 0; 1 / sqrt(D) by default.
        dropout: share of the weights that is left out while training (the others are multiplied by
            1 / (1 - dropout)).

    Returns:
        Shape of q with E in the place of D. A query that looks at no key gets 0.

    Raises:
        ShapeError: the shapes don't fit each other.
        OptionError: an option is out of range.

    >>> from fastnn import nn, ops
    >>> class Twice(nn.Module):
    ...     def __init__(self):
    ...         self.project = nn.Linear(8, 24)
    ...     def forward(self, x):
    ...         q, k, v = ops.split(self.project(x), 3)
    ...         return ops.attention(q, k, v, heads=2, causal=True)
    >>> Twice().predict(np.ones((4, 10, 8), np.float32)).shape
    (4, 10, 8)
    """
    graph = graph_of(q, k, v)
    name = f"{where(graph.scope)}attention"
    q, k, v = (float_value(as_shown(graph, x), "attention") for x in (q, k, v))
    check_whole("attention", 1, heads=heads)
    check_whole("attention", 0, first=first)
    _check_shapes(name, q, k, v, heads)
    scale = _checked_scale(name, scale, q.shape[-1] // heads)
    _check_dropout(name, dropout)
    ends = _lengths(name, "key_lengths", key_lengths, q, k.shape[-2])
    own = _lengths(name, "query_lengths", query_lengths, q, q.shape[-2])
    shape, apart = (*q.shape[:-1], v.shape[-1]), 0
    if q.ndim == 4 and not (ends is None and own is None):
        heads, apart = q.shape[1], 1
        q, k, v = (reshape(x, (x.shape[0], x.shape[1] * x.shape[2], x.shape[3])) for x in (q, k, v))
    elif q.ndim != 3:
        q, k, v = (reshape(x, (-1, *x.shape[-2:])) for x in (q, k, v))
    drops = dropout > 0 and graph.training
    y = _attention(
        q, k, v, ends, own, heads, apart, int(causal), first, scale,
        1.0 - dropout if drops else 1.0, graph.stream() if drops else 0,
    )  # fmt: skip
    return y if y.shape == shape else reshape(y, shape)


def self_attention(
    x: Operand, *, heads: int = 1, causal: bool = False, lengths: Any = None,
    scale: float | None = None, dropout: float = 0.0,
) -> Value:  # fmt: skip
    """`attention` of a sequence to itself, of queries, keys and values that one product has made:
    the same as ``attention(*split(x, 3), ...)``, and faster, since nothing is copied.

    Args:
        x: queries, keys and values side by side, shape (batch, steps, 3 * heads * D).
        lengths: how many steps each sample has, integers of shape (batch,), or None: all.
        heads, causal, scale, dropout: as of `attention`.

    Returns:
        Shape (batch, steps, heads * D).

    Raises:
        ShapeError: x or `lengths` have another shape.
        OptionError: an option is out of range.

    >>> testing.apply(lambda x: ops.self_attention(x, heads=2), np.ones((4, 10, 24))).shape
    (4, 10, 8)
    """
    x = float_value(x, "self_attention")
    name = f"{where(x.graph.scope)}self_attention"
    check_whole("self_attention", 1, heads=heads)
    if x.ndim != 3 or x.shape[2] % (3 * heads):
        raise ShapeError(
            f"{name}: expected shape (batch, steps, 3 * heads * size) with heads={heads}, got "
            f"{x.shape}"
        )
    scale = _checked_scale(name, scale, x.shape[2] // (3 * heads))
    _check_dropout(name, dropout)
    ends = checked_lengths(x.graph, lengths, x.shape[0], x.shape[1], "self_attention")
    drops = dropout > 0 and x.graph.training
    return _self_attention(
        x, ends, heads, int(causal), scale, 1.0 - dropout if drops else 1.0,
        x.graph.stream() if drops else 0,
    )  # fmt: skip


def _checked_scale(name: str, scale: Any, size: int) -> float:
    scale = 1.0 / math.sqrt(size) if scale is None else scale
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale < math.inf:
        raise OptionError(f"{name}: expected a scale above 0, or None, got {scale!r}")
    return float(scale)


def _check_dropout(name: str, dropout: Any) -> None:
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        raise OptionError(f"{name}: expected dropout in [0, 1), got {dropout!r}")


def coverage_loss(alignments: Operand) -> Value:
    """How much a decoder looks again at what it has looked at (See, Liu & Manning 2017)::

        sum over steps t and positions i of min(w[t,i], sum over s < t of w[s,i])

    Args:
        alignments: weights of all steps, shape (batch, steps, positions), as decoders with
            `nn.AdditiveAttention` and the like return them.

    Returns:
        One number for each sample, shape (batch,).

    Raises ShapeError for other dimensions.

    >>> testing.apply(ops.coverage_loss, [[[1.0, 0.0], [1.0, 0.0]]])
    array([1.])
    """
    weights = float_value(alignments, "coverage_loss")
    if weights.ndim != 3:
        raise ShapeError(
            f"{where(weights.graph.scope)}coverage_loss: expected weights of shape (batch, steps, "
            f"positions), got {weights.shape}"
        )
    before = cumsum(weights, 1, exclusive=True)
    return total_of(minimum(weights, before), (1, 2))


def _check_shapes(name: str, q: Value, k: Value, v: Value, heads: int) -> None:
    shapes = f"queries {q.shape}, keys {k.shape} and values {v.shape}"
    if not q.ndim == k.ndim == v.ndim > 2:
        raise ShapeError(
            f"{name}: expected queries, keys and values of shape (batch, steps, heads * size), or "
            f"(batch, heads, steps, size), got {shapes}; reshape them"
        )
    if heads > 1 and q.ndim > 3:
        raise ShapeError(
            f"{name}: expected heads either as an axis or side by side, got heads={heads} and "
            f"queries of shape {q.shape}; leave heads out"
        )
    if k.shape[:-1] != v.shape[:-1] or q.shape[:-2] != k.shape[:-2] or q.shape[-1] != k.shape[-1]:
        raise ShapeError(
            f"{name}: expected as many keys as values, of as many samples as queries, and keys as "
            f"wide as queries, got {shapes}"
        )
    if q.shape[-1] % heads or v.shape[-1] % heads:
        raise ShapeError(
            f"{name}: expected last dimensions that are multiples of heads={heads}, got {shapes}"
        )


def _lengths(name: str, given: str, lengths: Any, q: Value, steps: int) -> Value | None:
    if lengths is not None and q.ndim > 4:
        raise ShapeError(
            f"{name}: expected queries of 3 or 4 dimensions with lengths, got shape {q.shape}"
        )
    found: Value | None = checked_lengths(q.graph, lengths, q.shape[0], steps, "attention", given)
    return found


publish(globals(), FunctionType)
