"""Single training steps, for people who write their own loops."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnn import optim
from fastnn.engine.arrays import (
    NO_ARRAYS,
    Arrays,
    as_arrays,
    check_lengths,
    check_ranges,
    check_weights,
)
from fastnn.engine.builder import Built
from fastnn.engine.model import settled
from fastnn.engine.nonfinite import explain
from fastnn.engine.ranges import Ranges
from fastnn.engine.session import Session
from fastnn.engine.specs import Spec
from fastnn.engine.turns import Turn, turns
from fastnn.engine.update import Objective
from fastnn.errors import NonFiniteError, OptionError
from fastnn.kernels import clock as words
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.nn.structure import Watch, clock, select
from fastnn.plan.program import Operand, PlannedCall, PlannedPhase, Program
from fastnn.runtime import devices
from fastnn.runtime.interface import Bound
from fastnn.runtime.kept import Kept
from fastnn.train import copies
from fastnn.train.build import StepBuilder
from fastnn.train.options import check_device_options, check_options

#: learning rates computed ahead, in steps
AHEAD = 256


class Step:
    """One training step at a time; made by `fastnn.compile`, which see.

    Attributes:
        model, loss, optimizer: as given.
        parameters: the parameters that are trained, by name.
    """

    def __init__(
        self,
        model: Module,
        loss: Any,
        optimizer: str | optim.Optimizer,
        *,
        loss_weights: Any,
        parameters: Any,
        seed: int,
        dtype: str,
        workers: int | str,
        device: str,
        stop_on_nonfinite: bool,
        keep_gradients: bool,
        steps_per_epoch: int,
        graphs: bool,
        tf32: bool,
    ):
        self.losses, self.optimizer = check_options(
            model, loss, optimizer, seed, dtype, loss_weights
        )
        self.loss = self.losses.functions[0] if self.losses.single else self.losses
        self.model = model
        check_device_options(device, graphs, tf32)
        if not isinstance(steps_per_epoch, (int, np.integer)) or steps_per_epoch < 1:
            raise OptionError(
                f"steps_per_epoch: expected a whole number >= 1, got {steps_per_epoch!r}"
            )
        self.device = devices.choose(device)
        self.stop_on_nonfinite, self.tf32 = bool(stop_on_nonfinite), bool(tf32)
        self.keep_gradients = bool(keep_gradients)
        self.steps_per_epoch = int(steps_per_epoch)
        self.dtype, self.seed, self._options = dtype, int(seed), parameters
        self._open(workers, bool(graphs))
        self._clock[words.SEED] = self.seed
        self._rate_factor = self.optimizer.rate_factor

    def _open(self, workers: int | str, graphs: bool) -> None:
        """Memory and workers: of a new step, and of a copy."""
        self._chosen = select(self.model, self._options, "parameters")
        self.store = self.model.store(self.dtype, self.seed)
        self.store.device = self.device
        self.session = Session(self.store, self.optimizer.slots, 0, workers, self.device, graphs)
        for slot in self.optimizer.slots:
            self.session.memory[f"slots/{slot}"].fill(self.optimizer.initial(slot))
        self._clock = self.session.clock
        self._rates = np.zeros((AHEAD, self.optimizer.group_count))
        self.session.set("schedule", self._rates)
        self._clock[words.RUN_STEP] = AHEAD  # the table's row for the next step: there is none yet
        self._ready: Kept[_Ready] = Kept()
        self._settled: dict[Any, tuple[Spec, ...]] = {}
        self._ranges = Ranges(self._traced)
        self._watch = Watch(self.model)

    def __getstate__(self) -> dict[str, Any]:
        rebuilt = {
            "_chosen",
            "store",
            "session",
            "_clock",
            "_rates",
            "_ready",
            "_watch",
            "_settled",
            "_ranges",
        }
        return copies.contents(self, rebuilt)

    def __setstate__(self, state: dict[str, Any]) -> None:
        copied = state.pop("_copied")
        self.__dict__.update(state)
        self._open(copied["workers"], copied["graphs"])
        copies.fill(self, copied)
        self._clock[words.RUN_STEP] = AHEAD

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The parameters that are trained, by name: those chosen that are not frozen."""
        return {name: p for name, p in self._chosen.items() if p.trainable}

    def _refresh(self) -> None:
        """The model has changed (its parts, attributes of a layer, what is frozen): build anew."""
        copies.refuse_new_parameters(self.model, self.store, "step")
        self._chosen = select(self.model, self._options, "parameters")
        self._ready.clear()
        self._settled.clear()
        self._ranges.clear()
        self._watch.accept()

    def __call__(self, x: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Do one training step: forward, backward, clipping, update.

        Args:
            x: the mini-batch of inputs, shape (batch, ...), or a tuple of arrays for a model with
                several inputs.
            y: its targets, or a tuple or dict of them; None: the inputs are the targets.
            sample_weight: what each sample counts, as for `Trainer.fit`.

        Returns:
            The loss before the update: the sum of the rows' losses by the sum of their weights (or
            the sum alone, for the reduction "sum"). 0 where nothing counts, and gradients are 0.

        Raises:
            DataError, ShapeError: bad input; nothing has been updated.
            BusyError: another thread is training the model.
            NonFiniteError: the loss is NaN or infinite, or the update would have made a parameter
                so; model, optimiser and running statistics are as they were.
            KernelError: a kernel of yours has raised an exception; likewise.
        """
        turn = turns(self.store).train(Turn("a step", sys._getframe()))
        try:
            ready, arrays = self._find("train", x, y, sample_weight)
            # The clock alone says how many rates are used: the step itself counts it, so Ctrl-C
            # can't come between the two.
            if self._clock[words.RUN_STEP] >= AHEAD:
                self._compute_rates()
            ready.run(arrays)
            if self._clock[words.STOP]:
                self._stopped(ready, x, y)
            return ready.loss.item()
        finally:
            turn.end()

    def evaluate(self, x: Any, y: Any = None, sample_weight: Any = None) -> float:
        """The loss of a mini-batch with the model in evaluation mode; arguments as for a step."""
        turn = turns(self.store).train(Turn("a step's loss", sys._getframe()))
        try:
            ready, arrays = self._find("evaluate", x, y, sample_weight)
            ready.run(arrays)
            if self._clock[words.STOP]:
                self._stopped(ready, x, y)
            return ready.loss.item()
        finally:
            turn.end()

    def gradients(self, x: Any, y: Any = None, sample_weight: Any = None) -> dict[str, np.ndarray]:
        """The gradients that the next step would use, before clipping; nothing is updated.

        Args:
            x, y, sample_weight: as for a step.

        Returns:
            For each trained parameter's name an array of its shape: zeros where the loss doesn't
            depend on it.
        """
        turn = turns(self.store).train(Turn("gradients", sys._getframe()))
        try:
            ready, arrays = self._find("gradients", x, y, sample_weight)
            saved = self.session.runtime.save(["buffers"])
            try:
                ready.run(arrays)
            finally:
                self.session.runtime.restore(saved)
            if self._clock[words.STOP]:
                self._stopped(ready, x, y)
            return {
                name: np.array(p.last_gradient())
                if name in ready.found
                else np.zeros(p.shape, self.store.dtype)
                for name, p in self.parameters.items()
            }
        finally:
            turn.end()

    @property
    def learning_rate(self) -> float:
        """The base learning rate; setting it scales those of all parameter groups alike."""
        return self.optimizer.rate_for(self._rate_factor)

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        if not (np.isfinite(rate) and rate >= 0):
            raise OptionError(f"learning_rate: expected a number >= 0, got {rate!r}")
        self._rate_factor = self.optimizer.factor_for(float(rate))
        self._clock[words.RUN_STEP] = AHEAD

    @property
    def steps(self) -> int:
        """Training steps done so far."""
        return int(self._clock[words.STEP])

    # ---------------------------------------------------------------- preparation

    def _find(
        self, kind: str, x: Any, y: Any, weight: Any = None
    ) -> tuple[_Ready, Sequence[np.ndarray]]:
        """The program for these shapes and element types, and the arrays to feed it with."""
        if self.store.stale:
            self.store.check()
        watch = self._watch
        if (watch.seen != clock.now or watch.containers) and watch.changed():
            self._refresh()
        if weight is not None:
            return self._prepare(kind, x, y, weight)
        try:
            if y is None:
                return self._ready[kind, x.__class__, x.shape, x.dtype], (x,)
            key = kind, x.__class__, x.shape, x.dtype, y.__class__, y.shape, y.dtype
            return self._ready[key], (x, y)
        except (AttributeError, KeyError):
            return self._prepare(kind, x, y)

    def _prepare(
        self, kind: str, x: Any, y: Any, weight: Any = None
    ) -> tuple[_Ready, Sequence[np.ndarray]]:
        inputs, targets = self._checked(x, y)
        weights = NO_ARRAYS
        if weight is not None:
            weights = as_arrays(weight, "w", "sample_weight", not self.losses.single)
            check_weights(weights, inputs, self.dtype)
        if self.device == "cpu":  # arrays of a GPU are copied
            inputs, targets, weights = (a.on_host() for a in (inputs, targets, weights))
            given = (inputs, targets, weights)
            inputs, targets, weights, _ = self._ranges.stretch(kind, *given)
        arrays = [*inputs.arrays, *targets.arrays, *weights.arrays]
        specs = inputs.specs, targets.specs, weights.specs
        key = (kind, len(inputs), specs, *(a.dtype for a in arrays))
        if key not in self._ready:
            self._ready[key] = self._build(kind, inputs, targets, weights)
        ready = self._ready[key]
        if len(arrays) == 1 and arrays[0] is x and y is None:
            self._ready[kind, x.__class__, x.shape, x.dtype] = ready
        elif len(arrays) == 2 and arrays[0] is x and arrays[1] is y:
            key = kind, x.__class__, x.shape, x.dtype, y.__class__, y.shape, y.dtype
            self._ready[key] = ready
        return ready, arrays

    def _checked(self, x: Any, y: Any) -> tuple[Arrays, Arrays]:
        inputs = as_arrays(x, "x", "inputs")
        targets = NO_ARRAYS
        if y is not None:
            targets = as_arrays(y, "y", "targets", not self.losses.single)
        check_lengths(inputs, targets, "batch")
        if inputs.specs not in self._settled:
            self._settled[inputs.specs] = settled(self.model, inputs.specs)
        return inputs.with_specs(self._settled[inputs.specs]), targets

    def _traced(self, kind: str, batch: int, specs: tuple[tuple[Spec, ...], ...]) -> StepBuilder:
        """A step as far as its loss."""
        builder = StepBuilder(
            self.model, self.store, batch, kind != "evaluate", "direct",
            self.session.runtime.kind, self.tf32,
        )  # fmt: skip
        inputs = builder.inputs("x", specs[0])
        targets = builder.inputs("y", specs[1]) if specs[1] else inputs
        weights = builder.inputs("w", specs[2])
        builder.loss(self.losses, builder.outputs(inputs), targets, weights)
        return builder

    def _build(self, kind: str, x: Arrays, y: Arrays, w: Arrays) -> _Ready:
        builder = self._traced(kind, len(x), (x.specs, y.specs, w.specs))
        loss = builder.places["loss"]
        found = set(self.parameters)
        if kind == "train":
            self.store.dropped = not self.keep_gradients
            if self.stop_on_nonfinite:
                builder.check_finite(loss)
            builder.train(
                Objective(loss, self.parameters, self.optimizer), self.keep_gradients,
                self.stop_on_nonfinite,
            )  # fmt: skip
        elif kind == "gradients":
            found = set(builder.gradients(loss, self.parameters)[1])
        built = builder.finish(advance=kind == "train")
        bound = self.session.bind(built.program)
        names = [*x.names, *y.names, *w.names]
        arrays = [*x.arrays, *y.arrays, *w.arrays]
        return _Ready(self.session, built, bound, names, arrays, found)

    def _compute_rates(self) -> None:
        """Fill the table of learning rates from the current step on."""
        schedule = self.optimizer.schedule
        for group, base in enumerate(self.optimizer.rates(self._rate_factor)):
            self._rates[:, group] = (
                base
                if schedule is None
                else schedule.rates(base, self.steps, AHEAD, self.steps_per_epoch)
            )
        self.session.changed("schedule")
        self._clock[words.RUN_STEP] = 0  # last: until then the table counts as used up

    def _stopped(self, ready: _Ready, x: Any, y: Any) -> None:
        """Say why a program stopped before its end."""
        reason = int(self._clock[words.STOP])
        self._clock[words.STOP] = 0
        self._clock[words.RUN_STEP] = AHEAD
        if reason == words.OUT_OF_RANGE:
            for arrays in self._checked(x, y):
                check_ranges(arrays, ready.built.ranges)
        raise NonFiniteError(
            explain(self.model, self.session, ready.bound, f"step {self.steps + 1}")
        )

    def __repr__(self) -> str:
        return f"Step({type(self.model).__name__}, {self.optimizer!r}, {self.steps} steps done)"


class _Ready:
    """A bound step with all that a call needs.

    Integers are checked by a program of its own that runs first: it stops the run before anything
    else happens.
    """

    def __init__(
        self,
        session: Session,
        built: Built,
        bound: Bound,
        names: Sequence[str],
        arrays: Sequence[np.ndarray],
        found: set[str],
    ):
        self.built, self.bound, self.found = built, bound, found
        bounds = [bound]
        if built.ranges:
            bounds.insert(0, session.runtime.beside(bound, _range_check(built)))
        self.single = session.runtime.single(bounds, names, arrays)
        self.loss, self.run = self.single.loss, self.single.run
        self.nbytes = built.nbytes + sum(int(b.nbytes) for b in bounds)


def _range_check(built: Built) -> Program:
    """A program that checks a step's integer inputs."""
    program = built.program
    clock = Operand("clock", 0, (words.LENGTH,), "i", external=True)
    calls = []
    for name, limits in built.ranges:
        place = program.places[name]
        size = int(np.prod(place.dims, dtype=np.int64))
        ids = Operand(place.segment, place.offset, (size,), "i")
        ignored = limits.low if limits.ignored is None else limits.ignored
        operands = (ids, clock, limits.low, limits.high, ignored)
        calls.append(PlannedCall("check_range", operands, 1, limits.scope))
    return Program(
        (PlannedPhase((), tuple(calls)),), program.sizes, (), {}, program.dtype, program.batch
    )


