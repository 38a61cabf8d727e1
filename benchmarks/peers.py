"""The same training step in PyTorch, JAX and scikit-learn, as their users would write it.

Each maker returns a function that does so many steps on fixed batches, the optimiser and the loss
included; the first layer's input gradient is not asked of anyone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Steps = Callable[[int], None]


def torch_mlp(
    sizes: Sequence[int], batch: int, threads: int, optimizer: str = "adam", compiled: bool = False
) -> tuple[Steps, Any]:
    """PyTorch eager (or torch.compile), fused Adam, or SGD with momentum."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    layers: list[Any] = []
    for k in range(len(sizes) - 1):
        layers.append(nn.Linear(sizes[k], sizes[k + 1]))
        if k < len(sizes) - 2:
            layers.append(nn.ReLU())
    model = nn.Sequential(*layers)
    loss_function = nn.CrossEntropyLoss()
    if optimizer == "adam":
        update: Any = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    else:
        update = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9, fused=True)
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((batch, sizes[0])).astype(np.float32))
    y = torch.from_numpy(rng.integers(0, sizes[-1], batch))

    def forward_backward() -> None:
        update.zero_grad(set_to_none=True)
        loss_function(model(x), y).backward()

    run = torch.compile(forward_backward) if compiled else forward_backward

    def steps(count: int) -> None:
        for _ in range(count):
            run()
            update.step()

    return steps, model


def jax_mlp(
    sizes: Sequence[int], batch: int, optimizer: str = "adam", looped: int = 0
) -> tuple[Steps, dict[str, Any]]:
    """JAX with the whole step in one `jit`, buffers donated.

    With `looped`, the number of samples of a data set, all steps run in one compiled loop (what
    `jax.lax.scan` becomes), each with its rows of the data set, in an order given by indices.
    """
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    params = []
    for c, k in itertools.pairwise(sizes):
        bound = c**-0.5
        params.append(jnp.asarray(rng.uniform(-bound, bound, (c, k)).astype(np.float32)))
        params.append(jnp.asarray(rng.uniform(-bound, bound, k).astype(np.float32)))
    samples = looped or batch
    x = jnp.asarray(rng.standard_normal((samples, sizes[0])).astype(np.float32))
    y = jnp.asarray(rng.integers(0, sizes[-1], samples))
    last = len(sizes) - 2

    def loss(params: Any, x: Any, y: Any) -> Any:
        for k in range(last + 1):
            x = x @ params[2 * k] + params[2 * k + 1]
            x = jax.nn.relu(x) if k < last else x
        return -jnp.mean(jax.nn.log_softmax(x)[jnp.arange(x.shape[0]), y])

    def adam(p: Any, g: Any, m: Any, v: Any, t: Any) -> Any:
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        rate = 1e-3 / (1 - 0.9**t)
        return p - rate * m / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8), m, v

    def momentum(p: Any, g: Any, m: Any, v: Any, t: Any) -> Any:
        m = 0.9 * m + g
        return p - 1e-2 * m, m, v

    rule = adam if optimizer == "adam" else momentum

    def step(state: Any, x: Any, y: Any) -> Any:
        params, ms, vs, t = state
        value, grads = jax.value_and_grad(loss)(params, x, y)
        new = [rule(*a, t) for a in zip(params, grads, ms, vs, strict=True)]
        return ([n[0] for n in new], [n[1] for n in new], [n[2] for n in new], t + 1.0), value

    def loop(state: Any, x: Any, y: Any, order: Any, count: Any) -> Any:
        def body(k: Any, state: Any) -> Any:
            rows = jax.lax.dynamic_slice(order, (k % (samples // batch) * batch,), (batch,))
            return step(state, x[rows], y[rows])[0]

        return jax.lax.fori_loop(0, count, body, state)

    compiled = jax.jit(loop if looped else step, donate_argnums=0)
    zeros = [jnp.zeros_like(p) for p in params]
    state = (params, zeros, [jnp.zeros_like(p) for p in params], jnp.float32(1.0))
    order = jnp.asarray(rng.permutation(samples))
    holder = {"state": state, "x": x, "y": y, "order": order}

    def steps(count: int) -> None:
        data = (holder["x"], holder["y"])
        if looped:
            holder["state"] = compiled(holder["state"], *data, holder["order"], count)
        else:
            for _ in range(count):
                holder["state"], _ = compiled(holder["state"], *data)
        jax.block_until_ready(holder["state"])

    return steps, holder


def sklearn_mlp(sizes: Sequence[int], batch: int) -> tuple[Steps, Any]:
    """scikit-learn's MLPClassifier, one `partial_fit` a step (Adam only)."""
    from sklearn.neural_network import MLPClassifier

    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, sizes[0])).astype(np.float32)
    y = rng.integers(0, sizes[-1], batch)
    model = MLPClassifier(tuple(sizes[1:-1]), batch_size=batch, alpha=0.0)
    model.partial_fit(x, y, classes=np.arange(sizes[-1]))

    def steps(count: int) -> None:
        for _ in range(count):
            model.partial_fit(x, y)

    return steps, model
