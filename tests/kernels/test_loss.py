"""Losses over classes: cross entropy, negative log likelihood."""

import numpy as np
import pytest

import fastnn.kernels.loss.cpu  # noqa: F401
from fastnn.kernels.declare import KERNELS
from fastnn.testing.kernels import call
from tests import naive
from tests.kernels.common import DTYPES, SHAPES, SMALL, close, compute

IGNORED = -100
OPTIONS = [(0.0, False), (0.1, False), (0.0, True), (0.1, True)]  # smoothing, class weights


def data(shape, dtype, weighted, seed=1):
    """Logits, class indices with an ignored row, class probabilities and class weights."""
    rng = np.random.default_rng(seed)
    N, C = shape
    x = (3 * rng.standard_normal(shape)).astype(dtype)
    target = rng.integers(0, C, N)
    target[N // 2 : N // 2 + N // 3] = IGNORED
    probs = naive.softmax(rng.standard_normal(shape)).astype(dtype)
    weight = rng.uniform(0.5, 2, C if weighted else 0).astype(dtype)
    return x, target, probs, weight


def given_weight(weight):
    return weight.astype(np.float64) if len(weight) else None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("smoothing", "weighted"), OPTIONS)
def test_cross_entropy(smoothing, weighted, shape, dtype):
    x, target, probs, weight = data(shape, dtype, weighted)
    both = {"loss": shape[:1], "dlogits": shape}
    only = {"loss": shape[:1]}
    for name, more in (
        ("cross_entropy", dict(target=target, ignore_index=IGNORED)),
        ("cross_entropy_probs", dict(target=probs)),
    ):
        given = dict(x=x, weight=weight, smoothing=smoothing, **more)
        got = compute(f"{name}_forward", dtype, both, **given)
        wide = x.astype(np.float64), more["target"], given_weight(weight)
        close(got["loss"], naive.cross_entropy(*wide, smoothing), dtype)
        alone = compute(f"{name}_loss", dtype, only, **given)
        close(alone["loss"], got["loss"], dtype, factor=0.1)
        double = compute(f"{name}_forward", np.float64, both, **given)
        close(got["dlogits"], double["dlogits"], dtype)


@pytest.mark.parametrize("shape", [*SMALL, (2, 33)])
@pytest.mark.parametrize(("smoothing", "weighted"), OPTIONS)
def test_cross_entropy_gradient(smoothing, weighted, shape):
    x, target, probs, weight = data(shape, np.float64, weighted)
    out = {"loss": shape[:1], "dlogits": shape}
    dloss = np.random.default_rng(2).standard_normal(shape[0])
    for name, more in (
        ("cross_entropy_forward", dict(target=target, ignore_index=IGNORED)),
        ("cross_entropy_probs_forward", dict(target=probs)),
    ):
        given = dict(x=x, weight=weight, smoothing=smoothing, **more)
        dlogits = compute(name, np.float64, out, **given)["dlogits"]
        given = dict(dlogits=dlogits, dloss=dloss)
        dx = compute("cross_entropy_backward", np.float64, {"dx": shape}, **given)["dx"]

        def loss(v, wanted=more["target"]):
            return naive.cross_entropy(v, wanted, given_weight(weight), smoothing)

        np.testing.assert_allclose(dx, naive.numeric_gradient(loss, x, dloss), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_logits(dtype):
    x = np.array([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0], [-np.inf, 1.0, 1.0]])
    out = {"loss": (3,), "dlogits": (3, 3)}
    given = dict(x=x, weight=np.zeros(0), smoothing=0.0)
    target = np.array([0, 1, 2])
    gradient = [[0, 0, 0], [1, -1, 0], [0, 0.5, -0.5]]
    got = compute("cross_entropy_forward", dtype, out, target=target, ignore_index=IGNORED, **given)
    close(got["loss"], [0, 2e4, np.log(2)], dtype)
    close(got["dlogits"], gradient, dtype)
    got = compute("cross_entropy_probs_forward", dtype, out, target=np.eye(3), **given)
    close(got["loss"], [0, 2e4, np.log(2)], dtype)
    close(got["dlogits"], gradient, dtype)


@pytest.mark.parametrize("columns", [3, 5, 9, 12, 17, 40])  # in one vector, in two, in more
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_logit_is_subtracted_wherever_it_stands(columns, dtype):
    x = np.zeros((columns, columns)) + 1e4 * np.eye(columns)
    out = {"loss": (columns,), "dlogits": x.shape}
    given = dict(x=x, weight=np.zeros(0), smoothing=0.0, target=np.arange(columns))
    got = compute("cross_entropy_forward", dtype, out, ignore_index=IGNORED, **given)
    assert not got["loss"].any()
    assert not got["dlogits"].any()


