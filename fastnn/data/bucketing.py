"""Mini-batches of sequences of different lengths, and predictions for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn.data.sequences import pad
from fastnn.data.text import bucket_batches
from fastnn.errors import DataError, OptionError

if TYPE_CHECKING:
    from fastnn.nn.module import Module

#: steps are rounded up to a multiple of it, so that few programs are planned
MULTIPLE = 8


class Buckets:
    """Padded mini-batches for `Trainer.fit`, each of sequences of similar length.

    Each batch is ((inputs..., lengths), targets): inputs padded to the length of the longest
    sequence in the batch, rounded up to a multiple, and the number of valid steps of each sequence.
    All batches are full; the sequences left over are dropped, different ones in each epoch. The
    order is determined by `seed` and the epoch.

    Args:
        inputs: one list of arrays, shapes ``(steps, ...)`` that differ in `steps`, or a tuple of
            such lists for a model with several inputs.
        targets: one number per sequence, shape ``(N,)``, or a list of arrays with one number per
            step, shapes ``(steps,)``.
        batch_size: sequences per mini-batch; at most N.
        multiple: the number of steps of a batch is rounded up to a multiple of this.
        ignore: the target for steps past the end: the loss's `ignore_index`.
        seed: seed of the order.
        transform: a random change of each sequence, new in every epoch: a function of a sequence
            and a `numpy.random.Generator` that returns another, whose length may differ, such as
            `Augment`. The generator depends on the seed, the epoch and the sequence alone. Batches
            are made by the lengths before.

    Raises DataError for no sequences, and for inputs or targets that do not fit each other;
    OptionError for a batch size or a multiple out of range.

    >>> batches = Buckets([np.ones((n, 2)) for n in (3, 9, 4, 8)], [0, 1, 0, 1], batch_size=2)
    >>> sorted((x.shape, lengths.tolist()) for (x, lengths), y in batches)
    [((2, 8, 2), [3, 4]), ((2, 16, 2), [8, 9])]
    """

    def __init__(
        self,
        inputs: Sequence[ArrayLike] | tuple[Sequence[ArrayLike], ...],
        targets: ArrayLike | Sequence[ArrayLike],
        batch_size: int,
        *,
        multiple: int = MULTIPLE,
        ignore: int = -1,
        seed: int = 0,
        transform: Callable[[NDArray[Any], np.random.Generator], ArrayLike] | None = None,
    ):
        self.inputs = _lists(inputs)
        self.lengths = _lengths(self.inputs)
        self.targets = [np.asarray(target) for target in targets]  # type: ignore[union-attr]
        if len(self.targets) != len(self.lengths):
            raise DataError(
                f"Buckets: expected as many targets as sequences, got {len(self.targets)} targets "
                f"and {len(self.lengths)} sequences"
            )
        if not 1 <= batch_size <= len(self.lengths):
            raise OptionError(
                f"batch_size: expected 1..{len(self.lengths)}, the number of sequences, got "
                f"{batch_size}"
            )
        _check_multiple(multiple)
        self.batch_size, self.multiple, self.ignore, self.seed = batch_size, multiple, ignore, seed
        self.epoch = 0
        self.transform = transform
        if transform is not None and (len(self.inputs) > 1 or self.targets[0].ndim):
            raise OptionError(
                "Buckets: expected a transform with one input and one target for each sequence, "
                "got several; change the sequences before"
            )

    def set_epoch(self, epoch: int) -> None:
        """Set the order for this epoch; the trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths) // self.batch_size

    def __iter__(self) -> Iterator[tuple[tuple[NDArray[Any], ...], NDArray[Any]]]:
        batches = bucket_batches(
            self.lengths, self.batch_size, self.seed, self.epoch, drop_last=True
        )
        for rows in batches:
            targets = [self.targets[k] for k in rows]
            if self.transform is not None:
                yield self._changed(rows), np.array(targets)
                continue
            if targets[0].ndim:
                steps = _rounded(self.lengths[rows], self.multiple)
                y = pad(targets, self.ignore, steps)[0]
            else:
                y = np.array(targets)
            yield _padded(self.inputs, self.lengths, rows, self.multiple), y

    def _changed(self, rows: Any) -> tuple[NDArray[Any], ...]:
        """A batch of the sequences as the transform changes them in this epoch."""
        (given,), changed = self.inputs, []
        assert self.transform is not None
        for k in rows:
            rng = np.random.default_rng([self.seed, self.epoch, int(k)])
            made = np.asarray(self.transform(given[k], rng))
            if made.ndim != given[k].ndim or made.shape[1:] != given[k].shape[1:] or not len(made):
                raise DataError(
                    f"Buckets: expected the transform to return a sequence of shape (steps, "
                    f"{', '.join(map(str, given[k].shape[1:]))}), got {made.shape}; of {k}"
                )
            changed.append(made.astype(given[k].dtype, copy=False))
        lengths = np.array([len(sequence) for sequence in changed], np.int64)
        return pad(changed, 0, _rounded(lengths, self.multiple))[0], lengths


