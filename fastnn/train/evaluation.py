"""Evaluations: the losses and metrics of a trainer over arrays or batches, in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.engine.arrays import Arrays, Hold, check_some_count
from fastnn.engine.builder import Built, follows_size
from fastnn.engine.feeding import Feeding
from fastnn.engine.model import PROBE, fixed_batch
from fastnn.engine.session import CarriedStates, Session, segments_for
from fastnn.engine.specs import Spec
from fastnn.errors import DataError, ShapeError
from fastnn.graph.value import Value
from fastnn.kernels import control_block
from fastnn.kernels.declare import kernel_of
from fastnn.plan.samples import Samples
from fastnn.runtime.interface import Bound
from fastnn.train import reduction
from fastnn.train.build import StepBuilder
from fastnn.train.forms import Forms
from fastnn.train.slices import Slices, nbytes, on_host
from fastnn.weak import weak, weakly

if TYPE_CHECKING:
    from fastnn.train.trainer import Trainer

Specs = tuple[Spec, ...]


@dataclass(frozen=True)
class Cuts:
    """What may be cut into batches without another result.

    Attributes:
        evaluation: all losses and metrics add up over batches.
        outputs: every output has a piece for each sample, made of that sample alone (and of the
            batch's statistics).
    """

    evaluation: bool
    outputs: bool


class Evaluation:
    """Runs evaluations of a trainer; made on the first one."""

    trainer: weak[Trainer] = weak()  # which keeps it

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.session = Session(
            trainer.store, (), trainer.report.totals, trainer.session.workers, trainer.device,
            trainer.session.graphs,
        )  # fmt: skip
        self._cuts: dict[tuple[Specs, Specs, Specs], Cuts] = {}
        self._forms = Forms(trainer, True, False, weakly(self._bind))  # of batches

    def of_arrays(self, x: Arrays, y: Arrays, w: Arrays, batch: int) -> dict[str, float]:
        """Losses and metrics over arrays.

        Where they don't add up over batches (a root of a mean, outputs that mix samples), all
        samples make one batch.
        """
        session, samples, held = self.session, len(x), Hold(x, y, w)
        held.check()
        if (
            on_host((x, y, w)) and not session.runtime.holds(nbytes((x, y, w)))
            and batch < samples and self.cuts(x.specs, y.specs, w.specs).evaluation
        ):  # fmt: skip
            return self.of_batches(Slices((x, y, w), batch, False, False, 0), False)
        data, built, small, batch = self.steps(x, y, w, batch)
        try:
            for part in data:
                for name, source in part.sources().items():
                    session.set(name, source)
            session.set("order", np.arange(samples, dtype=np.int64))
            full = session.bind(built.program)
            rest = session.bind(small.program) if small else None
            session.totals[:] = 0.0
            session.control[control_block.CURSOR] = 0
            with CarriedStates(session) as states:
                states.before(built)
                session.run(segments_for(full, rest, samples, batch), lambda: None)
        finally:
            session.let_go()
        return self.trainer.report.result(session.totals, "evaluation")

    def steps(
        self, x: Arrays, y: Arrays, w: Arrays, batch: int
    ) -> tuple[tuple[Arrays, Arrays, Arrays], Built, Built | None, int]:
        """The data as steps take them, the steps for whole batches and for the rest, and the batch;
        refuses unfit data."""
        check_some_count(w, "data to evaluate")
        trainer, batch = self.trainer, min(batch, len(x))
        if batch < len(x) and not self.cuts(x.specs, y.specs, w.specs).evaluation:
            batch = len(x)
        left = len(x) % batch

        def built(size: int) -> Built:
            return trainer.built(x.specs, y.specs, size, "gather", training=False, w=w.specs)

        whole = built(batch)
        whole.check(x, y)
        return (x, y, w), whole, built(left) if left else None, batch

    def of_batches(self, batches: Iterable[Any], check_data: bool) -> dict[str, float]:
        """Losses and metrics over an iterable of batches."""
        session, forms, count = self.session, self._forms, 0
        forms.check_data = check_data
        session.totals[:] = 0.0
        session.control[control_block.CURSOR] = 0
        with CarriedStates(session) as states:
            feeding = Feeding(session)
            try:
                for item in batches:
                    form, arrays = forms.take(item)
                    count += 1
                    if count == 2 and not self.cuts(*(p.specs for p in form.parts)).evaluation:
                        raise DataError(
                            "evaluate: the loss or a metric mixes samples, so it doesn't add up "
                            "over batches; give arrays, or all samples as one batch"
                        )
                    states.before(form.built)
                    feeding.step(form.bound, form.names, arrays)
                feeding.synchronize()
            finally:
                feeding.close()
        if not count:
            raise DataError("the iterable of batches gave none; expected at least one batch")
        return self.trainer.report.result(session.totals, "evaluation")

    def _bind(self, built: Built) -> Bound:
        bound: Bound = self.session.bind(built.program)
        return bound

    def cuts(self, x: Specs, y: Specs, w: Specs) -> Cuts:
        """What may be cut into batches, by a look at a small batch's graph."""
        key = (x, y, w)
        if key not in self._cuts:
            self._cuts[key] = self._look(x, y, w)
        return self._cuts[key]

    def _look(self, x: Specs, y: Specs, w: Specs) -> Cuts:
        trainer = self.trainer
        batch = fixed_batch(trainer.model) or PROBE
        builder = StepBuilder(trainer.model, trainer.store, batch, False, "direct")
        try:
            inputs, targets, weights = trainer.describe(builder, x, y, w)
        except ShapeError:  # a model for batches of its own size; what is wrong is said elsewhere
            return Cuts(True, True)
        given = {*inputs, *targets, *weights}
        samples, pieces = (Samples(builder.lowered, given, statistics=s) for s in (False, True))
        outputs = all(pieces.apart(v) or not pieces.depends(v) for v in builder.output_values)

        def traced(size: int) -> StepBuilder:
            other = StepBuilder(trainer.model, trainer.store, size, False, "direct")
            trainer.describe(other, x, y, w)
            return other

        if any(follows_size(builder, traced, fixed_batch(trainer.model) is not None)):
            return Cuts(False, False)
        adding = all(_adds_up(part.value, part.reduction, samples) for part in builder.parts)
        return Cuts(adding and not _mixed_totals(builder, samples), outputs)


def _adds_up(value: Value, kind: str | None, samples: Samples) -> bool:
    """Whether a loss's batch values make that of all samples."""
    return kind is not None and reduction.reduction_of(value, samples) is not None


def _mixed_totals(builder: StepBuilder, samples: Samples) -> bool:
    """Whether rows that are added to totals mix samples."""
    for call in builder.lowered.calls:
        kernel = kernel_of(call.kernel)
        if not kernel.traits.totals_rows:
            continue
        if any(p.mode == "in" and samples.mixed(value) for _, p, value in call.arrays()):
            return True
    return False
