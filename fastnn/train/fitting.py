"""The run that `Trainer.fit` makes: epochs, the hooks of callbacks, and where Ctrl-C leaves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastnn.engine.nonfinite import explain
from fastnn.errors import DataError, KernelError, NonFiniteError, OptionError, is_whole
from fastnn.kernels import control_block
from fastnn.train import averages, exchange
from fastnn.train.again import release
from fastnn.train.feeds import ArrayFeed
from fastnn.train.fit_data import Feed, HeldOut, Request, prepared
from fastnn.train.history import History
from fastnn.train.hook_calls import HookCall
from fastnn.train.hooks import CallbackList
from fastnn.train.progress import ProgressBar

if TYPE_CHECKING:
    from fastnn.train.trainer import Trainer


def fit(trainer: Trainer, asked: Request) -> History:
    """What `Trainer.fit` does, which see."""
    try:
        return _fit(trainer, asked)
    finally:
        release(trainer)  # whatever came of it
        trainer.hooks._let_go()


def _fit(trainer: Trainer, asked: Request) -> History:
    if not is_whole(asked.epochs, 0):
        raise OptionError(f"epochs: expected a whole number >= 0, got {asked.epochs!r}")
    hooks = CallbackList(asked.callbacks)
    if any(callback.needs_gradients for callback in hooks.callbacks):
        trainer.keep_gradients = True
    averages.refuse_aside(trainer, "fit")
    trainer.refresh()
    # nothing is changed yet
    loaded = None
    if asked.resume is not None:
        from fastnn.train.checkpoint import Loaded

        loaded = Loaded(trainer, asked.resume)
    feed, held_out = prepared(trainer, asked)
    if asked.verbose:
        hooks = CallbackList([*hooks, ProgressBar()])
    hooks.set_model(trainer.model)
    loaded = loaded or trainer.pending
    if loaded is not None:
        loaded.check_feed(feed.description)
        loaded.check_callbacks(hooks)
    if asked.resume is not None and loaded is not None:
        loaded.apply()
    _count(trainer)
    _move(trainer, trainer.place)
    trainer.hook_call, trainer.hooks, trainer.feed_description = None, hooks, feed.description
    last = int(asked.epochs) if asked.resume is not None else trainer.epoch + int(asked.epochs)
    params = {
        "epochs": last,
        "steps": feed.steps,
        "samples": feed.samples,
        "batch_size": feed.batch,
    }
    hooks.set_params(params)
    hooks.set_trainer(trainer)
    trainer.history = History(params)
    trainer.stop_training = trainer.interrupted = False
    trainer.session.doubt()
    if trainer.step == 0:
        averages.begin(trainer)
    hooks.on_train_begin({})
    trainer.fitting = True
    try:
        Epochs(trainer, feed, held_out, last, hooks).run()
        trainer.history.stopped = (
            hooks.stopped_by
            or feed.stopped
            or ("stopped by a callback" if trainer.stop_training else "completed")
        )
    except KeyboardInterrupt:
        trainer.interrupted = True
        trainer.history.stopped = "interrupted"
    finally:
        trainer.fitting = False
        synchronize(trainer)
        hooks.on_train_end({})
    return trainer.history


def _count(trainer: Trainer) -> None:
    """Note how far the epoch's steps have come, also those of a run that Ctrl-C left behind."""
    if trainer.counting:
        trainer.session.synchronize()
        trainer.cursor = int(trainer.session.control[control_block.CURSOR])
        trainer.counting = False


def synchronize(trainer: Trainer) -> None:
    """Finish what an exception left half done of an epoch, its end, or a validation."""
    _count(trainer)
    trainer.history.even()
    averages.swap_out(trainer)
    if trainer.before_validation is not None:
        trainer.session.runtime.restore(trainer.before_validation)
        trainer.before_validation = None
    call = trainer.hook_call
    # whatever is left to call, an epoch whose end was begun is done
    _move(trainer, trainer.place)
    if call is not None and call.ends_epoch and trainer.history.epoch[-1:] == [call.number]:
        trainer.hook_call = None


def _move(trainer: Trainer, place: tuple[int, int]) -> None:
    (trainer.epoch, trainer.cursor), trainer.epoch_done = place, False


