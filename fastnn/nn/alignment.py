"""Attention for recurrent decoders: in each step, weights over the positions of a sequence.

They are layers for the body of `ops.loop`: a step takes the decoder's state, what `prepare` has
made of an encoder's output, and the weights of the steps before.
"""

from __future__ import annotations

from typing import NamedTuple

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, check_flags, check_whole, where
from fastnn.graph.value import Value
from fastnn.nn import init
from fastnn.nn.linear import Linear
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.ops.lengths import checked_lengths, valid_steps
from fastnn.public import publish

#: a score far below every other one
LOW = -1e30


class _Prepared(NamedTuple):
    """What an attention has made of an encoder's output, once for all steps."""

    #: what queries are compared with, shape (batch, positions, ...)
    keys: Value
    #: what is summed, shape (batch, positions, size)
    values: Value
    #: 1 at positions that there are, else 0, shape (batch, positions); None: all
    mask: Value | None


#: what a step hands to the next: its weights and the sums of all so far, (batch, positions) each
Weights = tuple[Value, Value]


def _lengths_of(
    layer: Module, key_size: int, encoded: Value, lengths: Value | None
) -> Value | None:
    """The lengths of an encoder's outputs, which have to be of the layer's size."""
    if encoded.ndim != 3 or encoded.shape[2] != key_size:
        raise ShapeError(
            f"{where(encoded.graph.scope)}{layer!r}: expected an encoder's output of shape "
            f"(batch, positions, {key_size}), got {encoded.shape}; set key_size to "
            f"{encoded.shape[-1]}"
        )
    batch, positions, _ = encoded.shape
    return checked_lengths(encoded.graph, lengths, batch, positions, type(layer).__name__)


class _Alignment(Module):
    """Base of the attentions of a step.

    Args:
        query_size: Q, the size of the decoder's state.
        key_size: K, the size of an encoder's output.
        monotonic: None, or how many positions a step may move on: only positions from the median of
            the weights before up to so many behind it are looked at (Chorowski et al. 2015, section
            2.3), beginning at the first one.
    """

    def __init__(self, query_size: int, key_size: int, monotonic: int | None = None):
        check_whole(type(self).__name__, 1, query_size=query_size, key_size=key_size)
        if monotonic is not None:
            check_whole(type(self).__name__, 0, monotonic=monotonic)
        self.query_size, self.key_size, self.monotonic = query_size, key_size, monotonic

    def prepare(self, encoded: Value, lengths: Value | None = None) -> _Prepared:
        """What steps take of an encoder's output (batch, positions, K); before the loop."""
        lengths = _lengths_of(self, self.key_size, encoded, lengths)
        mask = None if lengths is None else valid_steps(lengths, encoded.shape[1])
        if mask is not None:
            encoded = ops.where(ops.reshape(mask, (*mask.shape, 1)), encoded, 0.0)
        return _Prepared(self._keys(encoded), encoded, mask)

    def start(self, encoded: Value) -> Weights:
        """The weights before the first step: all on the first position, and no sums."""
        batch, positions = encoded.shape[:2]
        first = encoded.graph.full((batch, 1), 1.0, batched=True)
        if positions > 1:
            rest = encoded.graph.full((batch, positions - 1), 0.0, batched=True)
            first = ops.concatenate(first, rest)
        return first, encoded.graph.full((batch, positions), 0.0, batched=True)

    def forward(
        self, query: Value, prepared: _Prepared, before: Weights
    ) -> tuple[Value, Value, Weights]:
        """One step.

        Args:
            query: the decoder's state, shape (batch, Q).
            prepared: from `prepare`.
            before: from `start`, or from the step before.

        Returns:
            The weighted sum of the encoder's outputs (batch, K), the weights (batch, positions),
            and what the next step is given.
        """
        if query.ndim != 2 or query.shape[1] != self.query_size:
            raise ShapeError(
                f"{where(query.graph.scope)}{self!r}: expected a query of shape (batch, "
                f"{self.query_size}), got {query.shape}; set query_size to {query.shape[-1]}"
            )
        scores = self._scores(query, prepared, before)
        seen = prepared.mask
        if self.monotonic is not None:
            near = self._near(before[0])
            seen = near if seen is None else ops.multiply(seen, near)
        if seen is not None:
            scores = ops.where(seen, scores, LOW)
        weights = ops.softmax(scores)
        if seen is not None:
            weights = ops.multiply(weights, seen)
        batch, positions = weights.shape
        context = ops.matmul(ops.reshape(weights, (batch, 1, positions)), prepared.values)
        total = ops.add(before[1], weights)
        return ops.reshape(context, (batch, self.key_size)), weights, (weights, total)

    def _near(self, weights: Value) -> Value:
        """1 from the median of the weights before up to `monotonic` positions behind it."""
        reached = ops.greater_equal(ops.cumsum(weights), 0.5)
        ahead = (self.monotonic or 0) + 1
        batch, positions = weights.shape
        if ahead >= positions:
            return reached
        past = ops.columns(reached, 0, positions - ahead)
        none = weights.graph.full((batch, ahead), 0.0, batched=True)
        return ops.subtract(reached, ops.concatenate(none, past))

    def _keys(self, encoded: Value) -> Value:
        return encoded

    def _scores(self, query: Value, prepared: _Prepared, before: Weights) -> Value:
        raise NotImplementedError

    def _products(self, query: Value, keys: Value) -> Value:
        batch, size = query.shape
        found = ops.matmul(keys, ops.reshape(query, (batch, size, 1)))
        return ops.reshape(found, (batch, keys.shape[1]))

    def extra(self) -> str:
        return f"{self.query_size}, {self.key_size}"


