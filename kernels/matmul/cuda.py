"""Matrix products on CUDA: the linear layer's forward pass and its two gradients.

N rows, C inputs, K outputs, weights [C, K], as in `cpu.py`; nothing is packed::

    y[n,k]  = sum over c of x[n,c] * w[c,k]   + bias[k]
    dx[n,c] = sum over k of dy[n,k] * w[c,k]
    dw[c,k] = sum over n of x[n,c] * dy[n,k]

Each product exists in several shapes (see `SHAPES`): large tiles read shared memory and L2 least
often, small ones keep all multiprocessors busy where the output is small; products of a few rows
have kernels of their own (`cuda_few.py`). `choose_product` picks by the sizes alone. In the shapes
with one group every element is one chain of multiply-adds in the order of the summed index, as on
the CPU; with several groups of warps each sums its share of every slice, and the groups' sums are
added in halves. Long sums are split over blocks in `cuda_parts.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..cuda.device import flat
from ..declare import ceil_div, cuda_kernel
from ..rnn.shared import ACTIVATIONS
from ..traits import Besides, Ending
from . import cpu, cuda_few
from .cuda_product import MOST, Bias, Extra, Factor, Output, product_of, tiles_grid
from .cuda_slices import Shape

#: by the suffix of the kernels' names
SHAPES = {
    "": Shape(32, 32, 8, 4, groups=8, depth=64, stages=3),
    "_tiny": Shape(16, 16, 4, 2, groups=8, depth=128, stages=3),
    "_middle": Shape(64, 64, 8, 4, groups=1, depth=16, stages=4),
    "_large": Shape(128, 128, 8, 8, groups=1, depth=16, stages=3),
    "_tf32": Shape(128, 128, 8, 8, groups=1, depth=16, stages=3, pad=8),
    "_tf32x3": Shape(128, 64, 4, 8, groups=1, depth=16, stages=3, pad=8),
}
#: the shape of products with more tiles across than a grid's second dimension takes
FOLDING = "_middle"
#: shapes whose products are computed on tensor cores
UNITS = {"_tf32": "tf32", "_tf32x3": "tf32x3"}
#: shapes that float64 lacks: a thread's 64 sums would take half of the registers that it may have
FLOAT32 = ("_large", *UNITS)

#: multiply-adds a multiprocessor does in a cycle with blocks of a shape (float32's peak is 128):
#: estimates from what a multiply-add costs in other instructions and in reads of L2, not measured
RATES = {"": 70.0, "_tiny": 35.0, "_middle": 90.0, "_large": 110.0}
RATES |= {"_tf32": 400.0, "_tf32x3": 140.0}
#: the shape on tensor cores, by the precision that allows it
UNIT = {"high": "_tf32x3", "medium": "_tf32"}
MULTIPROCESSORS = 132  # of an H200; a constant, so that the same sizes give the same bits anywhere
START = 2000.0  # cycles of a launch, before the first multiply-add and after the last
AGAIN = 1500.0  # cycles until the last block of a tile knows that it is
BYTES = 2500.0  # bytes a cycle that pass to or from L2
FEW_BYTES = 30.0  # bytes a cycle that a multiprocessor reads or writes in a product of few rows


class Choice(NamedTuple):
    """The fastest way to a product: the suffix of its kernel, or the number of parts."""

    suffix: str
    parts: int = 1


def cycles_of_parts(parts: int, shape: Any, rows: int, columns: int, itemsize: int) -> float:
    """What it takes to write so many parts of a product, and to add them."""
    total = AGAIN + parts * rows * columns * itemsize / BYTES
    return total + parts * shape.rows * shape.columns * itemsize / FEW_BYTES


def choose_product(
    product: str, rows: int, columns: int, depth: int, itemsize: int = 4,
    precision: str = "highest",
    shared_bytes: int = 232_448,
) -> Choice:  # fmt: skip
    """The fastest kernel for a product of these sizes, by an estimate that depends on them alone.

    `product` is the kernel's name without a suffix; ``_parts``: in parts.
    Shapes that need more than `shared_bytes` of a block's shared memory are left out (on a device
    with 99 KiB two of float64's), and those with more tiles across than a grid takes.
    """

    def room(suffix: str) -> bool:
        shape = SHAPES[suffix]
        fits = suffix == FOLDING or ceil_div(columns, shape.columns) <= MOST
        return fits and shape.memory * itemsize <= shared_bytes

    def cycles(choice: Choice) -> float:
        if choice.suffix == "_few":
            return START + few_blocks[0] * few_blocks[1] * itemsize / FEW_BYTES
        shape = SHAPES[PARTS[product] if choice.parts > 1 else choice.suffix]
        tiles = ceil_div(rows, shape.rows) * ceil_div(columns, shape.columns) * choice.parts
        work = shape.rows * shape.columns * ceil_div(depth, choice.parts)
        name = PARTS[product] if choice.parts > 1 else choice.suffix
        total = START + ceil_div(tiles, MULTIPROCESSORS) * work / RATES[name]
        if choice.parts > 1:
            total += cycles_of_parts(choice.parts, shape, rows, columns, itemsize)
        return total

    few_blocks = cuda_few.blocks(product, rows, columns, depth, MULTIPROCESSORS)
    wide = [
        *(["_large"] if itemsize == 4 else []),
        *([UNIT[precision]] if precision in UNIT and itemsize == 4 else []),
    ]
    choices = [Choice(suffix) for suffix in ("_tiny", "", "_middle", *wide) if room(suffix)]
    across = ceil_div(rows, cuda_few.GRADIENT_ROWS) if product == "linear_backward_weight" else 1
    if few_blocks[0] and across <= MOST:  # most of a tile's rows would be empty
        choices = [Choice("_few")]
    shape = SHAPES[PARTS[product]]
    tiles = ceil_div(rows, shape.rows) * ceil_div(columns, shape.columns)
    if room(PARTS[product]) and tiles <= TILES:
        choices += [Choice("_parts", n) for n in (2, 4, 8, 16) if depth >= 128 * n]
    return min(choices or [Choice(FOLDING)], key=cycles)


#: the shape (by suffix) of a product in parts
PARTS = {
    "linear_forward": "_tiny",
    "linear_backward_input_unpacked": "_tiny",
    "linear_backward_weight": "_middle",
}


#: the plain product of each one that ends with something else as well
PLAIN = {name: name for name in PARTS} | {
    "linear_forward_activated": "linear_forward",
    "linear_backward_input_activated": "linear_backward_input_unpacked",
    "linear_backward_weight_bias": "linear_backward_weight",
}
#: the kernels of products in parts
SPLIT = {
    "linear_forward": "linear_forward_parts",
    "linear_forward_activated": "linear_forward_parts",
    "linear_backward_input_unpacked": "linear_backward_input_parts",
    "linear_backward_input_activated": "linear_backward_input_parts",
    "linear_backward_weight": "linear_backward_weight_parts",
    "linear_backward_weight_bias": "linear_backward_weight_bias_parts",
}
#: most tiles of a product in parts: a word counts those of each
TILES = 1024


#: what the products that end with something else stand for
ACTIVATED = tuple(
    Ending("linear_forward", f"{name}_forward", "y", "x", "y", numbers=(("activation", number),))
    for name, number in ACTIVATIONS.items()
)
SLOPED = tuple(
    Ending(
        "linear_backward_input_unpacked", f"{name}_backward", "dx", "dy", "dx", also="y",
        numbers=(("activation", number),),
    )
    for name, number in ACTIVATIONS.items()
)  # fmt: skip
SUMMED = (Besides("linear_backward_weight", "sum_rows", "dy", "x", "y", "dbias"),)


def grid_of(shape: Shape, rows: str, columns: str) -> dict[str, Any]:
    """Launch geometry: a block for each tile of the output, and for each part of the sum (S)."""

    def launch(s: dict[str, int]) -> tuple[Any, Any]:
        return tiles_grid(s[rows], s[columns], shape, s.get("S", 1)), shape.threads

    # 512 threads share 65,536 registers, 128 each (in float64 256 threads have up to 255 each)
    bounds = (shape.threads, 512 // shape.threads)
    return {"launch": launch, "shared": lambda s: shape.memory, "bounds": bounds}


def _declare(suffix: str, shape: Shape) -> None:
    """The three products in one shape, and with what comes after them."""
    unit = UNITS.get(suffix, "")
    only = {"only_float32": suffix in FLOAT32}
    forward, inputs, weights = (grid_of(shape, *sides) for sides in ("NK", "NC", "CK"))
    # the planner asks for the plain names; which shape it is, sizes decide afterwards
    activated, sloped, summed = ((), (), ()) if suffix else (ACTIVATED, SLOPED, SUMMED)
    folds = suffix == FOLDING
    product = product_of(shape, unit, "", folds)
    product_activated = product_of(shape, unit, "activation", folds)
    product_sloped = product_of(shape, unit, "activation_gradient", folds)
    product_summed = product_of(shape, unit, "column_sums", folds)

    @cuda_kernel(like=cpu.linear_forward, **forward, name=f"linear_forward{suffix}", **only)
    def linear_forward(x, w, bias, y):
        (n, c), k = x.shape, w.shape[1]
        product(Factor(x, c, False), Factor(w, k, True), Output(y, 0, k, n, k),
                Bias(bias, bias.size > 0), 0, c, Extra(bias, 0, 0))  # fmt: skip

    @cuda_kernel(
        **forward, name=f"linear_forward_activated{suffix}", endings=activated, **only
    )  # fmt: skip
    def linear_forward_activated(
        x: "in whole f[N,C]",
        w: "in whole f[C,K]",
        bias: "in whole f[B]",  # B is K, or 0: no bias
        y: "out whole f[N,K]",
        activation: "int",  # tanh (0), ReLU (1) or sigmoid (2)
    ):
        """y = f(x @ w + bias)"""
        (n, c), k = x.shape, w.shape[1]
        product_activated(Factor(x, c, False), Factor(w, k, True), Output(y, 0, k, n, k),
                          Bias(bias, bias.size > 0), 0, c,
                          Extra(bias, 0, activation))  # fmt: skip

    @cuda_kernel(
        like=cpu.linear_backward_input_unpacked, **inputs,
        name=f"linear_backward_input_unpacked{suffix}", **only,
    )  # fmt: skip
    def linear_backward_input_unpacked(dy, w, dx):
        (n, k), c = dy.shape, w.shape[0]
        out = flat(dx)
        product(Factor(dy, k, False), Factor(w, k, False), Output(dx, 0, c, n, c),
                Bias(out, False), 0, k, Extra(out, 0, 0))  # fmt: skip

    @cuda_kernel(**inputs, name=f"linear_backward_input_activated{suffix}", endings=sloped, **only)
    def linear_backward_input_activated(
        dy: "in whole f[N,K]",
        w: "in whole f[C,K]",
        y: "in whole f[N,C]",  # f's outputs
        dx: "out whole f[N,C]",
        activation: "int",  # tanh (0), ReLU (1) or sigmoid (2)
    ):
        """dx = (dy @ w.T) f', by f's outputs"""
        (n, k), c = dy.shape, w.shape[0]
        out, saved = flat(dx), flat(y)
        product_sloped(Factor(dy, k, False), Factor(w, k, False), Output(dx, 0, c, n, c),
                       Bias(out, False), 0, k, Extra(saved, 0, activation))  # fmt: skip

    @cuda_kernel(
        like=cpu.linear_backward_weight, **weights, name=f"linear_backward_weight{suffix}", **only
    )
    def linear_backward_weight(x, dy, dw):
        (n, c), k = x.shape, dy.shape[1]
        out = flat(dw)
        product(Factor(x, c, True), Factor(dy, k, True), Output(dw, 0, k, c, k),
                Bias(out, False), 0, n, Extra(out, 0, 0))  # fmt: skip

    @cuda_kernel(
        **weights, name=f"linear_backward_weight_bias{suffix}", besides=summed, **only
    )  # fmt: skip
    def linear_backward_weight_bias(
        x: "in whole f[N,C]",
        dy: "in whole f[N,K]",
        dw: "out whole f[C,K]",
        dbias: "out whole f[K]",
    ):
        """dw = x.T @ dy, dbias[k] = sum over n of dy[n,k]"""
        (n, c), k = x.shape, dy.shape[1]
        product_summed(Factor(x, c, True), Factor(dy, k, True), Output(dw, 0, k, c, k),
                       Bias(dbias, False), 0, n, Extra(dbias, 0, 0))  # fmt: skip


for _suffix, _shape in SHAPES.items():
    _declare(_suffix, _shape)
