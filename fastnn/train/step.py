"""Single training steps, for training loops of your own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnn import optim
from fastnn.engine import scaling
from fastnn.engine.access import Access, access_to
from fastnn.engine.arrays import Arrays
from fastnn.engine.nonfinite import explain
from fastnn.engine.session import CarriedStates
from fastnn.engine.single import Single
from fastnn.errors import NonFiniteError, OptionError, is_whole
from fastnn.kernels import control_block
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.nn.structure import changes
from fastnn.optim.full_batch import FullBatch
from fastnn.optim.schedule import Schedule
from fastnn.runtime import devices
from fastnn.runtime.kept import Kept
from fastnn.spellings import told
from fastnn.train import averages
from fastnn.train.base import Data, OnGradients, Options, Training
from fastnn.train.build import StepBuilder

#: learning rates computed ahead, in steps
AHEAD = 256


class Step(Training):
    """One training step at a time; made by `fastnn.compile`, which see.

    Attributes:
        model, loss, optimizer: as given.
        parameters: the parameters that are trained, by name.
    """

    kind = "step"
    rebuilt = Training.rebuilt | {"_control", "_rates", "_ready"}

    def __init__(self, model: Module, options: Options, steps_per_epoch: int | None):
        super().__init__(model, options)
        if isinstance(self.optimizer, FullBatch):
            raise OptionError(
                f"optimizer: {type(self.optimizer).__name__} takes the whole data set for each "
                "step, so it has no steps of mini-batches; use fastnn.Trainer, or a method for "
                "mini-batches (optim.Adam)"
            )
        self.steps_per_epoch = _steps_per_epoch(steps_per_epoch, self.optimizer.schedule)
        self._open(options.workers, bool(options.graphs))
        self._control[control_block.SEED] = self.seed

    def _open(self, workers: int | str, graphs: bool) -> None:
        super()._open(workers, graphs)
        self._control = self.session.control
        self._rates = np.zeros((AHEAD, self.optimizer.group_count))
        self.session.set("schedule", self._rates)
        # the table's row for the next step: there is none yet
        self._control[control_block.RUN_STEP] = AHEAD
        self._ready: Kept[Single] = Kept()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._control[control_block.RUN_STEP] = AHEAD

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The parameters that are trained, by name: those chosen that are not frozen."""
        return self.trained

    def _forget(self) -> None:
        self._ready.clear()

    def _rates_changed(self) -> None:
        self._control[control_block.RUN_STEP] = AHEAD

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
        turn = access_to(self.store).train(Access("a step", sys._getframe()))
        try:
            ready, arrays = self._find("train", x, y, sample_weight)
            # The control block alone says how many rates are used: the step itself counts it, so
            # Ctrl-C can't come between the two.
            if self._control[control_block.RUN_STEP] >= AHEAD:
                self._compute_rates()
            ready.run(arrays)
            if self._control[control_block.STOP]:
                self._stopped(ready, x, y)
            return ready.loss.item()
        finally:
            turn.end()

    def evaluate(self, x: Any, y: Any = None, sample_weight: Any = None) -> float:
        """The loss of a mini-batch with the model in evaluation mode; arguments as for a step."""
        turn = access_to(self.store).train(Access("a step's loss", sys._getframe()))
        try:
            ready, arrays = self._find("evaluate", x, y, sample_weight)
            with CarriedStates(self.session) as states:
                states.before(ready.built)
                ready.run(arrays)
                if self._control[control_block.STOP]:
                    self._stopped(ready, x, y)
            return ready.loss.item()
        finally:
            turn.end()

    def gradients(self, x: Any, y: Any = None, sample_weight: Any = None) -> dict[str, np.ndarray]:
        """The gradients that the next step would use, before clipping; nothing is updated.

        At precision="fp16" they are those at the largest factor, from the next step's on, at which
        they do not overflow.

        Args:
            x, y, sample_weight: as for a step.

        Returns:
            For each trained parameter's name an array of its shape: zeros where the loss doesn't
            depend on it.
        """
        turn = access_to(self.store).train(Access("gradients", sys._getframe()))
        try:
            ready, arrays = self._find("gradients", x, y, sample_weight)
            factor = int(self._control[control_block.SCALE])
            saved = self.session.runtime.save(["buffers"])
            try:
                ready.run(arrays)
                while self._overflowed(ready):
                    self.session.runtime.restore(saved)
                    self._control[control_block.SCALE] -= 1
                    ready.run(arrays)
            finally:
                self.session.runtime.restore(saved)
                self._control[control_block.SCALE] = factor
            if self._control[control_block.STOP]:
                self._stopped(ready, x, y)
            return {
                name: np.array(p.last_gradient())
                if name in ready.found
                else np.zeros(p.shape, self.store.dtype)
                for name, p in self.parameters.items()
            }
        finally:
            turn.end()

    def _overflowed(self, ready: Single) -> bool:
        """Whether the gradients are not finite, and may be at a smaller factor."""
        control = self._control
        if self.precision not in scaling.SCALED or control[control_block.STOP]:
            return False
        found = (self.parameters[name].last_gradient() for name in ready.found)
        return control[control_block.SCALE] > 0 and not all(
            np.isfinite(array).all() for array in found if array is not None
        )

    @property
    def steps(self) -> int:
        """Training steps done so far."""
        return int(self._control[control_block.STEP])

    # ---------------------------------------------------------------- preparation

    def _find(
        self, kind: str, x: Any, y: Any, weight: Any = None
    ) -> tuple[Single, Sequence[np.ndarray]]:
        """The program for these shapes and element types, and the arrays to feed it with."""
        if self.store.stale:
            self.store.check()
        watch = self._watch
        if (watch.seen != changes.count or watch.containers) and watch.changed():
            self._take_changes()
        if weight is not None:
            return self._prepare(kind, x, y, weight)
        try:
            if y is None:
                return self._ready[kind, x.__class__, x.shape, x.dtype], (x,)
            if x.__class__ is tuple:
                arrays = (*x, y)
                return self._ready[_likeness(kind, arrays)], arrays
            key = kind, x.__class__, x.shape, x.dtype, y.__class__, y.shape, y.dtype
            return self._ready[key], (x, y)
        except (AttributeError, KeyError, TypeError):  # the last: of a shape that can't be a key
            return self._prepare(kind, x, y)

    def _prepare(
        self, kind: str, x: Any, y: Any, weight: Any = None
    ) -> tuple[Single, Sequence[np.ndarray]]:
        inputs, targets, weights = self._checked(x, y, weight)
        if devices.on_host(self.device):  # arrays of a GPU are copied
            inputs, targets, weights = (a.on_host() for a in (inputs, targets, weights))
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
        elif x.__class__ is tuple and [*map(id, arrays)] == [*map(id, (*x, y))]:
            self._ready[_likeness(kind, arrays)] = ready
        return ready, arrays

    def _checked(self, x: Any, y: Any, weight: Any = None) -> Data:
        return self.understood(*self.arrays(x, y, weight, "", "batch"))

    def _build(self, kind: str, x: Arrays, y: Arrays, w: Arrays) -> Single:
        found = set(self.trained)

        def make(batch: int, specs: Any) -> StepBuilder:
            builder = self._traced(kind, batch, specs)
            if kind == "train":
                if self.stop_on_nonfinite:
                    builder.check_finite(builder.places["loss"])
                self.add_updates(builder)
            elif kind == "gradients":
                found.intersection_update(
                    builder.gradients(builder.places["loss"], self.trained)[1]
                )
            return builder

        specs = x.specs, y.specs, w.specs
        found, built = self._plans.build(
            kind, make, len(x), specs, advance=kind == "train", note=lambda _: found
        )
        names = [*x.names, *y.names, *w.names]
        return Single(self.session, built, names, [*x.arrays, *y.arrays, *w.arrays], found)

    def ready(self, x: Any, y: Any, weight: Any) -> tuple[Single, Sequence[np.ndarray]]:
        """The training step for these data with its learning rates, and the arrays to feed it."""
        found = self._find("train", x, y, weight)
        if self._control[control_block.RUN_STEP] >= AHEAD:
            self._compute_rates()
        return found

    def _compute_rates(self) -> None:
        """Fill the table of learning rates from the current step on."""
        averages.refuse_aside(self, "a step")
        if self.steps == 0:
            averages.begin(self)
        self._rates[:] = self.scheduled(self.steps, AHEAD, steps_per_epoch=self.steps_per_epoch)
        self.session.changed("schedule")
        self._control[control_block.RUN_STEP] = 0  # last: until then the table counts as used up

    def _stopped(self, ready: Single, x: Any, y: Any) -> None:
        """Say why a program stopped before its end."""
        reason = int(self._control[control_block.STOP])
        self._control[control_block.STOP] = 0
        self._control[control_block.RUN_STEP] = AHEAD
        if reason == control_block.OUT_OF_RANGE or ready.built.checks:
            ready.built.check(*self._checked(x, y))
        raise NonFiniteError(
            explain(self.model, self.session, ready.bound, f"step {self.steps + 1}")
        )

    def __repr__(self) -> str:
        return f"Step({type(self.model).__name__}, {self.optimizer!r}, {self.steps} steps done)"


