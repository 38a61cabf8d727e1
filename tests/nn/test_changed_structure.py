"""What a model is made of: layers in containers, and layers that come and go."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.errors import OptionError, ShapeError
from tests.nn.test_memory import X, Y, fit, net, trainer

# -------------------------------------------------------------------- structure


class Deep(nn.Module):
    def __init__(self) -> None:
        self.blocks = [{"fc": nn.Linear(4, 4)}, (nn.Linear(4, 4), [nn.Linear(4, 4)])]
        self.scales = {"a": [nn.Parameter((4,), 1.0)]}
        self.heads = nn.ModuleDict({"out": nn.Linear(4, 2)})
        self.more = nn.ModuleList([nn.Identity(), nn.Linear(4, 4)])

    def forward(self, x: Any) -> Any:
        x = self.blocks[0]["fc"](x) * self.scales["a"][0]
        x = self.blocks[1][1][0](ops.tanh(self.blocks[1][0](x)))
        for layer in self.more:
            x = layer(x)
        return self.heads["out"](x)


def test_layers_count_in_containers_at_any_depth():
    model = Deep()
    names = [n for n in model.named_parameters() if not n.endswith("bias")]
    assert names == [
        "blocks.0.fc.weight", "blocks.1.0.weight", "blocks.1.1.0.weight", "heads.out.weight",
        "more.1.weight", "scales.a.0",
    ] or set(names) == {
        "blocks.0.fc.weight", "blocks.1.0.weight", "blocks.1.1.0.weight", "heads.out.weight",
        "more.1.weight", "scales.a.0",
    }  # fmt: skip
    before = model.state_dict()
    fit(trainer(model))
    assert all((a != before[n]).any() for n, a in model.state_dict().items())
    other = copy.deepcopy(model)
    np.testing.assert_array_equal(other.predict(X), model.predict(X))


def test_a_changed_model_is_trained_as_it_is_or_refused():
    model = net()
    made, step = trainer(model), fnn.compile(model, "cross_entropy", device="cpu", workers=1)
    fit(made)
    step(X, Y)
    model.predict(X)
    model[1] = nn.Identity()  # another computation, the same parameters
    s = model.state_dict()
    want = (X @ s["0.weight"].T + s["0.bias"]) @ s["2.weight"].T + s["2.bias"]
    np.testing.assert_allclose(model.predict(X), want, rtol=1e-4, atol=1e-5)
    losses = np.log(np.exp(want).sum(axis=1)) - want[np.arange(24), Y]
    np.testing.assert_allclose(made.evaluate(X, Y)["loss"], losses.mean(), rtol=1e-4)
    np.testing.assert_allclose(step(X, Y), losses.mean(), rtol=1e-4)
    model[2] = nn.Linear(5, 2)
    for call in (lambda: fit(made), lambda: step(X, Y), lambda: made.evaluate(X, Y)):
        with pytest.raises(OptionError, match=r"2\.weight, 2\.bias; make a new"):
            call()
    assert model.predict(X).shape == (24, 2)


def test_a_layer_appended_to_a_list_after_the_first_fit_is_noticed():
    class Stack(nn.Module):
        def __init__(self) -> None:
            self.layers = [nn.Linear(4, 4)]
            self.out = nn.Linear(4, 2)

        def forward(self, x: Any) -> Any:
            for layer in self.layers:
                x = layer(x)
            return self.out(x)

    model = Stack()
    step = fnn.compile(model, "cross_entropy", device="cpu", workers=1)
    step(X, Y)
    model.layers.append(nn.Linear(4, 4))
    with pytest.raises(OptionError, match=r"layers\.1\.weight"):
        step(X, Y)
    del model.layers[1]
    step(X, Y)
    kept, model.layers[0] = model.layers[0], nn.Linear(4, 4)
    with pytest.raises(OptionError, match=r"layers\.0\.weight"):
        step(X, Y)
    model.layers[0] = kept
    step(X, Y)
    del model.layers[0]  # what is left trains
    before = model.state_dict()
    assert list(before) == ["out.weight", "out.bias"]
    step(X, Y)
    assert (model.state_dict()["out.weight"] != before["out.weight"]).any()


def test_parameters_that_are_not_the_models_are_refused():
    hidden = nn.Linear(4, 2)
    hidden.store()
    box = type("Box", (), {"layer": hidden})()

    class Hiding(nn.Module):
        def __init__(self) -> None:
            self.first = nn.Linear(4, 4)
            self.box = box

        def forward(self, x: Any) -> Any:
            return self.box.layer(self.first(x))

    with pytest.raises(ShapeError, match="does not belong to the model that is traced"):
        fit(trainer(Hiding()))

    class Named(nn.Module):
        def __init__(self) -> None:
            self.layers = {nn.Linear(4, 2)}

    with pytest.raises(OptionError, match="is a set, whose order changes"):
        Named()


def test_two_parameters_of_one_name_are_refused():
    class Twice(nn.Module):
        def __init__(self) -> None:
            self.heads = {1: nn.Linear(4, 2), "1": nn.Linear(4, 2)}

    with pytest.raises(OptionError, match=r"two parameters are called 'heads\.1\.weight'"):
        Twice().state_dict()


def test_a_changed_option_of_a_layer_counts_at_once():
    model = nn.Sequential(nn.Linear(4, 2), nn.LeakyReLU(0.5))
    made, before = trainer(model), model.predict(X)
    loss = made.evaluate(X, Y)["loss"]
    model[1].negative_slope = 0.0
    np.testing.assert_array_equal(model.predict(X), np.maximum(before, 0.0))
    assert made.evaluate(X, Y)["loss"] != loss


def test_a_module_within_itself_ends():
    class Child(nn.Module):
        def __init__(self, parent: nn.Module) -> None:
            self.parent, self.fc = parent, nn.Linear(4, 2)

        def forward(self, x: Any) -> Any:
            return self.fc(x)

    class Parent(nn.Module):
        def __init__(self) -> None:
            self.child = Child(self)

        def forward(self, x: Any) -> Any:
            return self.child(x)

    model = Parent()
    assert list(model.named_parameters()) == ["child.fc.weight", "child.fc.bias"]
    assert "Parent(...)" in repr(model)
    fit(trainer(model))
    other = copy.deepcopy(model)
    np.testing.assert_array_equal(other.child.predict(X), model.predict(X))
    assert other.child.parent is other
