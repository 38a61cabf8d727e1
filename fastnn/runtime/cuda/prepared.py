"""Launches of kernels on a real device, with all that can be prepared of them."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.kernels import types
from fastnn.kernels.declare import Array, CudaKernel
from fastnn.plan.program import Count
from fastnn.runtime.cuda.place import (
    Launch,
    Operands,
    Place,
    argument_numbers,
    moving_of,
    nothing,
    sizes_of,
)

if TYPE_CHECKING:
    from fastnn.runtime.cuda.gpu import Gpu

#: as `argument_numbers`
numbers_of = functools.cache(argument_numbers)


class Prepared:
    """A launch: called with the steps of the loops around it, which the words that move follow.

    Attributes:
        variant: the kernel, the program's float type and that of the data in it.
        how, config, code: its grid, threads and shared memory, also as `cuda.core` takes them, and
            the kernel.
        arguments: of the compiled function, in the first step.
    """

    __slots__ = ("arguments", "code", "config", "gpu", "how", "start", "variant", "words")

    def __init__(
        self, gpu: Gpu, variant: tuple[CudaKernel, str, str], how: Any, config: Any, code: Any,
        arguments: list[Any], words: Sequence[tuple[int, int, Sequence[int]]],
    ):  # fmt: skip
        self.gpu, self.variant, self.how, self.config, self.code = gpu, variant, how, config, code
        self.arguments, self.start = arguments, gpu.core.launch
        #: the number of each argument that moves, what it is in the first step, and its strides
        self.words = words

    def __call__(self, *steps: int) -> None:
        given, gpu = self.arguments, self.gpu
        if self.words:
            given = list(given)
            for number, value, strides in self.words:
                for stride, step in zip(strides, steps, strict=True):
                    value += stride * step
                given[number] = np.int64(value)
        try:
            stream = getattr(gpu.captures, "stream", gpu.stream)
            self.start(stream, self.config, self.code, *given)
        except Exception as error:
            raise gpu.failure(error, f" to launch {self.variant[0].name!r}, {self.how}") from error

    def from_row(self, address: int) -> Launch:
        """The launch with the arguments that lie there at its time (see `rows.py`)."""
        how, gpu = self.how, self.gpu
        code = gpu.code(*self.variant, how.shared, how.cluster, row=True)
        return Prepared(gpu, self.variant, how, self.config, code, [np.int64(address)], ())


def prepare(
    gpu: Gpu, kernel: CudaKernel, dtype: str, data_dtype: str, operands: Operands,
    like: Launch | None = None, changed: Collection[str] = (),
) -> Launch:  # fmt: skip
    """See `Gpu.prepared`."""
    from fastnn.runtime.cuda import compiler

    how = compiler.launch_of(kernel, sizes_of(kernel, operands), dtype)
    if how.empty:
        return nothing
    known = like if isinstance(like, Prepared) else None
    if known is None:
        arguments = arguments_of(kernel, dtype, operands)
    else:
        arguments = list(known.arguments)
        for name in changed:
            begin, parameter = numbers_of(kernel)[name], kernel.params[name]
            value = _value(kernel, name, operands[name])
            if isinstance(parameter, Array):
                words = [np.int64(value[0]), *map(np.int64, value[1])]
            else:
                words = [np.dtype(types.scalar(parameter.kind, dtype)).type(value)]
            arguments[begin : begin + len(words)] = words
    if known is not None and known.how == how:
        config, code = known.config, known.code
    else:
        code = gpu.code(kernel, dtype, data_dtype, how.shared, how.cluster)
        config = gpu.config(how, kernel.cooperative)
    moving = words_of(kernel, operands, arguments)
    return Prepared(gpu, (kernel, dtype, data_dtype), how, config, code, arguments, moving)


def arguments_of(kernel: CudaKernel, dtype: str, operands: Operands) -> list[Any]:
    """The compiled function's arguments for these operands, in the first step of loops."""
    from fastnn.runtime.cuda import compiler

    values = {name: _value(kernel, name, value) for name, value in operands.items()}
    return compiler.arguments(kernel, dtype, values)


def words_of(
    kernel: CudaKernel, operands: Operands, arguments: Sequence[Any]
) -> list[tuple[int, int, tuple[int, ...]]]:
    """Which arguments move in loops: the number of each, what it is in the first step, and its
    strides."""
    return [
        (number, int(arguments[number]), value.strides)
        for name, value in moving_of(operands).items()
        for number in [numbers_of(kernel)[name]]
    ]


def _value(kernel: CudaKernel, name: str, value: Any) -> Any:
    """An operand for the compiled function: an address and sizes, or a number."""
    if isinstance(value, Place):
        return value.address, value.dims
    if value is None:
        return 0, (0,) * len(kernel.arrays[name].dims)
    return value.first if isinstance(value, Count) else value
