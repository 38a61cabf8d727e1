"""Step functions: the same numbers as the trainer, errors that change nothing, little overhead."""

from __future__ import annotations

import gc
import time

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import DataError, NonFiniteError, OptionError, ShapeError
from fastnn.runtime.cpu import compiler
from tests.train.steps import RNG, X, Y, net, state


def test_the_same_bits_as_the_trainer():
    """One batch an epoch in the trainer, the same batch here."""
    ours, theirs = net(0.3), net(0.3)
    step = fnn.compile(ours, "cross_entropy", optim.Adam(lr=0.01, clip_global_norm=0.5), seed=7)
    trainer = fnn.Trainer(
        theirs, "cross_entropy", optim.Adam(lr=0.01, clip_global_norm=0.5), seed=7
    )
    losses = [step(X, Y) for _ in range(10)]
    history = trainer.fit(X, Y, epochs=10, batch_size=24, shuffle=False, verbose=False)
    assert state(ours) == state(theirs)
    assert step.steps == 10
    np.testing.assert_allclose(losses, history["loss"], rtol=1e-6)
    assert step.evaluate(X, Y) == pytest.approx(trainer.evaluate(X, Y)["loss"], rel=1e-6)


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_the_same_bits_for_any_number_of_workers(workers):
    results = []
    for count in (1, workers):
        model = net(0.3)
        step = fnn.compile(model, "cross_entropy", "adam", workers=count)
        losses = []
        for k in range(30):
            losses.append(step(X, Y))
            if k % 10 == 9:
                time.sleep(0.005)  # let the helpers fall asleep
        results.append((losses, state(model)))
    assert results[0] == results[1]


def test_gradients_change_nothing():
    model = net(0.3)
    step = fnn.compile(model, "cross_entropy", optim.SGD(lr=0.5))
    step(X, Y)
    before = state(model)
    values = {n: p.value.copy() for n, p in model.named_parameters().items()}
    first, again = step.gradients(X, Y), step.gradients(X, Y)
    assert state(model) == before
    assert step.steps == 1
    assert {n: g.shape for n, g in first.items()} == {n: v.shape for n, v in values.items()}
    assert all(first[n].tobytes() == again[n].tobytes() for n in first)
    step(X, Y)  # the same mask, so plain gradient descent with the same gradients
    for name, p in model.named_parameters().items():
        np.testing.assert_allclose(p.value, values[name] - 0.5 * first[name], rtol=1e-5, atol=1e-6)


def test_evaluate_changes_nothing():
    model = net(0.5)
    step = fnn.compile(model, "cross_entropy")
    step(X, Y)
    before = state(model)
    assert step.evaluate(X, Y) == step.evaluate(X, Y)
    logits = model.predict(X).astype(np.float64)
    want = np.log(np.exp(logits).sum(1)) - logits[np.arange(24), Y]
    assert step.evaluate(X, Y) == pytest.approx(want.mean(), rel=1e-5)
    assert state(model) == before
    assert step.steps == 1


def test_kinds_of_arrays():
    """Any layout and number type gives what a plain array of the program's type gives."""
    wide = np.zeros((24, 12), np.float32)
    wide[:, ::2] = X
    big = np.ascontiguousarray(np.tile(X, (40, 1)))  # large enough to be read in place
    large = np.zeros((2 * len(big), 6), np.float32)
    large[::2] = big
    labels = np.tile(Y, 40)
    for variants in (
        [(X, Y), (wide[:, ::2], Y), (X.astype(np.float64), Y.astype(np.uint8)),
         (np.asfortranarray(X), Y.tolist()), (X.tolist(), Y[::-1].copy()[::-1])],
        [(big, labels), (large[::2], labels.astype(np.int32)), (big.copy(), labels.copy()),
         (np.asfortranarray(big), labels)],
    ):  # fmt: skip
        results = []
        for x, y in variants:
            model = net()
            step = fnn.compile(model, "cross_entropy")
            for a, b in ((x, y), variants[0], (x, y)):
                step(a, b)
            results.append(state(model))
        assert all(r == results[0] for r in results)


def test_arrays_read_in_place_may_change_between_steps():
    x = np.ascontiguousarray(np.tile(X, (40, 1)))
    y = np.tile(Y, 40)
    models = net(), net()
    ours, theirs = (fnn.compile(m, "cross_entropy") for m in models)
    for _ in range(4):
        assert ours(x, y) == theirs(x.copy(), y.copy())
        x += 0.1
        y[:] = (y + 1) % 3
        gc.collect()
    assert state(models[0]) == state(models[1])


def test_shapes_are_planned_once():
    model = net()
    step = fnn.compile(model, "cross_entropy")
    step(X, Y)
    compiled = compiler.compiled_count
    for size in (24, 10, 24, 10, 7):
        step(X[:size], Y[:size])
    assert compiler.compiled_count == compiled
    assert len({id(r) for r in step._ready.values()}) == 3


