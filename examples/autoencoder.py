"""A denoising autoencoder: digits squeezed through a few numbers and back.

Without targets the trainer takes the inputs as targets; the noise is a dropout on the inputs. The
encoder is used on its own afterwards: the two models share their parameters.

    python examples/autoencoder.py --epochs 60
"""

from __future__ import annotations

import argparse

import numpy as np

import fastnn as fnn
from fastnn import nn, optim
from fastnn.data.digits import load_digits


class Autoencoder(nn.Module):
    """64 pixels to `code` numbers and back."""

    def __init__(self, code: int):
        self.encoder = nn.Sequential(
            nn.Linear(64, 64), nn.GELU(), nn.Linear(64, code), nn.LayerNorm(code)
        )
        self.decoder = nn.Sequential(
            nn.Linear(code, 64), nn.GELU(), nn.Linear(64, 64), nn.Sigmoid()
        )
        self.noise = nn.Dropout(0.1)

    def forward(self, x):
        return self.decoder(self.encoder(self.noise(x)))


def neighbour_accuracy(
    known: np.ndarray, labels: np.ndarray, codes: np.ndarray, truth: np.ndarray
) -> float:
    """How often the nearest known code has the right label: what a code says of its digit."""
    distances = ((codes[:, None, :] - known[None, :, :]) ** 2).sum(axis=2)
    return float((labels[distances.argmin(axis=1)] == truth).mean())


def main(arguments: list[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--code", type=int, default=8, help="numbers in a code")
    options = parser.parse_args(arguments)

    (x_train, y_train), (x_test, y_test) = load_digits()
    model = Autoencoder(options.code)
    trainer = fnn.Trainer(model, loss="mse", optimizer=optim.Adam(lr=2e-3))
    trainer.fit(x_train, epochs=options.epochs, batch_size=32, verbose=False)

    error = trainer.evaluate(x_test)["loss"]
    variance = float(((x_test - x_train.mean(axis=0)) ** 2).mean())
    accuracy = neighbour_accuracy(
        model.encoder.predict(x_train), y_train, model.encoder.predict(x_test), y_test
    )
    print(
        f"{options.code} numbers keep {100 * (1 - error / variance):.1f} % of the test digits' "
        f"variance; the nearest code has the right label for {100 * accuracy:.1f} %"
    )
    return 1 - error / variance


if __name__ == "__main__":
    main()
