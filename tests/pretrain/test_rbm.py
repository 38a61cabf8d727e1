"""Restricted Boltzmann machines against sums over all states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastnn import nn, optim
from fastnn.errors import DataError, FastnnError, OptionError, ShapeError
from fastnn.pretrain import RBM
from fastnn.pretrain.contrastive import ContrastiveDivergence
from tests import naive_rbm as naive
from tests.naive_rbm import Machine

RNG = np.random.default_rng(5)


def machine(
    visible: int = 4, hidden: int = 3, units: str = "bernoulli", scale: float = 1.0
) -> Machine:
    rng = np.random.default_rng(visible + 10 * hidden)
    normal = [rng.normal(size=shape) * scale for shape in ((hidden, visible), visible, hidden)]
    return Machine(*normal, units)


def rbm_of(m: Machine) -> RBM:
    rbm = RBM(len(m.b), len(m.c), m.units)
    rbm.to("float64")
    rbm.weight, rbm.visible_bias, rbm.hidden_bias = m.w, m.b, m.c
    return rbm


@pytest.fixture(scope="module")
def blocks() -> np.ndarray:
    """Rows in which one of four blocks of four units is on, with noise."""
    rng = np.random.default_rng(0)
    x = np.kron(np.eye(4)[rng.integers(0, 4, 203)], np.ones(4))
    return np.abs(x - (rng.random(x.shape) < 0.02)).astype(np.float32)


# -------------------------------------------------------------------- energies


@pytest.mark.parametrize("units", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("sizes", [(1, 1), (4, 3), (3, 5)])
def test_free_energy(units: str, sizes: tuple[int, int]) -> None:
    m = machine(*sizes, units)
    v = RNG.normal(size=(7, sizes[0])) if units == "gaussian" else naive.states(sizes[0])
    np.testing.assert_allclose(rbm_of(m).free_energy(v), naive.free_energy(m, v), rtol=1e-12)


@pytest.mark.parametrize("units", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("sizes", [(1, 1), (4, 3), (3, 5)])
def test_exact_partition(units: str, sizes: tuple[int, int]) -> None:
    m = machine(*sizes, units)
    assert rbm_of(m).log_partition() == pytest.approx(naive.log_partition(m), rel=1e-12)


def test_log_likelihood_sums_to_one() -> None:
    found = rbm_of(machine()).log_likelihood(naive.states(4))
    assert np.exp(found).sum() == pytest.approx(1.0, rel=1e-12)
    np.testing.assert_allclose(np.exp(found), naive.probabilities(machine()), rtol=1e-12)


@pytest.mark.parametrize("units", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("with_base", [False, True])
def test_annealed_importance_sampling(units: str, with_base: bool) -> None:
    m = machine(12, 8, units, 0.7 if units == "bernoulli" else 0.3)
    rbm = rbm_of(m)
    base = rbm.sample(200, 20) if with_base and units == "bernoulli" else None
    found = rbm.estimate_log_partition(runs=100, temperatures=1000, base=base, seed=3)
    exact = rbm.log_partition()
    assert abs(found.log_z - exact) < 0.05
    assert found.low <= exact <= found.high
    assert found.high - found.low < 0.2


def test_annealing_with_temperatures_of_ones_own() -> None:
    rbm = rbm_of(machine())
    found = rbm.estimate_log_partition(200, np.linspace(0, 1, 300) ** 2, seed=1)
    assert abs(found.log_z - rbm.log_partition()) < 0.05
    for wrong in ([0.0, 0.5], [0.1, 1.0], [0.0, 0.5, 0.5, 1.0], 1):
        with pytest.raises(OptionError, match="temperatures"):
            rbm.estimate_log_partition(10, wrong)


def test_pseudo_likelihood() -> None:
    """The mean over seeds is the sum over units of log p(v_i | others)."""
    m = machine()
    v = naive.states(4)
    p = dict(zip(map(tuple, v), naive.probabilities(m), strict=True))
    want = []
    for row in v:
        total = 0.0
        for i in range(4):
            other = row.copy()
            other[i] = 1 - other[i]
            total += np.log(p[tuple(row)] / (p[tuple(row)] + p[tuple(other)]))
        want.append(total)
    found = np.mean([rbm_of(m).pseudo_log_likelihood(v, seed=s) for s in range(300)], axis=0)
    np.testing.assert_allclose(found, want, rtol=0.15)


# -------------------------------------------------------------------- gradients


def gradients(m: Machine, data: np.ndarray, rows: int, steps: int = 1, **options: Any) -> Any:
    """The gradients of the last of several steps, in which no parameter changes."""
    rbm = rbm_of(m)
    counts = np.round(data * rows).astype(int)
    x = np.repeat(naive.states(len(m.b)), counts, axis=0)
    trainer = rbm.trainer(
        optimizer=optim.SGD(lr=0.0), keep_gradients=True, dtype="float64", **options
    )
    trainer.fit(x, epochs=steps, batch_size=len(x), verbose=False)
    return {n: np.array(getattr(rbm, n).grad) for n in ("weight", "visible_bias", "hidden_bias")}


SHARES = np.array([5, 0, 1, 0, 2, 0, 0, 1, 0, 0, 4, 0, 0, 1, 0, 2]) / 16


@pytest.mark.parametrize("k", [1, 2, 3])
def test_contrastive_divergence_on_average(k: int) -> None:
    m = machine(scale=2.0)
    found, want = gradients(m, SHARES, 1 << 15, k=k), naive.contrast(m, SHARES, k)
    for name, gradient in want.items():
        np.testing.assert_allclose(found[name], gradient, atol=0.015, err_msg=name)
    other = naive.contrast(m, SHARES, 2 if k == 1 else 1)  # which the test must be able to tell
    assert max(np.abs(other[n] - want[n]).max() for n in want) > 0.03


def test_means_of_visible_units_in_the_chain() -> None:
    m = machine(scale=1.5)
    found = gradients(m, SHARES, 1 << 15, k=1, sample_visible=False)
    want, other = naive.contrast(m, SHARES, 1, means=True), naive.contrast(m, SHARES, 1)
    for name, gradient in want.items():
        np.testing.assert_allclose(found[name], gradient, atol=0.015, err_msg=name)
    assert max(np.abs(other[n] - want[n]).max() for n in want) > 0.03


def test_persistent_chains_reach_the_exact_gradient() -> None:
    m = machine(scale=1.0)
    found = gradients(m, SHARES, 1 << 10, steps=40, chains=1 << 15)
    want, other = naive.contrast(m, SHARES, None), naive.contrast(m, SHARES, 1)
    for name, gradient in want.items():
        np.testing.assert_allclose(found[name], gradient, atol=0.015, err_msg=name)
    assert max(np.abs(other[n] - want[n]).max() for n in want) > 0.03


def test_gaussian_gradient() -> None:
    """Of persistent chains: their visible units have the mean and covariance of the mixture."""
    m = machine(3, 2, "gaussian", 0.7)
    rbm = rbm_of(m)
    x = np.random.default_rng(0).normal(size=(64, 3))
    trainer = rbm.trainer(
        optimizer=optim.SGD(lr=0.0), keep_gradients=True, dtype="float64", chains=1 << 15
    )
    trainer.fit(x, epochs=40, batch_size=64, verbose=False)
    h = naive.states(2)
    shift = h @ m.w
    share = np.exp(h @ m.c + shift @ m.b + 0.5 * (shift**2).sum(1))
    share /= share.sum()
    positive = naive.sigmoid(x @ m.w.T + m.c)
    want = {
        "visible_bias": share @ shift - np.mean(x - m.b, axis=0),
        "hidden_bias": share @ h - positive.mean(0),
        "weight": (share[:, None] * h).T @ (m.b + shift) - positive.T @ x / 64,
    }
    for name, gradient in want.items():
        np.testing.assert_allclose(getattr(rbm, name).grad, gradient, atol=0.04, err_msg=name)


def test_sparsity_penalty() -> None:
    """The loss and its gradient along a direction, less those without the penalty."""
    m, x = machine(), naive.states(4)

    def penalty(c: np.ndarray) -> float:
        q = naive.sigmoid(x @ m.w.T + c).mean(0)
        return float(0.3 * np.sum(-0.1 * np.log(q) - 0.9 * np.log(1 - q)))

    found = {}
    for cost in (0.0, 0.3):
        rbm = rbm_of(m)
        trainer = rbm.trainer(
            sparsity=0.1, sparsity_cost=cost, optimizer=optim.SGD(lr=0.0), keep_gradients=True,
            dtype="float64",
        )  # fmt: skip
        history = trainer.fit(x, batch_size=16, verbose=False)
        found[cost] = history["loss"][0], np.array(rbm.hidden_bias.grad)
    assert found[0.3][0] - found[0.0][0] == pytest.approx(penalty(m.c), rel=1e-10)
    for j, direction in enumerate(np.eye(3) * 1e-5):
        slope = (penalty(m.c + direction) - penalty(m.c - direction)) / 2e-5
        assert found[0.3][1][j] - found[0.0][1][j] == pytest.approx(slope, rel=1e-6)


def test_decay_is_of_weights_alone() -> None:
    m, after = machine(), {}
    for decay in (0.0, 0.25):
        rbm = rbm_of(m)
        trainer = rbm.trainer(lr=0.5, momentum=0.0, weight_decay=decay, dtype="float64")
        trainer.fit(naive.states(4), batch_size=16, verbose=False)
        after[decay] = [np.array(p) for p in (rbm.weight, rbm.visible_bias, rbm.hidden_bias)]
    np.testing.assert_allclose(after[0.25][0] - after[0.0][0], -0.5 * 0.25 * m.w, atol=1e-12)
    np.testing.assert_array_equal(after[0.25][1], after[0.0][1])
    np.testing.assert_array_equal(after[0.25][2], after[0.0][2])


# -------------------------------------------------------------------- sampling


def test_samples_have_the_models_frequencies() -> None:
    m = machine()
    v = rbm_of(m).sample(1 << 15, steps=30, seed=2)
    codes = v.astype(int) @ (1 << np.arange(4)[::-1])
    shares = np.bincount(codes, minlength=16) / len(v)
    np.testing.assert_allclose(shares, naive.probabilities(m), atol=0.012)


def test_gaussian_samples() -> None:
    m = machine(3, 2, "gaussian", 0.8)
    v = rbm_of(m).sample(1 << 15, steps=30, seed=2)
    h = naive.states(2)
    shift = h @ m.w
    share = np.exp(h @ m.c + shift @ m.b + 0.5 * (shift**2).sum(1))
    share /= share.sum()
    mean = share @ (m.b + shift)
    apart = m.b + shift - mean
    np.testing.assert_allclose(v.mean(0), mean, atol=0.05)
    np.testing.assert_allclose(
        np.cov(v.T), np.eye(3) + (share[:, None] * apart).T @ apart, atol=0.08
    )


def test_samples_follow_seed_and_start(blocks: np.ndarray) -> None:
    rbm = rbm_of(machine(16, 5))
    first, again = rbm.sample(9, 3, seed=1), rbm.sample(9, 3, seed=1)
    np.testing.assert_array_equal(first, again)
    assert (first != rbm.sample(9, 3, seed=2)).any()
    np.testing.assert_array_equal(rbm.sample(5, 0, start=blocks[:5]), blocks[:5])
    with pytest.raises(ShapeError, match="pass count=5"):
        rbm.sample(3, start=blocks[:5])


# -------------------------------------------------------------------- training


def test_it_learns(blocks: np.ndarray) -> None:
    rbm = RBM(16, 8)
    history = rbm.fit(
        blocks[:160], epochs=150, batch_size=20, lr=0.2, verbose=False, validation=blocks[160:]
    )
    assert history["reconstruction_error"][-1] < 0.35 * history["reconstruction_error"][0]
    assert {"val_free_energy", "val_reconstruction_error"} <= set(history)
    assert rbm.log_likelihood(blocks).mean() > -6  # chance: -11.1
    gap = rbm.free_energy_gap(blocks[:160], blocks[160:])
    assert abs(gap) < 1.5
    assert gap == pytest.approx(
        history["val_free_energy"][-1] - rbm.free_energy(blocks[:160]).mean(), abs=1e-4
    )
    assert np.square(rbm.reconstruct(blocks) - blocks).mean() < 0.1


OPTIONS: list[dict[str, Any]] = [
    {}, {"k": 3}, {"chains": 13}, {"sample_visible": False}, {"sparsity": 0.1},
    {"units": "gaussian"},
]  # fmt: skip


def run(blocks: np.ndarray, *, workers: int = 1, units: str = "bernoulli", **options: Any) -> Any:
    rbm = RBM(16, 33, units)
    trainer = rbm.trainer(workers=workers, seed=4, lr=0.01, **options)
    history = trainer.fit(blocks, epochs=2, batch_size=25, verbose=False)  # the last batch has 3
    return {n: a.tobytes() for n, a in trainer.get_parameters().items()}, dict(history)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_bits_do_not_depend_on_workers(blocks: np.ndarray, options: dict[str, Any]) -> None:
    one = run(blocks, **options)
    assert np.isfinite(one[1]["loss"]).all()
    for workers in (2, 3, 4):
        assert run(blocks, workers=workers, **options) == one


@pytest.mark.parametrize("chains", [0, 13])
def test_resuming(blocks: np.ndarray, chains: int, tmp_path: Path) -> None:
    options = dict(chains=chains, seed=2, momentum=0.9)
    whole = RBM(16, 6).trainer(**options)
    whole.fit(blocks, epochs=4, batch_size=25, verbose=False)
    first = RBM(16, 6).trainer(**options)
    first.fit(blocks, epochs=2, batch_size=25, verbose=False)
    first.save(tmp_path / "run.safetensors")
    second = RBM(16, 6).trainer(**options)
    second.fit(blocks, epochs=4, batch_size=25, verbose=False, resume=tmp_path / "run.safetensors")
    for name, array in whole.get_parameters().items():
        np.testing.assert_array_equal(array, second.get_parameters()[name], err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_saving(blocks: np.ndarray, dtype: str, tmp_path: Path) -> None:
    rbm = RBM(16, 6)
    rbm.fit(blocks, epochs=1, dtype=dtype, verbose=False)
    rbm.save(tmp_path / "rbm.safetensors")
    other = RBM(16, 6).load(tmp_path / "rbm.safetensors")
    assert rbm.transform(blocks).dtype == dtype
    np.testing.assert_array_equal(rbm.transform(blocks), other.transform(blocks))
    np.testing.assert_array_equal(rbm.free_energy(blocks), other.free_energy(blocks))


def test_methods_follow_changes(blocks: np.ndarray) -> None:
    """What was compiled for one element type is not used for another."""
    rbm = rbm_of(machine(16, 5))
    rbm.to("float32")
    before = rbm.free_energy(blocks)
    rbm.to("float64")
    after = rbm.free_energy(blocks)
    assert (before.dtype, after.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(before, after, rtol=1e-4)


def test_as_a_layer(blocks: np.ndarray) -> None:
    rbm = RBM(16, 6)
    net = nn.Sequential(rbm, nn.Linear(6, 2))
    assert net.predict(blocks).shape == (203, 2)
    np.testing.assert_array_equal(nn.Sequential(rbm).predict(blocks), rbm.transform(blocks))


# -------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: RBM(0, 3), "visible"),
        (lambda: RBM(3, 2.5), "hidden"),  # type: ignore[arg-type]
        (lambda: RBM(3, 2, "poisson"), "'bernoulli', 'gaussian'"),
        (lambda: RBM(3, 2).trainer(k=0), "k to be a whole number >= 1"),
        (lambda: RBM(3, 2).trainer(chains=-1), "chains"),
        (lambda: RBM(3, 2).trainer(chains=4, sample_visible=False), "sample_visible=True"),
        (lambda: RBM(3, 2).trainer(sparsity=1.0), r"sparsity in \(0, 1\)"),
        (lambda: RBM(3, 2).trainer(sparsity=0.1, sparsity_cost=-1), "sparsity_cost >= 0"),
        (lambda: RBM(3, 2).trainer(momentum=1.0), "momentum"),
        (lambda: RBM(3, 2).trainer(lr=-0.1), "lr"),
        (lambda: ContrastiveDivergence(nn.Linear(3, 2)), "RBM"),  # type: ignore[arg-type]
        (lambda: RBM(3, 2, "gaussian").pseudo_log_likelihood(np.zeros((2, 3))), "Bernoulli"),
        (lambda: RBM(30, 26).log_partition(), r"at most 25 .*estimate_log_partition"),
        (lambda: RBM(3, 2, "gaussian").estimate_log_partition(base=np.zeros((2, 3))), "base=None"),
        (lambda: RBM(3, 2).sample(0), "count"),
    ],
)  # fmt: skip
def test_wrong_options(make: Any, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        make()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (np.full((4, 3), 255, np.uint8), "divide pixels by 255"),
        (np.full((4, 3), -0.1), "within 0..1"),
        ([[0.0, 1.0, 2.0]], "within 0..1"),
        (memoryview(np.full((4, 3), 255, np.uint8)), "divide pixels by 255"),
        (np.full((4, 3), np.nan), "NaN|finite"),
        (np.zeros((4, 5)), "expected input of shape"),
        (np.zeros((0, 3)), "sample"),
    ],
)
def test_wrong_data(data: np.ndarray, text: str) -> None:
    with pytest.raises(FastnnError, match=text) as caught:
        RBM(3, 2).fit(data, verbose=False)
    assert isinstance(caught.value, (DataError, ShapeError))
