"""Steps of sequences, and the strides of what is saved of them."""

from typing import Any, NamedTuple

from ..declare import helper

#: `packed` of a weight in pairs of bfloat16 numbers, and how many columns a group of pairs has
IN_PAIRS, PAIRED = -1, 32


class Weight(NamedTuple):
    """A weight of so many rows (`height`); `packed` as in `cpu.py`."""

    array: Any
    packed: int
    height: int


@helper
def padded(size):
    """A row's stride: an odd number of 16 elements, so that rows fall into different cache sets."""
    return (((size + 15) // 16) | 1) * 16


@helper
def length_of(lengths, b, steps):
    """The valid steps of sequence b."""
    if lengths.size > 0:
        return min(max(lengths[b], 0), steps)
    return steps


@helper
def step_of(turn, length, reverse):
    """The step of a sequence that is computed in this turn."""
    return length - 1 - turn if reverse else turn
