"""Where a trainer's mini-batches come from: arrays in memory, or an iterable of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.engine.arrays import Arrays, Hold, check_lengths
from fastnn.engine.builder import Built
from fastnn.engine.feeding import Feeding
from fastnn.engine.session import Session, segments_for
from fastnn.errors import DataError
from fastnn.kernels import control_block
from fastnn.runtime.devices import HOST
from fastnn.runtime.interface import Bound
from fastnn.runtime.orders import Orders
from fastnn.train.base import Data
from fastnn.train.forms import Forms
from fastnn.train.slices import BALANCED, Slices, check_batch, check_place, description, order_of
from fastnn.weak import weak, weakly

if TYPE_CHECKING:
    from fastnn.train.trainer import Trainer

Poll = Callable[[], None]
#: steps whose learning rates are computed at once, where steps are sent ahead
AHEAD = 1024
#: samples of whose orders one is kept between runs
FEW = 1 << 16


class _MiniBatches:
    """What is said of any run by mini-batches."""

    trainer: weak[Trainer] = weak()  # which may keep it for the next run

    #: why training ended by itself
    stopped = ""
    #: the number of the epoch that a run stops before
    last = 0

    def logs(self) -> dict[str, float]:
        """What is reported of an epoch beside losses and metrics."""
        return {}


class ArrayFeed(_MiniBatches):
    """Mini-batches gathered from arrays inside the compiled loop.

    Attributes:
        data: inputs, targets and sample weights; between runs without the arrays.
    """

    def __init__(
        self, trainer: Trainer, data: Data, batch: int, shuffle: bool | str, drop_last: bool
    ):
        x, y, w = data
        check_lengths(x, y)
        check_batch(batch, len(x))
        self.trainer, self.batch, self.shuffle = trainer, batch, shuffle
        x, y, w = (Arrays([*part.arrays], part.specs, part.names) for part in data)
        rest = len(x) % batch
        self.samples = len(x) - (rest if drop_last else 0)
        self.steps = -(-self.samples // batch)
        self.data, self.small = (x, y, w), 0 if drop_last else rest
        self.description = description(data, batch, shuffle, drop_last)
        self.hold: Hold | None = Hold(x, y, w)
        session = trainer.session
        self.order = _array(session, "order", (len(x),), np.int64)
        self.order[:] = np.arange(len(x))
        #: what draws data orders that depend on nothing but seed and epoch
        self.orders: Orders | None = None
        rates = max(self.steps, 1), trainer.optimizer.group_count
        self.rates = _array(session, "schedule", rates, np.float64)
        #: the groups' rates that all rows of `rates` hold; None: they may differ
        self._constant: list[float] | None = None
        self.prepare()

    def prepare(self) -> None:
        """Build and bind the programs: at first, and when the trainer's model has changed."""
        trainer = self.trainer
        x, y, w = self.data
        self._provide()
        built = trainer.built(x.specs, y.specs, self.batch, "gather", w=w.specs)
        small = None
        if self.small:
            small = trainer.built(x.specs, y.specs, self.small, "gather", w=w.specs)
        built.check(x, y)
        self.built, self.fresh = built, True
        self.full = trainer.session.bind_again(built.program)
        self.rest: Bound | None = trainer.session.bind_again(small.program) if small else None
        self.version = trainer.version

    def _provide(self) -> None:
        #: the segments that the arrays are, with their shapes there
        self._sources: list[tuple[str, tuple[int, ...]]] = []
        for part in self.data:
            for name, source in part.sources().items():
                self.trainer.session.set(name, source)
                self._sources.append((name, source.shape))

    def take_up(self, given: Sequence[np.ndarray]) -> None:
        """Begin another run on arrays that lie where those of the one before did; their numbers,
        which may be others, have yet to be checked."""
        x, y, w = self.data
        x.arrays[:], y.arrays[:] = given[: len(x.names)], given[len(x.names) :]
        self.fresh = True
        self.hold = Hold(x, y, w)
        bounds = [self.full] if self.rest is None else [self.full, self.rest]
        found = {}
        for array, (name, shape) in zip(given, self._sources, strict=True):
            found[name] = array.reshape(shape)
        self.trainer.session.lend(bounds, found)

    def let_go(self) -> None:
        """The run is over: what it has read is the caller's again."""
        self.hold = None
        for part in self.data:
            part.arrays.clear()
        if self.samples > FEW:
            self.orders = None

    def check(self) -> None:
        """Raise DataError for numbers that the model can't take, such as ids beyond a table."""
        self.built.check(*self.data[:2])

    def refresh(self) -> None:
        """Look whether the model has changed (a callback may have frozen something)."""
        trainer = self.trainer
        trainer.refresh()
        if self.version != trainer.version:
            self.prepare()

    def last_bound(self, session: Session) -> Bound:
        """The program of the step at the control block's cursor."""
        left = self.samples - int(session.control[control_block.CURSOR])
        return self.rest if self.rest is not None and left < self.batch else self.full

    def steps_done(self, cursor: int) -> int:
        """Steps that the first so many samples of an epoch make."""
        return -(-cursor // self.batch)

    def _order(self, epoch: int) -> np.ndarray:
        """The data order of an epoch, which may have been drawn while the one before ran."""
        if self.shuffle == BALANCED:
            return order_of(self.data, self.shuffle, self.trainer.seed, epoch)
        if self.orders is None:
            self.orders = self.trainer.session.runtime.orders(len(self.data[0]))
        return self.orders.draw(self.trainer.seed, epoch)

    def _draw(self, epoch: int) -> None:
        """Draw the order of an epoch to come; of labels nothing, which may change until then."""
        if self.orders is not None and epoch < self.last:
            self.orders.draw(self.trainer.seed, epoch)

    def _set_rates(self, steps: int) -> None:
        """Write the rates of the next steps of the epoch."""
        trainer = self.trainer
        optimizer = trainer.optimizer
        if optimizer.schedule is None:
            base = optimizer.rates(trainer.rate_factor)
            if base == self._constant:
                return
            self._constant = None  # whatever comes between
            self.rates[:], self._constant = base, base
        else:
            self._constant = None
            self.rates[:steps] = trainer.rates(steps)
        trainer.session.changed("schedule")

    def run_epoch(self, epoch: int, poll: Poll, batches: Any) -> int:
        """Train one epoch from the trainer's cursor on; returns why it stopped early, or 0.

        `batches`, if given, has `before(step)` and `after(step)`, called around every step.
        """
        trainer = self.trainer
        session = trainer.session
        self.refresh()
        if self.hold is not None:
            self.hold.check()
        if self.fresh and not len(trainer.hooks):  # nobody has been called since it was checked
            self.fresh = False
        else:
            self.check()
        if self.shuffle:
            self.order[:] = self._order(epoch)
            session.changed("order")
        begin = trainer.cursor
        check_place(begin, self.samples, self.batch, epoch)
        first = self.steps_done(begin)
        self._set_rates(self.steps - first)
        session.control[control_block.CURSOR] = begin
        segments = segments_for(self.full, self.rest, self.samples, self.batch, begin)
        if not segments:  # the run before was interrupted after the epoch's last step
            return 0
        if batches is None:
            return session.run(segments, poll, lambda: self._draw(epoch + 1))
        for k in range(sum(steps for _, steps in segments)):
            self._set_rates(1)
            batches.before(first + k)
            self.refresh()
            rest = self.rest if k >= (self.samples - begin) // self.batch else None
            reason = session.run([(rest or self.full, 1)], poll)
            if reason:
                return reason
            batches.after(first + k)
            if trainer.stop_training:
                return control_block.REQUESTED
        return 0


def _array(session: Session, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """A segment of this shape for the host to write to: the one of the run before, if it fits,
    so that programs need not be bound anew."""
    if session.device == HOST:
        known = session.memory.get(name)
        if known is not None and known.shape == shape and known.dtype == dtype:
            return known
    array = np.zeros(shape, dtype)
    session.set(name, array)
    return array


class BatchFeed(_MiniBatches):
    """Mini-batches from an iterable of (inputs, targets), one Python turn for each step."""

    def __init__(self, trainer: Trainer, batches: Iterable[Any], check_data: bool):
        self.trainer, self.batches = trainer, batches
        self.steps = len(batches) if isinstance(batches, Sized) else 0
        self.samples = self.batch = 0
        self.description = {"batches": self.steps or "unknown"}
        self.forms = Forms(trainer, check_data, True, weakly(self._bind))
        self.version = trainer.version
        self.rates = Rates(trainer)
        self._last: Bound | None = None

    def steps_done(self, cursor: int) -> int:
        """Batches that hold the first so many samples; known once they have come again."""
        return 0

    def run_epoch(self, epoch: int, poll: Poll, batches: Any) -> int:
        """Train one epoch; batches that the trainer's cursor is past are left out."""
        once = isinstance(self.batches, Iterator)
        if once and epoch != self.trainer.first_epoch:
            raise DataError(
                "the iterator of batches is exhausted after one epoch; pass an object that can be "
                "iterated again (a class with __iter__), or epochs=1"
            )
        if hasattr(self.batches, "set_epoch"):
            self.batches.set_epoch(epoch)
        feeding = Feeding(self.trainer.session, poll)
        try:
            reason = self._run(feeding, poll, batches)
            if self._last is not None:
                self._last = feeding.failed(self._last)
            return reason
        finally:
            feeding.close()

    def _run(self, feeding: Feeding, poll: Poll, batches: Any) -> int:
        trainer, step, samples, reason = self.trainer, 0, 0, 0
        begin, next_step = trainer.cursor, trainer.step
        self.rates.begin(feeding)
        self._last = None
        for item in self.batches:
            self._refresh()
            form, arrays = self.forms.take(item)
            samples += form.size
            if samples <= begin:  # done before a resume
                step += 1
                continue
            self.rates.next(next_step)
            if batches is not None:
                batches.before(step)
                if self._refresh():
                    form, arrays = self.forms.take(item)
            if self._last is None:  # from here on the steps themselves count samples
                trainer.session.control[control_block.CURSOR] = samples - form.size
            self._last = form.bound
            reason = feeding.step(form.bound, form.names, arrays)
            if batches is not None:
                reason = reason or feeding.synchronize()
            if reason:
                return reason
            if batches is not None:
                batches.after(step)
            if not feeding.ahead:
                poll()
            step, next_step = step + 1, next_step + 1
            if trainer.stop_training:
                return feeding.synchronize() or control_block.REQUESTED
        if step == 0:
            raise DataError("the iterable of batches gave none; expected at least one batch")
        self.steps = step
        reason = feeding.synchronize()
        poll()
        return reason

    def last_bound(self, session: Session) -> Bound:
        """The program of the last step."""
        assert self._last is not None
        return self._last

    def _refresh(self) -> bool:
        """Look whether the model has changed, and forget the programs then."""
        self.trainer.refresh()
        changed = self.version != self.trainer.version
        if changed:
            self.forms.clear()
            self.version = self.trainer.version
        return changed

    def _bind(self, built: Built) -> Bound:
        self.rates.provide()
        bound: Bound = self.trainer.session.bind(built.program)
        return bound


class SlicedFeed(BatchFeed):
    """Arrays that are larger than the device's memory: each mini-batch is cut on the host and sent
    while the steps before run."""

    def __init__(
        self, trainer: Trainer, data: Data, batch: int, shuffle: bool | str, drop_last: bool
    ):
        self.slices = Slices(data, batch, shuffle, drop_last, trainer.seed)
        super().__init__(trainer, self.slices, False)
        self.samples, self.batch = self.slices.samples, batch
        self.description = description(data, batch, shuffle, drop_last)

    def steps_done(self, cursor: int) -> int:
        return -(-cursor // self.batch)

    def run_epoch(self, epoch: int, poll: Poll, batches: Any) -> int:
        self.slices.hold.check()
        begin, samples = self.trainer.cursor, self.samples
        check_place(begin, samples, self.batch, epoch)
        if begin == samples:  # the run before was interrupted after the epoch's last step
            return 0
        return super().run_epoch(epoch, poll, batches)


class Rates:
    """Learning rates for steps that the host feeds, in the schedule that programs read: one row for
    each step, or for many steps ahead."""

    def __init__(self, trainer: Trainer):
        self.trainer, self.session = trainer, trainer.session
        rows = AHEAD if self.session.ahead else 1
        self.rows = np.zeros((rows, trainer.optimizer.group_count))
        self._base: list[float] | None = None
        self._used = self._good = 0

    def provide(self) -> None:
        """Make it the session's schedule, before programs are bound."""
        self.session.set("schedule", self.rows)

    def begin(self, feeding: Feeding) -> None:
        """Steps come from here now."""
        self.feeding, self._base = feeding, None

    def next(self, step: int) -> None:
        """The next step is the one of this number."""
        trainer = self.trainer
        base = trainer.optimizer.rates(trainer.rate_factor)
        if base != self._base or self._used >= self._good:
            self.feeding.synchronize()
            self._base, self._used = base, 0
            self.rows[:], self._good = self._found(step)
            self.session.control[control_block.RUN_STEP] = 0
            self.session.changed("schedule")
        self._used += 1

    def _found(self, step: int) -> tuple[np.ndarray, int]:
        """Rates from a step on, and of how many steps they are right."""
        count = len(self.rows)
        try:
            return self.trainer.rates(count, step), count
        except Exception:  # a user's schedule that ends where training ends: one step at a time
            if count == 1:
                raise
            return self.trainer.rates(1, step), 1
