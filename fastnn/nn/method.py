"""Functions of a model other than its `forward`, compiled for arrays as `predict` is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from fastnn.engine.access import building
from fastnn.engine.predictor import Predictor
from fastnn.engine.store import ParameterStore, Stored
from fastnn.kernels import control_block
from fastnn.nn.module import Module
from fastnn.nn.structure import Watch

#: under which the predictor of `fixed` is kept; no method's name
FIXED = "forward, fixed"


class Method:
    """A module with another function in place of its `forward`.

    Args:
        module: whose parameters it has.
        function: of symbolic values.
    """

    def __init__(self, module: Module, function: Callable[..., Any]):
        self.module, self.forward = module, function

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
            found = kept[name] = (Watch(module), Predictor(Method(module, getattr(module, name))))
    return found[1](*inputs, batch_size=batch_size)


def fixed(module: Module) -> Predictor:
    """What runs a module's `forward` for parameters that stay as they are now: whoever has changed
    them asks for it again. What is made of them alone need not be made in each call."""
    kept: dict[str, tuple[Watch, Predictor]] = module.__dict__.setdefault("_methods", {})
    with building:
        found = kept.get(FIXED)
        if found is None or _outdated(*found):
            found = kept[FIXED] = (Watch(module), Predictor(module, fixed=True))
        else:
            found[1].renew()
    return found[1]


def _outdated(watch: Watch, predictor: Predictor) -> bool:
    store = predictor.session.store
    return watch.changed() or store.stale or store.device != predictor.session.device


class Sampler:
    """Calls a method that draws random numbers, again and again: they are those of a seed and of
    the call's number."""

    def __init__(self, module: Module, name: str, seed: int):
        self.predictor = Predictor(Method(module, getattr(module, name)))
        self.predictor.session.control[control_block.SEED] = seed

    def __call__(self, step: int, *inputs: np.ndarray) -> Any:
        self.predictor.session.control[control_block.STEP] = step
        return self.predictor(*inputs, batch_size=len(inputs[0]))
