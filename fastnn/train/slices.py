"""Arrays, cut into mini-batches in an epoch's order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnn.engine.arrays import Arrays, Hold, check_lengths
from fastnn.errors import DataError
from fastnn.train.base import Data


def permutation(seed: int, epoch: int, samples: int) -> np.ndarray:
    """The data order of an epoch: a function of seed and epoch alone."""
    key = np.array([seed, epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(samples)


def check_batch(batch: int, samples: int) -> None:
    """Raise DataError for a batch that is larger than the data."""
    if batch > samples:
        raise DataError(
            f"batch_size: expected at most the number of samples, {samples}, got {batch}; "
            "choose a smaller batch"
        )


def check_place(begin: int, samples: int, batch: int, epoch: int) -> None:
    """Raise DataError where no step of an epoch begins after so many samples."""
    if begin > samples or (begin % batch and begin != samples):
        raise DataError(
            f"training goes on after {begin} samples of epoch {epoch + 1}, no multiple "
            f"of the batch size {batch} within {samples} samples; use the data and "
            "the batch size of the run before"
        )


def description(data: Data, batch: int, shuffle: bool, drop_last: bool) -> dict[str, Any]:
    """What a checkpoint says about the data."""
    return {
        "samples": len(data[0]), "batch_size": batch, "shuffle": bool(shuffle),
        "drop_last": bool(drop_last),
    }  # fmt: skip


def on_host(data: Data) -> bool:
    """Whether all arrays lie in the host's memory."""
    return all(isinstance(a, np.ndarray) for part in data for a in part.arrays)


def nbytes(data: Data) -> int:
    """How many bytes all arrays hold."""
    return sum(int(a.nbytes) for part in data for a in part.arrays)


class Slices:
    """Mini-batches of arrays, each cut when its turn comes.

    Args:
        data: inputs, targets and sample weights.
        batch: samples in a batch; the last one of an epoch may have fewer.
        shuffle, drop_last, seed: as in `Trainer.fit`.
    """

    def __init__(self, data: Data, batch: int, shuffle: bool, drop_last: bool, seed: int):
        x, y, _ = data
        check_lengths(x, y)
        check_batch(batch, len(x))
        self.data, self.batch, self.shuffle, self.seed = data, batch, shuffle, seed
        self.samples = len(x) - (len(x) % batch if drop_last else 0)
        self.hold = Hold(*data)
        self.epoch = 0

    def __len__(self) -> int:
        return -(-self.samples // self.batch)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        order = None
        if self.shuffle:
            order = permutation(self.seed, self.epoch, len(self.data[0]))
        for begin in range(0, self.samples, self.batch):
            end = min(begin + self.batch, self.samples)
            rows: Any = slice(begin, end) if order is None else order[begin:end]
            yield tuple(_given(part, rows) for part in self.data)


def _given(part: Arrays, rows: Any) -> Any:
    """Some rows of inputs, targets or weights, in the form that users give them in."""
    cut = [np.asarray(array[rows]) for array in part.arrays]
    if any(spec.key for spec in part.specs):
        return {spec.key: array for spec, array in zip(part.specs, cut, strict=True)}
    return tuple(cut) if len(cut) > 1 else cut[0] if cut else None
