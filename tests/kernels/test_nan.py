"""NaN stays NaN in every kernel that computes from all it reads: found by declaration."""

from typing import Any

import numpy as np
import pytest

from fastnn.kernels.declare import KERNELS
from fastnn.testing.kernels import call
from tests.kernels import nan


def run(name: str, operands: dict[str, Any]) -> None:
    call(KERNELS[name], **operands)


@pytest.mark.parametrize("name", nan.kernels())
def test_nan_is_not_hidden(name: str) -> None:
    for dtype in (np.float32, np.float64):
        assert nan.hidden(name, dtype, run) == []
