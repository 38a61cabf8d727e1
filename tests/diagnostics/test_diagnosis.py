"""Each fault is found, and a sound model has none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from fastnn.diagnostics import advise, diagnose
from fastnn.errors import DataError, OptionError
from fastnn.graph.op import OPS
from fastnn.kernels.declare import KERNELS, kernel

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 20)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64) + 2 * (X[:, 1] > 0)


def net(*layers):
    return nn.Sequential(nn.Linear(20, 32), *layers, nn.Linear(32, 4))


def test_a_sound_model_has_no_fault() -> None:
    model = net(nn.ReLU())
    before = {k: v.copy() for k, v in model.state_dict().items()}
    found = diagnose(model, X, Y)
    assert [f.check for f in found.findings] == [
        "inputs", "labels", "first loss", "signal", "gradient", "dead units", "gradient check",
        "one batch by heart",
    ]  # fmt: skip
    assert all(f.verdict == "good" and not f.advice for f in found.findings), str(found)
    assert found.ok
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert "1.386" in found["first loss"].found
    with pytest.raises(OptionError, match="expected one of"):
        found["luck"]


def test_inputs() -> None:
    bad = X.copy()
    bad[7, 3] = np.nan
    found = diagnose(net(), bad, Y)
    assert not found.ok
    assert "sample 7" in found["inputs"].advice
    assert diagnose(net(), X * 100, Y, steps=0)["inputs"].verdict == "look"
    assert diagnose(net(), X + 50, Y, steps=0)["inputs"].verdict == "look"
    ids = RNG.integers(0, 9, size=(50, 20))
    model = nn.Sequential(nn.Embedding(9, 3), nn.Flatten(), nn.Linear(60, 4))
    assert "ids from 0 to 8" in diagnose(model, ids, Y[:50], steps=0)["inputs"].found
    found = diagnose(net(), np.zeros_like(X), Y, steps=0)
    assert found["inputs"].verdict == "bad"
    assert [f.check for f in found.findings] == ["inputs", "labels"]
    constant = X.copy()
    constant[:, 5] = 1.0
    assert "1 of 20 features constant" in diagnose(net(), constant, Y, steps=0)["inputs"].found


def test_labels() -> None:
    few = np.where(np.arange(300) < 290, 0, Y)
    assert "balanced" in diagnose(net(), X, few, steps=0)["labels"].advice
    gap = np.where(Y == 1, 2, Y)
    found = diagnose(net(), X, gap, steps=0)["labels"]
    assert found.verdict == "look"
    assert "none of 1" in found.found
    found = diagnose(net(), X, np.full(len(X), 2), steps=0)["labels"]
    assert (found.verdict, found.found) == ("look", "class 2 alone")


def test_labels_are_those_of_a_loss_of_classes() -> None:
    padded = np.where(np.arange(300) < 20, Y, 9)
    loss = nn.CrossEntropyLoss(ignore_index=9)
    assert "4 classes" in diagnose(net(), X, padded, loss, steps=0)["labels"].found
    with pytest.raises(DataError, match=r"integers in 0\.\.3, got 10000000000000"):
        diagnose(net(), X, np.where(Y == 1, 10**13, Y), steps=0)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_targets_that_are_not_finite(wrong: float) -> None:
    y = X[:, :4].copy()
    y[7, 2] = wrong
    found = diagnose(net(), X, y, steps=0)
    assert not found.ok
    assert "sample 7" in found["targets"].advice


def test_as_many_targets_as_inputs() -> None:
    with pytest.raises(DataError, match="300 inputs and 299 targets"):
        diagnose(net(), X, Y[:-1])


class Beside(nn.Module):
    """Two inputs, the second one number for each sample."""

    def __init__(self):
        self.layer = nn.Linear(21, 4)

    def forward(self, x, extra):
        return self.layer(fnn.ops.concatenate(x, fnn.ops.reshape(extra, -1, 1)))


@pytest.mark.parametrize("kind", [tuple, list])
def test_several_inputs_and_inputs_of_one_number(kind) -> None:
    found = diagnose(Beside(), kind((X, X[:, 0])), Y, steps=0)
    assert found["inputs"].verdict == "good", str(found)
    assert found.ok


def test_pixels_are_numbers() -> None:
    pixels = (X * 40 + 128).clip(0, 255).astype(np.uint8)
    assert diagnose(net(), pixels, Y, steps=0)["inputs"].verdict == "look"


def test_one_step() -> None:
    assert "in 1 steps" in diagnose(net(), X, Y, steps=1)["one batch by heart"].found


@pytest.mark.parametrize(
    "layer",
    [nn.Standout(), nn.LSTM(32, 32, bptt=2)],
    ids=["Standout", "bptt"],
)
def test_no_gradient_check_where_gradients_are_cut(layer) -> None:
    x = np.repeat(X[:, None], 5, axis=1) if isinstance(layer, nn.LSTM) else X
    y = np.repeat(Y[:, None], 5, axis=1) if isinstance(layer, nn.LSTM) else Y
    found = diagnose(net(layer), x, y, steps=0)["gradient check"]
    assert (found.verdict, "left out" in found.found) == ("good", True)


def test_first_loss_of_a_sum() -> None:
    for loss, y in (("cross_entropy", Y), (nn.MSELoss(reduction="sum"), X[:, :4])):
        total = nn.CrossEntropyLoss(reduction="sum") if isinstance(loss, str) else loss
        assert diagnose(net(), X, y, total, steps=0)["first loss"].verdict == "good"


def test_first_loss() -> None:
    probabilities = nn.Sequential(nn.Linear(20, 4), nn.Softmax())
    found = diagnose(probabilities, X, Y, steps=0)["first loss"]
    assert found.verdict == "bad"
    assert "softmax" in found.advice
    large = net(nn.ReLU())
    large.named_parameters()["2.weight"].value = RNG.normal(size=(4, 32)) * 30
    assert diagnose(large, X, Y, steps=0)["first loss"].verdict == "look"
    targets = X[:, :4] * 3
    found = diagnose(net(nn.ReLU()), X, targets, steps=0)["first loss"]
    assert f"{(targets[:32] ** 2).mean():.4g}" in found.found


def test_depth() -> None:
    layers = [m for _ in range(12) for m in (nn.Linear(32, 32), nn.Sigmoid())]
    found = diagnose(net(*layers), X, Y, steps=60)
    assert found["gradient"].verdict == "bad"
    assert "vanishes" in found["gradient"].advice
    assert not found.ok
    deep = net(*[nn.Linear(32, 32) for _ in range(5)])
    for name, parameter in deep.named_parameters().items():
        if name.endswith("weight"):
            parameter.value = RNG.normal(size=parameter.shape)
    found = diagnose(deep, X, Y, steps=0)
    assert "grows" in found["signal"].advice
    assert "explodes" in found["gradient"].advice
    for parameter in deep.named_parameters().values():
        parameter.value = RNG.normal(size=parameter.shape) * 1e-3
    assert "fades" in diagnose(deep, X, Y, steps=0)["signal"].advice


def test_units() -> None:
    dead = net(nn.ReLU())
    dead.named_parameters()["0.bias"].value = np.where(np.arange(32) < 24, -50.0, 0.0)
    assert diagnose(dead, X, Y, steps=0)["dead units"].found.startswith("75%")
    flat = net(nn.Tanh())
    flat.named_parameters()["0.weight"].value = RNG.normal(size=(32, 20)) * 10
    assert diagnose(flat, X, Y, steps=0)["saturation"].verdict == "bad"


def twice_forward(x: "in rows f[N,C]", y: "out rows f[N,C]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        for j in range(x.shape[1]):
            y[i, j] = 2.0 * x[i, j]


def twice_backward(dy: "in rows f[N,C]", dx: "out rows f[N,C]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        for j in range(dy.shape[1]):
            dx[i, j] = dy[i, j]  # half of what it is


@pytest.fixture
def twice() -> Iterator[Any]:
    yield fnn.define_op("twice", kernel(twice_forward), kernel(twice_backward))
    for name in ("twice_forward", "twice_backward"):
        del KERNELS[name]
    OPS.pop("twice", None)


def test_a_wrong_gradient_is_found(twice: Any) -> None:
    class Wrong(nn.Module):
        def __init__(self) -> None:
            self.a = nn.Linear(20, 4)

        def forward(self, x):
            return twice(self.a(x))

    found = diagnose(Wrong(), X, Y, steps=0)["gradient check"]
    assert found.verdict == "bad"
    assert "gradcheck" in found.advice


def test_what_cannot_be_learned() -> None:
    class Blind(nn.Module):
        def __init__(self) -> None:
            self.a = nn.Linear(20, 4)

        def forward(self, x):
            return self.a(x * 0.0)

    assert diagnose(Blind(), X, Y)["one batch by heart"].verdict == "bad"


def test_what_is_learned_slowly_is_no_fault() -> None:
    """Random labels and a few units: the loss falls, but not to nothing."""
    few = nn.Sequential(nn.Linear(20, 2), nn.Tanh(), nn.Linear(2, 4))
    found = diagnose(few, X, RNG.integers(0, 4, 300))
    assert found["one batch by heart"].verdict == "look"
    assert found.ok


def test_text_and_picture(tmp_path) -> None:
    found = diagnose(net(nn.Tanh()), X * 100, Y, steps=0)
    assert "check" in str(found)
    assert "inputs: bring every feature" in str(found)
    pytest.importorskip("matplotlib")
    found.plot(tmp_path / "d.png")
    assert (tmp_path / "d.png").stat().st_size > 1000


def test_bad_options() -> None:
    with pytest.raises(OptionError, match="batch_size"):
        diagnose(net(), X, Y, batch_size=0)
    with pytest.raises(OptionError, match="loss"):
        diagnose(net(), X, Y, "hinge-ish")


@pytest.mark.parametrize(
    ("history", "case"),
    [
        ({"loss": [2.3, 2.2, math.nan]}, "diverging"),
        ({"loss": [2.3, 1.0, 5.0]}, "diverging"),
        ({"loss": [2.3, 1.2, 1.2, 1.2, 1.2, 1.2]}, "training"),
        ({"loss": [2.3, 1.2, 1.2, 1.2], "val_loss": [2.3, 2.0, 2.5, 3.0]}, "training"),
        ({"loss": [2.3, 1.5, 1.3, 1.1]}, "unfinished"),
        ({"loss": [2.3, 0.5, 0.1], "val_loss": [2.2, 0.9, 1.1]}, "validation"),
        ({"loss": [2.3, 0.5, 0.1], "val_loss": [2.2, 0.45, 0.6]}, "good"),
        ({"loss": [2.3, 0.1]}, "good"),
    ],
)
def test_advice(history, case) -> None:
    found = advise(history, goal=0.5)
    assert found.case == case
    assert str(found).count("\n") == len(found.remedies) >= 1


def test_advice_of_a_metric_that_grows() -> None:
    history = {"accuracy": [0.5, 0.99], "val_accuracy": [0.5, 0.8]}
    assert advise(history, 0.95, monitor="accuracy", mode="max").case == "validation"
    with pytest.raises(DataError, match="'loss'"):
        advise(history, 0.95)
    with pytest.raises(DataError, match="got no epoch of it"):
        advise({"loss": []}, 0.95)
    with pytest.raises(OptionError, match="mode"):
        advise(history, 0.95, mode="up")


def test_advice_of_a_run() -> None:
    history = fnn.Trainer(net(nn.ReLU()), "cross_entropy", "adam").fit(X, Y, verbose=False)
    assert advise(history, 1e-3).case in ("unfinished", "training")
