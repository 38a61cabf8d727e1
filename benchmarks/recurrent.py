"""Training steps of recurrent nets, side by side with PyTorch and JAX.

    python -m benchmarks.recurrent --threads 1 [--only "100,32,40,128"] [--kind LSTM]

A step: forward, cross-entropy of a linear layer's outputs, backpropagation through time, Adam.
Rows: a loss at every step; a loss on the last step only (gradients vanish); sequences with lengths
uniform in 1..T, beside the same batch padded, and beside PyTorch's PackedSequence. Gradients are
compared with PyTorch's first. Run one thread under one core's affinity: JAX takes its threads
from there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import fastnn as fnn
from benchmarks import harness, limits, peers
from fastnn import nn, optim

KINDS = {"RNN": 1, "LSTM": 4, "GRU": 3}
CLASSES = 10
SIZES = [(100, 32, 40, 128), (200, 16, 40, 256), (100, 1, 40, 64), (50, 64, 256, 1024)]
LAST = (200, 16, 40, 256)
VARYING = (100, 32, 40, 128)


class Model(nn.Module):
    """A recurrent layer with a classifier of every step, or of the last one."""

    def __init__(self, kind: str, inputs: int, hidden: int, every: bool):
        self.layer, self.every = getattr(nn, kind)(inputs, hidden), every
        self.out = nn.Linear(hidden, CLASSES)

    def forward(self, x: Any, lengths: Any = None) -> Any:
        y, (last,) = self.layer(x, lengths=lengths)
        return self.out(y if self.every else last[0] if isinstance(last, tuple) else last)


class Data:
    """One batch: inputs, classes, lengths (or None)."""

    def __init__(self, size: tuple[int, int, int, int], every: bool, varying: bool):
        steps, batch, inputs, _ = size
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((batch, steps, inputs)).astype(np.float32)
        self.y = rng.integers(0, CLASSES, (batch, steps) if every else (batch,))
        self.lengths = rng.integers(1, steps + 1, batch) if varying else None
        if self.lengths is not None:
            self.y[np.arange(steps) >= self.lengths[:, None]] = -100  # counts nothing


def ours(
    kind: str,
    size: tuple[int, ...],
    data: Data,
    workers: int,
    every: bool,
    precision: str = "highest",
) -> tuple[peers.Steps, Any, Callable[[], dict[str, np.ndarray]]]:
    """fastnn: a compiled step as users call it, its model, and its gradients."""
    model = Model(kind, size[2], size[3], every)
    loss = nn.CrossEntropyLoss(ignore_index=None if data.lengths is None else -100)
    step = fnn.compile(model, loss, optim.Adam(lr=1e-3), workers=workers, precision=precision)
    inputs = data.x if data.lengths is None else (data.x, data.lengths)
    step(inputs, data.y)

    def steps(count: int) -> None:
        for _ in range(count):
            step(inputs, data.y)

    return steps, model, lambda: step.gradients(inputs, data.y)


def torch_side(
    kind: str, size: tuple[int, ...], data: Data, threads: int, every: bool, packed: bool = False
) -> tuple[peers.Steps, Any, Any]:
    """PyTorch: padded, or as a PackedSequence; flushing denormals, fused Adam."""
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    layer = getattr(torch.nn, kind)(size[2], size[3], batch_first=True)
    model = torch.nn.ModuleDict({"layer": layer, "out": torch.nn.Linear(size[3], CLASSES)})
    update = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    tools = torch.nn.utils.rnn

    def backward() -> None:
        update.zero_grad(set_to_none=True)
        given: Any = x
        if packed:
            given = tools.pack_padded_sequence(
                x, torch.from_numpy(data.lengths), batch_first=True, enforce_sorted=False
            )
        out, _ = layer(given)
        if packed:
            out, _ = tools.pad_packed_sequence(out, batch_first=True, total_length=size[0])
        scores = model["out"](out if every else out[:, -1])
        torch.nn.functional.cross_entropy(scores.flatten(0, -2), y.flatten()).backward()

    def steps(count: int) -> None:
        for _ in range(count):
            backward()
            update.step()

    return steps, model, backward


def jax_side(kind: str, size: tuple[int, ...], data: Data, every: bool) -> peers.Steps:
    """JAX: the cell in `lax.scan`, the whole step in one `jit`, time first."""
    import jax
    import jax.numpy as jnp

    _, batch, inputs, hidden = size
    gates, rng = KINDS[kind], np.random.default_rng(0)
    bound = hidden**-0.5
    shapes = [(inputs, gates * hidden), (hidden, gates * hidden), (gates * hidden,)]
    shapes += [(gates * hidden,), (hidden, CLASSES), (CLASSES,)]
    params = [jnp.asarray(rng.uniform(-bound, bound, s).astype(np.float32)) for s in shapes]
    x, y = jnp.asarray(data.x.swapaxes(0, 1)), jnp.asarray(data.y.T)

    def cell(w: Any, b: Any, carry: Any, zx: Any) -> Any:
        h, c = carry
        zh = h @ w + b
        if kind == "RNN":
            h = jnp.tanh(zx + zh)
        elif kind == "LSTM":
            i, f, g, o = jnp.split(zx + zh, 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
        else:
            (xr, xz, xn), (hr, hz, hn) = jnp.split(zx, 3, axis=1), jnp.split(zh, 3, axis=1)
            z = jax.nn.sigmoid(xz + hz)
            n = jnp.tanh(xn + jax.nn.sigmoid(xr + hr) * hn)
            h = (1 - z) * n + z * h
        return (h, c), h

    def loss(p: Any) -> Any:
        start = (jnp.zeros((batch, hidden)), jnp.zeros((batch, hidden)))
        _, hs = jax.lax.scan(lambda s, z: cell(p[1], p[3], s, z), start, x @ p[0] + p[2])
        scores = jax.nn.log_softmax((hs if every else hs[-1]) @ p[4] + p[5])
        return -jnp.mean(jnp.take_along_axis(scores, y[..., None], -1))

    def step(state: Any) -> Any:
        p, ms, vs, t = state
        value, grads = jax.value_and_grad(loss)(p)
        ms = [0.9 * m + 0.1 * g for m, g in zip(ms, grads, strict=True)]
        vs = [0.999 * v + 0.001 * g * g for v, g in zip(vs, grads, strict=True)]
        rate = 1e-3 / (1 - 0.9**t)
        p = [
            a - rate * m / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
            for a, m, v in zip(p, ms, vs, strict=True)
        ]
        return (p, ms, vs, t + 1.0), value

    compiled = jax.jit(step, donate_argnums=0)
    zeros = [jnp.zeros_like(p) for p in params]
    more = [jnp.zeros_like(p) for p in params]
    holder: dict[str, Any] = {"state": (params, zeros, more, jnp.float32(1.0))}

    def steps(count: int) -> None:
        state, value = holder["state"], None
        for _ in range(count):
            state, value = compiled(state)
        jax.block_until_ready(value)
        holder["state"] = state

    return steps


def difference(mine: Any, gradients: Callable[[], Any], peer: Any, backward: Any) -> float:
    """The largest relative difference of a gradient, from equal parameters."""
    import torch

    before = mine.state_dict()
    peer.load_state_dict({k: torch.from_numpy(v) for k, v in before.items()})
    backward()
    found, worst = gradients(), 0.0
    for name, parameter in peer.named_parameters():
        want = parameter.grad.numpy()
        worst = float(np.maximum(worst, np.abs(found[name] - want).max() / np.abs(want).max()))
    return worst


def operations(kind: str, size: tuple[int, ...], steps: int) -> float:
    """Of the matrix products of the cell, over so many steps in all; none for dx."""
    return 2.0 * steps * KINDS[kind] * size[3] * (2 * size[2] + 3 * size[3])


def row(
    kind: str, size: tuple[int, int, int, int], options: Any, every: bool = True,
    varying: bool = False,
) -> dict[str, Any]:  # fmt: skip
    data = Data(size, every, varying)
    sides: dict[str, Any] = {}
    sides["fastnn"], model, gradients = ours(kind, size, data, options.threads, every)
    worst = None
    if "torch" in options.peers:
        _, peer, backward = torch_side(kind, size, data, options.threads, every, varying)
        worst = difference(model, gradients, peer, backward)
        assert worst < 1e-4, f"{kind} {size}: gradients differ by {worst}"
        sides["torch"], *_ = torch_side(kind, size, data, options.threads, every)
        if varying:
            sides["torch packed"], *_ = torch_side(kind, size, data, options.threads, every, True)
    if varying:
        whole = Data(size, every, False)
        sides["fastnn padded"], *_ = ours(kind, size, whole, options.threads, every)
    elif "jax" in options.peers:
        sides["jax"] = jax_side(kind, size, data, every)
    trip = harness.trip_of(options.threads)
    times = harness.alternate(sides, options.turns, options.budget, trip=trip)
    mine = times["fastnn"]["median"]
    others = {k: t["median"] for k, t in times.items() if not k.startswith("fastnn")}
    best = min(others, key=lambda k: others[k]) if others else None
    count = size[0] * size[1] if data.lengths is None else int(data.lengths.sum())
    found = {
        "kind": kind, "size": size, "loss": "every step" if every else "last step",
        "lengths": "1..T" if varying else "T", "threads": options.threads, "seconds": times,
        "difference": worst, "best_peer": best, "ratio": others[best] / mine if best else None,
        "share_of_peak": operations(kind, size, count) / mine / options.threads / options.peak,
    }  # fmt: skip
    if data.lengths is not None:
        ideal = data.lengths.mean() / size[0] * times["fastnn padded"]["median"]
        found["over_ideal"] = mine / ideal
    print(line(found), file=sys.stderr, flush=True)
    return found


def line(found: dict[str, Any]) -> str:
    times = ", ".join(
        f"{k} {v['median'] * 1e3:.2f} ({v['minimum'] * 1e3:.2f})"
        for k, v in found["seconds"].items()
    )
    ratio = f"{found['ratio']:.2f} x {found['best_peer']}" if found["ratio"] else "no peer"
    over = f"; {found['over_ideal']:.2f} x ideal" if "over_ideal" in found else ""
    return (
        f"{found['kind']:>4} {found['size']} loss at {found['loss']}, lengths {found['lengths']}: "
        f"median (minimum) ms {times}; {ratio}{over}; {found['share_of_peak']:.0%} of the peak"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--budget", type=float, default=4.0, help="seconds for each side")
    parser.add_argument("--only", default="", help="T,B,I,H of the rows to run")
    parser.add_argument("--kind", default="", help="RNN, LSTM or GRU")
    parser.add_argument("--peers", default="torch,jax")
    options = parser.parse_args()
    options.peers = [p for p in options.peers.split(",") if p]
    options.peak = limits.fma_peak() * 1e9
    plan: list[tuple[Any, dict[str, Any]]] = [(size, {}) for size in SIZES]
    plan += [(LAST, {"every": False}), (VARYING, {"varying": True})]
    rows = [
        row(kind, size, options, **more)
        for size, more in plan
        for kind in KINDS
        if options.kind in ("", kind) and options.only in ("", ",".join(map(str, size)))
    ]
    if options.kind or options.only or options.peers != ["torch", "jax"]:
        return
    command = f"python -m benchmarks.recurrent --threads {options.threads}"
    path = harness.write(
        f"recurrent-{options.threads}", command, rows, fma_peak_gflops=options.peak / 1e9
    )
    print(f"written to {path.name}")


if __name__ == "__main__":
    main()
