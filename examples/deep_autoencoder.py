"""A deep autoencoder of sigmoid units on MNIST: Hessian-free optimisation against Adam.

python examples/deep_autoencoder.py --seconds 600

The net is 784-400-200-100-50-25-6 and back (Hinton and Salakhutdinov 2006; Martens 2010). Both
begin with the same weights and have the same time of one core. The error is the squared difference
of an image, summed over its pixels, on images that were not trained with.
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

import fastnn as fnn
from fastnn import nn, optim
from fastnn.data import load_mnist
from fastnn.train.hooks import Callback

SIZES = (400, 200, 100, 50, 25, 6)


def autoencoder(inputs: int, sizes=SIZES) -> nn.Module:
    """Sigmoid units but for the code; the weights are sparse at first, as in Martens 2010: 15 for
    each unit."""
    widths = [inputs, *sizes, *sizes[-2::-1], inputs]
    layers: list[nn.Module] = []
    for k, (before, after) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(before, after))
        if k not in (len(sizes) - 1, len(widths) - 2):
            layers.append(nn.Sigmoid())
    model = nn.Sequential(*layers)
    source = np.random.default_rng(0)
    for name, parameter in model.named_parameters().items():
        value = np.zeros(parameter.shape)
        if name.endswith("weight"):
            for row in value:
                places = source.permutation(len(row))[:15]
                row[places] = source.normal(size=len(places))
        parameter.value = value
    return model


class Watch(Callback):
    """Notes the time and the errors, and ends the training when its time is over."""

    def __init__(self, data, test, seconds: float) -> None:
        self.data, self.test, self.seconds = data, test, seconds
        self.begin, self.rows, self.next = time.process_time(), [], 0.0

    def error(self, x) -> float:
        found = 1 / (1 + np.exp(-self.model.predict(x).astype(np.float64)))
        return float(((found - x) ** 2).sum(axis=1).mean())

    def on_epoch_end(self, epoch, logs):
        now = time.process_time()
        if now - self.begin >= min(self.next, self.seconds):
            self.rows.append(
                (now - self.begin, epoch + 1, self.error(self.data), self.error(self.test))
            )
            print("  {:.0f} s, epoch {}: {:.2f} in training, {:.2f} in test".format(*self.rows[-1]),
                  flush=True)  # fmt: skip
            self.next = now - self.begin + self.seconds / 10
            self.begin += time.process_time() - now  # the look costs nothing
        if time.process_time() - self.begin >= self.seconds:
            self.trainer.stop_training = True


def main(arguments: list[str] | None = None, data=None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="of one core, for each")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="where MNIST's files are, else they are loaded")
    options = parser.parse_args(arguments)
    if data is None:
        parts = load_mnist(folder=options.folder) if options.folder else load_mnist()
        data = parts[0][0], parts[1][0]
    x, test = (np.ascontiguousarray(a.reshape(len(a), -1)) for a in data)
    x, test = x[: options.images], test[: options.images]
    found = {}
    for name, optimizer, size in (
        ("Adam", optim.Adam(lr=1e-3), {"batch_size": 100}),
        (
            "Hessian-free",
            optim.HessianFree(damping=45 / 784),
            {},
        ),  # Martens: 45, of sums over pixels,
    ):
        print(name, flush=True)
        trainer = fnn.Trainer(
            autoencoder(x.shape[1]), "bce_with_logits", optimizer, workers=1, seed=0
        )
        watch = Watch(x, test, options.seconds)
        trainer.fit(x, x, epochs=10**6, callbacks=[watch], verbose=False, **size)
        found[name] = watch.error(test)
        print(f"  test error {found[name]:.2f}", flush=True)
    return found


if __name__ == "__main__":
    main()
