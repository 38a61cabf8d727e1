"""What follows a kernel on CUDA and is done where that is, in the same launch.

An activation of the product and its gradient need no pass over memory of their own while the sums
are in registers; the sums of a gradient's columns, a bias's gradient, are summed while the product
for the weights reads the same numbers; a loss whose own gradient is known beforehand (a mean's)
gives the logits' at once. It is the same call with another kernel, so that it holds for whatever
layers the calls come from.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastnn.graph.node import Call
from fastnn.graph.value import Value
from fastnn.kernels.declare import kernel_of


@dataclass(frozen=True)
class Ending:
    """A kernel that may end another: `taken` is what it reads of it, `given` what it writes;
    `numbers` are operands that say what it does."""

    first: str
    after: str
    kernel: str  # does both
    written: str  # by the first
    taken: str
    given: str
    also: str = ""  # what it reads besides
    numbers: tuple[tuple[str, int], ...] = ()


#: activations whose gradient follows from their output, by the number that kernels know them by
#: (`kernels/rnn/shared.py`)
ACTIVATIONS = {"tanh": 0, "relu": 1, "sigmoid": 2}
ENDINGS = (
    *(
        Ending(
            "linear_forward", f"{name}_forward", "linear_forward_activated", "y", "x", "y",
            numbers=(("activation", number),),
        )
        for name, number in ACTIVATIONS.items()
    ),
    *(
        Ending(
            "linear_backward_input_unpacked", f"{name}_backward",
            "linear_backward_input_activated", "dx", "dy", "dx", "y", (("activation", number),),
        )
        for name, number in ACTIVATIONS.items()
    ),
    Ending(
        "cross_entropy_forward", "cross_entropy_backward", "cross_entropy_scaled", "dlogits",
        "dlogits", "dx", "dloss",
    ),
)  # fmt: skip


def with_endings(calls: Sequence[Call], kept: Collection[Value]) -> list[Call]:
    """The calls, with those left out that the one before does in their stead.

    `kept`: memory that is looked at after the step.
    """
    users, kept = _Users(calls), frozenset(kept)
    found: list[Call | None] = list(calls)
    for number, call in enumerate(calls):
        for ending in ENDINGS:
            if found[number] is call and call.kernel == ending.first:
                _end(users, kept, found, number, ending)
    for number, call in enumerate(calls):
        if call.kernel == "linear_backward_weight":
            _sum_columns(users, found, number)
    return [call for call in found if call is not None]


class _Users:
    """Which calls touch which memory."""

    def __init__(self, calls: Sequence[Call]):
        self.calls = calls
        self.of: dict[Value, list[int]] = {}
        for number, call in enumerate(calls):
            for root in dict.fromkeys(value.root for _, _, value in call.arrays()):
                self.of.setdefault(root, []).append(number)

    def between(self, root: Value, a: int, b: int, writers: bool = False) -> bool:
        """Whether a call between these two touches memory, or writes it."""
        low, high = min(a, b), max(a, b)
        return any(
            low < number < high and (not writers or _writes(self.calls[number], root))
            for number in self.of.get(root, ())
        )


def _writes(call: Call, root: Value) -> bool:
    return any(p.writes and value.root is root for _, p, value in call.arrays())


def _same(a: Any, b: Any) -> bool:
    """Whether two operands are the same rows of the same memory."""
    return (
        isinstance(a, Value)
        and isinstance(b, Value)
        and a.root is b.root
        and (a.shift, a.size, a.shape[-1:]) == (b.shift, b.size, b.shape[-1:])
        and a.strides == b.strides
    )


def _end(
    users: _Users, kept: Collection[Value], found: list[Call | None], number: int, ending: Ending
) -> None:
    """Let a kernel end with what follows it, where nobody else looks at what it gives."""
    call = users.calls[number]
    given: Value = call.operands[ending.written]
    both = users.of[given.root]
    if given.root.segment != "work" or given.root in kept or len(both) != 2 or both[0] != number:
        return
    after = users.calls[both[1]]
    if after.kernel != ending.after or after.repeats != call.repeats:
        return
    result = after.operands[ending.given]
    operands: dict[str, Any] = {ending.also: after.operands[ending.also]} if ending.also else {}
    alike = result.size == given.size and result.shape[-1:] == given.shape[-1:]
    if not (alike and _same(after.operands[ending.taken], given)):
        return
    read = [v.root for _, p, v in call.arrays() if p.reads] + [v.root for v in operands.values()]
    if any(result.root is root for root in read) or users.between(result.root, number, both[1]):
        return
    if any(users.between(v.root, number, both[1], writers=True) for v in operands.values()):
        return
    if any(_later(users, v.root, number) for v in operands.values()):
        return
    before = {name: value for name, value in call.operands.items() if name != ending.written}
    operands |= dict(ending.numbers)
    names = [n for n in kernel_of(ending.kernel).params if n not in {**before, **operands}]
    assert len(names) == 1
    found[number] = replace(
        call, kernel=ending.kernel, operands={**before, **operands, names[0]: result}
    )
    found[both[1]] = None


def _later(users: _Users, root: Value, number: int) -> bool:
    """Whether work memory is written for the first time after this call."""
    first = users.of[root][0]
    return root.segment == "work" and first > number


def _sum_columns(users: _Users, found: list[Call | None], number: int) -> None:
    """Let the product for a weight's gradient sum the columns of what it reads, where a call does
    that for a bias."""
    call = users.calls[number]
    dy: Value = call.operands["dy"]
    for other in users.of[dy.root]:
        after = found[other]
        if after is None or after.kernel != "sum_rows" or after.repeats != call.repeats:
            continue
        bias: Value = after.operands["y"]
        if (
            _same(after.operands["x"], dy)
            and bias.root is not call.operands["dw"].root
            and not users.between(bias.root, number, other)
            and not users.between(dy.root, number, other, writers=True)
        ):
            operands = {**call.operands, "dbias": bias}
            found[number] = replace(call, kernel="linear_backward_weight_bias", operands=operands)
            found[other] = None
            return
