"""Ctrl-C at moments at which it has to wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastnn.interrupts import uninterrupted
from fastnn.kernels import topics

#: the first compilation imports Numba; a Ctrl-C comes when that is half done
FIRST_USE = """
import os, signal, sys
from fastnn.runtime.cpu import compiler

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
try:
    compiler.loop_address("dismiss")
except KeyboardInterrupt:
    print("interrupted")
before = compiler.compiled_count
assert compiler.loop_address("dismiss")
assert compiler.loop_address("wait")
print("compiled", compiler.compiled_count - before)
"""


@pytest.mark.parametrize("module", ["numba.core.config", "numba.core.compiler"])
def test_ctrl_c_in_the_middle_of_the_first_import_of_numba(tmp_path: Path, module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIRST_USE.format(module=module)],
        env={**os.environ, "FASTNN_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # the interrupted call had compiled its function
    assert done.stdout.split() == ["interrupted", "compiled", "1"]


def test_a_signal_is_kept_until_the_end() -> None:
    done = []

    @uninterrupted()
    def work() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("inner")
        done.append("outer")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["inner", "outer"]
    assert signal.getsignal(signal.SIGINT) is before


def test_the_default_action_is_kept_too() -> None:
    """A process that ends by the signal ends by it, afterwards."""
    code = """
import signal
from fastnn.interrupts import uninterrupted
signal.signal(signal.SIGINT, signal.SIG_DFL)
with uninterrupted():
    signal.raise_signal(signal.SIGINT)
    print("done", flush=True)
print("not reached", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "done\n")


def test_ctrl_c_while_kernels_are_declared_waits_for_the_last(monkeypatch) -> None:
    """Python's import would lose it where a module's lock is dropped."""
    declared = []

    def load(name: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        declared.append(name)

    monkeypatch.setattr(topics, "_loaded", set())
    monkeypatch.setattr(topics, "modules", lambda device: ["one", "two"])
    monkeypatch.setattr(topics.importlib, "import_module", load)
    with pytest.raises(KeyboardInterrupt):
        topics.load("cpu")
    assert declared == ["one", "two"]
    topics.load("cpu")
    assert declared == ["one", "two"]
