"""What `Trainer.fit` is asked for: its data, cut into batches, and its validation data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastnn.engine.arrays import check_some_count, is_array
from fastnn.errors import DataError, OptionError, is_whole
from fastnn.optim.full_batch import FullBatch
from fastnn.train.again import again, remember
from fastnn.train.base import Data
from fastnn.train.batches import gives_batches
from fastnn.train.exchange import partners
from fastnn.train.feeds import ArrayFeed, BatchFeed, SlicedFeed
from fastnn.train.hooks import Callback
from fastnn.train.slices import BALANCED, check_shuffle, nbytes, on_host

if TYPE_CHECKING:
    from fastnn.train.full_batch import FullFeed
    from fastnn.train.trainer import Trainer

LOG = logging.getLogger("fastnn")
Feed: TypeAlias = "ArrayFeed | BatchFeed | FullFeed"
HeldOut = Callable[[], dict[str, float]]


@dataclass(frozen=True)
class Request:
    """The arguments of `Trainer.fit`, as they were given; see there."""

    x: Any
    y: Any
    epochs: int
    batch_size: int | None
    shuffle: bool | str | None
    drop_last: bool
    validation: Any
    callbacks: Callback | Iterable[Callback | None] | None
    verbose: bool
    resume: str | Path | None
    check_data: bool
    sample_weight: Any


def prepared(trainer: Trainer, asked: Request) -> tuple[Feed, HeldOut | None]:
    """What gives the mini-batches, and what evaluates the validation data.

    Raises DataError, ShapeError, OptionError: what was asked for can't be done.
    """
    if (known := again(trainer, asked)) is not None:
        return known, None
    trainer.latest = None
    given = gives_batches(asked.x, asked.y)
    batch = checked_batch_size(asked.batch_size, 32)
    full = trainer.optimizer if isinstance(trainer.optimizer, FullBatch) else None
    validation = asked.validation
    shuffle = BALANCED if asked.shuffle == BALANCED else asked.shuffle is not False
    if isinstance(validation, np.floating):
        validation = float(validation)
    held_out = _validation(trainer, validation, batch, asked.check_data)
    if given:
        if full is not None:
            from fastnn.train.full_batch import check_request

            check_request(full, True, None, 0, False, False)
        _refuse_for_batches(asked, validation)
        return BatchFeed(trainer, asked.x, asked.check_data), held_out
    data = trainer.checked(asked.x, asked.y, asked.sample_weight, asked.check_data, "training")
    if isinstance(validation, float):
        data, kept = _split(data, validation)
        held_out = _held_out(trainer, kept, batch)
    if partners(trainer.on_gradients) is None:  # others may have samples that count
        check_some_count(data[2], "training data")
    if full is not None:
        return _full_feed(trainer, asked, full, data), held_out
    check_shuffle(asked.shuffle, data)
    wanted, batch = batch, _cut(batch, len(data[0]), asked.batch_size is not None)
    _refuse_mixing(trainer, data, batch, shuffle)
    kind: Any = ArrayFeed
    if on_host(data) and not trainer.session.runtime.holds(nbytes(data)):
        kind = SlicedFeed
        LOG.info("the data are larger than the device's memory: they are sent batch by batch")
    feed = kind(trainer, data, batch, shuffle, bool(asked.drop_last))
    if kind is ArrayFeed and batch == wanted:  # else each call is warned
        remember(trainer, asked, feed)
    return feed, held_out


def _full_feed(trainer: Trainer, asked: Request, full: FullBatch, data: Data) -> FullFeed:
    """What runs a full-batch method's iterations: imported where there is one."""
    from fastnn.optim.gauss_newton import GaussNewton
    from fastnn.train.full_batch import FullFeed, check_request
    from fastnn.train.gauss_newton import GaussNewtonFeed

    check_request(full, False, asked.batch_size, len(data[0]), bool(asked.shuffle), asked.drop_last)
    feed = GaussNewtonFeed if isinstance(full, GaussNewton) else FullFeed
    return feed(trainer, data)


