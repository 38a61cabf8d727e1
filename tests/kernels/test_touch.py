"""Writing back what was read: no bit changes, and it is really written."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from fastnn.kernels.declare import kernel
from fastnn.kernels.simd import lanes, load_first, sum_lanes, touch
from fastnn.runtime.cpu import codegen
from fastnn.testing.kernels import call


@kernel
def touch_all(x: "inout rows f[N]", lo: "begin", hi: "end"):
    for i in range(lo, hi - lanes(x) + 1, lanes(x)):
        touch(x, i)


@kernel
def touch_wide(x: "inout whole f[N]", y: "out whole f[U]"):
    """With vectors of 512 bits on any CPU, as `sum_lanes` has them."""
    touch(x, 0)
    y[0] = sum_lanes(load_first(x, 0, 3))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [0, 1, 15, 16, 33, 100])
def test_no_bit_changes(n: int, dtype: str) -> None:
    whole = np.frombuffer(np.random.default_rng(n).bytes(8 * (n + 2)), dtype).copy()
    before = whole.tobytes()  # any bits, NaN and subnormal numbers among them
    call(touch_all, x=whole[1 : n + 1])
    assert whole.tobytes() == before


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("made", [touch_all, touch_wide])
def test_it_is_written(made: Any, dtype: str) -> None:
    text = codegen.compile_llvm(made, dtype, "")
    stored = re.findall(r"store <\d+ x (?:float|double)>", text)
    assert len(stored) >= 1
    assert len(stored) == text.count("asm")


def test_wide_vectors() -> None:
    x, y = np.arange(16, dtype=np.float32), np.zeros(1, np.float32)
    call(touch_wide, x=x, y=y)
    assert x.tolist() == list(range(16))
    assert y[0] == 3
