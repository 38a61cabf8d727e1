"""What the engine asks of a model, and what it finds out by a look at one."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from fastnn.engine.specs import Spec
from fastnn.engine.store import ParameterStore, Stored
from fastnn.errors import FastnnError, ShapeError
from fastnn.graph.graph import Graph
from fastnn.graph.trace import trace_tree
from fastnn.graph.value import Value

#: samples in traces that only look at a model
PROBE = 7


class Model(Protocol):
    """A function that is traced, with the memory of its parameters."""

    @property
    def forward(self) -> Callable[..., Any]:
        """What describes the outputs; its arguments have the inputs' names."""

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Describe the outputs for these symbolic values."""

    def named_modules(self) -> Iterator[tuple[str, Any]]:
        """Its parts, itself included, with their names."""

    def named_arrays(self) -> Mapping[str, Stored]:
        """All parameters and buffers by name."""

    def named_parameters(self) -> Mapping[str, Stored]:
        """Those that are trained."""

    def store(self, dtype: str | None = None, seed: int | None = None) -> ParameterStore:
        """The memory of all parameters; made on the first call."""


class Stateful:
    """Base of a model's parts that carry states from batch to batch.

    Attributes:
        stateful: the batch size that they insist on; None: they carry nothing.
    """

    stateful: int | None = None


def streams(model: Model) -> dict[str, int]:
    """How many sequences each part that carries states reads side by side, by the part's name."""
    return {
        name: int(part.stateful)
        for name, part in model.named_modules()
        if isinstance(part, Stateful) and part.stateful
    }


def described(model: Model) -> dict[str, list[str]]:
    """What a checkpoint's metadata hold of the description that goes with a model, if one does."""
    digests = vars(model).get("_described")
    return {} if digests is None else {"description": list(digests)}


def fixed_batch(model: Model) -> int | None:
    """The batch size that a model with carried states insists on."""
    return next(iter(streams(model).values()), None)


def check_names(model: Model, given: Sequence[str]) -> None:
    """Raise ShapeError for names that are not those of a model's inputs, the optional ones apart.

    They are the names of the arguments of its `forward`.
    """
    kinds = inspect.Parameter
    arguments = inspect.signature(model.forward).parameters.values()
    if any(a.kind is kinds.VAR_KEYWORD for a in arguments):
        return
    wanted = [
        a.name
        for a in arguments
        if a.kind not in (kinds.VAR_POSITIONAL, kinds.POSITIONAL_ONLY)
        and (a.name in given or a.default is kinds.empty)
    ]
    if sorted(wanted) != sorted(given):
        raise ShapeError(
            f"{type(model).__name__}.forward: expected inputs called {wanted}, got {list(given)}; "
            "a dict's keys are the names of forward's arguments"
        )


def by_name(model: Model, inputs: Sequence[Any], named: Mapping[str, Any]) -> Sequence[Any]:
    """Inputs of which some were given by the names of a model's arguments: a dict of all of them.

    Raises ShapeError for names that are not those of its inputs, or that are given twice.
    """
    if not named:
        return inputs
    order = list(inspect.signature(model.forward).parameters)
    if len(inputs) > len(order) or any(isinstance(x, (Mapping, tuple)) for x in inputs):
        raise ShapeError(
            f"{type(model).__name__}.forward: expected an array for each of its arguments where "
            f"some are given by name ({', '.join(named)}), got {len(inputs)} others; pass all as "
            "a dict"
        )
    names = order[: len(inputs)]
    if twice := set(names) & set(named):
        raise ShapeError(
            f"{type(model).__name__}.forward: expected each input once, got {min(twice)!r} twice; "
            "leave one out"
        )
    check_names(model, [*names, *named])
    return ({**dict(zip(names, inputs, strict=True)), **named},)


def apply_to(model: Model, graph: Graph, keys: Mapping[Value, str], inputs: Sequence[Value]) -> Any:
    """A model's outputs for inputs, by the names of its arguments where they have some."""
    if not any(value in keys for value in inputs):
        return trace_tree(model, graph, *inputs)
    named = {keys[value]: value for value in inputs}
    check_names(model, list(named))
    return trace_tree(model, graph, **named)


def resolved(model: Model, specs: tuple[Spec, ...]) -> tuple[Spec, ...]:
    """Specs of inputs in which small integers are numbers or ids, as the model can take them.

    Numbers, where it takes either.
    """

    def traced(found: tuple[Spec, ...]) -> None:
        model.store()
        graph = Graph(fixed_batch(model) or PROBE, dtype="float64")  # which holds every constant
        inputs = [graph.input(f"x{k}", s.shape, s.dtype) for k, s in enumerate(found)]
        keys = {value: s.key for s, value in zip(found, inputs, strict=True) if s.key}
        try:
            apply_to(model, graph, keys, inputs)
        finally:
            graph.release()

    return first_fit(specs, "fi", traced)


def first_fit(
    specs: tuple[Spec, ...], letters: str, trial: Callable[[tuple[Spec, ...]], object]
) -> tuple[Spec, ...]:
    """Specs in which each array of small integers has one of these element types, such that a trial
    is not refused: the first ones of up to 64, or the first of all where all are."""
    small = [k for k, spec in enumerate(specs) if spec.small]
    if not small:
        return specs
    tried = []
    for chosen in itertools.islice(itertools.product(letters, repeat=len(small)), 64):
        kinds = dict(zip(small, chosen, strict=True))
        found = tuple(
            replace(spec, dtype=kinds.get(k, spec.dtype), small=False)
            for k, spec in enumerate(specs)
        )
        try:
            trial(found)
        except FastnnError:
            tried.append(found)
        else:
            return found
    return tried[0]  # what is wrong is said when its step is built
