"""The trainer: sources and order of data, metrics, schedules, callbacks, losses not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.errors import DataError, NonFiniteError
from tests import naive
from tests.train.models import fresh, mlp, state, vectors

QUIET = dict(verbose=False)


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[n], b[n]) for n in a)


def trained(x: Any, y: Any = None, **fit: Any) -> dict[str, np.ndarray]:
    trainer = fresh("mlp", optimizer="sgd")
    size = {} if y is None and not isinstance(x, np.ndarray) else {"batch_size": 8}
    trainer.fit(x, y, **{**size, "epochs": 2, **QUIET, **fit})
    return trainer.get_parameters()


# ---------------------------------------------------------------- metrics


def numpy_outputs(parameters: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    p = {n: v.astype(np.float64) for n, v in parameters.items()}
    hidden = np.tanh(x @ p["0.weight"].T + p["0.bias"])
    return hidden @ p["2.weight"].T + p["2.bias"]


def test_metrics_are_those_of_numpy() -> None:
    x, y = vectors(53)
    trainer = fresh(
        "mlp", optimizer="sgd", metrics=["accuracy", "top_2_accuracy", "top_3_accuracy"]
    )
    trainer.fit(x, y, batch_size=16, epochs=3, **QUIET)
    out = numpy_outputs(trainer.get_parameters(), x)
    ranked = np.argsort(-out, axis=1)
    want = {
        "loss": naive.cross_entropy(out, y).mean(),
        "accuracy": (ranked[:, 0] == y).mean(),
        "top_2_accuracy": (ranked[:, :2] == y[:, None]).any(axis=1).mean(),
        "top_3_accuracy": (ranked[:, :3] == y[:, None]).any(axis=1).mean(),
    }
    for batch in (256, 53, 16, 7, 1):
        found = trainer.evaluate(x, y, batch_size=batch)
        assert list(found) == list(want)
        for name, value in want.items():
            assert found[name] == pytest.approx(value, rel=2e-6), name


def test_means_over_an_epoch_weigh_batches_by_their_size() -> None:
    """With a learning rate of (nearly) nothing the epoch's means are those of the data."""
    x, y = vectors(21)
    trainer = fresh("mlp", optimizer=optim.SGD(lr=1e-30), metrics=["accuracy"])
    history = trainer.fit(x, y, batch_size=8, validation=(x, y), **QUIET)
    out = numpy_outputs(trainer.get_parameters(), x)
    loss, accuracy = naive.cross_entropy(out, y).mean(), (out.argmax(axis=1) == y).mean()
    assert history["loss"][0] == pytest.approx(loss, rel=2e-6)
    assert history["accuracy"][0] == pytest.approx(accuracy, rel=1e-9)
    assert history["val_loss"][0] == pytest.approx(loss, rel=2e-6)
    assert history["val_accuracy"][0] == pytest.approx(accuracy, rel=1e-9)


def test_losses_as_metrics() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(19, 6)), rng.normal(size=(19, 4)) * 2
    trainer = fnn.Trainer(mlp(), "mse", metrics=["mae", "huber"], dtype="float64")
    found = trainer.evaluate(x, y, batch_size=8)
    out = numpy_outputs(trainer.get_parameters(), x)
    assert found["loss"] == pytest.approx(((out - y) ** 2).mean(), rel=1e-12)
    assert found["mae"] == pytest.approx(np.abs(out - y).mean(), rel=1e-12)
    error = np.abs(out - y)
    huber = np.where(error < 1, error**2 / 2, error - 0.5).mean()
    assert found["huber"] == pytest.approx(huber, rel=1e-12)


def test_metric_functions() -> None:
    def largest(output: Any, target: Any) -> Any:
        return ops.sum_features(ops.square(output))

    x, y = vectors(11)
    trainer = fresh("mlp", metrics=[largest, fnn.train.metrics.Metric("twice", largest)])
    found = trainer.evaluate(x, y, batch_size=4)
    want = (numpy_outputs(trainer.get_parameters(), x) ** 2).sum(axis=1).mean()
    assert found["largest"] == found["twice"] == pytest.approx(want, rel=2e-6)


def test_binary_accuracy() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(20, 6)), (rng.random((20, 4)) > 0.5).astype(np.float32)
    trainer = fnn.Trainer(mlp(), "bce_with_logits", metrics=["accuracy"])
    want = ((numpy_outputs(trainer.get_parameters(), x) > 0) == (y > 0.5)).mean()
    assert trainer.evaluate(x, y)["accuracy"] == pytest.approx(want, rel=1e-6)


