"""Penalties of a trainer: which parameters they are of, and their place in a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastnn import ops
from fastnn.errors import OptionError
from fastnn.graph.value import Value
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.nn.structure import select

PenaltyFunction = Callable[[Any], Value]


class Penalties:
    """The option `penalties`, made uniform.

    Args:
        model: whose parameters are meant.
        given: None, a penalty (of all arrays with two axes or more), or a dict of penalties, or
            lists of them, by name pattern.

    Raises:
        OptionError: something that is no penalty, or a pattern that no parameter has.
    """

    def __init__(self, model: Module, given: Any):
        self.model = model
        if given is None or isinstance(given, Mapping):
            self.given = dict(given or {})
        else:
            self.given = {"*": given}
        self._all = not isinstance(given, Mapping)
        for pattern, penalties in self.given.items():
            if not isinstance(pattern, str):
                raise OptionError(
                    f"penalties: expected name patterns, such as '*.weight', got {pattern!r}"
                )
            for penalty in _listed(penalties):
                if isinstance(penalty, type) or not callable(penalty):
                    raise OptionError(
                        f"penalties: expected one, such as nn.L2Penalty(1e-4), or a dict of them "
                        f"by name pattern, got {penalty!r}"
                    )
        self.terms({})

    def terms(self, trained: Mapping[str, Parameter]) -> list[tuple[str, PenaltyFunction]]:
        """Names of trained parameters with each penalty that is on them, in order."""
        found = []
        for pattern, penalties in self.given.items():
            for name, parameter in select(self.model, pattern, "penalties").items():
                if name in trained and not (self._all and parameter.ndim < 2):
                    found += [(name, penalty) for penalty in _listed(penalties)]
        return found

    def add_to(self, loss: Value, trained: Mapping[str, Parameter]) -> Value:
        """The loss and all penalties of the parameters that are trained."""
        total = loss if loss.shape == () else ops.reshape(loss)
        for name, penalty in self.terms(trained):
            with loss.graph.inside_scope(f"penalty of {name}"):
                term = penalty(trained[name])
                if not isinstance(term, Value) or term.size != 1:
                    got = term.shape if isinstance(term, Value) else type(term).__name__
                    raise OptionError(
                        f"penalties: expected a single number for {name!r}, got {got}; take its sum"
                    )
                total = ops.add(total, ops.reshape(term))
        return total

    def __bool__(self) -> bool:
        return bool(self.given)


def _listed(penalties: Any) -> list[Any]:
    return list(penalties) if isinstance(penalties, (list, tuple)) else [penalties]
