"""Levenberg-Marquardt and Hessian-free optimisation."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fnn
import fastnn.train.full_batch as full_batch
from fastnn import nn, ops, optim
from fastnn.errors import OptionError
from fastnn.kernels.descent import cpu_hessian_free, cpu_marquardt, gauss_newton, search
from tests.train.test_full_batch import X, Y, state, trainer_of

METHODS = {"lm": optim.LevenbergMarquardt, "hf": optim.HessianFree}


class Curve(nn.Module):
    """a exp(b x) + c tanh(d x)."""

    def __init__(self, start):
        self.p = nn.Parameter((4,), lambda shape, rng: np.array(start))

    def forward(self, x):
        a, b, c, d = (self.p[k : k + 1] for k in range(4))
        return ops.exp(x * b) * a + ops.tanh(x * d) * c


def test_a_curve_is_fitted_to_the_last_digits():
    x = np.linspace(-1.0, 2.0, 80)[:, None]
    wanted = np.array([1.5, -0.7, 0.8, 2.0])
    y = wanted[0] * np.exp(wanted[1] * x) + wanted[2] * np.tanh(wanted[3] * x)
    model = Curve([1.0, -0.1, 0.3, 1.0])
    trainer = fnn.Trainer(
        model, nn.MSELoss(reduction="sum"), optim.LevenbergMarquardt(), dtype="float64"
    )
    history = trainer.fit(x, y, epochs=30, verbose=False)
    assert history["loss"][-1] < 1e-12
    np.testing.assert_allclose(model.p.value, wanted, rtol=1e-6)


def test_the_first_step_is_that_of_the_formula():
    """(G + damping diag(G)) d = -g, and least squares are solved at once where damping is tiny."""
    net = nn.Linear(4, 2)
    trainer = trainer_of(optim.LevenbergMarquardt(damping=1e-12), net=net)
    trainer.fit(X, Y, epochs=1, verbose=False)
    wanted = np.linalg.lstsq(np.c_[X, np.ones(100)], Y, rcond=None)[0]
    np.testing.assert_allclose(net.weight.value, wanted[:4].T, rtol=1e-7)
    np.testing.assert_allclose(net.bias.value, wanted[4], rtol=1e-7)
    other = nn.Linear(4, 2)
    damped = trainer_of(optim.LevenbergMarquardt(damping=0.5), net=other)
    before = {n: a.copy() for n, a in damped.get_parameters().items()}
    damped.fit(X, Y, epochs=1, verbose=False)
    a = np.c_[X, np.ones(100)]
    old = np.c_[before["weight"], before["bias"]].T
    g, full = a.T @ (a @ old - Y) / 100, a.T @ a / 100
    new = old - np.linalg.solve(full + 0.5 * np.diag(np.diag(full)), g)
    np.testing.assert_allclose(np.c_[other.weight.value, other.bias.value].T, new, rtol=1e-9)


def test_hessian_free_solves_least_squares():
    net = nn.Linear(4, 2)
    trainer = trainer_of(optim.HessianFree(damping=1e-6), net=net)
    trainer.fit(X, Y, epochs=12, verbose=False)
    wanted = np.linalg.lstsq(np.c_[X, np.ones(100)], Y, rcond=None)[0]
    np.testing.assert_allclose(net.weight.value, wanted[:4].T, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_falls_with_every_iteration_and_is_that_of_the_model(name):
    trainer = trainer_of(METHODS[name]())
    history = trainer.fit(X, Y, epochs=12, verbose=False)
    assert np.all(np.diff(history["loss"]) < 0)
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    assert trainer.step == len(history["loss"])
    assert trainer.evaluate(X, Y)["loss"] == pytest.approx(history["loss"][-1], rel=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_same_bits_on_any_number_of_workers_and_after_resume(name, tmp_path):
    found = []
    for workers in (1, 2, 3, 4):
        trainer = trainer_of(METHODS[name](), dtype="float32", workers=workers)
        trainer.fit(X, Y, epochs=7, verbose=False)
        found.append(state(trainer))
    trainer = trainer_of(METHODS[name](), dtype="float32")
    trainer.fit(X, Y, epochs=3, verbose=False)
    trainer.save(tmp_path / "half")
    resumed = trainer_of(METHODS[name](), dtype="float32")
    resumed.fit(X, Y, epochs=7, verbose=False, resume=tmp_path / "half")
    found.append(state(resumed))
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_blocks_are_the_whole(name, reduction, monkeypatch):
    classes = np.random.default_rng(3).integers(0, 2, 100)
    found = []
    for block in (4096, 64):
        monkeypatch.setattr(full_batch, "BLOCK", block)
        method = METHODS[name]() if name == "lm" else optim.HessianFree(max_iterations=5)
        trainer = trainer_of(method, loss=nn.CrossEntropyLoss(reduction=reduction))
        found.append(trainer.fit(X, classes, epochs=4, verbose=False)["loss"])
    np.testing.assert_allclose(*found, rtol=1e-7)


def test_what_is_refused():
    with pytest.raises(OptionError, match=r"at most 10 parameters, got 44.*HessianFree"):
        trainer_of(optim.LevenbergMarquardt(max_parameters=10)).fit(X, Y, verbose=False)
    with pytest.raises(OptionError, match=r"batch_size: HessianFree takes all"):
        trainer_of(optim.HessianFree()).fit(X, Y, batch_size=10, verbose=False)
    for method in METHODS.values():
        with pytest.raises(
            OptionError, match=r"second derivatives with respect to the outputs.*LBFGS"
        ):
            trainer_of(method(), loss="mae").fit(X, Y, verbose=False)
    with pytest.raises(OptionError, match="factor"):
        optim.LevenbergMarquardt(factor=1.0)
    with pytest.raises(OptionError, match="damping"):
        optim.HessianFree(damping=0.0)
    with pytest.raises(OptionError, match="decay"):
        optim.HessianFree(decay=1.0)


# ---------------------------------------------------------------- against the formulas in NumPy


class Written:
    """Both methods in plain NumPy, on a net's loss, gradient and products."""

    def __init__(self, net, x, y, loss="mse"):
        self.net, self.data, self.loss = net, (x, y), loss
        self.products = fnn.autodiff.Products(net, loss, dtype="float64")
        self.step = fnn.compile(net, loss, dtype="float64")
        self.p = np.concatenate([a.reshape(-1) for a in net.state_dict().values()])

    def at(self, p):
        begin, found = 0, {}
        for name, a in self.net.state_dict().items():
            found[name] = p[begin : begin + a.size].reshape(a.shape)
            begin += a.size
        self.net.load_state_dict(found)
        gradients = self.step.gradients(*self.data)
        out, y = self.net.predict(self.data[0]), self.data[1]
        loss = np.mean((out - y) ** 2) if self.loss == "mse" else naive_entropy(out, y)
        return float(loss), np.concatenate([gradients[n].reshape(-1) for n in found])

    def marquardt(self, damping, diagonal, factor):
        """The largest diagonal so far (Moré 1978) times damping that changes by Nielsen (1999)."""
        loss, g = self.at(self.p)
        matrix = np.stack([self.products.gnvp(*self.data, e) for e in np.eye(len(g))])
        assert np.linalg.eigvalsh(matrix).min() > -1e-12
        diagonal, growth = np.maximum(np.diag(matrix), diagonal), 2
        while True:
            d = np.linalg.solve(matrix + damping * np.diag(diagonal), -g)
            after, _ = self.at(self.p + d)
            if after < loss:
                share = (loss - after) / -(g @ d + d @ matrix @ d / 2)
                self.p = self.p + d
                return after, damping * max(1 / factor, 1 - (2 * share - 1) ** 3), diagonal
            damping, growth = damping * growth, growth * 2

    def free(self, damping, start, most):
        """Martens (2010): conjugate gradients, back along them, Levenberg's rule, line search."""
        loss, g = self.at(self.p)

        def multiply(v):
            return self.products.gnvp(*self.data, v) + damping * v

        x, kept, after = start, [], 1
        r = multiply(x) + g if x.any() else g
        d = -r
        values = [0.5 * (x @ r + x @ g)]
        for i in range(1, most + 1):
            product = multiply(d)
            a = (r @ r) / (d @ product)
            x, new = x + a * d, r + a * product
            values.append(0.5 * (x @ new + x @ g))
            if i >= after:
                kept.append((x, values[-1]))
                after = int(np.ceil(after * 1.3 + 1e-9))
            k = max(10, i // 10)
            if i > k and values[-1] < 0 and values[-1] - values[-1 - k] > values[-1] * k * 0.0005:
                break
            d, r = (new @ new) / (r @ r) * d - new, new
        if kept[-1][0] is not x:
            kept.append((x, values[-1]))
        step, model = kept.pop()
        last, best = step, self.at(self.p + step)[0]
        while kept and self.at(self.p + kept[-1][0])[0] < best:
            step, model = kept.pop()
            best = self.at(self.p + step)[0]
        ratio = (best - loss) / model
        damping *= 1.5 if ratio < 0.25 else 1 / 1.5 if ratio > 0.75 else 1.0
        rate = 1.0
        while self.at(self.p + rate * step)[0] > loss + 1e-2 * rate * min(g @ step, 0.0):
            rate *= 0.8
        self.p = self.p + rate * step
        return self.at(self.p)[0], damping, last


def naive_entropy(z, classes):
    top = z.max(1)
    return np.mean(top + np.log(np.exp(z - top[:, None]).sum(1)) - z[np.arange(len(z)), classes])


CLASSES = (X[:, 0] + X[:, 1] > 0).astype(int)


def written_and_trained(method, loss="mse", y=Y):
    """Two equal nets, one with NumPy's formulas, one to be trained."""
    trainer = trainer_of(method, loss=loss)
    trainer.fit(X, y, epochs=0, verbose=False)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    trainer_of(optim.SGD(), net=net).fit(X, Y, epochs=0, verbose=False)
    net.load_state_dict(trainer.model.state_dict())
    return Written(net, X, y, loss), trainer


@pytest.mark.parametrize(("loss", "y"), [("mse", Y), ("cross_entropy", CLASSES)])
def test_marquardts_steps_are_those_of_the_formulas(loss, y):
    """With cross entropy the matrix is the generalised one, which has no negative eigenvalues."""
    method = optim.LevenbergMarquardt(damping=1e-4, factor=20.0)
    written, trainer = written_and_trained(method, loss, y)
    losses = trainer.fit(X, y, epochs=8, verbose=False)["loss"]
    diagonal, damping, wanted = np.zeros(44), [1e-4], []
    for _ in range(8):
        loss, now, diagonal = written.marquardt(damping[-1], diagonal, 20.0)
        wanted.append(loss)
        damping.append(now)
    ratios = np.divide(damping[1:], damping[:-1])
    assert ratios.max() > 3  # a step was refused
    assert ratios.min() < 1 / 2
    np.testing.assert_allclose(losses, wanted, rtol=1e-7)


def test_fits_do_not_stay_on_plateaus():
    """With the present diagonal, and damping by a fixed factor, half of these ended at 0.02."""
    x = np.linspace(-1, 1, 50)[:, None]
    for seed in range(4):
        net = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1))
        trainer = fnn.Trainer(net, "mse", "levenberg_marquardt", dtype="float64", seed=seed,
                              workers=1)  # fmt: skip
        assert trainer.fit(x, np.sin(3 * x), epochs=40, verbose=False)["loss"][-1] < 1e-5


