"""What replaces functions of Numba's does what they did."""

from __future__ import annotations

import importlib
import warnings
from types import SimpleNamespace
from typing import Any

import pytest

from fastnn.kernels import topics
from fastnn.kernels.declare import CUDA_KERNELS, KERNELS
from fastnn.runtime import _cuda, shortcuts

PACKAGES = [
    "numba",
    pytest.param(
        "numba.cuda",
        marks=pytest.mark.skipif(not _cuda.installed(), reason="numba-cuda is not installed"),
    ),
]


def of(package: str, name: str) -> Any:
    shortcuts.install(package)
    return importlib.import_module(f"{package}.core.{name}")


def not_written(n: int) -> Any:
    """A variable without a value on one way, one that two loops change, one that is read before."""
    for i in range(n):
        if i > 3:
            last = i
        total = 0
        while total < i:
            total, i = total + last, i + 1
        if total > n:
            continue
    return last + total, i


def functions(device: str) -> list[Any]:
    topics.load(device)
    table: Any = KERNELS if device == "cpu" else CUDA_KERNELS
    names = ("ctc_forward", "crf_forward", "cross_entropy_forward", "max_pool_forward")
    return [not_written, *(table[name].function for name in names)]


def untyped(package: str, function: Any) -> Any:
    """A function's intermediate representation as type inference gets it, before it has one
    assignment for each variable."""
    place = "numba.core.compiler" if package == "numba" else "numba.cuda.compiler"
    return importlib.import_module(place).run_frontend(function)


def text(blocks: dict[int, Any]) -> list[str]:
    return [f"{k} {s} {s.loc} {s.list_vars()}" for k, b in blocks.items() for s in b.body]


@pytest.mark.parametrize("package", PACKAGES)
def test_single_assignments(package: str) -> None:
    ssa, changed = of(package, "ssa"), 0
    for function in functions("cpu" if package == "numba" else "cuda"):
        mine, plain = (untyped(package, function).blocks for _ in range(2))
        before = text(mine)
        found = shortcuts.single_assignments(mine, ssa)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert text(found) == text(ssa._run_ssa.plain(plain)), function.__name__
        changed += text(found) != before
    assert changed > 3
    assert shortcuts.single_assignments({}, ssa) == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_variables_of_statements(package: str) -> None:
    ir, count = of(package, "ir"), 0
    listed, plain = ir.Inst._rec_list_vars, ir.Inst._rec_list_vars.plain
    for function in functions("cpu" if package == "numba" else "cuda"):
        for block in untyped(package, function).blocks.values():
            for stmt in block.body:
                found = listed(stmt, stmt.__dict__)
                assert [id(v) for v in found] == [id(v) for v in plain(stmt, stmt.__dict__)]
                count += len(found)
    assert count > 500


@pytest.mark.parametrize("package", PACKAGES)
def test_settings(package: str) -> None:
    config = of(package, "targetconfig")
    place = "numba.core.compiler" if package == "numba" else "numba.cuda.flags"
    flags = getattr(importlib.import_module(place), "Flags" if package == "numba" else "CUDAFlags")
    made = flags()
    made.error_model, made.forceinline = "numpy", True
    assert list(made.values().items()) == list(config.TargetConfig.values.plain(made).items())


def at(line: int, run: Any) -> Any:
    """A constraint of a line that runs this."""
    return type("Made", (), {"__call__": lambda _, inferer: run(),
                             "loc": SimpleNamespace(filename="f", line=line)})()  # fmt: skip


def warn(kind: type, text: str) -> None:
    warnings.warn(text, kind, stacklevel=1)


