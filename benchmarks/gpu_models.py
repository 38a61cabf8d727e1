"""The models of the GPU benchmark, in fastnn and in PyTorch, with the same parameters."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnn import nn

Arrays = tuple[np.ndarray, ...]


class Case:
    """A training step: a model for each side, one mini-batch, and what the peer's ways are.

    Args:
        name: what the table calls it.
        model: makes fastnn's model.
        peer: makes PyTorch's; its parameters have the same names and shapes.
        x, y: the mini-batch.
        ways: PyTorch's ways to run it, of `benchmarks.gpu_torch`.
        goal: way -> how many times faster we want to be.
    """

    def __init__(
        self, name: str, model: Callable[[], nn.Module], peer: Callable[[], Any], x: Arrays,
        y: np.ndarray, ways: tuple[str, ...], goal: dict[str, float],
    ):  # fmt: skip
        self.name, self.model, self.peer, self.x, self.y = name, model, peer, x, y
        self.ways, self.goal = ways, goal


def mlp(*sizes: int, batch: int) -> Case:
    def model() -> nn.Module:
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Linear(a, b), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    def peer() -> Any:
        import torch

        layers: list[Any] = []
        for a, b in itertools.pairwise(sizes):
            layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
        return torch.nn.Sequential(*layers[:-1])

    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, sizes[0])).astype(np.float32)
    y = rng.integers(0, sizes[-1], batch)
    name = f"MLP {'-'.join(map(str, sizes))} B{batch}"
    goal = {"eager": 3.0, "reduce-overhead": 1.2}
    return Case(name, model, peer, (x,), y, ("eager", "reduce-overhead", "graph"), goal)


class CharLM(nn.Module):
    def __init__(self, symbols: int, hidden: int, layers: int):
        self.embed = nn.Embedding(symbols, 64)
        self.lstm = nn.LSTM(64, hidden, layers)
        self.out = nn.Linear(hidden, symbols)

    def forward(self, ids: Any) -> Any:
        return self.out(self.lstm(self.embed(ids))[0])


def char_lm(hidden: int = 256, steps: int = 64, batch: int = 32, symbols: int = 65) -> Case:
    def peer() -> Any:
        import torch

        class Peer(torch.nn.Module):  # type: ignore[misc,name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.embed = torch.nn.Embedding(symbols, 64)
                self.lstm = torch.nn.LSTM(64, hidden, 2, batch_first=True)
                self.out = torch.nn.Linear(hidden, symbols)

            def forward(self, ids: Any) -> Any:
                return self.out(self.lstm(self.embed(ids))[0])

        return Peer()

    rng = np.random.default_rng(0)
    ids = rng.integers(0, symbols, (batch, steps))
    y = rng.integers(0, symbols, (batch, steps))
    goal = {"eager": 3.0, "reduce-overhead": 1.2}
    return Case(
        f"char LM 2xLSTM{hidden} T{steps} B{batch}", lambda: CharLM(symbols, hidden, 2), peer,
        (ids,), y, ("eager", "reduce-overhead", "graph"), goal,
    )  # fmt: skip


class Recurrent(nn.Module):
    """A recurrent layer with a classifier of every step."""

    def __init__(self, kind: str, inputs: int, hidden: int, classes: int, **options: Any):
        self.layer = getattr(nn, kind)(inputs, hidden, **options)
        self.out = nn.Linear(hidden, classes)

    def forward(self, x: Any, lengths: Any = None) -> Any:
        return self.out(self.layer(x, lengths=lengths)[0])


def recurrent(
    kind: str, hidden: int, batch: int, steps: int, goal: dict[str, float], inputs: int = 64,
    lengths: bool = False, peepholes: bool = False,
) -> Case:  # fmt: skip
    """An RNN, LSTM or GRU; with `lengths` those are uniform in 1..T, and losses past them count
    nothing."""
    classes = 10
    options = {"peepholes": True} if peepholes else {}
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, steps, inputs)).astype(np.float32)
    y = rng.integers(0, classes, (batch, steps))
    arrays: Arrays = (x,)
    if lengths:
        long = rng.integers(1, steps + 1, batch)
        y[np.arange(steps) >= long[:, None]] = -100
        arrays = (x, long)

    def peer() -> Any:
        from benchmarks import gpu_torch

        if peepholes:
            return gpu_torch.peephole_model(inputs, hidden, classes)
        return gpu_torch.recurrent_model(kind, inputs, hidden, classes)

    ways: tuple[str, ...] = ("eager", "graph")
    if lengths:  # a graph can't have packed sequences: it goes over the padded ones
        ways = ("packed", *ways)
    elif peepholes:
        ways = ("eager", "reduce-overhead", "graph")
    name = f"{'peephole ' if peepholes else ''}{kind} H{hidden} B{batch} T{steps}"
    return Case(
        name + (", lengths 1..T" if lengths else ""),
        lambda: Recurrent(kind, inputs, hidden, classes, **options), peer, arrays, y, ways, goal,
    )  # fmt: skip


def images(side: int, channels: int, batch: int) -> Case:
    """Two convolutions with pooling, and a classifier."""
    features = 2 * channels * (side // 4) ** 2

    def layers(of: Any) -> list[Any]:
        return [
            of.Conv2d(1, channels, 5, padding=2), of.ReLU(), of.MaxPool2d(2),
            of.Conv2d(channels, 2 * channels, 5, padding=2), of.ReLU(), of.MaxPool2d(2),
            of.Flatten(), of.Linear(features, 10),
        ]  # fmt: skip

    def peer() -> Any:
        import torch

        return torch.nn.Sequential(*layers(torch.nn))

    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, 1, side, side)).astype(np.float32)
    return Case(
        f"convolutions {side}x{side} {channels}-{2 * channels} B{batch}",
        lambda: nn.Sequential(*layers(nn)), peer, (x,), rng.integers(0, 10, batch),
        ("eager", "reduce-overhead", "graph"), {"eager": 1.0},
    )  # fmt: skip


class Attending(nn.Module):
    """A Transformer's layer with a classifier of every step."""

    def __init__(self, size: int, heads: int):
        self.layer = nn.TransformerEncoderLayer(size, heads, 4 * size, 0.0)
        self.out = nn.Linear(size, 10)

    def forward(self, x: Any) -> Any:
        return self.out(self.layer(x))


