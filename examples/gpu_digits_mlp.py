"""Handwritten digits on a GPU; the same program trains on the CPU.

python examples/gpu_digits_mlp.py --device cuda
python examples/gpu_digits_mlp.py --device cuda --check    (and on the CPU: the losses agree)
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import fastnn as fnn
from fastnn import nn, optim
from fastnn.data.digits import load_digits

#: how far the losses of two devices may lie apart: sums have another order there, and training
#: makes rounding errors grow
TOLERANCE = 2e-3


def train(device: str, options: argparse.Namespace) -> list[float]:
    """Train on a device; the losses of the epochs."""
    (x_train, y_train), (x_test, y_test) = load_digits()
    model = nn.Sequential(
        nn.Linear(64, options.hidden),
        nn.ReLU(),
        nn.Dropout(0.3),  # the same masks on every device
        nn.Linear(options.hidden, 10),
    )
    trainer = fnn.Trainer(
        model,
        loss="cross_entropy",
        optimizer=optim.Adam(lr=1e-3),
        metrics=["accuracy"],
        device=device,
        seed=options.seed,
    )
    start = time.perf_counter()
    history = trainer.fit(
        x_train, y_train, epochs=options.epochs, batch_size=options.batch_size, verbose=False
    )
    seconds = time.perf_counter() - start
    accuracy = trainer.evaluate(x_test, y_test)["accuracy"]
    print(
        f"{trainer.device}: {trainer.step} steps in {seconds:.2f} s, kernels compiled or loaded; "
        f"loss {history['loss'][-1]:.5f}, test accuracy {accuracy:.4f}"
    )
    return list(history["loss"])


def main(arguments: list[str] | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true", help="compare with the CPU")
    options = parser.parse_args(arguments)
    losses = train(options.device, options)
    if options.check:
        np.testing.assert_allclose(losses, train("cpu", options), rtol=TOLERANCE)
        print(f"the losses of all epochs agree to {TOLERANCE:.0e}")
    return losses


if __name__ == "__main__":
    main()
