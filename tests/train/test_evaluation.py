"""Evaluation: exact for any batch size, equal to NumPy on predictions and to an epoch that learns
nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import metrics, nn, ops, optim
from fastnn.errors import ShapeError

N, T, C = 9, 3, 4
QUIET = dict(verbose=False)


class Function(nn.Module):
    """A model that is a function, with some layers to use."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module):
        self.__dict__.update(layers)
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


def log_softmax(z: np.ndarray) -> np.ndarray:
    shifted = z - z.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def picked(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    return np.take_along_axis(values, np.maximum(ids, 0)[..., None], -1)[..., 0]


def cross_entropy(out: np.ndarray, y: np.ndarray, options: dict[str, Any]) -> Any:
    """Rows, their weights, and which count, as PyTorch defines them."""
    logs, s = log_softmax(out), options.get("label_smoothing", 0.0)
    weight = np.asarray(options.get("weight", np.ones(C)))
    if y.dtype.kind == "f":
        q = weight * ((1 - s) * y + s / C)
        return -(q * logs).sum(-1), np.ones(y.shape[:-1]), np.ones(y.shape[:-1])
    counted = (y != options.get("ignore_index", -100)).astype(float)
    own = weight[np.maximum(y, 0)] * counted
    rows = -(1 - s) * own * picked(logs, y) - s / C * counted * (weight * logs).sum(-1)
    return rows, own, counted


def batchmean(out: np.ndarray, y: np.ndarray, options: dict[str, Any]) -> Any:
    rows = (y * (np.log(y) - out)).sum(-1)
    return rows, np.full(rows.shape, 1 / rows[0].size), np.ones(rows.shape)


def pair(term: Callable[..., Any]) -> Callable[..., Any]:
    def rows(out: np.ndarray, y: np.ndarray, options: dict[str, Any]) -> Any:
        found = term(out, y)
        reduced = found.sum(-1) if options.get("reduction") == "sum" else found.mean(-1)
        return reduced, np.ones(reduced.shape), np.ones(reduced.shape)

    return rows


def squares(out: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (out - y) ** 2


def smooth(out: np.ndarray, y: np.ndarray) -> np.ndarray:
    d = np.abs(out - y)
    return np.where(d < 0.3, d**2 / 0.6, d - 0.15)


def probabilities(rng: Any, shape: Any) -> np.ndarray:
    p = rng.random((*shape, C)) + 0.01
    return p / p.sum(-1, keepdims=True)


#: name -> (loss, its options, NumPy's rows, targets of a shape)
CASES: dict[str, tuple[Any, dict[str, Any], Any, Any]] = {
    "classes": (nn.CrossEntropyLoss, {}, cross_entropy, lambda r, s: r.integers(0, C, s)),
    "ignored": (
        nn.CrossEntropyLoss, {"ignore_index": -1}, cross_entropy,
        lambda r, s: r.integers(-1, 2, s),
    ),
    "everything": (
        nn.CrossEntropyLoss,
        {"ignore_index": 2, "weight": [1.0, 9.0, 3.0, 0.5], "label_smoothing": 0.2},
        cross_entropy, lambda r, s: r.integers(0, C, s),
    ),
    "sum": (
        nn.CrossEntropyLoss, {"ignore_index": -1, "weight": [1.0, 9.0, 3.0, 0.5],
                              "reduction": "sum"},
        cross_entropy, lambda r, s: r.integers(-1, C, s),
    ),
    "probabilities": (
        nn.CrossEntropyLoss, {"weight": [1.0, 9.0, 3.0, 0.5]}, cross_entropy, probabilities
    ),
    "squares": (nn.MSELoss, {}, pair(squares), lambda r, s: r.normal(size=(*s, C))),
    "sum of squares": (
        nn.MSELoss, {"reduction": "sum"}, pair(squares), lambda r, s: r.normal(size=(*s, C))
    ),
    "smooth": (nn.SmoothL1Loss, {"beta": 0.3}, pair(smooth), lambda r, s: r.normal(size=(*s, C))),
    "divergence": (nn.KLDivLoss, {}, batchmean, probabilities),
}  # fmt: skip


def reduced(rows: Any, weights: Any, sample: np.ndarray | None, reduction: str) -> float:
    if sample is not None:
        own = sample.reshape(sample.shape + (1,) * (rows.ndim - sample.ndim)) * np.ones(rows.shape)
        rows, weights = rows * own, weights * own
    if reduction == "sum":
        return float(rows.sum())
    return float(rows.sum() / weights.sum()) if weights.any() else math.nan


@pytest.mark.parametrize("weighted", ["", "samples", "rows"])
@pytest.mark.parametrize("steps", [(), (T,)])
@pytest.mark.parametrize("name", CASES)
def test_evaluate_is_numpy_for_any_batch_size(name: str, steps: Any, weighted: str) -> None:
    kind, options, reference, targets = CASES[name]
    rng = np.random.default_rng([*name.encode(), len(steps), len(weighted)])
    x, y = rng.normal(size=(N, *steps, 5)), targets(rng, (N, *steps))
    sample = None
    if weighted:
        sample = rng.integers(0, 3, (N, *(steps if weighted == "rows" else ()))).astype(float)
    model = nn.Linear(5, C)
    model = nn.Sequential(model, nn.LogSoftmax()) if kind is nn.KLDivLoss else model
    accuracy = ["accuracy"] if kind is nn.CrossEntropyLoss else []
    trainer = fnn.Trainer(
        model, kind(**options), optim.SGD(lr=0.0), accuracy, dtype="float64", device="cpu"
    )
    out = trainer.predict(x)
    rows, weights, counted = reference(out, y, options)
    want = {"loss": reduced(rows, weights, sample, options.get("reduction", "mean"))}
    if accuracy:
        classes = y if y.dtype.kind == "i" else y.argmax(-1)
        hits = (out.argmax(-1) == classes) * counted
        want["accuracy"] = reduced(hits, counted, sample, "mean")
    for batch in range(1, N + 2):
        found = trainer.evaluate(x, y, batch_size=batch, sample_weight=sample)
        assert found == pytest.approx(want, rel=1e-12, abs=1e-12)
    parts = [(x[k : k + 4], y[k : k + 4], *([sample[k : k + 4]] if weighted else ()))
             for k in range(0, N, 4)]  # fmt: skip
    assert trainer.evaluate(parts) == pytest.approx(want, rel=1e-12, abs=1e-12)
    for batch in (1, 4, N):
        history = trainer.fit(
            x, y, batch_size=batch, sample_weight=sample, validation=(x, y, sample), **QUIET
        )
        found = {k: v[0] for k, v in history.items()}
        assert found == pytest.approx({**want, **{f"val_{k}": v for k, v in want.items()}})
    history = trainer.fit(parts, validation=parts, **QUIET)
    assert history["loss"][0] == pytest.approx(want["loss"]) == history["val_loss"][0]
    step = fnn.compile(model, kind(**options), optim.SGD(lr=0.0), dtype="float64", device="cpu")
    for run in (step.evaluate, step):
        assert run(x, y, sample) == pytest.approx(want["loss"], rel=1e-12)


def both(model: Any, x: Any) -> dict[str, Any]:
    return {"kind": model.kind(x), "place": model.place(x)}


def two_heads() -> nn.Module:
    return Function(both, kind=nn.Linear(5, C), place=nn.Linear(5, 2))


def test_several_outputs_with_losses_by_name() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(N, 5))
    y = {"place": rng.normal(size=(N, 2)), "kind": rng.integers(-1, C, N)}
    trainer = fnn.Trainer(
        two_heads(), {"kind": nn.CrossEntropyLoss(ignore_index=-1), "place": "mse"},
        optim.SGD(lr=0.0), {"kind": ["accuracy", "top_2_accuracy"], "place": "mae"},
        dtype="float64", device="cpu", loss_weights={"place": 0.25},
    )  # fmt: skip
    out = trainer.predict(x)
    rows, weights, counted = cross_entropy(out["kind"], y["kind"], {"ignore_index": -1})
    kind, place = rows.sum() / weights.sum(), squares(out["place"], y["place"]).mean()
    ranked = np.argsort(-out["kind"], axis=1)
    want = {
        "loss": kind + 0.25 * place,
        "kind_loss": kind,
        "place_loss": place,
        "kind_accuracy": ((ranked[:, 0] == y["kind"]) * counted).sum() / counted.sum(),
        "kind_top_2_accuracy": (ranked[:, :2] == y["kind"][:, None]).any(1).sum() / counted.sum(),
        "place_mae": np.abs(out["place"] - y["place"]).mean(),
    }
    for batch in range(1, N + 2):
        found = trainer.evaluate(x, y, batch_size=batch)
        assert list(found) == list(want)
        assert found == pytest.approx(want, rel=1e-12)
    history = trainer.fit(x, y, batch_size=4, validation=(x, y), **QUIET)
    assert history["loss"][0] == pytest.approx(want["loss"])
    assert history["val_place_loss"][0] == pytest.approx(want["place_loss"])
    step = fnn.compile(
        trainer.model, {"kind": nn.CrossEntropyLoss(ignore_index=-1), "place": "mse"},
        optim.SGD(lr=0.0), loss_weights={"place": 0.25}, dtype="float64", device="cpu",
    )  # fmt: skip
    assert step(x, y) == pytest.approx(want["loss"], rel=1e-12)


def test_several_outputs_with_losses_in_a_list() -> None:
    rng = np.random.default_rng(4)
    x, kinds, places = rng.normal(size=(N, 5)), rng.integers(0, C, N), rng.normal(size=(N, 2))
    model = Function(
        lambda m, x: (m.kind(x), m.place(x), ops.mean(x)),
        kind=nn.Linear(5, C),
        place=nn.Linear(5, 2),
    )
    trainer = fnn.Trainer(
        model, ["cross_entropy", "mse", None], metrics=[["accuracy"], ["mae"], []],
        loss_weights=[2.0, 1.0, 0.0], dtype="float64",
    )  # fmt: skip
    found = trainer.evaluate(x, [kinds, places], batch_size=N)
    assert list(found) == ["loss", "output0_loss", "output1_loss", "output0_accuracy",
                           "output1_mae"]  # fmt: skip
    assert found["loss"] == pytest.approx(2 * found["output0_loss"] + found["output1_loss"])
    assert found == pytest.approx(trainer.evaluate(x, (kinds, places), batch_size=2))


@pytest.mark.parametrize("named", [True, False])
def test_one_loss_in_a_dict_or_list_is_reported_once_more(named: bool) -> None:
    rng = np.random.default_rng(5)
    x, ids = rng.normal(size=(N, 5)), rng.integers(0, C, N)
    linear = nn.Linear(5, C)
    model: nn.Module = Function(lambda m, x: {"a": m.a(x)}, a=linear) if named else linear
    kind, name = nn.CrossEntropyLoss(reduction="sum"), "a" if named else "output0"
    options: Any = ({"a": kind}, {"a": 3.0}) if named else ([kind], [3.0])
    trainer = fnn.Trainer(
        model, options[0], optim.SGD(lr=0.0), ["accuracy"], dtype="float64",
        loss_weights=options[1], device="cpu",
    )  # fmt: skip
    target = {"a": ids} if named else ids
    out = x @ np.asarray(linear.weight).T + np.asarray(linear.bias)
    rows, _, _ = cross_entropy(out, ids, {})
    want = {
        "loss": 3.0 * rows.sum(),
        f"{name}_loss": rows.sum(),
        f"{name}_accuracy": (out.argmax(1) == ids).mean(),
    }
    assert trainer.evaluate(x, target, batch_size=4) == pytest.approx(want, rel=1e-12)
    history = trainer.fit(x, target, batch_size=4, **QUIET)
    assert {key: values[0] for key, values in history.history.items() if key in want} == (
        pytest.approx(want, rel=1e-12)
    )


def test_a_smoothed_row_of_a_class_that_weighs_nothing_counts_in_any_batch() -> None:
    rng = np.random.default_rng(6)
    x, ids = rng.normal(size=(N, 5)), np.array([0, 1, 2, 1, 1, 3, 0, 2, 1])
    options: Any = dict(weight=[1.0, 0.0, 0.5, 2.0], label_smoothing=0.3)
    linear = nn.Linear(5, C)
    trainer = fnn.Trainer(linear, nn.CrossEntropyLoss(**options), dtype="float64", device="cpu")
    out = x @ np.asarray(linear.weight).T + np.asarray(linear.bias)
    rows, weights, _ = cross_entropy(out, ids, options)
    for batch in range(1, N + 1):
        found = trainer.evaluate(x, ids, batch_size=batch)["loss"]
        assert found == pytest.approx(rows.sum() / weights.sum(), rel=1e-12)


def test_several_numbers_for_a_row_that_is_ignored_count_no_more_than_one() -> None:
    rng = np.random.default_rng(7)
    x, ids = rng.normal(size=(N, T, 5)), rng.integers(-1, C, (N, T))
    weight, linear = rng.random(N), nn.Linear(5, C)
    trainer = fnn.Trainer(
        linear, nn.CrossEntropyLoss(ignore_index=-1), dtype="float64", device="cpu",
        metrics=[metrics.Metric("size", lambda o, t: ops.square(o))],
    )  # fmt: skip
    out = x @ np.asarray(linear.weight).T + np.asarray(linear.bias)
    for given, each in ((None, np.ones(N)), (weight, weight)):
        own = (ids != -1) * each[:, None]
        want = (out**2 * own[..., None]).sum() / (own.sum() * C)
        for batch in (1, 4, N):
            found = trainer.evaluate(x, ids, batch_size=batch, sample_weight=given)
            assert found["size"] == pytest.approx(want, rel=1e-12)


def test_a_loss_of_parameters_alone_does_not_grow_with_the_batches() -> None:
    x = np.random.default_rng(8).normal(size=(N, 3))
    scale: Any = nn.Parameter((3,), 2.0)

    def forward(model: Any, x: Any) -> dict[str, Any]:
        ones = x.graph.constant(np.ones(3))
        return {"y": x * scale, "penalty": ops.total(ops.square(ones * scale))}

    trainer = fnn.Trainer(
        Function(forward, scale=scale),
        {"y": nn.MSELoss(reduction="sum"), "penalty": lambda o, t: o},
        optim.SGD(lr=0.0),
        dtype="float64",
        device="cpu",
    )
    y = {"y": np.zeros((N, 3)), "penalty": np.zeros(N)}
    want = {"loss": 4 * (x**2).sum() + 12, "y_loss": 4 * (x**2).sum(), "penalty_loss": 12.0}
    for batch in (1, 4, N):
        assert trainer.evaluate(x, y, batch_size=batch) == pytest.approx(want, rel=1e-12)
        history = trainer.fit(x, y, batch_size=batch, **QUIET)
        assert {n: history[n][0] for n in want} == pytest.approx(want, rel=1e-12)


def test_inputs_by_name() -> None:
    x, z = np.random.default_rng(0).normal(size=(2, N, 5))
    model = Function(lambda m, x: x)
    model.__class__ = type("Named", (Function,), {"forward": lambda m, left, right: left - right})
    np.testing.assert_allclose(model.predict({"right": z, "left": x}), x - z, rtol=1e-5, atol=1e-6)
    with pytest.raises(ShapeError, match=r"called \['left', 'right'\], got \['left', 'up'\]"):
        model.predict({"left": x, "up": z})
