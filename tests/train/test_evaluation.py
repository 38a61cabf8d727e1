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
from fastnn.errors import DataError, FastnnError, OptionError, ShapeError
from fastnn.nn.loss import mean_of

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


# ---------------------------------------------------------------- nothing that counts


def test_a_batch_in_which_nothing_counts_changes_nothing() -> None:
    x = np.ones((6, 3), np.float32)
    y = np.array([-1, -1, -1, 1, 0, -1])
    loss = nn.CrossEntropyLoss(ignore_index=-1, label_smoothing=0.1)
    trainer = fnn.Trainer(nn.Linear(3, 4), loss, optim.SGD(lr=0.1), ["accuracy"], device="cpu")
    before = trainer.get_parameters()
    history = trainer.fit(x[:3], y[:3], batch_size=2, validation=(x[:3], y[:3]), **QUIET)
    assert history.stopped == "completed"
    assert all(math.isnan(history[n][0]) for n in ("loss", "val_loss", "accuracy"))
    after = trainer.get_parameters()
    assert all((after[n] == before[n]).all() for n in before)
    whole, parts = (trainer.evaluate(x, y, batch_size=b)["loss"] for b in (6, 3))
    assert whole == pytest.approx(parts, rel=1e-6)
    assert math.isfinite(trainer.fit(x, y, batch_size=3, shuffle=False, **QUIET)["loss"][0])
    step = fnn.compile(nn.Linear(3, 4), loss, optim.SGD(lr=0.1), device="cpu")
    assert not any(g.any() for g in step.gradients(x[:3], y[:3]).values())
    assert step(x[:3], y[:3]) == 0.0
    assert step(x[:3], y[3:], np.zeros(3)) == 0.0


def test_a_loss_in_which_nothing_counts_leaves_the_others() -> None:
    rng = np.random.default_rng(7)
    x, ids, none = rng.normal(size=(6, 5)), rng.integers(0, C, 6), np.full(6, -100)
    model = Function(lambda m, x: (m.a(x), m.b(x)), a=nn.Linear(5, C), b=nn.Linear(5, C))
    trainer = fnn.Trainer(
        model, [nn.CrossEntropyLoss(ignore_index=-100)] * 2, loss_weights=[2.0, 3.0],
        dtype="float64", device="cpu",
    )  # fmt: skip
    found = trainer.evaluate(x, (ids, none), batch_size=4)
    rows, _, _ = cross_entropy(trainer.predict(x)[0], ids, {})
    assert found["loss"] == pytest.approx(2.0 * rows.mean(), rel=1e-12)
    assert math.isnan(found["output1_loss"])
    assert math.isnan(trainer.evaluate(x, (none, none), batch_size=4)["loss"])


# ---------------------------------------------------------------- losses of one's own


def rmse(out: Any, y: Any) -> Any:
    return ops.sqrt(ops.mean(ops.square(out - y)))


def two_means(o: Any, y: Any, first: Any, second: Any) -> Any:
    """Of a row's outputs, weighted by what the functions give for its first target."""
    a, b = ops.columns(o, 0, 1), ops.columns(o, 1, 2)
    weight, other = (f(ops.columns(y, 0, 1)) for f in (first, second))
    return mean_of(a * weight, weight) + mean_of(b * other, other)


def two_means_of(o: Any, y: Any, first: Any, second: Any) -> Any:
    return sum(np.average(o[:, k], weights=f(y[:, 0])) for k, f in enumerate((first, second)))


