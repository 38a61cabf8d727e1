"""Connectionist temporal classification on CUDA, against the CPU's kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn.kernels.ctc.shared import ROOM_ON_CUDA, columns_for
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.testing.kernels import call_cuda
from tests.kernels.common import DTYPES, close, poisoned
from tests.kernels.test_ctc import kernels, sequences


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("zero_infinity", "mean"), [(0, 1), (1, 0)])
def test_loss_and_gradient(zero_infinity: int, mean: int, dtype: Any) -> None:
    x, target, _, _, dloss = sequences(5, 4, 3, 2)
    target[0], target[1] = 1, [1, 2]
    lengths, counts = np.array([2, 4, 3, 0, 4]), np.array([2, 2, 1, 0, 1])
    x[4, 1, 2], target[2, 1] = np.nan, 9
    x, dloss = x.astype(dtype), dloss.astype(dtype)
    B, T, _ = x.shape
    M = columns_for(2)
    shapes = dict(loss=(B,), norm=(B, T, 2), share=(B, T, M), room=(B, T, ROOM_ON_CUDA * M),
                  dx=x.shape)  # fmt: skip
    out = {name: poisoned(shape, dtype, 0xFF)[0] for name, shape in shapes.items()}
    common = dict(x=x, target=target, lengths=lengths, target_lengths=counts, blank=0, mean=mean)
    more = {name: out[name] for name in ("loss", "room")}
    share = {name: out[name] for name in ("norm", "share")}
    call_cuda(
        CUDA_KERNELS["ctc_forward"], **common, **share, **more, work=None,
        zero_infinity=zero_infinity,
    )  # fmt: skip
    call_cuda(CUDA_KERNELS["ctc_backward"], **common, **share, dloss=dloss, dx=out["dx"])
    options = dict(mean=mean, zero_infinity=zero_infinity)
    loss, dx = kernels(x, target, lengths, counts, dloss, dtype, **options)
    close(out["loss"], loss, dtype, factor=5)
    close(out["dx"], dx, dtype, factor=5)
    assert np.isnan(loss[4])
    assert np.isfinite(loss[0]) == bool(zero_infinity)
