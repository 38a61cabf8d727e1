"""Recurrent nets over whole sequences, states, and the loop."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import numpy as np

from fastnn import errors
from fastnn.errors import ShapeError
from fastnn.graph.graph import Graph
from fastnn.graph.leaf import Leaf
from fastnn.graph.value import Value
from fastnn.ops.arithmetic import where
from fastnn.ops.operands import as_value, graph_of
from fastnn.ops.shape import reshape
from fastnn.public import publish


def load_state(x: Any, buffer: Leaf) -> Value:
    """A copy of a buffer's rows as they were before the step, one for each sequence of `x`."""
    graph = graph_of(x)
    value = graph.value(buffer.shape, name=f"before {buffer.name}")
    value.batched = x.batched
    graph.call("affine", x=as_value(graph, buffer), y=value, scale=1.0, shift=0.0)
    return value


def store_state(value: Any, buffer: Leaf) -> None:
    """Set a buffer's rows to `value`, for the next step."""
    graph = graph_of(value)
    graph.call("affine", x=value, y=as_value(graph, buffer), scale=1.0, shift=0.0)


def zeros_state(x: Any, size: int) -> Value:
    """A state of zeros for each sample of the batch: shape (batch, size)."""
    return graph_of(x).full((x.shape[0], int(size)), 0.0, batched=True)


def loop(body: Any, sequences: Any, state: Any, lengths: Any = None) -> tuple[Any, Any]:
    """Repeat a body over time, with gradients: for recurrent nets of your own.

    Args:
        body: function of (x_t, state) returning (y_t, new state): the inputs of one step, shape
            (batch, ...), and the carried state; tuples or lists where there are several.
        sequences: shape (batch, steps, ...), or a tuple or list of such.
        state: the initial state, shape (batch, ...), or a tuple or list of such (see
            `zeros_state`).
        lengths: number of valid steps of each sequence, integers of shape (batch,), or None. Past
            the end the state stays as it is and outputs are 0.

    Returns:
        Outputs of all steps, shape (batch, steps, ...), and the final state.

    >>> from fastnn import nn, ops
    >>> class Elman(nn.Module):
    ...     def __init__(self, features, hidden):
    ...         self.hidden, self.mix = hidden, nn.Linear(features + hidden, hidden)
    ...     def forward(self, x):
    ...         def step(x_t, h):
    ...             h = ops.tanh(self.mix(ops.concatenate(x_t, h)))
    ...             return h, h
    ...         outputs, last = ops.loop(step, x, ops.zeros_state(x, self.hidden))
    ...         return last
    """
    from fastnn.graph.loop import loop as make

    xs, states = _parts(sequences), _parts(state)
    graph = graph_of(*states if any(isinstance(s, Value) for s in states) else xs)
    _refuse_others("sequences", xs, graph, (Value,))
    _refuse_others("the initial state", states, graph, (Value, Leaf, np.ndarray))
    several: dict[str, bool] = {}

    def step(*parts: Value) -> tuple[list[Value], list[Value]]:
        mask = parts[len(xs)] if lengths is not None else None
        step_xs, old = parts[: len(xs)], parts[len(parts) - len(states) :]
        returned = body(_like(sequences, step_xs), _like(state, old))
        if not isinstance(returned, (tuple, list)) or len(returned) != 2:
            raise ShapeError(
                f"{errors.where(graph.scope)}loop: expected the body to return a pair, the outputs "
                f"and the new state of a step, got {_shown(returned)}; return y_t, state"
            )
        y, new = returned
        several["y"] = isinstance(y, (tuple, list))
        outputs, fresh = list(_parts(y)), list(_parts(new))
        _refuse_others("outputs of the body", outputs, graph, (Value,))
        _refuse_others("the new state", fresh, graph, (Value,))
        if len(fresh) != len(old):
            raise ShapeError(
                f"{errors.where(graph.scope)}loop: expected {len(old)} new states of the body, as "
                f"there are initial ones, got {len(fresh)}"
            )
        if mask is not None:
            outputs = [_within(mask, output, 0.0) for output in outputs]
            fresh = [_within(mask, after, before) for before, after in zip(old, fresh, strict=True)]
        return outputs, fresh

    inputs = [*xs]
    if lengths is not None:
        if isinstance(lengths, Value):
            graph.limit(lengths, 0, xs[0].shape[1] + 1, steps=True)
        mask = graph.value((xs[0].shape[0], xs[0].shape[1]), batched=True, name="mask")
        graph.call("length_mask", lengths=lengths, y=mask)
        # what stands past the end, be it NaN, reaches neither the states nor a gradient
        inputs = [_within(mask, x, 0.0) if x.dtype == "f" else x for x in inputs]
        inputs.append(mask)
    outputs, finals = make(graph, step, inputs, [as_value(graph, s) for s in states])
    y_all = tuple(outputs) if several["y"] else outputs[0]
    return y_all, _like(state, finals)


def _parts(given: Any) -> tuple[Any, ...]:
    """What there are several of, or the one."""
    return tuple(given) if isinstance(given, (tuple, list)) else (given,)


def _like(given: Any, parts: Any) -> Any:
    """Parts as a list, a tuple, or the one, as it was given."""
    if isinstance(given, list):
        return list(parts)
    return tuple(parts) if isinstance(given, tuple) else parts[0]


def _shown(given: Any) -> str:
    return str(given) if isinstance(given, Value) else type(given).__name__


def _refuse_others(what: str, parts: Any, graph: Graph, kinds: tuple[type, ...]) -> None:
    """Raise ShapeError for parts of other kinds."""
    for part in parts:
        if not isinstance(part, kinds):
            raise ShapeError(
                f"{errors.where(graph.scope)}loop: expected {what} to be symbolic, one value or a "
                f"tuple or list of values, got {_shown(part)}"
            )


def _within(mask: Value, value: Value, otherwise: Any) -> Value:
    """The value where the mask, of the leading dimensions, holds; `otherwise` elsewhere."""
    return where(reshape(mask, *mask.shape, *(1,) * (value.ndim - mask.ndim)), value, otherwise)


publish(globals(), FunctionType)
