"""Activations, arithmetic, broadcasts, sums and moves of columns, against NumPy in float64."""

import numpy as np
import pytest

import fastnn.kernels.broadcast.cpu
import fastnn.kernels.elementwise.cpu
import fastnn.kernels.reduce.cpu
import fastnn.kernels.shape.cpu  # noqa: F401
from fastnn.kernels.declare import KERNELS
from fastnn.kernels.elementwise.rows import TABLE
from fastnn.testing.kernels import call
from tests import naive
from tests.kernels.common import DTYPES, SHAPES, SMALL, close, compute

REALS = {
    "leaky_relu": {"slope": 0.1},
    "elu": {"alpha": 1.25},
    "clip": {"low": -1.25, "high": 0.75},
    "softplus": {"beta": 1.5, "threshold": 2.0},
}
SMOOTH_SOFTPLUS = {"beta": 1.5, "threshold": 1e9}
POSITIVE = ("log", "sqrt")
SAVED = {f.name: f.saved for f in TABLE.values() if f.inputs == ("x",)}
ORACLE = {
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "square": np.square,
    "absolute": np.abs,
    "clip": lambda x, low, high: np.clip(x, low, high),
    "sin": np.sin,
    "cos": np.cos,
    "erf": lambda x: np.vectorize(naive.math.erf, otypes=[float])(x),
}


def oracle(name, reals):
    function = ORACLE.get(name) or getattr(naive, name)
    return lambda x: function(x, **reals)


def sample(name, shape, seed, dtype=np.float64):
    x = 2 * np.random.default_rng(seed).standard_normal(shape)
    x = np.where(np.abs(x) < 1e-3, 0.5, x)  # central differences mind a kink
    return (np.abs(x) + 0.1 if name in POSITIVE else x).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SAVED)
def test_function_values(name, dtype):
    reals = REALS.get(name, {})
    for shape in SHAPES:
        x = sample(name, shape, 1, dtype)
        y = compute(f"{name}_forward", dtype, {"y": shape}, x=x, **reals)["y"]
        close(y, oracle(name, reals)(x.astype(np.float64)), dtype)


@pytest.mark.parametrize("name", SAVED)
def test_function_gradients(name):
    reals = SMOOTH_SOFTPLUS if name == "softplus" else REALS.get(name, {})
    function = oracle(name, reals)
    for shape in SMALL:
        x, dy = sample(name, shape, 2), np.random.default_rng(3).standard_normal(shape)
        saved = {SAVED[name]: x if SAVED[name] == "x" else function(x)}
        dx = compute(f"{name}_backward", np.float64, {"dx": shape}, dy=dy, **saved, **reals)["dx"]
        want = naive.numeric_gradient(function, x, dy)
        np.testing.assert_allclose(dx, want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", SAVED)
def test_function_gradients_in_float32(name):
    reals = REALS.get(name, {})
    shape = (7, 37)
    x, dy = sample(name, shape, 4), np.random.default_rng(5).standard_normal(shape)
    saved = {SAVED[name]: x if SAVED[name] == "x" else oracle(name, reals)(x)}
    want = compute(f"{name}_backward", np.float64, {"dx": shape}, dy=dy, **saved, **reals)["dx"]
    got = compute(f"{name}_backward", np.float32, {"dx": shape}, dy=dy, **saved, **reals)["dx"]
    close(got, want, np.float32)


def test_gradients_at_kinks_and_ends():
    x = np.array([[0.0, -0.0, np.inf, -np.inf]])
    dy = np.ones_like(x)
    for name, want in {
        "absolute": [0, 0, 1, -1],
        "leaky_relu": [0.1, 0.1, 1, 0.1],
        "gelu": [0.5, 0.5, 1, 0],
        "gelu_tanh": [0.5, 0.5, 1, 0],
        "silu": [0.5, 0.5, 1, 0],
    }.items():
        dx = np.empty_like(x)
        call(KERNELS[f"{name}_backward"], x=x, dy=dy, dx=dx, **REALS.get(name, {}))
        np.testing.assert_allclose(dx[0], want, atol=1e-300)


def test_in_place():
    x = sample("gelu", (5, 33), 6, np.float32)
    y = np.empty_like(x)
    call(KERNELS["gelu_forward"], x=x, y=y)
    call(KERNELS["gelu_forward"], x=x, y=x)
    np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "out", "inputs", "formula"),
    [
        ("add_forward", "y", "ab", lambda a, b: a + b),
        ("subtract_forward", "y", "ab", lambda a, b: a - b),
        ("multiply_forward", "y", "ab", lambda a, b: a * b),
        ("divide_forward", "y", "ab", lambda a, b: a / b),
        ("multiply_backward_a", "da", ("b", "dy"), lambda b, dy: b * dy),
        ("multiply_backward_b", "db", ("a", "dy"), lambda a, dy: a * dy),
        ("divide_backward_a", "da", ("b", "dy"), lambda b, dy: dy / b),
        ("divide_backward_b", "db", ("b", "y", "dy"), lambda b, y, dy: -dy * y / b),
        ("negate", "y", "x", lambda x: -x),
    ],
)
def test_arithmetic(name, out, inputs, formula, dtype):
    for shape in SHAPES:
        rng = np.random.default_rng(7)
        values = [(rng.standard_normal(shape) + 4).astype(dtype) for _ in inputs]
        got = compute(name, dtype, {out: shape}, **dict(zip(inputs, values, strict=True)))[out]
        close(got, formula(*(v.astype(np.float64) for v in values)), dtype)


