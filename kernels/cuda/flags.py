"""Blocks that work together, by flags in global memory.

A group of blocks goes through a sequence in step. After each turn a block raises its flag to the
turn's number; before the next, it waits until the flags of the whole group have been raised. Flags
are integers with one writer each, so the numbers computed don't depend on who is first. All blocks
of a group have to be on the device at once (a cooperative launch).

The first two bodies are the plain-Python twins for the simulator; the compiled ones are in
`_flags_nvvm`.
"""

from __future__ import annotations

from typing import Any

from .. import recorded
from ..declare import helper
from .device import block_threads, cuda, give_way, thread_number

recorded.record()


def load_acquire(flags: Any, i: int) -> int:
    """Read a flag (ld.acquire.gpu); what was written before it was raised is seen from then on."""
    return int(flags[i])


def store_release(flags: Any, i: int, value: int) -> None:
    """Raise a flag (st.release.gpu) after everything that the block has written."""
    flags[i] = value


@helper
def raise_flag(flags, number, value):
    """After all threads of the block have come here, its flag becomes `value`."""
    cuda.syncthreads()
    if thread_number() == 0:
        store_release(flags, number, value)


@helper
def wait_for_flags(flags, first, count, value):
    """All threads of the block wait until each of these flags is at least `value`."""
    i = thread_number()
    while i < count:
        while load_acquire(flags, first + i) < value:
            give_way()
        i += block_threads()
    cuda.syncthreads()