def test_several_inputs_and_autoencoders():
    class Two(nn.Module):
        def __init__(self):
            self.a, self.b = nn.Linear(6, 3), nn.Linear(2, 3)

        def forward(self, x, z):
            return self.a(x) + self.b(z)

    z = RNG.normal(size=(24, 2)).astype(np.float32)
    step = fnn.compile(Two(), "cross_entropy", optim.Adam(lr=0.1))
    losses = [step((X, z), Y) for _ in range(50)]
    assert losses[-1] < 0.8 * losses[0]
    auto = fnn.compile(nn.Sequential(nn.Linear(6, 6)), "mse", optim.Adam(lr=0.05))
    losses = [auto(X) for _ in range(300)]
    assert losses[-1] < 0.01 * losses[0]
    assert auto.evaluate(X) == pytest.approx(auto.evaluate(X, X))


def test_steps_of_several_inputs_go_a_short_way(monkeypatch):
    """Where arrays are like those of a step before, nothing is looked at but their numbers."""

    class Sum(nn.Module):
        def __init__(self):
            self.linear = nn.Linear(4, 3)

        def forward(self, a, b):
            return self.linear(a + b)

    random = np.random.default_rng(0)
    a, b = (random.normal(size=(6, 4)).astype(np.float32) for _ in range(2))
    first, second = Sum(), Sum()
    step, other = (fnn.compile(m, "cross_entropy", optim.SGD(lr=0.1)) for m in (first, second))
    y = Y[:6]
    long = [step([p, q], y) for p, q in ((a, b), (-b, a), (a, b))]  # a list: looked at each time
    short = [other((a, b), y)]
    with monkeypatch.context() as patched:
        patched.setattr(other, "_prepare", None)
        short += [other((-b, a), y), other((a, b), y.copy())]
    assert short == long
    assert state(first) == state(second)
    other((a[::-1], b[::-1]), y)
    for x, target, message in (
        ((a, b), y[:5], "6 inputs and 5 targets"),
        ((a, b[:5]), y, "equal length"),
        ((a, b.astype(complex)), y, "element type complex"),
        ((a, b), y + 5, "integers in 0..2"),
    ):
        with pytest.raises(DataError, match=message):
            other(x, target)
    assert other.evaluate((a.astype(np.float64), b), y) == other.evaluate((a, b), y)
    assert other.evaluate((Listed(a), b), y) == other.evaluate((a, b), y)


