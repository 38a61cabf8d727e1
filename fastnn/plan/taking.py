"""Weights of a small batch that one worker reads and several write: it takes them from the others.

Gradient and update of a weight are shared out by rows, so half of what a worker reads of it lies in
the other's cache, and to write a line of cache that another core has read since is dear
([speed.md](../../docs/speed.md)). Few rows of a batch are multiplied by one worker, who writes back
what it reads, as it is: to write a line that another core has written is cheap.

One worker also does all that is done to the batch between two barriers. So nothing is taken in
steps that do more to it than products and what goes with them: convolutions, recurrent nets,
attention, loops, kernels of users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fastnn.graph.value import Value
from fastnn.kernels.declare import kernel_of
from fastnn.kernels.matmul.cpu import TAKEN_ROWS
from fastnn.plan.call import Call
from fastnn.plan.lower.lowering import Lowering

#: bytes of a weight from which it pays, and of all such weights up to which they stay in a core's
#: own cache
LEAST, MOST = 1 << 15, 3 << 18

#: topics of kernels that take less time than the products beside them
LIGHT = frozenset(
    ("broadcast", "elementwise", "feed", "guard", "loss", "metrics", "norm", "random", "reduce",
     "softmax", "step", "update")
)  # fmt: skip


def taking(lowered: Lowering, given: Sequence[Call]) -> list[Call]:
    """The calls, with the weights taken by products of few rows that later calls write."""
    if not all(_light(call) for call in given):
        return list(given)
    itemsize = np.dtype(lowered.dtype).itemsize
    found: dict[int, Call] = {}
    sizes: dict[Value, int] = {}
    written: set[Value] = set()
    for at in reversed(range(len(given))):
        call = given[at]
        kernel = kernel_of(call.kernel).traits.taking_as
        if kernel:
            x, w = call.operands["x"], call.operands["w"]
            if x.size > TAKEN_ROWS * x.shape[-1]:
                return list(given)
            if w.root in written and w.size * itemsize >= LEAST:
                operands = {**call.operands, "control": lowered.graph.control()}
                found[at] = replace(call, kernel=kernel, operands=operands)
                sizes[w.root] = w.size * itemsize
        written |= {value.root for _, parameter, value in call.arrays() if parameter.writes}
    if sum(sizes.values()) > MOST:
        return list(given)
    return [found.get(at, call) for at, call in enumerate(given)]


def _light(call: Call) -> bool:
    """Whether a call is a product with a weight, or takes less time than one."""
    kernel = kernel_of(call.kernel)
    folder, _, topic = (kernel.function.__module__ or "").rpartition(".")[0].rpartition(".")
    if call.repeats or (kernel.function.__module__ and folder != "fastnn.kernels"):
        return False
    return topic in LIGHT or not topic or bool(kernel.traits.family)
