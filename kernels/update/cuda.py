"""Optimiser updates: the CPU's rules, four neighbouring elements a thread.

The kernels are made when somebody asks for them, of what those for the CPU were made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..control_block import RUN_STEP, SAVED, SKIPPED, STEP, STOP
from ..cuda.device import ONE_THREAD, can_load4, flat, flat_index, fours_launch, load4, store4
from ..cuda.device import thread_number as thread
from ..cuda.half import half_word
from ..declare import CUDA_KERNELS, CudaKernel, Kernel, cuda_kernel, helper
from ..guard.cuda import report
from ..guard.shared import doubtful
from ..recorded import execute
from ..topics import ON_DEMAND
from .cuda_rows import make_combine, make_rows
from .shared import HALVES, IDLE, MADE, SAVING, SHARED, shared_gradient
from .sources import prepare_source

#: stands for the limit of clipping where a stop is latched, too: workers leave then, but launches
#: go on
STOPPED = IDLE

_UPDATE = '''
def update(p, g, {slots}hyper, scale, guard):
    """p, slots = rule(p, shared(g), slots, scalars); p, g and the slots may not overlap."""
    l2, keep, limit, sign = hyper[0], hyper[1], hyper[2], hyper[3]
    factor = scale[0] * sign if scale.size > 0 else sign
    if limit < 0:  # a stop is latched
        return
    {scalars}
    i, size = 4 * flat_index(), p.size
    if i + 4 <= size and {aligned}:
        {load}
        {rule4}
        {store}
        {note}
    else:
        for k in range(i, min(i + 4, size)):
            old = flat(p)[k]
            grad = shared(flat(g)[k], old, factor, l2, limit)
            new = rule(old * keep, grad, {load1}{names})
            flat(p)[k] = new[0]
            report(guard, new[0])
            {store1}
'''

_SAVING = '''
def update(p, g, {slots}hyper, scale, guard, control, schedule, saved_p, {saved}always{halves}):
    """The update; in a doubtful step (see `guard/cpu.py`) what it changes is copied before."""
    l2, keep, limit, sign = hyper[0], hyper[1], hyper[2], hyper[3]
    factor = scale[0] * sign if scale.size > 0 else sign
    if limit < 0:  # a stop is latched, and what lies there is needed
        return
    {scalars}
    doubt = doubtful(control, schedule, guard, always)
    i, size = 4 * flat_index(), p.size
    if doubt and i == 0:
        guard[SAVED] = 1
    if i + 4 <= size and {aligned}:
        {load}
        if doubt:
            {save}
        {rule4}
        {store}
        {note}
    else:
        for k in range(i, min(i + 4, size)):
            old = flat(p)[k]
            if doubt:
                {save1}
            grad = shared(flat(g)[k], old, factor, l2, limit)
            new = rule(old * keep, grad, {load1}{names})
            flat(p)[k] = new[0]
            report(guard, new[0])
            {store1}
'''


@helper
def write_halves(halves: Any, i: int, a: Any, b: Any, c: Any, d: Any, is_bf16: int) -> None:
    """Four neighbours as numbers of 16 bits."""
    out = flat(halves)
    out[i] = word_of(a, is_bf16)
    out[i + 1] = word_of(b, is_bf16)
    out[i + 2] = word_of(c, is_bf16)
    out[i + 3] = word_of(d, is_bf16)


@helper
def word_of(x: Any, is_bf16: int) -> Any:
    """The nearest number of 16 bits, of the type that a number says."""
    return half_word(x, 1) if is_bf16 != 0 else half_word(x, 0)


_PREPARE = """
def prepare(control, schedule, hyper, group, l2, decay, limit, sign, {options}):
    if thread() == 0:
        t = control[STEP] - control[SKIPPED] + 1
        rate = schedule[control[RUN_STEP], group]
        values = scalars(t, rate, {options})
        hyper[0] = l2
        hyper[1] = 1.0 - rate * decay
        hyper[2] = limit if control[STOP] == 0 else STOPPED
        hyper[3] = sign
        for k in range(len(values)):
            hyper[SHARED + k] = values[k]
