"""Every optimiser on handwritten digits: a table with the default and the best of some rates.

python examples/optimizers.py                       # 8x8 digits that come with scikit-learn
python examples/optimizers.py --usps FOLDER         # 16x16 digits: zip.train.gz and zip.test.gz
python examples/optimizers.py --mnist --hidden 64 --epochs 3 --factors 0.1 1 10 100
python examples/optimizers.py --mnist --only lbfgs cg --full-epochs 60 --in-all
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fastnn as fnn
from fastnn import nn, optim
from fastnn.data import load_digits, load_mnist
from fastnn.train.hooks import Callback
from fastnn.train.options import optimizers

#: these look at single signs or differences of gradients: the whole data set is their batch
FULL_BATCH = ("rprop", "irprop", "quickprop", "delta_bar_delta")
#: these take the whole data set in any case, and have no rate to tune
SECOND_ORDER = ("lbfgs", "cg", "hessian_free")
#: this one writes out a square matrix of all parameters
TOO_LARGE = ("levenberg_marquardt",)
#: factors of the default rate that are tried
FACTORS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
ENOUGH = 0.97
Data = tuple[np.ndarray, np.ndarray]


def usps(folder: Path) -> tuple[Data, Data]:
    """The 16x16 digits of LeCun et al. 1989, as "The elements of statistical learning" has them:
    a label and 256 pixels in [-1, 1] a line."""
    found = []
    for name in ("zip.train.gz", "zip.test.gz"):
        table = np.loadtxt(folder / name, dtype=np.float32)
        found.append((np.ascontiguousarray(table[:, 1:]), table[:, 0].astype(np.int64)))
    return found[0], found[1]


def mnist() -> tuple[Data, Data]:
    """28x28 digits, pixels in [0, 1]."""
    (x, y), (x_test, y_test) = load_mnist()
    return (x.reshape(len(x), -1), y), (x_test.reshape(len(x_test), -1), y_test)


class Reached(Callback):
    """Notes the first epoch with enough accuracy, and the processor seconds until then."""

    def __init__(self) -> None:
        self.begin, self.epoch, self.seconds = time.process_time(), 0, float("nan")
        self.in_all, self.right = float("nan"), float("nan")

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        self.in_all, self.right = time.process_time() - self.begin, logs["accuracy"]
        if not self.epoch and self.right >= ENOUGH:
            self.epoch, self.seconds = epoch + 1, self.in_all


class Result(NamedTuple):
    """Epochs and processor seconds to enough accuracy in training; loss and test error after it;
    processor seconds of all epochs, and the accuracy in the last one."""

    epoch: int
    seconds: float
    loss: float
    error: float
    in_all: float
    right: float

    def cells(self, rate: float | None, in_all: bool) -> list[str]:
        found = [
            "-" if rate is None else f"{rate:.3g}", str(self.epoch or "-"),
            f"{self.seconds:.2f}" if self.epoch else "-",
            f"{100 * self.error:.1f} %" if np.isfinite(self.error) else "diverged",
        ]  # fmt: skip
        return [*found, f"{self.in_all:.2f}", f"{100 * self.right:.1f} %"] if in_all else found


def run(
    optimizer: optim.Optimizer, train: Data, test: Data, epochs: int, batch: int | None,
    hidden: int,
) -> Result:  # fmt: skip
    """Train a net of one hidden layer on one worker, `batch` None: as the method has it."""
    inputs = train[0].shape[1]
    model = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    trainer = fnn.Trainer(
        model, "cross_entropy", optimizer, metrics=["accuracy"], device="cpu", workers=1
    )
    trainer.fit(*train, batch_size=batch, epochs=0, verbose=False)  # what is compiled is compiled
    reached = Reached()
    given = {"epochs": epochs, "callbacks": [reached], "verbose": False}
    try:
        history = trainer.fit(*train, batch_size=batch, **given)
    except fnn.errors.NonFiniteError:
        return Result(0, float("nan"), float("inf"), float("nan"), reached.in_all, reached.right)
    try:
        with trainer.averaged():
            error = 1 - trainer.evaluate(*test)["accuracy"]
    except fnn.errors.OptionError:  # it keeps no average
        error = 1 - trainer.evaluate(*test)["accuracy"]
    seen = (reached.in_all, reached.right)
    return Result(reached.epoch, reached.seconds, history["loss"][-1], error, *seen)


def makers() -> dict[str, Callable[..., optim.Optimizer]]:
    """All optimisers by name, wrappers around Adam among them."""
    found: dict[str, Callable[..., optim.Optimizer]] = {
        "sgd": optim.SGD,
        "momentum": lambda **m: optim.SGD(momentum=0.9, **m),
        "nesterov": lambda **m: optim.SGD(momentum=0.9, nesterov=True, **m),
        "rmsprop centred": lambda **m: optim.RMSprop(centered=True, momentum=0.9, **m),
    }
    found |= optimizers()
    found["ema of adam"] = lambda **m: optim.EMA(optim.Adam(**m), decay=0.99)
    found["swa of adam"] = lambda **m: optim.SWA(optim.Adam(**m), start=500)
    found["lookahead of adam"] = lambda **m: optim.Lookahead(optim.Adam(**m))
    return found


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--usps", type=Path, help="folder with zip.train.gz and zip.test.gz")
    source.add_argument("--mnist", action="store_true", help="28x28 digits; needs 0.3 GB of memory")
    parser.add_argument("--epochs", type=int, default=20, help="of mini-batches, and hessian_free")
    parser.add_argument("--full-epochs", type=int, help="of full batches: ten times as many")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=128, help="units of the hidden layer")
    parser.add_argument("--factors", type=float, nargs="*", default=FACTORS, help="of the rate")
    parser.add_argument("--only", nargs="*", help="names of optimisers")
    help_ = "print seconds and training accuracy after all epochs, too"
    parser.add_argument("--in-all", action="store_true", help=help_)
    options = parser.parse_args(arguments)
    if options.usps:
        train, test = usps(options.usps)
    else:
        train, test = mnist() if options.mnist else load_digits()
    full_epochs = options.full_epochs or 10 * options.epochs
    more = ["seconds in all", "right in training"] if options.in_all else []
    heads = ["optimiser", "rate", "epochs to 97 %", "seconds", "test error", *more,
             "best rate", "epochs", "seconds", "test error", *more]  # fmt: skip
    print("| " + " | ".join(heads) + " |")
    print("|" + "---|" * len(heads))
    errors = {}
    for name, make in makers().items():
        if name in TOO_LARGE or (options.only and name not in options.only):
            continue
        if name in SECOND_ORDER:
            epochs = options.epochs if name == "hessian_free" else full_epochs
            found = run(make(), train, test, epochs, None, options.hidden)
            cells = [f"{name} (full batch)", *found.cells(None, options.in_all)]
            print("| " + " | ".join(cells + ["-"] * (len(heads) - len(cells))) + " |", flush=True)
            errors[name] = found.error
            continue
        full = name in FULL_BATCH
        batch = len(train[0]) if full else options.batch_size
        epochs = full_epochs if full else options.epochs
        default = float(make().options["lr"])
        tried = {
            factor: run(make(lr=default * factor), train, test, epochs, batch, options.hidden)
            for factor in {1.0, *options.factors}
        }
        best = min(tried, key=lambda f: (tried[f].epoch or 10**6, tried[f].loss))
        cells = [f"{name}{' (full batch)' if full else ''}"]
        for factor in (1.0, best):
            cells += tried[factor].cells(default * factor, options.in_all)
        print("| " + " | ".join(cells) + " |", flush=True)
        errors[name] = tried[best].error
    return errors


if __name__ == "__main__":
    main()
