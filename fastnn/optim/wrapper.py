"""Optimisers around another one: what it does, and then something with the new parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from fastnn.errors import OptionError
from fastnn.kernels.declare import helper
from fastnn.kernels.recorded import execute
from fastnn.optim.optimizer import Optimizer

_RULE = """
def rule(p, g, {slots}kept, {scalars}{weights}):
    new = inner(p, g, {slots}{scalars})
    after = follow(p, new[0], kept, {weights})
    return after[0], {rest}after[1]
"""

_SCALARS = """
def scalars(t, lr, {options}{own}):
    base = inner(t, lr, {options})
    more = weights(t, {own})
    return {base}{more}
"""


class Wrapper(Optimizer):
    """Base class of wrappers, which keep one array more for each parameter.

    A subclass has `kept`, the name of that array, `weights(t, *own options)`, what is computed once
    a step, and `follow(p, new, kept, *weights)`, which returns the parameter and the array after
    the step, from vectors: p and kept as they were (p after the decoupled decay, which comes
    first), new as the inner optimiser's rule leaves it.

    Everything else (rate, schedule, groups, clipping, decay) is the inner optimiser's.
    """

    kept: ClassVar[str]
    weights: ClassVar[Callable[..., tuple[float, ...]]]
    follow: ClassVar[Callable[..., tuple[Any, Any]]]

    def __init__(self, optimizer: Optimizer, **own: float):
        if not isinstance(optimizer, Optimizer):
            raise OptionError(
                f"{type(self).__name__}: expected an optimizer from fastnn.optim to wrap, got "
                f"{optimizer!r}"
            )
        if self.kept in optimizer.slots:
            raise OptionError(
                f"{type(self).__name__}: expected an optimizer without one of its kind, got "
                f"{optimizer!r}; wrap it once"
            )
        if not optimizer.elementwise:
            raise OptionError(
                f"{type(self).__name__}: expected an optimizer that updates each number by itself, "
                f"got {type(optimizer).__name__}; see docs/optimizers.md"
            )
        self.inner = optimizer
        shared = set(own) & set(optimizer.options)
        assert not shared, shared
        self.adopt(optimizer, own)
        self.trigger = self.trigger or optimizer.trigger

    def begin_average(self, step: int | None) -> None:
        if self.inner.trigger is None:
            super().begin_average(step)
        else:
            self.inner.begin_average(step)

    def check(self, options: Mapping[str, Any]) -> str | None:
        return self.inner.check(options) or self.check_own(options)

    def check_own(self, options: Mapping[str, Any]) -> str | None:
        """What is wrong with the wrapper's own options, or None."""
        return None

    @property
    def slots(self) -> tuple[str, ...]:
        return (*self.inner.slots, self.kept)

    @property
    def copied(self) -> tuple[str, ...]:
        return (*self.inner.copied, self.kept)

    def initial(self, slot: str) -> float:
        return 0.0 if slot == self.kept else self.inner.initial(slot)

    def own_values(self, options: Mapping[str, Any]) -> tuple[float, ...]:
        count = len(self.inner.own)
        mine = tuple(float(options[name]) for name in self.own[count:])
        return (*self.inner.own_values(options), *mine)

    @property
    def unlimited(self) -> tuple[str, ...]:
        return self.inner.unlimited

    @property
    def bounded(self) -> bool:
        return self.inner.bounded and super().bounded

    def averages(self, p: Any, slots: Mapping[str, Any]) -> Any:
        return self.inner.averages(p, slots)

    @property
    def kernel_name(self) -> str:
        return f"{self.inner.kernel_name}_{self.name}"

    @property
    def description(self) -> str:
        return f"{type(self).__name__} of {self.inner.description}"

    def _rule(self) -> Any:
        return _rule_of(
            self.kernel_name, self.inner._rule(), type(self).follow, self.inner.slots,
            self.inner.scalar_count, self._weight_count,
        )  # fmt: skip

    def _scalars(self) -> Any:
        return _scalars_of(
            self.kernel_name, self.inner._scalars(), type(self).weights, self.inner.own,
            self.own[len(self.inner.own) :], self.inner.scalar_count, self._weight_count,
        )  # fmt: skip

    @property
    def _weight_count(self) -> int:
        mine = self.own_values(self.options)[len(self.inner.own) :]
        return len(type(self).weights(1, *mine))


def _listed(names: Any) -> str:
    return "".join(f"{name}, " for name in names)


@functools.cache
def _rule_of(
    name: str, inner: Any, follow: Any, slots: tuple[str, ...], scalars: int, weights: int
) -> Any:
    source = _RULE.format(
        slots=_listed(slots), scalars=_listed(f"h{k}" for k in range(scalars)),
        weights=_listed(f"w{k}" for k in range(weights)),
        rest=_listed(f"new[{k + 1}]" for k in range(len(slots))),
    )  # fmt: skip
    scope = {"inner": helper(inner), "follow": helper(follow)}
    execute(source, f"<rule {name}>", scope)
    return scope["rule"]


@functools.cache
def _scalars_of(
    name: str, inner: Any, weights: Any, options: tuple[str, ...], own: tuple[str, ...],
    scalars: int, count: int,
) -> Any:  # fmt: skip
    source = _SCALARS.format(
        options=_listed(options), own=_listed(own),
        base=_listed(f"base[{k}]" for k in range(scalars)),
        more=_listed(f"more[{k}]" for k in range(count)),
    )  # fmt: skip
    scope = {"inner": helper(inner), "weights": helper(weights)}
    execute(source, f"<scalars {name}>", scope)
    return scope["scalars"]
