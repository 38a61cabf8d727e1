"""Kernels that compute each element from the elements at the same place: activations, arithmetic.

Made from the same formulas and table as the CPU's; a thread computes four neighbouring elements.
The output may be one of the inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..cuda.device import can_load4, flat, flat_index, fours_launch, load4, store4
from ..declare import KERNELS, CudaKernel, cuda_kernel
from ..recorded import execute
from . import cpu  # noqa: F401  (declares what these are like)
from .rows import ROWS

_SOURCE = '''
def {name}({parameters}):
    """{doc}"""
    i, size = 4 * flat_index(), {output}.size
    if i + 4 <= size and {aligned}:
        {load}
        store4({output}, i, {fours})
    else:
        for k in range(i, min(i + 4, size)):
            flat({output})[k] = formula({ones}{reals})
'''


def elementwise(
    name: str,
    formula: Callable[..., Any],
    inputs: tuple[str, ...] = ("x",),
    output: str = "y",
    reals: tuple[str, ...] = (),
) -> CudaKernel:
    """The kernel ``name(*inputs, output, *reals)``: output = formula(*inputs, *reals)."""
    extra = "".join(f", {r}" for r in reals)
    source = _SOURCE.format(
        name=name,
        doc=f"{output} = {formula.__name__}({', '.join(inputs + reals)}), element by element.",
        parameters=", ".join((*inputs, output, *reals)),
        output=output,
        aligned=" and ".join(f"can_load4({x})" for x in (*inputs, output)),
        load="; ".join(f"{', '.join(f'{x}{k}' for k in range(4))} = load4({x}, i)" for x in inputs),
        fours=", ".join(
            f"formula({', '.join(f'{x}{k}' for x in inputs)}{extra})" for k in range(4)
        ),
        ones=", ".join(f"flat({x})[k]" for x in inputs),
        reals=extra,
    )
    scope: dict[str, Any] = {
        "__name__": __name__,
        "can_load4": can_load4,
        "flat": flat,
        "flat_index": flat_index,
        "formula": formula,
        "load4": load4,
        "store4": store4,
    }
    execute(source, f"<CUDA kernel {name}>", scope)
    made: CudaKernel = cuda_kernel(
        scope[name], like=KERNELS[name], launch=lambda s: fours_launch(s["N"] * s["C"])
    )
    return made


for _row in ROWS:
    elementwise(*_row[:-1])