class DotAttention(_Alignment):
    """Scores are products of the state and the encoder's outputs, ``q . k[i]`` (Luong et al. 2015,
    "dot"): both have one size.

    Args:
        size: of state and outputs.
        scaled: whether the product is divided by sqrt(size).
        monotonic: None, or how many positions a step may move on (see `AdditiveAttention`).

    Shapes: as of `AdditiveAttention`.

    Raises OptionError for sizes below 1, ShapeError for a query or an encoder's output of another
    size.

    >>> from fastnn import nn
    >>> nn.DotAttention(8).parameter_count
    0
    """

    def __init__(self, size: int, scaled: bool = False, monotonic: int | None = None):
        check_whole("DotAttention", 1, size=size)
        check_flags("DotAttention", scaled=scaled)
        super().__init__(size, size, monotonic)
        self.scaled = bool(scaled)

    def _scores(self, query: Value, prepared: _Prepared, before: Weights) -> Value:
        found = self._products(query, prepared.keys)
        return ops.affine(found, self.query_size**-0.5, 0.0) if self.scaled else found


class GeneralAttention(_Alignment):
    """Scores are ``q W k[i]`` (Luong et al. 2015, "general").

    Args:
        query_size, key_size, monotonic: as of `AdditiveAttention`.

    Attributes:
        project: W, a `Linear` from keys to queries without a bias.

    Shapes: as of `AdditiveAttention`.

    Raises OptionError for sizes below 1, ShapeError for a query or an encoder's output of another
    size.

    >>> from fastnn import nn
    >>> nn.GeneralAttention(8, 6).parameter_count
    48
    """

    def __init__(self, query_size: int, key_size: int, monotonic: int | None = None):
        super().__init__(query_size, key_size, monotonic)
        self.project = Linear(key_size, query_size, bias=False)

    def _keys(self, encoded: Value) -> Value:
        return self.project(encoded)

    def _scores(self, query: Value, prepared: _Prepared, before: Weights) -> Value:
        return self._products(query, prepared.keys)


