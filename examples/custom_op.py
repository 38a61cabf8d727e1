"""An op of one's own: swish with a trained slope, x * sigmoid(beta * x).

The op is two plain Python functions of arrays per direction; it trains like any built-in one.

    python examples/custom_op.py --epochs 20
"""

from __future__ import annotations

import argparse
import math

import numpy as np

import fastnn as fnn
from fastnn import nn, optim
from fastnn.data.digits import load_digits


@fnn.helper
def sigmoid(z):
    """1 / (1 + e^-z), without overflow."""
    if z >= 0.0:
        return 1.0 / (1.0 + math.exp(-z))
    e = math.exp(z)
    return e / (1.0 + e)


@fnn.kernel
def forward(
    x: "in rows f[N,C]",
    beta: "in whole f[C]",  # one slope for each feature
    y: "out rows f[N,C]",
    lo: "begin",
    hi: "end",
):
    """y = x s with s = sigmoid(beta x)."""
    for i in range(lo, hi):
        for j in range(x.shape[1]):
            y[i, j] = x[i, j] * sigmoid(beta[j] * x[i, j])


@fnn.kernel
def backward_x(
    x: "in rows f[N,C]",
    beta: "in whole f[C]",
    dy: "in rows f[N,C]",
    dx: "out rows f[N,C]",
    lo: "begin",
    hi: "end",
):
    """dx = dy s (1 + beta x (1 - s))."""
    for i in range(lo, hi):
        for j in range(x.shape[1]):
            s = sigmoid(beta[j] * x[i, j])
            dx[i, j] = dy[i, j] * s * (1.0 + beta[j] * x[i, j] * (1.0 - s))


@fnn.kernel
def backward_beta(
    x: "in cols f[N,C]",
    beta: "in cols f[C]",
    dy: "in cols f[N,C]",
    dbeta: "out cols f[C]",
    lo: "begin",
    hi: "end",
):
    """dbeta = sum over the samples of dy x^2 s (1 - s): a worker sums whole columns."""
    for j in range(lo, hi):
        total = 0.0
        for i in range(x.shape[0]):
            s = sigmoid(beta[j] * x[i, j])
            total += dy[i, j] * x[i, j] ** 2 * s * (1.0 - s)
        dbeta[j] = total


swish = fnn.define_op("trained_swish", forward, [backward_x, backward_beta])


class Swish(nn.Module):
    """Swish whose slopes are trained, one for each feature."""

    def __init__(self, features: int):
        self.beta = nn.Parameter((features,), 1.0)

    def forward(self, x):
        return swish(x, self.beta)


def main(arguments: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--hidden", type=int, default=64)
    options = parser.parse_args(arguments)

    x = np.random.default_rng(0).normal(size=(5, 3))
    assert fnn.testing.gradcheck(Swish(3), x)
    print("the gradients agree with central differences")

    (x_train, y_train), (x_test, y_test) = load_digits()
    model = nn.Sequential(
        nn.Linear(64, options.hidden), Swish(options.hidden), nn.Linear(options.hidden, 10)
    )
    trainer = fnn.Trainer(
        model, loss="cross_entropy", optimizer=optim.Adam(lr=3e-3), metrics=["accuracy"]
    )
    trainer.fit(x_train, y_train, epochs=options.epochs, batch_size=32, verbose=False)
    accuracy = trainer.evaluate(x_test, y_test)["accuracy"]
    slopes = model[1].beta.value
    print(f"slopes {slopes.min():.2f} to {slopes.max():.2f}, test accuracy {accuracy:.4f}")
    return accuracy


if __name__ == "__main__":
    main()
