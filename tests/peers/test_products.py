"""Hessian-vector products against jax.jvp of jax.grad."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from tests.train.test_products import First, vector_of

jax = pytest.importorskip("jax")
jnp = jax.numpy
pytestmark = pytest.mark.peers


def mlp(p, x):
    return (
        jnp.tanh(x @ p["net.0.weight"].T + p["net.0.bias"]) @ p["net.2.weight"].T + p["net.2.bias"]
    )


def lstm(p, x):
    def step(state, x_t):
        h, c = state
        z = x_t @ p["net.weight_ih_l0"].T + p["net.bias_ih_l0"]
        i, f, g, o = jnp.split(z + h @ p["net.weight_hh_l0"].T + p["net.bias_hh_l0"], 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    zeros = jnp.zeros((x.shape[0], p["net.weight_hh_l0"].shape[1]))
    return jnp.swapaxes(jax.lax.scan(step, (zeros, zeros), jnp.swapaxes(x, 0, 1))[1], 0, 1)


@pytest.mark.parametrize(
    ("net", "function", "shape"),
    [
        (lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)), mlp, (6, 3)),
        (lambda: nn.LSTM(3, 4), lstm, (4, 5, 3)),
    ],
    ids=["mlp", "lstm"],
)
def test_hessian_products(net, function, shape):
    rng = np.random.default_rng(0)
    model, x = First(net()), rng.normal(size=shape)
    model.to("float64")
    y = rng.normal(size=model.predict(x).shape)
    v = vector_of(model)
    found = fnn.autodiff.hvp(model, "mse", x, y, v)
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        p = {n: jnp.asarray(a.value) for n, a in model.named_parameters().items()}
        loss = lambda p: jnp.mean((function(p, jnp.asarray(x)) - jnp.asarray(y)) ** 2)  # noqa: E731
        direction = {n: jnp.asarray(a) for n, a in v.items()}
        wanted = jax.jvp(jax.grad(loss), (p,), (direction,))[1]
        for n, array in found.items():
            np.testing.assert_allclose(array, np.asarray(wanted[n]), rtol=1e-9, atol=1e-13)
