"""The kernels that are computed element by element, a row each: those of the functions that
`scalar` and `arithmetic` enter in the table, and those whose formulas serve more than one
kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from .. import arithmetic, rounding, scalar  # noqa: F401  (both fill the table)
from .table import TABLE, Formula


class Row(NamedTuple):
    """The kernel ``name(*inputs, output, *reals)``: output = formula(*inputs, *reals)."""

    name: str
    formula: Formula
    inputs: tuple[str, ...]
    output: str
    reals: tuple[str, ...]
    traits: dict[str, Any]  # as of `Traits`


def _row(
    name: str, formula: Formula, inputs: tuple[str, ...], output: str = "y",
    reals: tuple[str, ...] = (), **traits: Any,
) -> Row:  # fmt: skip
    return Row(name, formula, inputs, output, reals, traits)


def _of_functions() -> Iterator[Row]:
    for f in TABLE.values():
        yield _row(f"{f.name}_forward", f.formula, f.inputs, "y", f.reals, **f.traits)
        for name, gradient, inputs, output in f.backward:
            zeros = f.traits.get("many_zeros", False)  # where it is flat, too
            yield _row(name, gradient, inputs, output, f.reals, many_zeros=zeros)


PAIR = ("a", "b")
ROWS = (
    *_of_functions(),
    _row("less", arithmetic.less, PAIR, many_zeros=True),
    _row("less_equal", arithmetic.less_equal, PAIR, many_zeros=True),
    _row("equal", arithmetic.equal, PAIR),
    _row("not_equal", arithmetic.not_equal, PAIR),
    _row("add_forward", arithmetic.add, PAIR, adds=True),
    _row("subtract_forward", arithmetic.subtract, PAIR),
    _row("multiply_forward", arithmetic.multiply, PAIR),
    _row("multiply_backward_a", arithmetic.multiply, ("b", "dy"), "da"),
    _row("multiply_backward_b", arithmetic.multiply, ("a", "dy"), "db"),
    _row("divide_forward", arithmetic.divide, PAIR),
    _row("divide_backward_a", arithmetic.divide, ("dy", "b"), "da"),
    _row("divide_backward_b", arithmetic.divide_gradient_b, ("b", "y", "dy"), "db"),
    _row("negate", arithmetic.negate, ("x",)),
    _row("round_bf16", rounding.round_bf16, ("x",), copies=True),
    _row("round_fp16", rounding.round_fp16, ("x",)),
    _row("affine", arithmetic.affine, ("x",), "y", ("scale", "shift")),
)
