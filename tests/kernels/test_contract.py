"""Every kernel keeps to its signature: see `contract.py`."""

from __future__ import annotations

import ctypes
import functools
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastnn import nn, optim
from fastnn.kernels.declare import KERNELS, Kernel, kernel
from fastnn.runtime.cpu import ahead
from fastnn.testing.kernels import call
from tests.golden.models import CASES, fit, ids, numbers
from tests.kernels import contract
from tests.kernels.direct import DIRECT
from tests.kernels.direct_device import DIRECT_CPU
from tests.kernels.pages import Pages
from tests.kernels.planned import checking
from tests.kernels.rest import UPDATES, more, update_operands

ahead.load_all()


pages = Pages()


def run(name: str, operands: contract.Arrays, lo: int, hi: int | None) -> None:
    pages.run(functools.partial(call, KERNELS[name], lo, hi), operands)


@pytest.mark.parametrize("name", [*DIRECT, *DIRECT_CPU])
def test_called_directly(name: str) -> None:
    made, operands = KERNELS[name], {**DIRECT, **DIRECT_CPU}[name]
    contract.check(made, operands, lambda given, lo, hi: run(name, given, lo, hi))


@pytest.mark.parametrize("name", UPDATES)
def test_updates(name: str) -> None:
    made = KERNELS[name]
    operands = update_operands(made)
    contract.check(made, operands, lambda given, lo, hi: run(name, given, lo, hi))


def passes() -> None:
    """Updates in several passes, on the numbers that they have in a training."""
    for kind in (optim.Adafactor, optim.AdaSecant, optim.LAMB, optim.Muon, optim.VSGD,
                 optim.VSGDfd):  # fmt: skip
        net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))
        fit(net, numbers(8, 3), ids(8, below=3), "cross_entropy", optimizer=kind())


@pytest.fixture(scope="module")
def checked() -> set[str]:
    """Names of the kernels that models came to."""
    with checking("cpu", run, KERNELS) as seen:
        for case in (*CASES.values(), more, passes):
            case()
    return {kind[0] for kind in seen}


def test_in_models(checked: set[str]) -> None:
    assert len(checked) > 150


def test_no_kernel_is_left_out(checked: set[str]) -> None:
    ours = {
        name
        for name, made in KERNELS.items()
        if (made.function.__module__ or "fastnn.kernels").startswith("fastnn.kernels")
    }
    # the steps of full-batch methods have tests of their own (tests/optim): their state is no
    # state if its numbers are drawn at random
    known = checked | set(UPDATES) | set(DIRECT) | set(DIRECT_CPU)
    steps = ("_descend", "hessian_free_step", "marquardt_step")
    known |= {name for name in ours if name.endswith(steps)}
    assert sorted(n for n in ours - known if _ours(n)) == []


def _ours(name: str) -> bool:
    """Not an update that a test has made of a rule of its own."""
    made = KERNELS[name].function.__globals__
    return str(getattr(made.get("rule"), "__module__", "fastnn.")).startswith("fastnn.")


# ---------------------------------------------------------------- the check sees what is wrong


def broken(function: Callable[..., None], **options: Any) -> tuple[Kernel, contract.Arrays]:
    made = kernel(function, name=f"contract_{function.__name__}", **options)
    sizes = {"N": 6, "C": 3, "U": 1}
    operands: contract.Arrays = {
        name: numbers(*(sizes[d] for d in p.dims)) for name, p in made.arrays.items()
    }
    return made, operands


