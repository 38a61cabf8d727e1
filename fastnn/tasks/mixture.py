"""A language model mixed with others: an n-gram model, a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastnn import nn
from fastnn.data.kneser_ney import START, STOP
from fastnn.data.ngram import NGram
from fastnn.data.text import Vocabulary, batchify
from fastnn.errors import DataError, OptionError, check_numbers, check_whole
from fastnn.graph.value import Value
from fastnn.tasks.language import EXACT, LanguageModel
from fastnn.train.stateful import reset_states


class Beside(Protocol):
    """What can be mixed with a language model."""

    def shares(self, count: int) -> NDArray[np.float64]:
        """Its share at each of the text's places but the first, in [0, 1]: shape (count,)."""

    def probabilities(
        self, states: NDArray[np.float64], ids: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """What it says of each symbol but the first, from those before it: shape (symbols - 1,).

        Args:
            states: what the language model's logits are made of, shape (symbols - 1, size).
            ids: the text, shape (symbols,).
        """


@dataclass(frozen=True)
class NGramBeside:
    """An n-gram model whose distribution is mixed with that of a net (Mikolov et al. 2010,
    "Recurrent neural network based language model")::

        p(w) = (1 - share) p_net(w) + share p_ngram(w)

    The two err at different symbols, since one has counted what the other had to compress.

    Args:
        ngram: the n-gram model.
        vocabulary: the symbols that the net's ids stand for.
        share: of the n-gram model, in [0, 1].

    >>> from fastnn.data.text import Vocabulary
    >>> beside = NGramBeside.train([0, 1, 0, 1], Vocabulary("ab"), order=2)
    >>> beside.probabilities(None, np.array([0, 1, 0])).shape
    (2,)
    """

    ngram: NGram
    vocabulary: Vocabulary
    share: float = 0.4

    def __post_init__(self) -> None:
        check_share("NGramBeside", self.share)

    @classmethod
    def train(
        cls,
        ids: Sequence[int] | NDArray[np.int64],
        vocabulary: Vocabulary,
        order: int,
        share: float = 0.4,
    ) -> NGramBeside:
        """Count a text, as a single sentence.

        Args:
            ids: the text that the net was trained with.
            vocabulary: its symbols.
            order: how many symbols the longest n-grams have, 1 or more.
            share: of the n-gram model, in [0, 1].

        Raises OptionError for an order or a share out of its range, DataError for an empty text,
        for ids that the vocabulary lacks, and for a vocabulary with the signs that n-gram models
        begin and end a sentence with.
        """
        check_whole("NGramBeside", 1, order=order)
        if len(ids) == 0:
            raise DataError("NGramBeside: expected a text of at least 1 symbol, got none")
        for sign in (START, STOP):
            if sign in vocabulary:
                raise DataError(
                    f"NGramBeside: expected a vocabulary without {sign!r}, which means the end of "
                    "a sentence to n-gram models; rename that symbol"
                )
        check_share("NGramBeside", share)
        return cls(NGram.train([vocabulary.decode(ids)], order, vocabulary), vocabulary, share)

    def shares(self, count: int) -> NDArray[np.float64]:
        """Its share at each place: the same everywhere."""
        return np.full(count, float(self.share))

    def probabilities(self, states: Any, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """What the n-gram model says of each symbol but the first: shape (symbols - 1,).

        Args:
            states: not needed.
            ids: the text, shape (symbols,).
        """
        symbols, reach = self.vocabulary.decode(ids), self.ngram.order - 1
        scores = [
            self.ngram.score(symbols[i], symbols[max(0, i - reach) : i])
            for i in range(1, len(symbols))
        ]
        return np.power(10.0, np.array(scores))


def mixed_loss(model: LanguageModel, ids: NDArray[np.int64], *beside: Beside) -> float:
    """Mean negative log-likelihood of a text's symbols but the first, in nats, read in one stream,
    by a language model mixed with others; compare with `fastnn.tasks.language.mean_loss`.

    Args:
        model: the language model, an LSTM.
        ids: the text, at least two symbols.
        beside: what it is mixed with (`NGramBeside`, `fastnn.tasks.cache.NeuralCache`); the model's
            own share is what they leave.

    Raises OptionError for another kind of model, for what can't be mixed with it, and for shares of
    more than 1 together; DataError for a text that is too short, for ids that the model has no
    symbol for, and for another vocabulary than the model's.
    """
    if not isinstance(model, LanguageModel):
        raise OptionError(
            f"{type(beside[0]).__name__ if beside else 'mixed_loss'}: expected a LanguageModel, "
            f"whose states last for the whole text, got {type(model).__name__}"
        )
    ids = _checked(model, ids, beside)
    states, loss = _read(model.with_streams(1), ids)
    total, left = np.zeros(len(loss)), np.ones(len(loss))
    for other in beside:
        shares = other.shares(len(loss))
        total += shares * other.probabilities(states, ids)
        left -= shares
    if left.min() < -1e-9:
        raise OptionError(
            f"mixed_loss: expected shares of at most 1 together, got {1.0 - left.min():g}"
        )
    with np.errstate(divide="ignore"):  # what nobody thinks possible costs infinity
        return float(-np.log(np.maximum(left, 0.0) * np.exp(-loss) + total).mean())


def check_share(name: str, share: float) -> None:
    """OptionError unless `share` is a number in [0, 1]."""
    check_numbers(name, share=share)
    if not 0 <= share <= 1:
        raise OptionError(f"{name}: expected a share in [0, 1], got {share}")


def _checked(
    model: LanguageModel, ids: NDArray[np.int64], beside: Sequence[Beside]
) -> NDArray[np.int64]:
    """The text as an array, if model, text and what is beside it fit."""
    for other in beside:
        if not (hasattr(other, "shares") and hasattr(other, "probabilities")):
            raise OptionError(
                "mixed_loss: expected an NGramBeside, a NeuralCache or the like beside the model, "
                f"got {type(other).__name__}; NGramBeside(ngram, vocabulary) mixes an NGram"
            )
        if isinstance(other, NGramBeside) and len(other.vocabulary) != model.symbols:
            raise DataError(
                f"mixed_loss: expected n-grams of the model's {model.symbols} symbols, got a "
                f"vocabulary of {len(other.vocabulary)}; give the one that the model was trained "
                "with"
            )
    ids = np.atleast_1d(ids)
    if len(ids) < 2:
        raise DataError(f"mixed_loss: expected at least 2 symbols, got {len(ids)}")
    if ids.dtype.kind in "iu" and not 0 <= ids.min() <= ids.max() < model.symbols:
        raise DataError(
            f"mixed_loss: expected ids in 0..{model.symbols - 1}, the model's symbols, got "
            f"{ids.min()}..{ids.max()}; encode the text with the vocabulary of the model"
        )
    return ids


class _Read(nn.Module):
    """The states that logits are made of, and the loss of the symbols that follow."""

    def __init__(self, model: LanguageModel):
        self.model = model

    def forward(self, ids: Value, following: Value) -> tuple[Value, Value]:
        states = self.model.states(ids)
        loss = nn.CrossEntropyLoss(reduction="none").rows(self.model.logits(states), following)
        return states, loss


def _read(
    model: LanguageModel, ids: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """States (symbols - 1, size) and losses (symbols - 1,) of a text."""
    x, y = batchify(ids, 1, EXACT, ignore=0)
    predict: Any = _Read(model).predictor()
    reset_states(model)
    parts = [predict(a, b) for a, b in zip(x, y, strict=True)]
    states, loss = (np.concatenate([p[k][0] for p in parts]) for k in (0, 1))
    count = len(ids) - 1
    return states[:count].astype(np.float64), loss[:count].astype(np.float64)
