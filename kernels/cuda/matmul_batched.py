"""Products of many matrices with as many: a grid's third dimension counts the P pairs."""

from __future__ import annotations

from typing import Any

from ..declare import ceil_div, cuda_kernel
from .device import cuda, flat
from .matmul import SHAPES
from .product import product_of

MOST = 65535  # blocks in a grid's third dimension
SHAPE = SHAPES[""]
PRODUCT = product_of(SHAPE, False)


def _grid(rows: str, columns: str) -> dict[str, Any]:
    """Launch geometry: a block for each tile of each product."""

    def launch(s: dict[str, int]) -> tuple[Any, Any]:
        tiles = ceil_div(s[rows], SHAPE.rows), ceil_div(s[columns], SHAPE.columns)
        return (*tiles, min(s["P"], MOST)), SHAPE.threads

    bounds = (SHAPE.threads, 512 // SHAPE.threads)
    return {"launch": launch, "shared": lambda s: SHAPE.memory, "bounds": bounds}


@cuda_kernel(**_grid("M", "K"))
def matmul_forward(a: "in rows f[P,M,C]", b: "in rows f[P,C,K]", y: "out rows f[P,M,K]"):
    """y[p] = a[p] @ b[p]"""
    (_, m, c), k = a.shape, b.shape[2]
    for p in range(cuda.blockIdx.z, a.shape[0], cuda.gridDim.z):
        cuda.syncthreads()
        PRODUCT(a[p], c, False, b[p], k, True, y, p * m * k, flat(y), False, m, k, 0, c)


@cuda_kernel(**_grid("C", "K"))
def matmul_backward_b(a: "in rows f[P,M,C]", dy: "in rows f[P,M,K]", db: "out rows f[P,C,K]"):
    """db[p] = a[p].T @ dy[p]"""
    (_, m, c), k = a.shape, dy.shape[2]
    for p in range(cuda.blockIdx.z, a.shape[0], cuda.gridDim.z):
        cuda.syncthreads()
        PRODUCT(a[p], c, True, dy[p], k, True, db, p * c * k, flat(db), False, c, k, 0, m)
