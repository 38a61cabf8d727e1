"""The run that `Trainer.fit` makes: epochs, the hooks of callbacks, and where Ctrl-C leaves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastnn.engine.nonfinite import explain
from fastnn.errors import KernelError, NonFiniteError, OptionError
from fastnn.kernels import clock as words
from fastnn.train.feeds import ArrayFeed, BatchFeed
from fastnn.train.fit_data import HeldOut, Request, prepared
from fastnn.train.history import History
from fastnn.train.hooks import CallbackList
from fastnn.train.progress import ProgressBar
from fastnn.train.unfinished import Turn

if TYPE_CHECKING:
    from fastnn.train.trainer import Trainer


def fit(trainer: Trainer, asked: Request) -> History:
    """What `Trainer.fit` does, which see."""
    from fastnn.train.checkpoint import Loaded

    if not isinstance(asked.epochs, (int, np.integer)) or asked.epochs < 0:
        raise OptionError(f"epochs: expected a whole number >= 0, got {asked.epochs!r}")
    chosen = list(CallbackList(asked.callbacks))
    if any(callback.needs_gradients for callback in chosen):
        trainer.keep_gradients = True
    trainer.refresh()
    # nothing is changed yet
    loaded = None if asked.resume is None else Loaded(trainer, asked.resume)
    feed, held_out = prepared(trainer, asked)
    progress = [ProgressBar()] if asked.verbose else []
    hooks = CallbackList([*chosen, *progress])
    hooks.set_model(trainer.model)
    loaded = loaded or trainer.pending
    if loaded is not None:
        loaded.check_feed(feed.description)
        loaded.check_callbacks(hooks)
    if asked.resume is not None and loaded is not None:
        loaded.apply()
    trainer.count()
    trainer.move(trainer.place)
    trainer.turn, trainer.hooks, trainer.feed_description = None, hooks, feed.description
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
    hooks.on_train_begin({})
    trainer.fitting = True
    try:
        Epochs(trainer, feed, held_out, last, hooks).run()
        trainer.history.stopped = hooks.stopped_by or (
            "stopped by a callback" if trainer.stop_training else "completed"
        )
    except KeyboardInterrupt:
        trainer.interrupted = True
        trainer.history.stopped = "interrupted"
    finally:
        trainer.fitting = False
        trainer.settle()
        hooks.on_train_end({})
    return trainer.history


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
    feed: ArrayFeed | BatchFeed
    held_out: HeldOut | None
    last: int
    hooks: CallbackList

    def run(self) -> None:
        """Train the epochs that are left."""
        trainer, hooks, held_out, last = self.trainer, self.hooks, self.held_out, self.last
        trainer.first_epoch = trainer.epoch
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
                hooks.on_test_begin({})
                found = held_out()
                hooks.on_test_end(found)
                trainer.before_validation = None
                logs.update({f"val_{name}": value for name, value in found.items()})
            self.end_epoch(Turn("on_epoch_end", epoch, logs, list(hooks)))

    def end_epoch(self, turn: Turn) -> None:
        """Call the last hooks of an epoch that is done, and go on to the next."""
        trainer = self.trainer
        trainer.turn = turn  # from here on the epoch is done
        trainer.epoch_done = True
        turn.run(trainer)
        trainer.history.append(turn.number, turn.logs)
        trainer.move(trainer.place)
        trainer.turn = None

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
            turn = Turn.described(metadata["turn"], hooks)
            if turn.ends_epoch:
                trainer.epoch = turn.number
                self.end_epoch(turn)
            else:
                turn.run(trainer)
        return begun

    def one_epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch, or what is left of it; what is reported of it."""
        trainer, feed, hooks = self.trainer, self.feed, self.hooks
        session = trainer.session
        session.clock[words.CURSOR] = trainer.cursor
        trainer.counting = True
        if trainer.cursor == 0:
            session.totals[:] = 0.0
        done = trainer.step - feed.steps_done(trainer.cursor)  # as it was when the epoch began

        def poll() -> None:
            hooks.update(trainer.step - done, trainer.tally.values(session.totals))

        batches = BatchHooks(hooks, trainer) if hooks.needs_batches else None
        try:
            reason = feed.run_epoch(epoch, poll, batches)
        except KernelError:
            trainer.count()
            trainer.cursor = 0  # the epoch's means are spoilt, as below
            raise
        finally:
            trainer.count()
        if reason == words.NOT_FINITE:
            number = trainer.step - done + 1
            where = (
                f"epoch {epoch + 1}, step {number} of the epoch (step {trainer.step + 1} in all)"
            )
            message = explain(trainer.model, session, feed.last_bound(session), where)
            trainer.history.stopped = "the loss was not finite"
            trainer.cursor = 0  # the epoch's means are spoilt: the next run begins it anew
            raise NonFiniteError(message)
        return trainer.tally.values(session.totals)


class BatchHooks:
    """Calls the per-batch hooks around each step."""

    def __init__(self, hooks: CallbackList, trainer: Trainer):
        self.hooks, self.trainer = hooks, trainer

    def before(self, step: int) -> None:
        trainer = self.trainer
        trainer.turn = None
        self.hooks.on_train_batch_begin(step, {})
        # It is due as soon as the step is counted, even if Ctrl-C comes right then.
        due = trainer.step + 1
        trainer.turn = Turn("on_train_batch_end", step, {}, list(self.hooks), due)

    def after(self, step: int) -> None:
        trainer, turn = self.trainer, self.trainer.turn
        trainer.cursor = int(trainer.session.clock[words.CURSOR])
        if turn is not None:
            turn.logs = trainer.tally.values(trainer.session.totals)
            turn.run(trainer)
        trainer.turn = None
