"""Layers adapted to training data, against NumPy in float64 and scikit-learn."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, ops
from fastnn.errors import DataError, OptionError, ShapeError
from fastnn.nn import statistics
from fastnn.testing import gradcheck

RNG = np.random.default_rng(2)
#: of different means and sizes, correlated, the last feature constant
MIX = np.array([[1.0, 0.5, 0, 0, 0], [0, 2, 1, 0, 0], [0, 0, 0.1, 3, 0], [0, 0, 0, 1, 0]])
X = RNG.normal(size=(203, 4)) @ MIX + [100.0, -3.0, 0.0, 1.0, 7.0]
#: in which the last feature has another value
OTHER = RNG.normal(size=(31, 4)) @ MIX + [100.0, -3.0, 0.0, 1.0, 8.0]

LAYERS: dict[str, Callable[[int], Any]] = {
    "Standardize": lambda c: nn.Standardize(c),
    "Standardize without center": lambda c: nn.Standardize(c, center=False),
    "Standardize without scale": lambda c: nn.Standardize(c, scale=False),
    "MinMaxScale": lambda c: nn.MinMaxScale(c),
    "MinMaxScale in a range": lambda c: nn.MinMaxScale(c, -1.0, 2.0),
    "RobustScale": lambda c: nn.RobustScale(c),
    "RobustScale with quantiles": lambda c: nn.RobustScale(c, 0.1, 0.8),
    "Whiten": lambda c: nn.Whiten(c),
    "Whiten with components": lambda c: nn.Whiten(c, components=2),
    "Whiten zca": lambda c: nn.Whiten(c, "zca"),
    "Whiten zca with eps": lambda c: nn.Whiten(c, "zca", eps=0.1),
}


def oracle(name: str, x: np.ndarray, other: np.ndarray) -> np.ndarray:
    """What a layer adapted to `x` makes of `other`."""
    if name.startswith("Standardize"):
        mean = 0.0 if "without center" in name else x.mean(0)
        std = x.std(0)
        return (other - mean) / (1.0 if "without scale" in name else np.where(std > 1e-9, std, 1.0))
    if name.startswith("MinMax"):
        low, high = (-1.0, 2.0) if "range" in name else (0.0, 1.0)
        extent = np.ptp(x, axis=0)
        return low + (other - x.min(0)) / np.where(extent > 0, extent, 1.0) * (high - low)
    if name.startswith("Robust"):
        shares = (10, 50, 80) if "quantiles" in name else (25, 50, 75)
        low, middle, high = np.percentile(x, shares, axis=0)
        return (other - middle) / np.where(high > low, high - low, 1.0)
    u, s, _ = np.linalg.svd(np.cov(x.T))
    keep = s > 1e-9 * s[0]
    factors = np.where(keep, (np.where(keep, s, 1) + (0.1 if "eps" in name else 0)) ** -0.5, 0)
    if "zca" in name:
        return (other - x.mean(0)) @ (u * factors) @ u.T
    count = 2 if "components" in name else len(s)
    signs = np.sign(u[np.abs(u).argmax(0), np.arange(len(s))])
    return ((other - x.mean(0)) @ (u * signs * factors))[:, :count]


def close(got: np.ndarray, want: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


# -------------------------------------------------------------------- what they compute


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 3e-4)])
@pytest.mark.parametrize("name", LAYERS)
def test_against_numpy(name: str, dtype: str, tolerance: float) -> None:
    layer = LAYERS[name](5).to(dtype)
    assert layer.adapt(X) is layer
    assert layer.samples.value == [203]
    for data in (X, OTHER):
        close(layer.predict(data.astype(dtype)), oracle(name, X, data), tolerance)


@pytest.mark.parametrize("name", LAYERS)
def test_inverse(name: str) -> None:
    if "components" in name:
        return  # what was left out cannot come back; the others keep all that varies
    layer = LAYERS[name](5).to("float64").adapt(X)
    close(layer.inverse(layer.predict(X)), X, 1e-6)


def test_inverse_of_some_components() -> None:
    layer = nn.Whiten(5, components=2).to("float64").adapt(X)
    y = layer.predict(OTHER)
    close(layer.predict(layer.inverse(y)), y, 1e-8)


@pytest.mark.parametrize("name", LAYERS)
def test_chunks_are_as_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = LAYERS[name](5).to("float64").adapt(X)
    monkeypatch.setattr(statistics, "BLOCK", 7 * 5)
    cuts = np.split(X, [1, 2, 60, 61, 150])
    for given in (X, cuts, iter(cuts), (chunk for chunk in cuts)):
        layer = LAYERS[name](5).to("float64").adapt(given)
        assert layer.samples.value == [203]
        close(layer.predict(OTHER), whole.predict(OTHER), 1e-7)


def test_large_means_lose_nothing() -> None:
    """Sums of squares would have no digit left."""
    x = RNG.normal(size=(1000, 2)) * [1e-3, 1.0] + 1e7
    layer = nn.Standardize(2).to("float64").adapt(np.split(x, 10))
    close(np.array(layer.std), x.std(0), 1e-6)


@pytest.mark.parametrize("constant", [0.1, -1e6 / 3, 1e-9])
def test_rounding_of_constant_features_is_no_variance(constant: float) -> None:
    """The mean of equal numbers is not always that number."""
    x = np.full((21, 3), constant)
    chunks = [x[:7], x[7:]]
    assert (np.array(nn.Standardize(3).adapt(chunks).std) == 1).all()
    for method in ("pca", "zca"):
        assert not np.array(nn.Whiten(3, method).adapt(chunks).weight).any()
    x[:, 1] = np.arange(21)
    weight = np.array(nn.Whiten(3, "zca").adapt(x).weight)
    np.testing.assert_allclose(weight, np.diag([0.0, 1 / x[:, 1].std(ddof=1), 0.0]), atol=1e-6)


def test_features_of_several_axes() -> None:
    x = X[:, :4].reshape(-1, 2, 2)
    layer = nn.Standardize((2, 2)).to("float64").adapt(x)
    assert layer.mean.shape == (2, 2)
    close(layer.predict(x).reshape(-1, 4), oracle("Standardize", X[:, :4], X[:, :4]), 1e-9)


@pytest.mark.parametrize("name", ["Standardize", "MinMaxScale", "RobustScale", "Whiten zca"])
def test_padding_does_not_count(name: str) -> None:
    x = X[:200].reshape(40, 5, 5)
    lengths = RNG.integers(0, 6, 40)
    within = np.arange(5) < lengths[:, None]
    padded = np.where(within[..., None], x, 1e6)
    rows = x[within]
    for found in (
        LAYERS[name](5).to("float64").adapt(padded, lengths=lengths),
        LAYERS[name](5).to("float64").adapt(padded, mask=within),
        LAYERS[name](5).to("float64").adapt([(padded[:9], lengths[:9]), (padded[9:], lengths[9:])]),
    ):
        assert found.samples.value == [len(rows)]
        y = found.predict(padded, lengths)
        close(y[within], oracle(name, rows, rows), 1e-8)
        assert (y[~within] == 0).all()


def test_clipping() -> None:
    layer = nn.MinMaxScale(1, -1.0, 1.0, clip=True).adapt(np.array([[0.0], [2.0]]))
    close(layer.predict(np.array([[-5.0], [1.5], [9.0]])), np.array([[-1.0], [0.5], [1.0]]), 1e-7)


def test_small_integers() -> None:
    """Images as they come: bytes."""
    x = RNG.integers(0, 256, (50, 3, 3), dtype=np.uint8)
    layer = nn.MinMaxScale((3, 3)).adapt(x)
    want = (x - x.min(0).astype(float)) / np.ptp(x.astype(float), axis=0)
    close(layer.predict(x), want, 1e-6)


@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_unit_norm(norm: str) -> None:
    x = np.concatenate([X, np.zeros((1, 5)), np.full((1, 5), 1e-30), np.full((1, 5), 1e30)])
    size = {"l1": lambda v: np.abs(v).sum(1), "l2": lambda v: np.sqrt((v * v).sum(1)),
            "max": lambda v: np.abs(v).max(1)}[norm](x)  # fmt: skip
    want = x / np.where(size > 0, size, 1)[:, None]
    close(nn.UnitNorm(norm).predict(x.astype(np.float32)), want, 1e-5)


@pytest.mark.parametrize("name", [*LAYERS, "l1", "l2", "max"])
def test_gradients(name: str) -> None:
    """With respect to the input."""
    layer = nn.UnitNorm(name) if name not in LAYERS else LAYERS[name](5).adapt(X)
    model = nn.Sequential(nn.Linear(3, 5), layer)
    assert gradcheck(model, RNG.normal(size=(4, 3)))


# -------------------------------------------------------------------- in a model


class Tagger(nn.Module):
    def __init__(self) -> None:
        self.norm, self.lstm, self.out = nn.Standardize(5), nn.LSTM(5, 4), nn.Linear(4, 2)

    def forward(self, x: Any, lengths: Any) -> Any:
        return self.out(ops.max(self.lstm(self.norm(x, lengths), lengths=lengths)[0], axis=1))


def model() -> nn.Sequential:
    return nn.Sequential(nn.Standardize(5), nn.Linear(5, 3))


def test_training_leaves_the_statistics() -> None:
    net = model()
    net[0].adapt(X)
    before = {n: a for n, a in net.state_dict().items() if n.startswith("0.")}
    assert set(before) == {"0.mean", "0.std", "0.samples"}
    trainer = fnn.Trainer(net, "mse")
    trainer.fit(X, X[:, :3], epochs=2, verbose=False)
    assert set(trainer.trained) == {"1.weight", "1.bias"}
    for name, array in before.items():
        np.testing.assert_array_equal(net.state_dict()[name], array)
    want = (X - X.mean(0)) / np.where(X.std(0) > 1e-9, X.std(0), 1)
    y = want @ net.state_dict()["1.weight"].T + net.state_dict()["1.bias"]
    close(net.predict(X), y, 2e-4)
    assert trainer.evaluate(X, X[:, :3])["loss"] == pytest.approx(
        np.mean((y - X[:, :3]) ** 2), rel=1e-3
    )


def test_of_sequences_in_a_model() -> None:
    x, lengths = X[:200].reshape(40, 5, 5), RNG.integers(1, 6, 40)
    net = Tagger()
    net.norm.adapt(x, lengths=lengths)
    trainer = fnn.Trainer(net, "cross_entropy")
    history = trainer.fit((x, lengths), np.arange(40) % 2, epochs=2, verbose=False)
    assert np.isfinite(history["loss"]).all()


def test_files_hold_the_statistics(tmp_path: Path) -> None:
    net = model()
    net[0].adapt(X)
    net.save(tmp_path / "model.safetensors")
    trainer = fnn.Trainer(net, "mse")
    trainer.fit(X, X[:, :3], epochs=1, verbose=False)
    trainer.save(tmp_path / "run.safetensors")
    trainer.fit(X, X[:, :3], epochs=1, verbose=False)

    loaded = model()
    loaded.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded[0].predict(X), net[0].predict(X))
    resumed = fnn.Trainer(model(), "mse")  # which nobody has adapted
    resumed.fit(X, X[:, :3], epochs=2, verbose=False, resume=tmp_path / "run.safetensors")
    np.testing.assert_array_equal(resumed.predict(X), net.predict(X))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(copied: Any) -> None:
    for net in (model(), model()):
        with pytest.raises(OptionError, match="call its adapt"):
            copied(net).predict(X)
        net[0].adapt(X)
        np.testing.assert_array_equal(copied(net).predict(X), net.predict(X))


def test_a_layer_that_was_not_adapted_is_refused(tmp_path: Path) -> None:
    x, y = X.astype(np.float32), X[:, :3].astype(np.float32)
    net = model()
    uses: list[Callable[[], Any]] = [
        lambda: net.predict(x), lambda: fnn.Trainer(net, "mse").fit(x, y, verbose=False),
        lambda: fnn.Trainer(net, "mse").fit([(x, y)], verbose=False),
        lambda: fnn.Trainer(net, "mse").evaluate(x, y), lambda: fnn.compile(net, "mse")(x, y),
        lambda: fnn.autodiff.hvp(net, "mse", x, y, np.ones(18)),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(OptionError, match=r"layer '0': Standardize: .*call its adapt\(x\)"):
            use()
    with pytest.raises(OptionError, match="adapt"):
        net[0].inverse(x)
    net.summary(print_fn=lambda text: None)  # needs no numbers
    net.save(tmp_path / "model.safetensors")
    with pytest.raises(OptionError, match="adapt"):
        model().load(tmp_path / "model.safetensors").predict(x)
    net[0].adapt(x)
    for use in uses:
        use()


# -------------------------------------------------------------------- what is refused


def bad_chunks() -> Iterator[np.ndarray]:
    yield X
    yield np.zeros((3, 4))


@pytest.mark.parametrize(
    ("adapt", "error", "text"),
    [
        (lambda: nn.Standardize(5).adapt(X[:, :3]), ShapeError, r"\(samples, ..., 5\), got"),
        (lambda: nn.Standardize(5).adapt(X[0]), ShapeError, r"\(samples, ..., 5\), got"),
        (lambda: nn.Standardize(5).adapt(bad_chunks()), ShapeError, r"got \(3, 4\)"),
        (lambda: nn.Standardize(5).adapt(X[:1]), DataError, "at least 2 samples, got 1"),
        (lambda: nn.Standardize(5).adapt([]), DataError, "at least 2 samples, got 0"),
        (lambda: nn.MinMaxScale(5).adapt(X[:0]), DataError, "at least 1 samples, got 0"),
        (lambda: nn.Whiten(5).adapt(X[:5]), DataError, "at least 6 samples, got 5"),
        (lambda: nn.Whiten(5, "zca", eps=0.1).adapt(X[:1]), DataError, "at least 2 samples"),
        (lambda: nn.RobustScale(1).adapt(np.array([[1.0], [np.nan]])), DataError, "nan in feature"),
        (lambda: nn.Whiten(2).adapt(np.array([[1.0, np.inf]] * 3)), DataError, "inf in feature 1"),
        (lambda: nn.Standardize(5).adapt(X * 1e200), DataError, "squares fit into float64"),
        (lambda: nn.Whiten(5, "zca").adapt(X * 1e200), DataError, "squares fit into float64"),
        (lambda: nn.Standardize(5).adapt(X, lengths=[3]), ShapeError, "lengths"),
        (lambda: nn.Standardize(5).adapt(X[None], lengths=[204]), DataError, "within 0..203"),
        (lambda: nn.Standardize(5).adapt(X[None], lengths=[2.5]), ShapeError, "whole numbers"),
        (lambda: nn.Standardize(5).adapt(X, mask=np.ones(3)), ShapeError, "mask of booleans"),
        (lambda: nn.Standardize(5).adapt(X[None], [3], np.ones((1, 203), bool)), DataError, "both"),
        (lambda: nn.Standardize(5).adapt([X], lengths=[3]), DataError, "one array alone"),
        (lambda: nn.Standardize(5).adapt([(X, None, None)]), DataError, "tuple of 3"),
        (lambda: nn.Standardize(5).adapt("abc"), DataError, "adapt"),
        (lambda: nn.Standardize(0), ShapeError, ">= 1"),
        (lambda: nn.MinMaxScale(3, 1.0, 1.0), OptionError, "low < high"),
        (lambda: nn.RobustScale(3, 0.5, 0.5), OptionError, "0 <= lower < upper <= 1"),
        (lambda: nn.Whiten(3, "lda"), OptionError, "'pca' or 'zca'"),
        (lambda: nn.Whiten(3, components=4), OptionError, "at most 3"),
        (lambda: nn.Whiten(3, "zca", components=2), OptionError, "components to be None"),
        (lambda: nn.Whiten(3, eps=-1.0), OptionError, "eps >= 0"),
        (lambda: nn.UnitNorm("l3"), OptionError, "'l1', 'l2' or 'max'"),
    ],
)  # fmt: skip
def test_refused(adapt: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        adapt()


def test_an_adaptation_that_fails_changes_nothing() -> None:
    layer = nn.Standardize(5).adapt(X)
    before = layer.state_dict()
    with pytest.raises(ShapeError):
        layer.adapt(bad_chunks())
    for name, array in layer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


# -------------------------------------------------------------------- scikit-learn


@pytest.mark.peers
@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("Standardize", "StandardScaler()"),
        ("Standardize without center", "StandardScaler(with_mean=False)"),
        ("Standardize without scale", "StandardScaler(with_std=False)"),
        ("MinMaxScale", "MinMaxScaler()"),
        ("MinMaxScale in a range", "MinMaxScaler((-1, 2))"),
        ("RobustScale", "RobustScaler()"),
        ("RobustScale with quantiles", "RobustScaler(quantile_range=(10, 80))"),
        ("Whiten with components", "PCA(2, whiten=True, svd_solver='full')"),
    ],
)
def test_against_scikit_learn(name: str, peer: str) -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    decomposition = pytest.importorskip("sklearn.decomposition")
    made = eval(peer, {**vars(preprocessing), "PCA": decomposition.PCA})
    want = made.fit(X).transform(OTHER)
    close(LAYERS[name](5).to("float64").adapt(X).predict(OTHER), want, 1e-9)


@pytest.mark.peers
@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_unit_norm_against_scikit_learn(norm: str) -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    want = preprocessing.Normalizer(norm).transform(X)
    close(nn.UnitNorm(norm).predict(X.astype(np.float32)), want, 1e-6)
