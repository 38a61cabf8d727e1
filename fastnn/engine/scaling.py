"""Loss scaling in a training step's graph, for gradients in float16.

The loss's own gradient is the factor instead of 1; gradients are divided by it as soon as they are
there, so that `Parameter.grad`, `on_gradients`, clipping and the guard see what they see elsewhere
(`kernels/guard/scaling.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastnn.engine import guard
from fastnn.engine.update import Piece, side_by_side
from fastnn.errors import OptionError
from fastnn.graph.value import Value
from fastnn.kernels import control_block
from fastnn.kernels.guard.scaling import FIRST
from fastnn.ops import guarding
from fastnn.plan.lower import Lowering

#: precisions whose gradients need it
SCALED = ("fp16",)


class Scaling:
    """The factor of a step's gradients.

    Attributes:
        scale, inverse: the factor, and one over it.
    """

    def __init__(self, lowered: Lowering):
        self.lowered, graph = lowered, lowered.graph
        self._adapts = False
        self.scale, self.inverse = graph.value((1,), name="loss scale"), graph.value((1,))
        guarding.loss_scale(self.scale, self.inverse, guard.guard_of(graph))

    def seed(self, loss: Value) -> Value:
        """The gradient of a loss to itself."""
        return self.lowered.graph.view(self.scale, loss.shape, batched=False)

    def divide(self, gradient: Value) -> Value:
        """A gradient without the factor."""
        graph = self.lowered.graph
        result = graph.value(gradient.shape, name=gradient.name)
        self._call(gradient, self.inverse, result)
        return result

    def divide_kept(self, leaves: Mapping[str, Value], gradients: Mapping[str, Value]) -> None:
        """Take the factor out of gradients in their segment; those side by side at once."""
        self._in_place(leaves, gradients, self.inverse)

    def check(self, leaves: Mapping[str, Value], gradients: Mapping[str, Value]) -> None:
        """Look again at gradients that a function of the host may have changed."""
        self._in_place(leaves, gradients, self.lowered.full((1,), 1.0))

    def skip(self, hyper: Value) -> None:
        """Let an update, by its numbers, change nothing where gradients have overflowed."""
        guarding.skip_overflow(guard.guard_of(self.lowered.graph), hyper)

    def adapt(self) -> None:
        """The factor of the next step follows from how this one went."""
        if not self._adapts:
            guarding.adapt_scale(guard.guard_of(self.lowered.graph))
        self._adapts = True

    def _in_place(
        self, leaves: Mapping[str, Value], gradients: Mapping[str, Value], factor: Value
    ) -> None:
        pieces = [Piece(leaves[n], gradient, factor, None) for n, gradient in gradients.items()]
        if not self.lowered.fuses:
            pieces = side_by_side(pieces)
        for piece in pieces:
            self._call(piece.gradient, factor, piece.gradient)

    def _call(self, x: Value, factor: Value, y: Value) -> None:
        guarding.unscale(x, factor, y, guard.guard_of(self.lowered.graph))


def begin(control: Any, precision: str) -> None:
    """The first step's factor."""
    if precision in SCALED:
        control[control_block.SCALE] = FIRST


def factor_of(control: Any, precision: str) -> float:
    """The factor that the next step's gradients have while they are computed."""
    return 2.0 ** int(control[control_block.SCALE]) if precision in SCALED else 1.0


def check(precision: str, optimizer: Any, full: bool) -> None:
    """Refuse optimisers that can't leave out a step.

    Raises:
        OptionError: gradients of several steps are summed, or the whole data set makes a step.
    """
    if precision not in SCALED:
        return
    reason = ""
    if full:
        reason = f"{type(optimizer).__name__} searches along a direction and can't leave out a step"
    elif optimizer.accumulate > 1:
        reason = f"accumulate={optimizer.accumulate} sums gradients, among them those that overflow"
    if reason:
        raise OptionError(
            f"precision={precision!r}: {reason}; take precision='bf16', which has float32's range"
        )
