"""After a stop launches go on: they must not change what training keeps."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import optim
from fastnn.kernels import control_block
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.kernels.guard import cuda_keep as keep  # noqa: F401  (declares the kernels)
from fastnn.kernels.step import cuda as step  # noqa: F401  (declares the kernels)
from fastnn.testing.kernels import call_cuda
from tests.kernels.test_step import block_of


def test_a_step_after_a_stop_does_not_count() -> None:
    before = block_of(STEP=5, RUN_STEP=2, CURSOR=64, STOP_REQUEST=1, STOP=control_block.NOT_FINITE)
    after = before.copy()
    call_cuda(CUDA_KERNELS["advance"], control=after, batch=32)
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("stop", [0, control_block.NOT_FINITE, control_block.REQUESTED])
def test_an_update_after_a_stop_changes_nothing(stop: int) -> None:
    optimizer = optim.Adam(clip_value=0.5)
    prepare, update = (CUDA_KERNELS[name] for name in optimizer.kernels())
    hyper = np.zeros(optimizer.hyper_size, np.float32)
    own = dict(zip(optimizer.own, optimizer.own_values(optimizer.options), strict=True))
    call_cuda(
        prepare, control=block_of(STOP=stop),
        schedule=np.ones((1, 1)), hyper=hyper, group=0, l2=0.1,
        decay=0.1, limit=0.5, sign=1.0, **own,
    )  # fmt: skip
    arrays = {n: np.full((3, 5), 0.25, np.float32) for n in ("p", *optimizer.slots)}
    before = {n: a.copy() for n, a in arrays.items()}
    g = np.full((3, 5), np.nan if stop else 1.0, np.float32)
    call_cuda(update, **arrays, g=g, hyper=hyper, scale=None, guard=None)
    assert all((a == before[n]).all() == bool(stop) for n, a in arrays.items())


@pytest.mark.parametrize("size", [1, 255, 300])
def test_keep_copies_unless_stopped(size: int) -> None:
    x = np.arange(1, size + 1, dtype=np.float32)
    for stop in (0, control_block.NOT_FINITE):
        saved = np.zeros(size, np.float32)
        call_cuda(CUDA_KERNELS["keep"], x=x, control=block_of(STOP=stop), saved=saved)
        np.testing.assert_array_equal(saved, x if stop == 0 else 0 * x)
