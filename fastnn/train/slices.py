"""Arrays, cut into mini-batches in an epoch's order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastnn.engine.arrays import Arrays, Hold, check_lengths
from fastnn.errors import DataError, OptionError
from fastnn.runtime.orders import generator
from fastnn.train.base import Data

#: the order in which each batch has as many samples of each class
BALANCED = "balanced"


def permutation(seed: int, epoch: int, samples: int) -> np.ndarray:
    """The data order of an epoch: a function of seed and epoch alone."""
    return generator(seed, epoch).permutation(samples)


def balanced(seed: int, epoch: int, labels: np.ndarray) -> np.ndarray:
    """An order in which each run of as many samples as there are classes has one of each: samples
    of rare classes come again and again, those of frequent ones take turns over the epochs."""
    rng = generator(seed, epoch)
    classes, found = np.unique(labels, return_inverse=True)
    samples, count = len(labels), len(classes)
    turns = rng.random((-(-samples // count), count)).argsort(axis=1).reshape(-1)[:samples]
    order = np.empty(samples, np.int64)
    for k in range(count):
        places, members = np.flatnonzero(turns == k), np.flatnonzero(found == k)
        rounds = -(-len(places) // len(members))
        drawn = [rng.permutation(members) for _ in range(rounds)]
        order[places] = np.concatenate([*drawn, members])[: len(places)]
    return order


def order_of(data: Data, shuffle: bool | str, seed: int, epoch: int) -> np.ndarray:
    """The data order of an epoch, for data that are shuffled."""
    if shuffle == BALANCED:
        return balanced(seed, epoch, np.asarray(data[1].arrays[0]).reshape(-1))
    return permutation(seed, epoch, len(data[0]))


def check_shuffle(shuffle: Any, data: Data) -> None:
    """Raise OptionError for an order that there is none of."""
    if shuffle is None or isinstance(shuffle, (bool, np.bool_)):
        return
    if not isinstance(shuffle, str) or shuffle != BALANCED:
        raise OptionError(f"shuffle: expected True, False or {BALANCED!r}, got {shuffle!r}")
    y = data[1].arrays
    if len(y) != 1 or np.dtype(y[0].dtype).kind not in "iub" or y[0].size != len(y[0]):
        found = ", ".join(f"{a.dtype} of shape {a.shape}" for a in y) or "none"
        raise OptionError(
            f"shuffle={BALANCED!r}: expected targets that are one class for each sample (whole "
            f"numbers), got {found}; choose shuffle=True"
        )


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
            "the batch size of the previous run"
        )


def description(data: Data, batch: int, shuffle: bool | str, drop_last: bool) -> dict[str, Any]:
    """What a checkpoint says about the data."""
    return {
        "samples": len(data[0]), "batch_size": batch,
        "shuffle": shuffle if shuffle == BALANCED else bool(shuffle),
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

    def __init__(self, data: Data, batch: int, shuffle: bool | str, drop_last: bool, seed: int):
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
            order = order_of(self.data, self.shuffle, self.seed, self.epoch)
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
