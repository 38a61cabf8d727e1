"""Layer normalisation and batch normalisation on CUDA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn.kernels.norm.cuda  # noqa: F401  (declares the kernels)
from tests import naive
from tests.kernels.common import close
from tests.kernels.cuda.common import compute_both

EPS = 1e-5
SHAPES = [(3, 17), (9, 33), (2, 530)]
COLUMNS = [(1, 3), (5, 17), (70, 9)]


def layer_data(shape: Any, dtype: Any, affine: bool) -> Any:
    rng = np.random.default_rng(1)
    x = (2 + 3 * rng.standard_normal(shape)).astype(dtype)
    size = shape[1] if affine else 0
    gain = (1 + 0.1 * rng.standard_normal(size)).astype(dtype)
    return (
        x,
        gain,
        rng.standard_normal(size).astype(dtype),
        rng.standard_normal(shape).astype(dtype),
    )


def statistics(x: Any, axis: int) -> tuple[Any, Any]:
    return x.mean(axis), 1 / np.sqrt(x.var(axis) + EPS)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("affine", [False, True])
def test_layer_norm(affine: bool, shape: tuple[int, int]) -> None:
    x, gain, bias, dy = layer_data(shape, np.float32, affine)
    out = {"y": shape, "mean": shape[:1], "rstd": shape[:1]}
    given = {"x": x, "gain": gain, "bias": bias, "eps": EPS}
    got = compute_both("layer_norm_forward", np.float32, out, **given)
    wide = x.astype(np.float64)
    want = naive.layer_norm(wide, gain if affine else None, bias if affine else None, EPS)
    close(got["y"], want, np.float32, factor=4)
    close(got["mean"], wide.mean(1), np.float32)
    saved = {"x": x, "mean": got["mean"], "rstd": got["rstd"], "dy": dy}
    back = {"dx": shape}
    compute_both("layer_norm_backward_input", np.float32, back, factor=10, gain=gain, **saved)
    compute_both("layer_norm_backward_gain", np.float32, {"dgain": shape[1:]}, 10, **saved)


@pytest.mark.parametrize("affine", [False, True])
def test_layer_norm_gradient(affine: bool) -> None:
    x, gain, _, dy = layer_data((3, 5), np.float64, affine)
    mean, rstd = statistics(x, 1)
    saved = {"x": x, "mean": mean, "rstd": rstd, "dy": dy}
    back = {"gain": gain, **saved}
    dx = compute_both("layer_norm_backward_input", np.float64, {"dx": (3, 5)}, **back)["dx"]
    given = gain if affine else None
    want = naive.numeric_gradient(lambda v: naive.layer_norm(v, given), x, dy)
    np.testing.assert_allclose(dx, want, rtol=1e-6, atol=1e-7)
    dgain = compute_both("layer_norm_backward_gain", np.float64, {"dgain": (5,)}, **saved)
    want = naive.numeric_gradient(lambda g: naive.layer_norm(x, g), np.ones(5), dy)
    np.testing.assert_allclose(dgain["dgain"], want, rtol=1e-6, atol=1e-7)


def batch_data(shape: Any, dtype: Any) -> Any:
    rng = np.random.default_rng(5)
    x = (2 + 3 * rng.standard_normal(shape)).astype(dtype)
    columns = {
        "gain": (1 + 0.1 * rng.standard_normal(shape[1])).astype(dtype),
        "bias": rng.standard_normal(shape[1]).astype(dtype),
        "running_mean": rng.standard_normal(shape[1]).astype(dtype),
        "running_var": rng.uniform(0.5, 2, shape[1]).astype(dtype),
    }
    return x, columns, rng.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("shape", COLUMNS)
def test_batch_norm(shape: tuple[int, int]) -> None:
    x, columns, dy = batch_data(shape, np.float32)
    c = shape[1:]
    out = {"y": shape, "mean": c, "rstd": c}
    given = {"x": x, "eps": EPS, "momentum": 0.3, **columns}
    got = compute_both("batch_norm_forward", np.float32, out, 20, **given)
    wide = x.astype(np.float64)
    y, running_mean, running_var = naive.batch_norm(wide, *columns.values(), EPS, 0.3)
    close(got["y"], y, np.float32, factor=4)
    close(got["running_mean"], running_mean, np.float32)
    close(got["running_var"], running_var, np.float32, factor=4)
    saved = {"x": x, "gain": columns["gain"], "mean": got["mean"], "rstd": got["rstd"], "dy": dy}
    out = {"dx": shape, "dgain": c, "dbias": c}
    compute_both("batch_norm_backward", np.float32, out, 50, **saved)


def test_batch_norm_gradient() -> None:
    shape = (6, 3)
    x, columns, dy = batch_data(shape, np.float64)
    gain, bias = columns["gain"], columns["bias"]
    mean, rstd = statistics(x, 0)
    out = {"dx": shape, "dgain": (3,), "dbias": (3,)}
    saved = {"x": x, "gain": gain, "mean": mean, "rstd": rstd, "dy": dy}
    got = compute_both("batch_norm_backward", np.float64, out, **saved)
    rest = (columns["running_mean"], columns["running_var"], EPS)
    for key, function, at in (
        ("dx", lambda v: naive.batch_norm(v, gain, bias, *rest)[0], x),
        ("dgain", lambda v: naive.batch_norm(x, v, bias, *rest)[0], gain),
        ("dbias", lambda v: naive.batch_norm(x, gain, v, *rest)[0], bias),
    ):
        want = naive.numeric_gradient(function, at, dy)
        np.testing.assert_allclose(got[key], want, rtol=1e-6, atol=1e-7)


def test_batch_norm_inference() -> None:
    x, columns, dy = batch_data((6, 33), np.float32)
    given = {"x": x, "eps": EPS, **columns}
    y = compute_both("batch_norm_inference", np.float32, {"y": x.shape}, **given)["y"]
    wide = {key: value.astype(np.float64) for key, value in columns.items()}
    close(y, naive.batch_norm_inference(x, *wide.values(), EPS), np.float32, factor=4)
    back = {"gain": columns["gain"], "running_var": columns["running_var"], "dy": dy, "eps": EPS}
    out = {"dx": x.shape}
    dx = compute_both("batch_norm_inference_backward", np.float32, out, **back)["dx"]
    close(dx, dy * wide["gain"] / np.sqrt(wide["running_var"] + EPS), np.float32)
