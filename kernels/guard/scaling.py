"""Loss scaling, for gradients in 16 bits: float16 has no numbers below 6e-8 (Micikevicius et al.
2018, *Mixed Precision Training*).

The gradient of the loss to itself is a power of two instead of 1, and gradients are divided by it
before anyone looks at them: no bit changes but for numbers that float16 would have lost. A step
whose gradients are not finite updates nothing and is not counted by the optimiser; the next one has
half the factor. After `GROWTH` steps that went well the factor is doubled.
"""

from ..control_block import GOOD, NOT_FINITE, OVERFLOW, SCALE, SKIPPED, STOP
from ..declare import helper

#: exponents of the factor: in the first step, and at most
FIRST, MOST = 16, 24
#: steps that go well before the factor is doubled
GROWTH = 2000
HYPER_LIMIT = 2  # where the limit of clipping stands among an update's numbers


@helper
def adapt(control, guard):
    """The factor of the next step."""
    if control[STOP] != 0:
        return
    if guard[OVERFLOW] != 0:
        control[GOOD] = 0
        if control[SCALE] > 0:
            control[SCALE] -= 1
            control[SKIPPED] += 1
        else:  # no factor is small enough
            control[STOP] = NOT_FINITE
    else:
        control[GOOD] += 1
        if control[GOOD] >= GROWTH:
            control[GOOD] = 0
            control[SCALE] = min(control[SCALE] + 1, MOST)
