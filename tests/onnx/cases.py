"""ONNX's node tests of the ops that fastnn has: which there are, and how fastnn says them.

`OPS` has a function of (case, inputs) for each of ONNX's operators; inputs are symbolic values and
arrays. `REASONS` says for which cases fastnn has no words, and why.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Case:
    """One of ONNX's node tests: a single node, its inputs by position, and what must come out."""

    name: str
    op: str
    attributes: dict[str, Any]
    inputs: list[Any]
    outputs: dict[int, np.ndarray]  # by position
    rtol: float
    atol: float

    def get(self, name: str, default: Any = None) -> Any:
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value


def cases() -> list[Case]:
    """All cases of a single node whose operator is in `OPS` (expanded functions are left out)."""
    from onnx import helper
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what NumPy says while ONNX computes its results
        state = np.random.get_state()  # noqa: NPY002  (ONNX's generator)
        found = collect_testcases(None)
        np.random.set_state(state)  # noqa: NPY002
    made = []
    for case in found:
        nodes = case.model.graph.node
        if len(nodes) != 1 or nodes[0].op_type not in OPS or "_expanded" in case.name:
            continue
        inputs, outputs = case.data_sets[0]
        given, wanted = iter(inputs), iter(outputs)
        made.append(
            Case(
                case.name.removeprefix("test_"),
                nodes[0].op_type,
                {a.name: helper.get_attribute_value(a) for a in nodes[0].attribute},
                [next(given) if name else None for name in nodes[0].input],
                {k: next(wanted) for k, name in enumerate(nodes[0].output) if name},
                max(case.rtol, 1e-5),
                max(case.atol, 1e-6),
            )
        )
    return made


# ---------------------------------------------------------------- what fastnn has no words for

#: reason -> whether it is a case's
REASONS: dict[str, Callable[[Case], bool]] = {
    "sequences, optional values, text": lambda c: any(
        isinstance(x, list) or _kind(x) in "OSUT" for x in c.inputs
    ),
    "arithmetic with integers or booleans": lambda c: (
        _kind(_first(c)) == "b" or (_kind(_first(c)) in "iu" and c.op not in COMPARISONS)
    ),
    "convolution and pooling of three dimensions": lambda c: (
        c.op in WINDOWS and _first(c).ndim == 5
    ),
    "16-bit floats": lambda c: _first(c).dtype.itemsize < 4 and _kind(_first(c)) not in "iu",
    "arrays without elements": lambda c: any(
        getattr(x, "size", 1) == 0 for x in [_first(c), *c.outputs.values()]
    ),
    "random numbers of another generator": lambda c: (
        c.op == "Dropout" and len(c.inputs) > 2 and bool(c.inputs[2]) and _rate(c) > 0
    ),
}
#: operators with windows
WINDOWS = (
    "AveragePool", "Conv", "ConvTranspose", "GlobalAveragePool", "GlobalMaxPool", "LpPool",
    "MaxPool",
)  # fmt: skip
#: what fastnn does with integers, too
COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")


def reason(case: Case) -> str | None:
    """Why fastnn can't express a case, or None."""
    return next((text for text, applies in REASONS.items() if applies(case)), None)


def _first(c: Case) -> np.ndarray:
    arrays = [x for x in c.inputs if isinstance(x, np.ndarray)]
    return arrays[1 if c.op == "Where" else 0] if arrays else np.zeros(1)


def _kind(x: Any) -> str:
    """NumPy's letter for the kind of an input's elements."""
    return str(getattr(getattr(x, "dtype", None), "kind", "f"))


def _rate(c: Case) -> float:
    return float(c.inputs[1]) if len(c.inputs) > 1 and c.inputs[1] is not None else 0.5


# ---------------------------------------------------------------- operators

Function = Callable[..., Any]
OPS: dict[str, Function] = {}


def op(*names: str) -> Callable[[Function], Function]:
    def enter(function: Function) -> Function:
        OPS.update(dict.fromkeys(names, function))
        return function

    return enter


def plain(name: str, function: Function) -> None:
    """An operator that is a function of its inputs."""
    OPS[name] = lambda c, *inputs: function(*inputs)