#: losses as functions, and NumPy's value for all samples
FUNCTIONS: dict[str, tuple[Any, Any]] = {
    "mean": (lambda o, y: ops.mean(ops.square(o - y)), lambda o, y: squares(o, y).mean()),
    "sum": (lambda o, y: ops.total(ops.square(o - y)) * 0.5, lambda o, y: squares(o, y).sum() / 2),
    "sum and a number": (
        lambda o, y: ops.total(ops.square(o - y)) + 3.0,
        lambda o, y: squares(o, y).sum() + 3.0,
    ),
    "two means": (
        lambda o, y: ops.mean(ops.square(o - y)) - 0.3 * ops.mean(ops.absolute(o)) + 1.0,
        lambda o, y: squares(o, y).mean() - 0.3 * np.abs(o).mean() + 1.0,
    ),
    "root": (rmse, lambda o, y: math.sqrt(squares(o, y).mean())),
    "sum by the batch's size": (
        lambda o, y: ops.total(ops.square(o - y)) / o.shape[0],
        lambda o, y: squares(o, y).sum() / len(o),
    ),
    "sums by the batch's size, with factors": (  # as people write a variational bound
        lambda o, y: (
            ops.sum(ops.square(o - y)) / o.shape[0]
            - 0.5 * ops.sum(1.0 + ops.absolute(o)) / o.shape[0]
        ),
        lambda o, y: (squares(o, y).sum() - 0.5 * (1.0 + np.abs(o)).sum()) / len(o),
    ),
    "mean times the batch's size": (
        lambda o, y: 0.5 * (ops.mean(ops.square(o - y)) * o.size),
        lambda o, y: squares(o, y).sum() / 2,
    ),
    "rows by the batch's size": (
        lambda o, y: ops.sum(ops.square(o - y) / o.shape[0]),
        lambda o, y: squares(o, y).sum() / len(o),
    ),
    "sum by an array of the batch's size": (
        lambda o, y: ops.sum(ops.square(o - y) * np.full(2, 1.0 / o.shape[0])),
        lambda o, y: squares(o, y).sum() / len(o),
    ),
    "a number by a sum": (
        lambda o, y: 2.0 / ops.total(ops.square(o - y)),
        lambda o, y: 2.0 / squares(o, y).sum(),
    ),
    "means with different weights": (
        lambda o, y: two_means(o, y, ops.square, ops.absolute),
        lambda o, y: two_means_of(o, y, np.square, np.abs),
    ),
    "mean and sum": (
        lambda o, y: ops.mean(ops.square(o - y)) + ops.total(o) * 0.01,
        lambda o, y: squares(o, y).mean() + o.sum() * 0.01,
    ),
}


DONT_ADD_UP = (
    "root", "mean and sum", "sum and a number", "a number by a sum", "means with different weights",
)  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_as_losses(name: str) -> None:
    loss, reference = FUNCTIONS[name]
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(N, 5)), rng.normal(size=(N, 2))
    trainer = fnn.Trainer(nn.Linear(5, 2), loss, optim.SGD(lr=0.0), dtype="float64", device="cpu")
    want = pytest.approx(reference(trainer.predict(x), y), rel=1e-12)
    for batch in (1, 2, 4, N):
        assert trainer.evaluate(x, y, batch_size=batch)["loss"] == want
    history = trainer.fit(x, y, batch_size=4, validation=(x, y), **QUIET)
    assert history["val_loss"][0] == want
    if name not in DONT_ADD_UP:
        assert history["loss"][0] == want
    batches = [(x[:5], y[:5]), (x[5:], y[5:])]
    mixed = ("rows by the batch's size", "sum by an array of the batch's size")
    if name in (*DONT_ADD_UP, *mixed):
        with pytest.raises(DataError, match="doesn't add up over batches"):
            trainer.evaluate(batches)
        assert trainer.evaluate([(x, y)])["loss"] == want
    else:
        assert trainer.evaluate(batches)["loss"] == want


@pytest.mark.parametrize("cell", [nn.LSTM, nn.SCRN])
def test_sum_by_the_batch_size_of_a_model_with_carried_states(cell: Any) -> None:
    def by_size(o: Any, y: Any) -> Any:
        return ops.sum(ops.square(o - y)) / o.shape[0]

    def mean(o: Any, y: Any) -> Any:
        return ops.mean(ops.sum(ops.square(o - y), axis=(1, 2)))

    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(12, 5, 3)), rng.normal(size=(12, 5, 2))
    found = []
    for loss in (by_size, mean):
        core = cell(3, 2, stateful=4)
        model = nn.Sequential(core, nn.Linear(core.output_size, 2))
        trainer = fnn.Trainer(model, loss, optim.SGD(lr=0.01), dtype="float64", device="cpu")
        history = trainer.fit(x, y, batch_size=4, validation=(x[:8], y[:8]), **QUIET)
        values = trainer.evaluate(x, y, batch_size=4)
        batches = trainer.evaluate([(x[k : k + 4], y[k : k + 4]) for k in (0, 4, 8)])
        found.append([history["loss"][0], history["val_loss"][0], values["loss"], batches["loss"]])
    assert found[0] == pytest.approx(found[1], rel=1e-12)


