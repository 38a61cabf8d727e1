"""Products with the Hessian and the Gauss-Newton matrix, against differences and dense matrices."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from fastnn.autodiff import Products
from fastnn.errors import DataError, NonFiniteError, OptionError
from fastnn.plan.program import calls_of
from tests.graph.test_second_gradients import CELLS, NETS, Own


class First(nn.Module):
    """A net's first output."""

    def __init__(self, net):
        self.net = net

    def forward(self, x, lengths=None):
        y = self.net(x) if lengths is None else self.net(x, lengths=lengths)
        return y[0] if isinstance(y, tuple) else y


def make(name, classes=False):
    net, shape = NETS[name]
    rng = np.random.default_rng(1)
    model = First(net())
    model.to("float64")
    x = rng.normal(size=shape)
    y = model.predict(x)
    target = rng.integers(0, y.shape[-1], y.shape[:-1]) if classes else rng.normal(size=y.shape)
    return model, x, target


def vector_of(model, seed=0):
    rng = np.random.default_rng(seed)
    return {n: rng.normal(size=p.shape) for n, p in model.named_parameters().items()}


def gradient_along(model, loss, x, y, v, eps=1e-5):
    """Central differences of gradients."""
    step = fnn.compile(model, loss, dtype="float64")
    kept = {n: p.value.copy() for n, p in model.named_parameters().items()}
    found = []
    for sign in (eps, -eps):
        for n, p in model.named_parameters().items():
            p.value = kept[n] + sign * v[n]
        found.append(step.gradients(x, y))
    for n, p in model.named_parameters().items():
        p.value = kept[n]
    return {n: (found[0][n] - found[1][n]) / (2 * eps) for n in v}


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("name", NETS)
def test_hessian_products(name, loss):
    model, x, y = make(name, loss == "cross_entropy")
    v = vector_of(model)
    found = fnn.autodiff.hvp(model, loss, x, y, v)
    for n, wanted in gradient_along(model, loss, x, y, v).items():
        assert np.abs(wanted).max() > 1e-4
        np.testing.assert_allclose(found[n], wanted, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", NETS)
def test_jacobian_products(name):
    model, x, _ = make(name)
    v, eps = vector_of(model), 1e-6
    found = fnn.autodiff.jvp(model, x, v)
    kept, near = {n: p.value.copy() for n, p in model.named_parameters().items()}, []
    for sign in (eps, -eps):
        for n, p in model.named_parameters().items():
            p.value = kept[n] + sign * v[n]
        near.append(model.predict(x))
    np.testing.assert_allclose(found, (near[0] - near[1]) / (2 * eps), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("name", NETS)
def test_gauss_newton_products(name, loss):
    """J^T L J v with a dense J made of Jacobian products, and L as the loss's formula says."""
    model, x, y = make(name, loss == "cross_entropy")
    products, v = Products(model, loss), vector_of(model)
    size = sum(p.size for p in products.parameters.values())
    dense = np.stack([products.jvp(x, row).reshape(-1) for row in np.eye(size)], axis=1)
    flat = np.concatenate([v[n].reshape(-1) for n in products.parameters])
    out = model.predict(x)
    moved = (dense @ flat).reshape(out.shape)
    if loss == "mse":
        bent = 2.0 * moved / moved.size
    else:
        p = np.exp(out) / np.exp(out).sum(-1, keepdims=True)
        bent = p * (moved - (p * moved).sum(-1, keepdims=True)) / y.size
    np.testing.assert_allclose(
        products.gnvp(x, y, flat), dense.T @ bent.reshape(-1), rtol=1e-9, atol=1e-12
    )
    found = products.gnvp(x, y, v)
    np.testing.assert_array_equal(
        np.concatenate([found[n].reshape(-1) for n in products.parameters]),
        products.gnvp(x, y, flat),
    )


@pytest.mark.parametrize(("kind", "options", "lengths"), CELLS, ids=str)
def test_recurrent_nets(kind, options, lengths):
    rng = np.random.default_rng(2)
    model, x = First(getattr(nn, kind)(3, 4, **options)), rng.normal(size=(3, 4, 3))
    model.to("float64")
    given = (x, np.array([4, 1, 3])) if lengths else x
    y = rng.normal(size=(3, 4, 8 if "bidirectional" in options else 4))
    v = vector_of(model)
    found = fnn.autodiff.hvp(model, "mse", given, y, v)
    for n, wanted in gradient_along(model, "mse", given, y, v).items():
        np.testing.assert_allclose(found[n], wanted, rtol=1e-5, atol=1e-8)


def test_the_last_parameters_are_used_and_nothing_is_changed():
    model, x, y = make("mlp")
    products, v = Products(model, "mse"), vector_of(model)
    before = model.state_dict()
    first = products.hvp(x, y, v)
    for n, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[n])
    again = {n: array.copy(order="K") for n, array in first.items()}
    for n, p in products.parameters.items():  # in the order of memory, but memory of its own
        assert first[n].strides == p.value.strides
    in_order = products.hvp(x, y, again)
    for n, array in products.hvp(
        x, y, {n: array.copy(order="C") for n, array in again.items()}
    ).items():
        np.testing.assert_array_equal(array, in_order[n])
        np.testing.assert_array_equal(again[n], first[n])
    next(iter(model.parameters())).value *= 2.0
    second = products.hvp(x, y, v)
    wanted = gradient_along(model, "mse", x, y, v)
    for n, array in second.items():
        assert not np.allclose(array, first[n])
        np.testing.assert_allclose(array, wanted[n], rtol=1e-5, atol=1e-8)


def test_some_parameters_and_weights_of_samples():
    model, x, y = make("mlp")
    model.freeze("net.0.*")
    weight = np.random.default_rng(0).uniform(0.1, 2.0, len(x))
    products = Products(model, "mse")
    assert list(products.parameters) == ["net.2.weight", "net.2.bias"]
    v = vector_of(model)
    v = {n: v[n] for n in products.parameters}
    found = products.hvp(x, y, v, sample_weight=weight)
    hidden = np.tanh(x @ model.state_dict()["net.0.weight"].T + model.state_dict()["net.0.bias"])
    moved = (hidden @ v["net.2.weight"].T + v["net.2.bias"]) * weight[:, None] / weight.sum()
    np.testing.assert_allclose(found["net.2.bias"], moved.sum(0), rtol=1e-12)
    np.testing.assert_allclose(found["net.2.weight"], moved.T @ hidden, rtol=1e-12)


def test_same_bits_on_any_number_of_workers():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(37, 5, 3)).astype(np.float32), rng.normal(size=(37, 5, 4))
    found = []
    for workers in (1, 2, 3):
        model = First(Own())
        products = Products(model, "mse", workers=workers)
        v = np.linspace(-1.0, 1.0, sum(p.size for p in model.parameters()))
        found.append((products.hvp(x, y, v), products.gnvp(x, y, v)))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_errors():
    model, x, y = make("mlp")
    products, v = Products(model, "mse"), vector_of(model)
    with pytest.raises(DataError, match=r"shape \(32,\), got shape \(3,\)"):
        products.hvp(x, y, np.ones(3))
    with pytest.raises(DataError, match=r"expected an array for each of \['net.0.weight'"):
        products.hvp(x, y, {"net.0.weight": v["net.0.weight"]})
    with pytest.raises(DataError, match=r"expected shape \(5, 3\) for 'net.0.weight'"):
        products.hvp(x, y, {**v, "net.0.weight": np.ones((3, 5))})
    with pytest.raises(NonFiniteError, match="product"):
        products.hvp(x, np.full_like(y, np.inf), v)
    with pytest.raises(OptionError, match=r"expected an nn.Module"):
        Products(np.ones(3), "mse")


