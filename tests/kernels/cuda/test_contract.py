"""Every CUDA kernel keeps to its signature: see `tests/kernels/contract.py`."""

from __future__ import annotations

import pytest

import fastnn.optim  # noqa: F401  (enters the optimisers' kernels)
from fastnn import nn
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.runtime.cuda import report
from fastnn.testing.kernels import call_cuda
from tests.golden.models import CASES, fit, numbers
from tests.kernels import contract
from tests.kernels.planned import checking
from tests.kernels.rest import DIRECT, DIRECT_CUDA, by_turns, more
from tests.train.models import OPTIMIZERS

report.declare_all()
#: too large for the simulator; their kernels are called directly
LARGE = ("wide", "wide_tf32", "lstm_by_turns", "gru_by_turns")


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
        for make in OPTIMIZERS.values():  # whose updates copy nothing
            unguarded = dict(optimizer=make(), stop_on_nonfinite=False)
            fit(nn.Linear(3, 2), numbers(8, 3), numbers(8, 2), **unguarded)
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
    assert sorted(ours - checked - set(DIRECT) - set(DIRECT_CUDA)) == []
