"""From calls to instructions: what each one touches, and how its items are split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastnn.errors import ShapeError, where
from fastnn.graph.fold import fold
from fastnn.graph.graph import Call, Value
from fastnn.kernels.declare import Array, CudaKernel, Kernel, declared
from fastnn.plan.lower.lowering import Lowering
from fastnn.plan.products import chosen


@dataclass(frozen=True)
class Access:
    """How an instruction touches the memory of a value.

    `aligned`: item i of the instruction touches only the i-th equal part, along `axis`.
    """

    root: Value
    reads: bool
    writes: bool
    axis: str  # "rows", "cols", "whole"
    begin: int = 0  # elements of the root
    end: int = 0
    flag: bool = False  # writes words in any order: flags don't wait for each other


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

    @property
    def serial(self) -> bool:
        return self.key is None


def instructions_of(lowered: Lowering) -> list[Instruction]:
    """Calls as instructions, in the same order."""
    return [instruction_of(call, lowered.batch) for call in chosen(lowered)]


def instruction_of(call: Call, batch: int) -> Instruction:
    kernel = declared(call.kernel)
    assert kernel is not None
    dims: dict[str, tuple[int, ...]] = {}
    accesses: list[Access] = []
    for name, parameter in kernel.arrays.items():
        value = call.operands[name]
        if value is None:
            dims[name] = (0,) * len(parameter.dims)
            continue
        if not isinstance(value, Value):
            raise ShapeError(
                f"{where(call.scope)}kernel {kernel.name!r}: operand {name!r} must be an array, "
                f"got {type(value).__name__}"
            )
        dims[name] = fold(value.shape, len(parameter.dims))
        span = value.shift, value.shift + value.size
        accesses.append(
            Access(
                value.root,
                parameter.reads,
                parameter.writes,
                parameter.axis,
                *span,
                flag=parameter.mode == "flag",
            )
        )
    letters = check_letters(kernel, dims, call)
    if kernel.items is None:
        return Instruction(
            kernel,
            call.operands,
            dims,
            tuple(accesses),
            1,
            1,
            None,
            call.scope,
            0,
            final=call.final,
        )
    count = letters[kernel.items]
    batched = any(
        p.axis == "rows" and isinstance(v := call.operands[n], Value) and v.batched
        for n, p in kernel.arrays.items()
    )
    if batched and count % batch == 0 and (batch >= 8 or count == batch):
        items, multiplier, key = batch, count // batch, ("batch", batch)
    else:
        items, multiplier, key = count, 1, ("batch" if batched else "weights", count)
    sizes = {True: 0, False: 0}
    for name, parameter in kernel.arrays.items():
        if not _is_external(parameter, call.operands[name]):
            sizes[parameter.axis == "whole"] += 4 * _elements(dims[name])
    return Instruction(
        kernel, call.operands, dims, tuple(accesses), items, multiplier, key, call.scope,
        sizes[False] // max(items, 1), sizes[True],
    )  # fmt: skip


def _elements(dims: tuple[int, ...]) -> int:
    size = 1
    for extent in dims:
        size *= extent
    return size


def check_letters(
    kernel: Kernel | CudaKernel, dims: dict[str, tuple[int, ...]], call: Call
) -> dict[str, int]:
    """Sizes by dimension letter; an error if one letter stands for two sizes."""
    letters: dict[str, int] = {}
    for name, parameter in kernel.arrays.items():
        value = call.operands[name]
        if value is None or _is_external(parameter, value):
            continue
        for letter, size in zip(parameter.dims, dims[name], strict=True):
            if letters.setdefault(letter, size) != size:
                raise ShapeError(
                    f"{where(call.scope)}op of kernel {kernel.name!r}: expected {name!r} with "
                    f"{letter}={letters[letter]}, got shape {value.shape}; check the layer's sizes"
                )
    return letters


def _is_external(parameter: Array, value: Any) -> bool:
    return isinstance(value, Value) and value.external
