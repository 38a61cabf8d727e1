"""Passes over a parameter by rows, for updates that need sums over the whole of it.

A rule that needs, say, the norm of a parameter is a few passes with sums between: each pass is a
function of values (see `Pass`) that gives what it writes, and numbers whose sum over the parameter
is wanted. `make_rows` wraps it in the loop over memory; it
leaves a sum for each row, in float64, and `make_combine` makes the serial kernel that adds those up
and computes numbers for the next pass. A row is summed in one fixed order, and so are the rows: the
bits do not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..declare import Kernel, helper, kernel
from ..guard.cpu import report
from ..recorded import execute
from ..simd import fma, lanes, load, load_first, splat, store, store_first, sum_lanes
from ..step.cpu import RUN, sum_of
from .cpu import _name_for
from .shared import MADE, Pass, shared_gradient
from .sources import Parts, combine_source, lines

_ROWS = '''
def rows({arrays}hyper, {own}{sums}{scale}{guard}lo, hi):
    """What a pass writes, and sums over each row."""
    l2, keep, limit, sign = hyper[0], hyper[1], hyper[2], hyper[3]
    if limit < 0:  # gradients are accumulated, and there are more to come
        return
    {factor}
    {plain}
    {scalars}
    C, w = {first}.shape[1], lanes({first})
    squares = squares_odd = splat({first}, 0.0)
    for r in range(lo, hi):
        {zero}
        {row}
        for begin in range(0, C, RUN):
            {clear}
            end = min(begin + RUN, C)
            whole = end - (end - begin) % w
            start = begin
            # two vectors with sums of their own: one does not wait for the other's addition
            while {as_they_are} and start + 2 * w <= whole:
                j, i = start, r * C + start
                {load}
                {decay}
                new = rule({names})
                {store}
                {watch}
                {add}
                j, i = j + w, i + w
                {load}
                {decay}
                new = rule({names})
                {store}
                {watch_odd}
                {add_odd}
                start += 2 * w
            for j in range(start, whole, w):
                i = r * C + j
                {load}
                {decay}
                {gradient}
                new = rule({names})
                {store}
                {watch}
                if (j - begin) // w % 2 == 0:
                    {add}
                else:
                    {add_odd}
            if whole < end:
                j, m, i = whole, end - whole, r * C + whole
                {load_first}
                {decay}
                {gradient_first}
                new = rule({names})
                {store_first}
                {watch_first}
                if (j - begin) // w % 2 == 0:
                    {add}
                else:
                    {add_odd}
            {part}
        {sum}
    {report}
'''

#: most runs leave gradients as they are
PLAIN = "plain = scale.size == 0 and l2 == 0 and limit == np.inf and sign == 1"


def make_rows(name: str, what: Pass) -> Kernel:
    """The kernel `name` of one pass."""
    name, known = _name_for(name, what.rule)
    if known is not None:
        return known
    parts = Parts(what)
    read, written, sums = parts.read, parts.written, parts.sums
    assert "p" not in what.writes or what.writes[0] == "p"

    def gradient_line(p: str) -> str:
        """The gradient as a rule sees it; a pass that has no p is for gradients without decay."""
        given = (
            f"{p}, factor, l2" if "p" in read else f"splat({parts.first}, -0.0), factor, l2 * 0.0"
        )
        return f"g_here = shared(g_here, {given}, limit)"

    def added(sums_of: str) -> str:
        return lines(
            [f"{s}_{sums_of} = {s}_{sums_of} + new[{len(written) + k}]" for k, s in enumerate(sums)]
        )

    source = _ROWS.format(
        **parts.fields(),
        factor="factor = scale[0] * sign if scale.size else sign" if "g" in read else "pass",
        plain=PLAIN if "g" in read else "pass",
        as_they_are="plain" if "g" in read else "False",
        clear=lines([f"{s}_here = {s}_odd = splat({parts.first}, 0.0)" for s in sums]),
        load=lines(
            [f"{a}_here = load({a}, i)" for a in read]
            + (["col_here = load(col, j)"] if what.factors else [])
        ),
        load_first=lines(
            [f"{a}_here = load_first({a}, i, m)" for a in read]
            + (["col_here = load_first(col, j, m)"] if what.factors else [])
        ),
        gradient=gradient_line("load(p, i)") if "g" in read else "pass",
        gradient_first=gradient_line("load_first(p, i, m)") if "g" in read else "pass",
        store=lines([f"store({a}, i, new[{k}])" for k, a in enumerate(written)]),
        store_first=lines([f"store_first({a}, i, new[{k}], m)" for k, a in enumerate(written)]),
        watch="squares = fma(new[0], new[0], squares)" if "p" in what.writes else "pass",
        watch_first=(
            "p_new = load_first(p, i, m); squares = fma(p_new, p_new, squares)"
            if "p" in what.writes
            else "pass"
        ),
        watch_odd=(
            "squares_odd = fma(new[0], new[0], squares_odd)" if "p" in what.writes else "pass"
        ),
        add=added("here"),
        add_odd=added("odd"),
        part=lines([f"{s}_all += np.float64(sum_lanes({s}_here + {s}_odd))" for s in sums]),
        sum=lines([f"{s}[r] = {s}_all" for s in sums]),
        report=(
            "report(squares + squares_odd, p, lo * C, hi * C, guard)"
            if "p" in what.writes
            else "pass"
        ),
    )  # fmt: skip
    scope = {
        "lanes": lanes, "load": load, "store": store, "load_first": load_first,
        "store_first": store_first, "splat": splat,
        "fma": fma, "sum_lanes": sum_lanes, "shared": shared_gradient, "rule": helper(what.rule),
        "np": np, "RUN": RUN, "report": report, "__name__": __name__,
    }  # fmt: skip
    execute(source, f"<kernel {name}>", scope)
    function = scope["rows"]
    notes: dict[str, str] = {
        **dict.fromkeys(what.writes, "inout rows f[R,C]"),
        **dict.fromkeys(what.reads, "in rows f[R,C]"),
        **dict.fromkeys(what.outs, "out rows f[R,C]"),
    }
    if what.factors:
        notes |= {"row": "in rows f[R]", "col": "in whole f[C]"}
    notes["hyper"] = "in whole f[H]"
    if what.own:
        notes["own"] = "in whole f[O]"
    notes |= dict.fromkeys(sums, "out rows r[R]")
    if "g" in read:
        notes["scale"] = "in whole f[U]"
    if "p" in what.writes:
        notes["guard"] = "flag whole i[F]"
    function.__annotations__ = notes
    made = kernel(function, name=name)
    MADE[name] = "rows", (made, what)
    return made


def make_combine(name: str, function: Callable[..., Any], sums: int, scalars: int) -> Kernel:
    """The serial kernel `name` that computes numbers from sums: `function(*sums, count,
    *scalars)` in float64."""
    name, known = _name_for(name, function)
    if known is not None:
        return known
    source = combine_source(sums, scalars)
    scope: dict[str, Any] = {
        "function": helper(function),
        "sum_of": sum_of,
        "np": np,
        "__name__": __name__,
    }
    execute(source, f"<kernel {name}>", scope)
    made_of = scope["combine"]
    made_of.__annotations__ = {
        **{f"s{k}": f"in whole r[R{k}]" for k in range(sums)},
        "hyper": "in whole f[H]",
        "own": "out whole f[O]",
        "count": "double",
    }
    made = kernel(made_of, name=name)
    MADE[name] = "combine", (made, function, sums, scalars)
    return made
