"""The register tile by rows and columns: the bits of its twin, and nothing touched beside it."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fnn
from fastnn.kernels.cpu import target, tile
from fastnn.kernels.cpu.tile import best_tile
from fastnn.testing.kernels import call

DEPTH, ROOM = 5, 3  # ROOM: numbers between rows of C that belong to nobody


@fnn.kernel
def some_tile(
    a: "in whole f[A]", b: "in whole f[B]", c: "inout whole f[C]", bias: "in whole f[D]",
    depth: "int", rows: "int", columns: "int", a_row: "int", a_step: "int", c_row: "int",
    bias_at: "int", begin: "int",
):  # fmt: skip
    best_tile(a, 0, a_row, a_step, b, 1, columns + 2, c, 2, c_row, bias, bias_at, depth, rows,
              columns, begin == 1)  # fmt: skip


def columns_of(dtype: str) -> list[int]:
    """Every number up to a vector and one, and those around two and three."""
    lanes = target.host().lanes(np.dtype(dtype).itemsize)
    return [*range(1, lanes + 2), 2 * lanes - 1, 2 * lanes, 2 * lanes + 1, 3 * lanes - 1, 3 * lanes]


@pytest.mark.skipif(not target.host().has_fma, reason="without FMA products are rounded")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bits_of_its_twin(dtype: str) -> None:
    """All shapes, with fewer rows and columns than they have, too."""
    rng = np.random.default_rng(0)
    shapes, lanes = tile.shapes(), target.host().lanes(np.dtype(dtype).itemsize)
    height, vectors = shapes[tile.MAIN]
    for columns in columns_of(dtype):
        most = shapes[tile.WIDE][0] if columns > vectors * lanes else height
        for rows in range(1, most + 1):
            a, b = (
                rng.integers(-8, 8, n).astype(dtype) / 4
                for n in (rows * DEPTH, DEPTH * (columns + 2) + 1)
            )
            before = np.full(rows * (columns + ROOM) + 4, 1e30, dtype)
            inner = before[2 : 2 + rows * (columns + ROOM)].reshape(rows, -1)[:, :columns]
            inner[...] = rng.integers(-8, 8, inner.shape)
            bias = rng.integers(-8, 8, columns + 1).astype(dtype)
            for begin, bias_at in ((0, 1), (1, -1)):
                if begin:
                    inner[...] = np.nan
                options = {
                    "a": a, "b": b, "bias": bias, "depth": DEPTH, "rows": rows, "begin": begin,
                    "columns": columns, "bias_at": bias_at, "c_row": columns + ROOM,
                    **({"a_row": DEPTH, "a_step": 1} if begin else {"a_row": 1, "a_step": rows}),
                }  # fmt: skip
                compiled, plain = before.copy(), before.copy()
                call(some_tile, c=compiled, **options)
                some_tile(c=plain, **options)
                np.testing.assert_array_equal(compiled, plain, f"{rows} x {columns}, {begin}")
