"""Where a training step's time and memory go: `fastnn.profile`."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tabulate import tabulate

from fastnn.engine.access import Access, access_to
from fastnn.engine.single import Single
from fastnn.errors import NonFiniteError, OptionError, is_whole
from fastnn.kernels import control_block
from fastnn.plan.program import PlannedCall
from fastnn.train.base import Training
from fastnn.train.step import Step
from fastnn.train.trainer import Trainer

#: what a call's time counts to that belongs to no layer: data, checks, updates
NO_LAYER = "(step)"


@dataclass(frozen=True)
class Timing:
    """How long a kernel took.

    Attributes:
        kernel: its name; names joined by "+" if one launch on a GPU makes several calls.
        layer: the layer that it belongs to, by its name in the model; "loss", "metric accuracy", or
            "(step)" for data, checks and updates.
        seconds: the median over the repeats.
        least: the shortest time.
    """

    kernel: str
    layer: str
    seconds: float
    least: float


@dataclass(frozen=True)
class Profile:
    """What `fastnn.profile` has found; print it for a report.

    Attributes:
        device: where the step ran.
        calls: the kernels of a step, in order, each timed alone and over all its rows.
        step: seconds of a whole step, the median; on the CPU with all its workers.
        memory: bytes by segment: "params", "grads", "slots/...", "work" (activations and what else
            lives within a step), "saved/..." (copies for the guard), data, and so on. A mini-batch
            that the program of a larger one serves lies in that one's memory, which is shown.
    """

    device: str
    calls: tuple[Timing, ...]
    step: float
    memory: dict[str, int]

    def by_layer(self) -> dict[str, float]:
        """Seconds of all kernels of each layer, longest first."""
        return _sums((call.layer, call.seconds) for call in self.calls)

    def by_kernel(self) -> dict[str, float]:
        """Seconds of all calls of each kernel, longest first."""
        return _sums((call.kernel, call.seconds) for call in self.calls)

    def __str__(self) -> str:
        total = sum(call.seconds for call in self.calls)

        def table(name: str, found: dict[str, float]) -> str:
            rows = [
                (key, f"{1e6 * value:.1f}", f"{100 * value / total if total else 0:.0f} %")
                for key, value in found.items()
            ]
            return tabulate(rows, [name, "us", "share"], colalign=("left", "right", "right"))

        memory = [(key, f"{size:,}") for key, size in self.memory.items()]
        memory.append(("all", f"{sum(self.memory.values()):,}"))
        return "\n\n".join(
            [
                f"{self.device}: a step takes {1e6 * self.step:.1f} us, its {len(self.calls)} "
                f"kernels one by one {1e6 * total:.1f} us",
                table("layer", self.by_layer()),
                table("kernel", self.by_kernel()),
                tabulate(memory, ["memory", "bytes"], colalign=("left", "right")),
            ]
        )


def _sums(found: Iterable[tuple[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for key, value in found:
        sums[key] = sums.get(key, 0.0) + value
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def profile(
    training: Step | Trainer, x: Any, y: Any = None, *, sample_weight: Any = None,
    repeats: int = 20,
) -> Profile:  # fmt: skip
    """Measure a training step: its kernels by layer, the whole, and its memory by segment.

    The step is planned for this mini-batch and run; then its kernels are run one by one, in order,
    so that each finds the caches as the one before left them. Afterwards the model, the optimiser
    and the step counts are as they were. On the CPU a kernel is timed on one worker, over all its
    rows; in a step the workers share the rows and go from kernel to kernel block by block, so the
    whole takes less time than the sum of its parts. On a GPU a kernel is timed by events around its
    launch; in a step launches follow each other without a gap, some side by side.

    Args:
        training: a step of `fastnn.compile`, or a trainer.
        x, y, sample_weight: one mini-batch, as a step takes it.
        repeats: how often each kernel is timed.

    Returns:
        A `Profile`: print it, or see its `calls`, `by_layer()`, `by_kernel()`, `step`, `memory`.

    Raises:
        OptionError: `training` is neither, or `repeats` is not a whole number of at least 1.
        DataError, ShapeError: bad input.
        BusyError: another thread is training the model.
        NonFiniteError: the loss is NaN or infinite, or the update breaks a parameter.

    >>> import numpy as np
    >>> import fastnn as fnn
    >>> from fastnn import nn
    >>> step = fnn.compile(nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2)), "mse")
    >>> x = np.zeros((32, 8), np.float32)
    >>> found = fnn.profile(step, x, x[:, :2], repeats=3)
    >>> sorted(found.by_layer()), found.memory["params"]
    (['(step)', '0', '1', '2', 'loss'], 768)
    """
    if not isinstance(training, (Step, Trainer)):
        raise OptionError(
            "profile: expected a step of fastnn.compile or a Trainer, got "
            f"{type(training).__name__}"
        )
    if not is_whole(repeats, 1):
        raise OptionError(f"repeats: expected a whole number >= 1, got {repeats!r}")
    turn = access_to(training.store).train(Access("a profile", sys._getframe()))
    try:
        return _measured(training, x, y, sample_weight, repeats)
    finally:
        turn.end()


def _measured(training: Training, x: Any, y: Any, weight: Any, repeats: int) -> Profile:
    session = training.session
    runtime = session.runtime
    names = ["params", "buffers", *(f"slots/{slot}" for slot in training.optimizer.slots)]
    before, totals = session.control.copy(), session.totals.copy()
    saved = runtime.save(names)
    try:
        ready, arrays = _ready(training, x, y, weight)
        begin = session.control.copy()

        def again(run: Callable[[], Any]) -> float:
            """Seconds of a run from the same place of the control block."""
            session.control[:] = begin
            clock = time.perf_counter()
            run()
            return time.perf_counter() - clock

        again(lambda: ready.run(arrays))
        if session.control[control_block.STOP]:
            raise NonFiniteError(
                "profile: expected a step that can be made, but the loss is not finite or the "
                "update breaks a parameter; make a step to see where that begins"
            )
        steps = [again(lambda: ready.run(arrays)) for _ in range(repeats)]
        found: list[list[float]] = []
        numbers: list[list[int]] = []
        for _ in range(repeats):
            session.control[:] = begin
            for k, (which, seconds) in enumerate(ready.bound.timed()):
                if k == len(found):
                    found.append([])
                    numbers.append(list(which))
                found[k].append(seconds)
        planned = ready.bound.planned
        calls = [
            _timing([planned[n] for n in which], seconds)
            for which, seconds in zip(numbers, found, strict=True)
        ]
        memory = dict(sorted(ready.bound.segment_sizes().items(), key=lambda item: -item[1]))
        return Profile(training.device, tuple(calls), statistics.median(steps), memory)
    finally:
        runtime.restore(saved)
        session.control[:], session.totals[:] = before, totals
        session.doubt()


def _ready(training: Training, x: Any, y: Any, weight: Any) -> tuple[Any, Any]:
    """The step that is fed with this mini-batch, and what to feed it with."""
    if isinstance(training, Step):
        return training.ready(x, y, weight)
    assert isinstance(training, Trainer)
    data = training.understood(*training.arrays(x, y, weight, "", "batch"))
    inputs, targets, weights = data
    built = training.built(
        inputs.specs, targets.specs, len(inputs), "direct", w=weights.specs
    )  # fmt: skip
    training.session.set("schedule", np.ascontiguousarray(training.rates(1), np.float64))
    training.session.control[control_block.RUN_STEP] = 0
    arrays = [a for part in data for a in part.arrays]
    names = [name for part in data for name in part.names]
    return Single(training.session, built, names, arrays, set()), arrays


def _timing(calls: list[PlannedCall], seconds: list[float]) -> Timing:
    layers = dict.fromkeys(call.scope.split(", time step")[0] for call in calls)
    named = [layer for layer in layers if layer]
    layer = " + ".join(named) if named else NO_LAYER
    kernel = "+".join(call.kernel for call in calls)
    return Timing(kernel, layer, statistics.median(seconds), min(seconds))
