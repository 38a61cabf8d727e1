"""What runs as plain Python alone counts in no key (`recorded.plain`), and decides on no code."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from fastnn.kernels import recorded
from fastnn.runtime import cache, keys, sources
from fastnn.runtime.cpu import compiler
from fastnn.runtime.cuda import compiler as cuda_compiler

SOURCE = """
from fastnn.kernels import recorded
recorded.record()

def shape():
    return 3

@recorded.plain
def twin(x, k=2):
    return x + shape()

@recorded.plain
class Memory:
    size = 1
"""


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("return x + shape()", "return shape() + x * k", False),
        ("size = 1", "size = 2", False),
        ("return 3", "return 4", True),
        ("x, k=2", "x, k=3", True),
        ("twin(x", "twin(y", True),
        ("@recorded.plain\ndef", "def", True),
        ("@recorded.plain\nclass", "class", True),
    ],
)
def test_its_body_does_not_count(
    old: str, new: str, counts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(cache, "write", lambda *_: None)
    assert old in SOURCE
    found = []
    for source in (SOURCE, SOURCE.replace(old, new)):
        (tmp_path / "has_twins.py").write_text(source)
        importlib.invalidate_caches()
        importlib.import_module("has_twins")
        found.append(keys.modules_key(["has_twins"]))
        code = recorded._code.pop("has_twins")
        assert any(e.endswith(keys.code_digest(code).hex()) for e in sources._table)
        del sys.modules["has_twins"]
    assert (found[0] != found[1]) is counts


def marks(node: Any) -> set[str]:
    """The decorators of a function or class."""
    return {ast.unparse(mark) for mark in getattr(node, "decorator_list", [])}


def test_no_generator_runs_it() -> None:
    """Generators hand such functions to `define` and look them up. Calls of them stand in other
    plain functions, in helpers, and in the functions called `body`, which are compiled."""
    names = {*compiler.GENERATORS, *cuda_compiler.GENERATORS}
    files = {name: Path(recorded.code_of(name).co_filename) for name in names}
    trees = {name: ast.parse(file.read_text("utf-8")) for name, file in files.items()}
    marked = {
        node.name: name
        for name, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and "recorded.plain" in marks(node)
    }
    assert {"fma", "transpose_block", "unit_multiply", "block_sum", "meet"} <= set(marked)
    found = []

    def visit(node: Any, name: str) -> None:
        if marks(node) & {"recorded.plain", "helper"} or getattr(node, "name", "") == "body":
            return
        if isinstance(node, ast.Call):
            *where, called = ast.unparse(node.func).split(".")
            home = marked.get(called, "")
            if home and (where == [home.rpartition(".")[2]] or (not where and home == name)):
                found.append(f"{name}:{node.lineno}: {ast.unparse(node)}")
        for inner in ast.iter_child_nodes(node):
            visit(inner, name)

    for name, tree in trees.items():
        visit(tree, name)
    assert found == []
