"""A cache beside a language model: words that were read not long ago are likely to come again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import nn
from fastnn.data.text import batchify
from fastnn.errors import OptionError, check_numbers, check_whole
from fastnn.graph.value import Value
from fastnn.tasks.language import EXACT, LanguageModel
from fastnn.train.stateful import reset_states

#: places that are compared with their past at a time
BLOCK = 256


@dataclass(frozen=True)
class NeuralCache:
    """The continuous cache of Grave, Joulin & Usunier 2017 ("Improving neural language models with
    a continuous cache"): a second distribution over words, mixed with the model's::

        p_cache(w) ~ sum over the last `size` places i with w_(i+1) = w of exp(theta h_t h_i)
        p(w) = (1 - share) p_model(w) + share p_cache(w)

    h are what the logits are made of. Nothing is trained.

    Args:
        size: places that are remembered.
        theta: how much like the present state a remembered one has to be.
        share: of the cache, in [0, 1].

    >>> NeuralCache(size=100).share
    0.1
    """

    size: int = 500
    theta: float = 0.3
    share: float = 0.1

    def __post_init__(self) -> None:
        check_whole("NeuralCache", 1, size=self.size)
        check_numbers("NeuralCache", theta=self.theta, share=self.share)
        if not 0 <= self.share <= 1:
            raise OptionError(f"NeuralCache: expected a share in [0, 1], got {self.share}")

    def mean_loss(self, model: LanguageModel, ids: NDArray[np.int64]) -> float:
        """Mean negative log-likelihood of a text's symbols but the first, in nats, read in one
        stream; compare with `fastnn.tasks.language.mean_loss`.

        Args:
            model: the language model, an LSTM.
            ids: the text.

        Raises OptionError for another kind of model.
        """
        if not isinstance(model, LanguageModel):
            raise OptionError(
                f"NeuralCache: expected a LanguageModel, whose states last for the whole text, got "
                f"{type(model).__name__}"
            )
        states, loss = _read(model.with_streams(1), ids)
        own = np.exp(-loss)
        found = self._probabilities(states, np.asarray(ids)[1:])
        share = np.full(len(own), self.share)
        share[0] = 0.0  # there is nothing to remember yet
        return float(-np.log((1.0 - share) * own + share * found).mean())

    def _probabilities(
        self, states: NDArray[np.float64], following: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """What the cache says of each next symbol."""
        found = np.zeros(len(states))
        for begin in range(0, len(states), BLOCK):
            end = min(begin + BLOCK, len(states))
            first = max(0, begin - self.size)
            scores = self.theta * (states[begin:end] @ states[first:end].T)
            now, past = np.arange(begin, end)[:, None], np.arange(first, end)[None]
            known = (past < now) & (past >= now - self.size)
            scores = np.where(known, scores, -np.inf)
            top = scores.max(axis=1, keepdims=True, initial=-1e300)
            weights = np.exp(scores - top)
            same = following[None, first:end] == following[begin:end, None]
            total = weights.sum(axis=1)
            found[begin:end] = (weights * same).sum(axis=1) / np.where(total > 0, total, 1.0)
        return found


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
