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

from fastnn.kernels.crf import shared as crf
from fastnn.kernels.ctc import shared as ctc
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


def convolution() -> Outputs:
    """Where windows begin lies in shared memory; five slices of the sum."""
    dw, dbias = unwritten(11, 2), unwritten(2)
    call_cuda(
        CUDA_KERNELS["convolution_backward_weight_tile"], x=normal(1, 1, 80, 1),
        dy=normal(1, 1, 70, 2), parts=None, bias_parts=None, counts=None, dw=dw, dbias=dbias,
        kernel_w=11, stride_h=1, stride_w=1, dilation_h=1, dilation_w=1, top=0, left=0, groups=1,
    )  # fmt: skip
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


def unwritten(*shape: int) -> np.ndarray:
    return np.full(shape, np.nan, np.float32)


def labelling() -> Outputs:
    """CTC: along the frames there and back."""
    T, M = 3, ctc.columns_for(2)
    loss, share = unwritten(1), unwritten(1, T, M)
    call_cuda(
        CUDA_KERNELS["ctc_forward"], x=normal(1, T, 3), target=np.array([[1, 2]]), lengths=None,
        target_lengths=None, loss=loss, norm=unwritten(1, T, 2), share=share,
        room=unwritten(1, T, ctc.ROOM_ON_CUDA * M), work=None, blank=0, mean=0, zero_infinity=0,
    )  # fmt: skip
    return [loss, share[..., :3]]


def aligning() -> Outputs:
    """The transducer's loss: along diagonals."""
    loss, norm, alpha = unwritten(1), unwritten(1, 3, 3, 2), np.full((1, 3, 3), np.nan)
    call_cuda(
        CUDA_KERNELS["transducer_forward"], x=normal(1, 3, 3, 3), target=np.array([[1, 2]]),
        lengths=None, target_lengths=None, loss=loss, norm=norm, alpha=alpha, blank=0, mean=0,
    )  # fmt: skip
    return [loss]


def chain() -> Outputs:
    """A conditional random field: along the tags there and back."""
    T, C = 4, 3
    M = crf.columns_for(C)
    loss, share, pair = unwritten(1), unwritten(1, T, M), unwritten(1, C + 2, M)
    call_cuda(
        CUDA_KERNELS["crf_forward"], x=normal(1, T, C), target=np.array([[1, 2, 0, 1]]),
        lengths=None, transitions=normal(C, C), start=normal(C), end=normal(1, C)[0], loss=loss,
        share=share, pair=pair, work=unwritten(1, crf.room_for(C, T)),
    )  # fmt: skip
    return [loss, share[..., :C], pair[..., :C]]


def beam() -> Outputs:
    out = {n: unwritten(1, 3) for n in ("new_score", "new_count", "new_ended")}
    out |= {n: np.zeros((1, 3), np.int64) for n in ("parent", "symbol")}
    call_cuda(
        CUDA_KERNELS["beam_select"], logits=normal(1, 21), score=normal(1, 3),
        count=np.full((1, 3), 2, np.float32), ended=np.zeros((1, 3), np.float32),
        norms=np.ones(6, np.float32), live=np.ones((1, 1), np.float32), stop=2,
        best=unwritten(1, 3), which=np.zeros((1, 3), np.int64), **out,
    )  # fmt: skip
    return list(out.values())


def attention() -> Outputs:
    """Three tiles of keys."""
    y = unwritten(1, 2, 3)
    call_cuda(
        CUDA_KERNELS["attention_forward"], q=normal(1, 2, 2), k=normal(1, 34, 2),
        v=normal(1, 34, 3), key_lengths=None, query_lengths=None, y=y, lse=unwritten(1, 2),
        scratch=unwritten(1, 1), control=None, heads=1, apart=0, causal=0, first=0, scale=0.7,
        keep=1.0, stream=1,
    )  # fmt: skip
    return [y]


KERNELS = {
    "product": product, "convolution": convolution, "softmax": softmax,
    "by words": recurrent(False), "in a cluster": recurrent(True), "labelling": labelling,
    "aligning": aligning, "chain": chain, "beam": beam, "attention": attention,
}  # fmt: skip


@pytest.mark.parametrize("name", KERNELS)
def test_a_barrier_that_is_left_out_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run, meet = KERNELS[name], simulator._Thread.meet
    met: dict[tuple[str, int], None] = {}
    left_out: list[tuple[str, int]] = []

    def meet_but(self: Any, place: tuple[str, int]) -> None:
        # a vote is more than a barrier, and one instruction
        votes = sys._getframe(1).f_code is simulator._Thread.vote.__code__
        if not votes and not place[0].endswith(near.__name__.rpartition(".")[2] + ".py"):
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
    assert met
    assert (name == "in a cluster") == any("near" in file for file, _ in met)
