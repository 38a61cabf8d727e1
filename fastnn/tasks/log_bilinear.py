"""The log-bilinear language model: the next symbol's vector is predicted linearly."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn import nn, ops
from fastnn.errors import check_whole
from fastnn.graph.value import Value


class LogBilinear(nn.Module):
    """The log-bilinear model (Mnih & Hinton 2007, "Three new graphical models for statistical
    language modelling"), a baseline without hidden units::

        r = sum of C_i r_(w_(t-i)) over the last `order` symbols,  logit of w = r r_w + b_w

    Args:
        symbols: how many there are.
        features: size of a symbol's vector r_w, which stands on both sides.
        order: symbols that it looks back at, zeros before a sequence's beginning.
        dropout: probability of zero in the vectors that are read.

    Input: ids, shape (batch, steps); output: logits of the symbols that follow, shape (batch,
    steps, symbols).

    >>> import numpy as np
    >>> LogBilinear(10, features=8, order=3).predict(np.zeros((2, 5), np.int64)).shape
    (2, 5, 10)
    """

    def __init__(
        self, symbols: int, *, features: int = 100, order: int = 5, dropout: float = 0.0
    ):  # fmt: skip
        check_whole("LogBilinear", 1, symbols=symbols, features=features, order=order)
        self.symbols, self.features, self.order = symbols, features, order
        self.options: dict[str, Any] = {"features": features, "order": order, "dropout": dropout}
        self.vectors = nn.Embedding(symbols, features, weight_init=nn.init.get("normal", std=0.1))
        self.before = nn.Dropout(dropout)
        self.mix = nn.Linear(order * features, features, bias=False)
        self.logits = nn.Linear(features, symbols)
        self.logits.weight = self.vectors.weight

    def forward(self, ids: Value) -> Value:
        batch, steps = ids.shape
        vectors = self.before(self.vectors(ids))
        shifted = [vectors]
        for back in range(1, self.order):
            count = min(back, steps)
            zeros = ids.graph.full((batch, count, self.features), 0.0, batched=True)
            kept = [zeros] if count == steps else [zeros, vectors[:, : steps - count]]
            shifted.append(kept[0] if len(kept) == 1 else ops.concatenate(*kept, axis=1))
        joined = shifted[0] if len(shifted) == 1 else ops.concatenate(*shifted, axis=2)
        result: Value = self.logits(self.mix(joined))
        return result

    def with_streams(self, streams: int) -> LogBilinear:
        """A copy: it keeps nothing from batch to batch, whose size may be any."""
        other = LogBilinear(self.symbols, **self.options)
        other.store(self.store().dtype).device = self.store().device
        mine = self.named_parameters()
        for name, parameter in other.named_parameters().items():
            parameter.value = np.array(mine[name])
        return other
