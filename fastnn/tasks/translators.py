"""Nets that translate: encoder and decoder of GRUs with attention, and of a Transformer."""

from __future__ import annotations

from typing import Any

from fastnn import nn, ops
from fastnn.graph.value import Value
from fastnn.nn.positions import Place
from fastnn.ops.lengths import checked_lengths, steps_within, valid_steps


class RecurrentTranslator(nn.Module):
    """A GRU that reads a sentence both ways, and a GRU with attention that writes (Bahdanau et al.
    2015).

    Args:
        symbols: pieces of both languages.
        embedding: size of a piece's vector.
        hidden: units of each direction, and of the decoder.
        dropout: of vectors and before the logits.
        attention: whether the decoder looks back; else each of its steps is given the mean of the
            encoder's outputs.

    Input: ids (batch, positions), their lengths (batch,), ids of the translation (batch, steps);
    output: logits (batch, steps, symbols).
    """

    def __init__(
        self, symbols: int, embedding: int = 256, hidden: int = 256, dropout: float = 0.3,
        attention: bool = True,
    ):  # fmt: skip
        self.vectors, self.before = nn.Embedding(symbols, embedding), nn.Dropout(dropout)
        self.encoder = nn.GRU(embedding, hidden, bidirectional=True)
        self.decoder = nn.AttentionDecoder(
            symbols,
            embedding,
            hidden,
            2 * hidden,
            None if attention else "none",
            dropout=dropout,
            start=0,
            stop=1,
        )

    def encode(self, ids: Value, lengths: Value) -> Value:
        encoded: Value = self.encoder(self.before(self.vectors(ids)), lengths=lengths)[0]
        return encoded

    def forward(self, ids: Value, lengths: Value, targets: Value) -> Value:
        logits: Value = self.decoder(self.encode(ids, lengths), targets, lengths)[0]
        return logits

    def alignments(self, ids: Value, lengths: Value, targets: Value) -> Value:
        """The attention's weights for a translation, (batch, steps, positions)."""
        weights: Value = self.decoder(self.encode(ids, lengths), targets, lengths)[1]
        return weights

    def write(self, ids: Value, lengths: Value, **options: Any) -> tuple[Value, Value, Value]:
        """See `ops.beam_search`."""
        return self.decoder.write(self.encode(ids, lengths), lengths, **options)


class TransformerTranslator(nn.Module):
    """A Transformer with layers that normalise first; one table of vectors serves both languages
    and the output.

    Args:
        symbols: pieces of both languages.
        size: of a step.
        heads, layers: heads of attention; layers of encoder and decoder, each.
        feedforward: units between a layer's two linear layers.
        dropout: as of `nn.TransformerEncoderLayer`, and of the vectors.

    Input and output: as of `RecurrentTranslator`.
    """

    def __init__(
        self, symbols: int, size: int = 256, heads: int = 4, layers: int = 3,
        feedforward: int = 512, dropout: float = 0.2,
    ):  # fmt: skip
        self.size = size
        spread = nn.init.get("normal", std=size**-0.5)
        self.vectors = nn.Embedding(symbols, size, weight_init=spread)
        self.places, self.before = nn.SinusoidalPositions(size), nn.Dropout(dropout)
        self.net = nn.Transformer(
            size, heads, layers, layers, feedforward, dropout, norm_first=True
        )  # fmt: skip
        self.out = nn.Linear(size, symbols)
        self.out.weight = self.vectors.weight

    def _placed(self, ids: Value, place: Place | None = None) -> Value:
        vectors = ops.affine(self.vectors(ids), self.size**0.5, 0.0)
        result: Value = self.before(self.places(vectors, place))
        return result

    def forward(self, ids: Value, lengths: Value, targets: Value) -> Value:
        memory = self.net.encoder(self._placed(ids), lengths)
        batch = targets.shape[0]
        row = ops.as_value(ids.graph, self.vectors.weight)[:1]
        one = ids.graph.full((batch, 1), 1.0, batched=True)
        vectors = ops.reshape(ops.multiply(one, row), (batch, 1, self.size))
        if targets.shape[1] > 1:
            vectors = ops.concatenate(vectors, self.vectors(targets[:, :-1]), axis=1)
        vectors = ops.affine(vectors, self.size**0.5, 0.0)
        x = self.before(self.places(vectors))
        logits: Value = self.out(self.net.decoder(x, memory, memory_lengths=lengths))
        return logits

    def write(
        self, ids: Value, lengths: Value, *, steps: int, **options: Any
    ) -> tuple[Value, Value, Value]:
        """See `ops.beam_search`."""
        decoder = self.net.decoder
        memory = self.net.encoder(self._placed(ids), lengths)
        seen = [part for pair in decoder.project_memory(memory) for part in pair]
        caches = [part for pair in decoder.cache(memory, steps) for part in pair]
        batch, positions = ids.shape
        lengths = checked_lengths(ids.graph, lengths, batch, positions, type(self).__name__)
        mask = valid_steps(lengths, positions)

        def step(
            x: Value, states: tuple[Value, ...], given: tuple[Value, ...]
        ) -> tuple[Value, tuple[Value, ...]]:
            (written, *rest), (mask, *looked_at) = states, given
            place, there = Place(written), steps_within(mask)
            pairs = [list(zip(part[::2], part[1::2], strict=True))
                     for part in (rest, looked_at)]  # fmt: skip
            x = self.before(self.places(x, place))
            y, new = decoder.step(x, pairs[0], place, pairs[1], there)
            carried = [part for pair in new for part in pair]
            return self.out(y), (place.after, *carried)

        def embed(symbols: Value) -> Value:
            return ops.affine(self.vectors(symbols), self.size**0.5, 0.0)

        start = Place.start(memory, steps)
        return ops.beam_search(
            step,
            embed,
            (start, *caches),
            start=0,
            stop=1,
            steps=steps,
            fixed=(mask, *seen),
            **options,
        )