def test_what_damping_multiplies():
    """The largest diagonal so far, kept in flat memory; what is not finite is not kept."""
    places, diagonal = np.array([0, 2, 3, 5, 6]), np.zeros(5)
    scaling = np.array([3.0, 7.0, 1.0, 0.0, 7.0, 2.0, 0.5], np.float32)
    matrix = np.diag([1.0, 4.0, 1e-30, np.nan, np.inf])
    cpu_marquardt.scale(matrix, places, scaling, diagonal)
    np.testing.assert_array_equal(diagonal, [3.0, 4.0, 4e-12, 2.0, 0.5])
    np.testing.assert_array_equal(scaling, np.float32([3, 7, 1, 0, 7, 2, 0.5]))
    cpu_marquardt.remember(matrix, places, scaling)
    np.testing.assert_array_equal(scaling, np.float32([3, 7, 4, 1e-30, 7, 2, 0.5]))


@pytest.mark.parametrize(
    ("fall", "factor"), [(1.5, 0.25), (0.9, 0.488), (0.75, 0.875), (0.5, 1.0), (0.0, 2.0)]
)
def test_nielsens_rule(fall, factor):
    """By the share that came of a fall of 1 that the model foretells."""
    found = np.zeros(gauss_newton.SIZE)
    found[search.START_LOSS], found[gauss_newton.MODEL] = 3.0, 1.0
    found[search.LOSS], found[gauss_newton.DAMPING] = 3.0 - fall, 0.5
    cpu_marquardt.relax(found, 4.0)
    assert found[gauss_newton.DAMPING] == pytest.approx(0.5 * factor, rel=1e-12)
    found[gauss_newton.GROWTH] = 2.0
    for _ in range(3):
        cpu_marquardt.grow(found)
    assert found[gauss_newton.DAMPING] == pytest.approx(0.5 * factor * 2 * 4 * 8, rel=1e-12)