def predict_sequences(
    model: Module,
    inputs: Sequence[ArrayLike] | tuple[Sequence[ArrayLike], ...],
    *,
    batch_size: int = 64,
    multiple: int = MULTIPLE,
    per_step: bool = False,
) -> list[NDArray[Any]]:
    """A model's outputs for sequences of different lengths, in the order of `inputs`.

    Args:
        model: a model of (inputs..., lengths) with one output.
        inputs, multiple: as for `Buckets`.
        batch_size: sequences, of similar length, computed at a time.
        per_step: whether the output has a row for each step; rows past a sequence's end are then
            removed.

    Raises DataError for no sequences, and for inputs of different lengths; OptionError for a
    `multiple` below 1.

    >>> import fastnn as fnn
    >>> class Sums(fnn.nn.Module):
    ...     def forward(self, x, lengths):
    ...         return fnn.ops.sum(x, axis=1)
    >>> [y.tolist() for y in predict_sequences(Sums(), [np.ones((2, 1)), np.ones((5, 1))])]
    [[2.0], [5.0]]
    """
    lists = _lists(inputs)
    lengths = _lengths(lists)
    _check_multiple(multiple)
    order = np.argsort(lengths, kind="stable")
    found: list[Any] = [None] * len(lengths)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        outputs = model.predict(*_padded(lists, lengths, rows, multiple), batch_size=batch_size)
        for k, output in zip(rows, outputs, strict=True):
            found[k] = output[: lengths[k]] if per_step else output
    return found


def _lists(inputs: Any) -> tuple[list[NDArray[Any]], ...]:
    several = inputs if isinstance(inputs, tuple) else (inputs,)
    return tuple([np.asarray(sequence) for sequence in sequences] for sequences in several)


def _lengths(inputs: tuple[list[NDArray[Any]], ...]) -> NDArray[np.int64]:
    lengths = [np.array([len(sequence) for sequence in part], np.int64) for part in inputs]
    if not lengths or len(lengths[0]) == 0:
        raise DataError("expected at least one sequence, got none")
    for other in lengths[1:]:
        if not np.array_equal(other, lengths[0]):
            raise DataError("expected sequences of the same lengths in all inputs")
    return lengths[0]


def _check_multiple(multiple: int) -> None:
    if multiple < 1:
        raise OptionError(f"multiple: expected 1 or more, got {multiple}")


def _rounded(lengths: NDArray[np.int64], multiple: int) -> int:
    return max(-(-int(lengths.max()) // multiple), 1) * multiple


def _padded(
    inputs: tuple[list[NDArray[Any]], ...], lengths: NDArray[np.int64], rows: Any, multiple: int
) -> tuple[NDArray[Any], ...]:
    steps = _rounded(lengths[rows], multiple)
    return (*(pad([part[k] for k in rows], 0, steps)[0] for part in inputs), lengths[rows])
