"""Tracing: running a module's `forward` on symbolic values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from fastnn.errors import ShapeError
from fastnn.graph.graph import Graph
from fastnn.graph.tree import leaves
from fastnn.graph.value import Value


class Model(Protocol):
    """What is traced: a tree of modules, called with values."""

    @property
    def forward(self) -> Callable[..., Any]:
        """What describes the outputs."""

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Describe the outputs for these values."""

    def named_modules(self) -> Iterator[tuple[str, Any]]:
        """All modules with their names."""


def trace(model: Model, graph: Graph, *inputs: Value) -> tuple[Value, ...]:
    """Apply a model to input values; returns its outputs as a tuple, in order."""
    return tuple(value for _, value in leaves(trace_tree(model, graph, *inputs)))


def trace_tree(model: Model, graph: Graph, *inputs: Value, **named: Value) -> Any:
    """Apply a model to input values; returns its outputs in the structure of its `forward`."""
    names = {id(module): name for name, module in model.named_modules()}
    graph.module_names = names
    try:
        inspect.signature(model.forward).bind(*inputs, **named)
    except TypeError as error:
        raise ShapeError(
            f"{type(model).__name__}.forward cannot be called with {len([*inputs, *named])} inputs "
            f"({error}); pass one array for each of its arguments, several as a tuple; "
            "targets are no inputs: fit(x, y)"
        ) from None
    outputs: Any = model(*inputs, **named)
    found = [output for _, output in leaves(outputs)]
    for output in found:
        if not isinstance(output, Value) or output.graph is not graph:
            raise ShapeError(
                f"{type(model).__name__}.forward: expected it to return symbolic values, got "
                f"{type(output).__name__}; compute with layers and fastnn.ops only"
            )
    if not found:
        raise ShapeError(
            f"{type(model).__name__}.forward: expected it to return at least one symbolic value, "
            f"got an empty {type(outputs).__name__}"
        )
    return outputs[0] if isinstance(outputs, tuple) and len(outputs) == 1 else outputs