@pytest.mark.parametrize(
    ("most", "damping", "scale"),
    [(3, 0.1, 1.0), (60, 0.1, 1.0), (10, 1.0, 30.0)],  # the last goes back along the line
)
def test_hessian_free_steps_are_those_of_the_formulas(most, damping, scale):
    method = optim.HessianFree(damping=damping, max_iterations=most)
    written, trainer = written_and_trained(method, y=scale * Y)
    losses = trainer.fit(X, scale * Y, epochs=4, verbose=False)["loss"]
    last, wanted = np.zeros(44), []
    for _ in range(4):
        loss, damping, last = written.free(damping, 0.95 * last, most)
        wanted.append(loss)
    np.testing.assert_allclose(losses, wanted, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 15, 16, 17, 33])
def test_the_factor_solves(n):
    """Of sizes around the vectors and the rows that are factored together."""
    rng = np.random.default_rng(n)
    a = rng.normal(size=(n, n + 2))
    whole, b = a @ a.T, rng.normal(size=n)
    matrix, diagonal, roots, x = whole + np.triu(rng.normal(size=(n, n)), 1), *np.zeros((2, n)), b
    wanted = (matrix + matrix.T) / 2
    cpu_marquardt.symmetric(matrix)
    cpu_marquardt.scale(matrix, np.arange(n), np.zeros(n), diagonal)
    damped = wanted + 100.0 * np.diag(np.diag(wanted))
    for _ in range(2):  # what it was made of is still there
        x = b.copy()
        assert cpu_marquardt.factor(matrix, diagonal, roots, 100.0)
        cpu_marquardt.solve(matrix, roots, x)
        np.testing.assert_allclose(x, np.linalg.solve(damped, b), rtol=1e-9, atol=1e-12)
    assert not cpu_marquardt.factor(matrix, diagonal, roots, -2.0)


