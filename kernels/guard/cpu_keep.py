"""Copies of what a step changes before it is known to be good: running statistics, states.

C numbers, L words of the control block.
"""

from ..control_block import NOT_FINITE, STOP
from ..declare import kernel


@kernel(bookkeeping=True)
def keep(
    x: "in whole f[C]",
    control: "in whole i[L]",
    saved: "part whole f[C]",
):
    """saved = x after a good step."""
    if control[STOP] != NOT_FINITE:
        for i in range(x.shape[0]):
            saved[i] = x[i]
