"""The graph: the nodes of one computation, and how they are added.

A graph holds one traced computation with concrete shapes. Applying an op (`Graph.apply`) adds a
node and its output values; differentiation adds nodes for gradients, the trainer those that feed,
sum up and update. Nothing here depends on a device: `fastnn/plan/lower` turns nodes into calls.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastnn.errors import DataError, where
from fastnn.graph.constants import SymbolicArray, everywhere
from fastnn.graph.fold import fold
from fastnn.graph.following import follows
from fastnn.graph.node import Check, Node, Range
from fastnn.graph.op import Op, lookup
from fastnn.graph.sizes import now, real, whole
from fastnn.graph.tracing import tracing
from fastnn.graph.value import Repeat, Value
from fastnn.kernels import control_block, types
from fastnn.kernels.declare import kernel_of


@dataclass(eq=False)
class Graph:
    """A computation over a mini-batch of `batch` samples.

    `training` tells layers that behave differently in training (dropout, batch norm) what to emit.
    `dtype` is the float type that the program will have.
    """

    batch: int
    training: bool = False
    dtype: str = "float32"
    nodes: list[Node] = field(default_factory=list)
    scope: str = ""  # name of the layer that is being traced
    #: names of the modules being traced, by identity
    module_names: dict[int, str] = field(default_factory=dict)
    leaves: dict[Any, Value] = field(default_factory=dict)
    #: limits of integer inputs found while tracing
    ranges: list[Range] = field(default_factory=list)
    loops: list[int] = field(default_factory=list)
    #: rules for inputs, found likewise
    checks: list[Check] = field(default_factory=list)
    streams: int = 0  # random-number streams handed out
    #: whether layers that carry states from batch to batch leave that out, and take a batch of any
    #: size: the graph is not for running but for a look at it
    stateless: bool = False
    #: of values whose channels come first, what they are the transpose of (`ops/layout.py`)
    last: dict[Value, Value] = field(default_factory=dict)
    #: the model around what is traced whose inputs and outputs have their channels last, for
    #: messages; "": none (`nn/layout.py`)
    laid_out: str = ""
    #: values that were passed over for others: they are computed only if somebody else reads them
    passed: set[Value] = field(default_factory=set)
    #: parameters of the model that is traced; None: not known, the graph is not for running
    owned: frozenset[Any] | None = None

    def release(self) -> None:
        """Nobody asks for parameters any more. Nodes and values refer to each other, so they are
        there until Python collects them; the model, which is not theirs, must not be."""
        self.leaves.clear()
        self.owned = None

    @contextmanager
    def inside_scope(self, scope: str) -> Iterator[None]:
        """Within this context, nodes belong to the layer of this name."""
        saved, self.scope = self.scope, scope
        outer = tracing.entry
        tracing.entry = self, sys._getframe(2), outer  # of who is in the context
        try:
            yield
        finally:
            self.scope, tracing.entry = saved, outer

    # -------------------------------------------------------------- values

    def value(self, shape: tuple[int, ...], dtype: str = "f", **more: Any) -> Value:
        return Value(self, tuple(map(whole, shape)), dtype, **more)

    def input(self, name: str, shape: tuple[int, ...], dtype: str = "f") -> Value:
        """An input of the model; the first dimension is the batch."""
        return self.value((self.batch, *shape), dtype, segment="input", batched=True, name=name)

    def constant(self, data: Any, dtype: str = "f", name: str = "constant") -> Value:
        """A value with fixed contents, written once when the program is bound."""
        array = np.ascontiguousarray(data, types.constant_type(dtype))
        if dtype == "f":
            self.check_range(array, name)
        return self.value(array.shape, dtype, segment="constant", data=array, name=name)

    def integers(self, numbers: Sequence[Any], name: str) -> Value:
        """A constant of whole numbers, in lists of one length where there are two dimensions; some
        of them may follow from the batch's sizes."""
        lists = [list(n) if isinstance(n, (list, tuple)) else n for n in numbers]
        plain = [[*map(now, n)] if isinstance(n, list) else now(n) for n in lists]
        value = self.constant(plain, "i", name)
        if any(follows(n) for line in lists for n in (line if isinstance(line, list) else [line])):
            value.data = SymbolicArray(lists, value.shape, value.data)
        return value

    def check_range(self, numbers: Any, what: str) -> None:
        """Raise DataError for finite constants that the program's float type can't hold."""
        limit = np.finfo(self.dtype).max
        if follows(numbers) and -float(limit) <= numbers <= float(limit):
            return
        sizes = np.abs(now(numbers))
        beyond = sizes[np.isfinite(sizes) & (sizes > limit)]
        if beyond.size:
            raise DataError(
                f"{where(self.scope)}{what}: expected numbers within {self.dtype}'s range, "
                f"+-{limit:.3g}, got one of {beyond[0]:.3g}; scale it, or use float64"
            )

    def full(self, shape: tuple[int, ...], number: float, batched: bool = False) -> Value:
        """A constant with one number everywhere."""
        name, number = f"{now(number):g}", real(number)
        self.check_range(number, name)
        data: Any = everywhere(now(number), tuple(map(now, shape)) or (1,))
        if follows(number):
            data = SymbolicArray(number, shape, data)
        return self.value(shape, segment="constant", data=data, batched=batched, name=name)

    def leaf(self, key: Any, shape: tuple[int, ...], segment: str, **more: Any) -> Value:
        """The value that stands for something outside the graph; one value per key."""
        if key not in self.leaves:
            self.leaves[key] = self.value(shape, segment=segment, **more)
        return self.leaves[key]

    def control(self) -> Value:
        """The control block (see `kernels/control_block.py`)."""
        return self.leaf("control", (control_block.LENGTH,), "control", dtype="i", name="control")

    def stream(self) -> int:
        """A new stream of random numbers."""
        self.streams += 1
        return self.streams

    def view(
        self,
        value: Value,
        shape: tuple[int, ...],
        batched: bool | None = None,
        begin: int = 0,
        steps: Mapping[Repeat, int] | None = None,
    ) -> Value:
        """The same memory under another shape, from element `begin` on."""
        keep = value.batched if batched is None else batched
        return self.value(
            shape, value.dtype, segment=value.root.segment, base=value, begin=begin, batched=keep,
            steps=steps or {},
        )  # fmt: skip

    def same(self, value: Value, like: Value | None = None) -> Value:
        """The same numbers as another value (of the shape of `like`), through which gradients and
        tangents pass."""
        like = value if like is None else like
        result: Value = self.apply("reshape", x=value, shape=like.shape)
        result.batched = like.batched
        return result

    def limit(
        self, ids: Value, low: int, high: int, ignored: int | None = None, steps: bool = False
    ) -> None:
        """Integers have to be within low..high-1, or `ignored`: checked where the data come in.

        `steps`: they are lengths of sequences of high-1 steps.

        Of integers that were cut out of an input or transposed, the whole input is checked.
        """
        source = ids.root
        while source.segment != "input" and source.node is not None:
            x = source.node.inputs.get("x")
            if x is None or x.dtype != "i":
                return
            source = x.root
        if source.segment == "input":
            self.ranges.append(Range(source, low, high, self.scope, ignored, steps))

    # -------------------------------------------------------------- nodes

    def apply(self, op: str | Op, /, **operands: Any) -> Any:
        """Apply an op to inputs and attributes given by name.

        Returns the output value, or a tuple of values for an op with several public outputs; None
        for an effect.
        """
        row = lookup(op) if isinstance(op, str) else op
        inputs: dict[str, Value | None] = {}
        for name in row.inputs:
            inputs[name] = operands.pop(name, None)
        attrs = {**row.defaults, **operands}
        shapes = row.shape({k: v for k, v in inputs.items() if v is not None}, attrs, self.scope)
        node = Node(row, inputs, {}, attrs, self.scope)
        for name in row.outputs:
            shape, dtype = shapes[name]
            node.outputs[name] = self.value(shape, dtype, node=node, name=f"{row.name}.{name}")
        self.nodes.append(node)
        if row.placement is not None:
            row.placement(node)
        else:
            mark_batched(row.forward_kernel, {**inputs, **node.outputs})
        public = tuple(node.outputs[name] for name in row.returns)
        return public[0] if len(public) == 1 else public or None


def mark_batched(kernel: str, operands: Mapping[str, Any]) -> None:
    """Outputs run over the batch whose first dimension is that of an input that does: the kernel's
    signature says so, by the letter that both begin with."""
    arrays = [
        (parameter, value)
        for name, parameter in kernel_of(kernel).arrays.items()
        if parameter.axis != "whole" and isinstance(value := operands.get(name), Value)
    ]
    letters = [
        parameter.dims[0]
        for parameter, value in arrays
        if value.batched and runs_over_batch(value, fold(value.shape, len(parameter.dims)))
    ]
    for parameter, value in arrays if letters else ():
        if parameter.mode in ("out", "scratch") and value.segment == "work":
            among = parameter.dims[0] in letters and runs_over_batch(value, value.shape)
            value.batched = value.batched or among


def runs_over_batch(value: Value, shape: Sequence[int]) -> bool:
    """Whether the first dimension of a shape runs over the samples, where those of `value`, whose
    shape it is or might be, lie one after the other: no piece of it may hold parts of two."""
    return bool(shape) and shape[0] % max(value.graph.batch, 1) == 0
