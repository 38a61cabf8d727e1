"""Each barrier of a kernel is left out in turn: the simulator has to notice.

It does where, in some order of blocks and threads, a number is read too early or written too late.
So a barrier that somebody forgets fails the kernel's tests, and one that nobody needs is seen here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastnn.kernels.cuda import near
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.kernels.recurrent.cuda_layout import Layout
from fastnn.runtime import _cuda
from fastnn.runtime.cuda import simulator
from fastnn.testing.kernels import call_cuda
from tests.kernels.cuda.recurrent import Case

pytestmark = pytest.mark.skipif(not _cuda.simulated(), reason="a device's order is its own")

#: launches, in orders of their own, in which it has to show
ORDERS = 8
Outputs = list[np.ndarray]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def product() -> Outputs:
    """Four slices of the sum in room for three, so that the last lies where sums are exchanged; in
    eight groups of warps."""
    dw, dbias = np.zeros((3, 5), np.float32), np.zeros(5, np.float32)
    kernel = CUDA_KERNELS["linear_backward_weight_bias_tiny"]
    call_cuda(kernel, x=normal(500, 3), dy=normal(500, 5), dw=dw, dbias=dbias)
    return [dw, dbias]


def softmax() -> Outputs:
    y = np.zeros((1, 700), np.float32)
    call_cuda(CUDA_KERNELS["softmax_forward"], x=normal(1, 700), y=y)
    return [y]


def recurrent(near: bool) -> Callable[[], Outputs]:
    def run() -> Outputs:
        case = Case("rnn", {"activation": 0}, (2, 3, 7), np.float32)
        return [case.forward(Layout(1, 2, 4, near=near))[k] for k in ("y", "h_n")]

    return run


KERNELS = {
    "product": product, "softmax": softmax, "by words": recurrent(False),
    "in a cluster": recurrent(True),
}  # fmt: skip


@pytest.mark.parametrize("name", KERNELS)
def test_a_barrier_that_is_left_out_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run, meet = KERNELS[name], simulator._Thread.meet
    met: dict[tuple[str, int], None] = {}
    left_out: list[tuple[str, int]] = []

    def meet_but(self: Any, place: tuple[str, int]) -> None:
        if not place[0].endswith(near.__name__.rpartition(".")[2] + ".py"):
            met[place] = None
        if place not in left_out:
            meet(self, place)

    def meet_cluster_but(blocks: int) -> None:
        """Of a cluster's barrier, which is one instruction, the twin has several."""
        frame = sys._getframe(1)
        place = frame.f_code.co_filename, frame.f_lineno
        met[place] = None
        if place not in left_out:
            meet_cluster(blocks)

    meet_cluster = near.meet
    monkeypatch.setattr(simulator._Thread, "meet", meet_but)
    monkeypatch.setattr(near, "meet", meet_cluster_but)
    monkeypatch.setattr(simulator, "PATIENCE", 2_000)
    right = run()

    def noticed() -> bool:
        try:
            found = run()
        except Exception:  # as others read or write where nothing is any more
            return True
        return any(a.tobytes() != b.tobytes() for a, b in zip(right, found, strict=True))

    assert not noticed()
    unnoticed = []
    for place in list(met):
        left_out[:] = [place]
        if not any(noticed() for _ in range(ORDERS)):
            unnoticed.append(f"{Path(place[0]).name}:{place[1]}")
    assert unnoticed == []
    assert len(met) > 1
    assert (name == "in a cluster") == any("near" in file for file, _ in met)
