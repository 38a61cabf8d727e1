"""Which values of a graph hold one piece for each sample, made of that sample alone.

Data are cut into batches; that changes nothing as long as a result's piece for a sample depends on
no other sample. A walk over the calls of kernels finds out: a kernel computes an item from the same
item of its arrays ("rows") or from whole arrays, and items belong to samples as long as memory is
laid out sample by sample. Swapping batch and time leaves as many *slices* as there are steps, each
laid out sample by sample; swapping back undoes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from fastnn.graph.value import Value
from fastnn.kernels.declare import Array, kernel_of
from fastnn.plan.call import Call, nested
from fastnn.plan.lower.lowering import Lowering


class Samples:
    """What is known about the values of a graph, after all calls made so far.

    Args:
        lowered: the graph's calls; its batch must be larger than 1 to tell anything.
        inputs: the values whose first dimension runs over the samples.
        statistics: whether a piece may depend on statistics of the whole batch as well, as batch
            normalisation makes it.
    """

    def __init__(self, lowered: Lowering, inputs: Iterable[Value], statistics: bool = False):
        self.batch, self.statistics = lowered.batch, statistics
        #: by root, the elements of a slice; 0: samples are mixed; absent: depends on no sample
        self.slices: dict[Value, int] = {value.root: value.size for value in inputs}
        for item in nested(lowered.calls):
            if isinstance(item, Call):
                self._follow(item)
                continue
            before = None
            while before != self.slices:  # a loop's step depends on what the one before has written
                before = dict(self.slices)
                for call in item[1]:
                    self._follow(call)

    def depends(self, value: Value) -> bool:
        """Whether the value depends on the inputs at all."""
        return value.root in self.slices

    def mixed(self, value: Value) -> bool:
        """Whether the value depends on samples in such a way that pieces can't be told apart."""
        return self.depends(value) and not self._slice(value)

    def apart(self, value: Value) -> bool:
        """Whether the value is laid out sample by sample, each piece made of its sample alone."""
        size = self._slice(value)
        return size == value.size and value.ndim > 0 and value.shape[0] % self.batch == 0

    def steps(self, value: Value) -> bool:
        """Whether this is a stack of slices along its first dimension, and `apart` in each."""
        size = self._slice(value)
        return (
            value.ndim > 1
            and 0 < size == value.size // value.shape[0]
            and value.shape[1] % self.batch == 0
        )

    def _slice(self, value: Value) -> int:
        """Elements of the slices that the value consists of; 0 where samples are mixed."""
        size = self.slices.get(value.root, 0)
        if not size:
            return 0
        if value.size % size == 0 and value.shift % size == 0:
            return size
        return 0

    def _follow(self, call: Call) -> None:
        kernel = kernel_of(call.kernel)
        apart, normed = kernel.traits.rows_apart, self.statistics and kernel.traits.by_statistics
        arrays = {
            name: replace(parameter, axis="rows") if name in (normed or apart) else parameter
            for name, parameter in kernel.arrays.items()
        }
        read = [
            (parameter, value)
            for name, parameter in arrays.items()
            if parameter.reads
            and isinstance(value := call.operands[name], Value)
            and self.depends(value)
        ]
        if not read:
            return
        slices = self._swapped(call) if kernel.traits.swaps_leading else self._counted(read)
        for name, parameter in arrays.items():
            value = call.operands[name]
            if not parameter.writes or not isinstance(value, Value) or value.external:
                continue
            size = 0
            whole = normed and name not in normed  # the statistics themselves
            if slices and not whole and parameter.axis == "rows" and value.size % slices == 0:
                size = value.size // slices
            self._note(value, size)

    def _note(self, value: Value, size: int) -> None:
        """The value is written, with slices of this size; so is what lies beside it."""
        before = self.slices.get(value.root, size)
        self.slices[value.root] = size if size == before else 0

    def _counted(self, read: list[tuple[Array, Value]]) -> int:
        """Into how many slices the items of a call fall; 0 where it mixes samples."""
        found: set[int] = set()
        for parameter, value in read:
            size = self._slice(value)
            if parameter.axis != "rows" or not size:
                return 0
            count = value.size // size
            if items(parameter, value) % (count * self.batch):
                return 0
            found.add(count)
        return found.pop() if len(found) == 1 else 0

    def _swapped(self, call: Call) -> int:
        """How many slices the result of a swap has."""
        x: Any = call.operands["x"]
        if self.apart(x):
            return int(x.shape[1]) if x.shape[0] == self.batch else 0
        return 1 if self.steps(x) else 0


def items(parameter: Array, value: Value) -> int:
    """How many items a "rows" array has: leading dimensions are merged, missing ones are 1."""
    rank = len(parameter.dims)
    if 2 <= value.ndim < rank:
        return 1
    count = 1
    for extent in value.shape[: max(value.ndim - rank, 0) + 1]:
        count *= extent
    return count
