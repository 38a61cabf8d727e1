"""The control block: the few shared int64 words that change from step to step.

A kernel takes it as ``control: "in whole i[L]"`` and reads a word by these names.
"""

from . import recorded

recorded.record()

SEED = 0  # seed of the run's random numbers
STEP = 1  # optimiser steps done before this one
CURSOR = 2  # position of this batch's first sample in the data order
RUN_STEP = 3  # steps since this run of the program began; indexes the schedule
STOP_REQUEST = 4  # set by the host at any time: please stop after this step
STOP = 5  # set in serial sections only: leave the loop now (one of the reasons below)
SCALE = 6  # exponent of the loss's factor, where gradients are scaled (`guard/scaling.py`)
GOOD = 7  # steps since that was changed
FAULT = 8  # a kernel has raised: address of its call's row, of its record, items, worker
SKIPPED = 13  # of the steps done, those that updated nothing because gradients had overflowed
WORKERS = 14  # how many workers the run has that is going on; 0 on a GPU
LENGTH = 16

REQUESTED = 1  # reasons in STOP
NOT_FINITE = 2
OUT_OF_RANGE = 3
KERNEL_FAILED = 4

# The guard: flags beside the control block, which kernels set in any order (see `guard/cpu.py`).
DOUBT = 0  # this step needs copies of what it changes
LARGE = 1  # an update wrote a huge number: the next step needs copies
BROKEN = 2  # an update wrote a number that is not finite
SAVED = 3  # the copies are those of this step
OVERFLOW = 4  # a scaled gradient was not finite: this step updates nothing
GUARD_LENGTH = 8
UNKNOWN = 2  # in DOUBT: the host has set parameters, and nobody has looked at them yet
SLOTS_AT_ONCE = (
    3  # of an optimiser's arrays, those that one call of `safeguard` looks at and copies
)
