"""A training loop of one's own: `fnn.compile` gives a function that does one step.

The loop here draws its batches by hard examples: samples with a larger loss come more often. It
looks at gradients and sets the learning rate on the way.

    python examples/own_loop.py --steps 1500
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import fastnn as fnn
from fastnn import nn, optim
from fastnn.data.digits import load_digits


def row_losses(model: nn.Module, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cross entropy of each sample."""
    logits = model.predict(x)
    logits = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]


def main(arguments: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args(arguments)

    (x_train, y_train), (x_test, y_test) = load_digits()
    model = nn.Sequential(nn.Linear(64, 128), nn.SiLU(), nn.LayerNorm(128), nn.Linear(128, 10))
    step = fnn.compile(model, nn.CrossEntropyLoss(), optim.Adam(lr=3e-3, clip_global_norm=5.0))

    rng = np.random.default_rng(0)
    chances = np.full(len(y_train), 1.0 / len(y_train))
    mean, times = 0.0, []
    for k in range(options.steps):
        rows = rng.choice(len(y_train), options.batch, p=chances)
        x, y = x_train[rows], y_train[rows]
        begin = time.perf_counter()
        loss = step(x, y)
        times.append(time.perf_counter() - begin)
        mean += 0.05 * (loss - mean)
        if (k + 1) % 250 == 0:
            losses = row_losses(model, x_train, y_train)
            chances = 0.5 / len(losses) + 0.5 * losses / losses.sum()
            gradients = step.gradients(x, y)
            norm = np.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
            print(f"step {step.steps}: loss {mean:.4f}, gradient norm {norm:.3f}")
        if k + 1 == options.steps * 3 // 4:
            step.learning_rate /= 10

    accuracy = float((model.predict(x_test).argmax(axis=1) == y_test).mean())
    print(
        f"test loss {step.evaluate(x_test, y_test):.4f}, accuracy {accuracy:.4f}; "
        f"a step takes {1e6 * np.median(times):.0f} microseconds"
    )
    return accuracy


if __name__ == "__main__":
    main()
