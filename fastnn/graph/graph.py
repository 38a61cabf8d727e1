"""The graph: values, and the nodes that compute them.

A graph holds one traced computation with concrete shapes. Applying an op (`Graph.apply`) adds a
node and its output values; differentiation adds nodes for gradients, the trainer those that feed,
sum up and update. Nothing here depends on a device: `fastnn/plan/lower` turns nodes into calls.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import numpy as np

from fastnn.errors import DataError, ShapeError, where
from fastnn.graph.methods import Methods, functions
from fastnn.graph.op import KERNEL, Op, lookup
from fastnn.kernels import clock as clock_words
from fastnn.kernels import types
from fastnn.kernels.declare import Array, declared


class _Tracing(threading.local):
    """What a thread is tracing: the graph, the frame that does it, and what is traced around it."""

    entry: tuple[Graph, FrameType, Any] | None = None


_tracing = _Tracing()


def traced() -> Graph | None:
    """The graph that this thread is tracing a module's `forward` (or a loss) into, if any.

    Tracing ends with the frame that does it, even where a Ctrl-C kept it from saying so.
    """
    entry = _tracing.entry
    if entry is None:
        return None
    while entry is not None and not _is_running(entry[1]):
        entry = entry[2]
    _tracing.entry = entry
    return None if entry is None else entry[0]


def _is_running(frame: FrameType) -> bool:
    """Whether a frame is one of this thread's calls."""
    current: FrameType | None = sys._getframe(1)
    while current is not None and current is not frame:
        current = current.f_back
    return current is not None


#: homes (memory segments) that a program's run brings along; sizes are known when it is bound
EXTERNAL = ("data/", "order", "schedule", "totals", "clock", "guard", "result/")


@dataclass(eq=False)
class Repeat:
    """A loop: calls that stand once and are made for each of `length` steps.

    With `reverse` the first step to be made is the last in time (the gradient of a loop).
    """

    length: int
    reverse: bool = False


@dataclass(frozen=True)
class Counter:
    """An integer operand that is `first` in a loop's first step and changes from step to step."""

    first: int
    strides: Mapping[Repeat, int]


