"""Losses between two arrays of one shape."""

import numpy as np
import pytest

import fastnn.kernels.loss.cpu_pairs  # noqa: F401
from tests import naive
from tests.kernels.common import DTYPES, SHAPES, SMALL, close, compute

SCALE = 0.7
#: name of the loss and further arguments
LOSSES = [
    ("mse", {}),
    ("mae", {}),
    ("huber", {"delta": 0.75}),
    ("bce_with_logits", {"weighted": False}),
    ("bce_with_logits", {"weighted": True}),
    ("bce", {}),
    ("kl_div", {}),
    ("kl_div_log", {}),
]


def data(name, shape, dtype, weighted=None, **more):
    """x, target and the further operands of a loss."""
    rng = np.random.default_rng(1)
    x, target = rng.standard_normal((2, *shape))
    if name == "bce_with_logits":
        x = 4 * x
        target = rng.random(shape)
        more["pos_weight"] = rng.uniform(0.5, 3, shape[1] if weighted else 0).astype(dtype)
    elif name == "bce":
        x, target = rng.uniform(0.05, 0.95, (2, *shape))
    elif name.startswith("kl_div"):
        x, target = naive.log_softmax(x), naive.log_softmax(target)
        target = np.exp(target) if name == "kl_div" else target
    return x.astype(dtype), target.astype(dtype), more


def oracle(name, x, target, more):
    more = {k: None if np.size(v) == 0 else np.float64(v) for k, v in more.items()}
    return SCALE * getattr(naive, name)(x.astype(np.float64), target.astype(np.float64), **more)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "more"), LOSSES)
def test_values(name, more, shape, dtype):
    x, target, more = data(name, shape, dtype, **more)
    given = dict(x=x, target=target, scale=SCALE, **more)
    loss = compute(f"{name}_forward", dtype, {"loss": shape[:1]}, **given)["loss"]
    close(loss, oracle(name, x, target, more), dtype)
    dloss = np.random.default_rng(2).standard_normal(shape[0])
    dx = compute(f"{name}_backward", dtype, {"dx": shape}, dloss=dloss, **given)["dx"]
    double = compute(f"{name}_backward", np.float64, {"dx": shape}, dloss=dloss, **given)["dx"]
    close(dx, double, dtype)


@pytest.mark.parametrize("shape", SMALL)
@pytest.mark.parametrize(("name", "more"), LOSSES)
def test_gradient(name, more, shape):
    x, target, more = data(name, shape, np.float64, **more)
    dloss = np.random.default_rng(2).standard_normal(shape[0])
    given = dict(x=x, target=target, scale=SCALE, dloss=dloss, **more)
    dx = compute(f"{name}_backward", np.float64, {"dx": shape}, **given)["dx"]
    want = naive.numeric_gradient(lambda v: oracle(name, v, target, more), x, dloss)
    np.testing.assert_allclose(dx, want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bce_with_extreme_logits(dtype):
    x = np.array([[1e4, -1e4, 1e4, -1e4, 0.0, -60.0]])
    target = np.array([[1.0, 0.0, 0.0, 1.0, 0.5, 0.0]])
    given = dict(x=x, target=target, scale=1.0, pos_weight=np.zeros(0))
    loss = compute("bce_with_logits_forward", dtype, {"loss": (1,)}, **given)["loss"]
    close(loss, [2e4 + np.log(2)], dtype)
    given["dloss"] = np.ones(1)
    dx = compute("bce_with_logits_backward", dtype, {"dx": x.shape}, **given)["dx"]
    np.testing.assert_allclose(dx, [[0, 0, 1, -1, 0, np.exp(-60)]], rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_kl_div_of_impossible_events(dtype):
    x = np.array([[-np.inf, 0.0], [np.log(0.5), np.log(0.5)]])
    p = np.array([[0.0, 1.0], [0.0, 1.0]])
    want = [0.0, np.log(2)]
    out = {"loss": (2,)}
    got = compute("kl_div_forward", dtype, out, x=x, target=p, scale=1.0)["loss"]
    close(got, want, dtype)
    with np.errstate(divide="ignore"):
        log_p = np.log(p)
    got = compute("kl_div_log_forward", dtype, out, x=x, target=log_p, scale=1.0)["loss"]
    close(got, want, dtype)


def test_mae_where_both_agree():
    x = np.array([[1.0, 2.0, 3.0]])
    given = dict(x=x, target=np.array([[1.0, 1.0, 4.0]]), dloss=np.ones(1), scale=1.0)
    dx = compute("mae_backward", np.float32, {"dx": x.shape}, **given)["dx"]
    np.testing.assert_array_equal(dx, [[0, 1, -1]])


@pytest.mark.peers
@pytest.mark.parametrize(("name", "more"), LOSSES)
def test_like_pytorch(name, more):
    torch = pytest.importorskip("torch", reason="PyTorch is what this compares with")
    F = torch.nn.functional
    shape = (5, 33)
    x, target, more = data(name, shape, np.float64, **more)
    peer, options = {
        "mse": (F.mse_loss, {}),
        "mae": (F.l1_loss, {}),
        "huber": (F.huber_loss, {"delta": 0.75}),
        "bce_with_logits": (F.binary_cross_entropy_with_logits, {}),
        "bce": (F.binary_cross_entropy, {}),
        "kl_div": (F.kl_div, {}),
        "kl_div_log": (F.kl_div, {"log_target": True}),
    }[name]
    if np.size(more.get("pos_weight", ())):
        options = {"pos_weight": torch.tensor(more["pos_weight"])}
    variable = torch.tensor(x, requires_grad=True)
    loss = peer(variable, torch.tensor(target), reduction="sum", **options)
    loss.backward()
    given = dict(x=x, target=target, scale=1.0, **more)
    got = compute(f"{name}_forward", np.float64, {"loss": shape[:1]}, **given)["loss"]
    close(got.sum(), loss.item(), np.float64)
    given["dloss"] = np.ones(shape[0])
    dx = compute(f"{name}_backward", np.float64, {"dx": shape}, **given)["dx"]
    close(dx, variable.grad.numpy(), np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bce_at_the_ends(dtype):
    """PyTorch's values: logarithms end at -100, the gradient's denominator at 1e-12."""
    x, target = (
        np.array([[0.0], [1.0], [0.0], [1.0]], dtype),
        np.array([[0.0], [1], [1], [0]], dtype),
    )
    given = dict(x=x, target=target, scale=1.0)
    loss = compute("bce_forward", dtype, {"loss": (4,)}, **given)["loss"]
    np.testing.assert_array_equal(loss, [0, 0, 100, 100])
    dx = compute("bce_backward", dtype, {"dx": (4, 1)}, dloss=np.ones(4), **given)["dx"]
    np.testing.assert_allclose(dx[:, 0], [0, 0, -1e12, 1e12], rtol=1e-6)
    bad = dict(given, x=np.full((4, 1), np.nan, dtype))
    assert np.isnan(compute("bce_forward", dtype, {"loss": (4,)}, **bad)["loss"]).all()
