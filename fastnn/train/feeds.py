"""Where a trainer's mini-batches come from: arrays in memory, or an iterable of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.data.arrays import Arrays, as_arrays, check_finite, check_lengths, check_ranges
from fastnn.errors import DataError
from fastnn.kernels import clock as words
from fastnn.runtime.interface import Bound
from fastnn.train.session import Session, segments_for

if TYPE_CHECKING:
    from fastnn.train.trainer import Trainer

Poll = Callable[[], None]


def permutation(seed: int, epoch: int, samples: int) -> np.ndarray:
    """The data order of an epoch: a function of seed and epoch alone."""
    key = np.array([seed, epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(samples)


class ArrayFeed:
    """Mini-batches gathered from arrays inside the compiled loop."""

    def __init__(
        self, trainer: Trainer, x: Arrays, y: Arrays, batch: int, shuffle: bool, drop_last: bool
    ):
        check_lengths(x, y)
        if batch > len(x):
            raise DataError(
                f"batch_size: expected at most the number of samples, {len(x)}, got {batch}; "
                "choose a smaller batch"
            )
        self.trainer, self.x, self.batch, self.shuffle = trainer, x, batch, shuffle
        rest = len(x) % batch
        self.samples = len(x) - (rest if drop_last else 0)
        self.steps = -(-self.samples // batch)
        built = trainer.built(x.specs, y.specs, batch, "gather")
        small = trainer.built(x.specs, y.specs, rest, "gather") if rest and not drop_last else None
        check_ranges(x, built.ranges)
        check_ranges(y, built.ranges)
        session = trainer.session
        for name, source in {**x.sources(), **y.sources()}.items():
            session.set(name, source)
        self.order = np.arange(len(x), dtype=np.int64)
        self.rates = np.zeros((max(self.steps, 1), trainer.optimizer.group_count))
        session.set("order", self.order)
        session.set("schedule", self.rates)
        self.full = session.bind(built.program)
        self.rest: Bound | None = session.bind(small.program) if small else None

    def last_bound(self, session: Session) -> Bound:
        """The program of the step at the clock's cursor."""
        left = self.samples - int(session.clock[words.CURSOR])
        return self.rest if self.rest is not None and left < self.batch else self.full

    def steps_done(self, cursor: int) -> int:
        """Steps that the first so many samples of an epoch make."""
        return -(-cursor // self.batch)

    def run_epoch(self, epoch: int, poll: Poll, batches: Any) -> int:
        """Train one epoch from the trainer's cursor on; returns why it stopped early, or 0.

        `batches`, if given, has `before(step)` and `after(step)`, called around every step.
        """
        trainer, session = self.trainer, self.trainer.session
        if self.shuffle:
            self.order[:] = permutation(trainer.seed, epoch, len(self.order))
            session.changed("order")
        begin = trainer.cursor
        if begin > self.samples or (begin % self.batch and begin != self.samples):
            raise DataError(
                f"training goes on after {begin} samples of epoch {epoch + 1}, no multiple "
                f"of the batch size {self.batch} within {self.samples} samples; use the data and "
                "the batch size of the run before"
            )
        first = self.steps_done(begin)
        self.rates[: self.steps - first] = trainer.rates(self.steps - first, self.steps)
        session.changed("schedule")
        session.clock[words.CURSOR] = begin
        segments = segments_for(self.full, self.rest, self.samples, self.batch, begin)
        if not segments:  # the run before was interrupted after the epoch's last step
            return 0
        if batches is None:
            return session.run(segments, poll)
        single = [(bound, 1) for bound, steps in segments for _ in range(steps)]
        for k, segment in enumerate(single):
            self.rates[0] = trainer.rates(1, self.steps)[0]
            session.changed("schedule")
            batches.before(first + k)
            reason = session.run([segment], poll)
            if reason:
                return reason
            batches.after(first + k)
            if trainer.stop_training:
                return words.REQUESTED
        return 0


class BatchFeed:
    """Mini-batches from an iterable of (inputs, targets), one Python turn for each step."""

    def __init__(self, trainer: Trainer, batches: Iterable[Any], check_data: bool):
        self.trainer, self.batches, self.check_data = trainer, batches, check_data
        self.steps = len(batches) if isinstance(batches, Sized) else 0
        self.samples = 0
        self._bound: dict[Any, Bound] = {}
        self._last: Bound | None = None
        self.rates = np.zeros((1, trainer.optimizer.group_count))

    def steps_done(self, cursor: int) -> int:
        """Batches that hold the first so many samples; known once they have come again."""
        return 0

    def run_epoch(self, epoch: int, poll: Poll, batches: Any) -> int:
        """Train one epoch; batches that the trainer's cursor is past are left out."""
        session, step, samples = self.trainer.session, 0, 0
        begin = self.trainer.cursor
        once = isinstance(self.batches, Iterator)
        if once and epoch != self.trainer.first_epoch:
            raise DataError(
                "the iterator of batches is exhausted after one epoch; pass an object that can be "
                "iterated again (a class with __iter__), or epochs=1"
            )
        if hasattr(self.batches, "set_epoch"):
            self.batches.set_epoch(epoch)
        for item in self.batches:
            bound, x, y = self._prepare(item)
            samples += len(x)
            if samples <= begin:  # done before a resume
                step += 1
                continue
            self.rates[0] = self.trainer.rates(1, max(self.steps, 1))[0]
            session.changed("schedule")
            if batches is not None:
                batches.before(step)
            self._write(bound, x, y)
            session.clock[words.CURSOR] = samples - len(x)
            self._last = bound
            reason = session.run([(bound, 1)], poll)
            if reason:
                return reason
            if batches is not None:
                batches.after(step)
            poll()
            step += 1
            if self.trainer.stop_training:
                return words.REQUESTED
        if step == 0:
            raise DataError("the iterable of batches gave none; expected at least one batch")
        self.steps = step
        return 0

    def last_bound(self, session: Session) -> Bound:
        """The program of the last step."""
        assert self._last is not None
        return self._last

    def _prepare(self, item: Any) -> tuple[Bound, Arrays, Arrays]:
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise DataError(f"batches: expected pairs (inputs, targets), got {type(item).__name__}")
        x, y = as_arrays(item[0], "x", "inputs"), as_arrays(item[1], "y", "targets")
        check_lengths(x, y, "batch")
        if self.check_data:
            check_finite(x, "inputs")
            check_finite(y, "targets")
        built = self.trainer.built(x.specs, y.specs, len(x), "direct")
        check_ranges(x, built.ranges)
        check_ranges(y, built.ranges)
        key = id(built)
        if key not in self._bound:
            self.trainer.session.set("schedule", self.rates)
            self._bound[key] = self.trainer.session.bind(built.program)
        return self._bound[key], x, y

    @staticmethod
    def _write(bound: Bound, x: Arrays, y: Arrays) -> None:
        for arrays in (x, y):
            for name, array in zip(arrays.names, arrays.arrays, strict=True):
                bound.write(name, array)