@dataclass(eq=False)
class Value(Methods):
    """An array in the graph: what `forward`, losses and metrics get and compute with.

    It has a shape and an element type, but no contents yet: the functions of `fastnn.ops` and its
    operators describe what is computed when a program runs. Its public name is `fastnn.Value`.

    >>> import fastnn as fnn
    >>> class Half(fnn.nn.Module):
    ...     def forward(self, x: fnn.Value) -> fnn.Value:
    ...         return x * 0.5

    Attributes:
        shape: sizes; for batched values the first one is the batch.
        dtype: "f" (the program's float type), "i" (int64), "r" (float64) or "d" (as in the data).
        home: the segment of memory it lives in ("work" until the planner places it).
        offset: where it begins in its segment, in elements; None where the planner decides.
        base, begin: the value whose memory this one views, from element `begin` on, or None.
        steps: elements by which a view moves on in each step of a loop (it is where it is in the
            first one).
        batched: whether its first dimension runs over the samples of the mini-batch.
        data: the contents, for constants.
    """

    graph: Graph
    shape: tuple[int, ...]
    dtype: str = "f"
    home: str = "work"
    offset: int | None = None
    base: Value | None = None
    begin: int = 0
    batched: bool = False
    name: str = ""
    node: Node | None = None
    data: np.ndarray | None = None
    steps: Mapping[Repeat, int] = field(default_factory=dict)

    @property
    def root(self) -> Value:
        """The value that owns the memory."""
        value = self
        while value.base is not None:
            value = value.base
        return value

    @property
    def shift(self) -> int:
        """Where it begins in its root's memory, in elements."""
        return self.begin + (self.base.shift if self.base is not None else 0)

    @property
    def strides(self) -> Mapping[Repeat, int]:
        """Elements by which it moves on in its root's memory in each step of a loop."""
        if self.base is None or not self.base.strides:
            return self.steps
        found = dict(self.base.strides)
        for repeat, step in self.steps.items():
            found[repeat] = found.get(repeat, 0) + step
        return found

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def external(self) -> bool:
        return self.home.startswith(EXTERNAL)

    def __repr__(self) -> str:
        return f"<{self.name or 'value'} {self.dtype}{list(self.shape)} in {self.home}>"

    # Operators, so that a module's forward reads like NumPy; either operand may be an array.
    __hash__ = object.__hash__

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Value:
        """``array + value``, and NumPy's functions that `fastnn.ops` has under the same name."""
        return _of_numpy(ufunc, method, inputs, options)

    def __array_function__(self, function: Any, *_: Any) -> Any:
        raise _no_numbers(function.__name__)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise ShapeError(
            f"{where(self.graph.scope)}{self} has no numbers yet: it stands for data that come "
            "later; compute with its operators and fastnn.ops"
        )

    def __add__(self, other: Any) -> Value:
        return functions().add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Value:
        return functions().subtract(self, other)

    def __rsub__(self, other: Any) -> Value:
        return functions().subtract(other, self)

    def __mul__(self, other: Any) -> Value:
        return functions().multiply(self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Value:
        return functions().divide(self, other)

    def __rtruediv__(self, other: Any) -> Value:
        return functions().divide(other, self)

    def __pow__(self, other: Any) -> Value:
        return functions().power(self, other)

    def __rpow__(self, other: Any) -> Value:
        return functions().power(other, self)

    def __matmul__(self, other: Any) -> Value:
        return functions().matmul(self, other)

    def __rmatmul__(self, other: Any) -> Value:
        return functions().matmul(other, self)

    def __neg__(self) -> Value:
        return functions().negate(self)

    def __pos__(self) -> Value:
        return self

    def _of_masks(self, *_: Any) -> Value:
        raise ShapeError(
            f"{where(self.graph.scope)}masks are floats, 1 and 0: write a * b for `a & b`, "
            "ops.maximum(a, b) for `a | b`, a != b for `a ^ b`, and 1 - a for `~a`"
        )

    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __invert__ = _of_masks

    def _rounded(self, *_: Any) -> Value:
        raise ShapeError(
            f"{where(self.graph.scope)}there is no rounding of symbolic values, so neither // nor "
            "% nor divmod; prepare such numbers as data"
        )

    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __divmod__ = __rdivmod__ = _rounded

    def __abs__(self) -> Value:
        return functions().absolute(self)

    def __lt__(self, other: Any) -> Value:
        return functions().less(self, other)

    def __le__(self, other: Any) -> Value:
        return functions().less_equal(self, other)

    def __gt__(self, other: Any) -> Value:
        return functions().greater(self, other)

    def __ge__(self, other: Any) -> Value:
        return functions().greater_equal(self, other)

    def __eq__(self, other: Any) -> Any:
        """A mask, for numbers, arrays, parameters and other values; else whether it is the same.

        So sets and keys of dicts hold values by identity, but `value in a_list` is an error.
        """
        if not (hasattr(other, "shape") or isinstance(other, (int, float))):
            return NotImplemented
        return functions().equal(self, other)

    def __ne__(self, other: Any) -> Any:
        if not (hasattr(other, "shape") or isinstance(other, (int, float))):
            return NotImplemented
        return functions().not_equal(self, other)

    def __getitem__(self, key: Any) -> Value:
        return functions().getitem(self, key)

    def __len__(self) -> int:
        if not self.shape:
            raise ShapeError(f"{where(self.graph.scope)}a single number has no length: {self}")
        return self.shape[0]

    def __iter__(self) -> Iterator[Value]:
        raise ShapeError(
            f"{where(self.graph.scope)}cannot iterate over {self}: it stands for data that come "
            "later; write x[:, k] for a place of an axis, ops.split for all, ops.loop for steps"
        )

    def __bool__(self) -> bool:
        raise ShapeError(
            f"{where(self.graph.scope)}{self} is neither true nor false: it stands for data that "
            "come later; choose with ops.where, or compare with None by `is`"
        )

    def __float__(self) -> float:
        raise ShapeError(
            f"{where(self.graph.scope)}{self} has no number yet: it stands for data that come "
            "later; compute with its operators and fastnn.ops"
        )

    __int__ = __float__


#: NumPy's names that are others in `fastnn.ops`
_NAMES = {"true_divide": "divide", "negative": "negate", "fabs": "absolute", "float_power": "power"}


def _of_numpy(ufunc: Any, method: str, inputs: Any, options: Any) -> Value:
    """A function of NumPy's on symbolic values or parameters: the one of `fastnn.ops`."""
    function = getattr(functions(), _NAMES.get(ufunc.__name__, ufunc.__name__), None)
    if function is None or method != "__call__" or options:
        raise _no_numbers(ufunc.__name__)
    result: Value = function(*inputs)
    return result


def _no_numbers(name: str) -> ShapeError:
    graph = traced()
    own = _NAMES.get(name, name)
    remedy = (
        f"fastnn.ops.{own}"
        if hasattr(functions(), own)
        else "operators and functions of fastnn.ops"
    )
    return ShapeError(
        f"{where(graph.scope if graph else '')}np.{name} computes with numbers, and symbolic "
        f"values have none yet: they stand for data that come later; write it with {remedy}"
    )


@dataclass(eq=False)
class Node:
    """One application of an op.

    A gradient node (`of` is the node whose gradient it is) has as inputs what that node takes and
    gives, by the same names, and the gradients that have arrived at its outputs, `d<output>`; its
    outputs are `d<input>`.
    """

    op: Op
    inputs: dict[str, Value | None]
    outputs: dict[str, Value]
    attrs: dict[str, Any]
    scope: str
    of: Node | None = None


@dataclass(eq=False)
class Call:
    """One call of a kernel: operands by parameter name (None: an absent array of size 0).

    Neighbours in the list of calls that are in the same loop are made together, step by step.
    """

    kernel: str
    operands: dict[str, Any]
    scope: str
    final: bool = False  # belongs to the very end of the step
    repeats: tuple[Repeat, ...] = ()  # the loops that it is in, the outermost first


def nested(calls: Sequence[Call], depth: int = 0) -> list[Call | tuple[Repeat, list[Call]]]:
    """Calls in the same `depth` loops, neighbours that share a further one gathered under it."""
    found: list[Call | tuple[Repeat, list[Call]]] = []
    for call in calls:
        if len(call.repeats) <= depth:
            found.append(call)
            continue
        loop, before = call.repeats[depth], found[-1] if found else None
        if isinstance(before, tuple) and before[0] is loop:
            before[1].append(call)
        else:
            found.append((loop, [call]))
    return found


@dataclass(frozen=True)
class Range:
    """Integers in `value` must be in low..high-1, or `ignored`; `scope` is the layer that asks.

    `steps`: they are lengths of sequences of high-1 steps.
    """

    value: Value | None  # None once the program is planned
    low: int
    high: int
    scope: str
    ignored: int | None = None
    steps: bool = False


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
    streams: int = 0  # random-number streams handed out
    #: parameters of the model that is traced; None: not known, the graph is not for running
    owned: frozenset[Any] | None = None

    @contextmanager
    def inside_scope(self, scope: str) -> Iterator[None]:
        """Within this context, nodes belong to the layer of this name."""
        saved, self.scope = self.scope, scope
        outer = _tracing.entry
        _tracing.entry = self, sys._getframe(2), outer  # of who is in the context
        try:
            yield
        finally:
            self.scope, _tracing.entry = saved, outer

    # -------------------------------------------------------------- values

    def value(self, shape: tuple[int, ...], dtype: str = "f", **more: Any) -> Value:
        return Value(self, tuple(int(n) for n in shape), dtype, **more)

    def input(self, name: str, shape: tuple[int, ...], dtype: str = "f") -> Value:
        """An input of the model; the first dimension is the batch."""
        return self.value((self.batch, *shape), dtype, home="input", batched=True, name=name)

    def constant(self, data: Any, dtype: str = "f", name: str = "constant") -> Value:
        """A value with fixed contents, written once when the program is bound."""
        array = np.ascontiguousarray(data, types.constant_type(dtype))
        if dtype == "f":
            self.check_range(array, name)
        return self.value(array.shape, dtype, home="constant", data=array, name=name)

    def check_range(self, numbers: Any, what: str) -> None:
        """Raise DataError for finite constants that the program's float type can't hold."""
        limit = np.finfo(self.dtype).max
        sizes = np.abs(numbers)
        beyond = sizes[np.isfinite(sizes) & (sizes > limit)]
        if beyond.size:
            raise DataError(
                f"{where(self.scope)}{what}: expected numbers within {self.dtype}'s range, "
                f"+-{limit:.3g}, got one of {beyond[0]:.3g}; scale it, or use float64"
            )

    def full(self, shape: tuple[int, ...], number: float, batched: bool = False) -> Value:
        """A constant with one number everywhere."""
        value = self.constant(np.full(shape, float(number)), name=f"{number:g}")
        value.batched = batched
        return value

    def leaf(self, key: Any, shape: tuple[int, ...], home: str, **more: Any) -> Value:
        """The value that stands for something outside the graph; one value per key."""
        if key not in self.leaves:
            self.leaves[key] = self.value(shape, home=home, **more)
        return self.leaves[key]

    def clock(self) -> Value:
        """The control block (see `kernels/clock.py`)."""
        return self.leaf("clock", (clock_words.LENGTH,), "clock", dtype="i", name="clock")

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
            shape, value.dtype, home=value.root.home, base=value, begin=begin, batched=keep,
            steps=steps or {},
        )  # fmt: skip

    def limit(
        self, ids: Value, low: int, high: int, ignored: int | None = None, steps: bool = False
    ) -> None:
        """Integers have to be within low..high-1, or `ignored`: checked where the data come in.

        `steps`: they are lengths of sequences of high-1 steps.

        Of integers that were cut out of an input or turned, the whole input is checked.
        """
        source = ids.root
        while source.home != "input" and source.node is not None:
            x = source.node.inputs.get("x")
            if x is None:
                return
            source = x.root
        if source.home == "input":
            self.ranges.append(Range(source, low, high, self.scope, ignored, steps))

    # -------------------------------------------------------------- nodes

    def call(self, kernel: str, **operands: Any) -> None:
        """Add a node that is one call of a kernel, which has the same name on every device.

        Operands are values (written ones, too), numbers, or None for an absent array. Such a node
        has no gradient.
        """
        found = declared(kernel)
        if found is None:
            raise KeyError(f"no kernel is called {kernel!r}")
        if set(operands) != set(found.params):
            raise ShapeError(
                f"{where(self.scope)}kernel {kernel!r} takes {sorted(found.params)}, "
                f"got {sorted(operands)}"
            )
        attrs = {"kernel": kernel, "operands": operands, "final": False}
        self.nodes.append(Node(KERNEL, {}, {}, attrs, self.scope))

    def call_last(self, kernel: str, **operands: Any) -> None:
        """Add a call that belongs to the very end of the step."""
        self.call(kernel, **operands)
        self.nodes[-1].attrs["final"] = True

    def apply(self, op: str | Op, /, **operands: Any) -> Any:
        """Apply an op to inputs and attributes given by name.

        Returns the output value, or a tuple of values for an op with several public outputs.
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
        if row.settle is not None:
            row.settle(node)
        else:
            mark_batched(row.forward_kernel, {**inputs, **node.outputs})
        public = tuple(node.outputs[name] for name in row.returns)
        return public[0] if len(public) == 1 else public


def mark_batched(kernel: str, operands: Mapping[str, Any]) -> None:
    """Outputs run over the batch if an input that is walked along the same axis does."""
    found = declared(kernel)
    assert found is not None, kernel
    arrays = found.arrays
    batched_axes = {
        parameter.axis
        for name, parameter in arrays.items()
        if parameter.axis != "whole"
        and isinstance(value := operands.get(name), Value)
        and value.batched
    }
    for name, parameter in arrays.items() if batched_axes else ():
        value = operands.get(name)
        if (
            parameter.mode in ("out", "scratch")
            and isinstance(value, Value)
            and value.home == "work"
        ):
            value.batched = value.batched or (
                parameter.axis in batched_axes and _leads(parameter, value)
            )


def _leads(parameter: Array, value: Value) -> bool:
    """Whether the value's first dimension is the batch: not for a column kernel's row outputs."""
    return value.ndim > 0 and value.shape[0] % max(value.graph.batch, 1) == 0
