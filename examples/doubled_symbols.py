"""Why trimming repeats can't write a doubled symbol, and CTC's blank can.

    python examples/doubled_symbols.py

Words of the letters s, e and n are "said": a letter lasts two to four frames, and begins with a
click. A first net is told the letter of every frame, which is more than one knows in general. Its
answer is read by merging repeats, so that "s s e e e e" is "se", however well the net knows where
the second e begins. A second net is told the words alone and has one class more, the blank, which
separates the two (docs/ctc.md).
"""

from __future__ import annotations

import argparse
from itertools import groupby, pairwise, product
from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import nn, optim

LETTERS, BLANK = "sen", "-"


def trimmed(frames: str) -> str:
    """What a sequence of frames says where repeats are merged, and blanks removed after that."""
    return "".join(symbol for symbol, _ in groupby(frames) if symbol != BLANK)


def ways(word: str, steps: int, classes: str) -> int:
    """How many sequences of so many frames of these classes say a word."""
    return sum(trimmed("".join(frames)) == word for frames in product(classes, repeat=steps))


def said(
    count: int, seed: int, letters: int = 5
) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Words, frames (words, steps, features), their numbers, and the letter of each, -1 at the end:
    a feature for each letter, one for the click, and noise in all."""
    random = np.random.default_rng(seed)
    steps = 4 * letters
    frames = 0.1 * random.standard_normal((count, steps, len(LETTERS) + 1)).astype(np.float32)
    lengths, of_frames = np.zeros(count, np.int64), np.full((count, steps), -1)
    words = []
    for row in range(count):
        word = random.integers(len(LETTERS), size=random.integers(2, letters + 1))
        for letter in word:
            begin = int(lengths[row])
            end = lengths[row] = begin + random.integers(2, 5)
            frames[row, begin:end, letter] += 1
            frames[row, begin, -1] += 1
            of_frames[row, begin:end] = letter
        words.append("".join(LETTERS[letter] for letter in word))
    return words, frames, lengths, of_frames


class Net(nn.Module):
    def __init__(self, classes: int, units: int = 16):
        self.lstm = nn.LSTM(len(LETTERS) + 1, units, bidirectional=True)
        self.logits = nn.Linear(2 * units, classes)

    def forward(self, frames: Any, lengths: Any) -> Any:
        return self.logits(self.lstm(frames, lengths=lengths)[0])


class Spelling(Net):
    """The same, with what `CTCLoss` wants to know."""

    def forward(self, frames: Any, lengths: Any) -> Any:
        return super().forward(frames, lengths), lengths


def main(arguments: list[str] | None = None) -> dict[str, dict[str, float]]:
    """Train both; returns the shares of words that each gets right, without and with doubled
    letters, and the share of frames that the first one knows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--words", type=int, default=400, help="words to train with")
    parser.add_argument("--epochs", type=int, default=30)
    given = parser.parse_args(arguments)

    print("sequences of 5 frames that say    'se'   'see'")
    for name, classes in (("letters alone", LETTERS), ("letters and blank", LETTERS + BLANK)):
        print(f"{name:<30} {ways('se', 5, classes):>7} {ways('see', 5, classes):>7}")

    words, frames, lengths, of_frames = said(given.words, 0)
    wanted, heard, numbers, truth = said(200, 1)
    doubled = np.array([any(a == b for a, b in pairwise(w)) for w in wanted])

    def rates(found: list[str]) -> dict[str, float]:
        right = np.array([a == b for a, b in zip(found, wanted, strict=True)])
        return {"plain": float(right[~doubled].mean()), "doubled": float(right[doubled].mean())}

    def train(model: nn.Module, loss: Any, targets: Any) -> fnn.Trainer:
        trainer = fnn.Trainer(model, loss, optim.Adam(lr=1e-2))
        trainer.fit((frames, lengths), targets, epochs=given.epochs, batch_size=40, verbose=False)
        return trainer

    first = train(Net(len(LETTERS)), nn.CrossEntropyLoss(ignore_index=-1), of_frames)
    classes = first.predict(heard, numbers).argmax(axis=2)
    read = ["".join(LETTERS[k] for k in row[:n]) for row, n in zip(classes, numbers, strict=True)]
    found = {"trimmed": rates([trimmed(frames) for frames in read])}
    found["trimmed"]["frames"] = float((classes == truth)[truth >= 0].mean())

    labels = np.full((len(words), max(map(len, words))), -1)
    for row, word in enumerate(words):
        labels[row, : len(word)] = [1 + LETTERS.index(letter) for letter in word]
    second = train(Spelling(1 + len(LETTERS)), nn.CTCLoss(blank=0), labels)
    logits, _ = second.predict(heard, numbers)
    decoder = nn.CTCDecoder([BLANK, *LETTERS], beam=0)
    found["ctc"] = rates(decoder.text(logits, numbers))

    print("\nwords right                      without  with doubled letters")
    for name, key in (("letters of frames, trimmed", "trimmed"), ("CTC", "ctc")):
        print(f"{name:<32} {found[key]['plain']:>7.1%} {found[key]['doubled']:>7.1%}")
    print(f"(the first net knows {found['trimmed']['frames']:.1%} of the frames)")
    k = int(np.flatnonzero(doubled)[0])
    path = "".join((BLANK + LETTERS)[c] for c in logits[k, : numbers[k]].argmax(axis=1))
    print(f"\n{wanted[k]!r}: frames {read[k]} read {trimmed(read[k])!r}")
    print(f"{'':{len(wanted[k]) + 2}}  CTC's  {path} read {trimmed(path)!r}")
    return found


if __name__ == "__main__":
    main()
