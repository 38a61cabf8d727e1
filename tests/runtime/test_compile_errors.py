"""A kernel that does not compile: one line that says where, what, and what kernels may do."""

from __future__ import annotations

import gc
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import fastnn as fnn
from fastnn.errors import ProgramError
from fastnn.kernels.declare import Kernel
from fastnn.runtime.compile_errors import refuse
from fastnn.runtime.cpu import codegen, compiler
from fastnn.runtime.cpu.codegen import compile_llvm


@fnn.helper
def zeros(x):
    return np.zeros(3) + x  # makes an array


@fnn.kernel
def adds_text(x: "in rows f[N]", y: "out rows f[N]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        y[i] = x[i] + "one"


@fnn.kernel
def calls_helper(x: "in rows f[N]", y: "out rows f[N]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        y[i] = zeros(x[i])[0]


@fnn.kernel
def unknown_name(x: "in rows f[N]", y: "out rows f[N]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        y[i] = x[i] + nowhere


CASES: list[tuple[Kernel, str, str]] = [
    (adds_text, "y[i] = x[i] + \"one\"", "Numba has no add(float32, one)"),
    (calls_helper, "return np.zeros(3) + x", "Numba has no zeros(3)"),
    (unknown_name, "", "name 'nowhere' is not defined"),
]  # fmt: skip


@pytest.mark.parametrize(("kernel", "line", "reason"), CASES)
def test_the_error_is_one_line_with_place_cause_and_remedy(
    kernel: Kernel, line: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FASTNN_DEBUG", raising=False)
    with pytest.raises(ProgramError) as caught:
        compile_llvm(kernel, "float32", "")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"kernel {kernel.name!r} ({__file__}, line ")
    for part in (line, reason, "cannot be compiled for float32", "@fnn.helper"):
        assert part in message
    assert caught.value.__cause__ is None


@fnn.kernel
def norms(x: "in rows f[N,C]", y: "out rows f[N]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        y[i] = np.linalg.norm(x[i])


def test_numpys_products_without_scipy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Numba has its BLAS from there, and says no more than that it is missing."""
    monkeypatch.setenv("FASTNN_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "scipy.linalg.cython_blas", None)
    where = rf"kernel 'norms' \({re.escape(__file__)}, line \d+\) calls a function of NumPy's"
    with pytest.raises(ProgramError, match=where + r".*\(pip install scipy\).* ops.matmul"):
        compiler.address(norms, "float32")


def test_the_reason_is_told_whatever_colours_numba_writes_in() -> None:
    coloured = "\x1b[1mFailed in nopython mode pipeline\x1b[0m\n\x1b[1m\x1b[1mNo such thing.\x1b[0m"
    with pytest.raises(ProgramError, match=r"for float32: No such thing\. A kern"):
        refuse("kernel 'f'", norms.function, "float32", Exception(coloured), "loops")


def test_all_that_numba_says_is_the_cause_when_debugging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTNN_DEBUG", "1")
    with pytest.raises(ProgramError) as caught:
        compile_llvm(adds_text, "float32", "")
    assert "No implementation of function" in str(caught.value.__cause__)


def test_the_collector_of_garbage_waits_while_a_kernel_is_compiled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And works again afterwards, also where compiling failed."""
    states = []

    def compile_code(kernel: Kernel, *variant: str) -> bytes:
        states.append(gc.isenabled())
        return codegen.compile_object(kernel, *variant)

    monkeypatch.setattr(compiler, "compile_object", compile_code)
    with pytest.raises(ProgramError):
        compiler.compile_to(tmp_path / "folder" / "code", adds_text, "float32")
    assert (states, gc.isenabled()) == ([False], True)
    gc.disable()
    try:
        with pytest.raises(ProgramError):
            compiler.compile_to(tmp_path / "folder" / "code", adds_text, "float32")
        assert not gc.isenabled()  # as whoever calls has it
    finally:
        gc.enable()
