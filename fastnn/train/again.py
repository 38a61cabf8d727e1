"""A `fit` on the very arrays of the one before takes up what was made for it: shapes, programs,
memory.

What the arrays hold is checked each time. What follows from which arrays they are, from the options
and from the model is not worked out again while these are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.engine.arrays import check_finite
from fastnn.runtime.devices import HOST
from fastnn.train.feeds import ArrayFeed

if TYPE_CHECKING:
    from fastnn.train.fit_data import Request
    from fastnn.train.trainer import Trainer


class Latest:
    """The feed of the last `fit`, and for what it was made. The arrays are the caller's: it keeps
    where they lay, no more.

    Args:
        trainer: whose it is.
        asked: what its `fit` was asked for.
        feed: of NumPy arrays that are read where they lie.
    """

    def __init__(self, trainer: Trainer, asked: Request, feed: ArrayFeed):
        self.feed, self.options = feed, _options(asked)
        self.version, self.keeps = trainer.version, trainer.keep_gradients
        self.bound: list[Any] = [bound for bound in (feed.full, feed.rest) if bound is not None]
        self.places = _places([array for part in feed.data for array in part.arrays])

    def serves(self, trainer: Trainer, asked: Request) -> bool:
        """Whether the feed that this call asks for would be the same."""
        feed, memory = self.feed, trainer.session.memory
        return (
            _plain(trainer, asked)
            and _options(asked) == self.options
            and self.version == trainer.version
            and self.keeps == trainer.keep_gradients
            and _places(_given(asked)) == self.places
            and memory.get("order") is feed.order
            and memory.get("schedule") is feed.rates
            and all(bound.base.reads(memory) for bound in self.bound)
        )


def remember(trainer: Trainer, asked: Request, feed: ArrayFeed) -> None:
    """Note a feed for the next call, if that can be told to be the same by a glance."""
    given = _given(asked)
    arrays = [a for part in feed.data for a in part.arrays]
    alike = len(given) == len(arrays) and all(
        a is b and type(a) is np.ndarray and a.flags.c_contiguous
        for a, b in zip(given, arrays, strict=True)
    )
    trainer.latest = Latest(trainer, asked, feed) if alike and _plain(trainer, asked) else None


def again(trainer: Trainer, asked: Request) -> ArrayFeed | None:
    """The feed of the last `fit`, if this one asks for the same, with its numbers checked.

    Raises DataError for numbers that can't be used.
    """
    latest: Latest | None = trainer.latest
    if latest is None or not latest.serves(trainer, asked):
        return None
    feed = latest.feed
    feed.take_up(_given(asked))
    if asked.check_data:
        check_finite(feed.data[0], "training inputs", trainer.dtype)
        check_finite(feed.data[1], "training targets", trainer.dtype)
    feed.check()
    return feed


def release(trainer: Trainer) -> None:
    """The run is over: its arrays may be resized, and go."""
    if trainer.latest is not None:
        trainer.latest.feed.let_go()
    trainer.session.let_go()


def _plain(trainer: Trainer, asked: Request) -> bool:
    """Whether nothing is asked for but arrays in this process's memory and plain options."""
    return (
        trainer.device == HOST
        and asked.validation is None
        and asked.sample_weight is None
        and (asked.batch_size is None or type(asked.batch_size) is int)
        and (asked.shuffle is None or type(asked.shuffle) is bool)
        and type(asked.drop_last) is bool
    )


def _options(asked: Request) -> tuple[Any, ...]:
    return asked.batch_size, asked.shuffle, asked.drop_last


def _given(asked: Request) -> list[Any]:
    return [asked.x] if asked.y is None else [asked.x, asked.y]


def _places(arrays: list[Any]) -> list[Any]:
    """Where arrays lie and how they are read: they may get another shape or memory in place."""
    found: list[Any] = []
    for array in arrays:
        if type(array) is not np.ndarray:
            return []
        found += array.__array_interface__["data"][0], array.shape, array.strides, array.dtype
    return found
