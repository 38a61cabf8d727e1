"""Steps of full-batch methods on CUDA beside those of the CPU: whole iterations on a function that
NumPy evaluates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn import optim
from fastnn.kernels import control_block
from fastnn.kernels.declare import CUDA_KERNELS, KERNELS
from fastnn.kernels.descent import gauss_newton, search
from fastnn.testing.kernels import call_cuda
from tests.kernels.common import DTYPES

#: parameters lie at these places of flat memory
PLACES = np.array([0, 1, 3])
SIZE = 5
FACTORS = np.array([[2.0, 0.3, -0.1], [0.3, 1.0, 0.2], [-0.1, 0.2, 0.5]])


class Quartic:
    """sum (A x - 1)^2 / 2 + sum x^4 / 40, and a Gauss-Newton matrix of it."""

    def evaluation(self, p: np.ndarray) -> tuple[float, np.ndarray]:
        x, gradient = p[PLACES].astype(float), np.zeros(SIZE)
        rest = FACTORS @ x - 1
        gradient[PLACES] = FACTORS.T @ rest + x**3 / 10
        return 0.5 * rest @ rest + np.sum(x**4) / 40, gradient

    def product(self, v: np.ndarray) -> np.ndarray:
        found = np.zeros(SIZE)
        found[PLACES] = FACTORS.T @ (FACTORS @ v[PLACES].astype(float))
        return found


def iterate(optimizer: Any, call: Any, dtype: Any, iterations: int) -> dict[str, np.ndarray]:
    """The arrays after so many iterations; the sums are those of two samples."""
    made, problem = KERNELS[optimizer.kernels()[0]], Quartic()
    p = np.zeros(SIZE, dtype)
    p[PLACES] = 1.5, -0.5, 2.0
    arrays = {slot: np.zeros(SIZE, dtype) for slot in optimizer.slots}
    arrays = {"p": p, "g": arrays.pop("gradient"), **arrays}
    if hasattr(optimizer, "working"):
        arrays |= optimizer.working(PLACES, p)
    arrays |= {"control": np.zeros(control_block.LENGTH, np.int64), "totals": np.ones(2)}
    arrays["state"] = state = np.zeros(optimizer.state_size)
    numbers = {**optimizer.operands(), "summed": 0, "reported": 2}
    product = False
    for _ in range(iterations):
        state[search.OUTCOME] = search.GOING
        if "values" in arrays or "matrix" in arrays:
            state[search.PHASE] = gauss_newton.BEGIN
            state[gauss_newton.DAMPING] = state[gauss_newton.DAMPING] or 0.5
        while state[search.OUTCOME] == search.GOING:
            ready = state[search.PHASE] == search.READY and "vector" not in arrays
            if product:
                arrays["product"] += (2 * problem.product(arrays["vector"])).astype(dtype)
            elif not ready:
                loss, gradient = problem.evaluation(p)
                arrays["g"] += (2 * gradient).astype(dtype)
                state[search.LOSS] += 2 * loss
                state[search.COUNT] += 2
            arrays["control"][control_block.STOP] = 0
            call(made, **{name: {**arrays, **numbers}[name] for name in made.params})
            product = "vector" in arrays and state[gauss_newton.WANTED] == gauss_newton.PRODUCT
        assert not arrays["g"].any()
    return arrays


METHODS = {
    "lbfgs": (lambda: optim.LBFGS(history_size=2), 4),
    "cg": (lambda: optim.ConjugateGradient(weight_decay=0.1), 3),
    "marquardt": (lambda: optim.LevenbergMarquardt(), 2),
    "hessian-free": (lambda: optim.HessianFree(max_iterations=3), 2),
}


@pytest.mark.parametrize("name", METHODS)
def test_iterations(name: str) -> None:
    make, iterations = METHODS[name]

    def on_cuda(kernel: Any, **operands: Any) -> None:
        call_cuda(CUDA_KERNELS[kernel.name], **operands)

    def on_cpu(kernel: Any, **operands: Any) -> None:
        kernel(**operands)

    expected = iterate(make(), on_cpu, np.float64, iterations)
    found = iterate(make(), on_cuda, np.float64, iterations)
    assert expected["state"][search.ITERATIONS] == iterations
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-8, atol=1e-10, err_msg=key)


def test_what_is_not_a_number() -> None:
    """The kernel sees it in one element of many, in another thread's share."""
    found = []
    for call in (lambda k, **o: k(**o), lambda k, **o: call_cuda(CUDA_KERNELS[k.name], **o)):
        optimizer = optim.ConjugateGradient()
        made = KERNELS[optimizer.kernels()[0]]
        arrays = {slot: np.zeros(40) for slot in optimizer.slots}
        arrays["gradient"][37] = np.nan
        arrays |= {"p": np.zeros(40), "control": np.zeros(control_block.LENGTH, np.int64)}
        arrays |= {"totals": np.zeros(2), "state": np.zeros(optimizer.state_size)}
        arrays["state"][search.COUNT] = 1
        arrays["g"] = arrays.pop("gradient")
        numbers = {**optimizer.operands(), "summed": 0, "reported": 2}
        call(made, **{name: {**arrays, **numbers}[name] for name in made.params})
        found.append(arrays["control"][control_block.STOP])
    assert found == [control_block.NOT_FINITE] * 2


@pytest.mark.parametrize("count", [[], [3.0]], ids=["alone", "times a count"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_add_scaled(dtype: Any, count: Any) -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 3, 7)).astype(dtype)
    expected, found, count = y.copy(), y.copy(), np.array(count, dtype)
    KERNELS["add_scaled"](x=x, count=count, y=expected, factor=dtype(2.5), lo=0, hi=3)
    call_cuda(CUDA_KERNELS["add_scaled"], x=x, count=count, y=found, factor=2.5)
    assert found.tobytes() == expected.tobytes()