def test_division_gradient_is_that_of_division():
    rng = np.random.default_rng(8)
    a, b, dy = rng.standard_normal((3, 4, 9)) + 4
    db = compute("divide_backward_b", np.float64, {"db": b.shape}, b=b, y=a / b, dy=dy)["db"]
    want = naive.numeric_gradient(lambda v: a / v, b, dy)
    np.testing.assert_allclose(db, want, rtol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_broadcasts(shape, dtype):
    rng = np.random.default_rng(9)
    a = rng.standard_normal(shape).astype(dtype)
    row = rng.standard_normal(shape[1]).astype(dtype)
    column = rng.standard_normal(shape[0]).astype(dtype)
    for name, b, want in (
        ("add_row", row, a + row),
        ("multiply_row", row, a * row),
        ("add_column", column, a + column[:, None]),
        ("multiply_column", column, a * column[:, None]),
    ):
        y = compute(name, dtype, {"y": shape}, a=a, b=b)["y"]
        np.testing.assert_array_equal(y, want)
    y = compute("affine", dtype, {"y": shape}, x=a, scale=1.5, shift=-0.25)["y"]
    close(y, 1.5 * a.astype(np.float64) - 0.25, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [*SHAPES, (9, 300), (70, 65)])
def test_sums(shape, dtype):
    rng = np.random.default_rng(10)
    a, b = rng.uniform(0.5, 1.5, (2, *shape)).astype(dtype)
    wide = a.astype(np.float64)
    n, c = shape
    close(compute("sum_rows", dtype, {"y": (c,)}, x=a)["y"], wide.sum(0), dtype)
    close(compute("sum_columns", dtype, {"y": (n,)}, x=a)["y"], wide.sum(1), dtype)
    close(compute("dot_columns", dtype, {"y": (n,)}, a=a, b=b)["y"], (wide * b).sum(1), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_moving_columns(shape, dtype):
    rng = np.random.default_rng(11)
    n, c = shape
    for offset, k in ((0, c), (3, c + 3), (2, c + 40)):
        x, y = rng.standard_normal(shape), rng.standard_normal((n, k))
        x, y = x.astype(dtype), y.astype(dtype)
        inserted = compute("insert_columns", dtype, {}, x=x, y=y, offset=offset)["y"]
        y[:, offset : offset + c] = x
        np.testing.assert_array_equal(inserted, y)
        got = compute("extract_columns", dtype, {"y": shape}, x=y, offset=offset)["y"]
        np.testing.assert_array_equal(got, x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("single", [True, False])
def test_prelu(shape, single, dtype):
    rng = np.random.default_rng(12)
    x, dy = rng.standard_normal((2, *shape)).astype(dtype)
    weight = rng.uniform(0.1, 0.5, 1 if single else shape[1]).astype(dtype)
    wide = x.astype(np.float64)
    y = compute("prelu_forward", dtype, {"y": shape}, x=x, weight=weight)["y"]
    close(y, naive.prelu(wide, weight), dtype)
    dx = compute("prelu_backward_input", dtype, {"dx": shape}, x=x, weight=weight, dy=dy)["dx"]
    close(dx, np.where(x > 0, dy, weight * dy), dtype)
    name = "prelu_backward_weight_" + ("single" if single else "columns")
    got = compute(name, dtype, {"dweight": weight.shape}, x=x, dy=dy)["dweight"]
    terms = np.where(x > 0, 0, wide * dy)
    close(got, terms.sum() if single else terms.sum(0), dtype)


@pytest.mark.parametrize("single", [True, False])
def test_prelu_gradients(single):
    rng = np.random.default_rng(13)
    x, dy = rng.standard_normal((2, 4, 17))
    weight = rng.uniform(0.1, 0.5, 1 if single else 17)
    out = {"dx": x.shape}
    dx = compute("prelu_backward_input", np.float64, out, x=x, weight=weight, dy=dy)["dx"]
    want = naive.numeric_gradient(lambda v: naive.prelu(v, weight), x, dy)
    np.testing.assert_allclose(dx, want, rtol=1e-7)
    name = "prelu_backward_weight_" + ("single" if single else "columns")
    dweight = compute(name, np.float64, {"dweight": weight.shape}, x=x, dy=dy)["dweight"]
    want = naive.numeric_gradient(lambda w: naive.prelu(x, w), weight, dy)
    np.testing.assert_allclose(dweight, want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_maxout(pieces, shape, dtype):
    rng = np.random.default_rng(14)
    n, c = shape
    x = rng.integers(-2, 3, (n, pieces * c)).astype(dtype)  # many ties
    dy = rng.standard_normal(shape).astype(dtype)
    y = compute("maxout_forward", dtype, {"y": shape}, x=x)["y"]
    np.testing.assert_array_equal(y, naive.maxout(x, pieces))
    dx = compute("maxout_backward", dtype, {"dx": x.shape}, x=x, y=y, dy=dy)["dx"]
    first = x.reshape(n, pieces, c).argmax(1)  # NumPy, too, takes the first of equals
    want = np.where(np.arange(pieces)[:, None] == first[:, None], dy[:, None], 0)
    np.testing.assert_array_equal(dx, want.reshape(n, -1))


def test_maxout_keeps_nan():
    x = np.array([[1.0, np.nan, 3.0, np.nan, 0.0, 2.0]])
    y = compute("maxout_forward", np.float64, {"y": (1, 2)}, x=x)["y"]
    np.testing.assert_array_equal(y, [[3.0, np.nan]])
