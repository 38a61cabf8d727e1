"""Every CUDA kernel keeps to its signature: see `tests/kernels/contract.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn.optim  # noqa: F401  (enters the optimisers' kernels)
from fastnn.kernels.declare import CUDA_KERNELS, Array, CudaKernel
from fastnn.kernels.update.shared import MADE, SAVING, SHARED
from fastnn.runtime.cuda import report
from fastnn.testing.kernels import call_cuda
from tests.golden.models import CASES, numbers
from tests.kernels import contract
from tests.kernels.planned import checking
from tests.kernels.rest import DIRECT, DIRECT_CUDA, by_turns, control, more

report.declare_all()
#: too large for the simulator; their kernels are called directly
LARGE = ("wide", "wide_tf32", "lstm_by_turns", "gru_by_turns")


#: the kernels of updates element by element, whose optimisers need not all be met in models
UPDATES = [
    name for name in MADE if MADE.get(name.replace("_prepare", "_update"), ("",))[0] == "update"
]


def update_operands(kernel: CudaKernel) -> contract.Arrays:
    """Operands of an update or of what prepares it, by the kinds of its parameters."""
    update = kernel.name.removesuffix(SAVING).replace("_prepare", "_update")
    size = SHARED + MADE[update][1][3]  # of what is prepared
    given: dict[str, Any] = {"control": control(0), "scale": None, "guard": np.zeros(8, np.int64)}
    for name, parameter in kernel.params.items():
        if name in given:
            continue
        if not isinstance(parameter, Array):
            given[name] = 0 if parameter.kind == "int" else 0.5
        elif parameter.dtype == "r":
            given[name] = np.ones((1, 1))
        else:
            given[name] = np.abs(numbers(*((size,) if parameter.dims == ("H",) else (2, 5))))
    return {name: given[name] for name in kernel.params}


@pytest.mark.parametrize("name", UPDATES)
def test_updates(name: str) -> None:
    for found in filter(None, (CUDA_KERNELS.get(name), CUDA_KERNELS.get(f"{name}{SAVING}"))):
        own = update_operands(found)
        contract.check(found, own, lambda given, lo, hi, n=found.name: run(n, given, lo, hi))


def run(name: str, operands: contract.Arrays, lo: int, hi: int | None) -> None:
    call_cuda(CUDA_KERNELS[name], **operands)


@pytest.mark.parametrize("name", [*DIRECT, *DIRECT_CUDA])
def test_called_directly(name: str) -> None:
    operands = {**DIRECT, **DIRECT_CUDA}[name]
    contract.check(CUDA_KERNELS[name], operands, lambda given, lo, hi: run(name, given, lo, hi))


@pytest.fixture(scope="module")
def checked() -> set[str]:
    """Names of the kernels that models came to."""
    with checking("cuda:0", run, CUDA_KERNELS) as seen:
        for case in (*(make for name, make in CASES.items() if name not in LARGE), more):
            case()
    with checking("cuda:0", run, CUDA_KERNELS, limits=(0, 232_448)) as few:
        by_turns()
    return {kind[0] for kind in seen | few}


def test_in_models(checked: set[str]) -> None:
    assert len(checked) > 150


def test_no_kernel_is_left_out(checked: set[str]) -> None:
    ours = {
        name
        for name, made in CUDA_KERNELS.items()
        if (made.function.__module__ or "fastnn.kernels").startswith("fastnn.kernels")
    }
    updates = {*MADE, *(f"{name}{SAVING}" for name in UPDATES)}
    assert sorted(ours - checked - updates - set(DIRECT) - set(DIRECT_CUDA)) == []
