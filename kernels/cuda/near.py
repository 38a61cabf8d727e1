"""The exchange of `exchange.py` within a cluster of blocks, through their shared memory.

The blocks of a cluster run at once, side by side, and reach each other's shared memory (compute
capability 9.0). Each block keeps all words of its group; whoever computes a number writes its word
into each of them, and whoever needs it reads his own. The words are those of `exchange.py`, with
value and turn in one access, and so is the reason why that is right (with accesses of the cluster's
scope). Besides, blocks `meet` twice: when all have cleared their words, and when none of them will
be written to any more, since a block's memory ends with it.

The first bodies are the plain-Python twins for the simulator; the compiled ones are in
`_near_nvvm`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import recorded
from ..declare import helper
from . import exchange
from .device import block_number, block_threads, cuda, give_way, shared_of, thread_number
from .exchange import words_each

recorded.record()


@recorded.plain
def publish_near(words: Any, i: int, value: Any, turn: int, blocks: int) -> None:
    """Number i of the exchange becomes `value`, of this turn, in each of the cluster's blocks."""
    first = block_number() // blocks * blocks
    for other in range(first, first + blocks):
        exchange.publish(shared_of(other).view(np.int64), i, value, turn)


@recorded.plain
def load_near(words: Any, i: int, step: int, left: int) -> tuple[int, ...]:
    """As `exchange.load_words`, of the block's own shared memory."""
    return exchange.load_words(words, i, step, left)


@recorded.plain
def meet(blocks: int) -> None:
    """All threads of the cluster's blocks wait for each other; what they wrote before is seen."""
    cuda.syncthreads()
    if thread_number() == 0:
        met = cuda.shared.met
        cluster = block_number() // blocks
        met[cluster] = met.get(cluster, 0) + 1
        target = -(-met[cluster] // blocks) * blocks
        while met[cluster] < target:
            give_way()
    cuda.syncthreads()


@helper
def begin_near(words, near, like, numbers, blocks):
    """The block's words, of so many numbers of the element type of `like`, cleared in all blocks;
    they lie at the beginning of its dynamic shared memory, which `near` is."""
    for i in range(thread_number(), numbers * words_each(like), block_threads()):
        near[i] = 0
    meet(blocks)
    return near


@helper
def unchanged(i):
    """The number of a thread as it is."""
    return i


#: as `exchange.receive`, of the block's own words
receive_near = exchange.receiving(load_near, unchanged)


@helper
def slot_near(number, group, groups, tiles):
    """The first tile of a slot: a cluster has words of its own group alone."""
    return number * tiles


@helper
def place_near(numbers):
    """Where, in elements, a block's other shared memory begins: behind the words."""
    return 2 * numbers


# ---------------------------------------------------------------- the same in global memory


@helper
def begin_far(words, near, like, numbers, blocks):
    """The words, which a launch before has cleared."""
    return words


@helper
def publish_far(words, i, value, turn, blocks):
    """As `exchange.publish`."""
    exchange.publish(words, i, value, turn)


@helper
def slot_far(number, group, groups, tiles):
    """The first tile of a slot: each has the tiles of all groups."""
    return (number * groups + group) * tiles


@helper
def place_far(numbers):
    """The block's shared memory is free from the beginning."""
    return 0


@helper
def end_far(blocks):
    """Nobody waits: words outlive the block."""


#: how blocks exchange: what begins it, hands a number on, takes them, places a slot, says where
#: other shared memory begins, and ends it
NEAR = (begin_near, publish_near, receive_near, slot_near, place_near, meet)
FAR = (begin_far, publish_far, exchange.receive, slot_far, place_far, end_far)
