"""Symbols as numbers, and sequences as batches.

Ids are int64 everywhere, as embeddings and losses read them.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn import files
from fastnn.errors import DataError, OptionError

#: `bucket_batches` sorts by length within so many batches
POOL = 100


class Vocabulary:
    """Symbols (words, characters, tags) and their ids 0, 1, 2, …

    Args:
        symbols: the symbols in the order of their ids, without repetitions.
        unknown: the symbol that stands for all others. Without it, encoding a symbol that is not in
            the vocabulary is an error.
        padding: the symbol that pads short sequences.

    `unknown` and `padding` must be among the symbols.

    Raises DataError for a symbol that comes twice, for an `unknown` or `padding` that is not among
    the symbols, and, where there is no `unknown`, for a look-up of a symbol that it lacks.

    >>> vocabulary = Vocabulary(["<unk>", "the", "cat"], unknown="<unk>")
    >>> vocabulary.encode(["the", "dog"])
    array([1, 0])
    >>> vocabulary.decode([2, 1])
    ['cat', 'the']
    """

    def __init__(
        self, symbols: Iterable[str], *, unknown: str | None = None, padding: str | None = None
    ):
        self.symbols = tuple(symbols)
        self.unknown = unknown
        self.padding = padding
        self._ids = {symbol: k for k, symbol in enumerate(self.symbols)}
        if len(self._ids) != len(self.symbols):
            twice = next(s for s, n in Counter(self.symbols).items() if n > 1)
            raise DataError(f"vocabulary: expected each symbol once, got {twice!r} again")
        for role, symbol in (("unknown", unknown), ("padding", padding)):
            if symbol is not None and symbol not in self._ids:
                raise DataError(f"vocabulary: {role} {symbol!r} is not among the symbols")

    @classmethod
    def build(
        cls,
        tokens: Iterable[str],
        *,
        min_count: int = 1,
        max_size: int | None = None,
        unknown: str | None = "<unk>",
        padding: str | None = None,
        special: Sequence[str] = (),
    ) -> Vocabulary:
        """Build the vocabulary of a text: the most frequent symbols first, ties in alphabetical
        order.

        `padding` comes first (so its id is 0), then `special`. `unknown` is placed by its count if
        it occurs in the text, and after `special` if it does not.

        Args:
            tokens: all symbols of the text, in any order.
            min_count: leave out symbols that occur less often.
            max_size: largest size of the vocabulary, including the symbols below.
            unknown, padding: as for the class; None for none.
            special: further symbols to include in any case.

        Raises OptionError for a `max_size` without room for `special` and the like.

        >>> Vocabulary.build("to be or not to be".split(), min_count=2, padding="<pad>").symbols
        ('<pad>', '<unk>', 'be', 'to')
        """
        if max_size is not None and max_size < 1:
            raise OptionError(f"max_size: expected 1 or more, got {max_size}")
        counts = Counter(tokens)
        first = [] if padding is None else [padding]
        first += special
        if unknown is not None and counts[unknown] == 0:
            first.append(unknown)
        first = list(dict.fromkeys(first))
        rest = [s for s, n in counts.items() if n >= min_count or s == unknown]
        rest = sorted(set(rest) - set(first), key=lambda s: (-counts[s], s))
        if max_size is not None:
            room = max_size - len(first)
            if unknown in rest[max(room, 0) :]:
                room -= 1
                first.append(str(unknown))
                rest.remove(str(unknown))
            if room < 0:
                raise OptionError(f"max_size: expected room for {first}, got {max_size}")
            rest = rest[:room]
        return cls([*first, *rest], unknown=unknown, padding=padding)

    def __len__(self) -> int:
        return len(self.symbols)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self._ids

    def __iter__(self) -> Iterator[str]:
        return iter(self.symbols)

    def __getitem__(self, symbol: str) -> int:
        """The id of `symbol`, or of the unknown symbol."""
        found = self._ids.get(symbol)
        if found is None:
            if self.unknown is None:
                raise DataError(
                    f"{symbol!r} is not in the vocabulary of {len(self)} symbols, which has no "
                    "symbol for unknown ones"
                )
            return self._ids[self.unknown]
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self._state() == other._state()

    def __hash__(self) -> int:
        return hash((self.symbols, self.unknown, self.padding))

    def __repr__(self) -> str:
        return (
            f"Vocabulary({len(self)} symbols, unknown={self.unknown!r}, padding={self.padding!r})"
        )

    def encode(self, tokens: Iterable[str]) -> NDArray[np.int64]:
        """Ids of the symbols, int64, shape ``(len(tokens),)``; a string is read as characters.

        Raises DataError for a symbol that is not in a vocabulary without `unknown`.
        """
        if self.unknown is None:
            try:
                return np.array([self._ids[token] for token in tokens], np.int64)
            except KeyError as error:
                self[error.args[0]]  # says what is wrong
                raise
        ids, other = self._ids, self._ids[self.unknown]
        return np.array([ids.get(token, other) for token in tokens], np.int64)

    def decode(self, ids: ArrayLike) -> list[str]:
        """Symbols of a sequence of ids.

        Raises DataError for anything but ids of the vocabulary.
        """
        wanted = np.asarray(ids)
        if wanted.size == 0:
            return []
        if wanted.ndim != 1 or wanted.dtype.kind not in "iu":
            raise DataError(
                f"decode: expected a sequence of ids, got {wanted.dtype} {wanted.shape}"
            )
        if wanted.min() < 0 or wanted.max() >= len(self):
            raise DataError(
                f"decode: expected ids in 0..{len(self) - 1}, got {wanted.min()}..{wanted.max()}"
            )
        return [self.symbols[k] for k in wanted.tolist()]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the vocabulary as JSON."""
        text = json.dumps(self._state(), ensure_ascii=False, indent=0)
        files.write_text(files.as_path(path), text + "\n", "vocabulary")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Vocabulary:
        """Read what `save` wrote. Raises DataError if the file is something else."""
        path = files.as_path(path)
        text = files.read_text(path, "vocabulary")
        try:
            state = json.loads(text)
            symbols, roles = state["symbols"], {k: state[k] for k in ("unknown", "padding")}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{path}: not a vocabulary ({files.one_line(repr(error))})") from None
        if not isinstance(symbols, list) or not all(isinstance(s, str) for s in symbols):
            raise DataError(f"{path}: not a vocabulary (symbols are not strings)")
        if not all(role is None or isinstance(role, str) for role in roles.values()):
            raise DataError(f"{path}: not a vocabulary (unknown and padding are strings or null)")
        return cls(symbols, **roles)

    def _state(self) -> dict[str, Any]:
        return {
            "unknown": self.unknown,
            "padding": self.padding,
            "symbols": list(self.symbols),
        }


