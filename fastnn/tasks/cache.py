"""A cache beside a language model: words that were read not long ago are likely to come again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastnn.errors import check_numbers, check_whole
from fastnn.tasks.language import LanguageModel
from fastnn.tasks.mixture import check_share, mixed_loss

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
        check_numbers("NeuralCache", theta=self.theta)
        check_share("NeuralCache", self.share)

    def mean_loss(self, model: LanguageModel, ids: NDArray[np.int64]) -> float:
        """Mean negative log-likelihood of a text's symbols but the first, in nats, read in one
        stream; compare with `fastnn.tasks.language.mean_loss`. See `mixture.mixed_loss` for the
        arguments and errors."""
        return mixed_loss(model, ids, self)

    def shares(self, count: int) -> NDArray[np.float64]:
        """Its share at each place: none at the first, where there is nothing to remember yet."""
        shares = np.full(count, float(self.share))
        shares[:1] = 0.0
        return shares

    def probabilities(
        self, states: NDArray[np.float64], ids: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """What the cache says of each symbol but the first: shape (symbols - 1,).

        Args:
            states: what the model's logits are made of, shape (symbols - 1, size).
            ids: the text, shape (symbols,).
        """
        following = ids[1:]
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