def _steps_per_epoch(given: int | None, schedule: Schedule | None) -> int:
    if given is None:
        return 1
    if not is_whole(given, 1):
        raise OptionError(f"steps_per_epoch: expected a whole number >= 1, got {given!r}")
    if schedule is None or not schedule.counts_epochs:
        raise OptionError(
            f"steps_per_epoch: expected a learning rate with a schedule by epochs "
            f"(unit='epoch'), got {schedule or 'no schedule'}; leave it out"
        )
    return int(given)


@told
def compile(
    model: Module,
    loss: Any,
    optimizer: str | optim.Optimizer = "adam",
    *,
    loss_weights: Any = None,
    penalties: Any = None,
    mixup: float = 0.0,
    parameters: Any = None,
    seed: int = 0,
    dtype: str = "float32",
    workers: int | str = "auto",
    device: str = "auto",
    stop_on_nonfinite: bool = True,
    keep_gradients: bool = False,
    steps_per_epoch: int | None = None,
    graphs: bool = True,
    precision: str = "highest",
    on_gradients: OnGradients | None = None,
) -> Step:
    """Make a step function, for training loops of your own.

    ``step(x, y)`` takes one training step on a mini-batch and returns the loss. The first call with
    new shapes traces and plans; later ones cost a few microseconds more than the kernels.

    Args:
        model: the module to train.
        loss: a loss from `fastnn.nn`, its name ("cross_entropy", "mse", ...), or a function of
            symbolic (output, target) that returns a single number. Several outputs or targets are
            passed as `forward` returns them and as the step receives them. Or one loss per output,
            as a list or dict; see `Trainer`.
        optimizer: an optimiser from `fastnn.optim`, or its name.
        loss_weights: a factor for each of several losses, as a list or dict like `loss`; 1 by
            default.
        penalties: terms of the loss in training that depend on parameters alone, by name pattern;
            see `Trainer`. The loss that a step returns has them.
        mixup: alpha of mixup, 0 for none; see `Trainer`.
        parameters: what to train: name patterns ("encoder.*"), modules or parameters of the model,
            one or a list; None means all. Steps that train different parts of one model share its
            parameters. So do steps of models that have modules in common, if you first call
            ``store()`` of a model that contains all of them.
        seed: seed of the random numbers: initial parameters and dropout.
        dtype: "float32" or "float64".
        workers: number of threads, or "auto": the number that proves quickest. The results
            are the same, bit for bit, for any number.
        device: "auto", "cpu", or a CUDA device.
        stop_on_nonfinite: whether to raise an error when the loss is NaN or infinite or a parameter
            would become so, and to leave everything as it was. If False, parameters may become NaN.
        keep_gradients: whether each parameter's `grad` holds the gradient of the last step. A step
            is faster if it need not write its gradients to memory; ``step.gradients(x, y)`` returns
            them at any time.
        steps_per_epoch: the length of an epoch for a schedule that counts epochs, 1 by default;
            refused if the optimiser has no such schedule.
        graphs: on a GPU, replay a step as one CUDA graph; False launches its kernels one by one,
            for debugging.
        precision: what the factors of float32 matrix products are rounded to: "highest" (nothing is
            rounded), "high" (float32's accuracy, by parts), "medium" (two bfloat16 parts on a CPU
            with a tile unit; on a GPU TF32, 10 bits of mantissa), "bf16" (bfloat16, 7 bits) or
            "fp16" (float16, up to 65,504; gradients are scaled). Parameters, optimiser state and
            sums stay float32. See docs/precision.md.
        on_gradients: a function that is called in every training step after the gradients have been
            computed and before the update. Its argument maps the names of the trained parameters
            that the loss depends on to their gradients: NumPy arrays, before clipping and weight
            decay, which it may read, change, or average over processes
            (``comm.Allreduce(MPI.IN_PLACE, gradient)``). The workers wait for it. The arrays are
            valid only during the call. If it raises an exception or is interrupted by Ctrl-C, the
            step is undone and the exception propagates. None means that nothing is called.

    Returns:
        A `Step`, called as ``step(x, y)``; see also its `evaluate`, `gradients`, `learning_rate`
        and `steps`. While one thread takes a step, other threads may not take one on the same model
        (BusyError).

    Raises:
        OptionError: an option is not allowed.

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
    options = Options(
        loss=loss, optimizer=optimizer, loss_weights=loss_weights, parameters=parameters,
        penalties=penalties, mixup=mixup,
        seed=seed, dtype=dtype, workers=workers, device=device,
        stop_on_nonfinite=stop_on_nonfinite, keep_gradients=keep_gradients, graphs=graphs,
        precision=precision, on_gradients=on_gradients,
    )  # fmt: skip
    return Step(model, options, steps_per_epoch)


def _likeness(kind: str, arrays: Sequence[Any]) -> tuple[Any, ...]:
    """What steps have in common whose inputs (several) and targets are alike: their numbers alone
    may differ."""
    return kind, *[(a.__class__, a.shape, a.dtype) for a in arrays]
