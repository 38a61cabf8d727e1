"""Texts that language models write, symbol by symbol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.data.ptb import END
from fastnn.data.text import Vocabulary
from fastnn.errors import OptionError
from fastnn.tasks.language import LanguageModel
from fastnn.tasks.transformer_lm import TransformerModel


def sample(
    model: LanguageModel | TransformerModel,
    prime: Sequence[int] | NDArray[np.int64],
    length: int,
    *,
    temperature: float = 1.0,
    seed: int = 0,
    precision: str = "highest",
) -> list[int]:
    """Draw symbols one after the other, each from the model's distribution after those before.

    State, or keys and values, are kept, so a symbol costs one step of the net.

    Args:
        model: a model with one stream (`LanguageModel.with_streams`).
        prime: ids that the text begins with, at least one.
        length: how many symbols to draw.
        temperature: divides the logits: below 1 likely symbols become more likely; 0 always takes
            the likeliest.
        seed: the text follows from it.
        precision: of products, see `Module.predict`. At "bf16" an LSTM's weights are read in 16
            bits, on a CPU in half the time.

    Returns the drawn ids, without `prime`.
    """
    if model.streams != 1:
        raise OptionError(
            f"sample: expected a model with one stream, got {model.streams}; use with_streams(1)"
        )
    if len(prime) == 0:
        raise OptionError("sample: expected at least one symbol to begin with, got none")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise OptionError(f"sample: expected a temperature >= 0, got {temperature}")
    if length < 0:
        raise OptionError(f"sample: expected a length >= 0, got {length}")
    random = np.random.default_rng(seed)
    reader = model.reader(precision)
    logits = np.zeros(model.symbols)
    for symbol in prime:
        logits = reader.feed(int(symbol))
    drawn: list[int] = []
    while len(drawn) < length:
        drawn.append(_draw(logits, temperature, random))
        logits = reader.feed(drawn[-1])
    return drawn


def _draw(logits: NDArray[Any], temperature: float, random: np.random.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    scores = logits.astype(np.float64) / temperature
    chances = np.exp(scores - scores.max())
    return int(min(np.searchsorted(np.cumsum(chances), random.random() * chances.sum()),
                   len(chances) - 1))  # fmt: skip


def write_text(
    model: LanguageModel | TransformerModel,
    vocabulary: Vocabulary,
    length: int,
    *,
    unit: str = "character",
    prime: str = "",
    temperature: float = 1.0,
    seed: int = 0,
    precision: str = "highest",
) -> str:
    """A text: `prime` and the model's continuation of it; see `sample`.

    Without `prime` it begins after the end of a line (of a sentence, for words).

    Raises DataError if `prime` has a character that the model does not know.
    """
    end = END if unit == "word" else "\n"
    start = end if end in vocabulary else vocabulary.symbols[0]
    before = prime.split() if unit == "word" else list(prime)
    drawn = sample(
        model, vocabulary.encode(before or [start]), length, temperature=temperature, seed=seed,
        precision=precision,
    )  # fmt: skip
    symbols = [*before, *vocabulary.decode(drawn)]
    if unit != "word":
        return "".join(symbols)
    lines = " ".join("\n" if symbol == END else symbol for symbol in symbols)
    return lines.replace(" \n ", "\n").replace(" \n", "\n")
