"""Lengths of the sequences of a batch: their checks, and what they say of steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.errors import ShapeError, is_whole, where
from fastnn.graph.graph import Graph
from fastnn.graph.op import batched, batched_like
from fastnn.graph.value import Value
from fastnn.ops.arithmetic import where as chosen
from fastnn.ops.declare import floats, like, op, output
from fastnn.ops.shape import reshape


def checked_lengths(
    graph: Graph, lengths: Any, batch: int, steps: int, name: str, given: str = "lengths",
    least: int = 0,
) -> Any:  # fmt: skip
    """Lengths of a batch's sequences, of at most `steps`; None if there are none.

    Args:
        lengths: what a user has passed: a value, an array (a constant), or None.
        batch: how many sequences there are.
        steps: of the padded sequences.
        name: of the op.
        given: what the op calls them.
        least: steps that a sequence has to have.

    Raises ShapeError if they are not integers of shape (batch,) that belong to the samples.
    """
    if lengths is None:
        return None
    wanted, label = (batch,), f"{where(graph.scope)}{name}"
    whole = isinstance(lengths, np.ndarray) and lengths.dtype.kind in "iu"
    if whole or (isinstance(lengths, (list, tuple)) and all(is_whole(n, 0) for n in lengths)):
        lengths = graph.constant(np.asarray(lengths), "i", given)
    if not isinstance(lengths, Value):
        raise ShapeError(
            f"{label}: expected {given} as an input of the model, a symbolic value of shape "
            f"{wanted}, got {type(lengths).__name__}; make them an argument of forward, and pass "
            "them with the data"
        )
    if lengths.shape != wanted:
        raise ShapeError(f"{label}: expected {given} of shape {wanted}, got {lengths.shape}")
    if lengths.dtype != "i":
        raise ShapeError(
            f"{label}: expected integers as {given}, got floating-point numbers; convert them with "
            "astype(np.int64) before they are passed to the model"
        )
    known = lengths.data
    if known is not None and known.size and not (known.min() >= least and known.max() <= steps):
        raise ShapeError(
            f"{label}: expected {given} within {least}..{steps}, the steps of the sequences, got "
            f"{known.min()}..{known.max()}; cut them, or leave out samples without a step"
        )
    if lengths.segment == "input" or lengths.node is not None:
        graph.limit(lengths, least, steps + 1, steps=True)
    return lengths


@op(name="length_mask", forward="length_mask", constant=("lengths",), placement=batched)
def valid_steps(lengths: Value, steps: int) -> Value:
    """1 where a step is valid, else 0: (N, steps)."""
    return floats(lengths.shape[0], steps)


@op(name="mask_length", forward="mask_length", constant=("mask",), placement=batched)
def steps_within(mask: Value) -> Value:
    """How many steps of each sequence a mask (N, steps) calls valid, integers (N,)."""
    return output(mask.shape[:1], "i")


def within(x: Value, lengths: Value, otherwise: float = 0.0) -> Value:
    """x (N, T, C) where steps are valid, else another number."""
    mask = valid_steps(lengths, x.shape[1])
    return chosen(reshape(mask, *mask.shape, 1), x, otherwise)


@op(
    name="count_windows", forward="count_windows", constant=("lengths",),
    placement=batched_like("y", like="lengths"),
)  # fmt: skip
def windows_of(lengths: Value, span: int, stride: int, both: int) -> Value:
    """How many windows of `span` steps each sequence has, with `both` zeros around it."""
    return like(lengths)


@op(
    name="count_places", forward="count_places", constant=("lengths",),
    placement=batched_like("y", like="lengths"),
)  # fmt: skip
def places_of(lengths: Value, scale: float, shift: int) -> Value:
    """How many places each sequence has that becomes ``scale*length + shift`` long, rounded down:
    0 where that is less, and for sequences without steps."""
    return like(lengths)
