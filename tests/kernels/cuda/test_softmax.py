"""Softmax and cross entropy on CUDA: against float64, and against the CPU's kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn.kernels.cuda import rows
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.kernels.loss import cuda as loss  # noqa: F401  (declare the kernels)
from fastnn.kernels.softmax import cuda as softmax  # noqa: F401  (declare the kernels)
from fastnn.testing.kernels import call_cuda
from tests import naive
from tests.kernels.common import close
from tests.kernels.cuda.common import compute_both, compute_cuda

IGNORED = -100
#: one warp a row (a block has eight rows), one block a row, one that doesn't fit into shared memory
SHAPES = [(1, 1), (9, 33), (2, 600), (2, 601)]


@pytest.fixture(autouse=True)
def _short_memory(monkeypatch: Any) -> None:
    """Rows of more than 600 columns don't fit into shared memory."""
    monkeypatch.setattr(rows, "KEPT", 600)


def normal(seed: int, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    return (3 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
@pytest.mark.parametrize("shape", SHAPES)
def test_softmax(op: str, shape: tuple[int, int]) -> None:
    x, dy = normal(1, *shape), normal(2, *shape)
    y = compute_both(f"{op}_forward", np.float32, {"y": shape}, x=x)["y"]
    close(y, getattr(naive, op)(x.astype(np.float64)), np.float32)
    compute_both(f"{op}_backward", np.float32, {"dx": shape}, factor=20, y=y, dy=dy)


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_softmax_gradient(op: str) -> None:
    x, dy = normal(1, 3, 5, dtype=np.float64), normal(2, 3, 5, dtype=np.float64)
    function = getattr(naive, op)
    given = {"y": function(x), "dy": dy}
    dx = compute_both(f"{op}_backward", np.float64, {"dx": x.shape}, **given)["dx"]
    want = naive.numeric_gradient(function, x, dy)
    np.testing.assert_allclose(dx, want, rtol=1e-6, atol=1e-7)


def test_extreme_rows() -> None:
    x = np.array([[1e4, -1e4, 0.0], [-np.inf, 1.0, 1.0], [np.nan, 1.0, 2.0]], np.float32)
    y = compute_both("softmax_forward", np.float32, {"y": x.shape}, x=x)["y"]
    close(y[:2], [[1, 0, 0], [0, 0.5, 0.5]], np.float32)
    assert np.isnan(y[2]).all()


def labels(shape: tuple[int, int], weighted: bool) -> dict[str, np.ndarray]:
    """Class indices, one of them ignored if there are several, and class weights."""
    rng = np.random.default_rng(3)
    target = rng.integers(0, shape[1], shape[0])
    target[shape[0] // 2 : shape[0] // 2 + shape[0] // 3] = IGNORED
    return {"target": target, "weight": rng.uniform(0.5, 2, shape[1] if weighted else 0)}


def of(weight: np.ndarray) -> np.ndarray | None:
    return weight if weight.size else None


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(shape: tuple[int, int], smoothing: float) -> None:
    weighted = smoothing > 0
    x, given = normal(1, *shape), labels(shape, weighted)
    probs = naive.softmax(normal(4, *shape, dtype=np.float64)).astype(np.float32)
    for name, options in (
        ("cross_entropy", {**given, "ignore_index": IGNORED}),
        ("cross_entropy_probs", {"weight": given["weight"], "target": probs}),
    ):
        out = {"loss": shape[:1], "dlogits": shape}
        options |= {"x": x, "smoothing": smoothing}
        got = compute_both(f"{name}_forward", np.float32, out, **options)
        wide = x.astype(np.float64), options["target"], of(given["weight"])
        close(got["loss"], naive.cross_entropy(*wide, smoothing), np.float32, 4)
        alone = compute_both(f"{name}_loss", np.float32, {"loss": shape[:1]}, **options)
        np.testing.assert_array_equal(alone["loss"], got["loss"])


@pytest.mark.parametrize(("smoothing", "weighted"), [(0.0, False), (0.1, True)])
def test_cross_entropy_gradient(smoothing: float, weighted: bool) -> None:
    shape = (4, 5)
    x, given = normal(1, *shape, dtype=np.float64), labels(shape, weighted)
    dloss = np.random.default_rng(2).standard_normal(4)
    out = {"loss": shape[:1], "dlogits": shape}
    probs = naive.softmax(normal(4, *shape, dtype=np.float64))
    for name, options in (
        ("cross_entropy_forward", {"target": given["target"], "ignore_index": IGNORED}),
        ("cross_entropy_probs_forward", {"target": probs}),
    ):
        options |= {"x": x, "weight": given["weight"], "smoothing": smoothing}
        dlogits = compute_both(name, np.float64, out, **options)["dlogits"]
        back = {"dlogits": dlogits, "dloss": dloss}
        dx = compute_both("cross_entropy_backward", np.float64, {"dx": shape}, **back)["dx"]

        def value(v: Any, target: Any = options["target"]) -> Any:
            return naive.cross_entropy(v, target, of(given["weight"]), smoothing)

        want = naive.numeric_gradient(value, x, dloss)
        np.testing.assert_allclose(dx, want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradient_at_once(shape: tuple[int, int], smoothing: float) -> None:
    """The bits are those of the two kernels, rows that are ignored or have no class included."""
    given = {**labels(shape, smoothing > 0), "smoothing": smoothing, "ignore_index": IGNORED}
    given["target"][-1] = shape[1]  # type: ignore[index]
    x, dloss, dtype = normal(1, *shape), normal(2, shape[0]), np.float32
    out = {"loss": shape[:1], "dlogits": shape}
    first = compute_cuda("cross_entropy_forward", dtype, out, x=x, **given)
    back = {"dlogits": first["dlogits"], "dloss": dloss}
    want = compute_cuda("cross_entropy_backward", dtype, {"dx": shape}, **back)["dx"]
    out = {"loss": shape[:1], "dx": shape}
    got = compute_cuda("cross_entropy_scaled", dtype, out, x=x, dloss=dloss, **given)
    np.testing.assert_array_equal(got["loss"], first["loss"])
    np.testing.assert_array_equal(got["dx"], want)


@pytest.mark.parametrize("columns", [600, 601])
def test_gradient_over_the_logits(columns: int) -> None:
    x, given = normal(1, 2, columns), labels((2, columns), True)
    given = {**given, "smoothing": 0.1, "ignore_index": IGNORED}
    out = {"loss": (2,), "dlogits": x.shape}
    want = compute_both("cross_entropy_forward", np.float32, out, x=x, **given)
    value = np.empty(2, np.float32)
    given["weight"] = given["weight"].astype(np.float32)  # type: ignore[union-attr]
    call_cuda(CUDA_KERNELS["cross_entropy_forward"], x=x, dlogits=x, loss=value, **given)
    np.testing.assert_array_equal(x, want["dlogits"])
    np.testing.assert_array_equal(value, want["loss"])


def test_an_index_outside_the_classes_gives_nan() -> None:
    x = np.ones((4, 20))
    given = {"target": np.array([-1, 20, 3, 7]), "weight": np.zeros(0), "ignore_index": 7}
    out = {"loss": (4,), "dlogits": x.shape}
    got = compute_both("cross_entropy_forward", np.float32, out, x=x, smoothing=0.0, **given)
    assert np.isnan(got["dlogits"][:2]).all()
    assert np.isfinite(got["dlogits"][2]).all()
    assert not got["dlogits"][3].any()
    for name, more in (("cross_entropy_loss", {"smoothing": 0.0}), ("nll_forward", {})):
        found = compute_both(name, np.float32, {"loss": (4,)}, x=x, **more, **given)["loss"]
        np.testing.assert_array_equal(np.isnan(found), [True, True, False, False])
        assert found[3] == 0
    weights = compute_both("target_weight", np.float32, {"y": (4,)}, **given)["y"]
    np.testing.assert_array_equal(weights, [np.nan, 1, 1, 0])


@pytest.mark.parametrize("weighted", [False, True])
def test_nll(weighted: bool) -> None:
    shape = (7, 33)
    x, given = normal(1, *shape), {**labels(shape, weighted), "ignore_index": IGNORED}
    got = compute_both("nll_forward", np.float32, {"loss": (7,)}, x=x, **given)["loss"]
    close(got, naive.nll(x, given["target"], of(given["weight"])), np.float32)
    dloss = normal(5, 7)
    dx = compute_both("nll_backward", np.float32, {"dx": shape}, dloss=dloss, **given)["dx"]
    assert np.count_nonzero(dx) == np.count_nonzero(given["target"] != IGNORED)
