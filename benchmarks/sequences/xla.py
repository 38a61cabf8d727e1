"""The same training steps by JAX and optax: each one `jit`, with its state donated.

JAX takes its threads from the cores that the process may use when it begins: measure one worker
under one core's affinity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.sequences.sides import Side

Parameters = Mapping[str, Any]


def training(
    loss: Callable[..., Any], parameters: Parameters, *data: Any, update: Any = None
) -> Side:
    """A step of training; returns the loss.

    Args:
        loss: of parameters and data.
        parameters: by name; copied.
        data: arrays, arguments of the step.
        update: optax's transformation; by default Adam with a rate of 1e-3.
    """
    import jax
    import jax.numpy as jnp
    import optax  # type: ignore[import-not-found, unused-ignore]

    update = update or optax.adam(1e-3)

    def step(parameters: Any, state: Any, *data: Any) -> Any:
        value, gradients = jax.value_and_grad(loss)(parameters, *data)
        changes, state = update.update(gradients, state)
        return optax.apply_updates(parameters, changes), state, value

    compiled = jax.jit(step, donate_argnums=(0, 1))
    held: Any = {name: jnp.array(np.array(p)) for name, p in parameters.items()}
    given, state = [jnp.asarray(a) for a in data], update.init(held)

    def run() -> float:
        nonlocal held, state
        held, state, value = compiled(held, state, *given)
        return float(value)

    return run


def causal(joined: np.ndarray, x: np.ndarray, heads: int) -> Side:
    """Attention of joined queries, keys and values, (batch, steps, 3 size), forwards and backwards,
    with SGD; `x` is what outputs are multiplied by."""
    import jax
    import optax

    batch, steps, wide = joined.shape
    shape = (batch, steps, heads, wide // 3 // heads)

    def loss(p: Parameters, x: Any) -> Any:
        q, k, v = (part.reshape(shape) for part in jax.numpy.split(p["joined"], 3, axis=2))
        y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        return (y * x.reshape(shape)).sum()

    return training(loss, {"joined": joined}, x, update=optax.sgd(1e-3))


def transformer(
    parameters: Parameters, x: np.ndarray, y: np.ndarray, layers: int, heads: int
) -> Side:
    """Causal layers that normalise after each part, with PyTorch's names after "net."."""
    import jax
    import jax.numpy as jnp

    batch, steps, size = x.shape
    shape = (batch, steps, heads, size // heads)

    def loss(p: Parameters, x: Any, y: Any) -> Any:
        def linear(name: str, x: Any) -> Any:
            return x @ p[f"{name}weight"].T + p[f"{name}bias"]

        def norm(name: str, x: Any) -> Any:
            x = x - x.mean(-1, keepdims=True)
            x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-5)
            return x * p[f"{name}.weight"] + p[f"{name}.bias"]

        for k in range(layers):
            at = f"net.layers.{k}."
            parts = jnp.split(linear(at + "self_attn.in_proj_", x), 3, axis=2)
            q, key, v = (part.reshape(shape) for part in parts)
            seen = jax.nn.dot_product_attention(q, key, v, is_causal=True).reshape(x.shape)
            x = norm(at + "norm1", x + linear(at + "self_attn.out_proj.", seen))
            inner = jax.nn.relu(linear(at + "linear1.", x))
            x = norm(at + "norm2", x + linear(at + "linear2.", inner))
        return jnp.square(x - y).mean()

    return training(loss, parameters, x, y)