def test_gradient_over_the_logits():
    x, target, _, weight = data((5, 37), np.float32, True)
    given = dict(target=target, weight=weight, smoothing=0.1, ignore_index=IGNORED)
    out = {"loss": (5,), "dlogits": x.shape}
    want = compute("cross_entropy_forward", np.float32, out, x=x, **given)
    loss = np.empty(5, np.float32)
    call(KERNELS["cross_entropy_forward"], x=x, dlogits=x, loss=loss, **given)
    np.testing.assert_array_equal(x, want["dlogits"])
    np.testing.assert_array_equal(loss, want["loss"])


def test_an_index_outside_the_classes_gives_nan():
    x = np.ones((4, 20))
    given = dict(target=np.array([-1, 20, 3, 7]), weight=np.zeros(0), ignore_index=7)
    out = {"loss": (4,), "dlogits": x.shape}
    got = compute("cross_entropy_forward", np.float32, out, x=x, smoothing=0.0, **given)
    assert np.isnan(got["dlogits"][:2]).all()
    assert np.isfinite(got["dlogits"][2]).all()
    assert not got["dlogits"][3].any()
    for name, more in (("cross_entropy_loss", dict(smoothing=0.0)), ("nll_forward", {})):
        loss = compute(name, np.float32, {"loss": (4,)}, x=x, **more, **given)["loss"]
        np.testing.assert_array_equal(np.isnan(loss), [True, True, False, False])
        assert loss[3] == 0
    np.testing.assert_array_equal(np.isnan(got["loss"]), [True, True, False, False])


@pytest.mark.parametrize("weighted", [False, True])
def test_the_ignored_index_may_be_a_class(weighted):
    target, weight = np.array([2, 0, 2, 1]), np.array([0.5, 2.0, 4.0]) if weighted else np.zeros(0)
    given = dict(target=target, weight=weight, ignore_index=2)
    own = weight[[0, 1]] if weighted else np.ones(2)
    y = compute("target_weight", np.float64, {"y": (4,)}, **given)["y"]
    np.testing.assert_array_equal(y, [0, own[0], 0, own[1]])
    given["dloss"] = np.array([3.0, 5.0, 7.0, 11.0])
    dx = compute("nll_backward", np.float64, {"dx": (4, 3)}, **given)["dx"]
    np.testing.assert_array_equal(
        dx, [[0, 0, 0], [-5 * own[0], 0, 0], [0, 0, 0], [0, -11 * own[1], 0]]
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_nll(weighted, shape, dtype):
    x, target, _, weight = data(shape, dtype, weighted)
    given = dict(target=target, weight=weight, ignore_index=IGNORED)
    loss = compute("nll_forward", dtype, {"loss": shape[:1]}, x=x, **given)["loss"]
    close(loss, naive.nll(x.astype(np.float64), target, given_weight(weight)), dtype)
    y = compute("target_weight", dtype, {"y": shape[:1]}, **given)["y"]
    np.testing.assert_array_equal(y, naive.target_weight(target, given_weight(weight)))


@pytest.mark.parametrize("shape", SMALL)
@pytest.mark.parametrize("weighted", [False, True])
def test_nll_gradient(weighted, shape):
    x, target, _, weight = data(shape, np.float64, weighted)
    dloss = np.random.default_rng(2).standard_normal(shape[0])
    given = dict(target=target, weight=weight, dloss=dloss, ignore_index=IGNORED)
    dx = compute("nll_backward", np.float64, {"dx": shape}, **given)["dx"]
    want = naive.numeric_gradient(lambda v: naive.nll(v, target, given_weight(weight)), x, dloss)
    np.testing.assert_allclose(dx, want, rtol=1e-7, atol=1e-8)


@pytest.mark.peers
@pytest.mark.parametrize(("smoothing", "weighted"), OPTIONS)
def test_like_pytorch(smoothing, weighted):
    torch = pytest.importorskip("torch", reason="PyTorch is what this compares with")
    F = torch.nn.functional
    shape = (9, 33)
    x, target, probs, weight = data(shape, np.float64, weighted)
    denominator = naive.target_weight(target, given_weight(weight)).sum()
    w = torch.tensor(weight) if weighted else None
    for name, wanted, more, divisor in (
        ("cross_entropy_forward", target, {"ignore_index": IGNORED}, denominator),
        ("cross_entropy_probs_forward", probs, {}, shape[0]),
    ):
        logits = torch.tensor(x, requires_grad=True)
        loss = F.cross_entropy(
            logits, torch.tensor(wanted), w, ignore_index=IGNORED, label_smoothing=smoothing
        )
        loss.backward()
        out = {"loss": shape[:1], "dlogits": shape}
        given = dict(x=x, target=wanted, weight=weight, smoothing=smoothing, **more)
        got = compute(name, np.float64, out, **given)
        close(got["loss"].sum() / divisor, loss.item(), np.float64)
        close(got["dlogits"] / divisor, logits.grad.numpy(), np.float64)
