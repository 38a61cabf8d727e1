"""What an update's kernels for both devices have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..declare import helper
from ..simd import fma, maximum, minimum

#: scalars in front of the rule's own: L2 factor, factor of decoupled decay, limit of clipping, and
#: 1 (go down the gradient) or -1
SHARED = 4

#: the array of gradients that are accumulated over several steps
ACCUMULATED = "accumulated"

#: stands for the limit of clipping in a step that updates nothing
IDLE = -1.0

#: ends the names of CUDA's updates that copy what they change if the step is doubtful
SAVING = "_saving"
#: ends the names of those that also write the parameters in 16 bits, for products
HALVES = "_halves"

#: kernels for the CPU that were made of a rule, by name: "update" or "prepare", and what of; those
#: for CUDA are made of the same when somebody asks for them
MADE: dict[str, tuple[str, tuple[Any, ...]]] = {}


@dataclass(frozen=True)
class Pass:
    """One pass of an update over a parameter, by rows.

    Attributes:
        rule: function of values: those of `writes`, `reads`, with `factors` of row and column, then
            the step's scalars and the parameter's own numbers. Returns new values of `writes`,
            values of `outs`, and numbers to sum.
        writes, reads, outs: names of arrays: read and written, read, written. "p" is the parameter
            (after the decoupled decay, where it is written), "g" the gradient as a rule sees it.
        scalars, own: how many numbers of the step, and of the parameter.
        sums: how many sums over the parameter.
        factors: whether it has a number for each row ("row") and one for each column ("col").
    """

    rule: Callable[..., Any]
    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    outs: tuple[str, ...] = ()
    scalars: int = 0
    own: int = 0
    sums: int = 0
    factors: bool = False


@helper
def shared_gradient(g, p, factor, l2, limit):
    """The gradient as a rule sees it: scaled, clipped to [-limit, limit], plus l2 * p."""
    g = maximum(-limit, minimum(limit, g * factor))  # a NaN passes (second operand)
    return fma(p, l2, g)
