"""The functions of `kernels.cuda.near`, compiled: words in the shared memory of other blocks."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .. import recorded
from . import exchange, near
from ._exchange_nvvm import address_of, assembly, constant, is_words, number_of, places, words_of
from ._types_nvvm import define, types

recorded.record()

_LONG, _WORD = ir.IntType(64), ir.IntType(32)


def _publish_near(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    words = words_of(context, builder, sig, args)
    index = number_of(context, builder, sig, args, 1)
    place = builder.mul(index, constant(len(words)))
    address = address_of(context, builder, sig, args, place)
    blocks = builder.trunc(number_of(context, builder, sig, args, 4), _WORD)
    zero, one = ir.Constant(_WORD, 0), ir.Constant(_WORD, 1)
    before = builder.block
    body, after = builder.append_basic_block("block"), builder.append_basic_block("blocks")
    builder.branch(body)
    builder.position_at_end(body)
    rank = builder.phi(_WORD)
    rank.add_incoming(zero, before)
    vector, values = ("", "$2") if len(words) == 1 else (".v2", "{$2, $3}")
    # the word's place in the block of this rank, by generic addresses
    text = (
        "{ .reg .u64 other; mapa.u64 other, $0, $1; "
        f"st.relaxed.cluster{vector}.b64 [other], {values}; }}"
    )
    constraints = "l,r" + ",l" * len(words) + ",~{memory}"
    assembly(builder, text, constraints, ir.VoidType(), [address, rank, *words])
    following = builder.add(rank, one)
    rank.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_unsigned("<", following, blocks), body, after)
    builder.position_at_end(after)
    return context.get_dummy_value()


def _load_near(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    count = exchange.AT_ONCE
    loads = " ".join(
        f"cvta.to.shared.u64 near, ${count + k}; "
        f"ld.relaxed.cluster.shared.v2.b64 {{${2 * k}, ${2 * k + 1}}}, [near];"
        for k in range(4)
    )
    constraints = ",".join(["=&l"] * count + ["l"] * 4) + ",~{memory}"
    kind = ir.LiteralStructType([_LONG] * count)
    text = f"{{ .reg .u64 near; {loads} }}"
    found = assembly(builder, text, constraints, kind, places(context, builder, sig, args))
    words = [builder.extract_value(found, k) for k in range(count)]
    return context.make_tuple(builder, sig.return_type, words)


def _meet(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    text = "barrier.cluster.arrive.release; barrier.cluster.wait.acquire;"
    assembly(builder, text, "~{memory}", ir.VoidType(), [])
    return context.get_dummy_value()


define(
    near.publish_near,
    lambda words, i, value, turn, blocks: (
        types.none if is_words(words) and isinstance(value, types.Float) else None
    ),
    _publish_near,
)
define(
    near.load_near,
    lambda words, i, step, left: (
        types.UniTuple(types.int64, exchange.AT_ONCE) if is_words(words) else None
    ),
    _load_near,
)
define(near.meet, lambda blocks: types.none, _meet)
