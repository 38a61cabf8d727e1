"""The cache of compiled kernels: what hits it, what misses it, and what may happen to its files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
import fastnn.kernels.cpu.feed
from fastnn import nn
from fastnn.kernels.declare import KERNELS, Kernel, kernel
from fastnn.runtime.cpu import compiler
from fastnn.testing.kernels import call
from tests.train.models import MODELS, OPTIMIZERS, fresh

ROOT = Path(__file__).resolve().parents[2]


def double(x: "in rows f[N]", y: "out rows f[N]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        y[i] = 2.0 * x[i]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def declared(function: Callable[..., None] = double) -> Kernel:
    """A kernel that this process has not loaded yet."""
    result: Kernel = kernel(function, name="test_double")
    del KERNELS["test_double"]
    return result


def works(doubling: Kernel) -> bool:
    x, y = np.arange(5, dtype=np.float32), np.zeros(5, np.float32)
    call(doubling, x=x, y=y)
    return bool((y == 2 * x).all())


def compiled_by(action: Callable[[], Any]) -> int:
    before = compiler.compiled_count
    action()
    return compiler.compiled_count - before


def test_file_serves_the_next(cache: Path) -> None:
    assert compiled_by(lambda: works(declared())) == 1
    assert compiled_by(lambda: works(declared())) == 0
    assert len(list(cache.rglob("*.o"))) == 1
    assert [p.suffix for p in cache.rglob("*") if p.is_file()] == [".o"]  # nothing left over


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda code: b"",
    "cut in half": lambda code: code[: len(code) // 2],
    "cut by a byte": lambda code: code[:-1],
    "a byte changed": lambda code: code[:200] + bytes([code[200] ^ 1]) + code[201:],
    "zeros": lambda code: bytes(len(code)),
    "text": lambda code: b"not an object file",
    "longer": lambda code: code + b"x",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_file_is_made_anew(cache: Path, damage: Callable[[bytes], bytes]) -> None:
    assert works(declared())
    path = next(cache.rglob("*.o"))
    good = path.read_bytes()
    path.write_bytes(damage(good))
    again = declared()
    assert compiled_by(lambda: works(again)) == 1
    assert works(again)
    assert len(path.read_bytes()) == len(good)
    assert compiled_by(lambda: works(declared())) == 0


def test_file_vanishes(cache: Path) -> None:
    doubling = declared()
    assert works(doubling)
    shutil.rmtree(cache)
    assert compiled_by(lambda: works(doubling)) == 0  # loaded already
    assert compiled_by(lambda: works(declared())) == 1


@pytest.mark.parametrize("kind", ["a file", "cannot be made"])
def test_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Kernels are compiled for the process alone; one warning says so."""
    (tmp_path / "file").write_text("in the way")
    place = tmp_path / "file" if kind == "a file" else tmp_path / "file" / "below"
    monkeypatch.setenv("FASTNN_CACHE", str(place))
    monkeypatch.setattr(compiler, "_warned", False)
    with pytest.warns(UserWarning, match=r"cannot be written.*FASTNN_CACHE") as found:
        assert [works(declared()) for _ in range(2)] == [True, True]
    assert len(found) == 1
    assert str(place) in str(found[0].message)


