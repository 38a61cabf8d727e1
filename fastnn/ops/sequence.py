"""Recurrent nets over whole sequences, states, and the loop."""

from __future__ import annotations

from collections.abc import Sequence
from types import FunctionType
from typing import Any, cast

import numpy as np

from fastnn import errors
from fastnn.errors import ShapeError
from fastnn.graph.graph import Graph
from fastnn.graph.leaf import Leaf
from fastnn.graph.node import memory_written
from fastnn.graph.op import batched_like
from fastnn.graph.sizes import whole
from fastnn.graph.value import Value
from fastnn.kernels.declare import declared
from fastnn.ops.arithmetic import affine, multiply, where
from fastnn.ops.declare import Operand, like, op
from fastnn.ops.feeding import write
from fastnn.ops.lengths import checked_lengths, steps_within, valid_steps
from fastnn.ops.operands import as_value, graph_of
from fastnn.ops.shape import reshape
from fastnn.public import publish


def load_state(x: Any, buffer: Leaf) -> Value:
    """A copy of a buffer's rows as they were before the step, one for each sequence of `x`."""
    graph = graph_of(x)
    value = affine(as_value(graph, buffer), 1.0, 0.0)
    value.batched = x.batched
    return value


def store_state(value: Any, buffer: Leaf) -> None:
    """Set a buffer's rows to `value`, for the next step."""
    graph = graph_of(value)
    write(value, as_value(graph, buffer))


def zeros_state(x: Any, size: int) -> Value:
    """A state of zeros for each sample of the batch: shape (batch, size).

    >>> testing.apply(lambda x: ops.zeros_state(x, 3), [[1.0], [2.0]])
    array([[0., 0., 0.],
           [0., 0., 0.]])
    """
    return graph_of(x).full((x.shape[0], whole(size)), 0.0, batched=True)


@op(
    backward=("put_row_backward_row",), differentiable=("x", "row"), linear=("x", "row"),
    constant=("running",), placement=batched_like("y"),
)  # fmt: skip
def put_row(x: Operand, row: Operand, at: Value, running: Value | None = None) -> Value:
    """Tables with one row replaced: what has been written so far joins what comes.

    As a state of `loop` that nobody asks for in earlier steps, a table stays where it is, and a
    step writes the row alone (`fastnn/plan/in_place.py`).

    Args:
        x: shape (N, rows, ...).
        row: shape (N, ...).
        at: where it is put, integers of shape (N,); a number that is no row puts nothing.
        running: which tables are written, shape (N,), or (batch,) where N is a multiple of it: 0
            leaves the table as it is. None: all.

    Raises:
        ShapeError: the shapes don't fit each other.

    >>> import numpy as np
    >>> from fastnn import nn, ops
    >>> class Put(nn.Module):
    ...     def forward(self, x, row, at):
    ...         return ops.put_row(x, row, at)
    >>> Put().predict(np.zeros((1, 3, 2), np.float32), np.ones((1, 2)), np.array([1]))
    array([[[0., 0.],
            [1., 1.],
            [0., 0.]]], dtype=float32)
    """
    fits = x.ndim > 1 and row.shape == (x.shape[0], *x.shape[2:])
    if not fits or at.shape != x.shape[:1] or at.dtype != "i":
        raise ShapeError(
            f"{errors.where(x.graph.scope)}put_row: expected tables of shape (N, rows, ...), a row "
            f"of each, (N, ...), and integers of shape (N,), got {x.shape}, {row.shape} and "
            f"{at.shape} of type {at.dtype!r}"
        )
    if running is not None and (running.ndim != 1 or x.shape[0] % running.shape[0]):
        raise ShapeError(
            f"{errors.where(x.graph.scope)}put_row: expected running to be a number for each of "
            f"{x.shape[0]} tables, or for several of them, got shape {running.shape}"
        )
    return like(x)


