"""Every CUDA kernel keeps to its signature: see `tests/kernels/contract.py`."""

from __future__ import annotations

import pytest

import fastnn.optim  # noqa: F401  (enters the optimisers' kernels)
from fastnn import nn
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.kernels.recurrent import cuda_layout
from fastnn.kernels.update.shared import HALVES, MADE, SAVING
from fastnn.runtime.cuda import report
from fastnn.testing.kernels import call_cuda
from tests.golden.models import CASES
from tests.golden.recurrent import sequences
from tests.kernels import contract
from tests.kernels.direct import DIRECT
from tests.kernels.direct_device import DIRECT_CUDA
from tests.kernels.planned import checking
from tests.kernels.rest import UPDATES, by_turns, more, update_operands

report.declare_all()
#: too large for the simulator; their kernels are called directly
LARGE = ("wide", "lower_precision", "lstm_by_turns", "gru_by_turns")
#: recurrent nets that are walked without clusters, too, and with weights in shared memory
RECURRENT = ("rnn", "gru", "lstm_peepholes", "gru_reset_before")
#: the topics of their own kernels
TIME_LOOPS = ("rnn", "lstm", "gru", "recurrent", "gated", "sequence")


@pytest.mark.parametrize("name", UPDATES)
def test_updates(name: str) -> None:
    for ending in ("", SAVING, f"{SAVING}{HALVES}"):
        found = CUDA_KERNELS.get(f"{name}{ending}")
        if found is None:
            continue
        own = update_operands(found)
        contract.check(found, own, lambda given, lo, hi, n=found.name: run(n, given, lo, hi))


def run(name: str, operands: contract.Arrays, lo: int, hi: int | None) -> None:
    call_cuda(CUDA_KERNELS[name], **operands)


@pytest.mark.parametrize("name", [*DIRECT, *DIRECT_CUDA])
def test_called_directly(name: str) -> None:
    operands = {**DIRECT, **DIRECT_CUDA}[name]
    contract.check(CUDA_KERNELS[name], operands, lambda given, lo, hi: run(name, given, lo, hi))


def elsewhere(kinds: set[Any]) -> set[Any]:
    """The kinds of calls that are the same for any limits: those of other kernels than RNNs'."""

    def loops(name: str) -> bool:
        module = CUDA_KERNELS[name].function.__module__ or ""
        return not set(TIME_LOOPS).isdisjoint(module.split("."))

    return {kind for kind in kinds if not loops(kind[0])}


@pytest.fixture(scope="module")
def checked() -> set[str]:
    """Names of the kernels that models came to."""
    with checking("cuda:0", run, CUDA_KERNELS) as seen:
        for case in (*(make for name, make in CASES.items() if name not in LARGE), more):
            case()
    with checking("cuda:0", run, CUDA_KERNELS, limits=(0, 232_448)) as few:
        by_turns()
    known = elsewhere(seen)
    with checking("cuda:0", run, CUDA_KERNELS, limits=(4, 232_448), known=known) as far:
        for name in RECURRENT:
            CASES[name]()
    found = seen | few | far
    with pytest.MonkeyPatch.context() as patch:  # as if weights were too many to be held
        patch.setattr(cuda_layout, "HELD_UNITS", 0)
        for limits in ((4, 232_448), (4, 232_448, 8)):
            with checking("cuda:0", run, CUDA_KERNELS, limits=limits, known=known) as shared:
                for name in RECURRENT:
                    CASES[name]()
            found |= shared
    for limits in ((4, 232_448), (4, 232_448, 8)):
        known = elsewhere(found)
        with checking("cuda:0", run, CUDA_KERNELS, limits=limits, known=known) as half:
            for net in (nn.RNN(3, 6), nn.LSTM(3, 6), nn.GRU(3, 6), nn.GRU(3, 6, reset="before")):
                sequences(net, precision="bf16")
        found |= half
    return {kind[0] for kind in found}


def test_in_models(checked: set[str]) -> None:
    assert len(checked) > 150


def test_no_kernel_is_left_out(checked: set[str]) -> None:
    ours = {
        name
        for name, made in CUDA_KERNELS.items()
        if (made.function.__module__ or "fastnn.kernels").startswith("fastnn.kernels")
    }
    endings = (SAVING, f"{SAVING}{HALVES}")
    updates = {*MADE, *(f"{name}{ending}" for name in UPDATES for ending in endings)}
    # full-batch methods, whose state is no state if it is drawn at random: test_descent.py
    steps = ("_descend", "hessian_free_step", "marquardt_step")
    known = checked | updates | set(DIRECT) | set(DIRECT_CUDA)
    assert sorted(name for name in ours - known if not name.endswith(steps)) == []
