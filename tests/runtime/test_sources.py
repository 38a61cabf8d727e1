"""Keys are made of the source that ran: not of its byte code, and not of what a file says later."""

from __future__ import annotations

import importlib
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from fastnn.kernels import recorded, topics
from fastnn.kernels.declare import CUDA_KERNELS, HELPERS, KERNELS
from fastnn.runtime import cache, keys, sources
from fastnn.runtime.cpu import ahead, compiler
from fastnn.runtime.cuda import compiler as cuda_compiler

SOURCE = '''
from __future__ import annotations

import math

SIZE = 3


def helper(v):
    return v + 1  # a comment


def use(x: float, k=2) -> float:
    """Documentation."""
    return helper(math.sqrt(x)) * k + SIZE


def make(power):
    def inner(x):
        """x to a power."""
        return x ** power
    return inner


cubed = make(3)


class Holder:
    @staticmethod
    def method(x):
        return x * 2
'''


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A table of its own, and a cache that is empty."""
    monkeypatch.setenv("FASTNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "_table", {})
    monkeypatch.setattr(sources, "_read_from", set())
    monkeypatch.setattr(sources, "_changed", False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(keys, "_modules", {})


def module(folder: Path, source: str, name: str = "some_source") -> types.ModuleType:
    """The module of this source, as it is imported."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        sys.modules.pop(name, None)
        found = importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(name, None)
    HELPERS.append(found.helper)
    return found


def key(function: Any) -> bytes:
    try:
        return keys.function_key(function)
    finally:
        sources.remember()


def of(found: types.ModuleType) -> list[bytes]:
    return [key(f) for f in (found.use, found.cubed, found.Holder.method)]


def from_source(function: Any) -> bool:
    """Whether a function counts by its source."""
    sources.of_function(function.__code__, keys.code_digest)
    return in_table(function.__code__)


def in_table(code: types.CodeType) -> bool:
    return f"{code.co_name} {keys.code_digest(code).hex()}" in sources._table


@pytest.fixture(autouse=True)
def _helpers() -> Any:
    yield
    HELPERS[:] = [h for h in HELPERS if h.__module__ != "some_source"]


SAME = {
    "comments": ("  # a comment", "  # another\n    # and one more"),
    "documentation": ("Documentation.", "Something else."),
    "annotations": ("x: float, k=2) -> float", "x: int, k=2) -> int"),
    "layout": ("return helper(math.sqrt(x)) * k", "return helper(\n math.sqrt(x)) * k"),
    "places": ("SIZE = 3", "SIZE = 3\n\n\n"),
}  # fmt: skip


@pytest.mark.parametrize("edit", SAME.values(), ids=SAME)
def test_what_changes_no_key(tmp_path: Path, edit: tuple[str, str]) -> None:
    assert edit[0] in SOURCE
    one = of(module(tmp_path / "one", SOURCE))
    assert one == of(module(tmp_path / "two", SOURCE.replace(*edit)))


def test_functions_of_one_byte_code_have_one_key_in_any_order(tmp_path: Path) -> None:
    """A source has the function's name; which of them is looked up first does not count."""
    found = module(tmp_path, SOURCE + "\n\ndef other(v):\n    return v + 1\n")
    assert keys.code_digest(found.other.__code__) == keys.code_digest(found.helper.__code__)
    one = [key(found.helper), key(found.other)]
    sources._table.clear()
    assert [key(found.other), key(found.helper)] == one[::-1]


OTHER = {
    "the function": ("* k + SIZE", "* k - SIZE", 0),
    "its helper": ("return v + 1", "return v + 2", 0),
    "a constant": ("SIZE = 3", "SIZE = 3.0", 0),
    "a default": ("k=2", "k=3", 0),
    "an inner function": ("x ** power", "x * power", 1),
    "a closure": ("make(3)", "make(4)", 1),
    "a method": ("x * 2\n", "x * 4\n", 2),
}


@pytest.mark.parametrize("edit", OTHER.values(), ids=OTHER)
def test_what_changes_the_key_of_its_users_alone(
    tmp_path: Path, edit: tuple[str, str, int]
) -> None:
    old, new, user = edit
    assert old in SOURCE
    one = of(module(tmp_path / "one", SOURCE))
    two = of(module(tmp_path / "two", SOURCE.replace(old, new)))
    assert [k for k in range(3) if one[k] != two[k]] == [user]


#: by device: kernels, modules with code generators, and those that are part of every key
DEVICES = {
    "cpu": (KERNELS, compiler.GENERATED, compiler.GENERATORS),
    "cuda": (CUDA_KERNELS, cuda_compiler.GENERATED, cuda_compiler.GENERATORS),
}


def load_all(device: str) -> list[Any]:
    """The functions of a device's kernels, those of other tests left out."""
    ahead.load_all() if device == "cpu" else topics.load(device)
    functions = [kernel.function for kernel in DEVICES[device][0].values()]
    return [f for f in functions if (f.__module__ or "").startswith("fastnn.")]


