"""What surprises a language model: its loss word by word, as a picture."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastnn import files, nn
from fastnn.data.text import Vocabulary, batchify
from fastnn.graph.value import Value
from fastnn.tasks.language import EXACT, IGNORED, LanguageModel, overlapping
from fastnn.tasks.transformer_lm import TransformerModel
from fastnn.train.stateful import reset_states

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: symbols of the text that are drawn one by one
DRAWN = 16
_LOSS = nn.CrossEntropyLoss(ignore_index=IGNORED, reduction="none")


class _Losses(nn.Module):
    """The loss of each of the symbols that follow."""

    def __init__(self, model: LanguageModel | TransformerModel):
        self.model = model

    def forward(self, ids: Value, following: Value) -> Value:
        return _LOSS.rows(self.model(ids), following)


def symbol_losses(
    model: LanguageModel | TransformerModel, ids: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Negative log-likelihood of each symbol of a text but the first, in nats, read in one stream:
    shape (symbols - 1,). Their mean is `fastnn.tasks.language.mean_loss`.

    Raises DataError for a text of fewer than 2 symbols.
    """
    one = model.with_streams(1)
    if isinstance(one, TransformerModel):
        x, y = (a[:, None] for a in overlapping(ids, 1, one.context))
    else:
        x, y = batchify(ids, 1, EXACT, ignore=IGNORED)
        reset_states(one)
    predict: Any = _Losses(one).predictor()
    parts = [predict(a, b)[b >= 0] for a, b in zip(x, y, strict=True)]
    return np.concatenate(parts).astype(np.float64)


def by_frequency(
    losses: NDArray[np.float64], following: NDArray[np.int64], counts: NDArray[np.int64]
) -> list[tuple[int, int, float]]:
    """How well symbols are known by how often they occur in the training text, in powers of ten.

    Args:
        losses: of the symbols of a text. following: these symbols, of the same shape.
        counts: how often each symbol of the vocabulary occurs in the training text.

    Returns for 0, 1 to 9, 10 to 99 and so on, as far as the text has any: the least of these
    counts, how many symbols of the text have them, and their perplexity.

    >>> by_frequency(np.log([2.0, 8.0, 3.0]), np.array([0, 0, 1]), np.array([12, 3]))
    [(1, 1, 3.0...), (10, 2, 4.0...)]
    """
    seen = counts[following]
    tenth = np.where(seen > 0, np.floor(np.log10(np.maximum(seen, 1)) + 1e-12), -1).astype(int)
    return [
        (0 if k < 0 else 10**k, int((tenth == k).sum()), math.exp(losses[tenth == k].mean()))
        for k in range(-1, int(tenth.max()) + 1)
        if (tenth == k).any()
    ]


def draw_surprise(
    model: LanguageModel | TransformerModel, vocabulary: Vocabulary, train: NDArray[np.int64],
    text: NDArray[np.int64], path: str | os.PathLike[str] | None = None,
) -> Figure:  # fmt: skip
    """Perplexity by the frequency of words, and the surprise at each of a text's first words, in
    bits, as a picture.

    Args:
        model, vocabulary: what is measured, and its symbols.
        train: ids of the text that it was trained with, where frequencies are from.
        text: ids of the text that it is measured on.
        path: where the picture is saved.

    Raises ImportError if matplotlib is missing, DataError for a text of fewer than 2 symbols.
    """
    figure = files.new_figure(11, 4.2)
    left, right = figure.subplots(1, 2)
    losses, following = symbol_losses(model, text), text[1:]
    rows = by_frequency(losses, following, np.bincount(train, minlength=len(vocabulary)))
    names = ["0" if n == 0 else f"{n:,} to {10 * n - 1:,}" for n, _, _ in rows]
    left.bar(names, [perplexity for *_, perplexity in rows], color="0.7")
    for k, (_, count, perplexity) in enumerate(rows):
        share = 100 * count / len(losses)
        left.text(k, perplexity, f"{share:.0f} %" if share >= 1 else f"{share:.1g} %",
                  ha="center", va="bottom")  # fmt: skip
    left.axhline(math.exp(losses.mean()), color="C3", linewidth=1)
    left.set(xlabel="times in the training text", ylabel="perplexity", yscale="log")
    left.margins(y=0.08)  # for the first share
    if len(rows) == 1:  # one height alone gives no limits
        left.set_ylim(rows[0][2] / 2, rows[0][2] * 2)
    left.tick_params(axis="x", rotation=30)
    left.set_title("by frequency, with shares of the text; all together: red", fontsize="medium")
    shown = following[:DRAWN]
    right.barh(range(len(shown)), losses[:DRAWN] / math.log(2), color="0.7")
    right.set_yticks(range(len(shown)), vocabulary.decode(shown))
    right.invert_yaxis()
    right.set_xlabel("surprise, bits")
    right.set_title("the text's first words, after the very first", fontsize="medium")
    if path is not None:
        files.save_figure(figure, path)
    return figure
