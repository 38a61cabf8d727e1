"""Whoever decides by what a kernel does asks for its traits, not for its name.

Names stand where a kernel is called: in `fastnn/plan/lower`, in an op's declaration, in a call. A
list of names or a comparison with one, far from the kernels, would be forgotten with the next
kernel.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastnn
import fastnn.data
import fastnn.ops
from fastnn.graph.op import OPS
from fastnn.kernels import topics
from fastnn.kernels.declare import CUDA_KERNELS, KERNELS

FOLDER = Path(fastnn.__file__).parent
#: lowering rules call kernels by their names, declarations of ops give the names of theirs
CALLERS = ("plan/lower", "ops")


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
    assert list(decided_by_name('graph.call("clear_words")\nx = "other"', kernels)) == []