@pytest.mark.parametrize("device", DEVICES)
def test_all_of_fastnn_counts_by_source(device: str) -> None:
    """Kernels made of generated source included; what has none counts by its byte code."""
    for function in load_all(device):
        assert from_source(function), f"{function.__module__}.{function.__qualname__}"
    generators = DEVICES[device][2]
    keys.modules_key(generators)
    for name in generators:
        assert in_table(recorded.code_of(name)), name
    scope: dict[str, Any] = {}
    exec("def f(x): return x", scope)
    assert not from_source(scope["f"])


def other_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte code as another Python would make it, with a table of its own."""
    exact = keys.code_digest
    monkeypatch.setattr(keys, "code_digest", lambda code: exact(code)[::-1])
    monkeypatch.setattr(keys, "_digests", {})
    monkeypatch.setattr(sources, "_table", {})
    monkeypatch.setattr(sources, "_read_from", {os.environ.get("FASTNN_CACHE")})
    monkeypatch.setattr(keys, "_modules", {})


@pytest.mark.parametrize("device", DEVICES)
def test_another_python_has_the_same_keys(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = load_all(device)
    _, generated, generators = DEVICES[device]
    found = module(tmp_path, SOURCE)
    ran: dict[str, Any] = {}
    exec("def f(x): return x", ran)
    exact = keys.code_digest(found.use.__code__)

    def all_keys() -> list[Any]:
        machine = compiler.machine_hash() if device == "cpu" else None
        each = [keys.function_key(f, generated) for f in ours]
        return [each, of(found), keys.modules_key(generators), machine]

    before, nowhere = all_keys(), key(ran["f"])
    other_python(monkeypatch)
    assert keys.code_digest(found.use.__code__) != exact
    assert all_keys() == before
    assert key(ran["f"]) != nowhere  # no source: each Python for itself


@pytest.mark.parametrize("known", [True, False], ids=["asked before", "asked after"])
def test_a_file_that_was_edited_does_not_count(tmp_path: Path, known: bool) -> None:
    """What ran has its own key, be it asked for before or after the file is edited; the new source
    has another."""
    found = module(tmp_path, SOURCE)
    before = key(found.use) if known else None
    (tmp_path / "some_source.py").write_text(SOURCE.replace("* k + SIZE", "* k - SIZE"))
    after = key(found.use)
    assert before in (None, after)
    assert known or not from_source(found.use)
    renewed = module(tmp_path, SOURCE.replace("* k + SIZE", "* k - SIZE"))
    assert from_source(renewed.use)
    assert key(renewed.use) != after
    assert key(found.use) == after


@pytest.mark.parametrize("text", ["", "def use(:", "def use(x): return x\n" * 40])
def test_files_that_are_gone_or_broken_do_no_harm(tmp_path: Path, text: str) -> None:
    found = module(tmp_path, SOURCE)
    (tmp_path / "some_source.py").write_text(text)
    assert not from_source(found.use)
    (tmp_path / "some_source.py").unlink()
    assert not from_source(found.cubed)
    assert len(key(found.use)) == 16


def test_sources_are_compared_once_on_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = module(tmp_path, SOURCE)
    first = of(found)
    assert cache.read(sources._path())
    monkeypatch.setattr(sources, "_table", {})
    monkeypatch.setattr(sources, "_read_from", set())
    monkeypatch.setattr(sources, "_compared", None)  # would fail if it were called
    assert of(found) == first


def test_a_damaged_table_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = module(tmp_path, SOURCE)
    first = of(found)
    path = sources._path()
    for content in (b"", b"{", b'{"a": "b"}', path.read_bytes()[:-3]):
        path.write_bytes(content)
        monkeypatch.setattr(sources, "_table", {})
        monkeypatch.setattr(sources, "_read_from", set())
        assert of(found) == first
    cache.write(path, b"[1]")
    monkeypatch.setattr(sources, "_table", {})
    monkeypatch.setattr(sources, "_read_from", set())
    assert of(found) == first


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = module(tmp_path, SOURCE)

    def refuse(path: Path, content: bytes) -> None:
        raise OSError("no")

    monkeypatch.setattr(cache, "write", refuse)
    assert len(key(found.use)) == 16


def test_byte_code_without_source_counts_for_this_python_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same bytes may mean something else to another version."""
    code = compile("def f(x): return x", "<nowhere>", "exec").co_consts[0]
    assert isinstance(code, types.CodeType)
    mine = sources.of_function(code, keys.code_digest)
    assert sources.of_function(code, keys.code_digest) == mine
    monkeypatch.setattr(sys, "hexversion", sys.hexversion + (1 << 16))
    assert sources.of_function(code, keys.code_digest) != mine
