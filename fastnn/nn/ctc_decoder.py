"""Text of a net's class scores for frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, check_numbers, check_whole, where
from fastnn.graph.value import Value
from fastnn.nn.module import Module
from fastnn.ops.beam import WIDEST
from fastnn.public import publish

#: the end of a sentence, as language models call it
STOP = "</s>"


class CTCDecoder(Module):
    """Reads the outputs of a net trained with `CTCLoss`, by prefix beam search, or greedily.

    Args:
        symbols: what each class stands for, the blank's included (anything, it is not looked at).
        beam: prefixes that are kept, at most 10,000; 0 reads the likeliest path only
            (`ops.ctc_greedy`).
        best: how many readings are returned, at most `beam`.
        blank: the blank's class.
        words: the words that there are; None: any row of symbols. They are written in symbols, with
            the symbol " " between.
        model: an n-gram model of words (with `words`) or of symbols: `fastnn.data.NGram`, or any
            object whose method `arcs(tokens)` gives such arrays.
        weight: of the model's log-probabilities beside those of the net (shallow fusion).
        bonus: added for each word (or symbol): makes up for long sentences being less likely.

    Inputs: logits, shape (batch, steps, classes), and the numbers of their steps (batch,), or none;
    outputs: see `ops.ctc_beam`. `text` gives strings.

    Raises OptionError for symbols or words that are not texts, for a `blank` that is no symbol, a
    `beam` out of range, words or a model without a beam, and words that the symbols cannot spell;
    ShapeError for logits of another number of classes than there are symbols.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> decoder = nn.CTCDecoder(["", "a", "b"], beam=4)
    >>> decoder.text(np.log([[[0.1, 0.8, 0.1], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]]))
    ['aa']
    """

    def __init__(
        self, symbols: Sequence[str], beam: int = 16, *, best: int = 1, blank: int = 0,
        words: Iterable[str] | None = None, model: Any = None, weight: float = 0.5,
        bonus: float = 0.0,
    ):  # fmt: skip
        check_whole("CTCDecoder", 0, WIDEST, beam=beam)
        check_whole("CTCDecoder", 0, blank=blank)
        check_whole("CTCDecoder", 1, best=best)
        check_numbers("CTCDecoder", weight=weight, bonus=bonus)
        if model is not None and not hasattr(model, "arcs"):
            raise OptionError(f"CTCDecoder: expected a language model or None, got {model!r}")
        self.symbols = _texts("symbols", symbols)
        words = None if words is None else _texts("words", words)
        if blank >= len(self.symbols):
            raise OptionError(
                f"CTCDecoder: expected blank among {len(self.symbols)} symbols, got {blank}"
            )
        if not beam and (words is not None or model is not None):
            raise OptionError(
                "CTCDecoder: words and a model need a beam, got beam=0; take 8 or more"
            )
        self.beam, self.best, self.blank = beam, best, blank
        self.weight, self.bonus = float(weight), float(bonus)
        self.word_list: tuple[np.ndarray, np.ndarray] | None = None
        self.space, tokens = -1, [s if k != blank else "" for k, s in enumerate(self.symbols)]
        if words is not None:
            tokens = sorted(set(words))
            self.word_list, self.space = self._tree(tokens)
        self.model = None if model is None else model.arcs([*tokens, STOP])
        self.end = -1 if model is None else len(tokens)

    def _tree(self, words: list[str]) -> tuple[tuple[np.ndarray, np.ndarray], int]:
        """The list as a tree, and the class of the space."""
        places = {s: k for k, s in enumerate(self.symbols) if k != self.blank}
        if " " not in places:
            raise OptionError("CTCDecoder: words need a symbol ' ' to stand between them")
        children: list[dict[int, int]] = [{}]
        ends: list[int] = [-1]
        for number, word in enumerate(words):
            unknown = sorted({c for c in word if c not in places or c == " "})
            if unknown or not word:
                raise OptionError(
                    f"CTCDecoder: expected words made of the symbols, got {word!r} with {unknown}"
                )
            at = 0
            for c in word:
                if places[c] not in children[at]:
                    children[at][places[c]] = len(children)
                    children.append({})
                    ends.append(-1)
                at = children[at][places[c]]
            ends[at] = number
        child = np.full((len(children), len(self.symbols)), -1, np.int64)
        for at, branches in enumerate(children):
            for label, place in branches.items():
                child[at, label] = place
        return (child, np.array(ends, np.int64)), places[" "]

    def forward(self, x: Value, lengths: Value | None = None) -> tuple[Value, ...]:
        if x.ndim == 3 and x.shape[2] != len(self.symbols):
            raise ShapeError(
                f"{where(x.graph.scope)}CTCDecoder: expected logits of {len(self.symbols)} "
                f"classes, as many as symbols, got {x.shape[2]}; give the symbols that the net was "
                "trained with"
            )
        if not self.beam:
            return ops.ctc_greedy(x, lengths, blank=self.blank)
        return ops.ctc_beam(
            x, lengths, beam=self.beam, best=self.best, blank=self.blank,
            word_list=self.word_list, space=self.space, model=self.model, end=self.end,
            weight=self.weight, bonus=self.bonus,
        )  # fmt: skip

    def text(self, logits: Any, lengths: Any = None) -> list[str]:
        """The best reading of each sequence.

        Args:
            logits: shape (batch, steps, classes). lengths: (batch,), or None for all steps.
        """
        given = (logits,) if lengths is None else (logits, lengths)
        labels, counts, *_ = self.predict(*given)
        if labels.ndim == 3:
            labels, counts = labels[:, 0], counts[:, 0]
        return [
            "".join(self.symbols[k] for k in row[: max(int(n), 0)])
            for row, n in zip(labels, counts, strict=True)
        ]

    def extra(self) -> str:
        return f"{len(self.symbols)} symbols, beam={self.beam}"


def _texts(name: str, given: Any) -> list[str]:
    """Texts as a list: OptionError for anything else."""
    found: list[Any] = list(given) if isinstance(given, Iterable) else [None]
    if not all(isinstance(text, str) for text in found):
        raise OptionError(f"CTCDecoder: expected {name} to be texts, one for each, got {given!r}")
    return found


publish(globals(), type)
