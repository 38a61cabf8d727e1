"""Functions of symbolic values at their edges: NaN, ties, masks, sizes, and layers made of them."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import nn, ops
from fastnn.errors import FastnnError, ShapeError
from fastnn.graph.gradient import differentiate
from fastnn.graph.graph import Graph
from fastnn.testing import gradcheck
from tests.graph.test_symbolic import RNG, Function, X, compute
from tests.naive import logsumexp

# ---------------------------------------------------------------- what NumPy has no words for


@pytest.mark.parametrize("a", [0.0, -0.0, 1.0, -1.0, 2.5, -2.0, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_powers_of_special_values(a, dtype):
    b = np.array([[0.0, -0.0, 1.5, -1.5, 5, -5, 6, -6, np.inf, -np.inf, np.nan, 7.5]])
    x = np.full(b.shape, a)
    with np.errstate(all="ignore"):
        want = np.power(x, b)
    got = compute(ops.power, x, b, dtype=dtype)
    np.testing.assert_allclose(got, want, rtol=1e-12 if dtype == "float64" else 2e-6)
    zeros = want == 0
    np.testing.assert_array_equal(np.signbit(got[zeros]), np.signbit(want[zeros]))


NANS = np.array([[1.0, np.nan, 3.0, np.inf], [0.0, 1.0, -np.inf, 2.0], [-np.inf] * 4])


@pytest.mark.parametrize("function", [ops.max, ops.min, ops.prod, ops.sum, ops.logsumexp])
def test_nan_reaches_the_result_of_its_row_alone(function):
    got = compute(lambda x: function(x, 1), NANS)
    assert np.isnan(got[0])
    want = {"max": 2, "min": -np.inf, "prod": np.nan, "sum": -np.inf}
    want["logsumexp"] = logsumexp(NANS[1], 0)
    np.testing.assert_allclose(got[1], want[function.__name__])
    np.testing.assert_array_equal(got[2], np.inf if function is ops.prod else -np.inf)


def test_nan_is_neither_larger_nor_smaller_nor_cut_off():
    a, b = np.array([[np.nan, 1.0, np.nan]]), np.array([[1.0, np.nan, np.nan]])
    for function in (ops.maximum, ops.minimum):
        assert np.isnan(compute(function, a, b)).all()
    assert np.isnan(compute(lambda x: ops.clip(x, 0.0, 1.0), a)).tolist() == [[True, False, True]]
    for function in (ops.less, ops.less_equal, ops.equal, ops.greater, ops.greater_equal):
        assert compute(function, a, b).sum() == 0
    assert compute(ops.not_equal, a, b).sum() == 3


def gradient(function, x, dy=None):
    """The gradient to an input, by a program of its own."""
    from fastnn.graph.gradient import differentiate

    def both(value):
        y = function(value)
        seed = None if dy is None else y.graph.constant(dy)
        found = differentiate(y.graph, y, [value], seed)[0]
        return value * 0.0 if found is None else found

    return compute(both, x)


def test_ties_share_the_gradient():
    x = np.array([[3.0, 1.0, 3.0, 0.0], [2.0, 2.0, 2.0, 2.0]])
    dy = np.array([4.0, 8.0])
    want = np.array([[2.0, 0.0, 2.0, 0.0], [2.0] * 4])
    np.testing.assert_array_equal(gradient(lambda v: ops.max(v, 1), x, dy), want)
    np.testing.assert_array_equal(gradient(lambda v: ops.min(v * -1.0, 1), x, dy), -want)
    got = gradient(lambda v: ops.maximum(v, 3.0), x, np.full((2, 4), 6.0))
    np.testing.assert_array_equal(got, [[3.0, 0.0, 3.0, 0.0], [0.0] * 4])
    got = gradient(lambda v: ops.clip(v, 2.0, 3.0), x, np.full((2, 4), 6.0))
    np.testing.assert_array_equal(got, [[6.0, 0.0, 6.0, 0.0], [6.0] * 4])


def test_what_is_not_chosen_has_no_gradient():
    x = np.array([[np.nan, 2.0, np.inf]])
    mask = np.array([0.0, 1.0, 0.0])
    got = gradient(lambda v: ops.sum(ops.where(mask, v * v, 3.0)), x)
    np.testing.assert_array_equal(got[0, :2], [np.nan, 4.0])  # 0 * NaN is the product's affair
    got = gradient(lambda v: ops.sum(ops.where(mask, v, v * 3.0)), x)
    np.testing.assert_array_equal(got, [[3.0, 1.0, 3.0]])


def test_detached_values_have_no_gradient():
    got = gradient(lambda v: ops.sum(v * ops.detach(v * v)), X)
    np.testing.assert_allclose(got, X * X)
    np.testing.assert_array_equal(gradient(lambda v: ops.sum(ops.detach(v)), X), 0 * X)


@pytest.mark.parametrize(
    "constant", [ops.detach, lambda v: ops.less(v, 0.5), lambda v: ops.uniform_like(v)]
)
def test_what_counts_as_a_constant_costs_no_gradient(constant):
    """No product is computed for what stands behind it, though it depends on a parameter."""

    class Twice(nn.Module):
        def __init__(self):
            self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.second(constant(self.first(x)))

    graph = Graph(5)
    model = Twice()
    loss = ops.sum(model(graph.input("x", (3,))))
    weight = graph.leaves[model.first.weight]
    before = len(graph.nodes)
    assert differentiate(graph, loss, [weight]) == [None]
    assert len(graph.nodes) == before


def test_products_have_gradients_through_zeros():
    x = np.array([[0.0, 2.0, 3.0], [0.0, 0.0, 3.0], [1.0, 2.0, 3.0]])
    got = gradient(lambda v: ops.prod(v, 1), x, np.array([1.0, 1.0, 2.0]))
    np.testing.assert_array_equal(got, [[6.0, 0.0, 0.0], [0.0, 0.0, 0.0], [12.0, 6.0, 4.0]])


def test_logsumexp_of_nothing_but_minus_infinity():
    got = gradient(lambda v: ops.logsumexp(v, 1), np.full((2, 3), -np.inf), np.ones(2))
    np.testing.assert_array_equal(got, 0.0)


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 33, 129])
def test_sizes_around_the_edges(size):
    x = RNG.normal(size=(3, size))
    for name in ("max", "min", "prod", "sum", "mean"):
        got = compute(lambda v, name=name: getattr(ops, name)(v, 1), x)
        np.testing.assert_allclose(got, getattr(np, name)(x, 1), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(compute(lambda v: v[:, ::-1].T, x), x[:, ::-1].T)
    np.testing.assert_allclose(compute(lambda v: ops.cumsum(v), x), x.cumsum(1), atol=1e-13)
    assert gradcheck(lambda v: ops.max(v[:, ::2], 1) * ops.logsumexp(v, 1), x)


def test_ids_are_checked_where_they_come_in():
    """Also those that are cut out of the input, or turned."""
    table = nn.Parameter((5, 2), "normal")

    class Model(nn.Module):
        def __init__(self):
            self.table = table

        def forward(self, ids):
            return ops.embedding(ids.T[::-1].T[:, 0], self.table)

    model = Model()
    assert model.predict(np.array([[0, 4], [3, 1]])).shape == (2, 2)
    with pytest.raises(FastnnError, match=r"0\.\.4|0 .*4|5"):
        model.predict(np.array([[0, 4], [5, 1]]))


def test_parameters_are_operands():
    """On either side, kept transposed or not; and layers norm several axes."""

    class Model(nn.Module):
        def __init__(self):
            self.w = nn.Parameter((5, 3), "normal")
            self.turned = nn.Parameter((3, 4), "normal", transposed=True)
            self.left = nn.Parameter((2, 4), "normal")
            self.norm, self.rms = nn.LayerNorm((2, 4)), nn.RMSNorm([2, 4])
            self.norm.weight.value = self.rms.weight.value = RNG.normal(size=(2, 4))

        def forward(self, x):
            y = self.left @ ops.transpose((x @ self.w) @ self.turned)
            return self.norm(y) + self.rms(ops.tanh(y) * self.left)

    model = Model()
    model.turned.value = RNG.normal(size=(3, 4))
    assert gradcheck(model, X, rtol=1e-4)


def test_layers_norm_several_axes_as_one_row():
    x = RNG.normal(size=(3, 4, 5)).astype(np.float32)
    rows = x.reshape(3, 20).astype(float)
    got = nn.Sequential(nn.LayerNorm((4, 5))).predict(x)
    want = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(got, want.reshape(x.shape), rtol=1e-4, atol=1e-5)
    got = nn.Sequential(nn.RMSNorm((4, 5), 0.1)).predict(x)
    want = rows / np.sqrt((rows**2).mean(1, keepdims=True) + 0.1)
    np.testing.assert_allclose(got, want.reshape(x.shape), rtol=1e-4, atol=1e-5)
    with pytest.raises(ShapeError, match="last axes"):
        nn.Sequential(nn.LayerNorm((3, 5))).predict(x)
    with pytest.raises(FastnnError, match="sizes of the last axes"):
        nn.LayerNorm(())


def test_batch_norm_without_running_statistics_uses_its_batch():
    x = RNG.normal(size=(8, 3))
    layer = nn.BatchNorm(3, affine=False, track_running_stats=False)
    assert layer.state_dict() == {}
    want = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    np.testing.assert_allclose(compute(ops.batch_norm, x), want, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(compute(layer, x), want, rtol=1e-12, atol=1e-12)


def test_what_stays_within_a_sample_is_predicted_in_batches():
    """Slices, turned axes and padding inside of a sample mix no samples."""

    def forward(x):
        y = ops.pad(ops.transpose(x)[:, ::-1, ::2], [(0, 0), (1, 0), (0, 1)]) ** 2
        return ops.softmax(y @ ops.transpose(y), 1)

    model, x = Function(forward), RNG.normal(size=(11, 4, 5)).astype(np.float32)
    whole = model.predict(x, batch_size=11)
    np.testing.assert_allclose(model.predict(x, batch_size=4), whole, rtol=1e-5)
