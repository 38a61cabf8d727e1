"""Convolutions, poolings and gated units on CUDA against plain loops in float64, and the CPU."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import pytest

from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.runtime.cuda import compiler, report
from tests.kernels.cuda.common import compute_both, compute_cuda

report.declare_all()


class Case(NamedTuple):
    """Sizes of a convolution; of what is (rows, columns), the pair."""

    samples: int
    image: tuple[int, int]
    channels: int
    outputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    before: tuple[int, int] = (0, 0)
    groups: int = 1

    @property
    def places(self) -> tuple[int, int]:
        """Windows down and across, with as many zeros behind the image as before it."""
        rows, columns = (
            (size + 2 * pad - (kernel - 1) * step - 1) // stride + 1
            for size, pad, kernel, step, stride in zip(
                self.image, self.before, self.kernel, self.dilation, self.stride, strict=True
            )
        )
        return rows, columns

    @property
    def numbers(self) -> dict[str, int]:
        names = ("stride", "dilation")
        given = {f"{n}_{e}": v for n in names for e, v in zip("hw", getattr(self, n), strict=True)}
        return {**given, "top": self.before[0], "left": self.before[1]}


CASES = [
    Case(2, (4, 5), 3, 4, (3, 2), before=(1, 0)),
    Case(1, (1, 9), 2, 35, (1, 3), (1, 2), (1, 2), (0, 2)),
    Case(9, (3, 3), 4, 6, (2, 2), (2, 1), before=(1, 1), groups=2),
    Case(1, (2, 3), 1, 1, (1, 1)),
]
DEPTHWISE = [
    Case(2, (4, 5), 3, 3, (3, 2), (2, 1), before=(1, 1), groups=3),
    Case(9, (1, 7), 33, 33, (1, 3), dilation=(1, 2), before=(0, 2), groups=33),
]


def arrays(case: Case, dtype: Any) -> list[np.ndarray]:
    """x, w, bias and dy."""
    shapes = [
        (case.samples, *case.image, case.channels),
        (*case.kernel, case.channels // case.groups, case.outputs), (case.outputs,),
        (case.samples, *case.places, case.outputs),
    ]  # fmt: skip
    rng = np.random.default_rng(case.outputs)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def oracle(case: Case, x: Any, w: Any, bias: Any, dy: Any) -> tuple[np.ndarray, ...]:
    """y, dx and dw by plain loops."""
    x, w, bias, dy = (array.astype(float) for array in (x, w, bias, dy))
    y, dx, dw = np.zeros(dy.shape) + bias, np.zeros(x.shape), np.zeros(w.shape)
    group, own = w.shape[2], case.outputs // case.groups
    steps = itertools.product(*map(range, (*case.places, *case.kernel)), range(case.groups))
    for p, q, i, j, g in steps:
        row = p * case.stride[0] + i * case.dilation[0] - case.before[0]
        column = q * case.stride[1] + j * case.dilation[1] - case.before[1]
        if not (0 <= row < x.shape[1] and 0 <= column < x.shape[2]):
            continue
        c, k = slice(g * group, (g + 1) * group), slice(g * own, (g + 1) * own)
        y[:, p, q, k] += x[:, row, column, c] @ w[i, j, :, k]
        dx[:, row, column, c] += dy[:, p, q, k] @ w[i, j, :, k].T
        dw[i, j, :, k] += x[:, row, column, c].T @ dy[:, p, q, k]
    return y, dx, dw


@pytest.mark.parametrize("case", CASES + DEPTHWISE)
def test_against_plain_loops(case: Case) -> None:
    for dtype, tolerance in ((np.float32, 3e-6), (np.float64, 1e-14)):
        x, w, bias, dy = arrays(case, dtype)
        y, dx, dw = oracle(case, x, w, bias, dy)
        name, more = "depthwise", {}
        if case not in DEPTHWISE:
            name, more = "convolution", {"room": None, "groups": case.groups}
        packed = {} if case in DEPTHWISE else {"w_packed": None}
        numbers = {**case.numbers, **more}
        for shift in (bias, np.zeros(0)):
            got = compute_cuda(
                f"{name}_forward", dtype, {"y": y.shape}, x=x, w=w, **packed, bias=shift, **numbers
            )
            want = y if shift.size else y - bias
            np.testing.assert_allclose(got["y"], want, rtol=0, atol=tolerance * np.abs(y).max())
        got = compute_cuda(
            f"{name}_backward_input", dtype, {"dx": dx.shape}, dy=dy, w=w, **packed, **numbers
        )
        np.testing.assert_allclose(got["dx"], dx, rtol=0, atol=tolerance * np.abs(dx).max())
        flat = (dw.size // case.outputs, case.outputs)
        got = compute_cuda(
            f"{name}_backward_weight", dtype, {"dw": flat}, x=x, dy=dy, kernel_w=case.kernel[1],
            **numbers,
        )  # fmt: skip
        want = dw.reshape(flat)
        np.testing.assert_allclose(got["dw"], want, rtol=0, atol=tolerance * np.abs(dw).max())


@pytest.mark.parametrize("name", ["convolution_backward_weight", "depthwise_backward_weight"])
def test_windows_of_any_size_fit_the_grid(name: str) -> None:
    """Its second and third dimensions end at 65,535 blocks."""
    kernel = CUDA_KERNELS[name]
    sizes = {letter: 8 for array in kernel.arrays.values() for letter in array.dims}
    grid = compiler.launch_of(kernel, {**sizes, "D": 9 * 100_000}, "float32").grid
    assert max(grid[1:]) <= 65_535
    assert np.prod(grid) >= 900_000


WINDOW = {"kernel_h": 2, "kernel_w": 3, "stride_h": 2, "stride_w": 1, "top": 1, "left": 1}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pooling_as_on_the_cpu(dtype: Any) -> None:
    rng = np.random.default_rng(3)
    x, shape = rng.standard_normal((2, 4, 5, 3)).astype(dtype), (2, 3, 5, 3)
    dy = rng.standard_normal(shape).astype(dtype)
    given = {"x": x, "dilation_h": 1, "dilation_w": 1, **WINDOW}
    y = compute_both("max_pool_forward", dtype, {"y": shape}, exact=True, **given)["y"]
    assert y[0, 1, 1, 2] == x[0, 1:3, :3, 2].max()
    compute_both("max_pool_backward", dtype, {"dx": x.shape}, y=y, dy=dy, **given)
    at = compute_both("max_pool_places", dtype, {"y": shape}, exact=True, best=y, **given)["y"]
    row, column = np.unravel_index(np.argmax(x[0, 1:3, :3, 2]), (2, 3))
    assert at[0, 1, 1, 2] == (1 + row) * 5 + column
    for counts in (0, 1):
        mean = {"adaptive": 0, "padding_counts": counts, "divisor": 0, **WINDOW}
        got = compute_both("avg_pool_forward", dtype, {"y": shape}, x=x, **mean)["y"]
        np.testing.assert_allclose(got[0, 1, 1, 2], x[0, 1:3, :3, 2].mean(), rtol=1e-5)
        np.testing.assert_allclose(got[0, 1, 0, 2] * (3 if counts else 2) * 2,
                                   x[0, 1:3, :2, 2].sum(), rtol=1e-5)  # fmt: skip
        compute_both("avg_pool_backward", dtype, {"dx": x.shape}, dy=dy, **mean)


@pytest.mark.parametrize("unit", ["glu", "gtu"])
def test_gated_units_as_on_the_cpu(unit: str) -> None:
    rng = np.random.default_rng(4)
    x, dy = rng.standard_normal((5, 14)), rng.standard_normal((5, 7))
    for dtype in (np.float32, np.float64):
        compute_both(f"{unit}_forward", dtype, {"y": dy.shape}, x=x)
        compute_both(f"{unit}_backward", dtype, {"dx": x.shape}, x=x, dy=dy)