def test_rounds_run_without_python():
    """All products of an iteration are one run, or as many as a request to stop takes to be
    looked at; so are the evaluations that follow."""
    method = optim.HessianFree(damping=1e-4, max_iterations=60)
    trainer, runs = trainer_of(method), []
    trainer.fit(X, Y, epochs=1, verbose=False)
    run = trainer.session.run

    def counted(segments, poll):
        runs.append(1)
        return run(segments, poll)

    trainer.session.run = counted
    history = trainer.fit(X, Y, epochs=3, verbose=False)
    assert len(history["loss"]) == 3
    assert len(runs) <= 3 * 3  # loss, products, losses
    small = trainer_of(optim.LevenbergMarquardt())
    small.fit(X, Y, epochs=1, verbose=False)
    runs.clear()
    run, small.session.run = small.session.run, counted
    small.fit(X, Y, epochs=1, verbose=False)
    assert len(runs) <= 3


@pytest.mark.parametrize("name", METHODS)
def test_frozen_parameters_stay(name):
    trainer = trainer_of(METHODS[name]())
    trainer.fit(X, Y, epochs=2, verbose=False)
    kept = trainer.model.state_dict()["0.weight"].copy()
    trainer.model.freeze("0.*")
    losses = trainer.fit(X, Y, epochs=3, verbose=False)["loss"]
    np.testing.assert_array_equal(trainer.model.state_dict()["0.weight"], kept)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", METHODS)
def test_what_is_cut_off_is_where_the_iteration_began(name):
    trainer = trainer_of(METHODS[name]())
    trainer.fit(X, Y, epochs=2, verbose=False)
    before, run = state(trainer), trainer.session.run
    calls = []

    def cut(segments, poll):
        run(segments[:3], poll)
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return 1

    trainer.session.run = cut
    history = trainer.fit(X, Y, epochs=1, verbose=False)
    trainer.session.run = run
    assert history.stopped == "interrupted"
    np.testing.assert_array_equal(state(trainer), before)
    assert trainer.fit(X, Y, epochs=1, verbose=False)["loss"]


@pytest.mark.parametrize(
    ("fall", "factor"),
    [(0.1, 1.5), (0.24, 1.5), (0.26, 1.0), (0.74, 1.0), (0.76, 1 / 1.5), (1.2, 1 / 1.5),
     (-0.5, 1.5), (-np.inf, 1.5)],
)  # fmt: skip
def test_levenbergs_rule(fall, factor):
    """Martens 2010, section 4.1: by how the loss falls for a fall of 1 that the model foretells."""
    found = np.zeros(gauss_newton.SIZE)
    found[search.START_LOSS], found[gauss_newton.MODEL] = 3.0, -1.0
    found[gauss_newton.LOWEST], found[gauss_newton.DAMPING] = 3.0 - fall, 0.5
    cpu_hessian_free.damp(found)
    assert found[gauss_newton.DAMPING] == pytest.approx(0.5 * factor, rel=1e-12)