# ---------------------------------------------------------------- validation


@pytest.mark.parametrize("share", [0.2, np.float32(0.2)])
def test_validation_split_takes_the_last_samples(share: float) -> None:
    x, y = vectors(30)
    split, pair = fresh("mlp"), fresh("mlp")
    a = split.fit(x, y, batch_size=8, epochs=2, validation=share, **QUIET)
    b = pair.fit(x[:24], y[:24], batch_size=8, epochs=2, validation=(x[24:], y[24:]), **QUIET)
    assert dict(a) == dict(b)
    assert state(split) == state(pair)
    assert a.params["samples"] == 24


def test_validation_changes_nothing() -> None:
    x, y = vectors(30)
    with_it, without = fresh("regularised"), fresh("regularised")
    with_it.fit(x, y, batch_size=10, epochs=3, validation=(x, y), **QUIET)
    without.fit(x, y, batch_size=10, epochs=3, **QUIET)
    assert state(with_it) == state(without)


# ---------------------------------------------------------------- schedules, groups


def test_schedule_reaches_the_kernels() -> None:
    """Plain SGD on one linear layer, followed in NumPy."""
    x, y = vectors(24)
    schedule = optim.schedules.LinearWarmup(4) * optim.schedules.StepDecay(1, 0.5, unit="epoch")
    groups = {"bias": {"lr": 0.7}}
    trainer = fnn.Trainer(
        nn.Linear(6, 4), "cross_entropy", optim.SGD(lr=0.3, schedule=schedule, groups=groups),
        dtype="float64",
    )  # fmt: skip
    p = {n: v.astype(np.float64) for n, v in trainer.get_parameters().items()}
    trainer.fit(x, y, batch_size=8, epochs=3, shuffle=False, **QUIET)
    for step in range(9):
        rows = slice(step % 3 * 8, step % 3 * 8 + 8)
        out = x[rows] @ p["weight"].T + p["bias"]
        d = (naive.softmax(out) - np.eye(4)[y[rows]]) / 8
        p["weight"] -= schedule(step, base_lr=0.3, steps_per_epoch=3) * d.T @ x[rows]
        p["bias"] -= schedule(step, base_lr=0.7, steps_per_epoch=3) * d.sum(axis=0)
    for name, value in trainer.get_parameters().items():
        np.testing.assert_allclose(value, p[name], rtol=1e-12)


def test_learning_rate_can_be_set() -> None:
    x, y = vectors(16)
    trainer = fresh("mlp", optimizer=optim.SGD(lr=0.5, groups={"*.bias": {"lr": 0.1}}))
    assert trainer.learning_rate == 0.5
    trainer.learning_rate = 0.25
    np.testing.assert_allclose(trainer.rates(2), [[0.25, 0.05]] * 2)
    before = trainer.get_parameters()
    trainer.learning_rate = 0.0
    trainer.fit(x, y, batch_size=8, **QUIET)
    assert same(trainer.get_parameters(), before)


# ---------------------------------------------------------------- callbacks


def test_hooks_in_order() -> None:
    calls: list[str] = []
    names = [
        "on_train_begin", "on_epoch_begin", "on_train_batch_begin", "on_train_batch_end",
        "on_test_begin", "on_test_end", "on_epoch_end", "on_train_end",
    ]  # fmt: skip
    hooks = {n: (lambda *_, n=n: calls.append(n)) for n in names}
    x, y = vectors(16)
    fresh("mlp").fit(
        x, y, batch_size=8, validation=(x, y), callbacks=[fnn.callbacks.LambdaCallback(**hooks)],
        **QUIET,
    )  # fmt: skip
    batch = ["on_train_batch_begin", "on_train_batch_end"]
    assert calls == [
        "on_train_begin", "on_epoch_begin", *batch, *batch, "on_test_begin", "on_test_end",
        "on_epoch_end", "on_train_end",
    ]  # fmt: skip


def test_early_stopping_restores_the_best() -> None:
    """The learning rate is far too high from the third epoch on, so the loss rises."""

    class Faster(fnn.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any) -> None:
            self.trainer.learning_rate = 0.05 if epoch < 3 else 30.0

    class Keep(fnn.callbacks.Callback):
        def __init__(self) -> None:
            self.kept: list[Any] = []

        def on_epoch_end(self, epoch: int, logs: Any) -> None:
            self.kept.append(self.trainer.get_parameters())

    x, y = vectors(40)
    trainer, keep = fresh("mlp", optimizer=optim.SGD(lr=0.05)), Keep()
    stopping = fnn.callbacks.EarlyStopping("val_loss", patience=2)
    history = trainer.fit(
        x, y, epochs=50, batch_size=8, validation=(x, y), callbacks=[Faster(), keep, stopping],
        **QUIET,
    )  # fmt: skip
    best = int(np.argmin(history["val_loss"]))
    assert history.stopped == "early stopping"
    assert len(history.epoch) == best + 3 < 20
    assert same(trainer.get_parameters(), keep.kept[best])
    assert not same(keep.kept[-1], keep.kept[best])
    assert trainer.evaluate(x, y)["loss"] == pytest.approx(min(history["val_loss"]), rel=1e-5)


