"""The trainer: fit, evaluate, predict."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import optim
from fastnn.data.arrays import Arrays, Hold, as_arrays, check_finite, check_lengths, check_ranges
from fastnn.errors import NonFiniteError, OptionError
from fastnn.kernels import clock as words
from fastnn.nn.loss import Loss
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.nn.structure import Watch
from fastnn.runtime import devices
from fastnn.runtime.kept import Kept
from fastnn.runtime.turns import reading, training
from fastnn.train import copies
from fastnn.train import metrics as metric_names
from fastnn.train.build import Built, Objective, Spec, StepBuilder, select_parameters
from fastnn.train.feeds import ArrayFeed, BatchFeed
from fastnn.train.history import History
from fastnn.train.hooks import Callback, CallbackList
from fastnn.train.options import check_options
from fastnn.train.progress import ProgressBar
from fastnn.train.rescue import Snapshot, explain
from fastnn.train.session import Session, segments_for
from fastnn.train.unfinished import Turn

if TYPE_CHECKING:
    from fastnn.train.checkpoint import Loaded


class Trainer:
    """Trains a model on data, the way Keras does; between two steps of an epoch no Python runs.

    Args:
        model: the module to train.
        loss: a loss from `fastnn.nn`, its name ("cross_entropy", "mse", ...), or a function of
            symbolic (output, target) that returns a single number. Several outputs or targets come
            as tuples.
        optimizer: an optimiser from `fastnn.optim`, or its name.
        metrics: names ("accuracy", "top_5_accuracy", losses), functions of symbolic (output,
            target) giving a number for each row, or `Metric` objects.
        device: "auto" (a CUDA device if one works, else the CPU), "cpu", "cuda", "cuda:1"; the
            environment's FASTNN_DEVICE stands for "auto".
        workers: number of worker threads, or "auto" to choose by the work in a step. The results
            are the same, bit for bit, for any number.
        seed: of initial parameters, data order, dropout: the whole run follows from it.
        dtype: "float32" or "float64".
        stop_on_nonfinite: stop with an error when the loss becomes NaN or infinite, with the last
            good parameters kept.
        keep_gradients: whether each parameter's `grad` shows the gradient of the last step. A step
            that need not write its gradients to memory is faster. Callbacks with
            ``needs_gradients`` switch it on.
        parameters: what is trained: name patterns ("encoder.*"), modules or parameters of the
            model, one or a list; None: all.
        graphs: on a GPU, replay a step as one CUDA graph; False launches its kernels one by one,
            for debugging.
        tf32: on a GPU, let matrix products of float32 use tensor cores, which round their
            operands to TF32 (10 bits of mantissa): faster, less exact.

    >>> import numpy as np
    >>> import fastnn as fnn
    >>> from fastnn import nn, optim
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    >>> y = (x[:, 0] > 0).astype(np.int64)
    >>> trainer = fnn.Trainer(nn.Linear(4, 2), loss="cross_entropy", optimizer=optim.Adam(lr=0.1),
    ...                       metrics=["accuracy"])
    >>> history = trainer.fit(x, y, epochs=20, batch_size=16, verbose=False)
    >>> bool(trainer.evaluate(x, y)["accuracy"] > 0.9)
    True
    """

    def __init__(
        self,
        model: Module,
        loss: str | Loss | Callable[..., Any],
        optimizer: str | optim.Optimizer = "adam",
        metrics: Sequence[Any] = (),
        device: str = "auto",
        workers: int | str = "auto",
        seed: int = 0,
        dtype: str = "float32",
        stop_on_nonfinite: bool = True,
        keep_gradients: bool = False,
        parameters: Any = None,
        graphs: bool = True,
        tf32: bool = False,
    ):
        self.loss, self.optimizer = check_options(model, loss, optimizer, seed, dtype)
        self.model, self.seed, self.dtype = model, int(seed), dtype
        self.metrics = metric_names.get_all(metrics)
        self.names = ["loss", *(m.name for m in self.metrics)]
        self.device = devices.choose(device)
        self.stop_on_nonfinite, self.tf32 = bool(stop_on_nonfinite), bool(tf32)
        self.keep_gradients = bool(keep_gradients)
        self._parameters = parameters
        self._open(workers, bool(graphs))
        self.session.clock[words.SEED] = self.seed
        self.epoch = 0  # the current epoch; epochs done so far between runs
        self.cursor = 0  # samples of the current epoch that are done
        self.epoch_done = False  # within on_epoch_end: nothing is left to do of the current epoch
        self.first_epoch = 0
        self.rate_factor = 1.0
        self.stop_training = False
        self.interrupted = False  # whether Ctrl-C ended the last run
        self.feed_description: dict[str, Any] | None = None  # of the last run's data
        self.history = History()

    def _open(self, workers: int | str, graphs: bool) -> None:
        """Memory and workers: of a new trainer, and of a copy."""
        self._chosen = select_parameters(self.model, self._parameters)
        self.store = self.model.store(self.dtype, self.seed)
        self.store.device = self.device
        self.session = Session(
            self.store, self.optimizer.slots, len(self.names), workers, self.device, graphs
        )
        for slot in self.optimizer.slots:
            self.session.memory[f"slots/{slot}"].fill(self.optimizer.initial(slot))
        self._built: Kept[Built] = Kept()
        self._evaluation: Session | None = None
        self.fitting = False  # whether a run is going on
        self.hooks = CallbackList()  # those of the last run
        self.turn: Turn | None = None  # the hook that is being called, or was when Ctrl-C came
        self.pending: Loaded | None = None  # what callbacks of the next run take up
        self._before_validation: Any = None  # the buffers, while a validation goes on
        self._watch = Watch(self.model)
        self.version = 0  # grows when programs have to be built anew

    def __getstate__(self) -> dict[str, Any]:
        rebuilt = {"_chosen", "store", "session", "_built", "_evaluation", "_watch", "version"}
        rebuilt |= {"hooks", "turn", "pending", "_before_validation", "fitting"}  # of a run
        epoch, cursor = self.place  # in the middle of a hook, too
        place = {"epoch": epoch, "cursor": cursor, "epoch_done": False}
        return {**copies.contents(self, rebuilt), **place}

    def __setstate__(self, state: dict[str, Any]) -> None:
        copied = state.pop("_copied")
        self.__dict__.update(state)
        self._open(copied["workers"], copied["graphs"])
        copies.fill(self, copied)

    def refresh(self) -> None:
        """Look whether the model has changed since its programs were built, and forget them then:
        its parts, attributes of a layer, what is frozen.

        Raises OptionError where its parameters have moved, or where it has new ones.
        """
        self.store.check()
        if self._watch.changed():
            copies.refuse_new_parameters(self.model, self.store, "Trainer")
            self._chosen = select_parameters(self.model, self._parameters)
            self._built.clear()
            self.version += 1
            self._watch.accept()

    @property
    def trained(self) -> dict[str, Parameter]:
        """The parameters that are trained, by name: those chosen that are not frozen."""
        return {name: p for name, p in self._chosen.items() if p.trainable}

    # ---------------------------------------------------------------- learning rate, parameters

    @property
    def learning_rate(self) -> float:
        """The base learning rate; setting it scales all groups alike."""
        return float(self.optimizer.options["lr"]) * self.rate_factor

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        if not (np.isfinite(rate) and rate >= 0):
            raise OptionError(f"learning_rate: expected a number >= 0, got {rate!r}")
        self.rate_factor = float(rate) / float(self.optimizer.options["lr"])

    @property
    def step(self) -> int:
        """Optimiser steps done so far."""
        return int(self.session.clock[words.STEP])

    @property
    def place(self) -> tuple[int, int]:
        """Epochs done, and samples of the next one that are done: where training goes on."""
        if self.turn is not None and self.turn.ends_epoch:
            return self.turn.number + 1, 0
        return (self.epoch + 1, 0) if self.epoch_done else (self.epoch, self.cursor)

    def rates(self, steps: int, steps_per_epoch: int) -> np.ndarray:
        """Learning rates of the next steps, for each parameter group: shape (steps, groups)."""
        base = [
            self.optimizer.group_options(g)["lr"] * self.rate_factor
            for g in range(self.optimizer.group_count)
        ]
        if self.optimizer.schedule is None:
            return np.tile(np.array(base, np.float64), (steps, 1))
        schedule = self.optimizer.schedule
        return np.stack(
            [schedule.rates(b, self.step, steps, max(steps_per_epoch, 1)) for b in base], axis=1
        )

    def get_parameters(self) -> dict[str, np.ndarray]:
        """A copy of all parameters and buffers by name."""
        return self.model.state_dict()

    def set_parameters(self, parameters: Mapping[str, np.ndarray]) -> None:
        """Copy these values into the parameters and buffers."""
        self.model.load_state_dict(dict(parameters))

    # ---------------------------------------------------------------- building

    def built(
        self, x: tuple[Spec, ...], y: tuple[Spec, ...], batch: int, feed: str, training: bool = True
    ) -> Built:
        """The planned step for these shapes; planned once."""
        key = (x, y, batch, feed, training, self.keep_gradients)
        if key not in self._built:
            kind = self.session.runtime.kind
            builder = StepBuilder(self.model, self.store, batch, training, feed, kind, self.tf32)
            inputs = builder.inputs("x", x)
            targets = builder.inputs("y", y) if y else inputs
            outputs = builder.outputs(inputs)
            loss = builder.loss(self.loss, outputs, targets)
            if training and self.stop_on_nonfinite:
                builder.check_finite(loss)
            several = (t[0] if len(t) == 1 else t for t in (outputs, targets))
            builder.report(loss, self.metrics, *several)
            if training:
                self.store.dropped = not self.keep_gradients
                objective = Objective(loss, self.trained, self.optimizer)
                builder.train(objective, self.keep_gradients)
            self._built[key] = builder.finish()
        return self._built[key]

    # ---------------------------------------------------------------- fit

    @training("fit")
    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        shuffle: bool = True,
        drop_last: bool = False,
        validation: tuple[Any, Any] | float | None = None,
        callbacks: Sequence[Callback] = (),
        verbose: bool = True,
        resume: str | Path | None = None,
        check_data: bool = True,
    ) -> History:
        """Train.

        Args:
            x: array of samples (first dimension), or a tuple of arrays for several inputs; NumPy
                arrays and memory maps are read in place. Or an iterable (or list) of batches
                (inputs, targets); it is iterated anew for each epoch.
            y: targets, one for each sample; None: the inputs are the targets (autoencoders).
            epochs: passes over the data, in addition to those done before; with `resume`, in total.
            batch_size: samples in a step; the last batch of an epoch may be smaller.
            shuffle: whether to draw a new data order for each epoch.
            drop_last: leave out a last batch that is smaller.
            validation: (x, y) to evaluate after each epoch, or the share of samples (the last ones)
                to keep for it.
            callbacks: see `fastnn.callbacks`.
            verbose: show progress.
            resume: a checkpoint written by `save`: go on where it was written, bit for bit as if
                the run had not been interrupted; the callbacks go on too. Between epochs the data
                and the batch size may be others: a warning says that the run is another one then.
            check_data: look for NaN and infinity in the data first.

        Returns:
            The history of this call. After Ctrl-C the history so far, with ``stopped`` saying so.

        Raises:
            DataError, ShapeError, OptionError: bad input, before anything is trained.
            BusyError: another thread is training the model.
            NonFiniteError: the loss became NaN or infinite (see `stop_on_nonfinite`).
        """
        from fastnn.train.checkpoint import Loaded

        if not isinstance(epochs, (int, np.integer)) or epochs < 0:
            raise OptionError(f"epochs: expected a whole number >= 0, got {epochs!r}")
        if any(getattr(callback, "needs_gradients", False) for callback in callbacks):
            self.keep_gradients = True
        self.refresh()
        loaded = None if resume is None else Loaded(self, resume)  # nothing is changed yet
        feed, held_out = self._feed(x, y, batch_size, shuffle, drop_last, validation, check_data)
        if held_out is not None:  # refused now, not after an epoch
            self._evaluation_steps(*held_out, int(batch_size))
        progress = [ProgressBar()] if verbose else []
        hooks = CallbackList([*callbacks, *progress])
        hooks.set_model(self.model)
        loaded = loaded or self.pending
        if loaded is not None:
            loaded.check_feed(feed.description)
            loaded.check_callbacks(hooks)
        if resume is not None and loaded is not None:
            loaded.apply()
        self._move(self.place)
        self.turn, self.hooks, self.feed_description = None, hooks, feed.description
        last = int(epochs) if resume is not None else self.epoch + int(epochs)
        params = {
            "epochs": last,
            "steps": feed.steps,
            "samples": feed.samples,
            "batch_size": int(batch_size),
        }
        hooks.set_params(params)
        hooks.set_trainer(self)
        self.history = History(params)
        self.stop_training = self.interrupted = False
        hooks.on_train_begin({})
        self.fitting = True
        try:
            self._epochs(feed, held_out, last, hooks, int(batch_size))
            self.history.stopped = hooks.stopped_by or (
                "stopped by a callback" if self.stop_training else "completed"
            )
        except KeyboardInterrupt:
            self.interrupted = True
            self.history.stopped = "interrupted"
        finally:
            self.fitting = False
            self._settle()
            hooks.on_train_end({})
        return self.history

    def _settle(self) -> None:
        """Finish what an exception left half done of the end of an epoch or of a validation."""
        self.history.even()
        if self._before_validation is not None:
            self.session.runtime.restore(self._before_validation)
            self._before_validation = None
        turn = self.turn
        if turn is not None and turn.ends_epoch and self.history.epoch[-1:] == [turn.number]:
            self._move(self.place)
            self.turn = None

    def _feed(
        self, x: Any, y: Any, batch_size: int, shuffle: bool, drop_last: bool, validation: Any,
        check_data: bool,
    ) -> tuple[ArrayFeed | BatchFeed, tuple[Arrays, Arrays] | None]:  # fmt: skip
        """Where the batches come from, and the checked validation data."""
        if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise OptionError(f"batch_size: expected a whole number >= 1, got {batch_size!r}")
        held_out = None
        if isinstance(validation, (tuple, list)) and len(validation) == 2:
            held_out = self._pair(validation[0], validation[1], check_data, "validation")
        if _gives_batches(x, y):
            if y is not None or isinstance(validation, float):
                raise OptionError(
                    "an iterable of batches gives inputs and targets itself, and its validation "
                    "data as (x, y); expected y=None"
                )
            return BatchFeed(self, x, check_data), held_out
        inputs, targets = self._pair(x, y, check_data, "training")
        if isinstance(validation, float):
            if not 0 < validation < 1:
                raise OptionError(f"validation: expected a share in (0, 1), got {validation}")
            keep = len(inputs) - max(round(len(inputs) * validation), 1)
            if keep < 1:
                raise OptionError("validation: leaves no sample to train on; lower the share")
            held_out = inputs.take(slice(keep, None)), targets.take(slice(keep, None))
            inputs, targets = inputs.take(slice(keep)), targets.take(slice(keep))
        elif validation is not None and held_out is None:
            raise OptionError(f"validation: expected (x, y) or a share, got {_kind(validation)}")
        feed = ArrayFeed(self, inputs, targets, int(batch_size), shuffle, drop_last)
        return feed, held_out

    def _pair(self, x: Any, y: Any, check_data: bool, what: str) -> tuple[Arrays, Arrays]:
        inputs = as_arrays(x, "x", f"{what} inputs")
        targets = Arrays([], (), []) if y is None else as_arrays(y, "y", f"{what} targets")
        check_lengths(inputs, targets, f"{what} data")
        if check_data:
            check_finite(inputs, f"{what} inputs")
            check_finite(targets, f"{what} targets")
        return inputs, targets

    def _epochs(
        self,
        feed: ArrayFeed | BatchFeed,
        held_out: tuple[Arrays, Arrays] | None,
        last: int,
        hooks: CallbackList,
        batch: int,
    ) -> None:
        self.first_epoch = self.epoch
        begun = self._take_up(hooks)
        while self.epoch < last and not self.stop_training:
            epoch = self.epoch
            if not begun:
                hooks.on_epoch_begin(epoch, {})
            begun = False
            logs = self._one_epoch(feed, epoch, hooks)
            if held_out is not None:
                # Stateful layers go on from where training left them; Ctrl-C puts that back.
                self._before_validation = self.session.runtime.save(["buffers"])
                hooks.on_test_begin({})
                found = self._evaluate(*held_out, batch)
                hooks.on_test_end(found)
                self._before_validation = None
                logs.update({f"val_{name}": value for name, value in found.items()})
            self._end_epoch(Turn("on_epoch_end", epoch, logs, list(hooks)))

    def _end_epoch(self, turn: Turn) -> None:
        self.turn = turn  # from here on the epoch is done
        self.epoch_done = True
        turn.run(self)
        self.history.append(turn.number, turn.logs)
        self._move(self.place)
        self.turn = None

    def _take_up(self, hooks: CallbackList) -> bool:
        """Give callbacks the states of a checkpoint, and finish what was cut off when it was
        written; whether `on_epoch_begin` has been called for the epoch that goes on."""
        loaded, self.pending = self.pending, None
        if loaded is None:
            return False
        metadata = loaded.metadata
        begun = bool(metadata["cursor"])
        if begun:
            hooks.on_epoch_begin(self.epoch, {})
        for name, callback in hooks.named().items():
            if name in loaded.states:
                callback.load_state_dict(loaded.states[name])
        self.rate_factor = metadata["rate_factor"]  # whatever on_epoch_begin made of it
        if metadata["turn"] is not None:
            turn = Turn.described(metadata["turn"], hooks)
            if turn.ends_epoch:
                self.epoch = turn.number
                self._end_epoch(turn)
            else:
                turn.run(self)
        return begun

    def _move(self, place: tuple[int, int]) -> None:
        (self.epoch, self.cursor), self.epoch_done = place, False

    def _one_epoch(
        self, feed: ArrayFeed | BatchFeed, epoch: int, hooks: CallbackList
    ) -> dict[str, float]:
        session = self.session
        session.clock[words.CURSOR] = self.cursor
        if self.cursor == 0:
            session.totals[:] = 0.0
        snapshot = Snapshot(session) if self.stop_on_nonfinite else None
        done = self.step - feed.steps_done(self.cursor)  # as it was when the epoch began

        def poll() -> None:
            hooks.update(self.step - done, session.means(self.names))

        batches = _BatchHooks(hooks, self) if hooks.needs_batches else None
        try:
            reason = feed.run_epoch(epoch, poll, batches)
        finally:
            self.cursor = int(session.clock[words.CURSOR])
        if reason == words.NOT_FINITE:
            assert snapshot is not None
            message = explain(self, feed, epoch, self.step - done, snapshot)
            self.history.stopped = "the loss was not finite"
            self.cursor = 0  # the epoch's means are spoilt: the next run begins it anew
            raise NonFiniteError(message)
        return session.means(self.names)

    # ---------------------------------------------------------------- evaluate, predict

    @reading("evaluate")
    def evaluate(
        self, x: Any, y: Any = None, *, batch_size: int = 256, check_data: bool = True
    ) -> dict[str, float]:
        """Mean loss and metrics over data, in evaluation mode.

        Args:
            x, y: as in `fit`.
            batch_size: samples at a time (no influence on the result beyond rounding).
            check_data: look for NaN and infinity first.
        """
        if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise OptionError(f"batch_size: expected a whole number >= 1, got {batch_size!r}")
        return self._evaluate(*self._pair(x, y, check_data, "evaluation"), int(batch_size))

    def _evaluate(self, x: Arrays, y: Arrays, batch: int) -> dict[str, float]:
        self.refresh()
        if self._evaluation is None:
            self._evaluation = Session(
                self.store, (), len(self.names), self.session.workers, self.device,
                self.session.graphs,
            )  # fmt: skip
        session, samples, held = self._evaluation, len(x), Hold(x, y)
        held.check()
        batch = min(batch, samples)
        built, small = self._evaluation_steps(x, y, batch)
        for name, source in {**x.sources(), **y.sources()}.items():
            session.set(name, source)
        session.set("order", np.arange(samples, dtype=np.int64))
        full = session.bind(built.program)
        rest = session.bind(small.program) if small else None
        session.totals[:] = 0.0
        session.clock[words.CURSOR] = 0
        session.run(segments_for(full, rest, samples, batch), lambda: None)
        return session.means(self.names)

    def _evaluation_steps(self, x: Arrays, y: Arrays, batch: int) -> tuple[Built, Built | None]:
        """The steps of an evaluation, for whole batches and for the rest; refuses unfit data."""
        batch = min(batch, len(x))
        built = self.built(x.specs, y.specs, batch, "gather", training=False)
        check_ranges(x, built.ranges)
        check_ranges(y, built.ranges)
        left = len(x) % batch
        rest = self.built(x.specs, y.specs, left, "gather", training=False) if left else None
        return built, rest

    def predict(self, *inputs: Any, batch_size: int = 256) -> Any:
        """The model's outputs for arrays of samples; see `Module.predict`."""
        return self.model.predict(*inputs, batch_size=batch_size)

    # ---------------------------------------------------------------- checkpoints

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write parameters, optimiser state, step, seed and place in the data to a safetensors
        file, atomically."""
        from fastnn.train.checkpoint import save_trainer

        save_trainer(self, path)

    def load(self, path: str | Path) -> None:
        """Read what `save` wrote; the model and the optimiser have to fit."""
        from fastnn.train.checkpoint import load_trainer

        load_trainer(self, path)


class _BatchHooks:
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
            turn.logs = trainer.session.means(trainer.names)
            turn.run(trainer)
        trainer.turn = None


def _kind(value: Any) -> str:
    size = f" of {len(value)}" if isinstance(value, (tuple, list)) else ""
    return type(value).__name__ + size


def _gives_batches(x: Any, y: Any) -> bool:
    """Whether `x` is an iterable of (inputs, targets) and not data itself."""
    if isinstance(x, list):
        pairs = all(isinstance(item, tuple) and len(item) == 2 for item in x)
        return y is None and bool(x) and pairs and np.ndim(x[0][0]) > 0
    return isinstance(x, Iterable) and not isinstance(x, (np.ndarray, tuple))
