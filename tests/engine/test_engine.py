"""The engine alone: a model that is no module, an update rule that is no optimiser."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from fastnn import nn, ops
from fastnn.engine.arrays import as_arrays
from fastnn.engine.builder import Builder
from fastnn.engine.model import Stateful, fixed_batch, resolved
from fastnn.engine.predictor import Predictor
from fastnn.engine.session import Session
from fastnn.engine.store import ParameterStore
from fastnn.engine.update import Objective
from fastnn.errors import DataError, OptionError
from fastnn.optim import SGD

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 3)).astype(np.float32)


class Scaled:
    """x * w, and the row of a table: functions with parameters, and nothing of `nn.Module`."""

    def __init__(self) -> None:
        self.arrays = {"w": nn.Parameter((3,), 2.0), "table": nn.Parameter((4, 3), "normal")}
        self.memory = ParameterStore(self.arrays.items(), "float32")

    def forward(self, x: Any, ids: Any = None) -> Any:
        y = ops.multiply(x, self.arrays["w"])
        return y if ids is None else ops.add(y, ops.embedding(ids, self.arrays["table"]))

    def __call__(self, *inputs: Any) -> Any:
        return self.forward(*inputs)

    def named_modules(self) -> Iterator[tuple[str, Any]]:
        yield "", self

    def named_arrays(self) -> Mapping[str, nn.Parameter]:
        return self.arrays

    named_parameters = named_arrays

    def store(self, dtype: str | None = None, seed: int | None = None) -> ParameterStore:
        return self.memory


class Rule:
    """Plain descent, told as data."""

    def __init__(self) -> None:
        self.sgd = SGD(lr=1.0)
        self.own, self.clip_global_norm = self.sgd.own, None
        self.slots, self.hyper_size, self.bounded = (), self.sgd.hyper_size, True
        self.arrays, self.accumulate, self.elementwise = (), 1, True

    def kernels(self) -> tuple[str, str]:
        return self.sgd.kernels()

    def place(
        self, apply: Any, given: Mapping[str, Any], options: Mapping[str, Any], transposed: bool
    ) -> None:
        self.sgd.place(apply, given, options, transposed)

    def group_of(self, parameter: str) -> int:
        return 0

    def group_options(self, number: int) -> dict[str, Any]:
        return self.sgd.group_options(0)

    def own_values(self, options: Mapping[str, Any]) -> tuple[float, ...]:
        return self.sgd.own_values(options)

    def check_groups(self, parameters: Iterable[str]) -> None:
        assert list(parameters) == ["w", "table"]


def builder(model: Scaled, training: bool = False) -> Builder:
    return Builder(model, model.store(), len(X), training, "direct")


def test_a_step_is_built_bound_and_run() -> None:
    model, ids = Scaled(), np.array([0, 3, 1, 1, 2])
    inputs = as_arrays((X, ids), "x", "inputs")
    build = builder(model)
    (build.places["y"],) = build.outputs(build.inputs("x", inputs.specs))
    built = build.finish(advance=False)
    bound = Session(model.store(), (), 0, 1).run_once(built, inputs)
    table = np.array(model.arrays["table"])
    np.testing.assert_allclose(bound.view("y"), X * 2 + table[ids], rtol=1e-6)
    with pytest.raises(DataError, match=r"integers in 0\.\.3, got 4"):
        built.check(as_arrays((X, ids + 1), "x", "inputs"))


def test_a_predictor_takes_what_is_no_module() -> None:
    np.testing.assert_array_equal(Predictor(Scaled(), 1)(X, batch_size=2), X * 2)


def test_an_update_is_told_by_kernels_and_options() -> None:
    model = Scaled()
    build = builder(model, training=True)
    inputs = as_arrays(X, "x", "inputs")
    (y,) = build.outputs(build.inputs("x", inputs.specs))
    loss = ops.total(y)
    build.places["loss"] = loss
    build.train(Objective(loss, model.named_parameters(), Rule()))
    session = Session(model.store(), (), 0, 1)
    session.set("schedule", np.full((1, 1), 0.5))
    session.run_once(build.finish(), inputs)
    np.testing.assert_allclose(model.arrays["w"].value, 2 - X.sum(0) / 2, rtol=1e-5)


def test_a_moved_store_runs_no_more() -> None:
    model = Scaled()
    build = builder(model)
    inputs = as_arrays(X, "x", "inputs")
    build.outputs(build.inputs("x", inputs.specs))
    session, built = Session(model.store(), (), 0, 1), build.finish(advance=False)
    ParameterStore(model.arrays.items(), "float64")
    with pytest.raises(OptionError, match="have moved into another model's memory"):
        session.run_once(built, inputs)
    assert np.isnan(session.memory["params"]).all()


def test_small_integers_are_what_the_model_takes() -> None:
    model = Scaled()
    pixels = as_arrays((X.astype(np.uint8), np.zeros(5, np.uint8)), "x", "inputs")
    assert [spec.dtype for spec in resolved(model, pixels.specs)] == ["f", "i"]


def test_parts_that_carry_states_fix_the_batch() -> None:
    class Carries(Scaled, Stateful):
        stateful = 7

    assert fixed_batch(Scaled()) is None
    assert fixed_batch(Carries()) == 7
    assert fixed_batch(nn.Sequential(nn.LSTM(3, 4, stateful=2))) == 2
