"""The trainer: fit, evaluate, predict."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn import optim
from fastnn.engine.arrays import (
    NO_ARRAYS,
    Arrays,
    as_arrays,
    check_finite,
    check_lengths,
    check_weights,
    is_array,
)
from fastnn.engine.builder import Built
from fastnn.engine.model import settled
from fastnn.engine.nonfinite import explain
from fastnn.engine.ranges import Ranges
from fastnn.engine.session import Session
from fastnn.engine.specs import Spec
from fastnn.engine.turns import reading, training
from fastnn.engine.update import Objective
from fastnn.errors import DataError, KernelError, NonFiniteError, OptionError
from fastnn.graph.graph import Value
from fastnn.kernels import clock as words
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.nn.structure import Watch, select
from fastnn.runtime import devices
from fastnn.runtime.kept import Kept
from fastnn.train import copies
from fastnn.train import metrics as metric_names
from fastnn.train.batches import gives_batches
from fastnn.train.build import StepBuilder
from fastnn.train.evaluation import Evaluation
from fastnn.train.feeds import ArrayFeed, BatchFeed
from fastnn.train.history import History
from fastnn.train.hooks import Callback, CallbackList
from fastnn.train.options import check_device_options, check_options
from fastnn.train.progress import ProgressBar
from fastnn.train.tally import SUM, Tally
from fastnn.train.unfinished import Turn

if TYPE_CHECKING:
    from fastnn.train.checkpoint import Loaded

LOG = logging.getLogger("fastnn")
#: inputs, targets, sample weights
Data = tuple[Arrays, Arrays, Arrays]
HeldOut = Callable[[], dict[str, float]]


class Trainer:
    """Trains a model on data, the way Keras does; between two steps of an epoch no Python runs.

    Args:
        model: the module to train.
        loss: a loss from `fastnn.nn`, its name ("cross_entropy", "mse", ...), or a function of
            symbolic (output, target) that returns a single number; several outputs or targets come
            as `forward` returns them and as `fit` gets them. Or a loss for each output: a list
            (None for an output without one), or a dict by the keys of the dict that `forward`
            returns. Each is reported ("output0_loss", or "name_loss"), and "loss" is their sum.
        optimizer: an optimiser from `fastnn.optim`, or its name.
        metrics: names ("accuracy", "top_5_accuracy", losses), functions of symbolic (output,
            target) giving a number for each row, or `Metric` objects. "accuracy" is what the loss
            says: the largest output is the target's class (`CrossEntropyLoss`, `NLLLoss`), or
            output and target are on the same side of the threshold (`BCELoss`,
            `BCEWithLogitsLoss`). Rows that the loss leaves out are left out here. With a loss for
            each output: a list for all of them, a list of lists, or a dict by the outputs' names.
        device: "auto" (a CUDA device if one works, else the CPU), "cpu", "cuda", "cuda:1"; the
            environment's FASTNN_DEVICE stands for "auto".
        workers: number of worker threads, or "auto" to choose by the work in a step. The results
            are the same, bit for bit, for any number.
        seed: of initial parameters, data order, dropout: the whole run follows from it.
        dtype: "float32" or "float64".
        stop_on_nonfinite: stop with an error when the loss, or a parameter by its update, becomes
            NaN or infinite; parameters, optimiser and running statistics are those before that
            step. False: training goes on with what comes, and parameters may become NaN.
        keep_gradients: whether each parameter's `grad` shows the gradient of the last step. A step
            that need not write its gradients to memory is faster. Callbacks with
            ``needs_gradients`` switch it on.
        parameters: what is trained: name patterns ("encoder.*"), modules or parameters of the
            model, one or a list; None: all.
        graphs: on a GPU, replay a step as one CUDA graph; False launches its kernels one by one,
            for debugging.
        tf32: on a GPU, let matrix products of float32 use tensor cores, which round their
            operands to TF32 (10 bits of mantissa): faster, less exact.
        loss_weights: factors of several losses, as a list or dict like `loss`; 1 by default.

    What is reported of an epoch or an evaluation is that of all its samples, whatever the batches:
    the sum of the rows' losses (each with the weight of its class and its sample) by the sum of
    their weights, or the sum alone where that is the loss's reduction. It is NaN where nothing
    counts. A loss of your own that is no mean or sum of rows is averaged over an epoch's batches,
    and evaluated on all samples at once.

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
        loss: Any,
        optimizer: str | optim.Optimizer = "adam",
        metrics: Any = (),
        device: str = "auto",
        workers: int | str = "auto",
        seed: int = 0,
        dtype: str = "float32",
        stop_on_nonfinite: bool = True,
        keep_gradients: bool = False,
        parameters: Any = None,
        graphs: bool = True,
        tf32: bool = False,
        loss_weights: Any = None,
    ):
        self.losses, self.optimizer = check_options(
            model, loss, optimizer, seed, dtype, loss_weights
        )
        self.loss = self.losses.functions[0] if self.losses.single else self.losses
        self.model, self.seed, self.dtype = model, int(seed), dtype
        self.metrics = metric_names.choose(metrics, self.losses)
        self.names = metric_names.names_of(self.losses, self.metrics)
        self.tally = Tally(self.names, self.losses.factors, not self.losses.single)
        for k, chosen in enumerate(self.metrics, len(self.losses.factors)):
            if chosen.metric.finish is not None:
                self.tally.finish[k] = chosen.metric.finish
        check_device_options(device, graphs, tf32)
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
        self.rate_factor = self.optimizer.rate_factor
        self.stop_training = False
        self.interrupted = False  # whether Ctrl-C ended the last run
        self.feed_description: dict[str, Any] | None = None  # of the last run's data
        self.history = History()

    def _open(self, workers: int | str, graphs: bool) -> None:
        """Memory and workers: of a new trainer, and of a copy."""
        self._chosen = select(self.model, self._parameters, "parameters")
        self.store = self.model.store(self.dtype, self.seed)
        self.store.device = self.device
        self.session = Session(
            self.store, self.optimizer.slots, self.tally.totals, workers, self.device, graphs
        )
        for slot in self.optimizer.slots:
            self.session.memory[f"slots/{slot}"].fill(self.optimizer.initial(slot))
        self._built: Kept[Built] = Kept()
        self._evaluation: Evaluation | None = None
        self.fitting = False  # whether a run is going on
        self._counting = False  # whether the clock's cursor is ahead of `cursor`
        self.hooks = CallbackList()  # those of the last run
        self.turn: Turn | None = None  # the hook that is being called, or was when Ctrl-C came
        self.pending: Loaded | None = None  # what callbacks of the next run take up
        self._before_validation: Any = None  # the buffers, while a validation goes on
        self._settled: dict[Any, tuple[Spec, ...]] = {}
        self._ranges = Ranges(self._traced)
        self._watch = Watch(self.model)
        self.version = 0  # grows when programs have to be built anew

    def __getstate__(self) -> dict[str, Any]:
        rebuilt = {"_chosen", "store", "session", "_built", "_evaluation", "_watch", "version"}
        rebuilt |= {"hooks", "turn", "pending", "_before_validation", "fitting"}  # of a run
        rebuilt |= {"_settled", "_counting", "_ranges"}
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
            self._chosen = select(self.model, self._parameters, "parameters")
            self._built.clear()
            self._settled.clear()
            self._ranges.clear()
            self._evaluation = None
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
        return self.optimizer.rate_for(self.rate_factor)

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        if not (np.isfinite(rate) and rate >= 0):
            raise OptionError(f"learning_rate: expected a number >= 0, got {rate!r}")
        self.rate_factor = self.optimizer.factor_for(float(rate))

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

    def rates(self, steps: int) -> np.ndarray:
        """Learning rates of this epoch's next steps, for each parameter group: shape (steps,
        groups)."""
        base = self.optimizer.rates(self.rate_factor)
        if self.optimizer.schedule is None:
            return np.tile(np.array(base, np.float64), (steps, 1))
        schedule = self.optimizer.schedule
        return np.stack(
            [schedule.rates(b, self.step, steps, epoch=self.epoch) for b in base], axis=1
        )

    def get_parameters(self) -> dict[str, np.ndarray]:
        """A copy of all parameters and buffers by name."""
        return self.model.state_dict()

    def set_parameters(self, parameters: Mapping[str, np.ndarray]) -> None:
        """Copy these values into the parameters and buffers."""
        self.model.load_state_dict(dict(parameters))

    # ---------------------------------------------------------------- building

    def built(
        self,
        x: tuple[Spec, ...],
        y: tuple[Spec, ...],
        batch: int,
        feed: str,
        training: bool = True,
        w: tuple[Spec, ...] = (),
    ) -> Built:
        """The planned step for these shapes (`w`: of sample weights); planned once."""
        key = (x, y, batch, feed, training, self.keep_gradients, w)
        if key not in self._built:
            kind = self.session.runtime.kind
            builder = StepBuilder(self.model, self.store, batch, training, feed, kind, self.tf32)
            self.describe(builder, x, y, w)
            if training:
                self.store.dropped = not self.keep_gradients
                objective = Objective(builder.places["loss"], self.trained, self.optimizer)
                builder.train(objective, self.keep_gradients, self.stop_on_nonfinite)
            for k, part in enumerate(builder.parts):
                if part.addition == SUM:
                    self.tally.kinds[k] = SUM
            self._built[key] = builder.finish()
        return self._built[key]

    def stretched(
        self, x: Arrays, y: Arrays, w: Arrays, training: bool, batches: Iterable[int] = ()
    ) -> tuple[Arrays, Arrays, Arrays]:
        """Data, padded to the steps of the programs that serve them (`engine/ranges.py`)."""
        if self.device != "cpu":
            return x, y, w
        kind = "train" if training else "evaluate"
        return self._ranges.stretch(kind, x, y, w, batches)[:3]

    def _traced(self, kind: str, batch: int, specs: Any) -> StepBuilder:
        builder = StepBuilder(self.model, self.store, batch, kind == "train", "direct")
        self.describe(builder, *specs)
        return builder

    def describe(
        self, builder: StepBuilder, x: tuple[Spec, ...], y: tuple[Spec, ...], w: tuple[Spec, ...]
    ) -> tuple[Sequence[Value], Sequence[Value], Sequence[Value]]:
        """Put data, model, losses and metrics into a graph; returns the values of the data."""
        inputs = builder.inputs("x", x)
        targets = builder.inputs("y", y) if y else inputs
        weights = builder.inputs("w", w)
        loss = builder.loss(self.losses, builder.outputs(inputs), targets, weights)
        if builder.graph.training and self.stop_on_nonfinite:
            builder.check_finite(loss)
        builder.report(self.metrics)
        return inputs, targets, weights

    # ---------------------------------------------------------------- fit

    @training("fit")
    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int = 1,
        batch_size: int | None = None,
        shuffle: bool | None = None,
        drop_last: bool = False,
        validation: Any = None,
        callbacks: Callback | Iterable[Callback | None] | None = (),
        verbose: bool = True,
        resume: str | Path | None = None,
        check_data: bool = True,
        sample_weight: Any = None,
    ) -> History:
        """Train.

        Data come as arrays or as batches. Arrays: with `y`, or where `x` is an array, a dict, a
        tuple or a list that is no list of batches. Batches: without `y`, a list of pairs or triples
        of arrays, or anything else that can be iterated. What could be either is refused.

        Args:
            x: array of samples (first dimension) of any library that gives NumPy its arrays, or
                several inputs: a tuple or list of arrays, or a dict by the names of `forward`'s
                arguments. NumPy arrays and memory maps are read in place. uint8 and bool are
                numbers where the model takes numbers and ids where it takes ids. Or batches: a list
                of (inputs, targets) or (inputs, targets, sample weights), or anything else that
                gives such when iterated; it is iterated anew for each epoch.
            y: targets, one for each sample; None: the inputs are the targets (autoencoders). A
                tuple or dict for several.
            epochs: passes over the data, in addition to those done before; with `resume`, in total.
            batch_size: samples in a step, 32 by default; the last batch of an epoch may be smaller,
                and all are where there are fewer samples.
            shuffle: whether to draw a new data order for each epoch; by default it is.
            drop_last: leave out a last batch that is smaller.
            validation: what to evaluate after each epoch: (x, y) or (x, y, sample weights), a list
                or iterable of batches, or the share of samples (the last ones) to keep for it.
            callbacks: one or several of `fastnn.callbacks`, or of your own.
            verbose: show progress.
            resume: a checkpoint written by `save`: go on where it was written, bit for bit as if
                the run had not been interrupted; the callbacks go on too. Between epochs the data
                and the batch size may be others: a warning says that the run is another one then.
            check_data: look for NaN and infinity in the data first.
            sample_weight: what each sample counts in losses and metrics, shape (samples,), or that
                of the targets' rows ((samples, steps): 0 for what is padding). Means are divided by
                the sum of the weights.

        Returns:
            The history of this call. After Ctrl-C the history so far, with ``stopped`` saying so.

        Raises:
            DataError, ShapeError, OptionError: bad input, before anything is trained.
            BusyError: another thread is training the model.
            NonFiniteError: the loss or a parameter became NaN or infinite (see
                `stop_on_nonfinite`).
            KernelError: a kernel of yours has raised an exception; the model is as it was before
                that step, and the next run begins the epoch anew.
        """
        from fastnn.train.checkpoint import Loaded

        if not isinstance(epochs, (int, np.integer)) or epochs < 0:
            raise OptionError(f"epochs: expected a whole number >= 0, got {epochs!r}")
        chosen = list(CallbackList(callbacks))
        if any(callback.needs_gradients for callback in chosen):
            self.keep_gradients = True
        self.refresh()
        loaded = None if resume is None else Loaded(self, resume)  # nothing is changed yet
        given = gives_batches(x, y)
        batch = self._batch_size(batch_size, 32)
        if isinstance(validation, np.floating):
            validation = float(validation)
        held_out = self._validation(validation, batch, check_data)
        feed: ArrayFeed | BatchFeed
        if given:
            self._refuse_for_batches(y, batch_size, shuffle, drop_last, validation, sample_weight)
            feed = BatchFeed(self, x, check_data)
        else:
            data = self.checked(x, y, sample_weight, check_data, "training")
            if isinstance(validation, float):
                data, kept = _split(data, validation)
                held_out = self._held_out(kept, batch)
            batch = self._cut(batch, len(data[0]), batch_size is not None)
            self._refuse_mixing(data, batch, shuffle is not False)
            feed = ArrayFeed(self, *data, batch, shuffle is not False, bool(drop_last))
        progress = [ProgressBar()] if verbose else []
        hooks = CallbackList([*chosen, *progress])
        hooks.set_model(self.model)
        loaded = loaded or self.pending
        if loaded is not None:
            loaded.check_feed(feed.description)
            loaded.check_callbacks(hooks)
        if resume is not None and loaded is not None:
            loaded.apply()
        self._count()
        self._move(self.place)
        self.turn, self.hooks, self.feed_description = None, hooks, feed.description
        last = int(epochs) if resume is not None else self.epoch + int(epochs)
        params = {
            "epochs": last,
            "steps": feed.steps,
            "samples": feed.samples,
            "batch_size": 0 if given else batch,
        }
        hooks.set_params(params)
        hooks.set_trainer(self)
        self.history = History(params)
        self.stop_training = self.interrupted = False
        self.session.doubt()
        hooks.on_train_begin({})
        self.fitting = True
        try:
            self._epochs(feed, held_out, last, hooks)
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

    def _count(self) -> None:
        """Note how far the epoch's steps have come, also those of a run that Ctrl-C left behind."""
        if self._counting:
            self.session.settle()
            self.cursor = int(self.session.clock[words.CURSOR])
            self._counting = False

    def _settle(self) -> None:
        """Finish what an exception left half done of an epoch, its end, or a validation."""
        self._count()
        self.history.even()
        if self._before_validation is not None:
            self.session.runtime.restore(self._before_validation)
            self._before_validation = None
        turn = self.turn
        self._move(self.place)  # whatever is left to call, an epoch whose end was begun is done
        if turn is not None and turn.ends_epoch and self.history.epoch[-1:] == [turn.number]:
            self.turn = None

    @staticmethod
    def _batch_size(given: Any, default: int) -> int:
        if given is None:
            return default
        if not isinstance(given, (int, np.integer)) or isinstance(given, bool) or given < 1:
            raise OptionError(f"batch_size: expected a whole number >= 1, got {given!r}")
        return int(given)

    @staticmethod
    def _cut(batch: int, samples: int, asked: bool) -> int:
        """The batch size, at most the number of samples."""
        if batch > samples and asked:
            LOG.warning(
                "batch_size %d is more than the %d samples: all make one batch", batch, samples
            )
        return min(batch, samples)

    @staticmethod
    def _refuse_for_batches(
        y: Any, batch_size: Any, shuffle: Any, drop_last: Any, validation: Any, sample_weight: Any
    ) -> None:
        """Options for arrays, where `x` gives batches."""
        if y is not None or isinstance(validation, float) or sample_weight is not None:
            raise OptionError(
                "an iterable of batches gives inputs, targets and sample weights itself, and its "
                "validation data as (x, y) or as batches; expected y=None"
            )
        serves = isinstance(validation, tuple)  # a batch size for the validation's arrays
        for name, given in (
            ("batch_size", batch_size if not serves else None),
            ("shuffle", shuffle or None),
            ("drop_last", drop_last or None),
        ):
            if given is not None:
                raise OptionError(
                    f"{name}: expected none, because x gives batches as they are; cut, shuffle and "
                    "drop in the iterable, or pass arrays"
                )

    def _refuse_mixing(self, data: Data, batch: int, shuffle: bool) -> None:
        """Arrays whose samples can't be cut into batches."""
        x, y, w = data
        if batch == len(x) and not shuffle:
            return
        if not self.evaluation().cuts(x.specs, y.specs, w.specs).outputs:
            raise DataError(
                "x: the model's outputs have no piece for each sample that depends on this sample "
                "alone (recurrent layers with batch_first=False have time first), so arrays can't "
                "be cut and shuffled; pass an iterable of whole batches, or "
                f"batch_size={len(x)} and shuffle=False"
            )

    def checked(
        self, x: Any, y: Any, weight: Any, check_data: bool, what: str
    ) -> tuple[Arrays, Arrays, Arrays]:
        """Inputs, targets and sample weights, ready for steps."""
        several = not self.losses.single
        inputs = as_arrays(x, "x", f"{what} inputs")
        targets = NO_ARRAYS if y is None else as_arrays(y, "y", f"{what} targets", several)
        weights = NO_ARRAYS
        if weight is not None:
            weights = as_arrays(weight, "w", "sample_weight", several)
            check_weights(weights, inputs, self.dtype)
        check_lengths(inputs, targets, f"{what} data")
        if check_data:
            check_finite(inputs, f"{what} inputs", self.dtype)
            check_finite(targets, f"{what} targets", self.dtype)
        if inputs.specs not in self._settled:
            self._settled[inputs.specs] = settled(self.model, inputs.specs)
        return inputs.with_specs(self._settled[inputs.specs]), targets, weights

    def _validation(self, given: Any, batch: int, check_data: bool) -> HeldOut | None:
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
            data = self.checked(given[0], given[1], weight, check_data, "validation")
            return self._held_out(data, batch)
        if not pair and gives_batches(given, None):
            if isinstance(given, Iterator):
                raise OptionError(
                    "validation: expected something that can be iterated after each epoch, got a "
                    f"{type(given).__name__}; pass a list of batches, or a class with __iter__"
                )
            return lambda: self.evaluation().of_batches(given, check_data)
        raise OptionError(
            "validation: expected (x, y), (x, y, sample weights), batches or a share, got "
            f"{_kind(given)}"
        )

    def _held_out(self, data: Data, batch: int) -> HeldOut:
        self.evaluation().steps(*data, batch)
        return lambda: self.evaluation().of_arrays(*data, batch)

    def _epochs(
        self,
        feed: ArrayFeed | BatchFeed,
        held_out: HeldOut | None,
        last: int,
        hooks: CallbackList,
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
                found = held_out()
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
        self._counting = True
        if self.cursor == 0:
            session.totals[:] = 0.0
        done = self.step - feed.steps_done(self.cursor)  # as it was when the epoch began

        def poll() -> None:
            hooks.update(self.step - done, self.tally.values(session.totals))

        batches = _BatchHooks(hooks, self) if hooks.needs_batches else None
        try:
            reason = feed.run_epoch(epoch, poll, batches)
        except KernelError:
            self._count()
            self.cursor = 0  # the epoch's means are spoilt, as below
            raise
        finally:
            self._count()
        if reason == words.NOT_FINITE:
            number = self.step - done + 1
            where = f"epoch {epoch + 1}, step {number} of the epoch (step {self.step + 1} in all)"
            message = explain(self.model, session, feed.last_bound(session), where)
            self.history.stopped = "the loss was not finite"
            self.cursor = 0  # the epoch's means are spoilt: the next run begins it anew
            raise NonFiniteError(message)
        return self.tally.values(session.totals)

    # ---------------------------------------------------------------- evaluate, predict

    @reading("evaluate")
    def evaluate(
        self,
        x: Any,
        y: Any = None,
        *,
        batch_size: int | None = None,
        check_data: bool = True,
        sample_weight: Any = None,
    ) -> dict[str, float]:
        """Losses and metrics over data, in evaluation mode: those of all samples together.

        Args:
            x, y: as in `fit`: arrays, or batches.
            batch_size: samples at a time, 256 by default (no influence on the result beyond
                rounding). A loss that is no mean or sum of rows is computed of all at once.
            check_data: look for NaN and infinity first.
            sample_weight: as in `fit`.

        Returns:
            The numbers by name; NaN for a mean of nothing (all rows ignored, all weights 0).
        """
        batch = self._batch_size(batch_size, 256)
        if gives_batches(x, y):
            if y is not None or batch_size is not None or sample_weight is not None:
                raise OptionError(
                    "evaluate: an iterable of batches gives inputs, targets and sample weights "
                    "itself, as they are; leave out y, batch_size and sample_weight"
                )
            return self.evaluation().of_batches(x, check_data)
        data = self.checked(x, y, sample_weight, check_data, "evaluation")
        return self.evaluation().of_arrays(*data, batch)

    def evaluation(self) -> Evaluation:
        """What evaluates; kept from call to call."""
        self.refresh()
        if self._evaluation is None:
            self._evaluation = Evaluation(self)
        return self._evaluation

    def predict(self, *inputs: Any, batch_size: int = 256) -> Any:
        """The model's outputs for arrays of samples; see `Module.predict`."""
        return self.model.predict(*inputs, batch_size=batch_size)

    # ---------------------------------------------------------------- checkpoints

    def __repr__(self) -> str:
        name = type(self.model).__name__
        return f"Trainer({name}, {self.optimizer!r}, epochs done: {self.epoch})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write parameters, optimiser state, step, seed, place in the data and what callbacks
        remember to a safetensors file, atomically; `load`, or `fit` with `resume`, goes on from it.
        """
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
            turn.logs = trainer.tally.values(trainer.session.totals)
            turn.run(trainer)
        trainer.turn = None


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
