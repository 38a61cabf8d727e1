"""Softmax and log-softmax."""

import numpy as np
import pytest

import fastnn.kernels.softmax.cpu  # noqa: F401
from fastnn.kernels.declare import KERNELS
from fastnn.testing.kernels import call
from tests import naive
from tests.kernels.common import DTYPES, SHAPES, SMALL, close, compute


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_values(op, shape, dtype):
    rng = np.random.default_rng(1)
    x = (3 * rng.standard_normal(shape)).astype(dtype)
    y = compute(f"{op}_forward", dtype, {"y": shape}, x=x)["y"]
    close(y, getattr(naive, op)(x.astype(np.float64)), dtype)


@pytest.mark.parametrize("shape", SMALL)
@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_gradient(op, shape):
    rng = np.random.default_rng(2)
    x, dy = rng.standard_normal((2, *shape))
    function = getattr(naive, op)
    dx = compute(f"{op}_backward", np.float64, {"dx": shape}, y=function(x), dy=dy)["dx"]
    want = naive.numeric_gradient(function, x, dy)
    np.testing.assert_allclose(dx, want, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_gradient_float32(op, shape):
    rng = np.random.default_rng(3)
    x, dy = rng.standard_normal((2, *shape)).astype(np.float32)
    y = getattr(naive, op)(x)
    dx32 = compute(f"{op}_backward", np.float32, {"dx": shape}, y=y, dy=dy)["dx"]
    dx64 = compute(f"{op}_backward", np.float64, {"dx": shape}, y=y, dy=dy)["dx"]
    close(dx32, dx64, np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme(dtype):
    x = np.array([[1e4, -1e4, 0.0], [-np.inf, 1.0, 1.0], [-1e4, -1e4, -1e4]])
    y = compute("softmax_forward", dtype, {"y": x.shape}, x=x)["y"]
    third = 1 / 3
    close(y, [[1, 0, 0], [0, 0.5, 0.5], [third, third, third]], dtype)
    y = compute("log_softmax_forward", dtype, {"y": x.shape}, x=x)["y"]
    ln2, ln3 = np.log(2), np.log(3)
    close(y, [[0, -2e4, -1e4], [-np.inf, -ln2, -ln2], [-ln3, -ln3, -ln3]], dtype)


@pytest.mark.parametrize("width", [3, 40])
def test_nan_stays_in_its_row(width):
    x = np.ones((3, width))
    x[1, width - 2] = np.nan
    for op in ("softmax", "log_softmax"):
        y = compute(f"{op}_forward", np.float32, {"y": x.shape}, x=x)["y"]
        assert np.isnan(y[1]).all()
        assert np.isfinite(y[[0, 2]]).all()


@pytest.mark.parametrize(
    ("name", "of", "to"),
    [
        ("softmax_forward", "x", "y"),
        ("log_softmax_forward", "x", "y"),
        ("softmax_backward", "dy", "dx"),
        ("log_softmax_backward", "dy", "dx"),
    ],
)
def test_in_place(name, of, to):
    kernel = KERNELS[name]
    x, y = np.random.default_rng(4).standard_normal((2, 3, 37)).astype(np.float32)
    given = {of: x} if of == "x" else {of: x, "y": y}
    want = compute(name, np.float32, {to: x.shape}, **given)[to]
    call(kernel, **given, **{to: x})
    np.testing.assert_array_equal(x, want)
