"""The guard's kernels on CUDA."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn.kernels.guard.cuda  # noqa: F401  (declares the kernels)
from fastnn import optim
from fastnn.kernels import control_block
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.testing.kernels import call_cuda
from tests.kernels.test_step import block_of


@pytest.mark.parametrize("value", [9e4, 1e5, -np.inf, np.nan])
def test_check(value: float) -> None:
    x, guard = np.full((3, 5), value, np.float32), np.zeros(control_block.GUARD_LENGTH, np.int64)
    call_cuda(CUDA_KERNELS["check_size"], x=x, guard=guard, limit=1e5)
    assert guard[control_block.DOUBT] == (not abs(value) < 1e5)


@pytest.mark.parametrize(("doubt", "stop", "rate"), [(0, 0, 1), (1, 0, 1), (0, 0, 1e9), (1, 2, 1)])
def test_safeguard(doubt: int, stop: int, rate: float) -> None:
    x, saved = np.arange(1, 301, dtype=np.float32), np.zeros(300, np.float32)
    guard = np.zeros(control_block.GUARD_LENGTH, np.int64)
    guard[control_block.DOUBT] = doubt
    slots = {f"slot{k}": x + k for k in (1, 2, 3)}
    copies = {f"saved{k}": np.zeros(300, np.float32) for k in (1, 2, 3)}
    call_cuda(
        CUDA_KERNELS["safeguard"], control=block_of(STOP=stop),
        schedule=np.full((1, 1), float(rate)),
        guard=guard, x=x, saved=saved, **slots, **copies, always=0,
    )  # fmt: skip
    copied = bool(stop == 0 and (doubt or rate > 1e3))
    assert (saved == x).all() == copied == guard[control_block.SAVED]
    for k in (1, 2, 3):
        assert (copies[f"saved{k}"] == slots[f"slot{k}"]).all() == copied


@pytest.mark.parametrize("value", [1e14, 1e16, np.inf, np.nan])
def test_an_update_reports_whichever_element(value: float) -> None:
    """Of four at a time, or of the rest."""
    _, update = optim.SGD().kernels()
    for place in range(7):
        g = np.zeros((1, 7), np.float32)
        g[0, place] = value
        p, guard = np.ones_like(g), np.zeros(control_block.GUARD_LENGTH, np.int64)
        hyper = np.array([0.0, 1.0, np.inf, 1.0, *[-1.0] * (optim.SGD().hyper_size - 4)])
        call_cuda(
            CUDA_KERNELS[update], p=p, g=g, hyper=hyper.astype(np.float32), scale=None, guard=guard
        )
        assert (p[0] == 1).sum() == 6
        assert guard[control_block.LARGE] == (not abs(value) < 1e15)
        assert guard[control_block.BROKEN] == (not np.isfinite(value))


@pytest.mark.parametrize("broken", [0, 1])
def test_latch(broken: int) -> None:
    guard, after = np.zeros(control_block.GUARD_LENGTH, np.int64), block_of(STEP=1)
    guard[[control_block.LARGE, control_block.BROKEN]] = 1, broken
    call_cuda(CUDA_KERNELS["latch"], control=after, guard=guard)
    assert after[control_block.STOP] == (control_block.NOT_FINITE if broken else 0)
    assert guard[control_block.DOUBT] == 1 - broken
