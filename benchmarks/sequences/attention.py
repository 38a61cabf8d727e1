"""Attention alone, and a step of a Transformer."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastnn as fnn
from benchmarks.sequences import xla
from benchmarks.sequences.sides import Sides, copied, state_of
from fastnn import nn, ops, optim


class Joined(nn.Module):
    """Queries, keys and values that are parameters: what attention takes and gives is all there is.

    The input holds what outputs are multiplied by, which is their gradient.
    """

    def __init__(self, batch: int, steps: int, size: int, heads: int):
        self.joined = nn.Parameter((batch, steps, 3 * size), nn.init.get("normal", std=1.0))
        self.heads = heads

    def forward(self, x: Any) -> Any:
        y = ops.self_attention(ops.as_value(x.graph, self.joined), heads=self.heads, causal=True)
        return ops.sum(ops.multiply(y, ops.reshape(x, y.shape)))


def causal(threads: int, precision: str) -> Sides:
    """Forwards and backwards, and the gradient is taken off (SGD)."""
    import torch

    batch, steps, heads, size = 4, 1024, 4, 64
    random = np.random.default_rng(0)
    x = random.standard_normal((1, batch * steps * heads * size)).astype(np.float32)
    model = Joined(batch, steps, heads * size, heads)
    step = fnn.compile(model, lambda y, _: y, optim.SGD(lr=1e-3), workers=threads,
                       precision=precision)  # fmt: skip
    model.store()
    joined = state_of(model)["joined"]
    tx, none = torch.from_numpy(x).view(batch, steps, heads, size), np.zeros((1, 1), np.float32)

    def theirs() -> float:
        parts = joined.view(batch, steps, 3, heads, size).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in parts)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        loss = (y.transpose(1, 2) * tx).sum()
        joined.grad = None
        loss.backward()
        with torch.no_grad():
            joined.sub_(joined.grad, alpha=1e-3)
        return float(loss.detach())

    jax = xla.causal(model.state_dict()["joined"], x, heads)
    return Sides(
        {"fastnn": lambda: float(step(x, none)), "PyTorch": theirs, "JAX": jax}, close=1e-2
    )


def transformer(threads: int, precision: str) -> Sides:
    """Causal layers with 512 hidden units each, no dropout, a mean square and Adam."""
    import torch

    layers, size, heads, steps, batch = 4, 128, 4, 128, 16
    random = np.random.default_rng(0)
    x, y = (random.standard_normal((batch, steps, size)).astype(np.float32) for _ in range(2))

    class Net(nn.Module):
        def __init__(self) -> None:
            layer = nn.TransformerEncoderLayer(size, heads, 4 * size, 0.0)
            self.net = nn.TransformerEncoder(layer, layers)

        def forward(self, x: Any) -> Any:
            return self.net(x, causal=True)

    model = Net()
    step = fnn.compile(model, nn.MSELoss(), optim.Adam(lr=1e-3), workers=threads,
                       precision=precision)  # fmt: skip
    model.store()
    one = torch.nn.TransformerEncoderLayer(size, heads, 4 * size, 0.0, batch_first=True)
    net = copied(torch.nn.TransformerEncoder(one, layers), state_of(model), "net.")
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    tx, ty = torch.from_numpy(x), torch.from_numpy(y)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(steps)

    def theirs() -> float:
        loss = torch.nn.functional.mse_loss(net(tx, mask=mask, is_causal=True), ty)
        adam.zero_grad()
        loss.backward()
        adam.step()
        return float(loss.detach())

    jax = xla.transformer(model.state_dict(), x, y, layers, heads)
    room = 1e-4 if precision == "highest" else 0.05
    return Sides({"fastnn": lambda: float(step(x, y)), "PyTorch": theirs, "JAX": jax}, close=room)
