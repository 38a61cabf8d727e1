"""Products of many matrices with as many: P pairs, each one a product by the register tile.

Every element is one chain of multiply-adds in the order of the summed index, as in `matmul`.
"""

from __future__ import annotations

from ..cpu.tile import tile_width
from ..declare import kernel
from .cpu import product


@kernel(product=("P", "M", "C", "K"), rounds=("a", "b"))
def matmul_forward(
    a: "in rows f[P,M,C]", b: "in rows f[P,C,K]", y: "out rows f[P,M,K]", lo: "begin", hi: "end"
):
    """y[p] = a[p] @ b[p]"""
    m, c, k = a.shape[1], a.shape[2], b.shape[2]
    for p in range(lo, hi):
        product(a, p * m * c, c, 1, b, p * c * k, k, tile_width(b), y, p * m * k, k,
                a[p, 0], -1, c, m, k)  # fmt: skip


@kernel(product=("P", "M", "C", "K"), rounds=("a", "dy"))
def matmul_backward_b(
    a: "in rows f[P,M,C]", dy: "in rows f[P,M,K]", db: "out rows f[P,C,K]", lo: "begin", hi: "end"
):
    """db[p] = a[p].T @ dy[p]"""
    m, c, k = a.shape[1], a.shape[2], dy.shape[2]
    for p in range(lo, hi):
        product(a, p * m * c, 1, c, dy, p * m * k, k, tile_width(dy), db, p * c * k, k,
                dy[p, 0], -1, m, c, k)  # fmt: skip
