"""Products of many matrices with as many: a grid's third dimension counts the P pairs."""

from __future__ import annotations

from typing import Any

from ..cuda.device import cuda, flat
from ..declare import cuda_kernel
from . import cpu_batched as cpu
from .cuda import SHAPES
from .cuda_product import folds_of, product_of, tiles_grid

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
        PRODUCT(a[p], c, False, b[p], k, True, y, p * m * k, flat(y), False, m, k, 0, c,
                flat(y), 0, 0)  # fmt: skip


@cuda_kernel(like=cpu.matmul_transposed_forward, **_grid("M", "K"))
def matmul_transposed_forward(a, b, y):
    (_, m, c), k = a.shape, b.shape[1]
    folds = folds_of(k, WIDTH)
    for p in range(cuda.blockIdx.z // folds, a.shape[0], cuda.gridDim.z // folds):
        cuda.syncthreads()
        PRODUCT(a[p], c, False, b[p], c, False, y, p * m * k, flat(y), False, m, k, 0, c,
                flat(y), 0, 0)  # fmt: skip


@cuda_kernel(like=cpu.matmul_backward_b, **_grid("C", "K"))
def matmul_backward_b(a, dy, db):
    (_, m, c), k = a.shape, dy.shape[2]
    folds = folds_of(k, WIDTH)
    for p in range(cuda.blockIdx.z // folds, a.shape[0], cuda.gridDim.z // folds):
        cuda.syncthreads()
        PRODUCT(a[p], c, True, dy[p], k, True, db, p * c * k, flat(db), False, c, k, 0, m,
                flat(db), 0, 0)  # fmt: skip