class BySize(nn.Module):
    """Outputs that hold the batch's size: as a factor, or as the share of a mean's rows."""

    def __init__(self, function: Any) -> None:
        self.out, self.function = nn.Linear(5, 2), function

    def forward(self, x: Any) -> Any:
        return self.function(self.out(x), x)


@pytest.mark.parametrize(
    "function",
    [
        lambda o, x: o / x.shape[0],
        lambda o, x: ops.gradient(ops.mean(ops.square(o)), o),
    ],
)
def test_outputs_that_follow_the_batch_size(function: Any) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(N, 5)), rng.normal(size=(N, 2))
    trainer = fnn.Trainer(
        BySize(function), "mse", "sgd", metrics=["mae"], dtype="float64", device="cpu"
    )
    want = trainer.evaluate(x, y)
    reference = squares(trainer.predict(x), y).mean()
    assert want["loss"] == pytest.approx(reference, rel=1e-12)
    for batch in (1, 2, 4):
        assert trainer.evaluate(x, y, batch_size=batch) == want
    with pytest.raises(DataError, match="doesn't add up over batches"):
        trainer.evaluate([(x[:5], y[:5]), (x[5:], y[5:])])


class Joined(nn.Module):
    """Ops that are made anew at each use: joins, both directions of a layer, a loop."""

    def __init__(self, factor: Any) -> None:
        self.both, self.mix = nn.GRU(5, 3, bidirectional=True), nn.Linear(9, 3)
        self.out, self.factor = nn.Linear(3, 2), factor

    def forward(self, x: Any) -> Any:
        def step(x_t: Any, h: Any) -> Any:
            h = ops.tanh(self.mix(ops.concatenate(x_t, h * self.factor(x))))
            return h, h

        y, _ = self.both(x)
        return self.out(ops.loop(step, y, ops.zeros_state(x, 3))[0])


@pytest.mark.parametrize(
    ("factor", "adds_up"),
    [
        (lambda _: 0.5, True), (lambda x: 5 / x.shape[0], False),
        (lambda x: np.full(3, 5 / x.shape[0]), False),
    ],
)  # fmt: skip
def test_a_function_as_loss_of_a_model_with_joins_and_loops(factor: Any, adds_up: bool) -> None:
    """Batches add up unless a step in the loop follows the batch's size."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(N, 4, 5)), rng.normal(size=(N, 4, 2))
    loss, reference = FUNCTIONS["sum by the batch's size"]
    trainer = fnn.Trainer(Joined(factor), loss, dtype="float64", device="cpu")
    want = pytest.approx(reference(trainer.predict(x, batch_size=N), y), rel=1e-12)
    assert trainer.evaluate([(x, y)])["loss"] == want
    batches = [(x[:5], y[:5]), (x[5:], y[5:])]
    if adds_up:
        assert trainer.evaluate(batches)["loss"] == want
        assert trainer.evaluate(x, y, batch_size=2)["loss"] == want
    else:
        with pytest.raises(DataError, match="doesn't add up over batches"):
            trainer.evaluate(batches)


def test_a_function_with_sample_weights_returns_rows() -> None:
    rng = np.random.default_rng(1)
    x, y, w = rng.normal(size=(N, 5)), rng.normal(size=(N, 2)), rng.random(N)
    trainer = fnn.Trainer(
        nn.Linear(5, 2), lambda o, y: ops.sum_features(ops.square(o - y)), dtype="float64"
    )
    rows = squares(trainer.predict(x), y).sum(1)
    for batch in (2, N):
        found = trainer.evaluate(x, y, batch_size=batch, sample_weight=w)["loss"]
        assert found == pytest.approx((rows * w).sum() / w.sum(), rel=1e-12)
    with pytest.raises(ShapeError, match="return rows, not their mean"):
        fnn.Trainer(nn.Linear(5, 2), rmse).fit(x, y, sample_weight=w, **QUIET)


def test_data_that_cannot_be_cut() -> None:
    """With (time, batch, features) the first dimension is no sample's."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(N, 2, 5)), rng.normal(size=(N, 2, 3))
    model = Function(lambda m, x: m.rnn(x)[0], rnn=nn.GRU(5, 3, batch_first=False))
    trainer = fnn.Trainer(model, "mse", optim.SGD(lr=0.0), dtype="float64", device="cpu")
    want = pytest.approx(squares(trainer.predict(x), y).mean(), rel=1e-12)
    for batch in (1, 4, N):
        assert trainer.evaluate(x, y, batch_size=batch)["loss"] == want
    for options in ({"batch_size": 4}, {"batch_size": N}):
        with pytest.raises(DataError, match=r"batch_first=False.*iterable of whole batches"):
            trainer.fit(x, y, **options, **QUIET)
    assert trainer.fit(x, y, batch_size=N, shuffle=False, **QUIET)["loss"][0] == want
    assert trainer.fit([(x, y)], validation=(x, y), **QUIET)["val_loss"][0] == want