@dataclass
class Epochs:
    """The epochs of one run.

    Attributes:
        trainer: what is trained; it knows how far the run has come.
        feed: the data.
        held_out: evaluates the validation data, or None.
        last: the number of the epoch to stop before.
        hooks: the callbacks.
    """

    trainer: Trainer
    feed: Feed
    held_out: HeldOut | None
    last: int
    hooks: CallbackList

    def run(self) -> None:
        """Train the epochs that are left."""
        trainer, hooks, held_out, last = self.trainer, self.hooks, self.held_out, self.last
        trainer.first_epoch, self.feed.last = trainer.epoch, last
        begun = self.take_up()
        while trainer.epoch < last and not trainer.stop_training:
            epoch = trainer.epoch
            if not begun:
                hooks.on_epoch_begin(epoch, {})
            begun = False
            logs = self.one_epoch(epoch)
            if held_out is not None:
                # Stateful layers go on from where training left them; Ctrl-C puts that back.
                trainer.before_validation = trainer.session.runtime.save(["buffers"])
                averages.swap_in(trainer)  # where the optimiser keeps some
                hooks.on_test_begin({})
                found = held_out()
                hooks.on_test_end(found)
                averages.swap_out(trainer)
                trainer.before_validation = None
                logs.update({f"val_{name}": value for name, value in found.items()})
            self.end_epoch(HookCall("on_epoch_end", epoch, logs, list(hooks)))

    def end_epoch(self, call: HookCall) -> None:
        """Call the last hooks of an epoch that is done, and go on to the next."""
        trainer = self.trainer
        trainer.hook_call = call  # from here on the epoch is done
        trainer.epoch_done = True
        call.run(trainer)
        trainer.history.append(call.number, call.logs)
        _move(trainer, trainer.place)
        trainer.hook_call = None

    def take_up(self) -> bool:
        """Give callbacks the states of a checkpoint, and finish what was cut off when it was
        written; whether `on_epoch_begin` has been called for the epoch that goes on."""
        trainer, hooks = self.trainer, self.hooks
        loaded, trainer.pending = trainer.pending, None
        if loaded is None:
            return False
        metadata = loaded.metadata
        begun = bool(metadata["cursor"])
        if begun:
            hooks.on_epoch_begin(trainer.epoch, {})
        for name, callback in hooks.named().items():
            if name in loaded.states:
                callback.load_state_dict(loaded.states[name])
        trainer.rate_factor = metadata["rate_factor"]  # whatever on_epoch_begin made of it
        if metadata["turn"] is not None:
            call = HookCall.described(metadata["turn"], hooks)
            if call.ends_epoch:
                trainer.epoch = call.number
                self.end_epoch(call)
            else:
                call.run(trainer)
        return begun

    def one_epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch, or what is left of it; what is reported of it."""
        trainer, feed, hooks = self.trainer, self.feed, self.hooks
        session = trainer.session
        exchange.agree(trainer)
        session.control[control_block.CURSOR] = trainer.cursor
        trainer.counting = True
        if trainer.cursor == 0:
            session.totals[:] = 0.0
        done = trainer.step - feed.steps_done(trainer.cursor)  # as it was when the epoch began

        def poll() -> None:
            hooks.update(trainer.step - done, trainer.report.values(session.totals))

        batches = BatchHooks(hooks, trainer) if hooks.needs_batches else None
        try:
            reason = feed.run_epoch(epoch, poll, batches)
        except KernelError:
            _count(trainer)
            trainer.cursor = 0  # the epoch's means are spoilt, as below
            raise
        finally:
            _count(trainer)
        if reason == control_block.NOT_FINITE:
            number = trainer.step - done + 1
            where = (
                f"epoch {epoch + 1}, step {number} of the epoch (step {trainer.step + 1} in all)"
            )
            message = explain(trainer.model, session, feed.last_bound(session), where)
            trainer.history.stopped = "the loss was not finite"
            trainer.cursor = 0  # the epoch's means are spoilt: the next run begins it anew
            if isinstance(feed, ArrayFeed):
                feed.check()  # a callback may have written ids that are none
            raise NonFiniteError(message)
        return {**self.reported(epoch, trainer.step > done), **feed.logs()}

    def reported(self, epoch: int, trained: bool) -> dict[str, float]:
        """What the epoch's totals say; `trained`: it has made a step."""
        trainer = self.trainer
        totals, report = trainer.session.totals, trainer.report
        if not trained or exchange.partners(trainer.on_gradients) is not None:
            return report.values(totals)  # other processes may have rows that count
        try:
            return report.result(totals, f"epoch {epoch + 1}")
        except DataError:
            trainer.history.stopped = "nothing counted in the loss"
            trainer.cursor = 0  # as after numbers that are not finite
            raise


class BatchHooks:
    """Calls the per-batch hooks around each step."""

    def __init__(self, hooks: CallbackList, trainer: Trainer):
        self.hooks, self.trainer = hooks, trainer

    def before(self, step: int) -> None:
        trainer = self.trainer
        trainer.hook_call = None
        self.hooks.on_train_batch_begin(step, {})
        # It is due as soon as the step is counted, even if Ctrl-C comes right then.
        due = trainer.step + 1
        trainer.hook_call = HookCall("on_train_batch_end", step, {}, list(self.hooks), due)

    def after(self, step: int) -> None:
        trainer, call = self.trainer, self.trainer.hook_call
        trainer.cursor = int(trainer.session.control[control_block.CURSOR])
        if call is not None:
            call.logs = trainer.report.values(trainer.session.totals)
            call.run(trainer)
        trainer.hook_call = None
