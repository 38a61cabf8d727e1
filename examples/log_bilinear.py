"""The log-bilinear language model on Penn Treebank: a baseline without hidden units.

    python examples/log_bilinear.py

It predicts the vector of the next word as a linear function of the vectors of the last few (Mnih &
Hinton 2007); `docs/language-models.md` compares it with n-grams and LSTMs. Set FASTNN_DATA to use a
folder that has the text, which is downloaded otherwise (6 MB).
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import callbacks, nn, optim
from fastnn.data.ptb import Words, load_ptb
from fastnn.data.text import windows
from fastnn.tasks.language import IGNORED, overlapping
from fastnn.tasks.log_bilinear import LogBilinear

#: words of a sequence
STEPS = 64


def loss() -> nn.CrossEntropyLoss:
    return nn.CrossEntropyLoss(ignore_index=IGNORED)


def sequences(ids: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Sequences that overlap in `order` words, whose loss does not count where it counts in the one
    before."""
    x, y = windows(ids, STEPS + order, STEPS)
    y = np.array(y)
    y[1:, :order] = IGNORED
    return np.ascontiguousarray(x), y


def perplexity(model: LogBilinear, ids: np.ndarray, batch: int, workers: Any) -> float:
    """Of all words of a text but the first, each after all words that the model looks at."""
    x, y = overlapping(ids, 1, STEPS + 2 * model.order)
    trainer = fnn.Trainer(model, loss(), optim.SGD(lr=0.0), workers=workers)
    return math.exp(trainer.evaluate(x, y, batch_size=batch)["loss"])


def main(arguments: list[str] | None = None, words: Words | None = None) -> tuple[float, float]:
    """Train; returns the perplexities of the validation and of the test text."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=int, default=200, help="size of a word's vector")
    parser.add_argument("--order", type=int, default=5, help="words that the model looks at")
    parser.add_argument("--dropout", type=float, default=0.3, help="of the vectors that are read")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=16, help="sequences of a step")
    parser.add_argument("--lr", type=float, default=2e-3, help="at first; it falls to 0")
    parser.add_argument("--workers", default="auto", help="threads")
    given = parser.parse_args(arguments)
    workers = given.workers if given.workers == "auto" else int(given.workers)
    words = words or load_ptb()
    model = LogBilinear(
        len(words.vocabulary), features=given.features, order=given.order, dropout=given.dropout
    )
    x, y = sequences(words.train, given.order)
    steps = -(-len(x) // given.batch_size) * given.epochs
    schedule = optim.schedules.Polynomial(duration=steps)
    adam = optim.Adam(lr=given.lr, clip_global_norm=1.0, schedule=schedule)
    trainer = fnn.Trainer(model, loss(), adam, workers=workers)
    begun = time.process_time()

    def report(epoch: int, logs: dict[str, float]) -> None:
        minutes = (time.process_time() - begun) / 60
        known = perplexity(model, words.valid, given.batch_size, workers)
        print(
            f"epoch {epoch + 1}, {minutes:.1f} minutes of the processor: training loss "
            f"{logs['loss']:.3f}, validation perplexity {known:.1f}",
            flush=True,
        )

    trainer.fit(
        x, y, epochs=given.epochs, batch_size=given.batch_size, verbose=False,
        callbacks=[callbacks.LambdaCallback(on_epoch_end=report)],
    )  # fmt: skip
    found = [
        perplexity(model, part, given.batch_size, workers) for part in (words.valid, words.test)
    ]
    print(f"validation perplexity {found[0]:.1f}, test {found[1]:.1f}")
    return found[0], found[1]


if __name__ == "__main__":
    main()
