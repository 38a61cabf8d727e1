"""Which kernel computes a convolution on CUDA: a thread for each element, or a tile for each block.

Both do the same multiplications. What differs is how often numbers are read, counted in PTX:

- The element kernel (`cuda.py`) reads two numbers from L1 or L2 for each multiply-add, 8 bytes, and
  takes 17 instructions for it, most of them on 64 bits. But every element has a thread of its own,
  so even a small result occupies the device.
- The tile reads 64 rows of windows and 64 columns of weights from L2 for 4,096 multiply-adds: an
  eighth of a byte and a 51st of a copying instruction for each. In a slice of 16 terms a thread
  takes some 850 instructions for 512 multiply-adds. But rows and columns past the edge of a tile
  are computed for nothing, and a block sums alone what 64 x 64 threads would share out.

So the choice is by an estimate of cycles for both ways, which depends on the sizes alone.
"""

from __future__ import annotations

from typing import NamedTuple

from ..declare import ceil_div
from ..matmul.cuda import MULTIPROCESSORS, TILES, Choice, cycles_of_parts
from ..matmul.cuda_product import MOST
from ..matmul.cuda_slices import Shape
from .cuda_elements import PARTS

#: by the suffix of the kernels' names
SHAPES = {
    "": Shape(64, 64, 8, 4, groups=1, depth=16, stages=4),
    "_tf32": Shape(128, 64, 4, 8, groups=1, depth=16, stages=3, pad=8),
    "_tf32x3": Shape(128, 64, 4, 8, groups=1, depth=16, stages=3, pad=8),
}
#: shapes whose products are computed on tensor cores; float64 lacks them
UNITS = {"_tf32": "tf32", "_tf32x3": "tf32x3"}
#: the shape on tensor cores, by the precision that allows it: TF32 has the mantissa of fp16, and
#: three bits more than bf16
UNIT = {"high": "_tf32x3", "medium": "_tf32", "bf16": "_tf32", "fp16": "_tf32"}

#: multiply-adds that a multiprocessor does in a cycle: estimates from counted instructions, of
#: which it issues 128 in a cycle, and for tensor cores from those of matrix products; not measured
RATES = {"": 75.0, "_tf32": 240.0, "_tf32x3": 115.0}
ELEMENTS = 6.0
#: cycles from one multiply-add of a thread to the next, which waits for the loads
WAIT = 20.0
#: parts that a sum is cut into, and terms of each, at least
COUNTS = (2, 4, 8, 16, 32, 64)
TERMS = 128


class Product(NamedTuple):
    """A convolution as products of matrices, of which there are `count`."""

    rows: int
    columns: int
    depth: int
    count: int


def forward_product(y: tuple[int, ...], w: tuple[int, ...], groups: int) -> Product:
    """For y [N,P,Q,K] and w [I,J,G,K]."""
    return Product(y[0] * y[1] * y[2], y[3] // groups, w[0] * w[1] * w[2], groups)


def input_product(
    dx: tuple[int, ...], w: tuple[int, ...], groups: int, stride: tuple[int, int]
) -> Product:
    """For dx [N,H,W,C] and w [I,J,G,K]: of each residue of the stride."""
    down, across = stride
    return Product(
        dx[0] * ceil_div(dx[1], down) * ceil_div(dx[2], across), w[2],
        ceil_div(w[0] * w[1], down * across) * (w[3] // groups), groups * down * across,
    )  # fmt: skip


def weight_product(dy: tuple[int, ...], w: tuple[int, ...], groups: int) -> Product:
    """For dy [N,P,Q,K] and dw [I,J,G,K]."""
    return Product(w[0] * w[1] * w[2], w[3] // groups, dy[0] * dy[1] * dy[2], groups)


def by_elements(product: Product, splits: bool) -> float:
    """Cycles of the element kernel, all of whose threads run side by side. The gradient to the
    weights `splits` a sum over a block's rows."""
    rows, columns, depth, count = product
    chain = depth / (PARTS if splits else 1) * WAIT
    return max(rows * columns * depth * count / (MULTIPROCESSORS * ELEMENTS), chain)


def by_tiles(product: Product, choice: Choice, itemsize: int) -> float:
    """Cycles of a tile's kernel."""
    rows, columns, depth, count = product
    shape, parts = SHAPES[choice.suffix], choice.parts
    tiles = ceil_div(rows, shape.rows) * ceil_div(columns, shape.columns) * count * parts
    slices = ceil_div(ceil_div(depth, parts), shape.depth)
    work = shape.rows * shape.columns * shape.depth * slices
    total = ceil_div(tiles, MULTIPROCESSORS) * work / RATES[choice.suffix]
    if parts > 1:
        total += cycles_of_parts(parts, shape, rows, columns * count, itemsize)
    return total


def choose(
    product: Product, itemsize: int = 4, precision: str = "highest", shared_bytes: int = 232_448,
    splits: bool = False,
) -> Choice | None:  # fmt: skip
    """The fastest shape and number of parts (more than one only if it `splits`); None: the element
    kernel. Shapes that need more shared memory than a block may have are left out, and so are grids
    that are too large in their second or third dimension."""
    rows, columns, depth, count = product
    unit = [UNIT[precision]] if precision in UNIT and itemsize == 4 else []
    choices = []
    for suffix in ("", *unit):
        shape = SHAPES[suffix]
        tiles = ceil_div(rows, shape.rows) * ceil_div(columns, shape.columns) * count
        tables = 24 * shape.rows  # where rows begin, see `cuda_tile.py`
        if shape.memory * itemsize + tables > shared_bytes:
            continue
        cut = [n for n in COUNTS if depth >= TERMS * n] if splits and tiles <= TILES else []
        choices += [
            Choice(suffix, n)
            for n in (1, *cut)
            if max(ceil_div(columns, shape.columns), count * n) <= MOST
        ]
    best = min(choices, key=lambda choice: by_tiles(product, choice, itemsize), default=None)
    if best is None or by_tiles(product, best, itemsize) >= by_elements(product, splits):
        return None
    return best
