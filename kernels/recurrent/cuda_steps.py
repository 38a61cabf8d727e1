"""One turn a launch: for nets whose weights don't fit into the blocks' shared memory.

The recurrent products are made by the kernels of `matmul`, a launch each: on the way forward
zh = h W_hh + b_hh, then a kernel of the cell's own (`rnn`, `lstm` and `gru` have them in their
`cuda_steps.py`) for the rest of the turn; backward first the kernel, then dh = dz_step W_hh^T for
the turn before. Sequences past their end take part with zeros. `h_n` and `c_n` are the state on the
way forward. Formulas and what is saved are those of the cells' other kernels.
"""

from typing import NamedTuple

from ..cuda.device import cast, divide_index, flat_index
from ..declare import ceil_div, cuda_kernel, helper
from .cuda import THREADS, value_or_zero
from .shared import length_of, step_of


class Turn(NamedTuple):
    """What a thread computes in this turn: unit j of sequence b, which has `length` steps; this
    turn's is `step`, unless it is past the end."""

    b: int
    j: int
    length: int
    step: int


@helper
def turn_of(i, lengths, steps, hidden, turn, reverse) -> Turn:
    """What thread i computes, of sequences of up to `steps` steps."""
    b = divide_index(i, hidden)
    length = length_of(lengths, b, steps)
    return Turn(b, i - b * hidden, length, step_of(turn, length, reverse))


def launch_units(sizes: dict[str, int]) -> tuple[int, int]:
    """A thread for each unit of each sequence."""
    return ceil_div(sizes["B"] * sizes["H"], THREADS), THREADS


def this_turn(sizes: dict[str, int]) -> tuple[int, int, int]:
    """What a turn writes of (B, T, ...): a step of each sequence, another one in each turn."""
    return sizes["turn"], sizes["turn"] + 1, sizes["T"]


@cuda_kernel(launch=launch_units)
def state_begin(
    given: "in rows f[B,H]",  # absent: zeros
    state: "out rows f[B,H]",
):
    """A cell's state before the first turn."""
    i = flat_index()
    if i < state.size:
        b = divide_index(i, state.shape[1])
        j = i - b * state.shape[1]
        state[b, j] = value_or_zero(given, b, j)


@cuda_kernel(launch=launch_units)
def state_begin_backward(
    lengths: "in rows i[B]",
    carried: "in rows f[B,H]",  # gradient that came through the turns, to the first state
    direct: "in rows f[B,H]",  # another part of it; may be absent
    final: "in rows f[B,H]",  # gradient of the final state; may be absent
    gradient: "out rows f[B,H]",
    steps: "int",
    bptt: "int",
):
    """The gradient of the first state: nothing comes through where it is truncated, and a sequence
    of no steps hands the final state's on."""
    i = flat_index()
    if i < gradient.size:
        b = divide_index(i, gradient.shape[1])
        j = i - b * gradient.shape[1]
        value = cast(gradient, 0)
        if length_of(lengths, b, steps) == 0:
            value = value_or_zero(final, b, j)
        elif bptt == 0:
            value = carried[b, j] + value_or_zero(direct, b, j)
        gradient[b, j] = value
