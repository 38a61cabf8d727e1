"""Numbers that blocks working together hand to each other, each with the turn it belongs to.

A group of blocks goes through a sequence in step: at each turn a block needs what the whole group
computed at the turn before. A number travels as a *word* of 64 bits in global memory, its value in
the low half and its turn in the high half; a float64 as two words, a half of it in each. Whoever
needs a number reads its word until the turn is the awaited one. (NCCL's protocol LL does the same.)

Why that is right, in the terms of PTX's memory model:

- Value and turn are one access: a relaxed load or store of 64 bits at a multiple of 8 bytes is
  performed as a whole, so a word with the awaited turn has that turn's value. (Of a load or store
  of two words, each is an access of its own.) Nothing else is handed over by a word, so neither
  fence nor release and acquire are needed: what a block writes besides is read by later launches.
- All blocks of a launch run at once (a cooperative launch), so whoever waits is not waited for.
- Words are used in two slots by turns. A block overwrites the words of turn n - 2 with those of
  turn n after it has seen *all* words of turn n - 1, also where it has no use for them. Each of
  them was written after a barrier that followed all reads of turn n - 2 by the block that wrote
  it: reads of a turn are over before its words can change. (For a read to return the later word,
  that word would have to be written before the read that its own writing waited for.)
- Before the launch all words are set to 0, by another launch; turns are counted from 1.

The first bodies are the plain-Python twins for the simulator; the compiled ones are in
`_exchange_nvvm`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import recorded
from ..declare import helper
from .device import block_threads, cuda, give_way, thread_number
from .tile import computed_here

recorded.record()

#: words that a thread asks for at once, two at each of four places
AT_ONCE = 8


@recorded.plain
def words_each(x: Any) -> int:
    """Words for a number of the element type of `x`."""
    return int(x.dtype.itemsize) // 4


@recorded.plain
def publish(words: Any, i: int, value: Any, turn: int) -> None:
    """Number i of the exchange becomes `value`, of this turn."""
    halves = np.array([value]).view(np.uint32)
    for k, half in enumerate(halves):
        if k > 0:
            give_way()  # the words of a float64 are seen one by one
        words[len(halves) * i + k] = (int(turn) << 32) | int(half)


@recorded.plain
def load_words(words: Any, i: int, step: int, left: int) -> tuple[int, ...]:
    """Words i and i+1, and those 1, 2 and 3 steps further on; the first ones again in place of what
    lies `left` or more from there. i, step and left are even."""
    places = [i + k * step if k * step < left else i for k in range(4)]
    return tuple(int(words[place + k]) for place in places for k in range(2))


@recorded.plain
def store_words(s: Any, at: int, i: int, a: int, b: int) -> None:
    """Let the numbers of words i and i+1 of those that lie from s[at] on be what a and b hold."""
    halves = np.array([a & 0xFFFFFFFF, b & 0xFFFFFFFF], np.uint32)
    count = 2 // words_each(s)
    begin = at + i // words_each(s)
    s[begin : begin + count] = halves.view(s.dtype)


@helper
def of_turn(a, b, turn):
    """Whether both words are of this turn."""
    return a >> 32 == turn and b >> 32 == turn


def receiving(load: Callable[..., Any], first_of: Callable[..., Any]) -> Callable[..., Any]:
    """The function by which a block takes numbers; `load` reads words, `first_of` is of the number
    of the thread, from which it computes its first word."""

    @helper
    def receive(s, at, words, source, size, turn):
        """s[at:at+size] = the numbers of the exchange from `source` on, of this turn; waits for
        them.

        `size` is a multiple of 2. All threads of the block call this, each fetches its share; when
        they return, all `size` numbers are in s.
        """
        each = words_each(s)
        first, count, step = source * each, size * each, 2 * block_threads()
        i = 2 * first_of(thread_number())
        while i < count:
            left = count - i
            a0, a1, b0, b1, c0, c1, d0, d1 = load(words, first + i, step, left)
            here = of_turn(a0, a1, turn) and of_turn(b0, b1, turn)
            if here and of_turn(c0, c1, turn) and of_turn(d0, d1, turn):
                store_words(s, at, i, a0, a1)
                if step < left:
                    store_words(s, at, i + step, b0, b1)
                if 2 * step < left:
                    store_words(s, at, i + 2 * step, c0, c1)
                if 3 * step < left:
                    store_words(s, at, i + 3 * step, d0, d1)
                i += 4 * step
            else:
                give_way()
        cuda.syncthreads()

    return receive


receive = receiving(load_words, computed_here)
