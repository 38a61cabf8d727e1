"""Nets whose kernels `benchmarks.roofline` shows beside their limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import nn, optim

#: of a case: a compiled step, its inputs and targets, and which kernels are shown ("": all)
Case = tuple[Any, Any, Any, tuple[str, ...]]
RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


class Every(nn.Module):
    """A recurrent layer with a linear one behind each step."""

    def __init__(self, layer: nn.Module, hidden: int, classes: int = 10) -> None:
        self.layer, self.out = layer, nn.Linear(hidden, classes)

    def forward(self, x: Any) -> Any:
        return self.out(self.layer(x)[0])


class Tagged(nn.Module):
    """Embedded words with a linear layer."""

    def __init__(self, words: int, width: int) -> None:
        self.embedding, self.out = nn.Embedding(words, width), nn.Linear(width, 10)

    def forward(self, x: Any) -> Any:
        return self.out(self.embedding(x))


class Tagging(nn.Module):
    """Scores of tags, and of a tag behind another."""

    def __init__(self, features: int, tags: int) -> None:
        self.scores, self.crf = nn.Linear(features, tags), nn.CRF(tags)

    def forward(self, x: Any) -> Any:
        return self.scores(x)


class Attending(nn.Module):
    """Self-attention between two linear layers."""

    def __init__(self, width: int, heads: int) -> None:
        self.first, self.out = nn.Linear(width, width), nn.Linear(width, 10)
        self.attention = nn.MultiHeadAttention(width, heads)

    def forward(self, x: Any) -> Any:
        return self.out(self.attention(self.first(x)))


def compiled(model: nn.Module, loss: Any = None, optimizer: Any = None) -> Any:
    return fnn.compile(
        model, loss or nn.CrossEntropyLoss(), optimizer or optim.SGD(lr=1e-6), workers=1
    )


def recurrent(kind: str, hidden: int, batch: int = 32, steps: int = 100) -> Callable[[], Case]:
    def made() -> Case:
        layer = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}[kind](40, hidden)
        y = RNG.integers(0, 10, (batch, steps))
        names = f"{kind.lower()}_forward", f"{kind.lower()}_backward", "sequence_backward_weight"
        return compiled(Every(layer, hidden)), floats(batch, steps, 40), y, names

    return made


def between(
    make: Callable[[], nn.Module], *names: str, rows: int = 256, width: int = 1024
) -> Callable[[], Case]:
    """A layer between two linear ones."""

    def made() -> Case:
        model = nn.Sequential(nn.Linear(16, width), make(), nn.Linear(width, 10))
        return compiled(model), floats(rows, 16), RNG.integers(0, 10, rows), names

    return made


def images(
    layers: Callable[[], list[nn.Module]], shape: tuple[int, int, int], *names: str, rows: int = 32
) -> Callable[[], Case]:
    """Layers on images (channels, height, width), a linear one behind them."""

    def made() -> Case:
        inner = nn.Sequential(*layers(), nn.Flatten())
        features = inner.predict(floats(1, *shape)).shape[1]
        model = nn.Sequential(*layers(), nn.Flatten(), nn.Linear(features, 10))
        return compiled(model), floats(rows, *shape), RNG.integers(0, 10, rows), names

    return made


def updating(make: Callable[[], Any]) -> Callable[[], Case]:
    """An optimiser's update of a million parameters."""

    def made() -> Case:
        optimizer = make()
        step = compiled(nn.Linear(1024, 1024, bias=False), None, optimizer)
        return step, floats(4, 1024), RNG.integers(0, 1024, 4), (optimizer.kernels()[1],)

    return made


def tagging(batch: int, steps: int, tags: int) -> Callable[[], Case]:
    def made() -> Case:
        model = Tagging(16, tags)
        y = RNG.integers(0, tags, (batch, steps))
        return compiled(model, nn.CRFLoss(model.crf)), floats(batch, steps, 16), y, ("crf",)

    return made


