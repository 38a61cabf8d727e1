"""Spoken digits: an LSTM in both directions over recordings of different lengths, on a GPU or CPU.

python examples/gpu_spoken_digits.py --device cuda         (16 MB are downloaded once)
python examples/gpu_spoken_digits.py --device cuda --epochs 2 --recordings 400 --check
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from fastnn.data.spoken_digits import SpokenDigits
from fastnn.tasks.spoken_digits import splits, train_spoken_digits

#: how far the losses of two devices may lie apart
TOLERANCE = 5e-3


def train(
    device: str, data: tuple[SpokenDigits, SpokenDigits], options: argparse.Namespace
) -> list[float]:
    """Train on a device; the losses of the epochs."""
    start = time.perf_counter()
    trainer, history, accuracy = train_spoken_digits(
        *data, hidden=options.hidden, layers=options.layers, epochs=options.epochs,
        batch_size=options.batch_size, device=device, seed=options.seed, verbose=False,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    print(
        f"{trainer.device}: {trainer.step} steps in {seconds:.1f} s with tests and compilation; "
        f"loss {history['loss'][-1]:.4f}, test accuracy {accuracy:.4f}"
    )
    return list(history["loss"])


def main(
    arguments: list[str] | None = None, data: tuple[SpokenDigits, SpokenDigits] | None = None
) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--recordings", type=int, default=0, help="train on so many only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true", help="compare with the CPU")
    options = parser.parse_args(arguments)
    learn, test = data or splits()
    if options.recordings:
        order = np.random.default_rng(0).permutation(len(learn))
        learn = learn.take(order[: options.recordings])
    losses = train(options.device, (learn, test), options)
    if options.check:
        np.testing.assert_allclose(losses, train("cpu", (learn, test), options), rtol=TOLERANCE)
        print(f"the losses of all epochs agree to {TOLERANCE:.0e}")
    return losses


if __name__ == "__main__":
    main()
