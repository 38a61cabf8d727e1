"""Values in the place of parameters while something is traced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fastnn import ops
from fastnn.errors import OptionError
from fastnn.graph.graph import Graph
from fastnn.graph.leaf import Leaf
from fastnn.graph.tracing import traced
from fastnn.graph.value import Value
from fastnn.nn.module import Module
from fastnn.ops.operands import as_value


@contextmanager
def standing_for(graph: Graph, values: Mapping[Leaf, Value]) -> Iterator[None]:
    """A context in which values stand for parameters; each has its parameter's shape in memory."""
    kept = {parameter: as_value(graph, parameter) for parameter in values}
    graph.leaves.update(values)
    try:
        yield
    finally:
        graph.leaves.update(kept)


@contextmanager
def detached(*modules: Module) -> Iterator[None]:
    """A context, in a `forward` or a loss, in which the parameters of modules count as constants.

    Gradients pass through the modules to their inputs, but not to their parameters. So one player
    of a game learns how the other one judges its work, and both are trained in one step: see
    `fastnn.generative.GAN`. (`Module.freeze` keeps parameters from being trained at all.)

    Args:
        modules: layers or models that belong to the model that is traced.

    Raises:
        OptionError: nothing is being traced.

    >>> import numpy as np
    >>> import fastnn as fnn
    >>> from fastnn import nn
    >>> class Twice(nn.Module):
    ...     def __init__(self):
    ...         self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 1)
    ...     def forward(self, x):
    ...         with nn.detached(self.second):
    ...             return self.second(self.first(x))
    >>> step = fnn.compile(Twice(), "mse")
    >>> x = np.ones((4, 2), np.float32)
    >>> {name: bool(g.any()) for name, g in step.gradients(x, x[:, :1]).items()}
    {'first.weight': True, 'first.bias': True, 'second.weight': False, 'second.bias': False}
    """
    graph = traced()
    if graph is None:
        raise OptionError(
            "detached: expected to be used in a forward or a loss, where values are symbolic; to "
            "keep parameters from being trained use model.freeze(...)"
        )
    parameters = [p for module in modules for p in module.named_parameters().values()]
    with standing_for(graph, {p: ops.detach(as_value(graph, p)) for p in parameters}):
        yield


__all__ = ["detached"]
