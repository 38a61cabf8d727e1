"""Checks that a kernel does what its signature says, on operands of a planned call.

Each array lies between guards. What a mode forbids to matter is poisoned, twice and differently:

- ``in``: not written, and rows (columns) of other items are not looked at;
- ``out``: written completely, whatever was there; ``out*`` but for its gaps;
- ``part``: a share is written, and the rest left as it is;
- ``scratch``: what is there before matters to nothing;
- ``inout``, ``flag``: the same contents give the same;
- any range of items gives the bits of the whole, and writes its own rows (columns) alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnn.kernels.declare import Array, CudaKernel, Kernel
from fastnn.plan.coverage import share_of
from tests.kernels.common import GUARD, poisoned

#: what is where nothing may matter: bytes of NaN, and of a small number
POISONS = (0xFF, 0x3C)
Arrays = dict[str, Any]
#: runs a kernel for items `lo` to `hi` (None: all)
Run = Callable[[Arrays, int, int | None], None]


class Broken(AssertionError):
    """A kernel that does not keep to its signature."""


def check(kernel: Kernel | CudaKernel, operands: Arrays, run: Run, where: str = "") -> None:
    """Raise Broken where the kernel does not keep to its signature.

    Args:
        kernel: the kernel.
        operands: contents of its arrays, None for absent ones, and numbers, by name.
        run: runs it on operands.
        where: what messages call the call.
    """
    Check(kernel, operands, run, f"{kernel.name} {where}").all()


class Check:
    def __init__(self, kernel: Kernel | CudaKernel, operands: Arrays, run: Run, what: str):
        self.kernel, self.given, self.run, self.what = kernel, operands, run, what
        self.arrays = {n: p for n, p in kernel.arrays.items() if operands[n] is not None}

    def fail(self, name: str, message: str) -> None:
        raise Broken(f"{self.what}, {name}: {self.arrays[name].mode}, but {message}")

    def all(self) -> None:
        first, second = (self.once(byte) for byte in POISONS)
        for name, parameter in self.arrays.items():
            self.compare(name, parameter, first[name], second[name])
        if self.kernel.items is not None and not isinstance(self.kernel, CudaKernel):
            self.ranges(first)

    def filled(self, byte: int) -> tuple[Arrays, Arrays]:
        """Operands with poison, and the larger buffers that they lie in."""
        made, buffers = dict(self.given), {}
        for name, parameter in self.arrays.items():
            source = self.given[name]
            made[name], buffers[name] = poisoned(source.shape, source.dtype, byte)
            if parameter.mode in ("in", "inout", "flag"):
                made[name][...] = source
        return made, buffers

    def once(self, byte: int) -> Arrays:
        made, buffers = self.filled(byte)
        before = {name: buffer.copy() for name, buffer in buffers.items()}
        self.run(made, 0, None)
        self.guards(buffers, before)
        return made

    def guards(self, buffers: Arrays, before: Arrays) -> None:
        for name, buffer in buffers.items():
            for part in (slice(None, GUARD), slice(-GUARD, None)):
                if buffer[part].tobytes() != before[name][part].tobytes():
                    self.fail(name, "memory beside it was written")

    def compare(self, name: str, parameter: Array, first: Any, second: Any) -> None:
        """Of two runs on different poison."""
        if parameter.mode == "scratch":
            return
        if parameter.mode == "in":
            for found in (first, second):
                if found.tobytes() != self.given[name].tobytes():
                    self.fail(name, "it was written")
            return
        same = _bits(first) == _bits(second)
        if parameter.mode in ("out", "inout", "flag") and not parameter.gaps:
            if not same.all():
                self.fail(name, f"{(~same).sum()} of {same.size} depend on what was where")
            return
        for found, byte in zip((first, second), POISONS, strict=True):
            if not (_bits(found)[~same] == _bits(np.full_like(found, 0), byte)[~same]).all():
                self.fail(name, "what is written depends on what was where")
        share = share_of(self.kernel, self.sizes(), {}) if parameter.mode == "part" else None
        if share is not None:
            wanted = same.size * (share[1] - share[0]) // share[2]
            wrong = same.sum() > wanted if parameter.gaps else same.sum() != wanted
            if wrong:
                self.fail(name, f"{same.sum()} of {same.size} written where {wanted} are its share")

    def sizes(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            n: v for n, v in self.given.items() if not isinstance(v, np.ndarray)
        }
        for name, parameter in self.arrays.items():
            found.update(zip(parameter.dims, self.given[name].shape, strict=True))
        return found

    def ranges(self, whole: Arrays) -> None:
        """Two ranges, one after the other, for which only their own items are there."""
        items = self.sizes()[self.kernel.items]
        cut = items // 2 + items % 2
        made, buffers = self.filled(POISONS[0])
        before = {name: buffer.copy() for name, buffer in buffers.items()}
        for lo, hi in ((0, cut), (cut, items)):
            shown = {n: self.hidden(n, made[n], lo, hi) for n in made}
            self.run(shown, lo, hi)
            if lo == 0:
                self.untouched(made, before, cut, items)
        self.guards(buffers, before)
        for name, parameter in self.arrays.items():
            if parameter.mode in ("scratch", "in"):
                continue
            if made[name].tobytes() != whole[name].tobytes():
                self.fail(name, f"ranges up to {cut} and to {items} give other bits than the whole")

    def hidden(self, name: str, value: Any, lo: int, hi: int) -> Any:
        """An input of which other items' rows (columns) are poison."""
        parameter = self.kernel.params[name]
        if value is None or not isinstance(parameter, Array) or parameter.mode != "in":
            return value
        own = self.own(parameter, lo, hi)
        if own is None:
            return value
        copy = np.full_like(value, np.nan if value.dtype.kind == "f" else 0)
        copy.view(np.uint8)[...] = 0xFF if value.dtype.kind == "f" else 0x7A
        copy[own] = value[own]
        return copy

    def own(self, parameter: Array, lo: int, hi: int) -> Any:
        """The index of some items' rows (columns), or None."""
        if parameter.item_letter != self.kernel.items or parameter.item_letter is None:
            return None
        return (slice(lo, hi),) if parameter.axis == "rows" else (..., slice(lo, hi))

    def untouched(self, made: Arrays, before: Arrays, cut: int, items: int) -> None:
        """After the first range: the others' rows (columns) are as they were."""
        for name, parameter in self.arrays.items():
            rest = self.own(parameter, cut, items)
            if rest is None or parameter.mode in ("in", "scratch"):
                continue
            kept = before[name][GUARD:-GUARD].reshape(made[name].shape)[rest]
            if made[name][rest].tobytes() != kept.tobytes():
                self.fail(name, f"items up to {cut} wrote to those after them")


def _bits(array: Any, byte: int | None = None) -> Any:
    """Each element's bytes as one whole number; `byte`: of an array filled with it."""
    raw = np.ascontiguousarray(array)
    if byte is not None:
        raw.reshape(-1).view(np.uint8)[...] = byte
    return raw.view(f"u{raw.itemsize}")
