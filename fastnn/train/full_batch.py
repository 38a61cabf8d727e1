"""Training by methods that take the whole data set for each step (`fastnn/optim/full_batch.py`).

A program adds loss and gradient of a block of samples to sums; run over all blocks it evaluates the
whole data set. Then a kernel either moves the parameters to the next trial step of its line search
or ends the iteration. On the CPU all of an epoch's evaluations are one run, without Python in
between; on a device each is one, and the host reads the control block and the search's state.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastnn.engine import guard
from fastnn.engine.arrays import Hold
from fastnn.engine.builder import Built
from fastnn.engine.session import Session, segments_for
from fastnn.errors import OptionError
from fastnn.graph.graph import Graph
from fastnn.graph.node import Node
from fastnn.graph.value import Value
from fastnn.kernels import control_block
from fastnn.kernels.descent import search
from fastnn.ops import totals
from fastnn.ops.declare import apply_effect
from fastnn.optim.full_batch import FullBatch
from fastnn.runtime import devices
from fastnn.runtime.interface import Bound
from fastnn.train import reduction
from fastnn.train.base import Data, Training
from fastnn.train.build import StepBuilder

if TYPE_CHECKING:
    from fastnn.train.trainer import Trainer

#: samples of a block, at most, and bytes of its data
BLOCK, BLOCK_BYTES = 4096, 1 << 25
#: why training ended
REASONS = {
    search.SMALL_GRADIENT: "converged: the gradient is small",
    search.SMALL_CHANGE: "converged: the loss hardly changes",
    search.STUCK: "no step lowers the loss",
}


def check_request(
    optimizer: FullBatch, batches: bool, batch: int | None, samples: int, shuffle: bool,
    drop_last: bool,
) -> None:  # fmt: skip
    """Refuse what makes no sense where all samples make one step."""
    name = type(optimizer).__name__
    if batches:
        raise OptionError(
            f"{name} takes the whole data set for each step: expected arrays, got batches; pass "
            "arrays, or take a method for mini-batches (optim.Adam)"
        )
    if batch is not None and batch < samples:
        raise OptionError(
            f"batch_size: {name} takes all {samples} samples for each step, got {batch}; leave it "
            "out (data are read in blocks anyway), or take a method for mini-batches (optim.Adam)"
        )
    if shuffle:
        raise OptionError(
            f"shuffle: {name} takes all samples for each step, in order; expected False; leave it "
            "out, or take a method for mini-batches (optim.Adam)"
        )
    if drop_last:
        raise OptionError(f"drop_last: {name} takes all samples for each step; leave it out")


class FullFeed:
    """Runs the iterations of a full-batch method over arrays; beside `ArrayFeed`.

    Attributes:
        most: evaluations in one run. A search takes one or two, and all others are described in
            vain.
    """

    most: ClassVar[int] = 4

    def __init__(self, trainer: Trainer, data: Data):
        x, y, w = data
        self.trainer, self.data = trainer, data
        self.samples = self.batch = len(x)
        self.steps = 1
        self.description = {
            "samples": len(x), "batch_size": len(x), "shuffle": False, "drop_last": False,
        }  # fmt: skip
        self.hold = Hold(x, y, w)
        self.stopped, self.last = "", 0
        if trainer.on_gradients is not None:
            raise OptionError(
                f"on_gradients: {self.name} makes no update from gradients; leave it out"
            )
        session = trainer.session
        session.set("order", np.arange(len(x), dtype=np.int64))
        self.known = False  # whether the search goes on from where it ended
        self.cleared = False  # whether the gradient's sum is 0, as kernels leave it
        #: evaluations in one run: a device can't leave those that follow the end of an iteration
        self.ahead = self.most if devices.on_host(trainer.device) else 1
        self.prepare()

    @property
    def name(self) -> str:
        return type(self.trainer.optimizer).__name__

    @property
    def optimizer(self) -> Any:
        return self.trainer.optimizer

    def prepare(self) -> None:
        """Build and bind the programs: at first, and when the trainer's model has changed."""
        trainer = self.trainer
        self.known = False
        x, y, w = self.data
        width = sum(a.nbytes for part in self.data for a in part.arrays) // max(len(x), 1)
        self.block = min(len(x), max(min(BLOCK, BLOCK_BYTES // max(width, 1)), 64))
        if self.block < len(x):
            cut = trainer.evaluation().cuts(x.specs, y.specs, w.specs)
            if not cut.evaluation or self._mixes(self.block):
                self.block = len(x)
        for part in self.data:
            for name, source in part.sources().items():
                trainer.session.set(name, source)
        built = self._planned(self.block)
        built.check(x, y)
        self.built = built
        self.full = trainer.session.bind(built.program)
        left = len(x) % self.block
        self.rest: Bound | None = None
        if left:
            self.rest = trainer.session.bind(self._planned(left).program)
        self._bind_more()
        self.version = trainer.version

    def _bind_more(self) -> None:
        """Bind what goes with the evaluation of loss and gradient."""
        operands = self.optimizer.operands()
        specs = tuple(part.specs for part in self.data)
        key = self.optimizer.kernels(), type(self), tuple(operands.items()), self.block, specs
        found = self.trainer.kept(key, self._search)
        self.search = self.trainer.session.bind(found.program)

    def _described(self, size: int) -> StepBuilder:
        trainer = self.trainer
        x, y, w = (part.specs for part in self.data)
        builder = trainer.builder(size, True, "gather")
        Training.describe(trainer, builder, x, y, w)
        trainer.choose_batch_sizes(builder, x, y, w)
        return builder

    def _mixes(self, size: int) -> bool:
        """Whether the loss of all samples is not made of that of blocks."""
        builder = self._described(size)
        kinds = {part.reduction for part in builder.parts}
        several = len(builder.parts) > 1 and kinds not in ({reduction.SAMPLES}, {reduction.SUM})
        # each block of a sum would have the penalties once
        sums = bool(self.trainer.penalties) and reduction.SUM in kinds
        carries = bool(guard.written_buffers(builder.lowered.calls))
        return sums or None in kinds or several or carries

    def _steady(self, size: int) -> StepBuilder:
        """A block's loss; refuses one that is another each time."""
        builder = self._described(size)
        if any(map(_draws, builder.graph.nodes)):
            raise OptionError(
                f"{self.name}: expected a loss that is the same each time it is computed, but the "
                "model draws random numbers in training (dropout, noise); take them out, or take a "
                "method for mini-batches (optim.Adam)"
            )
        return builder

    def _scale(self, builder: StepBuilder) -> tuple[Value | None, float]:
        """What a block's mean is multiplied by to be a term of a sum: an array and a number."""
        part = builder.parts[0]
        if part.reduction == reduction.WEIGHTS and self.block < self.samples:
            return part.denominator, 1.0
        alone = part.reduction == reduction.SUM or self.block == self.samples
        return None, 1.0 if alone else float(builder.graph.batch)

    def _planned(self, size: int) -> Built:
        """The same for each run over data of these shapes."""
        specs = tuple(part.specs for part in self.data)
        key = "evaluation", size, self.block == self.samples, specs
        return self.trainer.kept(key, lambda: self._built(size))

    def _built(self, size: int) -> Built:
        """Loss and gradient of a block, added to their sums."""
        trainer, builder = self.trainer, self._steady(size)
        graph, loss = builder.graph, builder.places["loss"]
        sums = graph.leaf(
            "sums of the search", (2,), "totals", dtype="r", offset=self._offset, name="sums"
        )
        count, factor = self._scale(builder)
        if count is not None:
            totals.accumulate_by(loss, count, sums)
        else:
            totals.accumulate(loss, sums, int(factor))
        trainer.report.learn([part.reduction for part in builder.parts])
        builder.report(trainer.metrics)
        leaves, gradients = builder.gradients(loss, trainer.trained, keep=False)
        for name, gradient in gradients.items():
            leaf = leaves[name]
            target = place_of(leaf, "gradient")
            totals.add_scaled(gradient, count, target, factor)
        return builder.finish()

    @property
    def _offset(self) -> int:
        return 2 * self.trainer.report.totals

    def _search(self) -> Built:
        """What follows an evaluation."""
        trainer, optimizer = self.trainer, self.optimizer
        builder = trainer.builder(1, True, "direct")
        graph, size = builder.graph, trainer.store.size
        arrays = {
            slot: graph.leaf(slot, (size,), f"slots/{slot}", offset=0, name=slot)
            for slot in optimizer.slots
        }
        apply_effect(
            graph, optimizer.kernels()[0],
            control=graph.control(),
            totals=graph.leaf("totals", (self._offset,), "totals", dtype="r", offset=0),
            state=graph.leaf(
                "search", (optimizer.state_size,), "totals", dtype="r", offset=self._offset
            ),
            p=graph.leaf("params", (size,), "params", offset=0, name="params"),
            g=arrays.pop("gradient"), **arrays, **self._operands(graph), **optimizer.operands(),
            summed=int(self._summed()), reported=self._offset,
        )  # fmt: skip
        return builder.finish(advance=False)

    def _operands(self, graph: Graph) -> dict[str, Any]:
        """What else the kernel takes."""
        return {}

    def _summed(self) -> bool:
        parts = self._described(self.block).parts
        return all(part.reduction == reduction.SUM for part in parts)

    # ---------------------------------------------------------------- a run

    def last_bound(self, session: Session) -> Bound:
        """A program that evaluates the loss."""
        return self.full

    def steps_done(self, cursor: int) -> int:
        """Steps that the first so many samples of an epoch make."""
        return 0

    def renew(self, rows: Any = ...) -> None:
        """(Arrays are read where they lie.)"""

    def logs(self) -> dict[str, float]:
        """What is reported of an epoch beside losses and metrics."""
        state = self.trainer.search
        return {
            "gradient": float(state[search.LARGEST]),
            "evaluations": float(state[search.EVALUATIONS]),
        }

    def _begin(self, batches: Any) -> None:
        """Look at the model and the data before an iteration."""
        if batches is not None:
            raise OptionError(
                f"callbacks: {self.name} has no mini-batches, expected callbacks that are called "
                "once an epoch; leave out those with on_train_batch_begin or on_train_batch_end"
            )
        self.trainer.refresh()
        if self.version != self.trainer.version:
            self.prepare()
        self.hold.check()
        self.built.check(*self.data[:2])

    def run_epoch(self, epoch: int, poll: Any, batches: Any) -> int:
        """Make one iteration; returns why it stopped early, or 0."""
        trainer, session = self.trainer, self.trainer.session
        self._begin(batches)
        state = session.totals[self._offset :]
        state[:] = trainer.search
        self._take_up(state)
        ready, done = state[search.PHASE] == search.READY, False
        state[search.OUTCOME] = search.GOING
        if not self.cleared:
            session.memory["slots/gradient"].fill(0.0)
        self.cleared = False
        begun = state.copy()
        try:
            if ready:
                session.run([(self.search, 1)], poll)
            reason = self._run(state, poll)
            if reason:
                return reason
            outcome = int(state[search.OUTCOME])
            if outcome == search.STUCK:  # what is reported is of where the parameters are
                session.totals[: self._offset] = 0.0
                session.control[control_block.CURSOR] = 0
                session.run(self._over_data(), poll)
                state[search.LOSS : search.COUNT + 1] = 0.0
            done, self.cleared = True, outcome != search.STUCK
        finally:
            if done or state[search.OUTCOME] != search.GOING:
                trainer.search[:] = state
            else:
                self._put_back(state, begun)
            session.control[control_block.CURSOR] = 0
            session.control[control_block.STEP] = int(trainer.search[search.ITERATIONS])
        self.known = True
        self.stopped = REASONS.get(outcome, "")
        trainer.stop_training = trainer.stop_training or bool(self.stopped)
        return 0

    def _over_data(self) -> list[tuple[Bound, int]]:
        """Loss and gradient of all samples."""
        return segments_for(self.full, self.rest, self.samples, self.block)

    def _run(self, state: np.ndarray, poll: Any) -> int:
        """Evaluate until the iteration is over, or cut off: why, or 0."""
        session = self.trainer.session
        segments = [*self._over_data(), (self.search, 1)]
        while state[search.OUTCOME] == search.GOING:
            session.control[control_block.CURSOR] = 0
            reason = session.run(segments * self.ahead, poll)
            if reason not in (0, control_block.REQUESTED):
                return reason
        return 0

    def _take_up(self, state: np.ndarray) -> None:
        """Whether the search goes on as it is, looks at the loss anew, or begins anew. (Where the
        parameters are no longer where it ended, the kernel begins anew.)"""
        trained = float(zlib.crc32("\n".join(self.trainer.trained).encode()))
        others = state[search.TRAINED] != trained
        state[search.TRAINED] = trained
        if state[search.PHASE] != search.READY or others:
            state[search.PHASE] = search.UNKNOWN
        elif not self.known:
            state[search.PHASE] = search.AGAIN
        state[search.LOSS : search.COUNT + 1] = 0.0

    def _put_back(self, state: np.ndarray, begun: np.ndarray) -> None:
        """An iteration was cut off: the parameters are where it began."""
        session, kept = self.trainer.session, self.trainer.search
        session.synchronize()
        if state[search.PHASE] in (search.SEARCHING, search.SETTLING):
            session.memory["params"][:] = session.memory["slots/origin"]
        if state[search.STEEPEST] != begun[search.STEEPEST]:
            kept[search.PHASE] = search.UNKNOWN
        self.known = False


def place_of(leaf: Value, slot: str) -> Value:
    """A parameter's part of a slot."""
    return leaf.graph.leaf(
        (slot, leaf), leaf.shape, f"slots/{slot}", offset=leaf.offset, name=leaf.name
    )


def _draws(node: Node) -> bool:
    return "stream" in node.attrs