def crf(parameters: Parameters, x: np.ndarray, target: np.ndarray, lengths: np.ndarray) -> Side:
    """A linear layer and a conditional random field: the sum over all sequences in a `scan`."""
    import jax
    import jax.numpy as jnp

    pairs, first, last = (f"crf.{n}transitions" for n in ("", "start_", "end_"))
    rows = np.arange(len(x))

    def loss(p: Parameters, x: Any, target: Any, lengths: Any) -> Any:
        scores = x @ p["scores.weight"].T + p["scores.bias"]
        valid = jnp.arange(x.shape[1]) < lengths[:, None]
        own = jnp.take_along_axis(scores, target[:, :, None], 2)[:, :, 0]
        own = jnp.where(valid, own, 0.0).sum(1) + p[first][target[:, 0]]
        own = own + p[last][target[rows, lengths - 1]]
        moved = p[pairs][target[:, :-1], target[:, 1:]]
        own = own + jnp.where(valid[:, 1:], moved, 0.0).sum(1)

        def forward(a: Any, given: Any) -> Any:
            here, counts = given
            after = jax.nn.logsumexp(a[:, :, None] + p[pairs], axis=1) + here
            return jnp.where(counts[:, None], after, a), None

        begin = p[first] + scores[:, 0]
        a, _ = jax.lax.scan(forward, begin, (scores[:, 1:].swapaxes(0, 1), valid[:, 1:].T))
        return (jax.nn.logsumexp(a + p[last], axis=1) - own).mean()

    return training(loss, parameters, x, np.maximum(target, 0), lengths)


def ntm(net: Any, parameters: Parameters, x: np.ndarray, y: np.ndarray) -> Side:
    """A Neural Turing Machine with an LSTM (`nn.NTM`), its steps in a `scan`, which computes all
    heads at once; the loss is the binary cross entropy of logits."""
    import jax
    import jax.numpy as jnp

    from fastnn.nn.ntm import SMALL, START

    batch, heads = len(x), net.read_heads + net.write_heads
    sizes = np.cumsum([net.width, 1, 1, 1, 2 * net.shift + 1])
    softplus, sigmoid = jax.nn.softplus, jax.nn.sigmoid

    def loss(p: Parameters, x: Any, y: Any) -> Any:
        def step(carry: Any, seen: Any) -> Any:
            memory, w, read, h, c = carry
            z = jnp.concatenate([seen, read], 1) @ p["controller.weight_ih"].T
            z = z + p["controller.bias_ih"]
            z = z + h @ p["controller.weight_hh"].T + p["controller.bias_hh"]
            i, f, g, o = jnp.split(z, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
            h = sigmoid(o) * jnp.tanh(c)
            given = h @ p["heads.weight"].T + p["heads.bias"]
            address, written = given[:, : heads * sizes[-1]], given[:, heads * sizes[-1] :]
            parts = jnp.split(address.reshape(batch, heads, -1), sizes[:-1], axis=2)
            key, strength, gate, sharp, shift = parts
            key, gate, shift = jnp.tanh(key), sigmoid(gate), jax.nn.softmax(shift)
            lengths = jnp.sqrt(jnp.square(memory).sum(2) + SMALL)[:, None]
            size = jnp.sqrt(jnp.square(key).sum(2, keepdims=True) + SMALL)
            along = key @ memory.swapaxes(1, 2) / (lengths * size)
            w = gate * jax.nn.softmax(softplus(strength) * along) + (1.0 - gate) * w
            w = sum(
                shift[:, :, k : k + 1] * jnp.roll(w, k - net.shift, 2)
                for k in range(2 * net.shift + 1)
            )
            w = (w + SMALL) ** (1.0 + softplus(sharp))
            w = w / w.sum(2, keepdims=True)
            read = (w[:, : net.read_heads] @ memory).reshape(batch, -1)
            for k in range(net.write_heads):
                parts = written.reshape(batch, net.write_heads, -1)[:, k]
                erase, add = jnp.split(parts, 2, axis=1)
                at = w[:, net.read_heads + k, :, None]
                memory = memory * (1.0 - at * sigmoid(erase)[:, None])
                memory = memory + at * jnp.tanh(add)[:, None]
            z = jnp.concatenate([h, read], 1) @ p["output.weight"].T + p["output.bias"]
            return (memory, w, read, h, c), z

        zeros = jnp.zeros((batch, net.hidden_size), x.dtype)
        begin = (
            jnp.full((batch, net.slots, net.width), START, x.dtype),
            jnp.zeros((batch, heads, net.slots), x.dtype).at[:, :, 0].set(1.0),
            jnp.zeros((batch, net.read_heads * net.width), x.dtype), zeros, zeros,
        )  # fmt: skip
        _, z = jax.lax.scan(step, begin, x.swapaxes(0, 1))
        return (softplus(z) - y.swapaxes(0, 1) * z).mean()

    return training(loss, parameters, x, y)
