"""Parameters stay finite: what a training step checks, and what it can be put back to.

See "Finite parameters" in docs/architecture.md, and `kernels/guard/cpu.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fastnn.graph.graph import Graph
from fastnn.graph.memo import Memo
from fastnn.graph.sizes import root
from fastnn.graph.value import Value
from fastnn.kernels import control_block
from fastnn.kernels.declare import Traits, kernel_of
from fastnn.ops import guarding
from fastnn.plan.call import Call
from fastnn.plan.lower import Lowering

#: bound of a gradient's elements below which every rule of `fastnn.optim` ends in range
GRADIENT = 1e18


def guard_of(graph: Graph) -> Value:
    """The guard's words."""
    return graph.leaf("guard", (control_block.GUARD_LENGTH,), "guard", dtype="i", name="guard")


def check_gradients(lowered: Lowering, gradients: Iterable[Value]) -> None:
    """Add the checks that make a step doubtful.

    A gradient that a weight's update takes from the cache is not written out to be looked at: what
    it is a sum of products of has been, and bounds it.
    """
    graph = lowered.graph
    if not lowered.fuses:
        for gradient in gradients:
            guarding.check_size(gradient, guard_of(graph), GRADIENT)
        return
    makers: dict[Value, list[Call]] = {}
    for call in lowered.calls:
        for _, parameter, value in call.arrays():
            if parameter.writes:
                makers.setdefault(value.root, []).append(call)
    seen = Memo()
    for gradient in gradients:
        for value, limit in _bounds(gradient, makers):
            _check(graph, value, limit, makers, seen)


def _bounds(gradient: Value, makers: dict[Value, list[Call]]) -> list[tuple[Value, float]]:
    """Values with limits below which a gradient's elements are within `GRADIENT`."""
    found: list[tuple[Value, float]] = []
    calls = makers.get(gradient.root, [])
    for call in calls:
        if _traits(call).adds:
            parts = [value for _, parameter, value in call.arrays() if parameter.reads]
            if all(p.root is not gradient.root for p in parts):
                for part in parts:
                    found += _bounds(part, makers)
                continue
        factors = _traits(call).factors
        if not factors:
            return [(gradient, GRADIENT)]
        unpacked = (_unpacked(call.operands[name], makers) for name in factors)
        values = [v for v in unpacked if v is not None]
        rows = max(v.size // v.shape[-1] for v in values)
        limit = root(GRADIENT / rows) / 2
        found += [(value, limit) for value in values]
    return found or [(gradient, GRADIENT)]


def _traits(call: Call) -> Traits:
    return kernel_of(call.kernel).traits


def _unpacked(value: Value | None, makers: dict[Value, list[Call]]) -> Value | None:
    for call in makers.get(value.root, []) if value is not None else []:
        if _traits(call).packs:
            source: Value = call.operands["w"]
            return source
    return value


def _check(
    graph: Graph, value: Value, limit: float, makers: dict[Value, list[Call]], seen: Memo
) -> None:
    """One check of a value, however many gradients it is in."""
    while value.base is not None and value.size == value.base.size:
        value = value.base
    key = value.root, value.shift, value.size
    if key in seen or value.segment == "constant":
        return
    seen[key] = True
    if value.ndim == 2 and _made_by_columns(value, makers):
        guarding.check_columns(value, guard_of(graph), limit)
        return
    if value.batched and value.ndim > 2:
        value = graph.view(value, (value.shape[0], value.size // value.shape[0]))
    guarding.check_size(value, guard_of(graph), limit)


def _made_by_columns(value: Value, makers: dict[Value, list[Call]]) -> bool:
    return any(
        operand.root is value.root and parameter.writes and parameter.axis == "cols"
        for call in makers.get(value.root, [])[-1:]
        for _, parameter, operand in call.arrays()
    )


def safeguard(
    graph: Graph, slots: Sequence[str], bounded: bool, size: int, schedule: Value
) -> None:
    """Add the copies that a doubtful step begins with.

    Args:
        slots: names of the arrays that the updates keep for each parameter.
        bounded: whether only some steps are doubtful; all are otherwise.
        size: elements of the parameters' segment, and of each slot's.
    """

    def pair(name: str) -> tuple[Value, Value]:
        own = graph.leaf(("all", name), (size,), name, offset=0, name=f"all {name}")
        key = f"saved/{name}"
        return own, graph.leaf(key, (size,), key, offset=0, name=key)

    names = [f"slots/{slot}" for slot in slots]
    first = pair("params")
    most = control_block.SLOTS_AT_ONCE
    for begin in range(0, max(len(names), 1), most):
        some = names[begin : begin + most]
        pairs: list[tuple[Value | None, Value | None]] = [*map(pair, some)]
        pairs += [(None, None)] * (most - len(pairs))
        operands: dict[str, Any] = {
            f"{prefix}{k}": value
            for k, two in enumerate(pairs, 1)
            for prefix, value in zip(("slot", "saved"), two, strict=True)
        }
        guarding.safeguard(
            x=first[0], saved=first[1], **operands, schedule=schedule, guard=guard_of(graph),
            always=int(not bounded),
        )  # fmt: skip


def saved_operands(graph: Graph, leaf: Value, slots: Sequence[str]) -> dict[str, Any]:
    """Where an update that saves what it changes puts the copies, by parameter."""
    names = {"saved_p": "params", **{f"saved_{slot}": f"slots/{slot}" for slot in slots}}
    return {
        parameter: graph.leaf(
            (parameter, leaf), leaf.shape, f"saved/{name}", offset=leaf.offset, name=leaf.name
        )
        for parameter, name in names.items()
    }


def keep_buffers(lowered: Lowering, size: int) -> None:
    """Add the copy of buffers (running statistics, states) at the end of a good step.

    (Where `copies_buffers` is not set the runtime does that, see `runtime/cuda/bound.py`.)
    """
    graph = lowered.graph
    if not lowered.copies_buffers or not written_buffers(lowered.calls):
        return
    own = graph.leaf("all buffers", (size,), "buffers", offset=0, name="buffers")
    saved = graph.leaf("saved buffers", (size,), "saved/buffers", offset=0, name="saved buffers")
    guarding.keep(own, saved)


def may_raise(calls: Sequence[Call]) -> bool:
    """Whether a step may end by an exception of a kernel."""
    return any(kernel_of(call.kernel).may_raise for call in calls)


def written_buffers(calls: Sequence[Call]) -> list[Value]:
    """The buffers that calls write, each once."""
    found: dict[Value, None] = {}
    for call in calls:
        for _, parameter, value in call.arrays():
            if parameter.writes and (root := value.root).segment == "buffers":
                found[root] = None
    return list(found)
