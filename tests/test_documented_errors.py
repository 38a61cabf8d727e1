"""A docstring names the errors that its function, class or method raises.

Sources are read, nothing is run: a `raise` counts where it stands in the function itself or in a
helper that it calls by name (one with a leading "_", or a `check...` or `refuse...`). A class
speaks for its constructor, for being called, and for its methods. A docstring that says "as `X`" or
"see `X`" also says what that of X does.
"""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import re
import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

import pytest

from fastnn.errors import FastnnError
from tests.test_docstrings import PACKAGES, members, public

HELPER = re.compile(r"_|check|refuse")
REFERENCE = re.compile(r"\b(?:[Ss]ee|as|in|of|for|like) `(\w+)`")
#: what Python's own protocols ask for, and faults of fastnn itself
FREE = {"AttributeError", "KeyError", "IndexError", "NotImplementedError", "ProgramError",
        "AssertionError", "KeyboardInterrupt", "NotDifferentiable"}  # fmt: skip


@functools.cache
def functions(module: ModuleType) -> dict[str, ast.FunctionDef]:
    """A module's functions and methods by their qualified names."""
    found = {}

    def look(body: list[ast.stmt], prefix: str) -> None:
        for part in body:
            if isinstance(part, ast.FunctionDef):
                found[prefix + part.name] = part
            elif isinstance(part, ast.ClassDef):
                look(part.body, f"{prefix}{part.name}.")
            elif isinstance(part, ast.If):
                look(part.body, prefix)

    look(ast.parse(inspect.getsource(module)).body, "")
    return found


def called(node: ast.expr, module: ModuleType, kind: str) -> Any:
    """What a name, ``module.name`` or ``self.name`` stands for, or None."""
    if isinstance(node, ast.Name):
        return getattr(module, node.id, getattr(builtins, node.id, None))
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        owner = getattr(module, kind if node.value.id == "self" else node.value.id, None)
        if inspect.ismodule(owner) or node.value.id == "self":
            found = inspect.getattr_static(owner, node.attr, None)
            return getattr(found, "__func__", found)
    return None


def own(function: Any) -> bool:
    return inspect.isfunction(function) and function.__module__.startswith("fastnn.")


@functools.cache
def raised(function: FunctionType) -> frozenset[str]:
    """Names of the errors that leave a function, as far as its source tells."""
    return frozenset(_raised(function, frozenset()))


def _raised(function: FunctionType, active: frozenset[FunctionType]) -> Iterator[str]:
    module = sys.modules[function.__module__]
    node = functions(module).get(function.__qualname__)
    if node is None or function in active:
        return
    kind = function.__qualname__.rpartition(".")[0]
    for part, caught in _parts(node, ()):
        if isinstance(part, ast.Raise) and part.exc is not None:
            made = part.exc.func if isinstance(part.exc, ast.Call) else part.exc
            error = called(made, module, kind)
            if inspect.isfunction(error):  # a function that makes the error
                error = getattr(sys.modules["fastnn.errors"],
                                str(error.__annotations__.get("return")), None)  # fmt: skip
            if inspect.isclass(error) and not any(_catches(c, error, module) for c in caught):
                yield error.__name__
        elif isinstance(part, ast.Call):
            helper = called(part.func, module, kind)
            if own(helper) and HELPER.match(helper.__name__):
                yield from _raised(helper, active | {function})


def _parts(node: ast.AST, caught: tuple[ast.expr, ...]) -> Iterator[tuple[ast.AST, Any]]:
    """The parts of a function, each with the types that are caught around it."""
    yield node, caught
    for field, value in ast.iter_fields(node):
        inner = caught
        if isinstance(node, ast.Try) and field == "body":
            inner = (*caught, *(h.type for h in node.handlers if h.type is not None))
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _parts(child, inner)


def _catches(types: ast.expr, error: type, module: ModuleType) -> bool:
    each = types.elts if isinstance(types, ast.Tuple) else [types]
    kinds = [called(t, module, "") for t in each]
    return any(inspect.isclass(k) and issubclass(error, k) for k in kinds)


@functools.cache
def everything() -> dict[str, Any]:
    return {n: o for package in PACKAGES for n, o in public(package).items()}


def said(thing: Any) -> str:
    """A docstring, and those that it refers to."""
    text = inspect.getdoc(thing) or ""
    others = {everything().get(name) for name in REFERENCE.findall(text)}
    return "\n".join([text, *(inspect.getdoc(o) or "" for o in others if o is not None)])


def plain(value: Any) -> Any:
    """The function within a property, a class method or a decorated function."""
    value = value.fget if isinstance(value, property) else value
    return inspect.unwrap(getattr(value, "__func__", value))


def claims(name: str, thing: Any) -> Iterator[tuple[str, set[str], str]]:
    """For each docstring its label, the errors that are due, and what is said."""
    if not inspect.isclass(thing):
        function = plain(thing)
        if own(function):
            yield name, set(raised(function)), said(thing)
        return
    of_class = said(thing)
    hidden = [k for k in thing.__mro__ if k is thing or k.__name__.startswith("_")]
    used = [
        plain(value)
        for k in hidden
        for method, value in vars(k).items()
        if method.startswith("__") or method in ("forward", "check")
    ]
    yield name, {e for f in used if own(f) for e in raised(f)}, of_class
    for method, value in members(thing):
        text = said(getattr(thing, method)) + of_class
        yield f"{name}.{method}", set(raised(plain(value))), text


@pytest.mark.parametrize("package", PACKAGES)
def test_errors_are_named(package: str) -> None:
    """Add the name to the docstring, and when it is raised."""
    silent = {
        label: sorted(missing)
        for name, thing in public(package).items()
        for label, due, text in claims(name, thing)
        if (missing := {e for e in due - FREE if e not in text})
    }
    assert silent == {}


def test_sources_are_read() -> None:
    """Errors of a function's own, of helpers, of methods, in parts, and not those it catches."""
    from fastnn import nn, ops, optim
    from fastnn.data import NGram

    assert raised(plain(ops.rnn)) >= {"OptionError", "ShapeError"}
    assert "ShapeError" in raised(plain(nn.Linear.forward))
    assert "OptionError" in raised(plain(nn.Linear.__init__))  # by check_whole
    assert "OptionError" in raised(optim.schedules.StepDecay.__post_init__)  # made by a method
    assert "ValueError" not in raised(plain(NGram.__dict__["read"]))
    assert issubclass(FastnnError, Exception)
    total = [due for name, thing in everything().items() for _, due, _ in claims(name, thing)]
    assert sum(map(bool, total)) > 400