def attention(size: int, heads: int, batch: int, steps: int) -> Case:
    def peer() -> Any:
        from benchmarks import gpu_torch

        return gpu_torch.attending_model(size, heads, 10)

    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, steps, size)).astype(np.float32)
    return Case(
        f"attention E{size} {heads} heads B{batch} T{steps}", lambda: Attending(size, heads), peer,
        (x,), rng.integers(0, 10, (batch, steps)), ("eager", "reduce-overhead", "graph"),
        {"eager": 1.0},
    )  # fmt: skip


def cases(small: bool = False) -> list[Case]:
    """The rows of the table; `small`: of sizes that try the program itself out on a CPU."""
    if small:
        return [
            mlp(20, 16, 10, batch=8),
            char_lm(hidden=16, steps=6, batch=4, symbols=11),
            recurrent("LSTM", 8, 4, 7, {"eager": 1.5}, 6),
            recurrent("GRU", 8, 4, 7, {"eager": 1.5}, 6),
            recurrent("RNN", 8, 4, 7, {"eager": 1.2}, 6),
            recurrent("LSTM", 8, 4, 7, {"packed": 2.0}, 6, lengths=True),
            recurrent("LSTM", 8, 4, 7, {"eager": 5.0}, 6, peepholes=True),
            images(8, 3, batch=4),
            attention(8, 2, batch=3, steps=5),
        ]
    return [
        mlp(784, 128, 10, batch=128),
        mlp(784, 512, 512, 10, batch=256),
        char_lm(),
        *(recurrent("LSTM", h, 16, 512, {"eager": 1.5}) for h in (256, 512)),
        *(recurrent("GRU", h, 16, 512, {"eager": 1.5}) for h in (256, 512)),
        recurrent("RNN", 256, 16, 512, {"eager": 1.2}),
        recurrent("LSTM", 256, 64, 400, {"packed": 2.0, "eager": 1.2}, lengths=True),
        recurrent("LSTM", 256, 16, 128, {"eager": 5.0}, peepholes=True),
        images(28, 16, batch=128),
        attention(256, 4, batch=16, steps=512),
    ]
