"""A language model on Shakespeare's plays, character by character, on a GPU or the CPU.

python examples/gpu_char_lm.py --device cuda --epochs 7    (1.1 MB are downloaded once)
python examples/gpu_char_lm.py --device cuda --epochs 1 --characters 50000 --check
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import numpy as np

from fastnn.data.shakespeare import Characters, load_shakespeare
from fastnn.tasks.char_lm import train_char_lm
from fastnn.tasks.sampling import write_text

#: how far the bits per character of two devices may lie apart
TOLERANCE = 5e-3


def train(device: str, text: Characters, options: argparse.Namespace) -> list[float]:
    """Train on a device; bits per character of the epochs, and of the validation text."""
    start = time.perf_counter()
    trainer, history, bits = train_char_lm(
        text, hidden=options.hidden, layers=2, steps=options.steps, batch_size=options.streams,
        epochs=options.epochs, device=device, seed=options.seed, verbose=False,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    print(
        f"{trainer.device}: {trainer.step} steps in {seconds:.1f} s with validation and "
        f"compilation; {bits:.4f} bits per character"
    )
    if options.write:
        written = write_text(
            trainer.model.with_streams(1), text.vocabulary, options.write, temperature=0.8
        )
        print(written)
    return [*history["bits"], bits]


def main(arguments: list[str] | None = None, text: Characters | None = None) -> list[float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--steps", type=int, default=64, help="characters gradients go back")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--characters", type=int, default=0, help="train on so many only")
    parser.add_argument("--write", type=int, default=0, help="characters to write at the end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", action="store_true", help="compare with the CPU")
    options = parser.parse_args(arguments)
    text = text or load_shakespeare()
    if options.characters:
        size = options.characters
        text = dataclasses.replace(text, train=text.train[:size], valid=text.valid[: size // 5])
    found = train(options.device, text, options)
    if options.check:
        np.testing.assert_allclose(found, train("cpu", text, options), rtol=TOLERANCE)
        print(f"bits per character agree to {TOLERANCE:.0e}")
    return found


if __name__ == "__main__":
    main()
