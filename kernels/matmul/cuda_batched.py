"""Products of many matrices with as many: a grid's third dimension counts the P pairs."""

from __future__ import annotations

from typing import Any

from ..cuda.device import cuda, flat
from ..declare import cuda_kernel
from . import cpu_batched as cpu
from .cuda import SHAPES
from .cuda_product import Bias, Extra, Factor, Output, folds_of, product_of, tiles_grid

SHAPE = SHAPES[""]
PRODUCT, WIDTH = product_of(SHAPE, folds=True), SHAPE.columns


def _grid(rows: str, columns: str) -> dict[str, Any]:
    """Launch geometry: a block for each tile of each product."""

    def launch(s: dict[str, int]) -> tuple[Any, Any]:
        return tiles_grid(s[rows], s[columns], SHAPE, s["P"]), SHAPE.threads

    bounds = (SHAPE.threads, 512 // SHAPE.threads)
    return {"launch": launch, "shared": lambda s: SHAPE.memory, "bounds": bounds}


@cuda_kernel(like=cpu.matmul_forward, **_grid("M", "K"))
def matmul_forward(a, b, y):
    (_, m, c), k = a.shape, b.shape[2]
    folds = folds_of(k, WIDTH)
    for p in range(cuda.blockIdx.z // folds, a.shape[0], cuda.gridDim.z // folds):
        cuda.syncthreads()
        PRODUCT(Factor(a[p], c, False), Factor(b[p], k, True), Output(y, p * m * k, k, m, k),
                Bias(flat(y), False), 0, c, Extra(flat(y), 0, 0))  # fmt: skip


@cuda_kernel(like=cpu.matmul_transposed_forward, **_grid("M", "K"))
def matmul_transposed_forward(a, b, y):
    (_, m, c), k = a.shape, b.shape[1]
    folds = folds_of(k, WIDTH)
    for p in range(cuda.blockIdx.z // folds, a.shape[0], cuda.gridDim.z // folds):
        cuda.syncthreads()
        PRODUCT(Factor(a[p], c, False), Factor(b[p], c, False), Output(y, p * m * k, k, m, k),
                Bias(flat(y), False), 0, c, Extra(flat(y), 0, 0))  # fmt: skip


@cuda_kernel(like=cpu.matmul_backward_b, **_grid("C", "K"))
def matmul_backward_b(a, dy, db):
    (_, m, c), k = a.shape, dy.shape[2]
    folds = folds_of(k, WIDTH)
    for p in range(cuda.blockIdx.z // folds, a.shape[0], cuda.gridDim.z // folds):
        cuda.syncthreads()
        PRODUCT(Factor(a[p], c, True), Factor(dy[p], k, True), Output(db, p * c * k, k, c, k),
                Bias(flat(db), False), 0, m, Extra(flat(db), 0, 0))  # fmt: skip