def batchify(
    ids: ArrayLike, batch: int, steps: int, *, ignore: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut a text into mini-batches of `batch` streams, for a language model that keeps its state.

    The text is divided into `batch` streams of equal length that are read in parallel. Row b of
    mini-batch k + 1 continues where row b of mini-batch k ends. The targets are the inputs shifted
    by one symbol.

    Args:
        ids: the text, shape ``(symbols,)``.
        batch: the number of streams.
        steps: the length of a sequence in a mini-batch.
        ignore: None drops the end of the text that does not fill a mini-batch (fewer than ``batch *
            steps`` symbols). A number keeps it: missing inputs are 0 and their targets are `ignore`
            (which do not count if that is the loss's `ignore_index`), so that every symbol but the
            first is a target once. With one stream this gives the exact perplexity.

    Returns inputs and targets, int64, shape ``(mini-batches, batch, steps)``. To train on them,
    pass ``x.reshape(-1, steps)`` with ``batch_size=batch`` and ``shuffle=False``.

    Raises DataError for a text too short for one mini-batch, OptionError for sizes below 1.

    >>> x, y = batchify(range(13), batch=2, steps=3)
    >>> x.tolist()
    [[[0, 1, 2], [6, 7, 8]], [[3, 4, 5], [9, 10, 11]]]
    >>> y[1].tolist()
    [[4, 5, 6], [10, 11, 12]]
    """
    _positive(batch=batch, steps=steps)
    text = _text(ids)
    pairs = max(len(text) - 1, 0)
    if ignore is None:
        chunks = pairs // batch // steps
    else:
        chunks = -(-pairs // (batch * steps))
    if chunks == 0:
        needed = batch * steps + 1 if ignore is None else 2
        raise DataError(
            f"batchify: expected at least {needed} symbols for batch={batch}, steps={steps}, got "
            f"{len(text)}"
        )
    length = chunks * steps
    own = length if ignore is None else -(-pairs // batch)  # symbols of a stream
    x = np.zeros((batch, length), np.int64)
    y = np.full((batch, length), ignore or 0, np.int64)
    for b in range(batch):
        part = text[b * own : min((b + 1) * own, pairs) + 1]
        count = max(len(part) - 1, 0)
        x[b, :count] = part[:count]
        y[b, :count] = part[1:]
    shape = (batch, chunks, steps)
    return (
        np.ascontiguousarray(x.reshape(shape).swapaxes(0, 1)),
        np.ascontiguousarray(y.reshape(shape).swapaxes(0, 1)),
    )


def windows(
    ids: ArrayLike, steps: int, stride: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut a text into separate pieces, for a language model that starts each from an empty state.

    Args:
        ids: the text, shape ``(symbols,)``.
        steps: the length of a piece.
        stride: distance between the starts of successive pieces; by default `steps`.

    Returns inputs and targets (one symbol later), int64, shape ``(pieces, steps)``: read-only views
    of the text, even if they overlap. Symbols that do not fill the last piece are left out.

    Raises DataError for a text too short for one piece, OptionError for sizes below 1.

    >>> x, y = windows(range(7), steps=3, stride=2)
    >>> x.tolist(), y.tolist()
    ([[0, 1, 2], [2, 3, 4]], [[1, 2, 3], [3, 4, 5]])
    """
    stride = steps if stride is None else stride
    _positive(steps=steps, stride=stride)
    text = _text(ids)
    if len(text) <= steps:
        raise DataError(f"windows: expected more than {steps} symbols, got {len(text)}")
    view = np.lib.stride_tricks.sliding_window_view(text, steps)
    return view[:-1:stride], view[1::stride]


def bucket_batches(
    lengths: ArrayLike, batch_size: int, seed: int = 0, epoch: int = 0, *, drop_last: bool = False
) -> list[NDArray[np.int64]]:
    """Group sequences of similar length into mini-batches, so that they need little padding.

    The sequences are shuffled, sorted by length within pools of 100 mini-batches and cut into
    mini-batches, which are shuffled in turn. The order depends only on the arguments; each epoch
    has its own.

    Args:
        lengths: steps of each sequence, shape ``(N,)``.
        batch_size: sequences per mini-batch.
        seed, epoch: determine the order; both at least 0.
        drop_last: leave out some sequences, different ones in each epoch, so that all mini-batches
            are full. Otherwise one of them may be smaller.

    Returns a list with the row numbers, int64, of the sequences in each mini-batch. Without
    `drop_last` every sequence is in exactly one of them.

    Raises OptionError for a batch size below 1; DataError for lengths of another shape.

    >>> [rows.tolist() for rows in bucket_batches([5, 9, 5, 9], batch_size=2)]
    [[2, 0], [3, 1]]
    """
    _positive(batch_size=batch_size)
    wanted = np.asarray(lengths)
    if wanted.ndim != 1 or len(wanted) == 0:
        raise DataError(f"bucket_batches: expected lengths (N,), got shape {wanted.shape}")
    random = np.random.default_rng([seed, epoch])
    order = np.argsort(random.random(len(wanted)), kind="stable")
    if drop_last:
        order = order[: len(order) // batch_size * batch_size]
    batches = []
    pool = POOL * batch_size
    for start in range(0, len(order), pool):
        rows = order[start : start + pool]
        rows = rows[np.argsort(wanted[rows], kind="stable")]
        batches += [rows[k : k + batch_size] for k in range(0, len(rows), batch_size)]
    places = np.argsort(random.random(len(batches)), kind="stable")
    return [batches[k].astype(np.int64) for k in places]


def _text(ids: ArrayLike) -> NDArray[np.int64]:
    text = np.asarray(ids)
    if text.ndim != 1 or (text.size and text.dtype.kind not in "iu"):
        raise DataError(
            f"expected a text as a sequence of ids, got {text.dtype} of shape {text.shape}"
        )
    return text.astype(np.int64, copy=False)


def _positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise OptionError(f"{name}: expected 1 or more, got {number}")
