"""What the assembler says of CUDA kernels: registers, spills, shared memory. Needs no device."""

from __future__ import annotations

import concurrent.futures
import itertools
import multiprocessing
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fastnn.kernels import external, topics
from fastnn.kernels.declare import CUDA_KERNELS, CudaKernel
from fastnn.runtime.cuda import compiler

#: float types, and the compute capabilities that each is looked at for
VARIANTS: dict[str, list[tuple[int, int]]] = {"float32": [(8, 0), (9, 0)], "float64": [(9, 0)]}
#: the type of users' data in kernels that take any
DATA = "uint8"
#: registers of a multiprocessor, and how many a thread can have
REGISTERS, MOST = 65_536, 255


@dataclass(frozen=True)
class Report:
    """One compiled variant of a kernel; sizes are bytes a thread."""

    kernel: str
    dtype: str
    cc: tuple[int, int]
    error: str = ""
    registers: int = 0
    stack: int = 0
    spills: int = 0  # written and read
    float64: int = 0  # instructions on float64 in the PTX
    alignment: int = 0  # of dynamic shared memory, the least; 0: there is none
    cubin: int = 0

    def __str__(self) -> str:
        name = f"{self.kernel} {self.dtype} sm_{self.cc[0]}{self.cc[1]}"
        if self.error:
            return f"{name}: {self.error}"
        return (
            f"{name}: {self.registers} registers, {self.stack} stack, {self.spills} spilled, "
            f"{self.float64} on float64, {self.cubin} cubin"
        )


def declare_all(modules: Iterable[str] = ()) -> None:
    """Enter every kernel there is in the table: also those that have entered themselves
    (`fastnn.optim` does when it is imported), and those of these modules."""
    external.load(modules)
    topics.load("cuda")  # also the counterparts of those that the modules have made


def examine(name: str, dtype: str) -> list[Report]:
    """Read what comes out of compiling a kernel for all compute capabilities; what is in the cache
    is not compiled again, and runs to come find the rest there."""
    if name not in CUDA_KERNELS:  # somebody's own, which only the process that asks knows
        return []
    kernel = CUDA_KERNELS[name]
    ccs = [cc for cc in VARIANTS[dtype] if kernel.runs_on(cc)]
    data = DATA if any(p.dtype == "d" for p in kernel.arrays.values()) else ""
    try:
        made = compiler.codes(kernel, dtype, data, ccs)
        return [read(name, dtype, cc, code) for cc, code in zip(ccs, made, strict=True)]
    except Exception as error:  # reported, so that one kernel doesn't hide the others
        return [Report(name, dtype, cc, error=f"{type(error).__name__}: {error}") for cc in ccs]


def read(name: str, dtype: str, cc: tuple[int, int], code: compiler.Code) -> Report:
    """What is known of machine code."""

    def numbers(pattern: str) -> int:
        return sum(map(int, re.findall(pattern, code.report)))

    return Report(
        kernel=name,
        dtype=dtype,
        cc=cc,
        registers=numbers(r"Used (\d+) registers"),
        stack=numbers(r"(\d+) bytes stack frame"),
        spills=numbers(r"(\d+) bytes spill (?:stores|loads)"),
        float64=code.float64,
        alignment=code.alignment,
        cubin=len(code.cubin),
    )


def room(kernel: CudaKernel, dtype: str) -> int:
    """How many registers a thread may have: of a multiprocessor's, those of the threads that are to
    be there at once; given out by eights."""
    bounds = kernel.bounds_in(dtype) or 1
    threads, blocks = bounds if isinstance(bounds, tuple) else (bounds, 1)
    return min(MOST, REGISTERS // (threads * blocks) // 8 * 8)


def examine_all(
    names: Iterable[str] = (),
    workers: int | None = None,
    in_float64: Callable[[list[Report]], Iterable[str]] | None = None,
    look: Callable[[str, str], list[Report]] = examine,
) -> list[Report]:
    """Reports of the variants of these kernels (of all by default), in several processes.

    Args:
        names: of the kernels.
        workers: number of processes; by default one for each core.
        in_float64: by the reports in float32, which kernels are looked at in float64, too; by
            default all that have it.
        look: reports of a kernel for a float type.
    """
    declare_all()
    known = list(names) or sorted(CUDA_KERNELS)
    workers = workers or len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        workers, context, declare_all, (tuple(external.MODULES),)
    ) as pool:

        def reports(of: Iterable[str], dtype: str) -> list[Report]:
            done = pool.map(look, of, itertools.repeat(dtype), chunksize=4)
            return [report for reports in done for report in reports]

        found = reports(known, "float32")
        wide = known if in_float64 is None else in_float64(found)
        return found + reports(
            [n for n in wide if not CUDA_KERNELS[n].traits.only_float32], "float64"
        )