"""


_PREPARE_EVERY = _PREPARE.replace(
    "t = control[STEP] - control[SKIPPED] + 1", "t = control[STEP] // every + 1"
).replace(
    "if control[STOP] == 0 else", "if control[STOP] == 0 and (control[STEP] + 1) % every == 0 else"
)


def make_update(
    like: Kernel, rule: Callable[..., Any], slots: Sequence[str], scalars: int
) -> CudaKernel:
    """The counterpart of an update's kernel, which applies a rule with these slots and so many
    scalars; the kernel that saves what it changes as well (`SAVING` after the name), and the one
    that also writes the parameters in 16 bits (`HALVES` after that)."""
    name = like.name
    scope = {
        "__name__": __name__, "can_load4": can_load4, "flat": flat,
        "flat_index": flat_index, "load4": load4, "store4": store4, "shared": shared_gradient,
        "report": report, "rule": helper(rule),
    }  # fmt: skip
    _make_saving(name, dict(scope), slots, scalars, halves=False)
    _make_saving(name, dict(scope), slots, scalars, halves=True)
    execute(_filled(_UPDATE, slots, scalars), f"<CUDA kernel {name}>", scope)
    function: Any = scope["update"]
    made: CudaKernel = cuda_kernel(
        function, like=like, launch=lambda s: fours_launch(s["R"] * s["C"]), name=name
    )
    return made


def _make_saving(
    name: str, scope: dict[str, Any], slots: Sequence[str], scalars: int, halves: bool
) -> None:
    scope |= {"doubtful": doubtful, "SAVED": SAVED, "words": write_halves, "word": word_of}
    made = f"{name}{SAVING}{HALVES if halves else ''}"
    execute(_filled(_SAVING, slots, scalars, halves), f"<CUDA kernel {made}>", scope)
    function: Any = scope["update"]
    function.__annotations__ = {
        **dict.fromkeys(("p", *slots), "inout whole f[R,C]"),
        "g": "in whole f[R,C]",
        "hyper": "in whole f[H]",
        "scale": "in whole f[U]",
        "guard": "inout whole i[F]",
        "control": "in whole i[L]",
        "schedule": "in whole r[S,G]",
        **dict.fromkeys(("saved_p", *(f"saved_{s}" for s in slots)), "part whole f[R,C]"),
        "always": "int",
    }
    if halves:
        # of either type: is_bf16 says which; in a step that updates nothing it stays as it is
        function.__annotations__ |= {"halves": "inout whole h[R,C]", "is_bf16": "int"}
    cuda_kernel(
        function, launch=lambda s: fours_launch(s["R"] * s["C"]), name=made,
        **({"only_float32": True} if halves else {"halves_as": f"{made}{HALVES}"}),
    )  # fmt: skip


def _filled(source: str, slots: Sequence[str], scalars: int, halves: bool = False) -> str:
    """An update's source for these slots and so many scalars."""
    names = [f"h{k}" for k in range(scalars)]
    arrays, four = ["p", "g", *slots], range(4)
    saved = [f"saved_{s}" for s in ("p", *slots)]
    rules = [
        f"new{k} = rule(p{k} * keep, shared(g{k}, p{k}, factor, l2, limit), "
        + "".join(f"{s}{k}, " for s in slots)
        + ", ".join(names)
        + ")"
        for k in four
    ]
    stores = [
        f"store4({a}, i, {', '.join(f'new{k}[{place}]' for k in four)})"
        for place, a in enumerate(["p", *slots])
    ]
    stores1 = [f"flat({s})[k] = new[{j + 1}]" for j, s in enumerate(slots)]
    if halves:
        stores.append(f"words(halves, i, {', '.join(f'new{k}[0]' for k in four)}, is_bf16)")
        stores1.append("flat(halves)[k] = word(new[0], is_bf16)")
    saves = [f"store4(saved_{a}, i, {', '.join(f'{a}{k}' for k in four)})" for a in ("p", *slots)]
    every = [*arrays, *saved] if source is _SAVING else arrays
    return source.format(
        slots="".join(f"{s}, " for s in slots),
        saved="".join(f"{s}, " for s in saved[1:]),
        scalars="; ".join(f"{h} = hyper[{SHARED + k}]" for k, h in enumerate(names)) or "pass",
        names=", ".join(names),
        aligned=" and ".join(f"can_load4({a})" for a in every),
        load="; ".join(f"{', '.join(f'{a}{k}' for k in four)} = load4({a}, i)" for a in arrays),
        save="; ".join(saves),
        save1="; ".join(f"flat(saved_{a})[k] = flat({a})[k]" for a in ("p", *slots)),
        rule4="; ".join(rules),
        store="; ".join(stores),
        halves=", halves, is_bf16" if halves else "",
        note="; ".join(f"report(guard, new{k}[0])" for k in four),
        load1="".join(f"flat({s})[k], " for s in slots),
        store1="; ".join(stores1) or "pass",
    )


def make_prepare(
    like: Kernel, scalars: Callable[..., Any], options: Sequence[str], every: bool = False
) -> CudaKernel:
    """The counterpart of the kernel that computes a rule's scalars for this step, on one thread."""
    name = like.name
    scope = {
        "__name__": __name__, "scalars": helper(scalars), "thread": thread, "STEP": STEP,
        "RUN_STEP": RUN_STEP, "SHARED": SHARED, "STOP": STOP, "STOPPED": STOPPED,
        "SKIPPED": SKIPPED,
    }  # fmt: skip
    source = prepare_source(_PREPARE_EVERY if every else _PREPARE, options)
    execute(source, f"<CUDA kernel {name}>", scope)
    function: Any = scope["prepare"]
    made: CudaKernel = cuda_kernel(
        function, like=like, launch=lambda s: ONE_THREAD, name=name, one_block=True
    )
    return made


MAKERS: dict[str, Callable[..., CudaKernel]] = {
    "update": make_update, "prepare": make_prepare, "rows": make_rows, "combine": make_combine,
}  # fmt: skip


def make_missing() -> None:
    """Make the counterparts of all updates that have none yet."""
    for name, (kind, parts) in list(MADE.items()):
        if getattr(CUDA_KERNELS.get(name), "like", None) is not parts[0]:
            MAKERS[kind](*parts)


ON_DEMAND["cuda"].append(make_missing)