class Listed:
    """An array of some library whose shape is a list."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, list(array.shape), array.dtype

    def __array__(self, dtype=None, copy=None):
        return self.array


def test_learning_rate_and_schedules():
    model = nn.Linear(6, 3)
    step = fnn.compile(model, "cross_entropy", optim.SGD(lr=0.5))
    before, gradient = model.weight.value.copy(), step.gradients(X, Y)["weight"]
    assert step.learning_rate == 0.5
    step.learning_rate = 0.25
    step(X, Y)
    np.testing.assert_allclose(model.weight.value, before - 0.25 * gradient, rtol=1e-5, atol=1e-7)
    with pytest.raises(OptionError, match="learning_rate: expected a number >= 0, got nan"):
        step.learning_rate = float("nan")

    schedule = optim.schedules.StepDecay(2, gamma=0.1)
    model = nn.Linear(6, 3)
    step = fnn.compile(model, "cross_entropy", optim.SGD(lr=0.5, schedule=schedule))
    for rate in (0.5, 0.5, 0.05, 0.05, 0.005):
        before, gradient = model.weight.value.copy(), step.gradients(X, Y)["weight"]
        step(X, Y)
        want = before - rate * gradient
        np.testing.assert_allclose(model.weight.value, want, rtol=1e-5, atol=1e-7)


def test_a_schedule_is_followed_beyond_the_table_of_rates():
    schedule = optim.schedules.StepDecay(300, gamma=0.0001)
    models = nn.Linear(6, 3), nn.Linear(6, 3)
    step = fnn.compile(models[0], "cross_entropy", optim.SGD(lr=0.5, schedule=schedule))
    trainer = fnn.Trainer(models[1], "cross_entropy", optim.SGD(lr=0.5, schedule=schedule))
    for _ in range(700):
        step(X, Y)
    trainer.fit(X, Y, epochs=700, batch_size=24, shuffle=False, verbose=False)
    assert state(models[0]) == state(models[1])


# ---------------------------------------------------------------- parts of a model


def test_some_parameters_are_trained():
    for chosen in ("4.*", ["4.weight", "4.b*"]):
        model = net()
        step = fnn.compile(model, "cross_entropy", parameters=chosen)
        before = model.state_dict()
        step(X, Y)
        changed = {n for n, a in model.state_dict().items() if (a != before[n]).any()}
        assert changed - {"1.running_mean", "1.running_var"} == {"4.weight", "4.bias"}
    model = net()
    assert list(fnn.compile(model, "mse", parameters=model[4]).parameters) == ["4.weight", "4.bias"]
    chosen = fnn.compile(model, "mse", parameters=[model[0].bias, model[1]]).parameters
    assert list(chosen) == ["0.bias", "1.weight", "1.bias"]
    with pytest.raises(OptionError, match=r"parameters: '9.x' matches none of the model's trained"):
        fnn.compile(model, "mse", parameters="9.x")
    with pytest.raises(OptionError, match="expected name patterns, modules or parameters"):
        fnn.compile(model, "mse", parameters=3)


def test_steps_of_models_that_share_layers():
    body, head, other = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 3)
    whole = nn.Sequential(body, head)
    both = nn.Sequential(body, nn.Tanh(), nn.Sequential(head, nn.Linear(3, 8)), other)
    both.store()
    first = fnn.compile(whole, "cross_entropy", optim.SGD(lr=0.1))
    second = fnn.compile(both, "cross_entropy", optim.SGD(lr=0.1))
    before = body.weight.value.copy()
    first(X, Y)
    middle = body.weight.value.copy()
    second(X, Y)
    assert (before != middle).any()
    assert (middle != body.weight.value).any()
    np.testing.assert_allclose(
        whole.predict(X),
        (X @ body.weight.value.T + body.bias.value) @ head.weight.value.T + head.bias.value,
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def test_a_part_may_predict_while_the_whole_is_trained():
    model = net()
    step = fnn.compile(model, "cross_entropy")
    step(X, Y)
    out = model[0].predict(X)
    step(X, Y)
    assert (model[0].predict(X) != out).any()
    assert model[0].weight.store is model.store()


def test_a_model_whose_memory_was_taken_over_says_so():
    layer = nn.Linear(6, 3)
    step = fnn.compile(layer, "cross_entropy")
    step(X, Y)
    fnn.compile(nn.Sequential(layer, nn.Linear(3, 3)), "cross_entropy")
    with pytest.raises(OptionError, match="have moved into another model's memory"):
        step(X, Y)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("workers", [1, 2])
def test_numbers_out_of_range_change_nothing(workers):
    model = nn.Sequential(nn.Embedding(5, 6), nn.BatchNorm(6), nn.Linear(6, 3))
    step = fnn.compile(model, nn.CrossEntropyLoss(ignore_index=-1), "adam", workers=workers)
    ids, y = RNG.integers(0, 5, 24), Y.copy()
    y[3] = -1
    step(ids, y)
    before = state(model)
    for bad_ids, bad_y, message in (
        (np.where(np.arange(24) == 7, 5, ids), y, r"inputs: '0' expects integers in 0..4, got 5"),
        (np.where(np.arange(24) == 7, -1, ids), y, r"inputs: '0' expects integers in 0..4, got -1"),
        (ids, np.where(y == 2, 3, y), r"targets: 'loss' expects integers in 0..2, got 3"),
        (ids, np.where(y == 2, -2, y), r"targets: 'loss' expects integers in 0..2, got -2"),
    ):
        for call in (step, step.evaluate, step.gradients):
            with pytest.raises(DataError, match=message):
                call(bad_ids, bad_y)
            assert state(model) == before
    assert step.steps == 1
    step(ids, y)
    assert step.steps == 2


def test_bad_data_and_options():
    step = fnn.compile(net(), "cross_entropy")
    step(X, Y)
    with pytest.raises(DataError, match="as many targets as inputs, got 24 inputs and 20"):
        step(X, Y[:20])
    with pytest.raises(ShapeError, match=r"layer '0'.*expected input of shape"):
        step(X[:, :5], Y)
    with pytest.raises(ShapeError, match="expected class probabilities"):
        step(X, Y.astype(np.float32))
    with pytest.raises(DataError, match="expected numbers"):
        step(X.astype(complex), Y)
    with pytest.raises(DataError, match="at least one sample"):
        step(X[:0], Y[:0])
    with pytest.raises(ShapeError, match=r"does not depend|expected a single number"):
        fnn.compile(net(), lambda out, y: out)(X, Y)
    with pytest.raises(OptionError, match="unknown loss 'hinge'"):
        fnn.compile(net(), "hinge")
    with pytest.raises(OptionError, match="expected 'float32' or 'float64'"):
        fnn.compile(net(), "mse", dtype="float16")
    with pytest.raises(OptionError, match="workers"):
        fnn.compile(net(), "mse", workers=0)
    with pytest.raises(OptionError, match=r"expected an nn.Module"):
        fnn.compile(X, "mse")
    assert step.steps == 1


def test_a_loss_that_is_not_finite_stops_before_the_update():
    class Bad(nn.Module):
        def __init__(self):
            self.fc = nn.Linear(6, 3)

        def forward(self, x):
            return ops.log(self.fc(x))

    model = Bad()
    step = fnn.compile(model, lambda out, y: ops.mean(out), optim.SGD(lr=0.1))
    before = state(model)
    with pytest.raises(NonFiniteError, match=r"in step 1: the first such number came from log"):
        step(X, Y)
    assert state(model) == before
    assert step.steps == 0
    free = fnn.compile(Bad(), lambda out, y: ops.mean(out), "sgd", stop_on_nonfinite=False)
    assert np.isnan(free(X, Y))
    model.fc.weight.value[0, 0] = np.nan
    with pytest.raises(NonFiniteError, match=r"parameter 'fc.weight' is not finite"):
        step(X, Y)
