"""The gradient to the weight, of many rows, from copies that each call makes for itself.

A tile of dw = x.T @ dy takes a few numbers of each row of x and of dy. Where these lie far apart,
copies are quicker to read. One copy of each factor for all workers is made with a barrier behind
it, and each line that one of them writes was read by another before, from whose cache it has to be
taken: so it costs more than it should. Here each call copies its own columns of x, and dy block by
block, into scratch memory.

Every element is the same chain of fused multiply-adds, so the bits are those of
`linear_backward_weight`.
"""

from ..cpu.tile import tile_height, tile_width
from ..declare import kernel
from ..places import Matrix, Place, Rows
from .cpu import BACKWARD
from .cpu_blocked import pack_rows
from .cpu_panels import panel

#: columns of x in a panel: so many times the rows of a tile
WIDTH = 2
#: rows of x and dy that are copied at a time: a panel of dy stays in L1
DEPTH = 512


def own_scratch(rows: int) -> int:
    """S, the elements of scratch memory for each row of dw: of x and as much of dy."""
    return max(2 * min(rows, DEPTH), 256)


@kernel(grain=8, block=128, factors=("x", "dy"), rounds=("x", "dy"), **BACKWARD)
def linear_backward_weight_own(
    x: "in whole f[N,C]",
    dy: "in whole f[N,K]",
    dw: "out rows f[C,K]",
    scratch: "scratch rows f[C,S]",  # S by `own_scratch`
    lo: "begin",
    hi: "end",
):
    """dw = x.T @ dy"""
    (n, c), k, width = x.shape, dw.shape[1], tile_width(x)
    tall = WIDTH * tile_height(x)
    rows, size, left = hi - lo, (hi - lo) * scratch.shape[1], lo * scratch.shape[1]
    # of x all columns of the range, of dy as many panels as there is room for beside them
    wide = (rows + tall - 1) // tall * tall
    deep = min(min(n, DEPTH), size // (wide + width))
    some = (size - deep * wide) // (deep * width) * width
    right = left + deep * wide
    for t in range(0, n, deep):
        part = min(deep, n - t)
        pack_rows(x, t * c + lo, c, part, rows, tall, scratch, left)
        for j in range(0, k, some):
            columns = min(some, k - j)
            pack_rows(dy, t * k + j, k, part, columns, width, scratch, right)
            for l in range(0, columns, width):
                b = Rows(scratch, right + l * part, width)
                for i in range(0, rows, tall):
                    panel(Matrix(scratch, left + i * part, 1, tall), b,
                          Rows(dw, (lo + i) * k + j + l, k), Place(dy[0], -1), part,
                          min(tall, rows - i), min(width, columns - l), t == 0, -1)  # fmt: skip
