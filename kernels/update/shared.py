"""What an update's kernels for both devices have in common."""

from typing import Any

from ..declare import helper
from ..simd import fma, maximum, minimum

#: scalars in front of the rule's own: L2 factor, factor of decoupled decay, limit of clipping, and
#: 1 (go down the gradient) or -1
SHARED = 4

#: ends the names of CUDA's updates that copy what they change if the step is doubtful
SAVING = "_saving"

#: kernels for the CPU that were made of a rule, by name: "update" or "prepare", and what of; those
#: for CUDA are made of the same when somebody asks for them
MADE: dict[str, tuple[str, tuple[Any, ...]]] = {}


@helper
def shared_gradient(g, p, factor, l2, limit):
    """The gradient as a rule sees it: scaled, clipped to [-limit, limit], plus l2 * p."""
    g = maximum(-limit, minimum(limit, g * factor))  # a NaN passes (second operand)
    return fma(p, l2, g)
