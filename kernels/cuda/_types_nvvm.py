"""Small tools to teach Numba's CUDA target functions: a typing rule and a code generator each.

This module and those beside it whose names end with `_nvvm` need numba-cuda. They are imported by
`fastnn/runtime/cuda/bridge.py` alone, which has seen that its version fits.

As on the CPU (`kernels/cpu/_types_llvm.py`), not through `@overload`, which would send every single
operation through the whole compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from llvmlite import ir
from numba.cuda import cgutils, cudadecl, cudaimpl, extending, nvvmutils, types
from numba.cuda.datamodel.models import PrimitiveModel
from numba.cuda.models import register_model
from numba.cuda.np import arrayobj
from numba.cuda.typing import templates

from .. import recorded

recorded.record()

#: the parts of Numba that teach it types and functions for CUDA
numba: Any = SimpleNamespace(
    arrayobj=arrayobj,
    cgutils=cgutils,
    extending=extending,
    call_sreg=nvvmutils.call_sreg,
    lower=cudaimpl.registry.lower,
    register_global=cudadecl.registry.register_global,
    templates=templates,
    types=types,
    PrimitiveModel=PrimitiveModel,
    register_model=register_model,
)


def define(function: Callable[..., Any], typer: Callable[..., Any], codegen: Any) -> None:
    """Register `function`: `typer(*types)` gives the result's type or None, then
    `codegen(context, builder, sig, args)` emits it. Arguments arrive as typed."""

    class Template(numba.templates.AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            result = None if kws else typer(*args)
            return None if result is None else numba.templates.signature(result, *args)

    Template.key = function
    numba.register_global(function)(Template)
    numba.lower(function, types.VarArg(types.Any))(codegen)


def define_operator(op: Any, typer: Callable[..., Any], codegen: Any, own: Any) -> None:
    """Like `define`, for an operator of two values that Numba knows already; `own` is our type."""

    class Template(numba.templates.AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            result = typer(*args) if len(args) == 2 else None
            return None if result is None else numba.templates.signature(result, *args)

    Template.key = op
    numba.register_global(op)(Template)
    for pair in ((own, own), (own, types.Integer), (types.Integer, own)):
        numba.lower(op, *pair)(codegen)


def call(builder: Any, name: str, result: Any, args: list[Any]) -> Any:
    """Call of a function of LLVM's by its full name."""
    kind = ir.FunctionType(result, [a.type for a in args])
    function = numba.cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, args)
