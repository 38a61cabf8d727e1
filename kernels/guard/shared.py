"""Limits of the guard, and when a step is doubtful."""

from ..control_block import DOUBT, RUN_STEP
from ..declare import helper

#: a parameter from which on the next step is doubtful
LARGEST = 1e15
#: a learning rate above which a step is doubtful
RATE = 1e3
INFINITY = float("inf")
#: below it a slot's number counts as 0
NOTHING = 1e-37


@helper
def doubtful(control, schedule, guard, always):
    """Whether this step needs copies of what it changes."""
    doubt = always != 0 or guard[DOUBT] != 0
    for group in range(schedule.shape[1]):
        if not abs(schedule[control[RUN_STEP], group]) <= RATE:
            doubt = True
    return doubt
