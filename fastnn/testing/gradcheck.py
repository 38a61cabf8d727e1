"""Gradients against central differences."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastnn.engine.builder import Builder
from fastnn.engine.session import Session
from fastnn.engine.specs import Spec
from fastnn.errors import DataError
from fastnn.graph.gradient import differentiate
from fastnn.graph.leaf import as_seen
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.runtime.interface import Bound


def gradcheck(
    function: Module | Callable[..., Any],
    *inputs: Any,
    eps: float = 1e-6,
    rtol: float = 1e-5,
    atol: float = 1e-7,
    seed: int = 0,
    parameters: bool = True,
    training: bool = True,
) -> bool:
    """Compare the gradients of a module or function with central differences, in float64.

    The gradient of the outputs is random, so that errors do not cancel, and every element of every
    floating-point input and parameter is checked. Dropout works as well, since its mask is the same
    in every evaluation. A module is copied first and left unchanged.

    Args:
        function: a module, or a function of symbolic values (an op, or several).
        inputs: arrays with the samples first, all of the same length: floats are checked,
            integers are passed on. An `nn.Parameter` stands for an input that is not one array
            per sample, such as a weight; its contents are checked like an input's. Keep away from
            kinks (0 for ReLU), where differences mean nothing.
        eps: relative step of the differences.
        rtol, atol: two numbers agree if they differ by at most
            ``atol + rtol * max(|analytic|, |numeric|)``.
        seed: seed of the outputs' gradient, of parameters not yet initialised, and of dropout.
        parameters: whether to check a module's parameters, too.
        training: whether layers behave as in training (dropout, batch norm) or as in evaluation.

    Returns:
        True.

    Raises:
        AssertionError: for the worst element that does not agree; names the input or parameter, the
            index, and both values.
        DataError, ShapeError: the inputs don't fit each other or the function.

    >>> import numpy as np
    >>> from fastnn import nn, ops, testing
    >>> x = np.random.default_rng(0).normal(size=(5, 3))
    >>> testing.gradcheck(nn.Sequential(nn.Linear(3, 4), nn.Tanh()), x)
    True
    >>> testing.gradcheck(lambda a, b: ops.tanh(a) * b, x, x + 1.0)
    True
    """
    model = as_model(function, inputs)
    arrays = {
        f"x{k}": _as_input(a)
        for k, a in enumerate(a for a in inputs if not isinstance(a, Parameter))
    }
    batch = _common_length(arrays)
    check = _Check(model, arrays, batch, seed, training)
    given = {f"input {k}" for k, a in enumerate(inputs) if isinstance(a, Parameter)}
    worst: tuple[float, str] = (0.0, "")
    for name, analytic, place in check.gradients():
        label = _label(name)
        if not parameters and name not in arrays and label not in given:
            continue
        numeric = np.empty_like(analytic)
        for index in np.ndindex(analytic.shape):
            numeric[index] = check.difference(place, index, eps)
        excess = np.abs(analytic - numeric) - (
            atol + rtol * np.maximum(np.abs(analytic), np.abs(numeric))
        )
        excess[~np.isfinite(analytic) | ~np.isfinite(numeric)] = np.inf
        if excess.size and excess.max() > worst[0]:
            index = tuple(int(i) for i in np.unravel_index(excess.argmax(), excess.shape))
            worst = (
                float(excess.max()),
                f"{label}, index {index}: analytic gradient {analytic[index]:.10g}, numeric "
                f"{numeric[index]:.10g}; {int((excess > 0).sum())} of {excess.size} elements of it "
                "disagree",
            )
    if worst[1]:
        raise AssertionError(f"gradcheck: {worst[1]}")
    return True


class _Function(Module):
    """A plain function as a module; the parameters among its inputs are its own."""

    def __init__(self, function: Callable[..., Any], inputs: tuple[Any, ...]):
        self.function = function
        self.where = [isinstance(a, Parameter) for a in inputs]
        for k, a in enumerate(inputs):
            if isinstance(a, Parameter):
                object.__setattr__(self, f"input{k}", a)

    def forward(self, *values: Any) -> Any:
        rest = iter(values)
        return self.function(
            *(getattr(self, f"input{k}") if p else next(rest) for k, p in enumerate(self.where))
        )


def _label(name: str) -> str:
    """What messages call an input (x0) or parameter."""
    if name[:1] == "x" and name[1:].isdigit():
        return f"input {name[1:]}"
    if name.startswith("input") and name[5:].isdigit():
        return f"input {name[5:]}"
    return f"parameter {name!r}"


def as_model(function: Any, inputs: tuple[Any, ...]) -> Module:
    """A copy of the module with memory of its own; a function is wrapped in a module."""
    if isinstance(function, Module):
        if any(isinstance(a, Parameter) for a in inputs):
            raise DataError(
                "expected arrays as inputs of a module; an nn.Parameter can only be an "
                "input of a plain function"
            )
    else:
        function = _Function(function, inputs)
    model: Module = copy.deepcopy(function)
    return model


def _as_input(array: Any) -> np.ndarray:
    array = np.asarray(array)
    if array.ndim == 0 or array.dtype.kind not in "fiu":
        raise DataError(
            f"gradcheck: expected arrays of floats or integers with the samples first, got "
            f"{array.dtype}{list(array.shape)}"
        )
    return array.astype(np.float64 if array.dtype.kind == "f" else np.int64)


def _common_length(arrays: dict[str, np.ndarray]) -> int:
    lengths = {len(a) for a in arrays.values()}
    if len(lengths) != 1:
        raise DataError(
            f"gradcheck: expected inputs of equal length, got {[len(a) for a in arrays.values()]}; "
            "pass what is not one array per sample (a weight) as nn.Parameter"
        )
    return lengths.pop()


class _Check:
    """A model's forward and backward programs, and the random gradient of its outputs."""

    def __init__(
        self, model: Module, arrays: dict[str, np.ndarray], batch: int, seed: int, training: bool
    ):
        self.model, self.arrays, self.batch, self.training = model, arrays, batch, training
        self.store = model.store("float64", seed)
        self.session = Session(self.store, (), 0, 1)
        self.rng = np.random.default_rng(seed)
        self.douts: dict[str, np.ndarray] = {}
        builder = self._builder()
        self.forward = self._bind(builder)
        self.run = self.session.runtime.single([self.forward], (), ()).run
        self.run(())
        for name in self.douts:
            if not np.isfinite(self.forward.view(name)).all():
                raise AssertionError(f"gradcheck: {name} is not finite")

    def _builder(self) -> Builder:
        """The forward pass; all floating-point outputs are places."""
        builder = Builder(self.model, self.store, self.batch, self.training, "direct")
        specs = [
            Spec(a.shape[1:], "f" if a.dtype == np.float64 else "i") for a in self.arrays.values()
        ]
        outputs = builder.outputs(builder.inputs("x", specs))
        for k, output in enumerate(outputs):
            if output.dtype == "f":
                builder.places[f"output {k}"] = output
                self.douts.setdefault(f"output {k}", self.rng.normal(size=output.shape))
        return builder

    def _bind(self, builder: Builder) -> Bound:
        bound: Bound = self.session.bind(builder.finish(advance=False).program)
        for name, array in self.arrays.items():
            bound.view(name)[...] = array
        return bound

    def gradients(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Name, gradient, and the array in memory, for every input and parameter."""
        builder = self._builder()
        graph = builder.graph
        inputs = [builder.places[n] for n, a in self.arrays.items() if a.dtype == np.float64]
        names = [n for n, a in self.arrays.items() if a.dtype == np.float64]
        trained = self.model.named_parameters()
        known = {n: p for n, p in trained.items() if p in graph.leaves}
        wrt = [*inputs, *(graph.leaves[p] for p in known.values())]
        names += known
        outputs = [(n, builder.places[n]) for n in self.douts]
        for output_name, output in outputs:
            seed = graph.constant(self.douts[output_name])
            seed.batched = output.batched
            for name, gradient in zip(names, differentiate(graph, output, wrt, seed), strict=True):
                if gradient is not None:
                    builder.places[f"{output_name}, {name}"] = gradient
        backward = self._bind(builder)
        self.session.run([(backward, 1)], lambda: None)
        totals = {}  # all of them now: the forward program works in the same memory
        for name in names:
            parameter = known.get(name)
            shape = parameter.storage_shape if parameter else self.arrays[name].shape
            totals[name] = np.zeros(shape)
            for output_name, _ in outputs:
                if f"{output_name}, {name}" in builder.places:
                    totals[name] += backward.view(f"{output_name}, {name}").reshape(shape)
        for name, array in self.arrays.items():  # one program's inputs may lie where another's do
            self.forward.view(name)[...] = array
        for name, total in totals.items():
            parameter = known.get(name)
            if parameter is None:
                yield name, total, self.forward.view(name)
            else:
                yield name, as_seen(total) if parameter.transposed else total, parameter.value

    def value(self) -> float:
        """The number whose gradients are checked: the outputs' dot product with `douts`."""
        self.run(())
        return float(sum((self.forward.view(n) * d).sum() for n, d in self.douts.items()))

    def difference(self, place: np.ndarray, index: tuple[int, ...], eps: float) -> float:
        """The central difference for one element."""
        kept = float(place[index])
        step = eps * max(1.0, abs(kept))
        place[index] = kept + step
        above = self.value()
        place[index] = kept - step
        below = self.value()
        place[index] = kept
        return (above - below) / (2 * step)