# ---------------------------------------------------------------- metrics


def test_accuracy_is_what_the_loss_says() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(40, 5))
    classes = rng.integers(0, C, 40)
    hot = np.eye(C)[classes]
    model = nn.Linear(5, C)
    squashed = nn.Sequential(model, nn.Sigmoid())
    squashed.load_state_dict(squashed.state_dict())  # no trainer draws them anew
    out = model.predict(x)
    largest = (out.argmax(1) == classes).mean()
    signs = ((out > 0) == (hot > 0.5)).mean()

    def accuracy(model: nn.Module, loss: Any, y: np.ndarray, name: Any = "accuracy") -> float:
        return list(fnn.Trainer(model, loss, metrics=[name]).evaluate(x, y).values())[1]

    assert accuracy(model, "cross_entropy", classes) == pytest.approx(largest)
    assert accuracy(model, "cross_entropy", hot) == pytest.approx(largest)
    assert accuracy(model, "cross_entropy", hot, "top_1_accuracy") == pytest.approx(largest)
    assert accuracy(model, "bce_with_logits", hot) == pytest.approx(signs)
    assert accuracy(squashed, "bce", hot) == pytest.approx(signs)
    assert accuracy(squashed, "mse", hot, "categorical_accuracy") == pytest.approx(largest)
    assert accuracy(squashed, "mse", hot, metrics.binary_accuracy()) == pytest.approx(signs)
    single = fnn.Trainer(Function(lambda m, x: ops.reshape(m.fc(x), -1), fc=nn.Linear(5, 1)),
                         "bce_with_logits", metrics=["accuracy"])  # fmt: skip
    want = ((single.predict(x) > 0) == (hot[:, 0] > 0.5)).mean()
    assert single.evaluate(x, hot[:, 0])["accuracy"] == pytest.approx(want)


def precision(out: Any, y: Any) -> Any:
    return ops.multiply(out, y), out


def test_metrics_of_sums() -> None:
    rng = np.random.default_rng(2)
    x, y, w = rng.normal(size=(N, 5)), rng.normal(size=(N, 2)), rng.random(N)
    root = metrics.Metric("rmse", lambda o, y: ops.square(o - y), math.sqrt)
    mean = metrics.Metric("mean", lambda o, y: ops.mean(ops.absolute(o - y)))
    trainer = fnn.Trainer(
        nn.Linear(5, 2), "mse", metrics=[precision, root, mean, nn.HuberLoss(0.3)], dtype="float64"
    )
    out = trainer.predict(x)
    d = np.abs(out - y)
    want = {
        "loss": squares(out, y).mean(),
        "precision": (out * y).sum() / out.sum(),
        "rmse": math.sqrt(squares(out, y).mean()),
        "mean": d.mean(),
        "HuberLoss": np.where(d < 0.3, d**2 / 2, 0.3 * (d - 0.15)).mean(),
    }
    for batch in range(1, N + 1):
        assert trainer.evaluate(x, y, batch_size=batch) == pytest.approx(want, rel=1e-12)
    trainer = fnn.Trainer(nn.Linear(5, 2), "mse", metrics=[precision, root], dtype="float64")
    out, own = trainer.predict(x), w[:, None]
    found = trainer.evaluate(x, y, batch_size=4, sample_weight=w)
    assert found["precision"] == pytest.approx((own * out * y).sum() / (own * out).sum())
    assert found["rmse"] == pytest.approx(math.sqrt((own * squares(out, y)).sum() / w.sum() / 2))