def test_stop_in_the_middle_of_an_epoch() -> None:
    class Stop(fnn.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            if batch == 1:
                self.trainer.stop_training = True

    x, y = vectors(40)
    trainer = fresh("mlp")
    history = trainer.fit(x, y, batch_size=8, epochs=3, callbacks=[Stop()], **QUIET)
    assert trainer.step == 2
    assert history.stopped == "stopped by a callback"


@pytest.mark.parametrize("workers", [1, 3])
def test_ctrl_c(workers: int) -> None:
    """The model is as after some whole number of steps; the history says what happened."""
    x, y = vectors(64)

    class Interrupt(fnn.callbacks.Callback):
        def update(self, step: int, logs: Any) -> None:
            raise KeyboardInterrupt

    trainer = fresh("mlp", optimizer="sgd", workers=workers)
    big_x, big_y = np.tile(x, (40000, 1)), np.tile(y, 40000)
    fit = dict(batch_size=8, shuffle=False, **QUIET)
    history = trainer.fit(big_x, big_y, callbacks=[Interrupt()], epochs=9, **fit)
    assert history.stopped == "interrupted"
    steps = trainer.step
    assert 0 < steps < 9 * len(big_x) // 8
    again = fresh("mlp", optimizer="sgd")
    again.fit(big_x[: steps * 8], big_y[: steps * 8], **fit)
    assert same(again.get_parameters(), trainer.get_parameters())


# ---------------------------------------------------------------- predict


class Two(nn.Module):
    """Two inputs, two outputs."""

    def __init__(self) -> None:
        self.a, self.b = nn.Linear(3, 4), nn.Linear(5, 4)

    def forward(self, x: Any, z: Any) -> Any:
        h = self.a(x) + self.b(z)
        return h, ops.sum_features(h)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_several_inputs_and_outputs(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, z, y, w = (rng.normal(size=s) for s in ((21, 3), (21, 5), (21, 4), (21,)))
    model = Two()

    def loss(outputs: Any, targets: Any) -> Any:
        return nn.MSELoss()(outputs[0], targets[0]) + 0.5 * nn.MSELoss()(outputs[1], targets[1])

    trainer = fnn.Trainer(model, loss, "sgd", dtype=dtype)
    history = trainer.fit((x, z), (y, w), batch_size=8, epochs=3, **QUIET)
    assert history["loss"][-1] < history["loss"][0]
    p = {n: v.astype(np.float64) for n, v in trainer.get_parameters().items()}
    want = x @ p["a.weight"].T + p["a.bias"] + z @ p["b.weight"].T + p["b.bias"]
    for batch in (256, 8, 1):
        one, two = trainer.predict(x, z, batch_size=batch)
        assert one.dtype == two.dtype == dtype
        room = 1e-12 if dtype == "float64" else 1e-5
        np.testing.assert_allclose(one, want, rtol=room, atol=room)
        np.testing.assert_allclose(two, want.sum(axis=1), rtol=10 * room, atol=10 * room)
    found = trainer.evaluate((x, z), (y, w))
    loss_value = ((want - y) ** 2).mean() + 0.5 * ((want.sum(axis=1) - w) ** 2).mean()
    assert found["loss"] == pytest.approx(loss_value, rel=1e-5)


def test_prediction_does_not_depend_on_the_batch_size() -> None:
    x, _ = vectors(50)
    trainer = fresh("regularised")
    whole = trainer.predict(x)
    for batch in (1, 7, 49):
        assert np.array_equal(trainer.predict(x, batch_size=batch), whole)


# ---------------------------------------------------------------- losses that are not finite


def test_a_loss_that_is_not_finite_keeps_the_parameters() -> None:
    """Data that overflow in the second batch: parameters and buffers are those before the step."""
    x, y = vectors(24)
    good, bad = x.copy(), x.copy()
    bad[11] = 3e38
    trainer, reference = fresh("regularised"), fresh("regularised")
    fit = dict(batch_size=8, shuffle=False, **QUIET)
    reference.fit(good[:8], y[:8], **fit)
    with pytest.raises(NonFiniteError, match=r"step 2 of the epoch \(step 2 in all\)") as caught:
        trainer.fit(bad, y, **fit)
    assert "in 0" in str(caught.value)  # the first layer
    assert "learning rate" in str(caught.value)
    assert trainer.history.stopped == "the loss was not finite"
    got, want = state(trainer), state(reference)
    # running statistics, too, are those before the bad batch
    assert {n: v for n, v in got.items() if n != "control"} == {
        n: v for n, v in want.items() if n != "control"
    }


def test_an_update_that_breaks_the_parameters_is_undone() -> None:
    x, y = vectors(24)
    trainer = fnn.Trainer(nn.Linear(6, 4), "mse", optim.SGD(lr=1e39))
    target = np.eye(4, dtype=np.float32)[y]
    before = trainer.get_parameters()
    with pytest.raises(
        NonFiniteError, match=r"the update of epoch 1, step 1 .* made parameter 'weight'"
    ):
        trainer.fit(x, target, batch_size=8, epochs=5, **QUIET)
    assert same(trainer.get_parameters(), before)
    trainer.learning_rate = 0.01
    history = trainer.fit(x, target, batch_size=8, epochs=5, **QUIET)  # and goes on
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < history["loss"][0]


def test_training_goes_on_after_bad_data() -> None:
    x, y = vectors(24)
    bad = x.copy()
    bad[11] = np.nan
    trainer = fresh("mlp")
    with pytest.raises(NonFiniteError):
        trainer.fit(bad, y, batch_size=8, shuffle=False, check_data=False, **QUIET)
    history = trainer.fit(x, y, batch_size=8, epochs=2, shuffle=False, **QUIET)
    assert np.isfinite(history["loss"]).all()
    shorter = trainer.fit(x[:9], y[:9], batch_size=3, **QUIET)  # other data
    assert np.isfinite(shorter["loss"]).all()


def test_a_sum_of_losses_is_checked_before_the_update() -> None:
    """The sum is computed later than the parts, and so than the gradients."""

    def loss(o: Any, t: Any) -> Any:
        return nn.MSELoss()(o, t) + 3.0 * nn.L1Loss()(o, t) + 1.0

    x, y = vectors(16)
    target = np.eye(4, dtype=np.float32)[y]
    target[12] = 3e38
    trainer = fnn.Trainer(mlp(), loss, "sgd")
    reference = fnn.Trainer(mlp(), loss, "sgd")
    reference.fit(x[:8], target[:8], batch_size=8, shuffle=False, **QUIET)
    with pytest.raises(NonFiniteError):
        trainer.fit(x, target, batch_size=8, shuffle=False, **QUIET)
    assert same(trainer.get_parameters(), reference.get_parameters())


def test_going_on_is_a_choice() -> None:
    x, y = vectors(24)
    x[11] = np.nan
    trainer = fresh("mlp", stop_on_nonfinite=False, optimizer="sgd")
    history = trainer.fit(x, y, batch_size=8, epochs=2, check_data=False, **QUIET)
    assert len(history.epoch) == 2
    assert trainer.step == 6
    assert not np.isfinite(history["loss"]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bad_numbers_in_the_data(value: float) -> None:
    x, y = vectors(24)
    x[17, 2] = value
    trainer = fresh("mlp")
    before = state(trainer)
    with pytest.raises(DataError, match="NaN or infinity in 1 samples, the first is sample 17"):
        trainer.fit(x, y, batch_size=8, **QUIET)
    with pytest.raises(DataError, match=r"validation inputs.*sample 17"):
        trainer.fit(x[:16], y[:16], batch_size=8, validation=(x, y), **QUIET)
    with pytest.raises(DataError, match="sample 1; clean the data, or pass check_data=False"):
        trainer.fit([(x[16:], y[16:])], **QUIET)
    with pytest.raises(DataError, match="sample 17"):
        trainer.evaluate(x, y)
    assert state(trainer) == before
    if np.isnan(value):  # tanh would make a number of an infinite one
        with pytest.raises(NonFiniteError, match="came from gather_rows in the data"):
            trainer.fit(x, y, batch_size=8, check_data=False, **QUIET)


def test_repr_names_model_optimiser_and_epochs() -> None:
    trainer = fnn.Trainer(nn.Linear(2, 1), "mse", optim.SGD(lr=0.1))
    assert repr(trainer) == "Trainer(Linear, SGD(lr=0.1), epochs done: 0)"
