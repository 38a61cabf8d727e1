"""MNIST by fully connected nets without augmentation: what regularisation brings.

python examples/mnist_mlp.py maxout --epochs 150 --seeds 5

plain         two hidden layers of 800 ReLU units
dropout       the same with dropout (Srivastava et al. 2014)
maxout        two layers of 240 maxout units of 5 pieces, dropout, limited norms (Goodfellow et al. 2013)
dropconnect   two layers of 800 whose weights are dropped, a mask for each sample (Wan et al. 2013)
standout      two layers of 800, kept by the belief net that shares their weights (Ba & Frey 2013)

All 60,000 images are trained with; nothing is chosen by the 10,000 of the test.
"""  # noqa: E501

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

import fastnn as fnn
from fastnn import nn, optim
from fastnn.data import load_mnist
from fastnn.train.hooks import Callback

BATCH = 100


def plain(units: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(784, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU(), nn.Linear(units, 10)
    )


def dropout(units: int) -> nn.Module:
    return nn.Sequential(
        nn.Dropout(0.2), nn.Linear(784, units), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(units, units), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(units, 10),
    )  # fmt: skip


def maxout(units: int) -> nn.Module:
    """Weights begin within 0.005, biases at 0, as in the paper's code."""
    units = max(3 * units // 10, 1)
    small = {"weight_init": partial(nn.init.uniform, low=-0.005, high=0.005), "bias_init": "zeros"}
    return nn.Sequential(
        nn.Dropout(0.2), nn.Linear(784, 5 * units, **small), nn.Maxout(5),
        nn.Dropout(0.5), nn.Linear(units, 5 * units, **small), nn.Maxout(5),
        nn.Dropout(0.5), nn.Linear(units, 10, **small),
    )  # fmt: skip


def dropconnect(units: int) -> nn.Module:
    return nn.Sequential(
        nn.DropConnect(784, units, activation=nn.ReLU(), masks="sample", weight_init="he_normal"),
        nn.DropConnect(units, units, activation=nn.ReLU(), masks="sample", weight_init="he_normal"),
        nn.Linear(units, 10),
    )


def standout(units: int) -> nn.Module:
    return nn.Sequential(
        nn.Dropout(0.2), nn.Linear(784, units), nn.Standout(beta=1.0),
        nn.Linear(units, units), nn.Standout(beta=1.0), nn.Linear(units, 10),
    )  # fmt: skip


METHODS: dict[str, tuple[Callable[[int], nn.Module], float, float, float | None]] = {
    # maker, rate, momentum, largest norm of a unit's weights
    "plain": (plain, 0.1, 0.9, None),
    "dropout": (dropout, 0.05, 0.9, 2.0),
    "maxout": (maxout, 0.1, 0.7, 1.9365),
    "dropconnect": (dropconnect, 0.1, 0.9, None),
    "standout": (standout, 0.1, 0.9, 2.0),
}


class Report(Callback):
    """Prints the test error now and then; nothing depends on it."""

    def __init__(self, x: np.ndarray, y: np.ndarray, every: int) -> None:
        self.x, self.y, self.every, self.begin = x, y, every, time.perf_counter()

    def on_epoch_end(self, epoch, logs):
        if (epoch + 1) % self.every == 0:
            wrong = (self.model.predict(self.x).argmax(axis=1) != self.y).mean()
            seconds = time.perf_counter() - self.begin
            print(
                f"  epoch {epoch + 1}: loss {logs['loss']:.4f}, test error {100 * wrong:.2f} %, "
                f"{seconds:.0f} s", flush=True,
            )  # fmt: skip


def run(
    name: str, data, seed: int, epochs: int, units: int, every: int, precision: str = "highest"
) -> float:
    """Test error, in per cent, after training."""
    make, rate, momentum, norm = METHODS[name]
    (x, y), (x_test, y_test) = data
    steps = epochs * -(-len(x) // BATCH)
    schedule = optim.schedules.CosineAnnealing(steps)
    optimizer = optim.SGD(lr=rate, momentum=momentum, max_norm=norm, schedule=schedule)
    model = make(units)
    trainer = fnn.Trainer(model, "cross_entropy", optimizer, seed=seed, precision=precision)
    watch = Report(x_test, y_test, every)
    trainer.fit(x, y, batch_size=BATCH, epochs=epochs, callbacks=[watch], verbose=False)
    return 100 * float((model.predict(x_test).argmax(axis=1) != y_test).mean())


def main(arguments: list[str] | None = None, data=None) -> dict[str, list[float]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=[*METHODS, "all"], metavar="NAME")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--units", type=int, default=800)
    parser.add_argument("--every", type=int, default=10, help="epochs between reports")
    parser.add_argument("--precision", default="highest", help="of products in training")
    parser.add_argument("--folder", type=Path, help="where MNIST's files are, else they are loaded")
    options = parser.parse_args(arguments)
    if data is None:
        parts = load_mnist(folder=options.folder) if options.folder else load_mnist()
        data = tuple((np.ascontiguousarray(a.reshape(len(a), -1)), b) for a, b in parts)
    errors: dict[str, list[float]] = {}
    for name in METHODS if "all" in options.names else options.names:
        begin = time.perf_counter()
        errors[name] = [
            run(name, data, seed, options.epochs, options.units, options.every, options.precision)
            for seed in range(options.first, options.first + options.seeds)
        ]
        each = (time.perf_counter() - begin) / options.seeds
        print(
            f"{name}: test error {np.mean(errors[name]):.2f} % (mean of {options.seeds}: "
            f"{', '.join(f'{e:.2f}' for e in errors[name])}), {each:.0f} s each", flush=True,
        )  # fmt: skip
    return errors


if __name__ == "__main__":
    main()
