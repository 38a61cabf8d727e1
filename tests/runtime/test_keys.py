"""What the key of a kernel's machine code depends on."""

from __future__ import annotations

import ast
import enum
import math
import os
import shutil
import subprocess
import sys
import types
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastnn.kernels import recorded, topics
from fastnn.kernels.declare import CUDA_KERNELS, HELPERS, KERNELS
from fastnn.runtime import cache, keys
from fastnn.runtime.cpu import ahead, compiler
from fastnn.runtime.cuda import compiler as cuda_compiler

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def helpers() -> Iterator[None]:
    """Functions that a test marks are unmarked after it."""
    yield
    mine = {id(function) for function in _marked}
    HELPERS[:] = [function for function in HELPERS if id(function) not in mine]
    _marked.clear()


_marked: list[Any] = []


def mark(scope: dict[str, Any]) -> None:
    """Mark the functions in a scope as helpers."""
    found = [v for v in scope.values() if isinstance(v, types.FunctionType)]
    _marked.extend(found)
    HELPERS.extend(found)


def twice(x: Any) -> Any:
    return 2.0 * x


def make(source: str, **scope: Any) -> Any:
    """The function `f` of a piece of source."""
    exec(compile(source, "<test>", "exec"), scope)
    mark(scope)
    return scope["f"]


def print_of(source: str, **scope: Any) -> bytes:
    return keys.function_key(make(source, **scope))


def test_equal_functions_have_equal_fingerprints() -> None:
    source = "def f(x, k=3):\n    return [helper(v) * 2.0 for v in x] + [C, A.sum(), k]"
    scope = {"helper": twice, "C": 5, "A": np.arange(3)}
    assert print_of(source, **scope) == print_of("\n\n" + source, **scope)


