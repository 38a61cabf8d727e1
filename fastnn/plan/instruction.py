"""From calls to instructions: what each one touches, and how its items are split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fastnn.errors import ShapeError, where
from fastnn.graph.fold import fold
from fastnn.graph.sizes import canonical, distinct
from fastnn.graph.value import Repeat, Value
from fastnn.kernels.declare import CudaKernel, Kernel, kernel_of
from fastnn.plan.call import Call, nested
from fastnn.plan.program import item_size
from fastnn.plan.spans import Span
from fastnn.plan.strides import strides_of


class Access(NamedTuple):
    """How an instruction touches the memory of a value.

    With the axis "rows" or "cols" item i of the instruction touches only the i-th equal part along
    the first or the last dimension.

    Attributes:
        root: the value that owns the memory.
        span: elements of the root.
        memory, place: the segment's name and the bytes of it, where the root has a place there from
            the start; else, of a buffer that the planner places, its identity and its elements.
        low, high: from where to where of the memory it moves in loops.
        flag: whether it writes words in any order: flags don't wait for each other.
    """

    root: Value
    reads: bool
    writes: bool
    axis: str  # "rows", "cols", "whole"
    span: Span
    memory: int | str
    place: Span
    low: int
    high: int
    flag: bool = False


def access_of(
    root: Value, reads: bool, writes: bool, axis: str, span: Span, flag: bool = False
) -> Access:
    """An access, given the elements of the root that it touches."""
    if root.offset is None and (root.segment == "work" or not root.external):
        low, high = span.hull() if span.strides else span[:2]
        return Access(root, reads, writes, axis, span, id(root), span, low, high, flag)
    offset, size = root.offset or 0, item_size(root.dtype, root.graph.dtype)
    low, high = (offset + span.begin) * size, (offset + span.end) * size
    place = Span(low, high)
    if span.strides:
        place = Span(low, high, tuple(stride * size for stride in span.strides), span.lengths)
        low, high = place.hull()
    return Access(root, reads, writes, axis, span, root.segment, place, low, high, flag)


#: columns that kernels of columns take at a time on the widest CPU (`strip_lanes`)
STRIP = 64


@dataclass(eq=False)
class Instruction:
    """A kernel with its operands, before memory is placed.

    Attributes:
        dims: for each array operand, its shape folded to the declared rank.
        items: how many items the group's range counts (1 for a serial instruction).
        multiplier: kernel items per group item (a batch item may be several rows).
        key: instructions with equal keys are split among workers in the same way;
            None for a serial instruction.
        bytes_per_item, whole_bytes: memory touched per item, and read as a whole at every call,
            for the size of blocks.
    """

    kernel: Kernel | CudaKernel
    operands: dict[str, Any]
    dims: dict[str, tuple[int, ...]]
    accesses: tuple[Access, ...]
    items: int
    multiplier: int
    key: tuple[str, int] | None
    scope: str
    bytes_per_item: int
    whole_bytes: int = 0
    final: bool = False
    repeats: tuple[Repeat, ...] = ()

    def split_into(self, items: int) -> None:
        """Split the rows of an element-wise kernel's arrays, (rows, columns), into so many."""
        rows = [n for n, p in self.kernel.arrays.items() if p.axis == "rows"]
        present = [name for name in rows if self.operands[name] is not None]
        size = _elements(self.dims[present[0]])
        if size % items:
            return
        self.dims |= dict.fromkeys(present, (items, size // items))
        size = self.bytes_per_item * self.items
        self.items, self.key, self.bytes_per_item = items, ("weights", items), size // items

    @property
    def serial(self) -> bool:
        return self.key is None

    @property
    def may_raise(self) -> bool:
        return self.kernel.may_raise

    @property
    def grain(self) -> int:
        """Shares of workers begin at multiples of so many items."""
        return -(-self.kernel.grain // self.multiplier)

    @property
    def fewest(self) -> int:
        """Fewest items that a share is cut into: of columns whole strips, or memory would be passed
        over several times, a few bytes of each line at a time."""
        columns = any(array.axis == "cols" for array in self.kernel.arrays.values())
        return -(-max(self.kernel.block, STRIP if columns else 1) // self.multiplier)


@dataclass(eq=False)
class Repeated:
    """A loop: its body once.

    Attributes:
        body: what is done in each step, in order.
        accesses: those of the body, with all that it moves over.
        items, multiplier, key: as of an instruction, where the loop stands in a group and each item
            goes through all steps alone; `key` is None where its steps are phases.
    """

    loop: Repeat
    body: list[Instruction | Repeated]
    accesses: tuple[Access, ...]
    items: int = 1
    multiplier: int = 1
    key: tuple[str, int] | None = None
    final: bool = False

    @property
    def serial(self) -> bool:
        return self.key is None

    @property
    def may_raise(self) -> bool:
        return any(inner.may_raise for inner in self.body)

    @property
    def grain(self) -> int:
        return max(inner.grain for inner in self.body)

    @property
    def fewest(self) -> int:
        return max(inner.fewest for inner in self.body)

    @property
    def bytes_per_item(self) -> int:
        return sum(inner.bytes_per_item for inner in self.body)

    @property
    def whole_bytes(self) -> int:
        return sum(inner.whole_bytes for inner in self.body)


#: what is scheduled
Work = Instruction | Repeated


def instructions_of(calls: Sequence[Call], batch: int, depth: int = 0) -> list[Work]:
    """Calls as instructions, in the same order; a loop is one (whose steps are phases, so far)."""
    found: list[Work] = []
    for item in nested(calls, depth):
        if isinstance(item, Call):
            found.append(instruction_of(item, batch))
        else:
            body = instructions_of(item[1], batch, depth + 1)
            accesses = [access for inner in body for access in inner.accesses]
            if (running := item[0].running) is not None:
                around = _loops_around(item[1][0].repeats, item[0])
                span = Span(
                    running.shift, running.shift + running.size,
                    tuple(running.strides.get(loop, 0) for loop in around),
                    tuple(loop.length for loop in around),
                )  # fmt: skip
                accesses.append(access_of(running.root, True, False, "rows", span))
            found.append(Repeated(item[0], body, tuple(distinct(accesses))))
    split_alike(found)
    return found


def _loops_around(loops: Sequence[Repeat], last: Repeat) -> tuple[Repeat, ...]:
    return tuple(loops[: next(k for k, loop in enumerate(loops) if loop is last) + 1])


def flat(work: Sequence[Work]) -> Iterator[Instruction]:
    """The instructions, those of loops once, in order."""
    for one in work:
        if isinstance(one, Repeated):
            yield from flat(one.body)
        else:
            yield one


def split_alike(work: Sequence[Work]) -> None:
    """Split updates of weights as their gradients were split by whoever wrote them.

    A gradient may be split by other items than the weight's rows: of a weight of any rank a kernel
    may see a vector, or a matrix of other sides. Sums of gradients follow it, too.
    """
    gradients: set[Value] = set()
    for one in filter(_each_alone, reversed(work)):
        written = {access.root for access in one.accesses if access.writes and not access.flag}
        if any(root.segment == "params" for root in written) or written & gradients:
            gradients |= {a.root for a in one.accesses if a.reads and a.axis == "rows"} - written
    writers: dict[Value, dict[Any, int]] = {}  # the items by which something was written last
    for one in work if gradients else ():
        if (
            isinstance(one, Instruction)
            and _each_alone(one)
            and any(access.root in gradients for access in one.accesses)
        ):
            rows_of = (a for a in one.accesses if a.axis == "rows")
            read = (writers.get(a.root, {}).get(canonical(a.span)) for a in rows_of)
            items = next((count for count in read if count is not None), one.items)
            if items != one.items:
                one.split_into(items)
        for access in one.accesses:
            if access.writes:
                rows = _of_weights(one) and access.axis == "rows"
                writers[access.root] = {canonical(access.span): one.items} if rows else {}


def _each_alone(one: Work) -> bool:
    """Whether it takes each element of weights alone."""
    return isinstance(one, Instruction) and one.kernel.traits.elementwise and _of_weights(one)


def _of_weights(one: Work) -> bool:
    return one.key is not None and one.key[0] == "weights"


def instruction_of(call: Call, batch: int) -> Instruction:
    kernel = kernel_of(call.kernel)
    dims: dict[str, tuple[int, ...]] = {}
    accesses: list[Access] = []
    letters: dict[str, int] = {}
    lengths = tuple(loop.length for loop in call.repeats)
    batched, split_bytes, whole_bytes = False, 0, 0
    for name, parameter in kernel.arrays.items():
        value, axis = call.operands[name], parameter.axis
        if value is None:
            dims[name] = (0,) * len(parameter.dims)
            continue
        if not isinstance(value, Value):
            raise ShapeError(
                f"{where(call.scope)}kernel {kernel.name!r}: operand {name!r} must be an array, "
                f"got {type(value).__name__}"
            )
        if (parameter.dtype == "i") != (value.dtype == "i") and parameter.dtype != "d":
            kinds = ("integers", "floating-point numbers")
            raise ShapeError(
                f"{where(call.scope)}kernel {kernel.name!r}: expected {name!r} to be "
                f"{kinds[parameter.dtype != 'i']}, got {kinds[value.dtype != 'i']}; convert them"
            )
        root, begin = value.root, value.shift
        own = dims[name] = fold(value.shape, len(parameter.dims))
        size = _elements(own)
        span = Span(begin, begin + size, strides_of(value, call), lengths)
        accesses.append(
            access_of(root, parameter.reads, parameter.writes, axis, span, parameter.mode == "flag")
        )
        batched = batched or (value.batched and axis == "rows")
        if value.external:  # its sizes are known when the program is bound
            continue
        if axis == "whole":
            whole_bytes += 4 * size
        else:
            split_bytes += 4 * size
        for letter, extent in zip(parameter.dims, own, strict=True):
            if letters.setdefault(letter, extent) != extent:
                raise ShapeError(
                    f"{where(call.scope)}op of kernel {kernel.name!r}: expected {name!r} with "
                    f"{letter}={letters[letter]}, got shape {value.shape}; check the layer's sizes"
                )
    if kernel.items is None:
        return Instruction(
            kernel, call.operands, dims, tuple(accesses), 1, 1, None, call.scope, 0,
            final=call.final, repeats=call.repeats,
        )  # fmt: skip
    count = letters[kernel.items]
    if batched and count % batch == 0 and (batch >= 8 or count == batch):
        items, multiplier, key = batch, count // batch, ("batch", batch)
    else:
        items, multiplier, key = count, 1, ("batch" if batched else "weights", count)
    return Instruction(
        kernel, call.operands, dims, tuple(accesses), items, multiplier, key, call.scope,
        split_bytes // max(items, 1), whole_bytes, repeats=call.repeats,
    )  # fmt: skip


def _elements(dims: tuple[int, ...]) -> int:
    size = 1
    for extent in dims:
        size *= extent
    return size
