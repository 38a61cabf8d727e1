"""Losses between two arrays on CUDA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn.kernels.loss.cuda_pairs  # noqa: F401  (declares the kernels)
from tests import naive
from tests.kernels.cuda.common import compute_both

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


def data(name: str, shape: Any, dtype: Any, weighted: bool = False, **more: Any) -> Any:
    """x, target and the further operands of a loss."""
    rng = np.random.default_rng(1)
    x, target = rng.standard_normal((2, *shape))
    if name == "bce_with_logits":
        x, target = 4 * x, rng.random(shape)
        more["pos_weight"] = rng.uniform(0.5, 3, shape[1] if weighted else 0).astype(dtype)
    elif name == "bce":
        x, target = rng.uniform(0.05, 0.95, (2, *shape))
    elif name.startswith("kl_div"):
        x, target = naive.log_softmax(x), naive.log_softmax(target)
        target = np.exp(target) if name == "kl_div" else target
    return x.astype(dtype), target.astype(dtype), more


def oracle(name: str, x: Any, target: Any, more: dict[str, Any]) -> Any:
    more = {k: None if np.size(v) == 0 else np.float64(v) for k, v in more.items()}
    return SCALE * getattr(naive, name)(x.astype(np.float64), target.astype(np.float64), **more)


@pytest.mark.parametrize("shape", [(1, 1), (9, 33), (2, 530)])
@pytest.mark.parametrize(("name", "more"), LOSSES)
def test_values(name: str, more: dict[str, Any], shape: tuple[int, int]) -> None:
    x, target, more = data(name, shape, np.float32, **more)
    given = {"x": x, "target": target, "scale": SCALE, **more}
    got = compute_both(f"{name}_forward", np.float32, {"loss": shape[:1]}, **given)["loss"]
    np.testing.assert_allclose(got, oracle(name, x, target, more), rtol=1e-5, atol=1e-5)
    dloss = np.random.default_rng(2).standard_normal(shape[0])
    compute_both(f"{name}_backward", np.float32, {"dx": shape}, dloss=dloss, **given)


@pytest.mark.parametrize(("name", "more"), LOSSES)
def test_gradient(name: str, more: dict[str, Any]) -> None:
    shape = (3, 4)
    x, target, more = data(name, shape, np.float64, **more)
    dloss = np.random.default_rng(2).standard_normal(3)
    given = {"x": x, "target": target, "scale": SCALE, "dloss": dloss, **more}
    dx = compute_both(f"{name}_backward", np.float64, {"dx": shape}, **given)["dx"]
    want = naive.numeric_gradient(lambda v: oracle(name, v, target, more), x, dloss)
    np.testing.assert_allclose(dx, want, rtol=1e-6, atol=1e-8)