def test_warnings_of_type_inference_say_where() -> None:
    """Numba's own are kept with the place that they are about, others come as they are."""
    typeinfer, errors = of("numba", "typeinfer"), of("numba", "errors")
    own = errors.NumbaPerformanceWarning
    found = []
    for way in (typeinfer.ConstraintNetwork.propagate, typeinfer.ConstraintNetwork.propagate.plain):
        network = typeinfer.ConstraintNetwork()
        for line, kind, text in ((1, own, "slow"), (2, UserWarning, "else"), (3, own, "slow")):
            network.append(at(line, lambda kind=kind, text=text: warn(kind, text)))
        network.append(at(3, lambda: warn(own, "slower")))
        fixer = errors.WarningsFixer(errors.NumbaWarning)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert way(network, SimpleNamespace(warnings=fixer)) == []
        found.append((dict(fixer._warnings), [(str(w.message), w.lineno) for w in caught]))
    assert found[0] == found[1]
    assert set(found[0][0]) == {("f", 1, own), ("f", 3, own)}
    assert [text for text, _ in found[0][1]] == ["else"]


def test_errors_of_type_inference_are_those_of_each_constraint() -> None:
    typeinfer = of("numba", "typeinfer")

    def fail() -> None:
        raise typeinfer.TypingError("no such type")

    def stop() -> None:
        raise ZeroDivisionError

    network = typeinfer.ConstraintNetwork()
    network.constraints += [at(1, fail), at(2, lambda: None), at(3, fail)]
    for constraint in network.constraints:
        constraint.loc = typeinfer.ir.unknown_loc
    fixer = SimpleNamespace(_category=UserWarning, _warnings={})
    found = network.propagate(SimpleNamespace(warnings=fixer))
    assert [type(e) for e in found] == [typeinfer.TypingError] * 2
    assert "no such type" in str(found[0])
    network.append(at(4, stop))
    with pytest.raises(ZeroDivisionError):
        network.propagate(SimpleNamespace(warnings=fixer))
    assert shortcuts._heard == []


class Typed:
    """Stands for a function's type: notes each time that a call is worked out."""

    def __init__(self) -> None:
        self._impl_keys: dict[Any, Any] = {}
        self.asked: list[Any] = []
        self.warns: list[Any] = []

    def get_call_type(self, context: Any, args: Any, kws: Any) -> Any:
        self.asked.append((context, args, kws))
        if args == ("bad",):
            raise ValueError("no match")
        if args == ("slow",):
            self.warns.append("slow")
        self._impl_keys[args] = f"code {len(self.asked)}"
        return SimpleNamespace(args=args)


def test_calls_are_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each context, types and settings; what others left behind is put back."""
    call = shortcuts.remembered(Typed.get_call_type)
    settings = of("numba", "targetconfig")
    monkeypatch.setattr(shortcuts, "_stacks", [settings.ConfigStack])
    made = Typed()
    for _ in range(2):  # out of type inference nobody hears warnings: all is worked out
        call(made, "cpu", (0,), {})
    assert len(made.asked) == 2
    heard: list[Any] = []
    monkeypatch.setattr(shortcuts, "_heard", [heard])
    made = Typed()
    first = call(made, "cpu", (1, 2), {})
    made._impl_keys[1, 2] = "another's"
    assert call(made, "cpu", (1, 2), {}) is first
    assert made._impl_keys == {(1, 2): "code 1"}
    assert len(made.asked) == 1
    for given in (("gpu", (1, 2), {}), ("cpu", (1, 3), {}), ("cpu", (1, 2), {"a": 1})):
        assert call(made, *given) is not first
    flags = importlib.import_module("numba.core.compiler").Flags
    for count, inline in ((5, True), (6, False), (6, True)):
        one = flags()
        one.forceinline = inline
        with settings.ConfigStack().enter(one):
            call(made, "cpu", (1, 2), {})
        assert len(made.asked) == count
    for _ in range(2):  # what fails is asked again
        with pytest.raises(ValueError, match="no match"):
            call(made, "cpu", ("bad",), {})
    assert len(made.asked) == 8
    made.warns = heard
    for _ in range(2):  # what warns, too
        call(made, "cpu", ("slow",), {})
    assert len(made.asked) == 10
