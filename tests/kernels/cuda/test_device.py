"""Sums over a block and a warp, and what the simulator finds."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from fastnn.kernels.cuda.device import (
    block_max,
    block_number,
    block_sum,
    block_threads,
    cuda,
    flat,
    give_way,
    load4,
    store4,
    thread_number,
    warp_max,
    warp_sum,
)
from fastnn.kernels.declare import CUDA_KERNELS, CudaKernel, cuda_kernel
from fastnn.runtime import _cuda
from fastnn.testing.kernels import call_cuda


def declare(function, threads: int, grid: int = 1, cooperative: bool = False) -> CudaKernel:
    """A kernel for one test, not entered in the list of all kernels."""
    made: CudaKernel = cuda_kernel(
        function, launch=lambda s: (grid, threads), cooperative=cooperative
    )
    del CUDA_KERNELS[made.name]
    return made


def sums(x: "in whole f[N]", y: "out whole f[N]", z: "out whole f[N]", top: "out whole f[N]"):
    i = thread_number()
    y[i] = block_sum(x[i])
    z[i] = warp_sum(x[i])
    top[i] = block_max(x[i]) + 0.5 * warp_max(x[i])


def in_halves(v: np.ndarray) -> np.ndarray:
    while v.shape[-1] > 1:
        v = v[..., : v.shape[-1] // 2] + v[..., v.shape[-1] // 2 :]
    return v[..., 0]


@pytest.mark.parametrize("threads", [32, 64, 96])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_have_their_order(threads: int, dtype: type) -> None:
    x = np.random.default_rng(threads).normal(size=threads).astype(dtype)
    y, z, top = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    call_cuda(declare(sums, threads), x=x, y=y, z=z, top=top)
    warps = in_halves(x.reshape(-1, 32))
    block = in_halves(np.concatenate([warps, np.zeros(32 - warps.size, dtype)]))
    np.testing.assert_array_equal(y, np.full(threads, block))
    np.testing.assert_array_equal(z, np.repeat(warps, 32))
    highest = np.repeat(x.reshape(-1, 32).max(1), 32)
    np.testing.assert_array_equal(top, x.max() + dtype(0.5) * highest)


def fours(x: "in whole f[N,C]", y: "out whole f[N,C]"):
    i = 4 * thread_number()
    if i < x.size:
        a, b, c, d = load4(x, i)
        store4(y, i, d, c, b, a)
    flat(y)[x.size - 1] = 7.0


def test_four_elements_at_once() -> None:
    x = np.arange(32, dtype=np.float32).reshape(4, 8)
    y = np.empty_like(x)
    call_cuda(declare(fours, 32), x=x, y=y)
    expected = x.reshape(-1, 4)[:, ::-1].reshape(4, 8)
    expected[-1, -1] = 7
    np.testing.assert_array_equal(y, expected)


def simulator() -> Any:
    """The module, which only the simulator can import."""
    from fastnn.runtime.cuda import simulator

    return simulator


simulated = pytest.mark.skipif(not _cuda.simulated(), reason="checks the simulator")


def divergent(x: "inout whole f[N]"):
    if thread_number() < 3:
        cuda.syncthreads()
    else:
        cuda.syncthreads()


def one_leaves(x: "inout whole f[N]"):
    if thread_number() != 5:
        cuda.syncthreads()


def negative(x: "inout whole f[N]"):
    x[thread_number() - 1] = 0.0


def negative_read(x: "inout whole f[N]"):
    x[0] = x[thread_number() - 1]


def negative_places(x: "inout whole f[N]"):
    x[thread_number() - np.arange(2)] = 0.0  # as twins write several elements at once


def waits_for_ever(x: "inout whole f[N]"):
    while x[0] == 0.0:
        give_way()


@simulated
@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (divergent, "wait at different places"),
        (one_leaves, "ended, others"),
        (negative, "negative"),
        (negative_read, "negative"),
        (negative_places, "negative"),
        (waits_for_ever, "all threads wait for each other"),
    ],
)
def test_faults_are_found(kernel, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulator(), "PATIENCE", 50)
    with pytest.raises((RuntimeError, IndexError), match=message):
        call_cuda(declare(kernel, 32), x=np.zeros(32, np.float32))


def poison(x: "inout whole f[N]"):
    shared = cuda.shared.array(32, x.dtype)
    x[thread_number()] = shared[thread_number()]


@simulated
def test_shared_memory_is_poisoned() -> None:
    x = np.zeros(32, np.float32)
    call_cuda(declare(poison, 32), x=x)
    assert np.isnan(x).all()


def turns(count: "inout whole i[K]", seen: "out whole i[N]"):
    """Writes down the order in which threads have their first turn."""
    at = count[0]
    count[0] = at + 1
    seen[at] = block_number() * block_threads() + thread_number()


@simulated
def test_blocks_and_threads_have_an_order_drawn_from_a_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another one in each launch, the same in another run; without any thread that stays behind,
    which would disturb it, too."""
    monkeypatch.setattr(simulator(), "PASSED_OVER", 0.0)
    kernel = declare(turns, 8, grid=6)

    def order() -> list[int]:
        seen = np.empty(48, np.int64)
        call_cuda(kernel, count=np.zeros(1, np.int64), seen=seen)
        return seen.tolist()

    def run(seed: str) -> list[list[int]]:
        monkeypatch.setenv("FASTNN_SIMULATOR_SEED", seed)
        monkeypatch.setattr(simulator(), "_launches", itertools.count())
        return [order(), order()]

    first, second = run("1")
    assert sorted(first) == sorted(second) == list(range(48))
    blocks = [first[8 * k] // 8 for k in range(6)]
    assert sorted(blocks) == list(range(6)) != blocks
    assert any(first[8 * k : 8 * k + 8] != sorted(first[8 * k : 8 * k + 8]) for k in range(6))
    assert first != second
    assert run("1") == [first, second]
    assert run("2") != [first, second]


def paces(count: "inout whole i[N]", far: "out whole i[N]", turns: "int"):
    """How far the first thread gets between two turns of another one, at most."""
    i = thread_number()
    before, most = 0, 0
    for _ in range(turns):
        count[i] += 1
        most = max(most, count[0] - before)
        before = count[0]
        give_way()
    far[i] = most


@simulated
def test_some_threads_stay_behind_for_several_turns() -> None:
    count, far = np.zeros(32, np.int64), np.empty(32, np.int64)
    call_cuda(declare(paces, 32), count=count, far=far, turns=60)
    assert far[1:].max() >= 7  # each a little late now and then: 3 or 4


def neighbours(x: "in whole f[N]", y: "out whole f[N]", barrier: "int"):
    """Each thread reads what the thread before it has written."""
    i = thread_number()
    s = cuda.shared.array(64, x.dtype)
    s[i] = x[i]
    if barrier:
        cuda.syncthreads()
    y[i] = s[max(i - 1, 0)]


def test_a_missing_barrier_is_seen_whatever_the_direction() -> None:
    """In the order of their numbers all threads would find what they read."""
    x = np.arange(64, dtype=np.float32)
    expected = np.concatenate([x[:1], x[:-1]])
    kernel = declare(neighbours, 64)
    wrong = 0
    for _ in range(5):
        y = np.empty_like(x)
        call_cuda(kernel, x=x, y=y, barrier=1)
        np.testing.assert_array_equal(y, expected)
        call_cuda(kernel, x=x, y=y, barrier=0)
        wrong += not np.array_equal(y, expected)
    assert wrong == 5 or not _cuda.simulated()
