"""What follows a kernel and is done where that is, in the same call.

On the CPU a product that is a term of a sum, such as the gradient of a loop's memory, is added
where it is computed: it needs no memory, and no passes over it. The rest is done on CUDA.

An activation of the product and its gradient need no pass over memory of their own while the sums
are in registers; the sums of a gradient's columns, a bias's gradient, are summed while the product
for the weights reads the same numbers; a loss whose own gradient is known beforehand (a mean's)
gives the logits' at once. It is the same call with another kernel, so that it holds for whatever
layers the calls come from. Which kernels do that is declared with them (`Ending` and `Besides` in
`kernels/traits.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastnn.graph.value import Value
from fastnn.kernels.declare import CUDA_KERNELS, KERNELS, CudaKernel, Kernel
from fastnn.kernels.topics import load
from fastnn.kernels.traits import Besides, Ending
from fastnn.plan.call import Call


def with_endings(
    calls: Sequence[Call], kept: Collection[Value], device: str = "cuda"
) -> list[Call]:
    """The calls, with those left out that the one before does in their stead.

    `kept`: memory that is looked at after the step.
    """
    load(device)
    table: Mapping[str, Kernel | CudaKernel] = CUDA_KERNELS if device == "cuda" else KERNELS
    kernels = [k for k in table.values() if k.traits.endings or k.traits.besides]
    users, kept = _Users(calls), frozenset(kept)
    found: list[Call | None] = list(calls)
    for kernel in kernels:
        for ending in kernel.traits.endings:
            for number in users.numbers(ending.first):
                if found[number] is calls[number]:
                    _end(users, kept, found, number, kernel, ending)
    for kernel in kernels:
        for besides in kernel.traits.besides:
            for number in users.numbers(besides.first):
                if found[number] is calls[number]:
                    _join(users, found, number, kernel, besides)
    return [call for call in found if call is not None]


class _Users:
    """Which calls touch which memory."""

    def __init__(self, calls: Sequence[Call]):
        self.calls = calls
        self.of: dict[Value, list[int]] = {}
        self._of_kernel: dict[str, list[int]] = {}
        for number, call in enumerate(calls):
            self._of_kernel.setdefault(call.kernel, []).append(number)
            for root in dict.fromkeys(value.root for _, _, value in call.arrays()):
                self.of.setdefault(root, []).append(number)

    def numbers(self, kernel: str) -> Sequence[int]:
        """The calls of a kernel."""
        return self._of_kernel.get(kernel, ())

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
    users: _Users, kept: Collection[Value], found: list[Call | None], number: int,
    kernel: Kernel | CudaKernel, ending: Ending,
) -> None:  # fmt: skip
    """Let a kernel end with what follows it, where nobody else looks at what it gives."""
    call = users.calls[number]
    given: Value = call.operands[ending.written]
    both = users.of[given.root]
    if given.root.segment != "work" or given.root in kept or len(both) != 2 or both[0] != number:
        return
    after = users.calls[both[1]]
    gone = found[both[1]] is not after
    if gone or after.kernel != ending.after or after.repeats != call.repeats:
        return
    result = after.operands[ending.given]
    name = ending.called or ending.also
    operands: dict[str, Any] = {name: after.operands[ending.also]} if name else {}
    if ending.called and not operands[name].shape == given.shape == result.shape:
        return
    if ending.most and not _few(call, ending):
        return
    alike = result.size == given.size and result.shape[-1:] == given.shape[-1:]
    if not (alike and _same(after.operands[ending.taken], given)):
        return
    inputs = [v.root for _, p, v in call.arrays() if p.reads]
    others = [v.root for v in operands.values()]
    if any(result.root is root for root in inputs + others):
        return
    if any(given.root is root for root in others):
        return
    place = number
    if ending.called:  # made where the sum was: both of its terms are there
        place, others = both[1], inputs
    elif users.between(result.root, number, both[1]) or any(
        _later(users, root, number) for root in others
    ):
        return
    if any(users.between(root, number, both[1], writers=True) for root in others):
        return
    before = {name: value for name, value in call.operands.items() if name != ending.written}
    operands |= dict(ending.numbers)
    (left,) = (n for n in kernel.params if n not in before and n not in operands)
    found[number] = found[both[1]] = None
    found[place] = replace(call, kernel=kernel.name, operands={**before, **operands, left: result})


def _few(call: Call, ending: Ending) -> bool:
    """Whether a call's sizes are those for which the ending is made."""
    sizes = {
        letter: size
        for _, parameter, value in call.arrays()
        for letter, size in zip(parameter.dims, value.shape, strict=False)
    }
    return all(sizes[letter] <= most for letter, most in ending.most)


def _later(users: _Users, root: Value, number: int) -> bool:
    """Whether work memory is written for the first time after this call."""
    first = users.of[root][0]
    return root.segment == "work" and first > number


def _join(
    users: _Users,
    found: list[Call | None],
    number: int,
    kernel: Kernel | CudaKernel,
    besides: Besides,
) -> None:
    """Let a kernel do what another call does with an array that it reads anyway: sum the columns of
    a gradient, say."""
    call = users.calls[number]
    read: Value = call.operands[besides.read]
    own = [value.root for _, p, value in call.arrays() if p.writes]
    for other in users.of[read.root]:
        after = found[other]
        if after is None or after.kernel != besides.other or after.repeats != call.repeats:
            continue
        result: Value = after.operands[besides.given]
        if (
            _same(after.operands[besides.taken], read)
            and all(result.root is not root for root in own)
            and not users.between(result.root, number, other)
            and not users.between(read.root, number, other, writers=True)
        ):
            operands = {**call.operands, besides.written: result}
            found[number] = replace(call, kernel=kernel.name, operands=operands)
            found[other] = None
            return
