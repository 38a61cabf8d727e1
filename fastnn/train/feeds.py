"""Where a trainer's mini-batches come from: arrays in memory, or an iterable of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.engine.arrays import Arrays, Hold, check_lengths
from fastnn.engine.session import Session, segments_for
from fastnn.errors import DataError
from fastnn.kernels import control_block
from fastnn.runtime.interface import Bound
from fastnn.runtime.kept import Kept
from fastnn.train.batches import batch_of

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
        self, trainer: Trainer, data: tuple[Arrays, Arrays, Arrays], batch: int, shuffle: bool,
        drop_last: bool,
    ):  # fmt: skip
        x, y, w = data
        check_lengths(x, y)
        if batch > len(x):
            raise DataError(
                f"batch_size: expected at most the number of samples, {len(x)}, got {batch}; "
                "choose a smaller batch"
            )
        self.trainer, self.batch, self.shuffle = trainer, batch, shuffle
        rest = len(x) % batch
        self.samples = len(x) - (rest if drop_last else 0)
        self.steps = -(-self.samples // batch)
        self.data, self.small = data, 0 if drop_last else rest
        self.description = {
            "samples": len(x), "batch_size": batch, "shuffle": bool(shuffle),
            "drop_last": bool(drop_last),
        }  # fmt: skip
        self.hold = Hold(x, y, w)
        session = trainer.session
        self.order = np.arange(len(x), dtype=np.int64)
        self.rates = np.zeros((max(self.steps, 1), trainer.optimizer.group_count))
        session.set("order", self.order)
        session.set("schedule", self.rates)
        self.prepare()

    def prepare(self) -> None:
        """Build and bind the programs: at first, and when the trainer's model has changed."""
        trainer, sizes = self.trainer, [size for size in (self.batch, self.small) if size]
        x, y, w, self.stretch = trainer.stretched(*self.data, True, sizes)
        self.padded = x, y, w
        for name, source in {**x.sources(), **y.sources(), **w.sources()}.items():
            trainer.session.set(name, source)
        built = trainer.built(x.specs, y.specs, self.batch, "gather", w=w.specs)
        small = None
        if self.small:
            small = trainer.built(x.specs, y.specs, self.small, "gather", w=w.specs)
        built.check(x, y)
        self.built = built
        self.full = trainer.session.bind(built.program)
        self.rest: Bound | None = trainer.session.bind(small.program) if small else None
        self.version = trainer.version

    def refresh(self) -> None:
        """Look whether the model has changed (a callback may have frozen something)."""
        self.trainer.refresh()
        if self.version != self.trainer.version:
            self.prepare()

    def renew(self, rows: Any = ...) -> None:
        """Take up what a callback has written to these rows of the arrays, which are read where
        they lie."""
        if self.stretch is not None:
            self.stretch.renew(self.padded, self.data, rows)

    def last_bound(self, session: Session) -> Bound:
        """The program of the step at the control block's cursor."""
        left = self.samples - int(session.control[control_block.CURSOR])
        return self.rest if self.rest is not None and left < self.batch else self.full

    def steps_done(self, cursor: int) -> int:
        """Steps that the first so many samples of an epoch make."""
        return -(-cursor // self.batch)

    def run_epoch(self, epoch: int, poll: Poll, batches: Any) -> int:
        """Train one epoch from the trainer's cursor on; returns why it stopped early, or 0.

        `batches`, if given, has `before(step)` and `after(step)`, called around every step.
        """
        trainer, session = self.trainer, self.trainer.session
        self.refresh()
        self.hold.check()
        self.renew()
        self.built.check(*self.padded[:2])
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
        self.rates[: self.steps - first] = trainer.rates(self.steps - first)
        session.changed("schedule")
        session.control[control_block.CURSOR] = begin
        segments = segments_for(self.full, self.rest, self.samples, self.batch, begin)
        if not segments:  # the run before was interrupted after the epoch's last step
            return 0
        if batches is None:
            return session.run(segments, poll)
        for k in range(sum(steps for _, steps in segments)):
            self.rates[0] = trainer.rates(1)[0]
            session.changed("schedule")
            batches.before(first + k)
            self.refresh()
            self.renew(self.order[begin + k * self.batch :][: self.batch])
            rest = self.rest if k >= (self.samples - begin) // self.batch else None
            reason = session.run([(rest or self.full, 1)], poll)
            if reason:
                return reason
            batches.after(first + k)
            if trainer.stop_training:
                return control_block.REQUESTED
        return 0


class BatchFeed:
    """Mini-batches from an iterable of (inputs, targets), one Python turn for each step."""

    def __init__(self, trainer: Trainer, batches: Iterable[Any], check_data: bool):
        self.trainer, self.batches, self.check_data = trainer, batches, check_data
        self.steps = len(batches) if isinstance(batches, Sized) else 0
        self.samples = self.batch = 0
        self.description = {"batches": self.steps or "unknown"}
        self._bound: Kept[Bound] = Kept()
        self._last: Bound | None = None
        self.version = trainer.version
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
            self._refresh()
            bound, x, y, w = self._prepare(item)
            samples += len(x)
            if samples <= begin:  # done before a resume
                step += 1
                continue
            self.rates[0] = self.trainer.rates(1)[0]
            session.changed("schedule")
            if batches is not None:
                batches.before(step)
                if self._refresh():
                    bound, x, y, w = self._prepare(item)
            for arrays in (x, y, w):
                arrays.write(bound)
            session.control[control_block.CURSOR] = samples - len(x)
            self._last = bound
            reason = session.run([(bound, 1)], poll)
            if reason:
                return reason
            if batches is not None:
                batches.after(step)
            poll()
            step += 1
            if self.trainer.stop_training:
                return control_block.REQUESTED
        if step == 0:
            raise DataError("the iterable of batches gave none; expected at least one batch")
        self.steps = step
        return 0

    def last_bound(self, session: Session) -> Bound:
        """The program of the last step."""
        assert self._last is not None
        return self._last

    def _refresh(self) -> bool:
        """Look whether the model has changed, and forget the programs then."""
        self.trainer.refresh()
        changed = self.version != self.trainer.version
        if changed:
            self._bound.clear()
            self.version = self.trainer.version
        return changed

    def _prepare(self, item: Any) -> tuple[Bound, Arrays, Arrays, Arrays]:
        x, y, w = self.trainer.checked(*batch_of(item), self.check_data, "training")
        x, y, w, _ = self.trainer.stretched(x, y, w, True)
        built = self.trainer.built(x.specs, y.specs, len(x), "direct", w=w.specs)
        built.check(x, y)
        key = id(built.program)
        if key not in self._bound:
            self.trainer.session.set("schedule", self.rates)
            self._bound[key] = self.trainer.session.bind(built.program)
        return self._bound[key], x, y, w
