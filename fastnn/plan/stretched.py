"""Whether a program for longer sequences gives the numbers that one of their own length gives.

A batch of sequences, padded to T steps, is padded further, to more steps, so that one program
serves many lengths. That is right where nothing depends on the steps that came with it. Two graphs
of the same model tell, one traced for T steps and one for more: they must be the same call for
call, and what has another size in them is laid out (batch, steps, ...). Such a value holds the same
numbers in its first T steps, and something else after them, as long as each call computes a step
from this step alone. Steps end in few places: in recurrent kernels, which read as far as `lengths`
say, and in sums, if what the further steps add is 0 and zeros leave the sum's bits as they are.

Where there is a loss, it must hold of gradients, too. The gradient is 0 at all further steps then:
sums pass none to a row that its target or its weight makes 0, recurrent kernels none past the end,
and 0 times what is finite stays 0. So does what these steps add to gradients of weights, which are
sums in the order of the steps. Kernels of which this is known (and tested) have the trait
`keeps_finite`; what else is asked of kernels here are traits, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastnn.graph.node import Call
from fastnn.graph.value import Value
from fastnn.kernels.declare import Array, Traits, kernel_of
from fastnn.kernels.matmul.cpu import FEW
from fastnn.plan.lower.lowering import Lowering
from fastnn.plan.samples import items

#: what the further steps of a value hold: one number, or anything
ANYTHING = math.nan


class _Different(Exception):
    """The longer graph may give other numbers."""


class Stretched:
    """A comparison of two graphs of a model, for sequences of `steps` and of `more` steps.

    Args:
        short, long: the graphs' calls.
        steps, more: T, and what it is in the longer graph.
        fills: by input of the short graph, what it is padded with; 0 for others.
        loss: whether there is a loss, so that gradients have to be the same, too.

    Attributes:
        exact: whether the longer graph gives the same numbers.
    """

    def __init__(
        self, short: Lowering, long: Lowering, steps: int, more: int, fills: Mapping[Value, float],
        loss: bool,
    ):  # fmt: skip
        self.batch, self.steps, self.more = short.graph.batch, steps, more
        self.fills, self.loss = fills, loss
        #: inputs that the data are checked for: lengths from 0 to T
        self.lengths = {r.value for r in short.graph.ranges if r.steps and r.high == steps + 1}
        #: by root of the short graph, the one that stands for it in the longer graph
        self.partners: dict[Value, Value] = {}
        #: by root, what its further steps hold, for values that have some
        self.padded: dict[Value, float] = {}
        self.exact = False
        if len(short.calls) != len(long.calls):
            return
        try:
            for one, other in zip(short.calls, long.calls, strict=True):
                _require(not (one.repeats or other.repeats))  # a step may depend on any before it
                self._follow(one, other)
        except _Different:
            return
        self.exact = True

    def same(self, value: Value, partner: Value) -> bool:
        """Whether two results are the same as a whole."""
        return self._known(value, partner) and value.root not in self.padded

    def begins(self, value: Value, partner: Value) -> bool:
        """Whether the longer result, (batch, steps, ...), has the other one in its first steps."""
        return self._known(value, partner) and value.root in self.padded

    def _known(self, value: Value, partner: Value) -> bool:
        try:
            self._pair(value, partner)
        except _Different:
            return False
        return True

    # ---------------------------------------------------------------- values

    def _pair(self, value: Value, partner: Value) -> None:
        """Two operands that stand for each other."""
        root, other = value.root, partner.root
        if root not in self.partners:
            self._meet(root, other)
            self.partners[root] = other
        _require(self.partners[root] is other and value.dtype == partner.dtype)
        if root in self.padded:
            _require(value.size == root.size and partner.size == other.size)
        else:
            _require(value.shape == partner.shape and value.shift == partner.shift)

    def _meet(self, root: Value, other: Value) -> None:
        """A pair that is seen for the first time."""
        place = (root.segment, root.offset, root.dtype)
        _require(place == (other.segment, other.offset, other.dtype))
        if root.segment == "input":
            _require(root.name == other.name)
        fill = self.fills.get(root, 0.0)
        if root.segment == "constant":
            assert root.data is not None and other.data is not None
            if root.shape == other.shape:
                _require(np.array_equal(root.data, other.data, equal_nan=root.dtype != "i"))
            else:
                fill = float(root.data.flat[0]) if root.size else 0.0
                _require(bool((root.data == fill).all() and (other.data == fill).all()))
        elif root.segment not in ("input", "work"):
            _require(root.size == other.size)
        if root.size != other.size:
            each = self.batch * self.steps
            _require(root.size % each == 0 and other.size == root.size // self.steps * self.more)
            self.padded[root] = fill if root.segment != "work" else ANYTHING

    def _fill(self, value: Any) -> float:
        """What the further steps of an operand hold; anything, where it has none."""
        return self.padded.get(value.root, ANYTHING) if isinstance(value, Value) else ANYTHING

    # ---------------------------------------------------------------- calls

    def _follow(self, call: Call, partner: Call) -> None:
        _require(call.kernel == partner.kernel)
        for name, value in call.operands.items():
            other = partner.operands[name]
            if isinstance(value, Value) and isinstance(other, Value):
                self._pair(value, other)
            else:
                _require(type(value) is type(other) and (value is other or value == other))
        kernel = kernel_of(call.kernel)
        arrays = {
            name: (parameter, value)
            for name, parameter, value in call.arrays()
            if parameter.mode != "scratch"
        }
        longer = {name for name, (_, value) in arrays.items() if value.root in self.padded}
        if not longer:
            return
        traits = kernel.traits
        _require(not self.loss or traits.keeps_finite or bool(traits.zero_rows))
        if traits.zero_rows:
            for name in traits.zero_rows:
                _require(self._fill(call.operands[name]) == 0.0)
        elif traits.by_lengths and call.operands["x"].shape[:2] == (self.batch, self.steps):
            self._recurrent(call, longer)
        else:
            module = kernel.function.__module__
            _require(module.startswith("fastnn.kernels.") and "stream" not in call.operands)
            self._stepwise(call, partner, arrays, longer, traits)

    def _recurrent(self, call: Call, longer: set[str]) -> None:
        """A kernel that goes over the steps as far as `lengths` say; it writes zeros after them."""
        lengths = call.operands["lengths"]
        _require(longer <= {"x", "y", "saved"} and "x" in longer)
        _require(isinstance(lengths, Value) and lengths.root in self.lengths)
        self.padded[call.operands["y"].root] = 0.0

    def _stepwise(
        self, call: Call, partner: Call, arrays: dict[str, tuple[Array, Value]], longer: set[str],
        traits: Traits,
    ) -> None:  # fmt: skip
        """A kernel that computes a step from that step alone: its items are steps, or parts."""
        _require(any(arrays[name][0].mode == "in" for name in longer))
        elements = traits.elementwise or bool(traits.column)
        for name, (parameter, value) in arrays.items():
            if name not in longer:
                column = name == traits.column and value.shape == (self.batch,)
                trained = self.loss and value.root.segment != "input"  # with a sum over steps
                _require(parameter.mode == "in")
                _require(parameter.axis == "whole" or (column and not trained))
                continue
            other: Any = partner.operands[name]
            _require(parameter.axis == "rows" and parameter.mode in ("in", "out", "part"))
            count, more = items(parameter, value), items(parameter, other)
            inside = count % (self.batch * self.steps) == 0
            _require(elements or (inside and count // self.steps * self.more == more))
            if self.loss and traits.product:  # its gradient has sums in the same order
                _require((count <= FEW) == (more <= FEW))
        read = [self._fill(value) for parameter, value in arrays.values() if parameter.reads]
        fill = self._result(call, traits, read)
        for name in longer:
            parameter, value = arrays[name]
            if parameter.mode == "out":
                self.padded[value.root] = fill
            elif parameter.mode == "part":
                self.padded[value.root] = ANYTHING

    def _result(self, call: Call, traits: Traits, read: list[float]) -> float:
        """What a stepwise kernel gives for the further steps, for what it reads in them."""
        if traits.ignores:
            ignored = self._fill(call.operands["target"]) == call.operands["ignore_index"]
            return 0.0 if ignored else ANYTHING
        if traits.zero_if == "any" and self.loss and 0.0 in read:
            return 0.0  # others are finite: kernels before have kept them so
        return 0.0 if traits.zero_if == "all" and set(read) == {0.0} else ANYTHING


def _require(condition: bool) -> None:
    if not condition:
        raise _Different