def reads_output(x: "in rows f[N]", y: "out rows f[N]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        y[i] += x[i]


def leaves_some(x: "in rows f[N]", y: "out rows f[N]", lo: "begin", hi: "end"):
    for i in range(lo, hi - 1):
        y[i] = x[i]


def writes_input(x: "in rows f[N]", y: "out rows f[N]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        y[i] = x[i]
        x[i] = 0.0


def reads_others(x: "in rows f[N]", y: "out rows f[N]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        y[i] = x[i] + x[x.shape[0] - 1]


def writes_others(x: "in rows f[N]", y: "out rows f[N]", lo: "begin", hi: "end"):
    for i in range(x.shape[0]):
        y[i] = 1.0


def sums_its_range(x: "in rows f[N]", y: "inout whole f[U]", lo: "begin", hi: "end"):
    total = 0.0
    for i in range(lo, hi):
        total += x[i]
    y[0] = total


def reads_scratch(
    x: "in rows f[N]", y: "out rows f[N]", room: "scratch rows f[N]", lo: "begin", hi: "end"
):
    for i in range(lo, hi):
        y[i] = x[i] + room[i]


def writes_all_of_a_part(x: "in rows f[N]", y: "part rows f[N,C]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        for j in range(y.shape[1]):
            y[i, j] = x[i]


def changes_what_is_no_part(x: "in rows f[N]", y: "part rows f[N,C]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        y[i, 0] = x[i]
        y[i, 1] = -y[i, 1]


SHARE = dict(share=lambda s: (0, 1, s["C"]))


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (reads_output, {}, "y: out, but 6 of 6 depend on what was where"),
        (leaves_some, {}, "y: out, but 1 of 6 depend"),
        (writes_input, {}, "x: in, but it was written"),
        (reads_others, {}, "y: out, but ranges"),
        (writes_others, {}, "y: out, but items up to 3 wrote to those after"),
        (sums_its_range, {}, "y: inout, but ranges"),
        (reads_scratch, {}, "y: out, but 6 of 6 depend"),
        (writes_all_of_a_part, SHARE, "y: part, but 18 of 18 written where 6 are its share"),
        (changes_what_is_no_part, SHARE, "y: part, but what is written depends"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_what_is_wrong_is_seen(function: Any, options: Any, message: str) -> None:
    made, operands = broken(function, **options)
    sizes = made.items

    def python(given: contract.Arrays, lo: int, hi: int | None) -> None:
        with np.errstate(all="ignore"):
            made(**given, **({"lo": lo, "hi": 6 if hi is None else hi} if sizes else {}))

    with pytest.raises(contract.Broken, match=message):
        contract.check(made, operands, python)


def test_writing_beside_an_array_is_seen() -> None:
    made, operands = broken(leaves_some)

    def beyond(given: contract.Arrays, lo: int, hi: int | None) -> None:
        given["y"][...] = given["x"]
        given["y"].base.reshape(-1)[-1] = 1.0

    with pytest.raises(contract.Broken, match="memory beside it"):
        contract.check(made, operands, beyond)


@pytest.mark.parametrize("turns", [1, 2])
@pytest.mark.parametrize("place", [-1, 0, 6, 7])
def test_touching_what_is_beside_an_array_ends_a_process(turns: int, place: int) -> None:
    """Six numbers: reading the one before them, or the one after."""
    program = f"""
import ctypes, numpy as np
from tests.kernels.pages import Pages

def touch(x):
    print((ctypes.c_float * 1).from_address(x.ctypes.data + 4 * {place})[0])

pages = Pages()
for turn in range({turns}):
    pages.run(touch if turn == {turns} - 1 else lambda x: None, {{"x": np.zeros(6, np.float32)}})
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, timeout=600
    )
    ends = place >= 6 if turns == 1 else place < 0  # at the end of a page, at the beginning of one
    assert done.returncode == (-signal.SIGSEGV if ends else 0), done.stderr.decode()


def test_writing_beside_an_array_within_its_page_is_seen() -> None:
    def beyond(x: np.ndarray) -> None:
        ctypes.c_float.from_address(x.ctypes.data - 4).value = 0.0

    with pytest.raises(AssertionError, match="x: memory beside it was written"):
        Pages().run(beyond, {"x": np.zeros(6, np.float32)})
