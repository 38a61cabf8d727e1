"""A WaveNet's memory while it draws samples, and the draw: what both devices share.

A row of scratch memory belongs to a sequence: the past inputs of each layer (a ring: the input of
step t lies at t mod the layer's span), then the numbers of one step, each padded to whole vectors.
"""

import math
from typing import NamedTuple

from ..declare import helper
from ..random.shared import MASK, between, philox_block

#: smallest logarithm of a logistic distribution's scale; what the net says below counts as this
LEAST_LOG_SCALE = -12.0
INFINITY = float("inf")
PAD = 16  # elements that a part of the row is padded to


@helper
def padded(n: int) -> int:
    """n, rounded up to whole vectors."""
    return (n + PAD - 1) // PAD * PAD


@helper
def dilation(layer: int, cycle: int) -> int:
    """Steps between the inputs of a layer's window: 1, 2, 4, ..., and again from 1."""
    return 1 << (layer % cycle)


@helper
def span(layer: int, cycle: int, taps: int) -> int:
    """Past inputs of a layer that its window reaches."""
    return (taps - 1) * dilation(layer, cycle)


@helper
def ring_size(layers: int, cycle: int, taps: int) -> int:
    """Past inputs of all layers."""
    total = 0
    for layer in range(layers):
        total += span(layer, cycle, taps)
    return total


class Places(NamedTuple):
    """Where the parts of a sequence's row begin, behind the past inputs.

    Attributes:
        x: the input.
        z: the gates.
        units: the gated units of all layers.
        first, second: the hidden layers.
        o: what the net says of the sample.
    """

    x: int
    z: int
    units: int
    first: int
    second: int
    o: int


@helper
def places(layers: int, cycle: int, taps: int, C: int, S: int) -> Places:
    """How a sequence's row is shared out."""
    x = ring_size(layers, cycle, taps) * padded(C)
    z = x + padded(C)
    units = z + padded(2 * C)
    first = units + layers * padded(C)
    second = first + padded(S)
    return Places(x, z, units, first, second, second + padded(S))


@helper
def room(layers: int, cycle: int, taps: int, C: int, S: int, O: int) -> int:
    """Elements of a sequence's row."""
    return places(layers, cycle, taps, C, S).o + padded(O)


@helper
def chances(sequence: int, t: int, stream: int, control: tuple) -> tuple:
    """Two random numbers within (0, 1), of a sequence's sample t; control is (step, seed)."""
    step, seed = control
    w0, w1, _, _ = philox_block(
        t & MASK, stream & MASK, sequence & MASK, step & MASK, seed & MASK, seed >> 32 & MASK
    )
    return between(w0), between(w1)


@helper
def drawn_level(mean: float, log_scale: float, u: float, temperature: float, levels: int) -> int:
    """The level nearest to a number of the logistic distribution, within -1..1."""
    x = mean
    if temperature > 0.0:
        scale = math.exp(max(log_scale, LEAST_LOG_SCALE))
        x = mean + temperature * scale * (math.log(u) - math.log(1.0 - u))
    if not (x > -INFINITY and x < INFINITY):
        return -1
    x = min(max(x, -1.0), 1.0)
    return math.floor((x + 1.0) * 0.5 * (levels - 1) + 0.5)