X, Y = np.random.default_rng(0).normal(size=(2, N, 5))
IDS = np.arange(N) % 5
REFUSED: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "a scalar": ("mse", Y, {"metrics": [rmse]}, "number for each row, got a single number"),
    "accuracy of a regression": ("mse", Y, {"metrics": ["accuracy"]}, "categorical_accuracy"),
    "classes of a regression": ("mse", Y, {"metrics": ["top_2_accuracy"]}, "class indices"),
    "too many classes": (
        "cross_entropy",
        IDS,
        {"metrics": ["top_6_accuracy"]},
        "number of class",
    ),
    "shape": ("cross_entropy", IDS, {"metrics": ["mse"]}, "metric mse"),
    "a class": ("mse", Y, {"metrics": [nn.MSELoss]}, "got a class"),
    "by name for one loss": ("mse", Y, {"metrics": {"a": "mae"}}, "plain list"),
    "loss weights for one": ("mse", Y, {"loss_weights": [1.0]}, "leave it out"),
    "binary without a threshold": ("mse", Y, {"metrics": ["binary_accuracy"]}, "threshold"),
    "two losses for one output": (["mse", "mse"], (Y, Y), {}, "2 outputs, one for each"),
    "names for one output": ({"a": "mse"}, {"a": Y}, {}, "return a dict from forward"),
    "wrong number of weights": (["mse"], Y, {"loss_weights": [1.0, 2.0]}, "one for each of"),
    "ignored probabilities": (nn.CrossEntropyLoss(ignore_index=1), abs(Y), {}, "class indices"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    loss, y, options, words = REFUSED[name]
    with pytest.raises(FastnnError, match=words):
        fnn.Trainer(nn.Linear(5, 5), loss, dtype="float64", **options).evaluate(X, y)


@pytest.mark.parametrize(
    ("loss", "y", "words"),
    [
        ("cross_entropy", IDS, r"one of the outputs, got 2 \(kind, place\).*pass a loss"),
        (
            {"kind": "cross_entropy", "where": "mse"},
            {"kind": IDS, "where": Y},
            "names have to agree",
        ),
        ({"kind": "cross_entropy"}, {"kind": IDS % C, "more": Y}, "names have to agree"),
        ({"kind": "cross_entropy"}, IDS % C, "pass a dict of targets"),
    ],
)
def test_losses_that_do_not_fit_the_outputs(loss: Any, y: Any, words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        fnn.Trainer(two_heads(), loss, dtype="float64").fit(X, y, **QUIET)


def test_sample_weights_that_do_not_fit() -> None:
    trainer = fnn.Trainer(nn.Linear(5, 5), "mse", dtype="float64")
    for weights, words in (
        (np.ones(N - 1), "one for each of 9 samples, got 8"),
        (-np.ones(N), "numbers >= 0"),
        (np.full(N, np.nan), "finite"),
        (np.ones((N, 5)), r"shape \(9,\)"),
        ((np.ones(N), np.ones(N)), "one array, or one for each of 1"),
    ):
        with pytest.raises(FastnnError, match=words):
            trainer.evaluate(X, Y, sample_weight=weights)
    with pytest.raises(OptionError, match="leave out y, batch_size and sample_weight"):
        trainer.evaluate([(X, Y)], sample_weight=np.ones(N))


def test_a_program_gets_its_memory_once_for_all_batches_of_a_shape(monkeypatch: Any) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(26, 3)).astype(np.float32), rng.integers(0, 2, 26)
    batches = [(x[k : k + 6], y[k : k + 6]) for k in range(0, 26, 6)]  # the last one has 2
    model = nn.Linear(3, 2)
    trainer = fnn.Trainer(model, "cross_entropy", metrics=["accuracy"])
    found = trainer.evaluate(batches)
    session, bound = trainer.evaluation().session, []
    bind = session.bind
    monkeypatch.setattr(session, "bind", lambda program: bound.append(program) or bind(program))
    assert trainer.evaluate(batches) == found
    assert not bound
    trainer.evaluate([(x[:5], y[:5])] * 3)
    assert len(bound) == 1
    for name, value in trainer.evaluate(x, y).items():
        assert value == pytest.approx(found[name], rel=1e-6)
    trainer.fit(batches, verbose=False)  # the same memory holds other parameters
    assert trainer.evaluate(batches)["loss"] == pytest.approx(trainer.evaluate(x, y)["loss"])
