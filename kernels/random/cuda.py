"""Random numbers made from their place: the CPU's, bit for bit (see `cpu.py`).

A thread makes one block of Philox, whose four words serve four elements 16 apart.
"""

from __future__ import annotations

from typing import Any

from ..control_block import SEED, STEP
from ..cuda.device import ONE_THREAD, cast, flat, flat_index, thread_number, word
from ..declare import ceil_div, cuda_kernel, helper
from ..scalar import cos_turns, log, sin_turns, sqrt
from ..simd import fma, where
from . import cpu
from .shared import GROUP, LANES, MASK, larger_share, philox, to_uniform


def blocks_launch(count: int) -> tuple[int, int]:
    """A thread for each of Philox' blocks that `count` elements take."""
    return ceil_div(ceil_div(count, GROUP) * LANES, 256), 256


@helper
def random_words(block: int, control: Any, stream: int) -> tuple[Any, Any, Any, Any]:
    """The words of this block for this seed, step and stream."""
    seed, step = int(control[SEED]), int(control[STEP])
    return philox(
        word(block), word(stream), word(step), word(step >> 32), seed & MASK, seed >> 32 & MASK
    )


@helper
def first_element(block: int) -> int:
    """The element that the block's first word belongs to; the others follow 16 apart."""
    return (block >> 4) * 64 + (block & 15)


@helper
def _drop(x: Any, y: Any, i: int, random: Any, keep: Any, scale: Any) -> None:
    """Element i of y: x scaled, or 0, by a random word."""
    if i < x.size:
        kept = cast(x, to_uniform(random)) < keep
        flat(y)[i] = where(kept, flat(x)[i] * scale, 0.0)


@cuda_kernel(like=cpu.dropout, launch=lambda s: blocks_launch(s["N"] * s["C"]))
def dropout(x, y, control, keep, scale, stream):
    i = first_element(flat_index())
    if i < x.size:
        w0, w1, w2, w3 = random_words(flat_index(), control, stream)
        _drop(x, y, i, w0, keep, scale)
        _drop(x, y, i + 16, w1, keep, scale)
        _drop(x, y, i + 32, w2, keep, scale)
        _drop(x, y, i + 48, w3, keep, scale)


@cuda_kernel(like=cpu.dropout_at, launch=lambda s: blocks_launch(s["N"] * s["C"]))
def dropout_at(x, rate, y, control, stream):
    i = first_element(flat_index())
    if i < x.size:
        keep = cast(x, 1.0) - rate[0]
        scale = cast(x, 0.0)
        if rate[0] < 1.0:
            scale = cast(x, 1.0) / keep
        w0, w1, w2, w3 = random_words(flat_index(), control, stream)
        _drop(x, y, i, w0, keep, scale)
        _drop(x, y, i + 16, w1, keep, scale)
        _drop(x, y, i + 32, w2, keep, scale)
        _drop(x, y, i + 48, w3, keep, scale)


@helper
def _put(y: Any, i: int, value: Any) -> None:
    """y[i] = value (flat), if there is such an element."""
    if i < y.size:
        flat(y)[i] = value


@cuda_kernel(like=cpu.uniform, launch=lambda s: blocks_launch(s["N"] * s["C"]))
def uniform(y, control, low, high, stream):
    i = first_element(flat_index())
    if i < y.size:
        w0, w1, w2, w3 = random_words(flat_index(), control, stream)
        range_ = high - low
        _put(y, i, fma(cast(y, to_uniform(w0)), range_, low))
        _put(y, i + 16, fma(cast(y, to_uniform(w1)), range_, low))
        _put(y, i + 32, fma(cast(y, to_uniform(w2)), range_, low))
        _put(y, i + 48, fma(cast(y, to_uniform(w3)), range_, low))


@helper
def _radius(u: Any) -> Any:
    """sqrt(-2 log u), u in (0, 1], for a uniform number in [0, 1)."""
    return sqrt(log(u + 5.9604644775390625e-08) * -2.0)


@cuda_kernel(like=cpu.normal, launch=lambda s: blocks_launch(s["N"] * s["C"]))
def normal(y, control, mean, std, stream):
    i = first_element(flat_index())
    if i < y.size:
        w0, w1, w2, w3 = random_words(flat_index(), control, stream)
        radius, angle = _radius(cast(y, to_uniform(w0))) * std, cast(y, to_uniform(w1))
        _put(y, i, fma(radius, cos_turns(angle), mean))
        _put(y, i + 16, fma(radius, sin_turns(angle), mean))
        radius, angle = _radius(cast(y, to_uniform(w2))) * std, cast(y, to_uniform(w3))
        _put(y, i + 32, fma(radius, cos_turns(angle), mean))
        _put(y, i + 48, fma(radius, sin_turns(angle), mean))


@cuda_kernel(like=cpu.mixing_share, launch=lambda s: ONE_THREAD, one_block=True)
def mixing_share(share, control, alpha, stream):
    if thread_number() == 0:
        share[0] = larger_share(alpha, stream, int(control[STEP]), int(control[SEED]))
