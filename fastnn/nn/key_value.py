"""A memory of keys and values that is asked several times."""

from __future__ import annotations

from typing import Any

from fastnn import ops
from fastnn.errors import ShapeError, check_flags, check_whole, where
from fastnn.graph.value import Value
from fastnn.nn.containers import ModuleList
from fastnn.nn.linear import Linear
from fastnn.nn.module import Module
from fastnn.ops.lengths import checked_lengths, valid_steps
from fastnn.public import publish

#: the score of what is past the end; its weight is exactly 0
NOWHERE = -1e30


class KeyValueMemory(Module):
    """Answers from a memory of keys and values in several hops (Miller et al., "Key-value memory
    networks for directly reading documents", EMNLP 2016; with keys and values of the same sentences
    an end-to-end memory network, Sukhbaatar et al., NIPS 2015)::

        p = softmax(keys q)
        q = R (q + p values)        (of each hop; R is a matrix)

    What a hop has found is part of what the next one asks for, so facts are put together: where the
    ball is follows from who has it and where they are.

    Args:
        size: numbers of a key, of a value and of the query.
        hops: how many times the memory is asked.
        tied: whether all hops have the same R.

    Attributes:
        updates: a `Linear` without bias for each hop, or a single one.

    Inputs: query (batch, size), keys and values (batch, slots, size), and the numbers of slots,
    integers (batch,), or none; outputs: the query after the last hop, (batch, size), and the
    weights p, (batch, hops, slots), which are 0 past the end. What stands there does not matter; a
    memory without slots answers 0.

    Raises OptionError for sizes that are none, ShapeError for inputs that do not fit.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> memory = nn.KeyValueMemory(4, hops=2)
    >>> keys = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    >>> answer, weights = memory.predict(keys[:, 0], keys, keys)
    >>> answer.shape, weights.shape
    ((3, 4), (3, 2, 5))
    """

    def __init__(self, size: int, *, hops: int = 2, tied: bool = False):
        check_whole("KeyValueMemory", 1, size=size, hops=hops)
        check_flags("KeyValueMemory", tied=tied)
        self.size, self.hops = size, hops
        self.updates = ModuleList(
            [Linear(size, size, bias=False) for _ in range(1 if tied else hops)]
        )

    def forward(
        self, query: Value, keys: Value, values: Value, lengths: Value | None = None
    ) -> tuple[Value, Value]:
        lengths = self._checked(query, keys, values, lengths)
        mask = None if lengths is None else valid_steps(lengths, keys.shape[1])
        found = []
        for hop in range(self.hops):
            scores = ops.reshape(keys @ ops.reshape(query, -1, self.size, 1), *keys.shape[:2])
            if mask is None:
                p = ops.softmax(scores)
            else:
                p = ops.softmax(ops.where(mask, scores, NOWHERE)) * mask
            row = ops.reshape(p, -1, 1, keys.shape[1])
            read = ops.reshape(row @ values, -1, self.size)
            query = self.updates[hop % len(self.updates)](query + read)
            found.append(row)
        return query, found[0] if len(found) == 1 else ops.concatenate(*found, axis=1)

    def _checked(self, query: Value, keys: Value, values: Value, lengths: Any) -> Any:
        """The lengths; ShapeError for inputs that do not fit."""
        scope = where(query.graph.scope)
        if query.ndim != 2 or query.shape[1] != self.size:
            raise ShapeError(
                f"{scope}KeyValueMemory: expected a query of shape (batch, {self.size}), got "
                f"{query.shape}; change size or reshape the query"
            )
        batch = query.shape[0]
        for name, value in (("keys", keys), ("values", values)):
            if value.ndim != 3 or value.shape[0] != batch or value.shape[2] != self.size:
                raise ShapeError(
                    f"{scope}KeyValueMemory: expected {name} of shape ({batch}, slots, "
                    f"{self.size}), got {value.shape}; change size or reshape the {name}"
                )
        if keys.shape != values.shape:
            raise ShapeError(
                f"{scope}KeyValueMemory: expected a value for each key, got {keys.shape[1]} keys "
                f"and {values.shape[1]} values"
            )
        return checked_lengths(
            query.graph, lengths, batch, keys.shape[1], "KeyValueMemory", "numbers of slots"
        )

    def extra(self) -> str:
        return f"{self.size}, hops={self.hops}"


publish(globals(), type)
