"""Layer normalisation and batch normalisation."""

import numpy as np
import pytest

import fastnn.kernels.norm.cpu
import fastnn.kernels.norm.cpu_batch  # noqa: F401
from fastnn.kernels.declare import KERNELS
from fastnn.testing.kernels import call
from tests import naive
from tests.kernels.common import DTYPES, EDGES, SHAPES, SMALL, close, compute

EPS = 1e-5
#: rows around the block of 64 that a column's sum is cut into, columns around a strip of 4 vectors
TALL = [(n, 5) for n in (63, 64, 65, 129, 200)] + [(7, n) for n in (63, 64, 65, 70, 129)]


def layer_data(shape, dtype, affine, seed=1):
    rng = np.random.default_rng(seed)
    x = (2 + 3 * rng.standard_normal(shape)).astype(dtype)
    size = shape[1] if affine else 0
    gain = (1 + 0.1 * rng.standard_normal(size)).astype(dtype)
    bias = rng.standard_normal(size).astype(dtype)
    return x, gain, bias, rng.standard_normal(shape).astype(dtype)


def row_statistics(x):
    return x.mean(1), 1 / np.sqrt(x.var(1) + EPS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("affine", [False, True])
def test_layer_norm(affine, shape, dtype):
    x, gain, bias, _ = layer_data(shape, dtype, affine)
    n = shape[:1]
    out = {"y": shape, "mean": n, "rstd": n}
    got = compute("layer_norm_forward", dtype, out, x=x, gain=gain, bias=bias, eps=EPS)
    x = x.astype(np.float64)
    want = naive.layer_norm(x, gain if affine else None, bias if affine else None, EPS)
    mean, rstd = row_statistics(x)
    few = 300 if shape[1] <= 2 else 4  # two close numbers: the difference of rounded ones
    close(got["y"], want, dtype, factor=few)
    close(got["mean"], mean, dtype)
    close(got["rstd"], rstd, dtype, factor=few)


@pytest.mark.parametrize("shape", SMALL)
@pytest.mark.parametrize("affine", [False, True])
def test_layer_norm_gradient(affine, shape):
    x, gain, _, dy = layer_data(shape, np.float64, affine)
    mean, rstd = row_statistics(x)
    saved = dict(x=x, mean=mean, rstd=rstd, dy=dy)
    given = gain if affine else None
    dx = compute("layer_norm_backward_input", np.float64, {"dx": shape}, gain=gain, **saved)["dx"]
    want = naive.numeric_gradient(lambda v: naive.layer_norm(v, given), x, dy)
    np.testing.assert_allclose(dx, want, rtol=1e-6, atol=1e-7)
    out = {"dgain": shape[1:]}
    dgain = compute("layer_norm_backward_gain", np.float64, out, **saved)["dgain"]
    want = naive.numeric_gradient(lambda g: naive.layer_norm(x, g), np.ones(shape[1]), dy)
    np.testing.assert_allclose(dgain, want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES + TALL)
def test_layer_norm_gradient_float32(shape):
    x, gain, _, dy = layer_data(shape, np.float32, True)
    mean, rstd = (v.astype(np.float32) for v in row_statistics(x))
    saved = dict(x=x, mean=mean, rstd=rstd, dy=dy)
    for name, out, more in (
        ("layer_norm_backward_input", {"dx": shape}, {"gain": gain}),
        ("layer_norm_backward_gain", {"dgain": shape[1:]}, {}),
    ):
        key = next(iter(out))
        single = compute(name, np.float32, out, **saved, **more)[key]
        double = compute(name, np.float64, out, **saved, **more)[key]
        size = max(1.0, np.abs(double).max())
        close(single / size, double / size, np.float32)


def test_layer_norm_with_a_large_mean():
    rng = np.random.default_rng(4)
    x = (1000 + rng.standard_normal((4, 300))).astype(np.float32)
    none = np.zeros(0)
    out = {"y": x.shape, "mean": (4,), "rstd": (4,)}
    y = compute("layer_norm_forward", np.float32, out, x=x, gain=none, bias=none, eps=EPS)["y"]
    np.testing.assert_allclose(y, naive.layer_norm(x.astype(np.float64)), atol=1e-3)


# ---------------------------------------------------------------- batch normalisation


def batch_data(shape, dtype, seed=5):
    rng = np.random.default_rng(seed)
    C = shape[1]
    x = (2 + 3 * rng.standard_normal(shape)).astype(dtype)
    columns = dict(
        gain=(1 + 0.1 * rng.standard_normal(C)).astype(dtype),
        bias=rng.standard_normal(C).astype(dtype),
        running_mean=rng.standard_normal(C).astype(dtype),
        running_var=rng.uniform(0.5, 2, C).astype(dtype),
    )
    return x, columns, rng.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES + TALL)
def test_batch_norm(shape, dtype):
    x, columns, _ = batch_data(shape, dtype)
    c = shape[1:]
    out = {"y": shape, "mean": c, "rstd": c}
    got = compute("batch_norm_forward", dtype, out, x=x, eps=EPS, momentum=0.3, **columns)
    x = x.astype(np.float64)
    y, running_mean, running_var = naive.batch_norm(x, *columns.values(), EPS, 0.3)
    few = 300 if shape[0] <= 2 else 4
    close(got["y"], y, dtype, factor=few)
    close(got["mean"], x.mean(0), dtype)
    close(got["rstd"], 1 / np.sqrt(x.var(0) + EPS), dtype, factor=few)
    close(got["running_mean"], running_mean, dtype)
    close(got["running_var"], running_var, dtype, factor=4)


