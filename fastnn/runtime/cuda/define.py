"""Small tools to teach Numba's CUDA target functions: a typing rule and a code generator each.

As on the CPU (`kernels/cpu/_types_llvm.py`), not through `@overload`, which would send every single
operation through the whole compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from fastnn.kernels import recorded
from fastnn.runtime import _cuda

recorded.record()

numba: Any = _cuda.extension()
types: Any = numba.types


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
