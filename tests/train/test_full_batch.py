"""Methods that take the whole data set for each step: L-BFGS and conjugate gradients."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fnn
import fastnn.train.full_batch as full_batch
from fastnn import nn, ops, optim
from fastnn.errors import CheckpointError, DataError, NonFiniteError, OptionError

METHODS = {
    "lbfgs": lambda **o: optim.LBFGS(history_size=3, **o),
    "pr": lambda **o: optim.ConjugateGradient(**o),
    "fr": lambda **o: optim.ConjugateGradient(formula="fletcher-reeves", restart=20, **o),
}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(100, 4))
Y = np.sin(X[:, :2]) + 0.1 * RNG.normal(size=(100, 2))


def trainer_of(method, dtype="float64", loss="mse", net=None, **options):
    net = net or nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    return fnn.Trainer(net, loss, method, dtype=dtype, seed=1, **options)


def state(trainer):
    return np.concatenate([a.reshape(-1) for a in trainer.get_parameters().values()])


class Rosenbrock(nn.Module):
    """(1 - a)^2 + 100 (b - a^2)^2 of each pair of neighbours."""

    def __init__(self, size):
        self.p = nn.Parameter((size,), lambda shape, rng: np.tile([-1.2, 1.0], size // 2))

    def forward(self, x):
        p = ops.reshape(self.p, 1, -1)
        a, b = p[:, :-1], p[:, 1:]
        return ops.sum(ops.square(1.0 - a) + ops.square(b - ops.square(a)) * 100.0) + x * 0.0


@pytest.mark.parametrize("name", METHODS)
def test_rosenbrock(name):
    model = Rosenbrock(2)
    trainer = trainer_of(METHODS[name](), loss=lambda y, t: ops.mean(y), net=model)
    history = trainer.fit(np.zeros((1, 1)), np.zeros((1, 1)), epochs=300, verbose=False)
    assert history.stopped.startswith("converged")
    np.testing.assert_allclose(model.p.value, 1.0, atol=1e-4)
    assert history["evaluations"][-1] < (80 if name != "fr" else 200)


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_falls_with_every_iteration_and_is_that_of_the_model(name):
    trainer = trainer_of(METHODS[name]())
    history = trainer.fit(X, Y, epochs=30, verbose=False)
    assert trainer.step == 30
    assert np.all(np.diff(history["loss"]) < 0)
    assert trainer.evaluate(X, Y)["loss"] == pytest.approx(history["loss"][-1], rel=1e-12)
    gradients = fnn.compile(trainer.model, "mse", dtype="float64").gradients(X, Y)
    largest = max(np.abs(g).max() for g in gradients.values())
    assert history["gradient"][-1] == pytest.approx(largest, rel=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_same_bits_on_any_number_of_workers_and_after_resume(name, tmp_path):
    found = []
    for workers in (1, 2, 3, 4):
        trainer = trainer_of(METHODS[name](), dtype="float32", workers=workers)
        trainer.fit(X, Y, epochs=12, verbose=False)
        found.append(state(trainer))
    trainer = trainer_of(METHODS[name](), dtype="float32")
    trainer.fit(X, Y, epochs=5, verbose=False)
    trainer.save(tmp_path / "half")
    resumed = trainer_of(METHODS[name](), dtype="float32")
    resumed.fit(X, Y, epochs=12, verbose=False, resume=tmp_path / "half")
    found.append(state(resumed))
    trainer.fit(X, Y, epochs=7, verbose=False)  # a second call of fit goes on, too
    found.append(state(trainer))
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


@pytest.mark.parametrize("loss", ["mean", "sum", "weighted"])
def test_blocks_are_the_whole(loss, monkeypatch):
    classes = RNG.integers(0, 2, 100)
    given = {
        "mean": nn.CrossEntropyLoss(), "sum": nn.CrossEntropyLoss(reduction="sum"),
        "weighted": nn.CrossEntropyLoss(weight=np.array([0.3, 2.0])),
    }[loss]  # fmt: skip
    found = []
    for block in (4096, 64):
        monkeypatch.setattr(full_batch, "BLOCK", block)
        trainer = trainer_of(optim.LBFGS(weight_decay=0.01), loss=given, metrics=["accuracy"])
        history = trainer.fit(X, classes, epochs=6, verbose=False)
        found.append((state(trainer), *(history[n] for n in ("loss", "accuracy"))))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8)


def test_weight_decay_is_a_term_of_the_loss():
    net = nn.Linear(4, 2)
    trainer = trainer_of(optim.LBFGS(weight_decay=0.1, tolerance_change=0.0), net=net)
    trainer.fit(X, Y, epochs=100, verbose=False)
    a = np.c_[X, np.ones(100)]
    wanted = np.linalg.solve(a.T @ a / 100 + 0.1 * np.eye(5), a.T @ Y / 100)
    np.testing.assert_allclose(net.weight.value, wanted[:4].T, atol=1e-6)
    np.testing.assert_allclose(net.bias.value, wanted[4], atol=1e-6)


def test_frozen_and_changed_parameters():
    trainer = trainer_of(optim.LBFGS())
    trainer.fit(X, Y, epochs=4, verbose=False)
    kept = trainer.model.state_dict()["0.weight"].copy()
    trainer.model.freeze("0.*")
    losses = trainer.fit(X, Y, epochs=4, verbose=False)["loss"]
    np.testing.assert_array_equal(trainer.model.state_dict()["0.weight"], kept)
    assert losses[-1] < losses[0]
    trainer.set_parameters({n: a + 1.0 for n, a in trainer.get_parameters().items()})
    losses = trainer.fit(X, Y, epochs=4, verbose=False)["loss"]
    assert np.all(np.diff(losses) < 0)


def test_what_is_cut_off_is_where_the_iteration_began():
    class Cut(fnn.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs):
            if epoch == 6:
                run = trainer.session.run

                def cut(segments, poll):
                    run(segments[:2], poll)
                    trainer.session.run = run
                    raise KeyboardInterrupt

                trainer.session.run = cut

    whole = trainer_of(optim.LBFGS())
    whole.fit(X, Y, epochs=10, verbose=False)
    trainer = trainer_of(optim.LBFGS())
    history = trainer.fit(X, Y, epochs=10, verbose=False, callbacks=Cut())
    assert history.stopped == "interrupted"
    assert trainer.epoch == 6
    trainer.fit(X, Y, epochs=4, verbose=False)
    np.testing.assert_array_equal(state(whole), state(trainer))


def test_steps_that_are_too_long_are_shortened():
    """Where the loss overflows along the line."""
    net = nn.Linear(1, 1)
    trainer = trainer_of(
        optim.LBFGS(lr=1e5), loss=lambda y, t: ops.mean(ops.exp(ops.square(y - t))), net=net
    )
    history = trainer.fit(X[:, :1], 2.0 * X[:, :1], epochs=40, verbose=False)
    np.testing.assert_allclose(net.weight.value, 2.0, atol=1e-3)
    assert np.isfinite(history["loss"]).all()


def test_a_loss_that_is_not_finite():
    trainer = trainer_of(optim.LBFGS(), loss=lambda y, t: ops.mean(ops.log(y * 0.0 - 1.0)))
    with pytest.raises(NonFiniteError):
        trainer.fit(X, Y, epochs=2, verbose=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 32}, r"batch_size: LBFGS takes all 100 samples .*got 32; leave it out"),
        ({"shuffle": True}, r"shuffle: LBFGS takes all samples .*expected False"),
        ({"drop_last": True}, r"drop_last"),
    ],
)
def test_mini_batches_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        trainer_of(optim.LBFGS()).fit(X, Y, verbose=False, **options)


def test_what_else_is_refused(tmp_path):
    with pytest.raises(OptionError, match="expected arrays, got batches"):
        trainer_of(optim.LBFGS()).fit([(X, Y)], verbose=False)
    net = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5))
    with pytest.raises(OptionError, match="draws random numbers"):
        trainer_of(optim.LBFGS(), net=net).fit(X, Y, verbose=False)
    with pytest.raises(OptionError, match=r"no steps of mini-batches; use fastnn.Trainer"):
        fnn.compile(nn.Linear(4, 2), "mse", optim.LBFGS())
    with pytest.raises(OptionError, match="updates each number by itself"):
        optim.EMA(optim.LBFGS())
    with pytest.raises(OptionError, match=r"0 < decrease < curvature < 1"):
        optim.LBFGS(decrease=0.95)
    with pytest.raises(OptionError, match="formula"):
        optim.ConjugateGradient(formula="dai-yuan")
    with pytest.raises(OptionError, match="history_size"):
        optim.LBFGS(history_size=0)
    trainer = trainer_of(optim.LBFGS())
    trainer.fit(X, Y, epochs=1, verbose=False)
    trainer.save(tmp_path / "a")
    with pytest.raises(CheckpointError, match="optimizer differs"):
        trainer_of(optim.LBFGS(history_size=4)).load(tmp_path / "a")
    with pytest.raises(DataError):
        trainer.fit(X, Y[:3], verbose=False)


def test_batch_norm_sees_all_samples(monkeypatch):
    monkeypatch.setattr(full_batch, "BLOCK", 64)
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm(6), nn.Tanh(), nn.Linear(6, 2))
    losses = trainer_of(optim.LBFGS(), net=net).fit(X, Y, epochs=8, verbose=False)["loss"]
    assert np.all(np.diff(losses) < 0)


def test_programs_for_equal_shapes_are_planned_once(monkeypatch):
    """Each run reads its own data; other shapes and a changed model are planned anew."""
    planned, plain = [], full_batch.FullFeed._built

    def noted(feed, size):
        planned.append(size)
        return plain(feed, size)

    monkeypatch.setattr(full_batch.FullFeed, "_built", noted)
    model = nn.Linear(3, 1)
    trainer = trainer_of(METHODS["lbfgs"](), net=model, workers=1)
    rng = np.random.default_rng(0)
    for samples, expected in ((8, [8]), (8, [8]), (9, [8, 9]), (8, [8, 9])):
        x, wanted = rng.normal(size=(samples, 3)), rng.normal(size=(1, 3))
        history = trainer.fit(x, x @ wanted.T + 2, epochs=40, verbose=False)
        assert history["loss"][-1] < 1e-10
        np.testing.assert_allclose(np.array(model.weight), wanted, atol=1e-4)
        assert planned == expected
    model.bias.trainable = False
    trainer.fit(x, x @ wanted.T, epochs=1, verbose=False)
    assert planned == [8, 9, 8]
