"""A kernel called directly takes only operands that fit it: others would corrupt memory."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from fastnn.kernels import topics
from fastnn.kernels.declare import KERNELS
from fastnn.testing.kernels import call

topics.load("cpu")
F32, F64 = np.ones((2, 3), np.float32), np.ones((2, 3))


@pytest.mark.parametrize(
    ("operands", "words"),
    [
        ({"x": F32}, "relu_forward takes ['x', 'y'], got ['x']"),
        (
            {"x": F32, "y": F64},
            "expected arrays of one type, got {'x': 'float32', 'y': 'float64'}",
        ),
        ({"x": F32.astype(np.float16)} | {"y": F32.astype(np.float16)}, "or float64, got float16"),
        ({"x": F32.T, "y": F32.T}, "x: expected a C-contiguous array"),
        ({"x": F32, "y": np.ones((2, 4), np.float32)}, "is 3 and 4"),
    ],
)
def test_operands_that_do_not_fit_are_refused(operands: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        call(KERNELS["relu_forward"], **operands)


def test_those_that_fit_are_computed() -> None:
    for x in (F32, F64):
        y = np.full_like(x, np.nan)
        call(KERNELS["relu_forward"], x=x, y=y)
        np.testing.assert_array_equal(x, y)
