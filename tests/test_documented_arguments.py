"""A docstring says what each argument is.

Every parameter of a public function or class is named in its own docstring, or in one that this
refers to ("see `X`", "as of `X`"). Methods count where a class begins them: one that overrides
another is explained there. What a function computes with, `x` or `parts`, needs no explanation.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.test_docstrings import FORMULAS, PACKAGES, members, public
from tests.test_documented_errors import plain

OPERANDS = {"self", "cls", "x", "parts"}
#: of methods, what means the same everywhere
USUAL = {"path", "batch_size"}
REFERENCE = re.compile(r"\b(?:[Ss]ee|as|in|of|for|like)\s`([\w.]+)`")
EXAMPLE = re.compile(r"^ *>>>.*?(?:\n\s*\n|\Z)", flags=re.M | re.S)
#: methods whose arguments are the operands of a class
COMPUTING = {"forward", *FORMULAS}


@functools.cache
def everything() -> dict[str, Any]:
    """Public names, and those of methods with their class."""
    found = {n: o for package in PACKAGES for n, o in public(package).items()}
    for name, thing in list(found.items()):
        if inspect.isclass(thing):
            found |= {f"{name}.{method}": value for method, value in members(thing)}
    return found


def said(thing: Any, depth: int = 3) -> str:
    """A docstring, and those that it refers to, without examples."""
    text = EXAMPLE.sub("", f"{inspect.getdoc(thing) or ''}\n")
    others = [everything().get(name.rpartition("ops.")[2]) for name in REFERENCE.findall(text)]
    more = [said(other, depth - 1) for other in others if other is not None and depth]
    return "\n".join([text, *more])


def unnamed(function: Any, text: str) -> list[str]:
    """Parameters that a text does not name."""
    try:
        there = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return []
    named = [n for n in there if n not in OPERANDS and not n.startswith("_")]
    return [n for n in named if not re.search(rf"\b{n}\b", text)]


def unexplained(name: str, thing: Any) -> Iterator[tuple[str, list[str]]]:
    """A name, and those of its methods, each with the arguments that are not explained."""
    if inspect.isclass(thing) and (
        issubclass(thing, BaseException) or getattr(thing, "_is_protocol", False)
    ):
        return
    text = said(thing)
    yield name, unnamed(thing, text)
    for method, value in members(thing) if inspect.isclass(thing) else ():
        begun = not any(method in vars(base) for base in thing.__mro__[1:])
        if begun and method not in COMPUTING and not isinstance(value, property):
            missing = unnamed(plain(value), said(getattr(thing, method)) + text)
            yield f"{name}.{method}", [n for n in missing if n not in USUAL]


@pytest.mark.parametrize("package", PACKAGES)
def test_arguments_are_explained(package: str) -> None:
    """Say what it is, or where that is said: "`unit`: see `Schedule`."."""
    found = (pair for name, thing in public(package).items() for pair in unexplained(name, thing))
    assert {name: missing for name, missing in found if missing} == {}


def test_what_is_missing_is_found() -> None:
    """In a function, in a constructor, in a method; an example explains nothing, a reference
    does."""

    def scaled(x: Any, factor: float) -> Any:
        """x, larger.

        >>> scaled(1.0, factor=2.0)
        """

    class Scaled:
        """Larger numbers; as `Schedule`."""

        def __init__(self, amount: float, unit: str): ...

        def by(self, other: float) -> None:
            """Larger still, by its `amount`."""

    assert dict(unexplained("scaled", scaled)) == {"scaled": ["factor"]}
    assert dict(unexplained("Scaled", Scaled)) == {"Scaled": ["amount"], "Scaled.by": ["other"]}