def test_full_disk(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_warned", False)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert works(declared())
    assert [p for p in cache.rglob("*") if p.is_file()] == []


# ---------------------------------------------------------------- what the key depends on


def twice(x: Any) -> Any:
    return 2.0 * x


def make(source: str, **scope: Any) -> Any:
    """The function `f` of a piece of source."""
    exec(compile(source, "<test>", "exec"), scope)
    return scope["f"]


def print_of(source: str, **scope: Any) -> bytes:
    return compiler.fingerprint(make(source, **scope))


def test_equal_functions_have_equal_fingerprints() -> None:
    source = "def f(x, k=3):\n    return [helper(v) * 2.0 for v in x] + [C, A.sum(), k]"
    scope = {"helper": twice, "C": 5, "A": np.arange(3)}
    assert print_of(source, **scope) == print_of("\n\n" + source, **scope)


CHANGES = {
    "a constant": ("def f(x): return x * 2.0", "def f(x): return x * 3.0"),
    "an operation": ("def f(x): return x + x", "def f(x): return x - x"),
    "a default": ("def f(x, k=1): return k", "def f(x, k=2): return k"),
    "an inner function": (
        "def f(x):\n    def g(v): return v + 1\n    return g(x)",
        "def f(x):\n    def g(v): return v + 2\n    return g(x)",
    ),
    "an attribute's name": ("def f(x): return x.real", "def f(x): return x.imag"),
    "a helper": (
        "def g(v): return v + 1\ndef f(x): return g(x)",
        "def g(v): return v - 1\ndef f(x): return g(x)",
    ),
    "a helper's helper": (
        "def h(v): return v\ndef g(v): return h(v)\ndef f(x): return g(x)",
        "def h(v): return -v\ndef g(v): return h(v)\ndef f(x): return g(x)",
    ),
    "a global number": ("C = 1\ndef f(x): return x + C", "C = 2\ndef f(x): return x + C"),
    "a global tuple": ("C = (1, 2)\ndef f(x): return C[x]", "C = (2, 1)\ndef f(x): return C[x]"),
    "a cell": (
        "def make(k):\n    def f(x): return x + k\n    return f\nf = make(1)",
        "def make(k):\n    def f(x): return x + k\n    return f\nf = make(2)",
    ),
}


@pytest.mark.parametrize("pair", CHANGES.values(), ids=CHANGES)
def test_changes_change_the_fingerprint(pair: tuple[str, str]) -> None:
    assert print_of(pair[0]) == print_of(pair[0])
    assert print_of(pair[0]) != print_of(pair[1])


def test_global_arrays_change_the_fingerprint() -> None:
    source = "def f(x): return A[x]"
    assert print_of(source, A=np.arange(3)) == print_of(source, A=np.arange(3))
    assert print_of(source, A=np.arange(3)) != print_of(source, A=np.arange(3) + 1)
    assert print_of(source, A=np.zeros(4, "f4")) != print_of(source, A=np.zeros(2, "f8"))


def test_helpers_in_modules_change_the_fingerprint() -> None:
    def module(body: str) -> types.ModuleType:
        made = types.ModuleType("mine")
        exec(body, made.__dict__)
        return made

    source = "def f(x): return mine.g(x) + mine.C"
    one, two, three = (
        module("C = 1\ndef g(v): return v"),
        module("C = 1\ndef g(v): return -v"),
        module("C = 2\ndef g(v): return v"),
    )
    prints = {print_of(source, mine=m) for m in (one, two, three)}
    assert len(prints) == 3
    assert print_of(source, mine=one) in prints


def test_recursion_ends() -> None:
    assert print_of("def f(x): return f(x - 1) if x else 0")


def test_variants_have_files_of_their_own() -> None:
    gather = KERNELS["gather_rows"]
    paths = {
        compiler.object_path(gather, dtype, data)
        for dtype in ("float32", "float64")
        for data in ("uint8", "float32")
    }
    assert len(paths) == 4


def test_key_holds_versions_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler.machine_hash.cache_clear()
    mine = compiler.machine_hash()
    compiler.machine_hash.cache_clear()
    monkeypatch.setattr("importlib.metadata.version", lambda name: "999.0")
    assert compiler.machine_hash() != mine
    monkeypatch.undo()
    compiler.machine_hash.cache_clear()
    assert compiler.machine_hash() == mine


# ---------------------------------------------------------------- processes

COMPILE = """
import sys
import numpy as np
import fastnn.graph.ops
from fastnn.kernels.declare import KERNELS
from fastnn.runtime.cpu import compiler
from fastnn.testing.kernels import call
x, y = np.arange(-4, 4, dtype="f4").reshape(2, 4), np.empty((2, 4), "f4")
call(KERNELS["relu_forward"], x=x, y=y)
assert (y == np.maximum(x, 0)).all()
compiler.loop_address()
print(compiler.compiled_count, "numba" in sys.modules)
"""


def child(cache: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "FASTNN_CACHE": str(cache)}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", COMPILE], env=environment, cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def result(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.split()


def test_processes_share_the_cache(cache: Path) -> None:
    """Two that start together compile what they do not find yet; one that comes later neither
    compiles nor imports Numba."""
    first, second = child(cache), child(cache)
    counts = [int(result(process)[0]) for process in (first, second)]
    assert sum(counts) >= 2
    assert all(0 <= count <= 2 for count in counts)
    assert result(child(cache)) == ["0", "False"]
    assert sorted(p.suffix for p in cache.rglob("*") if p.is_file()) == [".o", ".o"]


# ---------------------------------------------------------------- nothing is compiled twice


@pytest.mark.parametrize("name", MODELS)
def test_no_compilation_after_the_first_step(name: str) -> None:
    x, y = MODELS[name][1](40)
    trainer = fresh(name, metrics=["accuracy"], workers=2)
    trainer.fit(x, y, batch_size=8, verbose=False)
    trainer.evaluate(x, y)
    trainer.predict(x)

    def more() -> None:
        trainer.fit(x, y, batch_size=8, verbose=False)
        trainer.fit(x, y, batch_size=13, verbose=False)  # new sizes, and a last batch of 1
        trainer.fit(x[:39], y[:39], batch_size=13, verbose=False, validation=0.5)
        trainer.evaluate(x, y, batch_size=7)
        trainer.predict(x, batch_size=9)

    if name == "regularised":  # batch norm wants two samples
        x, y = x[:38], y[:38]
    assert compiled_by(more) == 0


def test_no_compilation_for_a_new_model_of_known_ops() -> None:
    def train(hidden: int, classes: int, features: int) -> None:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(20, features)).astype(np.float32)
        model = nn.Sequential(
            nn.Linear(features, hidden), nn.ReLU(), nn.LayerNorm(hidden), nn.Linear(hidden, classes)
        )
        trainer = fnn.Trainer(model, "cross_entropy", OPTIMIZERS["adam"]())
        trainer.fit(x, rng.integers(0, classes, 20), batch_size=6, verbose=False)

    train(5, 3, 4)
    assert compiled_by(lambda: train(130, 11, 33)) == 0
    assert compiled_by(lambda: train(800, 3, 700)) == 0  # large: other kernels of matrix products
    assert compiled_by(lambda: train(1, 2, 1)) == 0


def test_warnings_stay_errors() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert works(declared())
