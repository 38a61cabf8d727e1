"""Every optimiser on handwritten digits: a table with the default and the best of some rates.

python examples/optimizers.py                       # 8x8 digits that come with scikit-learn
python examples/optimizers.py --usps FOLDER         # 16x16 digits: zip.train.gz and zip.test.gz
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastnn as fnn
from fastnn import nn, optim
from fastnn.data.digits import load_digits
from fastnn.train.hooks import Callback
from fastnn.train.options import OPTIMIZERS

#: these look at single signs or differences of gradients: the whole data set is their batch
FULL_BATCH = ("rprop", "irprop", "quickprop", "delta_bar_delta")
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


class Reached(Callback):
    """Notes the first epoch with enough accuracy, and the seconds until then."""

    def __init__(self) -> None:
        self.begin, self.epoch, self.seconds = time.perf_counter(), 0, float("nan")

    def on_epoch_end(self, epoch: int, logs: Any) -> None:
        if not self.epoch and logs["accuracy"] >= ENOUGH:
            self.epoch, self.seconds = epoch + 1, time.perf_counter() - self.begin


def run(
    optimizer: optim.Optimizer, train: Data, test: Data, epochs: int, batch: int
) -> tuple[int, float, float]:
    """Epochs and seconds to enough accuracy in training, and the test error at the end."""
    inputs = train[0].shape[1]
    model = nn.Sequential(nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, 10))
    trainer = fnn.Trainer(model, "cross_entropy", optimizer, metrics=["accuracy"], device="cpu")
    trainer.fit(*train, batch_size=batch, epochs=0, verbose=False)  # what is compiled is compiled
    reached = Reached()
    try:
        trainer.fit(*train, batch_size=batch, epochs=epochs, callbacks=[reached], verbose=False)
    except fnn.errors.NonFiniteError:
        return 0, float("nan"), float("nan")
    try:
        with trainer.averaged():
            error = 1 - trainer.evaluate(*test)["accuracy"]
    except fnn.errors.OptionError:  # it keeps no average
        error = 1 - trainer.evaluate(*test)["accuracy"]
    return reached.epoch, reached.seconds, error


def makers() -> dict[str, Callable[..., optim.Optimizer]]:
    """All optimisers by name, wrappers around Adam among them."""
    found: dict[str, Callable[..., optim.Optimizer]] = {
        "sgd": optim.SGD,
        "momentum": lambda **m: optim.SGD(momentum=0.9, **m),
        "nesterov": lambda **m: optim.SGD(momentum=0.9, nesterov=True, **m),
        "rmsprop centred": lambda **m: optim.RMSprop(centered=True, momentum=0.9, **m),
    }
    found |= OPTIMIZERS
    found["ema of adam"] = lambda **m: optim.EMA(optim.Adam(**m), decay=0.99)
    found["swa of adam"] = lambda **m: optim.SWA(optim.Adam(**m), start=500)
    found["lookahead of adam"] = lambda **m: optim.Lookahead(optim.Adam(**m))
    return found


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--usps", type=Path, help="folder with zip.train.gz and zip.test.gz")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--only", nargs="*", help="names of optimisers")
    options = parser.parse_args(arguments)
    train, test = usps(options.usps) if options.usps else load_digits()
    print("| optimiser | rate | epochs to 97 % | seconds | test error | best rate | epochs "
          "| seconds | test error |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    errors = {}
    for name, make in makers().items():
        if options.only and name not in options.only:
            continue
        full = name in FULL_BATCH
        batch, epochs = (len(train[0]), 10 * options.epochs) if full else (32, options.epochs)
        default = float(make().options["lr"])
        found = {}
        for factor in FACTORS:
            rate = default * factor
            found[rate] = run(make(lr=rate), train, test, epochs, batch)
        best = min(found, key=lambda r: (found[r][0] or 10**6, found[r][2]))
        cells = [f"{name}{' (full batch)' if full else ''}"]
        for rate in (default, best):
            reached, seconds, error = found[rate]
            cells += [f"{rate:.3g}", str(reached or "-"), f"{seconds:.2f}" if reached else "-",
                      f"{100 * error:.1f} %"]  # fmt: skip
        print("| " + " | ".join(cells) + " |", flush=True)
        errors[name] = found[best][2]
    return errors


if __name__ == "__main__":
    main()
