"""A block that is turned, compiled and as its twin, also into rows that overlap."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fnn
from fastnn.kernels.cpu.tile import tile_lanes, transpose_block
from fastnn.testing.kernels import call


@fnn.kernel
def turn_a_block(
    x: "in whole f[N]", y: "inout whole f[M]", x_row: "int", y_row: "int", n: "inout whole i[K]"
):
    n[0] = tile_lanes(x)
    transpose_block(x, 1, x_row, y, 2, y_row)


@pytest.mark.parametrize(("x_row", "y_row"), [(20, 20), (20, 3), (5, 1), (3, 0)])
def test_the_twin_writes_what_compiled_code_writes(x_row: int, y_row: int) -> None:
    def turned(run: object) -> tuple[np.ndarray, int]:
        x, y, n = np.arange(400, dtype=np.float32), np.zeros(400, np.float32), np.zeros(1, int)
        run(x=x, y=y, x_row=x_row, y_row=y_row, n=n)  # type: ignore[operator]
        return y, int(n[0])

    compiled, lanes = turned(lambda **given: call(turn_a_block, **given))
    np.testing.assert_array_equal(turned(turn_a_block)[0], compiled)
    last = 2 + (lanes - 1) * y_row  # nothing is written over the last row
    np.testing.assert_array_equal(
        compiled[last : last + lanes], 1 + lanes - 1 + x_row * np.arange(lanes)
    )