def checked_batch_size(given: Any, default: int) -> int:
    if given is None:
        return default
    if not is_whole(given, 1):
        raise OptionError(f"batch_size: expected a whole number >= 1, got {given!r}")
    return int(given)


def _cut(batch: int, samples: int, asked: bool) -> int:
    """The batch size, at most the number of samples."""
    if batch > samples and asked:
        LOG.warning("batch_size %d is more than the %d samples: all make one batch", batch, samples)
    return min(batch, samples)


def _refuse_for_batches(asked: Request, validation: Any) -> None:
    """Options for arrays, where `x` gives batches."""
    if asked.y is not None or isinstance(validation, float) or asked.sample_weight is not None:
        raise OptionError(
            "an iterable of batches gives inputs, targets and sample weights itself, and its "
            "validation data as (x, y) or as batches; expected y=None"
        )
    serves = isinstance(validation, tuple)  # a batch size for the validation's arrays
    for name, given in (
        ("batch_size", asked.batch_size if not serves else None),
        ("shuffle", asked.shuffle or None),
        ("drop_last", asked.drop_last or None),
    ):
        if given is not None:
            raise OptionError(
                f"{name}: expected none, because x gives batches as they are; cut, shuffle and "
                "drop in the iterable, or pass arrays"
            )


def _refuse_mixing(trainer: Trainer, data: Data, batch: int, shuffle: bool | str) -> None:
    """Arrays whose samples can't be cut into batches."""
    x, y, w = data
    if batch == len(x) and not shuffle:
        return
    if not trainer.evaluation().cuts(x.specs, y.specs, w.specs).outputs:
        raise DataError(
            "x: expected outputs with a row for each sample that depends on that sample alone, so "
            "that arrays can be cut and shuffled, got others (recurrent layers with "
            "batch_first=False have time first); pass an iterable of whole batches, or "
            f"batch_size={len(x)} and shuffle=False"
        )


def _validation(trainer: Trainer, given: Any, batch: int, check_data: bool) -> HeldOut | None:
    """What evaluates the validation data; refuses them now, not after an epoch."""
    if given is None or isinstance(given, float):
        if given is not None and not 0 < given < 1:
            raise OptionError(f"validation: expected a share in (0, 1), got {given}")
        return None
    pair = isinstance(given, tuple) or (
        isinstance(given, list) and len(given) == 2 and all(is_array(part) for part in given)
    )
    if pair and len(given) in (2, 3):
        weight = given[2] if len(given) == 3 else None
        data = trainer.checked(given[0], given[1], weight, check_data, "validation")
        return _held_out(trainer, data, batch)
    if not pair and gives_batches(given, None):
        if isinstance(given, Iterator):
            raise OptionError(
                "validation: expected something that can be iterated after each epoch, got a "
                f"{type(given).__name__}; pass a list of batches, or a class with __iter__"
            )
        return lambda: trainer.evaluation().of_batches(given, check_data)
    raise OptionError(
        "validation: expected (x, y), (x, y, sample weights), batches or a share, got "
        f"{_kind(given)}"
    )


def _held_out(trainer: Trainer, data: Data, batch: int) -> HeldOut:
    trainer.evaluation().steps(*data, batch)
    return lambda: trainer.evaluation().of_arrays(*data, batch)


def _kind(value: Any) -> str:
    size = f" of {len(value)}" if isinstance(value, (tuple, list)) else ""
    return type(value).__name__ + size


def _split(data: Data, share: float) -> tuple[Data, Data]:
    """The first samples, to train on, and this share of them, the last ones."""
    samples = len(data[0])
    keep = samples - max(round(samples * share), 1)
    if keep < 1:
        raise OptionError("validation: leaves no sample to train on; lower the share")
    first, last = (
        tuple(arrays.take(rows) if arrays.arrays else arrays for arrays in data)
        for rows in (slice(keep), slice(keep, None))
    )
    return first, last  # type: ignore[return-value]
