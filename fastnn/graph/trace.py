"""Tracing: running a module's `forward` on symbolic values."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from fastnn.errors import ShapeError
from fastnn.graph.graph import Graph, Value

if TYPE_CHECKING:
    from fastnn.nn.module import Module


def trace(model: Module, graph: Graph, *inputs: Value) -> tuple[Value, ...]:
    """Apply a model to input values; returns its outputs as a tuple."""
    names = {id(module): name for name, module in model.named_modules()}
    graph.module_names = names
    try:
        inspect.signature(model.forward).bind(*inputs)
    except TypeError as error:
        raise ShapeError(
            f"{type(model).__name__}.forward cannot be called with {len(inputs)} inputs ({error}); "
            "pass one array for each of its arguments, several as a tuple"
        ) from None
    outputs: Any = model(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    for output in outputs:
        if not isinstance(output, Value) or output.graph is not graph:
            raise ShapeError(
                f"{type(model).__name__}.forward: expected it to return symbolic values, got "
                f"{type(output).__name__}; compute with layers and fastnn.ops only"
            )
    return outputs