@pytest.mark.parametrize("inputs", [1, 63, 64, 65, 127, 130])
def test_flat_vectors_are_dicts_one_after_the_other(inputs):
    """Also where matrices lie transposed and are copied a few columns at a time."""
    net = nn.Sequential(nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, 2, bias=False))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, inputs)), rng.normal(size=(7, 2))
    products = Products(net, "mse", dtype="float64")
    products.hvp(x, y, np.zeros(sum(p.size for p in products.parameters.values())))
    v = vector_of(net)
    flat = np.concatenate([part.reshape(-1) for part in v.values()])
    for function in (products.hvp, products.gnvp):
        by_name = function(x, y, v)
        wanted = np.concatenate([by_name[n].reshape(-1) for n in v])
        np.testing.assert_array_equal(function(x, y, flat), wanted)
        np.testing.assert_array_equal(function(x, y, np.repeat(flat, 2)[::2]), wanted)
    net.freeze("0.*")
    alone = products.hvp(x, y, {"2.weight": v["2.weight"]})
    assert alone.keys() == {"2.weight"}
    assert products.hvp(x, y, flat[-10:]).shape == (10,)


def test_products_are_computed_where_they_are_read():
    """A copy of each matrix costs as much as a tenth of a product."""
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    products = Products(net, "mse", dtype="float64")
    made = []
    build = products._build
    products._build = lambda *given: made.append(build(*given)) or made[-1]
    x, y = np.ones((3, 6)), np.ones((3, 2))
    products.hvp(x, y, np.ones(47))
    writing = {
        call.kernel
        for call in calls_of(made[0].built.program.phases)
        for _, parameter, operand in call.arrays()
        if operand.segment == "slots/product" and operand.dims == (6, 5) and parameter.writes
    }
    assert writing == {"linear_backward_weight"}
