"""The functions that are computed element by element: formulas and their gradients.

`scalar.py` and `arithmetic.py` fill the table: `gradient_of` enters a formula together with its
gradient.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..declare import helper

Formula = Callable[..., Any]


@dataclass
class Function:
    """A function of the elements at one place.

    ``gradients``: formulas of its gradients, by input. ``saved``: what the gradient of a function
    of one array is computed from, "x" or "y". ``inputs``, ``reals``: its parameters, vectors and
    numbers. ``traits``: of its kernel, as of `Traits`.
    """

    name: str
    formula: Formula
    inputs: tuple[str, ...]
    reals: tuple[str, ...]
    traits: dict[str, Any]
    gradients: dict[str, Formula] = field(default_factory=dict)

    @property
    def saved(self) -> str:
        return vectors_of(self.gradients["x"])[0]

    @property
    def backward(self) -> list[tuple[str, Formula, tuple[str, ...], str]]:
        """Of each kernel of its gradients: name, formula, inputs, output."""
        single = self.inputs == ("x",)
        return [
            (f"{self.name}_backward" + ("" if single else f"_{x}"), f, vectors_of(f), f"d{x}")
            for x, f in self.gradients.items()
        ]


#: by name
TABLE: dict[str, Function] = {}


def gradient_of(
    formula: Formula, to: str = "x", *, name: str = "", **traits: Any
) -> Callable[[Formula], Formula]:
    """Mark a formula as the gradient of a function, which has kernels then.

    Args:
        formula: the function's formula.
        to: the input that it is the gradient to. A function of several has one for each.
        name: the function's name: the formula's by default.
        traits: of the function's kernel (as of `Traits`); they stand at its first gradient.
    """
    label = name or formula.__name__

    def enter(gradient: Formula) -> Formula:
        if label not in TABLE:
            inputs = ("x",) if to == "x" else vectors_of(formula)
            TABLE[label] = Function(label, formula, inputs, reals_of(formula), traits)
        TABLE[label].gradients[to] = gradient
        return helper(gradient)

    return enter


def vectors_of(formula: Formula) -> tuple[str, ...]:
    """The parameters that are vectors."""
    kinds = inspect.signature(formula).parameters
    return tuple(n for n, p in kinds.items() if p.annotation != "float")


def reals_of(formula: Formula) -> tuple[str, ...]:
    """The parameters that are numbers."""
    kinds = inspect.signature(formula).parameters
    return tuple(n for n, p in kinds.items() if p.annotation == "float")
