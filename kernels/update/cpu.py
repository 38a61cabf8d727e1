"""Optimiser updates: one driver over parameters, gradients and slots for every rule.

A rule is a plain function of values `rule(p, g, *slots, *scalars) -> (p, *slots)`, written once per
optimiser (`fastnn/optim`); `make_update` wraps it in the loop over memory, with what all optimisers
share: gradient scaling and clipping, L2 regularisation, decoupled weight decay. `make_prepare`
makes the serial kernel that computes a rule's scalars once a step, in float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from ..control_block import RUN_STEP, SKIPPED, STEP
from ..declare import KERNELS, Kernel, helper, kernel
from ..guard.cpu import report
from ..recorded import execute
from ..simd import (
    fma,
    lanes,
    load,
    load_first,
    splat,
    store,
    store_first,
)
from .shared import IDLE, MADE, SHARED, shared_gradient
from .sources import prepare_source

_UPDATE = '''
def update(p, g, {slots}hyper, scale, guard, lo, hi):
    """p, slots = rule(p, shared(g), slots, scalars); p, g and the slots may not overlap."""
    l2, keep, limit, sign = hyper[0], hyper[1], hyper[2], hyper[3]
    if limit < 0:  # gradients are accumulated, and there are more to come
        return
    factor = scale[0] * sign if scale.size else sign
    {scalars}
    # most runs leave gradients as they are: four operations fewer, a sixth of Adam's
    plain = scale.size == 0 and l2 == 0 and limit == np.inf and sign == 1
    w = lanes(p)
    squares = splat(p, 0.0)
    i, n = lo * p.shape[1], hi * p.shape[1]
    while plain and i + w <= n:
        new = rule(load(p, i) * keep, load(g, i), {load}{names})
        store(p, i, new[0])
        squares = fma(new[0], new[0], squares)
        {store}
        i += w
    while i < n:
        if not plain and i + w <= n:
            old = load(p, i)
            grad = shared(load(g, i), old, factor, l2, limit)
            new = rule(old * keep, grad, {load}{names})
            store(p, i, new[0])
            squares = fma(new[0], new[0], squares)
            {store}
        else:
            m = n - i
            old = load_first(p, i, m)
            grad = load_first(g, i, m)
            if not plain:
                grad = shared(grad, old, factor, l2, limit)
            new = rule(old * keep, grad, {load_first}{names})
            store_first(p, i, new[0], m)
            written = load_first(p, i, m)
            squares = fma(written, written, squares)
            {store_first}
        i += w
    report(squares, p, lo * p.shape[1], n, guard)
'''

_PREPARE = '''
def prepare(control, schedule, hyper, group, l2, decay, limit, sign, {options}):
    """hyper = l2, 1 - rate * decay, limit, sign, then the rule's scalars for this step."""
    t = control[STEP] - control[SKIPPED] + 1
    rate = schedule[control[RUN_STEP], group]
    values = scalars(t, rate, {options})
    hyper[0] = l2
    hyper[1] = 1.0 - rate * decay
    hyper[2] = limit
    hyper[3] = sign
    for k in range(len(values)):
        hyper[SHARED + k] = values[k]
'''


_PREPARE_EVERY = _PREPARE.replace(
    "t = control[STEP] - control[SKIPPED] + 1", "t = control[STEP] // every + 1"
).replace("hyper[2] = limit", "hyper[2] = limit if (control[STEP] + 1) % every == 0 else IDLE")


def _name_for(name: str, formula: Callable) -> tuple[str, Kernel | None]:
    """A name for the kernel made of this formula, and the kernel if it exists already.

    A subclass that changes the rule but keeps the name gets kernels of its own.
    """
    for number in itertools.count(2):
        known = KERNELS.get(name)
        if known is None or formula in known.function.__globals__.values():
            return name, known
        name = f"{name.rstrip('0123456789')}{number}"


def make_update(name: str, rule: Callable, slots: Sequence[str], scalars: int) -> Kernel:
    """The kernel `name` that applies a rule with these slots and so many scalars."""
    name, known = _name_for(name, rule)
    if known is not None:
        return known
    names = [f"h{k}" for k in range(scalars)]
    source = _UPDATE.format(
        slots="".join(f"{s}, " for s in slots),
        scalars="; ".join(f"{h} = hyper[{SHARED + k}]" for k, h in enumerate(names)) or "pass",
        names=", ".join(names),
        load="".join(f"load({s}, i), " for s in slots),
        load_first="".join(f"load_first({s}, i, m), " for s in slots),
        store="; ".join(f"store({s}, i, new[{k + 1}])" for k, s in enumerate(slots)) or "pass",
        store_first="; ".join(f"store_first({s}, i, new[{k + 1}], m)" for k, s in enumerate(slots))
        or "pass",
    )
    scope = {
        "lanes": lanes, "load": load, "store": store, "load_first": load_first,
        "store_first": store_first, "shared": shared_gradient, "rule": helper(rule), "np": np,
        "splat": splat, "fma": fma, "report": report,
    }  # fmt: skip
    execute(source, f"<kernel {name}>", scope)
    function = scope["update"]
    function.__annotations__ = {
        "p": "inout rows f[R,C]",
        "g": "in rows f[R,C]",
        **dict.fromkeys(slots, "inout rows f[R,C]"),
        "hyper": "in whole f[H]",
        "scale": "in whole f[U]",
        "guard": "flag whole i[F]",
    }
    made = kernel(function, name=name, elementwise=True)
    MADE[name] = "update", (made, rule, slots, scalars)
    return made


def make_prepare(
    name: str, scalars: Callable, options: Sequence[str], every: bool = False
) -> Kernel:
    """The serial kernel `name` that computes a rule's scalars for this step.

    `every`: it has an option of this name; only so many-th steps update anything, and are counted.
    """
    if every:
        name, options = f"{name.removesuffix('_prepare')}_every_prepare", (*options, "every")
    name, known = _name_for(name, scalars)
    if known is not None:
        return known
    scope = {
        "scalars": helper(scalars), "STEP": STEP, "RUN_STEP": RUN_STEP, "SHARED": SHARED,
        "IDLE": IDLE, "SKIPPED": SKIPPED,
    }  # fmt: skip
    execute(
        prepare_source(_PREPARE_EVERY if every else _PREPARE, options), f"<kernel {name}>", scope
    )
    function = scope["prepare"]
    function.__annotations__ = {
        "control": "in whole i[L]",
        "schedule": "in whole r[S,G]",
        "hyper": "out whole f[H]",
        "group": "int",
        **dict.fromkeys(("l2", "decay", "limit", "sign", *options), "double"),
    }
    if every:
        function.__annotations__["every"] = "int"
    made = kernel(function, name=name, bookkeeping=True)
    MADE[name] = "prepare", (made, scalars, options, every)
    return made
