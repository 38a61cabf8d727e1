"""Every public name says what it is, and the examples in docstrings run."""

from __future__ import annotations

import doctest
import functools
import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import fastnn as fnn

PACKAGES = (
    "fastnn", "fastnn.nn", "fastnn.ops", "fastnn.optim", "fastnn.data", "fastnn.train",
    "fastnn.testing", "fastnn.callbacks", "fastnn.metrics", "fastnn.cuda", "fastnn.errors",
    "fastnn.pretrain", "fastnn.generative", "fastnn.autodiff", "fastnn.optim.schedules",
    "fastnn.diagnostics", "fastnn.parallel",
)  # fmt: skip
#: an optimiser's, whose equations are in the docstring of the class
FORMULAS = ("scalars", "rule", "weights", "follow")


@functools.cache
def public(package: str) -> dict[str, Any]:
    """What a package offers, but for modules and numbers, by name."""
    module = importlib.import_module(package)
    names = getattr(module, "__all__", None) or dir(module)
    found = {n: getattr(module, n) for n in names if not n.startswith("_")}
    return {
        n: o
        for n, o in found.items()
        if callable(o) and getattr(o, "__module__", "").startswith("fastnn")
    }


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that a class of ours defines itself."""
    for name, value in vars(kind).items():
        function = value.fget if isinstance(value, property) else value
        function = getattr(function, "__func__", function)
        if not name.startswith("_") and inspect.isfunction(function):
            yield name, value


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_documented(package: str) -> None:
    named = public(package)
    assert named or package == "fastnn.train"
    assert [n for n, o in named.items() if not inspect.getdoc(o)] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_arguments_are_documented(package: str) -> None:
    """A docstring that lists arguments lists those that there are."""
    wrong = []
    for name, value in public(package).items():
        text = inspect.getdoc(value) or ""
        listed = _listed(text)
        try:
            there = inspect.signature(value).parameters
        except (TypeError, ValueError):
            continue
        open_ended = any(p.kind is p.VAR_KEYWORD for p in there.values())
        wrong += [f"{name}: {n}" for n in listed if n not in there and not open_ended]
    assert wrong == []


def _listed(text: str) -> list[str]:
    """The names under "Args:"."""
    names, inside = [], False
    for line in text.splitlines():
        if not line.startswith(" "):
            inside = line == "Args:" or (inside and not line)
        elif inside and line[4:5].strip() and ":" in line:
            names += [n.strip().lstrip("*") for n in line.partition(":")[0].split(",")]
    return [n for n in names if n.isidentifier()]


def downloads(module: ModuleType) -> bool:
    """Whether a module gets a data set: then `tests/data/test_sets.py` runs its examples."""
    functions = [f for f in vars(module).values() if inspect.isfunction(f)]
    return any(
        f.__module__ == module.__name__ and "download" in inspect.signature(f).parameters
        for f in functions
    )


def _examples() -> dict[str, tuple[Any, ModuleType]]:
    """Public functions and classes whose docstrings have examples, their members' included."""
    found = {}
    for package in PACKAGES:
        for name, value in public(package).items():
            parts = [(name, value)]
            if inspect.isclass(value):
                parts += [(f"{name}.{n}", v) for n, v in members(value)]
            for label, part in parts:
                text = inspect.getdoc(part) or ""
                if ">>>" not in text:
                    continue
                module = importlib.import_module(value.__module__)
                if package != "fastnn.data" or not downloads(module):
                    found[f"{value.__module__}.{label}"] = part, module
    return found


EXAMPLES = _examples()
#: what examples need not import
GIVEN = {"np": np, "fnn": fnn, "nn": fnn.nn, "ops": fnn.ops, "optim": fnn.optim,
         "testing": fnn.testing}  # fmt: skip


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_examples(name: str) -> None:
    value, module = EXAMPLES[name]
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner()
    tests = [t for t in finder.find(value, name, module=module) if t.examples]
    if not tests:  # what a decorator has made
        scope = dict(vars(module))
        text = inspect.getdoc(value) or ""
        tests = [doctest.DocTestParser().get_doctest(text, scope, name, None, 0)]
    for test in tests:
        test.globs = {**GIVEN, **vars(module), **test.globs, "__name__": "example"}
        assert runner.run(test).failed == 0


#: without an example of their own: what needs a model around it (its layer has one), base classes,
#: what other functions return, what reads files, starts processes, or declares a kernel for all
SILENT = {
    "batch_norm", "load_state", "store_state", "partial_changes", "transducer_search", "Place",
    "Optimizer", "Recurrent", "TrainerLike", "Recordings", "Transcribed", "Partition", "Rates",
    "Advice", "Diagnosis", "Finding", "Signal", "Signals", "DeviceArray", "Group", "run", "mpi",
    "load_an4", "load_recordings", "load_speech_commands", "load_transcribed", "read_audio",
    "kernel", "cuda_kernel", "helper", "warn",
}  # fmt: skip


@pytest.mark.parametrize("package", PACKAGES)
def test_everything_has_an_example(package: str) -> None:
    silent = {
        name
        for name, value in public(package).items()
        if ">>>" not in (inspect.getdoc(value) or "")
        and not (inspect.isclass(value) and issubclass(value, BaseException))
    }
    assert sorted(silent - SILENT) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_methods_are_documented(package: str) -> None:
    """Of public classes; a method that overrides may have its base's docstring."""
    wrong = []
    for name, value in public(package).items():
        if inspect.isclass(value):
            wrong += [
                f"{name}.{n}"
                for n, _ in members(value)
                if n not in FORMULAS and not inspect.getdoc(getattr(value, n))
            ]
    assert wrong == []


def test_layers_and_losses_say_their_shapes() -> None:
    """Of what goes in and out, or of what they are made of; those that change no shape need not."""
    nn = importlib.import_module("fastnn.nn")
    element_wise = {
        n for n, o in public("fastnn.nn").items() if o.__module__ == "fastnn.nn.activation"
    }
    containers = {"Sequential", "ModuleList", "ModuleDict", "Module", "Identity", "Loss"}
    shapes = ("shape", "(batch", "dimension")
    silent = [
        n
        for n, o in public("fastnn.nn").items()
        if inspect.isclass(o)
        and issubclass(o, nn.Module)
        and n not in element_wise | containers
        and not any(word in (inspect.getdoc(o) or "").lower() for word in shapes)
    ]
    inputs = [n for n in silent if n not in ("RNN", "LSTM", "GRU", "SCRN")]  # see `Recurrent`
    assert inputs == []
