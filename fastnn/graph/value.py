"""Values: arrays in the graph, and the loops in whose steps they may move on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastnn.errors import ShapeError, where
from fastnn.graph.methods import Methods, functions
from fastnn.graph.tracing import traced

if TYPE_CHECKING:
    from fastnn.graph.graph import Graph
    from fastnn.graph.node import Node

#: memory segments that a program's run brings along; sizes are known when it is bound
EXTERNAL = ("data/", "order", "schedule", "totals", "control", "guard", "result/")


@dataclass(eq=False)
class Repeat:
    """A loop: calls that stand once and are made for each of `length` steps.

    With `reverse` the first step to be made is the last in time (the gradient of a loop).

    With `running` steps need not be made of which nothing is wanted: floats, one for each sequence,
    that are not zero (all bits of zero are 0) as long as the sequence goes on, as they are in the
    first step made, with the strides by which they move on. Once zero, they stay so in time. With
    `shares_mask` a step is made for all sequences or none: another loop uses what it leaves.
    """

    length: int
    reverse: bool = False
    running: Value | None = None
    shares_mask: bool = False


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

    What needs contents (``float(x)``, ``if x:``, iteration, NumPy's functions) raises ShapeError,
    which names what to write instead.

    >>> import fastnn as fnn
    >>> class Half(fnn.nn.Module):
    ...     def forward(self, x: fnn.Value) -> fnn.Value:
    ...         return x * 0.5

    Attributes:
        shape: sizes; for batched values the first one is the batch.
        dtype: "f" (the program's float type), "i" (int64), "r" (float64) or "d" (as in the data).
        segment: the segment of memory it lives in ("work" until the planner places it).
        offset: where it begins in its segment, in elements; None where the planner decides.
        base, begin: the value whose memory this one views, from element `begin` on, or None.
        steps: elements by which a view moves on in each step of a loop (it is where it is in the
            first one).
        batched: whether its first dimension runs over the samples of the mini-batch.
        node: the application of an op that computes it, or None.
        data: the contents, for constants: an array.
    """

    graph: Graph
    shape: tuple[int, ...]
    dtype: str = "f"
    segment: str = "work"
    offset: int | None = None
    base: Value | None = None
    begin: int = 0
    batched: bool = False
    name: str = ""
    node: Node | None = None
    data: Any = None
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
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def external(self) -> bool:
        """Whether its memory is brought along by the run and not laid out by the planner."""
        return self.segment.startswith(EXTERNAL)

    def __repr__(self) -> str:
        return f"<{self.name or 'value'} {self.dtype}{list(self.shape)} in {self.segment}>"

    # Operators, so that a module's forward reads like NumPy; either operand may be an array.
    __hash__ = object.__hash__

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Value:
        """``array + value``, and NumPy's functions that `fastnn.ops` has under the same name."""
        return of_numpy(ufunc, method, inputs, options)

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


def of_numpy(ufunc: Any, method: str, inputs: Any, options: Any) -> Value:
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
