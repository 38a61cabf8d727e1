"""Kernels that compute each element from the elements at the same place: activations, arithmetic.

A kernel is made from a formula (`elementwise`), those of the table from the formulas that `scalar`
enters there. All arrays are ``rows f[N,C]``; the rows lo to hi are lo*C to hi*C in the flat array,
whole vectors first, then a masked one with the same formula. The output may be one of the inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..declare import Kernel, kernel
from ..recorded import execute
from ..simd import lanes, load, load_first, store, store_first
from .rows import ROWS

_SOURCE = '''
def {name}({parameters}, lo, hi):
    """{doc}"""
    n = lanes({output})
    i, end = lo * {output}.shape[1], hi * {output}.shape[1]
    while i + n <= end:
        store({output}, i, formula({whole}{reals}))
        i += n
    if i < end:
        store_first({output}, i, formula({tail}{reals}), end - i)
'''


def elementwise(
    name: str,
    formula: Callable[..., Any],
    inputs: tuple[str, ...] = ("x",),
    output: str = "y",
    reals: tuple[str, ...] = (),
    **traits: Any,
) -> Kernel:
    """The kernel ``name(*inputs, output, *reals, lo, hi)``: output = formula(*inputs, *reals)."""
    declared = [f'{x}: "in rows f[N,C]"' for x in inputs] + [f'{output}: "out rows f[N,C]"']
    source = _SOURCE.format(
        name=name,
        doc=f"{output} = {formula.__name__}({', '.join(inputs + reals)}), element by element.",
        parameters=", ".join(declared + [f'{r}: "real"' for r in reals]),
        output=output,
        whole=", ".join(f"load({x}, i)" for x in inputs),
        tail=", ".join(f"load_first({x}, i, end - i)" for x in inputs),
        reals="".join(f", {r}" for r in reals),
    )
    scope: dict[str, Any] = {
        "__name__": __name__,
        "formula": formula,
        "lanes": lanes,
        "load": load,
        "load_first": load_first,
        "store": store,
        "store_first": store_first,
    }
    execute(source, f"<kernel {name}>", scope)
    made: Kernel = kernel(scope[name], elementwise=True, **traits)
    return made


for _row in ROWS:
    elementwise(*_row[:-1], **_row.traits)
