"""Who knows kernels by their names: `fastnn/plan`, which calls them, and declarations of ops.

Whoever decides by what a kernel does asks for its traits, not for its name. A list of names or a
comparison with one, far from the kernels, would be forgotten with the next kernel. Above the
planner there are ops alone: a graph has no calls.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastnn
import fastnn.data
import fastnn.ops
from fastnn.graph.graph import Graph
from fastnn.graph.op import OPS
from fastnn.kernels import topics
from fastnn.kernels.declare import CUDA_KERNELS, KERNELS

FOLDER = Path(fastnn.__file__).parent
#: lowering rules call kernels by their names, declarations of ops give the names of theirs
CALLERS = ("plan/lower", "ops")


@functools.cache
def names() -> set[str]:
    """Names of kernels that can be nothing else: more than one word, no op's, no function's that
    users call."""
    for device in ("cpu", "cuda"):
        topics.load(device)
    found = [kernel for kernels in (KERNELS, CUDA_KERNELS) for kernel in kernels.values()]
    own = {k.name for k in found if (k.function.__module__ or "").startswith("fastnn.kernels.")}
    return {name for name in own - OPS.keys() - {*fastnn.data.__all__} if "_" in name}


def decided_by_name(source: str, kernels: set[str]) -> Iterator[tuple[int, str]]:
    """Lines that compare a kernel's name, or keep a table of such names."""
    tree = ast.parse(source)
    tables = [n.value for n in tree.body if isinstance(n, (ast.Assign, ast.AnnAssign)) and n.value]
    for table in tables:
        for node in ast.walk(table):
            if isinstance(node, ast.Constant) and node.value in kernels:
                yield node.lineno, str(node.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            asked = any(isinstance(n, ast.Attribute) and n.attr == "kernel" for n in sides)
            for constant in (n for side in sides for n in ast.walk(side)):
                text = constant.value if isinstance(constant, ast.Constant) else None
                if isinstance(text, str) and (asked or text in kernels):
                    yield node.lineno, text


@pytest.mark.parametrize("path", [
    path for path in sorted(FOLDER.rglob("*.py"))
    if not path.relative_to(FOLDER).as_posix().startswith((*CALLERS, "kernels"))
], ids=lambda path: path.relative_to(FOLDER).as_posix())  # fmt: skip
def test_nothing_is_decided_by_a_kernels_name(path: Path) -> None:
    assert list(decided_by_name(path.read_text(encoding="utf-8"), names())) == []


def test_what_would_be_found() -> None:
    kernels = {"sum_rows", "clear_words"}
    assert list(decided_by_name('TABLE = {"sum_rows": 1}', kernels)) == [(1, "sum_rows")]
    assert list(decided_by_name('if call.kernel == "own": pass', kernels)) == [(1, "own")]
    assert (
        list(decided_by_name('x = y in ("clear_words", "z")', kernels)) == [(1, "clear_words")] * 2
    )
    assert list(decided_by_name('f("clear_words")\nx = "other"', kernels)) == []


#: what calls kernels, and what makes and runs them
BELOW = ("kernels", "plan", "runtime", "testing", "cli")
#: functions that apply a kernel as an effect, and the files that have rules made into kernels
APPLIED = ("apply_effect", "effect_of")
GENERATED = {
    "ops/declare.py": "defines them",
    "engine/builder.py": "calls of the host, one kernel for each number of arrays",
    "engine/update.py": "optimisers' rules",
    "train/full_batch.py": "the search along a line",
}
#: an optimiser's rule names its own kernels: it stands on them, and knows no graph
OWN_RULES = "optim"


def calls_by_name(source: str, kernels: set[str]) -> Iterator[tuple[int, str]]:
    """Lines that have a kernel called or applied by its name, but for declarations of ops."""
    tree = ast.parse(source)
    declared = {
        id(constant)
        for function in ast.walk(tree) if isinstance(function, ast.FunctionDef)
        for call in function.decorator_list if isinstance(call, ast.Call)
        for word in call.keywords if word.arg in ("name", "forward", "backward")
        for constant in ast.walk(word.value)
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in kernels and id(node) not in declared:
            yield node.lineno, str(node.value)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            text = isinstance(node.args[0], ast.JoinedStr) or (
                isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
            )
            if text and node.func.attr.startswith("call"):
                yield node.lineno, node.func.attr


@pytest.mark.parametrize("path", [
    path for path in sorted(FOLDER.rglob("*.py"))
    if not path.relative_to(FOLDER).as_posix().startswith(BELOW)
], ids=lambda path: path.relative_to(FOLDER).as_posix())  # fmt: skip
def test_no_kernel_is_called_above_the_planner(path: Path) -> None:
    name, source = path.relative_to(FOLDER).as_posix(), path.read_text(encoding="utf-8")
    kernels = set() if name.startswith(OWN_RULES) else names()
    assert list(calls_by_name(source, kernels)) == [], "declare an op (`fastnn/ops/declare.py`)"
    applies = any(word in source for word in APPLIED)
    assert applies == (name in GENERATED), "effects have declarations, but for generated kernels"


def test_a_graph_has_no_calls() -> None:
    assert not [name for name in vars(Graph) if name.startswith("call")]


def test_what_calls_would_be_found() -> None:
    kernels = {"sum_rows"}
    assert list(calls_by_name('graph.call("own", x=x)', kernels)) == [(1, "call")]
    assert list(calls_by_name('f(graph, "sum_rows")', kernels)) == [(1, "sum_rows")]
    assert list(calls_by_name('@op(forward="sum_rows")\ndef f(x): ...', kernels)) == []