@pytest.mark.parametrize("shape", SMALL)
def test_batch_norm_gradient(shape):
    x, columns, dy = batch_data(shape, np.float64)
    gain, bias, c = columns["gain"], columns["bias"], shape[1:]
    got = compute(
        "batch_norm_backward",
        np.float64,
        {"dx": shape, "dgain": c, "dbias": c},
        x=x,
        gain=gain,
        mean=x.mean(0),
        rstd=1 / np.sqrt(x.var(0) + EPS),
        dy=dy,
    )
    rest = (columns["running_mean"], columns["running_var"], EPS)
    for key, function, at in (
        ("dx", lambda v: naive.batch_norm(v, gain, bias, *rest)[0], x),
        ("dgain", lambda v: naive.batch_norm(x, v, bias, *rest)[0], gain),
        ("dbias", lambda v: naive.batch_norm(x, gain, v, *rest)[0], bias),
    ):
        want = naive.numeric_gradient(function, at, dy)
        np.testing.assert_allclose(got[key], want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES + TALL)
def test_batch_norm_gradient_float32(shape):
    x, columns, dy = batch_data(shape, np.float32)
    mean, rstd = x.mean(0), 1 / np.sqrt(x.var(0) + np.float32(EPS))
    out = {"dx": shape, "dgain": shape[1:], "dbias": shape[1:]}
    given = dict(x=x, gain=columns["gain"], mean=mean, rstd=rstd, dy=dy)
    single = compute("batch_norm_backward", np.float32, out, **given)
    double = compute("batch_norm_backward", np.float64, out, **given)
    for key in out:
        size = max(1.0, np.abs(double[key]).max())
        close(single[key] / size, double[key] / size, np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("C", EDGES)
def test_batch_norm_inference(C, dtype):
    x, columns, dy = batch_data((6, C), dtype)
    y = compute("batch_norm_inference", dtype, {"y": x.shape}, x=x, eps=EPS, **columns)["y"]
    wide = {key: value.astype(np.float64) for key, value in columns.items()}
    close(y, naive.batch_norm_inference(x, *wide.values(), EPS), dtype, factor=4)
    dx = compute(
        "batch_norm_inference_backward",
        dtype,
        {"dx": x.shape},
        gain=columns["gain"],
        running_var=columns["running_var"],
        dy=dy,
        eps=EPS,
    )["dx"]
    close(dx, dy * wide["gain"] / np.sqrt(wide["running_var"] + EPS), dtype)


def in_order(terms):
    """Sums down the columns as kernels make them: of blocks of 64 rows, then of the blocks."""
    total = np.zeros(terms.shape[1:], terms.dtype)
    for first in range(0, len(terms), 64):
        part = np.zeros_like(total)
        for term in terms[first : first + 64]:
            part = part + term
        total = total + part
    return total


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [3, 16, 40, 70, 512, 1024])
@pytest.mark.parametrize("rows", [2, 64, 257, 531])
def test_sums_down_columns_have_one_order(rows, columns, dtype):
    """Whatever the width, the range of columns, and how far rows are apart."""
    x, given, dy = batch_data((rows, columns), dtype)
    share = x.dtype.type(1 / rows)
    mean = in_order(x) * share
    squares = in_order((x - mean) * (x - mean))
    rstd = 1 / np.sqrt(squares * share + x.dtype.type(EPS))
    y = np.full_like(x, np.nan)
    of = {key: np.full(columns, np.nan, x.dtype) for key in ("mean", "rstd", "dgain", "dbias")}
    back = {"x": x, "gain": given["gain"], "mean": mean, "rstd": rstd, "dy": dy}
    dx = np.full_like(x, np.nan)
    row, rrow = x[:, 0].copy(), np.abs(x[:, -1])
    gains = np.full(columns, np.nan, x.dtype)
    forward, backward = KERNELS["batch_norm_forward"], KERNELS["batch_norm_backward"]
    for lo, hi in ((0, columns // 32 * 16), (columns // 32 * 16, columns)):
        call(forward, lo, hi, x=x, y=y, mean=of["mean"], rstd=of["rstd"], eps=EPS, momentum=0.3,
             **given)  # fmt: skip
        call(backward, lo, hi, dx=dx, dgain=of["dgain"], dbias=of["dbias"], **back)
        call(KERNELS["layer_norm_backward_gain"], lo, hi, x=x, mean=row, rstd=rrow, dy=dy,
             dgain=gains)  # fmt: skip
    np.testing.assert_array_equal(of["mean"], mean)
    np.testing.assert_array_equal(of["rstd"], rstd)
    np.testing.assert_array_equal(y, (x - mean) * (rstd * given["gain"]) + given["bias"])
    n = (x - mean) * rstd
    np.testing.assert_array_equal(of["dbias"], in_order(dy))
    np.testing.assert_array_equal(of["dgain"], in_order(dy * n))
    slope = (of["dgain"] * share) * rstd
    want = ((dy - of["dbias"] * share) - (x - mean) * slope) * (rstd * given["gain"])
    np.testing.assert_array_equal(dx, want)
    terms = dy * ((x - row[:, None]) * rrow[:, None])
    np.testing.assert_array_equal(gains, in_order(terms))
