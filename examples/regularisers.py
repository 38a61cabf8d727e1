"""What each regulariser does to the border that a net draws between two classes.

    python examples/regularisers.py --picture regularisers.png

Two noisy half-moons, 40 points to learn from, a net of two layers of 64 ReLU units that could learn
them by heart. A panel for each regulariser shows the probability of the second class, the border,
and the share of wrong answers on the 40 points and on 2,000 others.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import callbacks, nn, ops, optim
from fastnn.files import new_figure, save_figure

#: points to learn from, to stop by, to measure with
LEARN, STOP, TEST = 40, 100, 2000
UNITS, RATE = 64, 0.01
#: what is drawn: from and to, of both coordinates
REACH = (-1.8, 2.8), (-1.4, 1.9)


def moons(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points on two half circles that interlock, with noise, and which of them each belongs to."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    angle = random.uniform(0, np.pi, count)
    x = np.cos(angle) + labels
    y = np.where(labels == 1, 0.5 - np.sin(angle), np.sin(angle))
    points = np.stack([x, y], axis=1) + random.normal(0, 0.3, (count, 2))
    return points.astype(np.float32), labels


def net(*after: Callable[[], nn.Module]) -> nn.Module:
    """Two layers of ReLU units, with these layers after each."""
    layers: list[nn.Module] = []
    for inputs in (2, UNITS):
        layers += [nn.Linear(inputs, UNITS), nn.ReLU(), *(make() for make in after)]
    return nn.Sequential(*layers, nn.Linear(UNITS, 2))


def drop_connect() -> nn.Module:
    """The activation belongs to the layer, which takes its mean over the dropped weights."""
    layers = (
        nn.DropConnect(inputs, UNITS, activation=nn.ReLU(), masks="sample") for inputs in (2, UNITS)
    )
    return nn.Sequential(*layers, nn.Linear(UNITS, 2))


def standout() -> nn.Module:
    return nn.Sequential(
        nn.Linear(2, UNITS), nn.Standout(), nn.Linear(UNITS, UNITS), nn.Standout(),
        nn.Linear(UNITS, 2),
    )  # fmt: skip


class Deep(nn.Module):
    """Four blocks of a residual net, which some samples skip."""

    def __init__(self, p: float) -> None:
        self.first, self.last = nn.Linear(2, UNITS), nn.Linear(UNITS, 2)
        self.blocks = nn.Sequential(*(
            nn.StochasticDepth(nn.Sequential(nn.Linear(UNITS, UNITS), nn.ReLU()), p)
            for _ in range(4)
        ))  # fmt: skip

    def forward(self, x: Any) -> Any:
        return self.last(self.blocks(ops.relu(self.first(x))))


#: name: the model, options of Adam, options of the trainer, callbacks
Kind = tuple[Callable[[], nn.Module], dict[str, Any], dict[str, Any], Callable[[], list[Any]]]
KINDS: dict[str, Kind] = {
    "none": (net, {}, {}, list),
    "L2Penalty(1e-2)": (net, {}, {"penalties": nn.L2Penalty(1e-2)}, list),
    "L1Penalty(2e-3)": (net, {}, {"penalties": nn.L1Penalty(2e-3)}, list),
    "ElasticNetPenalty(1e-3, 5e-3)": (
        net, {}, {"penalties": nn.ElasticNetPenalty(1e-3, 5e-3)}, list,
    ),
    "OrthogonalPenalty(1e-2)": (net, {}, {"penalties": nn.OrthogonalPenalty(1e-2)}, list),
    "decoupled_weight_decay=0.3": (net, {"decoupled_weight_decay": 0.3}, {}, list),
    "proximal_l1=0.03": (net, {"proximal_l1": 0.03}, {}, list),
    "max_norm=1": (net, {"max_norm": 1.0}, {}, list),
    "gradient_noise=0.1": (net, {"gradient_noise": 0.1}, {}, list),
    "Dropout(0.5)": (lambda: net(lambda: nn.Dropout(0.5)), {}, {}, list),
    "AnnealedDropout(0.5)": (
        lambda: net(lambda: nn.AnnealedDropout(0.5)), {}, {},
        lambda: [callbacks.AnnealDropout(200)],
    ),
    "DropConnect": (drop_connect, {}, {}, list),
    "Standout": (standout, {}, {}, list),
    "GaussianDropout(0.5)": (lambda: net(lambda: nn.GaussianDropout(0.5)), {}, {}, list),
    "GaussianNoise(0.3), of inputs": (
        lambda: nn.Sequential(nn.GaussianNoise(0.3), net()), {}, {}, list,
    ),
    "StochasticDepth(0.5)": (lambda: Deep(0.5), {}, {}, list),
    "label_smoothing=0.2": (
        net, {}, {"loss": nn.CrossEntropyLoss(label_smoothing=0.2)}, list,
    ),
    "mixup=1": (net, {}, {"mixup": 1.0}, list),
    "EarlyStopping": (net, {}, {}, lambda: [callbacks.EarlyStopping("val_loss", patience=20)]),
    "Dropout(0.5), max_norm=1": (
        lambda: net(lambda: nn.Dropout(0.5)), {"max_norm": 1.0}, {}, list,
    ),
}  # fmt: skip


def train(kind: Kind, epochs: int, seed: int) -> fnn.Trainer:
    make, rule, options, extra = kind
    options = {"loss": "cross_entropy", **options}
    optimizer = optim.Adam(lr=RATE, **rule)
    trainer = fnn.Trainer(make(), options.pop("loss"), optimizer, seed=seed, workers=1, **options)
    stop = moons(STOP, seed + 1) if extra is not list else None
    trainer.fit(*moons(LEARN, seed), batch_size=10, epochs=epochs, verbose=False,
                validation=stop, callbacks=extra())  # fmt: skip
    return trainer


def main(arguments: list[str] | None = None) -> dict[str, tuple[float, float]]:
    """The shares of wrong answers, in per cent: of what was learned from, and of other points."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), metavar="NAME")
    parser.add_argument("--picture", type=Path, help="where to write it")
    options = parser.parse_args(arguments)
    points, labels = moons(LEARN, options.seed)
    others, true = moons(TEST, options.seed + 2)
    x, y = (np.linspace(*reach, 120, dtype=np.float32) for reach in REACH)
    plane = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    rows = -(-len(options.only) // 5)
    figure = new_figure(11, 2.3 * rows)
    axes = figure.subplots(rows, 5, squeeze=False, sharex=True, sharey=True).ravel()
    found: dict[str, tuple[float, float]] = {}
    for axis, name in zip(axes, options.only, strict=False):
        model = train(KINDS[name], options.epochs, options.seed).model
        wrong = [
            100 * float((model.predict(at).argmax(axis=1) != of).mean())
            for at, of in ((points, labels), (others, true))
        ]
        found[name] = wrong[0], wrong[1]
        print(f"{name:32} {wrong[0]:5.1f} % wrong of {LEARN}, {wrong[1]:5.1f} % of others")
        logits = model.predict(plane)
        apart = np.clip(logits[:, 1] - logits[:, 0], -50, 50).reshape(len(y), len(x))
        share = 1 / (1 + np.exp(-apart))
        axis.contourf(x, y, share, levels=np.linspace(0, 1, 9), cmap="coolwarm")
        axis.contour(x, y, share, levels=[0.5], colors="black", linewidths=1)
        axis.scatter(*points.T, c=labels, cmap="coolwarm", edgecolors="white", s=16, linewidths=0.6)
        axis.set_title(f"{name}\n{wrong[0]:.0f} %, {wrong[1]:.1f} % wrong", fontsize=7)
    for axis in axes[len(options.only) :]:
        axis.set_axis_off()
    if options.picture:
        save_figure(figure, options.picture)
    return found


if __name__ == "__main__":
    main()
