"""Kernels of one block joined to one: the bits are those of the kernels alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn.optim
from fastnn.kernels import control_block
from fastnn.kernels.cuda import joined
from fastnn.kernels.cuda.device import cuda, thread_number
from fastnn.kernels.declare import CUDA_KERNELS, cuda_kernel
from fastnn.testing.kernels import call_cuda

fastnn.optim.Adam().kernels()


@cuda_kernel(launch=lambda s: (1, 32), one_block=True)
def joined_test_turn(x: "in whole f[N]", y: "out whole f[N]"):
    """y is x the other way round."""
    i = thread_number()
    if i < x.shape[0]:
        y[i] = x[x.shape[0] - 1 - i]


@cuda_kernel(launch=lambda s: (1, 64), one_block=True)
def joined_test_wide(x: "in whole f[N]", y: "out whole f[N]"):
    """y = 2 x, by the last threads of a block of 64."""
    i = thread_number() - 32
    if i >= 0 and i < x.shape[0]:
        y[i] = 2.0 * x[i] + cuda.blockIdx.x


SIZES = [1, 2, 31, 32, 33, 127, 128, 129, 300]


def random(seed: int, size: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size).astype(dtype)


def end_of_loss(size: int, dtype: Any, value: float = 0.0) -> dict[str, Any]:
    """Operands of a loss, its check, its total and another sum, by name and number."""
    x = random(size, size, dtype)
    x[-1] += value
    y, control = np.full(1, 7, dtype), np.zeros(control_block.LENGTH, np.int64)
    return {
        "x_0": x, "y_0": y, "value_1": y, "control_1": control, "value_2": y,
        "total_2": np.ones(2), "count_2": 8, "x_3": random(1, 2000, dtype), "total_3": np.ones(2),
    }  # fmt: skip


NAMES = ("mean", "check_finite", "accumulate", "accumulate_rows")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES)
def test_bits_are_those_of_the_kernels_alone(size: int, dtype: Any) -> None:
    """The last sum has more threads than the first ones are launched with alone."""
    together, alone = end_of_loss(size, dtype), end_of_loss(size, dtype)
    alone["value_1"] = alone["value_2"] = alone["y_0"]
    kernel = joined.find("+".join(NAMES))
    assert kernel is not None
    call_cuda(kernel, **together)
    for k, name in enumerate(NAMES):
        part = CUDA_KERNELS[name]
        call_cuda(part, **{n: alone[own] for n, own in joined.named(part, k).items()})
    for name, value in alone.items():
        assert np.asarray(value).tobytes() == np.asarray(together[name]).tobytes(), name
    assert together["total_2"][1] == 9


def test_what_one_kernel_writes_the_next_one_reads() -> None:
    operands = end_of_loss(300, np.float32, np.inf)
    call_cuda(joined.find("+".join(NAMES)), **operands)  # type: ignore[arg-type]
    assert operands["control_1"][control_block.STOP] == control_block.NOT_FINITE


def test_threads_wait_for_each_other_between_two_kernels() -> None:
    x, y, z, back = (np.arange(32, dtype=np.float32) for _ in range(4))
    kernel = joined.find("joined_test_turn+joined_test_wide+joined_test_turn")
    assert kernel is not None
    call_cuda(kernel, x_0=x, y_0=y, x_1=y, y_1=z, x_2=z, y_2=back)
    assert y.tolist() == x[::-1].tolist()
    assert z.tolist() == (2 * x[::-1]).tolist()
    assert back.tolist() == (2 * x).tolist()


def test_a_rules_scalars_see_the_stop() -> None:
    """The update's preparation is part of the launch that latches the stop."""
    kernel = joined.find("mean+check_finite+adam_prepare")
    assert kernel is not None
    for value, limit in ((0.0, 0.5), (np.nan, -1.0)):
        operands = {n: v for n, v in end_of_loss(40, np.float32, value).items() if n[-1] in "01"}
        operands |= {
            "control_2": operands["control_1"], "schedule_2": np.full((1, 1), 0.1), "group_2": 0,
            "hyper_2": np.zeros(11, np.float32), "l2_2": 0.25, "decay_2": 0.0, "limit_2": 0.5,
            "sign_2": 1.0,
        }  # fmt: skip
        own = list(kernel.params)[len(operands) :]
        operands |= dict(zip(own, (0.9, 0.999, 1e-8, 0.0), strict=False))
        call_cuda(kernel, **operands)
        assert operands["hyper_2"][:3].tolist() == [0.25, 1.0, limit]


def test_kernels_of_one_block_are_launched_with_one() -> None:
    """Whatever the sizes; they take no shared memory, and one alone takes the user's data."""
    found = [kernel for kernel in CUDA_KERNELS.values() if kernel.traits.one_block]
    assert {"mean", "total", "weighted_mean", "latch", "advance", "adam_prepare"} <= {
        kernel.name for kernel in found
    }
    of_data = {k.name for k in found if any(p.dtype == "d" for p in k.arrays.values())}
    assert of_data == {"gather_ids_few"}  # a joined kernel has one type of data
    for kernel in found:
        assert (kernel.shared, kernel.cooperative, kernel.bounds) == (None, False, None)
        letters = {letter for p in kernel.arrays.values() for letter in p.dims}
        for size in (1, 100, 1_000_000):
            assert kernel.launch(dict.fromkeys(letters, size))[0] == 1