CHANGES = {
    "a constant": ("def f(x): return x * 2.0", "def f(x): return x * 3.0"),
    "an operation": ("def f(x): return x + x", "def f(x): return x - x"),
    "a default": ("def f(x, k=1): return k", "def f(x, k=2): return k"),
    "a default by name": ("def f(x, *, k=1): return k", "def f(x, *, k=2): return k"),
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
        mark(vars(made))
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


Pair = namedtuple("Pair", "a b")
Other = namedtuple("Other", "a c")
LARGE = np.arange(3000, dtype="f4")
CHANGED = np.where(np.arange(3000) == 1500, 7, LARGE).astype("f4")


class Colour(enum.IntEnum):
    RED = 1


class Shade(enum.IntEnum):
    RED = 2


VALUES: dict[str, tuple[Any, Any]] = {
    "zeros of two signs": (0.0, -0.0),
    "kinds of NaN": (float("nan"), math.copysign(float("nan"), -1.0)),
    "a number's type": (1, 1.0),
    "bool and int": (True, 1),
    "float and NumPy's": (1.0, np.float64(1.0)),
    "NumPy's floats": (np.float32(1.0), np.float64(1.0)),
    "neighbouring floats": (0.1, math.nextafter(0.1, 1)),
    "a large array's middle": (LARGE, CHANGED),
    "a tuple of large arrays": ((LARGE, LARGE), (LARGE, CHANGED)),
    "a nested tuple": ((1, (2, LARGE)), (1, (2, CHANGED))),
    "an array's order": (np.ones((2, 3)), np.asfortranarray(np.ones((2, 3)))),
    "an array's shape": (np.ones((2, 3)), np.ones((3, 2))),
    "structured types": (np.zeros(2, "i4,f4"), np.zeros(2, "f4,i4")),
    "names of fields": (Pair(1, 2), Other(1, 2)),
    "enums": (Colour, Shade),
    "members": (Colour.RED, Shade.RED),
    "strings": ("ab", "abc"),
    "None": (None, "None"),
}


@pytest.mark.parametrize("pair", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize(
    "source",
    ["def f(x): return C", "def g(): return C\ndef f(x): return g()", "def f(x, k=C): return k"],
)
def test_values_count_bit_by_bit(pair: tuple[Any, Any], source: str) -> None:
    one, two = (print_of(source, C=value) for value in pair)
    assert one != two
    assert one == print_of(source, C=pair[0])


def test_a_module_counts_with_all_names_that_are_used_of_it() -> None:
    """A helper that sees a module does not hide what others use of it, or its helpers."""
    module = types.ModuleType("mine")
    inner = types.ModuleType("mine.inner")
    vars(module).update(OFFSET=0.0, SCALE=1.0, UNUSED=1.0, inner=inner)
    inner.DEEP = 1.0  # type: ignore[attr-defined]
    source = (
        "def aaa(v): return v + mine.OFFSET\n"
        "def deep(m): return m.DEEP\n"
        "def f(x): return aaa(x) * mine.SCALE + deep(mine.inner)"
    )
    before = print_of(source, mine=module)
    module.UNUSED = 2.0  # type: ignore[attr-defined]
    assert print_of(source, mine=module) == before
    for holder, name in ((module, "SCALE"), (module, "OFFSET"), (inner, "DEEP")):
        setattr(holder, name, 5.0)
        after = print_of(source, mine=module)
        assert after != before
        before = after


def test_compiled_functions_count_by_their_code() -> None:
    numba = pytest.importorskip("numba")

    def key(body: str, **options: Any) -> bytes:
        g = numba.njit(**options)(make(f"def f(v): return {body}"))
        return print_of("def f(x): return g(x)", g=g)

    assert key("v + 1") == key("v + 1")
    assert len({key("v + 1"), key("v + 1000"), key("v + 1", fastmath=True)}) == 3


@pytest.mark.parametrize("value", [object(), [1], {}, lambda x: x, np.array([None]), Path])
def test_what_has_no_exact_key_is_refused(value: Any) -> None:
    scope: dict[str, Any] = {"C": value}
    exec("def f(x): return C(x)", scope)
    with pytest.raises(keys.Unkeyed):
        keys.function_key(scope["f"])


@pytest.mark.parametrize("table", [KERNELS, CUDA_KERNELS])
def test_a_kernel_without_a_key_is_compiled_anew(
    table: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_noted", set())
    topics.load("cuda")
    kernel = next(iter(table.values()))

    def path() -> Path:
        raise keys.Unkeyed("a list")

    assert compiler.obtain(path, lambda: b"code", kernel) == b"code"
    assert f"kernel {kernel.name!r} is compiled anew in each process" in caplog.text


def test_an_attribute_called_like_a_global_is_none() -> None:
    """`window.kernel` in a file that has imported `kernel`."""
    inner = "def f(x):\n    return [v.kernel for v in x]"
    for source in ("def f(x): return x.kernel", inner):
        assert print_of(source, kernel=make) == print_of("\n" + source, kernel=make)
    for source in ("def f(x): return kernel(x.kernel)", inner.replace("v.k", "k")):
        with pytest.raises(keys.Unkeyed):
            print_of(source, kernel=make)


def test_every_kernel_has_a_key() -> None:
    ahead.load_all()
    topics.load("cuda")
    for table, generated in (
        (KERNELS, compiler.GENERATED),
        (CUDA_KERNELS, cuda_compiler.GENERATED),
    ):
        ours = [k for k in table.values() if (k.function.__module__ or "fastnn.")[:7] == "fastnn."]
        assert len(ours) > 100
        for kernel in ours:
            keys.function_key(kernel.function, generated)


# ---------------------------------------------------------------- modules that generate code


def test_modules_that_make_code_are_recorded() -> None:
    """What imports the compiler's parts is part of the key, by the code that ran."""
    wanted = set()
    for folder, package in (("kernels", "fastnn.kernels"), ("fastnn/runtime", "fastnn.runtime")):
        for path in (ROOT / folder).rglob("*.py"):
            name = ".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts])
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found = {
                (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
                for node in tree.body
                if isinstance(node, (ast.Import, ast.ImportFrom))
            }
            if {m.split(".")[0] for m in found} & {"numba", "llvmlite"}:
                wanted.add(name)
    wanted.remove("fastnn.runtime.cuda.simulator")  # runs kernels as they are
    modules = {*compiler.GENERATORS, *compiler.LOOP_MODULES, *cuda_compiler.GENERATORS}
    assert wanted <= modules
    for name in modules:
        assert "record" in recorded.code_of(name).co_names


def test_code_that_ran_counts_not_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = "from fastnn.kernels import recorded\nrecorded.record()\n"
    path = tmp_path / "makes_code.py"
    path.write_text(head + "X = 1")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names = ["makes_code"]
    first = keys.modules_key(names)  # not imported yet
    path.write_text(head + "X = 1 + 1  # edited before it is imported")
    os.utime(path, (1, 1))
    __import__(names[0])
    second = keys.modules_key(names)
    assert second != first
    path.write_text(head + "X = 3")
    assert keys.modules_key(names) == second
    del sys.modules[names[0]], recorded._code[names[0]]


NAMES = """
import json, sys
from fastnn.runtime.cpu import ahead, compiler
from fastnn.kernels import topics
from fastnn.runtime import sources
from fastnn.runtime.cuda import compiler as cuda_compiler
from fastnn.kernels.declare import KERNELS, CUDA_KERNELS
ahead.load_all()
topics.load("cuda")
names = {n: str(compiler.object_path(k, "float32", "")) for n, k in KERNELS.items()}
cuda = {n: str(cuda_compiler.code_path(k, "float32", "", (9, 0))) for n, k in CUDA_KERNELS.items()}
sources.remember()
print(json.dumps([names, cuda, "numba" in sys.modules]))
"""


def test_an_edit_changes_only_what_depends_on_it(tmp_path: Path) -> None:
    import json

    known = tmp_path / "cache"  # sources that have not changed are compared once
    for name in ("fastnn", "kernels"):  # with byte code, which Python need not make anew
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.move(tmp_path / "kernels", tmp_path / "fastnn" / "kernels")

    def names() -> list[Any]:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "FASTNN_CACHE": str(known)}
        done = subprocess.run(
            [sys.executable, "-c", NAMES], env=environment, cwd=tmp_path, text=True,
            capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: list[Any] = json.loads(done.stdout)
        assert found[2] is False
        return found

    def edit(file: str, old: str, new: str) -> None:
        path = tmp_path / "fastnn" / "kernels" / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def changed(one: list[Any], two: list[Any]) -> list[set[str]]:
        return [{n for n in a if a[n] != b[n]} for a, b in zip(one[:2], two[:2], strict=True)]

    first = names()
    edit("scalar.py", "return x * x\n", "return x * x * 1.0\n")
    second = names()
    assert changed(first, second) == [{"square_forward"}, {"square_forward"}]
    edit("scalar.py", "return x * x * 1.0\n", "return x * x * 1.0  # a comment\n")
    edit("step/cpu.py", "y = sum(x).", "y = the sum of x.")
    edit("step/cpu.py", "control[STEP] += 1", "control[STEP] += 1 + 0 * control[STEP]")
    third = names()
    assert changed(second, third) == [{"advance"}, set()]


def test_modules_that_somebody_imports_later_change_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper called like a module of NumPy's, which is an attribute of `numpy` once imported."""

    source = "def polynomial(x): return x\ndef f(x): return np.sqrt(polynomial(x))"
    imported = print_of(source, np=np)
    monkeypatch.delitem(vars(np), "polynomial")
    assert print_of(source, np=np) == imported
