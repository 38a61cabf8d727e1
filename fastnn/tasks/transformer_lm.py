"""A Transformer that reads text: causal layers, and generation with cached keys and values."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import nn
from fastnn.errors import OptionError
from fastnn.graph.value import Value


class TransformerModel(nn.Module):
    """Embedding, causal Transformer layers with rotary positions and normalisation first (Vaswani
    et al. 2017; Su et al. 2021; Xiong et al. 2020), logits of the next symbol.

    It sees the symbols of its sequence alone, unlike an LSTM that carries its state on.

    Args:
        symbols: how many there are.
        hidden: size of a symbol's vector and of the layers.
        heads: of the attention.
        layers: how many there are, each with 4 hidden units between its linear layers.
        dropout: of the vectors and within the layers.
        tied: whether the logits' weights are the vectors.
        context: symbols that generation and measuring look back at, at most.
        streams: the batch size.

    Input: ids, shape (streams, steps); output: logits, shape (streams, steps, symbols).
    """

    def __init__(
        self, symbols: int, *, hidden: int = 128, heads: int = 4, layers: int = 4,
        dropout: float = 0.1, tied: bool = False, context: int = 128, streams: int = 32,
    ):  # fmt: skip
        self.symbols, self.streams, self.context = symbols, streams, context
        self.options: dict[str, Any] = {
            "hidden": hidden, "heads": heads, "layers": layers, "dropout": dropout, "tied": tied,
            "context": context,
        }  # fmt: skip
        if context < 2:
            raise OptionError(f"TransformerModel: expected a context of 2 or more, got {context}")
        self.vectors = nn.Embedding(symbols, hidden, weight_init=nn.init.get("normal", std=0.05))
        self.before = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(
            hidden, heads, 4 * hidden, dropout, "gelu", norm_first=True, rotary=True
        )
        self.body = nn.TransformerEncoder(layer, layers, nn.LayerNorm(hidden))
        self.logits = nn.Linear(hidden, symbols)
        if tied:
            self.logits.weight = self.vectors.weight

    def forward(self, ids: Value) -> Value:
        result: Value = self.logits(self.body(self.before(self.vectors(ids)), causal=True))
        return result

    def with_streams(self, streams: int) -> TransformerModel:
        """A copy for another batch size."""
        other = TransformerModel(self.symbols, streams=streams, **self.options)
        other.store(self.store().dtype).device = self.store().device
        mine = self.named_parameters()
        for name, parameter in other.named_parameters().items():
            parameter.value = np.array(mine[name])
        return other

    def reader(self, precision: str = "highest") -> Reader:
        """What reads one text symbol by symbol, at a precision of products."""
        return Reader(self, precision)


class _Step(nn.Module):
    """One symbol: its logits, and the caches with it."""

    def __init__(self, model: TransformerModel):
        self.model = model

    def forward(self, ids: Value, written: Value, *caches: Value) -> tuple[Value, ...]:
        place = nn.Place(written)
        pairs = list(zip(caches[::2], caches[1::2], strict=True))
        x, after = self.model.body.step(self.model.vectors(ids), pairs, place)
        return self.model.logits(x), place.after, *(part for pair in after for part in pair)


class Reader:
    """Reads a text symbol by symbol: `feed` gives the logits of the next one. Each costs one step,
    as keys and values of those before are kept. When the context is full, the last half of it is
    read anew."""

    def __init__(self, model: TransformerModel, precision: str = "highest"):
        self.precision = precision
        self.context, self.layers = model.context, model.options["layers"]
        self.hidden = model.options["hidden"]
        self.predict = _Step(model).predictor()
        self.seen: deque[int] = deque(maxlen=max(1, model.context // 2))
        self._begin()

    def _begin(self) -> None:
        self.count = 0
        shape = (1, self.context, self.hidden)
        self.kept: list[NDArray[Any]] = [
            np.zeros((1, self.context), np.float32),
            *(np.zeros(shape, np.float32) for _ in range(2 * self.layers)),
        ]

    def feed(self, symbol: int) -> NDArray[Any]:
        """The logits after one more symbol, shape (symbols,)."""
        if self.count == self.context:
            before = list(self.seen)
            self._begin()
            for known in before:
                self._step(known)
        self.seen.append(symbol)
        return self._step(symbol)

    def _step(self, symbol: int) -> NDArray[Any]:
        symbols = np.array([symbol], np.int64)
        logits, *self.kept = self.predict(symbols, *self.kept, precision=self.precision)
        self.count += 1
        found: NDArray[Any] = logits[0]
        return found