def loop(
    body: Any, sequences: Any, state: Any, lengths: Any = None, *, until: Any = None,
    steps: int | None = None,
) -> tuple[Any, ...]:  # fmt: skip
    """Repeat a body over time, with gradients: for recurrent nets of your own.

    Args:
        body: function of (x_t, state) returning (y_t, new state): the inputs of one step, shape
            (batch, ...), and the carried state; tuples or lists where there are several.
        sequences: shape (batch, steps, ...), or a tuple or list of such.
        state: the initial state, shape (batch, ...), or a tuple or list of such (see
            `zeros_state`).
        lengths: number of valid steps of each sequence, integers of shape (batch,), or None. Past
            the end the state stays as it is and outputs are 0.
        until: function of what the body returned for a step, (y_t, new state), returning a mask of
            shape (batch,) or (batch, 1): where it is not 0, this step was the sequence's last, just
            as if `lengths` said so. When all sequences have ended, no further steps are made.
        steps: number of steps, at most, where `sequences` is None: the body then gets None for x_t.

    Returns:
        Outputs of all steps, shape (batch, steps, ...), and the final state; with `until` also how
        many steps of each sequence were made, integers of shape (batch,).

    Raises:
        ShapeError: sequences and states do not fit, or the body returns something else.

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

    A decoder that writes the likeliest symbol (here as a one-hot row) in each step, until it has
    written symbol 0:

    >>> class Decoder(nn.Module):
    ...     def __init__(self, symbols, hidden):
    ...         self.symbols = symbols
    ...         self.cell, self.out = nn.GRUCell(symbols, hidden), nn.Linear(hidden, symbols)
    ...     def forward(self, h):
    ...         def step(_, state):
    ...             symbol, h = state
    ...             h = self.cell(symbol, h)
    ...             scores = self.out(h)
    ...             symbol = ops.equal(scores, ops.max(scores, axis=1, keepdims=True))
    ...             return symbol, (symbol, h)
    ...         ended = lambda symbol, state: symbol[:, 0]
    ...         start = ops.zeros_state(h, self.symbols), h
    ...         written, _, lengths = ops.loop(step, None, start, until=ended, steps=50)
    ...         return written, lengths
    >>> written, lengths = Decoder(8, 16).predict(np.ones((2, 16), np.float32))
    >>> written.shape, lengths.shape
    ((2, 50, 8), (2,))
    """
    from fastnn.graph.loop_again import loop as make

    xs, states = () if sequences is None else _parts(sequences), _parts(state)
    graph = graph_of(*states if any(isinstance(s, Value) for s in states) else xs)
    _refuse_others("sequences", xs, graph, (Value,))
    _refuse_others("the initial state", states, graph, (Value, Leaf, np.ndarray))
    batch, count = _sizes(graph, xs, states, steps, sequences)
    several: dict[str, bool] = {}

    def step(*parts: Value) -> tuple[list[Value], list[Value]]:
        step_xs, parts = parts[: len(xs)], parts[len(xs) :]
        mask = None
        if lengths is not None:
            mask, parts = parts[0], parts[1:]
        old = parts[: len(states)]
        if until is not None:
            mask = parts[-1] if mask is None else multiply(parts[-1], mask)
            # what stands past the end, be it NaN, reaches nothing
            step_xs = tuple(_within(mask, x, 0.0) if x.dtype == "f" else x for x in step_xs)
        graph.loops.append(count)
        try:
            returned = body(
                None if sequences is None else _like(sequences, step_xs), _like(state, old)
            )
        finally:
            graph.loops.pop()
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
        ended = None if until is None else _mask_of(until(y, new), batch, graph)
        if mask is not None:
            outputs = [_within(mask, output, 0.0) for output in outputs]
            fresh = [_kept(mask, after, before) for before, after in zip(old, fresh, strict=True)]
        if ended is not None:
            outputs.append(mask)
            fresh.append(where(ended, 0.0, mask))
        return outputs, fresh

    inputs = [*xs]
    if lengths is not None:
        mask = valid_steps(checked_lengths(graph, lengths, batch, count, "loop"), count)
        # what stands past the end, be it NaN, reaches neither the states nor a gradient
        inputs = [_within(mask, x, 0.0) if x.dtype == "f" else x for x in inputs]
        inputs.append(mask)
    begin, running = [as_value(graph, s) for s in states], None
    if until is not None:
        running = len(begin)
        begin.append(graph.full((batch,), 1.0, batched=True))
    outputs, finals = make(graph, step, inputs, begin, count, running)
    done = []
    if until is not None:
        done = [steps_within(outputs.pop())]
        finals = finals[:-1]
    y_all = tuple(outputs) if several["y"] else outputs[0]
    return y_all, _like(state, finals), *done


def _sizes(
    graph: Graph, xs: Sequence[Any], states: Sequence[Any], steps: Any, sequences: Any
) -> tuple[int, int]:
    """Samples of the batch, and steps; what is not a sequence `Loop` refuses."""
    if sequences is not None:
        if steps is not None:
            raise ShapeError(
                f"{errors.where(graph.scope)}loop: expected either sequences or a number of steps, "
                f"got both, steps={steps!r}; leave out steps, or give None for sequences"
            )
        return (xs[0].shape[0], xs[0].shape[1]) if xs[0].ndim > 1 else (0, 0)
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ShapeError(
            f"{errors.where(graph.scope)}loop: without sequences, expected steps to be how many "
            f"there are at most, an integer from 1 on, got {steps!r}"
        )
    return states[0].shape[0] if states[0].shape else 0, steps


def _mask_of(ended: Any, batch: int, graph: Graph) -> Value:
    """What `until` has returned, as one number for each sequence."""
    if not isinstance(ended, Value) or ended.shape not in ((batch,), (batch, 1)):
        raise ShapeError(
            f"{errors.where(graph.scope)}loop: expected until to return a mask with one number for "
            f"each of {batch} sequences, got {_shown(ended)}; compare with ops.greater or == and "
            "the like, over the last axis with ops.max or ops.sum"
        )
    return reshape(ended, batch)


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


def _kept(mask: Value, after: Value, before: Value) -> Value:
    """The new state where the mask holds, else the one before it."""
    changes = partial_changes(after, before)
    for change in changes:
        change["running"] = mask
    return after if changes else _within(mask, after, before)


def partial_changes(after: Value, before: Value) -> list[dict[str, Any]]:
    """The operands of what makes a state (`after`) of the one before it, if that is kernels which
    change a part of it and can be told which samples go on; else nothing."""
    found: list[dict[str, Any]] = []
    value = after
    for node in reversed(after.graph.nodes):
        if value.root is before:
            break
        made = node.outputs.values() or memory_written(node)
        if value.size != before.size or not any(value.root is root for root in made):
            continue  # a view is no change
        operands = node.inputs
        known = declared(node.op.forward_kernel) if node.of is None else None
        in_place = None if known is None else known.traits.in_place
        if in_place is None or operands.get("running", node) is not None:
            return []
        found.append(operands)
        value = cast(Value, operands[in_place.x])
    whole_state = value.root is before and value.size == before.size
    return found if whole_state else []


def _within(mask: Value, value: Value, otherwise: Any) -> Value:
    """The value where the mask, of the leading dimensions, holds; `otherwise` elsewhere."""
    return where(reshape(mask, *mask.shape, *(1,) * (value.ndim - mask.ndim)), value, otherwise)


publish(globals(), FunctionType)
