"""Products with a gradient of which many elements are 0: what a ReLU lets through of it.

The gradient dy is the left factor of the gradient to the input, and the right one of the gradient
to the weight. There, columns of dw are summed as rows of its transpose: by dw.T = dy.T @ x.
See `cpu_sparse`.
"""

from ..cpu import target
from ..cpu.tile import tile_lanes, tile_width, transpose_block
from ..declare import helper, kernel
from ..places import Matrix, Place, Rows
from ..simd import lanes
from .cpu import BACKWARD
from .cpu_blocked import blocked_product
from .cpu_panels import product
from .cpu_sparse import (
    SUMS,
    WORD,
    are_few,
    are_few_columns,
    columns_needed,
    sums_of_rows,
    words_needed,
)


def by_vectors(columns: int, itemsize: int) -> bool:
    """Whether rows of so many elements are whole vectors, so that none lies in two panels."""
    return columns % target.host().lanes(itemsize) == 0


def turned_words(k: int, rows: int) -> int:
    """S, the words for each row of dw: 64 of them have room for all columns of dy."""
    return -(-k * words_needed(rows) // WORD)


def turned_room(k: int, itemsize: int) -> int:
    """P, the elements of scratch memory for each row of dw: 64 of them have room for a block of x
    and for as many columns of dw.T as it has."""
    return -(-(k + WORD) * columns_needed(itemsize) // WORD)


@kernel(block=64, **BACKWARD, rounds=("dy",))
def linear_backward_input_sparse(
    dy: "in rows f[N,K]",
    w_packed: "in whole f[Q,Z]",  # the transposed w by `pack_panels_transposed`
    dx: "out rows f[N,C]",
    words: "scratch rows i[N,S]",  # S by `words_needed`
    room: "scratch rows f[N,P]",  # P by `room_needed`
    lo: "begin",
    hi: "end",
):
    """dx = dy @ w.T, for C of whole vectors, `columns_needed` at least"""
    k, c = dy.shape[1], dx.shape[1]
    fits = (hi - lo) * room.shape[1] >= SUMS * lanes(dy) * WORD
    done = fits and are_few(dy, words, lo, hi)
    done = done and sums_of_rows(
        Matrix(dy, lo * k, k, 1), Rows(words, lo * words.shape[1], words.shape[1]),
        Rows(w_packed, 0, tile_width(dy)), False, w_packed.shape[1], dy[0, :0], Rows(dx, lo * c, c),
        Place(room, lo * room.shape[1]), hi - lo, k, c,
    )  # fmt: skip
    if not done:
        product(Matrix(dy, lo * k, k, 1), Rows(w_packed, 0, tile_width(dy)), w_packed.shape[1],
                Rows(dx, lo * c, c), Place(dy[0], -1), k, hi - lo, c)  # fmt: skip


@kernel(block=64, **BACKWARD, rounds=("dy", "w"))
def linear_backward_input_blocked_sparse(
    dy: "in rows f[N,K]",
    w: "in whole f[C,K]",
    dx: "out rows f[N,C]",
    words: "scratch rows i[N,S]",  # S by `words_needed`
    scratch: "scratch rows f[N,P]",  # P by `scratch_columns`
    lo: "begin",
    hi: "end",
):
    """dx = dy @ w.T, for large w with C of at least `columns_needed`"""
    c, k = w.shape
    fits = (hi - lo) * scratch.shape[1] >= SUMS * lanes(dy) * WORD
    done = fits and are_few(dy, words, lo, hi)
    done = done and sums_of_rows(
        Matrix(dy, lo * k, k, 1), Rows(words, lo * words.shape[1], words.shape[1]), Rows(w, 0, k),
        True, 0, dy[0, :0], Rows(dx, lo * c, c), Place(scratch, lo * scratch.shape[1]), hi - lo, k,
        c,
    )  # fmt: skip
    if not done:
        blocked_product(dy, w, True, dy[0, :0], dx, scratch, lo, hi, k, c)


@helper
def turn_columns(a, at, columns, b, rows):
    """Columns of a, as rows of b: b[r, j] = a[at + j*columns + r] for r < `columns`, j < K."""
    n, k = tile_lanes(a), b.shape[1]
    whole = k // n * n
    flat = a.reshape(-1)
    for j in range(0, whole, n):
        for r in range(0, columns, n):
            transpose_block(a, at + j * columns + r, columns, b, (rows + r) * k + j, k)
    for j in range(whole, k):
        for r in range(columns):
            b[rows + r, j] = flat[at + j * columns + r]


@kernel(grain=64, sums_rows=True, factors=("x", "dy"), rounds=("x", "dy"), **BACKWARD)
def linear_backward_weight_turned_sparse(
    x: "in whole f[N,C]",
    dy: "in whole f[N,K]",
    dw: "out rows f[C,K]",
    words: "scratch rows i[C,S]",  # S by `turned_words`
    room: "scratch rows f[C,P]",  # P by `turned_room`
    lo: "begin",
    hi: "end",
):
    """dw = x.T @ dy, by dw.T = dy.T @ x"""
    (n, c), k, width = x.shape, dw.shape[1], SUMS * lanes(x)
    known = Rows(words, lo * words.shape[1], (n + WORD - 1) // WORD)
    block = lo * room.shape[1]
    some = block + WORD * width
    fits = k >= WORD and hi - lo >= max(WORD, width)
    done = fits and are_few_columns(dy, known, 0, k)
    for start in range(lo, hi, width):
        first = min(start, hi - width)
        done = done and sums_of_rows(
            Matrix(dy, 0, 1, k), known, Rows(x, first, c), False, tile_width(x), dy[0, :0],
            Rows(room, some, width), Place(room, block), k, n, width,
        )  # fmt: skip
        if done:
            turn_columns(room, some, width, dw, first)
    if not done:
        product(Matrix(x, lo, 1, c), Rows(dy, 0, k), tile_width(dy), Rows(dw, lo * k, k),
                Place(dy[0], -1), n, hi - lo, k)  # fmt: skip
