"""Words as vectors of their characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, check_whole, is_whole, where
from fastnn.graph.value import Value
from fastnn.nn.containers import ModuleList
from fastnn.nn.convolution import Conv1d
from fastnn.nn.linear import Embedding
from fastnn.nn.module import Module
from fastnn.nn.regularization import Dropout
from fastnn.public import publish


class CharCNN(Module):
    """A vector for each word, made of its characters by convolution and the largest element over
    time (Ma and Hovy, "End-to-end sequence labeling via bi-directional LSTM-CNNs-CRF", ACL 2016).

    Args:
        characters: how many there are. Number 0 is padding.
        embedding: size of a character's vector.
        filters: features of a word, for each width.
        widths: characters that a filter sees: one number or several, from 1 on.
        dropout: probability of zero of the characters' vectors.

    Attributes:
        vectors: the embedding. convolutions: a `Conv1d` for each width.
        output_size: features of a word.

    Inputs: characters, integers (..., most characters), and how many of them each word has,
    integers (...,), or none; output: (..., output_size), 0 for words without characters. What
    stands past a word's end does not matter.

    Raises OptionError for sizes that are none, ShapeError for inputs that do not fit.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> spell = nn.CharCNN(30, filters=8)
    >>> spell.predict(np.array([[[3, 4, 0], [5, 0, 0]]]), np.array([[2, 1]])).shape
    (1, 2, 8)
    """

    _own_layout = True

    def __init__(
        self, characters: int, *, embedding: int = 30, filters: int = 30,
        widths: int | Sequence[int] = 3, dropout: float = 0.0,
    ):  # fmt: skip
        check_whole("CharCNN", 1, characters=characters, embedding=embedding, filters=filters)
        sizes: Any = (widths,) if is_whole(widths, 1) else widths
        if not isinstance(sizes, Sequence) or not sizes or not all(is_whole(n, 1) for n in sizes):
            raise OptionError(f"CharCNN: expected widths of 1 or more characters, got {widths!r}")
        self.widths = tuple(int(n) for n in sizes)
        self.output_size = filters * len(self.widths)
        self.vectors = Embedding(characters, embedding, padding_idx=0)
        self.dropout = Dropout(dropout)
        self.convolutions = ModuleList(
            [
                Conv1d(embedding, filters, width, padding="same", channels="last")
                for width in self.widths
            ]
        )

    def forward(self, characters: Value, lengths: Value | None = None) -> Value:
        scope = where(characters.graph.scope)
        if characters.ndim < 2 or characters.dtype != "i":
            raise ShapeError(
                f"{scope}CharCNN: expected characters as integers of shape (..., characters), got "
                f"{characters.shape} of type {characters.dtype!r}"
            )
        outer, most = characters.shape[:-1], characters.shape[-1]
        if lengths is not None and lengths.shape != outer:
            raise ShapeError(
                f"{scope}CharCNN: expected numbers of characters of shape {outer}, one for each "
                f"word, got {lengths.shape}"
            )
        words = 1
        for size in outer:
            words *= size
        if lengths is not None:
            lengths = ops.reshape(lengths, words)
        x = self.dropout(self.vectors(ops.reshape(characters, words, most)))
        found = [self._features(layer, x, lengths) for layer in self.convolutions]
        y = found[0] if len(found) == 1 else ops.concatenate(*found)
        return ops.reshape(y, *outer, self.output_size)

    def _features(self, layer: Any, x: Value, lengths: Value | None) -> Value:
        if lengths is None:
            return ops.global_max_pool(layer(x), "last")
        y, kept = layer(x, lengths=lengths)
        return ops.global_max_pool(y, "last", kept)

    def extra(self) -> str:
        return f"widths={self.widths}"


publish(globals(), type)
