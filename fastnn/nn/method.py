"""Functions of a model other than its `forward`, compiled for arrays as `predict` is."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np

from fastnn.engine.access import building
from fastnn.engine.predictor import Predictor
from fastnn.engine.store import ParameterStore, Stored
from fastnn.kernels import control_block
from fastnn.nn.module import Module
from fastnn.nn.structure import Watch
from fastnn.weak import there

#: under which the predictor of `fixed` is kept; no method's name
FIXED = "forward, fixed"


class Method:
    """A module with another function in place of its `forward`. It does not keep the module, which
    may keep what is made of it.

    Args:
        module: whose parameters it has.
        function: gives that function, of symbolic values, for the module.
    """

    def __init__(self, module: Module, function: Callable[[Any], Callable[..., Any]]):
        self._module, self._function = weakref.ref(module), function

    @property
    def module(self) -> Module:
        return there(self._module, "a method of a module")

    @property
    def forward(self) -> Callable[..., Any]:
        return self._function(self.module)

    def __call__(self, *inputs: Any) -> Any:
        return self.forward(*inputs)

    def named_modules(self) -> Iterator[tuple[str, Any]]:
        return self.module.named_modules()

    def named_arrays(self) -> Mapping[str, Stored]:
        return self.module.named_arrays()

    def named_parameters(self) -> Mapping[str, Stored]:
        return self.module.named_parameters()

    def store(self, dtype: str | None = None, seed: int | None = None) -> ParameterStore:
        return self.module.store(dtype, seed)


def apply(module: Module, name: str, *inputs: Any, batch_size: int = 256) -> Any:
    """The results of a module's method for arrays, as `predict` gives those of its `forward`.

    What was compiled is kept until the module changes.

    Args:
        module: the module.
        name: of a method of symbolic values.
        inputs: arrays of samples, one for each argument.
        batch_size: samples computed at a time.
    """
    kept: dict[str, tuple[Watch, Predictor]] = module.__dict__.setdefault("_methods", {})
    with building:
        found = kept.get(name)
        if found is None or _outdated(*found):
            found = kept[name] = _watched(module, Predictor(Method(module, attrgetter(name))))
    return found[1](*inputs, batch_size=batch_size)


def fixed(module: Module) -> Predictor:
    """What runs a module's `forward` for parameters that stay as they are now: whoever has changed
    them asks for it again. What is made of them alone need not be made in each call."""
    kept: dict[str, tuple[Watch, Predictor]] = module.__dict__.setdefault("_methods", {})
    with building:
        found = kept.get(FIXED)
        if found is None or _outdated(*found):
            found = kept[FIXED] = _watched(module, Predictor(weakref.ref(module), fixed=True))
        else:
            found[1].renew()
    return found[1].of(module)


def draw(module: Module, name: str, *inputs: np.ndarray, seed: int, **options: Any) -> Any:
    """The results of a method that draws random numbers, which follow from the seed, for arrays as
    one batch.

    What was compiled last is kept until the module changes. A call has it for itself; one of
    another thread makes its own.

    Args:
        module: the module.
        name: of a method of symbolic values.
        inputs: arrays of samples, one for each argument.
        seed: of the random numbers.
        options: further arguments of the method, which the program is made for.
    """
    kept: dict[str, Any] = module.__dict__.setdefault("_methods", {})
    before = kept.pop(f"{name}, drawn", None)
    predictor: Predictor
    if before is not None and before[0] == options and not _outdated(*before[1:]):
        _, watch, predictor = before
    else:
        before = None  # its memory is free before there is more
        predictor = Predictor(Method(module, lambda one: partial(getattr(one, name), **options)))
        watch = Watch(module)
    control = predictor.session.control
    control[[control_block.SEED, control_block.STEP]] = seed, 0
    found = predictor(*inputs, batch_size=len(inputs[0]))
    kept[f"{name}, drawn"] = options, watch, predictor
    return found


def _watched(module: Module, predictor: Predictor) -> tuple[Watch, Predictor]:
    """A predictor with what notices changes from now on: the parameters have memory now."""
    return Watch(module), predictor


def _outdated(watch: Watch, predictor: Predictor) -> bool:
    store = predictor.session.store
    return watch.changed() or store.stale or store.device != predictor.session.device


class Sampler:
    """Calls a method that draws random numbers, again and again: they are those of a seed and of
    the call's number."""

    def __init__(self, module: Module, name: str, seed: int):
        self.module = module
        self.predictor = Predictor(Method(module, attrgetter(name)))
        self.predictor.session.control[control_block.SEED] = seed

    def __call__(self, step: int, *inputs: np.ndarray) -> Any:
        self.predictor.session.control[control_block.STEP] = step
        return self.predictor(*inputs, batch_size=len(inputs[0]))
