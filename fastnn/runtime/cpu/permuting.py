"""The data order of an epoch, in compiled code: the very one that NumPy's generator would draw.

NumPy's `Generator(Philox(key=(seed, epoch))).permutation(samples)` asks for one random number after
the other and turns back wherever one is too large, which happens at random, so that a CPU guesses
wrong. Here numbers come by hundreds (they are a function of their place, so that several are
computed at once), then those that are too large are left out without a branch, and then elements
change places.

J. Salmon, M. Moraes, R. Dror and D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011
(Philox with four words of 64 bits in ten rounds); R. Durstenfeld, "Algorithm 235: random
permutation", 1964.
"""

from __future__ import annotations

from numba.extending import register_jitable

from fastnn.kernels import recorded
from fastnn.runtime.cpu.layout import ORDER_BLOCKS
from fastnn.runtime.cpu.machine import multiply_high
from fastnn.runtime.cpu.numba_bridge import words

recorded.record()

#: words of 64 bits in a block of Philox, and its rounds
BLOCK, ROUNDS = 4, 10
#: its multipliers and what its keys grow by in each round, as signed words
MULTIPLIERS = 0xD2E7470EE14C6C93 - (1 << 64), 0xCA5A826395121157 - (1 << 64)
STEPS = 0x9E3779B97F4A7C15 - (1 << 64), 0xBB67AE8584CAA73B - (1 << 64)


@register_jitable
def fill(random: int, first: int, seed: int, epoch: int) -> None:
    """So many blocks of random numbers, the counter of the first being `first`."""
    out = words(random)
    for k in range(ORDER_BLOCKS):
        a, b, c, d = first + k, 0, 0, 0
        key, other = seed, epoch
        for _ in range(ROUNDS):
            high, higher = multiply_high(MULTIPLIERS[0], a), multiply_high(MULTIPLIERS[1], c)
            a, b, c, d = (
                higher ^ b ^ key, MULTIPLIERS[1] * c, high ^ d ^ other, MULTIPLIERS[0] * a,
            )  # fmt: skip
            key += STEPS[0]
            other += STEPS[1]
        out[BLOCK * k] = a
        out[BLOCK * k + 1] = b
        out[BLOCK * k + 2] = c
        out[BLOCK * k + 3] = d


@register_jitable
def choose(random: int, chosen: int, last: int) -> int:
    """The places that element `last` and those before it change with, as far as these random
    numbers go: of as many bits as the element's number has, and not beyond it. How many there are.
    """
    numbers, found = words(random), words(chosen)
    at, count, end = 0, 0, 2 * BLOCK * ORDER_BLOCKS
    mask = 1
    while mask < last:
        mask += mask + 1
    while last > 0 and at < end:
        while last > mask >> 1 and at < end:
            number = (numbers[at >> 1] >> (32 * (at & 1))) & mask
            at += 1
            found[count] = number
            fits = int(number <= last)
            count += fits
            last -= fits
        mask >>= 1
    return count


def permute(record: int, seed: int, epoch: int) -> None:
    """The order of an epoch, of at most 2**32 samples.

    `record` is the address of: where the order goes, how many samples there are, and where
    `ORDER_BLOCKS` blocks of words and twice as many words are free.
    """
    head = words(record)
    order, samples, random, chosen = words(head[0]), head[1], head[2], head[3]
    for k in range(samples):
        order[k] = k
    last, counter = samples - 1, 1
    while last > 0:
        fill(random, counter, seed, epoch)
        counter += ORDER_BLOCKS
        count = choose(random, chosen, last)
        places = words(chosen)
        for k in range(count):
            place = places[k]
            order[place], order[last - k] = order[last - k], order[place]
        last -= count
