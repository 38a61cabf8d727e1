"""The functions of `kernels.cuda.exchange`, compiled: relaxed accesses of whole words."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .. import recorded
from . import exchange
from ._types_nvvm import define, types

recorded.record()

_LONG, _WORD = ir.IntType(64), ir.IntType(32)


def number_of(context: Any, builder: Any, sig: Any, args: Any, k: int) -> Any:
    return context.cast(builder, args[k], sig.args[k], types.int64)


def address_of(context: Any, builder: Any, sig: Any, args: Any, index: Any) -> Any:
    data = context.make_array(sig.args[0])(context, builder, args[0]).data
    return builder.ptrtoint(builder.gep(data, [index]), _LONG)


def assembly(builder: Any, text: str, constraints: str, result: Any, args: list[Any]) -> Any:
    # it touches memory: nothing is moved across it, and it is not taken out of a loop
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(ir.InlineAsm(kind, text, constraints, side_effect=True), args)


def constant(value: int) -> Any:
    return ir.Constant(_LONG, value)


def _words_each(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return constant(sig.args[0].dtype.bitwidth // 32)


def words_of(context: Any, builder: Any, sig: Any, args: Any) -> list[Any]:
    """The words of a number (argument 2) of a turn (argument 3)."""
    kind, turn = sig.args[2], number_of(context, builder, sig, args, 3)
    high = builder.shl(turn, constant(32))
    bits = builder.zext(builder.bitcast(args[2], ir.IntType(kind.bitwidth)), _LONG)
    words = [builder.or_(high, builder.and_(bits, constant(0xFFFFFFFF)))]
    if kind.bitwidth == 64:
        words.append(builder.or_(high, builder.lshr(bits, constant(32))))
    return words


def _publish(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    words = words_of(context, builder, sig, args)
    each, index = len(words), number_of(context, builder, sig, args, 1)
    address = address_of(context, builder, sig, args, builder.mul(index, constant(each)))
    vector, operands = ("", "$1") if each == 1 else (".v2", "{$1, $2}")
    text = f"st.relaxed.gpu.global{vector}.b64 [$0], {operands};"
    constraints = ",".join(["l"] * (1 + each)) + ",~{memory}"
    assembly(builder, text, constraints, ir.VoidType(), [address, *words])
    return context.get_dummy_value()


def places(context: Any, builder: Any, sig: Any, args: Any) -> list[Any]:
    """The four addresses at which `load_words` reads two words each."""
    index, step, left = (number_of(context, builder, sig, args, k) for k in (1, 2, 3))
    addresses = []
    for k in range(4):
        further = builder.mul(step, constant(k))
        inside = builder.icmp_signed("<", further, left)
        place = builder.add(index, builder.select(inside, further, constant(0)))
        addresses.append(address_of(context, builder, sig, args, place))
    return addresses


def _load_words(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    # one text, so that all are on their way before the first is looked at
    count = exchange.AT_ONCE
    lines = (
        f"ld.relaxed.gpu.global.v2.b64 {{${2 * k}, ${2 * k + 1}}}, [${count + k}];"
        for k in range(4)
    )
    constraints = ",".join(["=&l"] * count + ["l"] * 4) + ",~{memory}"
    kind = ir.LiteralStructType([_LONG] * count)
    found = assembly(
        builder, " ".join(lines), constraints, kind, places(context, builder, sig, args)
    )
    words = [builder.extract_value(found, k) for k in range(count)]
    return context.make_tuple(builder, sig.return_type, words)


def _store_words(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    array = sig.args[0]
    at, i = (number_of(context, builder, sig, args, k) for k in (1, 2))
    data = context.make_array(array)(context, builder, args[0]).data
    each = array.dtype.bitwidth // 32
    place = builder.add(at, i if each == 1 else builder.lshr(i, constant(1)))
    halves = [builder.trunc(args[k], _WORD) for k in (3, 4)]
    value: Any = ir.Constant(ir.VectorType(_WORD, 2), ir.Undefined)
    for k, half in enumerate(halves):
        value = builder.insert_element(value, half, ir.Constant(_WORD, k))
    pointer = builder.bitcast(
        builder.gep(data, [place]), value.type.as_pointer(data.type.addrspace)
    )
    builder.store(value, pointer, align=8)
    return context.get_dummy_value()


def is_words(x: Any) -> bool:
    return isinstance(x, types.Array) and x.dtype == types.int64


def _is_floats(x: Any) -> bool:
    return isinstance(x, types.Array) and isinstance(x.dtype, types.Float)


define(exchange.words_each, lambda x: types.int64 if _is_floats(x) else None, _words_each)
define(
    exchange.publish,
    lambda words, i, value, turn: (
        types.none if is_words(words) and isinstance(value, types.Float) else None
    ),
    _publish,
)
define(
    exchange.load_words,
    lambda words, i, step, left: (
        types.UniTuple(types.int64, exchange.AT_ONCE) if is_words(words) else None
    ),
    _load_words,
)
define(
    exchange.store_words,
    lambda s, at, i, a, b: types.none if _is_floats(s) else None,
    _store_words,
)