def compile(
    model: Module,
    loss: Any,
    optimizer: str | optim.Optimizer = "adam",
    *,
    loss_weights: Any = None,
    parameters: Any = None,
    seed: int = 0,
    dtype: str = "float32",
    workers: int | str = "auto",
    device: str = "auto",
    stop_on_nonfinite: bool = True,
    keep_gradients: bool = False,
    steps_per_epoch: int = 1,
    graphs: bool = True,
    tf32: bool = False,
) -> Step:
    """A step function, for people who write their own training loops.

    ``step(x, y)`` does one training step on a mini-batch and returns the loss. The first call with
    new shapes traces and plans; further ones take a few microseconds more than the kernels.

    Args:
        model: the module to train.
        loss: a loss from `fastnn.nn`, its name ("cross_entropy", "mse", ...), or a function of
            symbolic (output, target) that returns a single number; several outputs or targets come
            as `forward` returns them and as the step gets them. Or a loss for each output, as a
            list or dict; see `Trainer`.
        optimizer: an optimiser from `fastnn.optim`, or its name.
        loss_weights: factors of several losses, as a list or dict like `loss`; 1 by default.
        parameters: what is trained: name patterns ("encoder.*"), modules or parameters of the
            model, one or a list; None: all. Steps that train different parts of one model share
            its parameters; so do steps of models that have modules in common (call ``store()`` of
            the model that contains all of them first).
        seed: of initial parameters and dropout.
        dtype: "float32" or "float64".
        workers: number of threads, or "auto" to choose by the work in a step. The results are the
            same, bit for bit, for any number.
        device: "auto", "cpu", or a CUDA device.
        stop_on_nonfinite: raise an error when the loss is NaN or infinite, or a parameter would
            become so, and leave all as it was. False: parameters may become NaN.
        keep_gradients: whether each parameter's `grad` shows the gradient of the last step. A step
            that need not write its gradients to memory is faster; ``step.gradients(x, y)`` gives
            them at any time.
        steps_per_epoch: what schedules that count epochs take for one.
        graphs: on a GPU, replay a step as one CUDA graph; False launches its kernels one by one,
            for debugging.
        tf32: on a GPU, let matrix products of float32 use tensor cores, which round their
            operands to TF32 (10 bits of mantissa): faster, less exact.

    Returns:
        A `Step`: call it as ``step(x, y)``; see also its `evaluate`, `gradients`, `learning_rate`
        and `steps`. While one thread is in the middle of a step, those of other threads on the
        same model are refused.

    Raises:
        OptionError: an option that is not allowed.

    >>> import numpy as np
    >>> import fastnn as fnn
    >>> from fastnn import nn, optim
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    >>> y = (x[:, 0] > 0).astype(np.int64)
    >>> step = fnn.compile(nn.Linear(4, 2), nn.CrossEntropyLoss(), optim.Adam(lr=0.1))
    >>> losses = [step(x, y) for _ in range(50)]
    >>> losses[-1] < 0.5 * losses[0], step.steps
    (True, 50)
    """
    return Step(
        model, loss, optimizer, loss_weights=loss_weights, parameters=parameters, seed=seed,
        dtype=dtype, workers=workers, device=device, stop_on_nonfinite=stop_on_nonfinite,
        keep_gradients=keep_gradients, steps_per_epoch=steps_per_epoch, graphs=graphs, tf32=tf32,
    )  # fmt: skip
