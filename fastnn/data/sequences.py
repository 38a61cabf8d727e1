"""Sequences of different lengths as arrays: padded side by side, or packed one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn.errors import DataError


def pad(
    sequences: Sequence[ArrayLike], value: float = 0, length: int | None = None
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Put sequences of different lengths into one array, padded at their ends.

    Args:
        sequences: arrays of equal element type, shapes ``(steps, ...)`` that differ in `steps`.
        value: the padding.
        length: number of steps of the result; by default that of the longest sequence.

    Returns the array, shape ``(len(sequences), length, ...)``, and the lengths of the sequences,
    int64, shape ``(len(sequences),)``.

    Raises DataError if there are no sequences, one is longer than `length`, or shapes do not fit.

    >>> pad([[1, 2, 3], [4]])
    (array([[1, 2, 3],
           [4, 0, 0]]), array([3, 1]))
    """
    arrays, kind, inner = _arrays("pad", sequences)
    lengths = np.array([len(array) for array in arrays], np.int64)
    longest = int(lengths.max())
    length = longest if length is None else length
    if longest > length:
        raise DataError(f"pad: expected at most {length} steps, got {longest}; cut the sequence")
    padded = np.full((len(arrays), length, *inner), value, kind)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return padded, lengths


def unpad(padded: ArrayLike, lengths: ArrayLike) -> list[NDArray[Any]]:
    """The sequences of a padded array: its rows, each up to its length.

    Args:
        padded: shape ``(N, steps, ...)``, such as `pad` returns, or a model's outputs.
        lengths: the valid steps of each row, shape ``(N,)``.

    Returns views of the rows. Raises DataError if the lengths do not fit.

    >>> unpad([[1, 2, 3], [4, 0, 0]], [3, 1])
    [array([1, 2, 3]), array([4])]
    """
    array = np.asarray(padded)
    if array.ndim < 2:
        raise DataError(f"unpad: expected shape (sequences, steps, ...), got {array.shape}")
    steps = _lengths("unpad", lengths)
    if len(steps) != len(array):
        raise DataError(f"unpad: expected {len(array)} lengths, one for each row, got {len(steps)}")
    if steps.max(initial=0) > array.shape[1]:
        raise DataError(
            f"unpad: expected lengths of at most {array.shape[1]} steps, got {steps.max()}"
        )
    return [row[:length] for row, length in zip(array, steps, strict=True)]


def pack(sequences: Sequence[ArrayLike]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Join sequences of different lengths end to end in one array, without padding.

    Use it to keep many sequences in memory or in a file. `unpack` returns them without a copy;
    `pad` and `Buckets` make mini-batches of them. (Recurrent layers take padded arrays with
    lengths, and spend no work on padding.)

    Args:
        sequences: arrays, shapes ``(steps, ...)`` that differ in `steps`.

    Returns the array, shape ``(sum of steps, ...)``, and the lengths, int64, one for each sequence.

    Raises DataError if there are no sequences or their shapes do not fit.

    >>> pack([[1, 2, 3], [4]])
    (array([1, 2, 3, 4]), array([3, 1]))
    """
    arrays, kind, inner = _arrays("pack", sequences)
    lengths = np.array([len(array) for array in arrays], np.int64)
    packed = np.empty((int(lengths.sum()), *inner), kind)
    for part, array in zip(unpack(packed, lengths), arrays, strict=True):
        part[...] = array.reshape(part.shape)
    return packed, lengths


def unpack(packed: ArrayLike, lengths: ArrayLike) -> list[NDArray[Any]]:
    """The sequences of a packed array, as views of it.

    Args:
        packed: shape ``(sum of lengths, ...)``, such as `pack` returns.
        lengths: the steps of each sequence, in order.

    Raises DataError if the lengths do not add up.

    >>> unpack([1, 2, 3, 4], [3, 1])
    [array([1, 2, 3]), array([4])]
    """
    array, steps = np.asarray(packed), _lengths("unpack", lengths)
    if array.ndim == 0 or steps.sum() != len(array):
        raise DataError(
            f"unpack: expected lengths that add up to the array's first number, got "
            f"{steps.sum()} and shape {array.shape}"
        )
    return np.split(array, np.cumsum(steps)[:-1]) if len(steps) else []


def _arrays(
    what: str, sequences: Sequence[ArrayLike]
) -> tuple[list[NDArray[Any]], np.dtype[Any], tuple[int, ...]]:
    """The sequences as arrays, their common element type, and the shape of a step."""
    arrays = [np.asarray(sequence) for sequence in sequences]
    if not arrays:
        raise DataError(f"{what}: expected at least one sequence, got none")
    inner = {array.shape[1:] for array in arrays}
    if len(inner) > 1 or min(array.ndim for array in arrays) == 0:
        shapes = sorted({array.shape for array in arrays})[:4]
        raise DataError(
            f"{what}: expected shapes that differ in their first number only, got {shapes}"
        )
    full = [array for array in arrays if len(array)] or arrays  # an empty list has no type
    return arrays, np.result_type(*{array.dtype for array in full}), inner.pop()


def _lengths(what: str, lengths: ArrayLike) -> NDArray[np.int64]:
    steps = np.asarray(lengths)
    if steps.ndim != 1 or steps.dtype.kind not in "iu" or (steps.size and steps.min() < 0):
        raise DataError(
            f"{what}: expected lengths as a list of whole numbers >= 0, got shape {steps.shape} of "
            f"{steps.dtype}"
        )
    return steps.astype(np.int64)
