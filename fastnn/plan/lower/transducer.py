"""The transducer's loss: the memory that its gradient works in."""

from __future__ import annotations

from fastnn.graph.node import Node
from fastnn.plan.lower.lowering import Lowering, Values, gradient


@gradient("transducer")
def _gradient(to: Lowering, node: Node, douts: Values, written: Values) -> None:
    alpha = node.outputs["alpha"]
    beta = to.value(alpha.shape, "r", name="beta", batched=alpha.batched)
    given = {"dloss": douts["loss"], "dx": written["x"], "beta": beta}
    to.call_for("transducer_backward", node, given)