def cases() -> dict[str, Callable[[], Case]]:
    """By name, how each case is made."""
    found: dict[str, Callable[[], Case]] = {}
    for kind in ("RNN", "LSTM", "GRU"):
        for hidden in (64, 128, 256):
            found[f"{kind} T100 B32 H{hidden}"] = recurrent(kind, hidden)
        found[f"{kind} T100 B1 H64"] = recurrent(kind, 64, 1)
    found["dropout 256x1024"] = between(lambda: nn.Dropout(0.5), "dropout")
    found["layer norm 256x1024"] = between(lambda: nn.LayerNorm(1024), "layer_norm")
    for width in (1000, 1024):
        found[f"batch norm 256x{width}"] = between(
            lambda width=width: nn.BatchNorm(width), "batch_norm", width=width
        )
    for c in (16, 32):
        found[f"batch norm 64x16x16, {c} channels"] = images(
            lambda c=c: [nn.Conv2d(c, c, 1), nn.BatchNorm2d(c)], (c, 16, 16), "batch_norm", rows=64
        )
    for layer in (nn.ReLU, nn.Tanh, nn.Sigmoid):
        found[f"{layer.__name__} 256x1024"] = between(layer, layer.__name__.lower())
    found["softmax 256x1024"] = between(nn.Softmax, "softmax")
    found["1600 of 10,000 words x 128"] = lambda: (
        compiled(Tagged(10_000, 128)), RNG.integers(0, 10_000, (32, 50)),
        RNG.integers(0, 10, (32, 50)), ("embedding",),
    )  # fmt: skip
    found["attention T128 4x64"] = lambda: (
        compiled(Attending(256, 4)), floats(8, 128, 256), RNG.integers(0, 10, (8, 128)),
        ("attention",),
    )  # fmt: skip
    found["CTC T200 C40 L30"] = lambda: (
        compiled(nn.Linear(16, 40), nn.CTCLoss()), floats(16, 200, 16),
        RNG.integers(1, 40, (16, 30)), ("ctc",),
    )  # fmt: skip
    for tags in (9, 45):
        found[f"CRF T50 B32 C{tags}"] = tagging(32, 50, tags)
    found["256 of 1000 classes"] = lambda: (
        compiled(nn.Linear(16, 1000)), floats(256, 16), RNG.integers(0, 1000, 256),
        ("cross_entropy",),
    )  # fmt: skip
    conv = "convolution", "depthwise", "winograd"
    for name, shape, layer in (
        ("5x5, 1 to 6", (1, 28, 28), lambda: nn.Conv2d(1, 6, 5, padding=2)),
        ("5x5, 6 to 16", (6, 14, 14), lambda: nn.Conv2d(6, 16, 5)),
        ("3x3, 64 to 64", (64, 16, 16), lambda: nn.Conv2d(64, 64, 3, padding=1)),
        ("3x3 stride 2, 64 to 64", (64, 16, 16), lambda: nn.Conv2d(64, 64, 3, 2, 1)),
        ("3x3 of each of 64", (64, 16, 16), lambda: nn.Conv2d(64, 64, 3, padding=1, groups=64)),
    ):
        found[name] = images(
            lambda c=shape[0], layer=layer: [nn.Conv2d(c, c, 1), layer()], shape, *conv
        )
    for kind in (nn.MaxPool2d, nn.AvgPool2d):
        found[f"{kind.__name__}(2) 32x24x24x16"] = images(
            lambda kind=kind: [nn.Conv2d(16, 16, 1), kind(2)], (16, 24, 24), "pool"
        )
    for make in (
        lambda: optim.SGD(lr=1e-6), lambda: optim.SGD(lr=1e-6, momentum=0.9), optim.Adagrad,
        optim.RMSprop, optim.Adadelta, optim.Adam, optim.AdamW, optim.Adamax, optim.NAdam,
        optim.RAdam, optim.Lion,
    ):  # fmt: skip
        optimizer = make()
        found[f"{optimizer.kernels()[1]}"] = updating(make)
    return found
