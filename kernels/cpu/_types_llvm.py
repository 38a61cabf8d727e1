"""Vector types for Numba; how a function on them is registered (typing rule, code generator).

`_simd_llvm` registers the operations of `simd` with what stands here. They go into registries of
our own, which only the contexts that compile for the CPU know (`install`): Numba's common ones
serve its CUDA target, too, where the same functions have other code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel.models import PrimitiveModel
from numba.core.imputils import Registry
from numba.core.typing import templates
from numba.core.typing.templates import AbstractTemplate, signature
from numba.extending import register_model

from .. import recorded
from . import target

recorded.record()

TYPING = templates.Registry()
LOWERING = Registry("fastnn")

#: size of the vectors of kernels that add lanes up, on any CPU
SUM_BITS = 512
I32 = ir.IntType(32)
I64 = ir.IntType(64)


class FloatVector(types.Type):
    """`lanes` floats of `width` bits in one register."""

    def __init__(self, width: int, lanes: int):
        self.width, self.lanes = width, lanes
        self.element = types.float32 if width == 32 else types.float64
        super().__init__(f"f{width}x{lanes}")


class IntVector(types.Type):
    """`lanes` integers of `width` bits in one register."""

    def __init__(self, width: int, lanes: int):
        self.width, self.lanes = width, lanes
        self.element = types.int32 if width == 32 else types.int64
        super().__init__(f"i{width}x{lanes}")


class Mask(types.Type):
    """One bit per lane: the result of comparing vectors."""

    def __init__(self, lanes: int):
        self.lanes = lanes
        super().__init__(f"mask{lanes}")


def llvm_type(ty: Any) -> ir.VectorType:
    if isinstance(ty, Mask):
        return ir.VectorType(ir.IntType(1), ty.lanes)
    if isinstance(ty, IntVector):
        return ir.VectorType(ir.IntType(ty.width), ty.lanes)
    return ir.VectorType(ir.FloatType() if ty.width == 32 else ir.DoubleType(), ty.lanes)


@register_model(FloatVector)
@register_model(IntVector)
@register_model(Mask)
class _VectorModel(PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any):
        super().__init__(dmm, fe_type, llvm_type(fe_type))


def register_of(array: Any) -> FloatVector:
    """A vector register of this process's width, with elements like an array's."""
    width = array.dtype.bitwidth
    return FloatVector(width, target.host().vector_bits // width)


def vector_of(array: Any) -> FloatVector:
    """The vectors of an array: registers, or `SUM_BITS` in as many registers as that takes.

    The arrays of kernels that add lanes up (`codegen.adds_lanes`) have the latter on every CPU,
    so that sums have one order. Numba's array types have a flag which says so for us: such arrays
    are not `aligned`, which keeps helpers compiled for one kind of arrays from the other.
    """
    if array.aligned:
        return register_of(array)
    return FloatVector(array.dtype.bitwidth, SUM_BITS // array.dtype.bitwidth)


def is_vector(ty: Any) -> bool:
    return isinstance(ty, (FloatVector, IntVector))


def is_array(ty: Any) -> bool:
    return isinstance(ty, types.Array) and isinstance(ty.dtype, types.Float)


def is_number(ty: Any) -> bool:
    return isinstance(ty, (types.Number, types.Literal))


def install(typing_context: Any, target_context: Any) -> None:
    """Teach contexts of Numba's all that has been defined; what they know already is left out."""
    typing_context.install_registry(TYPING)
    target_context.install_registry(LOWERING)


def define(function: Any, typer: Callable[..., Any], codegen: Callable[..., Any]) -> None:
    """Register `function`: `typer(*types)` gives the result's type or None, then
    `codegen(context, builder, sig, args)` emits it. Arguments arrive as typed."""

    class Template(AbstractTemplate):
        key = function

        def generic(self, args: Any, kws: Any) -> Any:
            result = None if kws else typer(*args)
            if result is None:
                return None
            result, arguments = result if isinstance(result, tuple) else (result, args)
            return signature(result, *arguments)

    TYPING.register_global(function)(Template)
    LOWERING.lower(function, types.VarArg(types.Any))(codegen)


def define_operator(op: Any, typer: Any, codegen: Any, arity: int) -> None:
    """Like `define`, for an operator that Numba knows already: only vectors are matched."""

    class Template(AbstractTemplate):
        key = op

        def generic(self, args: Any, kws: Any) -> Any:
            result = typer(*args) if len(args) == arity else None
            return None if result is None else signature(result, *args)

    TYPING.register_global(op)(Template)
    vector_kinds = (FloatVector, IntVector, Mask)
    for kind in vector_kinds:
        if arity == 1:
            LOWERING.lower(op, kind)(codegen)
            continue
        LOWERING.lower(op, kind, kind)(codegen)
        if kind is not Mask:
            for scalar in (types.Number, types.Literal):
                LOWERING.lower(op, kind, scalar)(codegen)
                LOWERING.lower(op, scalar, kind)(codegen)


def constant(ty: Any, value: Any) -> ir.Constant:
    return ir.Constant(llvm_type(ty), [value] * ty.lanes)


def splat_value(builder: Any, scalar: Any, ty: Any) -> Any:
    vec = llvm_type(ty)
    undefined = ir.Constant(vec, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    zeros = ir.Constant(ir.VectorType(I32, ty.lanes), [0] * ty.lanes)
    return builder.shuffle_vector(one, undefined, zeros)


def as_vector(context: Any, builder: Any, value: Any, from_type: Any, ty: Any) -> Any:
    """`value` as a vector of type `ty`: itself, or a scalar in every lane."""
    if is_vector(from_type):
        return value
    return splat_value(builder, context.cast(builder, value, from_type, ty.element), ty)


def llvm_call(builder: Any, name: str, result: Any, args: Any) -> Any:
    """Call an LLVM intrinsic by its full name (llvmlite can't mangle vector types itself)."""
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def suffix(ty: Any) -> str:
    return f"v{ty.lanes}{'i' if isinstance(ty, IntVector) else 'f'}{ty.width}"


def pointer_to(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def mask_first(builder: Any, count: Any, lanes: int) -> Any:
    """Mask of the first `count` (i64) lanes."""
    ty = IntVector(32, lanes)
    counts = splat_value(builder, builder.trunc(count, I32), ty)
    return builder.icmp_signed("<", ir.Constant(llvm_type(ty), list(range(lanes))), counts)


def mask_between(builder: Any, bounds: Any, lanes: int) -> Any:
    """Mask of the lanes that `bounds` says: [count] the first lanes, [first, last] a range."""
    mask = mask_first(builder, bounds[-1], lanes)
    if len(bounds) == 2:
        mask = builder.and_(mask, builder.not_(mask_first(builder, bounds[0], lanes)))
    return mask
