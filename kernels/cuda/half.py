"""Numbers of 16 bits on CUDA: words in memory, factors of products on tensor cores.

An array of them holds words (uint16). Which type they are of, bfloat16 or float16, a kernel knows:
the functions take `is_bf16`, a constant, 1 or 0. Sums and all other arithmetic are float32's.

Products are computed in pieces of 16 x 8, 16 terms at a time (``mma.sync.m16n8k16``). A slice of a
factor lies in shared memory as in global memory: *by depth*, a row for each term of the sum, or
else a row for each row of A (column of B). ``ldmatrix`` turns it on its way to the registers where
that is needed. Rows have eight elements more than they need, so that those that are read together
lie in different banks.

The bodies are the plain-Python twins for the simulator; `_half_nvvm` has the compiled ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import recorded
from .device import WARP, give_way, running, thread_number
from .tile import _copies, places_of_pieces, store_within

recorded.record()

PAD = 8  # elements between rows of shared memory
#: the types of 16 bits, and the letters of their arrays
LETTERS = {"bf16": "b", "fp16": "h"}
#: kernels whose result one of the same name with ``_bf16`` or ``_fp16`` writes in 16 bits as well,
#: and the parameter that the result is
PRODUCERS = {"gather_rows": "y", "cross_entropy_scaled": "dx", "cross_entropy_backward": "dx"}


def of_letter(letter: str) -> Callable[[Any], Any]:
    """A decorator: the function of a kernel has arrays of this type where "h" is written."""

    def change(function: Any) -> Any:
        texts = function.__annotations__.items()
        function.__annotations__ = {n: text.replace(" h[", f" {letter}[") for n, text in texts}
        return function

    return change


@recorded.plain
def half_value(word: Any, is_bf16: int) -> Any:
    """The number that a word is, as float32."""
    words = np.asarray(word, np.uint16)
    if is_bf16:
        return (words.astype(np.uint32) << np.uint32(16)).view(np.float32)[()]
    return words.view(np.float16).astype(np.float32)[()]


@recorded.plain
def half_word(x: Any, is_bf16: int) -> Any:
    """The word of the nearest number, ties to even; infinite beyond the largest."""
    numbers = np.asarray(x, np.float32)
    if not is_bf16:
        with np.errstate(over="ignore"):
            return numbers.astype(np.float16).view(np.uint16)[()]
    words = numbers.view(np.uint32)
    up = (words >> np.uint32(16)) & np.uint32(1)
    rounded = ((words + np.uint32(0x7FFF) + up) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(numbers), np.uint16(0x7FFF), rounded)[()]


@recorded.plain
def copy8(memory: Any, at: int, x: Any, i: int, count: int) -> None:
    """memory[at:at+8] = x[i:i+8] (flat) of words, the last 8 - `count` 0; asynchronous.

    Both places have to be multiples of 16 bytes. Nothing of x is read where `count` is 0.
    """
    value = np.zeros(8, np.uint16)
    value[:count] = x.reshape(-1)[i : i + count]
    _copies().begin(memory[at : at + 8], value)


@recorded.plain
def multiply_halves(
    sums: Any, memory: Any, a_at: int, a_row: int, a_by_depth: int, b_at: int, b_row: int,
    b_by_depth: int, rows: int, columns: int, depth: int, lane: int, is_bf16: int,
) -> None:  # fmt: skip
    """sums[i, j] += sum over t of A[i, t] * B[t, j], of words, by `rows` x `columns` pieces.

    A[i, t] is ``memory[a_at + t*a_row + i]`` if `a_by_depth`, else ``memory[a_at + i*a_row + t]``;
    B[t, j] likewise. `columns` is even, `depth` a multiple of 16. Which numbers are whose is as of
    `tile.multiply_tile_tf32`.
    """
    at_i, at_j = places_of_pieces(rows, columns, lane)
    t = np.arange(depth)
    sides = (a_at, a_row, a_by_depth, at_i), (b_at, b_row, b_by_depth, at_j)
    places = [
        at + (t * row + i[:, None] if by_depth else i[:, None] * row + t)
        for at, row, by_depth, i in sides
    ]
    a, b = (half_value(memory[place], is_bf16).astype(np.float64) for place in places)
    total = sums.reshape(2 * rows, 2 * columns).astype(np.float64)
    sums[:] = (total + a @ b.T).reshape(-1)


@recorded.plain
def store_halves(
    sums: Any, c: Any, at: int, step: int, rows_left: int, columns_left: int, vectors: bool,
    rows: int, columns: int, is_bf16: int,
) -> None:  # fmt: skip
    """The sums of `multiply_halves` as words: c[at + i*step + j] (flat) for each thread's rows and
    columns, what is not below `rows_left` and `columns_left` left out. `vectors`: pairs of columns
    begin at multiples of 4 bytes and are never cut."""
    i, j = np.arange(2 * rows), np.arange(2 * columns)
    words = half_word(sums.reshape(2 * rows, 2 * columns), is_bf16)
    row, column = 8 * i, 8 * (j // 2) + j % 2
    store_within(c.reshape(-1), at, step, row, column, rows_left, columns_left, words)


# ---------------------------------------------------------------- pieces in registers


@recorded.plain
def half_pair(low: Any, high: Any, is_bf16: int) -> Any:
    """A word of 32 bits with the nearest numbers to two of float32, `low` in its lower half."""
    return np.uint32(int(half_word(low, is_bf16)) | int(half_word(high, is_bf16)) << 16)


@recorded.plain
def multiply_piece(
    a0: Any, a1: Any, a2: Any, a3: Any, b0: Any, b1: Any,
    c0: Any, c1: Any, c2: Any, c3: Any, is_bf16: int,
) -> tuple[Any, ...]:  # fmt: skip
    """C + A B of a piece, 16 x 8 with 16 terms, whose numbers lie in the registers of a warp's
    threads; all of them have to come here. Thread 4*g + q has pairs of neighbouring terms: of A
    (rows g, g+8, g, g+8; terms 2q and, in the last two, 2q+8), of B (column g; terms 2q and 2q+8),
    and the elements (g, 2q), (g, 2q+1), (g+8, 2q), (g+8, 2q+1) of C.
    """
    product = _of_warp(((a0, a1, a2, a3), (b0, b1)), lambda words: _product(words, is_bf16))
    g, q = thread_number() % WARP // 4, thread_number() % 4 * 2
    sums = (c0, product[g, q]), (c1, product[g, q + 1]), (c2, product[g + 8, q])
    return tuple(np.float32(float(c) + more) for c, more in (*sums, (c3, product[g + 8, q + 1])))


@recorded.plain
def _product(words: list[Any], is_bf16: int) -> np.ndarray:
    """A B of a piece, from the words of the warp's threads."""
    left, right = np.zeros((16, 16)), np.zeros((16, 8))
    for lane, (a, b) in enumerate(words):
        g, q = lane // 4, lane % 4 * 2
        for k, word in enumerate(a):
            left[g + k % 2 * 8, q + k // 2 * 8 : q + k // 2 * 8 + 2] = _two(word, is_bf16)
        for k, word in enumerate(b):
            right[q + k * 8 : q + k * 8 + 2, g] = _two(word, is_bf16)
    return left @ right


@recorded.plain
def _two(word: Any, is_bf16: int) -> Any:
    return half_value(np.array([int(word) & 0xFFFF, int(word) >> 16]), is_bf16)


@recorded.plain
def _of_warp(value: Any, result: Callable[[list[Any]], Any]) -> Any:
    """What `result` makes of what every thread of the warp gave at its call of the same number;
    worked out once."""
    given, thread = running().given, thread_number()
    warp = thread // WARP
    number = given["calls", thread] = given.get(("calls", thread), 0) + 1
    call = given.setdefault(("call", warp, number), {})
    call[thread % WARP] = value
    while len([lane for lane in call if lane != "result"]) < WARP:
        give_way()
    if "result" not in call:
        call["result"] = result([call[lane] for lane in range(WARP)])
    return call["result"]
