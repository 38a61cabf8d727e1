"""Passes over a parameter by rows (see `cpu_rows.py`): a block for a row."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cuda.device import block_number, block_sum, block_threads, cast, row_launch, thread_number
from ..declare import CudaKernel, Kernel, cuda_kernel, helper
from ..guard.cuda import report
from ..recorded import execute
from ..step.cuda import sum_launch, sum_of
from .shared import Pass, shared_gradient
from .sources import Parts, combine_source, lines

_ROWS = """
def rows({arrays}hyper, {own}{sums}{scale}{guard}):
    l2, keep, limit, sign = hyper[0], hyper[1], hyper[2], hyper[3]
    if limit < 0:  # a stop is latched
        return
    {factor}
    {scalars}
    r = block_number()
    {zero}
    {row}
    for j in range(thread_number(), {first}.shape[1], block_threads()):
        {load}
        {gradient}
        {decay}
        new = rule({names})
        {store}
        {watch}
        {add}
    {sum}
"""


def make_rows(like: Kernel, what: Pass) -> CudaKernel:
    """The counterpart of a pass's kernel."""
    name = like.name
    parts = Parts(what)
    read, written, sums = parts.read, parts.written, parts.sums
    # without a parameter nothing is added, to no infinite gradient a NaN either
    given = "p_here, factor, l2" if "p" in read else f"cast({parts.first}, -0.0), factor, l2 * 0.0"
    total = [f"{s}_all = block_sum({s}_all)" for s in sums]
    if sums:
        total.append("at = thread_number()")
    source = _ROWS.format(
        **parts.fields(),
        factor="factor = scale[0] * sign if scale.size > 0 else sign" if "g" in read else "pass",
        load=lines(
            [f"{a}_here = {a}[r, j]" for a in read]
            + (["col_here = col[j]"] if what.factors else [])
        ),
        gradient=(
            f"g_here = shared(g_here, {given}, limit)"
            if "g" in read
            else "pass"
        ),
        store=lines([f"{a}[r, j] = new[{k}]" for k, a in enumerate(written)]),
        watch=f"report(guard, new[{written.index('p')}])" if "p" in written else "pass",
        add=lines(
            [f"{s}_all += np.float64(new[{len(written) + k}])" for k, s in enumerate(sums)]
        ),
        sum="\n    ".join(
            [*total, *([f"if at == 0:\n        {lines([f'{s}[r] = {s}_all' for s in sums])}"]
                       if sums else ["pass"])]
        ),
    )  # fmt: skip
    scope = {
        "__name__": __name__, "np": np, "block_number": block_number, "report": report,
        "thread_number": thread_number, "block_threads": block_threads, "block_sum": block_sum,
        "cast": cast, "shared": shared_gradient, "rule": helper(what.rule),
    }  # fmt: skip
    execute(source, f"<CUDA kernel {name}>", scope)
    function: Any = scope["rows"]
    made: CudaKernel = cuda_kernel(
        function, like=like, launch=lambda s: row_launch(s["R"], s["C"]), name=name
    )
    return made


def make_combine(like: Kernel, function: Any, sums: int, scalars: int) -> CudaKernel:
    """The counterpart of the kernel that computes numbers from sums, on one block; every thread
    computes them, and the first writes them."""
    name = like.name
    source = combine_source(sums, scalars).replace(
        "    for k in range(len(values)):\n        own[k] = values[k]",
        "    if thread_number() == 0:\n        for k in range(len(values)):\n"
        "            own[k] = values[k]",
    )
    scope = {
        "__name__": __name__, "np": np, "function": helper(function), "sum_of": sum_of,
        "thread_number": thread_number,
    }  # fmt: skip
    execute(source, f"<CUDA kernel {name}>", scope)
    made_of: Any = scope["combine"]

    def launch(s: Any) -> tuple[int, int]:
        return sum_launch(max((s[f"R{k}"] for k in range(sums)), default=1))

    made: CudaKernel = cuda_kernel(made_of, like=like, launch=launch, name=name)
    return made
