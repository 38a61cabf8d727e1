"""What a kernel's exception becomes: an error with the kernel's name, the item, and the cause.

Compiled code only knows that something was raised, in which call and in which range of items. The
rest is found out afterwards: the range is computed again item by item, and the item that fails by
the kernel's Python function, on copies of its arrays. Checked code has noted what it has found out
of bounds.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnn.errors import KernelError
from fastnn.kernels import control_block, types
from fastnn.kernels.declare import KERNELS, Array, Kernel
from fastnn.plan.program import PlannedCall, Program, calls_of
from fastnn.runtime.cpu import compiler, layout
from fastnn.runtime.cpu.checks import checked

#: arrays of more bytes than this are not copied to find the cause
MOST_BYTES = 1 << 28
#: kinds of access whose checks note what they find, by number
ACCESS = ("", "vector load", "vector store", "register tile", "transposed block", "index")
INDEX = ACCESS.index("index")


class _Named(np.ndarray):
    """An array that says its name when an index is out of bounds."""

    name = ""

    def __getitem__(self, index: Any) -> Any:
        try:
            return np.asarray(self)[index]
        except IndexError as error:
            raise IndexError(f"{self.name}{_text(index)}: {error}") from None

    def __setitem__(self, index: Any, value: Any) -> None:
        try:
            np.asarray(self)[index] = value
        except IndexError as error:
            raise IndexError(f"{self.name}{_text(index)}: {error}") from None


def _text(index: Any) -> str:
    parts = index if isinstance(index, tuple) else (index,)
    return f"[{', '.join(str(p) for p in parts)}]"


def find(segments: Sequence[tuple[Any, int]], control: np.ndarray) -> tuple[KernelError, bool]:
    """The error for what a kernel has raised in the run of these bound programs, and whether
    updates may have begun by then. Nothing that the kernel read may have changed since."""
    row, record, lo, hi, worker = (
        int(w) for w in control[control_block.FAULT : control_block.FAULT + 5]
    )
    control[control_block.STOP] = control[control_block.FAULT] = 0
    for bound, _ in segments:
        offset = row - int(bound.calls.ctypes.data)
        if 0 <= offset < bound.calls.nbytes and bound.size.stands:
            number = offset // (8 * layout.CALL_WORDS)
            call, dtype = bound.called[number], bound.program.dtype
            if KERNELS[call.kernel].traits.host:
                return KernelError("a function of the host was cut off"), False
            where = bound.where(number, worker)
            found = error(KERNELS[call.kernel], record, lo, hi, dtype, bound.data_type(call), where)
            return found, _after_updates(bound.base.program, call)  # `called` has its calls
    return KernelError("a kernel has raised an exception"), True


def _after_updates(program: Program, failed: PlannedCall) -> bool:
    """Whether updates of parameters run beside a call or before it."""
    begun = False
    for phase in program.leaves():
        parallel = list(calls_of(phase.groups))
        begun = begun or any(_updates(call) for call in parallel)
        if any(call is failed for call in parallel):
            return begun
        for call in phase.serial:  # one after the other
            if call is failed:
                return begun
            begun = begun or _updates(call)
    return True


def _updates(call: PlannedCall) -> bool:
    return any(p.writes and o.segment == "params" for _, p, o in call.arrays())


def error(
    kernel: Kernel, record: int, lo: int, hi: int, dtype: str, data_type: str, where: str = ""
) -> KernelError:
    """The error for a compiled call that has failed; `where`: in which step of loops."""
    again = not any(array.mode == "inout" for array in kernel.arrays.values())
    address = compiler.address(kernel, dtype, data_type)
    place, cause, noted = "", "", compiler.noted(address)
    if kernel.items is not None:
        place = f", items {lo} to {hi - 1}"
        function = compiler.CALL(address)
        for item in range(lo, hi) if again else ():
            if function(record, item, item + 1) != 0:
                lo, hi, place = item, item + 1, f", item {item}"
                noted = compiler.noted(address)
                break
    plain = not noted or noted[0] == INDEX
    if plain and (again or not checked()):
        cause = _cause(kernel, record, lo, hi, dtype, data_type)
    if noted and not cause:
        cause = _out_of_bounds(kernel, record, noted, dtype, data_type)
    hint = "" if cause or checked() else "; FASTNN_CHECK=1 checks indices"
    return KernelError(
        f"kernel {kernel.shown!r}{where}{place}: {cause or 'an exception was raised'}{hint}"
    )


def _out_of_bounds(
    kernel: Kernel, record: int, noted: tuple[int, ...], dtype: str, data_type: str
) -> str:
    """The text for what code has noted: access, array, flat index and number of elements, or index,
    size and number of an axis."""
    kind, address, index, count, axis = noted
    table = (ctypes.c_int64 * compiler.record_length(kernel)).from_address(record)
    whole, parts, slot = [], [], 0
    for name, parameter in kernel.params.items():
        if not isinstance(parameter, Array):
            slot += 1
            continue
        start, *shape = table[slot : slot + 1 + len(parameter.dims)]
        size = math.prod(shape)
        item = np.dtype(types.storage(parameter.dtype, dtype, data_type)).itemsize
        length = size if kind != INDEX else shape[axis] if axis < len(shape) else -1
        if (start, length) == (address, count):
            whole.append(name)
        elif start <= address < start + size * item:
            parts.append(name)
        slot += 1 + len(shape)
    array = " or ".join(whole) or f"a part of {' or '.join(parts) or 'an array'}"
    if kind == INDEX:
        index -= count if index < 0 else 0  # it was counted from the end
        return (
            f"IndexError: {array}: index {index} is out of bounds for axis {axis} with size {count}"
        )
    return (
        f"IndexError: {ACCESS[kind]} of {array}: flat index {index} is out of bounds for size "
        f"{count}"
    )


def _cause(kernel: Kernel, record: int, lo: int, hi: int, dtype: str, data_type: str) -> str:
    """What the kernel's Python function raises; "" where that is nothing."""
    table = (ctypes.c_int64 * compiler.record_length(kernel)).from_address(record)
    arguments: list[Any] = []
    slot, size = 0, 0
    for name, parameter in kernel.params.items():
        if not isinstance(parameter, Array):
            number = np.int64(table[slot])
            arguments.append(int(number) if parameter.kind == "int" else number.view(np.float64))
            slot += 1
            continue
        dims, kind = parameter.dims, np.dtype(types.storage(parameter.dtype, dtype, data_type))
        shape = tuple(table[slot + 1 : slot + 1 + len(dims)])
        count = int(np.prod(shape, dtype=np.int64))
        size += count * kind.itemsize
        if size > MOST_BYTES:
            return ""
        array = np.zeros(shape, kind).view(_Named)
        array.name = name
        first, last = _own(parameter, kernel, lo, hi, shape)
        if table[slot] and parameter.mode not in ("out", "scratch") and last > first:
            start = table[slot] + first * kind.itemsize
            source = (ctypes.c_byte * ((last - first) * kind.itemsize)).from_address(start)
            flat = np.asarray(array).reshape(-1)
            flat[first:last] = np.frombuffer(bytes(source), kind)
        arguments.append(array)
        slot += 1 + len(dims)
    ranges = (lo, hi) if kernel.items is not None else ()
    try:
        with np.errstate(all="ignore"):
            kernel.function(*arguments, *ranges)
    except Exception as raised:
        return f"{type(raised).__name__}: {raised}" if str(raised) else type(raised).__name__
    return ""


def _own(array: Array, kernel: Kernel, lo: int, hi: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """The elements that are surely there: an array by rows may hold a block of its rows only."""
    count = int(np.prod(shape, dtype=np.int64))
    if array.axis != "rows" or kernel.items is None or not shape or not shape[0]:
        return 0, count
    row = count // shape[0]
    return lo * row, hi * row
