"""Training steps of recurrent nets by JAX and optax: time first, steps in a `scan`."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.sequences.sides import Side
from benchmarks.sequences.xla import Parameters, training


def _directed(p: Parameters, names: tuple[str, ...], x: Any, valid: Any, back: bool) -> Any:
    """The outputs of an LSTM (4 gates) or GRU (3) in one direction, 0 past the end of a sequence.

    Args:
        p: parameters. names: of the weights of inputs and states, and of their biases.
        x: inputs, (steps, batch, features). valid: which steps count, (steps, batch).
        back: whether it reads from the end.
    """
    import jax
    import jax.numpy as jnp

    w_ih, w_hh, b_ih, b_hh = (p[name] for name in names)
    gates, sigmoid = len(w_ih) // w_hh.shape[1], jax.nn.sigmoid

    def step(carry: Any, given: Any) -> Any:
        (h, c), (zx, counts) = carry, given
        zh = h @ w_hh.T + b_hh
        if gates == 4:
            i, f, g, o = jnp.split(zx + zh, 4, axis=1)
            new_c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
            new_h = sigmoid(o) * jnp.tanh(new_c)
        else:
            new_c, new_h = c, _gru(zx, zh, h)
        counts = counts[:, None]
        after = jnp.where(counts, new_h, h), jnp.where(counts, new_c, c)
        return after, jnp.where(counts, new_h, 0.0)

    zeros = jnp.zeros((x.shape[1], w_hh.shape[1]), x.dtype)
    return jax.lax.scan(step, (zeros, zeros), (x @ w_ih.T + b_ih, valid), reverse=back)[1]


def _gru(zx: Any, zh: Any, h: Any) -> Any:
    import jax
    import jax.numpy as jnp

    (xr, xz, xn), (hr, hz, hn) = jnp.split(zx, 3, axis=1), jnp.split(zh, 3, axis=1)
    z = jax.nn.sigmoid(xz + hz)
    return (1.0 - z) * jnp.tanh(xn + jax.nn.sigmoid(xr + hr) * hn) + z * h


def _layer(p: Parameters, prefix: str, layer: int, x: Any, valid: Any) -> Any:
    """Both directions of a layer with PyTorch's names."""
    import jax.numpy as jnp

    outputs = []
    for back in (False, True):
        end = f"_l{layer}{'_reverse' if back else ''}"
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        names = tuple(f"{prefix}{kind}{end}" for kind in kinds)
        outputs.append(_directed(p, names, x, valid, back))
    return jnp.concatenate(outputs, 2)


def recognise(
    parameters: Parameters, x: np.ndarray, lengths: np.ndarray, labels: np.ndarray,
    counts: np.ndarray,
) -> Side:  # fmt: skip
    """Two bidirectional LSTM layers and optax's connectionist temporal classification."""
    import jax.numpy as jnp
    import optax  # type: ignore[import-not-found, unused-ignore]

    valid = np.arange(x.shape[1])[:, None] < lengths
    hidden = (np.arange(labels.shape[1]) >= counts[:, None]).astype(np.float32)

    def loss(p: Parameters, x: Any, valid: Any, labels: Any, hidden: Any) -> Any:
        for layer in (0, 1):
            x = _layer(p, "lstm.", layer, x, valid)
        logits = (x @ p["logits.weight"].T + p["logits.bias"]).swapaxes(0, 1)
        padded = 1.0 - valid.T.astype(x.dtype)
        each = optax.ctc_loss(logits, padded, labels, hidden)
        return jnp.mean(each / (1.0 - hidden).sum(1))

    return training(loss, parameters, x.swapaxes(0, 1), valid, labels, hidden)


def translate(
    parameters: Parameters, ids: np.ndarray, lengths: np.ndarray, targets: np.ndarray,
    wanted: np.ndarray,
) -> Side:  # fmt: skip
    """GRUs in both directions, and GRUs with additive attention; what is `wanted` below 0 does not
    count."""
    import jax
    import jax.numpy as jnp

    d = "decoder."
    valid = np.arange(ids.shape[1])[:, None] < lengths
    before = np.concatenate([np.zeros_like(targets[:, :1]), targets[:, :-1]], 1)
    cell = [f"{d}cell.{kind}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]

    def loss(p: Parameters, ids: Any, valid: Any, before: Any, wanted: Any) -> Any:
        encoded = _layer(p, "encoder.", 0, p["vectors.weight"][ids.T], valid).swapaxes(0, 1)
        keys = encoded @ p[d + "attention.key.weight"].T
        mean = encoded.sum(1) / valid.sum(0)[:, None]
        h = jnp.tanh(mean @ p[d + "initial.weight"].T + p[d + "initial.bias"])
        w_ih, w_hh, b_ih, b_hh = (p[name] for name in cell)

        def step(h: Any, x: Any) -> Any:
            query = h @ p[d + "attention.query.weight"].T + p[d + "attention.query.bias"]
            scores = jnp.tanh(keys + query[:, None]) @ p[d + "attention.score"]
            weights = jax.nn.softmax(jnp.where(valid.T, scores, -jnp.inf))
            context = (weights[:, None] @ encoded)[:, 0]
            x = jnp.concatenate([x, context], 1)
            h = _gru(x @ w_ih.T + b_ih, h @ w_hh.T + b_hh, h)
            return h, jnp.concatenate([h, context], 1)

        _, seen = jax.lax.scan(step, h, p[d + "vectors.weight"][before.T])
        both = jnp.tanh(seen @ p[d + "both.weight"].T + p[d + "both.bias"])
        logits = both @ p[d + "out.weight"].T + p[d + "out.bias"]
        found = jnp.take_along_axis(
            jax.nn.log_softmax(logits), jnp.maximum(wanted.T, 0)[..., None], 2
        )
        counts = wanted.T >= 0
        return -jnp.where(counts, found[..., 0], 0.0).sum() / counts.sum()

    return training(loss, parameters, ids, valid, before, wanted)
