"""A recurrent decoder with attention: teacher forcing, scheduled sampling, beam search."""

from __future__ import annotations

from typing import Any

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, check_numbers, check_whole, where
from fastnn.graph.value import Value
from fastnn.nn.alignment import AdditiveAttention, DotAttention, GeneralAttention, _lengths_of
from fastnn.nn.cells import GRUCell, LSTMCell
from fastnn.nn.linear import Embedding, Linear
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.nn.regularization import Dropout
from fastnn.ops.beam import likeliest
from fastnn.ops.lengths import valid_steps, within
from fastnn.public import publish

CELLS: dict[str, Any] = {"gru": GRUCell, "lstm": LSTMCell}


class AttentionDecoder(Module):
    """Writes a sequence of symbols about an encoder's output (Sutskever, Vinyals & Le 2014;
    Bahdanau, Cho & Bengio 2015)::

        context_t = attention(h_(t-1)),  h_t = cell([embedding of symbol t-1, context_t], h_(t-1))
        logits_t = V tanh(W [h_t, context_t])

    The symbol before the first one is `start`, and a sequence ends with `stop`. In training the
    symbols before are those of the targets (teacher forcing), or with probability `sampling` the
    likeliest of the decoder's own step before (scheduled sampling, Bengio et al. 2015), drawn anew
    for each sample and step.

    Args:
        symbols: V, how many there are.
        embedding: size of a symbol's vector.
        hidden: H, units of the cell.
        key_size: K, size of the encoder's output.
        attention: of queries of size H and keys of size K; `AdditiveAttention` with H units by
            default. None of it: "none" reads the mean of the encoder's output in each step.
        cell: "gru" or "lstm".
        dropout: of the vectors and before the logits.
        start, stop: ids of the two symbols.
        sampling: None, or the probability at the beginning, a number in [0, 1]. It stands in the
            buffer `sampling`, which may be changed between steps (``decoder.sampling.value =
            [0.25]``).

    Shapes: encoder's output (batch, positions, K), targets (batch, steps) with the stop symbol
    (past it anything within the symbols), `lengths` of the encoder's output (batch,) or None;
    returns logits (batch, steps, V) and the attention's weights (batch, steps, positions), with
    "none" zeros (batch, steps, 1).

    Raises OptionError for sizes below 1, for `start` or `stop` that are no symbols, for an unknown
    `cell` or `attention`, and for a `sampling` outside [0, 1]; ShapeError for targets that are not
    integers of shape (batch, steps).

    >>> import numpy as np
    >>> from fastnn import nn
    >>> decoder = nn.AttentionDecoder(20, 8, 16, key_size=6)
    >>> encoded, targets = np.ones((2, 5, 6), np.float32), np.ones((2, 7), np.int64)
    >>> logits, alignments = decoder.predict(encoded, targets)
    >>> logits.shape, alignments.shape
    ((2, 7, 20), (2, 7, 5))
    """

    def __init__(
        self, symbols: int, embedding: int, hidden: int, key_size: int, attention: Any = None,
        cell: str = "gru", dropout: float = 0.0, start: int = 0, stop: int = 1,
        sampling: float | None = None,
    ):  # fmt: skip
        check_whole(
            "AttentionDecoder", 1, symbols=symbols, embedding=embedding, hidden=hidden,
            key_size=key_size,
        )  # fmt: skip
        check_whole("AttentionDecoder", 0, start=start, stop=stop)
        if max(start, stop) >= symbols:
            raise OptionError(
                f"AttentionDecoder: expected start and stop below symbols={symbols}, got {start} "
                f"and {stop}"
            )
        if not isinstance(cell, str) or cell not in CELLS:
            raise OptionError(f"AttentionDecoder: expected cell 'gru' or 'lstm', got {cell!r}")
        if attention is None:
            attention = AdditiveAttention(hidden, key_size, hidden)
        elif not isinstance(attention, (AdditiveAttention, DotAttention, GeneralAttention)) and (
            attention != "none" or not isinstance(attention, str)
        ):
            raise OptionError(
                "AttentionDecoder: expected attention such as nn.AdditiveAttention(...), 'none' or "
                f"None, got {attention!r}"
            )
        self.symbols, self.hidden, self.key_size = symbols, hidden, key_size
        self.start, self.stop, self.kind = start, stop, cell
        self.attention = None if attention == "none" else attention
        self.vectors = Embedding(symbols, embedding)
        self.cell = CELLS[cell](embedding + key_size, hidden)
        self.initial = Linear(key_size, hidden)
        self.both = Linear(hidden + key_size, hidden)
        self.out = Linear(hidden, symbols)
        self.before, self.after = Dropout(dropout), Dropout(dropout)
        self.sampling: Parameter | None = None
        if sampling is not None:
            check_numbers("AttentionDecoder", sampling=sampling)
            if not 0 <= sampling <= 1:
                raise OptionError(f"AttentionDecoder: expected sampling in [0, 1], got {sampling}")
            self.sampling = Parameter((1,), sampling, trainable=False)

    def forward(
        self, encoded: Value, targets: Value, lengths: Value | None = None
    ) -> tuple[Value, Value]:
        graph, batch = encoded.graph, encoded.shape[0]
        if targets.ndim != 2 or targets.dtype != "i":
            raise ShapeError(
                f"{where(graph.scope)}{self!r}: expected targets of shape (batch, steps), "
                f"integers, got {targets}"
            )
        read, weights, state = self.prepare(encoded, lengths)
        vectors = self.before(self.vectors(targets))
        first = self._first(encoded)
        if targets.shape[1] > 1:
            one = ops.reshape(first, (batch, 1, first.shape[1]))
            vectors = ops.concatenate(one, vectors[:, :-1], axis=1)
        else:
            vectors = ops.reshape(first, (batch, 1, first.shape[1]))
        if self.sampling is not None and graph.training:
            return self._sampled(vectors, first, read, weights, state)

        def step(x: Value, carried: tuple[Value, ...]) -> Any:
            seen, weight, carried = self.step(x, carried, read)
            return (seen, weight), carried

        (seen, alignments), _ = ops.loop(step, vectors, (*state, *weights))
        return self.logits(seen), alignments

    def prepare(
        self, encoded: Value, lengths: Value | None = None
    ) -> tuple[Any, tuple[Value, ...], tuple[Value, ...]]:
        """What steps read of an encoder's output (`encoded`, its sequences up to `lengths`), the
        attention's weights before the first step, and the cell's states.

        Raises ShapeError for an output of another size, and for lengths that do not fit it.
        """
        lengths = _lengths_of(self, self.key_size, encoded, lengths)
        mean = _mean(encoded, lengths)
        h = ops.tanh(self.initial(mean))
        state = (h,) if self.kind == "gru" else (h, ops.zeros_state(encoded, self.hidden))
        if self.attention is None:
            return mean, (), state
        return self.attention.prepare(encoded, lengths), self.attention.start(encoded), state

    def step(
        self, x: Value, carried: tuple[Value, ...], read: Any
    ) -> tuple[Value, Value, tuple[Value, ...]]:
        """One step: of the vector x of the symbol before, what the step before has returned
        (`carried`; in the beginning states and weights) and what `prepare` has made (`read`).
        Returns [h, context], the attention's weights, and what the next step is given."""
        count = 1 if self.kind == "gru" else 2
        states, before = carried[:count], carried[count:]
        if self.attention is None:
            context, weights, after = read, ops.zeros_state(x, 1), ()
        else:
            context, weights, after = self.attention(states[0], read, before)
        joined = ops.concatenate(x, context)
        new = self.cell(joined, states[0] if count == 1 else states)
        states = (new,) if count == 1 else tuple(new)
        return ops.concatenate(states[0], context), weights, (*states, *after)

    def logits(self, seen: Value) -> Value:
        """Logits for what was `seen`, [h, context] of a step, or of all."""
        result: Value = self.out(self.after(ops.tanh(self.both(seen))))
        return result

    def write(
        self, encoded: Value, lengths: Value | None = None, *, steps: int, **options: Any
    ) -> tuple[Value, Value, Value]:
        """The likeliest sequences about an encoder's output: see `ops.beam_search`.

        Args:
            encoded, lengths: as of `forward`.
            steps: symbols at most.
            options: `width`, `min_steps`, `length_penalty` and `n_best` of `ops.beam_search`.
        """
        read, weights, state = self.prepare(encoded, lengths)
        parts = [read] if self.attention is None else [p for p in read if p is not None]

        def step(
            x: Value, carried: tuple[Value, ...], given: tuple[Value, ...]
        ) -> tuple[Value, tuple[Value, ...]]:
            if self.attention is None:
                seen, _, carried = self.step(x, carried, given[0])
            else:
                whole = type(read)(*given, *(None,) * (len(read) - len(given)))
                seen, _, carried = self.step(x, carried, whole)
            return self.logits(seen), carried

        return ops.beam_search(
            step, self.vectors, (*state, *weights), start=self.start, stop=self.stop,
            steps=steps, fixed=parts, **options,
        )  # fmt: skip

    def _first(self, encoded: Value) -> Value:
        """The start symbol's vector for each sample."""
        row = ops.as_value(encoded.graph, self.vectors.weight)[self.start : self.start + 1]
        one = encoded.graph.full((encoded.shape[0], 1), 1.0, batched=True)
        return ops.multiply(one, row)

    def _sampled(
        self, vectors: Value, first: Value, read: Any, weights: tuple[Value, ...],
        state: tuple[Value, ...],
    ) -> tuple[Value, Value]:  # fmt: skip
        """All steps, with the decoder's own symbols in the place of some of the targets'."""

        def step(x: Value, carried: tuple[Value, ...]) -> Any:
            own, *rest = carried
            draw = ops.uniform_like(ops.columns(x, 0, 1))
            x = ops.where(ops.less(draw, self.sampling), own, x)
            seen, weight, rest_after = self.step(x, tuple(rest), read)
            logits = self.logits(seen)
            own = self.before(self.vectors(likeliest(logits)))
            return (logits, weight), (own, *rest_after)

        (logits, alignments), _ = ops.loop(step, vectors, (first, *state, *weights))
        return logits, alignments

    def extra(self) -> str:
        return f"{self.symbols}, {self.hidden}"


def _mean(encoded: Value, lengths: Value | None) -> Value:
    """The mean over valid positions; 0 where there are none."""
    if lengths is None:
        return ops.mean(encoded, 1)
    mask = valid_steps(lengths, encoded.shape[1])
    count = ops.maximum(ops.sum(mask, 1, keepdims=True), 1.0)
    return ops.divide(ops.sum(within(encoded, lengths), 1), count)


publish(globals(), type)
