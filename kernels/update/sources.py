"""Parts of the sources that updates' kernels are made of, alike on both devices."""

from __future__ import annotations

from collections.abc import Sequence

from .shared import SHARED, Pass

_SETTLE = '''
def combine({sums}hyper, own, count):
    """own = numbers from sums over the parameter, of `count` elements, and the step's scalars."""
    {scalars}
    {totals}
    values = function({args}count, {names})
    for k in range(len(values)):
        own[k] = values[k]
'''


def prepare_source(source: str, options: Sequence[str]) -> str:
    """The source with these options; the rule's own are those beside `every`."""
    own = ", ".join(name for name in options if name != "every")
    return source.replace("scalars(t, rate, {options})", f"scalars(t, rate, {own})").format(
        options=", ".join(options)
    )


def lines(parts: Sequence[str]) -> str:
    return "; ".join(parts) or "pass"


class Parts:
    """What a pass's kernel is made of, by the names that its source has for it, on any device."""

    def __init__(self, what: Pass):
        self.what = what
        self.arrays = [*what.writes, *what.reads, *what.outs]
        self.first = self.arrays[0]
        self.read, self.written = [*what.writes, *what.reads], [*what.writes, *what.outs]
        self.scalars = [f"h{k}" for k in range(what.scalars)]
        self.own = [f"o{k}" for k in range(what.own)]
        self.sums = [f"s{k}" for k in range(what.sums)]
        self.factors = ["row", "col"] if what.factors else []

    def fields(self) -> dict[str, str]:
        """What stands in the source alike for each device."""
        writes_p = "p" in self.what.writes
        values = [f"{a}_here" for a in [*self.read, *self.factors]]
        return {
            "arrays": "".join(f"{a}, " for a in [*self.arrays, *self.factors]),
            "own": "own, " if self.own else "",
            "sums": "".join(f"{s}, " for s in self.sums),
            "scale": "scale, " if "g" in self.read else "",
            "guard": "guard, " if writes_p else "",
            "first": self.first,
            "scalars": lines(
                [f"{h} = hyper[{SHARED + k}]" for k, h in enumerate(self.scalars)]
                + [f"{o} = own[{k}]" for k, o in enumerate(self.own)]
            ),
            "zero": lines([f"{s}_all = np.float64(0.0)" for s in self.sums]),
            "row": "row_here = row[r]" if self.factors else "pass",
            "decay": "p_here = p_here * keep" if writes_p else "pass",
            "names": ", ".join(values + self.scalars + self.own),
        }


def combine_source(sums: int, scalars: int) -> str:
    return _SETTLE.format(
        sums="".join(f"s{k}, " for k in range(sums)),
        scalars=lines([f"h{k} = np.float64(hyper[{SHARED + k}])" for k in range(scalars)]),
        totals=lines([f"t{k} = sum_of(s{k})" for k in range(sums)]),
        args="".join(f"t{k}, " for k in range(sums)),
        names="".join(f"h{k}, " for k in range(scalars)),
    )