class AdditiveAttention(_Alignment):
    """Scores are ``v . tanh(W q + U k[i] + b)`` (Bahdanau, Cho & Bengio 2015).

    It can see where it has looked before: with `coverage`, the sum of all weights a position has
    had is a further input of the tanh (Tu et al. 2016; See et al. 2017); with `filters`, so are
    convolutions of the weights of the step before (location-aware attention, Chorowski et al.
    2015).

    Args:
        query_size: Q, the size of the decoder's state.
        key_size: K, the size of an encoder's output.
        hidden: A, the units of the tanh.
        coverage: whether scores depend on the sums of all weights before.
        filters: how many filters pass over the weights of the step before; 0: none.
        width: positions that a filter sees, an odd number.
        monotonic: None, or how many positions a step may move on: only positions from the median of
            the weights before up to so many behind it are looked at, beginning at the first one.

    Attributes:
        query, key: `Linear` layers W, with the bias, and U, without.
        score: v, shape (A,).
        covered: shape (A,), with `coverage`.
        location: the filters, shape (filters, 1, width), and `located`, a `Linear` without a bias.

    Shapes: a step takes a state (batch, Q), `prepare` an encoder's output (batch, positions, K)
    with lengths (batch,) or None; a step returns (batch, K), weights (batch, positions), and what
    the next one takes.

    Raises OptionError for sizes below 1 and an even `width`, ShapeError for a query or an encoder's
    output of another size.

    >>> import numpy as np
    >>> from fastnn import nn, ops
    >>> class Decoder(nn.Module):
    ...     def __init__(self):
    ...         self.cell, self.attention = nn.GRUCell(6, 8), nn.AdditiveAttention(8, 6, 10)
    ...     def forward(self, encoded):
    ...         prepared = self.attention.prepare(encoded)
    ...         def step(_, state):
    ...             h, *before = state
    ...             context, weights, before = self.attention(h, prepared, tuple(before))
    ...             h = self.cell(context, h)
    ...             return (h, weights), (h, *before)
    ...         start = ops.zeros_state(encoded, 8), *self.attention.start(encoded)
    ...         (outputs, alignments), _ = ops.loop(step, None, start, steps=4)
    ...         return outputs, alignments
    >>> outputs, alignments = Decoder().predict(np.ones((2, 5, 6), np.float32))
    >>> outputs.shape, alignments.shape
    ((2, 4, 8), (2, 4, 5))
    """

    def __init__(
        self, query_size: int, key_size: int, hidden: int, coverage: bool = False, filters: int = 0,
        width: int = 15, monotonic: int | None = None,
    ):  # fmt: skip
        super().__init__(query_size, key_size, monotonic)
        check_whole("AdditiveAttention", 1, hidden=hidden, width=width)
        check_whole("AdditiveAttention", 0, filters=filters)
        check_flags("AdditiveAttention", coverage=coverage)
        if width % 2 == 0:
            raise OptionError(f"AdditiveAttention: expected an odd width, got {width}")
        self.query = Linear(query_size, hidden)
        self.key = Linear(key_size, hidden, bias=False)
        fill = init.get("uniform", low=-(hidden**-0.5), high=hidden**-0.5)
        self.score = Parameter((hidden,), fill)
        self.covered = Parameter((hidden,), fill) if coverage else None
        self.width = width
        self.location, self.located = None, None
        if filters:
            near = init.get("uniform", low=-(width**-0.5), high=width**-0.5)
            self.location = Parameter((filters, 1, width), near, transposed=True)
            self.located = Linear(filters, hidden, bias=False)

    def _keys(self, encoded: Value) -> Value:
        return self.key(encoded)

    def _scores(self, query: Value, prepared: _Prepared, before: Weights) -> Value:
        projected = self.query(query)
        batch, positions, hidden = prepared.keys.shape
        inner = ops.add(prepared.keys, ops.reshape(projected, (batch, 1, hidden)))
        weights, total = (ops.reshape(x, (batch, positions, 1)) for x in before)
        if self.covered is not None:
            inner = ops.add(inner, ops.multiply(total, self.covered))
        if self.located is not None:
            found = ops.conv1d(weights, self.location, padding=self.width // 2, channels="last")
            inner = ops.add(inner, self.located(found))
        column = ops.reshape(ops.as_value(query.graph, self.score), (hidden, 1))
        return ops.reshape(ops.matmul(ops.tanh(inner), column), (batch, positions))


class LocationAttention(AdditiveAttention):
    """Additive attention that sees where the step before has looked (Chorowski et al. 2015): an
    `AdditiveAttention` with filters over its weights.

    Args:
        query_size, key_size, hidden, filters, width, monotonic: as of `AdditiveAttention`.

    Raises OptionError for sizes below 1 and an even `width`, ShapeError for a query or an encoder's
    output of another size.

    >>> from fastnn import nn
    >>> nn.LocationAttention(8, 6, 10).location.shape
    (10, 1, 15)
    """

    def __init__(
        self, query_size: int, key_size: int, hidden: int, filters: int = 10, width: int = 15,
        monotonic: int | None = None,
    ):  # fmt: skip
        check_whole("LocationAttention", 1, filters=filters)
        super().__init__(
            query_size, key_size, hidden, filters=filters, width=width, monotonic=monotonic
        )


publish(globals(), type)
