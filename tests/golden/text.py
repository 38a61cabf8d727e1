"""A program as text, a line a call, in a form of its own that changes of `__str__` don't touch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from fastnn.plan.program import Count, Operand, PlannedCall, PlannedPhase, PlannedRepeat, Program

#: short names of segments
SEGMENTS = {
    "work": "w",
    "local": "l",
    "params": "p",
    "grads": "g",
    "input": "in",
    "constant": "k",
}
#: lines of a program that are kept; of the rest a hash
LONGEST = 150


def text(program: Program) -> str:
    """A program's text."""
    sizes = " ".join(f"{name} {size}" for name, size in program.sizes.items() if size)
    within = "" if program.within is None else f" within batch {program.within.batch}"
    lines = [f"{program.dtype}, batch {program.batch}{within}: {sizes}"]
    if program.carried:
        lines.append(f"carried: {', '.join(program.carried)}")
    for offset, data in program.constants:
        lines.append(f"constant k+{offset}: {data.dtype}{_list(data.shape)} {_constant(data)}")
    for name, operand in program.places.items():
        lines.append(f"place {name}: {_operand(operand)}")
    lines += _phases(program.phases, "")
    return "\n".join(_shortened(lines)) + "\n"


def _phases(phases: Iterable[PlannedPhase | PlannedRepeat], before: str) -> list[str]:
    lines = []
    for number, phase in enumerate(phases):
        name = f"{before}{number}."
        if isinstance(phase, PlannedRepeat):
            lines.append(f"{name} {_times(phase)}")
            lines += _phases(phase.body, name)
            continue
        for group in phase.groups:
            lines.append(f"{name} {group.items} items by {group.grain}, blocks {group.block}")
            lines += _calls(group.calls)
        if phase.serial:
            lines.append(f"{name} serial")
            lines += _calls(phase.serial)
    return lines


def _times(loop: PlannedRepeat) -> str:
    fresh = f", each with its own {' '.join(map(_operand, loop.fresh))}" if loop.fresh else ""
    ends = f" while any {_operand(loop.running)}" if loop.running is not None else ""
    return f"{loop.length} times{' backward' if loop.reverse else ''}{ends}{fresh}"


def _shortened(lines: list[str]) -> list[str]:
    if len(lines) <= LONGEST + 1:
        return lines
    rest = "\n".join(lines[LONGEST:])
    return [*lines[:LONGEST], f"... {len(lines) - LONGEST} more lines, {digest(rest.encode())}"]


def digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _constant(data: np.ndarray) -> str:
    if data.size <= 4:
        return " ".join(f"{number:.9g}" for number in data.reshape(-1).tolist())
    return digest(np.ascontiguousarray(data).tobytes())


def _calls(calls: Iterable[PlannedCall | PlannedRepeat]) -> list[str]:
    lines, scope = [], None
    for call in calls:
        if isinstance(call, PlannedRepeat):
            lines.append(f"  {_times(call)}")
            lines += [f"  {line}" for line in _calls(call.body)]
            continue
        operands = " ".join(_operand(o) for o in call.operands)
        times = f" x{call.multiplier}" if call.multiplier != 1 else ""
        said = f"  # {call.scope}" if call.scope != scope and call.scope else ""
        scope = call.scope
        lines.append(f"  {call.kernel} {operands}{times}{said}")
    return lines


def _operand(operand: Any) -> str:
    if operand is None:
        return "-"
    if isinstance(operand, Count):
        return f"{operand.first}{_moving(operand.strides)}"
    if not isinstance(operand, Operand):
        return f"{operand:.9g}" if isinstance(operand, float) else str(operand)
    kind = "" if operand.dtype == "f" else operand.dtype
    place = "" if operand.external and not operand.offset else f"+{operand.offset}"
    each = f"/{operand.per_item}" if operand.per_item else ""
    name = SEGMENTS.get(operand.segment, operand.segment)
    return f"{name}{place}{kind}{_list(operand.dims)}{each}{_moving(operand.strides)}"


def _moving(strides: tuple[int, ...]) -> str:
    """By how many bytes a place moves in each step of the loops around it."""
    return "".join(f"{stride:+d}t" for stride in strides)


def _list(sizes: Iterable[int]) -> str:
    return f"[{','.join(map(str, sizes))}]"
