"""Zoneout: a recurrent layer's units that keep their state for a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastnn import ops
from fastnn.errors import OptionError, check_numbers
from fastnn.graph.value import Value
from fastnn.ops.lengths import checked_lengths


def probabilities(name: str, given: Any, states: Sequence[str]) -> tuple[float, ...]:
    """The probability for each state, from one number or one for each."""
    several = isinstance(given, (tuple, list))
    found = tuple(given) if several else (given,) * len(states)
    if several and len(found) != len(states):
        raise OptionError(
            f"{name}: expected zoneout to be a number, or one for each of {list(states)}, got "
            f"{given!r}"
        )
    for number in found:
        check_numbers(name, zoneout=number)
        if not 0 <= number <= 1:
            raise OptionError(f"{name}: expected zoneout in [0, 1], got {number}")
    return tuple(float(number) for number in found)


def zoned(
    cell: Callable[[Value, list[Value]], list[Value]],
    x: Value,
    initial: list[Value],
    chances: Sequence[float],
    lengths: Value | None,
    reverse: bool,
) -> tuple[Value, list[Value]]:
    """Outputs of all steps, and the final states, of a cell with zoneout.

    In training each unit keeps its state in a step with the state's probability; in evaluation the
    new state is the mean of both (Krueger et al. 2017, equations 2 to 4 and section 3.1).

    Args:
        cell: of (the input of a step, the states before), the states after; outputs are the first.
        x: shape (batch, steps, features).
        initial: the states before the first step.
        chances: the probability for each state.
        lengths: of the sequences; past the end states stay as they are, and outputs are 0.
        reverse: from the end of each sequence to its start.
    """
    batch, steps = x.shape[:2]
    graph, count = x.graph, len(initial)
    extra: list[Value] = []
    valid = None
    if lengths is not None:
        lengths = checked_lengths(graph, lengths, batch, steps, "zoneout")
        places = np.arange(steps).reshape(1, steps)
        valid = ops.reshape(ops.greater(ops.reshape(lengths, -1, 1), places), batch, steps, 1)
        x = ops.where(valid, x, np.zeros((1, 1, 1)))
        extra.append(ops.flip(valid, 1) if reverse else valid)
    if reverse:
        x = ops.flip(x, 1)
    drawn = [k for k, chance in enumerate(chances) if chance and graph.training]
    for k in drawn:
        ones = graph.full((batch, steps, initial[k].shape[-1]), 1.0, x.batched)
        extra.append(ops.dropout(ones, chances[k], 1.0))

    def step(parts: Any, states: Any) -> Any:
        states, masks = list(states), list(parts[1:])
        within = masks.pop(0) if valid is not None else None
        after = cell(ops.reshape(parts[0], parts[0].shape[0], 1, parts[0].shape[1]), states)
        for k, chance in enumerate(chances):
            if k in drawn:
                after[k] = ops.where(masks[drawn.index(k)], after[k], states[k])
            elif chance:
                after[k] = after[k] * (1.0 - chance) + states[k] * chance
        y = after[0]
        if within is not None:
            y = ops.where(within, y, np.zeros((1, 1)))
            after = [ops.where(within, a, b) for a, b in zip(after, states, strict=True)]
        return y, tuple(after)

    y, finals = ops.loop(step, (x, *extra), tuple(initial))
    assert len(finals) == count
    return ops.flip(y, 1) if reverse else y, list(finals)
