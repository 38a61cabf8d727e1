"""Calls of kernels as they occur in models: a device that checks each kind of call once.

Within `checking` trainers, steps and predictors make a step's calls one by one, on memory of their
own; before each one that is new in kind its kernel is held to its signature (`contract.py`).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from fastnn.graph.fold import fold
from fastnn.kernels import control_block
from fastnn.kernels.declare import Array, CudaKernel, declared
from fastnn.plan.program import Operand, PlannedCall
from fastnn.runtime import _cuda, devices
from tests.kernels import contract

Run = Callable[[str, contract.Arrays, int, int | None], None]
#: products by NumPy: the results that later calls need, where the simulator would take most of the
#: time with them; names as of kernels for few rows, without their endings
PRODUCTS: dict[str, Callable[[contract.Arrays], contract.Arrays]] = {
    "linear_forward": lambda o: {
        "y": o["x"] @ o["w"] + (0 if o["bias"] is None else o["bias"])
    },
    "linear_backward_input_unpacked": lambda o: {"dx": o["dy"] @ o["w"].T},
    "linear_backward_weight_bias": lambda o: {"dw": o["x"].T @ o["dy"], "dbias": o["dy"].sum(0)},
    "matmul_forward": lambda o: {"y": o["a"] @ o["b"]},
}  # fmt: skip


class Checked:
    """A runtime that makes the calls of the first step only, one by one.

    Everything else is the real one's.
    """

    def __init__(self, real: Any, seen: set[Any], run: Run, table: Mapping[str, Any]):
        self.real, self.seen, self.run_kernel, self.table = real, seen, run, table

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def run(
        self,
        segments: Sequence[tuple[Any, int]],
        poll: Callable[[], None],
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        if meanwhile is not None:
            meanwhile()
        for bound, _ in segments:
            self.step(bound)
            self.real.control[control_block.STOP] = 0  # what these models compute is not the matter
            self.real.totals[1::2] += 1.0  # nor is that nothing was counted by calls left out
        poll()

    def single(self, bounds: Sequence[Any], names: Sequence[str], arrays: Sequence[Any]) -> Any:
        return Single(self, bounds, names)

    def step(self, bound: Any) -> None:
        kinds = [_kind(bound, call) for call in bound.planned]
        for number, (kind, call) in enumerate(zip(kinds, bound.planned, strict=True)):
            if not set(kinds[number:]) - self.seen:
                return  # nothing new comes, so nobody asks for the results
            if kind not in self.seen:
                self.seen.add(kind)
                contract.check(
                    self.table[call.kernel],
                    self.operands(bound, call),
                    lambda given, lo, hi, name=call.kernel: self.run_kernel(name, given, lo, hi),
                    f"# {call.scope}",
                )
            if not self.by_numpy(bound, call):
                bound.run_call(number)

    def by_numpy(self, bound: Any, call: PlannedCall) -> bool:
        """Makes a call that needs no check without the simulator, if it can be."""
        kernel = self.table[call.kernel]
        product = PRODUCTS.get(re.sub("_(tiny|few)$", "", call.kernel))
        if product is None or not isinstance(kernel, CudaKernel) or not _cuda.simulated():
            return False
        places = dict(zip(kernel.params, call.operands, strict=True))
        arrays = [o for o in places.values() if isinstance(o, Operand)]
        if any(o.external or o.strides for o in arrays):
            return False
        bound.runtime.acquire([bound])
        bound.runtime.copies.before(bound)
        for name, values in product(self.operands(bound, call)).items():
            place = bound.place(places[name])
            contents = np.ascontiguousarray(values, place.dtype)
            assert contents.shape == tuple(place.dims)
            bound.segments[places[name].segment].write(bound.gpu, place.offset, contents)
        return True

    def operands(self, bound: Any, call: PlannedCall) -> contract.Arrays:
        """A call's operands, arrays as copies of what they hold."""
        kernel: Any = declared(call.kernel)
        found: contract.Arrays = {}
        for (name, parameter), operand in zip(kernel.params.items(), call.operands, strict=True):
            if not isinstance(parameter, Array) or not isinstance(operand, Operand):
                found[name] = operand
            elif operand.external:
                array = self.real.read(operand.segment)
                dims = fold(array.shape, len(parameter.dims))
                if operand.segment in ("control", "totals", "guard"):
                    begin, size = operand.offset // array.itemsize, int(np.prod(operand.dims))
                    array, dims = array.reshape(-1)[begin : begin + size], operand.dims
                found[name] = np.array(array).reshape(dims)
            else:
                found[name] = np.array(bound.read(operand)).reshape(operand.dims)
        return found


class Single:
    """A step that is made call by call."""

    def __init__(self, runtime: Checked, bounds: Sequence[Any], names: Sequence[str]):
        self.runtime, self.bounds, self.names = runtime, bounds, names
        self.control = runtime.control
        self.loss = np.zeros(1)

    def run(self, arrays: Sequence[Any]) -> None:
        for bound in self.bounds:
            for name, array in zip(self.names, arrays, strict=True):
                if name in bound.program.places:
                    bound.write(name, array)
        self.control[control_block.STOP] = 0
        for bound in self.bounds:
            self.runtime.step(bound)


def _kind(bound: Any, call: PlannedCall) -> Any:
    """Calls that are alike: kernel, float type, which arrays are there, which are more than one."""
    shape = []
    for operand in call.operands:
        if isinstance(operand, Operand):
            shape.append(tuple(min(n, 2) for n in operand.dims))
        else:
            shape.append(operand is None)
    return call.kernel, bound.program.dtype, *shape


@contextlib.contextmanager
def checking(
    device: str, run: Run, table: Mapping[str, Any], limits: tuple[int, ...] | None = None,
    known: Iterable[Any] = (),
) -> Iterator[set[Any]]:  # fmt: skip
    """Within this context every device is this one, and checks what it runs.

    Args:
        device: "cpu" or "cuda:0".
        run: runs a kernel, named, on operands for a range of items.
        table: the device's kernels by name.
        limits: what plans take for a GPU's multiprocessors, a block's memory and blocks of a
            cluster (none where left out).
        known: kinds of calls that need no check.

    Returns:
        The kinds of calls that were checked, and those known; the kernel's name is the first of
        each.
    """
    seen: set[Any] = set(known)
    make = devices.runtime

    def runtime(_: str, *more: Any) -> Checked:
        return Checked(make(device, *more), seen, run, table)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "runtime", runtime)
        patch.setattr(devices, "choose", lambda _="auto": device)
        if limits is not None:
            patch.setattr(devices, "block_limits", lambda _: limits)
        yield seen
