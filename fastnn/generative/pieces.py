"""Long sequences, cut to one length."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.errors import DataError, OptionError, check_whole

#: target of what is no sample of the sequence, or not to be learned
IGNORED = -1


def pieces(
    sequences: Any, length: int, context: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Sequences of any length as pieces of one length, for `WaveNet.fit`.

    A piece after a sequence's first one begins with samples that the piece before has ended with:
    they lead up to it, and are not learned again.

    Args:
        sequences: arrays of levels, shape (samples,) each.
        length: samples of a piece.
        context: samples that lead up to a piece, below `length`: the net's receptive field, or
            fewer.

    Returns:
        Levels, shape (pieces, length), 0 past a sequence's end; targets, -1 past the end and for
        what leads up to a piece; and each piece's sequence, shape (pieces,).

    Raises OptionError for a length below 1, and for a context that is not below it; DataError for
    no sequences, and for sequences that are not whole numbers.

    >>> import numpy as np
    >>> from fastnn.generative import pieces
    >>> x, targets, of = pieces([np.arange(5), np.arange(2)], length=4, context=2)
    >>> x.tolist(), targets.tolist(), of.tolist()
    ([[0, 1, 2, 3], [2, 3, 4, 0], [0, 1, 0, 0]], [[0, 1, 2, 3], [-1, -1, 4, -1], [0, 1, -1, -1]], \
[0, 0, 1])
    """
    check_whole("pieces", 1, length=length)
    check_whole("pieces", 0, context=context)
    if context >= length:
        raise OptionError(f"pieces: expected a context below the length {length}, got {context}")
    x, targets, of = [], [], []
    for number, sequence in enumerate(sequences):
        levels = np.asarray(sequence)
        if levels.ndim != 1 or levels.dtype.kind not in "iu":
            raise DataError(
                f"pieces: expected sequences of whole numbers, got {levels.dtype} of shape "
                f"{levels.shape}"
            )
        begin = 0
        while begin == 0 or begin + context < len(levels):
            part = levels[begin : begin + length]
            row, target = np.zeros(length, np.int64), np.full(length, IGNORED, np.int64)
            row[: len(part)] = target[: len(part)] = part
            if begin:
                target[:context] = IGNORED
            x.append(row)
            targets.append(target)
            of.append(number)
            begin += length - context
    if not x:
        raise DataError("pieces: expected sequences, got none")
    return np.stack(x), np.stack(targets), np.array(of, np.int64)
